"""What a student is shown of theirs: the newest run of each attempt, and what it is called."""

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.jobs import AttemptId, SortKey
from commserver.core.states import State
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from tests.fakes import make_job
from tests.integration.dao import live as platforms
from tests.integration.dao.conftest import NOW


async def row(
    connection: AsyncConnection,
    daos: DaoManager,
    run: str,
    entry: int,
    *,
    attempt: int | None,
    owner: str = "1",
    state: State = State.DONE,
) -> None:
    job = make_job(run, attempt=attempt, owner=owner)
    write = Write(job, None, 0, state, 0, 0, SortKey(job.priority, 0.0, entry))
    await daos.executions.write(connection, write, at=NOW + timedelta(seconds=len(run) + entry))


async def found(
    database: DatabaseManager, daos: DaoManager, account: int, limit: int = 50
) -> list[str]:
    runs = await database.read(lambda c: daos.executions.newest_of_account(c, account, limit))
    return [run.job.id for run in runs]


async def test_the_newest_run_of_each_attempt_of_an_account_is_found_newest_first(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(c: AsyncConnection) -> None:
        await row(c, daos, "old", 1, attempt=1)
        await row(c, daos, "two", 2, attempt=2)
        await row(c, daos, "new", 3, attempt=1)
        await row(c, daos, "other", 4, attempt=3, owner="2")
        await row(c, daos, "foreign", 5, attempt=None)
        await row(c, daos, "gave way", 6, attempt=2, state=State.SUPERSEDED)

    await database.write(work)

    assert await found(database, daos, 1) == ["new", "two"]
    assert await found(database, daos, 1, limit=1) == ["new"]
    assert await found(database, daos, 2) == ["other"]
    assert await found(database, daos, 3) == []


async def test_of_two_runs_in_one_place_the_later_is_the_newest(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(c: AsyncConnection) -> None:
        await row(c, daos, "a", 1, attempt=1)
        await row(c, daos, "later", 1, attempt=1)

    await database.write(work)

    assert await found(database, daos, 1) == ["later"]


@pytest.mark.parametrize("account", [-1, 2**63, 10**40])
async def test_a_number_that_is_no_account_has_no_runs(
    database: DatabaseManager, daos: DaoManager, account: int
) -> None:
    assert await found(database, daos, account) == []


async def test_the_titles_of_attempts_are_those_of_their_exercises(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def work(c: AsyncConnection) -> tuple[dict[AttemptId, str], list[AttemptId]]:
        author = await daos.accounts.add(c, "ada")
        language = await daos.languages.ensure(c, "Python")
        course = await daos.courses.ensure(
            c, account_id=author, title="first", language_id=language
        )
        attempts = []
        for title in ("Double it", "Sum"):
            exercise = await daos.exercises.put(
                c,
                account_id=author,
                course_id=course,
                title=title,
                instruction="",
                grade_max=20,
            )
            attempts.append(await daos.attempts.add(c, account_id=author, exercise_id=exercise))
        return await daos.attempts.titles(c, [*attempts, AttemptId(999)]), attempts

    titles, attempts = await database.write(work)

    assert titles == dict(zip(attempts, ("Double it", "Sum"), strict=True))


async def test_of_no_attempts_there_are_no_titles(
    database: DatabaseManager, daos: DaoManager
) -> None:
    assert await database.read(lambda c: daos.attempts.titles(c, [])) == {}


async def test_titles_are_read_beside_a_live_platform_whatever_the_types_and_gaps(
    empty_url: str, request: pytest.FixtureRequest, daos: DaoManager
) -> None:
    live = platforms.made(empty_url, request)
    await platforms.grant(live)
    live.run(platforms.NEW_ROWS)
    attempts = [AttemptId(number) for number in (platforms.NEW_ATTEMPT, 1, 4, 2**31)]

    async with DatabaseManager(live.url) as database:
        titles = await database.read(lambda c: daos.attempts.titles(c, attempts))

    # Of the last but one the exercise has none, and of the last there is no attempt.
    assert titles == {attempts[0]: "a", attempts[1]: "b"}
