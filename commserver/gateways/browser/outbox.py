"""What one socket has still to be sent: bounded, in order, never more than the newest place."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from websockets.frames import CloseCode

from commserver.core.finals import Cursor, Final
from commserver.core.jobs import Job, RunId
from commserver.gateways.browser import notices
from commserver.gateways.browser.packets import Packet


class Close(NamedTuple):
    """Close the socket instead of sending more."""

    code: int
    reason: str


class Behind(NamedTuple):
    """Read what is owed above `after`, which was not heard as it happened; said once.

    since: the end of the series when the socket began, None for its first read.
    """

    after: int
    since: int | None


TOO_SLOW = Close(CloseCode.TRY_AGAIN_LATER, "too slow")


class Outbox:
    """A `services.watch_service.Watcher` that keeps packets until its socket takes them.

    A run has one place in it at most, the newest; its final takes that place's place. A reader that
    lets `limit` packets pile up gets later finals when it has room, as they are kept elsewhere;
    for answers it is closed: back again, it is told its places. Progress and announcements are
    told to who asked for them, go last, and give way to newer ones.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packets: deque[tuple[Packet, int]] = deque()  # with the number that it takes along
        self._places: dict[RunId, tuple[Job, int]] = {}
        self._told: dict[RunId, int] = {}  # the places, 1 or more, that were sent last
        self._asked: set[RunId] = set()  # runs whose place goes out whatever was sent before
        self._progress: dict[RunId, Packet] | None = None  # None: nobody wants to know
        self._announcement: Packet | None = None
        self._cursor: Cursor | None = None
        self._held: list[tuple[Packet, int]] | None = None  # finals for after an answer
        self._leaving = 0  # the number of the final that is on its way
        self._reading = False  # somebody was told to
        self.sent = 0  # the number of the last final that has left
        self.received = 0  # the highest number for which there is a receipt
        self._close: Close | None = None
        self._filled = asyncio.Event()
        self._sent = asyncio.Event()

    def answer(self, packet: Packet) -> None:
        """Keep a packet; they go out in this order, and none after the close or a gap."""
        if self._close:
            return
        if len(self._packets) < self._limit:
            self._packets.append((packet, 0))
        else:
            self._packets.clear()
            self._close = TOO_SLOW
        self._filled.set()

    def place(self, job: Job, place: int) -> None:
        """Keep where a run stands, 0 = it began: told only to who was told of another before."""
        if self._told.get(job.id, 0) == place and job.id not in self._asked:
            self._places.pop(job.id, None)
            return
        self._places[job.id] = (job, place)
        self._filled.set()

    def asked(self, job: Job, place: int) -> None:
        """Keep where a run stands for who asks, 0 = it is in hand."""
        self._asked.add(job.id)
        self.place(job, place)

    def switch_progress(self, *, on: bool) -> None:
        """Tell how far runs are, or no more of it."""
        self._progress = (self._progress or {}) if on else None

    def progress(self, job: Job, stage: str, text: str) -> None:
        """Keep how far a run is in place of what was kept of it."""
        if self._progress is not None:
            self._progress[job.id] = notices.progress(job, stage, text)
            self._filled.set()

    def announcement(self, packet: Packet | None) -> None:
        """Keep what is said to everybody in place of what was kept, None for nothing."""
        self._announcement = packet
        self._filled.set()

    def hold(self) -> None:
        """Give no final until `release`: the answer to a command goes before what it brings."""
        self._held = []

    def release(self) -> None:
        """Give finals again, first those that came meanwhile."""
        held, self._held = self._held, None
        if not self._close:
            self._packets.extend(held or ())
        self._filled.set()

    def follow(self) -> None:
        """Give finals from now on, first those that are owed from before."""
        self._cursor = Cursor()
        self._filled.set()

    def ended(self, run: RunId, final: Final | None) -> None:
        """Keep a run's final; no place of it goes out any more."""
        self._forget(run)
        self._told.pop(run, None)
        if final and self._cursor and not self._close:
            room = len(self._packets) + len(self._held or ()) < self._limit
            if self._cursor.heard(final.seq, room=room):
                self._final(final)
            self._filled.set()

    def caught_up(self, finals: Sequence[Final], last: int, *, more: bool) -> None:
        """Keep what was read after `Behind`: see `Cursor.caught_up`."""
        assert self._cursor is not None
        for final in finals:
            self._final(final)
        self._cursor.caught_up(finals, last, more=more)
        self._reading = False
        self._filled.set()

    def _final(self, final: Final) -> None:
        self._forget(final.run)
        if packet := notices.final(final):
            queue = self._packets if self._held is None else self._held
            queue.append((packet, final.seq))

    def _forget(self, run: RunId) -> None:
        """Say no more of what a run was doing."""
        self._places.pop(run, None)
        self._asked.discard(run)
        if self._progress:
            self._progress.pop(run, None)

    def close(self, code: int, reason: str) -> None:
        """Have the socket closed once everything kept so far is sent."""
        self._close = self._close or Close(code, reason)
        self._filled.set()

    async def next(self) -> Packet | Behind | Close:
        """Wait for what is to be done now: answers and finals first, then each newest place."""
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        if self._packets:
            packet, self._leaving = self._packets.popleft()
            return packet
        self._leaving = 0
        if self._close:
            return self._close
        if self._cursor and self._behind:
            self._reading = True
            return Behind(self._cursor.after, self._cursor.since)
        if self._places:
            return self._place()
        if self._progress:
            return self._progress.pop(next(iter(self._progress)))
        announcement, self._announcement = self._announcement, None
        assert announcement is not None
        return announcement

    def _place(self) -> Packet:
        run = next(iter(self._places))
        job, place = self._places.pop(run)
        self._asked.discard(run)
        if place:
            self._told[run] = place
        else:
            self._told.pop(run, None)
        return notices.place(job, place)

    def left(self) -> int:
        """Note that the packet of the last `next` is on its way.

        Returns its number if it is a final that was owed, whose receipt may be asked for now, and 0
        for anything else: what was told once more because somebody asked is none.
        """
        if self._leaving:
            self.sent = self._leaving
            self._sent.set()
        return self._leaving

    async def news(self, known: int, period: float, delay: float) -> None:
        """Return `delay` seconds after a final above `known` has left, else after `period`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(period):
                while self.sent <= known:
                    self._sent.clear()
                    await self._sent.wait()
                await asyncio.sleep(delay)

    @property
    def _ready(self) -> bool:
        return bool(
            (self._packets or self._close or self._behind)
            or (self._places or self._progress or self._announcement)
        )

    @property
    def _behind(self) -> bool:
        cursor = self._cursor
        return cursor is not None and cursor.behind and not self._reading
