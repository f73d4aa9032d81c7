"""A backend that does what a test tells it, byte by byte."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from pydantic import SecretStr

from commserver.config import Backend
from commserver.core.clock import Clock
from commserver.gateways.backend.client import Client
from tests.integration.links.conftest import SECRET
from tests.unit.gateways.backend.links import FedFinals
from tests.unit.gateways.services import RecordingExecService

PATIENCE = 60.0  # seconds for what must come


class Link:
    """One connection that commserver has dialled, seen from the backend."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def line(self) -> bytes:
        """Return the next line, b"" at the end of what commserver says."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readline()

    async def packet(self) -> dict[str, str]:
        """Return the packet in the next line; all of its values are strings."""
        packet: dict[str, str] = json.loads(await self.line())
        assert all(isinstance(value, str) for value in packet.values())
        return packet

    async def frame(self) -> bytes:
        """Return the next frame that stands after its length."""
        async with asyncio.timeout(PATIENCE):
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            return await self._reader.readexactly(length)

    async def ended(self) -> bool:
        """Wait until commserver says no more; true if it had nothing more to say."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._reader.read() == b""
        except ConnectionError:
            return True

    async def say(self, *chunks: bytes) -> None:
        """Send each chunk by itself."""
        for chunk in chunks:
            self._writer.write(chunk)
            await self._writer.drain()

    async def say_frames(self, *frames: bytes) -> None:
        """Send each frame after its length."""
        await self.say(*(len(frame).to_bytes(4, "big") + frame for frame in frames))

    def deafen(self) -> None:
        """Read nothing any more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's

    def finish(self) -> None:
        """Say no more, but go on listening."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Vanish: the other side gets RST."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()


class ScriptedBackend:
    """Listens, and hands each link to the test, its HANDSHAKE still unread."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        """`context`: what to speak TLS with."""
        self._context = context
        self.port = 0
        self.dialled = 0
        self._links: asyncio.Queue[Link] = asyncio.Queue()
        self._all: list[Link] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hush()
        for link in self._all:
            link.close()

    async def listen(self) -> None:
        """Listen, again on the same port after a `hush`."""
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, ssl=self._context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def hush(self) -> None:
        """Accept nobody any more."""
        if self._server:
            self._server.close()

    async def link(self) -> Link:
        """Wait for the next link."""
        async with asyncio.timeout(PATIENCE):
            return await self._links.get()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(reader, writer)
        self.dialled += 1
        self._all.append(link)
        self._links.put_nowait(link)


@asynccontextmanager
async def dialling(
    config: Backend,
    execs: RecordingExecService | None = None,
    finals: FedFinals | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Client]:
    """Run a Client named "school" for the length of the block."""
    client = Client("school", config, execs or RecordingExecService(), finals or FedFinals(), clock)
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        client.stop()
        async with asyncio.timeout(PATIENCE):
            await task


def quick(port: int, **options: object) -> Backend:
    """Return the settings of a client that dials again at once."""
    known = {"token": SecretStr(SECRET), "retry_first": 0.001, "retry_most": 0.01}
    return Backend.model_validate({"port": port, **known, **options})
