"""What a sandbox is asked to run, what it measured, and what that is worth to a student.

Inside commserver times are seconds (float) and sizes are bytes (int); milliseconds and kibibytes
live only on the wires that have them (protocol page `invoker`).
"""

from dataclasses import dataclass, field
from enum import IntFlag, StrEnum

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process tree may use before it is ended.

    cpu: seconds of user and system time, all descendants together.
    real: seconds from its start to its end.
    memory: bytes of anonymous and shared memory of the whole tree, and of the files it wrote.
    output: bytes through each of standard output and standard error.
    processes: processes and threads alive at once.
    """

    cpu: float = 1.0
    real: float = 5.0
    memory: int = 64 * MIB
    output: int = 1 * MIB
    processes: int = 32


@dataclass(frozen=True, slots=True)
class File:
    """A file of the request: `path` is relative, POSIX, without `.`, `..` or empty parts."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Process:
    """One program to start in a work directory of its own that holds the named `files`.

    argv: executed as it stands, no shell.
    files: paths out of the request's files and the compilation's artifacts.
    stdin: all it can read on standard input, then end of file.
    artifacts: paths that are kept from its work directory, regular files only, for later ones.
    """

    name: str
    argv: tuple[str, ...]
    limits: Limits
    files: tuple[str, ...] = ()
    stdin: bytes = field(default=b"", repr=False)
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """All that one container is asked to do: perhaps compile, then run independent cases.

    image: name of one of our images, such as "python".
    compile: runs first; when it fails (flags, exit code, missing artifact) no case is started.
    cases: independent of one another: each is run whatever became of those before it.
    """

    image: str
    files: tuple[File, ...]
    cases: tuple[Process, ...]
    compile: Process | None = None

    @property
    def processes(self) -> tuple[Process, ...]:
        """Every process that may be started, in order."""
        return (self.compile, *self.cases) if self.compile else self.cases

    @property
    def memory(self) -> int:
        """The largest memory limit in it, bytes."""
        return max(process.limits.memory for process in self.processes)

    @property
    def real(self) -> float:
        """The sum of its real-time limits: it cannot take longer in the sandbox, seconds."""
        return sum(process.limits.real for process in self.processes)


class Flag(IntFlag):
    """Which limit a process met; the values are the invoker protocol's."""

    CPU = 1
    MEMORY = 2
    REAL = 4
    SECURITY = 8
    OUTPUT = 16


NO_FLAG = Flag(0)


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What became of one process.

    exit_code: its exit status, or minus the signal that ended it.
    cpu, real: seconds, descendants included. memory: largest use seen, bytes.
    stdout, stderr: at most the output limit of each.
    missing: artifacts that were asked for and are not there as regular files of bounded size.
    """

    name: str
    exit_code: int
    cpu: float
    real: float
    memory: int
    flags: Flag = NO_FLAG
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)
    missing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True when it met no limit, left with 0 and left all that was asked of it."""
        return not self.flags and self.exit_code == 0 and not self.missing


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """What became of a request; `cases` is empty when the compilation failed.

    The last four say where it was measured, so that a verdict can be reproduced.
    """

    compile: ProcessReport | None
    cases: tuple[ProcessReport, ...]
    image: str = ""  # digest, "sha256:…"
    container: str = ""
    isolation: str = ""
    runner: str = ""


class Status(StrEnum):
    """What a student is told their work is; the spellings are the browser protocol's."""

    ACCEPTED = "accepted"
    WRONG_ANSWER = "wrong_answer"
    PRESENTATION = "presentation"
    CPU_TIME = "cpu_time"
    REAL_TIME = "real_time"
    MEMORY = "memory"
    OUTPUT = "output"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    SECURITY = "security"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """What one case is worth: `earned` of `points`."""

    name: str
    status: Status
    earned: int
    points: int
    cpu: float
    real: float
    memory: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run is worth: `grade` of `grade_max`, and the text that its student reads."""

    status: Status
    grade: int
    grade_max: int
    log: str = field(default="", repr=False)
    cases: tuple[CaseVerdict, ...] = ()


class Fault(StrEnum):
    """Who has to act when a run could not be graded; never the student."""

    TEACHER = "teacher"
    SYSTEM = "system"


class Cause(StrEnum):
    """Why a run could not be graded."""

    NOT_FOUND = "not_found"
    """The attempt has no files or its exercise has no grader."""
    EXERCISE = "exercise"
    """The exercise's definition or grader is wrong."""
    IMAGE = "image"
    """There is no image for the language."""
    CONTAINER = "container"
    """A container could not be created or started, or went away."""
    FULL = "full"
    """The queue is at its limit."""
    INTERNAL = "internal"
    """We failed in another way."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run could not be graded, said so that whoever reads it knows whose fault it is."""

    cause: Cause
    message: str
    container: str = ""

    @property
    def fault(self) -> Fault:
        """Who has to act."""
        teachers = (Cause.NOT_FOUND, Cause.EXERCISE)
        return Fault.TEACHER if self.cause in teachers else Fault.SYSTEM

    @property
    def passing(self) -> bool:
        """True when another try may go better."""
        return self.cause in (Cause.CONTAINER, Cause.INTERNAL)


@dataclass(frozen=True, slots=True)
class Completed:
    """The student's program was run and judged; compile errors and time-outs included."""

    verdict: Verdict
    report: ExecutionReport | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """We, or the exercise, failed; never held against the student.

    `engine_died` marks a try under which the whole engine went away: the run becomes suspect.
    """

    failure: Failure
    engine_died: bool = False


Outcome = Completed | Broken


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict in short: what of it goes into packets."""

    status: Status
    grade: int
    grade_max: int
