"""A whole site for each test: server process, reference backend, database, real engine."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import docker
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver import operations
from commserver.core.jobs import AttemptId
from commserver.dao.codes import SourceFile
from commserver.reference.backend import ReferenceBackend
from commserver.trial import SERVER_TOKEN, Browser, Packet, Trial
from tests.databases import made
from tests.hostile.inventory import processes
from tests.nursery import Nursery

DOUBLE = """
format = 1
key = "double"
course = "python-101"
title = "Double it"
kind = "tests"
language = "python"
limits = { cpu = "2 s", real = "10 s" }

[[cases]]
name = "the example"
input = "21\\n"
expected = "42\\n"
"""
RIGHT = "print(int(input()) * 2)"


@dataclass(slots=True)
class Site:
    """A running site and whoever takes part in it."""

    trial: Trial
    backend: ReferenceBackend
    exercise: int
    docker_url: str
    id: str = ""  # once a server was there
    browsers: dict[str, list[Browser]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    async def join(self, name: str, tabs: int = 1) -> list[Browser]:
        """Open tabs of an account, which is added if there is none, once each was told OK."""
        async with self.trial.admin() as admin:
            if name not in self.tokens:
                self.tokens[name] = await admin.new_token(await admin.account(name))
        opened = [await Browser().open(self.trial.address, self.tokens[name]) for _ in range(tabs)]
        for browser in opened:
            await browser.until(partial(_any_packet, browser), 90)
        self.browsers.setdefault(name, []).extend(opened)
        return opened

    async def write(self, name: str, *sources: str) -> list[AttemptId]:
        """Write one attempt for each source, as the platform does."""
        async with self.trial.admin() as admin:
            account = await admin.account(name)
            return [
                await admin.add_attempt(account, self.exercise, [SourceFile("main.py", source)])
                for source in sources
            ]

    async def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Return the rows that a statement gives, as a stranger would see them."""

        async def work(connection: AsyncConnection) -> list[tuple[object, ...]]:
            return [tuple(row) for row in await connection.execute(text(statement))]

        async with operations.opened(self.trial.config) as database:
            return await database.read(work)

    def push(self, attempts: Sequence[AttemptId]) -> None:
        """Have the backend push an EXERCISE for each."""
        for attempt in attempts:
            self.backend.submit(str(attempt))

    async def finals(self, browser: Browser, attempts: Sequence[AttemptId]) -> list[Packet]:
        """Wait until every attempt has its final in this tab."""
        await browser.until(lambda: all(browser.final(one) for one in attempts), 90)
        return [final for one in attempts if (final := browser.final(one))]

    def containers(self, *, working: bool = False) -> set[str]:
        """Return the names of this site's containers on the engine.

        working: only of those in which a student's program runs, not of those that begin or wait.
        """
        client = docker.APIClient(base_url=self.docker_url)
        try:
            label = f"commserver.site={self.id}"
            found = client.containers(all=not working, filters={"label": label})
        finally:
            client.close()
        busy = "".join(cgroups_of(b"main.py")) if working else ""
        return {name for one in found if not working or one["Id"] in busy for name in one["Names"]}

    async def working(self) -> set[str]:
        """Wait until a student's program runs; return the names of all containers with one."""
        async with asyncio.timeout(90):
            while not (names := await asyncio.to_thread(self.containers, working=True)):
                await asyncio.sleep(0.02)  # an engine has no event for us to wait for
        return names

    async def tries(self, attempt: AttemptId) -> int:
        """Return how many tries of the attempt's run failed and counted."""
        query = f"SELECT tries FROM executions WHERE user_exercise_id = {attempt}"  # noqa: S608
        [(tries,)] = await self.sql(query)
        assert isinstance(tries, int)
        return tries

    async def leave(self) -> None:
        """Close every tab."""
        for tabs in self.browsers.values():
            for browser in tabs:
                await browser.close()
        self.browsers.clear()


def cgroups_of(argument: bytes) -> Iterator[str]:
    """Yield the cgroups of each process of this machine that was given an argument."""
    for folder in processes():
        try:
            if argument in (folder / "cmdline").read_bytes().split(b"\0"):
                yield (folder / "cgroup").read_text()
        except OSError:
            continue  # it has ended meanwhile


def _any_packet(browser: Browser) -> bool:
    return bool(browser.packets)


async def exercise_of(trial: Trial, folder: Path) -> int:
    """Import the exercise that all these tests hand in to; returns its id."""
    _write_exercise(folder)
    async with trial.admin() as admin:
        return await admin.import_exercise(folder, "teacher")


def _write_exercise(folder: Path) -> None:
    folder.mkdir()
    (folder / "exercise.toml").write_text(DOUBLE)


MakeSite = Callable[..., Awaitable[Site]]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """The database of the site: a SQLite file of its own, or what `on_both_databases` says.

    It has every table already, but for sites beyond the first.
    """
    if getattr(request, "param", "sqlite") == "sqlite":
        state = tmp_path / "site"
        state.mkdir()
        shutil.copy(request.getfixturevalue("sqlite_template"), state / "commserver.db")
        yield None
    else:
        template = request.getfixturevalue("postgresql_template")
        yield from made(request.getfixturevalue("maker"), template)


on_both_databases = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def make_site(
    tmp_path: Path, nursery: Nursery, docker_url: str, database: str | None
) -> AsyncIterator[MakeSite]:
    """Returns a function that makes a site with given server settings and starts its server.

    It starts none when it is told `start=False`.
    """
    async with AsyncExitStack() as stack:

        async def make(name: str = "site", *, start: bool = True, **settings: str) -> Site:
            environ = {f"COMMSERVER_{key.upper()}": value for key, value in settings.items()}
            trial = Trial(
                tmp_path / name,
                host=docker_url,
                database=database,
                settings=environ,
                launch=nursery.start,
            )
            await trial.prepare()
            exercise = await exercise_of(trial, tmp_path / f"{name}-double")
            backend = ReferenceBackend(SERVER_TOKEN)
            await backend.start("127.0.0.1", trial.backend_port, None)
            stack.push_async_callback(backend.stop)
            site = Site(trial, backend, exercise, docker_url)
            stack.push_async_callback(trial.stop)
            stack.push_async_callback(site.leave)
            if start:
                await trial.start()
                [(site_id,)] = await site.sql("SELECT id FROM site")
                site.id = str(site_id)
            return site

        yield make
