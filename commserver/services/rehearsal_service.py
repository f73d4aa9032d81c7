"""What a teacher tries before anybody is graded: solutions judged as a server would, and no more.

No database, no queue: a folder, and one engine.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from commserver.core.execution import (
    MIB,
    ExecutionReport,
    ExecutionRequest,
    Limits,
    Process,
    Role,
    RunReport,
    Stage,
    StageReport,
)
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Outcome, Status, Verdict
from commserver.errors import DefinitionError, GraderError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.definition import Expected
from commserver.services.docker_manager import Sandbox
from commserver.services.exercise_folder import ExerciseFolder, Sources, language_for

PROPOSED = 3  # times what was used
WARNED = 2  # a limit under so many times what was used is too tight
CPU_LEAST = 0.1  # seconds: less is lost in how machines differ
REAL_LEAST = 2.0  # seconds: how long one waits is a matter of what else the machine does
MEMORY_LEAST = 16 * MIB
_SECONDS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5)  # what people write, times a power of ten
_SIZES = (1.0, 1.5)  # likewise, times a power of two


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How one submission was judged.

    files: as they were handed in. request: None where nothing was to be run.
    close: it ended by itself so near to its cpu limit that a server would have it run once more.
    """

    files: Sources = field(repr=False)
    language: str
    outcome: Outcome
    request: ExecutionRequest | None = field(default=None, repr=False)
    close: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """How a solution was judged, beside what it must get."""

    solution: str
    expected: Expected
    rehearsal: Rehearsal

    @property
    def good(self) -> bool:
        """True when it got what it must, verdict and grade."""
        match self.rehearsal.outcome:
            case Completed(Verdict(status=status, grade=grade)):
                wanted = self.expected
                return status is wanted.verdict and wanted.grade in (None, grade)
        return False


@dataclass(frozen=True, slots=True)
class Use:
    """The most that was used of one thing in a language, beside the least limit of it in force.

    key: as the definition calls the limit, such as "cpu". Seconds or bytes.
    """

    language: str
    key: str
    used: float
    limit: float

    @property
    def proposed(self) -> float:
        """What the limit should be."""
        if self.key == "memory":
            return rounded_up(max(self.used * PROPOSED, MEMORY_LEAST), _SIZES, 2)
        least = CPU_LEAST if self.key == "cpu" else REAL_LEAST
        return rounded_up(max(self.used * PROPOSED, least), _SECONDS, 10)

    @property
    def tight(self) -> bool:
        """True when a slower machine, or a slower right solution, would meet the limit."""
        return self.limit < self.used * WARNED


class RehearsalService:
    """Judges submissions to an exercise in a folder on one engine, one after the other.

    slot: one that nobody else uses on it meanwhile; see `Sandbox.execute`.
    """

    def __init__(self, sandbox: Sandbox, *, slot: int) -> None:
        self._sandbox = sandbox
        self._slot = slot

    async def rehearse(self, exercise: ExerciseFolder, files: Sources) -> Rehearsal:
        """Return how a submission is judged; a broken exercise is an outcome as well.

        Raises:
            SandboxUnavailable, ImageMissing: nothing was run.
            SandboxError: it went wrong under way.
        """
        definition = exercise.definition
        language = language_for(definition, (name for name, _ in files))
        content = Content(language, definition.grade_max, files, exercise.row)
        try:
            plan = await asyncio.to_thread(kinds.plan, content, exercise.bulk)
        except DefinitionError as error:
            failure = Failure(Cause.EXERCISE, str(error))
            return Rehearsal(files, language, Broken(failure))
        if isinstance(plan, Verdict):
            return Rehearsal(files, language, Completed(plan))
        request = plan.request
        report = await self._sandbox.execute(request, run=definition.key, slot=self._slot)
        try:
            verdict = await asyncio.to_thread(plan.judge, report)
        except GraderError as error:
            failure = Failure(Cause.EXERCISE, error.message, report.container, error.details)
            return Rehearsal(files, language, Broken(failure), request)
        close = plan.close(report)
        return Rehearsal(files, language, Completed(verdict, report), request, close)

    async def check(self, exercise: ExerciseFolder, solution: str) -> Checked:
        """Return how one of the exercise's solutions is judged.

        Raises:
            KeyError: it has no such solution.
            DefinitionError: it cannot be read as what a student hands in.
            SandboxError: see `rehearse`.
        """
        expected = exercise.solutions[solution]
        rehearsal = await self.rehearse(exercise, exercise.solution(solution))
        return Checked(solution, expected, rehearsal)


def accepted(exercise: ExerciseFolder) -> list[str]:
    """Return the solutions that must be accepted."""
    return [s for s, wanted in exercise.solutions.items() if wanted.verdict is Status.ACCEPTED]


# -- limits ---------------------------------------------------------------------------------------


def uses(rehearsals: Iterable[Rehearsal]) -> list[Use]:
    """Return what these used at most of each limit, each language by itself, in a fixed order.

    Only what students' programs use counts, and for a correction script the whole of it.
    """
    most: dict[tuple[str, str], Use] = {}
    for rehearsal in rehearsals:
        match rehearsal:
            case Rehearsal(outcome=Completed(report=ExecutionReport() as report)):
                for key, used, limit in _measured(rehearsal.request, report):
                    name = (rehearsal.language, key)
                    known = most.get(name, Use(*name, 0.0, math.inf))
                    most[name] = Use(*name, max(known.used, used), min(known.limit, limit))
    return [most[name] for name in sorted(most)]


Measured = tuple[str, float, float]
"""What is limited, how much of it was used, and the limit."""


def _measured(request: ExecutionRequest | None, report: ExecutionReport) -> Iterator[Measured]:
    assert request is not None  # it was run
    # What did not compile has no case, and a pipeline may have ended before its last stages.
    for case, of in zip(request.cases, report.cases, strict=False):
        for stage, measured in zip(case.stages, of.stages, strict=False):
            yield from _of_stage(stage, measured)


def _of_stage(stage: Stage, measured: StageReport) -> Iterator[Measured]:
    for process, report in zip(stage.processes, measured.processes, strict=True):
        if process.role is Role.LEARNER:
            yield from _of_program(process.limits, report.cpu, report.real, report.memory)
        elif process.may_run:
            yield ("total", report.real, process.limits.real)
            yield from _of_runs(process.may_run, report.runs)


def _of_runs(may_run: Sequence[Process], runs: Sequence[RunReport]) -> Iterator[Measured]:
    limits = {process.name: process.limits for process in may_run}
    for run in runs:
        yield from _of_program(limits[run.name], run.cpu, run.real, run.memory)


def _of_program(limits: Limits, cpu: float, real: float, memory: int) -> Iterator[Measured]:
    yield ("cpu", cpu, limits.cpu)
    yield ("real", real, limits.real)
    yield ("memory", memory, limits.memory)


def rounded_up(value: float, steps: Sequence[float], base: int) -> float:
    """Return the least number that people write which is `value` or more.

    steps: those from 1 to below `base`; the others are these times a power of `base`.
    """
    power = float(base) ** math.floor(math.log(value, base))
    ladder = [step * power for step in (*steps, base)]
    return next(number for number in ladder if number >= value * (1 - 1e-9))
