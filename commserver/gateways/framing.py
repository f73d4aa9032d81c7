"""From a stream of bytes to frames and back. Sans-I/O."""

from typing import Literal, Protocol

from commserver.errors import PacketTooLarge

LENGTH = 4  # bytes, before each frame


class Framing(Protocol):
    """How frames stand in a stream. However the stream is cut, the same frames come out."""

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes, in order.

        Raises:
            PacketTooLarge: a frame is longer than the limit, ended or not; frames before it are
                returned first, and the error is raised by the next call.
        """

    def send(self, frame: bytes) -> bytes:
        """Return `frame` as it goes onto the wire."""


class LineFraming:
    """One frame a line, UTF-8, ended by a line feed (protocol page `commserver`, "framing").

    Empty lines are none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of one frame, without its end
        self._rest = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes; see `Framing`."""
        if len(self._rest) > self._limit:
            raise PacketTooLarge(self._limit)
        searched = len(self._rest)
        self._rest += data
        frames: list[bytes] = []
        start = 0
        while (end := self._rest.find(b"\n", max(start, searched))) >= 0:
            if end - start > self._limit:
                break
            if frame := bytes(self._rest[start:end]).strip():
                frames.append(frame)
            start = end + 1
        del self._rest[:start]
        if not frames and len(self._rest) > self._limit:
            raise PacketTooLarge(self._limit)
        return frames

    def send(self, frame: bytes) -> bytes:
        """Return `frame` as a line."""
        return frame + b"\n"


class LengthFraming:
    """Each frame after its length, four bytes, the highest first: the framing of KryoNet.

    A frame of no bytes is none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of one frame, without its length
        self._rest = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes; see `Framing`."""
        self._rest += data
        frames: list[bytes] = []
        start = 0
        while len(self._rest) >= start + LENGTH:
            begin = start + LENGTH
            end = begin + int.from_bytes(self._rest[start:begin], "big")
            if end - begin > self._limit:
                # What follows cannot be told from a frame: only its head is kept.
                del self._rest[begin:], self._rest[:start]
                if not frames:
                    raise PacketTooLarge(self._limit)
                return frames
            if len(self._rest) < end:
                break
            if end > begin:
                frames.append(bytes(self._rest[begin:end]))
            start = end
        del self._rest[:start]
        return frames

    def send(self, frame: bytes) -> bytes:
        """Return `frame` after its length."""
        return len(frame).to_bytes(LENGTH, "big") + frame


def make(kind: Literal["lines", "length"], limit: int) -> Framing:
    """Return a new stream's framing; `limit` is in bytes of one frame."""
    return LengthFraming(limit) if kind == "length" else LineFraming(limit)
