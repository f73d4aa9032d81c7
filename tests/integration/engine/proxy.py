"""Stands between us and the engine, so that the engine can go away without being stopped."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit


class Proxy:
    """Forwards connections to an engine, over a unix socket and over TCP, until told otherwise."""

    def __init__(self, docker_url: str, path: Path) -> None:
        self._engine = urlsplit(docker_url)
        self._path = path
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self.url = f"unix://{path}"
        self.tcp_url = ""

    async def open(self) -> None:
        """Listen."""
        unix = await asyncio.start_unix_server(self._serve, self._path)
        tcp = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.tcp_url = "tcp://{}:{}".format(*tcp.sockets[0].getsockname())
        self._servers = [unix, tcp]

    def cut(self) -> None:
        """The engine is gone: every connection breaks, none can be made."""
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._path.unlink(missing_ok=True)

    def freeze(self) -> None:
        """The engine hangs: connections stand, nothing comes."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let all flow again."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._engine.scheme == "unix":
            far_reader, far_writer = await asyncio.open_unix_connection(self._engine.path)
        else:
            far_reader, far_writer = await asyncio.open_connection(
                self._engine.hostname, self._engine.port
            )
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer))
                tasks.create_task(self._pump(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()
