"""What a sandbox is asked to run, and what it measured: one model for all protocols.

A request is a pipeline (protocol page `invoker`, "Pipeline"): stages of processes that run at once,
joined by pipes. Ours has it twice over: `prepare` is run once, such as compilations, then each case
is a pipeline of its own, whatever became of the others.

Inside commserver times are seconds (float) and sizes are bytes (int); milliseconds and kibibytes
live only on the wires that have them.
"""

from dataclasses import dataclass, field
from enum import IntFlag, StrEnum

KIB = 1024
MIB = 1024 * KIB

CONTROL_FD = 3  # of a process with `may_run`: a socket on which it asks for runs
TELL_FD = 4  # of a teacher's program: what it has to tell, a line of JSON each
RESULT_FD = 3  # of a run that was asked for: what it answers beside its output
INPUT_FD = 4  # of a run that was asked for: what it is told beside its standard input


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process and all that it starts may use before they are ended.

    cpu: seconds of user and system time, all descendants together.
    real: seconds from its start to its end.
    memory: bytes of anonymous and shared memory of the whole tree, and of the files it wrote.
    output: bytes through each descriptor that leads to an artifact.
    file_size: bytes of any one file that it writes, and of one that is taken from its directory.
    processes: processes and threads alive at once.
    """

    cpu: float = 1.0
    real: float = 5.0
    memory: int = 64 * MIB
    output: int = 1 * MIB
    file_size: int = 32 * MIB
    processes: int = 32


@dataclass(frozen=True, slots=True)
class File:
    """Bytes that the request brings, under a name that no other file or artifact has."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Placement:
    """The file or artifact `name`, put at `path` in the work directory of one process.

    path: relative, POSIX, without `.`, `..` or empty parts.
    """

    name: str
    path: str


class Role(StrEnum):
    """Whose program it is."""

    LEARNER = "learner"
    GRADER = "grader"
    """The teacher's; learners' programs never run in its namespaces, nor under its uid."""


@dataclass(frozen=True, slots=True)
class Process:
    """One program to start in a work directory and namespaces of its own.

    name: unique in its stage. argv: executed as it stands, no shell.
    files: what lies in its work directory.
    environment: variables beside the sandbox's own.
    may_run: what it can ask to be run, by name, over the socket on `CONTROL_FD`; not started with
    the stage, each run in a work directory and namespaces of its own.
    """

    name: str
    argv: tuple[str, ...]
    limits: Limits
    files: tuple[Placement, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    role: Role = Role.LEARNER
    may_run: tuple["Process", ...] = ()

    @property
    def memory(self) -> int:
        """Bytes that it and one run that it asks for may use together."""
        return self.limits.memory + max((p.limits.memory for p in self.may_run), default=0)


@dataclass(frozen=True, slots=True)
class Resource:
    """An end that is read: a file of the request, or an artifact of an earlier stage."""

    name: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An end that is read or written: a descriptor of a process of this stage."""

    process: str
    fd: int


@dataclass(frozen=True, slots=True)
class WorkFile:
    """An end that is read: what a process of this stage leaves in its work directory."""

    process: str
    path: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """An end that is written: what later stages and the report know by this name.

    returned: the report has its bytes; otherwise only its size.
    """

    name: str
    returned: bool = True


@dataclass(frozen=True, slots=True)
class Pipe:
    """Where bytes come from and where they go.

    Resource → descriptor · descriptor → artifact · descriptor → descriptor · resource → artifact ·
    work file → artifact. Each descriptor has one pipe at most; 0, 1 and 2 without one are
    /dev/null.
    """

    read: Resource | Descriptor | WorkFile
    write: Descriptor | Artifact


class Stop(StrEnum):
    """After which end of a stage its pipeline ends."""

    ON_FAILURE = "on_failure"
    """When one of its processes was not `ok`."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Stage:
    """Processes that run at once; it ends when all of them have."""

    name: str
    processes: tuple[Process, ...]
    pipes: tuple[Pipe, ...] = ()
    stop: Stop = Stop.ON_FAILURE

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Return what it leaves, in the order of its pipes."""
        return tuple(pipe.write for pipe in self.pipes if isinstance(pipe.write, Artifact))

    @property
    def real(self) -> float:
        """Return how long it may take, seconds."""
        return max((process.limits.real for process in self.processes), default=0.0)

    @property
    def memory(self) -> int:
        """Return what its processes may use together, bytes."""
        return sum(process.memory for process in self.processes)


@dataclass(frozen=True, slots=True)
class Case:
    """One pipeline that is judged by itself. Its artifacts are known to its own stages only."""

    name: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """All that one container is asked to do.

    image: name of one of our images, such as "python".
    prepare: run first; when one of its processes is not `ok` or one of its work files is missing,
    no later stage and no case is started.
    cases: independent of one another; `prepare`'s artifacts are known to all of them.
    """

    image: str
    files: tuple[File, ...]
    cases: tuple[Case, ...]
    prepare: tuple[Stage, ...] = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return every stage that may be run, in order."""
        return (*self.prepare, *(stage for case in self.cases for stage in case.stages))

    @property
    def memory(self) -> int:
        """Return the most that its processes may use at once, bytes."""
        return max((stage.memory for stage in self.stages), default=0)

    @property
    def real(self) -> float:
        """Return the sum of its real-time limits: it cannot take longer in the sandbox, seconds."""
        return sum(stage.real for stage in self.stages)


class Flag(IntFlag):
    """Which limit a process met; the values are the invoker protocol's."""

    CPU = 1
    MEMORY = 2
    REAL = 4
    SECURITY = 8
    OUTPUT = 16


NO_FLAG = Flag(0)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What became of a run that a process asked for; units as `ProcessReport`."""

    name: str
    exit_code: int
    cpu: float
    real: float
    memory: int
    flags: Flag = NO_FLAG
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What became of one process.

    exit_code: its exit status, or minus the signal that ended it; 126 not executable, 127 not
    found.
    cpu, real: seconds, descendants included. memory: largest use seen, bytes.
    stopped: we ended it, at a limit; otherwise it ended by itself, flags or not.
    ended: seconds from the start of its stage to its end: who was first.
    runs: what it asked for, in order.
    """

    name: str
    exit_code: int
    cpu: float
    real: float
    memory: int
    flags: Flag = NO_FLAG
    stopped: bool = False
    ended: float = 0.0
    runs: tuple[RunReport, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether it met no limit and left with 0."""
        return not self.flags and self.exit_code == 0


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """What came of one artifact.

    size: bytes, at most the limit of whoever wrote it.
    content: None unless it was to be returned.
    missing: a work file that is not there as a regular file of bounded size.
    """

    name: str
    size: int
    content: bytes | None = field(default=None, repr=False)
    missing: bool = False


@dataclass(frozen=True, slots=True)
class StageReport:
    """What became of a stage; processes and artifacts in the order of the request."""

    name: str
    processes: tuple[ProcessReport, ...]
    artifacts: tuple[ArtifactReport, ...] = ()

    @property
    def ok(self) -> bool:
        """Return whether every process was `ok` and no work file is missing."""
        return all(p.ok for p in self.processes) and not any(a.missing for a in self.artifacts)

    def process(self, name: str) -> ProcessReport:
        """Return the report of the process of this name.

        Raises:
            KeyError: there is none.
        """
        for process in self.processes:
            if process.name == name:
                return process
        raise KeyError(name)

    def content(self, name: str) -> bytes:
        """Return what came of a returned artifact, b"" when it is missing or not returned."""
        return next((a.content or b"" for a in self.artifacts if a.name == name), b"")


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What became of a case: its stages as far as it went."""

    name: str
    stages: tuple[StageReport, ...]


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """What became of a request; `cases` is empty when `prepare` failed.

    The last four say where it was measured, so that a verdict can be reproduced.
    """

    prepare: tuple[StageReport, ...]
    cases: tuple[CaseReport, ...]
    image: str = ""  # digest, "sha256:…"
    container: str = ""
    isolation: str = ""
    runner: str = ""

    @property
    def prepared(self) -> bool:
        """Return whether every stage of `prepare` went well, so that the cases were run."""
        return all(stage.ok for stage in self.prepare)
