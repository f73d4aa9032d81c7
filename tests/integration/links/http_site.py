"""The real HttpServer with every service behind it, on one database."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.routing import BaseRoute

from commserver.config import Http
from commserver.core.jobs import AttemptId
from commserver.gateways.http.actions import Door
from commserver.gateways.http.routing import Guard, routes
from commserver.gateways.http.server import HttpServer
from commserver.services.announcement_service import AnnouncementService
from commserver.services.audit_service import AuditService
from commserver.services.record_service import RecordService
from commserver.services.request_service import RequestService
from commserver.services.status_service import StatusService
from tests.fakes import FakeClock, settle
from tests.integration.links.conftest import SECRET
from tests.integration.services.site import Site
from tests.unit.gateways.http.checked import Checked

PATIENCE = 60.0  # seconds for what must come
ADMIN = "the admins' token"
SERVER = {"Authorization": f"Bearer {SECRET}"}
EXECUTIONS = "/api/v1/executions"


def door_of(site: Site) -> Door:
    """Return what the endpoints work with, on a site's services."""
    return Door(
        site.exec,
        RequestService(site.database, site.daos, site.exec, site.clock),
        RecordService(site.database, site.daos, site.board),
        AnnouncementService(site.database, site.daos, site.clock),
        AuditService(site.database, site.daos, site.clock),
        StatusService({}, site.clock),
        ready=lambda: site.database.read(site.daos.announcements.newest, deadline=1.0),
    )


@asynccontextmanager
async def serving(
    config: Http, served: Sequence[BaseRoute]
) -> AsyncIterator[tuple[HttpServer, asyncio.Task[None]]]:
    """Serve routes until the end of the block."""
    server = HttpServer(config, served)
    running = asyncio.create_task(server.run())
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if running.done():
        await running
    try:
        yield server, running
    finally:
        server.stop()
        async with asyncio.timeout(PATIENCE):
            await running


class HttpSite:
    """A site that can be asked over HTTP; `client` shows the server token."""

    def __init__(self, site: Site, door: Door, server: HttpServer, client: Checked) -> None:
        self.site = site
        self.door = door
        self.server = server
        self.client = client
        self.admin = {"Authorization": f"Bearer {ADMIN}"}

    @property
    def clock(self) -> FakeClock:
        return self.site.clock

    async def attempt(self) -> AttemptId:
        """Add an attempt that can be judged."""
        return await self.site.attempt(await self.site.exercise())

    async def submit(self, id: object, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.client.post(EXECUTIONS, json={"id": id}, headers=headers)

    async def later(self, asking: asyncio.Task[httpx.Response]) -> httpx.Response:
        """Let time pass until a request that waits for something is answered."""
        async with asyncio.timeout(PATIENCE):
            while not asking.done():
                if self.clock.alarms:
                    self.clock.advance(5.0)
                await settle(1)
                await asyncio.sleep(0.001)  # the database's threads need time of their own
        return asking.result()


@asynccontextmanager
async def http_site(site: Site, **settings: Any) -> AsyncIterator[HttpSite]:
    """Yield an open site with an HTTP side."""
    config = Http(**{"port": 0, "token": SECRET, **settings})
    door = door_of(site)
    guard = Guard(config, ADMIN, site.clock)
    async with serving(config, routes(door, guard)) as (server, _):
        base = f"http://127.0.0.1:{server.port}"
        async with Checked(base_url=base, headers=SERVER, trust_env=False) as client:
            yield HttpSite(site, door, server, client)


class Wire:
    """A TCP connection whose bytes a test says itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, port: int, context: ssl.SSLContext | None = None) -> "Wire":
        name = "localhost" if context else None
        return cls(
            *await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=name, limit=1 << 20
            )
        )

    async def say(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.writer.write(chunk)
            await self.writer.drain()

    async def heard(self) -> bytes:
        """Return all that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read()
        self.writer.close()
        return data

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and JSON of the next answer."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().strip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await self._reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, json.loads(body)

    async def ended(self) -> bool:
        """Wait until the server has closed; True when it had nothing more to say."""
        try:
            return await self.heard() == b""
        except ConnectionError:
            return True


async def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    making = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(cert)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await making.wait() == 0
    return cert, key
