"""Transactions: whole, bounded, with a known outcome whatever becomes of the caller."""

import asyncio
import logging

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.column_types import Whole
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import AlreadyExists, CommServerError, NotFound, StoreError, StoreRefused

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
async def notes(empty: DatabaseManager, engine_name: str) -> DatabaseManager:
    """A database with one table, `notes(id, body)`, which numbers its rows."""
    await make_notes(empty, engine_name)
    return empty


async def make_notes(database: DatabaseManager, engine_name: str) -> None:
    kind = "INTEGER" if engine_name == "sqlite" else "SERIAL"
    await execute(database, f"CREATE TABLE notes (id {kind} PRIMARY KEY, body TEXT NOT NULL)")


async def execute(database: DatabaseManager, statement: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(statement))

    await database.write(work)


async def insert(connection: AsyncConnection, body: str, number: int | None = None) -> None:
    if number is None:
        await connection.execute(text("INSERT INTO notes (body) VALUES (:body)"), {"body": body})
    else:
        await connection.execute(
            text("INSERT INTO notes (id, body) VALUES (:id, :body)"), {"id": number, "body": body}
        )


async def bodies(database: DatabaseManager) -> list[str]:
    async def work(connection: AsyncConnection) -> list[str]:
        return list(await connection.scalars(text("SELECT body FROM notes ORDER BY id")))

    return await database.read(work)


# -- whole or not at all --------------------------------------------------------------------------


async def test_what_a_transaction_returns_is_handed_on(notes: DatabaseManager) -> None:
    async def work(connection: AsyncConnection) -> str:
        await insert(connection, "a")
        return "result"

    assert await notes.write(work) == "result"
    assert await bodies(notes) == ["a"]


async def test_an_error_of_the_work_undoes_it_and_comes_out_as_it_is(
    notes: DatabaseManager,
) -> None:
    async def work(connection: AsyncConnection) -> None:
        await insert(connection, "a")
        raise NotFound("attempt", "42")

    with pytest.raises(NotFound):
        await notes.write(work)

    assert await bodies(notes) == []


async def test_a_reader_sees_one_moment_and_waits_for_no_writer(notes: DatabaseManager) -> None:
    read, written = asyncio.Event(), asyncio.Event()

    async def reader(connection: AsyncConnection) -> list[object]:
        counts = [await connection.scalar(text("SELECT count(*) FROM notes"))]
        read.set()
        await written.wait()
        return [*counts, await connection.scalar(text("SELECT count(*) FROM notes"))]

    reading = asyncio.create_task(notes.read(reader))
    await read.wait()
    await notes.write(lambda c: insert(c, "a"))
    written.set()

    assert await reading == [0, 0]


async def test_a_reader_cannot_write(notes: DatabaseManager) -> None:
    with pytest.raises(StoreError):
        await notes.read(lambda c: insert(c, "a"))

    assert await bodies(notes) == []


# -- errors ---------------------------------------------------------------------------------------


async def test_a_second_row_of_a_kind_already_exists(
    notes: DatabaseManager, engine_name: str
) -> None:
    await notes.write(lambda c: insert(c, "a", 1))

    with pytest.raises(AlreadyExists) as caught:
        await notes.write(lambda c: insert(c, "b", 1))

    key = {"sqlite": "notes.id", "postgresql": "notes.notes_pkey"}
    assert caught.value.what == key[engine_name]
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "statement", ["SELECT nothing", "INSERT INTO notes VALUES (1, NULL)", "what?"]
)
async def test_any_other_refusal_is_a_store_error(notes: DatabaseManager, statement: str) -> None:
    with pytest.raises(StoreError) as caught:
        await execute(notes, statement)

    assert not isinstance(caught.value, AlreadyExists)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("number", "body"), [(2**63, "a"), (1, "\ud800")])
async def test_a_value_that_does_not_fit_is_a_store_error(
    notes: DatabaseManager, number: int, body: str
) -> None:
    with pytest.raises(StoreError):
        await notes.write(lambda c: insert(c, body, number))

    assert await bodies(notes) == []


async def test_a_value_that_cannot_be_read_is_refused_and_not_shown(notes: DatabaseManager) -> None:
    await notes.write(lambda c: insert(c, "secret"))
    query = text("SELECT body FROM notes").columns(body=Whole)

    with pytest.raises(StoreRefused) as caught:
        await notes.read(lambda c: c.scalar(query))

    assert str(caught.value) == "a value in the database is no whole number"
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert await bodies(notes) == ["secret"]


async def test_what_a_rule_of_the_platforms_refuses_is_refused_for_good(
    notes: DatabaseManager, engine_name: str
) -> None:
    if engine_name == "sqlite":
        await execute(
            notes,
            "CREATE TRIGGER rule BEFORE INSERT ON notes"
            " BEGIN SELECT RAISE(ABORT, 'not on my watch'); END",
        )
    else:
        await execute(
            notes,
            "CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE 'not on my watch'; END $$",
        )
        await execute(
            notes, "CREATE TRIGGER rule BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION rule()"
        )

    with pytest.raises(StoreRefused, match="not on my watch"):
        await notes.write(lambda c: insert(c, "a"))


async def test_a_mistake_of_ours_in_a_statement_is_a_store_error(notes: DatabaseManager) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT :missing"))

    with pytest.raises(StoreError):
        await notes.read(work)


async def test_no_value_of_a_statement_shows_in_an_error_or_a_log(
    notes: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await notes.write(lambda c: insert(c, "a", 1))

    with pytest.raises(AlreadyExists) as caught:
        await notes.write(lambda c: insert(c, "secret", 1))

    chain: BaseException | None = caught.value
    while chain is not None:
        assert "secret" not in str(chain)
        chain = chain.__cause__ or chain.__context__
    assert "secret" not in caplog.text


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_transaction_past_its_deadline_is_undone_and_the_next_one_runs(
    notes: DatabaseManager, kind: str
) -> None:
    async def work(connection: AsyncConnection) -> None:
        if kind == "write":
            await insert(connection, "lost")
        await connection.execute(text(FOR_EVER))

    with pytest.raises(StoreError, match="took too long"):
        await getattr(notes, kind)(work, deadline=0.02)

    await notes.write(lambda c: insert(c, "next"))
    assert await bodies(notes) == ["next"]


async def test_a_caller_waits_for_a_connection_only_so_long(empty_url: str) -> None:
    go = asyncio.Event()
    holding = asyncio.Event()

    async def hold(connection: AsyncConnection) -> None:
        holding.set()
        await go.wait()

    async with DatabaseManager(empty_url, acquire_timeout=0.2, pool=1) as database:
        holder = asyncio.create_task(database.write(hold))
        await holding.wait()

        with pytest.raises(StoreError, match=r"within 0\.2 s"):
            await execute(database, "SELECT 1")

        go.set()
        await holder
        await execute(database, "SELECT 1")


# -- a caller that is cancelled -------------------------------------------------------------------


class Caller:
    """Somebody who writes, keeps what they were told, and is cancelled at a chosen moment."""

    def __init__(self, database: DatabaseManager) -> None:
        self._database = database
        self.reached = asyncio.Event()
        self.told: BaseException | None = None

    async def call(self, *, failing: bool = False) -> None:
        async def work(connection: AsyncConnection) -> None:
            await insert(connection, "a", 1)
            if failing:
                self.reached.set()
                await insert(connection, "b", 1)
            # From here on only the commit is left: whoever waits runs while it is under way.
            self.reached.set()

        try:
            await self._database.write(work)
        except BaseException as error:
            self.told = error
            raise


async def test_a_caller_cancelled_in_mid_commit_knows_that_it_was_committed(
    notes: DatabaseManager,
) -> None:
    caller = Caller(notes)
    task = asyncio.create_task(caller.call())
    await caller.reached.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(caller.told, asyncio.CancelledError)
    assert caller.told.__cause__ is None
    assert await bodies(notes) == ["a"]


async def test_a_caller_cancelled_in_a_transaction_that_fails_knows_that_nothing_was_written(
    notes: DatabaseManager,
) -> None:
    caller = Caller(notes)
    task = asyncio.create_task(caller.call(failing=True))
    await caller.reached.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(caller.told, asyncio.CancelledError)
    assert isinstance(caller.told.__cause__, AlreadyExists)
    assert await bodies(notes) == []


async def test_a_caller_cancelled_in_the_queue_of_writers_knows_that_it_was_committed(
    notes: DatabaseManager,
) -> None:
    go, holding = asyncio.Event(), asyncio.Event()

    async def hold(connection: AsyncConnection) -> None:
        holding.set()
        await go.wait()

    holder = asyncio.create_task(notes.write(hold))
    await holding.wait()
    caller = Caller(notes)
    task = asyncio.create_task(caller.call())
    await asyncio.sleep(0)

    task.cancel()
    go.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    await holder
    assert caller.told is not None
    assert caller.told.__cause__ is None
    assert await bodies(notes) == ["a"]


async def test_many_cancelled_callers_are_all_told_the_truth(notes: DatabaseManager) -> None:
    told: dict[int, bool] = {}

    async def call(number: int) -> None:
        try:
            await notes.write(lambda c: insert(c, str(number), number))
        except asyncio.CancelledError as cancelled:
            told[number] = cancelled.__cause__ is None
            raise
        told[number] = True

    tasks = [asyncio.create_task(call(number)) for number in range(30)]
    for number, task in enumerate(tasks):
        if number % 3:
            task.cancel()
        await notes.read(lambda c: c.scalar(text("SELECT 1")))
    await asyncio.gather(*tasks, return_exceptions=True)

    # Those that were cancelled before their first step never asked.
    assert {str(number) for number, committed in told.items() if committed} == set(
        await bodies(notes)
    )


# -- opening and closing --------------------------------------------------------------------------


async def test_closing_waits_for_what_is_running(empty_url: str, engine_name: str) -> None:
    database = DatabaseManager(empty_url)
    await database.open()
    await make_notes(database, engine_name)
    running, go = asyncio.Event(), asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        running.set()
        await go.wait()
        await insert(connection, "a")

    task = asyncio.create_task(database.write(work))
    await running.wait()
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)

    with pytest.raises(StoreError, match="not open"):
        await database.read(work)
    go.set()
    await asyncio.gather(task, closing)

    async with DatabaseManager(empty_url) as again:
        assert await bodies(again) == ["a"]


async def test_a_database_can_be_opened_again(empty_url: str) -> None:
    database = DatabaseManager(empty_url)
    for _ in range(2):
        async with database:
            await execute(database, "SELECT 1")


async def test_an_error_in_the_block_closes_it(empty_url: str) -> None:
    database = DatabaseManager(empty_url)

    with pytest.raises(CommServerError):
        async with database:
            raise CommServerError

    with pytest.raises(StoreError, match="not open"):
        await execute(database, "SELECT 1")
