"""What a run is worth to a student, or why it could not be graded, and whose fault that is."""

from dataclasses import dataclass, field
from enum import StrEnum

from commserver.core.execution import ExecutionReport


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
    """What a run is worth: `grade` of `grade_max`, and the text that its student reads.

    notes: what only its teacher may read: what programs of the teacher's wrote, hidden cases.
    rerun: it was so close to a time limit that it was run twice, and this is the better end.
    """

    status: Status
    grade: int
    grade_max: int
    log: str = field(default="", repr=False)
    cases: tuple[CaseVerdict, ...] = ()
    notes: str = field(default="", repr=False)
    rerun: bool = False


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
    """Why a run could not be graded, said so that whoever reads it knows whose fault it is.

    message: one line that the student may read. details: for the teacher only, any number of lines.
    """

    cause: Cause
    message: str
    container: str = ""
    details: str = field(default="", repr=False)

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
