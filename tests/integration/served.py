"""A server process of a test, and what it says."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.nursery import Child, Nursery

PATIENCE = 90.0  # seconds for what must come


class Server:
    """`commserver serve` with this environment; its log is beside its state folder."""

    def __init__(self, process: Child, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_signal(self, signal: int) -> None:
        self._process.send_signal(signal)

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit status."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def said(self, event: str) -> None:
        """Wait until it has said this."""
        async with asyncio.timeout(PATIENCE):
            while f'"{event}"' not in self._log.read_text():
                assert self._process.returncode is None, "it ended without having said it"
                await asyncio.sleep(0.02)  # a log has no event for us to wait for

    async def complaint(self) -> str:
        """Wait until it has ended by itself; returns its last line."""
        await self.wait()
        return self._log.read_text().splitlines()[-1]


@asynccontextmanager
async def serving(nursery: Nursery, state: Path) -> AsyncIterator[Server]:
    """Start a server, and end it by force if the test does not."""
    state.parent.mkdir(exist_ok=True)
    number = len(list(state.parent.glob("serve-*.log")))
    log = state.parent / f"serve-{number}.log"
    log.touch()
    arguments = ("serve", "--state-dir", str(state))
    process = await nursery.start("commserver.cli", arguments, os.environ, log)
    try:
        yield Server(process, log)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
