"""Who is told what of their runs, and when."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.finals import Final
from commserver.core.jobs import Job, Lease, OwnerId, Requires, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure
from commserver.errors import StoreError
from commserver.services.watch_service import FIRST_PLACE, WatchService
from tests.fakes import (
    JAVA,
    PYTHON,
    FakeClock,
    FakeLedger,
    broken,
    completed,
    make_job,
    make_offer,
    settle,
)

ADA, GRACE = OwnerId("ada"), OwnerId("grace")
PERIOD = 1.0
SLOT = make_offer()


class Eyes:
    """A watcher that remembers: (run, place) pairs and (run, state) pairs, as they came."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int | State | str]] = []

    def place(self, job: Job, place: int) -> None:
        self.told.append((job.id, place))

    def progress(self, job: Job, stage: str, text: str) -> None:
        self.told.append((job.id, f"{stage} {text}"))

    def ended(self, run: RunId, final: Final | None) -> None:
        self.told.append((run, final.state if final else State.SUPERSEDED))

    def take(self) -> list[tuple[str, int | State | str]]:
        """Return what was told since the last call."""
        told, self.told = self.told, []
        return told


class CountingBoard(Board):
    """A board that counts how often it is asked for a place."""

    asked = 0

    def place(self, run: RunId) -> int | None:
        self.asked += 1
        return super().place(run)


class Hall:
    """A queue that is watched; time stands still unless it is told to pass."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.board = CountingBoard()
        bus = EventBus()
        self.ledger = FakeLedger()
        self.dispatcher = Dispatcher(self.board, self.ledger, bus, self.clock)
        self.watch = WatchService(self.dispatcher, bus, self.clock, period=PERIOD)
        self._attempts = 0

    async def submit(self, *runs: str, owner: OwnerId = GRACE, requires: Requires = PYTHON) -> None:
        for run in runs:
            self._attempts += 1
            job = make_job(run, owner=owner, requires=requires, attempt=self._attempts)
            await self.dispatcher.submit(job)

    async def lease(
        self, count: int = 1, images: Sequence[str] = ("python", "java")
    ) -> list[Lease]:
        return await self.dispatcher.try_lease(make_offer(images=images), count)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps, so that whatever is due is due at its own moment."""
        until = self.clock.now() + seconds
        while (now := self.clock.now()) < until:
            self.clock.advance(min(FIRST_PLACE / 2, until - now))
            await settle(4)

    def join(self, owner: OwnerId = ADA) -> Eyes:
        eyes = Eyes()
        self.watch.join(owner, eyes)
        return eyes


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    hall = Hall()
    watching = asyncio.create_task(hall.watch.run())
    await settle()
    yield hall
    watching.cancel()
    await asyncio.wait({watching})
    assert watching.cancelled(), "it ended by itself"


# -- the first place ------------------------------------------------------------------------------


async def test_a_new_run_is_told_its_place_after_a_moment(hall: Hall) -> None:
    await hall.submit("before")
    eyes = hall.join()
    await hall.submit("a", owner=ADA)

    await hall.pass_time(FIRST_PLACE * 0.9)
    assert eyes.take() == []

    await hall.pass_time(FIRST_PLACE * 0.2)
    assert eyes.take() == [("a", 2)]


async def test_a_run_that_begins_at_once_is_told_no_place(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.lease()

    await hall.pass_time(3 * PERIOD)

    assert eyes.take() == [("a", 0)]


async def test_a_run_that_leaves_the_queue_is_told_so_at_once(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    eyes.take()

    await hall.lease()

    assert eyes.take() == [("a", 0)]


async def test_a_run_that_comes_back_to_the_queue_is_told_its_place_again(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    [lease] = await hall.lease()

    await hall.dispatcher.release(lease.id)
    await hall.pass_time(FIRST_PLACE)

    assert eyes.take() == [("a", 1), ("a", 0), ("a", 1)]


# -- places that change ---------------------------------------------------------------------------


async def test_places_that_change_are_told_once_a_period_and_only_the_newest(hall: Hall) -> None:
    await hall.submit(*(f"before-{number}" for number in range(9)))
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(FIRST_PLACE)
    assert eyes.take() == [("a", 10)]

    told: list[list[tuple[str, int | State | str]]] = []
    for _ in range(2):
        for _ in range(4):
            await hall.lease()
            await hall.pass_time(PERIOD / 4)
        told.append(eyes.take())

    assert told == [[("a", 9)], [("a", 5)]], "the first at once, then the newest of each period"


async def test_a_new_run_does_not_bring_the_others_forward(hall: Hall) -> None:
    await hall.submit("before", "also before")
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    await hall.lease()
    await hall.pass_time(FIRST_PLACE)
    assert eyes.take() == [("a", 3), ("a", 2)]

    await hall.lease()
    await hall.submit("b", owner=ADA)
    await hall.pass_time(PERIOD / 2)
    assert eyes.take() == [("b", 2)]

    await hall.pass_time(PERIOD / 2)
    assert eyes.take() == [("a", 1)]


async def test_a_change_after_a_quiet_time_is_told_without_waiting_a_period(hall: Hall) -> None:
    await hall.submit("before")
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(5 * PERIOD)
    eyes.take()

    await hall.lease()
    await hall.pass_time(FIRST_PLACE)

    assert eyes.take() == [("a", 1)]


async def test_a_place_that_did_not_change_is_not_told_again(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    eyes.take()

    await hall.submit("behind", "further behind")
    await hall.pass_time(3 * PERIOD)

    assert eyes.take() == []


async def test_newer_content_in_the_same_place_is_not_told(hall: Hall) -> None:
    eyes = hall.join()
    for content in ("first", "second"):
        job = make_job("a", owner=ADA, attempt=1, content=content)
        await hall.dispatcher.submit(job)
        await hall.pass_time(2 * PERIOD)

    assert eyes.take() == [("a", 1)]


async def test_another_lanes_moves_do_not_matter(hall: Hall) -> None:
    await hall.submit("java", "more java", requires=JAVA)
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    asked = hall.board.asked

    await hall.lease(images=["java"])
    await hall.pass_time(3 * PERIOD)

    assert eyes.take() == [("a", 1)]
    assert hall.board.asked == asked


# -- who looks on ---------------------------------------------------------------------------------


async def test_whoever_joins_is_told_at_once_where_each_waiting_run_is(hall: Hall) -> None:
    await hall.submit("running", owner=ADA)
    await hall.lease()
    await hall.submit("a", owner=ADA)
    await hall.submit("others")
    await hall.submit("b", owner=ADA)

    assert hall.join().take() == [("a", 1), ("b", 3)]


async def test_a_second_tab_is_told_what_the_first_one_knows(hall: Hall) -> None:
    first = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)

    second = hall.join()
    await hall.lease()

    assert first.take() == second.take() == [("a", 1), ("a", 0)]


async def test_a_run_that_waits_already_is_not_told_a_second_time_as_new(hall: Hall) -> None:
    await hall.submit("a", owner=ADA)
    eyes = hall.join()
    hall.join()

    await hall.pass_time(3 * PERIOD)

    assert eyes.take() == [("a", 1)]


async def test_who_has_left_is_told_nothing_more(hall: Hall) -> None:
    gone, there = hall.join(), hall.join()
    await hall.submit("before")
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    gone.take(), there.take()

    hall.watch.leave(ADA, gone)
    await hall.lease(2)
    await hall.dispatcher.cancel(RunId("a"))
    await hall.pass_time(PERIOD)

    assert gone.take() == []
    assert there.take() == [("a", 0), ("a", State.CANCELLED)]


async def test_leaving_twice_or_without_having_been_there_is_nothing(hall: Hall) -> None:
    eyes = hall.join()

    for _ in range(2):
        hall.watch.leave(ADA, eyes)
    hall.watch.leave(GRACE, eyes)

    assert eyes.take() == []


async def test_who_comes_back_is_told_the_present_place(hall: Hall) -> None:
    await hall.submit("before")
    await hall.submit("a", owner=ADA)
    eyes = hall.join()
    hall.watch.leave(ADA, eyes)
    await hall.lease()
    await hall.pass_time(PERIOD)
    eyes.take()

    hall.watch.join(ADA, eyes)

    assert eyes.take() == [("a", 1)]


async def test_nobody_is_told_of_anothers_runs(hall: Hall) -> None:
    ada, grace = hall.join(ADA), hall.join(GRACE)
    await hall.submit("a", owner=ADA)
    await hall.lease()
    await hall.dispatcher.cancel(RunId("a"))
    await hall.pass_time(PERIOD)

    assert grace.take() == []
    assert ada.take() == [("a", 0), ("a", State.CANCELLED)]


async def test_runs_that_nobody_watches_cost_nothing(hall: Hall) -> None:
    hall.join(ADA)
    await hall.submit(*map(str, range(50)))
    for _ in range(10):
        await hall.lease()
        await hall.pass_time(PERIOD)

    assert hall.board.asked == 0


# -- ends -----------------------------------------------------------------------------------------


async def test_all_who_watch_are_told_of_an_end_at_once(hall: Hall) -> None:
    tabs = [hall.join() for _ in range(3)]
    await hall.submit("a", owner=ADA)
    [lease] = await hall.lease()
    await hall.dispatcher.finished(lease, completed())

    assert [eyes.take() for eyes in tabs] == [[("a", 0), ("a", State.DONE)]] * 3


async def test_a_refusal_is_an_end(hall: Hall) -> None:
    eyes = hall.join()

    job = make_job("a", owner=ADA, attempt=1)
    await hall.dispatcher.refuse(job, Failure(Cause.NOT_FOUND, "no files"))

    assert eyes.take() == [("a", State.FAILED)]


async def test_there_is_no_place_after_the_end(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    await hall.dispatcher.cancel(RunId("a"))

    await hall.pass_time(3 * PERIOD)

    assert eyes.take() == [("a", State.CANCELLED)]


async def test_no_place_is_told_while_an_end_is_being_committed(hall: Hall) -> None:
    """It may be in the rows already, and read by a socket that catches up."""
    eyes = hall.join()
    await hall.submit("a", "b", owner=ADA)
    hall.ledger.hang()
    cancelling = asyncio.create_task(hall.dispatcher.cancel(RunId("a")))
    await settle()
    newcomer = hall.join()

    await hall.pass_time(3 * PERIOD)

    assert (eyes.take(), newcomer.take()) == ([("b", 2)], [("b", 2)])
    hall.ledger.resume()
    assert await cancelling
    assert eyes.take() == [("a", State.CANCELLED)]


async def test_the_place_is_told_when_that_commit_has_failed(hall: Hall) -> None:
    hall.join()
    await hall.submit("a", owner=ADA)
    await hall.pass_time(PERIOD)
    hall.ledger.hang()
    cancelling = asyncio.create_task(hall.dispatcher.cancel(RunId("a")))
    await settle()
    newcomer = hall.join()
    hall.ledger.held[0].fail()
    with pytest.raises(StoreError):
        await cancelling

    await hall.pass_time(PERIOD)

    assert newcomer.take() == [("a", 1)]


# -- memory and any order -------------------------------------------------------------------------


def kept(watch: WatchService) -> dict[str, object]:
    """Return what the service still remembers in its containers.

    Looks into private attributes, for memory is not to be seen from outside.
    """
    return {
        name: value
        for name, value in vars(watch).items()
        if isinstance(value, dict | set | list) and value
    }


async def test_nothing_is_remembered_of_runs_that_are_over(hall: Hall) -> None:
    for number in range(30):
        owner = OwnerId(str(number % 7))
        eyes = hall.join(owner)
        await hall.submit(f"{number}-a", f"{number}-b", f"{number}-c", owner=owner)
        if number % 2:
            await hall.pass_time(FIRST_PLACE)
        [lease] = await hall.lease()
        await hall.dispatcher.finished(lease, completed() if number % 3 else broken(Cause.IMAGE))
        if number % 4 == 1:
            await hall.dispatcher.cancel(RunId(f"{number}-b"))
        hall.watch.leave(owner, eyes)
    for number in range(30):
        for run in "abc":
            await hall.dispatcher.cancel(RunId(f"{number}-{run}"))
    await hall.pass_time(2 * PERIOD)

    assert kept(hall.watch) == {}


AWAY = ("", 0)  # what is noted when a watcher leaves
OPERATIONS = st.lists(
    st.sampled_from(["submit", "submit for grace", "lease", "finish", "release", "cancel", "leave"])
    | st.sampled_from(["join", "wait a moment", "wait"]),
    max_size=40,
)


@settings(deadline=None)
@given(OPERATIONS)
def test_whatever_happens_the_last_place_told_is_the_true_one(operations: list[str]) -> None:
    asyncio.run(watched(operations))


async def watched(operations: list[str]) -> None:
    """Do all this and compare what a watcher was told with what is so."""
    hall = Hall()
    watching = asyncio.create_task(hall.watch.run())
    await settle()
    eyes = hall.join()
    leases: list[Lease] = []
    for number, operation in enumerate([*operations, "join if away", "wait", "wait"]):
        match operation:
            case "submit":
                await hall.submit(str(number), owner=ADA)
            case "submit for grace":
                await hall.submit(str(number))
            case "lease":
                leases += await hall.lease()
            case "finish" if leases:
                await hall.dispatcher.finished(leases.pop(), completed())
            case "release" if leases:
                await hall.dispatcher.release(leases.pop(0).id)
            case "cancel":
                for job in hall.board.runs_of(ADA)[:1]:
                    await hall.dispatcher.cancel(job.id)
            case "leave":
                hall.watch.leave(ADA, eyes)
                eyes.told.append(AWAY)
            case "join" | "join if away" if AWAY in eyes.told[-1:]:
                hall.watch.join(ADA, eyes)
            case "wait a moment":
                await hall.pass_time(FIRST_PLACE)
            case "wait":
                await hall.pass_time(PERIOD)

    last: dict[str, int | State | str] = {}
    for run, told in eyes.told:
        assert not isinstance(last.get(run), State), "something after the end"
        assert told == 0 or last.get(run) != told, "told twice"
        last[run] = told
        if (run, told) == AWAY:
            last = {run: told for run, told in last.items() if isinstance(told, State)}
    waiting = {job.id: hall.board.place(job.id) for job in hall.board.runs_of(ADA)}
    assert {run: place for run, place in last.items() if place and isinstance(place, int)} == {
        run: place for run, place in waiting.items() if place
    }
    watching.cancel()
    await asyncio.wait({watching})


# -- progress -------------------------------------------------------------------------------------


async def test_progress_is_told_to_the_watchers_of_its_owner_alone(hall: Hall) -> None:
    ada, grace = hall.join(ADA), hall.join(GRACE)
    await hall.submit("a", owner=ADA)
    [lease] = await hall.lease()
    ada.take(), grace.take()

    hall.dispatcher.progressed(lease, "run", "3/7")

    assert (ada.take(), grace.take()) == ([("a", "run 3/7")], [])


async def test_no_progress_is_told_of_a_run_that_has_ended(hall: Hall) -> None:
    eyes = hall.join()
    await hall.submit("a", owner=ADA)
    [lease] = await hall.lease()
    await hall.dispatcher.cancel(RunId("a"))
    eyes.take()

    hall.dispatcher.progressed(lease, "run", "3/7")

    assert eyes.take() == []
