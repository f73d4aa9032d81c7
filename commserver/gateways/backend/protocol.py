"""In which order things are said on the backend link. Sans-I/O."""

from enum import Enum, auto

from commserver.errors import UnexpectedPacket
from commserver.gateways.backend import packets
from commserver.gateways.framing import LineFraming


class Phase(Enum):
    """How far the link is. A right token may be met with silence: both first phases work."""

    DIALLED = auto()
    WELCOMED = auto()
    REFUSED = auto()


class BackendProtocol:
    """One link, from the dial on: HANDSHAKE first, then what the backend pushes."""

    def __init__(self, token: str, frame_limit: int) -> None:
        self._token = token
        self._framing = LineFraming(frame_limit)
        self.phase = Phase.DIALLED

    def handshake(self) -> bytes:
        """Return the bytes to send as soon as the link is up."""
        return self._framing.send(packets.encode(packets.Handshake(self._token)))

    def receive(self, data: bytes) -> list[bytes]:
        """Return the frames that `data` completes.

        Raises:
            PacketTooLarge: the link cannot be read on.
        """
        return self._framing.receive(data)

    def welcomed(self) -> None:
        """The backend has said that the token is right."""
        self.phase = Phase.WELCOMED

    def refused(self, message: str) -> None:
        """The backend has said that it does not want us.

        Raises:
            UnexpectedPacket: it had welcomed us before: then it means something else.
        """
        if self.phase is Phase.WELCOMED:
            raise UnexpectedPacket(f"an ERROR after the handshake: {message}", "welcomed")
        self.phase = Phase.REFUSED
