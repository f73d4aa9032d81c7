"""The sweep: finds by itself what was handed in and never asked for."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog

from commserver.config import Queue
from commserver.core.clock import Clock
from commserver.core.jobs import AttemptId, ContentHash
from commserver.dao.baseline import Fingerprint, Page
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError, StoreRefused
from commserver.services.exec_service import ExecService

log = structlog.get_logger(__name__)

PAGES = 2  # of a kind that one sweep reads, one after the other: small ones hold nobody up
UNASKED = 1000  # attempts without a run on a page
FINGERPRINTS = 5000  # attempts with their fingerprints on a page
LOOKS = 100  # attempts whose files one sweep reads: about half a second
SIGHTINGS = 1000  # attempts that are watched at a time
SETTLED = 200_000  # fingerprints that are remembered
GIVEN_UP = 1000  # attempts that are remembered because the database cannot give or take them
FIRST = AttemptId(0)  # below every attempt that is looked at


class Sighting(NamedTuple):
    """What an attempt held when it was seen first; `at` in monotonic seconds.

    failures: how often it could not be taken since, for want of an answer of the database.
    """

    content: ContentHash
    at: float
    failures: int = 0


@dataclass(slots=True)
class Round:
    """One way through all attempts, again and again: `after` is where the next page begins."""

    unasked: bool  # only those without a run
    after: AttemptId = FIRST


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
        # What never had a run comes first: it does not wait until all others were seen.
        self._rounds = [Round(unasked=True)]
        if queue.sweep == "changed":
            self._rounds.append(Round(unasked=False))
        self._seen: dict[AttemptId, Sighting] = {}
        self._settled: dict[AttemptId, Fingerprint] = {}  # of which nothing was missed
        self._given_up: dict[AttemptId, None] = {}  # oldest first
        self.swept_at: datetime | None = None  # when the last sweep ended that went well

    async def run(self) -> None:
        """Sweep from time to time, until cancelled; does nothing where the sweep is off."""
        never = asyncio.Event()
        while self._queue.sweep != "off":
            await self._clock.wait(never, self._clock.now() + self._queue.sweep_period)
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("sweep_failed", error=str(error))
            except Exception:  # a bug of ours: it must not end the server, and others can be swept
                log.exception("sweep_failed")

    async def sweep(self) -> None:
        """Take what has stood for long enough, oldest first, then look what else there is.

        What failed comes last the next time: it may be that one attempt alone which fails.

        Raises:
            StoreError: the database did not answer; the next sweep goes on from here.
        """
        for attempt, sighting in self._due():
            if self._exec.full:
                break
            await self._take(attempt, sighting)
        looks = LOOKS
        for round in self._rounds:
            looks = await self._look(round, looks)
        self.swept_at = self._clock.utc()

    def _due(self) -> Iterator[tuple[AttemptId, Sighting]]:
        now = self._clock.now()
        for attempt, sighting in sorted(
            self._seen.items(), key=lambda one: (one[1].failures, one[0])
        ):
            if now - sighting.at >= self._queue.sweep_age:
                yield attempt, sighting

    async def _take(self, attempt: AttemptId, sighting: Sighting) -> None:
        try:
            submitted = await self._exec.sweep(attempt, sighting.content)
        except Exception as error:  # whatever it is, the other attempts are not to pay for it
            self._seen[attempt] = sighting._replace(failures=sighting.failures + 1)
            self._give_up(attempt, error)
        else:
            if submitted:
                log.info("attempt_swept", attempt=attempt, run=submitted.run)
        del self._seen[attempt]  # what was not taken is seen anew, if it still is to be

    async def _look(self, round: Round, looks: int) -> int:
        """See what is new on the next pages, as much of it as may be watched.

        Returns how many of the looks are left.
        """
        for _ in range(PAGES):
            page = await self._page(round, UNASKED if round.unasked else FINGERPRINTS)
            for attempt, fingerprint in page.attempts.items():
                if not self._is_news(attempt, fingerprint):
                    continue
                if not looks or len(self._seen) >= SIGHTINGS:
                    return looks
                looks -= 1
                round.after = attempt  # also when it fails: then the others come first
                await self._look_at(attempt, fingerprint)
            round.after = FIRST if page.last is None else page.last
            if page.last is None:
                break
        return looks

    def _is_news(self, attempt: AttemptId, fingerprint: Fingerprint) -> bool:
        if attempt in self._seen or attempt in self._given_up:
            return False
        return not fingerprint or self._settled.get(attempt) != fingerprint

    async def _page(self, round: Round, limit: int) -> Page:
        """Return the next page; a shorter one where the database cannot give a whole one.

        So that all others are found, the one attempt that it cannot give is given up.
        """
        dao, after, without = self._daos.baseline, round.after, list(self._given_up)
        read = dao.unasked if round.unasked else dao.fingerprints
        try:
            return await self._database.read(
                lambda c: read(c, after=after, limit=limit, without=without)
            )
        except StoreRefused as error:
            if limit > 1:
                return await self._page(round, limit // 2)
            odd = await self._database.read(
                lambda c: dao.first(c, after=after, without=without, unasked=round.unasked)
            )
            if odd is None:
                raise
            self._give_up(odd, error)
            return Page({}, odd)

    async def _look_at(self, attempt: AttemptId, fingerprint: Fingerprint) -> None:
        try:
            content = await self._exec.missed(attempt)
        except Exception as error:  # likewise
            self._give_up(attempt, error)
            return
        if content is not None:
            self._seen[attempt] = Sighting(content, self._clock.now())
        elif fingerprint:
            self._settled[attempt] = fingerprint
            _forget_oldest(self._settled, SETTLED)

    def _give_up(self, attempt: AttemptId, error: Exception) -> None:
        """Leave an attempt alone from now on, unless it is the database that is away."""
        if isinstance(error, StoreError) and not isinstance(error, StoreRefused):
            raise error
        log.error("attempt_not_swept", attempt=attempt, exc_info=error)
        self._given_up[attempt] = None
        _forget_oldest(self._given_up, GIVEN_UP)


def _forget_oldest(memory: dict[AttemptId, Fingerprint] | dict[AttemptId, None], most: int) -> None:
    if len(memory) > most:
        del memory[next(iter(memory))]
