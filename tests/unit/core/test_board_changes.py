"""Each change by itself: what it tells when it is applied, and that undoing leaves no trace."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from commserver.core.board import Gone
from commserver.core.changes import Busy, Change, Known
from commserver.core.events import (
    LeaseRevoked,
    QueueMoved,
    RunEnded,
    RunLeased,
    RunQueued,
    RunReplaced,
    RunStarted,
)
from commserver.core.jobs import (
    AttemptId,
    Lease,
    OwnerId,
    Priority,
    RunId,
)
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure
from tests.fakes import JAVA, PYTHON, broken, completed, make_job
from tests.unit.core.desk import ELSEWHERE, REMOTE, SLOT, A, B, C, Desk, remains

# -- events ---------------------------------------------------------------------------------------


def test_a_run_from_end_to_end_is_told_in_order(desk: Desk) -> None:
    job = make_job("a")

    desk.submit(job)
    lease = desk.lease()
    desk.start(lease)
    desk.finish(lease)

    assert desk.events() == [
        RunQueued(job),
        RunLeased(lease),
        RunStarted(lease),
        RunEnded(job, State.DONE, completed()),
    ]


def test_nothing_is_told_before_it_is_committed(desk: Desk) -> None:
    claim = desk.board.submit(make_job("a"))
    assert desk.events() == []

    desk.commit(claim)
    assert desk.events() == [RunQueued(make_job("a"))]
    assert desk.events() == []


def test_replaced_content_is_told_and_moves_nobody(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"), make_job("b"))
    desk.events()

    newer = make_job("c", attempt=1, content="y")
    desk.submit(newer)

    assert desk.events() == [RunReplaced(replace(newer, id=A))]


def test_replaced_content_that_changes_the_lane_moves_both(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x", requires=PYTHON))
    desk.submit(make_job("b", requires=PYTHON), make_job("c", requires=JAVA))
    desk.events()

    desk.submit(make_job("d", attempt=1, content="y", requires=JAVA))

    assert [event for event in desk.events() if isinstance(event, QueueMoved)] == [
        QueueMoved(PYTHON, 1),
        QueueMoved(JAVA, 2),
    ]


def queue_of(desk: Desk, count: int) -> list[RunId]:
    desk.submit(*(make_job(f"r{number}") for number in range(1, count + 1)))
    desk.events()
    return [RunId(f"r{number}") for number in range(1, count + 1)]


@pytest.mark.parametrize(("leaving", "first"), [("r1", 1), ("r3", 3), ("r99", 99)])
def test_a_hundred_moves_are_one_event_with_the_first_place_that_changed(
    desk: Desk, leaving: str, first: int
) -> None:
    queue_of(desk, 100)

    desk.cancel(leaving)

    assert [event for event in desk.events() if isinstance(event, QueueMoved)] == [
        QueueMoved(PYTHON, first)
    ]


def test_nothing_moves_when_the_last_one_leaves_or_one_more_comes(desk: Desk) -> None:
    queue_of(desk, 3)

    desk.cancel("r3")
    desk.submit(make_job("a"))

    assert not [event for event in desk.events() if isinstance(event, QueueMoved)]


def test_those_behind_an_overtaker_move_and_the_overtaker_is_told_by_itself(desk: Desk) -> None:
    queue_of(desk, 3)

    desk.submit(make_job("a", priority=Priority.EXAM))

    assert desk.events() == [
        QueueMoved(PYTHON, 2),
        RunQueued(make_job("a", priority=Priority.EXAM)),
    ]


def test_only_the_lane_that_moved_is_told_of(desk: Desk) -> None:
    desk.submit(make_job("a", requires=JAVA), make_job("b", requires=JAVA))
    queue_of(desk, 2)

    desk.cancel("a")

    assert [event for event in desk.events() if isinstance(event, QueueMoved)] == [
        QueueMoved(JAVA, 1)
    ]


def test_one_way_back_is_one_move(desk: Desk) -> None:
    queue_of(desk, 3)
    lease = desk.lease()
    desk.events()

    desk.release(lease)

    assert desk.events() == [
        QueueMoved(PYTHON, 2),
        RunQueued(lease.job, again=True),
    ]


# -- undo and forget ------------------------------------------------------------------------------

Claimer = Callable[[Desk, Lease], Change | Busy | Known | Lease | Gone | None]

CLAIMS: dict[str, tuple[str, Claimer]] = {
    "submit": ("waiting", lambda desk, lease: desk.board.submit(make_job("new"))),
    "refuse": (
        "waiting",
        lambda desk, lease: desk.board.refuse(make_job("new"), Failure(Cause.FULL, "full")),
    ),
    "replace": (
        "waiting",
        lambda desk, lease: desk.board.submit(make_job("new", attempt=1, content="y")),
    ),
    "cancel waiting": ("waiting", lambda desk, lease: desk.board.cancel(A)),
    "lease": ("waiting", lambda desk, lease: desk.board.lease(SLOT, desk.now)),
    "lease remote": ("waiting", lambda desk, lease: desk.board.lease(REMOTE, desk.now)),
    "second run": (
        "held",
        lambda desk, lease: desk.board.submit(make_job("new", attempt=1, content="y")),
    ),
    "start": ("held", lambda desk, lease: desk.board.started(lease.id)),
    "extend": ("held", lambda desk, lease: desk.board.extend(lease.id, 99.0)),
    "release": ("held", lambda desk, lease: desk.board.release(lease.id)),
    "expire": ("held", lambda desk, lease: desk.board.expire(lease.id, 10.0)),
    "finish": ("held", lambda desk, lease: desk.board.finished(lease, completed(), 0.0)),
    "break": ("held", lambda desk, lease: desk.board.finished(lease, broken(), 0.0)),
    "cancel held": ("held", lambda desk, lease: desk.board.cancel(A)),
    "supersede": ("followed", lambda desk, lease: desk.board.release(lease.id)),
    "adopt": ("lost", lambda desk, lease: desk.board.adopt(lease.id, REMOTE, desk.now)),
    "late outcome": (
        "lost",
        lambda desk, lease: desk.board.finished(lease, completed(), desk.now),
    ),
}


def arranged(desk: Desk, situation: str) -> Lease:
    """Bring run "a" of attempt 1, with "b" behind it, into a situation; returns its last lease."""
    job = make_job("a", attempt=1, content="x", lease=10.0)
    if situation == "lost":
        lease = desk.lose(job)
        desk.submit(make_job("b"))
        return lease
    desk.submit(job, make_job("b"))
    lease = desk.lease()
    if situation == "followed":
        desk.submit(make_job("c", attempt=1, content="z"))
    if situation == "waiting":
        desk.release(lease)
    return lease


def seen(desk: Desk) -> object:
    board, runs = desk.board, (A, B, C, RunId("new"))
    return (
        [(board.job(run), board.state(run), board.place(run), board.busy(run)) for run in runs],
        (list(board.leases()), len(board), board.waiting(), board.next_wake(desk.now)),
        board.runs_of(OwnerId("owner")),
        board.runs_of_attempt(AttemptId(1)),
        [(desk.next_for(offer), desk.next_for(offer)) for offer in (SLOT, REMOTE, ELSEWHERE)],
        sorted(remains(board)),
    )


@pytest.mark.parametrize("name", CLAIMS)
def test_an_undone_claim_leaves_all_as_it_was_and_tells_nothing(desk: Desk, name: str) -> None:
    situation, claimer = CLAIMS[name]
    lease = arranged(desk, situation)
    desk.events()
    before = seen(desk)

    claim = claimer(desk, lease)
    assert isinstance(claim, Change)
    desk.board.undo(claim)

    assert seen(desk) == before
    assert desk.events() == []
    again = claimer(desk, lease)
    assert isinstance(again, Change)
    assert (again.step, again.run) == (claim.step, claim.run)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claimed_run_is_busy_until_the_change_is_through(desk: Desk, name: str) -> None:
    situation, claimer = CLAIMS[name]
    lease = arranged(desk, situation)

    claim = claimer(desk, lease)
    assert isinstance(claim, Change)
    touched = {claim.run, *(write.job.id for write in claim.writes)} - {RunId("new")}
    assert all(desk.board.busy(run) for run in touched)
    assert all(desk.board.cancel(run) == Busy(run) for run in touched)

    desk.carry_out(claim)
    assert not any(desk.board.busy(run) for run in touched)


def test_a_forgotten_run_is_no_more_and_says_only_that_the_others_moved(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1), make_job("b"))
    desk.events()

    desk.board.forget(A)

    assert desk.board.job(A) is None
    assert desk.board.place(B) == 1
    assert desk.events() == [QueueMoved(PYTHON, 1)]


def test_the_holder_of_a_forgotten_run_is_told_to_stop(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    desk.events()

    desk.board.forget(A)

    assert desk.events() == [LeaseRevoked(lease)]
    assert desk.next_for() == B


def test_a_run_that_is_not_there_can_be_forgotten(desk: Desk) -> None:
    desk.board.forget(A)

    assert desk.events() == []
