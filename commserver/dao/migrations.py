"""The two series of migrations, from inside and for the `alembic` command.

Each series keeps the tables of one family, has a version table of its own and never looks at what
is not its. All that one call does is one transaction: it happens whole or not at all. Whoever
changes a database is its only manager meanwhile: no server works on it.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from alembic import command, context
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import SchemaItem

import commserver
from commserver.dao import inspection, ours, tables
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.plan import LOCK_TIMEOUT, Step, Written, locks, named
from commserver.dao.sqlite import BUSY_TIMEOUT
from commserver.errors import StoreError

ROOT = Path(commserver.__file__).parents[1]
DEFAULT_URL = "sqlite:///var/commserver.db"
T = TypeVar("T")

DEADLINE = 3600.0  # seconds; a migration may copy a large table

LOCK_NOT_AVAILABLE = "55P03"
CHANGING = frozenset({"upgrade", "downgrade", "stamp"})  # of Alembic's commands


@dataclass(frozen=True, slots=True)
class Series:
    """One series of migrations.

    section: of alembic.ini. version_table: where it notes how far it has come.
    """

    section: str
    tables: sa.MetaData
    version_table: str


COMMSERVER = Series("alembic", tables.commserver, ours.VERSION_TABLE)
PLATFORM = Series("platform", tables.platform, "platform_version")


async def upgrade(database: DatabaseManager, *, with_platform: bool = False) -> None:
    """Bring our tables, and the platform's if asked to, to what this version needs.

    Raises:
        AlreadyManaged: a server is working on this database.
        StoreError: it could not be done, or there are tables that we did not make under names of
            ours, or the platform's where those are asked for; nothing was changed.
    """

    def work(connection: Connection) -> None:
        refuse(connection, with_platform=with_platform)
        if connection.dialect.name == "postgresql" and (
            lacking := inspection.lacks(connection, to_make=True)
        ):
            raise StoreError("; ".join(lacking))
        if with_platform:
            command.upgrade(config(PLATFORM, connection), "head")
        command.upgrade(config(COMMSERVER, connection), "head")

    await _change(database, work)


async def downgrade(
    database: DatabaseManager, revision: str = "base", *, series: Series = COMMSERVER
) -> None:
    """Take one series back to `revision`; "base" drops its tables and what is in them.

    Raises:
        AlreadyManaged: a server is working on this database.
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
    return _pending(series, await current(database, series))


def latest(series: Series = COMMSERVER) -> str:
    """Return the revision that this version of commserver brings a series to."""
    return _revisions(series)[-1]


async def glance(url: str, work: Callable[[Connection], T]) -> T | None:
    """Return what `work` reads from a database, of which nothing is changed or made.

    None when it is a SQLite file that is not there yet, or has nothing in it.

    Raises:
        ConfigError, StoreError: it cannot be read.
    """
    database = DatabaseManager(url)  # which refuses what is no URL of a database
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return await asyncio.to_thread(_glance_at_file, Path(parsed.database), work)
    async with database:
        return await _look(database, work)


def unwritable(url: str) -> str:
    """Return why a SQLite file and what belongs beside it cannot be written, "" if they can."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return ""
    path = Path(parsed.database).absolute()
    if path.exists() and not os.access(path, os.W_OK):
        return f"the database {path} cannot be written: it must be for the server to write"
    folder = next(one for one in path.parents if one.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return ""
    doing = "written" if folder == path.parent else "made"
    return (
        f"the folder {path.parent} of the database cannot be {doing}: make it, for the server to "
        "write"
    )


def plan(connection: Connection | None, dialect: str, *, with_platform: bool) -> list[Step]:
    """Return what `upgrade` would do with the database as it is now; nothing is changed.

    connection: None for a database that is not there yet. dialect: "sqlite" or "postgresql".

    Raises:
        StoreError: `upgrade` would refuse it.
    """
    if connection is not None:
        refuse(connection, with_platform=with_platform)
    steps: list[Step] = []
    made: set[str] = set()
    for series in (PLATFORM, COMMSERVER) if with_platform else (COMMSERVER,):
        revision = _revision(series, connection) if connection else None
        for target in _pending(series, revision):
            written = _written(series, dialect, revision, target)
            steps.append(
                Step(
                    series=series.version_table.removesuffix("_version"),
                    revision=target,
                    summary=_summary(series, target),
                    statements=written,
                    locks=locks(written, made, dialect),
                    named=named(written, tables.platform.tables),
                )
            )
            revision = target
    return steps


def problems(connection: Connection) -> list[str]:
    """Return what keeps a server from working on this database, one sentence each, with advice."""
    if obstacle := ours.obstacle(connection):
        return [obstacle, *inspection.problems(connection)]
    said = []
    if ours.readable(connection):  # else the right to it is among those that are lacking
        try:
            missing = _pending(COMMSERVER, _revision(COMMSERVER, connection))
        except StoreError as error:
            said = [str(error)]
        else:
            listed = f"{len(missing)} migration(s) ({', '.join(missing)})"
            said = [f"the database lacks {listed}: run `commserver migrate`"] if missing else []
    return said + inspection.problems(connection)


def refuse(connection: Connection, *, with_platform: bool = False) -> None:
    """Return if nothing that is in the database is in the way of a migration.

    Raises:
        StoreError: something is, with what to do about it.
    """
    present = inspection.look(connection) if with_platform else {}
    if present and not keeps_platform(connection):
        raise StoreError(
            f"the platform's tables are there and not ours to keep: {', '.join(sorted(present))}"
        )
    if obstacle := ours.obstacle(connection):
        raise StoreError(obstacle)
    if not ours.readable(connection):
        raise StoreError("; ".join(inspection.lacks(connection)))


def keeps_platform(connection: Connection) -> bool:
    """Return whether the platform's tables are ours: we made them."""
    return _revision(PLATFORM, connection) in _revisions(PLATFORM)


async def check(database: DatabaseManager) -> None:
    """Return if the database is ready to be served from.

    Raises:
        StoreError: it is not, with all that is wrong and what to do about it.
    """
    if found := await _look(database, problems):
        raise StoreError("; ".join(found))


def config(series: Series, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration of a series, to be run on `connection`."""
    found = Config(ROOT / "alembic.ini", ini_section=series.section)
    found.attributes["connection"] = connection
    return found


def run(series: Series) -> None:
    """What `env.py` of a series does: run on the connection it is given, else on one of its own."""
    if context.is_offline_mode():
        return _write(series, context.config.attributes)
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
    command_line = context.config.cmd_opts
    changing = command_line is None or command_line.cmd[0].__name__ in CHANGING
    async with DatabaseManager(url) as database:
        await _change(database, partial(_run_on, series), alone=changing)


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


def _write(series: Series, attributes: Mapping[str, Any]) -> None:
    """Write a series' statements down instead of executing them."""
    if "written" not in attributes:
        raise CommandError("--sql is not supported")
    context.configure(
        dialect_name=attributes["dialect"],
        output_buffer=attributes["written"],
        version_table=series.version_table,
        literal_binds=True,
        # No BEGIN and COMMIT among them.
        transactional_ddl=False,
    )
    with context.begin_transaction():
        context.run_migrations()


def _written(series: Series, dialect: str, revision: str | None, target: str) -> tuple[str, ...]:
    """Return the statements that lead from one revision to another.

    Raises:
        StoreError: they depend on what is in the tables.
    """
    found = config(series)
    written = Written()
    found.attributes.update(dialect=dialect, written=written)
    span = target if revision is None else f"{revision}:{target}"
    try:
        command.upgrade(found, span, sql=True)
    except CommandError as error:
        raise StoreError(f"migration {target} cannot be shown in advance: {error}") from error
    return tuple(written.statements)


def _rendered(kind: str, item: Any, autogenerated: AutogenContext) -> str | Literal[False]:
    """Write our own column types into new migrations as what they are in the database."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, sa.TypeDecorator) else False


async def _change(
    database: DatabaseManager, work: Callable[[Connection], None], *, alone: bool = True
) -> None:
    async def transaction(connection: AsyncConnection) -> None:
        if connection.dialect.name == "postgresql":
            limit = {"limit": f"{LOCK_TIMEOUT * 1000:.0f}"}
            query = sa.text("SELECT set_config('lock_timeout', :limit, true)")
            await connection.execute(query, limit)
        try:
            await connection.run_sync(work)
        except CommandError as error:
            raise StoreError(str(error)) from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            raise StoreError(
                f"a table was in use by somebody else's transaction for {LOCK_TIMEOUT:g} s; "
                "nothing was changed: run it again when that has ended"
            ) from error

    async with AsyncExitStack() as stack:
        if alone:
            await stack.enter_async_context(database.claim())
        await database.write(transaction, deadline=DEADLINE)


async def _look(database: DatabaseManager, work: Callable[[Connection], T]) -> T:
    async def transaction(connection: AsyncConnection) -> T:
        return await connection.run_sync(work)

    return await database.read(transaction)


def _glance_at_file(path: Path, work: Callable[[Connection], T]) -> T | None:
    if not path.exists():
        return None
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT),
        poolclass=sa.NullPool,
    )
    try:
        with engine.connect() as connection:
            if not connection.scalar(sa.text("SELECT count(*) FROM sqlite_master")):
                return None
            return work(connection)
    except DBAPIError as error:
        raise StoreError(f"cannot read the database {path}: {error.orig}") from error


def _revision(series: Series, connection: Connection) -> str | None:
    options = {"version_table": series.version_table}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _pending(series: Series, revision: str | None) -> tuple[str, ...]:
    known = _revisions(series)
    if revision is None:
        return known
    if revision not in known:
        raise StoreError(
            f"the database is at revision {revision}, which this version of commserver does not "
            f"know (it ends at {known[-1]}): a newer one has been here"
        )
    return known[known.index(revision) + 1 :]


def _summary(series: Series, revision: str) -> str:
    script = ScriptDirectory.from_config(config(series)).get_revision(revision)
    return script.doc


def _revisions(series: Series) -> tuple[str, ...]:
    """Return every revision of a series, oldest first."""
    scripts = ScriptDirectory.from_config(config(series))
    return tuple(reversed([script.revision for script in scripts.walk_revisions()]))
