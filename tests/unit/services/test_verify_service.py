"""Every stored file is looked at once a day, whatever happens to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver.core.jobs import content_hash
from commserver.errors import StoreError
from commserver.services.file_store import FOLDERS, FileStore, Used
from commserver.services.verify_service import DAY, STEP, VerifyService
from tests.fakes import FakeClock
from tests.unit.services.shop import until


class Files(FileStore):
    """A store that notes what is verified; `broken` parts cannot be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.verified: list[str] = []
        self.broken: set[str] = set()
        self.uncounted = 0

    async def measure(self) -> Used:
        if self.uncounted:
            self.uncounted -= 1
            raise StoreError("cannot look through the stored files")
        return await super().measure()

    async def verify(self, folder: str) -> list[str]:
        self.verified.append(folder)
        if folder in self.broken:
            raise StoreError("stored files cannot be read")
        return await super().verify(folder)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def running(files: Files, clock: FakeClock) -> AsyncIterator[None]:
    task = asyncio.create_task(VerifyService(files, clock).run())
    await until(lambda: clock.alarms)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def step(clock: FakeClock) -> None:
    """Let the time of one folder pass, and what is due then be done."""
    clock.advance(STEP)
    await until(lambda: clock.alarms)


async def test_all_folders_are_seen_once_a_day_in_the_order_of_the_day(
    files: Files, clock: FakeClock
) -> None:
    async with running(files, clock):
        for _ in FOLDERS:
            await step(clock)

    assert files.verified == [*FOLDERS[1:], FOLDERS[0]]
    assert len(FOLDERS) * STEP == DAY


async def test_a_server_that_is_started_anew_goes_on_by_the_time_of_day(
    files: Files, clock: FakeClock
) -> None:
    clock.advance(DAY / 2 + STEP / 3)

    async with running(files, clock):
        clock.advance(STEP)
        await until(lambda: clock.alarms)

    assert files.verified == [FOLDERS[129]]


async def test_what_is_damaged_is_logged_and_what_cannot_be_read_stops_nothing(
    files: Files, clock: FakeClock
) -> None:
    name = await files.put(b"a file")
    next(files._folder.rglob(name)).write_bytes(b"rubbish")
    files.broken = {FOLDERS[1]}

    with capture_logs() as logs:
        async with running(files, clock):
            for _ in FOLDERS:
                await step(clock)

    assert len(files.verified) == len(FOLDERS)
    [damage] = [line for line in logs if line["event"] == "file_damaged"]
    assert (damage["file"], damage["log_level"]) == (content_hash(b"a file"), "error")
    [unread] = [line for line in logs if line["event"] == "files_not_verified"]
    assert unread["folder"] == FOLDERS[1]


async def test_what_there_is_is_counted_at_the_start_or_as_soon_as_it_can_be(
    files: Files, clock: FakeClock
) -> None:
    await files.put(b"a file")
    files.uncounted = 1

    async with running(files, clock):
        before = files.used
        await step(clock)

    assert (before.files, files.used.files) == (0, 1)
