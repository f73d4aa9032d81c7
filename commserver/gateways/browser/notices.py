"""What a browser is told, in its own protocol's words."""

from commserver.core.finals import Final
from commserver.core.jobs import Job
from commserver.core.states import State
from commserver.core.verdicts import Failure, Fault, Judged, Status
from commserver.errors import (
    MalformedPacket,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ProtocolError,
    RateLimited,
)
from commserver.gateways.browser.packets import (
    Announcement,
    Error,
    ExerciceExecuted,
    Packet,
    PlaceInQueue,
    Progress,
)
from commserver.gateways.words import OTHER, ending, moment, target_of, word
from commserver.services import announcement_service


def place(job: Job, at: int) -> Packet:
    """Return where a run stands; 0 = it has just begun."""
    return PlaceInQueue(user_exercice_id=word(job.attempt), place=str(at), run=job.id)


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
    return Progress(word(job.attempt), job.id, stage, text)


def announcement(said: announcement_service.Announcement) -> Packet:
    """Return what is said to everybody."""
    return Announcement(str(said.id), said.text, moment(said.until))


def error(problem: Exception) -> Error:
    """Return the answer to a command that was not carried out; a bug says no more than 500."""
    match problem:
        case NotAuthenticated():
            return Error("401", OTHER, "", message=str(problem))
        case NotAllowed():
            return Error("403", target_of(problem.kind), problem.id, message=str(problem))
        case NotFound():
            return Error("404", target_of(problem.kind), problem.id, message=str(problem))
        case RateLimited():
            return Error("429", OTHER, "", message=str(problem))
        case MalformedPacket() | ProtocolError():
            return Error("400", OTHER, "", message=str(problem))
        case _:
            return Error("500", OTHER, "", message="internal error", fault=Fault.SYSTEM)


def _executed(final: Final, status: Status, grade: str = "") -> ExerciceExecuted:
    seq = _seq(final)
    return ExerciceExecuted(word(final.attempt), final.run, status=status, grade=grade, seq=seq)


def _failed(final: Final, failure: Failure) -> Error:
    said = ending(failure, final.attempt)
    return Error(
        said.code,
        said.target,
        said.target_id,
        run=final.run,
        seq=_seq(final),
        message=said.message,
        fault=said.fault,
    )


def _seq(final: Final) -> str:
    return str(final.seq) if final.seq else ""
