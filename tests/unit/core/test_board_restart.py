"""What outlives a separation: leases that are adopted, rows that are restored."""

from dataclasses import replace

import pytest

from commserver.core.board import Board, Gone
from commserver.core.changes import Busy, Known
from commserver.core.events import (
    RunLeased,
)
from commserver.core.jobs import (
    LeaseId,
    Priority,
)
from commserver.core.states import State, Step
from tests.fakes import broken, make_job, make_offer
from tests.unit.core.desk import REMOTE, SLOT, A, B, C, D, Desk, remains

# -- adopt ----------------------------------------------------------------------------------------


def test_the_present_lease_is_given_back_as_it_is(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease(REMOTE)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == lease
    assert not desk.board.busy(A)


def test_a_present_lease_that_is_asked_for_begins_its_time_anew(desk: Desk) -> None:
    desk.submit(make_job("a", lease=10.0))
    lease = desk.lease(REMOTE)
    desk.start(lease)
    desk.now = 4.0

    change = desk.adopt(lease.id, REMOTE)

    assert change.step is Step.EXTENDED
    assert desk.board.state(A) is State.RUNNING
    assert desk.ledger.leases[A] == replace(lease, until=14.0)
    assert desk.board.next_wake(desk.now) == 14.0


def test_asking_for_a_lease_never_makes_it_shorter(desk: Desk) -> None:
    desk.submit(make_job("a", lease=10.0))
    lease = desk.lease(REMOTE)
    longer = desk.commit(desk.board.extend(lease.id, 100.0)).granted

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == longer


def test_a_lease_without_end_has_none_again_after_the_grace_of_a_restart(desk: Desk) -> None:
    desk.submit(make_job("a"))
    lease = desk.lease(REMOTE)
    after = Desk(ledger=desk.ledger)
    row = desk.ledger.rows[A]
    after.board.restore(row.job, row.key, row.state, lease=replace(lease, until=60.0))

    after.adopt(lease.id, REMOTE)

    assert list(after.board.leases()) == [lease]
    assert after.board.next_wake(0.0) is None


def test_a_run_that_waits_again_is_given_back_to_its_last_holder(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))
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
    lease = desk.lose(make_job("a"))
    other = desk.lease()
    if step == "leased and released again":
        desk.release(other)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_a_run_that_ended_is_gone(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))
    desk.cancel("a")

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_a_lease_that_never_was_is_gone(desk: Desk) -> None:
    assert desk.board.adopt(LeaseId("?"), REMOTE, desk.now) == Gone(LeaseId("?"))


def test_another_runners_lease_is_gone(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))
    stranger = make_offer("stranger", engine="away", remote=True)
    assert desk.board.adopt(lease.id, stranger, desk.now) == Gone(lease.id)

    desk.adopt(lease.id, REMOTE)
    assert desk.board.adopt(lease.id, stranger, desk.now) == Gone(lease.id)


def test_a_run_with_newer_content_is_gone(desk: Desk) -> None:
    lease = desk.lose(make_job("a", attempt=1, content="x"))
    desk.submit(make_job("b", attempt=1, content="y"))

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)

    desk.cancel("a")
    assert remains(desk.board) == {}


def test_adopting_waits_while_the_run_is_being_changed(desk: Desk) -> None:
    lease = desk.lose(make_job("a"))
    other = desk.board.lease(SLOT, desk.now)

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Busy(A)

    assert other is not None
    desk.board.undo(other)
    assert desk.adopt(lease.id, REMOTE).run == A


def test_a_suspect_is_not_given_back_to_an_engine_that_has_other_work(desk: Desk) -> None:
    desk.suspect("a")
    lease = desk.lease(REMOTE)
    desk.release(lease)
    desk.submit(make_job("b", priority=Priority.EXAM))
    desk.lease(make_offer("node-2", engine="away", remote=True))

    assert desk.board.adopt(lease.id, REMOTE, desk.now) == Gone(lease.id)


def test_nothing_joins_a_suspect_while_it_is_given_back(desk: Desk) -> None:
    desk.suspect("a")
    lease = desk.lease(REMOTE)
    desk.release(lease)
    desk.submit(make_job("b"))
    node_2 = make_offer("node-2", engine="away", remote=True)

    claim = desk.board.adopt(lease.id, REMOTE, desk.now)
    assert desk.next_for(node_2) is None

    desk.commit(claim)
    assert desk.next_for(node_2) is None


def test_nothing_is_given_back_to_an_engine_where_a_suspect_is_alone(desk: Desk) -> None:
    lease = desk.lose(make_job("b"))
    desk.suspect("a")
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
    desk.kill_engine_under(desk.lease())
    desk.submit(make_job("b"))

    after = desk.restarted()

    assert after.lease().job.id == A
    assert after.next_for(make_offer("slot-2")) is None
    lease = next(iter(after.board.leases()))
    assert after.finish(lease, broken()).state is State.FAILED


def test_a_suspect_in_a_remote_hand_is_alone_after_a_restart_too(desk: Desk) -> None:
    desk.suspect("a")
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

    desk.board.start_after(70)
    desk.submit(make_job("b"))
    desk.board.start_after(50)
    desk.submit(make_job("c"))

    assert [desk.ledger.rows[run].key.entry for run in (A, B, C)] == [41, 71, 72]


def test_a_lease_that_was_left_beside_a_waiting_row_holds_nothing(desk: Desk) -> None:
    desk.submit(make_job("a"))
    stale = desk.lease(REMOTE)
    desk.release(stale)
    after = Desk(ledger=desk.ledger)
    row = desk.ledger.rows[A]

    assert after.board.restore(row.job, row.key, row.state, lease=stale) is None

    assert after.next_for() == A


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
