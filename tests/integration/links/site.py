"""The real Server, with the real queue and watch door behind it; rows are in memory."""

import asyncio
import json
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from commserver.config import Browser
from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.jobs import Job, Lease, OwnerId
from commserver.core.verdicts import Outcome
from commserver.gateways.browser.actions import Services
from commserver.gateways.browser.server import Server
from commserver.gateways.doorkeeper import Doorkeeper
from commserver.services.watch_service import WatchService
from tests.fakes import FakeClock, FakeLedger, completed, make_job, make_offer, settle
from tests.integration.links.conftest import SECRET
from tests.unit.gateways.services import (
    FakeAuthService,
    FakeFinalsService,
    FakeRecordService,
    MemoryDatabase,
    QueueExecService,
    memory_announcements,
)

HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds for what must come
ADA, GRACE = OwnerId("1"), OwnerId("2")


class Site:
    """A server with two students, Ada (1) and Grace (2), and one slot, which the test plays."""

    def __init__(self, **settings: object) -> None:
        """Serve with these settings of the section `browser`."""
        values: dict[str, object] = {"port": 0, "auth_timeout": PATIENCE, **settings}
        config = Browser.model_validate(values)
        bus = EventBus()
        self.clock = FakeClock()
        self.ledger = FakeLedger()
        self.finals = FakeFinalsService(self.ledger)
        self.dispatcher = Dispatcher(Board(), self.ledger, bus, self.clock)
        self.watch = WatchService(self.dispatcher, bus, self.clock, period=1.0)
        self.auth = FakeAuthService({SECRET: 1, "ada's second": 1, "grace": 2})
        self.records = FakeRecordService(self.ledger, self.dispatcher.board)
        self.database = MemoryDatabase()
        self.announcements = memory_announcements(self.database, self.clock)
        services = Services(
            Doorkeeper(self.auth, self.clock),
            self.watch,
            self.finals,
            QueueExecService(self.dispatcher),
            self.records,
            self.announcements,
            self.clock,
        )
        self.server = Server(config, services)
        self._attempts = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._serving = asyncio.create_task(self.server.run())
        self._watching = asyncio.create_task(self.watch.run())
        async with asyncio.timeout(PATIENCE):
            await self.server.listening.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._watching.cancel()
        await asyncio.wait({self._watching})

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.server.port}"

    async def stop(self) -> None:
        """Have the server close everything and end."""
        self.server.stop()
        async with asyncio.timeout(PATIENCE):
            await self._serving

    async def pass_time(self, seconds: float = 2.0) -> None:
        """Let places become due."""
        self.clock.advance(seconds)
        await settle()

    async def submit(self, run: str, owner: OwnerId) -> Job:
        """Have a run wait."""
        self._attempts += 1
        job = make_job(run, owner=owner, attempt=self._attempts)
        await self.dispatcher.submit(job)
        return job

    async def take(self) -> Lease:
        """Have the slot take the next run."""
        [lease] = await self.dispatcher.try_lease(make_offer())
        return lease

    async def start(self, run: str, owner: OwnerId) -> Lease:
        """Submit a run that is taken at once."""
        await self.submit(run, owner)
        return await self.take()

    async def end(self, lease: Lease, outcome: Outcome | None = None) -> None:
        await self.dispatcher.finished(lease, outcome or completed())


async def said(browser: ClientConnection) -> str:
    """Return the next frame, which must be text."""
    async with asyncio.timeout(PATIENCE):
        frame = await browser.recv()
    assert isinstance(frame, str)
    return frame


async def closing(browser: ClientConnection) -> tuple[list[str], int | None]:
    """Return the frames that come before the server closes the socket, and its close code."""
    frames = []
    try:
        while True:
            frames.append(await said(browser))
    except ConnectionClosed as closed:
        return frames, closed.rcvd.code if closed.rcvd else None


def packet(frame: str) -> dict[str, str]:
    """Return the packet in a frame; all of its values are strings."""
    decoded: dict[str, str] = json.loads(frame)
    assert all(isinstance(value, str) for value in decoded.values())
    return decoded
