"""Real databases, made anew for each test; every kind that we support runs every test."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
