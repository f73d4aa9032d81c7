"""What all data access objects share."""

from typing import Any, ClassVar, TypeVar

from sqlalchemy import Row, Select, Table
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class DAO:
    """The rows of one table, in the words of the core.

    Every method takes the connection of the caller's transaction first, so that several objects
    can take part in one. Errors of the database leave a transaction as StoreErrors, translated
    by the DatabaseManager.
    """

    table: ClassVar[Table]

    async def _add(self, connection: AsyncConnection, **values: object) -> int:
        """Insert a row and return the id that the database gave it."""
        result = await connection.execute(self.table.insert().values(**values))
        key = result.inserted_primary_key
        assert key is not None
        return int(key[0])

    async def _first(
        self, connection: AsyncConnection, query: Select[*tuple[Any, ...]]
    ) -> Row[*tuple[Any, ...]] | None:
        return (await connection.execute(query.limit(1))).first()

    async def _value(self, connection: AsyncConnection, query: Select[T]) -> T | None:
        """Return the only column of the first row, None when there is no row."""
        return await connection.scalar(query.limit(1))
