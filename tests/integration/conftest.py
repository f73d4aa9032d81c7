"""What several of these suites need."""

import asyncio
from pathlib import Path

import pytest

from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    path = tmp_path_factory.mktemp("template") / "template.db"

    async def make() -> None:
        async with DatabaseManager(f"sqlite:///{path}") as database:
            await migrations.upgrade(database, with_platform=True)

    with asyncio.Runner() as runner:
        runner.run(make())
    return path
