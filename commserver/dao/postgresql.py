"""PostgreSQL: two pools of connections to one server, and commits whose outcome is always known."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import asyncpg
import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from commserver.dao.advisory_lock import FAULTS, AdvisoryLock, Driver
from commserver.dao.dialect import Work
from commserver.errors import AlreadyExists, ConfigError, StoreError, StoreRefused

T = TypeVar("T")

log = structlog.get_logger(__name__)

OLDEST = 13  # the first version that can tell how a transaction ended
POOL = 5
ANSWER = 0.5  # seconds for the server to say itself that a statement took too long
ROLLBACK = 5.0  # seconds for it to undo one, before we leave it alone with that
COMMIT = 30.0  # seconds for a commit to be answered, before it is asked for elsewhere
CLOSE = 5.0  # seconds to take leave
ASK_FIRST, ASK_MOST = 0.05, 2.0  # seconds between two questions for an outcome, doubled
CLAIM_PERIOD = 5.0  # seconds between two looks whether the claim's connection lives
CLAIM_TIMEOUT = 5.0  # seconds for such a look; so long a writer waits for a claim that was lost

DRIVERS = ("postgresql", "postgres", "postgresql+asyncpg")
PARAMETERS = {"host": "host", "port": "port", "ssl": "ssl", "sslmode": "ssl"}

SETTINGS = {
    "synchronous_commit": "on",
    # What a machine that vanished has open is undone, and its locks are let go, within a minute.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}

# What only a change of the configuration or of the server can mend.
_MISCONFIGURED = {
    "28000": "the server does not let this user in",
    "28P01": "wrong user or password",
    "3D000": "there is no such database",
    "42501": "this user may not connect to this database",
}
_LOST = ("08", "57P")  # the connection is gone, or is about to be
# What passes by itself, or what somebody mends without us: rights, tables, views (42).
_MAY_PASS = ("08", "25", "28", "3D", "40", "42", "53", "55", "57", "58", "HV")
_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


# One round trip each. The message is for nobody: it is a record in the server's log.
_BEGUN = text("SELECT set_config('statement_timeout', :ms, true)")
_BEGUN_WRITING = text(
    "SELECT set_config('statement_timeout', :ms, true), pg_current_xact_id()::text AS xid,"
    " pg_logical_emit_message(true, 'commserver', '')::text AS lsn,"
    " pg_postmaster_start_time() AS started"
)
# After a crash the log goes on where what was saved of it ends, with a checkpoint. A record beyond
# was lost, its transaction with it, and the number of that may be another's by now.
_WAS_LOST = """
    SELECT pg_postmaster_start_time() <> $1 AND redo_lsn < $2::text::pg_lsn
    FROM pg_control_checkpoint()
"""
_STATUS = "SELECT pg_xact_status($1::text::xid8)"
_END = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_xid = $1::text::xid8::xid
"""


class Refusal(Exception):
    """What PostgreSQL said, without the values that it quotes: errors are logged."""


class _AgainError(StoreError):
    """Nothing was committed, and another connection may well do it."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """By what a writing transaction is found again.

    xid: its number; a server that crashes gives it to another if it has lost all that the
    transaction wrote. lsn: where in the server's log a first record of it ends. started: when the
    server was.
    """

    xid: str
    lsn: str
    started: datetime


class _OutcomeUnknownError(Exception):
    """A commit was sent and no answer came."""

    def __init__(self, mark: _Mark, result: object) -> None:
        super().__init__(mark.xid)
        self.mark = mark
        self.result = result


class Postgresql:
    """What a DatabaseManager must know of PostgreSQL.

    Writers run side by side, each READ COMMITTED: what must not happen twice is for a
    compare-and-set or a constraint to prevent. Readers see one moment and cannot write.
    """

    def __init__(
        self,
        url: URL,
        acquire_timeout: float,
        pool: int = POOL,
        claim_period: float = CLAIM_PERIOD,
    ) -> None:
        url = _normal(url)
        self._timeout = acquire_timeout
        self._pool = pool
        self._claim_period = claim_period
        self._claim_timeout = min(acquire_timeout, CLAIM_TIMEOUT)
        self._claim: AdvisoryLock | None = None
        self._stopping = asyncio.Event()
        self._watches: WeakKeyDictionary[Driver, _Watch] = WeakKeyDictionary()
        self.writer = self._engine(url, "READ COMMITTED")
        self.reader = self._engine(url, "REPEATABLE READ", postgresql_readonly=True)
        _, options = self.writer.dialect.create_connect_args(url)
        self._options: dict[str, Any] = dict(options)

    async def open(self) -> None:
        """Return if the database is there and can be used.

        Raises:
            ConfigError: it cannot until somebody changes something.
            StoreError: it is away.
        """
        self._stopping.clear()
        driver = await self._dial()
        encoding = driver.get_settings().server_encoding
        version = driver.get_server_version().major
        driver.terminate()
        if version < OLDEST:
            raise ConfigError([f"database.url: PostgreSQL {version} is older than {OLDEST}"])
        if encoding != "UTF8":
            raise ConfigError([f"database.url: this database is in {encoding}, it must be in UTF8"])

    def stop(self) -> None:
        """Give up asking for outcomes that are not known."""
        self._stopping.set()

    async def close(self) -> None:
        """Disconnect; a server that does not take leave is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE):
                await self.writer.dispose()
                await self.reader.dispose()
        for driver in list(self._watches):
            driver.terminate()

    @asynccontextmanager
    async def claim(self) -> AsyncIterator[AdvisoryLock]:
        """Be the one manager of this database, by an advisory lock in it."""
        lock = AdvisoryLock(self._dial, period=self._claim_period, timeout=self._claim_timeout)
        await lock.acquire()
        self._claim = lock
        try:
            yield lock
        finally:
            self._claim = None
            await lock.release()

    async def transact(self, work: Work[T], seconds: float, *, writes: bool) -> T:
        """Run one transaction; see DatabaseManager."""
        if writes and self._claim:
            await self._claim.held_within(self._claim_timeout)
        try:
            try:
                return await self._once(work, seconds, writes)
            except _AgainError:
                return await self._once(work, seconds, writes)
        except _OutcomeUnknownError as unknown:
            await self._settled(unknown.mark)
            return cast(T, unknown.result)

    # -- one transaction --------------------------------------------------------------------------

    async def _once(self, work: Work[T], seconds: float, writes: bool) -> T:
        async with self._connected(self.writer if writes else self.reader) as connection:
            watch = await self._watch(connection)
            try:
                watch.arm(seconds + ANSWER)
                mark = await _begun(connection, seconds, writes)
                result = await work(connection)
                if writes and self._claim and not self._claim.held:
                    raise StoreError("the claim on the database was lost meanwhile")  # noqa: TRY301
            except BaseException as error:
                late = watch.fired
                await _undo(connection, watch)
                if isinstance(error, DBAPIError):
                    raise self._failed(error, watch, late) from Refusal(_state(error))
                raise
            try:
                watch.arm(COMMIT)
                await connection.commit()
            except DBAPIError as error:
                await _undo(connection, watch)
                if not _is_lost(error, watch):
                    raise _translated(error) from Refusal(_state(error))
                if mark:
                    raise _OutcomeUnknownError(mark, result) from None
            finally:
                watch.disarm()
            return result

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await engine.connect()
        except DBAPIError as error:
            raise _translated(error) from Refusal(_state(error))
        except ConfigError as error:  # the configuration was right when we began
            raise StoreError(str(error)) from error
        try:
            yield connection
        finally:
            await connection.close()

    async def _watch(self, connection: AsyncConnection) -> "_Watch":
        raw = await connection.get_raw_connection()
        return self._watches[cast(Driver, raw.driver_connection)]

    def _failed(self, error: DBAPIError, watch: "_Watch", late: bool) -> StoreError:
        """Return what to raise for an error before the commit."""
        if late:
            return _too_long()
        if _is_lost(error, watch):
            return _AgainError("the connection to the database was lost; nothing was written")
        if isinstance(_said(error), _STALE):
            return _AgainError("the tables have changed under a statement; nothing was written")
        return _translated(error)

    # -- how a commit ended -----------------------------------------------------------------------

    async def _settled(self, mark: _Mark) -> None:
        """Return once the transaction is known to be committed.

        Raises:
            StoreError: it was undone; or nobody can tell, which it says.
        """
        log.warning("commit_outcome_unknown", transaction=mark.xid)
        status = await self._status(mark)
        log.warning("commit_outcome_known", transaction=mark.xid, outcome=status)
        if status == "aborted":
            raise StoreError("the connection was lost in mid-commit and nothing was written")
        if status != "committed":
            raise StoreError("the connection was lost in mid-commit; what became of it is unknown")

    async def _status(self, mark: _Mark) -> str | None:
        """Return "committed" or "aborted", None if that cannot be told or we have to stop."""
        pause = ASK_FIRST
        while True:
            with suppress(StoreError, ConfigError, *FAULTS):
                status = await self._asked(mark)
                if status != "in progress":
                    return status
            if self._stopping.is_set():
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, ASK_MOST)

    async def _asked(self, mark: _Mark) -> str | None:
        driver = await self._dial()
        try:
            async with asyncio.timeout(self._timeout):
                if await driver.fetchval(_WAS_LOST, mark.started, mark.lsn):
                    return "aborted"
                status = await driver.fetchval(_STATUS, mark.xid)
                if status == "in progress":
                    # Its server process waits for us, who have given it up.
                    await driver.execute(_END, mark.xid)
        except asyncpg.DataError:  # a number that this server has never given
            return None
        finally:
            driver.terminate()
        return cast(str | None, status)

    # -- connections ------------------------------------------------------------------------------

    async def _dial(self) -> Driver:
        """Return a new connection.

        Raises:
            ConfigError: there will be none until somebody changes something.
            StoreError: there is none now.
        """
        name = f"commserver {os.getpid()} on {socket.gethostname()}"
        settings = {**SETTINGS, "application_name": name}
        options = {**self._options, "server_settings": settings, "timeout": self._timeout}
        try:
            return await asyncpg.connect(**options)
        except asyncpg.PostgresError as error:
            if reason := _MISCONFIGURED.get(str(error.sqlstate)):
                raise ConfigError([f"database.url: {reason}"]) from error
            raise StoreError(f"the database does not take us: {error}") from error
        except asyncpg.InterfaceError as error:
            raise ConfigError(["database.url: cannot be used by the driver"]) from error
        except OSError as error:
            late = (
                f"no answer within {self._timeout:g} s" if isinstance(error, TimeoutError) else ""
            )
            reason = error.strerror or late or str(error) or type(error).__name__
            raise StoreError(f"the database is away: {reason}") from error

    async def _watched(self, *_: object, **__: object) -> Driver:
        driver = await self._dial()
        self._watches[driver] = watch = _Watch(driver)
        watch.arm(self._timeout)  # for SQLAlchemy's own questions
        return driver

    def _engine(self, url: URL, level: str, **options: object) -> AsyncEngine:
        engine = create_async_engine(
            url,
            pool_size=self._pool,
            max_overflow=0,
            pool_timeout=self._timeout,
            hide_parameters=True,  # errors are logged; tokens and sources are not
            connect_args={"async_creator_fn": self._watched},
            execution_options={"isolation_level": level, **options},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def made(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
            self._watches[connection.driver_connection].disarm()

        @event.listens_for(engine.sync_engine, "checkout")
        def taken(
            connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection
        ) -> None:
            if connection.driver_connection.is_closed():
                raise InvalidatePoolError  # of the others too: what ended one has ended all

        return engine


class _Watch:
    """Ends a connection that has not done something in time; `fired` says that it was so."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._timer: asyncio.TimerHandle | None = None
        self.fired = False

    @property
    def is_closed(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._driver.is_closed()

    def arm(self, seconds: float) -> None:
        """End the connection in so many seconds, unless told otherwise."""
        self.disarm()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._fire)

    def disarm(self) -> None:
        """Let it live."""
        if self._timer:
            self._timer.cancel()

    def end(self) -> None:
        """End the connection now; what waits for an answer of it fails."""
        self._driver.terminate()

    def _fire(self) -> None:
        self.fired = True
        self.end()


async def _begun(connection: AsyncConnection, seconds: float, writes: bool) -> _Mark | None:
    """Bound each statement of a new transaction, and mark it if it writes."""
    statement = _BEGUN_WRITING if writes else _BEGUN
    result = await connection.execute(statement, {"ms": str(max(1, round(seconds * 1000)))})
    row = result.one()
    return _Mark(row.xid, row.lsn, row.started) if writes else None


async def _undo(connection: AsyncConnection, watch: _Watch) -> None:
    """Roll back; a connection that does not do it in time is given up."""
    watch.arm(ROLLBACK)
    try:
        await connection.rollback()
    except (SQLAlchemyError, OSError):
        watch.end()
    finally:
        watch.disarm()
    if watch.is_closed:
        await connection.invalidate()


def _normal(url: URL) -> URL:
    """Return the URL as SQLAlchemy and the driver want it."""
    problems = [
        f"database.url: unknown parameter {name}" for name in url.query if name not in PARAMETERS
    ]
    if url.drivername not in DRIVERS:
        problems.append(f"database.url: {url.drivername} is not supported, only postgresql://")
    if not url.database:
        problems.append("database.url: names no database")
    if problems:
        raise ConfigError(problems)
    query = {PARAMETERS[name]: value for name, value in url.query.items()}
    return url.set(drivername="postgresql+asyncpg", query=query)


def _state(error: DBAPIError) -> str:
    """Return the five characters by which PostgreSQL names an error, "" for the driver's own."""
    return getattr(error.orig, "sqlstate", None) or ""


def _said(error: DBAPIError) -> BaseException | None:
    """Return the driver's own error; `driver_exception` lacks some of them."""
    return error.orig.__cause__ if error.orig else None


def _is_lost(error: DBAPIError, watch: _Watch) -> bool:
    return watch.is_closed or _state(error).startswith(_LOST)


def _translated(error: DBAPIError) -> StoreError:
    """Return our error for one of the driver's, without any value of the statement in it."""
    said = _said(error)
    if not isinstance(said, asyncpg.PostgresError):
        if isinstance(said, asyncpg.DataError | ValueError | OverflowError):
            return StoreRefused("a value that the database cannot hold")
        return StoreError(f"the driver failed: {type(said).__name__}")
    state, words = str(said.sqlstate), str(said.args[0])
    if isinstance(said, asyncpg.UniqueViolationError):
        return AlreadyExists(f"{said.table_name}.{said.constraint_name}")
    if state.startswith("22"):  # its words quote the value
        return StoreRefused(f"a value that the database cannot hold ({type(said).__name__})")
    if words == "canceling statement due to statement timeout":
        return _too_long()
    return StoreError(words) if state.startswith(_MAY_PASS) else StoreRefused(words)


def _too_long() -> StoreError:
    return StoreError("a transaction took too long and was undone")
