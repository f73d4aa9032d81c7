"""The watch door: who looks on, and what they are told of their own runs."""

import asyncio
from typing import Protocol

from commserver.core.bus import EventBus
from commserver.core.clock import Clock
from commserver.core.dispatcher import Dispatcher
from commserver.core.events import (
    Event,
    QueueMoved,
    RunEnded,
    RunLeased,
    RunProgressed,
    RunQueued,
)
from commserver.core.finals import Final, account, ending
from commserver.core.jobs import Job, OwnerId, Requires, RunId

FIRST_PLACE = 0.05  # seconds until a new run's place is told: most begin sooner


class Watcher(Protocol):
    """One pair of eyes, such as a browser's socket: it keeps what it is given, without waiting."""

    def place(self, job: Job, place: int) -> None:
        """A run waits at this 1-based place of its lane; 0 = it has just left the queue."""

    def progress(self, job: Job, stage: str, text: str) -> None:
        """A run is so far; it may be forgotten for something newer."""

    def ended(self, run: RunId, final: Final | None) -> None:
        """A run has ended; `final` is what its owner is owed for it, None for nothing."""


class WatchService:
    """Tells each watcher of its owner's runs: places as they change, ends as they come.

    The board says only that a lane moved. Here that becomes places: of those runs alone that
    somebody watches, all at once every `period` seconds.
    """

    def __init__(
        self, dispatcher: Dispatcher, bus: EventBus, clock: Clock, *, period: float
    ) -> None:
        self._board = dispatcher.board
        self._clock = clock
        self._period = period
        self._watchers: dict[OwnerId, set[Watcher]] = {}
        self._places: dict[RunId, int] = {}  # as last told, of runs that are watched
        self._moved: set[Requires] = set()  # lanes
        self._new: dict[RunId, Job] = {}
        self._due: float | None = None
        self._rested = 0.0  # no lane is looked through before this moment
        self._woken = asyncio.Event()
        bus.subscribe(self._heard, RunQueued, RunLeased, RunProgressed, RunEnded, QueueMoved)

    async def run(self) -> None:
        """Tell places when they are due, until cancelled."""
        while True:
            self._woken.clear()
            if self._due is not None and self._due <= self._clock.now():
                self.tell()
            await self._clock.wait(self._woken, self._due)

    def join(self, owner: OwnerId, watcher: Watcher) -> None:
        """Tell `watcher` of the owner's runs from now on, first where each waiting one is."""
        self._watchers.setdefault(owner, set()).add(watcher)
        for job in self._board.runs_of(owner):
            if job.id in self._new:
                continue  # told to all in a moment
            if self._board.busy(job.id):
                self._places.pop(job.id, None)  # so that it is told to this one as well
                self._later(job)
            elif (place := self._board.place(job.id)) is not None:
                self._places.setdefault(job.id, place)
                watcher.place(job, self._places[job.id])

    def leave(self, owner: OwnerId, watcher: Watcher) -> None:
        """Tell `watcher` nothing more."""
        watchers = self._watchers.get(owner, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(owner, None)
            for job in self._board.runs_of(owner):
                self._places.pop(job.id, None)

    def tell(self) -> None:
        """Tell the places that changed since the last time."""
        now = self._clock.now()
        new, self._new, self._due = self._new, {}, None
        for job in new.values():
            self._tell(job)
        if self._moved and now < self._rested:
            self._due = self._rested
        elif self._moved:
            moved, self._moved = self._moved, set()
            self._rested = now + self._period
            for owner in self._watchers:
                for job in self._board.runs_of(owner):
                    if job.requires in moved:
                        self._tell(job)

    def _later(self, job: Job) -> None:
        """Tell a run's place in a moment, if it still waits then."""
        self._new[job.id] = job
        self._wake(self._clock.now() + FIRST_PLACE)

    def _tell(self, job: Job) -> None:
        if self._board.busy(job.id):
            # Its end may be committed by now, and read by somebody: no place may follow that.
            self._later(job)
            return
        place = self._board.place(job.id)
        if place is None or self._places.get(job.id) == place:
            return
        if watchers := self._watchers.get(job.owner):
            self._places[job.id] = place
            for watcher in watchers:
                watcher.place(job, place)

    def _heard(self, event: Event) -> None:
        match event:
            case RunQueued(job=job):
                if job.owner in self._watchers:
                    self._later(job)
            case QueueMoved(lane=lane):
                self._moved.add(lane)
                self._wake(max(self._rested, self._clock.now() + FIRST_PLACE))
            case RunLeased(lease=lease):
                self._new.pop(lease.job.id, None)
                self._places.pop(lease.job.id, None)
                for watcher in self._watchers.get(lease.job.owner, ()):
                    watcher.place(lease.job, 0)
            case RunProgressed(lease=lease, stage=stage, text=text):
                for watcher in self._watchers.get(lease.job.owner, ()):
                    watcher.progress(lease.job, stage, text)
            case RunEnded(job=job):
                self._new.pop(job.id, None)
                self._places.pop(job.id, None)
                for watcher in self._watchers.get(job.owner, ()):
                    watcher.ended(job.id, _final(event))

    def _wake(self, at: float) -> None:
        if self._due is None or at < self._due:
            self._due = at
            self._woken.set()


def _final(event: RunEnded) -> Final | None:
    """Return what the run's owner is owed for this end."""
    job = event.job
    for notice in event.notices:
        if notice.recipient == account(job.owner):
            return Final(job.id, job.attempt, event.state, ending(event.outcome), notice.seq)
    return None
