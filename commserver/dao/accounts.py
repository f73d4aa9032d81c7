"""`accounts`: the platform's users."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import accounts


class AccountDAO(DAO):
    """The platform's users."""

    table = accounts

    async def id_of(self, connection: AsyncConnection, username: str) -> int | None:
        """Return the id of the account of this name, None when nobody has it."""
        query = select(accounts.c.id).where(accounts.c.username == username)
        return await self._value(connection, query.order_by(accounts.c.id))

    async def name_of(self, connection: AsyncConnection, account: int) -> str | None:
        """Return the name of the account of this id, None when there is none."""
        return await self._value(
            connection, select(accounts.c.username).where(accounts.c.id == account)
        )

    async def add(self, connection: AsyncConnection, username: str) -> int:
        """Add an account and return its id."""
        return await self._add(connection, username=username)
