"""`commserver backend --script`: a stand-in for a platform's CI, against the real application."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from commserver import app, operations
from commserver.cli import cli
from commserver.config import Backend, Browser, Config, Docker, Http, Queue
from commserver.core.execution import ExecutionRequest, Process, Stage
from commserver.dao import migrations
from commserver.errors import ConfigError
from commserver.trial import free_port
from tests.fake_sandbox import FakeSandbox, prints, says, stdin

TOKEN = "SERVER_TOKEN"
PATIENCE = 60.0  # seconds for what must come


def runs_python(request: ExecutionRequest, stage: Stage, process: Process) -> bytes:
    """Run the example's own solutions, which harm nobody, without an engine."""
    names = {placement.name for placement in process.files}
    [source] = [file.content.decode() for file in request.files if file.name in names]
    words = (sys.executable, "-c", source)
    told = stdin(request, stage, process)
    return subprocess.run(words, input=told, capture_output=True, check=True).stdout


@pytest.fixture
async def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A migrated site."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    made = Config(
        state_dir=tmp_path / "state",
        backend=Backend(port=free_port(), token=SecretStr(TOKEN), retry_first=0.05, retry_most=0.2),
        browser=Browser(port=0),
        http=Http(enabled=False),
        docker=Docker(slots=1),
        queue=Queue(grace=0.0, sweep="off"),
    )
    made.state_dir.mkdir()
    async with operations.opened(made) as database:
        await migrations.upgrade(database, with_platform=True)
    return made


@asynccontextmanager
async def serving(config: Config, engine: FakeSandbox) -> AsyncIterator[None]:
    async with app.built(config, sandboxes=lambda *_: [engine]) as built:
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served


async def backend(config: Config, *arguments: str) -> tuple[int | None, list[str]]:
    """Run the command in a process of its own; returns its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commserver.cli", "backend", "--http-port", "0"),
        *("--state-dir", str(config.state_dir), *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ
        | {
            "COMMSERVER_BACKEND__PORT": str(config.backend.port),
            "COMMSERVER_BACKEND__TOKEN": TOKEN,
        },
    )
    async with asyncio.timeout(PATIENCE):
        said, _ = await process.communicate()
    return process.returncode, said.decode().splitlines()


async def test_every_word_ends_as_it_says(config: Config) -> None:
    engine = FakeSandbox()
    engine.otherwise = prints(runs_python)

    async with serving(config, engine):
        status, said = await backend(config, "--script", "right,wrong,error", "--timeout", "20")

    assert (status, said[-1]) == (0, "as expected: 3 of 3"), said
    ends = [line for line in said if '"EXECUTED"' in line or '"ERROR"' in line]
    assert ['"accepted"' in ends[0], '"wrong_answer"' in ends[1], '"teacher"' in ends[2]] == [
        True,
        True,
        True,
    ], ends
    assert sum('"ACCEPTED"' in line for line in said) == 3
    assert sum('"ACK"' in line for line in said) == 3
    assert not any(TOKEN in line for line in said)


async def test_what_differs_is_said_and_exits_1(config: Config) -> None:
    engine = FakeSandbox()
    engine.otherwise = says("nonsense")

    async with serving(config, engine):
        status, said = await backend(config, "--script", "right,wrong", "--timeout", "20")

    assert status == 1
    assert said[-2].endswith("should have ended with accepted, not with wrong_answer")
    assert said[-1] == "as expected: 1 of 2"


async def test_without_a_commserver_nothing_ends(config: Config) -> None:
    status, said = await backend(config, "--script", "right", "--timeout", "0.2")

    assert status == 1
    assert said[-1] == "differs: no commserver is connected"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("left", "--script: 'left' is none of right, wrong, error"),
        ("right,,wrong", "--script: '' is none of right, wrong, error"),
    ],
)
def test_an_unknown_word_is_a_sentence(words: str, why: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["backend", "--script", words, "--state-dir", str(tmp_path)])

    assert isinstance(told.exception, ConfigError)
    assert told.exception.problems == (why,)
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_written_into_a_live_platforms_tables(config: Config) -> None:
    path = config.state_dir / "commserver.db"
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE platform_version")

    status, said = await backend(config, "--script", "right")

    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM user_exercises").fetchone() == (0,)
    assert status == 2
    assert "a live platform's" in said[-1]


def test_help_names_the_script_too() -> None:
    told = CliRunner().invoke(cli, ["backend", "--help"])

    assert told.exit_code == 0
    assert told.output.startswith("--script right,wrong,error")
    assert "--expect" in told.output
