"""A whole server in this process, with its platform and an engine that does as it is told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from commserver import app
from commserver.app import App
from commserver.config import Backend, Browser, Config, Database, Docker, Http, Queue
from commserver.core.jobs import AttemptId
from commserver.reference.backend import ReferenceBackend
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.services.site import Site

TOKEN = "server-token"
PATIENCE = 60.0  # seconds for what must come


class Room:
    """Students hand in here; the engine runs one program at a time.

    site: the platform, with connections of its own; its services are not used.
    """

    def __init__(self, state: Path, url: str, **http: object) -> None:
        self.site = Site(state, FakeClock(utc=datetime.now(UTC)), url=url)
        self.engine = FakeSandbox()
        self.backend = ReferenceBackend(TOKEN)
        self.page = self.socket = ""
        self._http = http
        self._ports = (0, 0)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Room"]:
        """Let backend and platform be there, not yet the server."""
        await self.backend.start("127.0.0.1", 0, None)
        try:
            async with self.site.database:
                yield self
        finally:
            await self.backend.stop()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[App]:
        """Run the server for the length of the block, each time at the same addresses."""
        browser_port, http_port = self._ports
        config = Config(
            state_dir=self.site.state,
            database=Database(url=self.site.url),
            backend=Backend(port=self.backend.port, token=SecretStr(TOKEN)),
            browser=Browser(port=browser_port, place_period=0.0),
            http=Http.model_validate({"port": http_port, **self._http}),
            docker=Docker(slots=1),
            queue=Queue(grace=0.0, sweep="off", max_tries=1),
        )
        async with app.built(config, sandboxes=lambda site, boot: [self.engine]) as built:
            assert built.http
            stop = asyncio.Event()
            served = asyncio.create_task(built.run(stop))
            try:
                async with asyncio.timeout(PATIENCE):
                    await built.server.listening.wait()
                    await built.http.listening.wait()
                    await self.backend.connected.wait()
                self._ports = (built.server.port, built.http.port)
                self.socket = f"ws://127.0.0.1:{built.server.port}"
                self.page = f"http://127.0.0.1:{built.http.port}"
                yield built
            finally:
                stop.set()
                async with asyncio.timeout(PATIENCE):
                    await served

    def step(self) -> None:
        """Let what runs end, and what comes after it begin."""
        self.engine.resume()
        self.engine.hang()

    async def token(self, student: str = "ada") -> str:
        """Return a new token of a student."""
        return await self.site.admin.new_token(await self.site.admin.account(student))

    async def hand_in(
        self, number: int = 1, *, student: str = "ada", title: str = "Double it"
    ) -> list[AttemptId]:
        """Write right solutions and have the backend push them."""
        exercise = await self.site.exercise(title=title)
        attempts = [await self.site.attempt(exercise, student=student) for _ in range(number)]
        self.push(attempts)
        return attempts

    def push(self, attempts: Sequence[AttemptId]) -> None:
        """Have the backend push an EXERCISE for each."""
        for attempt in attempts:
            self.backend.submit(str(attempt))
