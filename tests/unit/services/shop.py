"""Our own slots at work: fake engines, rows in memory and a clock driven by hand, all else real."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from commserver.config import Docker
from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.events import RunEnded, RunLeased, RunProgressed, RunQueued
from commserver.core.jobs import Job, Requires, RunId
from commserver.graders.content import Content
from commserver.services.docker_manager import DockerManager
from commserver.services.file_store import FileStore
from commserver.services.run_service import RunService
from tests.fake_sandbox import FakeSandbox
from tests.fakes import PYTHON, FakeClock, FakeLedger, make_job, settle
from tests.unit.graders.toml import exercise

PATIENCE = 5.0  # seconds of real time for what needs no more than a thread's turn
RIGHT = Content("python", 20, (("main.py", "print(42)"),), exercise())


async def until(condition: Callable[[], object]) -> None:
    """Let all else go on until something is so."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            if condition():
                return
            await settle(1)


class Shop:
    """A DockerManager and everything it needs, with what was told of the runs.

    ended: how, by run. leased: each time. back: each that went back to the queue. progressed.
    closed: the manager has ended by itself.
    """

    def __init__(self, folder: Path, *sandboxes: FakeSandbox, slots: int = 1) -> None:
        self.clock = FakeClock()
        self.ledger = FakeLedger()
        self.board = Board()
        self.bus = EventBus()
        self.files = FileStore(folder)
        self.dispatcher = Dispatcher(self.board, self.ledger, self.bus, self.clock)
        self.runs = RunService(self.dispatcher, self.files)
        self.config = Docker(slots=slots, probe_period=5.0)
        self.manager = DockerManager(self.config, sandboxes, self.runs, self.bus, self.clock)
        self.ended: dict[str, RunEnded] = {}
        self.leased: list[str] = []
        self.back: list[str] = []
        self.progressed: list[str] = []
        self.closed = asyncio.Event()
        self.bus.subscribe(self._told, RunEnded, RunLeased, RunQueued, RunProgressed)

    def _told(self, event: object) -> None:
        match event:
            case RunEnded(job=job):
                assert job.id not in self.ended, "a run ends once"
                self.ended[job.id] = event
            case RunLeased(lease=lease):
                self.leased.append(lease.job.id)
            case RunQueued(job=job, again=True):
                self.back.append(job.id)
            case RunProgressed(stage=stage, text=text):
                self.progressed.append(f"{stage} {text}")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Shop"]:
        """Work until the end of the block."""
        time = asyncio.create_task(self.dispatcher.run())
        work = asyncio.create_task(self.manager.run())
        work.add_done_callback(lambda _: self.closed.set())
        await settle()
        try:
            yield self
        finally:
            for task in (work, time):
                task.cancel()
            await asyncio.wait({work, time})
            if not work.cancelled():
                work.result()

    async def submit(
        self,
        run: str,
        content: Content = RIGHT,
        *,
        requires: Requires = PYTHON,
        lease: float | None = None,
    ) -> Job:
        """Hand something in, stored as the ask door does."""
        job = make_job(run, content=await self.files.put(content.encode()), requires=requires)
        job = replace(job, lease=lease)
        await self.dispatcher.submit(job)
        return job

    async def end_of(self, run: str) -> RunEnded:
        """Wait for a run's end."""
        await until(lambda: run in self.ended)
        return self.ended[run]

    async def counted(self, run: str, tries: int) -> None:
        """Wait until so many tries of a run have been counted."""
        await until(lambda: self.ledger.rows[RunId(run)].tries == tries)

    async def rest(self, seconds: float) -> None:
        """Wait until somebody rests for so long, and let that time pass."""
        due = self.clock.now() + seconds
        await until(lambda: due in self.clock.alarms)
        await self.pass_time(seconds)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and whatever that starts go on."""
        self.clock.advance(seconds)
        await settle()

    def tries(self, run: str) -> int:
        """Return how many tries the run's row has counted."""
        return self.ledger.rows[RunId(run)].tries
