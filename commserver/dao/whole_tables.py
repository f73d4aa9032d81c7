"""Whole tables as plain rows, which are the same from and for every kind of database."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from commserver.dao.column_types import Json
from commserver.dao.tables import UNFINISHED, commserver, executions, platform, site

AT_ONCE = 500  # rows that are in memory at a time

OURS: tuple[sa.Table, ...] = tuple(commserver.sorted_tables)  # what others refer to comes first
PLATFORMS: tuple[sa.Table, ...] = tuple(platform.sorted_tables)


def record_type(table: sa.Table) -> type[msgspec.Struct]:
    """Return what one row of a table is, to be decoded strictly."""
    fields = [(str(column.name), _kind(column)) for column in table.columns]
    return msgspec.defstruct(table.name, fields, forbid_unknown_fields=True)


async def rows(
    connection: AsyncConnection, table: sa.Table
) -> AsyncIterator[Sequence[dict[str, Any]]]:
    """Yield every row of a table, a few at a time."""
    plain = _plain(table)
    result = await connection.stream(sa.select(plain))
    async for some in result.mappings().partitions(AT_ONCE):
        yield [dict(row) for row in some]


async def contents(connection: AsyncConnection) -> AsyncIterator[tuple[str, bool]]:
    """Yield the name of each content that runs name, and whether one of them has not ended."""
    needed = sa.func.max(sa.case((sa.text(UNFINISHED), 1), else_=0))
    query = (
        sa.select(executions.c.content_hash, needed)
        .where(executions.c.content_hash != "")
        .group_by(executions.c.content_hash)
    )
    async for name, unfinished in await connection.stream(query):
        yield name, bool(unfinished)


async def fill(
    connection: AsyncConnection, table: sa.Table, records: Iterable[msgspec.Struct]
) -> None:
    """Add rows to a table as they are."""
    values = [msgspec.structs.asdict(record) for record in records]
    if values:
        await connection.execute(_plain(table).insert(), values)


async def filled(connection: AsyncConnection, tables: Iterable[sa.Table]) -> list[str]:
    """Return the names of those tables that have a row; one that is not there has none."""
    names = set(await connection.run_sync(lambda c: sa.inspect(c).get_table_names()))
    return [
        table.name
        for table in tables
        if table.name in names
        and await connection.scalar(sa.select(sa.literal(1)).select_from(table).limit(1))
    ]


async def number_on(connection: AsyncConnection, table: sa.Table) -> None:
    """Let the database number new rows of a table above those that it was filled with."""
    numbered = "id" in table.c and not isinstance(table.c.id.type, sa.String)
    if not numbered or connection.dialect.name != "postgresql":
        return  # SQLite looks at the rows
    highest = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    sequence = sa.func.pg_get_serial_sequence(table.name, "id")
    await connection.execute(
        sa.select(sa.func.setval(sequence, highest)).where(highest.is_not(None))
    )


async def site_id(connection: AsyncConnection) -> str:
    """Return which installation this is, "" where none has served yet."""
    return await connection.scalar(sa.select(site.c.id)) or ""


def _plain(table: sa.Table) -> sa.TableClause:
    """Return a table whose columns are what the database keeps, not what we make of it."""
    columns = [sa.column(column.name, _stored(column.type)) for column in table.columns]
    return sa.table(table.name, *columns)


def _stored(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return sa.Text() if isinstance(kind, Json | sa.Enum) else kind


def _kind(column: sa.Column[Any]) -> Any:
    """Return the type of a column's values in Python."""
    stored = _stored(column.type)
    plain = stored.impl_instance if isinstance(stored, sa.TypeDecorator) else stored
    kind: Any = plain.python_type
    if kind is datetime:
        kind = Annotated[datetime, msgspec.Meta(tz=True)]
    return kind | None if column.nullable else kind
