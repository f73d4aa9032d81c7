"""Requests that are carried out once, however often they are sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.jobs import AttemptId, ContentHash, Origin, Purpose, RunId, content_hash
from commserver.core.states import State
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.dao.requests import StoredRequest
from commserver.errors import KeyReused, StoreRefused
from commserver.services.exec_service import ExecService

NEWEST = 100  # runs of an attempt among which the one is looked for that an earlier try has made


@dataclass(slots=True)
class _Turn:
    """The requests of one key that are being carried out: one, and those that wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class RequestService:
    """Gives one request one run, by the key that its sender has chosen.

    The key is stored before the run is made. A process that ends before it has noted which run that
    is leaves a key without one: who sends it again gets the run that has this key for its origin's
    reference, else one of the very content that was there for it, whoever asked.
    """

    def __init__(
        self, database: DatabaseManager, daos: DaoManager, execs: ExecService, clock: Clock
    ) -> None:
        self._database = database
        self._daos = daos
        self._execs = execs
        self._clock = clock
        self._turns: dict[str, _Turn] = {}

    async def submit(self, key: str, attempt: AttemptId, origin: Origin) -> RunId:
        """Return the run that stands for this request, queued now if it is new.

        origin: with the key as its reference, by which the run is found again.

        Raises:
            KeyReused: the key stands for another attempt.
            NotFound: there is no such attempt; the key may be used for it again.
            StoreError: it is not certain whether it was taken; ask again with the same key.
        """
        asked = content_hash(str(attempt).encode())
        async with self._turn(key):
            known = await self._database.read(lambda c: self._daos.requests.find(c, key))
            at = self._clock.utc()
            stored = known
            if stored is None:
                stored = await self._database.write(
                    lambda c: self._daos.requests.reserve(c, key, asked, at=at)
                )
            if stored.body != asked:
                raise KeyReused(key)
            if stored.run is not None:
                return stored.run
            made = await self._made(stored, attempt, origin) if known else None
            run = made or (await self._execs.submit(attempt, origin, patient=True)).run
            await self._database.write(lambda c: self._daos.requests.answered(c, key, run))
            return run

    async def _made(
        self, stored: StoredRequest, attempt: AttemptId, origin: Origin
    ) -> RunId | None:
        """Return the run that an earlier try has made or found, None if there is none.

        A run that was there already, and is somebody else's, says nothing of this request. It is
        known by its content, of which a request while it is in hand makes no second run.
        """

        async def work(connection: AsyncConnection) -> list[StoredRun]:
            return await self._daos.executions.of_attempt(connection, attempt, NEWEST)

        runs = [run for run in await self._database.read(work) if run.job.purpose is Purpose.SUBMIT]
        own = [run for run in runs if run.job.origin == origin]
        if not own:
            content = await self._content(attempt)
            own = [
                run
                for run in runs
                if run.job.content == content
                and run.state is not State.SUPERSEDED
                and (run.ended_at is None or run.ended_at >= stored.created_at)
            ]
        return min(own, key=lambda run: run.created_at).job.id if own else None

    async def _content(self, attempt: AttemptId) -> ContentHash | None:
        try:
            return await self._execs.content(attempt)
        except StoreRefused:
            return None

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """Carry out one request of a key at a time: the second finds what the first has made."""
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]
