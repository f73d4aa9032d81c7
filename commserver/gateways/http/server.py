"""The HTTP server: one port for pages, door and admins."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from commserver.config import Http

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the application."""
        yield


class HttpServer:
    """Serves the routes it is given, until stopped."""

    name = "http"

    def __init__(self, config: Http, routes: Sequence[BaseRoute]) -> None:
        self._config = config
        self._routes = routes
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()
        self.port = config.port  # the real one once it is listening

    async def run(self) -> None:
        """Serve until stopped or cancelled."""
        config = uvicorn.Config(
            Starlette(routes=list(self._routes)),
            host=self._config.host,
            port=self._config.port,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        sock = config.bind_socket()
        self.port = sock.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        self.listening.set()
        log.info("listening", gateway=self.name, host=self._config.host, port=self.port)
        try:
            await self._stopping.wait()
        finally:
            server.should_exit = True
            await asyncio.wait({serving})
            sock.close()

    def stop(self) -> None:
        """Let `run` answer what was asked and return."""
        self._stopping.set()
