"""A database file with every table for each test."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes import FakeClock
from tests.integration.services.site import Site


@pytest.fixture
def state(tmp_path: Path, sqlite_template: Path) -> Path:
    """A state folder with a migrated database and nothing else."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "commserver.db")
    return folder


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1000.0)


@pytest.fixture
async def site(state: Path, url: str, clock: FakeClock) -> AsyncIterator[Site]:
    """Every service on one database, of each kind."""
    async with Site(state, clock, url=url).open() as site:
        yield site
