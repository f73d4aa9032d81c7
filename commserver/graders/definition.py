"""An exercise as its teacher wrote it (`exercise.toml`, kind `tests`), checked strictly."""

import difflib
import math
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

import msgspec

from commserver.core.execution import KIB, MIB, Limits, Status
from commserver.core.paths import is_safe
from commserver.errors import DefinitionError
from commserver.graders.checkers import CHECKERS
from commserver.graders.languages import LANGUAGES

DEFAULT_LIMITS = Limits()
MAXIMA = Limits(cpu=60.0, real=300.0, memory=1024 * MIB, output=16 * MIB, processes=256)
REAL_FACTOR = 3  # a real-time limit that is not given: so many times the cpu limit, plus …
REAL_EXTRA = 2.0  # … so many seconds
TITLE_MOST = 250  # characters, of a course or an exercise; the platform's tables hold no more
NAME_MOST = 75  # characters, of a student's file; likewise
NUMBER_MOST = 2**31 - 1  # of grade_max and of a case's points; likewise

_IS_DEFINITION = re.compile(r"format\s*=\s*\d+\s*(#.*)?$")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_SECONDS = {"s": 1.0, "ms": 0.001, "min": 60.0}
_BYTES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": 1024 * MIB}


class LimitTexts(msgspec.Struct, frozen=True):
    """Limits as they are written: with units, absent = the default."""

    cpu: str | None = None
    real: str | None = None
    memory: str | None = None
    output: str | None = None
    processes: int | None = None


class Case(msgspec.Struct, frozen=True):
    """One input with what must come out of it.

    hidden: the student sees name, verdict and hint; never input or output.
    """

    name: str
    expected: str
    input: str = ""
    points: int = 1
    hidden: bool = False
    hint: str = ""


class Submission(msgspec.Struct, frozen=True):
    """Which files the student hands in; the first is run."""

    files: tuple[str, ...] = ()


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one of the teacher's own solutions must get."""

    verdict: Status
    grade: int | None = None


class Definition(msgspec.Struct, frozen=True):
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
    solutions: dict[str, Status | Expected] = {}

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
        for name in LimitTexts.__struct_fields__:
            most = getattr(MAXIMA, name)
            if getattr(limits, name) > most:
                shown = f"{most // MIB} MiB" if name in ("memory", "output") else f"{most:g}"
                problems.append(f"limits.{name}: more than this site's {shown}")
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
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DefinitionError([f"not TOML: {error}"]) from error
    problems = _shape_problems(table, Definition, "", text)
    try:
        definition = msgspec.convert(table, Definition)  # does not mind unknown keys
    except msgspec.ValidationError as error:
        raise DefinitionError(problems or [str(error)]) from error
    problems += [
        *_text_problems(definition),
        *_known("language", definition.language, LANGUAGES),
        *_known("checker", definition.checker, CHECKERS),
        *_file_problems(definition),
        *_case_problems(definition.cases),
    ]
    if not 1 <= definition.grade_max <= NUMBER_MOST:
        problems.append(f"grade_max: must be from 1 to {NUMBER_MOST}")
    try:
        definition.resolved_limits()
    except DefinitionError as error:
        problems += error.problems
    if problems:
        raise DefinitionError(problems)
    return definition


def _shape_problems(value: object, kind: Any, at: str, text: str) -> list[str]:
    """Return all that keeps `value` from being a `kind`; msgspec by itself stops at the first."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict):
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        under = f"{at}." if at else ""
        unknown = [key for key in value if key not in fields]
        problems = [f"{under}{key}: {_unknown(key, fields, text)}" for key in unknown]
        for name, field in fields.items():
            if name in value:
                problems += _shape_problems(value[name], field.type, f"{under}{name}", text)
            elif field.required:
                problems.append(f"{under}{name}: is missing")
        return problems
    items: list[tuple[str, object]] = []
    if get_origin(kind) is tuple and isinstance(value, list):
        items = [(f"{at}[{number}]", item) for number, item in enumerate(value, 1)]
    elif get_origin(kind) is dict and isinstance(value, dict):
        items = [(f"{at}.{key}", item) for key, item in value.items()]
    if items:
        inner = get_args(kind)[0 if get_origin(kind) is tuple else 1]
        return [problem for at, item in items for problem in _shape_problems(item, inner, at, text)]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return [f"{at}: {error}"]
    return []


def _unknown(key: str, known: Collection[str], text: str) -> str:
    """Return what to say of a key that is not known; its line is told where there is no doubt."""
    near = difflib.get_close_matches(key, known, 1)
    said = re.compile(rf"""(^|[{{,.\[])\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    numbers = [number for number, line in enumerate(text.splitlines(), 1) if said.search(line)]
    where = f" (line {numbers[0]})" if len(numbers) == 1 else ""
    return f"no such key{where}" + (f": {near[0]}?" if near else "")


def _text_problems(definition: Definition) -> list[str]:
    texts = {key: getattr(definition, key) for key in ("key", "course", "title")}
    return [
        *(f"{key}: must not be empty" for key, text in texts.items() if not text.strip()),
        *(
            f"{key}: must not be longer than {TITLE_MOST} characters"
            for key, text in texts.items()
            if len(text) > TITLE_MOST
        ),
    ]


def _file_problems(definition: Definition) -> list[str]:
    """Return what is wrong with the names that students must use."""
    language = LANGUAGES.get(definition.language)
    names = definition.submission.files
    return [
        f"submission.files: a file cannot be called {name!r}"
        for name in names
        if not is_safe(name) or len(name) > NAME_MOST or (language and name == language.program)
    ]


def _known(key: str, value: str, table: Mapping[str, object]) -> list[str]:
    return [] if value in table else [f"{key}: {value!r} is none of {', '.join(table)}"]


def _case_problems(cases: tuple[Case, ...]) -> list[str]:
    if not cases:
        return ["cases: there must be one at least"]
    problems = [
        f"cases: {case.name!r}: points must be from 0 to {NUMBER_MOST}"
        for case in cases
        if not 0 <= case.points <= NUMBER_MOST
    ]
    if sum(case.points for case in cases) < 1:
        problems.append("cases: all together are worth no points")
    names = Counter(case.name for case in cases)
    problems += [f"cases: {name!r} is there twice" for name, times in names.items() if times > 1]
    return problems


def _quantity(
    key: str, text: str | None, units: dict[str, float] | dict[str, int], problems: list[str]
) -> float | None:
    if text is None:
        return None
    least = min(units, key=lambda unit: units[unit])
    match = _QUANTITY.fullmatch(text.strip())
    value = float(match[1]) * units.get(match[2], 0) if match else 0.0
    if not units[least] <= value < math.inf:
        wanted = f"a quantity of 1 {least} or more, in one of {', '.join(units)}"
        problems.append(f"{key}: {text!r} is not {wanted}")
        return None
    return value
