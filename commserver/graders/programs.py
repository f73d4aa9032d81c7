"""Programs of the teacher's: how they are compiled and started, and how they end."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from commserver.core.execution import (
    MIB,
    TELL_FD,
    Artifact,
    Descriptor,
    ExecutionReport,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    ProcessReport,
    Role,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.core.verdicts import Status
from commserver.errors import GraderError
from commserver.graders.languages import COMPILE_LIMITS, LANGUAGES, language_of
from commserver.graders.materials import TEACHER, brought, placed
from commserver.graders.showing import ending, excerpt, status_of
from commserver.graders.telling import Told, read_told

LAUNCHER = ("/usr/bin/python3", "-I", "/opt/commserver/launcher.pyc")
TEACHER_LIMITS = Limits(cpu=10.0, real=20.0, memory=128 * MIB, output=2 * MIB, processes=16)
DETAILS_LIMIT = 16_384  # bytes of what a broken program wrote


class Exit(IntEnum):
    """How a checker or judge decides; the values are testlib's."""

    RIGHT = 0
    WRONG = 1
    PRESENTATION = 2
    BROKEN = 3
    POINTS = 7


STATUS_OF = {
    Exit.RIGHT: Status.ACCEPTED,
    Exit.WRONG: Status.WRONG_ANSWER,
    Exit.PRESENTATION: Status.PRESENTATION,
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program of the teacher's: a Python file, started by our launcher, or a C file.

    kind: the launcher's word for it: checker, judge or script.
    path: in the exercise's folder. beside: what it finds in its folder, by path.
    """

    kind: str
    path: str
    beside: Mapping[str, bytes] = field(repr=False)

    @property
    def compiled(self) -> str:
        """Return the name of the artifact that its compilation leaves, "" when it needs none."""
        language = LANGUAGES[language_of(self.path)]
        return f"teacher's {self.path}" if language.compile else ""

    @property
    def files(self) -> tuple[File, ...]:
        """Return what a request brings for it."""
        return brought(TEACHER, self.beside)

    @property
    def prepare(self) -> tuple[Stage, ...]:
        """Return the stage that compiles it; none for a Python program."""
        language = LANGUAGES[language_of(self.path)]
        if not language.compile:
            return ()
        name = f"compile {self.path}"
        source = f"./{self.path}" if self.path.startswith("@") else self.path
        argv = (*language.compile, source, *language.link)
        compiler = Process(
            name, argv, COMPILE_LIMITS, placed(TEACHER, self.beside), role=Role.GRADER
        )
        pipes = (
            Pipe(Descriptor(name, 1), Artifact(f"{name}.log")),
            Pipe(Descriptor(name, 2), Artifact(f"{name}.errors")),
            Pipe(WorkFile(name, language.program), Artifact(self.compiled, returned=False)),
        )
        return (Stage(name, (compiler,), pipes),)

    def process(
        self,
        name: str,
        *arguments: str,
        files: Sequence[Placement] = (),
        limits: Limits = TEACHER_LIMITS,
        environment: tuple[tuple[str, str], ...] = (),
        may_run: tuple[Process, ...] = (),
    ) -> Process:
        """Return it as a process; `files` lie in its folder as well."""
        start: tuple[str, ...] = (*LAUNCHER, self.kind, self.path)
        placements: tuple[Placement, ...] = ()
        if self.compiled:
            start = ("./program",)
            placements = (Placement(self.compiled, "program"),)
        return Process(
            name,
            (*start, *arguments),
            limits,
            (*placements, *placed(TEACHER, self.beside), *files),
            environment,
            Role.GRADER,
            may_run,
        )


def kept_of(name: str, *, label: str = "", bound: Collection[int] = ()) -> tuple[Pipe, ...]:
    """Return the pipes that keep what a program writes: its log, errors and tells.

    label: what the artifacts' names begin with, if not with its own. bound: the descriptors that
    lead elsewhere.
    """
    ends = {1: "log", 2: "errors", TELL_FD: "told"}
    return tuple(
        Pipe(Descriptor(name, fd), Artifact(f"{label or name}.{end}"))
        for fd, end in ends.items()
        if fd not in bound
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program of the teacher's ended: what it told, and what it wrote for the teacher."""

    path: str
    report: ProcessReport
    told: Told
    log: bytes = field(repr=False)
    errors: bytes = field(repr=False)

    @property
    def mute(self) -> bool:
        """Return whether it cannot tell what it met: only our launcher's programs do."""
        return language_of(self.path) != "python"

    @property
    def broken(self) -> bool:
        """Return whether it decided nothing: by itself, by a signal, at its own limit."""
        return bool(
            self.told.fault
            or self.report.flags
            or self.report.exit_code not in (*STATUS_OF, Exit.POINTS)
        )

    @property
    def notes(self) -> tuple[tuple[str, bytes], ...]:
        """Return what it wrote, labelled, for the teacher."""
        unread = f"{self.told.unread} lines that say nothing to us" if self.told.unread else ""
        return (
            (f"{self.path} wrote", self.log),
            (f"{self.path} complained", self.errors),
            (f"{self.path} told, on descriptor {TELL_FD}", unread.encode()),
        )

    def broke(self, why: str = "") -> GraderError:
        """Return the error that says how it broke; `why`: where its end does not say it."""
        first = why or self.told.fault or self._why()
        errors, log = excerpt(self.errors, DETAILS_LIMIT), excerpt(self.log, DETAILS_LIMIT)
        told = self.told.details.strip()
        parts = ["" if told in errors else told, errors.strip(), log.strip()]
        return GraderError(
            f"the exercise's {self.path} failed: {first.splitlines()[0]}",
            "\n".join(part for part in (first, *parts) if part),
        )

    def _why(self) -> str:
        if self.report.flags:
            return f"it was stopped: {status_of(self.report)}"
        return ending(self.report.exit_code)

    def decided(self, points: int) -> tuple[Status, int]:
        """Return the status and what is earned of `points`.

        Raises:
            GraderError: it decided nothing that we understand.
        """
        if self.broken:
            raise self.broke()
        code = Exit(self.report.exit_code)
        if code is not Exit.POINTS:
            status = STATUS_OF[code]
            return status, points if status is Status.ACCEPTED else 0
        given = self.told.points if self.told.points is not None else self._spelled_points()
        if given is None or not 0 <= given <= points:
            shown = "no points" if given is None else f"{given:g} points"
            raise self.broke(f"it gave {shown}, of {points}, with exit status {code}")
        earned = int(given)
        return (Status.ACCEPTED if earned == points else Status.WRONG_ANSWER), earned

    def _spelled_points(self) -> float | None:
        """Return what testlib's `quitp` writes: `points 7` begins what it says."""
        words = self.errors.split(b"\n", 1)[0].split()
        if len(words) < 2 or words[0] != b"points":
            return None
        try:
            return float(words[1])
        except ValueError:
            return None


def ended(path: str, name: str, stage: StageReport, label: str = "") -> Ended:
    """Return how the program of this path, as the process `name`, ended; `label` as `kept_of`."""
    at = label or name
    told = read_told(stage.content(f"{at}.told"))
    log, errors = stage.content(f"{at}.log"), stage.content(f"{at}.errors")
    return Ended(path, stage.process(name), told, log, errors)


def check_compiled(report: ExecutionReport) -> None:
    """Return if every program of the teacher's compiled.

    Raises:
        GraderError: one did not.
    """
    for stage in report.prepare:
        process = stage.processes[0]
        if stage.ok or not process.name.startswith("compile "):
            continue
        said = stage.content(f"{process.name}.errors") or stage.content(f"{process.name}.log")
        path = process.name.removeprefix("compile ")
        raise GraderError(f"the exercise's {path} does not compile", excerpt(said, DETAILS_LIMIT))
