"""What each receipt asks of `notices` costs the same however long a series has become."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.finals import backend
from commserver.core.jobs import SortKey
from commserver.core.states import State
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from tests.fakes import make_job

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCHOOL = backend("school")
DELIVERED, PUSHED = "ix_notices_delivered_not", "ix_notices_pushed_not"
LONG = 5_000

FILL = """
    WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)
    INSERT INTO notices (recipient, seq, execution_id, created_at, delivered_at, pushed_at)
    SELECT :to, i, id, created_at, created_at, created_at FROM numbers, executions
"""


@pytest.fixture
async def long(database: DatabaseManager, daos: DaoManager) -> DatabaseManager:
    """A database with a long series, all of it delivered."""

    async def fill(connection: AsyncConnection) -> None:
        job = make_job("run", attempt=1, owner="1")
        write = Write(job, None, 0, State.DONE, 0, 0, SortKey(job.priority, 0.0, 1))
        await daos.executions.write(connection, write, at=NOW)
        await connection.execute(text(FILL), {"to": SCHOOL, "last": LONG})

    await database.write(fill)
    if "postgresql" in str(await database.read(_dialect)):
        await database.write(lambda c: c.exec_driver_sql("ANALYZE notices"))
    return database


async def _dialect(connection: AsyncConnection) -> str:
    return connection.dialect.name


async def plan(connection: AsyncConnection, work: str, daos: DaoManager) -> str:
    """Return how the database does what one of the methods asks of it."""
    asked: list[tuple[str, object]] = []

    def note(_c: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        asked.append((statement, values))

    notices = daos.notices
    sync = connection.sync_connection
    event.listen(sync, "before_cursor_execute", note)
    try:
        match work:
            case "owed":
                await notices.owed(connection, SCHOOL, limit=65)
            case "count_owed":
                await notices.count_owed(connection)
            case "pushed":
                await notices.pushed(connection, [(SCHOOL, LONG, NOW)])
            case _:
                await notices.delivered(connection, [(SCHOOL, LONG)], NOW)
    finally:
        event.remove(sync, "before_cursor_execute", note)
    [(statement, values)] = asked
    if isinstance(values, list):
        [values] = values
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    rows = await connection.exec_driver_sql(f"{explain} {statement}", values)  # type: ignore[arg-type]
    return "\n".join(" ".join(map(str, row)) for row in rows)


@pytest.mark.parametrize(
    ("work", "index"),
    [
        ("owed", DELIVERED),
        ("count_owed", DELIVERED),
        ("delivered", DELIVERED),
        ("pushed", PUSHED),
    ],
)
async def test_only_what_is_left_to_do_is_looked_at(
    work: str, index: str, long: DatabaseManager, daos: DaoManager
) -> None:
    told = await long.write(lambda c: plan(c, work, daos))

    assert re.search(rf"\b{index}\b", told), told
