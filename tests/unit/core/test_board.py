from collections.abc import Callable
from dataclasses import replace

import pytest

from commserver.core.board import Board, Gone
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
from commserver.core.execution import Broken, Cause, Completed, Failure
from commserver.core.jobs import (
    AttemptId,
    Job,
    Lease,
    LeaseId,
    Offer,
    OwnerId,
    Priority,
    Purpose,
    Requirement,
    RunId,
    SortKey,
    normalised,
)
from commserver.core.ordering import FirstInFirstOut
from commserver.core.states import State, Step
from commserver.errors import AlreadyExists
from tests.fakes import JAVA, PYTHON, FakeLedger, broken, completed, make_job, make_offer
from tests.unit.core.desk import SLOT, Desk, remains

A, B, C, D = (RunId(name) for name in "abcd")
REMOTE = make_offer("node", engine="away", remote=True)
ELSEWHERE = make_offer("other", engine="elsewhere")
PYTHONIST = make_offer("pythonist", images=("python",))


@pytest.fixture
def desk(board: Board, ledger: FakeLedger) -> Desk:
    return Desk(board, ledger)


# -- order and places -----------------------------------------------------------------------------


def test_runs_of_a_class_are_served_in_the_order_they_came(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"), make_job("c"))

    assert desk.order() == [A, B, C]


def test_a_better_class_is_served_first_whenever_it_came(desk: Desk) -> None:
    desk.submit(
        make_job("a", priority=Priority.REGRADE),
        make_job("b", priority=Priority.INTERACTIVE),
        make_job("c", priority=Priority.EXAM),
        make_job("d", priority=Priority.INTERACTIVE),
    )

    assert desk.order() == [C, B, D, A]


def test_the_order_holds_across_lanes(desk: Desk) -> None:
    desk.submit(
        make_job("a", requires=JAVA),
        make_job("b", requires=PYTHON),
        make_job("c", requires=JAVA),
        make_job("d", requires=PYTHON, priority=Priority.EXAM),
    )

    assert desk.order() == [D, A, B, C]


def test_a_runner_gets_only_what_fits_it(desk: Desk) -> None:
    desk.submit(make_job("a", requires=JAVA), make_job("b", requires=PYTHON))

    assert desk.order(offer=PYTHONIST) == [B]
    assert desk.order(offer=make_offer(images=())) == []


def test_runs_that_are_to_be_skipped_are_skipped(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    assert desk.lease(skip=[A]).job.id == B


def test_places_count_from_one_in_the_order_of_service(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"), make_job("c", priority=Priority.EXAM))

    assert [desk.board.place(run) for run in (C, A, B)] == [1, 2, 3]


def test_each_lane_has_places_of_its_own(desk: Desk) -> None:
    desk.submit(
        make_job("a", requires=PYTHON),
        make_job("b", requires=JAVA),
        make_job("c", requires=PYTHON),
    )

    assert [desk.board.place(run) for run in (A, B, C)] == [1, 1, 2]
    assert desk.board.waiting(PYTHON) == 2
    assert desk.board.waiting(JAVA) == 1
    assert desk.board.waiting() == 3


def test_requirements_in_another_order_are_the_same_lane(desk: Desk) -> None:
    image, memory = Requirement("image", "=", ("python",)), Requirement("memory", "<=", (64,))

    desk.submit(make_job("a", requires=[image, memory]), make_job("b", requires=[memory, image]))

    assert desk.board.place(B) == 2


def test_a_place_falls_when_somebody_ahead_leaves(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"), make_job("c"))

    desk.lease()
    assert desk.board.place(C) == 2

    desk.cancel("b")
    assert desk.board.place(C) == 1


def test_a_place_rises_when_a_better_class_comes(desk: Desk) -> None:
    desk.submit(make_job("a"))

    desk.submit(make_job("b", priority=Priority.EXAM))

    assert desk.board.place(A) == 2


def test_only_a_waiting_run_has_a_place(desk: Desk) -> None:
    uncommitted = desk.board.submit(make_job("a"))
    assert desk.board.place(A) is None

    desk.commit(uncommitted)
    assert desk.board.place(A) == 1

    lease = desk.lease()
    assert desk.board.place(A) is None

    desk.finish(lease)
    assert desk.board.place(A) is None


def test_a_run_keeps_its_place_while_its_lease_is_committed(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    claim = desk.board.lease(REMOTE, desk.now)
    assert (desk.board.place(A), desk.board.place(B)) == (1, 2)

    desk.commit(claim)
    assert (desk.board.place(A), desk.board.place(B)) == (None, 1)


def test_two_runners_never_get_the_same_run(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    first, second = desk.board.lease(SLOT, 0), desk.board.lease(ELSEWHERE, 0)

    assert first is not None
    assert second is not None
    assert (first.run, second.run) == (A, B)
    assert desk.board.lease(REMOTE, 0) is None


def test_the_ordering_gives_the_tag_and_is_told_what_becomes_of_the_run() -> None:
    class Spy(FirstInFirstOut):
        def __init__(self) -> None:
            self.told: list[tuple[str, str, SortKey]] = []

        def tag(self, job: Job) -> float:
            return {"a": 3.0, "b": 2.0}[job.id]

        def entered(self, job: Job, key: SortKey) -> None:
            self.told.append(("entered", job.id, key))

        def leased(self, job: Job, key: SortKey) -> None:
            self.told.append(("leased", job.id, key))

        def ended(self, job: Job, key: SortKey) -> None:
            self.told.append(("ended", job.id, key))

    ordering = Spy()
    desk = Desk(Board(ordering))
    desk.submit(make_job("a"), make_job("b"))

    lease = desk.lease()
    desk.finish(lease)
    desk.ledger.change_elsewhere(A)
    desk.board.forget(A)

    a, b = SortKey(1, 3.0, 1), SortKey(1, 2.0, 2)
    assert ordering.told == [
        ("entered", "a", a),
        ("entered", "b", b),
        ("leased", "b", b),
        ("ended", "b", b),
        ("ended", "a", a),
    ]


# -- what is written ------------------------------------------------------------------------------


def test_a_submitted_run_is_a_row_with_its_key_before_it_waits(desk: Desk) -> None:
    desk.submit(make_job("a", priority=Priority.EXAM))

    row = desk.ledger.rows[A]
    assert (row.state, row.tries, row.deaths) == (State.QUEUED, 0, 0)
    assert row.key == (Priority.EXAM, 0.0, 1)


def test_lease_and_start_of_a_local_slot_are_not_written(desk: Desk) -> None:
    desk.submit(make_job("a"))

    claim = desk.board.lease(SLOT, desk.now)
    assert claim is not None
    assert not claim.durable
    lease = desk.commit(claim).granted
    assert lease is not None
    assert not desk.commit(desk.board.started(lease.id)).durable

    assert desk.ledger.rows[A].state is State.QUEUED


def test_lease_and_start_of_another_process_are_written(desk: Desk) -> None:
    desk.submit(make_job("a"))

    lease = desk.lease(REMOTE)
    assert desk.ledger.rows[A].state is State.LEASED
    assert desk.ledger.leases == {A: lease}

    desk.start(lease)
    assert desk.ledger.rows[A].state is State.RUNNING


def test_a_longer_lease_of_another_process_is_written(desk: Desk) -> None:
    desk.submit(make_job("a", lease=10.0))
    lease = desk.lease(REMOTE)
    assert lease.until == 10.0

    desk.commit(desk.board.extend(lease.id, 25.0))

    assert desk.ledger.leases[A].until == 25.0
    assert desk.board.overdue(24.0) == []


def test_the_final_of_a_local_slots_run_expects_the_row_still_queued(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()
    desk.start(lease)

    change = desk.finish(lease)

    assert [(write.expected, write.state) for write in change.writes] == [
        (State.QUEUED, State.DONE)
    ]


def test_a_refused_run_is_a_row_that_failed_and_was_never_there(desk: Desk) -> None:
    failure = Failure(Cause.NOT_FOUND, "no files")

    desk.commit(desk.board.refuse(make_job("a", attempt=1), failure))

    assert desk.ledger.rows[A].state is State.FAILED
    assert desk.events() == [
        RunEnded(make_job("a", attempt=1), State.FAILED, Broken(failure)),
    ]
    assert len(desk.board) == 0
    assert remains(desk.board) == {}


# -- ways back to the queue -----------------------------------------------------------------------


def test_release_is_free_and_leads_back_to_the_old_place(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))
    lease = desk.lease()
    desk.start(lease)

    desk.release(lease)

    assert desk.board.state(A) is State.QUEUED
    assert desk.board.place(A) == 1
    assert desk.ledger.rows[A].tries == 0
    assert desk.next_for() == A


def test_release_of_a_local_slot_writes_nothing(desk: Desk) -> None:
    desk.submit(make_job("a"))

    assert not desk.release(desk.lease()).durable


def test_release_of_another_process_is_written(desk: Desk) -> None:
    desk.submit(make_job("a"))

    desk.release(desk.lease(REMOTE))

    assert desk.ledger.rows[A].state is State.QUEUED
    assert desk.ledger.leases == {}


def test_release_a_thousand_times_is_still_free(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=1))

    for _ in range(1000):
        desk.release(desk.lease())

    assert desk.ledger.rows[A].tries == 0
    assert desk.board.state(A) is State.QUEUED


def test_a_broken_try_counts_and_backs_off_one_second_then_five(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=4))

    for end_of_rest in (1.0, 6.0, 11.0):
        desk.finish(desk.lease(), broken())
        assert desk.board.next_wake(desk.now) == end_of_rest
        desk.now = end_of_rest - 0.001
        assert desk.next_for() is None
        desk.now = end_of_rest
        assert desk.next_for() == A

    assert desk.ledger.rows[A].tries == 3


def test_a_broken_run_keeps_its_place_and_lets_others_pass_while_it_rests(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    desk.finish(desk.lease(), broken())

    assert desk.board.place(A) == 1
    assert desk.next_for() == B


def test_a_run_that_breaks_up_to_the_cap_has_failed(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=3))
    for _ in range(2):
        desk.finish(desk.lease(), broken())
        desk.now += 5.0
    desk.events()

    change = desk.finish(desk.lease(), broken())

    assert change.state is State.FAILED
    assert desk.ledger.rows[A].tries == 3
    assert desk.events()[-1] == RunEnded(make_job("a"), State.FAILED, broken())
    assert desk.board.job(A) is None


def test_a_lost_holder_counts_as_a_broken_try(desk: Desk) -> None:
    desk.submit(make_job("a", lease=10.0, max_tries=2))
    lease = desk.lease()
    desk.now = 10.0
    assert desk.board.overdue(desk.now) == [lease]
    desk.events()

    desk.expire(lease)

    assert desk.ledger.rows[A].tries == 1
    assert desk.next_for() is None
    assert desk.events() == [
        LeaseRevoked(lease),
        RunQueued(make_job("a", lease=10.0, max_tries=2), again=True),
    ]

    desk.now = 11.0
    lease = desk.lease()
    desk.now = 21.0
    assert desk.expire(lease).state is State.FAILED


def test_releases_between_broken_tries_change_nothing_of_the_count(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=2))
    desk.finish(desk.lease(), broken())
    desk.now = 1.0

    desk.release(desk.lease())

    assert desk.next_for() == A
    assert desk.finish(desk.lease(), broken()).state is State.FAILED


@pytest.mark.parametrize("cause", [Cause.NOT_FOUND, Cause.EXERCISE, Cause.IMAGE, Cause.FULL])
def test_what_another_try_cannot_mend_is_not_tried_again(desk: Desk, cause: Cause) -> None:
    desk.submit(make_job("a"))

    assert desk.finish(desk.lease(), broken(cause)).state is State.FAILED


@pytest.mark.parametrize("cause", [Cause.CONTAINER, Cause.INTERNAL])
def test_what_may_pass_is_tried_again(desk: Desk, cause: Cause) -> None:
    desk.submit(make_job("a"))

    assert desk.finish(desk.lease(), broken(cause)).state is State.QUEUED


def test_a_completed_run_is_never_tried_again(desk: Desk) -> None:
    desk.submit(make_job("a"))

    desk.finish(desk.lease())

    assert desk.ledger.rows[A].state is State.DONE
    assert desk.next_for() is None


def test_a_lease_that_was_extended_meanwhile_does_not_run_out(desk: Desk) -> None:
    """Its end was due while the extension was being committed: judged again, it is not."""
    desk.submit(make_job("a", lease=10.0))
    lease = desk.lease(REMOTE)
    extension = desk.board.extend(lease.id, 30.0)
    desk.now = 10.0
    assert [due.id for due in desk.board.overdue(desk.now)] == [lease.id]
    assert desk.board.expire(lease.id, desk.now) == Busy(A)

    desk.commit(extension)

    assert desk.board.expire(lease.id, desk.now) is None
    assert desk.board.state(A) is State.LEASED


# -- which outcome counts -------------------------------------------------------------------------


def lost(desk: Desk, job: Job, offer: Offer = REMOTE) -> Lease:
    """Submit a run, lease it and lose the lease; the run has rested."""
    desk.submit(replace(job, lease=10.0))
    lease = desk.lease(offer)
    desk.now += 10.0
    desk.expire(lease)
    desk.now += 1.0
    return lease


def test_a_late_outcome_of_a_waiting_run_counts(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))
    desk.events()

    desk.finish(lease)

    assert desk.ledger.rows[A].state is State.DONE
    assert desk.events() == [RunEnded(lease.job, State.DONE, completed())]
    assert remains(desk.board) == {}


def test_a_late_outcome_wins_over_the_present_holder_who_is_told_to_stop(desk: Desk) -> None:
    late = lost(desk, make_job("a"))
    present = desk.lease()
    desk.events()

    desk.finish(late)

    assert desk.events() == [
        LeaseRevoked(present),
        RunEnded(late.job, State.DONE, completed()),
    ]
    assert desk.board.finished(present, completed(), desk.now) is None


def test_a_late_broken_is_dropped_whether_the_run_waits_or_is_held(desk: Desk) -> None:
    late = lost(desk, make_job("a"))
    assert desk.board.finished(late, broken(), desk.now) is None

    desk.lease()
    assert desk.board.finished(late, broken(), desk.now) is None

    assert desk.ledger.rows[A].tries == 1
    assert desk.board.state(A) is State.LEASED


def test_a_late_outcome_for_content_that_was_replaced_is_dropped(desk: Desk) -> None:
    late = lost(desk, make_job("a", attempt=1, content="old"))
    desk.submit(make_job("b", attempt=1, content="new"))
    assert desk.board.finished(late, completed(), desk.now) is None

    present = desk.lease()
    assert desk.board.finished(late, completed(), desk.now) is None

    assert present.job.content == "new"
    assert desk.finish(present).state is State.DONE


def test_a_late_outcome_counts_again_when_the_old_content_came_back(desk: Desk) -> None:
    late = lost(desk, make_job("a", attempt=1, content="old"))
    desk.submit(make_job("b", attempt=1, content="new"))
    desk.submit(make_job("c", attempt=1, content="old"))

    assert desk.finish(late).state is State.DONE


def test_a_doubled_outcome_is_dropped(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()
    desk.finish(lease)
    desk.events()

    assert desk.board.finished(lease, completed(), desk.now) is None
    assert desk.board.finished(lease, broken(), desk.now) is None
    assert desk.events() == []


def test_an_outcome_after_cancel_is_dropped(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()
    desk.cancel("a")

    assert desk.board.finished(lease, completed(), desk.now) is None
    assert desk.ledger.rows[A].state is State.CANCELLED


def test_cancel_after_the_outcome_comes_too_late(desk: Desk) -> None:
    desk.submit(make_job("a"))
    desk.finish(desk.lease())

    assert desk.board.cancel(A) is None


def test_cancel_and_outcome_are_decided_by_who_claims_first(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()

    cancel = desk.board.cancel(A)
    assert desk.board.finished(lease, completed(), desk.now) == Busy(A)
    assert desk.board.cancel(A) == Busy(A)
    desk.commit(cancel)

    assert desk.board.finished(lease, completed(), desk.now) is None


def test_cancel_of_a_held_run_tells_the_holder_to_stop(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()
    desk.events()

    desk.cancel("a")

    assert desk.events() == [LeaseRevoked(lease), RunEnded(make_job("a"), State.CANCELLED)]


def test_cancel_of_a_waiting_run_revokes_nothing(desk: Desk) -> None:
    late = lost(desk, make_job("a"))
    desk.events()

    desk.cancel("a")

    assert desk.events() == [RunEnded(late.job, State.CANCELLED)]


def test_a_lost_lease_can_do_nothing_else(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))

    assert not desk.board.holds(lease.id)
    assert desk.board.started(lease.id) is None
    assert desk.board.extend(lease.id, desk.now + 60.0) is None
    assert desk.board.release(lease.id) is None
    assert desk.board.expire(lease.id, desk.now) is None


def test_a_second_start_is_no_change_and_no_loss_of_the_lease(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease()
    desk.start(lease)

    assert desk.board.started(lease.id) == Known(A)


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


# -- suspects -------------------------------------------------------------------------------------


def kill_engine_under(desk: Desk, lease: Lease) -> None:
    """Report that the lease's engine died, and let the run rest."""
    desk.finish(lease, broken(engine_died=True))
    desk.now += 5.0


def make_suspect(desk: Desk, run: str, deaths: int = 1, attempt: int | None = None) -> None:
    """Submit a run and let that many engines die under it, one after the other."""
    desk.submit(make_job(run, max_tries=9, attempt=attempt))
    for number in range(deaths):
        kill_engine_under(desk, desk.lease(make_offer(f"doomed-{number}", engine="doomed")))


def test_a_suspect_is_alone_on_its_engine(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.submit(make_job("b"))

    assert desk.lease(make_offer("slot-1")).job.id == A

    assert desk.next_for(make_offer("slot-2")) is None
    assert desk.next_for(ELSEWHERE) == B


def test_the_engine_is_free_again_when_the_suspect_has_left_it(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.submit(make_job("b"))
    lease = desk.lease(make_offer("slot-1"))

    desk.finish(lease)

    assert desk.next_for(make_offer("slot-2")) == B


def test_an_engine_drains_for_a_suspect_and_then_takes_it(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    make_suspect(desk, "a")
    desk.submit(make_job("b"))

    assert desk.next_for(make_offer("slot-2")) is None

    desk.finish(busy)
    assert desk.lease(make_offer("slot-2")).job.id == A


def test_while_one_engine_drains_the_others_go_on(desk: Desk) -> None:
    desk.submit(make_job("x"), make_job("y"))
    desk.lease(make_offer("slot-1"))
    desk.lease(ELSEWHERE)
    make_suspect(desk, "a")
    desk.submit(make_job("b"))

    assert desk.next_for(make_offer("slot-2")) is None
    assert desk.next_for(ELSEWHERE) == B


def test_an_idle_engine_takes_a_suspect_that_another_one_drains_for(desk: Desk) -> None:
    desk.submit(make_job("x"))
    desk.lease(make_offer("slot-1"))
    make_suspect(desk, "a")
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-2")) is None

    assert desk.lease(ELSEWHERE).job.id == A
    assert desk.next_for(make_offer("slot-2")) == B


def test_a_better_class_that_arrives_does_not_stop_a_draining_engine_for_ever(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    make_suspect(desk, "a")
    assert desk.next_for(make_offer("slot-2")) is None

    desk.submit(make_job("b", priority=Priority.EXAM))
    desk.finish(busy)

    suspect = desk.lease(make_offer("slot-2"))
    assert suspect.job.id == A
    desk.finish(suspect)
    assert desk.lease(make_offer("slot-2")).job.id == B


def test_a_drained_engine_waits_for_a_runner_that_fits_the_suspect(desk: Desk) -> None:
    desk.board.join(make_offer("slot-1"))
    desk.board.join(PYTHONIST)
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    make_suspect(desk, "a", deaths=1)
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-1")) is None
    desk.finish(busy)

    assert desk.next_for(make_offer("javanist", images=("java",))) is None
    assert desk.next_for(make_offer("slot-1")) == A


def test_a_suspect_that_is_to_be_skipped_is_skipped_on_a_drained_engine_too(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    make_suspect(desk, "a")
    assert desk.next_for(make_offer("slot-1")) is None
    desk.finish(busy)

    assert desk.board.lease(make_offer("slot-1"), desk.now, skip=[A]) is None


def reserved(desk: Desk, *offers: Offer) -> None:
    """Leave the first offer's engine busy with "x" and draining for the suspect "a"; "b" waits."""
    for offer in offers:
        desk.board.join(offer)
    desk.submit(make_job("x"))
    desk.lease(offers[0])
    make_suspect(desk, "a")
    desk.submit(make_job("b"))
    assert desk.next_for(offers[0]) is None


def busy_elsewhere(desk: Desk) -> None:
    """Keep the other engine from being idle, for an idle one takes a suspect at once."""
    desk.submit(make_job("y", priority=Priority.EXAM))
    desk.lease(ELSEWHERE)


def test_the_reservation_goes_when_the_last_runner_of_its_engine_leaves(desk: Desk) -> None:
    reserved(desk, SLOT)
    busy_elsewhere(desk)
    assert desk.next_for(ELSEWHERE) == B

    desk.board.leave(SLOT.runner)

    assert desk.next_for(ELSEWHERE) is None  # now it is the one that drains


def test_the_reservation_stays_while_another_runner_of_the_engine_fits(desk: Desk) -> None:
    reserved(desk, SLOT, make_offer("slot-2"))
    busy_elsewhere(desk)

    desk.board.leave(SLOT.runner)

    assert desk.next_for(ELSEWHERE) == B
    assert desk.next_for(make_offer("slot-2")) is None


def test_the_reservation_goes_when_no_runner_that_is_left_fits_the_suspect(desk: Desk) -> None:
    javanist = make_offer("javanist", images=("java",))
    reserved(desk, SLOT, javanist)
    desk.submit(make_job("c", requires=JAVA))
    assert desk.next_for(javanist) is None

    desk.board.leave(SLOT.runner)

    assert desk.next_for(javanist) == C


def test_the_reservation_goes_when_its_runner_joins_with_another_engine(desk: Desk) -> None:
    """As after the engine was started anew: nobody will ever drain the old one."""
    reserved(desk, SLOT)
    busy_elsewhere(desk)

    desk.board.join(make_offer(SLOT.runner, engine="anew"))

    assert desk.next_for(ELSEWHERE) is None


def test_the_reservation_goes_when_the_suspect_is_cancelled(desk: Desk) -> None:
    reserved(desk, SLOT)

    desk.cancel("a")

    assert desk.next_for() == B


def test_the_reservation_goes_when_the_suspects_late_outcome_comes(desk: Desk) -> None:
    late = lost(desk, make_job("a"))
    kill_engine_under(desk, desk.lease(make_offer("doomed", engine="doomed")))
    desk.submit(make_job("x", priority=Priority.EXAM), make_job("b"))
    desk.lease()
    assert desk.next_for() is None

    desk.finish(late)

    assert desk.next_for() == B


def test_the_reservation_goes_when_the_suspect_needs_another_runner(desk: Desk) -> None:
    desk.submit(make_job("x"))
    desk.lease(make_offer("slot-1", images=("python",)))
    make_suspect(desk, "a", attempt=1)
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-2", images=("python",))) is None

    desk.submit(make_job("c", attempt=1, content="new", requires=JAVA))

    assert desk.next_for(make_offer("slot-2", images=("python",))) == B


def test_nothing_joins_an_engine_while_a_suspects_lease_is_committed(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.submit(make_job("b"))
    claim = desk.board.lease(REMOTE, desk.now)
    assert claim is not None

    assert desk.board.lease(make_offer("node-2", engine="away", remote=True), desk.now) is None

    desk.board.undo(claim)
    assert desk.lease(REMOTE).job.id == A


def test_a_suspect_does_not_join_a_lease_that_is_being_committed(desk: Desk) -> None:
    desk.submit(make_job("x"))
    claim = desk.board.lease(REMOTE, desk.now)
    make_suspect(desk, "a")

    assert desk.board.lease(make_offer("node-2", engine="away", remote=True), desk.now) is None

    assert claim is not None
    desk.board.undo(claim)
    assert desk.lease(make_offer("node-2", engine="away", remote=True)).job.id == A


def test_one_death_leaves_a_suspect_at_its_place(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    kill_engine_under(desk, desk.lease())

    assert desk.board.place(A) == 1


def test_after_two_deaths_a_suspect_goes_to_the_end_of_its_class(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.submit(make_job("b"), make_job("c", priority=Priority.REGRADE))

    kill_engine_under(desk, desk.lease())

    assert [desk.board.place(run) for run in (B, A, C)] == [1, 2, 3]
    assert desk.ledger.rows[A].key > desk.ledger.rows[B].key


def test_a_try_that_only_breaks_moves_no_suspect(desk: Desk) -> None:
    make_suspect(desk, "a", deaths=2)
    desk.submit(make_job("b"))

    desk.finish(desk.lease(), broken())

    assert desk.board.place(A) == 1


def test_a_suspect_fails_at_the_cap_like_any_other(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=3))
    for _ in range(3):
        kill_engine_under(desk, desk.lease())

    assert desk.ledger.rows[A].state is State.FAILED
    assert desk.ledger.rows[A].deaths == 3
    assert remains(desk.board) == {}


def test_all_that_were_on_a_dead_engine_are_suspects_and_run_one_by_one(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))
    for lease in (desk.lease(make_offer("slot-1")), desk.lease(make_offer("slot-2"))):
        desk.finish(lease, broken(engine_died=True))
    desk.now = 1.0

    first = desk.lease(make_offer("slot-1"))
    assert first.job.id == A
    assert desk.next_for(make_offer("slot-2")) is None

    desk.finish(first)
    assert desk.next_for(make_offer("slot-2")) == B


def test_release_does_not_clear_a_suspect(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.submit(make_job("b"))

    desk.release(desk.lease())
    desk.lease()

    assert desk.next_for(make_offer("slot-2")) is None


# -- adopt ----------------------------------------------------------------------------------------


def test_the_present_lease_is_given_back_as_it_is(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease(REMOTE)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == lease
    assert not desk.board.busy(A)


def test_a_run_that_waits_again_is_given_back_to_its_last_holder(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))
    desk.events()

    change = desk.adopt(lease.id, REMOTE)

    assert desk.board.holds(lease.id)
    assert desk.board.state(A) is State.LEASED
    assert change.granted == replace(lease, until=desk.now + 10.0)
    assert desk.ledger.rows[A].state is State.LEASED
    assert desk.ledger.leases[A] == change.granted
    assert desk.ledger.rows[A].tries == 1
    assert desk.events() == [RunLeased(change.granted)]
    assert desk.finish(lease).state is State.DONE


def test_adopting_does_not_wait_for_the_end_of_a_back_off(desk: Desk) -> None:
    desk.submit(make_job("a", lease=10.0))
    lease = desk.lease(REMOTE)
    desk.now = 10.0
    desk.expire(lease)

    desk.adopt(lease.id, REMOTE)

    assert desk.board.next_wake(desk.now) == 20.0


@pytest.mark.parametrize("step", ["leased again", "leased and released again"])
def test_a_run_that_somebody_else_had_since_is_gone(desk: Desk, step: str) -> None:
    lease = lost(desk, make_job("a"))
    other = desk.lease()
    if step == "leased and released again":
        desk.release(other)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_a_run_that_ended_is_gone(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))
    desk.cancel("a")

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_a_lease_that_never_was_is_gone(desk: Desk) -> None:
    assert desk.board.adopt(LeaseId("?"), REMOTE, desk.now) == Gone(LeaseId("?"))


def test_another_runners_lease_is_gone(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))
    stranger = make_offer("stranger", engine="away", remote=True)
    assert desk.board.adopt(lease.id, stranger, desk.now) == Gone(lease.id)

    desk.adopt(lease.id, REMOTE)
    assert desk.board.adopt(lease.id, stranger, desk.now) == Gone(lease.id)


def test_a_run_with_newer_content_is_gone(desk: Desk) -> None:
    lease = lost(desk, make_job("a", attempt=1, content="x"))
    desk.submit(make_job("b", attempt=1, content="y"))

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_adopting_waits_while_the_run_is_being_changed(desk: Desk) -> None:
    lease = lost(desk, make_job("a"))
    other = desk.board.lease(SLOT, desk.now)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Busy(A)

    assert other is not None
    desk.board.undo(other)
    assert desk.adopt(lease.id, REMOTE).run == A


def test_a_suspect_is_not_given_back_to_an_engine_that_has_other_work(desk: Desk) -> None:
    make_suspect(desk, "a")
    lease = desk.lease(REMOTE)
    desk.release(lease)
    desk.submit(make_job("b", priority=Priority.EXAM))
    desk.lease(make_offer("node-2", engine="away", remote=True))

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_nothing_is_given_back_to_an_engine_where_a_suspect_is_alone(desk: Desk) -> None:
    lease = lost(desk, make_job("b"))
    make_suspect(desk, "a")
    desk.commit(
        desk.board.lease(make_offer("node-2", engine="away", remote=True), desk.now, skip=[B])
    )

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


# -- restore --------------------------------------------------------------------------------------


def test_a_restart_finds_the_queue_in_its_stored_order(desk: Desk) -> None:
    desk.submit(
        make_job("a", priority=Priority.REGRADE),
        make_job("b"),
        make_job("c", priority=Priority.EXAM),
        make_job("d"),
    )

    after = desk.restarted()

    assert after.order() == desk.order() == [C, B, D, A]
    assert [after.board.place(run) for run in (C, B, D, A)] == [1, 2, 3, 4]


def test_rows_may_be_restored_in_any_order(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"), make_job("c"))
    after = Desk()

    for row in reversed(desk.ledger.unfinished):
        assert after.board.restore(row.job, row.key, row.state) is None

    assert after.order() == [A, B, C]


def test_what_local_slots_held_waits_again_in_its_old_order_at_no_cost(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))
    desk.start(desk.lease())

    after = desk.restarted()

    assert after.order() == [A, B]
    assert after.ledger.rows[A].tries == 0


def test_an_orphan_of_an_earlier_process_is_returned_to_be_released(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    desk.cancel("b")
    assert desk.ledger.rows[A].state is State.RUNNING

    after = desk.restarted()

    assert after.board.state(A) is State.QUEUED
    assert after.ledger.rows[A].state is State.QUEUED
    assert after.ledger.rows[A].tries == 0


def test_an_orphan_behind_a_newer_run_is_superseded_at_the_restart(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"), make_job("c"))
    desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))

    after = desk.restarted()

    assert after.ledger.rows[A].state is State.SUPERSEDED
    assert after.order() == [B, C]


@pytest.mark.parametrize("began", [False, True])
def test_the_lease_of_another_process_outlives_a_restart(desk: Desk, began: bool) -> None:
    desk.submit(make_job("a", lease=10.0), make_job("b"))
    lease = desk.lease(REMOTE)
    if began:
        desk.start(lease)

    after = desk.restarted()

    assert after.board.state(A) is (State.RUNNING if began else State.LEASED)
    assert list(after.board.leases()) == [lease]
    assert after.board.next_wake(0.0) == 10.0
    assert after.order() == [B]
    assert after.board.adopt(lease.id, REMOTE, 0.0) == lease
    assert after.finish(lease).state is State.DONE


def test_tries_deaths_and_class_outlive_a_restart(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=2))
    kill_engine_under(desk, desk.lease())
    desk.submit(make_job("b"))

    after = desk.restarted()

    assert after.lease().job.id == A
    assert after.next_for(make_offer("slot-2")) is None
    lease = next(iter(after.board.leases()))
    assert after.finish(lease, broken()).state is State.FAILED


def test_a_suspect_in_a_remote_hand_is_alone_after_a_restart_too(desk: Desk) -> None:
    make_suspect(desk, "a")
    desk.lease(REMOTE)
    desk.submit(make_job("b"))

    after = desk.restarted()

    assert after.next_for(make_offer("node-2", engine="away", remote=True)) is None


def test_a_new_run_goes_behind_all_that_were_restored(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    after = desk.restarted()
    after.submit(make_job("c"))

    assert after.order() == [A, B, C]
    assert after.ledger.rows[C].key.entry == 3


def test_entry_numbers_go_on_from_where_the_caller_says() -> None:
    desk = Desk(Board(next_entry=41))

    desk.submit(make_job("a"))

    assert desk.ledger.rows[A].key.entry == 41


def test_the_rule_of_the_same_id_again_holds_across_a_restart(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))

    after = desk.restarted()

    assert after.board.submit(make_job("b", attempt=1, content="x")) == Known(A)


def test_a_restart_tells_nobody_that_a_queue_moved(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))
    after = Desk()

    for row in reversed(desk.ledger.unfinished):
        after.board.restore(row.job, row.key, row.state)

    assert after.events() == []


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


Claimer = Callable[[Desk], Change | Busy | Known | Lease | Gone | None]


def present(desk: Desk) -> Lease:
    return next(lease for lease in desk.board.leases() if lease.job.id == A)


CLAIMS: dict[str, tuple[str, Claimer]] = {
    "submit": ("waiting", lambda desk: desk.board.submit(make_job("new"))),
    "refuse": (
        "waiting",
        lambda desk: desk.board.refuse(make_job("new"), Failure(Cause.FULL, "full")),
    ),
    "replace": (
        "waiting",
        lambda desk: desk.board.submit(make_job("new", attempt=1, content="y")),
    ),
    "cancel waiting": ("waiting", lambda desk: desk.board.cancel(A)),
    "lease": ("waiting", lambda desk: desk.board.lease(SLOT, desk.now)),
    "lease remote": ("waiting", lambda desk: desk.board.lease(REMOTE, desk.now)),
    "second run": (
        "held",
        lambda desk: desk.board.submit(make_job("new", attempt=1, content="y")),
    ),
    "start": ("held", lambda desk: desk.board.started(present(desk).id)),
    "extend": ("held", lambda desk: desk.board.extend(present(desk).id, 99.0)),
    "release": ("held", lambda desk: desk.board.release(present(desk).id)),
    "expire": ("held", lambda desk: desk.board.expire(present(desk).id, 10.0)),
    "finish": ("held", lambda desk: desk.board.finished(present(desk), completed(), 0.0)),
    "break": ("held", lambda desk: desk.board.finished(present(desk), broken(), 0.0)),
    "cancel held": ("held", lambda desk: desk.board.cancel(A)),
    "supersede": ("followed", lambda desk: desk.board.release(present(desk).id)),
    "adopt": ("lost", lambda desk: desk.board.adopt(desk.lost.id, REMOTE, desk.now)),  # type: ignore[attr-defined]
    "late outcome": (
        "lost",
        lambda desk: desk.board.finished(desk.lost, completed(), desk.now),  # type: ignore[attr-defined]
    ),
}


def arranged(desk: Desk, situation: str) -> None:
    """Bring run "a" of attempt 1, with "b" behind it, into a situation."""
    job = make_job("a", attempt=1, content="x", lease=10.0)
    if situation == "lost":
        desk.lost = lost(desk, job)  # type: ignore[attr-defined]
        desk.submit(make_job("b"))
        return
    desk.submit(job, make_job("b"))
    if situation in ("held", "followed"):
        desk.lease()
    if situation == "followed":
        desk.submit(make_job("c", attempt=1, content="z"))


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
    arranged(desk, situation)
    desk.events()
    before = seen(desk)

    claim = claimer(desk)
    assert isinstance(claim, Change)
    desk.board.undo(claim)

    assert seen(desk) == before
    assert desk.events() == []
    again = claimer(desk)
    assert isinstance(again, Change)
    assert (again.step, again.run) == (claim.step, claim.run)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claimed_run_is_busy_until_the_change_is_through(desk: Desk, name: str) -> None:
    situation, claimer = CLAIMS[name]
    arranged(desk, situation)

    claim = claimer(desk)
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


# -- finding --------------------------------------------------------------------------------------


def test_could_run_asks_every_known_runner_free_or_not(desk: Desk) -> None:
    assert not desk.board.could_run(PYTHON)

    desk.board.join(PYTHONIST)
    desk.submit(make_job("a"))
    desk.lease(PYTHONIST)
    assert desk.board.could_run(PYTHON)
    assert not desk.board.could_run(JAVA)

    desk.board.join(make_offer(PYTHONIST.runner, images=("java",)))
    assert not desk.board.could_run(PYTHON)
    assert desk.board.could_run(JAVA)

    desk.board.leave(PYTHONIST.runner)
    assert not desk.board.could_run(JAVA)


def test_each_requirement_must_fit_the_same_runner(desk: Desk) -> None:
    desk.board.join(Offer("a", "e", {"image": frozenset({"python"}), "memory": frozenset({64})}))
    desk.board.join(Offer("b", "e", {"image": frozenset({"java"}), "memory": frozenset({512})}))
    image, memory = Requirement("image", "=", ("python",)), Requirement("memory", "<=", (512,))

    assert not desk.board.could_run(normalised([image, memory]))


def test_a_runner_that_leaves_keeps_what_it_has(desk: Desk) -> None:
    desk.board.join(SLOT)
    desk.submit(make_job("a"))
    lease = desk.lease()

    desk.board.leave(SLOT.runner)
    desk.board.leave("nobody")

    assert desk.board.holds(lease.id)
    assert desk.finish(lease).state is State.DONE


def test_an_owners_runs_are_found_from_commit_to_end(desk: Desk) -> None:
    claim = desk.board.submit(make_job("a", owner="me"))
    assert desk.board.runs_of(OwnerId("me")) == []

    desk.commit(claim)
    desk.submit(make_job("b", owner="you"), make_job("c", owner="me"))
    assert [job.id for job in desk.board.runs_of(OwnerId("me"))] == [A, C]

    lease = desk.lease()
    assert [job.id for job in desk.board.runs_of(OwnerId("me"))] == [A, C]

    desk.finish(lease)
    assert [job.id for job in desk.board.runs_of(OwnerId("me"))] == [C]


def test_a_run_whose_owner_changes_with_its_content_is_the_new_owners(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x", owner="me"))

    desk.submit(make_job("b", attempt=1, content="y", owner="you"))
    assert desk.board.runs_of(OwnerId("me")) == []
    assert [job.id for job in desk.board.runs_of(OwnerId("you"))] == [A]

    desk.cancel("a")
    assert remains(desk.board) == {}


def test_the_next_wake_is_the_first_end_of_a_lease_or_a_back_off(desk: Desk) -> None:
    desk.submit(make_job("a", lease=30.0), make_job("b"), make_job("c"))
    assert desk.board.next_wake(0.0) is None

    lease = desk.lease()
    assert desk.board.next_wake(0.0) == 30.0

    desk.finish(desk.lease(), broken())
    assert desk.board.next_wake(0.0) == 1.0
    assert desk.board.next_wake(1.0) == 30.0

    desk.finish(lease)
    desk.cancel("b")
    assert desk.board.next_wake(0.0) is None


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["done", "failed", "cancelled waiting", "cancelled held", "late"])
def test_a_board_whose_runs_have_ended_remembers_nothing(desk: Desk, how: str) -> None:
    for number in range(20):
        attempt = number % 5
        job = make_job(f"r{number}", attempt=attempt, content=f"x{number}", lease=10.0)
        desk.submit(replace(job, owner=OwnerId(f"owner-{attempt % 3}"), max_tries=2))
        if how == "cancelled waiting":
            continue
        if (claim := desk.board.lease(make_offer(engine=f"e{number % 2}"), desk.now)) is None:
            continue
        lease = desk.commit(claim).granted
        assert lease is not None
        match how:
            case "done":
                desk.finish(lease)
            case "failed":
                desk.finish(lease, broken(engine_died=True))
                desk.now += 5.0
            case "late":
                desk.now += 10.0
                desk.expire(lease)
                desk.finish(lease)
    for owner in range(3):
        for job in desk.board.runs_of(OwnerId(f"owner-{owner}")):
            desk.cancel(job.id)

    assert len(desk.board) == 0
    assert remains(desk.board) == {}


def test_asking_for_work_in_vain_remembers_nothing(desk: Desk) -> None:
    for number in range(10):
        assert desk.board.lease(make_offer(engine=f"e{number}"), desk.now) is None
        assert desk.board.adopt(LeaseId("?"), make_offer(engine=f"e{number}"), 0.0) == Gone(
            LeaseId("?")
        )

    assert remains(desk.board) == {}


# -- the fake keeps the promises of a real ledger -------------------------------------------------


def test_a_board_that_would_queue_two_rows_of_an_attempt_is_caught(ledger: FakeLedger) -> None:
    """The index is looked at after each write of a change, in order."""
    desk = Desk(ledger=ledger)
    desk.submit(make_job("a", attempt=1, content="x"))
    other = Desk(ledger=ledger)
    claim = other.board.submit(make_job("b", attempt=1, content="y"))
    assert isinstance(claim, Change)

    with pytest.raises(AlreadyExists):
        ledger.write(claim)

    assert set(ledger.rows) == {A}


def test_a_change_whose_row_says_otherwise_is_not_written_at_all(desk: Desk) -> None:
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    claim = desk.board.release(lease.id)
    assert isinstance(claim, Change)
    desk.ledger.change_elsewhere(B)
    rows = dict(desk.ledger.rows)

    assert desk.ledger.write(claim) == B
    assert desk.ledger.rows == rows


def test_an_outcome_is_what_it_is_made_of() -> None:
    assert isinstance(completed(7), Completed)
    assert completed(7).verdict.grade == 7
    assert broken(Cause.EXERCISE).failure.fault == "teacher"
