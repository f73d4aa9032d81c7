"""The ask door on a real database: what is taken, what is refused, what is done twice."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from commserver.config import Docker, Queue
from commserver.core.changes import Change, Conflict
from commserver.core.events import RunEnded, RunQueued, RunReplaced
from commserver.core.finals import Notice, account
from commserver.core.jobs import (
    AttemptId,
    ContentHash,
    OwnerId,
    Requirement,
    RunId,
    content_hash,
)
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Failure
from commserver.errors import NotFound, StoreError, StoreFull
from commserver.graders.content import Content
from commserver.services.exec_service import NO_ROOM, TOO_LONG
from commserver.services.file_store import BLOCK, FileStore
from commserver.services.run_service import lease_for
from tests.fakes import PYTHON, FakeClock, completed, make_offer
from tests.integration.services.site import ORIGIN, Site
from tests.unit.graders.toml import exercise


@pytest.fixture
async def attempt(site: Site) -> AttemptId:
    """A right attempt of ada's."""
    return await site.attempt(await site.exercise())


async def content_of(site: Site, run: RunId) -> Content:
    """Return what a run will judge, as its row says."""
    return Content.decode(await site.files.get((await site.row(run)).job.content))


# -- what is taken --------------------------------------------------------------------------------


async def test_an_attempt_becomes_a_waiting_run(site: Site, attempt: AttemptId) -> None:
    submitted = await site.exec.submit(attempt, ORIGIN)

    row = await site.row(submitted.run)
    account = await site.admin.account("ada")
    assert submitted.new
    assert (row.state, row.tries) == (State.QUEUED, 0)
    assert (row.job.attempt, row.job.owner, row.job.origin) == (
        attempt,
        OwnerId(str(account)),
        ORIGIN,
    )
    assert row.job.requires == (Requirement("image", "=", ("python",)),)
    assert row.job.max_tries == Queue().max_tries
    assert site.board.place(submitted.run) == 1
    assert site.events == [RunQueued(row.job)]


async def test_what_is_judged_is_what_the_platform_has_at_that_moment(site: Site) -> None:
    number = await site.exercise()
    attempt = await site.attempt(number, {"z.py": "1", "main.py": "old", "a.py": "2"})
    await site.edit(attempt, "new")

    run = await site.submit(attempt)

    assert await content_of(site, run) == Content(
        "python", 20, (("a.py", "2"), ("main.py", "new"), ("z.py", "1")), exercise()
    )


async def test_equal_work_of_two_students_is_kept_once(site: Site) -> None:
    number = await site.exercise()
    runs = [
        await site.submit(await site.attempt(number, student=student))
        for student in ("ada", "grace")
    ]

    rows = [await site.row(run) for run in runs]

    assert rows[0].job.content == rows[1].job.content
    assert rows[0].job.id != rows[1].job.id


async def test_in_which_order_files_were_handed_in_makes_no_difference(site: Site) -> None:
    number = await site.exercise()
    first = await site.attempt(number, {"main.py": "1", "b.py": "2"}, student="ada")
    second = await site.attempt(number, {"b.py": "2", "main.py": "1"}, student="grace")

    rows = [await site.row(await site.submit(attempt)) for attempt in (first, second)]

    assert rows[0].job.content == rows[1].job.content


async def test_a_slot_may_have_it_for_as_long_as_its_cases_may_take_twice(site: Site) -> None:
    cases = "".join(f'[[cases]]\nname = "{n}"\nexpected = ""\n' for n in range(3))
    grader = exercise('limits = { real = "7 s" }', cases=cases)

    run = await site.submit(await site.attempt(await site.exercise(grader)))

    assert (await site.row(run)).job.lease == lease_for(3 * 7.0)


@pytest.mark.parametrize("language", ["python", "Python", "PYTHON 3", "  py "])
async def test_languages_go_by_any_of_their_names(site: Site, language: str) -> None:
    attempt = await site.attempt(await site.exercise(language=language))

    run = await site.submit(attempt)

    assert (await content_of(site, run)).language == "python"


async def test_a_sites_own_names_for_languages_count(
    state: Path, url: str, clock: FakeClock
) -> None:
    docker = Docker(languages={"python": ("Serpent",)})
    async with Site(state, clock, url=url, docker=docker).open() as site:
        run = await site.submit(await site.attempt(await site.exercise(language="sErPeNt")))

        assert (await content_of(site, run)).language == "python"


async def test_files_that_cannot_be_compiled_are_a_verdict_and_no_refusal(site: Site) -> None:
    run = await site.submit(await site.attempt(await site.exercise(), {"../main.py": ""}))

    assert (await site.row(run)).state is State.QUEUED


async def test_a_correction_script_is_queued_for_the_image_of_its_course(site: Site) -> None:
    script = "print('GRADE: 20')"

    run = await site.submit(await site.attempt(await site.exercise(script)))

    row = await site.row(run)
    assert (row.state, row.job.requires) == (State.QUEUED, PYTHON)
    assert (await content_of(site, run)).grader == script


async def test_the_large_files_of_its_exercise_are_young_again_once_it_is_handed_in(
    site: Site,
) -> None:
    """So none is collected before the row is there that needs it."""
    name = await site.files.put(b"21")
    [path] = (site.state / "files").rglob(name)
    os.utime(path, (0, 0))
    files = f'[files]\n"a.in" = {{ sha256 = "{name}", size = 2 }}\n"a.out" = "42"\n'
    cases = f'[[cases]]\nname = "a"\nfiles = "a.in"\n{files}'

    run = await site.submit(await site.attempt(await site.exercise(exercise(cases=cases))))

    assert (await site.row(run)).state is State.QUEUED
    assert path.stat().st_mtime > 0


async def test_the_content_is_there_before_its_row(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, found = site.ledger.commit, []

    async def looked(change: Change) -> Sequence[Notice] | Conflict:
        found.append(await site.files.get(change.writes[0].job.content))
        return await commit(change)

    monkeypatch.setattr(site.ledger, "commit", looked)

    await site.submit(attempt)

    assert len(found) == 1


async def test_without_its_content_there_is_no_row(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: FileStore, content: bytes) -> ContentHash:
        raise StoreError("no space left")

    monkeypatch.setattr(FileStore, "put", full)

    with pytest.raises(StoreError):
        await site.exec.submit(attempt, ORIGIN)

    assert await site.count("executions") == 0
    assert (len(site.board), site.events) == (0, [])


# -- who is not known -----------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [0, 99, -1, 2**63 - 1, 2**63, 10**30])
async def test_an_unknown_attempt_is_not_found_and_leaves_no_row(
    site: Site, attempt: AttemptId, unknown: int
) -> None:
    with pytest.raises(NotFound) as caught:
        await site.exec.submit(AttemptId(unknown), ORIGIN)

    assert (caught.value.kind, caught.value.id) == ("attempt", str(unknown))
    assert await site.count("executions") == 0
    assert site.events == []


async def test_a_database_that_is_away_has_taken_nothing(site: Site, attempt: AttemptId) -> None:
    await site.database.close()

    with pytest.raises(StoreError):
        await site.exec.submit(attempt, ORIGIN)

    assert len(site.board) == 0


# -- what is refused ------------------------------------------------------------------------------


async def without_files(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(), {})


async def without_grader(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(None))


async def of_an_unknown_language(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(language="Cobol"))


async def with_a_wrong_definition(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(exercise("limits = { cpu = 1 }")))


async def in_another_language_than_the_course(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(exercise(language='"c"')))


async def of_which_no_file_is_the_main_one(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(), {"a.py": "", "b.py": ""})


async def for_which_no_engine_has_the_image(site: Site) -> AttemptId:
    site.runs.join(make_offer(images=["c", "java"]))
    return await site.attempt(await site.exercise())


REFUSALS: list[tuple[Callable[[Site], Awaitable[AttemptId]], Cause, str]] = [
    (without_files, Cause.NOT_FOUND, "the attempt has no files"),
    (without_grader, Cause.NOT_FOUND, "the exercise has no grader"),
    (of_an_unknown_language, Cause.IMAGE, "there is no image for the language 'Cobol'"),
    (with_a_wrong_definition, Cause.EXERCISE, "limits.cpu: "),
    (in_another_language_than_the_course, Cause.EXERCISE, "language: the course is in python"),
    (of_which_no_file_is_the_main_one, Cause.EXERCISE, "submission.files: says not which"),
    (for_which_no_engine_has_the_image, Cause.IMAGE, "no engine has the image for python"),
]


@pytest.mark.parametrize(
    ("prepare", "cause", "message"), REFUSALS, ids=[prepare.__name__ for prepare, *_ in REFUSALS]
)
async def test_a_refusal_leaves_a_row_with_its_cause_and_tells_the_owner(
    site: Site, prepare: Callable[[Site], Awaitable[AttemptId]], cause: Cause, message: str
) -> None:
    attempt = await prepare(site)

    submitted = await site.exec.submit(attempt, ORIGIN)

    row = await site.row(submitted.run)
    assert submitted.new
    assert row.state is State.FAILED
    assert row.ended_at == site.clock.utc()
    assert isinstance(row.ending, Failure)
    assert row.ending.cause is cause
    assert row.ending.message.startswith(message)
    owed = (Notice(account(row.job.owner), 1),)
    assert site.events == [RunEnded(row.job, State.FAILED, Broken(row.ending), owed)]
    assert row.job.owner == str(await site.admin.account("ada"))
    assert len(site.board) == 0
    assert await site.results(attempt) == [], "a refusal is no grade"


@pytest.mark.parametrize(
    "prepare",
    [prepare for prepare, *_ in REFUSALS],
    ids=[prepare.__name__ for prepare, *_ in REFUSALS],
)
async def test_a_refusal_says_by_its_hash_what_was_refused(
    site: Site, prepare: Callable[[Site], Awaitable[AttemptId]]
) -> None:
    attempt = await prepare(site)

    once, twice = [(await site.row(await site.submit(attempt))).job.content for _ in range(2)]
    await site.edit(attempt, "another")
    changed = (await site.row(await site.submit(attempt))).job.content

    assert len(once) == len(content_hash(b""))
    assert once == twice != changed


async def test_what_is_refused_for_want_of_room_has_the_hash_of_what_is_taken(
    small: Site,
) -> None:
    number = await small.exercise()
    waiting = await small.submit(await small.attempt(number))
    refused = await small.submit(await small.attempt(number, student="grace"))

    rows = [await small.row(run) for run in (waiting, refused)]

    assert rows[0].job.content == rows[1].job.content
    assert rows[1].state is State.FAILED


async def test_a_file_store_that_is_full_refuses_who_comes_next_and_all_else_goes_on(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url, limit=BLOCK).open() as site:
        await site.files.measure()
        number = await site.exercise()
        first = await site.submit(await site.attempt(number, {"main.py": "1"}))
        attempt = await site.attempt(number, {"main.py": "2"}, student="grace")
        refused = await site.row(await site.submit(attempt))
        await site.runs.finished(await site.lease(), completed())
        await site.files.remove((await site.row(first)).job.content)

        taken = await site.row(await site.submit(attempt))

        assert refused.ending == Failure(Cause.FULL, NO_ROOM)
        assert taken.state is State.QUEUED
        assert [end.state for end in site.ends()] == [State.FAILED, State.DONE]
        assert all(len(end.notices) == 1 for end in site.ends()), "each student is told"


async def test_what_is_longer_than_may_be_kept_is_refused_whoever_finds_it(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url, file_limit=1000).open() as site:
        attempt = await site.attempt(await site.exercise(), {"main.py": "#" * 1000})
        asked = await site.row(await site.submit(attempt))
        other = await site.attempt(await site.exercise(), {"main.py": "#" * 1001})
        content = await site.exec.missed(other)
        assert content is not None
        swept = await site.exec.sweep(other, content)

        assert swept is not None
        for row in (asked, await site.row(swept.run)):
            assert row.ending == Failure(Cause.FULL, TOO_LONG)


async def test_the_sweep_waits_for_room_in_the_file_store(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url, limit=BLOCK).open() as site:
        await site.files.measure()
        other = await site.files.put(b"something else")
        attempt = await site.attempt(await site.exercise())
        content = await site.exec.missed(attempt)
        assert content is not None

        with pytest.raises(StoreFull):
            await site.exec.sweep(attempt, content)
        meanwhile = await site.count("executions")
        await site.files.remove(other)

        assert await site.exec.sweep(attempt, content)
        assert (meanwhile, await site.count("executions")) == (0, 1)


@pytest.fixture
async def small(state: Path, url: str, clock: FakeClock) -> AsyncIterator[Site]:
    """A site where one run may wait."""
    async with Site(state, clock, url=url, queue=Queue(limit=1)).open() as site:
        yield site


async def test_a_full_queue_refuses_who_comes_next(small: Site) -> None:
    number = await small.exercise()
    await small.submit(await small.attempt(number))

    run = await small.submit(await small.attempt(number, student="grace"))

    row = await small.row(run)
    assert row.state is State.FAILED
    assert isinstance(row.ending, Failure)
    assert row.ending.cause is Cause.FULL
    assert [(end.job.id, end.state) for end in small.ends()] == [(run, State.FAILED)]
    assert small.board.waiting() == 1


async def test_a_full_queue_has_room_again_once_something_was_leased(small: Site) -> None:
    number = await small.exercise()
    await small.submit(await small.attempt(number))
    await small.lease()

    run = await small.submit(await small.attempt(number, student="grace"))

    assert small.board.place(run) == 1


async def test_what_waits_in_a_full_queue_may_be_handed_in_again(small: Site) -> None:
    attempt = await small.attempt(await small.exercise())
    run = await small.submit(attempt)

    assert await small.submit(attempt) == run
    await small.edit(attempt, "newer")
    assert await small.submit(attempt) == run

    assert small.ends() == []
    assert dict((await content_of(small, run)).files) == {"main.py": "newer"}


async def test_a_language_that_a_site_names_and_nobody_knows_is_refused(
    state: Path, url: str, clock: FakeClock
) -> None:
    docker = Docker(languages={"fortran": ("fortran",)})
    async with Site(state, clock, url=url, docker=docker).open() as site:
        run = await site.submit(await site.attempt(await site.exercise(language="Fortran")))

        row = await site.row(run)
        assert row.ending == Failure(Cause.IMAGE, "there is no image for the language 'Fortran'")


async def test_before_any_engine_is_known_runs_wait_for_one(site: Site, attempt: AttemptId) -> None:
    assert (await site.row(await site.submit(attempt))).state is State.QUEUED


async def test_while_a_runner_is_away_runs_wait_that_it_alone_may_fit(site: Site) -> None:
    site.runs.join(make_offer(images=["c"]))
    site.runs.expect("the one with python")

    run = await site.submit(await site.attempt(await site.exercise()))

    assert (await site.row(run)).state is State.QUEUED


async def test_a_runner_that_is_back_without_the_image_is_waited_for_no_more(site: Site) -> None:
    offer = make_offer(images=["c"])
    site.runs.expect(offer.runner)
    site.runs.join(offer)

    run = await site.submit(await site.attempt(await site.exercise()))

    assert (await site.row(run)).state is State.FAILED


async def test_a_refused_attempt_can_be_handed_in_again(site: Site) -> None:
    attempt = await without_files(site)
    refused = await site.submit(attempt)
    await site.edit(attempt, "print(42)")

    run = await site.submit(attempt)

    assert run != refused
    assert (await site.row(run)).state is State.QUEUED


# -- the same id again ----------------------------------------------------------------------------


async def test_the_same_content_while_it_waits_is_nothing_new(
    site: Site, attempt: AttemptId
) -> None:
    run = await site.submit(attempt)

    again = await site.exec.submit(attempt, ORIGIN)

    assert (again.run, again.new) == (run, False)
    assert await site.count("executions") == 1


async def test_the_same_content_while_it_runs_is_nothing_new(
    site: Site, attempt: AttemptId
) -> None:
    run = await site.submit(attempt)
    await site.runs.started((await site.lease()).id)

    again = await site.exec.submit(attempt, ORIGIN)

    assert (again.run, again.new) == (run, False)
    assert await site.count("executions") == 1


async def test_newer_content_while_it_waits_takes_its_place(site: Site, attempt: AttemptId) -> None:
    run = await site.submit(attempt)
    behind = await site.submit(await site.attempt(await site.exercise(), student="grace"))
    await site.edit(attempt, "print(43)")

    again = await site.exec.submit(attempt, ORIGIN)

    assert (again.run, again.new) == (run, False)
    assert (site.board.place(run), site.board.place(behind)) == (1, 2)
    assert dict((await content_of(site, run)).files) == {"main.py": "print(43)"}
    assert isinstance(site.events[-1], RunReplaced)
    lease = await site.lease()
    assert dict((await site.runs.content(lease)).files) == {"main.py": "print(43)"}


async def test_newer_content_while_it_runs_is_one_more_run_and_no_third(
    site: Site, attempt: AttemptId
) -> None:
    running = await site.submit(attempt)
    await site.lease()

    await site.edit(attempt, "print(43)")
    waiting = await site.submit(attempt)
    await site.edit(attempt, "print(44)")
    again = await site.submit(attempt)

    assert again == waiting != running
    assert await site.count("executions") == 2
    assert dict((await content_of(site, waiting)).files) == {"main.py": "print(44)"}
    assert dict((await content_of(site, running)).files) == {"main.py": "print(42)"}


async def test_after_its_end_the_same_content_is_a_new_run(site: Site, attempt: AttemptId) -> None:
    first = await site.submit(attempt)
    await site.runs.finished(await site.lease(), completed())

    second = await site.exec.submit(attempt, ORIGIN)

    assert second.new
    assert second.run != first


async def test_a_newer_grader_is_newer_content(site: Site, attempt: AttemptId) -> None:
    run = await site.submit(attempt)
    before = (await site.row(run)).job.content
    await site.exercise(exercise("grade_max = 7"))

    await site.submit(attempt)

    assert (await site.row(run)).job.content != before


async def test_the_same_id_many_times_at_once_is_one_run(site: Site, attempt: AttemptId) -> None:
    submitted = await asyncio.gather(*(site.exec.submit(attempt, ORIGIN) for _ in range(10)))

    assert len({one.run for one in submitted}) == 1
    assert [one.new for one in submitted].count(True) == 1
    assert await site.count("executions") == 1


# -- frozen ---------------------------------------------------------------------------------------


async def test_what_changes_after_it_was_handed_in_is_not_read(
    site: Site, attempt: AttemptId
) -> None:
    await site.submit(attempt)
    await site.edit(attempt, "print('too late')")
    await site.exercise("print('another grader')")

    content = await site.runs.content(await site.lease())

    assert dict(content.files) == {"main.py": "print(42)"}
    assert content.grader == exercise()


# -- cancelling -----------------------------------------------------------------------------------


async def test_every_run_of_an_attempt_is_cancelled_that_has_not_ended(
    site: Site, attempt: AttemptId
) -> None:
    other = await site.submit(await site.attempt(await site.exercise(), student="grace"))
    running = await site.submit(attempt)
    await site.runs.try_lease(make_offer(), skip=[other])
    await site.edit(attempt, "newer")
    waiting = await site.submit(attempt)

    assert await site.exec.cancel(attempt) == 2

    assert {end.job.id: end.state for end in site.ends()} == {
        running: State.CANCELLED,
        waiting: State.CANCELLED,
    }
    assert [(await site.row(run)).state for run in (running, waiting, other)] == [
        State.CANCELLED,
        State.CANCELLED,
        State.QUEUED,
    ]
    assert await site.results(attempt) == []


async def test_there_is_nothing_to_cancel_after_the_end(site: Site, attempt: AttemptId) -> None:
    await site.submit(attempt)
    await site.runs.finished(await site.lease(), completed())

    assert await site.exec.cancel(attempt) == 0
    assert await site.exec.cancel(AttemptId(99)) == 0
