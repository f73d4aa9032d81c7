"""The platform's tables: what a snapshot of an attempt needs, and what writing one needs."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.attempts import Attempt
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import AlreadyExists, StoreError

AT_MS = 1_767_268_800_000


async def exercise(connection: AsyncConnection, daos: DaoManager) -> tuple[int, int]:
    """Add an author with an exercise; returns the ids of both."""
    author = await daos.accounts.add(connection, "ada")
    language = await daos.languages.ensure(connection, "Python")
    course = await daos.courses.ensure(
        connection, account_id=author, title="python-101", language_id=language
    )
    made = await daos.exercises.put(
        connection,
        account_id=author,
        course_id=course,
        title="Double it",
        instruction="Read a number.",
        grade_max=20,
    )
    return author, made


async def attempt(connection: AsyncConnection, daos: DaoManager) -> AttemptId:
    author, asked = await exercise(connection, daos)
    return await daos.attempts.add(connection, account_id=author, exercise_id=asked)


async def test_an_attempt_is_found_with_what_leads_to_its_grader(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(connection: AsyncConnection) -> Attempt | None:
        return await daos.attempts.find(connection, await attempt(connection, daos))

    found = await database.write(work)

    assert found is not None
    assert found.account_id is not None
    assert found.course_id is not None
    assert (found.language, found.grade_max) == ("Python", 20)


@pytest.mark.parametrize("number", [0, 7, -1, 2**31, 2**63 - 1, 2**63, 10**40])
async def test_an_attempt_that_is_not_there_is_none(
    database: DatabaseManager, daos: DaoManager, number: int
) -> None:
    found = await database.read(lambda c: daos.attempts.find(c, AttemptId(number)))

    assert found is None


async def test_files_come_by_name_and_the_newest_row_of_a_name_counts(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(connection: AsyncConnection) -> tuple[SourceFile, ...]:
        made = await attempt(connection, daos)
        other = await daos.attempts.add(connection, account_id=1, exercise_id=1)
        old = [SourceFile("main.py", "old"), SourceFile("Zebra.py", "z")]
        await daos.codes.add(connection, made, old, AT_MS)
        # Newer by its row, whatever its time says.
        new = [SourceFile("main.py", "new"), SourceFile("été.py", "é\r\n")]
        await daos.codes.add(connection, made, new, AT_MS - 1000)
        await daos.codes.add(connection, other, [SourceFile("main.py", "another's")], AT_MS)
        await daos.codes.add(connection, other, [], AT_MS)
        return await daos.codes.of_attempt(connection, made)

    assert await database.write(work) == (
        SourceFile("Zebra.py", "z"),
        SourceFile("main.py", "new"),
        SourceFile("été.py", "é\r\n"),
    )


async def test_an_attempt_without_files_has_none(
    database: DatabaseManager, daos: DaoManager
) -> None:
    assert await database.read(lambda c: daos.codes.of_attempt(c, AttemptId(1))) == ()


async def test_the_newest_script_grades(database: DatabaseManager, daos: DaoManager) -> None:
    async def work(connection: AsyncConnection) -> tuple[str | None, str | None]:
        _, asked = await exercise(connection, daos)
        before = await daos.scripts.newest(connection, asked)
        await daos.scripts.add(connection, asked, "old")
        await daos.scripts.add(connection, asked, "format = 1")
        return before, await daos.scripts.newest(connection, asked)

    assert await database.write(work) == (None, "format = 1")


async def test_the_newest_grade_and_log_count(database: DatabaseManager, daos: DaoManager) -> None:
    async def work(connection: AsyncConnection) -> list[object]:
        made = await attempt(connection, daos)
        before = [
            await daos.grades.latest(connection, made),
            await daos.attempt_logs.latest(connection, made),
        ]
        for grade in (20, 0):
            await daos.grades.add(connection, made, grade, AT_MS)
            await daos.attempt_logs.add(connection, made, f"{grade}\x00 points", AT_MS)
        return [
            *before,
            await daos.grades.latest(connection, made),
            await daos.attempt_logs.latest(connection, made),
        ]

    assert await database.write(work) == [None, None, 0, "0 points"]


async def test_ensuring_twice_makes_one(database: DatabaseManager, daos: DaoManager) -> None:
    async def work(connection: AsyncConnection) -> None:
        author = await daos.accounts.add(connection, "ada")
        python = await daos.languages.ensure(connection, "python")
        c = await daos.languages.ensure(connection, "c")
        course = await daos.courses.ensure(
            connection, account_id=author, title="first", language_id=python
        )

        assert await daos.languages.ensure(connection, "python") == python != c
        assert course == await daos.courses.ensure(
            connection, account_id=author, title="first", language_id=c
        )
        assert await daos.accounts.id_of(connection, "ada") == author
        assert await daos.accounts.id_of(connection, "bob") is None

    await database.write(work)


async def test_an_exercise_that_is_put_again_is_the_same_one_with_its_new_text(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(connection: AsyncConnection) -> None:
        author, asked = await exercise(connection, daos)
        first = await daos.exercises.find(connection, asked)
        assert first is not None

        again = await daos.exercises.put(
            connection,
            account_id=author + 1,
            course_id=first.course_id,
            title=first.title,
            instruction="Read a number, print its double.",
            grade_max=10,
        )

        assert again == asked
        second = await daos.exercises.find(connection, asked)
        assert second is not None
        assert (second.instruction, second.grade_max) == ("Read a number, print its double.", 10)
        assert second.account_id == author
        assert await daos.exercises.find(connection, asked + 1) is None

    await database.write(work)


async def test_two_accounts_of_one_name_are_refused(
    database: DatabaseManager, daos: DaoManager
) -> None:
    await database.write(lambda c: daos.accounts.add(c, "ada"))

    with pytest.raises(AlreadyExists, match="username"):
        await database.write(lambda c: daos.accounts.add(c, "ada"))


# -- a live platform: no keys, no constraints, gaps, a view ---------------------------------------

LIVE = (
    "CREATE TABLE people (id INTEGER, username VARCHAR(75), mail VARCHAR(75))",
    "CREATE VIEW accounts AS SELECT id, username FROM people",
    "CREATE TABLE languages (id INTEGER, name VARCHAR(75))",
    "CREATE TABLE courses (id INTEGER, account_id INTEGER, language_id INTEGER, title TEXT)",
    "CREATE TABLE exercises (id INTEGER, account_id INTEGER, course_id INTEGER, title TEXT,"
    " instruction TEXT, grade_max INTEGER, difficulty INTEGER)",
    "CREATE TABLE rows (id INTEGER, account_id INTEGER, exercise_id INTEGER)",
    "CREATE VIEW user_exercises AS SELECT * FROM rows",
    "INSERT INTO languages VALUES (1, 'Python')",
    "INSERT INTO courses VALUES (1, 1, 1, 'a'), (2, 1, 99, 'no language')",
    "INSERT INTO exercises VALUES (1, 1, 1, 'a', '', 20, 3), (2, 1, 2, 'b', '', 20, 3),"
    " (3, 1, 99, 'no course', '', 20, 3), (4, 1, NULL, 'no course', '', NULL, 3)",
    "INSERT INTO rows VALUES (1, 5, 1), (2, 5, 2), (3, 5, 3), (4, 5, 4), (5, 5, 99),"
    " (6, NULL, NULL)",
)


@pytest.mark.parametrize(
    "expected",
    [
        Attempt(AttemptId(1), 5, 1, 1, "Python", 20),
        Attempt(AttemptId(2), 5, 2, 2, None, 20),
        Attempt(AttemptId(3), 5, 3, 99, None, 20),
        Attempt(AttemptId(4), 5, 4, None, None, None),
        Attempt(AttemptId(5), 5, 99, None, None, None),
        Attempt(AttemptId(6), None, None, None, None, None),
    ],
    ids=["whole", "no language", "no course", "empty course", "no exercise", "nothing"],
)
async def test_an_attempt_is_found_whatever_a_live_platform_lacks(
    empty: DatabaseManager, daos: DaoManager, expected: Attempt
) -> None:
    async def make(connection: AsyncConnection) -> None:
        for statement in LIVE:
            await connection.execute(text(statement))

    await empty.write(make)
    await migrations.upgrade(empty)

    assert await empty.read(lambda c: daos.attempts.find(c, expected.id)) == expected


async def test_a_missing_table_is_a_store_error(empty: DatabaseManager, daos: DaoManager) -> None:
    with pytest.raises(StoreError, match="user_exercises"):
        await empty.read(lambda c: daos.attempts.find(c, AttemptId(1)))
