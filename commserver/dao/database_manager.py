"""The one way to the database: whole transactions, each with a known outcome."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dialect import Claim, Dialect, Work
from commserver.dao.patience import Patience
from commserver.dao.postgresql import CLAIM_PERIOD, POOL, Postgresql
from commserver.dao.sqlite import Sqlite
from commserver.errors import ConfigError, StoreError, StoreRefused

T = TypeVar("T")


class DatabaseManager:
    """Owns every connection to one database and runs transactions on them.

    A transaction is a coroutine function that takes the connection and awaits nothing else than
    its statements; what it returns is handed on once it is committed, and whatever it raises undoes
    it. On PostgreSQL it may be called a second time: when its connection turns out to be dead
    before the commit was sent, it is run once more on a new one.

    A transaction that was begun is never abandoned: a caller that is cancelled meanwhile waits for
    its end, which the deadlines bound, and then gets its CancelledError. **When that error has no
    ``__cause__`` the transaction was committed; else the cause says why nothing was written.** Who
    must act upon the outcome whatever happens runs transaction and act in one task and awaits it
    with `settled`.

    The outcome of a commit whose connection is lost meanwhile is asked for until the database tells
    it, be that hours; only `close` ends the asking, with a StoreError that says that it is not
    known.

    acquire_timeout: seconds to wait for a free connection.
    transaction_timeout: seconds for all statements of a transaction; not for its commit, whose
    outcome would then be unknown.
    pool: how many connections may write, and how many read, at the same time; for PostgreSQL.
    claim_period: seconds between two looks whether a claim on PostgreSQL is still ours.
    """

    def __init__(
        self,
        url: str,
        *,
        acquire_timeout: float = 5.0,
        transaction_timeout: float = 30.0,
        pool: int = POOL,
        claim_period: float = CLAIM_PERIOD,
    ) -> None:
        """Connects nothing yet.

        Raises:
            ConfigError: `url` names no database that we know.
        """
        self._dialect = _dialect(url, acquire_timeout, pool, claim_period)
        self._acquire_timeout = acquire_timeout
        self._transaction_timeout = transaction_timeout
        self._running: set[asyncio.Task[object]] = set()
        self._open = False

    async def open(self, *, wait: bool = False) -> None:
        """Connect; a SQLite file that is missing is made, and its folder.

        wait: until a database that is away is there, however long that takes.

        Raises:
            ConfigError: the database can never be used as it is.
            StoreError: there is no way to read and write it.
        """
        self._open = True
        patience = Patience()
        try:
            while True:
                try:
                    await self._dialect.open()
                    await self.write(_nothing)
                except StoreError as error:
                    if not wait:
                        raise
                    await patience.wait(error)
                else:
                    patience.over()
                    return
        except BaseException:  # cancelled as well: nobody would close it
            await self.close()
            raise

    async def close(self) -> None:
        """Begin nothing new, wait for what is running, then disconnect."""
        self._open = False
        self._dialect.stop()
        if self._running:
            await asyncio.wait(self._running)
        await self._dialect.close()

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
    async def claim(self) -> AsyncIterator[Claim]:
        """Be this database's only manager for as long as the block or the process lives.

        Whoever claims runs `keep` of what is yielded: a claim on PostgreSQL can be lost. From then
        on until it is taken again nothing is written.

        Raises:
            AlreadyManaged: another one is; it says which.
        """
        async with self._dialect.claim() as claim:
            yield claim

    async def write(self, work: Work[T], *, deadline: float | None = None) -> T:
        """Run `work` as one transaction that may write, and return its result once committed.

        Writers of SQLite take turns. `deadline` replaces the transaction time-out.

        Raises:
            AlreadyExists: it would have made a second row of one that must be alone.
            StoreError: any other refusal of the database; nothing was written.
        """
        return await self._run(work, deadline, writes=True)

    async def read(self, work: Work[T], *, deadline: float | None = None) -> T:
        """Run `work` as one transaction that sees a single moment of the database.

        Raises:
            StoreError: the database did not answer, or `work` tried to write.
        """
        return await self._run(work, deadline, writes=False)

    async def _run(self, work: Work[T], deadline: float | None, *, writes: bool) -> T:
        if not self._open:
            raise StoreError("the database is not open")
        seconds = self._transaction_timeout if deadline is None else deadline
        task = asyncio.create_task(self._transact(work, seconds, writes))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await settled(task)

    async def _transact(self, work: Work[T], seconds: float, writes: bool) -> T:
        try:
            return await self._dialect.transact(work, seconds, writes=writes)
        except PoolTimeout as error:
            raise StoreError(
                f"no connection to the database was free within {self._acquire_timeout:g} s"
            ) from error
        except SQLAlchemyError as error:
            if isinstance(error, StatementError) and isinstance(error.orig, UnicodeEncodeError):
                raise StoreRefused("a text that the database cannot hold") from error
            raise StoreError(str(error)) from error


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


def _dialect(url: str, acquire_timeout: float, pool: int, claim_period: float) -> Dialect:
    parsed = _parsed(url)
    match parsed.get_backend_name():
        case "sqlite":
            return Sqlite(parsed, acquire_timeout)
        case "postgresql" | "postgres":
            return Postgresql(parsed, acquire_timeout, pool, claim_period)
        case kind:
            raise ConfigError(
                [f"database.url: {kind} is not supported, only sqlite and postgresql"]
            )


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # Its own text may show a password.
        raise ConfigError(["database.url: not a URL such as sqlite:///var/commserver.db"]) from None


async def _nothing(connection: AsyncConnection) -> None:
    """Connect, begin and commit."""
