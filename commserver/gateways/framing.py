"""From a stream of bytes to frames and back. Sans-I/O."""

from commserver.errors import PacketTooLarge


class LineFraming:
    """One frame a line, UTF-8, ended by a line feed (protocol page `commserver`, "framing").

    However the stream is cut, the same frames come out. Empty lines are none.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes of one frame, without its end
        self._rest = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes, in order.

        Raises:
            PacketTooLarge: a frame is longer than the limit, ended or not; frames before it are
                returned first, and the error is raised by the next call.
        """
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
        """Return `frame` as it goes onto the wire."""
        return frame + b"\n"
