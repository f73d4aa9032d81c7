import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from commserver.core.clock import Clock, SystemClock
from tests.fakes import FakeClock, settle

A_MOMENT = 0.005  # seconds
SOON = 60.0  # seconds: long enough that a test that really waits for it fails by its own time-out


async def pass_time(clock: Clock) -> None:
    if isinstance(clock, FakeClock):
        clock.advance(A_MOMENT)


@pytest.fixture(params=[SystemClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    """The contract is the same for the real clock and the one of the tests."""
    make: Callable[[], Clock] = request.param
    return make()


async def test_wait_ends_when_the_event_is_set(clock: Clock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, clock.now() + SOON))
    await settle()
    assert not waiting.done()

    event.set()
    await waiting


async def test_wait_ends_at_its_moment(clock: Clock) -> None:
    until = clock.now() + A_MOMENT
    waiting = asyncio.create_task(clock.wait(asyncio.Event(), until))
    await settle()

    await pass_time(clock)
    await waiting

    assert clock.now() >= until


async def test_wait_for_a_moment_that_has_passed_ends_at_once(clock: Clock) -> None:
    await clock.wait(asyncio.Event(), clock.now() - SOON)
    await clock.wait(asyncio.Event(), clock.now())


async def test_wait_without_a_moment_waits_for_the_event_alone(clock: Clock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, None))
    await settle()
    await pass_time(clock)
    await settle()
    assert not waiting.done()

    event.set()
    await waiting


async def test_an_event_that_is_set_already_is_not_waited_for(clock: Clock) -> None:
    event = asyncio.Event()
    event.set()

    await clock.wait(event, clock.now() + SOON)
    await clock.wait(event, None)


async def test_a_wait_that_is_cancelled_says_so(clock: Clock) -> None:
    waiting = asyncio.create_task(clock.wait(asyncio.Event(), clock.now() + SOON))
    await settle()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_two_may_wait_at_a_time(clock: Clock) -> None:
    late, early = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(clock.wait(late, clock.now() + SOON))
    second = asyncio.create_task(clock.wait(early, clock.now() + SOON))
    await settle()

    early.set()
    await second
    assert not first.done()

    late.set()
    await first


def test_the_system_clock_is_monotonic_and_knows_the_time_of_day() -> None:
    clock = SystemClock()

    before = time.monotonic()
    assert before <= clock.now() <= clock.now()
    assert abs(datetime.now(UTC) - clock.utc()) < timedelta(seconds=5)
    assert clock.utc().tzinfo is UTC


async def test_the_fake_clock_wakes_only_those_whose_time_has_come() -> None:
    clock = FakeClock(now=100.0)
    woken = []

    async def sleeper(until: float) -> None:
        await clock.wait(asyncio.Event(), until)
        woken.append(until)

    async with asyncio.TaskGroup() as tasks:
        for until in (103.0, 101.0, 102.0):
            tasks.create_task(sleeper(until))
        await settle()
        assert clock.alarms == [101.0, 102.0, 103.0]

        clock.advance(2.0)
        await settle()
        assert sorted(woken) == [101.0, 102.0]

        clock.advance(5.0)

    assert clock.now() == 107.0
    assert clock.alarms == []
