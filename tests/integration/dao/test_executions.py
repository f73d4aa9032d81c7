"""`executions`: compare-and-set, what a restart finds, how runs end."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.execution import ExecutionReport
from commserver.core.jobs import (
    AttemptId,
    ContentHash,
    Job,
    Priority,
    Purpose,
    Requirement,
    RunId,
    SortKey,
)
from commserver.core.states import State
from commserver.core.verdicts import (
    Broken,
    Cause,
    Completed,
    Failure,
    Fault,
    Judged,
    Status,
    Verdict,
)
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.dao.verdicts import VerdictRecord
from commserver.errors import AlreadyExists
from tests.fakes import broken, completed, make_job

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(seconds=90)


def new(job: Job, *, entry: int = 1, tag: float = 0.0, state: State = State.QUEUED) -> Write:
    """Return the write that makes a job's row."""
    return Write(job, None, 0, state, 0, 0, SortKey(job.priority, tag, entry))


def then(write: Write, state: State, *, tries: int = 0, deaths: int = 0) -> Write:
    """Return a write that follows another."""
    return replace(
        write,
        expected=write.state,
        expected_tries=write.tries,
        state=state,
        tries=tries,
        deaths=deaths,
    )


class Rows:
    """`executions` of one database, a transaction a call."""

    def __init__(self, database: DatabaseManager, daos: DaoManager) -> None:
        self._database = database
        self._executions = daos.executions

    async def write(
        self,
        *writes: Write,
        at: datetime = NOW,
        outcome: Completed | Broken | None = None,
        started: datetime | None = None,
    ) -> list[bool]:
        async def work(connection: AsyncConnection) -> list[bool]:
            return [
                await self._executions.write(
                    connection, write, at=at, outcome=outcome, started=started
                )
                for write in writes
            ]

        return await self._database.write(work)

    async def find(self, run: str) -> StoredRun:
        found = await self._database.read(lambda c: self._executions.find(c, RunId(run)))
        assert found is not None
        return found

    async def unfinished(self) -> list[StoredRun]:
        return await self._database.read(self._executions.unfinished)

    async def last_entry(self) -> int:
        return await self._database.read(self._executions.last_entry)

    async def latest_of(self, attempt: int) -> StoredRun | None:
        return await self._database.read(
            lambda c: self._executions.latest_of(c, AttemptId(attempt))
        )

    async def verdict(self, run: str) -> VerdictRecord | None:
        return await self._database.read(lambda c: self._executions.verdict(c, RunId(run)))


@pytest.fixture
def rows(database: DatabaseManager, daos: DaoManager) -> Rows:
    return Rows(database, daos)


# -- what is stored comes back --------------------------------------------------------------------


async def test_a_run_comes_back_as_it_was_written(rows: Rows) -> None:
    job = replace(
        make_job(
            "8b0e6cf4-4b63-4a0e-9c1e-2f7f2f1f0a11",
            attempt=42,
            owner="7",
            content="c" * 64,
            requires=[
                Requirement("image", "=", ("python",)),
                Requirement("memory", "<=", (128,)),
                Requirement("kind", "in", ("a", "é\x00", 3)),
            ],
            priority=Priority.REGRADE,
            purpose=Purpose.REJUDGE,
            max_tries=5,
            lease=120.25,
        ),
        course="python-101 ☃",
    )
    write = new(job, entry=2**40, tag=0.1 + 0.2)

    assert await rows.write(write) == [True]

    found = await rows.find(job.id)
    assert found == StoredRun(job, write.key, State.QUEUED, 0, 0, created_at=NOW)
    assert found.created_at.tzinfo is UTC
    assert found.job.priority is Priority.REGRADE
    assert found.key.tag.hex() == (0.1 + 0.2).hex()


async def test_a_foreign_job_has_no_attempt(rows: Rows) -> None:
    await rows.write(new(make_job("a", owner="recodex:peer")))

    found = await rows.find("a")
    assert found.job.attempt is None
    assert found.job.lease is None


async def test_a_run_that_is_not_there_is_none(database: DatabaseManager, daos: DaoManager) -> None:
    assert await database.read(lambda c: daos.executions.find(c, RunId("x" * 500))) is None
    assert await database.read(lambda c: daos.executions.verdict(c, RunId("x"))) is None


@pytest.mark.parametrize(
    ("attempt", "owner", "account"),
    [(42, "7", 7), (None, "7", None), (42, "recodex:7", None), (42, "", None), (42, "²", None)],
)
async def test_only_an_attempt_of_an_account_has_an_account(
    database: DatabaseManager,
    rows: Rows,
    attempt: int | None,
    owner: str,
    account: int | None,
) -> None:
    await rows.write(new(make_job("a", attempt=attempt, owner=owner)))

    async def work(connection: AsyncConnection) -> object:
        return await connection.scalar(text("SELECT account_id FROM executions"))

    assert await database.read(work) == account


# -- compare-and-set ------------------------------------------------------------------------------


async def test_a_row_changes_if_it_says_what_it_must(rows: Rows) -> None:
    queued = new(make_job("a"))
    leased = then(queued, State.LEASED)
    await rows.write(queued)

    assert await rows.write(leased) == [True]

    assert (await rows.find("a")).state is State.LEASED


@pytest.mark.parametrize(
    "stale", [{"expected": State.RUNNING}, {"expected_tries": 1}], ids=["state", "tries"]
)
async def test_a_row_that_says_otherwise_stays(rows: Rows, stale: dict[str, object]) -> None:
    queued = new(make_job("a"))
    await rows.write(queued)
    before = await rows.find("a")

    assert await rows.write(replace(then(queued, State.CANCELLED), **stale)) == [False]  # type: ignore[arg-type]  # fields by name

    assert await rows.find("a") == before


async def test_a_row_that_is_not_there_cannot_change(rows: Rows) -> None:
    assert await rows.write(then(new(make_job("a")), State.LEASED)) == [False]


async def test_of_two_that_change_a_row_at_once_one_wins(url: str, daos: DaoManager) -> None:
    async with DatabaseManager(url) as one, DatabaseManager(url) as two:
        queued = new(make_job("a"))
        await Rows(one, daos).write(queued)

        won = await asyncio.gather(
            Rows(one, daos).write(then(queued, State.CANCELLED)),
            Rows(two, daos).write(then(queued, State.DONE), outcome=completed()),
        )

        assert sorted(won) == [[False], [True]]
        expected = State.CANCELLED if won[0] == [True] else State.DONE
        assert (await Rows(two, daos).find("a")).state is expected


async def test_a_second_run_of_one_id_is_refused(rows: Rows) -> None:
    await rows.write(new(make_job("a")))

    with pytest.raises(AlreadyExists, match=r"executions\."):
        await rows.write(new(make_job("a")))


async def test_a_replaced_job_is_stored_whole(rows: Rows) -> None:
    queued = new(make_job("a", attempt=1))
    await rows.write(queued)
    job = replace(queued.job, content=ContentHash("new"), requires=(), lease=3.0, max_tries=1)

    await rows.write(then(replace(queued, job=job), State.QUEUED), at=LATER)

    found = await rows.find("a")
    assert found.job == job
    assert found.created_at == NOW


# -- at most one waits ----------------------------------------------------------------------------


async def test_two_runs_of_an_attempt_cannot_both_wait(rows: Rows) -> None:
    await rows.write(new(make_job("a", attempt=1)))

    with pytest.raises(AlreadyExists, match=r"user_exercise_id.*purpose|uq_executions_waiting"):
        await rows.write(new(make_job("b", attempt=1), entry=2))


async def test_a_run_cannot_go_back_to_wait_beside_another(rows: Rows) -> None:
    running = new(make_job("a", attempt=1), state=State.RUNNING)
    await rows.write(running, new(make_job("b", attempt=1), entry=2))

    with pytest.raises(AlreadyExists):
        await rows.write(then(running, State.QUEUED))


async def test_nothing_of_a_change_is_written_when_its_last_row_is_refused(rows: Rows) -> None:
    with pytest.raises(AlreadyExists):
        await rows.write(new(make_job("a", attempt=1)), new(make_job("b", attempt=1), entry=2))

    assert await rows.unfinished() == []


async def test_a_run_may_wait_beside_another_purpose_another_attempt_and_what_runs(
    rows: Rows,
) -> None:
    written = await rows.write(
        new(make_job("running", attempt=1), state=State.LEASED),
        new(make_job("done", attempt=1), state=State.DONE),
        new(make_job("waiting", attempt=1)),
        new(make_job("rejudge", attempt=1, purpose=Purpose.REJUDGE)),
        new(make_job("another", attempt=2)),
        new(make_job("foreign")),
        new(make_job("foreign too")),
    )

    assert all(written)


async def test_the_newer_run_takes_the_place_of_a_superseded_one(rows: Rows) -> None:
    running = new(make_job("a", attempt=1), entry=1, state=State.RUNNING)
    waiting = new(make_job("b", attempt=1), entry=5)
    await rows.write(running, waiting)

    moved = replace(then(waiting, State.QUEUED), key=running.key)
    assert await rows.write(then(running, State.SUPERSEDED), moved) == [True, True]

    assert [(run.job.id, run.key.entry) for run in await rows.unfinished()] == [("b", 1)]
    latest = await rows.latest_of(1)
    assert latest is not None


# -- how a run ends -------------------------------------------------------------------------------

VERDICT = Verdict(Status.WRONG_ANSWER, 7, 20, log="no\x00pe")
REPORT = ExecutionReport((), (), image="sha256:1", container="c1", isolation="nested", runner="2")


async def test_a_judged_run_keeps_its_verdict(rows: Rows) -> None:
    queued = new(make_job("a"))
    await rows.write(queued)
    outcome = Completed(VERDICT, REPORT)

    await rows.write(then(queued, State.DONE, tries=1), at=LATER, outcome=outcome)

    found = await rows.find("a")
    assert (found.state, found.tries, found.ended_at) == (State.DONE, 1, LATER)
    assert found.ending == Judged(Status.WRONG_ANSWER, 7, 20)
    record = await rows.verdict("a")
    assert record == VerdictRecord.of(outcome)
    assert record.verdict is not None
    assert record.verdict.log == "nope"


async def test_a_failed_run_keeps_why(rows: Rows) -> None:
    queued = new(make_job("a"))
    await rows.write(queued)
    failure = Failure(Cause.CONTAINER, "the container went\x00 away", "c0ffee")

    await rows.write(then(queued, State.FAILED, tries=3, deaths=2), outcome=Broken(failure))

    found = await rows.find("a")
    assert (found.tries, found.deaths) == (3, 2)
    assert found.ending == Failure(Cause.CONTAINER, "the container went away", "c0ffee")
    assert found.ending.fault is Fault.SYSTEM
    assert await rows.verdict("a") is None


async def test_a_failed_run_keeps_its_details_for_the_teacher(rows: Rows) -> None:
    queued = new(make_job("a"))
    await rows.write(queued)
    failure = Failure(Cause.EXERCISE, "the grader broke", details="Trace\x00back")

    await rows.write(then(queued, State.FAILED, tries=1), outcome=Broken(failure))

    assert (await rows.find("a")).ending == replace(failure, details="")
    assert await rows.verdict("a") == VerdictRecord(None, details="Traceback")


@pytest.mark.parametrize("cause", Cause)
async def test_a_run_can_fail_for_every_cause(rows: Rows, cause: Cause) -> None:
    await rows.write(new(make_job("a"), state=State.FAILED), outcome=broken(cause))

    found = await rows.find("a")
    assert isinstance(found.ending, Failure)
    assert found.ending.cause is cause
    assert found.ended_at == NOW


@pytest.mark.parametrize("status", Status)
async def test_a_run_can_end_with_every_status(rows: Rows, status: Status) -> None:
    await rows.write(
        new(make_job("a"), state=State.DONE), outcome=Completed(Verdict(status, 0, 10))
    )

    assert (await rows.find("a")).ending == Judged(status, 0, 10)


@pytest.mark.parametrize("state", State)
async def test_a_run_can_be_in_every_state_and_has_an_end_only_when_it_ended(
    rows: Rows, state: State
) -> None:
    await rows.write(new(make_job("a"), state=state))

    found = await rows.find("a")
    assert found.state is state
    assert found.ended_at == (NOW if state.ended else None)
    assert found.started_at == (NOW if state is State.RUNNING else None)
    assert found.ending is None


async def test_the_start_of_the_latest_try_is_kept(rows: Rows) -> None:
    queued = new(make_job("a"))
    running = then(queued, State.RUNNING)
    again = then(running, State.QUEUED, tries=1)
    await rows.write(queued)
    await rows.write(running, at=LATER)
    await rows.write(again, at=LATER)
    assert (await rows.find("a")).started_at == LATER

    started = LATER + timedelta(seconds=5)
    done = then(again, State.DONE, tries=2)
    await rows.write(done, at=LATER + timedelta(9), outcome=completed(), started=started)

    assert (await rows.find("a")).started_at == started


# -- what a restart finds -------------------------------------------------------------------------


async def test_a_restart_finds_what_has_not_ended_in_its_stored_order(rows: Rows) -> None:
    await rows.write(
        new(make_job("last", priority=Priority.REGRADE), entry=1, tag=0.0),
        new(make_job("third"), entry=3, tag=2.0),
        new(make_job("second"), entry=4, tag=1.0, state=State.RUNNING),
        new(make_job("first"), entry=2, tag=1.0, state=State.LEASED),
        new(make_job("exam", priority=Priority.EXAM), entry=9, tag=9.0),
        *(new(make_job(state), entry=5, state=state) for state in State if state.ended),
    )

    found = await rows.unfinished()

    assert [run.job.id for run in found] == ["exam", "first", "second", "third", "last"]
    assert [run.key for run in found] == sorted(run.key for run in found)


async def test_runs_with_equal_requirements_share_one_object(rows: Rows) -> None:
    await rows.write(new(make_job("a"), entry=1), new(make_job("b"), entry=2))

    one, other = await rows.unfinished()

    assert one.job.requires is other.job.requires


async def test_entry_numbers_go_on_after_the_highest_ever_given(rows: Rows) -> None:
    assert await rows.last_entry() == 0

    await rows.write(
        new(make_job("a"), entry=7), new(make_job("b"), entry=12, state=State.CANCELLED)
    )

    assert await rows.last_entry() == 12


async def test_the_latest_run_of_an_attempt_is_the_newest(rows: Rows) -> None:
    await rows.write(
        new(make_job("old", attempt=1), entry=1, state=State.DONE),
        new(make_job("new", attempt=1), entry=3, state=State.CANCELLED),
        new(make_job("other", attempt=2), entry=9),
    )

    latest = await rows.latest_of(1)

    assert latest is not None
    assert latest.job.id == "new"


async def test_of_two_runs_with_one_place_the_younger_is_the_latest(rows: Rows) -> None:
    await rows.write(new(make_job("z", attempt=1), entry=1, state=State.SUPERSEDED), at=NOW)
    await rows.write(new(make_job("a", attempt=1), entry=1), at=LATER)

    latest = await rows.latest_of(1)

    assert latest is not None
    assert latest.job.id == "a"


@pytest.mark.parametrize("attempt", [3, -1, 2**63, 10**40])
async def test_an_attempt_without_runs_has_no_latest(rows: Rows, attempt: int) -> None:
    assert await rows.latest_of(attempt) is None
