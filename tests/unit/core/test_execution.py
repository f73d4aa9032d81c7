from dataclasses import replace

import pytest

from commserver.core.execution import (
    KIB,
    MIB,
    NO_FLAG,
    Artifact,
    ArtifactReport,
    Case,
    CaseReport,
    Descriptor,
    ExecutionReport,
    ExecutionRequest,
    File,
    Flag,
    Limits,
    Pipe,
    Process,
    ProcessReport,
    Resource,
    Role,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.core.verdicts import Cause, Failure, Fault


def process(name: str, memory: int = 64 * MIB, real: float = 1.0) -> Process:
    return Process(name, ("python3", name), Limits(real=real, memory=memory))


def ended(exit_code: int = 0, flags: Flag = NO_FLAG) -> ProcessReport:
    return ProcessReport("p", exit_code, 0.1, 0.1, 1, flags=flags)


def test_a_stage_leaves_what_its_pipes_lead_to() -> None:
    out, log = Artifact("out"), Artifact("log", returned=False)
    pipes = (
        Pipe(Descriptor("p", 1), out),
        Pipe(Resource("input"), Descriptor("p", 0)),
        Pipe(WorkFile("p", "log"), log),
    )

    assert Stage("s", (process("p"),), pipes).artifacts == (out, log)


def test_processes_of_a_stage_need_their_memory_at_once_and_their_time_together() -> None:
    run = process("run", memory=8 * MIB, real=60.0)
    grader = replace(
        process("grader", real=3.0),
        role=Role.GRADER,
        may_run=(run, replace(run, name="more", limits=Limits(memory=16 * MIB))),
    )

    stage = Stage("s", (grader, process("p", memory=32 * MIB, real=2.0)))

    assert grader.memory == 80 * MIB  # one run at a time
    assert stage.memory == 112 * MIB
    assert stage.real == 3.0  # a run's time is its grader's too


def test_a_request_needs_the_memory_of_its_largest_stage_and_the_time_of_all() -> None:
    compiling = Stage("compile", (process("gcc", memory=512 * MIB, real=10.0),))
    one, two = Stage("one", (process("p", real=2.0),)), Stage("two", (process("p", real=3.0),))

    request = ExecutionRequest("c", (), (Case("a", (one,)), Case("b", (one, two))), (compiling,))

    assert request.stages == (compiling, one, one, two)
    assert request.memory == 512 * MIB
    assert request.real == 17.0


def test_a_process_is_well_if_it_met_no_limit_and_left_with_zero() -> None:
    assert ended().ok
    assert not ended(exit_code=1).ok
    assert not ended(exit_code=-9).ok
    assert not ended(flags=Flag.OUTPUT).ok


def test_a_stage_is_well_if_its_processes_are_and_nothing_is_missing() -> None:
    there, gone = ArtifactReport("a", 1, b"x"), ArtifactReport("b", 0, missing=True)

    assert StageReport("s", (ended(),), (there,)).ok
    assert not StageReport("s", (ended(), ended(1)), (there,)).ok
    assert not StageReport("s", (ended(),), (there, gone)).ok


def test_a_report_of_a_stage_is_asked_by_name() -> None:
    stage = StageReport(
        "s", (ended(),), (ArtifactReport("a", 1, b"x"), ArtifactReport("big", 5 * KIB))
    )

    assert stage.process("p") is stage.processes[0]
    assert (stage.content("a"), stage.content("big"), stage.content("no")) == (b"x", b"", b"")
    with pytest.raises(KeyError):
        stage.process("q")


def test_cases_are_run_if_all_that_comes_before_went_well() -> None:
    good, bad = StageReport("s", (ended(),)), StageReport("t", (ended(1),))

    assert ExecutionReport((), (CaseReport("a", (bad,)),)).prepared
    assert ExecutionReport((good,), ()).prepared
    assert not ExecutionReport((good, bad), ()).prepared


@pytest.mark.parametrize("cause", Cause)
def test_a_failure_is_never_the_students_and_the_teachers_are_never_tried_again(
    cause: Cause,
) -> None:
    failure = Failure(cause, "…")

    assert failure.fault in Fault
    if failure.fault is Fault.TEACHER:
        assert not failure.passing
    assert failure.passing == (cause in (Cause.CONTAINER, Cause.INTERNAL))


def test_sources_and_outputs_are_not_in_what_is_logged() -> None:
    file = File("main.py", b"secret")
    artifact = ArtifactReport("out", 6, b"secret")

    assert "secret" not in repr((file, artifact))
