"""The fakes keep the promises of the real things, as far as tests rely on them."""

import pytest

from commserver.core.changes import Change
from commserver.core.execution import Cause, Completed
from commserver.errors import AlreadyExists
from tests.fakes import FakeLedger, broken, completed, make_job
from tests.unit.core.desk import A, B, Desk


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
