"""The application as it is built and ended, on fake engines."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver import app, operations
from commserver.app import App
from commserver.config import Backend, Browser, Config, Database, Docker, Files, Http, Queue
from commserver.core.finals import WEBHOOK, backend
from commserver.core.jobs import Origin
from commserver.core.states import State
from commserver.engine import discovery
from commserver.errors import AlreadyManaged, ConfigError, StoreError, StoreFull
from commserver.services.docker_manager import Sandbox
from commserver.services.file_store import FileStore
from commserver.services.status_service import Item
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.services.site import Site, until


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(state: Path, url: str) -> Config:
    """One slot, no backend, a free port."""
    return Config(
        state_dir=state,
        database=Database(url=url),
        backend=Backend(enabled=False),
        browser=Browser(port=0),
        http=Http(port=0),
        docker=Docker(slots=1),
        queue=Queue(grace=0.0),
    )


@dataclass
class Engines:
    """Makes one fake engine and remembers for whom."""

    engine: FakeSandbox = field(default_factory=FakeSandbox)
    site: str = ""
    boot: str = ""

    def __call__(self, site: str, boot: str) -> Sequence[Sandbox]:
        self.site, self.boot = site, boot
        return [self.engine]


@asynccontextmanager
async def running(config: Config, engines: Engines) -> AsyncIterator[App]:
    """Serve for the length of the block, then end in order."""
    async with app.built(config, sandboxes=engines) as built:
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        try:
            yield built
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await served


async def test_what_an_earlier_process_left_is_judged(
    config: Config, state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as before:
        attempt = await before.attempt(await before.exercise())
        await before.submit(attempt)

    async with running(config, Engines()) as serving:
        await until(lambda: len(serving.dispatcher.board) == 0)

    async with Site(state, clock, url=url).open() as after:
        assert [grade for grade, _ in await after.results(attempt)] == [20]


async def test_of_two_runs_that_an_earlier_process_left_the_newer_is_judged(
    config: Config, state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as before:
        attempt = await before.attempt(await before.exercise())
        older = await before.submit(attempt)
        await before.lease()
        await before.edit(attempt, "print('newer')")
        newer = await before.submit(attempt)

    async with running(config, Engines()) as serving:
        await until(lambda: len(serving.dispatcher.board) == 0)

    async with Site(state, clock, url=url).open() as after:
        assert (await after.row(older)).state is State.SUPERSEDED
        assert (await after.row(newer)).state is State.DONE


async def test_what_runs_at_the_end_is_put_back(
    config: Config, state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as before:
        run = await before.submit(await before.attempt(await before.exercise()))
    engines = Engines()
    engines.engine.hang()

    async with running(config, engines):
        await until(lambda: engines.engine.running)

    assert engines.engine.cancelled == [run]
    async with Site(state, clock, url=url).open() as after:
        assert after.board.place(run) == 1
        assert (await after.row(run)).tries == 0


async def test_a_site_keeps_its_name_and_every_start_has_its_own(config: Config) -> None:
    starts = [Engines(), Engines()]
    for engines in starts:
        async with app.built(config, sandboxes=engines):
            pass

    assert starts[0].site == starts[1].site != ""
    assert starts[0].boot != starts[1].boot


async def test_a_database_has_one_manager_at_a_time(config: Config) -> None:
    async with app.built(config, sandboxes=Engines()):
        with pytest.raises(AlreadyManaged, match=f"{os.getpid()} on "):
            async with app.built(config, sandboxes=Engines()):
                pass

    async with app.built(config, sandboxes=Engines()):
        pass


async def test_a_database_without_our_tables_is_not_served_from(
    config: Config, empty_url: str
) -> None:
    empty = config.model_copy(update={"database": Database(url=empty_url)})

    for _ in range(2):  # and it is let go again
        with pytest.raises(StoreError, match="run `commserver migrate`"):
            async with app.built(empty, sandboxes=Engines()):
                pass


async def test_a_database_of_an_unknown_kind_is_a_wrong_configuration(config: Config) -> None:
    other = config.model_copy(update={"database": Database(url="mysql://root:secret@db/x")})

    with pytest.raises(ConfigError) as caught:
        async with app.built(other, sandboxes=Engines()):
            pass

    assert "secret" not in str(caught.value)


async def test_a_port_that_is_taken_ends_the_server(config: Config) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        browser = Browser(port=taken.getsockname()[1])
        async with app.built(
            config.model_copy(update={"browser": browser}), sandboxes=Engines()
        ) as built:
            with pytest.raises(ExceptionGroup) as caught:
                await built.run(asyncio.Event())

    assert caught.group_contains(OSError, match="in use")


def test_the_configured_engines_are_used(config: Config) -> None:
    hosts = ("unix:///a.sock", "tcp://b:2375")

    assert app.engines(config.model_copy(update={"docker": Docker(hosts=hosts)})) == list(hosts)


@pytest.mark.parametrize("found", ["unix:///found.sock", None])
def test_else_the_engine_of_this_machine_be_it_there_or_not(
    config: Config, found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///wanted.sock")
    monkeypatch.setattr(discovery, "find", lambda *_, **__: found)

    assert app.engines(config) == [found or "unix:///wanted.sock"]


async def test_finals_that_are_owed_to_nobody_who_is_configured_are_told_at_the_start(
    config: Config, state: Path, url: str, clock: FakeClock
) -> None:
    tell = (backend("backend"), backend("old_name"), WEBHOOK)
    async with Site(state, clock, url=url).open() as before:
        before.dispatcher.join(make_offer())
        exercise = await before.exercise()
        for number in range(2):
            attempt = await before.attempt(exercise, {"main.py": str(number)})
            await before.exec.submit(attempt, Origin("backend", "old_name", "ref"), tell)
            await before.runs.finished(await before.lease(), completed(7))
    renamed = Backend.model_validate({"enabled": False, "links": {"new_name": {}}})

    warned = []
    for other in (config, config.model_copy(update={"backend": renamed})):
        with capture_logs() as logs:
            async with app.built(other, sandboxes=Engines()):
                pass
        lines = [line for line in logs if line["event"] == "owed_to_nobody"]
        assert {line["log_level"] for line in lines} == {"warning"}
        warned.append([(line["recipient"], line["finals"]) for line in lines])

    assert warned == [
        [("backend:old_name", 2), ("webhook", 2)],
        [("backend:backend", 2), ("backend:old_name", 2), ("webhook", 2)],
    ]


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
async def test_a_server_counts_its_files_and_holds_to_their_configured_limits(
    config: Config, state: Path
) -> None:
    limited = config.model_copy(update={"files": Files(limit=4096, file_limit=10)})
    await FileStore(state / "files").put(b"was there")
    store = operations.stored(limited)
    await store.measure()

    async with running(limited, Engines()) as serving:
        status = serving.door.status

        async def counted() -> Item:
            return (await status.report()).parts["files"][0]

        async with asyncio.timeout(10):
            item = await counted()
            while not item.values["files"]:
                item = await counted()

    assert item.values == {"bytes": 4096, "files": 1, "damaged": 0, "limit": 4096}
    assert "nearly full" in item.problem
    for content, key in ((b"more", "files.limit"), (b"a longer file", "files.file_limit")):
        with pytest.raises(StoreFull, match=key):
            await store.put(content)
