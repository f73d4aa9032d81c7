"""What the exercise commands print for people."""

import os
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from commserver.core.execution import KIB, MIB
from commserver.core.verdicts import Broken, Completed, Failure, Status, Verdict
from commserver.errors import DefinitionError
from commserver.graders.definition import shown
from commserver.graders.limits import spelled
from commserver.services.exercise_folder import DEFINITION, ExerciseFolder
from commserver.services.exercise_service import Statistics
from commserver.services.rehearsal_service import PROPOSED, WARNED, Checked, Rehearsal, Use


def problems(error: DefinitionError, err: Console) -> None:
    """Print what keeps an exercise from being graded, a line each."""
    for problem in error.problems:
        err.print(Text.assemble(("! ", "red"), problem), soft_wrap=True)


def exercise(folder: ExerciseFolder, out: Console) -> None:
    """Print what an exercise is, and what is in force, whoever said so."""
    definition = folder.definition
    out.print(Text.assemble((definition.title, "bold"), f" ({folder.path})"))
    languages = ", ".join(definition.languages)
    files = ", ".join(definition.submission.files) or "of any name"
    kind = f"{definition.key} in {definition.course}: kind {definition.kind}, {languages}"
    out.print(Text(f"{kind}; files: {files}"))
    table = Table("in force", "value", "", box=None, pad_edge=False)
    for key, value, default in shown(definition):
        table.add_row(key, Text(value), "default" if default else "")
    out.print(table)
    if definition.cases:
        table = Table("case", "points", "", box=None, pad_edge=False)
        for case in definition.cases:
            of_files = f"each of {case.files}" if case.files else ""
            hidden = "hidden" if case.hidden else ""
            table.add_row(
                Text(case.name), str(case.points), Text(", ".join(filter(None, (hidden, of_files))))
            )
        out.print(table)


def checked(folder: ExerciseFolder, solutions: Sequence[Checked], out: Console) -> None:
    """Print what solutions got beside what they must get; of those that differ all there is."""
    if not solutions:
        out.print(Text(f"{folder.path}: there are no solutions: nothing was run", "yellow"))
        return
    table = Table("solution", "must get", "got", "", title=str(folder.path), title_justify="left")
    for one in solutions:
        wanted = _ended(one.expected.verdict, one.expected.grade)
        good = Text("as it should", "green") if one.good else Text("WRONG", "bold red")
        table.add_row(Text(one.solution), wanted, Text(_got(one.rehearsal)), good)
    out.print(table)
    for one in solutions:
        if one.rehearsal.close:
            out.print(
                Text(
                    f"{one.solution}: so close to its cpu limit that a server would run it twice",
                    "yellow",
                )
            )
        if not one.good:
            out.print(Text(f"{one.solution}, as its teacher sees it:", "bold"))
            _everything(one.rehearsal, out)
    if any(map(_outpaced, solutions)):
        load = f"{os.getloadavg()[0]:.1f} programs on {os.cpu_count()} cores"
        out.print(Text(f"real_time instead of cpu_time: is this machine busy? {load}", "yellow"))
    wrong = sum(not one.good for one in solutions)
    if not wrong:
        out.print(f"all {len(solutions)} as they should")
    else:
        out.print(Text(f"{wrong} of {len(solutions)} not as they should", "red"))


def _outpaced(one: Checked) -> bool:
    """Return whether a program that was to use up its cpu time was not given any."""
    match one.rehearsal.outcome:
        case Completed(Verdict(status=Status.REAL_TIME)):
            return one.expected.verdict is Status.CPU_TIME
    return False


# -- one submission -------------------------------------------------------------------------------


def handed_in(rehearsal: Rehearsal, out: Console) -> None:
    """Print what was handed in."""
    names = ", ".join(name for name, _ in rehearsal.files)
    out.print(Text(f"handed in: {names} ({rehearsal.language})"))


def for_student(rehearsal: Rehearsal, out: Console) -> None:
    """Print what a student would be told and could read, and nothing else."""
    out.rule("what the student sees", align="left")
    out.print(Text(_got(rehearsal), "bold"))
    if isinstance(rehearsal.outcome, Completed):
        _indented(rehearsal.outcome.verdict.log, out)


def for_teacher(rehearsal: Rehearsal, out: Console) -> None:
    """Print what its teacher could read."""
    out.rule("what the teacher sees", align="left")
    out.print(Text(_got(rehearsal), "bold"))
    _everything(rehearsal, out)


def _everything(rehearsal: Rehearsal, out: Console) -> None:
    match rehearsal.outcome:
        case Completed(verdict, report):
            if rehearsal.close:
                out.print("so close to its cpu limit that a server would run it twice")
            _cases(verdict, out)
            for heading, text in (("log", verdict.log), ("notes", verdict.notes)):
                if text:
                    out.print(Text(f"{heading}:"))
                    _indented(text, out)
            if report:
                where = f"image {report.image}, isolation {report.isolation or 'not known'}"
                out.print(Text(f"{where}, runner {report.runner or 'not known'}"))
        case Broken(failure):
            _indented(failure.details, out)


def _cases(verdict: Verdict, out: Console) -> None:
    table = Table("case", "verdict", "points", "cpu", "real", "memory", box=None, pad_edge=False)
    for case in verdict.cases:
        used = (_seconds(case.cpu), _seconds(case.real), _bytes(case.memory))
        table.add_row(Text(case.name), case.status.value, f"{case.earned}/{case.points}", *used)
    out.print(table)


def _got(rehearsal: Rehearsal) -> str:
    """Return how it ended, as its student is told."""
    match rehearsal.outcome:
        case Completed(Verdict(status=status, grade=grade, grade_max=grade_max)):
            return f"{status}, {grade} of {grade_max}"
        case Broken(Failure(message=message) as failure):
            return f"not graded: {message} (the {failure.fault}'s fault)"


def _ended(status: Status, grade: int | None) -> str:
    return status.value if grade is None else f"{status}, {grade}"


def _indented(text: str, out: Console) -> None:
    for line in text.splitlines():
        out.print(Text(f"  {line}"))


# -- limits and statistics ------------------------------------------------------------------------


def proposals(folder: ExerciseFolder, used: Iterable[Use], times: int, out: Console) -> None:
    """Print what was used at most, and what limits would fit."""
    definition = folder.definition
    own = {key for key, _, default in shown(definition) if not default}
    headings = ("limit", "used at most", "in force", f"× {PROPOSED}", "")
    table = Table(*headings, box=None, pad_edge=False)
    proposed: dict[str, list[str]] = {}
    for use in used:
        several = len(definition.languages) > 1 and use.key != "total"
        at = f"limits.{use.language}.{use.key}" if several else f"limits.{use.key}"
        much = _bytes(int(use.used)) if use.key == "memory" else _seconds(use.used)
        fits = spelled(use.key, use.proposed)
        # Where nobody has set it, the limit in real time follows the one in cpu time.
        if use.key != "real" or at in own:
            group = proposed.setdefault(use.language if several else "", [])
            group.append(f"{use.key} = {fits}")
        warning = Text(f"tight: under × {WARNED}", "yellow") if use.tight else ""
        table.add_row(at, much, spelled(use.key, use.limit).strip('"'), fits.strip('"'), warning)
    right = sum(1 for _, s in folder.solutions.items() if s.verdict is Status.ACCEPTED)
    out.print(Text(f"solutions that must be accepted: {right}; each was run {times} ×:"))
    out.print(table)
    out.print(Text(f"proposed for {folder.path / DEFINITION}:"))
    inside = [
        f"{language} = {{ {', '.join(limits)} }}" if language else ", ".join(limits)
        for language, limits in sorted(proposed.items())
    ]
    out.print(Text(f"  limits = {{ {', '.join(inside)} }}"))


def statistics(found: Statistics, out: Console) -> None:
    """Print how students fare with an exercise."""
    out.print(Text(f"exercise {found.exercise}: {found.title}", "bold"))
    share = f", {found.accepted:.0%} accepted" if found.runs else ""
    out.print(f"{found.runs} runs{share}")
    if found.unread:
        out.print(f"{found.unread} more cannot be read by this version")
    if not found.cases:
        return
    table = Table("case", "runs", "accepted", "else mostly", "cpu", "real", "memory")
    for case in found.cases:
        used = (_seconds(case.cpu), _seconds(case.real), _bytes(int(case.memory)))
        most = case.most.value if case.most else ""
        table.add_row(Text(case.name), str(case.runs), f"{case.accepted:.0%}", most, *used)
    out.print(table)
    out.print("cpu, real and memory: the median of what it took")


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _bytes(value: int) -> str:
    return f"{value / MIB:.1f} MiB" if value >= MIB else f"{value / KIB:.0f} KiB"
