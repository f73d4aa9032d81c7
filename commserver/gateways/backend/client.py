"""The TCP client that stays connected to one backend."""

import asyncio
import contextlib
import socket
from logging import INFO, WARNING

import structlog

from commserver.config import Backend
from commserver.errors import ConfigError, PacketTooLarge
from commserver.gateways.backend import packets
from commserver.gateways.backend.actions import ACTIONS, Link
from commserver.gateways.backend.notices import refuse
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from commserver.gateways.interpreter import Interpreter
from commserver.gateways.reconnect import BackOff
from commserver.services.exec_service import ExecService

log = structlog.get_logger(__name__)

CHUNK = 64 * 1024  # bytes read at once
DRAIN = 0.5  # seconds of silence after which nothing more is expected from a link being closed


class _Reader(asyncio.StreamReader):
    """Gives what has arrived also when the link then breaks: asyncio's own would throw it away."""

    def set_exception(self, exc: BaseException) -> None:
        self.feed_eof()


class Client:
    """The seed's Client: dials the backend, says HANDSHAKE, hands over each EXERCISE.

    A link that ends, for whatever reason, is dialled again after a jittered, growing pause; the
    pause starts over once a backend has welcomed us, with an echo or with work.
    """

    def __init__(self, name: str, config: Backend, exec_service: ExecService) -> None:
        self.name = name
        self._config = config
        self._exec = exec_service
        self._interpreter = Interpreter(packets.decode, ACTIONS, refuse)
        self._back_off = BackOff(config.retry_first, config.retry_most)
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Stay connected until stopped or cancelled."""
        with structlog.contextvars.bound_contextvars(gateway="backend", peer=self.name):
            while not self._stopping.is_set():
                try:
                    await self._link()
                except (OSError, UnicodeError, PacketTooLarge, ConfigError) as error:
                    log.warning("link_down", error=str(error) or type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._back_off.pause()):
                        await self._stopping.wait()

    def stop(self) -> None:
        """Take nothing new: tell the backend, act on what it has sent by then, and let `run` end.

        What is still under way after `DRAIN` seconds stays unread; `run` may be cancelled then.
        """
        self._stopping.set()
        if self._writer and self._writer.can_write_eof():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    async def _link(self) -> None:
        """Dial, and serve the link until it ends."""
        async with asyncio.timeout(self._config.connect_timeout):
            reader, writer = await dial(self._config.host, self._config.port)
        self._writer = writer
        try:
            if self._stopping.is_set():
                return
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            protocol = BackendProtocol(self._config.secret(), self._config.frame_limit)
            writer.write(protocol.handshake())
            async with asyncio.timeout(self._config.connect_timeout):
                await writer.drain()
            log.info("link_up")
            await self._read(reader, Link(self.name, protocol, self._exec))
        finally:
            self._writer = None
            writer.close()

    async def _read(self, reader: asyncio.StreamReader, link: Link) -> None:
        """Act on each frame, one after the other: a slow database slows the backend, no more."""
        while data := await self._next(reader):
            while frames := link.protocol.receive(data):
                for frame in frames:
                    await self._interpreter.interpret(frame, link)
                    if link.protocol.phase is Phase.REFUSED:
                        return
                data = b""  # once more: it says so if the stream cannot be read on
            if link.protocol.phase is Phase.WELCOMED:
                self._back_off.reset()
        log.log(INFO if self._stopping.is_set() else WARNING, "link_down", error="closed")

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """Return what has come, b"" at the end of the link or, while stopping, of patience."""
        read = asyncio.ensure_future(reader.read(CHUNK))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                await asyncio.wait({read}, timeout=DRAIN)
            return read.result() if read.done() else b""
        finally:
            read.cancel()
            stop.cancel()


async def dial(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Do what `asyncio.open_connection` does, with our own reader."""
    loop = asyncio.get_running_loop()
    reader = _Reader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
