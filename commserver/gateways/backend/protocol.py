"""In which order things are said on the backend link. Sans-I/O."""

from enum import Enum, auto

from commserver.errors import UnexpectedPacket
from commserver.gateways.backend import packets
from commserver.gateways.framing import Framing


class Phase(Enum):
    """How far the link is. A right token may be met with silence: both first phases work."""

    DIALLED = auto()
    WELCOMED = auto()
    REFUSED = auto()


class BackendProtocol:
    """One link, from the dial on: HANDSHAKE first, then what either side has to say."""

    def __init__(self, token: str, framing: Framing) -> None:
        self._token = token
        self._framing = framing
        self.phase = Phase.DIALLED

    def handshake(self) -> bytes:
        """Return the bytes to send as soon as the link is up."""
        return self.send(packets.Handshake(self._token))

    def send(self, packet: packets.Sent) -> bytes:
        """Return a packet as it goes onto the wire."""
        return self.frame(packets.encode(packet))

    def frame(self, frame: bytes) -> bytes:
        """Return any frame as it goes onto the wire."""
        return self._framing.send(frame)

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

    def masked(self, text: str) -> str:
        """Return what the backend said without our token, for a log."""
        return text.replace(self._token, "***") if self._token else text
