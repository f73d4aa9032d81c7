"""The rules of the queue: who is served when, what a try costs, which outcome counts."""

from dataclasses import replace

import pytest

from commserver.core.board import Board, Gone
from commserver.core.changes import Busy, Known
from commserver.core.events import (
    LeaseRevoked,
    RunEnded,
    RunQueued,
)
from commserver.core.jobs import (
    Job,
    LeaseId,
    Offer,
    OwnerId,
    Priority,
    Requirement,
    Requires,
    SortKey,
    normalised,
)
from commserver.core.ordering import FirstInFirstOut
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Failure
from tests.fakes import JAVA, PYTHON, broken, completed, make_job, make_offer
from tests.unit.core.desk import ELSEWHERE, PYTHONIST, REMOTE, SLOT, A, B, C, D, Desk, remains

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


class Spy(FirstInFirstOut):
    """An ordering that gives tags, and remembers what it was told of whom."""

    def __init__(self, **tags: float) -> None:
        self.tags = tags
        self.told: list[tuple[str, str, SortKey]] = []

    def tag(self, job: Job) -> float:
        return self.tags.get(job.id, 0.0)

    def entered(self, job: Job, key: SortKey) -> None:
        self.told.append(("entered", job.id, key))

    def leased(self, job: Job, key: SortKey) -> None:
        self.told.append(("leased", job.id, key))

    def ended(self, job: Job, key: SortKey) -> None:
        self.told.append(("ended", job.id, key))


def test_the_ordering_gives_the_tag_and_is_told_what_becomes_of_the_run() -> None:
    ordering = Spy(a=3.0, b=2.0)
    desk = Desk(Board(ordering))

    desk.submit(make_job("a"), make_job("b"))
    desk.finish(desk.lease())
    desk.board.forget(A)

    a, b = SortKey(1, 3.0, 1), SortKey(1, 2.0, 2)
    assert ordering.told == [
        ("entered", "a", a),
        ("entered", "b", b),
        ("leased", "b", b),
        ("ended", "b", b),
        ("ended", "a", a),
    ]


@pytest.mark.parametrize("requires", [PYTHON, JAVA], ids=["same lane", "another lane"])
def test_the_ordering_is_told_of_newer_content_and_of_an_earlier_place(
    requires: Requires,
) -> None:
    ordering = Spy()
    desk = Desk(Board(ordering))
    desk.submit(make_job("a", attempt=1, content="x"))
    lease = desk.lease()
    desk.submit(make_job("b", attempt=1, content="y"))
    ordering.told.clear()

    desk.submit(make_job("c", attempt=1, content="z", requires=requires))
    desk.release(lease)

    a, b = SortKey(1, 0.0, 1), SortKey(1, 0.0, 2)
    assert ordering.told == [("entered", "b", b), ("ended", "a", a), ("entered", "b", a)]


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


def test_a_late_outcome_of_a_waiting_run_counts(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))
    desk.events()

    desk.finish(lease)

    assert desk.ledger.rows[A].state is State.DONE
    assert desk.events() == [RunEnded(lease.job, State.DONE, completed())]
    assert remains(desk.board) == {}


def test_a_late_outcome_wins_over_the_present_holder_who_is_told_to_stop(desk: Desk) -> None:
    late = desk.lose(make_job("a"))
    present = desk.lease()
    desk.events()

    desk.finish(late)

    assert desk.events() == [
        LeaseRevoked(present),
        RunEnded(late.job, State.DONE, completed()),
    ]
    assert desk.board.finished(present, completed(), desk.now) is None


def test_a_late_broken_is_dropped_whether_the_run_waits_or_is_held(desk: Desk) -> None:
    late = desk.lose(make_job("a"))
    assert desk.board.finished(late, broken(), desk.now) is None

    desk.lease()
    assert desk.board.finished(late, broken(), desk.now) is None

    assert desk.ledger.rows[A].tries == 1
    assert desk.board.state(A) is State.LEASED


def test_a_late_outcome_for_content_that_was_replaced_is_dropped(desk: Desk) -> None:
    late = desk.lose(make_job("a", attempt=1, content="old"))
    desk.submit(make_job("b", attempt=1, content="new"))
    assert desk.board.finished(late, completed(), desk.now) is None

    present = desk.lease()
    assert desk.board.finished(late, completed(), desk.now) is None

    assert present.job.content == "new"
    assert desk.finish(present).state is State.DONE


def test_a_late_outcome_counts_again_when_the_old_content_came_back(desk: Desk) -> None:
    late = desk.lose(make_job("a", attempt=1, content="old"))
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
    late = desk.lose(make_job("a"))
    desk.events()

    desk.cancel("a")

    assert desk.events() == [RunEnded(late.job, State.CANCELLED)]


def test_a_lost_lease_can_do_nothing_else(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))

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
