"""Looks now and then whether those who were let in may stay."""

import asyncio
import random
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

import structlog
from sortedcontainers import SortedKeyList

from commserver.core.clock import Clock

log = structlog.get_logger(__name__)

JITTER = 0.1  # of the period, either way: a room that came together is not looked at together
RETRY = 60.0  # seconds until who could not be looked at is tried again
AT_ONCE = 4  # looks at the same time


class Guest(Hashable, Protocol):
    """Somebody who was let in."""

    async def recheck(self) -> bool:
        """See whether they may stay, and show them out if not; False when that is not known."""


G = TypeVar("G", bound=Guest)


class Rechecks(Generic[G]):
    """Keeps when each guest is to be looked at again: an entry a guest, no task and no timer.

    rand: a number from 0 to 1 each time.
    """

    def __init__(
        self, period: float, clock: Clock, rand: Callable[[], float] = random.random
    ) -> None:
        self._period = period
        self._clock = clock
        self._rand = rand
        self._due: dict[G, float] = {}
        self._order: SortedKeyList = SortedKeyList(key=lambda entry: entry[0])
        self._free = asyncio.Semaphore(AT_ONCE)
        self._sooner = asyncio.Event()

    def add(self, guest: G) -> None:
        """Look at `guest` in a period's time, and again after each."""
        self._at(guest, self._period * (1 + JITTER * (2 * self._rand() - 1)))

    def remove(self, guest: G) -> None:
        """Look at `guest` no more."""
        if (due := self._due.pop(guest, None)) is not None:
            self._order.remove((due, guest))

    def __len__(self) -> int:
        return len(self._due)

    async def run(self) -> None:
        """Look at whoever is due, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._sooner.clear()
                first = self._order[0][0] if self._order else None
                if first is None or first > self._clock.now():
                    await self._clock.wait(self._sooner, first)
                    continue
                await self._free.acquire()
                if (guest := self._first_due()) is None:
                    self._free.release()
                    continue
                self._at(guest, RETRY)  # until it is known how it went
                tasks.create_task(self._look(guest))

    async def _look(self, guest: G) -> None:
        known = False
        try:
            known = await guest.recheck()
        except Exception:  # a bug of ours in one look must not end those at all others
            log.exception("recheck_failed")
        finally:
            self._free.release()
        if known and guest in self._due:
            self.add(guest)

    def _first_due(self) -> G | None:
        """Return whose turn it is, None when they have left meanwhile."""
        if not self._order or self._order[0][0] > self._clock.now():
            return None
        guest: G = self._order[0][1]
        return guest

    def _at(self, guest: G, delay: float) -> None:
        self.remove(guest)
        due = self._clock.now() + delay
        self._due[guest] = due
        self._order.add((due, guest))
        if self._order[0][1] is guest:
            self._sooner.set()
