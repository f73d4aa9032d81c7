"""Requests that are carried out once, however often they are sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.jobs import AttemptId, Origin, RunId, content_hash
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.requests import StoredRequest
from commserver.errors import KeyReused
from commserver.services.exec_service import ExecService

NEWEST = 100  # runs of an attempt among which the one is looked for that an earlier try has made


@dataclass(slots=True)
class _Turn:
    """The requests of one key that are being carried out: one, and those that wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class RequestService:
    """Gives one request one run, by the key that its sender has chosen.

    The key is stored before the run is made. A process that ends in between leaves a key without a
    run: who sends it again gets the run that was made since, if there is one.
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
        """Return the run that an earlier try to carry this out has made, None if it made none."""

        async def work(connection: AsyncConnection) -> RunId | None:
            runs = await self._daos.executions.of_attempt(connection, attempt, NEWEST)
            since = [
                run
                for run in runs
                if run.job.origin[:2] == origin[:2] and run.created_at >= stored.created_at
            ]
            return min(since, key=lambda run: run.created_at).job.id if since else None

        return await self._database.read(work)

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
