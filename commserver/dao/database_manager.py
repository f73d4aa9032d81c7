"""The one way to the database: whole transactions, each with a known outcome."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from commserver.dao.sqlite import Sqlite
from commserver.errors import ConfigError, StoreError, StoreRefused

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]


class DatabaseManager:
    """Owns every connection to one database and runs transactions on them.

    A transaction is a coroutine function that takes the connection and awaits nothing else than
    its statements; what it returns is handed on once it is committed, and whatever it raises undoes
    it.

    A transaction that was begun is never abandoned: a caller that is cancelled meanwhile waits for
    its end, which the deadlines bound, and then gets its CancelledError. **When that error has no
    ``__cause__`` the transaction was committed; else the cause says why nothing was written.** Who
    must act upon the outcome whatever happens runs transaction and act in one task and awaits it
    with `settled`.

    acquire_timeout: seconds to wait for a free connection.
    transaction_timeout: seconds for all statements of a transaction; not for its commit, whose
    outcome would then be unknown.
    """

    def __init__(
        self, url: str, *, acquire_timeout: float = 5.0, transaction_timeout: float = 30.0
    ) -> None:
        """Connects nothing yet.

        Raises:
            ConfigError: `url` names no database that we know.
        """
        self._dialect = _dialect(url, acquire_timeout)
        self._acquire_timeout = acquire_timeout
        self._transaction_timeout = transaction_timeout
        self._running: set[asyncio.Task[object]] = set()
        self._open = False

    async def open(self) -> None:
        """Connect; a SQLite file that is missing is made, and its folder.

        Raises:
            StoreError: there is no way to read and write it.
        """
        self._dialect.prepare()
        self._open = True
        try:
            await self.write(_nothing)
        except BaseException:  # cancelled as well: nobody would close it
            await self.close()
            raise

    async def close(self) -> None:
        """Begin nothing new, wait for what is running, then disconnect."""
        self._open = False
        if self._running:
            await asyncio.wait(self._running)
        await self._dialect.writer.dispose()
        await self._dialect.reader.dispose()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[None]:
        """Be this database's only manager for as long as the block or the process lives.

        Raises:
            AlreadyManaged: another one is; it says which.
        """
        async with self._dialect.claim():
            yield

    async def write(self, work: Work[T], *, deadline: float | None = None) -> T:
        """Run `work` as one transaction that may write, and return its result once committed.

        Writers take turns. `deadline` replaces the transaction time-out.

        Raises:
            AlreadyExists: it would have made a second row of one that must be alone.
            StoreError: any other refusal of the database; nothing was written.
        """
        return await self._run(self._dialect.writer, work, deadline)

    async def read(self, work: Work[T], *, deadline: float | None = None) -> T:
        """Run `work` as one transaction that sees a single moment of the database.

        Raises:
            StoreError: the database did not answer, or `work` tried to write.
        """
        return await self._run(self._dialect.reader, work, deadline)

    async def _run(self, engine: AsyncEngine, work: Work[T], deadline: float | None) -> T:
        if not self._open:
            raise StoreError("the database is not open")
        seconds = self._transaction_timeout if deadline is None else deadline
        task = asyncio.create_task(self._transact(engine, work, seconds))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await settled(task)

    async def _transact(self, engine: AsyncEngine, work: Work[T], seconds: float) -> T:
        try:
            async with (
                engine.begin() as connection,
                # Inside, so that it is over before the commit begins.
                self._dialect.deadline(connection, seconds),
            ):
                return await work(connection)
        except DBAPIError as error:
            raise self._dialect.translated(error) from error
        except PoolTimeout as error:
            raise StoreError(
                f"no connection to the database was free within {self._acquire_timeout:g} s"
            ) from error
        except SQLAlchemyError as error:
            raise StoreError(str(error)) from error
        except (OverflowError, UnicodeEncodeError) as error:
            # SQLite's driver has no error of its own for a number or a text that does not fit.
            raise StoreRefused("a value that the database cannot hold") from error


async def settled(task: asyncio.Task[T]) -> T:
    """Wait until `task` has ended, even when the caller is cancelled meanwhile.

    Returns its result or raises its error. For a cancelled caller the CancelledError wins, raised
    only now and from the task's error, if it had one.
    """
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()):
            raise cancelled from error
        raise


def _dialect(url: str, acquire_timeout: float) -> Sqlite:
    parsed = _parsed(url)
    kind = parsed.get_backend_name()
    if kind != "sqlite":
        raise ConfigError([f"database.url: {kind} is not supported, only sqlite"])
    return Sqlite(parsed, acquire_timeout)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        # Its own text may show a password.
        raise ConfigError(
            ["database.url: not a URL such as sqlite:///var/commserver.db"]
        ) from error


async def _nothing(connection: AsyncConnection) -> None:
    """Connect, begin and commit."""
