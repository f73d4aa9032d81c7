"""What can be said on the backend link."""

from typing import Literal

import msgspec

from commserver.errors import MalformedPacket
from commserver.gateways.words import Target, number

ID_KEPT = 64  # characters of an id: one that is longer without its blanks is no attempt's
SHOWN = 200  # characters of what a backend said wrong that are told
UNKNOWN = "-1"  # in place of an account


class Packet(msgspec.Struct, frozen=True, tag_field="cmd"):
    """One JSON object; unknown fields are ignored."""


class Handshake(Packet, tag="HANDSHAKE", frozen=True):
    """Say who we are; a backend may echo it when the token is right."""

    token: str = msgspec.field(name="TOKEN", default="")

    def __repr__(self) -> str:
        return "Handshake(token=***)"


# -- received -------------------------------------------------------------------------------------


class Ok(Packet, tag="OK", frozen=True):
    """The handshake was right (a backend may say so)."""


class Error(Packet, tag="ERROR", frozen=True):
    """The handshake was wrong (a backend may say so)."""

    message: object = ""  # whatever its type, it is a refusal


class Exercise(Packet, tag="EXERCISE", frozen=True):
    """Run this attempt: `id` is `user_exercises.id`, as a string or as an integer."""

    id: str | int
    ack: bool | Literal["true", "false"] = False

    @property
    def answered(self) -> bool:
        """True when the backend wants to hear what becomes of it."""
        return self.ack in (True, "true")

    @property
    def kept(self) -> "Exercise":
        """The same in few bytes, for as long as it waits."""
        id = str(self.id)
        return Exercise(id if len(id) <= ID_KEPT else id.strip()[:ID_KEPT], self.answered)


class Ack(Packet, tag="ACK", frozen=True):
    """The finals up to this one were seen."""

    seq: str | int

    @property
    def number(self) -> int:
        """The `seq` as a number, from 0.

        Raises:
            MalformedPacket: it is none.
        """
        return _number(self.seq, "ACK", "seq")


class AuthenticatedClient(Packet, tag="AUTHENTICATED_CLIENT", frozen=True):
    """Whose the token is that we asked about."""

    authentication_id: str | int
    client_id: str | int

    @property
    def question(self) -> str:
        """Which of our questions this answers."""
        return str(self.authentication_id).strip()

    @property
    def account(self) -> int | None:
        """The account, None when the backend does not know the token.

        Raises:
            MalformedPacket: it is no number.
        """
        if str(self.client_id).strip() == UNKNOWN:
            return None
        return _number(self.client_id, "AUTHENTICATED_CLIENT", "client_id")


# -- sent -----------------------------------------------------------------------------------------


class Accepted(Packet, tag="ACCEPTED", frozen=True):
    """A run stands for the EXERCISE; `place` is "0" when it does not wait."""

    id: str
    run: str
    place: str


class Executed(Packet, tag="EXECUTED", frozen=True):
    """A run has ended. `grade` is "" for one that was cancelled or superseded."""

    id: str
    run: str
    seq: str
    status: str
    grade: str


class RunError(Packet, tag="ERROR", frozen=True):
    """A run could not be graded or, without `run` and `seq`, there is none."""

    id: str
    run: str
    seq: str
    error_code: str
    target: Target
    fault: str
    message: str


class AuthenticateClient(Packet, tag="AUTHENTICATE_CLIENT", frozen=True):
    """Ask whose a user's token is."""

    authentication_id: str
    token: str = msgspec.field(name="TOKEN")

    def __repr__(self) -> str:
        return f"AuthenticateClient(authentication_id={self.authentication_id!r}, token=***)"


Received = Handshake | Ok | Error | Exercise | Ack | AuthenticatedClient
Sent = Handshake | Accepted | Executed | RunError | AuthenticateClient

_DECODER = msgspec.json.Decoder(Received)
_ENCODER = msgspec.json.Encoder()


class _Named(msgspec.Struct):
    cmd: str


_NAME = msgspec.json.Decoder(_Named)


def decode(frame: bytes) -> Received:
    """Return the packet in `frame`. Of a field that is there twice the last counts.

    Raises:
        MalformedPacket: no JSON object, no `cmd` that we know, or a field of the wrong type; its
            `field` is the `cmd`, "" where there is none.
    """
    try:
        packet: Received = _DECODER.decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedPacket(str(error)[:SHOWN], _command(frame)) from error
    return packet


def encode(packet: Sent) -> bytes:
    """Return `packet` as one frame."""
    return _ENCODER.encode(packet)


def _command(frame: bytes) -> str:
    """Return the `cmd` of what is no packet of ours, "" when it has none."""
    try:
        return _NAME.decode(frame).cmd[:SHOWN]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _number(value: str | int, command: str, field: str) -> int:
    found = number(value)
    if found is None:
        raise MalformedPacket(f"{field} is no number", command)
    return found
