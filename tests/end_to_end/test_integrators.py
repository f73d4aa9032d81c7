"""A platform's CI against a real server with its real engine."""

import asyncio
import os
import sys

import pytest

from commserver.trial import SERVER_TOKEN
from tests.end_to_end.conftest import MakeSite

pytestmark = pytest.mark.docker


async def test_the_scripted_backend_finds_that_all_is_as_it_should_be(make_site: MakeSite) -> None:
    site = await make_site()
    await site.backend.stop()  # this one takes its place
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commserver.cli", "backend", "--http-port", "0"),
        *("--state-dir", str(site.trial.state), "--script", "right,wrong,error"),
        *("--timeout", "60"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {
            "COMMSERVER_BACKEND__PORT": str(site.trial.backend_port),
            "COMMSERVER_BACKEND__TOKEN": SERVER_TOKEN,
        },
    )

    said, _ = await process.communicate()

    assert process.returncode == 0, said.decode()
    assert said.decode().splitlines()[-1] == "as expected: 3 of 3"
