"""Forgetting an account: nothing of it stays with us, nothing of anybody else goes."""

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.finals import Cursor, account, backend
from commserver.core.jobs import AttemptId, Origin, OwnerId, RunId
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Status, Verdict
from commserver.dao import whole_tables
from commserver.dao.tables import audit
from commserver.errors import NotAuthenticated, StoreError, StoreRefused
from commserver.services.erase_service import Erased, EraseService
from commserver.services.finals_service import FinalsService
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.services.site import PATIENCE, Site, until
from tests.unit.graders.toml import CASE, exercise

NODE = make_offer("node", engine="node", remote=True)
NOTHING = Erased(runs=0, ended=0, tokens=0, finals=0, contents=0, left=0)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that begins where the file system's does: stored contents are told by their age."""
    return FakeClock(now=1000.0, utc=datetime.now(UTC))


@pytest.fixture
def eraser(site: Site) -> EraseService:
    return EraseService(site.database, site.daos, site.files, site.clock)


async def test_a_content_that_is_a_file_of_an_exercise_as_well_stays(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    run = await judged(site, "ada's work")
    name = (await site.row(run)).job.content
    files = f'[files]\n"a.in" = {{ sha256 = "{name}", size = 1 }}\n'
    await site.exercise(exercise(cases=CASE + files))
    later(site, clock)

    erased = await eraser.erase(await site.admin.account("ada"))

    assert (erased.contents, erased.left) == (0, 1)
    assert await site.files.has(name)


async def test_where_exercises_cannot_be_looked_up_contents_are_left_to_the_server(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    await judged(site, "ada's work")
    later(site, clock)
    ada = await site.admin.account("ada")
    await site.sql("ALTER TABLE scripts RENAME TO elsewhere")

    erased = await eraser.erase(ada)

    assert (erased.runs, erased.contents, erased.left) == (1, 0, 1)


async def handed_in(site: Site, source: str, student: str = "ada") -> tuple[AttemptId, RunId]:
    attempt = await site.attempt(await site.exercise(), {"main.py": source}, student=student)
    origin = Origin("backend", f"{student}'s peer", f"{student}'s reference")
    return attempt, (await site.exec.submit(attempt, origin)).run


async def judged(site: Site, source: str, student: str = "ada") -> RunId:
    _, run = await handed_in(site, source, student)
    await site.runs.finished(
        await site.lease(), Completed(Verdict(Status.WRONG_ANSWER, 3, 20, f"{student}'s log"))
    )
    return run


def later(site: Site, clock: FakeClock) -> None:
    """Let all that was handed in be some minutes old."""
    clock.advance(300.0)
    for path in (site.state / "files").rglob("*"):
        assert path.stat().st_mtime < clock.utc().timestamp()


async def everything(site: Site) -> str:
    """Return every row of ours as text, but for who erased what."""
    told = []
    for table in whole_tables.OURS:
        if table is audit:
            continue
        told += await site.sql(f"SELECT * FROM {table.name}")  # noqa: S608  # ours
    return repr(told)


async def test_nothing_that_was_held_of_an_account_is_found_any_more(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    ada = await site.admin.account("ada")
    token = await site.admin.new_token(ada, label="ada's laptop")
    done = await judged(site, "ada's work")
    _, failed = await handed_in(site, "ada's other work")
    failure = Failure(Cause.EXERCISE, "ada's failure", "ada's container")
    await site.runs.finished(await site.lease(), Broken(failure))
    attempt, _ = await handed_in(site, "ada's third work")
    await site.lease(NODE)
    later(site, clock)

    erased = await eraser.erase(ada)

    assert erased == Erased(runs=3, ended=1, tokens=1, finals=2, contents=3, left=0)
    assert "ada" not in re.findall(r"\w+", await everything(site))
    assert [path for path in (site.state / "files").rglob("*") if path.is_file()] == []
    with pytest.raises(NotAuthenticated):
        await site.auth.identify(token)
    for table in ("notices", "leases", "tokens"):
        assert await site.count(table) == 0
    assert await site.sql("SELECT recipient, last FROM series") == [(f"account:{ada}", 2)]
    assert await site.sql("SELECT DISTINCT account_id, grade, verdict FROM executions") == [
        (None, None, None)
    ]
    assert attempt
    assert done != failed


async def test_its_runs_stay_as_blanks_that_say_what_was_run_and_when(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    done = await judged(site, "work")
    attempt, waiting = await handed_in(site, "other work")
    before = await site.row(done)
    later(site, clock)

    await eraser.erase(await site.admin.account("ada"))

    row = await site.row(done)
    assert (row.state, row.created_at, row.ended_at) == (
        State.DONE,
        before.created_at,
        before.ended_at,
    )
    assert (row.job.id, row.job.attempt) == (before.job.id, before.job.attempt)
    assert (row.job.owner, row.job.course, row.job.content, row.ending) == ("", "", "", None)
    assert row.job.origin == Origin("backend", "", "")
    row = await site.row(waiting)
    assert (row.state, row.ended_at, row.job.attempt) == (State.CANCELLED, clock.utc(), attempt)


async def test_once_more_changes_nothing_and_an_unknown_account_is_nobody(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    await judged(site, "work")
    await judged(site, "other work", "grace")
    later(site, clock)
    ada = await site.admin.account("ada")
    await eraser.erase(ada)
    before = await everything(site)

    assert await eraser.erase(ada) == NOTHING
    assert await eraser.erase(2**62) == NOTHING

    assert await everything(site) == before


async def test_the_audit_says_who_erased_what_and_how_much(site: Site, clock: FakeClock) -> None:
    await judged(site, "work")
    ada = await site.admin.account("ada")
    await site.admin.new_token(ada)
    later(site, clock)
    eraser = EraseService(site.database, site.daos, site.files, clock, who="cli:root")

    await eraser.erase(ada)

    [entry, *_] = await site.database.read(lambda c: site.daos.audit.latest(c, 9))
    assert (entry.who, entry.action, entry.target) == ("cli:root", "erase", f"account {ada}")
    assert entry.detail == "1 runs, 1 tokens, 1 finals"
    assert entry.at == clock.utc()


async def test_nobody_else_loses_anything(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    grace = await site.admin.account("grace")
    token = await site.admin.new_token(grace)
    run = await judged(site, "the same work", "grace")
    row = await site.row(run)
    await judged(site, "the same work")
    later(site, clock)

    erased = await eraser.erase(await site.admin.account("ada"))

    assert erased.contents == 0
    assert await site.row(run) == row
    assert await site.files.get(row.job.content)
    assert (await site.auth.identify(token)).account == grace
    assert await site.sql("SELECT execution_id, seq FROM notices") == [(run, 1)]


async def test_the_platforms_tables_are_not_touched(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    async def platform() -> list[list[tuple[object, ...]]]:
        return [
            await site.sql(f"SELECT * FROM {table.name}")  # noqa: S608  # ours
            for table in whole_tables.PLATFORMS
        ]

    await judged(site, "work")
    before = await platform()

    await eraser.erase(await site.admin.account("ada"))

    assert await platform() == before


async def test_what_was_handed_in_a_moment_ago_may_be_somebody_elses_too(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    """Grace has stored the same content, and is about to write the row that names it."""
    run = await judged(site, "the same work")
    content = (await site.row(run)).job.content
    later(site, clock)
    for path in (site.state / "files").rglob(content):
        os.utime(path, (clock.utc().timestamp() - 30.0,) * 2)

    erased = await eraser.erase(await site.admin.account("ada"))

    assert (erased.contents, erased.left) == (0, 1)
    assert await site.files.get(content)


async def test_what_the_disk_does_not_let_go_of_is_counted_as_left(
    site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await judged(site, "work")
    await judged(site, "other work")
    content = (await site.row(run)).job.content
    later(site, clock)
    unlink = Path.unlink

    def refused(path: Path, *rest: bool) -> None:
        if path.name == content:
            raise OSError(30, "Read-only file system")
        unlink(path, *rest)

    monkeypatch.setattr(Path, "unlink", refused)
    eraser = EraseService(site.database, site.daos, site.files, clock)

    erased = await eraser.erase(await site.admin.account("ada"))

    assert (erased.runs, erased.contents, erased.left) == (2, 1, 1)
    assert (await site.row(run)).job.content == ""
    assert await site.files.has(content)


async def test_a_server_that_has_a_run_in_hand_drops_it_and_works_on(
    state_of_another: EraseService, site: Site, clock: FakeClock
) -> None:
    engine = FakeSandbox()
    engine.hang()
    async with site.working(engine):
        attempt, running = await handed_in(site, "ada's work")
        await until(lambda: engine.running == 1)
        _, waiting = await handed_in(site, "ada's other work")
        _, other = await handed_in(site, "grace's work", "grace")
        clock.advance(300.0)

        erased = await state_of_another.erase(await site.admin.account("ada"))
        assert (erased.runs, erased.ended) == (2, 2)
        engine.resume()
        await until(lambda: [end.job.id for end in site.ends()] == [other])
        clock.advance(1.0)
        await until(lambda: len(site.board) == 0)

    for run in (running, waiting):
        assert (await site.row(run)).state is State.CANCELLED
    assert await site.results(attempt) == []
    assert "ada" not in re.findall(r"\w+", await everything(site))


@pytest.fixture
def state_of_another(site: Site) -> EraseService:
    """The command beside the server: it shares nothing with it but the database and the folder."""
    clock = FakeClock(utc=site.clock.utc() + timedelta(seconds=300))
    return EraseService(site.database, site.daos, site.files, clock)


async def test_the_same_attempt_may_be_handed_in_anew(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    attempt, old = await handed_in(site, "work")
    later(site, clock)
    await eraser.erase(await site.admin.account("ada"))

    await site.edit(attempt, "new work")
    new = await site.submit(attempt)  # the board still knew the old run

    assert new != old
    assert (await site.row(new)).state is State.QUEUED
    assert (await site.row(old)).state is State.CANCELLED


@pytest.mark.parametrize("held", [False, True])
async def test_the_same_content_may_be_handed_in_anew(
    site: Site, eraser: EraseService, clock: FakeClock, held: bool
) -> None:
    """The board still knows the old run, waiting or in hand, and would call it the same work."""
    attempt, old = await handed_in(site, "work")
    lease = await site.lease() if held else None
    later(site, clock)
    await eraser.erase(await site.admin.account("ada"))

    new = await site.submit(attempt)

    assert new != old
    assert [job.id for job in site.board.runs_of_attempt(attempt)] == [new]
    if lease:
        assert not site.board.holds(lease.id), "its holder is told to stop"
        assert not await site.runs.finished(lease, completed(1))
    await site.runs.finished(await site.lease(), completed(7))
    assert [value for value, _ in await site.results(attempt)] == [7]
    [end] = site.ends()
    assert (end.job.id, len(end.notices)) == (new, 1)


async def test_it_is_the_same_work_as_long_as_its_row_has_not_ended(site: Site) -> None:
    """The row of a run that a slot of ours has says that it waits."""
    attempt, run = await handed_in(site, "work")
    assert await site.submit(attempt) == run
    lease = await site.lease()

    assert await site.submit(attempt) == run

    assert site.board.holds(lease.id)
    assert await site.count("executions") == 1


async def test_a_run_that_ends_while_it_is_handed_in_again_was_the_same_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, run = await handed_in(site, "work")
    lease = await site.lease()
    find = site.daos.executions.find

    async def find_later(connection: AsyncConnection, run: RunId) -> object:
        monkeypatch.undo()
        await site.runs.finished(lease, completed(7))
        return await site.database.read(lambda c: find(c, run))

    monkeypatch.setattr(site.daos.executions, "find", find_later)

    assert await site.submit(attempt) == run

    assert (await site.row(run)).state is State.DONE
    assert await site.count("executions") == 1


# -- those who asked ------------------------------------------------------------------------------


async def test_who_asked_for_a_run_is_still_told_of_its_end(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    school, college = backend("school"), backend("college")
    finals = FinalsService(site.database, site.daos, clock, site.bus)
    exercise = await site.exercise()
    attempts = [await site.attempt(exercise, {"main.py": str(n)}) for n in range(2)]
    origin = Origin("backend", "school", "ref")
    done = (await site.exec.submit(attempts[0], origin, (school,))).run
    await site.runs.finished(await site.lease(), completed(7))
    waiting = (await site.exec.submit(attempts[1], origin, (school, college))).run
    later(site, clock)

    erased = await eraser.erase(await site.admin.account("ada"))

    assert (erased.runs, erased.ended, erased.finals) == (2, 1, 1)
    told = (await finals.owed(school, 0)).finals
    assert [(end.run, end.attempt, end.seq, end.ending) for end in told] == [
        (done, attempts[0], 1, None),
        (waiting, attempts[1], 2, None),
    ]
    assert told[1].state is State.CANCELLED
    assert [end.run for end in (await finals.owed(college, 0)).finals] == [waiting]
    before = await everything(site)
    await eraser.erase(await site.admin.account("ada"))
    assert await everything(site) == before


# -- beside a server that works -------------------------------------------------------------------


async def test_no_number_of_a_final_is_given_twice(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    """A socket that is open has its place in the series, and a receipt may come late."""
    await judged(site, "work")
    await judged(site, "other work")
    finals = FinalsService(site.database, site.daos, clock, site.bus)
    recipient = account(OwnerId(str(await site.admin.account("ada"))))
    owed = await finals.owed(recipient, 0)
    socket = Cursor()
    socket.caught_up(owed.finals, owed.last, more=owed.more)
    await eraser.erase(await site.admin.account("ada"))

    run = await judged(site, "new work")
    late = [(recipient, 2)]
    await site.database.write(lambda c: site.daos.notices.delivered(c, late, clock.utc()))

    [(number,)] = [notice[1:] for notice in site.ends()[-1].notices]
    assert socket.heard(number)
    assert [(final.run, final.seq) for final in (await finals.owed(recipient, 0)).finals] == [
        (run, 3)
    ]


async def test_finals_and_an_erasure_of_one_account_do_not_hinder_each_other(
    site: Site, eraser: EraseService
) -> None:
    """Each round: two verdicts are stored while all is erased, in whatever order they come."""
    ada = await site.admin.account("ada")
    exercise = await site.exercise()
    erased = told = 0
    for number in range(25):
        for part in range(3):
            attempt = await site.attempt(exercise, {"main.py": f"{number}-{part}"})
            await site.submit(attempt)
        first, *others = await site.runs.try_lease(make_offer(), 3)
        await site.runs.finished(first, completed(1))

        counted = await asyncio.gather(
            *(site.runs.finished(lease, completed(1)) for lease in others), eraser.erase(ada)
        )

        *stored, held = counted
        assert isinstance(held, Erased)
        assert (held.runs, held.ended) == (3, stored.count(False))
        erased += held.finals
        told += 1 + sum(map(bool, stored))
        assert await site.count("notices") == 0
        assert (
            await site.sql(
                "SELECT id FROM executions"
                " WHERE account_id IS NOT NULL OR verdict IS NOT NULL OR content_hash <> ''"
            )
            == []
        )
        assert len(site.board) == 0
    assert erased == told
    assert not any(isinstance(end, Broken) for end in (e.outcome for e in site.ends()))


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_deadlock_costs_an_erasure_nothing(
    site: Site, eraser: EraseService, clock: FakeClock
) -> None:
    """SQLite's writers take turns."""
    runs = sorted([await judged(site, "work"), await judged(site, "other work")])
    later(site, clock)
    lock = "SELECT 1 FROM executions WHERE id = $1 FOR UPDATE"
    stranger = await asyncpg.connect(site.url)
    watcher = await asyncpg.connect(site.url)
    transaction = stranger.transaction()
    await transaction.start()
    await stranger.execute(lock, runs[1])
    erasing = asyncio.create_task(eraser.erase(await site.admin.account("ada")))
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with asyncio.timeout(PATIENCE):
        while not await watcher.fetchval(waits):
            pass

    await stranger.execute(lock, runs[0])  # now each waits for the other
    await transaction.rollback()

    assert (await erasing).runs == 2
    assert await site.count("notices") == 0
    await stranger.close()
    await watcher.close()


@pytest.mark.parametrize(("error", "tries"), [(StoreError("away"), 2), (StoreRefused("no"), 1)])
async def test_what_fails_twice_or_always_will_is_told(
    site: Site, eraser: EraseService, monkeypatch: pytest.MonkeyPatch, error: StoreError, tries: int
) -> None:
    tried = []

    async def fails(*_: object) -> None:
        tried.append(1)
        raise error

    monkeypatch.setattr(site.daos.housekeeping, "erase", fails)

    with pytest.raises(StoreError):
        await eraser.erase(1)

    assert len(tried) == tries
