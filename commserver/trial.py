"""A whole site in one folder, for the demo, the benchmarks and the tests: real processes, real
sockets, a database of its own. Whoever runs it plays the platform and the browsers.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from commserver import app, operations
from commserver.config import Config, Database, load
from commserver.dao import migrations
from commserver.errors import CommServerError
from commserver.services.admin_service import AdminService

SERVER_TOKEN = "trial-server-token"  # noqa: S105  # known to two processes on one machine
START = 120.0  # seconds for the server to listen, on a machine that has much else to do
STOP = 120.0  # seconds for it to end after SIGTERM

Packet = Mapping[str, str]
ENDS = ("EXERCICE_EXECUTED", "ERROR")


class TrialFailed(CommServerError):
    """Something that a trial needs did not come up."""


class Process(Protocol):
    """A server's process, as asyncio has it or who starts it otherwise."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signal: int) -> None: ...

    def kill(self) -> None: ...


Launch = Callable[[str, Sequence[str], Mapping[str, str], Path], Awaitable[Process]]


async def launched(
    module: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path
) -> Process:
    """Start a module of ours; its standard error is added to the log."""
    with log.open("ab") as stderr:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=environ,
        )


class Trial:
    """The site: its folder, its ports, and its server process while there is one.

    host: the engine's URL; None for the engines that this checkout is configured with, wherever the
        folder is.
    database: its URL; None for a SQLite file in the folder.
    settings: further `COMMSERVER_…` variables for the server.
    launch: what starts the server's process.
    """

    def __init__(
        self,
        state: Path,
        *,
        host: str | None = None,
        database: str | None = None,
        websocket_port: int = 0,
        backend_port: int = 0,
        http_port: int = 0,
        settings: Mapping[str, str] | None = None,
        launch: Launch = launched,
    ) -> None:
        self.state = state
        self.websocket_port = websocket_port or free_port()
        self.backend_port = backend_port or free_port()
        self.http_port = http_port or free_port()
        self.log = state / "serve.log"
        self.process: Process | None = None
        self._launch = launch
        self.database_url = database or f"sqlite+aiosqlite:///{state / 'commserver.db'}"
        hosts = [host] if host else app.engines(load())
        self._environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("COMMSERVER_")},
            "COMMSERVER_STATE_DIR": str(state),
            "COMMSERVER_DATABASE__URL": self.database_url,
            "COMMSERVER_BROWSER__PORT": str(self.websocket_port),
            "COMMSERVER_BACKEND__PORT": str(self.backend_port),
            "COMMSERVER_HTTP__PORT": str(self.http_port),
            "COMMSERVER_BACKEND__TOKEN": SERVER_TOKEN,
            "COMMSERVER_DOCKER__HOSTS": json.dumps(hosts),
            "COMMSERVER_LOG__FORMAT": "json",
            **(settings or {}),
        }

    @property
    def address(self) -> str:
        """Where browsers dial."""
        return f"ws://127.0.0.1:{self.websocket_port}"

    @property
    def config(self) -> Config:
        """What opens the site's database."""
        return Config(state_dir=self.state, database=Database(url=self.database_url))

    async def prepare(self) -> None:
        """Make the folder, and in it a database with the platform's tables and ours."""
        self.state.mkdir(parents=True, exist_ok=True)
        async with operations.opened(self.config) as database:
            await migrations.upgrade(database, with_platform=True)

    @property
    def page(self) -> str:
        """Where the students' page is."""
        return f"http://127.0.0.1:{self.http_port}"

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AdminService]:
        """Yield what plays the platform."""
        async with operations.admin(self.config) as service:
            yield service

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        """Run `commserver serve` for the length of the block; its log is in the folder."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def start(self, module: str = "commserver.cli", argument: str = "serve") -> None:
        """Start the server, or a module of a test around it, and wait until it listens.

        Raises:
            TrialFailed: it does not.
        """
        self.process = await self._launch(module, [argument], self._environ, self.log)
        try:
            await self.listening()
        except TrialFailed:
            await self.stop()
            raise

    async def listening(self) -> None:
        """Wait until a server, of this process or another, listens for browsers.

        Raises:
            TrialFailed: none does.
        """
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.websocket_port)
                writer.close()
                return
            if self.process and self.process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        raise TrialFailed(f"the server is not there; its log is {self.log}")

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the server if it is there, at last by force; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def died(self) -> int:
        """Wait until the server has ended by itself; returns its exit status."""
        process, self.process = self.process, None
        assert process is not None
        async with asyncio.timeout(STOP):
            return await process.wait()


class Browser:
    """One tab: says AUTH, then keeps every packet that comes, with the moment of its arrival."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self._tell = tell
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self.packets: list[Packet] = []
        self.moments: list[float] = []

    async def open(self, address: str, token: str) -> Self:
        """Dial, and send AUTH."""
        self._socket = await connect(address, compression=None)
        await self._socket.send(json.dumps({"cmd": "AUTH", "TOKEN": token}))
        self._reading = asyncio.create_task(self._read(self._socket))
        return self

    async def send(self, packet: Packet) -> None:
        """Say something."""
        assert self._socket is not None
        await self._socket.send(json.dumps(packet))

    async def close(self) -> None:
        """Leave."""
        if self._socket:
            await self._socket.close()
        if self._reading:
            await self._reading

    def of(self, attempt: int) -> list[Packet]:
        """Return the packets about one attempt, in order."""
        keys = ("id", "user_exercice_id", "target_id")
        return [p for p in self.packets if str(attempt) in (p.get(key) for key in keys)]

    def final(self, attempt: int) -> Packet | None:
        """Return what ended the attempt's run, None while nothing has."""
        return next((p for p in self.of(attempt) if p["cmd"] in ENDS), None)

    async def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Wait until `done()`, which is asked after each packet.

        Raises:
            TimeoutError: it was not within `seconds`.
        """
        async with asyncio.timeout(seconds):
            while not done():
                self._moved.clear()
                await self._moved.wait()

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in socket:
                self.moments.append(time.perf_counter())
                text = frame if isinstance(frame, str) else frame.decode()
                self.packets.append(json.loads(text))
                if self._tell:
                    self._tell(text)
                self._moved.set()


def free_port() -> int:
    """Return a loopback port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
