"""The sweep: finds by itself what was handed in and never asked for."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from commserver.config import Queue
from commserver.core.clock import Clock
from commserver.core.jobs import AttemptId, ContentHash
from commserver.dao.baseline import Page, Print
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError, StoreRefused
from commserver.services.exec_service import ExecService

log = structlog.get_logger(__name__)

PAGES = 2  # that one sweep reads, one after the other: small ones hold nobody up
UNASKED = 1000  # attempts without a run on a page
PRINTS = 5000  # attempts with their prints on a page
LOOKS = 1000  # attempts whose files one sweep reads
SIGHTINGS = 1000  # attempts that are watched at a time
SETTLED = 200_000  # prints that are remembered
GIVEN_UP = 10_000  # attempts that are remembered because the database cannot give or take them
FIRST = AttemptId(0)  # below every attempt that is looked at


class Sighting(NamedTuple):
    """What an attempt held when it was seen first; `at` in monotonic seconds."""

    content: ContentHash
    at: float


class SweepService:
    """Has attempts run that nobody asked for: a backend sends an id once, and packets get lost.

    An attempt must show the same content in two sweeps that are `queue.sweep_age` apart, so that
    none is run while its files are still being written. What was seen is in memory alone: after a
    restart it is seen anew. A sweep is in nobody's way: it only reads until it takes something, a
    few pages at a time, goes on where the last one ended, and leaves a full queue as it is.
    """

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        execs: ExecService,
        queue: Queue,
        clock: Clock,
    ) -> None:
        self._database = database
        self._daos = daos
        self._exec = execs
        self._queue = queue
        self._clock = clock
        self._after = FIRST  # where the next page begins
        self._seen: dict[AttemptId, Sighting] = {}
        self._settled: dict[AttemptId, Print] = {}  # of which nothing was missed
        self._given_up: dict[AttemptId, None] = {}  # oldest first

    async def run(self) -> None:
        """Sweep from time to time, until cancelled; does nothing where the sweep is off."""
        never = asyncio.Event()
        while self._queue.sweep != "off":
            await self._clock.wait(never, self._clock.now() + self._queue.sweep_period)
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("sweep_failed", error=str(error))

    async def sweep(self) -> None:
        """Take what has stood for long enough, oldest first, then look what else there is.

        Raises:
            StoreError: the database did not answer; the next sweep goes on from here.
        """
        for attempt, sighting in self._due():
            if self._exec.full:
                break
            await self._take(attempt, sighting.content)
        await self._look()

    def _due(self) -> Iterator[tuple[AttemptId, Sighting]]:
        now = self._clock.now()
        for attempt, sighting in sorted(self._seen.items()):
            if now - sighting.at >= self._queue.sweep_age:
                yield attempt, sighting

    async def _take(self, attempt: AttemptId, content: ContentHash) -> None:
        try:
            submitted = await self._exec.sweep(attempt, content)
        except Exception as error:  # whatever it is, the other attempts are not to pay for it
            self._give_up(attempt, error)
        else:
            if submitted:
                log.info("attempt_swept", attempt=attempt, run=submitted.run)
        del self._seen[attempt]  # what was not taken is seen anew, if it still is to be

    async def _look(self) -> None:
        """See what is new on the next pages, as much of it as may be watched."""
        looks = LOOKS
        for _ in range(PAGES):
            page = await self._page()
            for attempt, print in page.attempts.items():
                if not self._is_news(attempt, print):
                    continue
                if not looks or len(self._seen) >= SIGHTINGS:
                    return
                looks -= 1
                await self._look_at(attempt, print)
                self._after = attempt
            self._after = FIRST if page.last is None else page.last
            if page.last is None:
                return

    def _is_news(self, attempt: AttemptId, print: Print) -> bool:
        if attempt in self._seen or attempt in self._given_up:
            return False
        return not print or self._settled.get(attempt) != print

    async def _page(self) -> Page:
        after, dao = self._after, self._daos.baseline
        if self._queue.sweep == "changed":
            return await self._database.read(lambda c: dao.prints(c, after=after, limit=PRINTS))
        return await self._database.read(lambda c: dao.unasked(c, after=after, limit=UNASKED))

    async def _look_at(self, attempt: AttemptId, print: Print) -> None:
        try:
            content = await self._exec.missed(attempt)
        except Exception as error:  # likewise
            self._give_up(attempt, error)
            return
        if content is not None:
            self._seen[attempt] = Sighting(content, self._clock.now())
        elif print:
            self._settled[attempt] = print
            _forget_oldest(self._settled, SETTLED)

    def _give_up(self, attempt: AttemptId, error: Exception) -> None:
        """Leave an attempt alone from now on, unless it is the database that is away."""
        if isinstance(error, StoreError) and not isinstance(error, StoreRefused):
            raise error
        log.error("attempt_not_swept", attempt=attempt, exc_info=error)
        self._given_up[attempt] = None
        _forget_oldest(self._given_up, GIVEN_UP)


def _forget_oldest(memory: dict[AttemptId, Print] | dict[AttemptId, None], most: int) -> None:
    if len(memory) > most:
        del memory[next(iter(memory))]
