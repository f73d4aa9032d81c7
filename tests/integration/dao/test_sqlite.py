"""What is particular to SQLite: its settings, its files, its plans, its lock."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao import sqlite
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.lock_file import LockFile
from commserver.errors import AlreadyManaged, StoreError, StoreRefused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site" / "var" / "commserver.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[DatabaseManager]:
    async with DatabaseManager(f"sqlite:///{path}") as database:
        yield database


def make(path: Path, content: bytes = b"", mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(mode)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("busy_timeout", 5000), ("foreign_keys", 1)],
)
async def test_every_connection_has_the_settings_that_lose_nothing(
    database: DatabaseManager, kind: str, pragma: str, value: object
) -> None:
    async def work(connection: AsyncConnection) -> object:
        return await connection.scalar(text(f"PRAGMA {pragma}"))

    assert await getattr(database, kind)(work) == value


async def test_a_writer_has_the_lock_from_its_first_moment(
    database: DatabaseManager, path: Path
) -> None:
    async def work(connection: AsyncConnection) -> None:
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        finally:
            other.close()

    await database.write(work)


async def test_a_writer_waits_for_another_process_only_so_long(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "PRAGMAS", ("busy_timeout = 10", *sqlite.PRAGMAS[1:]))
    async with DatabaseManager(f"sqlite:///{path}") as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StoreError, match="locked"):
                await database.write(lambda c: c.scalar(text("SELECT 1")))
        finally:
            other.close()

        assert await database.write(lambda c: c.scalar(text("SELECT 1"))) == 1


async def test_writers_take_turns(database: DatabaseManager) -> None:
    async def work(connection: AsyncConnection) -> None:
        count = await connection.scalar(text("SELECT count(*) FROM notes"))
        await connection.execute(text("INSERT INTO notes VALUES (:n)"), {"n": count})

    await database.write(lambda c: c.execute(text("CREATE TABLE notes (n INTEGER)")))
    await asyncio.gather(*(database.write(work) for _ in range(20)))

    numbers = await database.read(lambda c: c.scalars(text("SELECT n FROM notes ORDER BY n")))
    assert list(numbers) == list(range(20))


# -- files ----------------------------------------------------------------------------------------


async def test_the_files_are_the_owners_alone(database: DatabaseManager, path: Path) -> None:
    await database.write(lambda c: c.execute(text("CREATE TABLE t (id INTEGER)")))

    assert modes(path.parent) == {
        "commserver.db": 0o600,
        "commserver.db-wal": 0o600,
        "commserver.db-shm": 0o600,
    }


async def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    make(path, mode=0o640)

    async with DatabaseManager(f"sqlite:///{path}"):
        assert modes(path.parent)[path.name] == 0o640


async def test_nothing_is_left_beside_a_closed_database(path: Path) -> None:
    async with DatabaseManager(f"sqlite:///{path}") as database:
        await database.write(lambda c: c.execute(text("CREATE TABLE t (id INTEGER)")))
        await database.read(lambda c: c.execute(text("SELECT * FROM t")))

    assert list(modes(path.parent)) == ["commserver.db"]


async def test_a_file_that_is_no_database_is_a_store_error(path: Path) -> None:
    make(path, b"something else entirely" * 100)

    with pytest.raises(StoreError, match="not a database"):
        await DatabaseManager(f"sqlite:///{path}").open()


async def test_what_can_never_be_read_is_told_from_a_database_that_is_away(
    database: DatabaseManager,
) -> None:
    async def work(connection: AsyncConnection) -> object:
        return (await connection.exec_driver_sql("SELECT CAST(x'ff' AS TEXT)")).scalar()

    with pytest.raises(StoreRefused):
        await database.read(work)


def damage(path: Path) -> None:
    """Make the last page of a file unreadable."""
    path.write_bytes(path.read_bytes()[:-4096] + b"\xff" * 4096)


async def test_what_lies_on_a_damaged_page_is_refused_and_all_else_is_read(path: Path) -> None:
    url = f"sqlite:///{path}"
    async with DatabaseManager(url) as database:
        await database.write(lambda c: c.execute(text("CREATE TABLE notes (id INTEGER, t TEXT)")))
        row = text("INSERT INTO notes VALUES (:id, :t)")
        await database.write(
            lambda c: c.execute(row, [{"id": number, "t": "x" * 1000} for number in range(100)])
        )
    damage(path)

    async with DatabaseManager(url) as database:
        first = text("SELECT id FROM notes LIMIT 1")
        assert await database.read(lambda c: c.scalar(first)) == 0
        with pytest.raises(StoreRefused, match="malformed"):
            await database.read(lambda c: c.scalar(text("SELECT max(t) FROM notes")))


async def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="cannot open the database"):
        await DatabaseManager(f"sqlite:///{tmp_path}/file/commserver.db").open()


# -- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "index"),
    [
        ("unfinished", "ix_executions_unfinished"),
        ("last_entry", "ix_executions_entry"),
        ("latest_of", "ix_executions_user_exercise_id_entry"),
    ],
)
async def test_the_questions_of_a_busy_server_have_an_index(
    sqlite_template: Path, daos: DaoManager, method: str, index: str
) -> None:
    async def plan(connection: AsyncConnection) -> str:
        asked: list[tuple[str, tuple[object, ...]]] = []

        def note(conn: object, cursor: object, statement: str, *rest: tuple[object, ...]) -> None:
            asked.append((statement, rest[0]))

        event.listen(connection.sync_connection, "before_cursor_execute", note)
        arguments = [AttemptId(1)] if method == "latest_of" else []
        await getattr(daos.executions, method)(connection, *arguments)
        statement, parameters = asked[0]
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(str(row) for row in rows)

    async with DatabaseManager(f"sqlite:///{sqlite_template}") as database:
        found = await database.read(plan)

    assert index in found
    assert "TEMP B-TREE FOR ORDER BY" not in found  # sorted by the index


# -- one manager a database -----------------------------------------------------------------------

HOLD = """
import asyncio, sys
from commserver.dao.database_manager import DatabaseManager

async def main():
    async with DatabaseManager(sys.argv[1]) as database, database.claim():
        print("claimed", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@contextmanager
def another_process(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the database until it reads a line or is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "claimed\n"
            yield process
        finally:
            process.kill()


async def test_a_second_manager_is_told_who_is_the_first(
    database: DatabaseManager, path: Path
) -> None:
    with another_process(f"sqlite:///{path}") as process:
        with pytest.raises(AlreadyManaged) as caught:
            async with database.claim():
                raise AssertionError

        assert f"process {process.pid} on {os.uname().nodename} since 20" in str(caught.value)
        assert caught.value.holder.startswith(f"process {process.pid} on ")


async def test_a_killed_manager_holds_nothing(database: DatabaseManager, path: Path) -> None:
    with another_process(f"sqlite:///{path}") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()

        async with database.claim():
            holder = path.with_name("commserver.db.lock").read_text()

    assert holder.startswith(f"process {os.getpid()} on ")


async def test_a_manager_that_ends_gives_the_claim_back(
    database: DatabaseManager, path: Path
) -> None:
    with another_process(f"sqlite:///{path}") as process:
        process.communicate("go\n")

        async with database.claim():
            pass
        async with database.claim():
            pass

    assert path.with_name("commserver.db.lock").read_text() == ""
    assert modes(path.parent)["commserver.db.lock"] == 0o600


async def test_two_managers_of_one_process_are_two(database: DatabaseManager, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    async with DatabaseManager(f"sqlite:///{link}") as other, database.claim():
        with pytest.raises(AlreadyManaged, match=f"process {os.getpid()} "):
            async with other.claim():
                raise AssertionError


async def test_a_claim_ends_with_an_error_in_its_block(database: DatabaseManager) -> None:
    with pytest.raises(KeyError):
        async with database.claim():
            raise KeyError

    async with asyncio.timeout(1), database.claim():
        pass


def test_a_holder_that_has_not_said_its_name_is_a_holder(tmp_path: Path) -> None:
    holder, other = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    holder.acquire()
    (tmp_path / "lock").write_text("")

    with pytest.raises(AlreadyManaged, match="has not said its name"):
        other.acquire()

    holder.release()
    other.acquire()
    other.release()


def test_a_lock_that_is_not_held_can_be_released(tmp_path: Path) -> None:
    LockFile(tmp_path / "lock").release()


def test_a_lock_file_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        LockFile(tmp_path / "no" / "lock").acquire()
