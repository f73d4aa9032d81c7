"""What a teacher's program tells us beside its exit status: a line of JSON each."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from commserver.core.verdicts import Status

HEARD_MOST = 100  # different grades that are told before it is only that there were many


@dataclass(frozen=True, slots=True)
class Check:
    """What one check of a script is worth.

    message: for the student, of a visible check. note: for the teacher.
    runs: how many runs were asked for until it ended.
    """

    name: str
    points: int
    earned: int
    status: Status
    hidden: bool = False
    hint: str = ""
    message: str = ""
    note: str = ""
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Say:
    """A line for the student."""

    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """All that one program told.

    lines: checks and what is said to the student, in order.
    points: of the case, with exit 7. eof: it met the end of what the student's program says.
    heard: grades that an output of a learner's run spells; `many` when there were too many.
    fault: why the program broke, "" when it did not; `details` for the teacher only.
    done: it came to its end. grader: it uses our module.
    unread: how many lines say nothing that we know.
    """

    lines: tuple[Check | Say, ...] = ()
    points: float | None = None
    eof: bool = False
    heard: frozenset[int] = frozenset()
    many: bool = False
    fault: str = ""
    details: str = field(default="", repr=False)
    done: bool = False
    grader: bool = False
    unread: int = 0

    @property
    def checks(self) -> tuple[Check, ...]:
        """Return the checks alone."""
        return tuple(line for line in self.lines if isinstance(line, Check))

    @property
    def said(self) -> tuple[str, ...]:
        """Return what is said to the student, alone."""
        return tuple(line.text for line in self.lines if isinstance(line, Say))


class _Line(msgspec.Struct):
    """Any line: what is absent was not told."""

    check: str | None = None
    points: float | None = None
    earned: int = 0
    status: Status | None = None
    hidden: bool = False
    hint: str = ""
    message: str = ""
    note: str = ""
    runs: int = 0
    say: str | None = None
    eof: bool = False
    heard: int | None = None
    heard_many: bool = False
    fault: str | None = None
    details: str = ""
    done: bool = False
    grader: bool = False


_DECODER = msgspec.json.Decoder(_Line)


def read_told(content: bytes) -> Told:
    """Return what the lines tell; one that tells nothing we know is counted and left out."""
    told: dict[str, Any] = {}
    lines: list[Check | Say] = []
    heard: set[int] = set()
    unread = 0
    for text in content.splitlines():
        try:
            line = _DECODER.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            unread += 1
            continue
        if line.check is not None and line.status is not None:
            lines.append(_check(line))
        elif line.say is not None:
            lines.append(Say(line.say))
        elif line.points is not None:
            told["points"] = line.points
        elif line.heard is not None:
            heard.add(line.heard)
        elif line.fault is not None and "fault" not in told:
            told |= {"fault": line.fault or "it broke", "details": line.details}
        elif line.fault is None:
            flags = {"eof": line.eof, "many": line.heard_many}
            flags |= {"done": line.done, "grader": line.grader}
            told |= {name: True for name, value in flags.items() if value}
            unread += not any(flags.values())
    many = told.pop("many", False) or len(heard) > HEARD_MOST
    return Told(tuple(lines), heard=frozenset(heard), many=many, unread=unread, **told)


def _check(line: _Line) -> Check:
    assert line.check is not None
    assert line.status is not None
    points = int(line.points or 0)
    return Check(
        line.check,
        points,
        line.earned,
        line.status,
        line.hidden,
        line.hint,
        line.message,
        line.note,
        line.runs,
    )
