"""Who sees what: the text that a student reads, the one that only the teacher may, the grade."""

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from commserver.core.execution import Flag, ProcessReport, RunReport
from commserver.core.text import TEXT_LIMIT, clean_text
from commserver.core.verdicts import CaseVerdict, Status, Verdict
from commserver.graders.checkers import Difference

SHOWN = 2048  # bytes of an input, an output or a message that anybody is shown
EXCERPT = 80  # characters of what differs
# Where a program lies when it runs; its student knows no such folder.
WORK = b"/box/%s/" % b"work"
NOTES_LIMIT = 4 * TEXT_LIMIT  # bytes of what a teacher may read of one run

# Memory first: a program that is ended for want of memory has often used up its time as well.
_BY_FLAG = (
    (Flag.MEMORY, Status.MEMORY),
    (Flag.OUTPUT, Status.OUTPUT),
    (Flag.CPU, Status.CPU_TIME),
    (Flag.REAL, Status.REAL_TIME),
    (Flag.SECURITY, Status.SECURITY),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case or check, before it is decided who may read what.

    said: lines for the student; of a hidden case only the teacher reads them.
    shown: labelled texts, likewise. notes: labelled texts for the teacher only.
    """

    name: str
    status: Status
    earned: int
    points: int
    hidden: bool = False
    hint: str = ""
    measured: tuple[ProcessReport | RunReport, ...] = ()
    said: tuple[str, ...] = ()
    shown: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    notes: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    @property
    def case(self) -> CaseVerdict:
        """Return it without texts; what was measured is that of the slowest and of the largest."""
        return CaseVerdict(
            self.name,
            self.status,
            self.earned,
            self.points,
            max((one.cpu for one in self.measured), default=0.0),
            max((one.real for one in self.measured), default=0.0),
            max((one.memory for one in self.measured), default=0),
        )


def status_of(report: ProcessReport | RunReport) -> Status:
    """Return what a program's end says by itself: accepted when it met no limit and left with 0."""
    for flag, status in _BY_FLAG:
        if report.flags & flag:
            return status
    return Status.ACCEPTED if report.exit_code == 0 else Status.RUNTIME_ERROR


def ending(exit_code: int) -> str:
    """Return how a program ended, a signal by its name."""
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"ended by signal {-exit_code}"


def excerpt(text: bytes, most: int = SHOWN) -> str:
    """Return a text as it is shown: bounded, with its length when it is cut."""
    shown = text[:most].decode("utf-8", "replace")
    return shown if len(text) <= most else f"{shown}\n… ({len(text)} bytes in all)"


def complaints(text: bytes) -> bytes:
    """Return what a student's program wrote, with its files called as the student calls them."""
    return text.replace(WORK, b"")


def difference(found: Difference) -> str:
    """Return in one line where an output differs from what was expected."""
    pair = [
        None if x is None else x.decode("utf-8", "replace") for x in (found.expected, found.got)
    ]
    stripped = [None if text is None else text.rstrip("\r\n") for text in pair]
    # Else how the line ends is what differs.
    expected, got = stripped if stripped[0] != stripped[1] else pair
    both = zip(expected or "", got or "", strict=False)
    same = next((place for place, (one, other) in enumerate(both) if one != other), 0)
    left_out = same - EXCERPT // 2 if same >= EXCERPT else 0
    shown = f"expected {_quoted(expected, left_out)}, got {_quoted(got, left_out)}"
    return f"line {found.line}: {shown}"


def grade(grade_max: int, earned: int, total: int) -> int:
    """Return floor(grade_max * earned / total + 1/2), the full grade only for all points."""
    if earned >= total:
        return grade_max
    return max(0, min((2 * grade_max * earned + total) // (2 * total), grade_max - 1))


def verdict(
    lines: Sequence[Result | str],
    grade_max: int,
    *,
    status: Status | None = None,
    total: int = 0,
    notes: Iterable[tuple[str, bytes]] = (),
) -> Verdict:
    """Return what all cases together are worth, and the texts about them.

    lines: cases, and what the student is told between them. status: that of the first case that
    went wrong, unless it is given. total: points that can be earned, where that is more than those
    of the cases. notes: labelled texts of no one case, for the teacher.
    """
    results = [line for line in lines if isinstance(line, Result)]
    wrong = (one.status for one in results if one.status is not Status.ACCEPTED)
    earned, points = sum(one.earned for one in results), sum(one.points for one in results)
    log: list[str] = []
    noted: list[str] = []
    for line in lines:
        if isinstance(line, Result):
            log += _for_student(line)
            noted += _for_teacher(line)
        else:
            log += excerpt(line.encode("utf-8", "replace")).splitlines()
    noted += _labelled(notes, indent="")
    return Verdict(
        status=status or next(wrong, Status.ACCEPTED),
        grade=grade(grade_max, earned, max(points, total)),
        grade_max=grade_max,
        log=clean_text("\n".join(log)),
        cases=tuple(one.case for one in results),
        notes=clean_text("\n".join(noted), NOTES_LIMIT),
    )


def not_compiled(results: Iterable[Result], grade_max: int, why: str, notes: str = "") -> Verdict:
    """Return the verdict on files that cannot be started: no case earns anything."""
    cases = tuple(
        CaseVerdict(one.name, Status.COMPILE_ERROR, 0, one.points, 0.0, 0.0, 0) for one in results
    )
    log = clean_text(f"not compiled\n{why}")
    return Verdict(Status.COMPILE_ERROR, 0, grade_max, log, cases, clean_text(notes))


def _for_student(result: Result) -> list[str]:
    """Return the lines that the student reads about one case."""
    lines = [f"{result.name}: {result.status} ({result.earned}/{result.points})"]
    right = result.status is Status.ACCEPTED
    if not result.hidden:
        lines += _indented(result.said)
    if not right and result.hint:
        lines.append(f"  hint: {result.hint}")
    if not (result.hidden or right):
        lines += _labelled(result.shown)
    return lines


def _for_teacher(result: Result) -> list[str]:
    """Return what only the teacher reads about one case, under its name; nothing when that is all.

    A case that is hidden and went wrong is told as the student would read it were it not.
    """
    lines: list[str] = []
    if result.hidden and result.status is not Status.ACCEPTED:
        lines += [*_indented(result.said), *_labelled(result.shown)]
    lines += _labelled(result.notes)
    return [f"{result.name}: {result.status}", *lines] if lines else []


def _labelled(texts: Iterable[tuple[str, bytes]], indent: str = "  ") -> list[str]:
    lines: list[str] = []
    for label, text in texts:
        if text:
            lines.append(f"{indent}{label}:")
            lines += [f"{indent}  {line}" for line in excerpt(text.rstrip(b"\r\n")).splitlines()]
    return lines


def _indented(said: Iterable[str]) -> list[str]:
    """Return what is said, so that no line of it can pass itself off as one of ours."""
    texts = (excerpt(text.encode("utf-8", "replace")) for text in said)
    return [f"  {line}" for text in texts for line in text.splitlines()]


def _quoted(text: str | None, left_out: int) -> str:
    """Return a text as it stands in a line, without so many characters at its beginning."""
    if text is None:
        return "nothing more"
    cut = text[left_out : left_out + EXCERPT]
    shown = f"{'…' if left_out else ''}{cut}{'…' if len(text) > left_out + EXCERPT else ''}"
    return repr(shown) if shown else "an empty line"
