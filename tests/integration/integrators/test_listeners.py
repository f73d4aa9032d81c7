"""The examples for other people's languages: each welcomes our real Client and pushes to it."""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from commserver.config import Backend
from commserver.gateways.backend.client import Client
from commserver.reference.conformance import Conformance, Target
from commserver.trial import free_port
from tests.conftest import ROOT, missing
from tests.unit.gateways.backend.links import FedFinals
from tests.unit.gateways.services import RecordingExecService

LISTENERS = ROOT / "examples" / "listeners"
TOKEN, ATTEMPT = "SERVER_TOKEN", 42
PATIENCE = 60.0  # seconds for what must come; a virtual machine starts first
PROGRAMS = {
    "listener.py": (sys.executable, ""),
    "listener.js": ("node", "node runs listener.js: install nodejs"),
    "Listener.java": ("java", "java runs Listener.java: install openjdk-17-jdk-headless"),
    "listener.php": ("php", "php runs listener.php: install php-cli"),
}


@asynccontextmanager
async def listening(name: str) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Run a listener; yields its port and what it prints."""
    program, lack = PROGRAMS[name]
    if shutil.which(program) is None:
        missing(lack)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(program, str(LISTENERS / name), str(port), TOKEN, str(ATTEMPT)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _answers(port):
                assert process.returncode is None, "it has ended"
        yield port, process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0.05)  # another process has no event for us
        return False
    writer.close()
    return True


@asynccontextmanager
async def running(port: int, token: str) -> AsyncIterator[RecordingExecService]:
    """Run the real Client for the length of the block; yields what it hands over to."""
    execs = RecordingExecService()
    config = Backend(port=port, token=SecretStr(token), retry_first=0.05)
    client = Client("school", config, execs, FedFinals())
    task = asyncio.create_task(client.run())
    try:
        yield execs
    finally:
        client.stop()
        async with asyncio.timeout(PATIENCE):
            await task


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_listener_welcomes_commserver_prints_what_comes_and_pushes(name: str) -> None:
    async with listening(name) as (port, printed):
        async with running(port, "wrong") as execs, asyncio.timeout(PATIENCE):
            wrong = await printed.readline()
        taken_of_strangers = execs.attempts
        for _ in range(2):  # it is still there after commserver has left
            async with running(port, TOKEN) as execs, asyncio.timeout(PATIENCE):
                right = await printed.readline()
                assert await execs.until_taken(1) == [ATTEMPT]

    assert b'"wrong"' in wrong
    assert taken_of_strangers == []
    assert right.strip() == b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}'


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"listener.php"}))
async def test_a_listener_that_serves_several_links_breaks_no_rule(name: str) -> None:
    async with listening(name) as (port, _):
        target = Target("127.0.0.1", port, TOKEN, settle=0.05, idle=0.1, patience=1.0)
        findings = await Conformance(target).run()

    assert [finding for finding in findings if finding.outcome == "failed"] == []


def test_every_listener_is_tried_and_short() -> None:
    files = {path.name: path for path in LISTENERS.iterdir()}

    assert files.keys() == PROGRAMS.keys()
    lines = {name: len(_code(path)) for name, path in files.items()}
    assert all(count <= (25 if name == "Listener.java" else 15) for name, count in lines.items())


def _code(path: Path) -> list[str]:
    """Return the lines in which something stands beside brackets."""
    return [line for line in path.read_text().splitlines() if line.strip("{}();\t ")]
