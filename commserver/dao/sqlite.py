"""SQLite: one writer, several readers, and what each of their connections is set to."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from sqlite3 import DatabaseError
from typing import cast

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from commserver.dao.lock_file import LockFile
from commserver.errors import AlreadyExists, ConfigError, StoreError, StoreRefused

BUSY_TIMEOUT = 5.0  # seconds a statement waits for another process's transaction
READERS = 4
INTERRUPT_PERIOD = 0.05  # seconds between two interrupts of a transaction past its deadline

PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT * 1000:.0f}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
)
_NEVER = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
_UNIQUE = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})


class Sqlite:
    """What a DatabaseManager must know of SQLite.

    The writer is a single connection whose transactions begin with the write lock in hand, so that
    none of them can fail half-way for want of it. Readers see the database as it was at their
    first statement, wait for nobody and cannot write.
    """

    def __init__(self, url: URL, acquire_timeout: float) -> None:
        path = url.database
        if not path or path == ":memory:" or path.startswith("file:"):
            raise ConfigError(["database.url: SQLite needs the path of a file"])
        url = url.set(drivername="sqlite+aiosqlite")
        self.path = Path(path)
        self.writer = _engine(url, "BEGIN IMMEDIATE", 1, acquire_timeout)
        self.reader = _engine(url, "BEGIN", READERS, acquire_timeout, "query_only = ON")

    def prepare(self) -> None:
        """Make the folder and the file, which only its owner may read; leave what is there.

        Raises:
            StoreError: the system does not let us.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StoreError(f"cannot open the database {self.path}: {error.strerror}") from error

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[None]:
        """Be the one manager of this database, by a lock file beside it."""
        path = self.path.resolve()
        lock = LockFile(path.with_name(f"{path.name}.lock"))
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @asynccontextmanager
    async def deadline(self, connection: AsyncConnection, seconds: float) -> AsyncIterator[None]:
        """Make statements fail that still run after `seconds`; the transaction can be undone."""
        raw = await connection.get_raw_connection()
        driver = cast(aiosqlite.Connection, raw.driver_connection)
        watch = asyncio.create_task(_interrupt(driver, seconds))
        try:
            yield
        finally:
            watch.cancel()

    def translated(self, error: DBAPIError) -> StoreError:
        """Return our error for one of the driver's, without any value of the statement in it."""
        name = getattr(error.orig, "sqlite_errorname", "")
        text = str(error.orig)
        if name in _UNIQUE:
            return AlreadyExists(text.removeprefix("UNIQUE constraint failed: "))
        if name == "SQLITE_INTERRUPT":
            return StoreError("a transaction took too long and was undone")
        if name.startswith(_NEVER) or text.startswith("Could not decode"):
            return StoreRefused(text)
        return StoreError(text)


async def _interrupt(driver: aiosqlite.Connection, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await driver.interrupt()
        # Again and again: an interrupt between two statements stops neither.
        seconds = INTERRUPT_PERIOD


def _engine(
    url: URL, begin: str, connections: int, acquire_timeout: float, *pragmas: str
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=acquire_timeout,
        hide_parameters=True,  # errors are logged; tokens and sources are not
        # Leave BEGIN to us: the driver's own comes late and never takes the write lock.
        connect_args={"isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        try:
            _set_up(connection, pragmas)
        except DatabaseError as error:
            connection.close()
            raise StoreError(f"cannot use the database {url.database}: {error}") from error

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _set_up(connection: DBAPIConnection, pragmas: tuple[str, ...]) -> None:
    cursor = connection.cursor()
    for pragma in (*PRAGMAS, *pragmas):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute("PRAGMA journal_mode")
    mode = cursor.fetchone()
    cursor.close()
    if mode is None or mode[0] != "wal":
        raise DatabaseError("its file system cannot keep a write-ahead log")
