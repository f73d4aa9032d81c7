"""SQLite: one writer, several readers, and what each of their connections is set to."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from sqlite3 import DatabaseError
from typing import TypeAlias, TypeVar, cast

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from commserver.dao.dialect import Work
from commserver.dao.lock_file import LockFile
from commserver.errors import AlreadyExists, ConfigError, StoreError, StoreRefused

T = TypeVar("T")
_File: TypeAlias = tuple[int, int]  # device and number: another file has others

BUSY_TIMEOUT = 5.0  # seconds a statement waits for another process's transaction
READERS = 4
INTERRUPT_PERIOD = 0.05  # seconds between two interrupts of a transaction past its deadline

PRAGMAS = (
    f"busy_timeout = {BUSY_TIMEOUT * 1000:.0f}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
)
_BESIDE = ("-wal", "-shm")  # what belongs to a database that is in use, by the ends of their names
_NEVER = ("SQLITE_CONSTRAINT", "SQLITE_CORRUPT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
_UNIQUE = frozenset({"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"})


class Sqlite:
    """What a DatabaseManager must know of SQLite.

    The writer is a single connection whose transactions begin with the write lock in hand, so that
    none of them can fail half-way for want of it. Readers see the database as it was at their
    first statement, wait for nobody and cannot write.

    SQLite does not mind when its files are removed, and writes on into the void: nothing is
    committed, nor believed that was read, unless they are still where they were.
    """

    def __init__(self, url: URL, acquire_timeout: float) -> None:
        path = url.database
        if not path or path == ":memory:" or path.startswith("file:"):
            raise ConfigError(["database.url: SQLite needs the path of a file"])
        url = url.set(drivername="sqlite+aiosqlite")
        self.path = Path(path)
        self._files: dict[Path, _File | None] = {}  # what is in use, as it was found
        self.writer = _engine(url, "BEGIN IMMEDIATE", 1, acquire_timeout)
        self.reader = _engine(url, "BEGIN", READERS, acquire_timeout, "query_only = ON")
        event.listen(self.writer.sync_engine, "connect", self._connected)

    async def open(self) -> None:
        """Make the folder and the file, which only its owner may read; leave what is there.

        Raises:
            StoreError: the system does not let us.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Never a file that is there: to close it would drop all locks that we have on it.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._files = {self.path: _file(self.path)}
        except OSError as error:
            raise StoreError(f"cannot open the database {self.path}: {error.strerror}") from error
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise StoreError(f"cannot open the database {self.path}: we may not read and write it")

    def stop(self) -> None:
        """Nothing of ours waits for others to come back."""

    async def close(self) -> None:
        """Disconnect."""
        await self.writer.dispose()
        await self.reader.dispose()

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[LockFile]:
        """Be the one manager of this database, by a lock file beside it."""
        path = self.path.resolve()
        lock = LockFile(path.with_name(f"{path.name}.lock"))
        lock.acquire()
        try:
            yield lock
        finally:
            lock.release()

    async def transact(self, work: Work[T], seconds: float, *, writes: bool) -> T:
        """Run one transaction; see DatabaseManager."""
        try:
            async with (
                (self.writer if writes else self.reader).begin() as connection,
                # Inside, so that it is over before the commit begins.
                self.deadline(connection, seconds),
            ):
                result = await work(connection)
                self._look()
                return result
        except DBAPIError as error:
            raise self.translated(error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            # The driver has no error of its own for a number or a text that does not fit.
            raise StoreRefused("a value that the database cannot hold") from error

    def _connected(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        path = self.path.resolve()
        for beside in (path.with_name(path.name + ending) for ending in _BESIDE):
            self._files[beside] = _file(beside)

    def _look(self) -> None:
        for path, file in self._files.items():
            if _file(path) != file:
                raise StoreError(f"the database's file {path} was removed or replaced while in use")

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


def _file(path: Path) -> _File | None:
    """Return which file has this name, None when none has."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
    cursor.execute("SELECT 1 FROM sqlite_schema")  # from now on it has all of its files
    cursor.close()
    if mode is None or mode[0] != "wal":
        raise DatabaseError("its file system cannot keep a write-ahead log")
