"""A run under which an engine died: alone on its engine, and at last at the end."""

from commserver.core.jobs import (
    Offer,
    Priority,
)
from commserver.core.states import State
from tests.fakes import JAVA, broken, make_job, make_offer
from tests.unit.core.desk import ELSEWHERE, PYTHONIST, REMOTE, SLOT, A, B, C, Desk, remains


def test_a_suspect_is_alone_on_its_engine(desk: Desk) -> None:
    desk.suspect("a")
    desk.submit(make_job("b"))

    assert desk.lease(make_offer("slot-1")).job.id == A

    assert desk.next_for(make_offer("slot-2")) is None
    assert desk.next_for(ELSEWHERE) == B


def test_the_engine_is_free_again_when_the_suspect_has_left_it(desk: Desk) -> None:
    desk.suspect("a")
    desk.submit(make_job("b"))
    lease = desk.lease(make_offer("slot-1"))

    desk.finish(lease)

    assert desk.next_for(make_offer("slot-2")) == B


def test_an_engine_drains_for_a_suspect_and_then_takes_it(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    desk.suspect("a")
    desk.submit(make_job("b"))

    assert desk.next_for(make_offer("slot-2")) is None

    desk.finish(busy)
    assert desk.lease(make_offer("slot-2")).job.id == A


def test_while_one_engine_drains_the_others_go_on(desk: Desk) -> None:
    desk.submit(make_job("x"), make_job("y"))
    desk.lease(make_offer("slot-1"))
    desk.lease(ELSEWHERE)
    desk.suspect("a")
    desk.submit(make_job("b"))

    assert desk.next_for(make_offer("slot-2")) is None
    assert desk.next_for(ELSEWHERE) == B


def test_an_idle_engine_takes_a_suspect_that_another_one_drains_for(desk: Desk) -> None:
    desk.submit(make_job("x"))
    desk.lease(make_offer("slot-1"))
    desk.suspect("a")
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-2")) is None

    assert desk.lease(ELSEWHERE).job.id == A
    assert desk.next_for(make_offer("slot-2")) == B


def test_a_better_class_that_arrives_does_not_stop_a_draining_engine_for_ever(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    desk.suspect("a")
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
    desk.suspect("a", deaths=1)
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-1")) is None
    desk.finish(busy)

    assert desk.next_for(make_offer("javanist", images=("java",))) is None
    assert desk.next_for(make_offer("slot-1")) == A


def test_a_suspect_that_is_to_be_skipped_is_skipped_on_a_drained_engine_too(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease(make_offer("slot-1"))
    desk.suspect("a")
    assert desk.next_for(make_offer("slot-1")) is None
    desk.finish(busy)

    assert desk.board.lease(make_offer("slot-1"), desk.now, skip=[A]) is None


def reserved(desk: Desk, *offers: Offer) -> None:
    """Leave the first offer's engine busy with "x" and draining for the suspect "a"; "b" waits."""
    for offer in offers:
        desk.board.join(offer)
    desk.submit(make_job("x"))
    desk.lease(offers[0])
    desk.suspect("a")
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


def test_an_empty_engine_that_left_while_it_was_reserved_is_forgotten(desk: Desk) -> None:
    desk.board.join(SLOT)
    desk.submit(make_job("x"))
    busy = desk.lease()
    desk.suspect("a")
    assert desk.next_for() is None
    desk.finish(busy)

    desk.board.leave(SLOT.runner)
    desk.cancel("a")

    assert remains(desk.board) == {}


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


def test_a_drained_engine_does_not_take_a_suspect_that_is_being_changed(desk: Desk) -> None:
    desk.submit(make_job("x"))
    busy = desk.lease()
    desk.suspect("a")
    desk.submit(make_job("b"))
    assert desk.next_for() is None
    desk.finish(busy)
    cancel = desk.board.cancel(A)

    assert desk.next_for() is None

    desk.commit(cancel)
    assert desk.next_for() == B


def test_the_reservation_goes_when_the_suspects_late_outcome_comes(desk: Desk) -> None:
    late = desk.lose(make_job("a"))
    desk.kill_engine_under(desk.lease(make_offer("doomed", engine="doomed")))
    desk.submit(make_job("x", priority=Priority.EXAM), make_job("b"))
    desk.lease()
    assert desk.next_for() is None

    desk.finish(late)

    assert desk.next_for() == B


def test_the_reservation_goes_when_the_suspect_needs_another_runner(desk: Desk) -> None:
    desk.submit(make_job("x"))
    desk.lease(make_offer("slot-1", images=("python",)))
    desk.suspect("a", attempt=1)
    desk.submit(make_job("b"))
    assert desk.next_for(make_offer("slot-2", images=("python",))) is None

    desk.submit(make_job("c", attempt=1, content="new", requires=JAVA))

    assert desk.next_for(make_offer("slot-2", images=("python",))) == B


def test_nothing_joins_an_engine_while_a_suspects_lease_is_committed(desk: Desk) -> None:
    desk.suspect("a")
    desk.submit(make_job("b"))
    claim = desk.board.lease(REMOTE, desk.now)
    assert claim is not None

    assert desk.board.lease(make_offer("node-2", engine="away", remote=True), desk.now) is None

    desk.board.undo(claim)
    assert desk.lease(REMOTE).job.id == A


def test_a_suspect_does_not_join_a_lease_that_is_being_committed(desk: Desk) -> None:
    desk.submit(make_job("x"))
    claim = desk.board.lease(REMOTE, desk.now)
    desk.suspect("a")

    assert desk.board.lease(make_offer("node-2", engine="away", remote=True), desk.now) is None

    assert claim is not None
    desk.board.undo(claim)
    assert desk.lease(make_offer("node-2", engine="away", remote=True)).job.id == A


def test_one_death_leaves_a_suspect_at_its_place(desk: Desk) -> None:
    desk.submit(make_job("a"), make_job("b"))

    desk.kill_engine_under(desk.lease())

    assert desk.board.place(A) == 1


def test_after_two_deaths_a_suspect_goes_to_the_end_of_its_class(desk: Desk) -> None:
    desk.suspect("a")
    desk.submit(make_job("b"), make_job("c", priority=Priority.REGRADE))

    desk.kill_engine_under(desk.lease())

    assert [desk.board.place(run) for run in (B, A, C)] == [1, 2, 3]
    assert desk.ledger.rows[A].key > desk.ledger.rows[B].key


def test_a_try_that_only_breaks_moves_no_suspect(desk: Desk) -> None:
    desk.suspect("a", deaths=2)
    desk.submit(make_job("b"))

    desk.finish(desk.lease(), broken())

    assert desk.board.place(A) == 1


def test_a_suspect_fails_at_the_cap_like_any_other(desk: Desk) -> None:
    desk.submit(make_job("a", max_tries=3))
    for _ in range(3):
        desk.kill_engine_under(desk.lease())

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
    desk.suspect("a")
    desk.submit(make_job("b"))

    desk.release(desk.lease())
    desk.lease()

    assert desk.next_for(make_offer("slot-2")) is None
