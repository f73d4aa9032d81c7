"""The student's files: whether they can be started, how they are compiled, and their verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from commserver.core.execution import (
    Artifact,
    Descriptor,
    ExecutionReport,
    File,
    Pipe,
    Placement,
    Process,
    Stage,
    WorkFile,
)
from commserver.core.paths import is_safe
from commserver.core.verdicts import Status
from commserver.errors import DefinitionError
from commserver.graders.content import Content
from commserver.graders.languages import COMPILE_LIMITS, LANGUAGES, Language, language_of
from commserver.graders.materials import brought, placed
from commserver.graders.patterns import folders
from commserver.graders.showing import excerpt, status_of

FOLDER = "submission"  # first part of the names of the student's files in a request
GIVEN_FOLDER = "given"  # … and of those that are placed beside them
COMPILE = "compile"
PROGRAM = "compiled"  # the artifact that a compilation leaves


class Unusable(Exception):
    """The files cannot be started; with why, in a student's words. Never leaves this package."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The student's files with those given beside them, fit to be started.

    main: the file that is run, "" where the exercise does not say which.
    own: the student's, without those that a given one replaces.
    """

    language: Language
    main: str
    own: dict[str, bytes] = field(repr=False)
    given: dict[str, bytes] = field(repr=False)

    @property
    def files(self) -> tuple[File, ...]:
        """Return what a request brings of them."""
        return (*brought(FOLDER, self.own), *brought(GIVEN_FOLDER, self.given))

    @property
    def sources(self) -> tuple[Placement, ...]:
        """Return what lies in a folder with the student's files."""
        return (*placed(FOLDER, self.own), *placed(GIVEN_FOLDER, self.given))

    @property
    def started(self) -> tuple[Placement, ...]:
        """Return what lies in the folder in which the program runs."""
        if not self.language.compile:
            return self.sources
        return (Placement(PROGRAM, self.language.program),)

    @property
    def argv(self) -> tuple[str, ...]:
        """Return what starts it.

        Raises:
            DefinitionError: the exercise does not say which file is run.
        """
        if not self.main:
            names = ", ".join(self.own)
            raise DefinitionError([f"submission.files: says not which of {names} is run"])
        return self.language.start(self.main)

    @property
    def prepare(self) -> tuple[Stage, ...]:
        """Return the stage that compiles it; none for interpreted languages."""
        if not self.language.compile:
            return ()
        names = sorted([*self.own, *self.given])
        sources = [_argument(name) for name in names if name.endswith(self.language.sources)]
        argv = (*self.language.compile, *sources, *self.language.link)
        compiler = Process(COMPILE, argv, COMPILE_LIMITS, self.sources)
        pipes = (
            Pipe(Descriptor(COMPILE, 1), Artifact("compile.log")),
            Pipe(Descriptor(COMPILE, 2), Artifact("compile.errors")),
            Pipe(WorkFile(COMPILE, self.language.program), Artifact(PROGRAM, returned=False)),
        )
        return (Stage(COMPILE, (compiler,), pipes),)


def chosen(content: Content, languages: Sequence[str]) -> Language:
    """Return the language of the files that were handed in, one of those of the exercise.

    Raises:
        DefinitionError: it is the course's language that does not go with the exercise.
        Unusable: the files are in none of several languages, or in more than one.
    """
    if len(languages) == 1:
        if content.language != languages[0]:
            raise DefinitionError(
                [f"language: the course is in {content.language}, not in {languages[0]}"]
            )
        return LANGUAGES[languages[0]]
    found = {language_of(name) for name, _ in content.files} & set(languages)
    if len(found) == 1:
        return LANGUAGES[found.pop()]
    raise Unusable(f"hand in a program in one of {', '.join(languages)}")


def submission(
    content: Content,
    language: Language,
    wanted: Sequence[str] = (),
    given: Mapping[str, bytes] = {},
) -> Submission:
    """Return the files that were handed in, as they can be started.

    wanted: the names that the exercise asks for, the first is run. given: by path.

    Raises:
        Unusable: they cannot be started.
    """
    names = [name for name, _ in content.files]
    inside = {folder for name in [*names, *given] for folder in folders(name)}
    for name in names:
        reserved = language.program in (name, *folders(name))
        if not is_safe(name) or name in inside or (reserved and language.program):
            raise Unusable(f"a file cannot be called {name!r}")
        if any(folder in given for folder in folders(name)):
            raise Unusable(f"a file cannot be called {name!r}")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise Unusable(f"{', '.join(missing)} is missing; you handed in {', '.join(names)}")
    own = {name: _packed(text) for name, text in content.files if name not in given}
    if language.compile and not any(name.endswith(language.sources) for name in [*own, *given]):
        raise Unusable(f"there is no {' or '.join(language.sources)} file")
    main = _main(names, wanted, language)
    return Submission(language, main, own, dict(given))


def compile_failure(report: ExecutionReport) -> str:
    """Return why the student's files did not compile, "" when they did, or need not."""
    if not report.prepare or report.prepare[0].name != COMPILE or report.prepare[0].ok:
        return ""
    stage = report.prepare[0]
    status = status_of(stage.process(COMPILE))
    if status not in (Status.ACCEPTED, Status.RUNTIME_ERROR):
        return f"the compiler was stopped: {status}"
    said = stage.content("compile.errors") or stage.content("compile.log")
    return excerpt(said) or "the compiler left no program"


def _main(names: Sequence[str], wanted: Sequence[str], language: Language) -> str:
    if wanted:
        return wanted[0]
    if len(names) == 1:
        return names[0]
    return language.main if language.main in names else ""


def _argument(name: str) -> str:
    """Return a file as a compiler is told of it: as it is called, since that is what it repeats.

    Unless it would take that for options, or for a name without a suffix.
    """
    return f"./{name}" if name.startswith(("@", ".")) else name


def _packed(text: str) -> bytes:
    """Return a file as the sandbox gets it: platforms keep what a browser's text box sent."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace")
