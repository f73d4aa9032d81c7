"""Slots that are lent: another one in time, else the own, and nobody waits for ever."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from commserver.services.reruns import PATIENCE, Slots
from tests.fakes import FakeClock, settle


class Room:
    """Some slots, and what was lent of them; `busy` ones have a run of their own by now."""

    def __init__(self, clock: FakeClock, count: int) -> None:
        self.clock = clock
        self.lent: list[int] = []
        self.busy: set[int] = set()
        self.slots = Slots(range(count), clock, self._lend)
        self.working: dict[str, int] = {}
        self._over: dict[str, asyncio.Event] = {}

    def _lend(self, slot: int) -> bool:
        if slot in self.busy:
            return False
        self.lent.append(slot)
        return True

    def again(
        self, own: int, who: str, fits: Callable[[int], bool] = lambda _: True
    ) -> asyncio.Task[None]:
        """Let `who`, who works on `own`, run something again until it is `over`."""
        self._over[who] = asyncio.Event()

        async def run() -> None:
            async with self.slots.another(own, who, fits) as slot:
                assert slot not in self.working.values()
                self.working[who] = slot
                await self._over[who].wait()
                del self.working[who]

        return asyncio.create_task(run())

    def over(self, who: str) -> None:
        self._over[who].set()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_an_idle_slot_is_lent_at_once_and_given_back(clock: FakeClock) -> None:
    room = Room(clock, 2)
    assert room.slots.take(0, "a")

    again = room.again(0, "a")
    await settle()
    at_work = dict(room.working)
    taken = room.slots.take(1, "its own")
    room.over("a")
    await again

    assert (at_work, room.lent, taken) == ({"a": 1}, [1], False)
    assert room.slots.take(1, "its own")
    assert room.slots.take(0, "the next")


async def test_its_own_task_waits_at_home_while_a_slot_is_lent(clock: FakeClock) -> None:
    room = Room(clock, 2)
    room.slots.take(0, "a")
    again = room.again(0, "a")
    await settle()

    home = asyncio.create_task(room.slots.home(1))
    await settle()
    before = home.done()
    room.over("a")
    await again
    await home

    assert not before


async def test_a_slot_that_ends_its_work_in_time_is_lent_before_it_takes_more(
    clock: FakeClock,
) -> None:
    room = Room(clock, 2)
    for slot, who in enumerate("ab"):
        room.slots.take(slot, who)
    again = room.again(0, "a")
    await settle()
    waits = dict(room.working)

    room.slots.give(1, "b")
    next_of_its_own = room.slots.take(1, "c")
    await settle()

    assert (waits, next_of_its_own, room.working) == ({}, False, {"a": 1})
    room.over("a")
    await again


async def test_the_own_slot_does_when_no_other_comes_in_time(clock: FakeClock) -> None:
    room = Room(clock, 2)
    for slot, who in enumerate("ab"):
        room.slots.take(slot, who)
    again = room.again(0, "a")
    await settle()

    clock.advance(PATIENCE)
    await settle()

    assert room.working == {"a": 0}
    room.over("a")
    await again


async def test_the_only_slot_there_is_does_at_once(clock: FakeClock) -> None:
    room = Room(clock, 1)
    room.slots.take(0, "a")

    again = room.again(0, "a")
    await settle()

    assert (room.working, clock.alarms) == ({"a": 0}, [])
    room.over("a")
    await again


async def test_slots_that_do_not_fit_or_have_work_by_now_are_not_lent(clock: FakeClock) -> None:
    room = Room(clock, 3)
    room.busy.add(1)
    room.slots.take(0, "a")
    again = room.again(0, "a", lambda slot: slot != 2)
    await settle()

    clock.advance(PATIENCE)
    await settle()

    assert (room.working, room.lent) == ({"a": 0}, [0])
    room.over("a")
    await again


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_all_slots_can_run_something_again_at_once(clock: FakeClock, count: int) -> None:
    room = Room(clock, count)
    names = [str(slot) for slot in range(count)]
    for slot, who in enumerate(names):
        room.slots.take(slot, who)

    tasks = [room.again(slot, who) for slot, who in enumerate(names)]
    await settle()
    clock.advance(PATIENCE)
    await settle()
    first = dict(room.working)
    for who in names:
        room.over(who)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)

    assert len(set(first.values())) == len(first) >= count - 1
    assert all(room.slots.take(slot, "next") for slot in range(count))


async def test_a_slot_whose_own_was_lent_meanwhile_waits_for_either(clock: FakeClock) -> None:
    room = Room(clock, 2)
    for slot, who in enumerate("ab"):
        room.slots.take(slot, who)
    first = room.again(0, "a")
    await settle()
    second = room.again(1, "b")  # gives 1, which "a" takes; 0 is free for "b"
    await settle()

    assert room.working == {"a": 1, "b": 0}
    for who, task in (("a", first), ("b", second)):
        room.over(who)
        await task


@pytest.mark.parametrize("granted", [False, True])
async def test_who_is_cancelled_leaves_nothing_taken(clock: FakeClock, granted: bool) -> None:
    room = Room(clock, 2)
    for slot, who in enumerate("ab"):
        room.slots.take(slot, who)
    again = room.again(0, "a")
    await settle()

    if granted:
        room.slots.give(1, "b")  # and nobody has told "a" yet
    again.cancel()
    with suppress(asyncio.CancelledError):
        await again
    if not granted:
        room.slots.give(1, "b")

    assert [room.slots.take(slot, "next") for slot in (0, 1)] == [True, True]


async def test_who_does_not_work_on_a_slot_cannot_give_it(clock: FakeClock) -> None:
    room = Room(clock, 1)
    room.slots.take(0, "a")

    room.slots.give(0, "b")

    assert not room.slots.take(0, "c")
