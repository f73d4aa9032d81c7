"""Correction scripts: the teacher's Python program that calls and runs the student's files.

One that uses the `grader` module tells us what each check is worth. A plain script of a platform
keeps its contract: it leaves with 0, and the last line that it prints is `GRADE: n`.
"""

import json
import re
from dataclasses import dataclass, field

from commserver.core.execution import (
    MIB,
    Case,
    ExecutionReport,
    ExecutionRequest,
    File,
    Limits,
    Placement,
    Process,
    ProcessReport,
    RunReport,
    Stage,
    Stop,
)
from commserver.core.verdicts import Status, Verdict
from commserver.graders.definition import NUMBER_MOST
from commserver.graders.nearness import close
from commserver.graders.programs import Ended, Program, ended, kept_of
from commserver.graders.showing import Result, ending, not_compiled, status_of, verdict
from commserver.graders.submission import Submission, compile_failure
from commserver.graders.telling import Check, Say

NAME = "script"
PLAIN_FILE = "correction.py"  # what a platform's script is called in its folder
MEMORY = 128 * MIB  # of the script itself
TELL_OUTPUT = 2 * MIB  # bytes of what a script may tell us
OVERDUE = (
    0.5  # part of the total that the student's runs must have used for a time-out to be theirs
)

_GRADE = re.compile(rb"[ \t]*GRADE:[ \t]*([0-9]{1,10})[ \t]*")


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """What is run for a correction by a script, and how its end is judged."""

    request: ExecutionRequest
    grade_max: int
    path: str

    def judge(self, report: ExecutionReport) -> Verdict:
        """Return what the script makes of the student's files.

        Raises:
            GraderError: the script broke, or does not say how many points there are.
        """
        if why := compile_failure(report):
            return not_compiled((), self.grade_max, why)
        script = ended(self.path, NAME, report.cases[0].stages[0])
        if late := _overdue(script, self.request):
            return _cut_short(script, late, self.grade_max)
        if script.told.fault or script.report.flags or script.report.exit_code:
            raise script.broke()
        if script.told.grader:
            return _checked(script, self.grade_max)
        return _plain(script, self.grade_max)

    def close(self, report: ExecutionReport) -> bool:
        """Return whether a run of the student's ended by itself close to its cpu limit."""
        return close(self.request, report)


@dataclass(frozen=True, slots=True)
class Script:
    """A correction script and the folder in which it works.

    submission: the folder of the student's files, "." when they lie beside the script.
    """

    program: Program
    submission: str
    total: float
    limits: Limits = field(default_factory=Limits)


def plain_script(text: str, submission: Submission, total: float) -> Script:
    """Return a platform's script, which finds the student's files beside itself."""
    taken = {*submission.own, *submission.given}
    path = PLAIN_FILE
    while path in taken:
        path = f"our-{path}"
    content = text.replace("\r\n", "\n").encode("utf-8", "replace")
    return Script(Program("script", path, {path: content}), ".", total)


def plan_script(
    script: Script, submission: Submission, *, image: str, grade_max: int
) -> ScriptPlan:
    """Return what has to be run: the script, which asks for runs of the student's files."""
    under = "" if script.submission == "." else f"{script.submission}/"
    seen = tuple(Placement(x.name, f"{under}{x.path}") for x in submission.sources)
    process = script.program.process(
        NAME,
        files=seen,
        limits=Limits(
            cpu=script.total, real=script.total, memory=MEMORY, output=TELL_OUTPUT, processes=16
        ),
        environment=_environment(script, submission),
        may_run=_runs(script, submission),
    )
    stage = Stage(NAME, (process,), kept_of(NAME), Stop.ALWAYS)
    files: tuple[File, ...] = (*submission.files, *script.program.files)
    request = ExecutionRequest(image, files, (Case(NAME, (stage,)),), submission.prepare)
    return ScriptPlan(request, grade_max, script.program.path)


def _environment(script: Script, submission: Submission) -> tuple[tuple[str, str], ...]:
    variables = {
        "COMMSERVER_SUBMISSION": script.submission,
        "COMMSERVER_NAMES": json.dumps(sorted(submission.own)),
    }
    if submission.main:
        variables["COMMSERVER_MAIN"] = submission.main
    if submission.language.compile:
        variables["COMMSERVER_COMPILED"] = "1"
    return tuple(variables.items())


def _runs(script: Script, submission: Submission) -> tuple[Process, ...]:
    """Return what the script may ask for: a run of a program, and a call of a function."""
    language, limits = submission.language, script.limits
    runs = [Process("run", language.starter(), limits, submission.started)]
    if language.call:
        runs.append(Process("call", language.call, limits, submission.started))
    return tuple(runs)


def _checked(script: Ended, grade_max: int) -> Verdict:
    """Return what the checks of a script that uses our module are worth together."""
    if not script.told.done:
        raise script.broke("it ended before its end")
    results = _results(script)
    if sum(one.points for one in results if isinstance(one, Result)) < 1:
        raise script.broke("its checks are worth no points")
    return verdict(results, grade_max, notes=script.notes)


def _results(script: Ended) -> list[Result | str]:
    lines: list[Result | str] = []
    asked = 0
    for line in script.told.lines:
        match line:
            case Say(text):
                lines.append(text)
            case Check():
                runs = script.report.runs[asked : line.runs]
                asked = max(asked, line.runs)
                lines.append(_result(script, line, runs))
    return lines


def _result(script: Ended, check: Check, runs: tuple[RunReport, ...]) -> Result:
    if not 0 <= check.earned <= check.points <= NUMBER_MOST:
        raise script.broke(f"a check gave {check.earned} of {check.points} points")
    return Result(
        check.name,
        check.status,
        check.earned,
        check.points,
        check.hidden,
        check.hint,
        runs,
        said=(check.message,) if check.message else (),
        notes=(("note", check.note.encode("utf-8", "replace")),),
    )


def _overdue(script: Ended, request: ExecutionRequest) -> Status | None:
    """Return the status when the whole correction took too long because of the student's runs."""
    report = script.report
    if report.ok or status_of(report) not in (Status.CPU_TIME, Status.REAL_TIME):
        return None
    limits = request.cases[0].stages[0].processes[0].limits
    if report.cpu > limits.cpu or sum(run.real for run in report.runs) < OVERDUE * limits.real:
        return None
    late = (status_of(run) for run in report.runs)
    times = (Status.CPU_TIME, Status.REAL_TIME)
    return next((status for status in late if status in times), Status.REAL_TIME)


def _cut_short(script: Ended, status: Status, grade_max: int) -> Verdict:
    """Return the verdict on files so slow that the script could not end.

    The checks that were made count. What the others would have been worth is not known; together
    they are taken to be worth the full grade, as they are where points are grades.
    """
    lines = [*_results(script), f"{status}: the correction was stopped before its end"]
    return verdict(lines, grade_max, status=status, total=grade_max, notes=script.notes)


def _plain(script: Ended, grade_max: int) -> Verdict:
    """Return the grade that a platform's script printed.

    Raises:
        GraderError: there is none, or a program of the student's spelled the same.
    """
    match = _GRADE.fullmatch(script.log.rstrip().split(b"\n")[-1])
    if match is None:
        raise script.broke("its last line is not GRADE: and a whole number")
    points = int(match[1])
    if points > grade_max:
        raise script.broke(f"it gave {points} of {grade_max} points")
    if points in script.told.heard or script.told.many:
        raise script.broke("ambiguous grade: a program of the student's wrote the same line")
    status, said = _plain_status(script.report, right=points == grade_max)
    result = Result("correction", status, points, grade_max, measured=script.report.runs, said=said)
    return verdict([result], grade_max, notes=script.notes)


def _plain_status(report: ProcessReport, *, right: bool) -> tuple[Status, tuple[str, ...]]:
    """Return why there are points missing: what became of the first run that went wrong, if any."""
    if right:
        return Status.ACCEPTED, ()
    for run in report.runs:
        status = status_of(run)
        if status is Status.RUNTIME_ERROR:
            return status, (ending(run.exit_code),)
        if status is not Status.ACCEPTED:
            return status, ()
    return Status.WRONG_ANSWER, ()
