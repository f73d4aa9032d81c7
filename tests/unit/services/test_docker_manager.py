"""Our own slots: what becomes of a run whatever its engine does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver.core.events import RunEnded, RunLeased
from commserver.core.execution import (
    Broken,
    Cause,
    Completed,
    ExecutionReport,
    ExecutionRequest,
    Failure,
    Fault,
    Status,
)
from commserver.core.jobs import Requirement, RunId
from commserver.core.states import State
from commserver.errors import ImageMissing, SandboxError, SandboxLost, SandboxUnavailable
from commserver.services.docker_manager import RECORD_LEASE, RECORD_PAUSES
from tests.fake_sandbox import FakeSandbox, says
from tests.fakes import JAVA, make_job, settle
from tests.unit.graders.toml import exercise
from tests.unit.services.shop import RIGHT, Shop, until


@pytest.fixture
def engine() -> FakeSandbox:
    return FakeSandbox()


@pytest.fixture
async def shop(tmp_path: Path, engine: FakeSandbox) -> AsyncIterator[Shop]:
    """One engine with one slot."""
    async with Shop(tmp_path, engine).open() as shop:
        yield shop


def failure_of(end: RunEnded) -> Failure:
    """Return why a run could not be graded."""
    assert isinstance(end.outcome, Broken)
    return end.outcome.failure


# -- what becomes of a run ------------------------------------------------------------------------


async def test_a_report_becomes_a_verdict(shop: Shop, engine: FakeSandbox) -> None:
    await shop.submit("a")

    end = await shop.end_of("a")

    assert end.state is State.DONE
    assert isinstance(end.outcome, Completed)
    assert (end.outcome.verdict.status, end.outcome.verdict.grade) == (Status.ACCEPTED, 20)
    assert end.outcome.report == says("42")(engine.begun[0].request)


async def test_a_wrong_program_is_a_verdict_as_well(shop: Shop, engine: FakeSandbox) -> None:
    engine.otherwise = says("41")
    await shop.submit("a")

    end = await shop.end_of("a")

    assert isinstance(end.outcome, Completed)
    assert (end.outcome.verdict.status, end.outcome.verdict.grade) == (Status.WRONG_ANSWER, 0)


async def test_files_that_cannot_be_started_get_their_verdict_without_a_container(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a", replace(RIGHT, files=(("../main.py", ""),)))

    end = await shop.end_of("a")

    assert isinstance(end.outcome, Completed)
    assert end.outcome.verdict.status is Status.COMPILE_ERROR
    assert engine.begun == []


async def test_a_wrong_exercise_is_the_teachers_fault_and_not_tried_again(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a", replace(RIGHT, grader=exercise("limits = { cpu = 1 }")))

    end = await shop.end_of("a")

    assert end.state is State.FAILED
    assert failure_of(end).cause is Cause.EXERCISE
    assert failure_of(end).fault is Fault.TEACHER
    assert "limits.cpu" in failure_of(end).message
    assert (engine.begun, shop.tries("a")) == ([], 1)


async def test_a_missing_image_is_not_tried_again(shop: Shop, engine: FakeSandbox) -> None:
    engine.scripts.append(ImageMissing("commserver/python:latest"))
    await shop.submit("a")

    end = await shop.end_of("a")

    assert failure_of(end) == Failure(
        Cause.IMAGE, "no image commserver/python:latest on this engine"
    )
    assert len(engine.begun) == 1


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (SandboxError("it refused"), Failure(Cause.CONTAINER, "it refused")),
        (SandboxLost("it went away", "c1"), Failure(Cause.CONTAINER, "it went away", "c1")),
        (RuntimeError("the secret of a bug"), Failure(Cause.INTERNAL, "internal error")),
    ],
)
async def test_what_goes_wrong_is_tried_again_and_at_last_told(
    shop: Shop, engine: FakeSandbox, error: Exception, failure: Failure
) -> None:
    engine.otherwise = error
    await shop.submit("a")

    for tries, rest in ((1, 1.0), (2, 5.0)):
        await shop.counted("a", tries)
        assert len(engine.begun) == tries
        await shop.pass_time(rest - 0.1)
        assert len(engine.begun) == tries, "too early"
        await shop.pass_time(0.2)
    end = await shop.end_of("a")

    assert end.state is State.FAILED
    assert failure_of(end) == failure
    assert failure_of(end).fault is Fault.SYSTEM
    assert len(engine.begun) == 3


async def test_one_broken_try_costs_nothing(shop: Shop, engine: FakeSandbox) -> None:
    engine.scripts.append(SandboxError("once"))
    await shop.submit("a")

    await shop.counted("a", 1)
    await shop.pass_time(1.0)
    end = await shop.end_of("a")

    assert isinstance(end.outcome, Completed)
    assert end.outcome.verdict.grade == 20


async def test_a_bug_in_judging_stops_neither_slot_nor_queue(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.scripts.append(lambda request: ExecutionReport(None, ()))

    with capture_logs() as logs:
        await shop.submit("a")
        await shop.submit("b")
        await shop.end_of("b")

    assert (shop.tries("a"), "a" in shop.ended) == (1, False)
    assert [line["log_level"] for line in logs if line["event"] == "try_failed"] == ["error"]


def lose(folder: Path, name: str) -> None:
    """Remove a file from a store."""
    next(folder.rglob(name)).unlink()


def spoil(folder: Path, name: str) -> None:
    """Let a file in a store be another than its name says."""
    next(folder.rglob(name)).write_bytes(b"rubbish")


@pytest.mark.parametrize("damage", [lose, spoil])
async def test_a_content_that_cannot_be_had_is_our_fault(
    shop: Shop, tmp_path: Path, engine: FakeSandbox, damage: Callable[[Path, str], None]
) -> None:
    engine.hang()
    await shop.submit("other")
    await until(lambda: engine.begun)
    job = await shop.submit("a", replace(RIGHT, grade_max=7))
    damage(tmp_path, job.content)
    engine.resume()
    await shop.counted("a", 1)

    assert [execution.run for execution in engine.begun] == ["other"]


async def test_progress_is_told(shop: Shop) -> None:
    await shop.submit("a")
    await shop.end_of("a")

    assert shop.progressed == ["run 1/1"]


# -- engines that go away -------------------------------------------------------------------------


async def test_a_try_that_was_not_begun_costs_nothing(shop: Shop, engine: FakeSandbox) -> None:
    engine.down = True  # and nobody has noticed
    await shop.submit("a")

    await until(lambda: shop.back == ["a"])

    assert engine.begun == []
    assert shop.tries("a") == 0
    assert shop.board.place(RunId("a")) == 1


NOBODY_HAS = (Requirement("image", "=", ("cobol",)),)


async def test_an_engine_that_is_down_gets_no_runs_until_a_probe_finds_it_up(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.down = True
    await shop.submit("a")
    await until(lambda: shop.back == ["a"])
    await settle()

    await shop.pass_time(4.9)
    await shop.submit("b")
    engine.down = False
    await settle()
    assert (shop.board.runners, shop.leased) == (0, ["a"])
    assert shop.runs.could_run(NOBODY_HAS), "it may be back with anything"

    await shop.pass_time(0.1)
    await shop.end_of("a")
    await shop.end_of("b")
    assert shop.board.runners == 1
    assert not shop.runs.could_run(NOBODY_HAS)


async def test_a_silent_engine_is_asked_at_once_whether_it_is_there(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.scripts.append(SandboxUnavailable("hiccup"))

    await shop.submit("a")
    await until(lambda: shop.board.runners == 1 and shop.tries("a") == 1)
    await shop.pass_time(1.0)

    assert isinstance((await shop.end_of("a")).outcome, Completed)


async def test_what_an_engine_that_answers_will_not_do_fails_in_the_end(
    shop: Shop, engine: FakeSandbox
) -> None:
    """Otherwise it would be leased and given back for ever."""
    engine.otherwise = SandboxUnavailable("will not")
    await shop.submit("a")
    for tries, rest in ((1, 1.0), (2, 5.0)):
        await until(lambda tries=tries: shop.tries("a") == tries)  # type: ignore[misc]  # a lambda
        await settle()
        await shop.pass_time(rest)

    end = await shop.end_of("a")

    assert end.outcome == Broken(Failure(Cause.CONTAINER, "will not"))


async def test_a_run_that_is_cancelled_as_it_is_leased_gets_no_container(
    shop: Shop, engine: FakeSandbox
) -> None:
    cancelling: list[asyncio.Task[bool]] = []

    def cancel(event: object) -> None:
        cancelling.append(asyncio.create_task(shop.dispatcher.cancel(RunId("a"))))

    shop.bus.subscribe(cancel, RunLeased)

    await shop.submit("a")
    await shop.end_of("a")
    await settle()

    assert [await task for task in cancelling] == [True]
    assert engine.begun == []


async def test_an_engine_in_doubt_gets_no_runs_until_it_has_answered(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.scripts.append(SandboxUnavailable("hiccup"))
    engine.answers.clear()
    await shop.submit("a")
    await until(lambda: engine.probed > 1)
    await shop.submit("b")
    await settle()
    assert shop.leased == ["a"]

    engine.answers.set()
    await shop.end_of("b")


async def test_idle_slots_of_an_engine_found_down_take_nothing(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    """They have been waiting since it was up."""
    other = FakeSandbox("other")
    async with Shop(tmp_path, engine, other, slots=2).open() as shop:
        engine.down = True
        await shop.pass_time(5.0)

        runs = [f"run-{number}" for number in range(6)]
        for run in runs:
            await shop.submit(run)
        for run in runs:
            await shop.end_of(run)

        assert shop.back == []
        assert sorted(execution.run for execution in other.begun) == runs


async def test_idle_slots_learn_of_images_that_are_built_later(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.images = frozenset()
    await shop.pass_time(5.0)
    await shop.submit("a")
    await settle()
    assert shop.leased == []

    engine.images = frozenset({"python"})
    await shop.pass_time(5.0)

    assert (await shop.end_of("a")).state is State.DONE


async def test_idle_slots_do_not_take_what_their_engine_has_lost(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.images = frozenset({"java"})
    await shop.pass_time(5.0)
    await shop.submit("a")
    await shop.submit("b", requires=JAVA)

    await shop.end_of("b")

    assert shop.leased == ["b"]


@pytest.mark.parametrize("down_at_first", [True, False])
async def test_an_engine_that_is_not_there_is_logged_once(
    tmp_path: Path, engine: FakeSandbox, down_at_first: bool
) -> None:
    engine.down = down_at_first
    with capture_logs() as logs:
        async with Shop(tmp_path, engine).open() as shop:
            await settle()
            engine.down = True
            for _ in range(3):
                await shop.pass_time(5.0)
                await settle()
            engine.down = False
            await shop.pass_time(5.0)
            await settle()
            told = [line["log_level"] for line in logs if line["event"] == "engine_down"]
            assert told == ["error"]

            engine.down = True
            await shop.pass_time(5.0)
            await settle()

    assert len([line for line in logs if line["event"] == "engine_down"]) == 2


async def test_an_engine_without_images_says_what_to_do(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with Shop(tmp_path, FakeSandbox(images=())).open():
            pass

    [line] = [line for line in logs if line["event"] == "no_images"]
    assert line["advice"] == "run: commserver images build"


async def test_an_engine_that_dies_under_a_run_makes_it_suspect(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.scripts.append(SandboxLost("gone", "c1", engine_down=True))
    probed = engine.probed
    await shop.submit("a")

    await shop.counted("a", 1)
    await settle()

    assert shop.ledger.rows[RunId("a")].deaths == 1
    assert engine.probed == probed + 1


async def test_a_container_that_is_lost_alone_is_nobodys_suspect(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.scripts.append(SandboxLost("gone", "c1"))
    await shop.submit("a")

    await shop.counted("a", 1)

    assert shop.ledger.rows[RunId("a")].deaths == 0


async def test_every_slot_of_every_engine_has_its_own_number(tmp_path: Path) -> None:
    engines = FakeSandbox("one"), FakeSandbox("two")
    async with Shop(tmp_path, *engines, slots=2).open() as shop:
        for engine in engines:
            engine.hang()
        for number in range(5):
            await shop.submit(str(number))
        await until(lambda: all(engine.running == 2 for engine in engines))

        slots = [execution.slot for engine in engines for execution in engine.begun]

        assert sorted(slots) == [0, 1, 2, 3]


# -- leases that end ------------------------------------------------------------------------------


async def test_cancelling_a_run_stops_its_execution_and_frees_the_slot(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.hang()
    await shop.submit("a")
    await until(lambda: engine.running)

    await shop.dispatcher.cancel(RunId("a"))
    await until(lambda: engine.cancelled == ["a"])
    engine.resume()
    await shop.submit("b")
    await shop.end_of("b")

    assert shop.ended["a"].state is State.CANCELLED
    assert shop.back == []


async def test_a_lease_that_runs_out_stops_its_execution_and_counts(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.hang()
    await shop.submit("a", lease=10.0)
    await until(lambda: engine.running)

    await shop.pass_time(10.0)
    await until(lambda: engine.cancelled == ["a"])

    assert shop.tries("a") == 1


# -- recording ------------------------------------------------------------------------------------


async def test_an_outcome_is_told_again_while_the_database_is_away(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a")
    shop.ledger.fail(len(RECORD_PAUSES))

    for pause in RECORD_PAUSES:
        assert "a" not in shop.ended
        await shop.rest(pause)
    end = await shop.end_of("a")

    assert isinstance(end.outcome, Completed)
    assert (len(engine.begun), shop.tries("a")) == (1, 0)


async def test_an_outcome_outlasts_a_database_that_is_away_for_longer_than_its_lease(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a", lease=1.0)
    shop.ledger.fail(1000)
    longest = RECORD_PAUSES[-1]
    for pause in (*RECORD_PAUSES, *[longest] * int(2 * RECORD_LEASE / longest)):
        await shop.rest(pause)
    assert "a" not in shop.ended

    shop.ledger.recover()
    await shop.rest(longest)

    assert isinstance((await shop.end_of("a")).outcome, Completed)
    assert (len(engine.begun), shop.tries("a")) == (1, 0)


# -- the end of the day ---------------------------------------------------------------------------


async def test_draining_lets_what_runs_end_and_takes_nothing_new(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        engine.hang()
        for run in "abc":
            await shop.submit(run)
        await until(lambda: engine.running == 2)

        draining = asyncio.create_task(shop.manager.drain(60.0))
        await settle()
        engine.resume()
        await draining
        await until(shop.closed.is_set)

    assert sorted(shop.ended) == ["a", "b"]
    assert {end.state for end in shop.ended.values()} == {State.DONE}
    assert shop.board.place(RunId("c")) == 1
    assert shop.leased == ["a", "b"]


async def test_what_does_not_end_in_time_is_put_back_free_of_charge(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.hang()
    await shop.submit("a")
    await until(lambda: engine.running)

    await shop.manager.drain(0.0)
    await until(shop.closed.is_set)

    assert engine.cancelled == ["a"]
    assert shop.tries("a") == 0
    assert shop.board.state(RunId("a")) is State.QUEUED


@pytest.mark.parametrize("turns", range(12))
async def test_a_run_that_is_being_taken_just_then_is_put_back(
    shop: Shop, engine: FakeSandbox, turns: int
) -> None:
    """Whichever step of the taking it meets, draining overlooks nothing."""
    engine.hang()
    content = await shop.files.put(RIGHT.encode())
    handing_in = asyncio.create_task(shop.dispatcher.submit(make_job("a", content=content)))
    await settle(turns)

    await shop.manager.drain(0.0)
    await handing_in
    await until(shop.closed.is_set)

    assert (shop.board.place(RunId("a")), shop.tries("a")) == (1, 0)
    assert engine.running == 0


async def test_draining_with_nothing_to_do_ends_at_once(shop: Shop) -> None:
    await shop.manager.drain(60.0)

    await until(shop.closed.is_set)
    await shop.submit("a")
    await settle()
    assert shop.leased == []


async def test_draining_does_not_wait_for_an_engine_that_is_down(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.down = True
    await shop.pass_time(5.0)

    await shop.manager.drain(60.0)

    await until(shop.closed.is_set)


async def test_an_outcome_in_hand_is_still_recorded_while_draining(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a")
    shop.ledger.fail()
    await until(lambda: RECORD_PAUSES[0] in shop.clock.alarms)

    await shop.manager.drain(0.0)
    await settle()
    assert not shop.closed.is_set()
    await shop.rest(RECORD_PAUSES[0])
    await until(shop.closed.is_set)

    assert isinstance(shop.ended["a"].outcome, Completed)


async def test_a_manager_that_is_cancelled_puts_its_runs_back(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    engine.hang()
    async with Shop(tmp_path, engine).open() as shop:
        await shop.submit("a")
        await until(lambda: engine.running)

    assert engine.cancelled == ["a"]
    assert shop.board.state(RunId("a")) is State.QUEUED
    assert shop.tries("a") == 0


@pytest.mark.parametrize("turns", range(12))
async def test_a_manager_that_is_cancelled_while_it_takes_a_run_puts_it_back(
    tmp_path: Path, engine: FakeSandbox, turns: int
) -> None:
    engine.hang()
    async with Shop(tmp_path, engine).open() as shop:
        content = await shop.files.put(RIGHT.encode())
        handing_in = asyncio.create_task(shop.dispatcher.submit(make_job("a", content=content)))
        await settle(turns)
    await handing_in

    assert (shop.board.place(RunId("a")), shop.tries("a")) == (1, 0)
    assert engine.running == 0


# -- cleaning -------------------------------------------------------------------------------------


async def test_an_engine_is_swept_once_before_its_first_run(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    shop = Shop(tmp_path, engine)
    await shop.submit("a")
    swept_before: list[int] = []

    def script(request: ExecutionRequest) -> ExecutionReport:
        swept_before.append(engine.swept)
        return says("42")(request)

    engine.scripts.append(script)
    async with shop.open():
        await shop.end_of("a")
        for _ in range(3):
            await shop.pass_time(5.0)
        engine.down = True
        await shop.pass_time(5.0)
        engine.down = False
        await shop.pass_time(5.0)

    assert swept_before == [1]
    assert engine.swept == 1


async def test_an_engine_that_cannot_be_swept_yet_is_not_used_yet(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    engine.broken_sweeps.append(SandboxUnavailable("too busy"))
    async with Shop(tmp_path, engine).open() as shop:
        await shop.submit("a")
        await settle()
        assert engine.begun == []

        await shop.pass_time(5.0)
        await shop.end_of("a")

    assert engine.swept == 1


async def test_leftovers_are_removed_as_long_as_there_are_any(
    shop: Shop, engine: FakeSandbox
) -> None:
    engine.leftovers = 2

    await shop.pass_time(5.0)
    await shop.pass_time(5.0)

    assert engine.leftovers == 0
