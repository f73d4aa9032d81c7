import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from commserver.core.board import Board, Gone
from commserver.core.bus import EventBus
from commserver.core.changes import Change, Conflict
from commserver.core.dispatcher import STORE_REST, Dispatcher, Submitted
from commserver.core.events import (
    Event,
    LeaseRevoked,
    QueueMoved,
    RunEnded,
    RunLeased,
    RunProgressed,
    RunQueued,
    RunReplaced,
    RunStarted,
)
from commserver.core.jobs import SWEEP, Lease, LeaseId, Origin, Priority, RunId
from commserver.core.states import State, Step
from commserver.core.verdicts import Broken, Cause, Failure
from commserver.errors import AlreadyExists, StoreError
from tests.fakes import (
    JAVA,
    FakeClock,
    FakeLedger,
    broken,
    completed,
    make_job,
    make_offer,
    settle,
)
from tests.unit.core.desk import remains

E = TypeVar("E")

A, B, C = (RunId(name) for name in "abc")
SLOT = make_offer()
REMOTE = make_offer("node", engine="away", remote=True)
REMOTE_2 = make_offer("node-2", engine="away", remote=True)
EVERY_KIND = (
    RunQueued,
    RunReplaced,
    RunLeased,
    RunStarted,
    RunProgressed,
    RunEnded,
    LeaseRevoked,
    QueueMoved,
)


class World:
    """A dispatcher on fakes, and what was published."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = FakeLedger()
        self.board = Board()
        self.bus = EventBus()
        self.dispatcher = Dispatcher(self.board, self.ledger, self.bus, self.clock)
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append, *EVERY_KIND)

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def time_acting(self) -> AsyncIterator[None]:
        """Let time act on the queue, as the application does."""
        task = asyncio.create_task(self.dispatcher.run())
        await settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world that must be left tidy: no task, no waiter, no claim stays behind."""
    world = World()
    yield world
    world.ledger.resume()
    await settle()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not any(world.board.busy(run) for run in world.ledger.rows)
    assert remains(world.dispatcher) == {}


async def begun(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start it and let it go as far as it can."""
    task = asyncio.create_task(coroutine)
    await settle()
    return task


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and let the cancellation go as far as it can."""
    for task in tasks:
        task.cancel()
    await settle()


# -- work meets runner ----------------------------------------------------------------------------


async def test_a_runner_that_asks_gets_what_waits(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))

    lease = await world.dispatcher.lease(SLOT)

    assert lease.job.id == A
    assert [type(event) for event in world.events] == [RunQueued, RunLeased]


@pytest.mark.parametrize("offer", [SLOT, REMOTE], ids=["local", "remote"])
async def test_a_runner_that_waits_gets_new_work_at_once(world: World, offer: Any) -> None:
    waiting = await begun(world.dispatcher.lease(offer))
    assert not waiting.done()

    await world.dispatcher.submit(make_job("a"))
    await settle()

    assert waiting.result().job.id == A


async def test_runners_that_wait_are_served_first_come_first_served(world: World) -> None:
    waiting = [await begun(world.dispatcher.lease(make_offer(f"slot-{n}"))) for n in range(3)]

    for run in "abc":
        await world.dispatcher.submit(make_job(run))
    await settle()

    assert [task.result().job.id for task in waiting] == [A, B, C]


async def test_a_runner_that_waits_lets_pass_what_does_not_fit_it(world: World) -> None:
    pythonist = await begun(world.dispatcher.lease(make_offer("python", images=("python",))))
    javanist = await begun(world.dispatcher.lease(make_offer("java", images=("java",))))

    await world.dispatcher.submit(make_job("a", requires=JAVA))
    await settle()

    assert javanist.result().job.id == A
    assert not pythonist.done()
    await cancelled(pythonist)


async def test_try_lease_takes_what_is_there_and_does_not_wait(world: World) -> None:
    for run in "abc":
        await world.dispatcher.submit(make_job(run))

    assert [lease.job.id for lease in await world.dispatcher.try_lease(REMOTE, 5, {B})] == [A, C]
    assert await world.dispatcher.try_lease(REMOTE, 5, {B}) == []


async def test_try_lease_takes_no_more_than_it_was_asked_for(world: World) -> None:
    for run in "abc":
        await world.dispatcher.submit(make_job(run))

    assert len(await world.dispatcher.try_lease(REMOTE)) == 1
    assert len(await world.dispatcher.try_lease(REMOTE, 0)) == 0
    assert len(await world.dispatcher.try_lease(REMOTE, 2)) == 2


async def test_a_released_run_goes_to_who_waits(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    waiting = await begun(world.dispatcher.lease(make_offer("slot-2")))

    assert await world.dispatcher.release(lease.id)
    await settle()

    assert waiting.result().job.id == A


async def test_the_second_run_of_an_attempt_goes_to_who_waits_when_the_first_ends(
    world: World,
) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    lease = await world.dispatcher.lease(SLOT)
    waiting = await begun(world.dispatcher.lease(make_offer("slot-2")))
    await world.dispatcher.submit(make_job("b", attempt=1, content="y"))
    await settle()
    assert not waiting.done()

    assert await world.dispatcher.finished(lease, completed())
    await settle()

    assert waiting.result().job.id == B


async def test_an_engine_that_drained_for_a_suspect_gives_it_to_who_waits(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    doomed = await world.dispatcher.lease(make_offer("doomed", engine="doomed"))
    await world.dispatcher.submit(make_job("x", priority=Priority.EXAM))
    busy = await world.dispatcher.lease(SLOT)
    await world.dispatcher.finished(doomed, broken(engine_died=True))
    async with world.time_acting():
        waiting = await begun(world.dispatcher.lease(make_offer("slot-2")))
        await world.advance(1.0)
        assert not waiting.done()

        await world.dispatcher.finished(busy, completed())
        await settle()

        assert waiting.result().job.id == A


@pytest.mark.parametrize("leaving", ["leaves", "joins elsewhere"])
async def test_what_was_kept_for_a_suspect_is_free_when_its_runner(
    world: World, leaving: str
) -> None:
    javanist = make_offer("javanist", images=("java",))
    for offer in (SLOT, javanist):
        world.dispatcher.join(offer)
    await world.dispatcher.submit(make_job("a"))
    doomed = await world.dispatcher.lease(make_offer("doomed", engine="doomed"))
    await world.dispatcher.submit(make_job("x"))
    await world.dispatcher.lease(SLOT)
    await world.dispatcher.finished(doomed, broken(engine_died=True))
    world.clock.advance(1.0)
    assert await world.dispatcher.try_lease(SLOT) == []
    waiting = await begun(world.dispatcher.lease(javanist))
    await world.dispatcher.submit(make_job("b", requires=JAVA))
    await settle()
    assert not waiting.done()

    if leaving == "leaves":
        world.dispatcher.leave(SLOT.runner)
    else:
        world.dispatcher.join(make_offer(SLOT.runner, engine="anew"))
    await settle()

    assert waiting.result().job.id == B


async def test_progress_is_told_while_the_lease_is_held_and_not_after(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)

    world.dispatcher.progressed(lease, "compile", "…")
    await world.dispatcher.finished(lease, completed())
    world.dispatcher.progressed(lease, "case", "1")

    assert world.told(RunProgressed) == [RunProgressed(lease, "compile", "…")]


# -- what callers are answered --------------------------------------------------------------------


async def test_submit_says_which_run_stands_for_the_work(world: World) -> None:
    submit = world.dispatcher.submit

    assert await submit(make_job("a", attempt=1, content="x")) == Submitted(A, new=True)
    assert await submit(make_job("b", attempt=1, content="x")) == Submitted(A, new=False)
    assert await submit(make_job("c", attempt=1, content="y")) == Submitted(A, new=False)
    await world.dispatcher.lease(SLOT)
    assert await submit(make_job("b", attempt=1, content="z")) == Submitted(B, new=True)


async def test_ask_says_whether_the_run_is_still_there_to_be_asked_for(world: World) -> None:
    ask, asker = world.dispatcher.ask, Origin("backend", "main", "42")
    await world.dispatcher.submit(replace(make_job("a"), origin=Origin(SWEEP, "", "1")))

    assert await ask(A, asker)
    assert await ask(A, Origin("http", "other", "7"))  # and stays the first one's
    assert world.ledger.rows[A].job.origin == asker

    await world.dispatcher.cancel(A)
    assert not await ask(A, asker)


async def test_an_end_in_mid_commit_is_waited_for_by_who_asks(world: World) -> None:
    await world.dispatcher.submit(replace(make_job("a"), origin=Origin(SWEEP, "", "1")))
    world.ledger.hang()
    ending = await begun(world.dispatcher.cancel(A))
    asking = await begun(world.dispatcher.ask(A, Origin("backend", "main", "42")))
    assert not asking.done()

    world.ledger.resume()

    assert await ending
    assert not await asking


async def test_refuse_stores_and_tells_the_end(world: World) -> None:
    failure = Failure(Cause.FULL, "too many")

    await world.dispatcher.refuse(make_job("a"), failure)

    assert world.ledger.rows[A].state is State.FAILED
    assert world.events == [RunEnded(make_job("a"), State.FAILED, Broken(failure))]


async def test_each_report_says_whether_it_counted(world: World) -> None:
    await world.dispatcher.submit(make_job("a", lease=10.0))
    lease = await world.dispatcher.lease(SLOT)

    assert await world.dispatcher.started(lease.id)
    assert await world.dispatcher.started(lease.id)  # told twice, and still its own
    assert await world.dispatcher.extend(lease.id, 20.0)
    assert await world.dispatcher.finished(lease, completed())

    assert not await world.dispatcher.started(lease.id)
    assert not await world.dispatcher.extend(lease.id, 30.0)
    assert not await world.dispatcher.release(lease.id)
    assert not await world.dispatcher.finished(lease, completed())
    assert not await world.dispatcher.cancel(A)
    assert len(world.told(RunStarted)) == 1


async def test_a_report_that_is_dropped_is_logged(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    await world.dispatcher.cancel(A)

    with capture_logs() as logs:
        await world.dispatcher.finished(lease, completed())

    assert [(line["event"], line["run"]) for line in logs] == [("report_dropped", A)]


async def test_adopt_answers_with_the_lease_or_gone(world: World) -> None:
    await world.dispatcher.submit(make_job("a", lease=10.0))
    lease = await world.dispatcher.lease(REMOTE)
    assert await world.dispatcher.adopt(lease.id, REMOTE) == lease

    world.clock.advance(10.0)
    async with world.time_acting():
        assert not world.board.holds(lease.id)
        again = await world.dispatcher.adopt(lease.id, REMOTE)
        assert isinstance(again, Lease)
        assert (again.id, again.until) == (lease.id, 20.0)
        assert world.board.holds(lease.id)

    await world.dispatcher.cancel(A)
    assert await world.dispatcher.adopt(lease.id, REMOTE) == Gone(lease.id)


# -- claim, commit, apply -------------------------------------------------------------------------


async def test_nothing_is_true_or_told_before_it_is_committed(world: World) -> None:
    world.ledger.hang()
    submitting = await begun(world.dispatcher.submit(make_job("a")))

    assert world.board.state(A) is None
    assert world.events == []
    assert await world.dispatcher.try_lease(SLOT) == []

    world.ledger.resume()
    await submitting
    assert world.board.state(A) is State.QUEUED
    assert world.events == [RunQueued(make_job("a"))]


async def test_a_remote_runner_hears_of_its_lease_after_the_commit(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()
    leasing = await begun(world.dispatcher.lease(REMOTE))

    assert not leasing.done()
    assert world.told(RunLeased) == []

    world.ledger.resume()
    assert (await leasing).job.id == A
    assert world.ledger.rows[A].state is State.LEASED


async def test_a_local_slot_does_not_wait_for_the_database(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()

    lease = await world.dispatcher.lease(SLOT)
    assert await world.dispatcher.started(lease.id)
    assert await world.dispatcher.release(lease.id)

    assert world.ledger.held == []


async def test_a_commit_that_fails_undoes_the_claim_and_tells_nobody(world: World) -> None:
    world.ledger.fail()

    with pytest.raises(StoreError):
        await world.dispatcher.submit(make_job("a"))

    assert world.events == []
    assert remains(world.board) == {}
    assert await world.dispatcher.submit(make_job("a")) == Submitted(A, new=True)


@pytest.mark.parametrize("error", [StoreError("down"), RuntimeError("a bug of the ledger")])
async def test_whatever_the_commit_fails_with_reaches_the_caller(
    world: World, error: Exception
) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.fail(error=error)

    with pytest.raises(type(error)):
        await world.dispatcher.cancel(A)

    assert world.board.state(A) is State.QUEUED
    assert not world.board.busy(A)


async def test_an_outcome_that_could_not_be_stored_may_be_told_again(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.fail(times=2)
    for _ in range(2):
        with pytest.raises(StoreError):
            await world.dispatcher.finished(lease, completed())
        assert world.board.holds(lease.id)

    assert await world.dispatcher.finished(lease, completed())
    assert world.ledger.rows[A].state is State.DONE
    assert len(world.told(RunEnded)) == 1


async def test_a_lease_that_could_not_be_stored_is_another_runners(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()
    first = await begun(world.dispatcher.lease(REMOTE))
    second = await begun(world.dispatcher.lease(REMOTE_2))

    world.ledger.held[0].fail()
    await settle()
    with pytest.raises(StoreError):
        await first

    world.ledger.resume()
    assert (await second).job.id == A
    assert [event.lease.offer for event in world.told(RunLeased)] == [REMOTE_2]


async def test_a_change_that_meets_a_busy_run_waits_and_is_judged_again(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.hang()
    finishing = await begun(world.dispatcher.finished(lease, completed()))
    cancelling = await begun(world.dispatcher.cancel(A))
    assert len(world.ledger.held) == 1

    world.ledger.resume()

    assert await finishing is True
    assert await cancelling is False
    assert world.ledger.rows[A].state is State.DONE


async def test_many_that_wait_for_one_run_are_all_judged_again(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    world.ledger.hang()
    leasing = await begun(world.dispatcher.lease(REMOTE))
    others = [
        await begun(world.dispatcher.submit(make_job(f"r{n}", attempt=1, content=f"y{n}")))
        for n in range(5)
    ]

    world.ledger.resume()
    await asyncio.gather(leasing, *others)

    assert len(world.board) == 2
    assert sorted(task.result().new for task in others) == [False] * 4 + [True]


async def test_a_change_that_waited_for_one_that_failed_is_carried_out(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.hang()
    finishing = await begun(world.dispatcher.finished(lease, completed()))
    cancelling = await begun(world.dispatcher.cancel(A))

    world.ledger.held[0].fail()
    await settle()
    world.ledger.resume()

    with pytest.raises(StoreError):
        await finishing
    assert await cancelling is True
    assert world.ledger.rows[A].state is State.CANCELLED


async def test_who_waits_for_a_busy_run_may_be_cancelled(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()
    first = await begun(world.dispatcher.cancel(A))
    second = await begun(world.dispatcher.cancel(A))
    third = await begun(world.dispatcher.cancel(A))

    await cancelled(second)
    world.ledger.held[0].fail()
    await settle()
    world.ledger.resume()

    with pytest.raises(StoreError):
        await first
    assert second.cancelled()
    assert await third is True


# -- cancel races outcome -------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["cancel", "finish"])
@pytest.mark.parametrize("offer", [SLOT, REMOTE], ids=["local", "remote"])
async def test_cancel_and_outcome_race_and_the_first_wins(
    world: World, first: str, offer: Any
) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(offer)
    racers = [world.dispatcher.cancel(A), world.dispatcher.finished(lease, completed())]
    world.ledger.hang()

    racing = [await begun(racer) for racer in (racers if first == "cancel" else racers[::-1])]
    world.ledger.resume()

    assert await asyncio.gather(*racing) == [True, False]
    expected = State.CANCELLED if first == "cancel" else State.DONE
    assert world.ledger.rows[A].state is expected
    assert [event.state for event in world.told(RunEnded)] == [expected]
    assert len(world.told(LeaseRevoked)) == (first == "cancel")


async def test_cancel_races_a_lease_in_mid_commit(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()
    leasing = await begun(world.dispatcher.lease(REMOTE))
    cancelling = await begun(world.dispatcher.cancel(A))

    world.ledger.resume()
    lease = await leasing

    assert await cancelling is True
    assert world.told(LeaseRevoked) == [LeaseRevoked(lease)]
    assert world.ledger.leases == {}


# -- a row that says otherwise --------------------------------------------------------------------


async def test_a_run_whose_row_a_stranger_changed_is_dropped(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    await world.dispatcher.submit(make_job("b"))
    world.ledger.change_elsewhere(A)

    with capture_logs() as logs:
        assert await world.dispatcher.cancel(A) is False

    assert world.board.job(A) is None
    assert world.board.place(B) == 1
    assert world.told(RunEnded) == []
    assert [(line["event"], line["run"]) for line in logs] == [("row_changed_elsewhere", A)]


async def test_who_waits_for_a_run_that_is_dropped_is_answered(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    world.ledger.hang()
    cancelling = await begun(world.dispatcher.cancel(A))
    again = await begun(world.dispatcher.cancel(A))
    submitting = await begun(world.dispatcher.submit(make_job("b", attempt=1, content="x")))
    world.ledger.change_elsewhere(A)

    world.ledger.resume()
    await settle()

    assert cancelling.result() is False
    assert again.result() is False
    assert submitting.result() == Submitted(B, new=True)


async def test_the_holder_of_a_dropped_run_is_told_to_stop(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.change_elsewhere(A)

    assert await world.dispatcher.finished(lease, completed()) is False

    assert world.told(LeaseRevoked) == [LeaseRevoked(lease)]
    assert remains(world.board) == {}


async def test_a_runner_goes_on_to_the_next_run_when_the_first_was_dropped(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    await world.dispatcher.submit(make_job("b"))
    world.ledger.change_elsewhere(A)

    assert (await world.dispatcher.lease(REMOTE)).job.id == B


async def test_try_lease_goes_on_when_a_run_was_dropped(world: World) -> None:
    for run in "abc":
        await world.dispatcher.submit(make_job(run))
    world.ledger.change_elsewhere(B)

    assert [lease.job.id for lease in await world.dispatcher.try_lease(REMOTE, 9)] == [A, C]


@pytest.mark.parametrize("offer", [SLOT, REMOTE_2], ids=["local", "remote"])
async def test_a_dropped_run_is_not_given_to_who_waits(world: World, offer: Any) -> None:
    """The claim is undone and the run forgotten in one go: nobody may claim it in between."""
    await world.dispatcher.submit(make_job("a"))
    world.ledger.hang()
    cancelling = await begun(world.dispatcher.cancel(A))
    waiting = await begun(world.dispatcher.lease(offer))
    world.ledger.change_elsewhere(A)

    world.ledger.resume()
    assert await cancelling is False
    await settle()

    assert not waiting.done()
    assert remains(world.board) == {}
    await cancelled(waiting)


async def test_what_a_dropped_run_held_up_goes_to_who_waits(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    lease = await world.dispatcher.lease(SLOT)
    await world.dispatcher.submit(make_job("b", attempt=1, content="y"))
    waiting = await begun(world.dispatcher.lease(make_offer("slot-2")))
    world.ledger.change_elsewhere(A)

    assert await world.dispatcher.finished(lease, completed()) is False
    await settle()

    assert waiting.result().job.id == B


async def test_a_run_comes_back_although_the_newer_one_was_dropped(world: World) -> None:
    """Two rows in one change: the other one's trouble must not look like the end of one's own."""
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    lease = await world.dispatcher.lease(SLOT)
    await world.dispatcher.submit(make_job("b", attempt=1, content="y"))
    world.ledger.change_elsewhere(B)

    assert await world.dispatcher.release(lease.id) is True

    assert world.board.job(B) is None
    assert world.board.state(A) is State.QUEUED


async def test_a_submission_is_queued_although_the_run_in_hand_was_dropped(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1, content="x"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.change_elsewhere(A)

    assert await world.dispatcher.submit(make_job("b", attempt=1, content="y")) == Submitted(
        B, new=True
    )

    assert world.told(LeaseRevoked) == [LeaseRevoked(lease)]
    assert world.ledger.rows[B].state is State.QUEUED


async def test_a_run_whose_row_was_seen_to_have_ended_is_let_go_of(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1))
    [lease] = await world.dispatcher.try_lease(SLOT)
    world.ledger.change_elsewhere(A)

    assert await world.dispatcher.ended_elsewhere(A)
    assert not await world.dispatcher.ended_elsewhere(A)

    assert len(world.board) == 0
    assert world.told(LeaseRevoked) == [LeaseRevoked(lease)]


async def test_an_end_of_ours_in_mid_commit_is_no_news(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1))
    [lease] = await world.dispatcher.try_lease(SLOT)
    world.ledger.hang()
    reporting = await begun(world.dispatcher.finished(lease, completed()))
    asking = await begun(world.dispatcher.ended_elsewhere(A))
    assert not asking.done()

    world.ledger.resume()

    assert await reporting
    assert not await asking
    assert len(world.told(RunEnded)) == 1


async def test_a_run_that_is_taken_up_again_waits_at_its_old_place(world: World) -> None:
    for name in "abc":
        await world.dispatcher.submit(make_job(name, attempt=ord(name)))
    row = replace(world.ledger.rows[B], tries=1)
    world.ledger.rows[B] = row
    assert not await world.dispatcher.cancel(B)
    assert world.board.place(C) == 2
    world.events.clear()

    world.dispatcher.take_up(row.job, row.key, tries=row.tries, deaths=row.deaths)

    assert [world.board.place(run) for run in (A, B, C)] == [1, 2, 3]
    assert world.events == [RunQueued(row.job, again=True), QueueMoved(row.job.requires, 2)]
    assert await world.dispatcher.cancel(B)


async def test_a_run_that_is_taken_up_again_goes_to_who_waits(world: World) -> None:
    await world.dispatcher.submit(make_job("a", attempt=1))
    row = replace(world.ledger.rows[A], tries=1)
    world.ledger.rows[A] = row
    assert not await world.dispatcher.cancel(A)
    waiting = await begun(world.dispatcher.lease(SLOT))

    world.dispatcher.take_up(row.job, row.key, tries=row.tries, deaths=row.deaths)

    lease = await waiting
    assert lease.job == row.job
    assert await world.dispatcher.finished(lease, completed())


async def test_a_run_whose_row_is_there_before_it_was_submitted_is_an_error(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    await world.dispatcher.finished(await world.dispatcher.lease(SLOT), completed())

    with pytest.raises(AlreadyExists):
        await world.dispatcher.submit(make_job("a"))
    with pytest.raises(AlreadyExists):
        await world.dispatcher.refuse(make_job("a"), Failure(Cause.FULL, "full"))

    assert remains(world.board) == {}


@pytest.mark.parametrize("door", ["submit", "refuse"])
async def test_a_ledger_that_calls_a_new_row_changed_does_not_stop_the_world(
    world: World, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def says_changed(change: Change) -> Conflict:
        return Conflict(change.run)

    monkeypatch.setattr(world.ledger, "commit", says_changed)

    full = Failure(Cause.FULL, "full")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "submit": lambda: world.dispatcher.submit(make_job("a")),
        "refuse": lambda: world.dispatcher.refuse(make_job("a"), full),
    }

    with pytest.raises(AlreadyExists):
        await calls[door]()

    assert remains(world.board) == {}


# -- callers that are cancelled -------------------------------------------------------------------


async def test_a_runner_cancelled_before_there_is_work_has_left_no_trace(world: World) -> None:
    waiting = await begun(world.dispatcher.lease(SLOT))

    await cancelled(waiting)
    await world.dispatcher.submit(make_job("a"))

    assert world.board.state(A) is State.QUEUED
    assert (await world.dispatcher.lease(SLOT)).job.id == A


@pytest.mark.parametrize("offer", [SLOT, REMOTE], ids=["local", "remote"])
async def test_a_runner_cancelled_as_work_comes_gives_it_to_the_next(
    world: World, offer: Any
) -> None:
    """The run is claimed for it already, but it has not gone on yet."""
    first = await begun(world.dispatcher.lease(offer))
    second = await begun(world.dispatcher.lease(make_offer("slot-2")))

    def cancel_first(_: Event) -> None:
        asyncio.get_running_loop().call_soon(first.cancel)

    world.bus.subscribe(cancel_first, RunQueued)

    await world.dispatcher.submit(make_job("a"))
    await settle()

    assert first.cancelled()
    assert second.result().job.id == A


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("door", ["lease", "lease after a wait", "try_lease"])
async def test_a_runner_cancelled_in_mid_commit_gives_the_run_back(
    world: World, door: str, times: int
) -> None:
    async with world.time_acting():
        if door == "lease after a wait":
            world.ledger.hang()
            leasing = await begun(world.dispatcher.lease(REMOTE))
            submitting = await begun(world.dispatcher.submit(make_job("a")))
            world.ledger.held[0].go()
            await submitting
            await settle()
        else:
            await world.dispatcher.submit(make_job("a"))
            world.ledger.hang()
            door_call = getattr(world.dispatcher, door)
            leasing = await begun(door_call(REMOTE))
        assert [held.change.step for held in world.ledger.held] == [Step.LEASED]

        for _ in range(times):
            await cancelled(leasing)
        world.ledger.resume()
        await settle()

        assert leasing.cancelled()
        assert world.board.state(A) is State.QUEUED
        assert world.ledger.rows[A].state is State.QUEUED
        assert world.ledger.rows[A].tries == 0
        assert list(world.board.leases()) == []


async def test_a_runner_cancelled_while_its_run_goes_back_leaves_it_to_time(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a"))
        world.ledger.hang()
        leasing = await begun(world.dispatcher.lease(REMOTE))
        await cancelled(leasing)
        world.ledger.held[0].go()
        await settle()
        assert [held.change.step for held in world.ledger.held] == [Step.RELEASED]

        await cancelled(leasing)
        world.ledger.held[0].fail()
        world.ledger.resume()
        await settle()

        assert leasing.cancelled()
        assert list(world.board.leases()) == []


async def test_a_lease_that_was_never_stored_needs_no_giving_back(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    async with world.time_acting():
        world.ledger.hang()
        leasing = await begun(world.dispatcher.lease(REMOTE))
        for _ in range(3):
            await cancelled(leasing)
        world.ledger.held[0].fail()
        world.ledger.resume()
        await settle()

        await world.dispatcher.finished(await world.dispatcher.lease(SLOT), broken())
        await settle()

        assert world.told(LeaseRevoked) == []
        assert remains(world.dispatcher) == {}


async def test_what_a_cancelled_runner_cannot_give_back_is_given_back_later(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    async with world.time_acting():
        world.ledger.hang()
        leasing = await begun(world.dispatcher.lease(REMOTE))
        await cancelled(leasing)
        world.ledger.held[0].go()
        await settle()
        world.ledger.held[0].fail()
        world.ledger.fail()
        world.ledger.resume()
        await settle()
        assert leasing.cancelled()
        assert world.board.state(A) is State.LEASED

        await world.advance(STORE_REST)

        assert world.board.state(A) is State.QUEUED
        assert world.ledger.rows[A].state is State.QUEUED


async def test_try_lease_cancelled_gives_back_all_that_it_had_taken(world: World) -> None:
    for run in "abc":
        await world.dispatcher.submit(make_job(run))
    world.ledger.hang()
    leasing = await begun(world.dispatcher.try_lease(REMOTE, 3))
    world.ledger.held[0].go()
    await settle()

    await cancelled(leasing)
    world.ledger.resume()
    await settle()

    assert leasing.cancelled()
    assert [world.board.place(run) for run in (A, B, C)] == [1, 2, 3]
    assert list(world.board.leases()) == []


async def test_try_lease_returns_what_it_has_when_the_store_fails(world: World) -> None:
    for run in "abc":
        await world.dispatcher.submit(make_job(run))
    world.ledger.hang()
    leasing = await begun(world.dispatcher.try_lease(REMOTE, 3))
    world.ledger.held[0].go()
    await settle()
    world.ledger.held[0].fail()
    await settle()
    world.ledger.resume()

    assert [lease.job.id for lease in await leasing] == [A]
    assert world.board.place(B) == 1


async def test_try_lease_says_when_the_store_fails_at_once(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    world.ledger.fail()

    with pytest.raises(StoreError):
        await world.dispatcher.try_lease(REMOTE, 3)

    assert world.board.place(A) == 1


@pytest.mark.parametrize("times", [1, 2])
async def test_a_submission_cancelled_in_mid_commit_is_queued_all_the_same(
    world: World, times: int
) -> None:
    world.ledger.hang()
    submitting = await begun(world.dispatcher.submit(make_job("a")))
    for _ in range(times):
        await cancelled(submitting)

    world.ledger.resume()
    await settle()

    assert submitting.cancelled()
    assert world.board.state(A) is State.QUEUED
    assert world.events == [RunQueued(make_job("a"))]


async def test_a_caller_cancelled_in_mid_commit_waits_for_its_end(world: World) -> None:
    world.ledger.hang()
    submitting = await begun(world.dispatcher.submit(make_job("a")))

    await cancelled(submitting)
    assert not submitting.done()

    world.ledger.resume()
    await settle()
    assert submitting.cancelled()


async def test_a_submission_cancelled_in_a_commit_that_fails_is_logged(world: World) -> None:
    world.ledger.hang()
    submitting = await begun(world.dispatcher.submit(make_job("a")))
    await cancelled(submitting)

    with capture_logs() as logs:
        world.ledger.held[0].fail()
        await settle()

    assert submitting.cancelled()
    assert [line["event"] for line in logs] == ["commit_failed_unheard"]
    assert remains(world.board) == {}


async def test_a_reporter_cancelled_in_mid_commit_has_reported(world: World) -> None:
    await world.dispatcher.submit(make_job("a"))
    lease = await world.dispatcher.lease(SLOT)
    world.ledger.hang()
    finishing = await begun(world.dispatcher.finished(lease, completed()))

    await cancelled(finishing)
    world.ledger.resume()
    await settle()

    assert world.ledger.rows[A].state is State.DONE
    assert len(world.told(RunEnded)) == 1


# -- time -----------------------------------------------------------------------------------------


async def test_a_silent_runner_loses_its_lease_in_time(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=10.0))
        lease = await world.dispatcher.lease(REMOTE)
        await settle()

        await world.advance(9.999)
        assert world.board.holds(lease.id)

        await world.advance(0.001)
        assert not world.board.holds(lease.id)
        assert world.ledger.rows[A].tries == 1
        assert world.told(LeaseRevoked) == [LeaseRevoked(lease)]
        assert world.clock.alarms == [11.0]  # the end of its rest


async def test_a_runner_that_extends_in_time_keeps_its_lease(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=10.0))
        lease = await world.dispatcher.lease(REMOTE)

        for _ in range(5):
            await world.advance(9.0)
            assert await world.dispatcher.extend(lease.id, world.clock.now() + 10.0)
            await settle()

        assert world.board.holds(lease.id)
        await world.advance(10.0)
        assert not world.board.holds(lease.id)


async def test_an_extension_in_mid_commit_at_the_end_of_the_lease_is_in_time(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=10.0))
        lease = await world.dispatcher.lease(REMOTE)
        await settle()
        world.ledger.hang()
        extending = await begun(world.dispatcher.extend(lease.id, 30.0))

        await world.advance(10.0)
        world.ledger.resume()
        assert await extending is True
        await settle()

        assert world.board.holds(lease.id)
        await world.advance(20.0)
        assert not world.board.holds(lease.id)


async def test_a_lease_made_shorter_runs_out_at_its_new_end(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=1000.0))
        lease = await world.dispatcher.lease(SLOT)
        await settle()

        assert await world.dispatcher.extend(lease.id, 5.0)
        await world.advance(5.0)

        assert not world.board.holds(lease.id)


async def test_a_run_that_rested_goes_to_who_waits_in_time(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a"))
        await world.dispatcher.finished(await world.dispatcher.lease(SLOT), broken())
        waiting = await begun(world.dispatcher.lease(SLOT))

        await world.advance(0.999)
        assert not waiting.done()

        await world.advance(0.001)
        assert waiting.result().job.id == A

        await world.dispatcher.finished(waiting.result(), broken())
        waiting = await begun(world.dispatcher.lease(SLOT))
        await world.advance(4.999)
        assert not waiting.done()
        await world.advance(0.001)
        assert waiting.result().job.id == A


async def test_restored_leases_run_out_too(world: World) -> None:
    await world.dispatcher.submit(make_job("a", lease=10.0))
    await world.dispatcher.lease(REMOTE)
    later = World()
    later.ledger = world.ledger
    world.ledger.restore(later.board)
    later.dispatcher = Dispatcher(later.board, later.ledger, later.bus, later.clock)

    async with later.time_acting():
        await later.advance(10.0)

    assert later.board.state(A) is State.QUEUED
    assert later.ledger.rows[A].tries == 1


async def test_an_expiry_that_cannot_be_stored_is_tried_again(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=10.0))
        lease = await world.dispatcher.lease(REMOTE)
        await settle()
        world.ledger.fail(times=2)

        with capture_logs() as logs:
            await world.advance(10.0)
            assert world.board.holds(lease.id)
            await world.advance(STORE_REST)
            assert world.board.holds(lease.id)
            await world.advance(STORE_REST)

        assert not world.board.holds(lease.id)
        assert world.ledger.rows[A].tries == 1
        assert [line["event"] for line in logs] == ["expiry_not_stored"] * 2


async def test_an_expiry_that_cannot_be_stored_does_not_hold_up_a_back_off(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a", lease=10.0))
        await world.dispatcher.submit(make_job("b"))
        lease = await world.dispatcher.lease(REMOTE)
        second = await world.dispatcher.lease(SLOT)
        await world.advance(9.25)
        await world.dispatcher.finished(second, broken())
        waiting = await begun(world.dispatcher.lease(SLOT))
        world.ledger.fail(times=1)

        await world.advance(0.75)
        assert world.board.holds(lease.id)
        await world.advance(0.25)

        assert waiting.result().job.id == B
        await world.advance(STORE_REST)
        assert not world.board.holds(lease.id)


async def test_many_leases_that_run_out_together_all_do(world: World) -> None:
    async with world.time_acting():
        for number in range(20):
            await world.dispatcher.submit(make_job(f"r{number}", lease=10.0))
            await world.dispatcher.lease(REMOTE)

        world.clock.advance(10.0)
        await settle(200)

        assert list(world.board.leases()) == []
        assert {row.tries for row in world.ledger.rows.values()} == {1}


async def test_time_acts_without_any_alarm_when_nothing_is_due(world: World) -> None:
    async with world.time_acting():
        await world.dispatcher.submit(make_job("a"))
        await world.dispatcher.lease(SLOT)
        await settle()

        assert world.clock.alarms == []


# -- nothing stays --------------------------------------------------------------------------------


async def test_a_long_day_leaves_nothing_behind(world: World) -> None:
    async with world.time_acting():
        for number in range(50):
            attempt = number % 7
            await world.dispatcher.submit(
                make_job(f"r{number}", attempt=attempt, content=f"x{number}", lease=10.0)
            )
            for lease in await world.dispatcher.try_lease(REMOTE if number % 2 else SLOT, 2):
                match number % 4:
                    case 0:
                        await world.dispatcher.finished(lease, completed())
                    case 1:
                        await world.dispatcher.finished(lease, broken())
                    case 2:
                        await world.dispatcher.release(lease.id)
                    case _:
                        await world.dispatcher.cancel(lease.job.id)
            await world.advance(1.0)
        for row in world.ledger.unfinished:
            await world.dispatcher.cancel(row.job.id)
        await settle()

    assert remains(world.board) == {}
    ended = [event.job.id for event in world.told(RunEnded)]
    assert sorted(ended) == sorted(world.ledger.rows)


async def test_a_lease_that_never_was_can_do_nothing(world: World) -> None:
    never = LeaseId("never")

    assert not await world.dispatcher.started(never)
    assert not await world.dispatcher.extend(never, 1.0)
    assert not await world.dispatcher.release(never)
    assert await world.dispatcher.adopt(never, REMOTE) == Gone(never)
