"""An exercise as its teacher wrote it (`exercise.toml`, kind `tests`), checked strictly."""

import re
import tomllib
from functools import lru_cache
from typing import Literal

import msgspec

from commserver.core.execution import KIB, MIB, Limits
from commserver.errors import DefinitionError
from commserver.graders.checkers import CHECKERS
from commserver.graders.languages import LANGUAGES

DEFAULT_LIMITS = Limits()
MAXIMA = Limits(cpu=60.0, real=300.0, memory=1024 * MIB, output=16 * MIB, processes=256)
REAL_FACTOR = 3  # a real-time limit that is not given: so many times the cpu limit, plus …
REAL_EXTRA = 2.0  # … so many seconds

_IS_DEFINITION = re.compile(r"format\s*=\s*\d+\s*(#.*)?$")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_SECONDS = {"s": 1.0, "ms": 0.001, "min": 60.0}
_BYTES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}


class LimitTexts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits as they are written: with units, absent = the default."""

    cpu: str | None = None
    real: str | None = None
    memory: str | None = None
    output: str | None = None
    processes: int | None = None


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input with what must come out of it.

    hidden: the student sees name, verdict and hint; never input or output.
    """

    name: str
    expected: str
    input: str = ""
    points: int = 1
    hidden: bool = False
    hint: str = ""


class Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which files the student hands in; the first is run."""

    files: tuple[str, ...] = ()


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one of the teacher's own solutions must get."""

    verdict: str
    grade: int | None = None


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole exercise of kind `tests`; `parse` makes sure that it holds together."""

    format: Literal[1]
    key: str
    course: str
    title: str
    kind: Literal["tests"]
    cases: tuple[Case, ...]
    language: str
    grade_max: int = 20
    checker: str = "tokens"
    submission: Submission = Submission()
    limits: LimitTexts = LimitTexts()
    solutions: dict[str, str | Expected] = {}

    def resolved_limits(self) -> Limits:
        """Return the limits of one case, in seconds and bytes.

        Raises:
            DefinitionError: one cannot be read, or is out of bounds.
        """
        problems: list[str] = []
        given = self.limits
        cpu = _quantity("limits.cpu", given.cpu, _SECONDS, problems) or DEFAULT_LIMITS.cpu
        real = _quantity("limits.real", given.real, _SECONDS, problems)
        memory = _quantity("limits.memory", given.memory, _BYTES, problems)
        output = _quantity("limits.output", given.output, _BYTES, problems)
        limits = Limits(
            cpu=cpu,
            real=real or cpu * REAL_FACTOR + REAL_EXTRA,
            memory=int(memory or DEFAULT_LIMITS.memory),
            output=int(output or DEFAULT_LIMITS.output),
            processes=given.processes or DEFAULT_LIMITS.processes,
        )
        for name in ("cpu", "real", "memory", "output", "processes"):
            most = getattr(MAXIMA, name)
            if getattr(limits, name) > most:
                problems.append(f"limits.{name}: more than this site's {most:g}")
        if given.processes is not None and given.processes < 1:
            problems.append("limits.processes: must be 1 or more")
        if problems:
            raise DefinitionError(problems)
        return limits


def is_definition(grader: str) -> bool:
    """Return whether a `scripts` row is an exercise definition and not a correction script.

    It is when its first non-blank line is `format = N` (authoring page).
    """
    first = next((line.strip() for line in grader.splitlines() if line.strip()), "")
    return _IS_DEFINITION.fullmatch(first) is not None


@lru_cache(maxsize=512)
def parse(text: str) -> Definition:
    """Return the exercise that `text` defines; equal texts are read once.

    Raises:
        DefinitionError: with every problem that was found.
    """
    try:
        definition = msgspec.convert(tomllib.loads(text), Definition)
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError([f"not TOML: {error}"]) from error
    except msgspec.ValidationError as error:
        raise DefinitionError([str(error)]) from error
    problems = [
        *(
            f"{key}: must not be empty"
            for key in ("key", "course", "title")
            if not getattr(definition, key)
        ),
        *_known("language", definition.language, LANGUAGES),
        *_known("checker", definition.checker, CHECKERS),
        *_case_problems(definition.cases),
    ]
    if definition.grade_max < 1:
        problems.append("grade_max: must be 1 or more")
    try:
        definition.resolved_limits()
    except DefinitionError as error:
        problems += error.problems
    if problems:
        raise DefinitionError(problems)
    return definition


def _known(key: str, value: str, table: dict[str, object] | object) -> list[str]:
    assert isinstance(table, dict)
    return [] if value in table else [f"{key}: {value!r} is none of {', '.join(table)}"]


def _case_problems(cases: tuple[Case, ...]) -> list[str]:
    if not cases:
        return ["cases: there must be one at least"]
    problems = [
        f"cases: {case.name!r}: points must be 0 or more" for case in cases if case.points < 0
    ]
    if sum(case.points for case in cases) < 1:
        problems.append("cases: all together are worth no points")
    names = [case.name for case in cases]
    problems += [
        f"cases: {name!r} is there twice" for name in {n for n in names if names.count(n) > 1}
    ]
    return problems


def _quantity(
    key: str, text: str | None, units: dict[str, float] | dict[str, int], problems: list[str]
) -> float | None:
    if text is None:
        return None
    match = _QUANTITY.fullmatch(text.strip())
    value = float(match[1]) * units.get(match[2], 0) if match else 0.0
    if value <= 0:
        problems.append(f"{key}: {text!r} is no quantity above 0 with one of {', '.join(units)}")
    return value or None
