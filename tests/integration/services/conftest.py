"""A database file with every table for each test."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager
from tests.fakes import FakeClock
from tests.integration.services.site import Site


@pytest.fixture(scope="session")
def services_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    path = tmp_path_factory.mktemp("services") / "template.db"

    async def make() -> None:
        async with DatabaseManager(f"sqlite:///{path}") as database:
            await migrations.upgrade(database, with_platform=True)

    with asyncio.Runner() as runner:
        runner.run(make())
    return path


@pytest.fixture
def state(tmp_path: Path, services_template: Path) -> Path:
    """A state folder with a migrated database and nothing else."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copy(services_template, folder / "commserver.db")
    return folder


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1000.0)


@pytest.fixture
async def site(state: Path, clock: FakeClock) -> AsyncIterator[Site]:
    """Every service on one database."""
    async with Site(state, clock).open() as site:
        yield site
