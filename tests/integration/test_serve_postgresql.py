"""`commserver serve` on PostgreSQL: who may, and what a database that goes away costs it."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from commserver.cluster import Cluster
from commserver.dao.advisory_lock import KEY
from commserver.dao.database_manager import DatabaseManager
from tests.integration.served import serving
from tests.nursery import Nursery

LOCKED = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted = {}"


@pytest.fixture
def engine_name() -> str:
    return "postgresql"


@pytest.fixture
def state(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a site on PostgreSQL that needs no engine and no backend."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMMSERVER_DATABASE__URL", url)
    monkeypatch.setenv("COMMSERVER_BACKEND__ENABLED", "false")
    monkeypatch.setenv("COMMSERVER_BROWSER__PORT", "0")
    monkeypatch.setenv("COMMSERVER_HTTP__PORT", "0")
    monkeypatch.setenv("COMMSERVER_DOCKER__HOSTS", f'["unix://{tmp_path}/dead.sock"]')
    monkeypatch.setenv("COMMSERVER_LOG__FORMAT", "json")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state"


async def test_servers_take_turns_on_a_database(state: Path, nursery: Nursery) -> None:
    async with serving(nursery, state) as first:
        await first.said("listening")
        async with serving(nursery, state) as second:
            words = await second.complaint()
            assert await second.wait() == 3
        assert f"commserver {first.pid} on {socket.gethostname()} at 127.0.0.1 since" in words
        first.send_signal(signal.SIGKILL)
        await first.wait()

    async with serving(nursery, state) as third:
        await third.said("listening")
        third.send_signal(signal.SIGTERM)
        assert await third.wait() == 0


async def test_a_server_outlives_a_restart_of_its_database(
    state: Path, nursery: Nursery, cluster: Cluster
) -> None:
    async with serving(nursery, state) as server:
        await server.said("listening")

        await asyncio.to_thread(cluster.restart, "immediate")

        await server.said("claim_taken_again")
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_a_server_whose_database_another_has_taken_ends(
    state: Path, nursery: Nursery, url: str, cluster: Cluster
) -> None:
    async with serving(nursery, state) as server, DatabaseManager(url) as rival:
        await server.said("listening")
        waiting = asyncio.create_task(
            rival.write(lambda c: c.execute(text(f"SELECT pg_advisory_lock({KEY})")))
        )
        while not cluster.sql(LOCKED.format("false")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

        cluster.sql(f"SELECT pg_terminate_backend(({LOCKED.format('true')}))")

        assert f"already managed by commserver {os.getpid()} on " in await server.complaint()
        assert await server.wait() == 3
        await waiting


async def test_a_server_waits_for_its_database_until_it_is_told_to_end(
    state: Path, nursery: Nursery, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = urlsplit(url)._replace(netloc=f"postgres@127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("COMMSERVER_DATABASE__URL", away.geturl())

        async with serving(nursery, state) as server:
            await server.said("database_is_away")
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == 0

        log = state.parent / "token.log"
        command = await nursery.start("commserver.cli", ["token", "list"], os.environ, log)
        assert await command.wait() == 1
        assert log.read_text().startswith("commserver: the database is away: ")


async def test_a_server_with_a_wrong_database_does_not_wait(
    state: Path, nursery: Nursery, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_DATABASE__URL", f"{url}_of_somebody_else")

    async with serving(nursery, state) as server:
        assert await server.complaint() == "commserver: database.url: there is no such database"
        assert await server.wait() == 2
