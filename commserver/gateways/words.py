"""The words that our own protocols share (page `commserver`, its table of errors). Sans-I/O."""

from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from commserver.core.jobs import AttemptId
from commserver.core.text import clean_text
from commserver.core.verdicts import Cause, Failure, Fault
from commserver.errors import NotFound

EXERCICE: Final = "EXERCICE"  # so on the wire, also where the seed's table says EXERCISE
CONTAINER: Final = "CONTAINER"
OTHER: Final = "OTHER"

Target = Literal["EXERCICE", "CONTAINER", "OTHER"]

LARGEST = 2**63 - 1  # what both databases can hold
LONGEST = len(str(LARGEST))
ID_SHOWN = 40  # characters of an id that is none

_TARGETS: dict[str, Target] = {"attempt": EXERCICE, "container": CONTAINER}

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


class Ending(NamedTuple):
    """Why a run could not be graded, in the fields of an ERROR."""

    code: str
    target: Target
    target_id: str
    fault: Fault
    message: str


def ending(failure: Failure, attempt: AttemptId | None) -> Ending:
    """Return what is said of a run that could not be graded."""
    code, target = _ENDINGS[failure.cause]
    ids: dict[Target, str] = {EXERCICE: word(attempt), CONTAINER: failure.container, OTHER: ""}
    return Ending(code, target, ids[target], failure.fault, shown(failure))


def shown(failure: Failure) -> str:
    """Return what of a failure is for everybody's eyes: one line, never its details."""
    first, _, _ = failure.message.partition("\n")
    return _SHOWN.get(failure.cause, first)


def target_of(kind: str) -> Target:
    """Return what an error about this `kind` of thing is about."""
    return _TARGETS.get(kind, OTHER)


def attempt_id(text: str | int) -> AttemptId:
    """Return the number in what a peer calls an attempt.

    Raises:
        NotFound: no attempt can have this id.
    """
    found = number(text)
    if found is None:
        raise NotFound("attempt", clean_text(str(text).strip()[:ID_SHOWN]))
    return AttemptId(found)


def number(text: str | int) -> int | None:
    """Return a whole number from 0 that both databases can hold, None for anything else."""
    digits = str(text).strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > LONGEST:
        return None
    found = int(digits)
    return found if found <= LARGEST else None


def word(attempt: AttemptId | None) -> str:
    """Return an attempt's id as it is sent, "" for none."""
    return "" if attempt is None else str(attempt)


def moment(at: datetime | None) -> str:
    """Return a moment in ISO 8601, UTC, to the millisecond; "" for none."""
    if at is None:
        return ""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
