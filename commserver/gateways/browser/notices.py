"""What a browser is told, in its own protocol's words."""

from datetime import UTC, datetime

from commserver.core.execution import Cause, Failure, Fault, Judged, Status
from commserver.core.finals import Final
from commserver.core.jobs import AttemptId, Job
from commserver.core.states import State
from commserver.errors import (
    MalformedPacket,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ProtocolError,
    RateLimited,
)
from commserver.gateways.browser.packets import (
    CONTAINER,
    EXERCICE,
    OTHER,
    Announcement,
    Error,
    ExerciceExecuted,
    Packet,
    PlaceInQueue,
    Progress,
    Target,
)
from commserver.services import announcement_service

_ENDINGS: dict[Cause, tuple[str, Target]] = {
    Cause.NOT_FOUND: ("404", EXERCICE),
    Cause.EXERCISE: ("500", EXERCICE),
    Cause.IMAGE: ("404", CONTAINER),
    Cause.CONTAINER: ("500", CONTAINER),
    Cause.FULL: ("429", EXERCICE),
    Cause.INTERNAL: ("500", OTHER),
}

# Of these the details are for those who run the server: they are in the log and in the row.
_SHOWN = {
    Cause.CONTAINER: "the container that ran it failed",
    Cause.INTERNAL: "internal error",
}

_TARGETS: dict[str, Target] = {"attempt": EXERCICE, "container": CONTAINER}


def place(job: Job, at: int) -> Packet:
    """Return where a run stands; 0 = it has just begun."""
    return PlaceInQueue(user_exercice_id=_attempt(job.attempt), place=str(at), run=job.id)


def final(final: Final) -> Packet | None:
    """Return the packet that ends a run for its student, None when it is not for students."""
    match final.state, final.ending:
        case State.DONE, Judged(status=status, grade=grade):
            return _executed(final, status, str(grade))
        case State.FAILED, Failure():
            return _failed(final, final.ending)
        case State.CANCELLED, _:
            return _executed(final, Status.CANCELLED)
        case _:
            return None


def progress(job: Job, stage: str, text: str) -> Packet:
    """Return how far a run is."""
    return Progress(_attempt(job.attempt), job.id, stage, text)


def announcement(said: announcement_service.Announcement) -> Packet:
    """Return what is said to everybody."""
    return Announcement(str(said.id), said.text, _moment(said.until))


def error(problem: Exception) -> Error:
    """Return the answer to a command that was not carried out; a bug says no more than 500."""
    match problem:
        case NotAuthenticated():
            return Error("401", OTHER, "", message=str(problem))
        case NotAllowed():
            return Error("403", _TARGETS.get(problem.kind, OTHER), problem.id, message=str(problem))
        case NotFound():
            target = _TARGETS.get(problem.kind, OTHER)
            return Error("404", target, problem.id, message=str(problem))
        case RateLimited():
            return Error("429", OTHER, "", message=str(problem))
        case MalformedPacket() | ProtocolError():
            return Error("400", OTHER, "", message=str(problem))
        case _:
            return Error("500", OTHER, "", message="internal error", fault=Fault.SYSTEM)


def _executed(final: Final, status: Status, grade: str = "") -> ExerciceExecuted:
    seq = _seq(final)
    return ExerciceExecuted(_attempt(final.attempt), final.run, status=status, grade=grade, seq=seq)


def _failed(final: Final, failure: Failure) -> Error:
    code, target = _ENDINGS[failure.cause]
    attempt = _attempt(final.attempt)
    ids: dict[Target, str] = {EXERCICE: attempt, CONTAINER: failure.container, OTHER: ""}
    return Error(
        code,
        target,
        ids[target],
        run=final.run,
        seq=_seq(final),
        message=_SHOWN.get(failure.cause, failure.message),
        fault=failure.fault,
    )


def _attempt(attempt: AttemptId | None) -> str:
    return "" if attempt is None else str(attempt)


def _seq(final: Final) -> str:
    return str(final.seq) if final.seq else ""


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z" if at else ""
