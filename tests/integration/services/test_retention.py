"""What is kept for a time only, in real databases and a real folder."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Delete, Update
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from commserver import app
from commserver.config import Backend, Browser, Config, Database, Files, Http
from commserver.core.finals import account
from commserver.core.jobs import ContentHash, OwnerId, RunId, content_hash
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Status, Verdict
from commserver.errors import StoreError
from commserver.services import retention_service
from commserver.services.retention_service import PERIOD, Forgotten, RetentionService
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, broken, completed, make_offer
from tests.integration.services.site import Site, until
from tests.unit.graders.toml import exercise

DAY = 86_400.0  # seconds
FOREVER = Database(keep_executions=0, keep_notices=0, keep_logs=0)
NOTHING = Forgotten(runs=0, notices=0, logs=0, files=0)
ALWAYS = Files(keep=0)


def retention(site: Site, keep: Database = FOREVER, files: Files = ALWAYS) -> RetentionService:
    return RetentionService(site.database, site.daos, site.files, site.clock, keep, files)


async def handed_in(site: Site, source: str = "print(42)", student: str = "ada") -> RunId:
    """Hand in something new."""
    attempt = await site.attempt(await site.exercise(), {"main.py": source}, student=student)
    return await site.submit(attempt)


async def judged(site: Site, source: str = "print(42)", student: str = "ada") -> RunId:
    """Hand in, and have it judged."""
    run = await handed_in(site, source, student)
    verdict = Verdict(Status.WRONG_ANSWER, 5, 20, f'"log":"" \N{BULLET} {source}')
    await site.runs.finished(await site.lease(), Completed(verdict))
    return run


async def runs(site: Site) -> set[object]:
    return {run for (run,) in await site.sql("SELECT id FROM executions")}


async def delivered(site: Site, student: str = "ada") -> None:
    """Have every final of a student delivered."""
    recipient = account(OwnerId(str(await site.admin.account(student))))
    await site.database.write(
        lambda c: site.daos.notices.delivered(c, [(recipient, 2**62)], site.clock.utc())
    )


def days(clock: FakeClock, number: float) -> None:
    clock.advance(number * DAY)


def before(
    monkeypatch: pytest.MonkeyPatch, kind: type[object], happens: Callable[[], Awaitable[object]]
) -> None:
    """Have something happen elsewhere before each statement of this kind."""
    execute: Callable[..., Awaitable[object]] = AsyncConnection.execute

    async def later(
        connection: AsyncConnection, statement: object, *rest: object, **options: object
    ) -> object:
        if isinstance(statement, kind):
            await happens()
        return await execute(connection, statement, *rest, **options)

    monkeypatch.setattr(AsyncConnection, "execute", later)


# -- requests of the HTTP door --------------------------------------------------------------------


async def test_a_key_stands_for_its_request_for_seven_days_whatever_else_is_kept(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_service, "BATCH", 2)
    dao = site.daos.requests
    for key in ("a", "b", "c", "d", "e"):
        await site.database.write(partial(dao.reserve, key=key, body="", at=clock.utc()))
    days(clock, 7)
    at_seven = await retention(site).clean()
    await site.database.write(partial(dao.reserve, key="new", body="", at=clock.utc()))
    days(clock, 0.01)
    later = await retention(site).clean()

    assert (at_seven.requests, later.requests) == (0, 5)
    assert await site.sql("SELECT key FROM commserver_requests") == [("new",)]


# -- runs -----------------------------------------------------------------------------------------


async def test_runs_that_ended_long_ago_are_forgotten_with_all_that_hangs_on_them(
    site: Site, clock: FakeClock
) -> None:
    old = await judged(site)
    await delivered(site)
    days(clock, 10)
    younger = await judged(site)
    await delivered(site)
    days(clock, 1)
    keep = retention(site, Database(keep_executions=5, keep_notices=0, keep_logs=0))

    assert await keep.clean() == Forgotten(runs=1, notices=0, logs=0, files=0)

    assert await runs(site) == {younger}
    assert await site.sql("SELECT execution_id FROM notices") == [(younger,)]
    assert old != younger


@pytest.mark.parametrize(("age", "kept"), [(4.99, 1), (5.01, 0)])
async def test_the_time_counts_from_the_end_of_a_run(
    site: Site, clock: FakeClock, age: float, kept: int
) -> None:
    await handed_in(site)
    days(clock, 100)
    await site.runs.finished(await site.lease(), completed())
    await delivered(site)
    days(clock, age)

    await retention(site, Database(keep_executions=5, keep_notices=0, keep_logs=0)).clean()

    assert await site.count("executions") == kept


async def test_a_run_that_has_not_ended_is_never_forgotten(site: Site, clock: FakeClock) -> None:
    waiting = await handed_in(site, "first")
    leased = await handed_in(site, "second")
    await site.lease(make_offer("node", engine="node", remote=True))
    days(clock, 10_000)

    keep = Database(keep_executions=1, keep_notices=1, keep_logs=1)
    assert await retention(site, keep, Files(keep=1)).clean() == NOTHING

    assert await runs(site) == {waiting, leased}
    assert await site.count("leases") == 1


async def test_no_moment_in_its_row_makes_a_run_that_waits_one_that_has_ended(
    site: Site, clock: FakeClock
) -> None:
    waiting = await handed_in(site)
    await site.sql("UPDATE executions SET ended_at = created_at")
    days(clock, 10_000)

    keep = retention(site, Database(keep_executions=1, keep_notices=1, keep_logs=1))

    assert await keep.clean() == NOTHING
    assert await runs(site) == {waiting}


async def test_a_final_that_is_owed_keeps_its_run_as_long_as_it_may_come(
    site: Site, clock: FakeClock
) -> None:
    run = await judged(site)
    keep = retention(site, Database(keep_executions=1, keep_notices=30, keep_logs=0))

    days(clock, 29)
    assert await keep.clean() == NOTHING
    assert await runs(site) == {run}

    days(clock, 2)
    assert await keep.clean() == Forgotten(runs=1, notices=1, logs=0, files=0)


async def test_a_final_that_is_owed_for_ever_keeps_its_run_for_ever(
    site: Site, clock: FakeClock
) -> None:
    await judged(site)
    days(clock, 10_000)

    keep = retention(site, Database(keep_executions=1, keep_notices=0, keep_logs=0))

    assert await keep.clean() == NOTHING


async def test_every_kind_of_end_is_forgotten(site: Site, clock: FakeClock) -> None:
    exercise = await site.exercise()
    attempts = [await site.attempt(exercise) for _ in range(3)]
    for attempt in attempts:
        await site.submit(attempt)
    await site.exec.cancel(attempts[2])
    await site.runs.finished(await site.lease(), broken(Cause.EXERCISE))
    lease = await site.lease()
    await site.edit(attempts[1], "print('newer')")
    newer = await site.submit(attempts[1])
    await site.runs.release(lease.id)
    await delivered(site)
    days(clock, 2)

    keep = retention(site, Database(keep_executions=1, keep_notices=0, keep_logs=0))

    assert (await keep.clean()).runs == 3, "failed, cancelled, superseded"
    assert await runs(site) == {newer}


async def test_what_is_forgotten_belongs_to_the_baseline_and_never_less_does(
    site: Site, clock: FakeClock
) -> None:
    await site.sql("INSERT INTO baseline (single, attempt, created_at) VALUES (1, 1, :at)", at=NOW)
    for _ in range(3):
        await judged(site)
    await delivered(site)
    days(clock, 2)
    await judged(site)
    [(third,)] = await site.sql("SELECT max(id) - 1 FROM user_exercises")
    keep = retention(site, Database(keep_executions=1, keep_notices=0, keep_logs=0))

    await keep.clean()
    assert await site.sql("SELECT attempt FROM baseline") == [(third,)]

    await site.sql("UPDATE baseline SET attempt = 1000")
    await delivered(site)
    days(clock, 2)
    assert (await keep.clean()).runs == 1
    assert await site.sql("SELECT attempt FROM baseline") == [(1000,)]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_run_whose_receipt_comes_at_the_last_moment_belongs_to_the_baseline_too(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of PostgreSQL sees what was committed until then."""
    await site.sql("INSERT INTO baseline (single, attempt, created_at) VALUES (1, 0, :at)", at=NOW)
    run = await judged(site)
    days(clock, 2)
    dao = site.daos.housekeeping
    at = clock.utc() - timedelta(days=1)

    before(monkeypatch, Delete, lambda: delivered(site))

    async def forget(connection: AsyncConnection) -> int:
        return await dao.forget_runs(connection, [run], ended=at)

    assert await site.database.write(forget) == 1

    assert await site.sql("SELECT attempt FROM baseline") == await site.sql(
        "SELECT max(id) FROM user_exercises"
    )


# -- finals ---------------------------------------------------------------------------------------


async def test_finals_are_forgotten_delivered_or_not_and_numbers_go_on(
    site: Site, clock: FakeClock
) -> None:
    await judged(site)
    await delivered(site)
    await judged(site)
    days(clock, 31)
    run = await judged(site)

    keep = retention(site, Database(keep_executions=0, keep_notices=30, keep_logs=0))

    assert (await keep.clean()).notices == 2
    assert await site.sql("SELECT seq, execution_id FROM notices") == [(3, run)]
    assert await site.count("executions") == 3


# -- logs -----------------------------------------------------------------------------------------


async def test_what_students_read_is_blanked_in_our_record_and_nowhere_else(
    site: Site, clock: FakeClock
) -> None:
    old = await judged(site, "secret")
    before = await site.row(old)
    days(clock, 91)
    young = await judged(site, "fresh")
    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=90))

    assert await keep.clean() == Forgotten(runs=0, notices=0, logs=1, files=0)
    assert await keep.clean() == NOTHING

    record = await site.database.read(lambda c: site.daos.executions.verdict(c, old))
    assert record is not None
    assert record.verdict == Verdict(Status.WRONG_ANSWER, 5, 20, "")
    assert await site.row(old) == before, "status, grade and times stay"
    record = await site.database.read(lambda c: site.daos.executions.verdict(c, young))
    assert record is not None
    assert record.verdict is not None
    assert "fresh" in record.verdict.log
    assert any("secret" in str(log) for (log,) in await site.sql("SELECT content FROM logs"))


async def test_a_record_of_another_version_is_blanked_and_kept(
    site: Site, clock: FakeClock
) -> None:
    """A later version renames a status, drops a field, adds one: the log is where it was."""
    other = '{"verdict":{"status":"partial","log":"%s","points":5},"engine":"x"}'
    old = await judged(site)
    await site.sql("UPDATE executions SET verdict = :record", record=other % "secret")
    days(clock, 91)
    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=90))

    assert (await keep.clean()).logs == 1
    assert await keep.clean() == NOTHING

    record = "SELECT verdict FROM executions WHERE id = :run"
    assert await site.sql(record, run=old) == [(other % "",)]


@pytest.mark.parametrize(
    "record", ["", "secret", '{"verdict":', "[]", "{}", '{"verdict":"secret"}']
)
async def test_a_record_that_is_none_is_not_kept_and_stops_no_other(
    site: Site, clock: FakeClock, record: str
) -> None:
    bad = await judged(site, "first")
    good = await judged(site, "second")
    await site.sql(
        "UPDATE executions SET verdict = :record WHERE id = :run", record=record, run=bad
    )
    days(clock, 91)
    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=90))

    assert (await keep.clean()).logs == 2
    assert await keep.clean() == NOTHING

    assert await site.sql("SELECT id FROM executions WHERE verdict IS NULL") == [(bad,)]
    kept = await site.database.read(lambda c: site.daos.executions.verdict(c, good))
    assert kept is not None
    assert kept.verdict is not None
    assert kept.verdict.log == ""


@pytest.mark.parametrize(
    "texts", [("", "notes alone"), ("a log alone", ""), ("both", "of them"), ("", "")]
)
async def test_notes_are_kept_no_longer_than_logs(
    site: Site, clock: FakeClock, texts: tuple[str, str]
) -> None:
    log, notes = texts
    run = await handed_in(site)
    verdict = Verdict(Status.WRONG_ANSWER, 5, 20, log, (), notes)
    await site.runs.finished(await site.lease(), Completed(verdict))
    days(clock, 91)
    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=90))

    assert (await keep.clean()).logs == int(any(texts))
    assert await keep.clean() == NOTHING

    record = await site.database.read(lambda c: site.daos.executions.verdict(c, run))
    assert record is not None
    assert record.verdict == replace(verdict, log="", notes="")


async def test_why_a_grader_broke_is_kept_no_longer_than_logs(site: Site, clock: FakeClock) -> None:
    run = await handed_in(site)
    failure = Failure(Cause.EXERCISE, "the grader broke", details="Traceback")
    await site.runs.finished(await site.lease(), Broken(failure))
    days(clock, 91)
    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=90))

    assert (await keep.clean()).logs == 1
    assert await keep.clean() == NOTHING

    assert await site.database.read(lambda c: site.daos.executions.verdict(c, run)) is None
    assert (await site.row(run)).ending == replace(failure, details="")


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_record_that_was_erased_a_moment_ago_does_not_come_back(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's writers take turns."""
    run = await judged(site)
    erase = "UPDATE executions SET verdict = NULL"

    before(monkeypatch, Update, lambda: site.sql(erase))

    async def blank(connection: AsyncConnection) -> int:
        return await site.daos.housekeeping.blank_logs(connection, [run])

    await site.database.write(blank)

    assert await site.sql("SELECT verdict FROM executions") == [(None,)]


# -- contents -------------------------------------------------------------------------------------


@pytest.fixture
def today(clock: FakeClock) -> None:
    """Let the clock begin where the file system's does."""
    clock.advance((datetime.now(tz=clock.utc().tzinfo) - clock.utc()).total_seconds())


def contents(site: Site) -> set[str]:
    return {path.name for path in (site.state / "files").rglob("*") if path.is_file()}


async def content_of(site: Site, run: RunId) -> str:
    return (await site.row(run)).job.content


async def test_contents_go_when_every_run_that_names_them_ended_long_ago(
    site: Site, clock: FakeClock, today: None
) -> None:
    await judged(site, "old alone")
    shared_once = await judged(site, "shared")
    waits = await judged(site, "old and waiting")
    days(clock, 200)
    await judged(site, "shared", "grace")
    await handed_in(site, "old and waiting", "grace")
    keep = {await content_of(site, shared_once), await content_of(site, waits)}
    age_files(site, clock)

    cleaned = await retention(site, files=Files(keep=180)).clean()

    assert cleaned == Forgotten(runs=0, notices=0, logs=0, files=1)
    assert contents(site) == keep


async def test_contents_are_kept_for_ever_as_long_as_a_run_names_them(
    site: Site, clock: FakeClock, today: None
) -> None:
    run = await judged(site)
    kept = await content_of(site, run)
    orphan = await site.files.put(b"the row of this was never written")
    days(clock, 10_000)

    assert (await retention(site).clean()).files == 1

    assert contents(site) == {kept}
    assert kept != orphan


async def test_a_content_whose_row_may_still_come_is_kept_for_a_day(
    site: Site, clock: FakeClock, today: None
) -> None:
    await site.files.put(b"being handed in")
    service = retention(site, files=Files(keep=1))

    days(clock, 0.9)
    assert (await service.clean()).files == 0

    days(clock, 0.2)
    assert (await service.clean()).files == 1


async def test_what_a_killed_process_left_half_written_goes_too(
    site: Site, clock: FakeClock, today: None
) -> None:
    run = await judged(site)
    name = await content_of(site, run)
    left = site.state / "files" / name[:2] / name[2:4] / ".half-written"
    left.write_bytes(b"hal")
    days(clock, 2)

    assert (await retention(site).clean()).files == 1

    assert contents(site) == {name}


BULKY = b"a very large input"
OTHER = b"another one"


def refers_to(*contents: bytes) -> str:
    """Return an exercise with these large files."""
    files = [
        f'"cases/{i}.in" = {{ sha256 = "{content_hash(one)}", size = {len(one)} }}'
        for i, one in enumerate(contents)
    ]
    outs = [f'"cases/{i}.out" = ""' for i in range(len(contents))]
    cases = '[[cases]]\nname = "n"\nfiles = "cases/*.in"\n[files]\n'
    return exercise(cases=cases + "\n".join([*files, *outs, ""]))


async def test_large_files_stay_as_long_as_an_exercise_had_them_once(
    site: Site, clock: FakeClock, today: None
) -> None:
    kept = await site.files.put(BULKY)
    await site.files.put(b"that nobody refers to")
    number = await site.exercise(refers_to(BULKY))
    await site.database.write(lambda c: site.daos.scripts.add(c, number, exercise()))  # the newest
    days(clock, 200)

    assert (await retention(site, files=Files(keep=180)).clean()).files == 1

    assert contents(site) == {kept}


async def test_large_files_stay_as_long_as_a_content_that_is_kept_needs_them(
    site: Site, clock: FakeClock, today: None
) -> None:
    """Also where the platform has changed the row that the content was made of."""
    for one in (BULKY, OTHER):
        await site.files.put(one)
    ended = await site.attempt(await site.exercise(refers_to(BULKY, OTHER)))
    await site.submit(ended)
    await site.runs.finished(await site.lease(), completed())
    days(clock, 200)
    waits = await site.attempt(await site.exercise(refers_to(BULKY)), {"main.py": "waits"})
    run = await site.submit(waits)
    await site.sql("DELETE FROM scripts")
    age_files(site, clock)
    service = retention(site, files=Files(keep=180))

    assert (await service.clean()).files == 2
    assert contents(site) == {content_hash(BULKY), await content_of(site, run)}

    await site.exec.cancel(waits)
    days(clock, 181)
    assert (await service.clean()).files == 2
    assert contents(site) == set()


async def test_without_something_strange_no_content_is_read(
    site: Site, clock: FakeClock, today: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(site, "old")
    days(clock, 200)
    young = await content_of(site, await judged(site, "young"))
    read: list[str] = []
    get = site.files.get

    async def noted(name: ContentHash) -> bytes:
        read.append(name)
        return await get(name)

    monkeypatch.setattr(site.files, "get", noted)

    assert (await retention(site, files=Files(keep=180)).clean()).files == 1
    assert young not in read


def age_files(site: Site, clock: FakeClock) -> None:
    """Let every stored file be two days old by the clock of the test."""
    at = (clock.utc() - timedelta(days=2)).timestamp()
    for path in (site.state / "files").rglob("*"):
        os.utime(path, (at, at))


# -- bounded, patient, owned ----------------------------------------------------------------------


async def test_no_transaction_touches_more_than_a_batch(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(7):
        await judged(site)
    days(clock, 100)
    monkeypatch.setattr(retention_service, "BATCH", 3)
    sizes: list[int] = []
    write = site.database.write

    async def counted(work: object, **options: object) -> object:
        done: object = await write(work, **options)  # type: ignore[arg-type]  # as it was given
        sizes.append(done if isinstance(done, int) else -1)
        return done

    monkeypatch.setattr(site.database, "write", counted)
    keep = retention(site, Database(keep_executions=1, keep_notices=1, keep_logs=0))

    assert await keep.clean() == Forgotten(runs=7, notices=7, logs=0, files=0)
    assert sizes == [3, 3, 1, 3, 3, 1]


async def test_logs_are_blanked_batch_by_batch_to_the_last(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(7):
        await judged(site)
    days(clock, 100)
    monkeypatch.setattr(retention_service, "BATCH", 3)

    keep = retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=1))

    assert (await keep.clean()).logs == 7


async def test_it_cleans_at_the_start_and_every_six_hours_whatever_fails(
    site: Site, clock: FakeClock
) -> None:
    await judged(site)
    await delivered(site)
    keep = retention(site, Database(keep_executions=1, keep_notices=0, keep_logs=0))
    task = asyncio.create_task(keep.run())
    try:
        await until(lambda: clock.alarms == [clock.now() + PERIOD])
        days(clock, 2)
        await until(lambda: clock.alarms)
        assert await site.count("executions") == 0

        await site.sql("ALTER TABLE notices RENAME TO elsewhere")
        clock.advance(PERIOD)
        await until(lambda: clock.alarms)
        await site.sql("ALTER TABLE elsewhere RENAME TO notices")
        await judged(site)
        await delivered(site)
        days(clock, 2)
        await until(lambda: clock.alarms)
        assert await site.count("executions") == 0
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_part_that_fails_stops_no_other_and_all_that_failed_is_told(
    site: Site, clock: FakeClock, today: None
) -> None:
    await judged(site, "secret")
    await site.files.put(b"the row of this was never written")
    days(clock, 100)
    await site.sql("ALTER TABLE notices RENAME TO elsewhere")
    keep = retention(site, Database(keep_executions=1, keep_notices=1, keep_logs=1))

    with pytest.raises(StoreError, match=r"notices: .*; runs: .*") as told:
        await keep.clean()

    assert not re.search("logs:|files:", str(told.value))
    record = '{"verdict":{"status":"wrong_answer"%"log":""%'
    assert await site.sql("SELECT 1 FROM executions WHERE verdict LIKE :r", r=record) == [(1,)]
    assert len(contents(site)) == 1


async def test_a_bug_in_one_part_ends_neither_the_others_nor_the_server(
    site: Site, clock: FakeClock, today: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(site)
    await site.files.put(b"the row of this was never written")
    days(clock, 100)

    async def blank_logs(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(site.daos.housekeeping, "blank_logs", blank_logs)
    task = asyncio.create_task(
        retention(site, Database(keep_executions=0, keep_notices=0, keep_logs=1)).run()
    )
    with capture_logs() as logs:
        await until(lambda: clock.alarms == [clock.now() + PERIOD])
        task.cancel()
        await asyncio.wait({task})

    assert task.cancelled()
    assert len(contents(site)) == 1
    [bug, failed] = [line for line in logs if line["log_level"] in ("warning", "error")]
    assert (bug["event"], bug["part"], bug["exc_info"]) == ("part_of_cleaning_failed", "logs", True)
    assert (failed["event"], failed["error"]) == ("cleaning_failed", "logs: internal error")


async def test_each_batch_is_looked_for_after_the_last(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So none begins anew, and what stays where it is stops nothing."""
    monkeypatch.setattr(retention_service, "BATCH", 2)
    for number in range(5):
        await judged(site, str(number))
    days(clock, 100)
    dao = site.daos.housekeeping
    seen: list[object] = []

    async def stays(connection: AsyncConnection, due: Sequence[object]) -> int:
        seen.extend(due)
        return 0

    for name in ("blank_logs", "forget_notices"):
        monkeypatch.setattr(dao, name, stays)
    await retention(site, Database(keep_executions=0, keep_notices=1, keep_logs=1)).clean()

    finals = await site.sql("SELECT recipient, seq FROM notices ORDER BY recipient, seq")
    assert seen == [*finals, *sorted(await runs(site), key=str)]


async def test_a_server_cleans_as_its_configuration_says(
    state: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    async with Site(state, clock).open() as site:
        await judged(site)
        await delivered(site)
        days(clock, 4)
        await judged(site, "younger")
    config = Config(
        state_dir=state,
        backend=Backend(enabled=False),
        browser=Browser(port=0),
        http=Http(enabled=False),
        database=Database(keep_executions=3, keep_notices=0, keep_logs=0),
        files=Files(keep=0),
    )
    days(clock, 1)

    async with app.built(config, clock=clock, sandboxes=lambda *_: [FakeSandbox()]) as built:
        stop = asyncio.Event()
        serving = asyncio.create_task(built.run(stop))
        await until(lambda: clock.now() + PERIOD in clock.alarms)
        stop.set()
        await serving

    async with Site(state, clock).open() as site:
        assert await site.count("executions") == 1


async def test_a_store_that_does_not_answer_is_told_to_who_asks(
    site: Site, clock: FakeClock
) -> None:
    await site.sql("ALTER TABLE notices RENAME TO elsewhere")

    with pytest.raises(StoreError):
        await retention(site, Database(keep_notices=1)).clean()


async def test_a_run_that_is_not_due_any_more_when_it_is_to_be_forgotten_stays(
    site: Site, clock: FakeClock
) -> None:
    """Between the search and the deletion anything may happen."""
    run = await judged(site)
    dao = site.daos.housekeeping
    at = clock.utc() - timedelta(days=1)

    async def forget(connection: AsyncConnection) -> int:
        return await dao.forget_runs(connection, [run], ended=at)

    assert await site.database.write(forget) == 0
    assert (await site.row(run)).state is State.DONE


NOW = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
