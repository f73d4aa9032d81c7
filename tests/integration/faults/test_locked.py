"""Somebody else holds the database, or takes its files away."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect

import pytest

from commserver.cluster import Cluster
from commserver.dao import sqlite
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError
from tests.integration.faults.conftest import PATIENCE, Disk, Room, until

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"])
on_postgresql = pytest.mark.parametrize("engine_name", ["postgresql"])

LOCKS = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute(sys.argv[2])
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(path: Path, statement: str) -> Iterator[None]:
    """Have a process of its own hold the lock that this statement takes."""
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKS, str(path), statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"locked\n"
        yield
    finally:
        other.stdin.close()
        other.stdout.close()
        other.wait(PATIENCE)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite waits for others a tenth of a second only."""
    monkeypatch.setattr(sqlite, "PRAGMAS", ("busy_timeout = 100", *sqlite.PRAGMAS[1:]))


def file_of(room: Room) -> Path:
    return Path(room.site.url.removeprefix("sqlite:///"))


# -- SQLite, locked by another process ------------------------------------------------------------


@on_sqlite
async def test_a_lock_of_a_second_is_waited_for_and_nobody_notices(room: Room) -> None:
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(3)

        with another_process(file_of(room), "BEGIN IMMEDIATE"):
            room.push(attempts)
            await asyncio.sleep(1.0)  # what is tested is a time in which nothing happens
            nothing = room.said("run_queued")

        await room.once(tab, attempts)

    assert nothing == []
    assert [line["event"] for line in room.logs if line["log_level"] == "warning"] == []


@on_sqlite
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
async def test_a_longer_lock_costs_its_time_and_nothing_else(
    room: Room, hasty: None, statement: str
) -> None:
    room.engine.hang()
    async with room.serving():
        tab = await room.tab()
        token, old = await room.token("grace"), await room.token("joan")
        await room.site.sql(
            "UPDATE tokens SET created_at = '2020-01-01 00:00:00' WHERE account_id ="
            " (SELECT id FROM accounts WHERE username = 'joan')"
        )
        attempts = await room.attempts(5)
        room.push(attempts[:4])
        await room.logged("run_queued", times=4)
        await until(lambda: room.engine.running == 2)

        with another_process(file_of(room), statement):
            room.push(attempts[4:])
            room.engine.resume()
            await room.logged("exercise_waits", times=2)
            await room.logged("outcome_not_stored", times=4)
            reader = await room.dial(token)
            writer = await room.dial(old)
            told = [tab.final(attempt) for attempt in attempts]

        await room.once(tab, attempts)

    assert told == [None] * 5
    assert reader.packets == [{"cmd": "OK"}], "who only reads waits for nobody"
    assert writer.packets == [{"cmd": "OK"}], "a token's longer life can wait"
    reasons = {line["reason"] for line in room.said("outcome_not_stored")}
    assert reasons == {"database is locked"}


# -- SQLite, its files taken away -----------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
async def test_a_file_that_is_gone_is_said_and_nothing_is_written_into_the_void(
    room: Room, ending: str
) -> None:
    """Once it is back all goes on: until then not even the backend's link is read."""
    path = file_of(room)
    file, aside = Path(f"{path}{ending}"), path.with_name("aside")
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(3)
        room.push(attempts[:1])
        await tab.until(lambda: tab.final(attempts[0]) is not None, PATIENCE)

        os.rename(file, aside)
        room.push(attempts[1:])
        waits = await room.logged("exercise_waits", times=2)
        os.rename(aside, file)

        await room.once(tab, attempts)

    assert {line["error"] for line in waits} == {
        f"the database's file {file} was removed or replaced while in use"
    }


@on_sqlite
async def test_nothing_that_was_committed_is_lost_with_a_log_that_is_deleted(room: Room) -> None:
    """It is still in the hands of the server, which puts it into the database when it ends."""
    path = file_of(room)
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(2)
        room.push(attempts[:1])
        await tab.until(lambda: tab.final(attempts[0]) is not None, PATIENCE)
        await room.site.database.close()

        for ending in ("-wal", "-shm"):
            os.unlink(f"{path}{ending}")
        room.push(attempts[1:])
        await room.logged("exercise_waits")
    await room.site.database.open()

    async with room.serving():
        again = await room.tab()
        room.push(attempts[1:])
        await again.until(lambda: again.final(attempts[1]) is not None, PATIENCE)

    assert await room.counts() == dict.fromkeys(("executions", "grades", "logs", "notices"), 2)


@on_sqlite
async def test_a_database_put_in_place_of_ours_is_not_written_to(
    room: Room, sqlite_template: Path
) -> None:
    path = file_of(room)
    async with room.serving():
        await room.tab()
        attempts = await room.attempts(1)
        other = path.with_name("other.db")
        shutil.copy(sqlite_template, other)

        for ending in ("-wal", "-shm"):
            os.unlink(f"{path}{ending}")
        os.replace(other, path)
        room.push(attempts)
        await room.logged("exercise_waits", times=2)
        await room.site.database.close()

    with closing(connect(sqlite_template)) as empty, closing(connect(path)) as there:
        assert list(there.iterdump()) == list(empty.iterdump())
    await room.site.database.open()


def test_a_database_that_nobody_may_write_to_is_not_served_from(
    disk: Disk, sqlite_template: Path
) -> None:
    path = disk.folder / "commserver.db"
    shutil.copy(sqlite_template, path)
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)

    with pytest.raises(StoreError, match=f"{path}: we may not read and write it"):
        asyncio.run(DatabaseManager(f"sqlite:///{path}").open())


# -- PostgreSQL -----------------------------------------------------------------------------------


@on_postgresql
@pytest.mark.parametrize("table", ["executions", "grades"])
async def test_a_table_that_a_stranger_has_locked_is_waited_for(room: Room, table: str) -> None:
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(4)

        async with room.stranger(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            room.push(attempts)
            event = "exercise_waits" if table == "executions" else "run_leased"
            await room.logged(event)
            if table == "grades":
                await room.logged("outcome_not_stored", times=2)
            told = [tab.final(attempt) for attempt in attempts]

        await room.once(tab, attempts)

    assert told == [None] * 4
    waits = room.said("exercise_waits") + room.said("outcome_not_stored")
    reasons = {line.get("error") or line.get("reason") for line in waits}
    assert reasons == {"a transaction took too long and was undone"}


@on_postgresql
async def test_a_row_that_a_stranger_has_locked_holds_up_nobody_else(room: Room) -> None:
    room.engine.hang()
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(6)
        room.push(attempts)
        await until(lambda: room.engine.running == 2)
        locked = f"SELECT 1 FROM executions WHERE user_exercise_id = {attempts[0]} FOR UPDATE"  # noqa: S608

        async with room.stranger(locked):
            room.engine.resume()
            await tab.until(lambda: all(map(tab.final, attempts[1:])), PATIENCE)
            await room.logged("outcome_not_stored")
            told = tab.final(attempts[0])
        await tab.until(lambda: tab.final(attempts[0]) is not None, PATIENCE)

    assert told is None
    [late] = room.said("outcome_not_stored")
    done = room.said("run_done")
    assert [line["at"] < late["at"] for line in done] == [True] * 5 + [False]
    assert sorted(str(packet.get("seq")) for packet in tab.packets if "seq" in packet) == [
        str(n + 1) for n in range(6)
    ]


@on_postgresql
async def test_a_database_that_has_become_read_only_is_waited_for(
    room: Room, cluster: Cluster
) -> None:
    """As after a failover, until the address leads to the new primary."""
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(2)

        with read_only(cluster):
            room.push(attempts)
            waits = await room.logged("exercise_waits", times=2)

        await room.once(tab, attempts)

    assert all("read-only transaction" in line["error"] for line in waits)


@contextmanager
def read_only(cluster: Cluster) -> Iterator[None]:
    """Have every session of the server refuse to write."""
    cluster.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    cluster.sql("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        with contextlib.ExitStack() as stack:
            stack.callback(cluster.sql, "SELECT pg_reload_conf()")
            cluster.sql("ALTER SYSTEM RESET default_transaction_read_only")
