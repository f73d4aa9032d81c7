"""What admins do with a site from the command line, without a server or beside it."""

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import Connection

from commserver.config import Config
from commserver.core.clock import SystemClock
from commserver.dao import migrations, ours
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.grants import ON_SQLITE, needed, not_owned, statements
from commserver.dao.plan import described
from commserver.errors import StoreError
from commserver.services.admin_service import AdminService
from commserver.services.archive_service import ArchiveService
from commserver.services.audit_service import AuditService
from commserver.services.erase_service import EraseService
from commserver.services.exercise_service import ExerciseService
from commserver.services.file_store import FileStore


@asynccontextmanager
async def opened(config: Config, *, wait: bool = False) -> AsyncIterator[DatabaseManager]:
    """Yield the configured database, connected.

    wait: for as long as it is away.

    Raises:
        ConfigError, StoreError: it cannot be used.
    """
    timeout = config.database.timeout
    database = DatabaseManager(
        config.database_url,
        acquire_timeout=timeout,
        transaction_timeout=timeout,
        pool=config.database.pool,
    )
    await database.open(wait=wait)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def ready(config: Config) -> AsyncIterator[DatabaseManager]:
    """Yield the configured database, which can be worked with.

    Raises:
        ConfigError, StoreError: it is not there, or not migrated.
    """
    async with opened(config) as database:
        await migrations.check(database)
        yield database


@asynccontextmanager
async def admin(config: Config) -> AsyncIterator[AdminService]:
    """Yield what admins do directly in the database, which must be ready."""
    async with ready(config) as database:
        yield AdminService(database, DaoManager(), stored(config), SystemClock(), who=operator())


@asynccontextmanager
async def exercises(config: Config) -> AsyncIterator[ExerciseService]:
    """Yield what knows the exercises that the database has."""
    async with ready(config) as database:
        yield ExerciseService(database, DaoManager(), stored(config))


def stored(config: Config) -> FileStore:
    """Return the configured file store."""
    limits = config.files
    return FileStore(config.files_dir, limit=limits.limit, file_limit=limits.file_limit)


@asynccontextmanager
async def archives(config: Config, *, new: bool = False) -> AsyncIterator[ArchiveService]:
    """Yield what makes archives of the configured site or, where it is `new`, restores one."""
    async with opened(config) if new else ready(config) as database:
        yield ArchiveService(database, FileStore(config.files_dir), SystemClock())


@asynccontextmanager
async def eraser(config: Config) -> AsyncIterator[EraseService]:
    """Yield what forgets an account, beside a running server if there is one."""
    async with ready(config) as database:
        files = FileStore(config.files_dir)
        yield EraseService(database, DaoManager(), files, SystemClock(), who=operator())


@asynccontextmanager
async def auditing(config: Config) -> AsyncIterator[AuditService]:
    """Yield the record of what admins did."""
    async with ready(config) as database:
        yield AuditService(database, DaoManager(), SystemClock())


def operator() -> str:
    """Return who is at the command line, as the audit calls them."""
    number = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(number).pw_name}"
    except KeyError:  # a container's user often has no name
        return f"cli:{number}"


async def migrate(config: Config, *, with_platform: bool) -> bool:
    """Bring the configured database to what this version needs; the audit says from where to where.

    Returns whether there was anything to do.

    Raises:
        ConfigError, StoreError: it cannot be migrated.
    """
    async with opened(config) as database:
        before = await migrations.current(database)
        platform = await migrations.current(database, migrations.PLATFORM)
        await migrations.upgrade(database, with_platform=with_platform)
        after = await migrations.current(database)
        if before != after:
            audit = AuditService(database, DaoManager(), SystemClock())
            detail = f"from {before or 'nothing'} to {after}"
            await audit.record(operator(), "migrate", "database", detail)
        made = await migrations.current(database, migrations.PLATFORM)
        return (before, platform) != (after, made)


async def problems(config: Config) -> list[str] | None:
    """Return what keeps a server from working on the configured database, a sentence each.

    None when there is no database yet: `commserver migrate` makes it.
    """
    try:
        found = await migrations.glance(config.database_url, migrations.problems)
    except StoreError as error:
        found = [str(error)]
    if unwritable := migrations.unwritable(config.database_url):
        return [unwritable, *(found or [])]
    return found


async def plan(config: Config, *, with_platform: bool) -> list[str]:
    """Return, in lines for people, what a migration would do with the configured database.

    Raises:
        ConfigError, StoreError: the database cannot be read, or would not be migrated.
    """

    def look(connection: Connection | None) -> list[str]:
        dialect = connection.dialect.name if connection else "sqlite"  # the one that is made
        return described(migrations.plan(connection, dialect, with_platform=with_platform), dialect)

    lines = await migrations.glance(config.database_url, look)
    return look(None) if lines is None else lines


async def grants(config: Config, role: str) -> list[str]:
    """Return, in lines of SQL, the rights that a role needs on the configured database.

    None on what the role owns, such as our tables once it has migrated.

    Raises:
        ConfigError, StoreError: the database cannot be read, or would not be migrated.
    """

    def look(connection: Connection) -> list[str]:
        if obstacle := ours.obstacle(connection):
            raise StoreError(obstacle)
        if connection.dialect.name == "sqlite":
            return [ON_SQLITE]
        return list(statements(not_owned(connection, needed(connection), role), role))

    return await migrations.glance(config.database_url, look) or [ON_SQLITE]
