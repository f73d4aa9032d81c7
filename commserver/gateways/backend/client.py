"""The TCP client that stays connected to one backend."""

import asyncio
import contextlib
import itertools
import socket
import ssl
from logging import INFO, WARNING

import structlog

from commserver.config import Backend
from commserver.core.clock import Clock, SystemClock
from commserver.core.finals import Final
from commserver.errors import ConfigError, PacketTooLarge, StoreError, Unanswered
from commserver.gateways import framing, tls
from commserver.gateways.backend import notices, packets
from commserver.gateways.backend.actions import ACTIONS, TAKING
from commserver.gateways.backend.link import Link, Turn
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from commserver.gateways.gateway import LinkState
from commserver.gateways.interpreter import Interpreter
from commserver.gateways.reconnect import BackOff
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import FinalsService

log = structlog.get_logger(__name__)

CHUNK = 64 * 1024  # bytes read at once
AT_ONCE = 2_000  # EXERCISEs of one link that are looked for at once; with more none is taken
DRAIN = 0.5  # seconds of silence after which nothing more is expected from a link being closed
PARTING = 5.0  # seconds in which a backend may hear what became of its last words
LAST_WORDS = 2.0  # seconds for what has ended to be told when we stop
SILENCE = 1.0  # seconds without a refusal after which a silent backend is told what it is owed
KEEPALIVE = {  # a peer that died without a word is noticed within a minute, where it can be set
    "TCP_KEEPIDLE": 30,  # seconds
    "TCP_KEEPINTVL": 10,  # seconds
    "TCP_KEEPCNT": 3,
    # No probes are sent while something waits for its receipt: that is given up after so long.
    "TCP_USER_TIMEOUT": 60_000,  # milliseconds
}


class _Reader(asyncio.StreamReader):
    """Gives what has arrived also when the link then breaks: asyncio's own would throw it away.

    fault: what broke it.
    """

    fault: Exception | None = None

    def set_exception(self, exc: Exception) -> None:
        self.fault = exc
        self.feed_eof()


class Client:
    """The seed's Client: dials the backend, says HANDSHAKE, hands over each EXERCISE.

    A link that ends, for whatever reason, is dialled again after a jittered, growing pause; the
    pause starts over once a backend has welcomed us, with an echo or with work.
    """

    def __init__(
        self,
        name: str,
        config: Backend,
        exec_service: ExecService,
        finals: FinalsService,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._config = config
        self._exec = exec_service
        self._finals = finals
        self._clock = clock or SystemClock()
        self._hearing: Interpreter[Turn, packets.Sent] = Interpreter(
            packets.decode, ACTIONS, notices.refuse
        )
        self._taking: Interpreter[Turn, packets.Sent] = Interpreter(
            packets.decode, TAKING, notices.refuse
        )
        self._back_off = BackOff(config.retry_first, config.retry_most)
        self._questions = itertools.count(1)
        self._up: Link | None = None
        self._working: asyncio.Task[None] | None = None  # on what the latest link has brought
        self.state = LinkState(False, self._clock.utc(), "not dialled yet")
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until stopped or cancelled."""
        with structlog.contextvars.bound_contextvars(gateway="backend", peer=self.name):
            async with asyncio.TaskGroup() as lasting:
                while not self._stopping.is_set():
                    try:
                        await self._link(lasting)
                    except (OSError, UnicodeError, ConfigError) as error:
                        log.warning("link_down", error=self._said(error))
                        self._down(self._said(error))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._back_off.pause()):
                            await self._stopping.wait()

    def stop(self) -> None:
        """Say what has ended, then that we stop; act on what has been sent by then; end `run`.

        What is still under way after `DRAIN` seconds stays unread; `run` may be cancelled then.
        """
        self._stopping.set()

    async def authenticate(self, token: str) -> int | None:
        """Return the account whose token this is, None when the backend does not know it.

        Waits as long as the link is up: the caller knows how long that may be.

        Raises:
            Unanswered: there is no link, it went down, or it has too much to do.
        """
        link = self._up
        if link is None:
            raise Unanswered(f"no link to {self.name}")
        try:
            token.encode()
        except UnicodeEncodeError:  # with half a character in it, which JSON cannot say
            return None
        return await link.ask(str(next(self._questions)), token)

    # -- one link ---------------------------------------------------------------------------------

    async def _link(self, lasting: asyncio.TaskGroup) -> None:
        """Dial, and serve the link until it ends."""
        config = self._config
        async with asyncio.timeout(config.connect_timeout):
            context = await asyncio.to_thread(self._context) if config.tls else None
            reader, writer = await dial(config.host, config.port, context)
        frames = framing.make(config.framing, config.frame_limit)
        try:
            protocol = BackendProtocol(config.secret(), frames)
            hello = protocol.handshake()
        except BaseException:  # the socket is nobody's yet
            writer.transport.abort()
            raise
        link = Link(self.name, protocol, writer, self._exec, self._finals, self._clock)
        try:
            if self._stopping.is_set():
                return
            keep_alive(writer.get_extra_info("socket"))
            self._up = link
            if await link.write(hello):
                self.state = LinkState(True, self._clock.utc())
                log.info("link_up")
            await self._serve(reader, link, lasting)
        finally:
            self._up = None
            if self.state.up:
                self._down("closed")
            await link.close(DRAIN)

    def _down(self, why: str) -> None:
        """Note why there is no link, since when it went away."""
        since = self._clock.utc() if self.state.up else self.state.since
        self.state = LinkState(False, since, why)

    def _context(self) -> ssl.SSLContext:
        config = self._config  # read anew for each link: certificates are renewed
        return tls.client_context(config.tls_ca, config.tls_cert, config.tls_key)

    async def _serve(self, reader: _Reader, link: Link, lasting: asyncio.TaskGroup) -> None:
        """Act on what comes until nothing does, and say what is to be said meanwhile.

        What was read is taken to its end in `lasting`, also when the link is long down: it was sent
        once and forgotten. The next link does not wait for that, but its work does.
        """
        working = self._working = lasting.create_task(self._work(link, self._working))
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._tell(link))
            beside = [
                telling,
                tasks.create_task(self._part(link, telling)),
                tasks.create_task(self._keep_alive(link)),
            ]
            try:
                end = await self._read(reader, link, tasks)
            finally:
                lasting.create_task(link.exercises.put(None))
            self._up = None
            if link.protocol.phase is Phase.REFUSED:
                self._down("it refused our HANDSHAKE")
            else:
                end = link.cut or (self._said(reader.fault) if reader.fault else end)
                self._down(end)
                log.log(INFO if self._stopping.is_set() else WARNING, "link_down", error=end)
            link.deserted()
            # A backend that only says nothing more may still hear what becomes of it.
            await asyncio.wait({working}, timeout=PARTING)
            for task in beside:
                task.cancel()

    async def _work(self, link: Link, former: asyncio.Task[None] | None) -> None:
        """Take what a link brings, once what the one before it has brought is taken."""
        if former:
            await asyncio.wait({former})
        turns: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as tasks:
            await self._take(link, tasks, turns)
            await self._found(turns)

    async def _read(
        self,
        reader: _Reader,
        link: Link,
        tasks: asyncio.TaskGroup,
    ) -> str:
        """Act on each frame until there are no more; returns why.

        An EXERCISE is only noted, for `_take`: answers and receipts do not wait for the database
        to take all that was pushed before them.
        """
        while data := await self._next(reader, link):
            try:
                while frames := link.protocol.receive(data):
                    for frame in frames:
                        turn = Turn(link)
                        tasks.create_task(self._hear(frame, turn))
                        await turn.aside.wait()
                        if link.protocol.phase is Phase.REFUSED:
                            return "refused"
                    data = b""  # once more: it says so if the stream cannot be read on
            except PacketTooLarge as error:
                return str(error)
            if link.protocol.phase is Phase.WELCOMED:
                self._back_off.reset()
        return "closed"

    async def _hear(self, frame: bytes, turn: Turn) -> None:
        try:
            if answer := await self._hearing.interpret(frame, turn):
                await turn.link.send(answer)
        finally:
            turn.aside.set()

    async def _take(
        self, link: Link, tasks: asyncio.TaskGroup, turns: set[asyncio.Task[None]]
    ) -> None:
        """Take each EXERCISE that was read, until the last.

        One after the other, but for those that have stepped aside: a slow database slows the
        backend, no more.
        """
        room = asyncio.Semaphore(AT_ONCE)
        while packet := await link.exercises.get():
            await room.acquire()
            turn = Turn(link)
            task = tasks.create_task(self._submit(packet, turn))
            task.add_done_callback(lambda _: room.release())
            _kept(turns, task)
            await turn.aside.wait()

    async def _submit(self, packet: packets.Exercise, turn: Turn) -> None:
        try:
            if answer := await self._taking.act(packet, turn):
                await turn.link.send(answer)
        finally:
            turn.aside.set()

    async def _next(self, reader: asyncio.StreamReader, link: Link) -> bytes:
        """Return what has come, b"" at the end of the link or, after our last word, of patience."""
        read = asyncio.ensure_future(reader.read(CHUNK))
        stop = asyncio.ensure_future(link.finished.wait())
        try:
            await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                await asyncio.wait({read}, timeout=DRAIN)
            return read.result() if read.done() else b""
        finally:
            read.cancel()
            stop.cancel()

    async def _found(self, turns: set[asyncio.Task[None]]) -> None:
        """Wait for those that have stepped aside; while stopping, let go of what takes longer."""
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            while turns and not stop.done():
                await asyncio.wait({*turns, stop}, return_when=asyncio.FIRST_COMPLETED)
            if turns:
                await asyncio.wait(set(turns), timeout=DRAIN)
        finally:
            stop.cancel()
            for task in turns:
                task.cancel()

    # -- what we say unasked ----------------------------------------------------------------------

    async def _tell(self, link: Link) -> None:
        """Tell what is owed to the backend, in order, then each final as it comes.

        Not before it has welcomed us, or kept silent for `SILENCE`: whoever refuses us says so at
        once. Silence gives it nothing more: with one EXERCISE it would be told as well.
        """
        await self._clock.wait(link.welcome, self._clock.now() + SILENCE)
        async with contextlib.aclosing(self._finals.feed(link.recipient)) as feed:
            async for final in feed:
                await self._tell_one(link, final)

    async def _tell_one(self, link: Link, final: Final) -> None:
        await link.accepted(final)
        link.told = final.seq
        if await link.send(notices.final(final)):
            self._finals.pushed(link.recipient, final.seq)

    async def _part(self, link: Link, telling: asyncio.Task[None]) -> None:
        """Once we stop, tell what has ended until then, and say nothing more."""
        await self._stopping.wait()
        telling.cancel()
        await asyncio.wait({telling})
        if link.welcome.is_set():
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self._tell_rest(link)
        link.finish()

    async def _tell_rest(self, link: Link) -> None:
        more = True
        while more:
            finals, _, more = await self._finals.owed(link.recipient, link.told)
            for final in finals:
                await self._tell_one(link, final)

    async def _keep_alive(self, link: Link) -> None:
        """Say that we are there, as KryoNet does and expects, when we have said nothing else."""
        period = self._config.keepalive_period
        if self._config.framing != "length" or not period:
            return
        frame = link.protocol.frame(self._config.keepalive_frame.encode())
        while True:
            due = link.said_at + period
            if self._clock.now() >= due:
                await link.write(frame)
            else:
                await self._clock.wait(asyncio.Event(), due)

    def _said(self, error: Exception) -> str:
        """Return in one line why there is no link."""
        match error:
            case ssl.SSLError():
                return tls.problem(error)
            case TimeoutError() if not error.args:
                return f"no answer within {self._config.connect_timeout:g} s"
            case _:
                return str(error) or type(error).__name__


def _kept(turns: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    turns.add(task)
    task.add_done_callback(turns.discard)


async def dial(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[_Reader, asyncio.StreamWriter]:
    """Do what `asyncio.open_connection` does, with our own reader."""
    loop = asyncio.get_running_loop()
    reader = _Reader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(
        lambda: protocol,
        host,
        port,
        ssl=context,
        server_hostname=host if context else None,
        ssl_shutdown_timeout=DRAIN if context else None,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def keep_alive(connection: socket.socket) -> None:
    """Have the system notice a peer that died without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
