"""Exercises of kind `pipeline`: programs that run together, and what their ends are worth."""

import signal
from dataclasses import dataclass, field

from commserver.core.execution import (
    CaseReport,
    ExecutionReport,
    ExecutionRequest,
    Flag,
    ProcessReport,
    StageReport,
)
from commserver.core.verdicts import Status, Verdict
from commserver.errors import GraderError
from commserver.graders.materials import OneCase
from commserver.graders.nearness import close
from commserver.graders.programs import Ended, Exit, check_compiled, ended
from commserver.graders.showing import Result, complaints, ending, not_compiled, status_of, verdict
from commserver.graders.submission import compile_failure

TOGETHER = 0.1  # seconds between two ends of which it cannot be told which was first
SPUN = 1.0  # cpu seconds that no program uses which only waits


@dataclass(frozen=True, slots=True)
class Step:
    """A stage as it is judged.

    learners: the processes that are the student's. teachers: the others, with their programs.
    verdict: the teacher's process whose exit decides, "" where only the learners' ends count.
    outputs: artifacts that learners write, by what a student knows them as.
    """

    name: str
    learners: tuple[str, ...]
    teachers: dict[str, str]
    verdict: str
    outputs: dict[str, str]

    def label(self, process: str) -> str:
        """Return what the names of a process's own artifacts begin with."""
        return f"{self.name}.{process}"


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """What is run for the cases of a pipeline, and how their ends are judged."""

    request: ExecutionRequest
    grade_max: int
    cases: tuple[OneCase, ...] = field(repr=False)
    steps: tuple[Step, ...]

    def judge(self, report: ExecutionReport) -> Verdict:
        """Return what the measured run is worth.

        Raises:
            GraderError: a program of the teacher's broke, for no fault of the student's.
        """
        if why := compile_failure(report):
            unjudged = [Result(x.name, Status.COMPILE_ERROR, 0, x.points) for x in self.cases]
            return not_compiled(unjudged, self.grade_max, why)
        check_compiled(report)
        cases = zip(self.cases, report.cases, strict=True)
        return verdict([self._judged(case, became) for case, became in cases], self.grade_max)

    def close(self, report: ExecutionReport) -> bool:
        """Return whether a program of the student's ended by itself close to its cpu limit."""
        return close(self.request, report)

    def _judged(self, case: OneCase, became: CaseReport) -> Result:
        ends = [_ends(step, stage) for step, stage in zip(self.steps, became.stages, strict=False)]
        status, earned, said = Status.ACCEPTED, case.points, [line for x in ends for line in x.said]
        for one in ends:
            try:
                status, earned, why = one.decided(case.points)
            except GraderError as fault:
                raise fault.of_case(case.name) from fault
            said += why
            if status is not Status.ACCEPTED:
                break
        else:
            if len(ends) < len(self.steps):  # what came after its judge had decided kept it there
                crashed = next(one for one in ends[-1].learners if one.exit_code)
                status, earned = Status.RUNTIME_ERROR, 0
                said.append(ending(crashed.exit_code))
        outputs = [shown for one in ends for shown in one.outputs]
        return Result(
            case.name,
            status,
            earned,
            case.points,
            case.hidden,
            case.hint,
            tuple(learner for one in ends for learner in one.learners),
            tuple(said),
            (("input", case.input), ("expected", case.expected), *outputs),
            tuple(note for one in ends for note in one.notes),
        )


@dataclass(frozen=True, slots=True)
class _Ends:
    """How the programs of one stage ended; `lost`: files that learners did not leave."""

    verdict: str
    learners: tuple[ProcessReport, ...]
    teachers: dict[str, Ended]
    lost: tuple[str, ...]
    outputs: tuple[tuple[str, bytes], ...]

    @property
    def said(self) -> tuple[str, ...]:
        """Return what the teacher's programs say to the student."""
        return tuple(line for one in self.teachers.values() for line in one.told.said)

    @property
    def notes(self) -> tuple[tuple[str, bytes], ...]:
        """Return what the teacher's programs wrote."""
        return tuple(note for one in self.teachers.values() for note in one.notes)

    def decided(self, points: int) -> tuple[Status, int, list[str]]:
        """Return the status, what is earned of `points`, and why, as a student may read it.

        Raises:
            GraderError: a program of the teacher's broke, and not because a learner's had ended.
        """
        for teacher in self.teachers.values():
            if self._broken(teacher) and not self._excused(teacher):
                raise teacher.broke()
        for learner in self.learners:
            if learner.flags:
                return status_of(learner), 0, []
        judge = self.teachers.get(self.verdict)
        for learner in self.learners:
            if learner.exit_code and (judge is None or _first(learner, judge)):
                return Status.RUNTIME_ERROR, 0, [ending(learner.exit_code)]
        if self.lost:
            return Status.WRONG_ANSWER, 0, [f"{name} is missing" for name in self.lost]
        if judge is None:
            return Status.ACCEPTED, points, []
        return *judge.decided(points), []

    def _broken(self, teacher: Ended) -> bool:
        """Return whether it did not do its work; only who decides may leave with other than 0."""
        decides = self.verdict and teacher is self.teachers[self.verdict]
        return teacher.broken or bool(teacher.report.exit_code and not decides)

    def _excused(self, teacher: Ended) -> bool:
        """Return whether a learner's end came before, so that it had nobody to talk to."""
        for learner in self.learners:
            # On a busy machine one that spins meets its real limit before that of cpu.
            flags = teacher.report.flags
            own = flags & ~Flag.REAL or (flags and teacher.report.cpu >= SPUN)
            if learner.flags and learner.ended <= teacher.report.ended:
                # One that was stopped for waiting may have waited for a program that spun.
                return not (own and learner.flags == Flag.REAL)
            if learner.exit_code and not learner.flags and _first(learner, teacher):
                return True
        return False


def _ends(step: Step, stage: StageReport) -> _Ends:
    missing = {artifact.name for artifact in stage.artifacts if artifact.missing}
    return _Ends(
        step.verdict,
        tuple(stage.process(name) for name in step.learners),
        {name: ended(path, name, stage, step.label(name)) for name, path in step.teachers.items()},
        tuple(shown for name, shown in step.outputs.items() if name in missing),
        tuple((shown, complaints(stage.content(name))) for name, shown in step.outputs.items()),
    )


def _first(learner: ProcessReport, judge: Ended) -> bool:
    """Return whether a learner's program crashed before the judge decided.

    Two ends that are too close to tell apart: the judge was second if it met the end of what the
    learner says. One that cannot tell us so says presentation then, as testlib's do.
    """
    later = judge.report.ended - learner.ended
    if abs(later) >= TOGETHER:
        return later > 0
    if learner.exit_code == -signal.SIGPIPE:  # it wrote to whoever had ended
        return False
    return judge.report.exit_code == Exit.PRESENTATION if judge.mute else judge.told.eof
