"""The WebSocket server."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable
from http import HTTPStatus

import structlog
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from commserver.config import Browser
from commserver.core.execution import Fault
from commserver.core.finals import account
from commserver.errors import StoreError
from commserver.gateways.browser import packets
from commserver.gateways.browser.actions import ACTIONS, Connection, refuse
from commserver.gateways.browser.outbox import TOO_SLOW, Behind, Close, Outbox
from commserver.gateways.browser.protocol import BrowserProtocol, Phase
from commserver.gateways.interpreter import Interpreter
from commserver.gateways.reconnect import BackOff
from commserver.services.auth_service import AuthService
from commserver.services.finals_service import FinalsService
from commserver.services.watch_service import WatchService

log = structlog.get_logger(__name__)

BACKLOG = 4096  # a whole exam room reconnects at once
SEND_TIMEOUT = 30.0  # seconds that one packet may take to leave
CLOSE_TIMEOUT = 2.0  # seconds for a socket's closing handshake
STORE_PAUSES = (0.5, 15.0)  # seconds, first and longest, until finals are asked for again
RECEIPT_DELAY = 0.5  # seconds from a final to the ping whose pong is its receipt: for several one


class Server:
    """The seed's Server: knows each browser by its token and tells it of its own runs only."""

    name = "browser"

    def __init__(
        self, config: Browser, auth: AuthService, watch: WatchService, finals: FinalsService
    ) -> None:
        self._config = config
        self._auth = auth
        self._watch = watch
        self._finals = finals
        self._interpreter = Interpreter(packets.decode, ACTIONS, refuse)
        self._open = 0
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()
        self.port = config.port  # the real one once it is listening

    async def run(self) -> None:
        """Serve until stopped or cancelled; then every socket is closed with 1001."""
        async with serve(
            self._serve,
            self._config.host,
            self._config.port,
            process_request=self._admit,
            compression=None,
            max_size=self._config.frame_limit,
            ping_interval=None,  # `_ping` does it, and knows what each pong is a receipt for
            open_timeout=self._config.auth_timeout,
            close_timeout=CLOSE_TIMEOUT,
            backlog=BACKLOG,
            server_header=None,
        ) as server:
            self.port = _port(server)
            self.listening.set()
            log.info("listening", gateway=self.name, host=self._config.host, port=self.port)
            await self._stopping.wait()
            server.close()
            await _bounded(server.wait_closed(), list(server.connections))

    def stop(self) -> None:
        """Let `run` close every socket and return."""
        self._stopping.set()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Turn a browser away when there are too many; it dials again by itself."""
        if self._open < self._config.connections:
            return None
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")

    async def _serve(self, socket: ServerConnection) -> None:
        """Serve one socket until it is closed by either side."""
        connection = Connection(
            BrowserProtocol(self._config.auth_failures),
            self._auth,
            self._watch,
            self._finals,
            Outbox(self._config.owed_limit),
        )
        self._open += 1
        sender = asyncio.create_task(_send(socket, connection))
        pinger = asyncio.create_task(self._ping(socket, connection))
        try:
            if reason := await self._read(socket, connection):
                connection.outbox.close(CloseCode.POLICY_VIOLATION, reason)
                await asyncio.wait({sender})
        except ConnectionClosed:
            pass
        finally:
            self._open -= 1
            if connection.protocol.identity:
                self._watch.leave(connection.protocol.identity.owner, connection.outbox)
            sender.cancel()
            pinger.cancel()
            await asyncio.wait({sender, pinger})

    async def _read(self, socket: ServerConnection, connection: Connection) -> str:
        """Act on each frame, one after the other.

        Returns why nothing more is heard from this socket, "" when it is gone. A stranger's time
        does not run out while it waits for us, and begins anew when an answer failed through us.
        """
        now = asyncio.get_running_loop().time
        until = now() + self._config.auth_timeout
        try:
            async with asyncio.timeout_at(until) as patience:
                async for frame in socket:
                    patience.reschedule(None)
                    data = frame.encode() if isinstance(frame, str) else frame
                    if answer := await self._interpreter.interpret(data, connection):
                        connection.outbox.answer(answer)
                        if isinstance(answer, packets.Error) and answer.fault == Fault.SYSTEM:
                            until = now() + self._config.auth_timeout
                    match connection.protocol.phase:
                        case Phase.STRANGER:
                            patience.reschedule(until)
                        case Phase.BARRED:
                            return "too many failures"
        except TimeoutError:
            return "no AUTH in time"
        return ""

    async def _ping(self, socket: ServerConnection, connection: Connection) -> None:
        """Ask now and then whether the peer is there, and soon after each final.

        The pong to a ping that was sent after a final is its receipt (page `commserver`, "Finals").
        """
        outbox = connection.outbox
        asked = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                await outbox.news(asked, self._config.ping_period, RECEIPT_DELAY)
                sent = asked = outbox.sent
                try:
                    async with asyncio.timeout(self._config.ping_timeout):
                        await (await socket.ping())
                except TimeoutError:
                    closing = socket.close(CloseCode.INTERNAL_ERROR, "no pong in time")
                    await _bounded(closing, [socket])
                    return
                if sent > outbox.received and await _receipt(connection, sent):
                    outbox.received = sent


async def _receipt(connection: Connection, seq: int) -> bool:
    """Note that the finals up to `seq` have arrived; False when that must be tried again."""
    recipient = account(connection.protocol.known().owner)
    try:
        await connection.finals.acknowledge(recipient, seq)
    except StoreError:
        return False
    return True


async def _send(socket: ServerConnection, connection: Connection) -> None:
    """Send what the outbox holds until the socket is gone or to be closed."""
    outbox = connection.outbox
    reading: asyncio.Task[None] | None = None
    try:
        while not isinstance(packet := await outbox.next(), Close):
            if isinstance(packet, Behind):  # never while one is under way
                reading = asyncio.create_task(_catch_up(connection, packet.after))
                continue
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    await socket.send(packets.encode(packet), text=True)
            except TimeoutError:
                packet = TOO_SLOW
                break
            outbox.left(packet)
        await _bounded(socket.close(packet.code, packet.reason), [socket])
    except ConnectionClosed:
        pass
    finally:
        if reading:
            reading.cancel()


async def _catch_up(connection: Connection, after: int) -> None:
    """Read what is owed to the user; places and answers do not wait for it."""
    recipient = account(connection.protocol.known().owner)
    back_off = BackOff(*STORE_PAUSES)
    while True:
        try:
            owed = await connection.finals.owed(recipient, after)
        except StoreError:  # which is logged once for all
            await asyncio.sleep(back_off.pause())
        else:
            connection.outbox.caught_up(owed.finals, owed.last, more=owed.more)
            return


async def _bounded(closing: Awaitable[None], sockets: Iterable[ServerConnection]) -> None:
    """Wait for sockets to close; cut off those whose peers do not even read any more.

    The library's own time-out begins only when the close frame has left.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT * 2):
            await closing
    except TimeoutError:
        for socket in sockets:
            socket.transport.abort()


def _port(server: WebSocketServer) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port
