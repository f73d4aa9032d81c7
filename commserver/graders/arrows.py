"""The pipes of a pipeline as a teacher writes them: `"judge.1 -> player.0"`."""

import re
from dataclasses import dataclass

from commserver.core.execution import TELL_FD
from commserver.core.paths import is_safe

CASE = "case"
CASE_DATA = ("input", "expected")
MAX_FD = 255
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_ARROW = re.compile(r"\s*(\S.*?)\s*->\s*(\S.*?)\s*")
_DESCRIPTOR = re.compile(rf"({NAME.pattern})\.(\d{{1,3}})")
_IN_FOLDER = re.compile(rf"({NAME.pattern})/(.+)")
_DATA = re.compile(rf"{CASE}\.({'|'.join(CASE_DATA)})")


@dataclass(frozen=True, slots=True)
class ProgramFd:
    """`judge.1`: a descriptor of a program."""

    program: str
    fd: int


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """`player/result.txt`: a file in a program's folder, read when it has ended, or put there."""

    program: str
    path: str


@dataclass(frozen=True, slots=True)
class CaseData:
    """`case.input`, `case.expected`."""

    which: str


@dataclass(frozen=True, slots=True)
class Kept:
    """`output`: what is kept under a name for later stages."""

    name: str


End = ProgramFd | ProgramFile | CaseData | Kept


@dataclass(frozen=True, slots=True)
class Arrow:
    """From where bytes go to where."""

    source: End
    target: End


def parse_arrow(text: str) -> Arrow:
    """Return what the arrow says.

    Raises:
        ValueError: it says nothing; with what is wrong.
    """
    match = _ARROW.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not written "from -> to"')
    arrow = Arrow(_end(match[1]), _end(match[2]))
    match arrow:
        case Arrow(_, CaseData()):
            raise ValueError(f"nothing can be written to {match[2]}")
        case Arrow(ProgramFile(), ProgramFd() | ProgramFile()):
            raise ValueError("what a program leaves in its folder is kept under a name first")
        case Arrow(ProgramFd(), ProgramFile()):
            raise ValueError("what a program writes is kept under a name first")
        case Arrow(CaseData() | Kept(), Kept()):
            raise ValueError(f"{match[1]} is known to later stages as it is")
    return arrow


def _end(text: str) -> End:
    if match := _DATA.fullmatch(text):
        return CaseData(match[1])
    if match := _DESCRIPTOR.fullmatch(text):
        if int(match[2]) > MAX_FD:
            raise ValueError(f"{text}: there is no descriptor above {MAX_FD}")
        return ProgramFd(match[1], int(match[2]))
    if match := _IN_FOLDER.fullmatch(text):
        if not is_safe(match[2]):
            raise ValueError(f"a file cannot be called {match[2]!r}")
        return ProgramFile(match[1], match[2])
    if NAME.fullmatch(text) and text != CASE:
        return Kept(text)
    raise ValueError(
        f"{text!r} is neither a program's descriptor (judge.1) or file (judge/a.txt), nor case."
        f"{' or case.'.join(CASE_DATA)}, nor a name"
    )


def stage_problems(
    at: str,
    arrows: list[Arrow],
    programs: list[str],
    learners: set[str],
    kept: set[str],
) -> list[str]:
    """Return what is wrong with the arrows of one stage, and add to `kept` what they keep.

    programs: those that run in it. kept: the names that earlier stages leave.
    """
    problems: list[str] = []
    taken: set[End] = set()
    new: set[str] = set()
    for number, arrow in enumerate(arrows, 1):
        here = f"{at}.pipes[{number}]"
        for end in (arrow.source, arrow.target):
            match end:
                case ProgramFd(program) | ProgramFile(program):
                    if program not in programs:
                        problems.append(f"{here}: {program!r} does not run in this stage")
            match end:
                case ProgramFd(program, fd) if fd == TELL_FD and program not in learners:
                    problems.append(f"{here}: {program}.{fd} is where it tells us its points")
                case ProgramFd() | ProgramFile() if end in taken:
                    problems.append(f"{here}: one of its ends has a pipe already")
            taken.add(end)
        match arrow.source:
            case Kept(name) if name not in kept:
                problems.append(f"{here}: no earlier stage keeps anything called {name!r}")
        match arrow:
            case Arrow(CaseData("expected"), ProgramFd(program) | ProgramFile(program)):
                if program in learners:
                    problems.append(f"{here}: students' programs never see what is expected")
            case Arrow(_, Kept(name)):
                if name in kept or name in new:
                    problems.append(f"{here}: {name!r} is kept already")
                new.add(name)
    kept |= new
    return problems
