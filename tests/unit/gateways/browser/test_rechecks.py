"""When those who were let in are looked at again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from commserver.gateways.browser.rechecks import AT_ONCE, RETRY, Rechecks
from tests.fakes import FakeClock, settle

PERIOD = 900.0


class Guest:
    """Remembers when it was looked at."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.seen: list[float] = []
        self.known = True
        self.fault: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def recheck(self) -> bool:
        self.seen.append(self._clock.now())
        await self.open.wait()
        if self.fault:
            raise self.fault
        return self.known


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rolls() -> list[float]:
    """What chance says next; then the middle."""
    return []


@pytest.fixture
async def rechecks(clock: FakeClock, rolls: list[float]) -> AsyncIterator[Rechecks[Guest]]:
    rechecks: Rechecks[Guest] = Rechecks(PERIOD, clock, lambda: rolls.pop() if rolls else 0.5)
    running = asyncio.create_task(rechecks.run())
    await settle()
    yield rechecks
    assert not running.done(), "it ended by itself"
    running.cancel()
    await asyncio.wait({running})


async def until(clock: FakeClock, moment: float) -> None:
    clock.advance(moment - clock.now())
    await settle()


async def test_a_guest_is_looked_at_after_each_period(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    guest = Guest(clock)
    rechecks.add(guest)

    for moment in (899, 900, 1799, 1800):
        await until(clock, moment)

    assert guest.seen == [900, 1800]


@pytest.mark.parametrize(("roll", "moment"), [(0.0, 810), (0.999999, 990)])
async def test_chance_moves_it_by_a_tenth_at_most(
    rechecks: Rechecks[Guest], clock: FakeClock, rolls: list[float], roll: float, moment: float
) -> None:
    rolls.append(roll)
    guest = Guest(clock)
    rechecks.add(guest)

    await until(clock, moment - 1)
    before = list(guest.seen)
    await until(clock, moment)

    assert (before, guest.seen) == ([], [moment])


async def test_who_could_not_be_looked_at_is_tried_again_a_minute_later(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    guest = Guest(clock)
    guest.known = False
    rechecks.add(guest)
    for moment in (900, 900 + RETRY - 1, 900 + RETRY):
        await until(clock, moment)
    guest.known = True
    for moment in (900 + 2 * RETRY, 900 + 3 * RETRY):
        await until(clock, moment)

    assert guest.seen == [900, 960, 1020]


async def test_who_has_left_is_not_looked_at_nor_kept(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    guests = [Guest(clock) for _ in range(3)]
    for guest in guests:
        rechecks.add(guest)

    rechecks.remove(guests[0])
    rechecks.remove(guests[0])
    await until(clock, 900)

    assert [guest.seen for guest in guests] == [[], [900], [900]]
    assert len(rechecks) == 2


async def test_who_leaves_while_being_looked_at_is_not_kept(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    guest = Guest(clock)
    guest.open.clear()
    rechecks.add(guest)
    await until(clock, 900)

    rechecks.remove(guest)
    guest.open.set()
    await settle()

    assert len(rechecks) == 0


async def test_an_earlier_guest_that_comes_later_is_looked_at_first(
    rechecks: Rechecks[Guest], clock: FakeClock, rolls: list[float]
) -> None:
    late, early = Guest(clock), Guest(clock)
    rolls[:] = [0.0, 1.0]
    rechecks.add(late)
    await settle()
    rechecks.add(early)
    await settle()

    await until(clock, 810)

    assert (late.seen, early.seen) == ([], [810])


async def test_a_room_is_looked_at_a_few_at_a_time(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    guests = [Guest(clock) for _ in range(20)]
    for guest in guests:
        guest.open.clear()
        rechecks.add(guest)

    await until(clock, 900)
    at_first = sum(len(guest.seen) for guest in guests)
    for guest in guests:
        guest.open.set()
    await settle(200)

    assert at_first == AT_ONCE
    assert [len(guest.seen) for guest in guests] == [1] * 20


async def test_a_bug_in_one_look_disturbs_no_other(
    rechecks: Rechecks[Guest], clock: FakeClock
) -> None:
    broken, other = Guest(clock), Guest(clock)
    broken.fault = ZeroDivisionError("a bug")
    for guest in (broken, other):
        rechecks.add(guest)

    with capture_logs() as lines:
        await until(clock, 900)
        await until(clock, 960)

    assert (broken.seen, other.seen) == ([900, 960], [900])
    assert [line["event"] for line in lines] == ["recheck_failed"] * 2
