"""The same attempt again: nothing new, replaced, one more, superseded."""

from dataclasses import replace

import pytest

from commserver.core.changes import Busy, Change, Known
from commserver.core.events import (
    LeaseRevoked,
    QueueMoved,
    RunEnded,
)
from commserver.core.finals import backend
from commserver.core.jobs import (
    SWEEP,
    AttemptId,
    Job,
    Offer,
    Origin,
    Priority,
    Purpose,
)
from commserver.core.states import State, Step
from commserver.core.verdicts import Cause
from tests.fakes import JAVA, PYTHON, broken, completed, make_job
from tests.unit.core.desk import REMOTE, SLOT, A, B, C, Desk

# -- the same id again ----------------------------------------------------------------------------


def test_the_same_content_waiting_is_nothing_new(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))

    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Known(A)
    assert len(desk.board) == 1


def test_the_same_content_in_hand_is_nothing_new(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Known(A)

    desk.start(lease)
    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Known(A)


def test_changed_content_of_a_waiting_run_replaces_it_in_place(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"), make_job("b", attempt=2))
    key = desk.ledger.rows[A].key

    change = desk.commit(desk.board.submit(make_job("c", attempt=1, content="y")))

    assert (change.step, change.run) == (Step.REPLACED, A)
    assert desk.board.place(A) == 1
    job = desk.board.job(A)
    assert job is not None
    assert (job.id, job.content) == (A, "y")
    assert (desk.ledger.rows[A].job.content, desk.ledger.rows[A].key) == ("y", key)
    assert C not in desk.ledger.rows
    assert desk.lease().job.content == "y"


def test_changed_content_that_needs_another_runner_changes_the_lane(desk: Desk) -> None:
    desk.submit(make_job("x", requires=JAVA), make_job("a", attempt=1, requires=PYTHON))
    desk.submit(make_job("y", requires=JAVA))

    desk.submit(make_job("b", attempt=1, content="new", requires=JAVA))

    assert desk.board.waiting(PYTHON) == 0
    assert desk.board.place(A) == 2
    assert desk.order() == ["x", "a", "y"]


def test_changed_content_keeps_tries_and_back_off(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x", max_tries=2))
    desk.finish(desk.lease(), broken())

    desk.submit(make_job("b", attempt=1, content="y", max_tries=2))

    assert desk.next_for() is None
    assert desk.board.next_wake(desk.now) == 1.0
    desk.now = 1.0
    assert desk.finish(desk.lease(), broken()).state is State.FAILED


def test_changed_content_while_in_hand_queues_one_more_run(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    desk.lease()

    desk.submit(make_job("b", attempt=1, content="y"))

    assert desk.board.state(A) is State.LEASED
    assert desk.board.state(B) is State.QUEUED
    assert [job.id for job in desk.board.runs_of_attempt(AttemptId(1))] == [A, B]


def test_a_third_content_replaces_the_one_that_waits(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))

    change = desk.commit(desk.board.submit(make_job("c", attempt=1, content="z")))

    assert (change.step, change.run) == (Step.REPLACED, B)
    assert len(desk.board) == 2


def test_waiting_content_that_goes_back_to_the_running_one_is_replaced(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))

    change = desk.commit(desk.board.submit(make_job("c", attempt=1, content="x")))

    assert (change.step, change.run) == (Step.REPLACED, B)


def test_an_attempt_whose_run_ended_gets_a_new_one_even_with_the_same_content(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    desk.finish(desk.lease())

    change = desk.commit(desk.board.submit(make_job("b", attempt=1, content="x")))

    assert (change.step, change.run) == (Step.SUBMITTED, B)


def test_the_second_run_waits_for_the_first_and_not_for_its_turn_alone(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"), make_job("c", attempt=2))
    assert desk.order() == [C]

    desk.finish(lease)
    assert desk.order() == [B, C]


def test_only_one_row_of_an_attempt_says_queued(desk: Desk) -> None:
    """A local slot's run says so too, until a second one waits: the index would trip over it."""
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    assert desk.ledger.rows[A].state is State.RUNNING

    desk.cancel("b")
    desk.release(lease)
    assert desk.ledger.rows[A].state is State.QUEUED


def test_submit_and_rejudge_of_an_attempt_do_not_meet(desk: Desk) -> None:
    desk.submit(
        make_job("a", attempt=1, content="x"),
        make_job("b", attempt=1, content="y", purpose=Purpose.REJUDGE),
    )

    assert desk.order() == [A, B]
    assert len(desk.board.runs_of_attempt(AttemptId(1))) == 2


def test_foreign_runs_never_meet(desk: Desk) -> None:
    desk.submit(make_job("a", content="x"), make_job("b", content="x"))

    assert desk.order() == [A, B]


def test_a_submission_waits_while_the_waiting_run_is_leased(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    claim = desk.board.lease(REMOTE, desk.now)

    assert desk.board.submit(make_job("b", attempt=1, content="y")) == Busy(A)

    desk.commit(claim)
    desk.submit(make_job("b", attempt=1, content="y"))
    assert desk.board.state(B) is State.QUEUED


def test_a_submission_waits_while_the_first_one_is_committed(desk: Desk) -> None:
    first = desk.board.submit(make_job("a", attempt=1, content="x"))

    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Busy(A)

    desk.commit(first)
    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Known(A)


def test_a_submission_waits_while_the_outcome_of_the_run_in_hand_is_committed(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    final = desk.board.finished(desk.lease(), completed(), desk.now)

    assert desk.board.submit(make_job("b", attempt=1, content="x")) == Busy(A)

    desk.commit(final)
    desk.submit(make_job("b", attempt=1, content="x"))


def test_a_slot_waits_while_its_row_is_moved_for_a_second_run(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    second = desk.board.submit(make_job("b", attempt=1, content="y"))

    assert desk.board.finished(lease, completed(), desk.now) == Busy(A)

    desk.commit(second)
    desk.finish(lease)
    assert desk.order() == [B]


# -- superseded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [SLOT, REMOTE], ids=["local", "remote"])
def test_a_run_that_comes_back_behind_a_newer_one_gives_it_its_place(
    desk: Desk, offer: Offer
) -> None:
    desk.submit(make_job("a", attempt=1, content="x"), make_job("c", attempt=2))
    lease = desk.lease(offer)
    desk.submit(make_job("b", attempt=1, content="y"))
    assert desk.board.place(B) == 2
    key = desk.ledger.rows[A].key
    desk.events()

    change = desk.release(lease)

    assert (change.state, change.successor) == (State.SUPERSEDED, B)
    assert desk.order() == [B, C]
    assert desk.ledger.rows[A].state is State.SUPERSEDED
    assert desk.ledger.rows[B].key == key
    assert desk.events() == [
        RunEnded(lease.job, State.SUPERSEDED),
        QueueMoved(PYTHON, 1),
    ]


def test_a_broken_try_behind_a_newer_run_is_superseded_without_back_off(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))

    desk.finish(lease, broken())

    assert desk.ledger.rows[A].state is State.SUPERSEDED
    assert (desk.ledger.rows[A].tries, desk.ledger.rows[B].tries) == (1, 0)
    assert desk.next_for() == B


def test_a_lost_run_behind_a_newer_one_is_superseded_and_its_holder_told(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x", lease=10.0))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    desk.events()
    desk.now = 10.0

    desk.expire(lease)

    assert desk.events() == [LeaseRevoked(lease), RunEnded(lease.job, State.SUPERSEDED)]
    assert desk.board.finished(lease, completed(), desk.now) is None


def test_a_run_that_fails_for_good_is_failed_not_superseded(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))

    desk.finish(lease, broken(Cause.EXERCISE))

    assert desk.ledger.rows[A].state is State.FAILED
    assert desk.next_for() == B


def test_the_newer_run_keeps_a_better_place_that_it_has(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"), make_job("c", attempt=2))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y", priority=Priority.EXAM))
    key = desk.ledger.rows[B].key
    desk.events()

    desk.release(lease)

    assert desk.ledger.rows[B].key == key
    assert desk.order() == [B, C]
    assert desk.events() == [RunEnded(lease.job, State.SUPERSEDED)]


def test_the_way_back_waits_while_the_newer_run_is_committed(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease(REMOTE)
    newer = desk.board.submit(make_job("b", attempt=1, content="y"))

    assert desk.board.release(lease.id) == Busy(B)

    assert isinstance(newer, Change)
    desk.board.undo(newer)
    assert desk.release(lease).state is State.QUEUED


def test_the_newer_run_cannot_be_touched_while_it_takes_the_place(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    back = desk.board.release(lease.id)

    assert desk.board.cancel(B) == Busy(B)
    assert desk.board.submit(make_job("c", attempt=1, content="z")) == Busy(B)
    assert desk.next_for() is None

    desk.commit(back)
    assert desk.next_for() == B


# -- asked for after all --------------------------------------------------------------------------

BACKEND = Origin("backend", "main", "42")


def swept(run: str) -> Job:
    """Return a job that nobody asked for."""
    return replace(make_job(run, attempt=1), origin=Origin(SWEEP, "", "1"))


@pytest.mark.parametrize("offer", [None, SLOT, REMOTE])
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_of_the_sweep_becomes_the_askers_and_nothing_else_changes(
    desk: Desk, offer: Offer | None, begun: bool
) -> None:
    desk.submit(swept("a"), make_job("b"))
    if offer:
        lease = desk.lease(offer)
        if begun:
            desk.start(lease)
    desk.events()
    before, state = desk.ledger.rows[A], desk.board.state(A)

    change = desk.commit(desk.board.ask(A, BACKEND))

    asked = replace(swept("a"), origin=BACKEND)
    assert change.step is Step.ASKED
    assert desk.ledger.rows[A] == replace(before, job=asked)
    assert desk.board.job(A) == asked
    assert (desk.board.state(A), desk.events()) == (state, [])


def test_who_asked_is_told_with_the_end(desk: Desk) -> None:
    desk.submit(swept("a"))
    lease = desk.lease()
    desk.commit(desk.board.ask(A, BACKEND))
    desk.events()

    desk.finish(lease)

    asked = replace(swept("a"), origin=BACKEND)
    assert desk.events() == [RunEnded(asked, State.DONE, completed())]
    assert desk.ledger.rows[A].job == asked


def test_a_run_that_somebody_asked_for_stays_theirs(desk: Desk) -> None:
    desk.submit(swept("a"))
    desk.commit(desk.board.ask(A, BACKEND))

    assert desk.board.ask(A, Origin("http", "other", "7")) == Known(A)
    job = desk.board.job(A)
    assert job is not None
    assert job.origin == BACKEND


def test_a_run_that_ended_or_never_was_cannot_be_asked_for(desk: Desk) -> None:
    desk.submit(swept("a"))
    desk.finish(desk.lease())

    assert desk.board.ask(A, BACKEND) is None
    assert desk.board.ask(B, BACKEND) is None


def test_asking_waits_for_another_change_of_the_run(desk: Desk) -> None:
    new = desk.board.submit(swept("a"))
    assert desk.board.ask(A, BACKEND) is None, "its row is not there yet"
    desk.commit(new)
    ending = desk.board.cancel(A)

    assert desk.board.ask(A, BACKEND) == Busy(A)

    desk.commit(ending)
    assert desk.board.ask(A, BACKEND) is None


def test_asking_that_could_not_be_stored_leaves_no_trace(desk: Desk) -> None:
    desk.submit(swept("a"))
    claim = desk.board.ask(A, BACKEND)
    assert isinstance(claim, Change)
    assert desk.board.cancel(A) == Busy(A)

    desk.board.undo(claim)

    assert desk.board.job(A) == swept("a")
    assert desk.lease().job == swept("a")


# -- who else is told -----------------------------------------------------------------------------

MAIN, OTHER = backend("main"), backend("other")


def told(desk: Desk) -> list[tuple[str, ...]]:
    """Return who is owed the end of run A, by the board and by its row."""
    job = desk.board.job(A)
    assert job is not None
    return [job.tell, desk.ledger.rows[A].job.tell]


@pytest.mark.parametrize("offer", [None, SLOT, REMOTE], ids=["waiting", "slot", "node"])
def test_whoever_asks_for_a_run_that_is_there_is_told_of_its_end(
    desk: Desk, offer: Offer | None
) -> None:
    desk.submit(make_job("a", attempt=1).telling([MAIN]))
    if offer:
        desk.lease(offer)

    desk.commit(desk.board.ask(A, BACKEND, [OTHER, MAIN]))

    assert told(desk) == [(MAIN, OTHER)] * 2


def test_asking_again_changes_nothing(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1).telling([MAIN]))

    assert desk.board.ask(A, BACKEND, [MAIN]) == Known(A)


def test_newer_content_of_a_waiting_run_is_told_to_whoever_asked_for_either(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x").telling([MAIN]))

    desk.commit(desk.board.submit(make_job("b", attempt=1, content="y").telling([OTHER])))

    assert told(desk) == [(MAIN, OTHER)] * 2
