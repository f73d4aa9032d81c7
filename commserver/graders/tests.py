"""Exercises of kind `tests`: inputs, and what must come out of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    ExecutionReport,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Stage,
    StageReport,
)
from commserver.core.verdicts import Status, Verdict
from commserver.errors import GraderError
from commserver.graders.checkers import CHECKERS, Checker, floats
from commserver.graders.definition import CheckerTable, Definition
from commserver.graders.materials import Materials, OneCase
from commserver.graders.nearness import close
from commserver.graders.programs import Program, check_compiled, ended, kept_of
from commserver.graders.showing import (
    Result,
    complaints,
    difference,
    ending,
    not_compiled,
    status_of,
    verdict,
)
from commserver.graders.submission import Submission, compile_failure

PROGRAM = "program"
CHECKER = "checker"
_SEEN = ("input", "output", "expected")  # what a checker is shown, in the order of its arguments


@dataclass(frozen=True, slots=True)
class TestsPlan:
    """What is run for the cases, and how their ends are judged."""

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    request: ExecutionRequest
    grade_max: int
    cases: tuple[OneCase, ...] = field(repr=False)
    check: Checker | Program = field(repr=False)

    def judge(self, report: ExecutionReport) -> Verdict:
        """Return what the measured run is worth; our own checkers compare here, outside.

        Raises:
            GraderError: the teacher's checker broke.
        """
        if why := compile_failure(report):
            return not_compiled(unjudged(self.cases), self.grade_max, why)
        check_compiled(report)
        results = [
            self._judged(case, became.stages)
            for case, became in zip(self.cases, report.cases, strict=True)
        ]
        return verdict(results, self.grade_max)

    def close(self, report: ExecutionReport) -> bool:
        """Return whether a program ended by itself close to its cpu limit."""
        return close(self.request, report)

    def _judged(self, case: OneCase, stages: tuple[StageReport, ...]) -> Result:
        stage = stages[0]
        process = stage.process(PROGRAM)
        status = status_of(process)
        output = stage.content("output")
        earned = 0
        said: list[str] = []
        notes: tuple[tuple[str, bytes], ...] = ()
        if status is Status.RUNTIME_ERROR:
            said.append(ending(process.exit_code))
        elif status is not Status.ACCEPTED:
            pass  # its name says all
        elif isinstance(self.check, Program):
            checker = ended(self.check.path, CHECKER, stages[1])
            try:
                status, earned = checker.decided(case.points)
            except GraderError as fault:
                raise fault.of_case(case.name) from fault
            said += checker.told.said
            notes = checker.notes
        elif found := self.check(output, case.expected):
            status = found.status
            said.append(difference(found))
        else:
            earned = case.points
        shown = (
            ("input", case.input),
            ("expected", case.expected),
            ("your output", output),
            ("your errors", complaints(stage.content("errors"))),
        )
        return Result(
            case.name,
            status,
            earned,
            case.points,
            case.hidden,
            case.hint,
            (process,),
            tuple(said),
            shown,
            notes,
        )


def plan_tests(
    definition: Definition,
    materials: Materials,
    submission: Submission,
    *,
    image: str,
    grade_max: int,
) -> TestsPlan:
    """Return what has to be run for the cases.

    Raises:
        DefinitionError: the exercise does not say which file is run, or lost one of its own.
    """
    cases = materials.cases()
    limits = definition.limits_of(submission.language.name)
    check = _checker(definition, materials)
    program = check if isinstance(check, Program) else None
    files: list[File] = [*submission.files, *(program.files if program else ())]
    planned: list[Case] = []
    for number, case in enumerate(cases):
        brought = {"input": File(f"case/{number}/input", case.input)}
        if program:
            brought["expected"] = File(f"case/{number}/expected", case.expected)
        files += brought.values()
        stages = [_run(submission, limits, brought["input"].name)]
        if program:
            stages.append(_check_stage(program, brought))
        planned.append(Case(str(number), tuple(stages)))
    request = ExecutionRequest(
        image,
        tuple(files),
        tuple(planned),
        (*submission.prepare, *(program.prepare if program else ())),
    )
    return TestsPlan(request, grade_max, cases, check)


def unjudged(cases: tuple[OneCase, ...]) -> tuple[Result, ...]:
    """Return the cases of a program that was never started."""
    return tuple(Result(case.name, Status.COMPILE_ERROR, 0, case.points) for case in cases)


def _checker(definition: Definition, materials: Materials) -> Checker | Program:
    checker = definition.checker
    if not isinstance(checker, CheckerTable):
        return CHECKERS[checker]
    if checker.program is not None:
        return Program("checker", checker.program, materials.teachers())
    assert checker.tolerance is not None  # `parse` let it through
    return partial(floats, tolerance=checker.tolerance)


def _run(submission: Submission, limits: Limits, given: str) -> Stage:
    """Return the stage that runs the student's program once."""
    process = Process(PROGRAM, submission.argv, limits, submission.started)
    pipes = (
        Pipe(Resource(given), Descriptor(PROGRAM, 0)),
        Pipe(Descriptor(PROGRAM, 1), Artifact("output")),
        Pipe(Descriptor(PROGRAM, 2), Artifact("errors")),
    )
    return Stage("run", (process,), pipes)


def _check_stage(program: Program, brought: Mapping[str, File]) -> Stage:
    """Return the stage in which the teacher's checker looks at what came out.

    What it is shown lies in a folder of its own, where no file of the teacher's is in the way.
    """
    files = [
        Placement(brought[what].name if what in brought else what, f"case/{what}") for what in _SEEN
    ]
    process = program.process(CHECKER, *(f"case/{what}" for what in _SEEN), files=files)
    return Stage("check", (process,), kept_of(CHECKER))
