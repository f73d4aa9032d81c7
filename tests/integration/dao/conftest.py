"""Real databases, made anew for each test; every kind that we support runs every test."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with nothing in it."""
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path / 'commserver.db'}"
        case unknown:
            raise AssertionError(unknown)


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with every table and no row."""
    match request.param:
        case "sqlite":
            path = tmp_path / "commserver.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), path)
            return f"sqlite:///{path}"
        case unknown:
            raise AssertionError(unknown)


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[DatabaseManager]:
    """An open database with nothing in it."""
    async with DatabaseManager(empty_url) as database:
        yield database


@pytest.fixture
async def database(url: str) -> AsyncIterator[DatabaseManager]:
    """An open database with every table and no row."""
    async with DatabaseManager(url) as database:
        yield database


@pytest.fixture
def daos() -> DaoManager:
    return DaoManager()
