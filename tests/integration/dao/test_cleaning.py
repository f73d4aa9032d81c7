"""Texts of others on their way through every kind of database: cleaned, whole, never refused."""

import itertools
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.execution import (
    CaseReport,
    ExecutionReport,
    ProcessReport,
    RunReport,
    StageReport,
)
from commserver.core.jobs import AttemptId, Job, LeaseId, Origin, OwnerId, Priority, RunId, SortKey
from commserver.core.jobs import Lease as CoreLease
from commserver.core.states import State
from commserver.core.text import CUT_MARK, TEXT_LIMIT, clean_text
from commserver.core.verdicts import Broken, CaseVerdict, Cause, Completed, Failure, Status, Verdict
from commserver.dao.column_types import CleanText, Json
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.tables import commserver
from commserver.errors import StoreRefused
from tests.fakes import make_job, make_offer
from tests.integration.dao.conftest import NOW

# Every code point that Python can hold, with the troublesome ones often.
TROUBLE = "\0\x01\x1b\r\n\t\x7f\x85\u202e\u2066\ud800\udfff\uffff\U0010ffff"
ANY_TEXT = st.text(st.one_of(st.characters(), st.sampled_from(TROUBLE)))
ON_ONE_DATABASE = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # examples add rows of their own
)
NUMBERS = itertools.count(1)


def ended(job: Job, state: State = State.DONE) -> Write:
    key = SortKey(Priority.INTERACTIVE, 0.0, 1)
    return Write(job, None, 0, state, tries=1, deaths=0, key=key)


@pytest.fixture
async def attempt(database: DatabaseManager, daos: DaoManager) -> AttemptId:
    async def work(connection: AsyncConnection) -> AttemptId:
        account = await daos.accounts.add(connection, "ada")
        language = await daos.languages.ensure(connection, "Python")
        course = await daos.courses.ensure(
            connection, account_id=account, title="c", language_id=language
        )
        exercise = await daos.exercises.put(
            connection,
            account_id=account,
            course_id=course,
            title="e",
            instruction="",
            grade_max=20,
        )
        return await daos.attempts.add(connection, account_id=account, exercise_id=exercise)

    return await database.write(work)


@ON_ONE_DATABASE
@given(ANY_TEXT)
@example(TROUBLE)
async def test_whatever_is_told_to_a_student_is_stored_as_it_is_cleaned(
    database: DatabaseManager, daos: DaoManager, attempt: AttemptId, text: str
) -> None:
    await database.write(lambda c: daos.attempt_logs.add(c, attempt, text, 1))

    assert await database.read(lambda c: daos.attempt_logs.latest(c, attempt)) == clean_text(text)


@ON_ONE_DATABASE
@given(ANY_TEXT)
@example(TROUBLE)
async def test_every_text_of_a_failed_run_comes_back_clean(
    database: DatabaseManager, daos: DaoManager, text: str
) -> None:
    job = replace(
        make_job(f"run-{next(NUMBERS)}"),
        origin=Origin(text, text, text),
        owner=OwnerId(text),
        course=text,
    )
    failure = Failure(Cause.CONTAINER, text, text)

    await database.write(
        lambda c: daos.executions.write(
            c, ended(job, State.FAILED), at=NOW, outcome=Broken(failure)
        )
    )

    found = await database.read(lambda c: daos.executions.find(c, job.id))
    clean = clean_text(text)
    assert found is not None
    assert found.ending == Failure(Cause.CONTAINER, clean, clean)
    assert found.job == replace(
        job, origin=Origin(clean, clean, clean), owner=OwnerId(clean), course=clean
    )


@ON_ONE_DATABASE
@given(ANY_TEXT)
@example(TROUBLE)
async def test_every_text_of_a_verdict_comes_back_clean(
    database: DatabaseManager, daos: DaoManager, text: str
) -> None:
    job = make_job(f"run-{next(NUMBERS)}")
    case = CaseVerdict(text, Status.ACCEPTED, 1, 1, 0.5, 0.5, 1024)
    runs = (RunReport(text, 0, 0.5, 0.5, 1024),)
    stage = StageReport(text, (ProcessReport(text, 0, 0.5, 0.5, 1024, runs=runs),))
    report = ExecutionReport((stage,), (CaseReport(text, (stage,)),), text, text, text, text)
    outcome = Completed(Verdict(Status.ACCEPTED, 1, 1, text, (case,), text), report)

    await database.write(lambda c: daos.executions.write(c, ended(job), at=NOW, outcome=outcome))

    record = await database.read(lambda c: daos.executions.verdict(c, job.id))
    clean = clean_text(text)
    assert record is not None
    cases = (replace(case, name=clean),)
    assert record.verdict == Verdict(Status.ACCEPTED, 1, 1, clean, cases, clean)
    assert (record.image, record.container, record.isolation, record.runner) == (clean,) * 4
    [measured] = record.measured
    assert measured.name == clean
    for one in (*record.prepare, *measured.stages):
        [process] = one.processes
        assert (one.name, process.name, process.runs[0].name) == (clean,) * 3


@ON_ONE_DATABASE
@given(ANY_TEXT)
@example(TROUBLE)
async def test_the_names_of_runners_and_tokens_come_back_clean(
    database: DatabaseManager, daos: DaoManager, text: str
) -> None:
    number = next(NUMBERS)
    job = make_job(f"run-{number}")
    lease = CoreLease(LeaseId(f"lease-{number}"), job, make_offer(text, engine=text))
    key = SortKey(Priority.INTERACTIVE, 0.0, 1)
    waiting = Write(job, None, 0, State.LEASED, tries=0, deaths=0, key=key)

    async def work(connection: AsyncConnection) -> None:
        await daos.executions.write(connection, waiting, at=NOW)
        await daos.leases.add(connection, lease, until=None, at=NOW)
        await daos.tokens.add(connection, f"{number:064}", account_id=1, life=1, at=NOW, label=text)

    await database.write(work)

    clean = clean_text(text)
    [stored] = [one for one in await database.read(daos.leases.all) if one.id == lease.id]
    assert (stored.offer.runner, stored.offer.engine) == (clean, clean)
    token = await database.read(lambda c: daos.tokens.find(c, f"{number:064}"))
    assert token is not None
    assert token.label == clean


@pytest.mark.parametrize("character", ["a", "\N{SNOWMAN}", "\0", "\ud800"])
async def test_ten_megabytes_are_cut_and_do_not_take_long(
    database: DatabaseManager, daos: DaoManager, attempt: AttemptId, character: str
) -> None:
    text = character * 10_000_000
    job = make_job("giant")
    outcome = Completed(Verdict(Status.OUTPUT, 0, 20, text))
    begun = time.monotonic()

    async def work(connection: AsyncConnection) -> None:
        await daos.executions.write(connection, ended(job), at=NOW, outcome=outcome)
        await daos.attempt_logs.add(connection, attempt, text, 1)

    await database.write(work)

    log = await database.read(lambda c: daos.attempt_logs.latest(c, attempt))
    record = await database.read(lambda c: daos.executions.verdict(c, RunId("giant")))
    assert log is not None
    assert record is not None
    assert record.verdict is not None
    assert record.verdict.log == log
    assert len(log.encode()) <= TEXT_LIMIT
    assert log.endswith(CUT_MARK) or log == ""
    assert time.monotonic() - begun < 20.0


@pytest.mark.parametrize("number", [2**31, 2**63, -(2**63) - 1, 2**200])
async def test_a_number_that_no_column_holds_is_refused_for_good(
    database: DatabaseManager, daos: DaoManager, number: int, engine_name: str
) -> None:
    if engine_name == "sqlite" and number < 2**63 and number > 0:
        number = 2**63  # SQLite's columns are wider
    outcome = Completed(Verdict(Status.ACCEPTED, number, 20))

    with pytest.raises(StoreRefused):
        await database.write(
            lambda c: daos.executions.write(c, ended(make_job("a")), at=NOW, outcome=outcome)
        )

    assert await database.read(lambda c: daos.executions.find(c, RunId("a"))) is None


async def test_what_a_runner_offers_and_cannot_be_written_is_refused_for_good(
    database: DatabaseManager, daos: DaoManager
) -> None:
    offer = make_offer(images=["\ud800"])

    with pytest.raises(StoreRefused):
        await database.write(
            lambda c: daos.leases.add(
                c, CoreLease(LeaseId("lease"), make_job("a"), offer), until=None, at=NOW
            )
        )


def test_every_text_of_ours_is_cleaned_or_made_by_us() -> None:
    """A column that is added must be one or the other."""
    made_by_us = {
        *("executions.id", "executions.content_hash", "leases.id", "leases.execution_id"),
        *("series.recipient", "notices.recipient", "notices.execution_id"),
        *("tokens.sha256", "site.id"),
        *("executions.purpose", "executions.state", "executions.status"),
        *("executions.fault", "executions.failure_cause"),
        *("commserver_requests.body", "commserver_requests.execution_id"),
        "commserver_requests.key",  # a peer's, of which only visible ASCII is let in
    }
    others = {
        f"{table.name}.{column.name}"
        for table in commserver.tables.values()
        for column in table.columns
        if isinstance(column.type, String) and not isinstance(column.type, CleanText | Json)
    }

    assert others == made_by_us
