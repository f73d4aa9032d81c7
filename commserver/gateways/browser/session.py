"""One browser's socket: what it says, what it is told, whether it is there, whether it may stay."""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from commserver.config import Browser
from commserver.core.finals import account
from commserver.core.verdicts import Fault
from commserver.errors import NotAuthenticated, RateLimited, StoreError, Unanswered
from commserver.gateways.browser import notices, packets
from commserver.gateways.browser.actions import Connection, Room
from commserver.gateways.browser.outbox import TOO_SLOW, Behind, Close, Outbox
from commserver.gateways.browser.packets import Packet
from commserver.gateways.browser.protocol import BrowserProtocol, Phase
from commserver.gateways.browser.rechecks import Rechecks
from commserver.gateways.interpreter import Interpreter
from commserver.gateways.limits import Persistence, TokenBucket
from commserver.gateways.reconnect import BackOff

SEND_TIMEOUT = 30.0  # seconds that one packet may take to leave
CLOSE_TIMEOUT = 2.0  # seconds for a socket's closing handshake
STORE_PAUSES = (0.5, 15.0)  # seconds, first and longest, until finals are asked for again
RECEIPT_DELAY = 0.5  # seconds from a final to the ping whose pong is its receipt: for several one
BURST = 4  # times the commands of a second
TOO_LONG = 10.0  # seconds of too many commands


class Session:
    """Serves one socket until it is closed by either side."""

    def __init__(
        self,
        socket: ServerConnection,
        config: Browser,
        room: Room,
        interpreter: Interpreter[Connection, Packet],
        rechecks: "Rechecks[Session]",
        client: str,
    ) -> None:
        self._socket = socket
        self._config = config
        self._room = room
        self._interpreter = interpreter
        self._rechecks = rechecks
        self._connection = Connection(
            BrowserProtocol(config.auth_failures), room, Outbox(config.owed_limit), client
        )
        now = room.services.clock.now()
        self._commands = TokenBucket(config.commands, config.commands * BURST, now)
        self._refusals = Persistence(TOO_LONG)

    async def run(self) -> None:
        """Serve it; never raises but for cancellation."""
        connection = self._connection
        sender = asyncio.create_task(self._send())
        pinger = asyncio.create_task(self._ping())
        try:
            if reason := await self._read():
                connection.outbox.close(CloseCode.POLICY_VIOLATION, reason)
                await asyncio.wait({sender})
        except ConnectionClosed:
            pass
        finally:
            connection.leave()
            self._rechecks.remove(self)
            sender.cancel()
            pinger.cancel()
            await asyncio.wait({sender, pinger})

    async def _read(self) -> str:
        """Act on each frame, one after the other.

        Returns why nothing more is heard from this socket, "" when it is gone. A stranger's time
        does not run out while it waits for us, and begins anew when an answer failed through us.
        """
        connection = self._connection
        now = asyncio.get_running_loop().time
        until = now() + self._config.auth_timeout
        try:
            async with asyncio.timeout_at(until) as patience:
                async for frame in self._socket:
                    stranger = connection.protocol.phase is Phase.STRANGER
                    patience.reschedule(None)
                    if answer := await self._answer(frame):
                        connection.outbox.answer(answer)
                        if isinstance(answer, packets.Error) and answer.fault == Fault.SYSTEM:
                            until = now() + self._config.auth_timeout
                    match connection.protocol.phase:
                        case Phase.STRANGER:
                            patience.reschedule(until)
                        case Phase.KNOWN if stranger:
                            self._rechecks.add(self)
                        case Phase.BARRED:
                            return connection.protocol.reason
        except TimeoutError:
            return "no AUTH in time"
        return ""

    async def _answer(self, frame: str | bytes) -> Packet | None:
        """Carry a command out, unless there are too many of them or nothing is heard any more."""
        connection = self._connection
        if connection.protocol.phase is Phase.BARRED:
            return None
        now = self._room.services.clock.now()
        if not self._commands.take(now):
            if self._refusals.refused(now):
                connection.protocol.bar("too many commands")
            return notices.error(RateLimited("too many commands; wait a moment"))
        data = frame.encode() if isinstance(frame, str) else frame
        return await self._interpreter.interpret(data, connection)

    async def recheck(self) -> bool:
        """Close the socket when its token is not good any more; False when that is not known."""
        connection = self._connection
        token = connection.token
        try:
            identity = await self._room.services.door.again(token)
            gone = identity != connection.protocol.identity
        except NotAuthenticated:
            gone = True
        except (StoreError, Unanswered):
            return False
        if gone and connection.token == token:  # and not a newer one that came meanwhile
            connection.protocol.bar("not authenticated any more")
            error = NotAuthenticated("this token is not valid any more")
            connection.outbox.answer(notices.error(error))
            connection.outbox.close(CloseCode.POLICY_VIOLATION, connection.protocol.reason)
        return True

    async def _ping(self) -> None:
        """Ask now and then whether the peer is there, and soon after each final.

        The pong to a ping that was sent after a final is its receipt (page `commserver`, "Finals").
        """
        outbox = self._connection.outbox
        asked = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                await outbox.news(asked, self._config.ping_period, RECEIPT_DELAY)
                sent = asked = outbox.sent
                try:
                    async with asyncio.timeout(self._config.ping_timeout):
                        await (await self._socket.ping())
                except TimeoutError:
                    closing = self._socket.close(CloseCode.INTERNAL_ERROR, "no pong in time")
                    await bounded(closing, [self._socket])
                    return
                if sent > outbox.received and await self._receipt(sent):
                    outbox.received = max(outbox.received, sent)

    async def _receipt(self, seq: int) -> bool:
        """Note that the finals up to `seq` have arrived; False when that must be tried again."""
        recipient = account(self._connection.protocol.known().owner)
        try:
            await self._room.services.finals.acknowledge(recipient, seq)
        except StoreError:
            return False
        return True

    async def _send(self) -> None:
        """Send what the outbox holds until the socket is gone or to be closed."""
        outbox = self._connection.outbox
        finals = self._room.services.finals
        reading: asyncio.Task[None] | None = None
        try:
            while not isinstance(packet := await outbox.next(), Close):
                if isinstance(packet, Behind):  # never while one is under way
                    reading = asyncio.create_task(self._catch_up(packet))
                    continue
                try:
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await self._socket.send(packets.encode(packet), text=True)
                except TimeoutError:
                    packet = TOO_SLOW
                    break
                if seq := outbox.left():
                    finals.pushed(account(self._connection.protocol.known().owner), seq)
            await bounded(self._socket.close(packet.code, packet.reason), [self._socket])
        except ConnectionClosed:
            pass
        finally:
            if reading:
                reading.cancel()

    async def _catch_up(self, behind: Behind) -> None:
        """Read what is owed to the user; places and answers do not wait for it."""
        recipient = account(self._connection.protocol.known().owner)
        back_off = BackOff(*STORE_PAUSES)
        while True:
            try:
                owed = await self._room.services.finals.owed(recipient, behind.after, behind.since)
            except StoreError:  # which is logged once for all
                await asyncio.sleep(back_off.pause())
            else:
                self._connection.outbox.caught_up(owed.finals, owed.last, more=owed.more)
                return


async def bounded(closing: Awaitable[None], sockets: Iterable[ServerConnection]) -> None:
    """Wait for sockets to close; cut off those whose peers do not even read any more.

    The library's own time-out begins only when the close frame has left.
    """
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT * 2):
            await closing
    except TimeoutError:
        for socket in sockets:
            socket.transport.abort()
