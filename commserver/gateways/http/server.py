"""The HTTP server: one port for pages, door and admins."""

import asyncio
from collections.abc import Sequence

import structlog
import uvicorn
from starlette.routing import BaseRoute
from uvicorn.server import ServerState

from commserver.config import Http
from commserver.gateways import tls
from commserver.gateways.http.application import Application
from commserver.gateways.http.connection import Connection
from commserver.gateways.listening import ACCEPTS, deepen

log = structlog.get_logger(__name__)

KEEP_ALIVE = 5  # seconds that an idle connection is kept
STOP = 2.0  # seconds for what was asked to be answered once we are told to stop


class HttpServer:
    """Serves the routes it is given, until stopped."""

    name = "http"

    def __init__(self, config: Http, routes: Sequence[BaseRoute]) -> None:
        """Open nothing yet.

        Raises:
            ConfigError: the certificate or its key cannot be used.
        """
        self._config = config
        cert, key = config.tls_cert, config.tls_key
        self._tls = tls.server_context(cert, key) if cert else None
        self._application = Application(routes, config.body_limit)
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()
        self.port = config.port  # the real one once it is listening

    async def run(self) -> None:
        """Serve until stopped or cancelled.

        Raises:
            OSError: the port cannot be had.
        """
        # Uvicorn's connections without its server, which has no deadline for TLS handshakes, looks
        # ten times a second whether it has to stop, and would take our signals.
        state = ServerState()
        settings = uvicorn.Config(
            self._application,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        settings.load()
        idle: dict[Connection, None] = {}
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._config, settings, state, idle),
            self._config.host,
            self._config.port,
            ssl=self._tls,
            ssl_handshake_timeout=self._config.timeout if self._tls else None,
            ssl_shutdown_timeout=STOP if self._tls else None,
            backlog=ACCEPTS,
        )
        deepen(server.sockets)
        self.port = server.sockets[0].getsockname()[1]
        self.listening.set()
        log.info("listening", gateway=self.name, host=self._config.host, port=self.port)
        try:
            await self._stopping.wait()
        finally:
            server.close()
            await _ended(state)

    def stop(self) -> None:
        """Let `run` answer what was asked and return."""
        self._stopping.set()


async def _ended(state: ServerState) -> None:
    """Let what is being answered end, then every connection."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=STOP)
        for task in late:
            task.cancel()  # it answers 503
    connections = [one for one in state.connections if isinstance(one, Connection)]
    if lost := [asyncio.create_task(one.lost.wait()) for one in connections]:
        _, late_ones = await asyncio.wait(lost, timeout=STOP)
        for one in connections:
            one.transport.abort()
        if late_ones:
            await asyncio.wait(late_ones)
