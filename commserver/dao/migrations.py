"""The two series of migrations, from inside and for the `alembic` command.

Each series keeps the tables of one family, has a version table of its own and never looks at what
is not its. All that one call does is one transaction: it happens whole or not at all.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from alembic import command, context
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import SchemaItem

import commserver
from commserver.dao import tables
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError

ROOT = Path(commserver.__file__).parents[1]
DEFAULT_URL = "sqlite:///var/commserver.db"
T = TypeVar("T")

DEADLINE = 3600.0  # seconds; a migration may copy a large table


@dataclass(frozen=True, slots=True)
class Series:
    """One series of migrations.

    section: of alembic.ini. version_table: where it notes how far it has come.
    """

    section: str
    tables: sa.MetaData
    version_table: str


COMMSERVER = Series("alembic", tables.commserver, "commserver_version")
PLATFORM = Series("platform", tables.platform, "platform_version")


async def upgrade(database: DatabaseManager, *, with_platform: bool = False) -> None:
    """Bring our tables, and the platform's if asked to, to what this version needs.

    Raises:
        StoreError: it could not be done, or there are platform tables or views that we did not
            make; nothing was changed.
    """

    def work(connection: Connection) -> None:
        if with_platform:
            _refuse_foreign(connection)
            command.upgrade(config(PLATFORM, connection), "head")
        command.upgrade(config(COMMSERVER, connection), "head")

    await _change(database, work)


async def downgrade(
    database: DatabaseManager, revision: str = "base", *, series: Series = COMMSERVER
) -> None:
    """Take one series back to `revision`; "base" drops its tables and what is in them.

    Raises:
        StoreError: it could not be done; nothing was changed.
    """

    def work(connection: Connection) -> None:
        command.downgrade(config(series, connection), revision)

    await _change(database, work)


async def current(database: DatabaseManager, series: Series = COMMSERVER) -> str | None:
    """Return the revision that the database is at, None before the first."""
    return await _look(database, partial(_revision, series))


async def pending(database: DatabaseManager, series: Series = COMMSERVER) -> tuple[str, ...]:
    """Return the revisions that are not applied yet, oldest first.

    Raises:
        StoreError: the database is at a revision that this version does not know.
    """
    revision = await current(database, series)
    known = _revisions(series)
    if revision is None:
        return known
    if revision not in known:
        raise StoreError(
            f"the database is at revision {revision}, which this version of commserver does not "
            f"know (it ends at {known[-1]}): a newer one has been here"
        )
    return known[known.index(revision) + 1 :]


async def missing_platform(database: DatabaseManager) -> tuple[str, ...]:
    """Return the platform's tables that are there neither as table nor as view."""
    present = await _look(database, _platform_present)
    return tuple(sorted(set(tables.platform.tables) - present))


async def check(database: DatabaseManager) -> None:
    """Return if the database is ready to be served from.

    Raises:
        StoreError: it is not, and what to do about it.
    """
    if missing := await pending(database):
        raise StoreError(
            f"the database lacks {len(missing)} migration(s) ({', '.join(missing)}): "
            "run `commserver migrate`"
        )
    if tables_missing := await missing_platform(database):
        raise StoreError(
            f"the database has no {', '.join(tables_missing)}: point database.url at the "
            "platform's database, or make its tables with `commserver migrate --with-platform`"
        )


def config(series: Series, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration of a series, to be run on `connection`."""
    found = Config(ROOT / "alembic.ini", ini_section=series.section)
    found.attributes["connection"] = connection
    return found


def run(series: Series) -> None:
    """What `env.py` of a series does: run on the connection it is given, else on one of its own."""
    if context.is_offline_mode():
        raise CommandError("--sql is not supported")
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is not None:
        _run_on(series, connection)
    else:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("alembic.runtime").setLevel(logging.INFO)
        asyncio.run(_run_alone(series))


async def _run_alone(series: Series) -> None:
    given = context.get_x_argument(as_dictionary=True).get("url")
    url = given or os.environ.get("COMMSERVER_DATABASE__URL") or DEFAULT_URL
    async with DatabaseManager(url) as database:
        await _change(database, partial(_run_on, series))


def _run_on(series: Series, connection: Connection) -> None:
    def include(
        item: SchemaItem,
        name: str | None,
        kind: str,
        reflected: bool,
        compare_to: SchemaItem | None,
    ) -> bool:
        return kind != "table" or name in series.tables.tables

    context.configure(
        connection=connection,
        target_metadata=series.tables,
        version_table=series.version_table,
        include_object=include,
        compare_type=True,
        # SQLite can undo DDL: our connections begin their transactions themselves.
        transactional_ddl=True,
        # SQLite changes a table by making it anew.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_rendered,
    )
    with context.begin_transaction():
        context.run_migrations()


def _rendered(kind: str, item: Any, autogenerated: AutogenContext) -> str | Literal[False]:
    """Write our own column types into new migrations as what they are in the database."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, sa.TypeDecorator) else False


async def _change(database: DatabaseManager, work: Callable[[Connection], None]) -> None:
    async def transaction(connection: AsyncConnection) -> None:
        await connection.run_sync(work)

    try:
        await database.write(transaction, deadline=DEADLINE)
    except CommandError as error:
        raise StoreError(str(error)) from error


async def _look(database: DatabaseManager, work: Callable[[Connection], T]) -> T:
    async def transaction(connection: AsyncConnection) -> T:
        return await connection.run_sync(work)

    return await database.read(transaction)


def _revision(series: Series, connection: Connection) -> str | None:
    options = {"version_table": series.version_table}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _revisions(series: Series) -> tuple[str, ...]:
    """Return every revision of a series, oldest first."""
    scripts = ScriptDirectory.from_config(config(series))
    return tuple(reversed([script.revision for script in scripts.walk_revisions()]))


def _platform_present(connection: Connection) -> set[str]:
    inspector = sa.inspect(connection)
    present = {*inspector.get_table_names(), *inspector.get_view_names()}
    return present & set(tables.platform.tables)


def _refuse_foreign(connection: Connection) -> None:
    present = _platform_present(connection)
    if present and _revision(PLATFORM, connection) not in _revisions(PLATFORM):
        raise StoreError(
            f"the platform's tables are there and not ours to keep: {', '.join(sorted(present))}"
        )
