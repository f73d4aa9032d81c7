"""One WebSocket as the library has it, bounded in what it leaves open."""

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode, Frame, Opcode

from commserver.gateways.limits import TokenBucket

PINGS = 10.0  # a second that are answered, ten times that in a burst; no browser sends any
UNREAD = 256 << 10  # bytes of answers to pings that a peer may leave unread
PARTING = 4.0  # seconds for a peer to be gone once the connection has failed


class Socket(ServerConnection):
    """A socket that counts from the accept on; above `most` it is cut off before its handshake.

    Each of those who have not shaken hands yet holds a descriptor as well, and for seconds. Who
    floods us with pings is shown out, and who goes on sending after that is cut off.
    """

    def __init__(self, present: "set[Socket]", most: int, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._present = present
        self._most = most
        self._pings: TokenBucket | None = None
        self._parting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._present.add(self)
        if len(self._present) > self._most:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._parting is None and self.protocol.close_expected():
            self._parting = self.loop.call_later(PARTING, self.transport.abort)

    def process_event(self, event: Any) -> None:
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self._pinged()

    def connection_lost(self, exc: Exception | None) -> None:
        self._present.discard(self)
        if self._parting:
            self._parting.cancel()
        super().connection_lost(exc)

    def _pinged(self) -> None:
        now = self.loop.time()
        if self._pings is None:  # hardly anybody ever does
            self._pings = TokenBucket(PINGS, 10 * PINGS, now)
        if self.transport.get_write_buffer_size() > UNREAD:
            self.transport.abort()
        elif not self._pings.take(now) and not self.protocol.close_expected():
            self.protocol.fail(CloseCode.POLICY_VIOLATION, "too many pings")
            self.send_data()
