"""The WebSocket server."""

import asyncio
import ssl
from functools import partial
from http import HTTPStatus
from pathlib import Path

import structlog
from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from commserver.config import Browser
from commserver.errors import ConfigError
from commserver.gateways.browser import packets, session
from commserver.gateways.browser.actions import ACTIONS, Room, Services, refuse
from commserver.gateways.browser.origins import Origins
from commserver.gateways.browser.rechecks import Rechecks
from commserver.gateways.browser.session import Session, bounded
from commserver.gateways.browser.socket import Socket
from commserver.gateways.interpreter import Interpreter
from commserver.gateways.listening import ACCEPTS, SPARE, deepen
from commserver.gateways.proxies import Proxies
from commserver.gateways.tls import server_context

log = structlog.get_logger(__name__)

ORIGINS_LOGGED = 100  # different ones that were turned away; then no more is said of further ones
ORIGIN_SHOWN = 200  # characters


class Server:
    """The seed's Server: knows each browser by its token and tells it of its own runs only."""

    name = "browser"

    def __init__(self, config: Browser, services: Services) -> None:
        """Raises ConfigError when the certificate or a proxy of the configuration is of no use."""
        self._config = config
        self._room = Room(services)
        self._interpreter = Interpreter(packets.decode, ACTIONS, refuse)
        self._rechecks: Rechecks[Session] = Rechecks(config.recheck_period, services.clock)
        self._proxies = Proxies(config.trusted_proxies, "browser.trusted_proxies")
        self._origins = Origins(config.origins)
        self._turned_away: set[str] = set()  # origins
        self._tls = _tls(config.tls_cert, config.tls_key)
        self._open = 0
        self._present: set[Socket] = set()  # from the accept on
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()
        self.port = config.port  # the real one once it is listening

    async def run(self) -> None:
        """Serve until stopped or cancelled; then every socket is closed with 1001."""
        rechecking = asyncio.create_task(self._rechecks.run())
        try:
            async with serve(
                self._serve,
                self._config.host,
                self._config.port,
                process_request=self._admit,
                create_connection=partial(  # type: ignore[arg-type]  # anything that makes one
                    Socket, self._present, self._config.connections + SPARE
                ),
                compression=None,
                max_size=self._config.frame_limit,
                ping_interval=None,  # the session does it, and knows what a pong is a receipt for
                open_timeout=self._config.auth_timeout,
                close_timeout=session.CLOSE_TIMEOUT,
                backlog=ACCEPTS,
                server_header=None,
                ssl=self._tls,
                ssl_handshake_timeout=self._config.auth_timeout if self._tls else None,
                ssl_shutdown_timeout=session.CLOSE_TIMEOUT if self._tls else None,
            ) as server:
                self.port = _port(server)
                deepen(server.sockets)
                self.listening.set()
                log.info("listening", gateway=self.name, host=self._config.host, port=self.port)
                await self._stopping.wait()
                server.close()
                await bounded(server.wait_closed(), list(server.connections))
        finally:
            rechecking.cancel()
            await asyncio.wait({rechecking})

    @property
    def connected(self) -> int:
        """How many sockets are open."""
        return self._open

    def stop(self) -> None:
        """Let `run` close every socket and return."""
        self._stopping.set()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Turn away pages that may not connect, and when there are too many everybody."""
        origins = request.headers.get_all("Origin")
        if not self._origins.allow(origins, request.headers.get_all("Host")):
            return self._foreign(connection, ", ".join(origins)[:ORIGIN_SHOWN])
        if self._open < self._config.connections:
            return None
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")

    def _foreign(self, connection: ServerConnection, origin: str) -> Response:
        if origin not in self._turned_away and len(self._turned_away) < ORIGINS_LOGGED:
            self._turned_away.add(origin)
            log.warning("origin_not_allowed", gateway=self.name, key="browser.origins", add=origin)
        return connection.respond(
            HTTPStatus.FORBIDDEN,
            f"Pages of {origin} may not connect. If they should, add this origin to the key"
            " browser.origins of commserver's configuration.\n",
        )

    async def _serve(self, socket: ServerConnection) -> None:
        """Serve one socket until it is closed by either side."""
        client = self._client(socket)
        structlog.contextvars.bind_contextvars(gateway=self.name, client=client)
        serving = Session(
            socket, self._config, self._room, self._interpreter, self._rechecks, client
        )
        self._open += 1
        try:
            await serving.run()
        finally:
            self._open -= 1

    def _client(self, socket: ServerConnection) -> str:
        """Return the address of whoever is behind a socket, "" when it has vanished already."""
        peer = socket.remote_address
        assert socket.request is not None
        forwarded = socket.request.headers.get_all("X-Forwarded-For")
        return self._proxies.client(peer[0], forwarded) if peer else ""


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return how to speak TLS, None when nothing is configured.

    Raises:
        ConfigError: what is configured cannot be used.
    """
    if cert is None:
        if key is not None:
            raise ConfigError(["browser.tls_key is given and browser.tls_cert is not"])
        return None
    try:
        return server_context(cert, key)
    except ConfigError as error:
        problems = [f"browser.tls_cert, browser.tls_key: {one}" for one in error.problems]
        raise ConfigError(problems) from error


def _port(server: WebSocketServer) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port
