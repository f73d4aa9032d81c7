"""What a process that was killed leaves, and what the next one makes of it."""

from pathlib import Path

from commserver.config import Docker
from commserver.core.jobs import AttemptId, RunId
from commserver.core.states import State
from tests.fake_sandbox import FakeSandbox, says
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.services.site import Site, until


async def hand_in(site: Site, count: int) -> list[tuple[AttemptId, RunId]]:
    """Hand in the work of so many students."""
    number = await site.exercise()
    attempts = [await site.attempt(number, student=f"student-{n}") for n in range(count)]
    return [(attempt, await site.submit(attempt)) for attempt in attempts]


async def test_what_waited_and_what_ran_comes_back_in_order_and_ends_once(
    state: Path, url: str, clock: FakeClock
) -> None:
    engine = FakeSandbox()
    engine.otherwise = says("41")
    two_slots = Docker(slots=2)
    async with (
        Site(state, clock, url=url, docker=two_slots).open() as killed,
        killed.working(engine),
    ):
        [done] = await hand_in(killed, 1)
        await until(killed.ends)
        engine.hang()
        unfinished = await hand_in(killed, 5)
        await until(lambda: engine.running == 2)
        again = await killed.killed()

    async with again.open() as site, site.working(FakeSandbox()):
        await until(lambda: len(site.ends()) == len(unfinished))

        assert [end.job.id for end in site.ends()] == [run for _, run in unfinished]
        for attempt, run in unfinished:
            assert (await site.row(run)).state is State.DONE
            assert [grade for grade, _ in await site.results(attempt)] == [20]
        assert [grade for grade, _ in await site.results(done[0])] == [0]


async def test_a_verdict_that_was_stored_is_not_made_again(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as killed:
        [(attempt, run)] = await hand_in(killed, 1)
        await killed.runs.finished(await killed.lease(), completed(7))
        again = await killed.killed()

    async with again.open() as site:
        assert len(site.board) == 0
        assert (await site.row(run)).state is State.DONE
        assert [grade for grade, _ in await site.results(attempt)] == [7]


async def test_two_runs_of_an_attempt_become_the_newer_one(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as killed:
        [(attempt, older), (_, other)] = await hand_in(killed, 2)
        await killed.runs.started((await killed.lease()).id)
        await killed.edit(attempt, "print('newer')")
        newer = await killed.submit(attempt)
        again = await killed.killed()

    async with again.open() as site:
        assert len(site.orphans) == 1
        assert (await site.row(older)).state is State.SUPERSEDED
        assert (site.board.place(newer), site.board.place(other)) == (1, 2)
        content = await site.runs.content(await site.lease())
        assert dict(content.files) == {"main.py": "print('newer')"}


async def test_a_second_kill_changes_nothing(state: Path, url: str, clock: FakeClock) -> None:
    async with Site(state, clock, url=url).open() as killed:
        [(attempt, older), (_, other)] = await hand_in(killed, 2)
        await killed.lease()
        await killed.edit(attempt, "print('newer')")
        newer = await killed.submit(attempt)
        again = await killed.killed()
    async with again.open() as killed_too:
        await killed_too.lease()
        and_again = await killed_too.killed()

    async with and_again.open() as site:
        assert site.orphans == []
        assert (site.board.place(newer), site.board.place(other)) == (1, 2)
        assert (await site.row(older)).state is State.SUPERSEDED
        assert await site.count("executions") == 3


async def test_the_same_id_again_after_a_restart_is_the_run_that_waits(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as killed:
        [(attempt, run)] = await hand_in(killed, 1)
        await killed.lease()
        again = await killed.killed()

    async with again.open() as site:
        assert await site.submit(attempt) == run
        assert await site.count("executions") == 1


async def test_what_another_machine_had_is_lost_if_it_says_nothing(
    state: Path, url: str, clock: FakeClock
) -> None:
    async with Site(state, clock, url=url).open() as killed:
        [(_, run)] = await hand_in(killed, 1)
        await killed.lease(make_offer("node", engine="node", remote=True))
        again = await killed.killed()

    engine = FakeSandbox()
    async with again.open() as site, site.working(engine):
        await until(lambda: engine.swept)
        assert site.board.state(run) is State.LEASED
        clock.advance(60.0)
        await until(lambda: site.board.state(run) is State.QUEUED)
        clock.advance(1.0)
        await until(lambda: site.ends())

        row = await site.row(run)
        assert (row.state, row.tries) == (State.DONE, 1)
        assert await site.count("leases") == 0
