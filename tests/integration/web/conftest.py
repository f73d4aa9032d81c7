"""A server to ask for pages, and one real browser for all tests that look at them."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import playwright.async_api
import pytest
import pytest_asyncio
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from commserver import app
from tests.chromium import chromium
from tests.integration.web.room import Room


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from outside, and little time for links to end."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(app, "LINKS_GRACE", 0.5)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[EventDict]]:
    """The lines that were logged; none may have a traceback, nor a token in it."""
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        yield lines
    assert [line for line in lines if "exc_info" in line] == []


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with nothing in it."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
async def room(state: Path, url: str) -> AsyncIterator[Room]:
    """A server that serves, on a database of each kind."""
    async with Room(state, url).open() as room, room.serving():
        yield room


# One browser serves all tests, so it and they share one event loop.


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chrome() -> AsyncIterator[playwright.async_api.Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def exam(state: Path, tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Room]:
    """A server that is not yet started, to be looked at with the browser."""
    path = tmp_path / "commserver.db"
    shutil.copy(sqlite_template, path)
    async with Room(state, f"sqlite:///{path}").open() as room:
        yield room
