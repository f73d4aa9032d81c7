"""The fakes keep the promises of the real things, as far as tests rely on them."""

import pytest

from commserver.core.changes import Change
from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Process,
    Resource,
    Stage,
)
from commserver.core.verdicts import Cause, Completed
from commserver.errors import AlreadyExists, SandboxError
from tests.fake_sandbox import FakeSandbox, prints, stdin
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


STAGE = Stage(
    "run",
    (Process("p", ("p",), Limits()),),
    (
        Pipe(Resource("input"), Descriptor("p", 0)),
        Pipe(Descriptor("p", 2), Artifact("err")),
        Pipe(Descriptor("p", 1), Artifact("out")),
        Pipe(Descriptor("p", 3), Artifact("more", returned=False)),
    ),
)


async def test_a_fake_sandbox_reports_all_that_was_asked_for_in_its_order() -> None:
    building = Stage("build", STAGE.processes)
    request = ExecutionRequest("c", (File("input", b"21"),), (Case("one", (STAGE,)),), (building,))
    engine = FakeSandbox()
    engine.otherwise = prints(lambda *of: b"%d" % (2 * int(stdin(*of) or 0)))

    report = await engine.execute(request, run="r", slot=0)

    assert report.prepared
    assert [stage.name for stage in report.prepare] == ["build"]
    [stage] = report.cases[0].stages
    assert [process.ok for process in stage.processes] == [True]
    assert [(a.name, a.content) for a in stage.artifacts] == [
        ("err", b""),
        ("out", b"42"),
        ("more", None),
    ]


async def test_a_fake_sandbox_refuses_what_the_real_one_does() -> None:
    engine = FakeSandbox()

    with pytest.raises(SandboxError, match="cannot be carried out: cases: "):
        await engine.execute(ExecutionRequest("c", (), ()), run="r", slot=0)

    assert engine.begun == []
