"""The engine goes away and comes back: runs wait or are tried again, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from commserver.trial import Browser
from tests.conftest import missing
from tests.end_to_end.conftest import RIGHT, MakeSite

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SLEEPS = "import time\ntime.sleep(2)\nprint(42)"


class Cable:
    """A way to the engine that can be cut: a socket that hands everything on to the real one."""

    def __init__(self, path: Path, engine: Path) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._engine = engine
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def plug(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def cut(self) -> None:
        """Hang up on everybody and answer nobody."""
        if self._server:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for end in list(self._ends):
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._engine)
        self._ends |= {writer, back}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, back))
                tasks.create_task(_pump(there, writer))
        finally:
            self._ends -= {writer, back}
            writer.close()
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.write_eof()


@pytest.fixture
async def cable(tmp_path: Path, docker_url: str) -> AsyncIterator[Cable]:
    if not docker_url.startswith("unix://"):
        missing("the engine has no socket to stand before")
    cable = Cable(tmp_path / "cable.sock", Path(docker_url.removeprefix("unix://")))
    yield cable
    await cable.cut()


def _waits(browser: Browser, attempt: int) -> bool:
    return any(packet.get("place") == "1" for packet in browser.of(attempt))


async def test_runs_wait_for_an_engine_that_is_not_there_yet(
    make_site: MakeSite, cable: Cable
) -> None:
    site = await make_site(docker__hosts=f'["{cable.url}"]', docker__probe_period="0.2")
    [browser] = await site.join("ada")
    attempts = await site.write("ada", RIGHT)
    site.push(attempts)
    await browser.until(partial(_waits, browser, attempts[0]), 90)

    await cable.plug()

    [final] = await site.finals(browser, attempts)
    assert final["status"] == "accepted"


async def test_a_run_whose_engine_vanishes_under_it_is_tried_again_and_leaves_no_container(
    make_site: MakeSite, cable: Cable
) -> None:
    await cable.plug()
    site = await make_site(docker__hosts=f'["{cable.url}"]', docker__probe_period="0.2")
    [browser] = await site.join("ada")
    attempts = await site.write("ada", SLEEPS)
    site.push(attempts)
    first = await site.working()

    await cable.cut()
    await asyncio.sleep(0.5)  # long enough for it to be noticed
    await cable.plug()

    [final] = await site.finals(browser, attempts)
    assert final["status"] == "accepted"
    assert await site.tries(attempts[0]) == 1, "the engine died under it"
    async with asyncio.timeout(90):
        while site.containers() & first:
            await asyncio.sleep(0.05)
