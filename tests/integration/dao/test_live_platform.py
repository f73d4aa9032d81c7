"""Beside a live platform: its tables are read and added to, and otherwise left byte for byte."""

import pytest
from alembic import command
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.attempts import Attempt
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.migrations import COMMSERVER
from tests.integration.dao import live as platforms
from tests.integration.dao.conftest import NOW
from tests.integration.dao.live import (
    ATTEMPTS,
    NEW_ATTEMPT,
    NEW_ROWS,
    LivePostgresql,
    LiveSqlite,
    grant,
)

AT_MS = 1_767_268_800_000
Live = LiveSqlite | LivePostgresql


@pytest.fixture
def live(empty_url: str, request: pytest.FixtureRequest) -> Live:
    """A live platform's database, in which nobody has heard of commserver."""
    return platforms.made(empty_url, request)


async def test_nothing_of_the_platforms_changes_but_for_the_rows_we_add(
    live: Live, daos: DaoManager
) -> None:
    await grant(live)
    before = live.picture()
    async with DatabaseManager(live.url) as database:
        await migrations.upgrade(database)
        assert live.picture() == before

        await migrations.check(database)
        await database.write(alembic_finds_nothing_to_do)
        await work(database, daos)
        assert live.picture() == before
        assert added(live) == {"codes": 0, "user_exercises": 0, "grades": 2, "logs": 2}

        await migrations.downgrade(database)
        assert live.picture() == before
        await migrations.upgrade(database)
        assert live.picture() == before
        assert added(live) == {"codes": 0, "user_exercises": 0, "grades": 2, "logs": 2}


async def alembic_finds_nothing_to_do(connection: AsyncConnection) -> None:
    await connection.run_sync(lambda c: command.check(migrations.config(COMMSERVER, c)))


async def work(database: DatabaseManager, daos: DaoManager) -> None:
    """Do what a server does with the platform's tables."""

    async def judge(connection: AsyncConnection) -> None:
        attempt = AttemptId(ATTEMPTS)
        assert await daos.attempts.find(connection, attempt)
        assert await daos.codes.of_attempt(connection, attempt)
        assert await daos.scripts.newest(connection, 1)
        for swept in (daos.baseline.unasked, daos.baseline.fingerprints):
            page = await swept(connection, after=AttemptId(ATTEMPTS - 10), limit=100)
            assert bool(page.attempts) is (swept == daos.baseline.fingerprints)
        assert await daos.baseline.ensure(connection, at=NOW) == ATTEMPTS
        for grade in (7, 20):
            await daos.grades.add(connection, attempt, grade, AT_MS)
            await daos.attempt_logs.add(connection, attempt, f"{grade} points", AT_MS)

    await database.write(judge)


def added(live: Live) -> dict[str, int]:
    """Return how many rows each table has above those of before."""
    return {table: live.added(table) for table in ("codes", "user_exercises", "grades", "logs")}


# -- what comes back ------------------------------------------------------------------------------


@pytest.fixture
async def database(live: Live) -> DatabaseManager:
    """Our connection to a migrated live platform with one new attempt."""
    await grant(live)
    async with DatabaseManager(live.url) as database:
        await migrations.upgrade(database)
    live.run(NEW_ROWS)
    return DatabaseManager(live.url)


async def test_an_attempt_is_read_whatever_the_types_and_gaps(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def find(connection: AsyncConnection) -> list[Attempt | None]:
        numbers = (NEW_ATTEMPT, 1, 3, 4, 2**31, 2**63 - 1)
        return [await daos.attempts.find(connection, AttemptId(number)) for number in numbers]

    async with database:
        found = await database.read(find)

    assert found == [
        Attempt(AttemptId(NEW_ATTEMPT), 7, 1, 1, "Python", 20),
        Attempt(AttemptId(1), 2, 2, 1, "Python", 20),
        Attempt(AttemptId(3), 4, 4, 2, None, None),
        Attempt(AttemptId(4), 5, 5, None, None, 20),
        None,
        None,
    ]
    assert found[0] is not None
    assert {type(getattr(found[0], name)) for name in Attempt.__slots__} == {int, str}


async def test_files_come_without_padding_gaps_and_numbers(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async with database:
        files = await database.read(lambda c: daos.codes.of_attempt(c, AttemptId(NEW_ATTEMPT)))

    assert files == (
        SourceFile("empty.txt", ""),
        SourceFile("main.py", "new"),
        SourceFile("number.txt", "7"),
    )


async def test_scripts_come_newest_first_and_an_empty_one_grades_nothing(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def newest(connection: AsyncConnection) -> list[str | None]:
        return [await daos.scripts.newest(connection, number) for number in (1, 2, 3)]

    async with database:
        found = await database.read(newest)

    assert found == ["format = 1", None, None]
