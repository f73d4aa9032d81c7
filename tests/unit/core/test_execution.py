import pytest

from commserver.core.execution import (
    MIB,
    NO_FLAG,
    Cause,
    ExecutionRequest,
    Failure,
    Fault,
    File,
    Flag,
    Limits,
    Process,
    ProcessReport,
)


def process(name: str, **limits: float) -> Process:
    memory = int(limits.get("memory", 64 * MIB))
    return Process(name, ("python3", name), Limits(real=limits.get("real", 1.0), memory=memory))


def report(*, exit_code: int = 0, flags: Flag = NO_FLAG, missing: tuple[str, ...] = ()) -> bool:
    return ProcessReport("p", exit_code, 0.1, 0.1, 1, flags=flags, missing=missing).ok


def test_a_request_counts_its_compilation_among_its_processes() -> None:
    compile_, one, two = process("compile"), process("one"), process("two")

    assert ExecutionRequest("c", (), (one, two)).processes == (one, two)
    assert ExecutionRequest("c", (), (one, two), compile_).processes == (compile_, one, two)


def test_a_request_needs_the_memory_of_its_largest_process_and_the_time_of_all() -> None:
    request = ExecutionRequest(
        "c",
        (),
        (process("one", real=2.0), process("two", real=3.0, memory=128 * MIB)),
        process("compile", real=10.0, memory=512 * MIB),
    )

    assert request.memory == 512 * MIB
    assert request.real == 15.0


def test_a_process_is_well_if_it_met_no_limit_left_with_zero_and_left_all_artifacts() -> None:
    assert report()
    assert not report(exit_code=1)
    assert not report(exit_code=-9)
    assert not report(flags=Flag.OUTPUT)
    assert not report(missing=("a.out",))


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
    run = Process("one", ("python3",), Limits(), stdin=b"secret")
    outcome = ProcessReport("one", 0, 0.0, 0.0, 0, stdout=b"secret", stderr=b"secret")

    assert "secret" not in repr((file, run, outcome))
