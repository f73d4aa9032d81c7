"""Our own slots: what becomes of a run whatever its engine does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from commserver.core.events import RunEnded, RunLeased
from commserver.core.execution import (
    NO_FLAG,
    ExecutionReport,
    ExecutionRequest,
    Flag,
    ProcessReport,
)
from commserver.core.jobs import Requirement, RunId, content_hash
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Fault, Status
from commserver.errors import ImageMissing, SandboxError, SandboxLost, SandboxUnavailable
from commserver.graders.content import Content
from commserver.services import docker_manager
from commserver.services.docker_manager import RECORD_LEASE, RECORD_PAUSES
from commserver.services.reruns import PATIENCE
from commserver.services.run_service import lease_for
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
    engine.scripts.append(lambda request: ExecutionReport((), ()))

    with capture_logs() as logs:
        await shop.submit("a")
        await shop.submit("b")
        await shop.end_of("b")

    assert (shop.tries("a"), "a" in shop.ended) == (1, False)
    assert [line["log_level"] for line in logs if line["event"] == "try_failed"] == ["error"]


SCRIPT = replace(RIGHT, grader="print('GRADE: 20')")


async def test_a_grader_that_breaks_is_the_teachers_fault_and_told_in_full_to_them_alone(
    shop: Shop, engine: FakeSandbox
) -> None:
    def broken(request: ExecutionRequest) -> ExecutionReport:
        report = says("no grade")(request)
        [case] = report.cases
        [stage] = case.stages
        ended = replace(stage.processes[0], exit_code=1)
        stages = (replace(stage, processes=(ended,)),)
        return replace(report, cases=(replace(case, stages=stages),))

    engine.scripts.append(broken)
    await shop.submit("a", SCRIPT)

    end = await shop.end_of("a")

    failure = failure_of(end)
    assert (failure.cause, failure.fault) == (Cause.EXERCISE, Fault.TEACHER)
    assert "\n" not in failure.message
    assert "no grade" in failure.details
    assert "no grade" not in failure.message
    assert len(engine.begun) == 1


BULKY = b"1\n" * 100


def with_bulky() -> Content:
    """Return a content whose exercise has a large file."""
    name = content_hash(BULKY)
    files = f'[files]\n"cases/a.in" = {{ sha256 = "{name}", size = {len(BULKY)} }}'
    cases = '[[cases]]\nname = "a"\nfiles = "cases/a.in"\n'
    out = '"cases/a.out" = "42"'
    return replace(RIGHT, grader=exercise(cases=f"{cases}{files}\n{out}\n"))


async def test_large_files_come_from_the_file_store(shop: Shop, engine: FakeSandbox) -> None:
    await shop.files.put(BULKY)
    await shop.submit("a", with_bulky())

    assert judged(await shop.end_of("a")) == (Status.ACCEPTED, 20, False)
    [execution] = engine.begun
    assert BULKY in [file.content for file in execution.request.files]


async def test_a_large_file_that_is_not_there_is_named_to_its_teacher(
    shop: Shop, engine: FakeSandbox
) -> None:
    await shop.submit("a", with_bulky())

    failure = failure_of(await shop.end_of("a"))

    assert failure.cause is Cause.EXERCISE
    assert "cases/a.in" in failure.message
    assert engine.begun == []


def lose(folder: Path, name: str) -> None:
    """Remove a file from a store."""
    next(folder.rglob(name)).unlink()


def spoil(folder: Path, name: str) -> None:
    """Let a file in a store be another than its name says."""
    next(folder.rglob(name)).write_bytes(b"rubbish")


async def test_a_large_file_that_the_disk_has_damaged_is_our_fault(
    shop: Shop, tmp_path: Path, engine: FakeSandbox
) -> None:
    name = await shop.files.put(BULKY)
    spoil(tmp_path, name)
    await shop.files.verify(name[:2])
    await shop.submit("a", with_bulky())

    for tries, rest in ((1, 1.0), (2, 5.0)):
        await shop.counted("a", tries)
        await shop.pass_time(rest)
    failure = failure_of(await shop.end_of("a"))

    assert (failure.cause, failure.fault) == (Cause.INTERNAL, Fault.SYSTEM)
    assert engine.begun == []


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


# -- what is close to a limit ---------------------------------------------------------------------


def took(cpu: float, container: str = "") -> Callable[[ExecutionRequest], ExecutionReport]:
    """Return the script of right programs that need so much cpu time, of the 1 s they have."""
    flags = Flag.CPU if cpu > 1.0 else NO_FLAG

    def process(one: ProcessReport) -> ProcessReport:
        return replace(one, cpu=cpu, flags=flags, stopped=cpu > 1.1)

    def script(request: ExecutionRequest) -> ExecutionReport:
        report = says("42")(request)
        cases = tuple(
            replace(
                case,
                stages=tuple(
                    replace(stage, processes=tuple(map(process, stage.processes)))
                    for stage in case.stages
                ),
            )
            for case in report.cases
        )
        return replace(report, cases=cases, container=container)

    return script


def judged(end: RunEnded) -> tuple[Status, int, bool]:
    """Return how a run was judged, and whether it was run twice for it."""
    assert isinstance(end.outcome, Completed)
    verdict = end.outcome.verdict
    return verdict.status, verdict.grade, verdict.rerun


def container_of(end: RunEnded) -> str:
    """Return where what counts was measured."""
    assert isinstance(end.outcome, Completed)
    assert end.outcome.report is not None
    return end.outcome.report.container


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (took(1.05, "one"), took(0.8, "two"), "two"),
        (took(0.95, "one"), took(1.05, "two"), "one"),
        (took(1.05, "one"), took(0.95, "two"), "two"),  # which is close as well
    ],
)
async def test_what_is_close_to_its_limit_is_run_once_more_elsewhere_and_the_better_counts(
    tmp_path: Path,
    engine: FakeSandbox,
    first: Callable[[ExecutionRequest], ExecutionReport],
    second: Callable[[ExecutionRequest], ExecutionReport],
    counts: str,
) -> None:
    engine.scripts += [first, second]
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")

        end = await shop.end_of("a")

    assert judged(end) == (Status.ACCEPTED, 20, True)
    assert container_of(end) == counts
    assert {execution.slot for execution in engine.begun} == {0, 1}
    assert len(engine.begun) == 2
    assert engine.begun[0].request == engine.begun[1].request


async def test_what_is_close_twice_is_not_run_a_third_time(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    engine.scripts += [took(1.05), took(1.08)]
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")

        end = await shop.end_of("a")

    assert judged(end) == (Status.CPU_TIME, 0, True)
    assert len(engine.begun) == 2


@pytest.mark.parametrize("cpu", [0.8, 1.15])
async def test_what_is_far_from_its_limit_is_run_once(
    shop: Shop, engine: FakeSandbox, cpu: float
) -> None:
    engine.scripts.append(took(cpu))
    await shop.submit("a")

    end = await shop.end_of("a")

    assert not judged(end)[2]
    assert len(engine.begun) == 1


async def test_the_only_slot_runs_it_again_itself(shop: Shop, engine: FakeSandbox) -> None:
    engine.scripts += [took(1.05), took(0.5)]
    await shop.submit("a")

    assert judged(await shop.end_of("a")) == (Status.ACCEPTED, 20, True)
    assert [execution.slot for execution in engine.begun] == [0, 0]


async def test_no_other_slot_is_waited_for_too_long(tmp_path: Path, engine: FakeSandbox) -> None:
    other = FakeSandbox("other")
    other.hang()
    async with Shop(tmp_path, engine, other).open() as shop:
        await shop.submit("long")
        await shop.submit("a")
        await until(lambda: other.running and (engine.begun or other.running == 2))
        [own] = {"long", "a"} - {other.begun[0].run}
        await shop.end_of(own)
        engine.scripts += [took(1.05), took(0.5)]
        await shop.submit("b")
        await until(lambda: shop.clock.now() + PATIENCE in shop.clock.alarms)
        assert "b" not in shop.ended

        await shop.pass_time(PATIENCE)

        assert judged(await shop.end_of("b")) == (Status.ACCEPTED, 20, True)
        assert [one.run for one in engine.begun[-2:]] == ["b", "b"]


async def test_an_engine_without_the_image_is_lent_nothing(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    other = FakeSandbox("other", images=["java"])
    engine.scripts += [took(1.05), took(0.5)]
    async with Shop(tmp_path, engine, other).open() as shop:
        await shop.submit("a")
        await until(lambda: shop.clock.now() + PATIENCE in shop.clock.alarms)
        await shop.pass_time(PATIENCE)
        await shop.end_of("a")

    assert (len(engine.begun), other.begun) == (2, [])


@pytest.mark.parametrize(
    "error", [SandboxError("no"), SandboxLost("gone", "c1"), SandboxUnavailable("silent")]
)
async def test_where_it_cannot_be_run_again_the_first_counts(
    tmp_path: Path, engine: FakeSandbox, error: Exception
) -> None:
    engine.scripts += [took(1.05), error]
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")

        end = await shop.end_of("a")

    assert judged(end) == (Status.CPU_TIME, 0, False)
    assert shop.tries("a") == 0


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_all_slots_can_run_something_again_at_once(
    tmp_path: Path, engine: FakeSandbox, slots: int
) -> None:
    engine.otherwise = took(1.05)
    names = [str(number) for number in range(2 * slots)]
    async with Shop(tmp_path, engine, slots=slots).open() as shop:
        for name in names:
            await shop.submit(name)
        while len(shop.ended) < len(names):
            await settle()
            await asyncio.sleep(0)
            await shop.pass_time(0.1)

    assert sorted(execution.run for execution in engine.begun) == sorted(names * 2)
    assert all(judged(end) == (Status.CPU_TIME, 0, True) for end in shop.ended.values())


async def test_a_slot_that_was_lent_takes_runs_of_its_own_again(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    engine.scripts += [took(1.05), took(0.5)]
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")
        await shop.end_of("a")
        engine.hang()
        await shop.submit("b")
        await shop.submit("c")

        await until(lambda: engine.running == 2)

        engine.resume()
        await shop.end_of("b")
        await shop.end_of("c")
    assert shop.back == []


async def test_a_run_that_is_cancelled_while_it_is_run_again_frees_both_slots(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    def first(request: ExecutionRequest) -> ExecutionReport:
        engine.hang()  # the second
        return took(1.05)(request)

    engine.scripts.append(first)
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")
        await until(lambda: len(engine.begun) == 2)

        await shop.dispatcher.cancel(RunId("a"))
        await until(lambda: engine.cancelled == ["a"])
        await shop.submit("b")
        await shop.submit("c")
        await until(lambda: engine.running == 2)
        engine.resume()
        await shop.end_of("c")

    assert shop.ended["a"].state is State.CANCELLED


async def test_draining_waits_for_what_is_run_again(tmp_path: Path, engine: FakeSandbox) -> None:
    def first(request: ExecutionRequest) -> ExecutionReport:
        engine.hang()
        return took(1.05)(request)

    engine.scripts += [first, took(0.5)]
    async with Shop(tmp_path, engine, slots=2).open() as shop:
        await shop.submit("a")
        await until(lambda: len(engine.begun) == 2)
        await settle()  # the slot that was lent waits to be back

        draining = asyncio.create_task(shop.manager.drain(60.0))
        await settle()
        engine.resume()
        await draining
        await until(shop.closed.is_set)

    assert judged(shop.ended["a"]) == (Status.ACCEPTED, 20, True)


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
    await shop.submit("a", lease=600.0)
    await until(lambda: engine.running)

    await shop.pass_time(600.0)
    await until(lambda: engine.cancelled == ["a"])

    assert shop.tries("a") == 1


async def test_a_lease_that_is_too_short_for_what_it_is_about_is_kept_for_longer(
    shop: Shop, engine: FakeSandbox
) -> None:
    """What is in an exercise's large files is known only once it is to be run."""
    engine.hang()
    await shop.submit("a", lease=1.0)
    await until(lambda: engine.running)

    await shop.pass_time(lease_for(engine.begun[0].request.real) - 1.0)
    engine.resume()

    assert isinstance((await shop.end_of("a")).outcome, Completed)
    assert shop.tries("a") == 0


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


async def test_engines_are_closed_once_nothing_is_executed_any_more(
    tmp_path: Path, engine: FakeSandbox
) -> None:
    other = FakeSandbox("other")
    async with Shop(tmp_path, engine, other).open() as shop:
        engine.hang()
        await shop.submit("a")
        await until(lambda: engine.running == 1)
        draining = asyncio.create_task(shop.manager.drain(60.0))
        await settle()
        assert (engine.closed, other.closed) == (0, 0)

        engine.resume()
        await draining
        await until(shop.closed.is_set)

    assert (engine.closed, other.closed) == (1, 1)


async def test_an_engine_that_cannot_be_closed_holds_nobody_up(
    shop: Shop, engine: FakeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_manager, "CLOSE_DEADLINE", 0.01)
    monkeypatch.setattr(engine, "close", asyncio.Event().wait)

    with capture_logs() as logs:
        await shop.manager.drain(0.0)
        await asyncio.wait_for(shop.closed.wait(), 5.0)

    assert "engines_not_closed" in [entry["event"] for entry in logs]


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
    assert engine.closed == 1
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
