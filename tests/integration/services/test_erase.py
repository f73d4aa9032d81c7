"""Forgetting an account: nothing of it stays with us, nothing of anybody else goes."""

import os
import re
from datetime import UTC, datetime, timedelta

import pytest

from commserver.core.execution import Broken, Cause, Completed, Failure, Status, Verdict
from commserver.core.jobs import AttemptId, Origin, RunId
from commserver.core.states import State
from commserver.dao import whole_tables
from commserver.errors import NotAuthenticated
from commserver.services.erase_service import Erased, EraseService
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, make_offer
from tests.integration.services.site import Site, until

NODE = make_offer("node", engine="node", remote=True)
NOTHING = Erased(runs=0, ended=0, tokens=0, finals=0, contents=0, left=0)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that begins where the file system's does: stored contents are told by their age."""
    return FakeClock(now=1000.0, utc=datetime.now(UTC))


@pytest.fixture
def eraser(site: Site) -> EraseService:
    return EraseService(site.database, site.daos, site.files, site.clock)


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
    """Return every row of ours as text."""
    told = []
    for table in whole_tables.OURS:
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
    for table in ("notices", "series", "leases", "tokens"):
        assert await site.count(table) == 0
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
