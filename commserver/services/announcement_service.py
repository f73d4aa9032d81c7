"""What is said to everybody who listens, such as "the exam ends ten minutes later"."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from commserver.core.clock import Clock
from commserver.core.text import clean_text
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager, settled
from commserver.errors import MalformedPacket

log = structlog.get_logger(__name__)

LONGEST = 2000  # characters that one announcement may have


@dataclass(frozen=True, slots=True)
class Announcement:
    """One thing said to everybody; `text` is "" when it was withdrawn. `until`: None = no end."""

    id: int
    text: str
    until: datetime | None


Handler = Callable[[Announcement], None]


class AnnouncementService:
    """Keeps the one announcement that counts: the newest, unless withdrawn or its time is over.

    It is read once and then known, as nobody else writes it.
    """

    def __init__(self, database: DatabaseManager, daos: DaoManager, clock: Clock) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock
        self._newest: Announcement | None = None
        self._read = False
        self._turn = asyncio.Lock()  # one change at a time, told in the order of the rows
        self._handlers: dict[object, Handler] = {}

    async def current(self) -> Announcement | None:
        """Return what counts now, None for nothing.

        Raises:
            StoreError: the database did not answer.
        """
        if not self._read:
            async with self._turn:
                await self._known()
        return self._valid()

    async def announce(self, text: str, until: datetime | None = None) -> Announcement:
        """Say something to everybody in place of what counted before; control characters go.

        Raises:
            MalformedPacket: there is no text, too much of it, or its time is over already.
            StoreError: it was not stored, and nobody was told.
        """
        text = clean_text(text).strip()
        now = self._clock.utc()
        if not text:
            raise MalformedPacket("an announcement needs a text", "text")
        if len(text) > LONGEST:
            raise MalformedPacket(f"the text is longer than {LONGEST} characters", "text")
        if until is not None and (until.tzinfo is None or until <= now):
            raise MalformedPacket("the end is no moment to come, with its time zone", "until")
        # What is stored is told, also when whoever asked is gone by then.
        return await settled(asyncio.create_task(self._said(text, until, now)))

    async def _said(self, text: str, until: datetime | None, now: datetime) -> Announcement:
        async with self._turn:
            self._read = False  # until it is known how it went
            id = await self._database.write(
                lambda c: self._daos.announcements.add(c, text, until=until, at=now)
            )
            said = Announcement(id, text, until)
            self._tell(said)
        log.info("announced", announcement=id)
        return said

    async def withdraw(self) -> Announcement | None:
        """Take back what counts now; returns it without its text, None when there was nothing.

        Raises:
            StoreError: it still counts.
        """
        return await settled(asyncio.create_task(self._withdrawn()))

    async def _withdrawn(self) -> Announcement | None:
        async with self._turn:
            await self._known()
            current = self._valid()
            if current is None:
                return None
            id, now = current.id, self._clock.utc()
            self._read = False
            await self._database.write(lambda c: self._daos.announcements.withdraw(c, id, now))
            withdrawn = Announcement(id, "", None)
            self._tell(withdrawn)
        log.info("announcement_withdrawn", announcement=id)
        return withdrawn

    def subscribe(self, handler: Handler) -> Callable[[], None]:
        """Call `handler` with each later announcement; the result ends that.

        It is a plain function that must not block nor fail.
        """
        own = object()
        self._handlers[own] = handler

        def unsubscribe() -> None:
            self._handlers.pop(own, None)

        return unsubscribe

    async def _known(self) -> None:
        """Read what is on record, once."""
        if self._read:
            return
        newest = await self._database.read(self._daos.announcements.newest)
        if newest:
            text = "" if newest.withdrawn_at else newest.text
            self._newest = Announcement(newest.id, text, newest.until)
        self._read = True

    def _valid(self) -> Announcement | None:
        newest = self._newest
        if newest is None or not newest.text:
            return None
        return newest if newest.until is None or self._clock.utc() < newest.until else None

    def _tell(self, announcement: Announcement) -> None:
        self._newest, self._read = announcement, True
        for handler in list(self._handlers.values()):
            handler(announcement)
