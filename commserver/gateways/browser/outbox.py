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
from commserver.gateways.browser.packets import Error, ExerciceExecuted, Packet


class Close(NamedTuple):
    """Close the socket instead of sending more."""

    code: int
    reason: str


class Behind(NamedTuple):
    """Read what is owed above `after`, which was not heard as it happened; said once."""

    after: int


TOO_SLOW = Close(CloseCode.TRY_AGAIN_LATER, "too slow")


class Outbox:
    """A `services.watch_service.Watcher` that keeps packets until its socket takes them.

    A run has one place in it at most, the newest; its final takes that place's place. A reader that
    lets `limit` packets pile up gets later finals when it has room, as they are kept elsewhere;
    for answers it is closed: back again, it is told its places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packets: deque[Packet] = deque()
        self._places: dict[RunId, tuple[Job, int]] = {}
        self._told: set[RunId] = set()  # runs whose present place, 1 or more, was sent
        self._cursor: Cursor | None = None
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
            self._packets.append(packet)
        else:
            self._packets.clear()
            self._close = TOO_SLOW
        self._filled.set()

    def place(self, job: Job, place: int) -> None:
        """Keep where a run stands, 0 = it began: told only to who was told of a place before."""
        if place == 0 and job.id not in self._told:
            self._places.pop(job.id, None)
            return
        self._places[job.id] = (job, place)
        self._filled.set()

    def follow(self) -> None:
        """Give finals from now on, first those that are owed from before."""
        self._cursor = Cursor()
        self._filled.set()

    def ended(self, run: RunId, final: Final | None) -> None:
        """Keep a run's final; no place of it goes out any more."""
        self._places.pop(run, None)
        self._told.discard(run)
        if final and self._cursor and not self._close:
            if self._cursor.heard(final.seq, room=len(self._packets) < self._limit):
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
        self._places.pop(final.run, None)
        if packet := notices.final(final):
            self._packets.append(packet)

    def close(self, code: int, reason: str) -> None:
        """Have the socket closed once everything kept so far is sent."""
        self._close = self._close or Close(code, reason)
        self._filled.set()

    async def next(self) -> Packet | Behind | Close:
        """Wait for what is to be done now; places go last, each run's newest."""
        while not (self._packets or self._close or self._behind or self._places):
            self._filled.clear()
            await self._filled.wait()
        if self._packets:
            return self._packets.popleft()
        if self._close:
            return self._close
        if self._cursor and self._behind:
            self._reading = True
            return Behind(self._cursor.after)
        run = next(iter(self._places))
        job, place = self._places.pop(run)
        if place:
            self._told.add(run)
        else:
            self._told.discard(run)
        return notices.place(job, place)

    def left(self, packet: Packet) -> None:
        """Note that a packet is on its way; a final's receipt may be asked for now."""
        if isinstance(packet, ExerciceExecuted | Error) and packet.seq:
            self.sent = int(packet.seq)
            self._sent.set()

    async def news(self, known: int, period: float, delay: float) -> None:
        """Return `delay` seconds after a final above `known` has left, else after `period`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(period):
                while self.sent <= known:
                    self._sent.clear()
                    await self._sent.wait()
                await asyncio.sleep(delay)

    @property
    def _behind(self) -> bool:
        return self._cursor is not None and self._cursor.behind and not self._reading
