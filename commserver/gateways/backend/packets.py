"""What can be said on the backend link."""

import msgspec

from commserver.errors import MalformedPacket


class Packet(msgspec.Struct, frozen=True, tag_field="cmd"):
    """One JSON object; unknown fields are ignored."""


class Handshake(Packet, tag="HANDSHAKE", frozen=True):
    """Say who we are; a backend may echo it when the token is right."""

    token: str = msgspec.field(name="TOKEN", default="")

    def __repr__(self) -> str:
        return "Handshake(token=***)"


class Exercise(Packet, tag="EXERCISE", frozen=True):
    """Run this attempt: `id` is `user_exercises.id`, as a string or as an integer."""

    id: str | int


class Ok(Packet, tag="OK", frozen=True):
    """The handshake was right (a backend may say so)."""


class Error(Packet, tag="ERROR", frozen=True):
    """The handshake was wrong (a backend may say so)."""

    message: object = ""  # whatever its type, it is a refusal


Received = Handshake | Exercise | Ok | Error

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
