"""An exercise as its teacher wrote it (`exercise.toml`), checked strictly."""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from commserver.core.execution import Limits
from commserver.core.paths import is_safe
from commserver.core.verdicts import Status
from commserver.errors import DefinitionError
from commserver.graders import limits as limit_texts
from commserver.graders.arrows import CASE, NAME, Arrow, parse_arrow, stage_problems
from commserver.graders.checkers import CHECKERS
from commserver.graders.languages import LANGUAGES, language_of
from commserver.graders.limits import LimitTexts
from commserver.graders.patterns import folders, matching
from commserver.graders.reading import nearest, read

TITLE_MOST = 250  # characters, of a course or an exercise; the platform's tables hold no more
NAME_MOST = 75  # characters, of a student's file; likewise
NUMBER_MOST = 2**31 - 1  # of grade_max and of a case's points; likewise
DEFAULT_GRADE_MAX = 20
DEFAULT_CHECKER = "tokens"
GIVEN = "given/"  # the folder of what is placed beside the student's files
SUBMISSION = "submission"  # a pipeline's program that is the student's; a script's folder of them
RESERVED = ("case", "submission", "program")  # what we put beside the files of the exercise
FOR_PEOPLE = ("solutions/", "starter/", GIVEN)  # folders that no teacher's program needs

_IS_DEFINITION = re.compile(r"format\s*=\s*\d+\s*(#.*)?$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IMAGE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KINDS_OF = {  # keys that not every kind has
    "cases": ("tests", "pipeline"),
    "checker": ("tests",),
    "script": ("script",),
    "programs": ("pipeline",),
    "stages": ("pipeline",),
    "pipeline": ("pipeline",),
}


class Case(msgspec.Struct, frozen=True):
    """One input with what must come out of it, or a pattern of files that hold several.

    files: pattern of `.in` files, each with its `.out`; the points are shared among them.
    hidden: the student sees name, verdict and hint; never input or output.
    """

    name: str
    expected: str | None = None
    input: str = ""
    files: str = ""
    points: int = 1
    hidden: bool = False
    hint: str = ""


class Submission(msgspec.Struct, frozen=True):
    """Which files the student hands in; the first is run."""

    files: tuple[str, ...] = ()


class CheckerTable(msgspec.Struct, frozen=True):
    """A checker with a parameter: exactly one of the two."""

    tolerance: float | None = msgspec.field(default=None, name="float")
    program: str | None = None


class Stage(msgspec.Struct, frozen=True):
    """Programs of a pipeline that run together; `verdict` is the one whose exit decides."""

    name: str
    run: tuple[str, ...]
    pipes: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def arrows(self) -> tuple[Arrow, ...]:
        """Return its pipes, read; of a stage that `parse` let through."""
        return tuple(parse_arrow(pipe) for pipe in self.pipes)


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one of the teacher's own solutions must get."""

    verdict: Status
    grade: int | None = None


class FileRef(msgspec.Struct, frozen=True):
    """A file that is no short text: its bytes, or where they are; exactly one of the two.

    sha256: its name in the file store. size: bytes.
    """

    base64: str | None = None
    sha256: str | None = None
    size: int = 0


class Definition(msgspec.Struct, frozen=True):
    """A whole exercise; `parse` makes sure that it holds together.

    language: the first of `languages`; either key may be the one that was written.
    files: what the exercise uses, by path in its folder; `commserver exercise import` writes it.
    """

    format: Literal[1]
    key: str
    course: str
    title: str
    kind: Literal["tests", "script", "pipeline"]
    cases: tuple[Case, ...] = ()
    language: str = ""
    languages: tuple[str, ...] = ()
    grade_max: int = DEFAULT_GRADE_MAX
    checker: str | CheckerTable = DEFAULT_CHECKER
    script: str = ""
    programs: dict[str, str] = {}
    stages: tuple[Stage, ...] = ()
    pipeline: str = ""
    submission: Submission = Submission()
    limits: LimitTexts = LimitTexts()
    image: str = ""
    solutions: dict[str, Status | Expected] = {}
    files: dict[str, str | FileRef] = {}

    def limits_of(self, language: str) -> Limits:
        """Return the limits of one case, or of one call, in this language; seconds and bytes."""
        return limit_texts.resolve(self.limits, language)

    @property
    def total(self) -> float:
        """Return how long a whole correction by a script may take, seconds."""
        return limit_texts.total(self.limits)

    @property
    def checker_program(self) -> str:
        """Return the file of the teacher's own checker, "" when it is one of ours."""
        return self.checker.program or "" if isinstance(self.checker, CheckerTable) else ""


def is_definition(grader: str) -> bool:
    """Return whether a `scripts` row is an exercise definition and not a correction script.

    It is when its first non-blank line is `format = N` (authoring page).
    """
    first = next((line.strip() for line in grader.splitlines() if line.strip()), "")
    return _IS_DEFINITION.fullmatch(first) is not None


@lru_cache(maxsize=128)
def parse(text: str) -> Definition:
    """Return the exercise that `text` defines; equal texts are read once.

    Files that it refers to need not be there yet: see `missing`.

    Raises:
        DefinitionError: with every problem that was found.
    """
    definition, problems = read(text, Definition)
    names = definition.languages or ((definition.language,) if definition.language else ())
    problems += [
        *_kind_problems(definition),
        *_text_problems(definition),
        *_language_problems(definition, names),
        *_checker_problems(definition.checker),
        *_submission_problems(definition, names),
        *_case_problems(definition),
        *_stage_problems(definition),
        *_file_problems(definition),
    ]
    if not 1 <= definition.grade_max <= NUMBER_MOST:
        problems.append(f"grade_max: must be from 1 to {NUMBER_MOST}")
    problems += limit_texts.problems(definition.limits, names, script=definition.kind == "script")
    if problems:
        raise DefinitionError(problems)
    return msgspec.structs.replace(definition, language=names[0], languages=names)


def missing(definition: Definition) -> list[str]:
    """Return a problem for each file that grading needs and that is not in `[files]`.

    The solutions are no part of it.
    """
    references = {"script": definition.script, "pipeline": definition.pipeline}
    references["checker.program"] = definition.checker_program
    references |= {
        f"programs.{name}": path for name, path in definition.programs.items() if path != SUBMISSION
    }
    problems = [
        f"{key}: there is no file {path!r}{nearest(path, definition.files)}"
        for key, path in references.items()
        if path and path not in definition.files
    ]
    for number, case in enumerate(definition.cases, 1):
        if case.files:
            inputs = matching(case.files, definition.files)
            if not inputs:
                problems.append(f"cases[{number}].files: no file is called like {case.files!r}")
            problems += [
                f"cases[{number}].files: there is no file {out!r}"
                for out in map(output_of, inputs)
                if definition.kind == "tests" and out not in definition.files
            ]
    return problems


def output_of(path: str) -> str:
    """Return the file with what must come out of an input file."""
    return f"{path.removesuffix('.in')}.out"


class Shown(NamedTuple):
    """A key with the value that counts, as TOML; `default`: nobody wrote it, it is the site's."""

    key: str
    value: str
    default: bool


def shown(definition: Definition) -> tuple[Shown, ...]:
    """Return what counts for an exercise where a teacher may leave it to the site."""
    full = definition.grade_max
    lines = [Shown("grade_max", str(full), full == DEFAULT_GRADE_MAX)]
    checker = definition.checker
    if definition.kind == "tests":
        lines.append(Shown("checker", _spelled_checker(checker), checker == DEFAULT_CHECKER))
    if definition.kind == "script":
        total = limit_texts.spelled("total", definition.total)
        lines.append(Shown("limits.total", total, definition.limits.total is None))
    texts = definition.limits
    for language in definition.languages:
        resolved, own = definition.limits_of(language), getattr(texts, language, None)
        for name in limit_texts.NAMES:
            said = getattr(own, name, None) is not None or getattr(texts, name) is not None
            at = f"limits.{name}" if len(definition.languages) == 1 else f"limits.{language}.{name}"
            lines.append(Shown(at, limit_texts.spelled(name, getattr(resolved, name)), not said))
    return tuple(lines)


def _spelled_checker(checker: str | CheckerTable) -> str:
    if isinstance(checker, str):
        return f'"{checker}"'
    if checker.program:
        return f'{{ program = "{checker.program}" }}'
    return f"{{ float = {checker.tolerance:g} }}"


def _kind_problems(definition: Definition) -> Iterator[str]:
    """Yield what does not go with the kind of exercise."""
    kind = definition.kind
    for key, kinds in _KINDS_OF.items():
        if kind not in kinds and getattr(definition, key) not in ("", (), {}, DEFAULT_CHECKER):
            yield f"{key}: is for exercises of kind {' or '.join(kinds)}"
    if kind == "script" and not definition.script:
        yield "script: is missing"
    if kind == "pipeline" and definition.pipeline and definition.stages:
        yield "pipeline: has its stages in the file; say no others"
    if kind == "pipeline" and not definition.pipeline and not definition.stages:
        yield "stages: is missing"
    if definition.script and language_of(definition.script) != "python":
        yield f"script: {definition.script!r} is not called like a Python program (.py)"


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


def _language_problems(definition: Definition, names: tuple[str, ...]) -> Iterator[str]:
    if definition.language and definition.languages:
        yield "language: say language or languages, not both"
    if not names:
        yield "language: is missing"
    key = "languages" if definition.languages else "language"
    for name in names:
        yield from _known(key, name, LANGUAGES)
    for name, times in Counter(names).items():
        if times > 1:
            yield f"languages: {name!r} is there twice"
    if definition.image and not _IMAGE.fullmatch(definition.image):
        yield f"image: {definition.image!r} is no name of a folder under images/"


def _checker_problems(checker: str | CheckerTable) -> Iterator[str]:
    if isinstance(checker, str):
        yield from _known("checker", checker, CHECKERS)
        return
    if (checker.tolerance is None) == (checker.program is None):
        yield "checker: say either float or program"
    if checker.tolerance is not None and not (0 < checker.tolerance < 1):
        yield "checker.float: must be above 0 and below 1"
    if checker.program is not None:
        yield from _program_problems("checker.program", checker.program)


def _program_problems(key: str, path: str) -> Iterator[str]:
    if not is_safe(path) or not language_of(path):
        wanted = ", ".join(suffix for x in LANGUAGES.values() for suffix in x.sources)
        yield f"{key}: {path!r} is no program of a language we know ({wanted})"


def _submission_problems(definition: Definition, languages: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the names that students must use."""
    compiled = {LANGUAGES[name].program for name in languages if name in LANGUAGES} - {""}
    return [
        f"submission.files: a file cannot be called {name!r}"
        for name in definition.submission.files
        if not is_safe(name) or len(name) > NAME_MOST or name in compiled
    ]


def _known(key: str, value: str, table: Mapping[str, object]) -> list[str]:
    if value in table:
        return []
    return [f"{key}: {value!r} is none of {', '.join(table)}{nearest(value, table)}"]


def _case_problems(definition: Definition) -> list[str]:
    cases = definition.cases
    if definition.kind == "script" or (definition.pipeline and not cases):
        return []
    if not cases:
        return ["cases: there must be one at least"]
    problems: list[str] = []
    for number, case in enumerate(cases, 1):
        if not case.name.strip():
            problems.append(f"cases[{number}].name: must not be empty")
        if case.files and (case.input or case.expected is not None):
            problems.append(f"cases[{number}]: say either files or input and expected")
        if case.files and not case.files.endswith(".in"):
            problems.append(f"cases[{number}].files: must end in .in")
        if not case.files and case.expected is None and definition.kind == "tests":
            problems.append(f"cases[{number}].expected: is missing")
    problems += [
        f"cases: {case.name!r}: points must be from 0 to {NUMBER_MOST}"
        for case in cases
        if not 0 <= case.points <= NUMBER_MOST
    ]
    if sum(case.points for case in cases) < 1:
        problems.append("cases: all together are worth no points")
    names = Counter(case.name for case in cases)
    problems += [f"cases: {name!r} is there twice" for name, times in names.items() if times > 1]
    return problems


def _stage_problems(definition: Definition) -> list[str]:
    """Return what is wrong with the programs and stages of a pipeline."""
    programs = definition.programs
    problems: list[str] = []
    for name, path in programs.items():
        if not NAME.fullmatch(name) or name == CASE:
            problems.append(f"programs: a program cannot be called {name!r}")
        if path != SUBMISSION and not definition.pipeline:
            problems += _program_problems(f"programs.{name}", path)
    learners = {name for name, path in programs.items() if path == SUBMISSION}
    if definition.kind == "pipeline" and not learners:
        problems.append(f'programs: none is the "{SUBMISSION}"')
    kept: set[str] = set()
    names = Counter(stage.name for stage in definition.stages)
    problems += [f"stages: {name!r} is there twice" for name, times in names.items() if times > 1]
    for number, stage in enumerate(definition.stages, 1):
        at = f"stages[{number}]"
        if not stage.run:
            problems.append(f"{at}.run: must name one program at least")
        for name, times in Counter(stage.run).items():
            problems += _known(f"{at}.run", name, programs)
            if times > 1:
                problems.append(f"{at}.run: {name!r} is there twice")
        if stage.verdict and (stage.verdict not in stage.run or stage.verdict in learners):
            problems.append(f"{at}.verdict: {stage.verdict!r} is no program of the teacher's here")
        arrows: list[Arrow] = []
        for place, pipe in enumerate(stage.pipes, 1):
            try:
                arrows.append(parse_arrow(pipe))
            except ValueError as error:
                problems.append(f"{at}.pipes[{place}]: {error}")
        problems += stage_problems(at, arrows, list(stage.run), learners, kept)
    if definition.stages and not any(stage.verdict for stage in definition.stages):
        problems.append("stages: none has a verdict")
    return problems


def _file_problems(definition: Definition) -> Iterator[str]:
    """Yield what is wrong with the files that the exercise brings along."""
    inside = {folder for path in definition.files for folder in folders(path)}
    for path, file in definition.files.items():
        if not is_safe(path) or path in inside:
            yield f"files: a file cannot be called {path!r}"
        if path.removeprefix(GIVEN).split("/")[0] in RESERVED:
            yield f"files: {path!r} begins with a name that grading needs: {', '.join(RESERVED)}"
        if isinstance(file, FileRef):
            if (file.base64 is None) == (file.sha256 is None):
                yield f"files.{path}: say either base64 or sha256"
            elif file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
                yield f"files.{path}.sha256: must be 64 digits, 0-9 and a-f"
            elif file.base64 is not None and _decoded(file.base64) is None:
                yield f"files.{path}.base64: is not base64"
            if file.size < 0:
                yield f"files.{path}.size: must not be negative"


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def content_of(file: str | FileRef, bulk: Mapping[str, bytes]) -> bytes | None:
    """Return what is in a file of `[files]`; None when it is kept elsewhere and not in `bulk`."""
    if isinstance(file, str):
        return file.encode("utf-8", "replace")
    if file.base64 is not None:
        return _decoded(file.base64)
    return bulk.get(file.sha256 or "")
