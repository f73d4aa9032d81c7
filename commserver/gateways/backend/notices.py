"""What a backend is told of a run's end and of errors; the rest of them is logged."""

import structlog

from commserver.core.finals import Final
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Fault, Judged, Status
from commserver.errors import MalformedPacket, NotFound, UnexpectedPacket
from commserver.gateways.backend.link import Turn
from commserver.gateways.backend.packets import (
    Executed,
    RunError,
    Sent,
)
from commserver.gateways.words import EXERCICE, OTHER, Target, ending, word

log = structlog.get_logger(__name__)

MESSAGE = 300  # characters: KryoNet takes no frame above 2,048 bytes unless it is told to


def final(final: Final) -> Executed | RunError:
    """Return the packet that ends a run for the backend that asked for it."""
    match final.state, final.ending:
        case State.DONE, Judged(status=status, grade=grade):
            return _executed(final, status, str(grade))
        case State.CANCELLED, _:
            return _executed(final, Status.CANCELLED)
        case State.SUPERSEDED, _:
            return _executed(final, State.SUPERSEDED)
        case _, Failure():
            return _failed(final, final.ending)
        case _:  # its details were erased
            return _failed(final, Failure(Cause.INTERNAL, ""))


def refuse(error: Exception, turn: Turn) -> Sent | None:
    """Return what is said of an EXERCISE that started nothing, if its sender wants to know.

    What a peer can cause at will is logged once per kind and link.
    """
    match error:
        case NotFound():
            log.warning("unknown_attempt", id=error.id)
            return _unstarted(turn, "404", EXERCICE, "", f"no attempt {error.id}")
        case MalformedPacket():
            command = f"{error.field!r}: " if error.field else ""
            turn.link.ignored(error.field, f"{command}{error}")
        case UnexpectedPacket():
            turn.link.ignored(error.state, str(error))
        case _:
            log.error("exercise_failed", error=repr(error))
            return _unstarted(turn, "500", OTHER, Fault.SYSTEM, "internal error")
    return None


def _executed(final: Final, status: str, grade: str = "") -> Executed:
    return Executed(word(final.attempt), final.run, str(final.seq), str(status), grade)


def _failed(final: Final, failure: Failure) -> RunError:
    said = ending(failure, final.attempt)
    return RunError(
        word(final.attempt),
        final.run,
        str(final.seq),
        said.code,
        said.target,
        said.fault,
        said.message[:MESSAGE],
    )


def _unstarted(turn: Turn, code: str, target: Target, fault: str, message: str) -> RunError | None:
    if turn.asked is None:
        return None
    return RunError(turn.asked, "", "", code, target, fault, message)
