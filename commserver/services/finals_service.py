"""What each recipient is still owed, and what it says it has."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.bus import EventBus
from commserver.core.clock import Clock
from commserver.core.events import Event, RunAsked, RunEnded
from commserver.core.finals import Final
from commserver.core.jobs import Recipient
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError, StoreRefused

log = structlog.get_logger(__name__)

AT_ONCE = 64  # finals that are read for one receiver before it has taken them
STORE_PAUSE = 2.0  # seconds until a feed asks a database again that was away
PUSHES_DUE = 2.0  # seconds after which pushes are noted without waiting for receipts
RECEIPTS = 200  # recipients whose receipts are one transaction: grades wait for it


class Owed(NamedTuple):
    """Finals to give, in order, of a series that ends at `last`; `more` are owed after these."""

    finals: list[Final]
    last: int
    more: bool


class FinalsService:
    """Reads the finals that were committed and are not delivered yet, and notes deliveries.

    Receipts come by the hundred when a room hears of its results. `run` writes those together that
    came while it wrote the last ones, so that they do not stand in the way of grades.
    """

    def __init__(
        self, database: DatabaseManager, daos: DaoManager, clock: Clock, bus: EventBus
    ) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock
        self._away = False
        self._receipts: dict[Recipient, int] = {}  # to be written
        self._pushes: dict[Recipient, tuple[int, datetime]] = {}  # likewise, with the next receipts
        self._pushes_due: float | None = None
        self._feeds: dict[Recipient, set[asyncio.Event]] = {}
        # When those are: with what was wrong with those that can never be.
        self._written: asyncio.Future[dict[Recipient, StoreRefused]] | None = None
        self._came = asyncio.Event()
        bus.subscribe(self._heard, RunEnded, RunAsked)

    async def owed(self, recipient: Recipient, after: int, since: int | None = None) -> Owed:
        """Return the first of what is owed above `after`.

        since: the end of the series when the receiver began; of what came later it gets all, also
        what another receiver of the same recipient has had.

        Raises:
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> Owed:
            notices = self._daos.notices
            last = await notices.last(connection, recipient)
            if last <= after:
                return Owed([], last, more=False)
            finals = await notices.owed(
                connection, recipient, after=after, since=since, limit=AT_ONCE + 1
            )
            return Owed(finals[:AT_ONCE], last, more=len(finals) > AT_ONCE)

        try:
            owed = await self._database.read(work)
        except StoreError as error:
            if not self._away:  # a whole room asks
                log.warning("finals_not_read", error=str(error))
            self._away = True
            raise
        self._away = False
        return owed

    async def feed(self, recipient: Recipient) -> AsyncGenerator[Final, None]:
        """Yield what is owed, in order, then each final as it comes; never two at once.

        Ends only by being closed or cancelled. While the database is away it waits.
        """
        news = asyncio.Event()
        feeds = self._feeds.setdefault(recipient, set())
        feeds.add(news)
        after = 0
        try:
            while True:
                news.clear()
                try:
                    owed = await self.owed(recipient, after)
                except StoreError:
                    await self._clock.wait(asyncio.Event(), self._clock.now() + STORE_PAUSE)
                    continue
                for final in owed.finals:
                    yield final
                after = owed.finals[-1].seq if owed.more else max(after, owed.last)
                if not owed.more:
                    await news.wait()
        finally:
            feeds.discard(news)
            if not feeds:
                self._feeds.pop(recipient, None)

    def _heard(self, event: Event) -> None:
        assert isinstance(event, RunEnded | RunAsked)
        for notice in event.notices:
            for news in self._feeds.get(notice.recipient, ()):
                news.set()

    def pushed(self, recipient: Recipient, seq: int) -> None:
        """Note that the finals up to `seq` have left for their recipient, for whoever asks later.

        Written with the next receipts, soon: a note that a kill takes along is no loss.
        """
        known, _ = self._pushes.get(recipient, (0, None))
        if seq > known:
            self._pushes[recipient] = (seq, self._clock.utc())
        if self._pushes_due is None:
            self._pushes_due = self._clock.now() + PUSHES_DUE
            self._came.set()

    async def acknowledge(self, recipient: Recipient, seq: int) -> None:
        """Owe nothing up to `seq` any more.

        Raises:
            StoreError: it could not be noted, so they will be told again.
        """
        self._receipts[recipient] = max(seq, self._receipts.get(recipient, 0))
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        self._came.set()
        refused = await asyncio.shield(self._written)
        if error := refused.get(recipient):
            raise error

    async def run(self) -> None:
        """Write receipts, until cancelled."""
        while True:
            await self._clock.wait(self._came, self._pushes_due)
            self._came.clear()
            late = self._pushes_due is not None and self._pushes_due <= self._clock.now()
            if not (self._receipts or late):
                continue
            receipts, self._receipts = self._receipts, {}
            pushes, self._pushes, self._pushes_due = self._pushes, {}, None
            written, self._written = self._written, None
            try:
                refused = await self._write(
                    [(to, seq, at) for to, (seq, at) in sorted(pushes.items())],
                    sorted(receipts.items()),
                )
            except StoreError as error:
                log.warning("receipts_not_stored", error=str(error))
                if written:
                    written.set_exception(error)
                    written.exception()  # they may all have left
            else:
                if written:
                    written.set_result(refused)

    async def _write(
        self,
        pushes: list[tuple[Recipient, int, datetime]],
        receipts: list[tuple[Recipient, int]],
    ) -> dict[Recipient, StoreRefused]:
        """Write all, a good many at once; returns whose receipts can never be written, and why.

        Raises:
            StoreError: the database does not answer.
        """
        refused: dict[Recipient, StoreRefused] = {}
        at = self._clock.utc()
        for first in range(0, max(len(pushes), len(receipts)), RECEIPTS):
            some = slice(first, first + RECEIPTS)
            try:
                await self._database.write(
                    partial(self._noted, pushes=pushes[some], receipts=receipts[some], at=at)
                )
            except StoreRefused:  # one of them: the others are not to suffer for it
                refused |= await self._write_each(pushes[some], receipts[some], at)
        return refused

    async def _write_each(
        self,
        pushes: list[tuple[Recipient, int, datetime]],
        receipts: list[tuple[Recipient, int]],
        at: datetime,
    ) -> dict[Recipient, StoreRefused]:
        refused: dict[Recipient, StoreRefused] = {}
        for push in pushes:
            try:
                await self._database.write(partial(self._noted, pushes=[push], receipts=[], at=at))
            except StoreRefused as error:
                log.warning("push_not_stored", recipient=push[0], error=str(error))
        for receipt in receipts:
            try:
                await self._database.write(
                    partial(self._noted, pushes=[], receipts=[receipt], at=at)
                )
            except StoreRefused as error:
                log.warning("receipt_not_stored", recipient=receipt[0], error=str(error))
                refused[receipt[0]] = error
        return refused

    async def _noted(
        self,
        connection: AsyncConnection,
        *,
        pushes: list[tuple[Recipient, int, datetime]],
        receipts: list[tuple[Recipient, int]],
        at: datetime,
    ) -> None:
        if pushes:
            await self._daos.notices.pushed(connection, pushes)
        if receipts:
            await self._daos.notices.delivered(connection, receipts, at)
