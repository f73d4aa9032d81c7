"""Real databases, made anew for each test; every kind that we support runs every test."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.databases import made

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Which kind of database this test runs on."""
    return str(request.param)


@pytest.fixture
def empty_url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    if engine_name == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        yield from made(request.getfixturevalue("maker"), None)


@pytest.fixture
def url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with every table and no row."""
    if engine_name == "sqlite":
        path = tmp_path / "commserver.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("postgresql_template")
        yield from made(request.getfixturevalue("maker"), template)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, without settings but those of a server that needs no engine."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMMSERVER_BACKEND__ENABLED", "false")
    monkeypatch.setenv("COMMSERVER_BROWSER__PORT", "0")
    monkeypatch.setenv("COMMSERVER_HTTP__PORT", "0")
    monkeypatch.setenv("COMMSERVER_DOCKER__HOSTS", json.dumps([f"unix://{tmp_path}/dead.sock"]))
    monkeypatch.chdir(tmp_path)
