"""Faults of the database, under a whole server in this process; only its engine is a fake."""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs
from structlog.typing import EventDict, WrappedLogger

from commserver import app
from commserver.app import App
from commserver.cluster import Cluster
from commserver.config import Backend, Browser, Config, Database, Docker, Http, Queue
from commserver.core.jobs import AttemptId
from commserver.reference.backend import ReferenceBackend
from commserver.trial import Browser as Tab
from commserver.trial import Packet
from tests.conftest import missing
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.services.site import Site

TOKEN = "server-token"
PATIENCE = 60.0  # seconds for what must come
TIMEOUT = 2.0  # seconds that these servers give their database
LOOK = 0.02  # seconds between two looks at what gives no sign
LOCKS = (
    "FROM pg_locks WHERE locktype = 'advisory' AND database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)
CUT_CLAIM = f"SELECT pg_terminate_backend(pid) {LOCKS} AND granted"
CLAIMANTS = f"SELECT count(*) {LOCKS} AND NOT granted"
COUNTED = ("executions", "grades", "logs", "notices")


# -- disks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system of its own."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self) -> None:
        """Leave no block free."""
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(_DiskFull):
            while True:
                try:
                    file.write(bytes(4096))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    raise _DiskFull from error

    def free(self) -> None:
        """Have room again."""
        self._ballast.unlink()


class _DiskFull(Exception):
    pass


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk with nothing on it, which any user of this machine may reach."""
    folder = Path(tempfile.mkdtemp(prefix="commserver-disk-"))
    folder.chmod(0o711)
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=0755", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            missing(f"no disk can be mounted: {mounted.stderr.strip()}")
        try:
            yield Disk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


@pytest.fixture
def small_url(engine_name: str, disk: Disk, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database with every table and no row, on the small disk."""
    if engine_name == "sqlite":
        path = disk.folder / "commserver.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    template: str = request.getfixturevalue("postgresql_template")
    space = disk.folder / "space"
    space.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(space, "postgres", "postgres")
    cluster.sql(f"CREATE TABLESPACE small LOCATION '{space}'")
    try:
        cluster.sql(f'CREATE DATABASE "on_small" TEMPLATE "{template}" TABLESPACE small')
        yield cluster.url("on_small")
    finally:
        cluster.drop("on_small")
        cluster.sql("DROP TABLESPACE small")


# -- the server -----------------------------------------------------------------------------------


class Room:
    """A server with its backend, its browsers and an engine that says what each test tells it.

    site: the platform, with connections of its own; its services are not used.
    served: the server, once it was started.
    """

    served: asyncio.Task[None]

    def __init__(self, state: Path, url: str, logs: list[EventDict]) -> None:
        self.logs = logs
        self.site = Site(state, FakeClock(utc=datetime.now(UTC)), url=url)
        self.engine = FakeSandbox()
        self.backend = ReferenceBackend(TOKEN)
        self.tabs: list[Tab] = []
        self._exercise = 0
        self._address = ""
        self.queue = Queue(grace=0.0, sweep="off")
        self.timeout = TIMEOUT

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Room"]:
        """Let backend and platform be there, not yet the server."""
        await self.backend.start("127.0.0.1", 0, None)
        try:
            async with self.site.database:
                self._exercise = await self.site.exercise()
                yield self
        finally:
            await self.backend.stop()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[App]:
        """Run the server for the length of the block; browsers are sent away at its end."""
        config = Config(
            state_dir=self.site.state,
            database=Database(url=self.site.url, timeout=self.timeout),
            backend=Backend(port=self.backend.port, token=SecretStr(TOKEN)),
            browser=Browser(port=0, place_period=0.0),
            http=Http(enabled=False),
            docker=Docker(slots=2),
            queue=self.queue,
        )
        async with app.built(config, sandboxes=lambda site, boot: [self.engine]) as built:
            stop = asyncio.Event()
            self.served = served = asyncio.create_task(built.run(stop))
            try:
                async with asyncio.timeout(PATIENCE):
                    await built.server.listening.wait()
                    await self.backend.connected.wait()
                self._address = f"ws://127.0.0.1:{built.server.port}"
                yield built
            finally:
                stop.set()
                for tab in self.tabs:
                    await tab.close()
                async with asyncio.timeout(PATIENCE):
                    await served

    # -- who takes part ---------------------------------------------------------------------------

    async def token(self, student: str = "ada") -> str:
        return await self.site.admin.new_token(await self.site.admin.account(student))

    async def dial(self, token: str) -> Tab:
        """Open a tab and return it once it was answered, be it with OK."""
        tab = await Tab().open(self._address, token)
        self.tabs.append(tab)
        await tab.until(lambda: bool(tab.packets), PATIENCE)
        return tab

    async def tab(self, student: str = "ada") -> Tab:
        """Open a tab of a student who is let in."""
        tab = await self.dial(await self.token(student))
        assert tab.packets[0]["cmd"] == "OK"
        return tab

    async def attempts(self, number: int, student: str = "ada") -> list[AttemptId]:
        """Write right solutions, and push none."""
        return [await self.site.attempt(self._exercise, student=student) for _ in range(number)]

    def push(self, attempts: Sequence[AttemptId]) -> None:
        for attempt in attempts:
            self.backend.submit(str(attempt))

    @asynccontextmanager
    async def stranger(self, *statements: str, undo: bool = False) -> AsyncIterator[None]:
        """Hold a transaction of somebody else's open for the length of the block.

        undo: it is rolled back at the end, else committed. On SQLite it keeps all other writers
        out, whatever its statements are.
        """
        begun, over = asyncio.Event(), asyncio.Event()

        async def work(connection: AsyncConnection) -> None:
            for statement in statements:
                await connection.execute(text(statement))
            begun.set()
            await over.wait()
            if undo:
                await connection.rollback()

        held = asyncio.create_task(self.site.database.write(work, deadline=PATIENCE))
        try:
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
            yield
        finally:
            over.set()
            await held

    # -- what there is ----------------------------------------------------------------------------

    async def counts(self) -> dict[str, int]:
        """Return how many rows each table has that a run's life writes to."""
        return {table: await self.site.count(table) for table in COUNTED}

    def said(self, event: str) -> list[EventDict]:
        """Return the lines that the server logged of this event."""
        return [line for line in self.logs if line["event"] == event]

    async def logged(self, event: str, times: int = 1) -> list[EventDict]:
        """Wait for lines of this event and return them."""
        await until(lambda: len(self.said(event)) >= times)
        return self.said(event)

    async def once(self, tab: Tab, attempts: Sequence[AttemptId]) -> None:
        """Wait for every final and see that nothing was lost and nothing doubled.

        One run, grade, log and final for each attempt; numbers without a gap, told in their order;
        places that only fell; nobody had to be called.
        """
        await tab.until(lambda: all(tab.final(one) for one in attempts), PATIENCE)
        finals = [packet for packet in tab.packets if packet["cmd"] == "EXERCICE_EXECUTED"]
        assert [final["seq"] for final in finals] == [str(n + 1) for n in range(len(attempts))]
        assert {final["status"] for final in finals} == {"accepted"}
        for table in ("executions", "grades", "logs"):
            query = f"SELECT user_exercise_id, count(*) FROM {table} GROUP BY 1"  # noqa: S608
            counted = {row[0]: row[1] for row in await self.site.sql(query)}
            assert counted == dict.fromkeys(attempts, 1), table
        owed = "SELECT seq, state, tries FROM notices JOIN executions ON id = execution_id"
        rows = await self.site.sql(f"{owed} ORDER BY seq")
        assert rows == [(n + 1, "done", 0) for n in range(len(attempts))]
        for attempt in attempts:
            places = _places(tab.of(attempt))
            assert places == sorted(places, reverse=True)
        assert [line for line in self.logs if line["log_level"] == "error"] == []


def _places(packets: Sequence[Packet]) -> list[int]:
    return [int(packet["place"]) for packet in packets if packet["cmd"] == "PLACE_IN_QUEUE"]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so that gives no sign of it."""

    async def asked() -> object:
        return condition()

    await until_so(asked)


async def until_so(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait likewise for what has to be asked for."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            if await condition():
                return
            await asyncio.sleep(LOOK)


def _stamped(logger: WrappedLogger, method: str, line: EventDict) -> EventDict:
    return {**line, "at": time.monotonic()}


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, and little time for links to end."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(app, "LINKS_GRACE", 0.5)


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[list[EventDict]]:
    """The lines that were logged; none may have a traceback, nor may any library complain."""
    with capture_logs([structlog.contextvars.merge_contextvars, _stamped]) as lines:
        yield lines
    assert [line for line in lines if "exc_info" in line] == []
    assert [(r.name, r.getMessage()) for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with nothing in it."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
async def room(state: Path, url: str, logs: list[EventDict]) -> AsyncIterator[Room]:
    """A server that is not yet started, on a database of each kind."""
    async with Room(state, url, logs).open() as room:
        yield room


@pytest.fixture
async def cramped(state: Path, small_url: str, logs: list[EventDict]) -> AsyncIterator[Room]:
    """The same with its database on the small disk."""
    async with Room(state, small_url, logs).open() as room:
        yield room
