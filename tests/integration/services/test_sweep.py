"""What nobody asked for and is run all the same; what is left alone; and who asks after all."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Engine, event
from structlog.testing import capture_logs

from commserver.config import Queue
from commserver.core.jobs import SWEEP, AttemptId, ContentHash, Origin, Purpose, RunId
from commserver.core.verdicts import Cause, Failure
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError
from commserver.services import sweep_service
from commserver.services.sweep_service import SweepService
from tests.fakes import FakeClock, completed, make_job, make_offer, settle
from tests.integration.dao import live
from tests.integration.services.site import ORIGIN, Site, hide_files, until

AGE, PERIOD = 90.0, 30.0
Mode = Literal["off", "new", "changed"]


class Swept:
    """A site after its first start, with its sweep."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = self.restarted()

    def restarted(self) -> SweepService:
        """Return the sweep as a new process has it."""
        site = self.site
        self.service = SweepService(site.database, site.daos, site.exec, site.queue, site.clock)
        return self.service

    async def after(self, seconds: float) -> None:
        """Let time pass, then sweep."""
        self.site.clock.advance(seconds)
        await self.service.sweep()

    async def long(self) -> None:
        """Sweep as often as it takes for whatever stands unchanged."""
        for _ in range(6):
            await self.after(PERIOD)

    async def runs(self, attempt: AttemptId | None = None) -> list[tuple[object, ...]]:
        """Return state and gateway of each run, or of an attempt's, oldest first."""
        rows = await self.site.sql(
            "SELECT user_exercise_id, state, gateway FROM executions ORDER BY entry"
        )
        return [(state, gateway) for of, state, gateway in rows if attempt in (None, of)]

    async def lost(self, files: dict[str, str] | None = None, student: str = "ada") -> AttemptId:
        """Add an attempt whose EXERCISE never comes."""
        return await self.site.attempt(await self.site.exercise(), files, student=student)

    async def taken(self) -> tuple[AttemptId, RunId]:
        """Return an attempt with the run that the sweep made of it."""
        attempt = await self.lost()
        await self.long()
        [(run,)] = await self.site.sql("SELECT id FROM executions")
        return attempt, RunId(str(run))


async def first_start(site: Site) -> None:
    await site.database.write(lambda c: site.daos.baseline.ensure(c, at=site.clock.utc()))


@pytest.fixture
def mode() -> Mode:
    return "new"


@pytest.fixture
def limit() -> int:
    return 1000


@pytest.fixture
async def swept(
    state: Path, url: str, clock: FakeClock, mode: Mode, limit: int
) -> AsyncIterator[Swept]:
    queue = Queue(sweep=mode, limit=limit)
    async with Site(state, clock, url=url, queue=queue).open() as site:
        await first_start(site)
        yield Swept(site)


changed = pytest.mark.parametrize("mode", ["changed"])
both_modes = pytest.mark.parametrize("mode", ["new", "changed"])

SWEPT = [("queued", SWEEP)]


# -- what is taken --------------------------------------------------------------------------------


@both_modes
async def test_what_has_stood_long_enough_is_run(swept: Swept) -> None:
    attempt = await swept.lost()

    await swept.service.sweep()
    await swept.after(AGE - 0.1)
    assert await swept.runs() == []
    await swept.after(0.1)

    assert await swept.runs() == SWEPT
    [job] = swept.site.board.runs_of_attempt(attempt)
    assert job.origin == Origin(SWEEP, "", str(attempt))
    content = await swept.site.runs.content(await swept.site.lease())
    assert dict(content.files) == {"main.py": "print(42)"}


@both_modes
async def test_it_is_run_once(swept: Swept) -> None:
    attempt = await swept.lost()
    await swept.long()
    await swept.site.runs.finished(await swept.site.lease(), completed(7))

    await swept.long()

    assert await swept.runs() == [("done", SWEEP)]
    assert [grade for grade, _ in await swept.site.results(attempt)] == [7]


async def test_the_oldest_comes_first(swept: Swept) -> None:
    attempts = [await swept.lost(student=student) for student in ("ada", "grace", "joan")]

    await swept.long()

    leases = [await swept.site.lease() for _ in attempts]
    assert [lease.job.attempt for lease in leases] == attempts


@both_modes
async def test_files_that_are_still_being_written_are_waited_for(swept: Swept) -> None:
    attempt = await swept.lost({"main.py": "import b"})
    await swept.service.sweep()
    for name in ("b.py", "c.py"):
        swept.site.clock.advance(AGE - PERIOD)
        await swept.site.edit(attempt, "", name)
        await swept.after(PERIOD)
        assert await swept.runs() == []

    await swept.after(AGE - 0.1)
    assert await swept.runs() == []
    await swept.after(0.1)

    content = await swept.site.runs.content(await swept.site.lease())
    assert [name for name, _ in content.files] == ["b.py", "c.py", "main.py"]


async def test_after_a_restart_it_is_seen_anew(swept: Swept) -> None:
    await swept.lost()
    await swept.service.sweep()
    swept.restarted()

    await swept.after(AGE)
    assert await swept.runs() == []

    await swept.after(AGE)
    assert await swept.runs() == SWEPT


@both_modes
async def test_what_cannot_be_judged_is_refused_once(swept: Swept) -> None:
    attempt = await swept.site.attempt(await swept.site.exercise(language="Cobol"))

    await swept.long()
    await swept.long()

    assert await swept.runs() == [("failed", SWEEP)]
    [end] = swept.site.ends()
    row = await swept.site.row(end.job.id)
    assert row.job.attempt == attempt
    assert row.ending == Failure(Cause.IMAGE, "there is no image for the language 'Cobol'")
    assert end.notices, "its student is told"


# -- what is left alone ---------------------------------------------------------------------------


@both_modes
async def test_attempts_of_before_the_first_start_are_no_news(
    state: Path, url: str, clock: FakeClock, mode: Mode
) -> None:
    async with Site(state, clock, url=url, queue=Queue(sweep=mode)).open() as site:
        number = await site.exercise()
        before = [await site.attempt(number) for _ in range(3)]
        await first_start(site)
        later = await site.attempt(number)
        await first_start(site)  # a second one changes nothing
        swept = Swept(site)
        await site.edit(before[0], "newer")

        await swept.long()

        assert [await swept.runs(attempt) for attempt in (*before, later)] == [[], [], [], SWEPT]


async def test_an_empty_site_has_a_baseline_too(swept: Swept) -> None:
    assert await swept.site.sql("SELECT single, attempt FROM baseline") == [(1, 0)]


async def test_what_retention_has_forgotten_is_no_news(swept: Swept) -> None:
    forgotten, later = await swept.lost(), await swept.lost()
    await swept.site.sql("UPDATE baseline SET attempt = :attempt", attempt=forgotten)

    await swept.long()

    assert (await swept.runs(forgotten), await swept.runs(later)) == ([], SWEPT)


@both_modes
async def test_without_files_it_is_a_draft(swept: Swept) -> None:
    attempt = await swept.lost({})
    await swept.long()
    assert await swept.runs() == []

    await swept.site.edit(attempt, "print(42)")
    await swept.long()

    assert await swept.runs() == SWEPT


@both_modes
async def test_what_nobody_can_grade_waits_for_a_grader(swept: Swept) -> None:
    await swept.site.attempt(await swept.site.exercise(None))
    await swept.long()
    assert await swept.runs() == []

    await swept.site.exercise()
    await swept.long()

    assert await swept.runs() == SWEPT


@both_modes
async def test_what_has_a_grade_and_no_run_was_graded_elsewhere(swept: Swept) -> None:
    attempt = await swept.lost()
    await swept.site.database.write(lambda c: swept.site.daos.grades.add(c, attempt, 0, 0))

    await swept.long()

    assert await swept.runs() == []


@both_modes
async def test_a_grade_in_the_meantime_settles_it(swept: Swept) -> None:
    attempt = await swept.lost()
    await swept.service.sweep()
    await swept.site.database.write(lambda c: swept.site.daos.grades.add(c, attempt, 0, 0))

    await swept.long()

    assert await swept.runs() == []


async def judge(site: Site, attempt: AttemptId) -> None:
    await site.submit(attempt)
    await site.runs.finished(await site.lease(), completed())


async def wait(site: Site, attempt: AttemptId) -> None:
    await site.submit(attempt)


async def begin(site: Site, attempt: AttemptId) -> None:
    await site.submit(attempt)
    await site.runs.started((await site.lease()).id)


async def cancel(site: Site, attempt: AttemptId) -> None:
    await site.submit(attempt)
    await site.exec.cancel(attempt)


async def refuse(site: Site, attempt: AttemptId) -> None:
    site.runs.join(make_offer(images=["c"]))
    await site.submit(attempt)


@both_modes
@pytest.mark.parametrize("do", [wait, begin, judge, cancel, refuse])
async def test_what_was_asked_for_is_never_swept_with_the_same_content(
    swept: Swept, do: Callable[[Site, AttemptId], Awaitable[None]]
) -> None:
    attempt = await swept.lost()
    await swept.service.sweep()
    await do(swept.site, attempt)

    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend"]


async def test_newer_content_of_what_was_run_is_nobodys_business(swept: Swept) -> None:
    attempt = await swept.lost()
    await judge(swept.site, attempt)
    await swept.site.edit(attempt, "newer")

    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend"]


async def test_a_run_of_other_content_in_the_meantime_settles_it(swept: Swept) -> None:
    attempt = await swept.lost({"main.py": "one"})
    await swept.service.sweep()
    await swept.site.edit(attempt, "two")
    await judge(swept.site, attempt)
    await swept.site.edit(attempt, "one")

    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend"]


async def test_what_is_gone_by_the_time_it_is_looked_at_was_not_missed(swept: Swept) -> None:
    draft = await swept.lost({})
    ungraded = await swept.site.attempt(await swept.site.exercise(None, title="no grader"))

    assert await swept.site.exec.missed(draft) is None
    assert await swept.site.exec.missed(ungraded) is None
    assert await swept.site.exec.missed(AttemptId(99)) is None


async def test_a_rejudge_is_no_run_of_the_students(swept: Swept) -> None:
    attempt = await swept.lost()
    other = replace(make_job("other", attempt=attempt), purpose=Purpose.REJUDGE)
    await swept.site.dispatcher.submit(other)
    await swept.site.runs.finished(await swept.site.lease(), completed())

    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend", SWEEP]


# -- changed --------------------------------------------------------------------------------------


@changed
async def test_newer_content_that_stands_is_run(swept: Swept) -> None:
    attempt = await swept.lost()
    await judge(swept.site, attempt)
    await swept.long()
    await swept.site.edit(attempt, "newer")

    await swept.after(PERIOD)
    await swept.after(AGE - 0.1)
    assert len(await swept.runs()) == 1
    await swept.after(0.1)

    assert await swept.runs() == [("done", "backend"), ("queued", SWEEP)]
    content = await swept.site.runs.content(await swept.site.lease())
    assert dict(content.files) == {"main.py": "newer"}


@changed
async def test_content_of_any_earlier_run_was_run_already(swept: Swept) -> None:
    attempt = await swept.lost({"main.py": "one"})
    await judge(swept.site, attempt)
    await swept.site.edit(attempt, "two")
    await judge(swept.site, attempt)

    await swept.site.edit(attempt, "one")
    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend", "backend"]


@changed
async def test_what_was_erased_is_never_run_again(swept: Swept) -> None:
    attempt = await swept.lost()
    await judge(swept.site, attempt)
    await swept.site.sql("UPDATE executions SET content_hash = ''")
    await swept.site.edit(attempt, "newer")

    await swept.long()

    assert len(await swept.runs()) == 1


@changed
async def test_newer_content_waits_for_the_end_of_what_runs(swept: Swept) -> None:
    attempt = await swept.lost()
    await swept.site.submit(attempt)
    lease = await swept.site.lease()
    await swept.site.edit(attempt, "newer")
    await swept.long()
    assert await swept.runs() == [("queued", "backend")]  # in a slot of ours: its row waits

    await swept.site.runs.finished(lease, completed())
    await swept.long()

    assert await swept.runs() == [("done", "backend"), ("queued", SWEEP)]


@changed
async def test_the_sweep_replaces_nothing_that_waits(swept: Swept) -> None:
    attempt = await swept.lost()
    run = await swept.site.submit(attempt)
    before = await swept.site.row(run)
    await swept.site.edit(attempt, "newer")

    await swept.long()

    assert await swept.site.row(run) == before
    assert await swept.site.count("executions") == 1


@changed
@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO codes (id, user_exercise_id, name, content, create_timestamp,"
        " modify_timestamp) VALUES (900, 1, 'b.py', '', 0, 0)",
        "UPDATE codes SET content = 'print(42) '",
        "UPDATE codes SET content = 'print(43)', modify_timestamp = modify_timestamp + 1",
        "UPDATE codes SET content = 'print(43)', id = id + 900",
        "UPDATE languages SET name = 'C'",
        "UPDATE exercises SET grade_max = 7",
        "INSERT INTO scripts (id, exercise_id, content) SELECT 900, exercise_id, content || ' '"
        " FROM scripts",
    ],
    ids=["a file", "length", "time", "another row", "language", "highest grade", "grader"],
)
async def test_whatever_changes_a_verdict_is_noticed(swept: Swept, change: str) -> None:
    attempt = await swept.lost()
    assert attempt == 1
    await judge(swept.site, attempt)
    await swept.long()
    await swept.site.sql(change)

    await swept.long()

    assert [gateway for _, gateway in await swept.runs()] == ["backend", SWEEP]


# -- what it costs --------------------------------------------------------------------------------


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect every statement that is sent to a database."""
    sent: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", heard)


@both_modes
async def test_on_old_attempts_no_table_is_read_but_theirs(
    state: Path, url: str, clock: FakeClock, mode: Mode
) -> None:
    async with Site(state, clock, url=url, queue=Queue(sweep=mode)).open() as site:
        number = await site.exercise()
        for _ in range(3):
            await site.attempt(number)
        await first_start(site)
        swept = Swept(site)

        with statements() as sent:
            await swept.long()

        assert sent
        assert not [one for one in sent if "codes" in one or "grades" in one]


@changed
async def test_the_first_start_beside_a_live_platform_sweeps_nothing_and_later_what_is_new(
    state: Path, empty_url: str, clock: FakeClock, mode: Mode, request: pytest.FixtureRequest
) -> None:
    platform = live.made(empty_url, request)
    await live.grant(platform)
    async with DatabaseManager(platform.url) as database:
        await migrations.upgrade(database)
    async with Site(state, clock, url=platform.url, queue=Queue(sweep=mode)).open() as site:
        await first_start(site)
        swept = Swept(site)

        with statements() as sent:
            await swept.service.sweep()
        await swept.long()

        # For each round: begin, the baseline, a page that is empty.
        assert len(sent) <= 6
        assert not [one for one in sent if "codes" in one or "grades" in one]
        assert await site.sql("SELECT attempt FROM baseline") == [(live.ATTEMPTS,)]
        assert await swept.runs() == []

        platform.run(live.NEW_ROWS)
        await swept.long()
        new = AttemptId(live.NEW_ATTEMPT)  # what the platform has for a grader is none of ours
        assert await swept.runs() == await swept.runs(new) == [("failed", SWEEP)]


@both_modes
async def test_of_attempts_that_need_nothing_no_file_is_read_again(swept: Swept) -> None:
    site = swept.site
    await judge(site, await swept.lost(student="run"))
    graded = await swept.lost(student="graded")
    await site.database.write(lambda c: site.daos.grades.add(c, graded, 0, 0))
    await swept.lost({}, student="a draft")
    await site.attempt(await site.exercise(None, title="without a grader"))
    await swept.long()

    with statements() as sent:
        await swept.long()

    assert any("user_exercises" in one for one in sent)
    assert not [one for one in sent if "codes.content" in one and "sum(" not in one]
    assert await swept.runs() == [("done", "backend")]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two attempts, two of them a sweep."""
    for name in ("PAGES", "UNASKED", "FINGERPRINTS"):
        monkeypatch.setattr(sweep_service, name, 2)


@pytest.mark.usefixtures("small_pages")
async def test_drafts_do_not_keep_it_from_those_behind_them(swept: Swept) -> None:
    for _ in range(9):
        await swept.lost({})
    attempt = await swept.lost()

    for _ in range(3):  # four of them each
        await swept.service.sweep()
    await swept.after(AGE)

    assert await swept.runs() == await swept.runs(attempt) == SWEPT


@both_modes
@pytest.mark.usefixtures("small_pages")
async def test_it_goes_on_where_it_ended_and_begins_anew_at_the_end(swept: Swept) -> None:
    for _ in range(4):
        await swept.lost()
    await swept.service.sweep()
    later = [await swept.lost() for _ in range(2)]

    await swept.after(AGE)
    assert await swept.runs() == SWEPT * 4
    await swept.after(AGE)
    assert await swept.runs() == SWEPT * 6

    newest = await swept.lost()
    await swept.long()
    assert await swept.runs(newest) == await swept.runs(later[0]) == SWEPT


@both_modes
@pytest.mark.parametrize("bound", ["SIGHTINGS", "LOOKS"])
async def test_it_watches_a_bounded_number_and_comes_to_the_others_later(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(sweep_service, bound, 2)
    for _ in range(5):
        await swept.lost()

    await swept.service.sweep()
    await swept.after(AGE)
    assert await swept.runs() == SWEPT * 2

    for _ in range(3):
        await swept.after(AGE)
    assert await swept.runs() == SWEPT * 5


@changed
async def test_what_never_had_a_run_does_not_wait_until_all_others_were_seen(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_service, "LOOKS", 1)
    for _ in range(3):
        await judge(swept.site, await swept.lost())
    lost = await swept.lost()

    await swept.service.sweep()
    await swept.after(AGE)

    assert await swept.runs(lost) == SWEPT


@changed
async def test_fingerprints_that_are_forgotten_are_made_again(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_service, "SETTLED", 1)
    for _ in range(3):
        await judge(swept.site, await swept.lost())

    await swept.long()

    assert await swept.runs() == [("done", "backend")] * 3
    assert len(swept.service._settled) == 1, "memory is not to be seen from outside"


async def test_of_those_it_gave_up_a_bounded_number_is_remembered(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def buggy(asked: AttemptId) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sweep_service, "GIVEN_UP", 2)
    monkeypatch.setattr(swept.site.exec, "missed", buggy)
    for _ in range(4):
        await swept.lost()

    await swept.service.sweep()

    assert len(swept.service._given_up) == 2, "memory is not to be seen from outside"


# -- what cannot be read --------------------------------------------------------------------------


async def odd_exercise(site: Site, attempt: AttemptId) -> None:
    """Give an attempt an exercise that is no number, as a platform's loose column may."""
    if site.url.startswith("sqlite"):
        with closing(sqlite3.connect(site.url.removeprefix("sqlite:///"))) as database, database:
            database.execute(
                "UPDATE user_exercises SET exercise_id = 'n/a' WHERE id = ?", [attempt]
            )
        return
    await site.sql("ALTER TABLE user_exercises DROP CONSTRAINT fk_user_exercises_exercise_id")
    await site.sql("ALTER TABLE user_exercises ALTER exercise_id TYPE numeric")
    await site.sql("UPDATE user_exercises SET exercise_id = 'NaN' WHERE id = :id", id=attempt)


@both_modes
async def test_one_odd_attempt_is_given_up_once_and_the_others_are_run(swept: Swept) -> None:
    await judge(swept.site, await swept.lost())
    attempts = [await swept.lost(student=f"s{number}") for number in range(7)]
    odd = attempts.pop(3)
    await odd_exercise(swept.site, odd)

    with capture_logs() as logs:
        for _ in range(3):
            await swept.long()

    assert [await swept.runs(attempt) for attempt in attempts] == [SWEPT] * 6
    assert await swept.runs(odd) == []
    [line] = [one for one in logs if one["log_level"] == "error"]
    assert (line["event"], line["attempt"]) == ("attempt_not_swept", odd)
    assert "n/a" not in str(line)


@both_modes
async def test_an_odd_id_is_no_attempts(swept: Swept, engine_name: str) -> None:
    attempt = await swept.lost()
    if engine_name == "sqlite":
        await swept.site.sql("ALTER TABLE user_exercises RENAME TO attempts")
        await swept.site.sql(
            "CREATE VIEW user_exercises AS SELECT id, account_id, exercise_id FROM attempts"
            " UNION ALL SELECT 'n/a', 1, 1"
        )
    else:
        await swept.site.sql("ALTER TABLE user_exercises RENAME TO attempts")
        await swept.site.sql(
            "CREATE VIEW user_exercises AS SELECT id::numeric, account_id, exercise_id"
            " FROM attempts UNION ALL SELECT 'NaN', 1, 1"
        )
    await swept.site.sql("DELETE FROM baseline")
    await first_start(swept.site)
    assert await swept.site.sql("SELECT attempt FROM baseline") == [(attempt,)]
    await swept.site.sql("UPDATE baseline SET attempt = 0")

    with capture_logs() as logs:
        await swept.long()

    assert await swept.runs() == SWEPT
    assert not [one for one in logs if one["log_level"] in ("warning", "error")]


@changed
async def test_an_odd_grader_concerns_its_own_exercise_alone(
    swept: Swept, engine_name: str
) -> None:
    attempt = await swept.lost()
    await judge(swept.site, attempt)
    await swept.site.edit(attempt, "newer")
    odd = "'n/a'" if engine_name == "sqlite" else "'NaN'::numeric"
    await swept.site.sql("ALTER TABLE scripts RENAME TO all_scripts")
    await swept.site.sql(
        "CREATE VIEW scripts AS SELECT id, exercise_id, content FROM all_scripts"  # noqa: S608  # ours
        f" UNION ALL SELECT {odd}, 900, 'x' UNION ALL SELECT 901, {odd}, 'x'"
    )

    await swept.long()

    assert await swept.runs() == [("done", "backend"), ("queued", SWEEP)]


@both_modes
@pytest.mark.parametrize("engine_name", ["postgresql"])  # views of SQLite cannot refuse
async def test_an_attempt_that_the_platform_does_not_give_is_given_up(swept: Swept) -> None:
    attempts = [await swept.lost(student=f"s{number}") for number in range(3)]
    await hide_files(swept.site, attempts[0])

    with capture_logs() as logs:
        for _ in range(3):
            await swept.long()

    assert [await swept.runs(attempt) for attempt in attempts] == [[], SWEPT, SWEPT]
    assert [one["attempt"] for one in logs if one["event"] == "attempt_not_swept"] == attempts[:1]


@both_modes
@pytest.mark.parametrize("call", ["missed", "sweep"])
async def test_an_attempt_that_always_takes_too_long_is_tried_after_all_others(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    slow, *others = [await swept.lost(student=f"s{number}") for number in range(3)]
    right = getattr(swept.site.exec, call)

    async def late(attempt: AttemptId, *rest: object) -> object:
        if attempt == slow:
            raise StoreError("a transaction took too long and was undone")
        return await right(attempt, *rest)

    monkeypatch.setattr(swept.site.exec, call, late)
    for _ in range(8):
        with suppress(StoreError):
            await swept.after(PERIOD)
    assert [await swept.runs(attempt) for attempt in others] == [SWEPT] * 2

    monkeypatch.undo()
    await swept.long()
    assert await swept.runs(slow) == SWEPT, "it was never given up"


# -- when there is no room, or no database --------------------------------------------------------


@pytest.mark.parametrize("limit", [1])
async def test_a_full_queue_is_waited_for_and_nothing_is_refused(swept: Swept) -> None:
    first, second = await swept.lost(student="ada"), await swept.lost(student="grace")
    await swept.long()
    await swept.long()
    assert (await swept.runs(first), await swept.runs(second)) == (SWEPT, [])

    await swept.site.lease()
    await swept.after(0)

    assert await swept.runs(second) == SWEPT


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_what_the_database_cannot_give_is_given_up_once(swept: Swept) -> None:
    broken = await swept.lost(student="ada")
    await swept.site.sql("UPDATE codes SET content = CAST(X'ff' AS TEXT)")
    attempt = await swept.lost(student="grace")

    with capture_logs() as logs:
        await swept.long()
        await swept.long()

    given_up = [line["attempt"] for line in logs if line["event"] == "attempt_not_swept"]
    assert given_up == [broken]
    assert (await swept.runs(broken), await swept.runs(attempt)) == ([], SWEPT)


@pytest.mark.parametrize("method", ["missed", "sweep"])
async def test_a_bug_that_one_attempt_meets_costs_the_others_nothing(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    cursed, attempt = await swept.lost(student="ada"), await swept.lost(student="grace")
    healthy = getattr(swept.site.exec, method)

    async def buggy(asked: AttemptId, *rest: ContentHash) -> object:
        if asked == cursed:
            raise ZeroDivisionError
        return await healthy(asked, *rest)

    monkeypatch.setattr(swept.site.exec, method, buggy)

    with capture_logs() as logs:
        await swept.long()
        await swept.long()

    assert [line["attempt"] for line in logs if line["log_level"] == "error"] == [cursed]
    assert (await swept.runs(cursed), await swept.runs(attempt)) == ([], SWEPT)


async def test_a_database_that_was_away_changes_nothing(swept: Swept) -> None:
    await swept.lost()
    await swept.service.sweep()
    await swept.site.database.close()
    with pytest.raises(StoreError):
        await swept.after(AGE)
    await swept.site.database.open()

    await swept.after(0)

    assert await swept.runs() == SWEPT


async def test_it_sweeps_from_time_to_time_through_failures(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swept.lost()
    task = asyncio.create_task(swept.service.run())
    try:
        await until(lambda: swept.site.clock.alarms)
        await swept.site.database.close()
        with capture_logs() as logs:
            swept.site.clock.advance(PERIOD)
            await until(lambda: [one for one in logs if one["event"] == "sweep_failed"])
            await until(lambda: swept.site.clock.alarms)
        await swept.site.database.open()
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(swept.site.daos.baseline, "unasked", None)  # a bug of ours
            swept.site.clock.advance(PERIOD)
            await until(lambda: [one for one in logs if one.get("exc_info")])
            await until(lambda: swept.site.clock.alarms)
        for _ in range(4):
            swept.site.clock.advance(PERIOD)
            await until(lambda: swept.site.clock.alarms)

        assert await swept.runs() == SWEPT
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("mode", ["off"])
async def test_where_it_is_off_it_does_nothing(swept: Swept) -> None:
    await swept.lost()

    task = asyncio.create_task(swept.service.run())
    await settle()

    assert task.done()
    assert swept.site.clock.alarms == []


# -- asked for after all --------------------------------------------------------------------------


async def asked_for(swept: Swept, attempt: AttemptId, run: RunId) -> None:
    """Ask, and be given the run that the sweep has made."""
    before = await swept.site.row(run)

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert (submitted.run, submitted.new) == (run, False)
    assert await swept.site.row(run) == replace(before, job=replace(before.job, origin=ORIGIN))
    assert await swept.site.count("executions") == 1


async def test_exercise_claims_the_run_that_waits(swept: Swept) -> None:
    attempt, run = await swept.taken()

    await asked_for(swept, attempt, run)

    [job] = swept.site.board.runs_of_attempt(attempt)
    assert job.origin == ORIGIN


@pytest.mark.parametrize("remote", [False, True])
async def test_exercise_claims_the_run_that_runs_and_its_end_is_the_askers(
    swept: Swept, remote: bool
) -> None:
    attempt, run = await swept.taken()
    lease = await swept.site.lease(make_offer("node", engine="node", remote=remote))
    await swept.site.runs.started(lease.id)

    await asked_for(swept, attempt, run)
    await swept.site.runs.finished(lease, completed(7))

    [end] = swept.site.ends()
    assert end.job.origin == (await swept.site.row(run)).job.origin == ORIGIN
    assert [grade for grade, _ in await swept.site.results(attempt)] == [7]


async def test_exercise_claims_the_run_that_ended_once(swept: Swept) -> None:
    attempt, run = await swept.taken()
    await swept.site.runs.finished(await swept.site.lease(), completed(7))

    await asked_for(swept, attempt, run)
    assert len(await swept.site.results(attempt)) == 1

    again = await swept.site.exec.submit(attempt, ORIGIN)
    assert again.new
    assert again.run != run


async def test_a_run_that_ended_is_claimed_by_one_alone(swept: Swept) -> None:
    _, run = await swept.taken()
    await swept.site.runs.finished(await swept.site.lease(), completed())
    dao, other = swept.site.daos.executions, Origin("http", "other", "7")

    assert await swept.site.database.write(lambda c: dao.ask(c, run, ORIGIN))
    assert not await swept.site.database.write(lambda c: dao.ask(c, run, other))

    assert (await swept.site.row(run)).job.origin == ORIGIN


async def test_exercise_claims_the_refusal_of_the_sweep(swept: Swept) -> None:
    attempt = await swept.site.attempt(await swept.site.exercise(language="Cobol"))
    await swept.long()
    [end] = swept.site.ends()

    await asked_for(swept, attempt, end.job.id)

    assert len(swept.site.ends()) == 1


async def test_exercise_claims_after_a_restart_too(swept: Swept) -> None:
    attempt, run = await swept.taken()
    async with Site(swept.site.state, swept.site.clock, url=swept.site.url).open() as again:
        await asked_for(Swept(again), attempt, run)


async def test_exercise_with_newer_content_takes_the_place_of_the_run_that_waits(
    swept: Swept,
) -> None:
    attempt, run = await swept.taken()
    await swept.site.edit(attempt, "newer")

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert (submitted.run, submitted.new) == (run, False)
    assert (await swept.site.row(run)).job.origin == ORIGIN
    content = await swept.site.runs.content(await swept.site.lease())
    assert dict(content.files) == {"main.py": "newer"}


async def test_exercise_with_newer_content_waits_behind_the_run_that_runs(swept: Swept) -> None:
    attempt, run = await swept.taken()
    await swept.site.lease()
    await swept.site.edit(attempt, "newer")

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert submitted.new
    assert [job.origin.gateway for job in swept.site.board.runs_of_attempt(attempt)] == [
        SWEEP,
        "backend",
    ]
    assert run != submitted.run


async def test_exercise_claims_no_run_that_a_newer_one_has_followed(swept: Swept) -> None:
    attempt, run = await swept.taken()
    await swept.site.runs.finished(await swept.site.lease(), completed())
    await swept.site.edit(attempt, "newer")
    await judge(swept.site, attempt)
    await swept.site.edit(attempt, "print(42)")

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert submitted.new, "the newest grade would be that of other content"
    assert (await swept.site.row(run)).job.origin.gateway == SWEEP


async def test_exercise_claims_no_run_that_gave_way_to_a_newer_one(swept: Swept) -> None:
    """The two share an entry number, and the wall clock may have been set back in between."""
    attempt, older = await swept.taken()
    lease = await swept.site.lease()
    swept.site.clock.advance(-600.0)
    await swept.site.edit(attempt, "newer")
    newer = await swept.site.submit(attempt)
    await swept.site.runs.release(lease.id)
    await swept.site.edit(attempt, "print(42)")

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert submitted == (newer, False)
    assert (await swept.site.row(older)).job.origin.gateway == SWEEP
    content = await swept.site.runs.content(await swept.site.lease())
    assert dict(content.files) == {"main.py": "print(42)"}


@pytest.mark.parametrize("sweep_first", [False, True])
async def test_sweep_and_exercise_at_the_same_moment_are_one_run(
    swept: Swept, sweep_first: bool
) -> None:
    attempt = await swept.lost()
    await swept.service.sweep()
    swept.site.clock.advance(AGE)
    work = [swept.service.sweep(), swept.site.exec.submit(attempt, ORIGIN)]

    await asyncio.gather(*(work if sweep_first else reversed(work)))

    assert await swept.runs() == [("queued", "backend")]


async def test_an_end_between_look_and_claim_is_still_one_run(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, run = await swept.taken()
    lease = await swept.site.lease()
    ask = swept.site.dispatcher.ask

    async def late(run: RunId, origin: Origin) -> bool:
        await swept.site.runs.finished(lease, completed())
        return await ask(run, origin)

    monkeypatch.setattr(swept.site.dispatcher, "ask", late)

    submitted = await swept.site.exec.submit(attempt, ORIGIN)

    assert (submitted.run, submitted.new) == (run, False)
    assert await swept.runs() == [("done", "backend")]


async def test_without_room_for_what_has_come_in_since_it_is_not_refused(
    swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = await swept.lost()
    content = await swept.site.exec.missed(attempt)
    assert content is not None
    monkeypatch.setattr(type(swept.site.exec), "full", property(lambda _: True))

    assert await swept.site.exec.sweep(attempt, content) is None

    assert await swept.runs() == []
