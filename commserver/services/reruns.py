"""Slots that are lent: what was close to a limit is run once more, on another slot than the first.

A program that needs nearly its time fails or passes by what else the machine did meanwhile. So such
a run is run twice, and the better end counts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from commserver.core.clock import Clock

PATIENCE = 3.0  # seconds to wait for another slot; after that the first will do


@dataclass(eq=False, slots=True)
class _Wish:
    """Somebody who waits for one of some slots."""

    fits: Callable[[int], bool]
    given: int | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """Who works on which slot: its own task or, for a while, that of another slot.

    Nobody holds a slot while they wait for one, and whoever holds one works on it and then gives it
    up: so nobody waits for ever, also when all slots have something to run again.

    lend: told which idle slot is about to be lent; says whether it may be. Then its own task takes
    nothing new before it is back.
    """

    def __init__(self, slots: Iterable[int], clock: Clock, lend: Callable[[int], bool]) -> None:
        self._clock = clock
        self._lend = lend
        self._holder: dict[int, object | None] = dict.fromkeys(slots)
        self._wishes: list[_Wish] = []  # oldest first
        self._back = {slot: asyncio.Event() for slot in self._holder}
        for event in self._back.values():
            event.set()

    async def home(self, slot: int) -> None:
        """Wait until nobody else works on a slot."""
        while self._holder[slot] is not None:
            await self._back[slot].wait()

    def take(self, slot: int, who: object) -> bool:
        """Work on a slot from now on; False when somebody else does."""
        if self._holder[slot] is not None:
            return False
        self._holder[slot] = who
        self._back[slot].clear()
        return True

    def give(self, slot: int, who: object) -> None:
        """Work on a slot no more, if it is `who` that does: whoever waits for it comes next."""
        if self._holder[slot] != who:
            return
        self._holder[slot] = None
        for wish in self._wishes:
            if wish.fits(slot):
                self._grant(wish, slot)
                return
        self._back[slot].set()

    @asynccontextmanager
    async def another(
        self, own: int, who: object, fits: Callable[[int], bool]
    ) -> AsyncIterator[int]:
        """Yield a slot to work on, another than `own` if there is one in time.

        own: is not `who`'s from now on, also after the block.
        fits: whether a slot will do.
        """
        self.give(own, who)
        wish = _Wish(lambda slot: slot != own and fits(slot))
        try:
            yield await self._fulfilled(wish, own)
        finally:
            if wish.given is None:
                self._wishes.remove(wish)
            else:
                self.give(wish.given, wish)

    async def _fulfilled(self, wish: _Wish, own: int) -> int:
        self._wishes.append(wish)
        self._look(wish)
        if wish.given is None and len(self._holder) > 1:
            await self._clock.wait(wish.came, self._clock.now() + PATIENCE)
        if wish.given is None:
            others = wish.fits
            wish.fits = lambda slot: slot == own or others(slot)
            self._look(wish)
        await wish.came.wait()
        assert wish.given is not None
        return wish.given

    def _look(self, wish: _Wish) -> None:
        """Grant a wish if one of the slots that nobody works on fits."""
        for slot, holder in self._holder.items():
            if holder is None and wish.fits(slot) and self._lend(slot):
                self._grant(wish, slot)
                return

    def _grant(self, wish: _Wish, slot: int) -> None:
        self._wishes.remove(wish)
        self._holder[slot] = wish
        self._back[slot].clear()
        wish.given = slot
        wish.came.set()
