"""How packets stand in a stream of bytes, for programs that import nothing of ours."""

import hmac
import json
from collections.abc import Mapping
from typing import Any, Protocol

FRAME_LIMIT = 1 << 20  # bytes of one frame
TIMEOUT = 12.0  # seconds of silence after which a KryoNet peer drops the other side
KEEP_ALIVE_PERIOD = 8.0  # seconds of its own silence after which it sends a keep-alive

# KryoNet's own messages, as its JSON serialization writes them.
_CLASS = "com.esotericsoftware.kryonet.FrameworkMessage$"
REGISTER_TCP = {"class": f"{_CLASS}RegisterTCP", "connectionID": 1}
KEEP_ALIVE = {"class": f"{_CLASS}KeepAlive"}

Packet = Mapping[str, Any]


class Framing(Protocol):
    """One direction's frames: out of the bytes that came, onto the wire."""

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes.

        Raises:
            ValueError: a frame is longer than `FRAME_LIMIT`.
        """

    def send(self, frame: bytes) -> bytes:
        """Return `frame` as it goes onto the wire."""


class Lines:
    """One frame a line; empty lines are none."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > FRAME_LIMIT for line in (*lines, self._rest)):
            raise ValueError(f"a line of more than {FRAME_LIMIT} bytes")
        return [line.strip() for line in lines if line.strip()]

    def send(self, frame: bytes) -> bytes:
        return frame + b"\n"


class Length:
    """Four bytes with a frame's length, the most significant first, then the frame."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[bytes]:
        data = self._rest + data
        frames, start = [], 0
        while len(data) - start >= 4:
            begin = start + 4
            length = int.from_bytes(data[start:begin], "big")
            if length > FRAME_LIMIT:
                raise ValueError(f"a frame of {length} bytes, more than {FRAME_LIMIT}")
            if len(data) - begin < length:
                break
            start = begin + length
            frames.append(data[begin:start])
        self._rest = data[start:]
        return frames

    def send(self, frame: bytes) -> bytes:
        return len(frame).to_bytes(4, "big") + frame


FRAMINGS: Mapping[str, type[Lines | Length]] = {"lines": Lines, "length": Length}


def encoded(packet: Packet) -> bytes:
    """Return a packet's JSON, without blanks."""
    return json.dumps(packet, separators=(",", ":")).encode()


def decoded(text: bytes) -> dict[str, str]:
    """Return a JSON object's strings, and its numbers as strings; anything else is an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {str(key): str(item) for key, item in value.items() if isinstance(item, str | int)}


def masked(packet: Packet) -> str:
    """Return a packet as it may be shown: without its token."""
    return json.dumps({k: "***" if k == "TOKEN" else v for k, v in packet.items()})


def same(one: str, other: str) -> bool:
    """Compare two secrets; how long it takes tells nothing about them."""
    return hmac.compare_digest(
        one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass")
    )
