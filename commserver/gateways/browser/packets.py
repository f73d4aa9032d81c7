"""What can be said on the browser link. Keys and spellings are the wire's; all values strings."""

from typing import Annotated, Literal

import msgspec

from commserver.errors import MalformedPacket
from commserver.gateways.words import Target

Switch = Literal["0", "1"]


class Packet(msgspec.Struct, frozen=True, tag_field="cmd"):
    """One JSON object; unknown fields are ignored."""


class Auth(Packet, tag="AUTH", frozen=True):
    """Say who is behind this socket."""

    token: str = msgspec.field(name="TOKEN")

    def __repr__(self) -> str:
        return "Auth(token=***)"


class Ack(Packet, tag="ACK", frozen=True):
    """Say that the finals up to this number were seen."""

    seq: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}$")]


class Status(Packet, tag="STATUS", frozen=True):
    """Ask how it stands with an attempt."""

    id: str


class Cancel(Packet, tag="CANCEL", frozen=True):
    """End every run of an attempt that has not ended."""

    id: str


class ProgressSwitch(Packet, tag="PROGRESS", frozen=True):
    """Ask for the progress of one's own runs, or for no more of it."""

    on: Switch


class AnnouncementsSwitch(Packet, tag="ANNOUNCEMENTS", frozen=True):
    """Ask for what is said to everybody, or for no more of it."""

    on: Switch


class Ok(Packet, tag="OK", frozen=True):
    """The command was understood and carried out."""


class PlaceInQueue(Packet, tag="PLACE_IN_QUEUE", frozen=True):
    """Tell a user where an attempt of theirs stands; "1" runs next, "0" runs now."""

    user_exercice_id: str
    place: str
    run: str = ""
    total: str = ""
    eta_low: str = ""
    eta_high: str = ""
    reason: str = ""


class ExerciceExecuted(Packet, tag="EXERCICE_EXECUTED", frozen=True):
    """Tell a user that an attempt of theirs was graded."""

    id: str
    run: str = ""
    status: str = ""
    grade: str = ""
    seq: str = ""


class Error(Packet, tag="ERROR", frozen=True):
    """Answer a command that was not carried out, or end a run that could not be graded."""

    error_code: str
    target: Target
    target_id: str
    run: str = ""
    seq: str = ""
    message: str = ""
    fault: str = ""


class Progress(Packet, tag="PROGRESS", frozen=True):
    """Tell a user how far a run of theirs is; may be left out."""

    user_exercice_id: str
    run: str
    stage: str
    text: str


class Announcement(Packet, tag="ANNOUNCEMENT", frozen=True):
    """Tell what is said to everybody; `text` is "" when it was withdrawn.

    until: ISO 8601 in UTC, "" for no end.
    """

    id: str
    text: str
    until: str


Received = Auth | Ack | Status | Cancel | ProgressSwitch | AnnouncementsSwitch
Sent = Ok | PlaceInQueue | ExerciceExecuted | Error | Progress | Announcement

_DECODER = msgspec.json.Decoder(Received)
_ENCODER = msgspec.json.Encoder()


def decode(frame: bytes) -> Received:
    """Return the packet in `frame`.

    Raises:
        MalformedPacket: no JSON object, no `cmd` that we know, or a field of the wrong type.
    """
    try:
        packet: Received = _DECODER.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedPacket(str(error)) from error
    return packet


def encode(packet: Packet) -> bytes:
    """Return `packet` as one frame."""
    return _ENCODER.encode(packet)
