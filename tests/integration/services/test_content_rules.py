"""The same id again: each rule of the blueprint's "Content", on every database.

What a board makes of two submissions is tested in `tests/unit/core/test_board_attempts.py`; here
they come through the door and must be in the rows, also when a commit fails or the process dies.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from commserver.core.changes import Change, Conflict
from commserver.core.events import RunReplaced
from commserver.core.finals import Notice
from commserver.core.jobs import AttemptId, ContentHash, Offer, RunId
from commserver.core.states import State
from commserver.errors import StoreError
from commserver.graders.content import Content
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, broken, completed, make_offer, settle
from tests.integration.services.site import ORIGIN, Site, until

NODE = make_offer("node", engine="node", remote=True)
WHOEVER = pytest.mark.parametrize("offer", [make_offer(), NODE], ids=["slot", "node"])
FIRST, SECOND, THIRD = "print(1)", "print(2)", "print(3)"


@pytest.fixture
async def attempt(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise(), {"main.py": FIRST})


async def other(site: Site, student: str = "grace") -> RunId:
    """Hand in somebody else's work; returns its run."""
    return await site.submit(await site.attempt(await site.exercise(), student=student))


async def again(site: Site, attempt: AttemptId, source: str) -> RunId:
    """Hand in a newer file; returns the run that stands for it."""
    await site.edit(attempt, source)
    return await site.submit(attempt)


async def source(site: Site, run: RunId) -> str:
    """Return what a run will judge, as its row says."""
    content = Content.decode(await site.files.get((await site.row(run)).job.content))
    return dict(content.files)["main.py"]


async def states(site: Site, *runs: RunId) -> list[State]:
    return [(await site.row(run)).state for run in runs]


def done(site: Site) -> list[RunId]:
    """Return what was judged, in order."""
    return [end.job.id for end in site.ends() if end.state is State.DONE]


# -- waiting, running, ended ----------------------------------------------------------------------


async def test_same_content_waiting_is_nothing_new(site: Site, attempt: AttemptId) -> None:
    run = await site.submit(attempt)
    before = await site.row(run)

    assert (await site.exec.submit(attempt, ORIGIN)) == (run, False)
    assert await again(site, attempt, FIRST) == run, "another row, and nothing else"

    assert await site.row(run) == before
    assert await site.count("executions") == 1


@WHOEVER
async def test_same_content_running_is_nothing_new(
    site: Site, attempt: AttemptId, offer: Offer
) -> None:
    run = await site.submit(attempt)
    await site.runs.started((await site.lease(offer)).id)
    before = await site.row(run)

    assert (await site.exec.submit(attempt, ORIGIN)) == (run, False)

    assert await site.row(run) == before
    assert await site.count("executions") == 1


async def test_changed_and_waiting_keeps_place_and_id(site: Site, attempt: AttemptId) -> None:
    run = await site.submit(attempt)
    behind = await other(site)
    before = await site.row(run)

    assert await again(site, attempt, SECOND) == run

    row = await site.row(run)
    assert (row.key, row.state) == (before.key, State.QUEUED)
    assert await source(site, run) == SECOND
    assert (site.board.place(run), site.board.place(behind)) == (1, 2)
    assert await site.count("executions") == 2


@WHOEVER
async def test_changed_and_running_is_one_more_run_and_at_most_one(
    site: Site, attempt: AttemptId, offer: Offer
) -> None:
    running = await site.submit(attempt)
    await site.lease(offer)

    waiting = await again(site, attempt, SECOND)
    assert await again(site, attempt, THIRD) == waiting

    assert running != waiting
    assert await source(site, running) == FIRST
    assert await source(site, waiting) == THIRD
    assert await site.count("executions") == 2


async def test_the_second_run_waits_for_the_end_of_the_first(
    site: Site, attempt: AttemptId
) -> None:
    await site.submit(attempt)
    first = await site.lease()
    waiting = await again(site, attempt, SECOND)
    assert await site.runs.try_lease(make_offer("idle")) == []

    await site.runs.finished(first, completed(1))

    second = await site.lease()
    assert second.job.id == waiting
    await site.runs.finished(second, completed(2))
    assert [grade for grade, _ in await site.results(attempt)] == [1, 1, 2, 2], "2 grades, 2 logs"
    assert [end.job.id for end in site.ends()] == [first.job.id, waiting]


@pytest.mark.parametrize("how", ["done", "failed", "cancelled"])
async def test_ended_is_a_new_run_with_the_same_content(
    site: Site, attempt: AttemptId, how: str
) -> None:
    run = await site.submit(attempt)
    match how:
        case "done":
            await site.runs.finished(await site.lease(), completed())
        case "failed":
            for _ in range(3):
                site.clock.advance(5.0)
                await site.runs.finished(await site.lease(), broken())
        case _:
            await site.exec.cancel(attempt)
    assert (await site.row(run)).state == how

    submitted = await site.exec.submit(attempt, ORIGIN)

    assert submitted.new
    assert await states(site, submitted.run) == [State.QUEUED]
    assert (await site.row(submitted.run)).job.content == (await site.row(run)).job.content


# -- the way back ---------------------------------------------------------------------------------


@WHOEVER
@pytest.mark.parametrize("how", ["released", "broken"])
async def test_a_run_that_goes_back_gives_its_earlier_place_to_the_newer(
    site: Site, attempt: AttemptId, offer: Offer, how: str
) -> None:
    older = await site.submit(attempt)
    lease = await site.lease(offer)
    ahead = await other(site)
    newer = await again(site, attempt, SECOND)
    assert [site.board.place(run) for run in (ahead, newer)] == [1, 2]

    if how == "released":
        await site.runs.release(lease.id)
    else:
        await site.runs.finished(lease, broken())

    assert await states(site, older, newer) == [State.SUPERSEDED, State.QUEUED]
    assert [site.board.place(run) for run in (newer, ahead)] == [1, 2]
    [end] = site.ends()
    assert (end.job.id, end.notices) == (older, ()), "nobody is told of it"
    assert (await site.lease()).job.id == newer


# -- kill -9 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kills", [1, 2])
async def test_killed_with_one_running_and_its_successor_waiting(
    state: Path, url: str, clock: FakeClock, begun: bool, kills: int
) -> None:
    """The rows say running and queued: no unique index may stand in the way of the next start."""
    async with Site(state, clock, url=url).open() as site:
        attempt = await site.attempt(await site.exercise(), {"main.py": FIRST})
        older = await site.submit(attempt)
        lease = await site.lease()
        if begun:
            await site.runs.started(lease.id)
        ahead = await other(site)
        newer = await again(site, attempt, SECOND)
        assert await states(site, older, newer, ahead) == [State.RUNNING, *[State.QUEUED] * 2]
    # Nothing of it was told to end: to the rows this is a kill.

    for _ in range(kills - 1):
        async with Site(state, clock, url=url).open() as site:
            assert (await site.lease()).job.id == newer

    async with Site(state, clock, url=url).open() as site, site.working(FakeSandbox()):
        assert (await site.row(older)).state is State.SUPERSEDED
        await until(lambda: len(done(site)) == 2)

        assert done(site) == [newer, ahead], "it took the earlier place"
        assert await states(site, older, newer) == [State.SUPERSEDED, State.DONE]
        assert len(await site.results(attempt)) == 1
        finals = await site.sql("SELECT execution_id FROM notices ORDER BY recipient, seq")
        assert sorted(finals) == sorted([(newer,), (ahead,)]), "exactly one final each"


async def test_killed_with_a_node_running_and_its_successor_waiting(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as site:
        attempt = await site.attempt(await site.exercise(), {"main.py": FIRST})
        older = await site.submit(attempt)
        await site.runs.started((await site.lease(NODE)).id)
        newer = await again(site, attempt, SECOND)

    async with Site(state, clock, url=url).open() as site, site.working(FakeSandbox()):
        await settle()
        assert await states(site, older, newer) == [State.RUNNING, State.QUEUED], "it may be back"
        clock.advance(60.0)
        await until(lambda: done(site) == [newer])

        assert await states(site, older, newer) == [State.SUPERSEDED, State.DONE]
        assert len(await site.results(attempt)) == 1


# -- commits --------------------------------------------------------------------------------------


class Gate:
    """Lets the commits of a site wait, each until its own turn, or fail."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived: list[RunId] = []
        self._turns: dict[RunId, asyncio.Event] = {}
        self._failing = 0
        self._commit = site.ledger.commit
        monkeypatch.setattr(site.ledger, "commit", self.commit)

    async def commit(self, change: Change) -> Sequence[Notice] | Conflict:
        if self._failing:
            self._failing -= 1
            raise StoreError("the disk is full")
        self.arrived.append(change.run)
        await self.turn(change.run).wait()
        return await self._commit(change)

    def turn(self, run: RunId) -> asyncio.Event:
        return self._turns.setdefault(run, asyncio.Event())

    def fail(self) -> None:
        """Let the next one fail."""
        self._failing += 1


async def test_commits_that_end_in_the_other_order_change_no_place(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await site.exercise()
    attempts = [await site.attempt(number, student=student) for student in ("ada", "grace")]
    gate = Gate(site, monkeypatch)
    earlier = asyncio.create_task(site.submit(attempts[0]))
    await until(lambda: len(gate.arrived) == 1)
    later = asyncio.create_task(site.submit(attempts[1]))
    await until(lambda: len(gate.arrived) == 2)
    first, second = gate.arrived

    gate.turn(second).set()
    assert await later == second
    assert site.board.place(second) == 1
    gate.turn(first).set()
    assert await earlier == first

    assert [site.board.place(run) for run in (first, second)] == [1, 2]
    assert (await site.row(first)).key < (await site.row(second)).key
    async with Site(site.state, site.clock, url=site.url).open() as restarted:
        assert [restarted.board.place(run) for run in (first, second)] == [1, 2]


async def test_of_two_submissions_in_flight_the_newer_content_is_run_last(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one was read first and may be stored last: it must not take the newer's place."""
    put, held = site.files.put, asyncio.Event()

    async def slow(content: bytes) -> ContentHash:
        if FIRST.encode() in content:
            await held.wait()
        return await put(content)

    monkeypatch.setattr(site.files, "put", slow)
    older = asyncio.create_task(site.submit(attempt))
    await settle(200)
    await site.edit(attempt, SECOND)
    newer = asyncio.create_task(site.submit(attempt))
    await settle(200)
    held.set()

    run = await older
    assert await newer == run
    assert await source(site, run) == SECOND


async def test_submissions_of_other_attempts_do_not_wait(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(site, monkeypatch)
    stuck = asyncio.create_task(site.submit(attempt))
    await until(lambda: gate.arrived)
    passing = asyncio.create_task(other(site))
    await until(lambda: len(gate.arrived) == 2)

    gate.turn(gate.arrived[1]).set()

    assert await passing == gate.arrived[1]
    assert not stuck.done()
    gate.turn(gate.arrived[0]).set()
    await stuck


async def test_nothing_is_remembered_of_submissions_that_were_taken(
    site: Site, attempt: AttemptId
) -> None:
    await asyncio.gather(*(site.submit(attempt) for _ in range(5)))

    assert site.exec._turns == {}, "memory is not to be seen from outside"


async def test_content_whose_replacement_could_not_be_stored_stays(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await site.submit(attempt)
    behind = await other(site)
    before = await site.row(run)
    gate = Gate(site, monkeypatch)
    gate.fail()

    with pytest.raises(StoreError):
        await again(site, attempt, SECOND)

    assert await site.row(run) == before
    job = site.board.job(run)
    assert job == before.job
    assert not [event for event in site.events if isinstance(event, RunReplaced)]
    assert (site.board.place(run), site.board.place(behind)) == (1, 2)

    gate.turn(run).set()
    assert await site.submit(attempt) == run, "asked again, it is taken"
    assert await source(site, run) == SECOND


async def test_a_second_run_that_could_not_be_stored_is_not_there(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await site.submit(attempt)
    lease = await site.lease()
    gate = Gate(site, monkeypatch)
    gate.fail()

    with pytest.raises(StoreError):
        await again(site, attempt, SECOND)

    assert await states(site, run) == [State.QUEUED], "in a slot of ours: it waits for a restart"
    assert await site.count("executions") == 1
    gate.turn(run).set()
    await site.runs.finished(lease, completed())
    assert len(site.board) == 0


async def test_content_that_is_replaced_while_it_is_leased_waits_behind_it(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await site.submit(attempt)
    gate = Gate(site, monkeypatch)
    leasing = asyncio.create_task(site.lease(NODE))
    await until(lambda: gate.arrived == [run])
    replacing = asyncio.create_task(again(site, attempt, SECOND))
    await settle(200)
    assert not replacing.done()

    gate.turn(run).set()
    lease = await leasing
    await until(lambda: len(gate.arrived) == 2)
    gate.turn(gate.arrived[1]).set()

    assert await replacing == gate.arrived[1] != run
    assert dict((await site.runs.content(lease)).files) == {"main.py": FIRST}
