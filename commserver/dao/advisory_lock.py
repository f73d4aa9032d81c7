"""A lock in PostgreSQL that one process holds for as long as its connection lives."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import asyncpg
import structlog

from commserver.dao.patience import Patience
from commserver.errors import AlreadyManaged, ConfigError, StoreError

log = structlog.get_logger(__name__)

# Of each database, the lock of whoever manages it; spells "commserv".
KEY = int.from_bytes(b"commserv", "big")

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Dial = Callable[[], Awaitable[Driver]]

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

_TAKE = "SELECT pg_try_advisory_lock($1) AS taken, pg_backend_pid() AS backend"
_HOLDER = """
    SELECT pid, application_name, host(client_addr) AS address, backend_start AS since
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32) + objid::bigint = $1
"""


class AdvisoryLock:
    """The claim to be the only manager of a PostgreSQL database.

    A connection of its own holds it. When that is lost the lock is, and `keep` takes it again as
    soon as the database answers, unless somebody else was faster.

    period: seconds between two looks whether the connection lives. timeout: seconds that a look
    may take.
    """

    def __init__(self, dial: Dial, *, period: float, timeout: float) -> None:
        self._dial = dial
        self._period = period
        self._timeout = timeout
        self._connection: Driver | None = None
        self._backend = 0
        self._lost = asyncio.Event()
        self._held = asyncio.Event()
        self._taken_by: AlreadyManaged | None = None

    @property
    def held(self) -> bool:
        """Whether, as far as we know, it is ours."""
        return self._held.is_set()

    async def acquire(self) -> None:
        """Take the lock, or say at once who has it.

        Raises:
            AlreadyManaged: somebody has it, perhaps this very process.
            StoreError: the database does not answer.
        """
        connection = await self._dial()
        try:
            async with asyncio.timeout(self._timeout):
                row = await connection.fetchrow(_TAKE, KEY)
                assert row is not None
                if not row["taken"]:
                    await self._refuse(connection)
        except FAULTS as error:
            connection.terminate()
            raise StoreError(f"cannot lock the database: {type(error).__name__}") from error
        except BaseException:  # cancelled as well: the connection, perhaps locked, is nobody's yet
            connection.terminate()
            raise
        self._connection, self._backend = connection, row["backend"]
        self._lost.clear()
        connection.add_termination_listener(self._terminated)
        self._held.set()

    async def held_within(self, seconds: float) -> None:
        """Return once the lock is ours, at once if it is.

        Raises:
            AlreadyManaged: it is another's for good.
            StoreError: it is not ours, and was not within this time.
        """
        if self._taken_by:
            raise self._taken_by
        try:
            async with asyncio.timeout(seconds):
                await self._held.wait()
        except TimeoutError as error:
            raise StoreError("the claim on the database is lost and not taken again yet") from error

    async def keep(self) -> None:
        """Hold the lock until cancelled, through whatever becomes of the connection.

        Raises:
            AlreadyManaged: it was lost, and another manager has it now.
        """
        while True:
            try:
                async with asyncio.timeout(self._period):
                    await self._lost.wait()
            except TimeoutError:
                await self._look()
            if self._lost.is_set():
                await self._regain()

    async def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        connection, self._connection = self._connection, None
        self._held.clear()
        if connection is None:
            return
        connection.remove_termination_listener(self._terminated)
        try:
            # The server would notice that we are gone, but only a moment later.
            async with asyncio.timeout(self._timeout):
                await connection.execute("SELECT pg_advisory_unlock_all()")
        except FAULTS:
            pass  # who cannot be told has lost it, or soon will
        finally:
            connection.terminate()

    async def _look(self) -> None:
        assert self._connection is not None
        try:
            async with asyncio.timeout(self._timeout):
                await self._connection.execute("SELECT 1")
        except FAULTS:
            self._connection.terminate()

    def _terminated(self, connection: Any) -> None:
        self._held.clear()
        self._lost.set()

    async def _regain(self) -> None:
        patience = Patience()
        while True:
            try:
                await self.acquire()
            except AlreadyManaged as error:
                self._taken_by = error
                raise
            except (StoreError, ConfigError) as error:
                await patience.wait(error)
            else:
                patience.over()
                log.warning("claim_taken_again", reason="its connection to the database was cut")
                return

    async def _refuse(self, connection: Driver) -> None:
        """Say who has the lock, unless it is what is left of a connection that we gave up."""
        holder = await connection.fetchrow(_HOLDER, KEY)
        if holder is None:
            raise StoreError("the lock of the database was given back this very moment")
        if holder["pid"] == self._backend:
            await connection.execute("SELECT pg_terminate_backend($1)", self._backend)
            raise StoreError("our own former connection still holds the lock")
        name = holder["application_name"] or f"process {holder['pid']} of the database server"
        address = f" at {holder['address']}" if holder["address"] else ""
        since = f" since {holder['since']:%Y-%m-%d %H:%M:%S} UTC" if holder["since"] else ""
        raise AlreadyManaged(f"{name}{address}{since}")
