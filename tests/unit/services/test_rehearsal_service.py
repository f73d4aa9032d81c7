"""Rehearsals: solutions judged as a server would, on an engine that runs nothing."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.core.execution import (
    MIB,
    ExecutionReport,
    ExecutionRequest,
    ProcessReport,
    Role,
    RunReport,
    StageReport,
)
from commserver.core.verdicts import Broken, Cause, Completed, Status, Verdict
from commserver.errors import ImageMissing, SandboxLost
from commserver.services.exercise_folder import ExerciseFolder, read, write
from commserver.services.rehearsal_service import (
    _SECONDS,
    _SIZES,
    Checked,
    RehearsalService,
    Use,
    accepted,
    rounded_up,
    uses,
)
from tests.fake_sandbox import FakeSandbox, says
from tests.unit.graders.toml import exercise

SOLUTIONS = """
[solutions]
"right.py" = { verdict = "accepted", grade = 20 }
"wrong.py" = { verdict = "wrong_answer", grade = 0 }
"""


def folder_of(path: Path, text: str) -> ExerciseFolder:
    """Return an exercise with two solutions, which nobody runs."""
    files = {"exercise.toml": text.encode(), "right.py": b"", "wrong.py": b""}
    write(path, files)
    return read(path)


@pytest.fixture
def double(tmp_path: Path) -> ExerciseFolder:
    """One that 42 is the right answer to."""
    return folder_of(tmp_path / "double", exercise() + SOLUTIONS)


@pytest.fixture
def sandbox() -> FakeSandbox:
    return FakeSandbox()


@pytest.fixture
def service(sandbox: FakeSandbox) -> RehearsalService:
    return RehearsalService(sandbox, slot=7)


def measured(
    request: ExecutionRequest, role: Role = Role.LEARNER, says_: str = "42", **values: object
) -> ExecutionReport:
    """Return what a request comes to, with other values for all programs of this role."""
    report = says(says_)(request)
    roles = {p.name: p.role for stage in request.stages for p in stage.processes}

    def process(one: ProcessReport) -> ProcessReport:
        return replace(one, **values) if roles[one.name] is role else one  # type: ignore[arg-type]

    def stage(one: StageReport) -> StageReport:
        return replace(one, processes=tuple(map(process, one.processes)))

    cases = tuple(replace(case, stages=tuple(map(stage, case.stages))) for case in report.cases)
    return replace(report, cases=cases)


# -- judging --------------------------------------------------------------------------------------


async def test_solutions_are_run_in_the_slot_and_compared_with_what_they_must_get(
    service: RehearsalService, sandbox: FakeSandbox, double: ExerciseFolder
) -> None:
    sandbox.scripts.extend([says("42"), says("43")])

    right = await service.check(double, "right.py")
    wrong = await service.check(double, "wrong.py")

    assert right.good
    assert wrong.good
    assert isinstance(wrong.rehearsal.outcome, Completed)
    assert wrong.rehearsal.outcome.verdict.status is Status.WRONG_ANSWER
    assert [(e.run, e.slot) for e in sandbox.begun] == [("double", 7)] * 2
    assert accepted(double) == ["right.py"]


@pytest.mark.parametrize(
    ("said", "grade", "good"), [("42", 20, True), ("42", 19, False), ("x", 20, False)]
)
async def test_the_verdict_and_the_grade_count(
    service: RehearsalService,
    sandbox: FakeSandbox,
    tmp_path: Path,
    said: str,
    grade: int,
    good: bool,
) -> None:
    text = exercise() + SOLUTIONS.replace("grade = 20", f"grade = {grade}")
    sandbox.otherwise = says(said)

    checked = await service.check(folder_of(tmp_path / "double", text), "right.py")

    assert checked.good is good


async def test_files_that_cannot_be_started_are_judged_without_an_engine(
    service: RehearsalService, sandbox: FakeSandbox, tmp_path: Path
) -> None:
    text = exercise('submission.files = ["a.py", "b.py"]') + SOLUTIONS
    folder = folder_of(tmp_path / "double", text)

    rehearsal = await service.rehearse(folder, folder.solution("right.py"))

    assert isinstance(rehearsal.outcome, Completed)
    assert rehearsal.outcome.verdict.status is Status.COMPILE_ERROR
    assert rehearsal.request is None
    assert not sandbox.begun
    assert uses([rehearsal]) == []


async def test_an_exercise_that_cannot_be_graded_is_an_outcome(
    service: RehearsalService, double: ExerciseFolder
) -> None:
    broken = replace(double, row=double.row + "\n[[cases]]\n")

    rehearsal = await service.rehearse(broken, double.solution("right.py"))

    assert isinstance(rehearsal.outcome, Broken)
    assert rehearsal.outcome.failure.cause is Cause.EXERCISE
    expected = double.solutions["right.py"]
    assert not Checked("right.py", expected, rehearsal).good


async def test_a_teachers_program_that_breaks_is_an_outcome_with_its_details(
    service: RehearsalService, sandbox: FakeSandbox, tmp_path: Path
) -> None:
    text = exercise('checker = { program = "check.py" }')
    write(tmp_path / "x", {"exercise.toml": text.encode(), "check.py": b""})
    sandbox.otherwise = lambda request: measured(request, Role.GRADER, exit_code=3)

    rehearsal = await service.rehearse(read(tmp_path / "x"), (("main.py", ""),))

    assert isinstance(rehearsal.outcome, Broken)
    failure = rehearsal.outcome.failure
    assert (failure.cause, failure.container) == (Cause.EXERCISE, "fake-container")
    assert "check.py" in failure.message


@pytest.mark.parametrize("error", [ImageMissing("python"), SandboxLost("gone")])
async def test_what_is_the_engines_fault_is_no_outcome(
    service: RehearsalService, sandbox: FakeSandbox, double: ExerciseFolder, error: Exception
) -> None:
    sandbox.otherwise = error

    with pytest.raises(type(error)):
        await service.check(double, "right.py")


async def test_what_ends_by_itself_near_its_limit_is_marked_and_run_once(
    service: RehearsalService, sandbox: FakeSandbox, double: ExerciseFolder
) -> None:
    sandbox.scripts.append(lambda request: measured(request, cpu=0.95))

    near = await service.rehearse(double, double.solution("right.py"))
    far = await service.rehearse(double, double.solution("right.py"))

    assert (near.close, far.close) == (True, False)
    assert len(sandbox.begun) == 2


# -- limits ---------------------------------------------------------------------------------------


async def test_the_most_that_was_used_stands_beside_the_limit_in_force(
    service: RehearsalService, sandbox: FakeSandbox, double: ExerciseFolder
) -> None:
    for cpu, memory in ((0.1, 40 * MIB), (0.3, 10 * MIB)):
        sandbox.scripts.append(partial(measured, cpu=cpu, real=2 * cpu, memory=memory))

    rehearsals = [await service.rehearse(double, double.solution("right.py")) for _ in range(2)]

    assert uses(rehearsals) == [
        Use("python", "cpu", 0.3, 1.0),
        Use("python", "memory", 40 * MIB, 64 * MIB),
        Use("python", "real", 0.6, 5.0),
    ]


async def test_of_what_did_not_compile_nothing_was_used(
    service: RehearsalService, double: ExerciseFolder
) -> None:
    rehearsal = await service.rehearse(double, double.solution("right.py"))
    outcome = Completed(Verdict(Status.COMPILE_ERROR, 0, 20), ExecutionReport((), ()))

    assert uses([replace(rehearsal, outcome=outcome)]) == []


async def test_of_a_script_the_whole_and_each_run_of_the_students_code_count(
    service: RehearsalService, sandbox: FakeSandbox, tmp_path: Path
) -> None:
    text = exercise('script = "grade.py"', cases="", kind='"script"')
    write(tmp_path / "x", {"exercise.toml": text.encode(), "grade.py": b"import grader\n"})

    def script(request: ExecutionRequest) -> ExecutionReport:
        [process] = request.cases[0].stages[0].processes
        name = process.may_run[0].name
        runs = tuple(RunReport(name, 0, cpu, 0.5, MIB) for cpu in (0.2, 0.4))
        return measured(request, Role.GRADER, "GRADE: 20\n", real=6.0, memory=50 * MIB, runs=runs)

    sandbox.otherwise = script

    service_uses = uses([await service.rehearse(read(tmp_path / "x"), (("main.py", ""),))])

    found = {use.key: (use.used, use.limit) for use in service_uses}
    assert found["cpu"] == (0.4, 1.0)
    assert found["memory"] == (MIB, 64 * MIB)
    assert found["total"] == (6.0, 10.0)


@pytest.mark.parametrize(
    ("key", "used", "limit", "proposed", "tight"),
    [
        ("cpu", 0.001, 1.0, 0.1, False),
        ("cpu", 0.4, 0.5, 1.5, True),
        ("cpu", 0.5, 1.0, 1.5, False),
        ("real", 0.02, 5.0, 2.0, False),
        ("total", 4.1, 10.0, 15.0, False),
        ("memory", 1 * MIB, 64 * MIB, 16 * MIB, False),
        ("memory", 20 * MIB, 32 * MIB, 64 * MIB, True),
        ("memory", 9 * MIB, 64 * MIB, 32 * MIB, False),
    ],
)
def test_three_times_the_use_is_proposed_and_less_than_twice_is_tight(
    key: str, used: float, limit: float, proposed: float, tight: bool
) -> None:
    use = Use("python", key, used, limit)

    assert use.proposed == pytest.approx(proposed)
    assert use.tight is tight


@given(st.floats(0.01, 1e12), st.sampled_from([(_SECONDS, 10), (_SIZES, 2)]))
def test_numbers_are_rounded_up_by_less_than_half_as_much_again(
    value: float, ladder: tuple[tuple[float, ...], int]
) -> None:
    rounded = rounded_up(value, *ladder)

    assert value * (1 - 1e-6) <= rounded <= value * 1.7
