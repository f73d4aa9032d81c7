"""What one socket has still to be sent: bounded, in order, never more than the newest place."""

import asyncio
from collections import deque
from typing import NamedTuple

from websockets.frames import CloseCode

from commserver.core.execution import Outcome
from commserver.core.jobs import Job, RunId
from commserver.core.states import State
from commserver.gateways.browser import notices
from commserver.gateways.browser.packets import Packet


class Close(NamedTuple):
    """Close the socket instead of sending more."""

    code: int
    reason: str


TOO_SLOW = Close(CloseCode.TRY_AGAIN_LATER, "too slow")


class Outbox:
    """A `services.watch_service.Watcher` that keeps packets until its socket takes them.

    A run has one place in it at most, the newest; its final takes that place's place. A reader that
    lets `limit` other packets pile up is closed: back again, it is told its places.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packets: deque[Packet] = deque()
        self._places: dict[RunId, tuple[Job, int]] = {}
        self._told: set[RunId] = set()  # runs whose present place, 1 or more, was sent
        self._close: Close | None = None
        self._filled = asyncio.Event()

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

    def ended(self, job: Job, state: State, outcome: Outcome | None) -> None:
        """Keep a run's final; no place of it goes out any more."""
        self._places.pop(job.id, None)
        self._told.discard(job.id)
        if packet := notices.final(job, state, outcome):
            self.answer(packet)

    def close(self, code: int, reason: str) -> None:
        """Have the socket closed once everything kept so far is sent."""
        self._close = self._close or Close(code, reason)
        self._filled.set()

    async def next(self) -> Packet | Close:
        """Wait for what is to be done now; places go last, each run's newest."""
        while not (self._packets or self._close or self._places):
            self._filled.clear()
            await self._filled.wait()
        if self._packets:
            return self._packets.popleft()
        if self._close:
            return self._close
        run = next(iter(self._places))
        job, place = self._places.pop(run)
        if place:
            self._told.add(run)
        else:
            self._told.discard(run)
        return notices.place(job, place)
