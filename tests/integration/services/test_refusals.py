"""What a database refuses, and always will: it ends what it belongs to, and nothing else."""

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId, ContentHash
from commserver.core.states import State
from commserver.core.verdicts import Cause, Completed, Failure, Status, Verdict
from commserver.dao.codes import SourceFile
from commserver.errors import AlreadyExists, StoreError, StoreRefused
from commserver.graders.tests import TestsPlan
from commserver.services.exec_service import NOBODYS
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.services.site import Site, hide_files, until

TOO_MUCH = 2**70  # points, that no column holds
NODE = make_offer("node", engine="node", remote=True)


@pytest.fixture
def unheard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every verdict have a grade that no database can hold."""
    verdict = Verdict(Status.ACCEPTED, TOO_MUCH, TOO_MUCH)

    monkeypatch.setattr(TestsPlan, "judge", lambda *_: verdict)


async def test_an_outcome_that_is_refused_ends_its_run_after_the_tries_it_has(
    site: Site, clock: FakeClock, unheard_of: None
) -> None:
    attempt = await site.attempt(await site.exercise())
    engine = FakeSandbox()
    async with site.working(engine):
        run = await site.submit(attempt)
        for rest, tries in ((1.0, 1), (5.0, 2)):
            await until(partial(lambda t: len(engine.begun) == t and site.board.place(run), tries))
            assert clock.now() not in clock.alarms
            clock.advance(rest)
        await until(site.ends)

    row = await site.row(run)
    failure = Failure(Cause.INTERNAL, "the outcome could not be stored")
    assert (row.state, row.tries, row.ending) == (State.FAILED, 3, failure)
    assert failure.fault == "system"
    assert await site.results(attempt) == []
    assert len(engine.begun) == 3
    assert len(site.board) == 0
    [end] = site.ends()
    assert len(end.notices) == 1, "its student is told"


async def test_the_runs_beside_it_are_not_disturbed(site: Site) -> None:
    bad, good = [await site.attempt(await site.exercise()) for _ in range(2)]
    await site.submit(bad)
    await site.submit(good)
    first, second = await site.lease(), await site.lease()

    await site.runs.finished(first, Completed(Verdict(Status.ACCEPTED, TOO_MUCH, 20)))
    await site.runs.finished(second, completed(7))

    assert (await site.row(second.job.id)).state is State.DONE
    assert (await site.row(first.job.id)).tries == 1


async def refuse_everything(site: Site) -> None:
    """Let a stranger's rule refuse every change of a run."""
    if site.url.startswith("sqlite"):
        await site.sql(
            "CREATE TRIGGER never BEFORE UPDATE ON executions"
            " BEGIN SELECT RAISE(ABORT, 'not on my watch'); END"
        )
    else:
        await site.sql("ALTER TABLE executions ADD CONSTRAINT never CHECK (tries < 0) NOT VALID")


async def test_a_run_whose_row_cannot_be_changed_at_all_is_let_go_of(site: Site) -> None:
    attempt = await site.attempt(await site.exercise())
    engine = FakeSandbox()
    async with site.working(engine):
        await until(lambda: engine.probed)
        engine.hang()
        run = await site.submit(attempt)
        await until(lambda: engine.running)
        await refuse_everything(site)
        engine.resume()
        await until(lambda: len(site.board) == 0)

    assert len(engine.begun) == 1
    assert site.ends() == []
    assert (await site.row(run)).state is State.QUEUED, "the next process may have more luck"


async def test_a_lease_whose_end_is_refused_is_not_expired_for_ever(
    site: Site, clock: FakeClock
) -> None:
    run = await site.submit(await site.attempt(await site.exercise()))
    lease = await site.lease(NODE)
    await refuse_everything(site)

    async with site.working(FakeSandbox(images=())):
        assert lease.until is not None
        clock.advance(lease.until - clock.now() + 1.0)
        await until(lambda: len(site.board) == 0)

    assert (await site.row(run)).state is State.LEASED


async def test_a_grade_that_the_platform_refuses_ends_its_run_on_every_database(
    site: Site, clock: FakeClock
) -> None:
    """A trigger of its own, which says no in its own words."""
    says = "'the term is closed'"
    if site.url.startswith("sqlite"):
        await site.sql(
            f"CREATE TRIGGER never BEFORE INSERT ON grades BEGIN SELECT RAISE(ABORT, {says}); END"
        )
    else:
        await site.sql(
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql"
            f" AS $$ BEGIN RAISE EXCEPTION {says}; END $$"
        )
        await site.sql(
            "CREATE TRIGGER never BEFORE INSERT ON grades FOR EACH ROW EXECUTE FUNCTION never()"
        )
    run = await site.submit(await site.attempt(await site.exercise()))

    for _ in range(3):
        clock.advance(5.0)
        assert await site.runs.finished(await site.lease(), completed())

    failure = Failure(Cause.INTERNAL, "the outcome could not be stored")
    assert (await site.row(run)).ending == failure
    assert len(site.ends()) == 1


# -- rows that are not as the board has them ------------------------------------------------------


@pytest.mark.parametrize("source", ["print(42)", "print(43)"])
@pytest.mark.parametrize("held", [False, True])
async def test_an_attempt_whose_run_was_let_go_of_while_its_row_waits_may_be_handed_in_again(
    site: Site, source: str, held: bool
) -> None:
    attempt = await site.attempt(await site.exercise())
    run = await site.submit(attempt)
    lease = await site.lease() if held else None
    await site.sql("UPDATE executions SET tries = 1")  # a stranger's doing
    if lease:
        assert not await site.runs.finished(lease, completed())
    else:
        assert not await site.exec.cancel(attempt)
    assert len(site.board) == 0
    await site.edit(attempt, source)

    assert await site.submit(attempt) == run

    row = await site.row(run)
    assert (row.state, row.tries) == (State.QUEUED, 1)
    lease = await site.lease()
    assert dict((await site.runs.content(lease)).files)["main.py"] == source
    assert await site.runs.finished(lease, completed(7))
    assert await site.count("executions") == 1
    assert len(site.ends()) == 1


async def test_a_row_that_is_in_the_way_for_another_reason_is_told(site: Site) -> None:
    """A rule of a stranger's, which no run of ours can satisfy."""
    attempt = await site.attempt(await site.exercise())
    await site.submit(await site.attempt(await site.exercise()))
    await site.sql("CREATE UNIQUE INDEX never ON executions (owner)")

    with pytest.raises(AlreadyExists):
        await site.submit(attempt)

    assert len(site.board) == 1


# -- what students hand in ------------------------------------------------------------------------


async def test_a_file_with_nul_is_judged_as_it_is(site: Site) -> None:
    if not site.url.startswith("sqlite"):
        with pytest.raises(StoreRefused):  # it can never be there
            await site.attempt(await site.exercise(), {"main.py": "print(42)\0"})
        return
    attempt = await site.attempt(await site.exercise(), {"main.py": "print(42)\0"})

    await site.submit(attempt)

    content = await site.runs.content(await site.lease())
    assert dict(content.files) == {"main.py": "print(42)\0"}


@pytest.mark.parametrize("engine_name", ["postgresql"])  # views of SQLite cannot refuse
async def test_files_that_the_platform_does_not_give_end_their_attempt_with_a_final(
    site: Site,
) -> None:
    exercise = await site.exercise()
    attempts = [await site.attempt(exercise, student=name) for name in ("ada", "grace")]
    await hide_files(site, attempts[0])

    runs = [await site.submit(attempt) for attempt in attempts]

    refused, taken = [await site.row(run) for run in runs]
    assert refused.ending == Failure(Cause.INTERNAL, "what was handed in cannot be read")
    assert taken.state is State.QUEUED


async def test_a_file_that_is_no_text_ends_its_attempt_with_a_final(
    state: Path, clock: FakeClock
) -> None:
    """Only SQLite can hold such a file: whoever writes into it by other means is not stopped."""
    async with Site(state, clock).open() as site:
        attempt = await site.attempt(await site.exercise())
        with closing(sqlite3.connect(state / "commserver.db")) as database, database:
            database.execute("UPDATE codes SET content = CAST(x'fffe80' AS TEXT)")

        run = await site.submit(attempt)

        row = await site.row(run)
        assert row.state is State.FAILED
        assert row.ending == Failure(Cause.INTERNAL, "what was handed in cannot be read")
        [end] = site.ends()
        assert len(end.notices) == 1
        other = await site.attempt(await site.exercise(), student="grace")
        assert (await site.row(await site.submit(other))).state is State.QUEUED


async def test_an_attempt_fails_alone_only_where_the_database_could_give_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a lock and a missing right pass, and must cost no attempt its EXERCISE."""
    attempt = await site.attempt(await site.exercise())
    of_attempt, broken = site.daos.codes.of_attempt, {attempt}

    async def slow(connection: AsyncConnection, one: AttemptId) -> tuple[SourceFile, ...]:
        if one in broken:
            raise StoreError("took too long")
        return await of_attempt(connection, one)

    async def full(content: bytes) -> ContentHash:
        raise StoreError("no space left")

    monkeypatch.setattr(site.daos.codes, "of_attempt", slow)
    alone = await site.exec.fails_alone(attempt)
    broken.add(NOBODYS)
    no_right = await site.exec.fails_alone(attempt)
    broken.clear()
    monkeypatch.setattr(site.files, "put", full)
    with pytest.raises(StoreError):
        await site.submit(attempt)
    no_room = await site.exec.fails_alone(attempt)
    await site.database.close()
    away = await site.exec.fails_alone(attempt)

    assert (alone, no_right, no_room, away) == (True, False, False, False)
