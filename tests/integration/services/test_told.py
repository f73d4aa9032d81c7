"""Who is told of an end beside its student: in its row, in the same commit, and as it comes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.finals import WEBHOOK, Final, account, backend
from commserver.core.jobs import SWEEP, AttemptId, ContentHash, Origin, OwnerId, Recipient, RunId
from commserver.core.states import State
from commserver.core.verdicts import Judged
from commserver.errors import NotFound, StoreError
from commserver.services.exec_service import FURTHER_LOOKS, LOOK_AGAIN, ExecService
from commserver.services.finals_service import AT_ONCE, PUSHES_DUE, STORE_PAUSE, FinalsService
from tests.fakes import completed, settle
from tests.integration.services.site import ORIGIN, PATIENCE, Site, until

MAIN, OTHER = backend("main"), backend("other")
FILES = {"main.py": "print(42)"}


@pytest.fixture
async def finals(site: Site) -> AsyncIterator[FinalsService]:
    service = FinalsService(site.database, site.daos, site.clock, site.bus)
    running = asyncio.create_task(service.run())
    yield service
    running.cancel()
    await asyncio.wait({running})


@pytest.fixture
async def attempt(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise())


async def owed(finals: FinalsService, recipient: Recipient) -> list[tuple[RunId, State, int]]:
    found = (await finals.owed(recipient, 0)).finals
    return [(final.run, final.state, final.seq) for final in found]


class Follower:
    """Reads a feed, as a link to a backend does."""

    def __init__(self, finals: FinalsService, recipient: Recipient) -> None:
        self.given: list[Final] = []
        self._task = asyncio.create_task(self._follow(finals, recipient))

    async def _follow(self, finals: FinalsService, recipient: Recipient) -> None:
        async with aclosing(finals.feed(recipient)) as feed:
            async for final in feed:
                self.given.append(final)

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.given) >= count

    @property
    def seqs(self) -> list[int]:
        return [final.seq for final in self.given]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        assert self._task.cancelled(), "it ended by itself"


# -- in the row and in the commit -----------------------------------------------------------------


async def test_whoever_asked_is_owed_the_end_by_its_own_number(
    site: Site, finals: FinalsService, attempt: AttemptId
) -> None:
    run = (await site.exec.submit(attempt, ORIGIN, [MAIN])).run
    assert (await site.row(run)).job.tell == (MAIN,)

    await site.runs.finished(await site.lease(), completed(7))

    assert await owed(finals, MAIN) == [(run, State.DONE, 1)]
    assert {notice.recipient for notice in site.ends()[0].notices} == {
        MAIN,
        account(OwnerId(str(await site.admin.account("ada")))),
    }


async def test_it_outlives_the_process(site: Site, attempt: AttemptId) -> None:
    await site.exec.submit(attempt, ORIGIN, [MAIN])

    again = await site.killed()
    async with again.open():
        await again.runs.finished(await again.lease(), completed(7))
        finals = FinalsService(again.database, again.daos, again.clock, again.bus)
        assert [seq for _, _, seq in await owed(finals, MAIN)] == [1]


async def test_whoever_is_told_of_everything_is_told_of_what_nobody_asked_for(
    site: Site, finals: FinalsService, attempt: AttemptId
) -> None:
    execs = ExecService(
        *(site.database, site.daos, site.files, site.dispatcher, site.runs),
        *(site.queue, site.docker, site.clock),
        tell=(WEBHOOK,),
    )
    content = await execs.missed(attempt)
    assert content is not None
    swept = await execs.sweep(attempt, content)
    assert swept is not None

    await site.runs.finished(await site.lease(), completed(7))

    assert await owed(finals, WEBHOOK) == [(swept.run, State.DONE, 1)]


@pytest.mark.parametrize("waits", [True, False])
async def test_whoever_is_told_of_everything_is_told_of_what_was_taken_before(
    site: Site, attempt: AttemptId, waits: bool
) -> None:
    run = await site.submit(attempt)
    if not waits:
        await site.lease()

    again = Site(site.state, site.clock, url=site.url, tell=[WEBHOOK])
    async with again.open():
        await again.runs.finished(await again.lease(), completed(7))
        finals = FinalsService(again.database, again.daos, again.clock, again.bus)
        assert await owed(finals, WEBHOOK) == [(run, State.DONE, 1)]
        assert (await again.row(run)).job.tell == (WEBHOOK,)


async def test_and_of_what_has_ended_before_when_it_is_asked_for_again(
    site: Site, attempt: AttemptId
) -> None:
    content = await site.exec.missed(attempt)
    assert content is not None
    swept = await site.exec.sweep(attempt, content)
    assert swept is not None
    await site.runs.finished(await site.lease(), completed(7))

    again = Site(site.state, site.clock, url=site.url, tell=[WEBHOOK])
    async with again.open():
        assert await again.exec.submit(attempt, ORIGIN) == (swept.run, False)
        finals = FinalsService(again.database, again.daos, again.clock, again.bus)
        assert await owed(finals, WEBHOOK) == [(swept.run, State.DONE, 1)]


async def test_who_asks_again_for_what_waits_or_runs_is_told_too(
    site: Site, finals: FinalsService, attempt: AttemptId
) -> None:
    run = (await site.exec.submit(attempt, ORIGIN, [MAIN])).run
    assert await site.exec.submit(attempt, ORIGIN, [OTHER]) == (run, False)
    lease = await site.lease()
    assert await site.exec.submit(attempt, ORIGIN, [WEBHOOK]) == (run, False)

    await site.runs.finished(lease, completed(7))

    for recipient in (MAIN, OTHER, WEBHOOK):
        assert await owed(finals, recipient) == [(run, State.DONE, 1)]


async def test_a_refusal_is_told_to_whoever_asked(site: Site, finals: FinalsService) -> None:
    empty = await site.attempt(await site.exercise(), {})
    run = (await site.exec.submit(empty, ORIGIN, [MAIN])).run

    assert await owed(finals, MAIN) == [(run, State.FAILED, 1)]


async def test_a_superseded_run_is_told_to_whoever_asked(
    site: Site, finals: FinalsService, attempt: AttemptId
) -> None:
    first = (await site.exec.submit(attempt, ORIGIN, [MAIN])).run
    lease = await site.lease()
    await site.edit(attempt, "print(43)")
    second = (await site.exec.submit(attempt, ORIGIN, [MAIN])).run
    await site.runs.release(lease.id)
    await site.runs.finished(await site.lease(), completed(7))

    assert await owed(finals, MAIN) == [(first, State.SUPERSEDED, 1), (second, State.DONE, 2)]


async def swept(site: Site, attempt: AttemptId) -> RunId:
    content = await site.exec.missed(attempt)
    assert isinstance(content, str)
    taken = await site.exec.sweep(attempt, ContentHash(content))
    assert taken is not None
    return taken.run


async def test_who_asks_for_a_swept_run_that_has_ended_is_owed_its_end_at_once(
    site: Site, finals: FinalsService, attempt: AttemptId
) -> None:
    run = await swept(site, attempt)
    await site.runs.finished(await site.lease(), completed(7))
    follower = Follower(finals, MAIN)
    await settle()
    assert (await site.row(run)).job.origin.gateway == SWEEP

    assert await site.exec.submit(attempt, ORIGIN, [MAIN]) == (run, False)

    await until(follower.has(1))
    [final] = follower.given
    assert (final.run, final.seq) == (run, 1)
    assert isinstance(final.ending, Judged)
    assert (await site.row(run)).job.tell == (MAIN,)
    await follower.stop()


async def test_a_run_that_ends_while_it_is_asked_for_is_told_once(
    site: Site, finals: FinalsService, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its row and the claim: the board has let go of it by then."""
    run = (await site.exec.submit(attempt, ORIGIN, [MAIN])).run
    lease = await site.lease()
    ask = site.dispatcher.ask

    async def late(run: RunId, origin: Origin, tell: tuple[Recipient, ...]) -> bool:
        await site.runs.finished(lease, completed(7))
        return await ask(run, origin, tell)

    monkeypatch.setattr(site.dispatcher, "ask", late)

    assert await site.exec.submit(attempt, ORIGIN, [MAIN, OTHER]) == (run, False)

    assert await owed(finals, MAIN) == [(run, State.DONE, 1)]
    assert await owed(finals, OTHER) == [(run, State.DONE, 1)]


# -- looked for again -----------------------------------------------------------------------------


async def looked(site: Site, pause: float) -> None:
    """Let a pause between two looks be over."""
    await until(lambda: site.clock.alarms)
    site.clock.advance(pause)
    await settle()


async def test_an_attempt_that_is_committed_late_is_taken(site: Site) -> None:
    exercise = await site.exercise()
    asking = asyncio.create_task(site.exec.submit(AttemptId(1), ORIGIN, patient=True))
    await looked(site, LOOK_AGAIN[0])
    await looked(site, LOOK_AGAIN[1])
    assert await site.attempt(exercise) == 1

    await looked(site, LOOK_AGAIN[2])

    async with asyncio.timeout(PATIENCE):
        assert (await asking).new


async def test_files_that_are_committed_late_are_taken(site: Site) -> None:
    attempt = await site.attempt(await site.exercise(), {})
    asking = asyncio.create_task(site.exec.submit(attempt, ORIGIN, patient=True))
    await until(lambda: site.clock.alarms)
    await site.edit(attempt, "print(42)")

    await looked(site, LOOK_AGAIN[0])

    async with asyncio.timeout(PATIENCE):
        run = (await asking).run
    assert site.board.place(run) == 1


async def test_what_is_not_there_after_0_1_0_3_1_and_3_seconds_is_not_found(site: Site) -> None:
    began = site.clock.now()
    asking = asyncio.create_task(site.exec.submit(AttemptId(1), ORIGIN, patient=True))
    for pause in (0.1, 0.3, 1.0, 3.0):
        assert not asking.done()
        await looked(site, pause)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(NotFound):
            await asking
    assert site.clock.now() - began == pytest.approx(4.4)


async def test_others_are_taken_while_one_is_looked_for(site: Site, attempt: AttemptId) -> None:
    asking = asyncio.create_task(site.exec.submit(AttemptId(99), ORIGIN, patient=True))
    await until(lambda: site.clock.alarms)

    assert (await site.exec.submit(attempt, ORIGIN, patient=True)).new

    asking.cancel()
    await asyncio.wait({asking})


async def test_however_many_are_looked_for_few_look_at_the_same_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a flood of ids that nobody has does not crowd out those that somebody has."""
    read, looking, most = site.database.read, 0, 0

    async def counted(work: Callable[[AsyncConnection], Awaitable[object]]) -> object:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        try:
            return await read(work)
        finally:
            looking -= 1

    asking = [
        asyncio.create_task(site.exec.submit(AttemptId(99 + id), ORIGIN, patient=True))
        for id in range(20)
    ]
    await until(lambda: len(site.clock.alarms) == 20)
    monkeypatch.setattr(site.database, "read", counted)

    await looked(site, LOOK_AGAIN[0])
    await until(lambda: len(site.clock.alarms) == 20)

    assert most == FURTHER_LOOKS
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)


async def test_without_patience_it_is_not_found_at_once(site: Site) -> None:
    with pytest.raises(NotFound):
        await site.exec.submit(AttemptId(1), ORIGIN)


# -- followed -------------------------------------------------------------------------------------


async def graded(site: Site, exercise: int, count: int) -> None:
    """Hand so many attempts in for MAIN, and have them judged."""
    for _ in range(count):
        attempt = await site.attempt(exercise)
        await site.exec.submit(attempt, ORIGIN, [MAIN])
        await site.runs.finished(await site.lease(), completed(7))


async def test_a_feed_gives_what_is_owed_then_what_comes_each_once_in_order(
    site: Site, finals: FinalsService
) -> None:
    exercise = await site.exercise()
    await graded(site, exercise, 2)
    follower = Follower(finals, MAIN)
    await until(follower.has(2))

    await graded(site, exercise, 2)

    await until(follower.has(4))
    assert follower.seqs == [1, 2, 3, 4]
    await follower.stop()


async def test_a_feed_gives_more_than_is_read_at_once(site: Site, finals: FinalsService) -> None:
    await graded(site, await site.exercise(), 1)
    run = site.ends()[0].job.id

    async def more(connection: AsyncConnection) -> None:
        for _ in range(AT_ONCE + 1):
            await site.daos.notices.add(connection, MAIN, run, site.clock.utc())

    await site.database.write(more)
    follower = Follower(finals, MAIN)

    await until(follower.has(AT_ONCE + 2))

    assert follower.seqs == list(range(1, AT_ONCE + 3))
    await follower.stop()


async def test_what_is_acknowledged_is_not_given_to_the_next_feed(
    site: Site, finals: FinalsService
) -> None:
    await graded(site, await site.exercise(), 3)
    await finals.acknowledge(MAIN, 2)

    follower = Follower(finals, MAIN)

    await until(follower.has(1))
    assert follower.seqs == [3]
    await follower.stop()


async def test_a_feed_waits_for_a_database_that_is_away(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await graded(site, await site.exercise(), 1)

    async def away(*_: object) -> None:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(site.database, "read", away)
        follower = Follower(finals, MAIN)
        await until(lambda: site.clock.alarms)
    site.clock.advance(STORE_PAUSE)

    await until(follower.has(1))
    await follower.stop()


# -- when it left ---------------------------------------------------------------------------------


async def left(site: Site) -> list[object]:
    query = "SELECT pushed_at FROM notices WHERE recipient = :main ORDER BY seq"
    return [moment for (moment,) in await site.sql(query, main=MAIN)]


async def test_the_moment_at_which_a_final_first_left_is_noted_with_the_next_receipt(
    site: Site, finals: FinalsService
) -> None:
    await graded(site, await site.exercise(), 2)
    finals.pushed(MAIN, 1)
    await settle()
    assert await left(site) == [None, None]

    await finals.acknowledge(account(OwnerId("1")), 1)

    first, second = await left(site)
    assert first is not None
    assert second is None
    site.clock.advance(60.0)
    finals.pushed(MAIN, 2)
    await finals.acknowledge(account(OwnerId("1")), 1)
    again, later = await left(site)
    assert again == first
    assert later not in (None, first)


async def test_or_soon_after_without_one(site: Site, finals: FinalsService) -> None:
    await graded(site, await site.exercise(), 1)

    finals.pushed(MAIN, 1)
    await until(lambda: site.clock.alarms)
    site.clock.advance(PUSHES_DUE)

    async with asyncio.timeout(PATIENCE):
        while await left(site) == [None]:
            await settle()


# -- who had it -----------------------------------------------------------------------------------


async def test_who_had_a_run_and_from_when_is_in_its_row(site: Site, attempt: AttemptId) -> None:
    run = await site.submit(attempt)
    leased_at = site.clock.utc()
    lease = await site.lease()
    site.clock.advance(5.0)
    await site.runs.finished(lease, completed(7))

    row = await site.row(run)
    assert (row.runner, row.engine, row.leased_at) == ("slot", "engine", leased_at)
