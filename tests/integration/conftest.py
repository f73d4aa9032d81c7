"""Real databases, made anew for each test; every kind that we support runs every test."""

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from commserver.cluster import Cluster
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager

ENGINES = ("sqlite", "postgresql")
TEMPLATE = "template_commserver"
_numbers = itertools.count(1)


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
        yield from made(request.getfixturevalue("cluster"), None)


@pytest.fixture
def url(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with every table and no row."""
    if engine_name == "sqlite":
        path = tmp_path / "commserver.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        template = request.getfixturevalue("postgresql_template")
        yield from made(request.getfixturevalue("cluster"), template)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster) -> str:
    """The name of a PostgreSQL database with every table and no row."""
    cluster.create(TEMPLATE)
    migrate(cluster.url(TEMPLATE))
    return TEMPLATE


def made(cluster: Cluster, template: str | None) -> Iterator[str]:
    """Yield the URL of a new database, which is dropped afterwards, whoever still uses it."""
    name = f"test_{next(_numbers)}"
    cluster.create(name, template)
    yield cluster.url(name)
    cluster.drop(name)


def migrate(url: str) -> None:
    """Give a database every table."""

    async def work() -> None:
        async with DatabaseManager(url) as database:
            await migrations.upgrade(database, with_platform=True)

    with asyncio.Runner() as runner:
        runner.run(work())


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
