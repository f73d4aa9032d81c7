"""What can be said over HTTP, and how JSON is read. Every value of ours is a string."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from commserver.errors import MalformedPacket
from commserver.gateways.words import Target

T = TypeVar("T", bound="Packet")

TEXT_LIMIT = 2000  # characters of an announcement


class Packet(msgspec.Struct, frozen=True):
    """One JSON object; unknown fields are ignored unless it says otherwise."""


class Submission(Packet, frozen=True):
    """Run this attempt: `id` is `user_exercises.id`, as a string or as an integer."""

    id: str | int


class Accepted(Packet, frozen=True):
    """The attempt is taken; `place` 1 runs next, 0 waits no more."""

    run: str
    place: str


class Run(Packet, frozen=True):
    """A run as it is now; what is not known or does not apply is "".

    `id` is the attempt. `status` and the grades are there once it was judged, `error_code` to
    `message` where it could not be. Moments are ISO 8601 in UTC.
    """

    id: str
    run: str
    state: Literal["queued", "leased", "running", "done", "failed", "cancelled", "superseded"]
    place: str
    status: str
    grade: str
    grade_max: str
    error_code: str
    target: Target | Literal[""]
    target_id: str
    fault: Literal["", "teacher", "system"]
    message: str
    created_at: str
    started_at: str
    ended_at: str


class Runs(Packet, frozen=True):
    """The runs of an attempt, the newest first."""

    id: str
    runs: list[Run]


class Problem(Packet, frozen=True):
    """Why a request was not carried out; `error_code` is the status of the answer."""

    error_code: str
    target: Target
    target_id: str
    message: str
    fault: Literal["", "teacher", "system"] = ""


class Health(Packet, frozen=True):
    """How the server is: "ok"."""

    status: str


class Announce(Packet, frozen=True, forbid_unknown_fields=True):
    """Say this to all students until a moment with its time zone; null = until withdrawn."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMIT)]
    until: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Announced(Packet, frozen=True):
    """What is said to all students now; all "" when it is nothing."""

    id: str
    text: str
    until: str


class AuditRow(Packet, frozen=True):
    """One thing that an admin did."""

    id: str
    at: str
    who: str
    action: str
    target: str
    detail: str


class AuditRows(Packet, frozen=True):
    """What admins did, the newest first."""

    entries: list[AuditRow]


class Told(Packet, frozen=True, tag_field="cmd"):
    """What a webhook is sent."""


class Executed(Told, tag="EXECUTED", frozen=True):
    """A run ended with a verdict, was cancelled, or gave its place to a newer one (superseded)."""

    id: str
    run: str
    seq: str
    status: str
    grade: str
    grade_max: str


class RunError(Told, tag="ERROR", frozen=True):
    """A run could not be graded."""

    id: str
    run: str
    seq: str
    error_code: str
    target: Target
    target_id: str
    fault: str
    message: str


_ENCODER = msgspec.json.Encoder()


def decode(body: bytes, kind: type[T]) -> T:
    """Return the packet in `body`.

    Raises:
        MalformedPacket: no JSON object of this kind, or one with the same key twice.
    """
    try:
        # Twice: only this reader sees double keys, only the other one knows what must be there.
        json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_int=str,
            parse_constant=_constant,
        )
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors too
        raise MalformedPacket(f"the body is not what was expected: {error}"[:400]) from error


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"the key {key[:40]!a} is there twice")
        seen.add(key)


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def encode(packet: msgspec.Struct | object) -> bytes:
    """Return `packet` as JSON."""
    return _ENCODER.encode(packet)
