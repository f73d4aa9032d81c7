"""Which container serves a request, and which of them wait for the next one."""

import asyncio
import contextlib
from dataclasses import replace
from functools import partial

import pytest

from commserver.core.execution import MIB, Case, File, Limits
from commserver.engine import container
from commserver.engine import pool as pool_module
from commserver.engine.container import RUN, ContainerSpec
from commserver.engine.frames import Walls
from commserver.engine.pool import Key, Numbers, Pool
from commserver.engine.room import ORDINARY_MEMORY, ordinary
from commserver.engine.sandbox import DockerSandbox, Isolation, SandboxSettings
from commserver.errors import SandboxError, SandboxLost, SandboxUnavailable
from tests.fakes import FakeClock, settle
from tests.unit.engine.conftest import Make
from tests.unit.engine.fake_engine import (
    AGAIN_ALL,
    ALL,
    CASES,
    PROCESS,
    REQUEST,
    STAGE,
    Engine,
    done,
    frame,
    hello,
    stage,
)

BEGUN = frame("started", case=0, stage=0)
LIMITED = replace(STAGE, processes=(replace(PROCESS, limits=Limits(memory=65 * MIB, output=10)),))
LARGE = replace(REQUEST, cases=(Case("one", (LIMITED,)),))
"""One of the next memory class."""


def sandbox(engine: Engine, runs: int = 100, warm: int = 2) -> DockerSandbox:
    settings = SandboxSettings(runs=runs, warm=warm)
    return DockerSandbox(engine, site="s" * 32, boot="b" * 32, settings=settings)


async def executed(sandbox: DockerSandbox, times: int = 1) -> list[str]:
    """Execute the request some times; return the containers' ids."""
    reports = [await sandbox.execute(REQUEST, run="r", slot=0) for _ in range(times)]
    assert [report.isolation for report in reports] == ["nested"] * times
    assert [len(report.cases) for report in reports] == [2] * times
    return [report.container for report in reports]


# -- one after another ----------------------------------------------------------------------------


async def test_a_container_serves_one_request_after_another(engine: Make) -> None:
    made = engine([*ALL, *AGAIN_ALL, *AGAIN_ALL])
    nested = sandbox(made)

    used = await executed(nested, 3)

    assert len(set(used)) == len(made.created) == 1
    assert made.created[0]["HostConfig"]["Memory"] == ordinary(64 * MIB).memory
    assert RUN not in made.created[0]["Labels"]
    assert nested.isolation is Isolation.NESTED
    assert nested.idle == tuple(made.names)
    assert made.discarded == 0


async def test_each_request_has_bounds_of_its_own(engine: Make) -> None:
    talkative = replace(PROCESS, limits=Limits(output=100))
    request = replace(REQUEST, cases=(Case("one", (replace(STAGE, processes=(talkative,)),)),))
    said = stage(0, 0, out=b"x" * 100)
    nested = sandbox(engine([*ALL, said, done(), said]))
    await executed(nested)

    report = await nested.execute(request, run="r", slot=0)

    assert report.cases[0].stages[0].content("out") == b"x" * 100
    with pytest.raises(SandboxLost, match="longer than 10 bytes"):
        await executed(nested)


async def test_it_is_replaced_after_some_executions(engine: Make) -> None:
    made = engine([*ALL, *AGAIN_ALL, *AGAIN_ALL], ALL)
    nested = sandbox(made, runs=2)

    first, second, third = await executed(nested, 3)

    assert first == second != third
    assert made.discarded == 1
    assert nested.idle == tuple(made.names[1:])


@pytest.mark.parametrize(
    "ends",
    [
        [*CASES, done("2 processes are left")],
        [*CASES, BEGUN],
        [BEGUN, frame("error", message="no room")],
        [BEGUN, BEGUN],
        [],
    ],
)
async def test_at_the_slightest_doubt_it_serves_no_more(
    engine: Make, monkeypatch: pytest.MonkeyPatch, ends: list[bytes]
) -> None:
    monkeypatch.setattr(container, "MARGIN", 0.01)
    monkeypatch.setattr(container, "START_DEADLINE", 0.01)
    made = engine([hello(), *ends], ALL)
    nested = sandbox(made)

    with contextlib.suppress(SandboxLost):
        await executed(nested)

    assert (made.discarded, nested.idle) == (1, ())
    await executed(nested)
    assert nested.idle == tuple(made.names[1:])


async def test_a_cancelled_execution_takes_its_container_with_it(engine: Make) -> None:
    made = engine([*ALL, BEGUN], ALL)
    nested = sandbox(made)
    await executed(nested)
    task = asyncio.create_task(executed(nested))
    await settle()
    assert nested.idle == ()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (made.discarded, nested.idle) == (1, ())
    await executed(nested)
    assert len(made.created) == 2


async def test_two_at_once_are_in_two_containers(engine: Make) -> None:
    made = engine(ALL, ALL)
    nested = sandbox(made)

    await asyncio.gather(*(nested.execute(REQUEST, run="r", slot=slot) for slot in range(2)))

    assert [config["User"] for config in made.created] == ["200000:200000", "200001:200001"]
    assert sorted(nested.idle) == sorted(made.names)


# -- what died while it waited --------------------------------------------------------------------


async def test_one_that_died_idle_is_not_even_tried(engine: Make) -> None:
    made = engine(ALL, ALL)
    nested = sandbox(made)
    await executed(nested)

    made.end(0)
    await settle()
    await executed(nested)

    assert made.explained == 0
    assert (made.discarded, nested.idle) == (1, tuple(made.names[1:]))


@pytest.mark.parametrize("last", [frame("error", message="no memory"), b"\0" * 8])
async def test_one_that_proves_dead_before_it_has_begun_costs_nothing(
    engine: Make, last: bytes
) -> None:
    made = engine([*ALL, last], ALL)
    nested = sandbox(made)
    await executed(nested)

    await executed(nested)

    assert (made.discarded, nested.idle) == (1, tuple(made.names[1:]))


async def test_only_a_new_one_is_tried_instead(
    engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more that waited may be as dead, and so on."""
    monkeypatch.setattr(container, "START_DEADLINE", 0.01)
    dead = [*ALL, frame("error", message="no memory")]
    made = engine(dead, dead, [], ALL)
    nested = sandbox(made)
    await asyncio.gather(*(nested.execute(REQUEST, run="r", slot=slot) for slot in range(2)))

    with pytest.raises(SandboxLost, match="said nothing"):
        await executed(nested)

    assert len(made.created) == 3
    assert len(nested.idle) == 1


async def test_one_that_dies_when_it_has_begun_is_lost(engine: Make) -> None:
    made = engine([*ALL, BEGUN], ALL)
    nested = sandbox(made)
    await executed(nested)
    task = asyncio.create_task(executed(nested))
    await settle()

    made.end(0)
    with pytest.raises(SandboxLost):
        await task

    assert (len(made.created), made.discarded, nested.idle) == (1, 1, ())


async def test_an_engine_that_went_away_meanwhile_has_begun_nothing(
    engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(ALL)
    nested = sandbox(made)
    await executed(nested)

    async def create(name: str, config: object) -> str:
        raise SandboxUnavailable("it is gone")

    monkeypatch.setattr(made, "create", create)
    made.end(0)
    with pytest.raises(SandboxUnavailable):
        await executed(nested)


# -- what waits -----------------------------------------------------------------------------------


async def test_each_memory_class_has_containers_of_its_own(engine: Make) -> None:
    made = engine([*ALL, *AGAIN_ALL], [hello(), *CASES[:1], done()])
    nested = sandbox(made)

    await executed(nested)
    await nested.execute(LARGE, run="r", slot=0)
    await executed(nested)

    memory = [config["HostConfig"]["Memory"] for config in made.created]
    assert memory == [ordinary(64 * MIB).memory, ordinary(128 * MIB).memory]
    assert nested.idle == (made.names[1], made.names[0])


async def test_each_image_has_containers_of_its_own(engine: Make) -> None:
    made = engine(ALL, ALL)
    nested = sandbox(made)
    await executed(nested)

    made.image_id = "sha256:2"
    await executed(nested)

    assert [config["Image"] for config in made.created] == ["sha256:1", "sha256:2"]


async def test_what_needs_more_room_gets_a_container_of_its_own(engine: Make) -> None:
    made = engine(ALL, ALL)
    nested = sandbox(made)
    large = replace(REQUEST, files=(*REQUEST.files, File("more", bytes(ORDINARY_MEMORY))))

    report = await nested.execute(large, run="r7", slot=0)

    assert report.isolation == Isolation.FRESH
    assert made.created[0]["HostConfig"]["Memory"] > ordinary(64 * MIB).memory
    assert made.created[0]["Labels"][RUN] == "r7"
    assert (made.discarded, nested.idle) == (1, ())
    await executed(nested)


async def test_walls_of_uids_serve_once_whatever_the_runner_says(engine: Make) -> None:
    made = engine([hello("uids"), *AGAIN_ALL])
    apart = DockerSandbox(made, site="s" * 32, boot="b" * 32, walls=Walls.UIDS)

    report = await apart.execute(REQUEST, run="r", slot=0)

    assert report.isolation == apart.isolation == Isolation.FRESH_UID
    assert (made.discarded, apart.idle) == (1, ())


# -- the pool itself ------------------------------------------------------------------------------


def pool(engine: Engine, clock: FakeClock, spare: int = 2) -> Pool:
    return Pool(engine, runs=100, age=600.0, spare=spare, clock=clock.now)


def spec(key: Key, number: int) -> ContainerSpec:
    """What a container is to be; it is called by its number."""
    return ContainerSpec(
        name=f"{number}",
        image=key.image,
        walls=Walls.NAMESPACES,
        memory=key.memory,
        room=ordinary(key.memory),
        uid=1000 + number,
        grader_uid=2000 + number,
    )


async def use(pool: Pool, *slots: int, image: str = "sha256:1") -> None:
    """Use a container for each of these slots, all at once."""
    key = Key(image, 64 * MIB)

    async def once(slot: int) -> None:
        async with pool.warm(slot, key, partial(spec, key)) as one:
            await one.execute(REQUEST)

    await asyncio.gather(*map(once, slots))


async def test_so_many_wait_for_each_slot_and_the_longest_unused_goes_first(engine: Make) -> None:
    made = engine([*ALL, *AGAIN_ALL], ALL, ALL, ALL, ALL)
    waiting = pool(made, FakeClock())

    await use(waiting, 0, image="a")
    await use(waiting, 0, image="b")
    await use(waiting, 0, image="a")
    assert list(waiting.idle) == ["1", "0"]
    await use(waiting, 0, image="c")
    assert list(waiting.idle) == ["0", "2"]
    await use(waiting, 0, 1, image="d")

    assert list(waiting.idle) == ["0", "2", "3", "4"]
    assert made.discarded == 1


async def test_who_was_used_last_is_used_next(engine: Make) -> None:
    """So that those that there is no need for grow old."""
    waiting = pool(engine(ALL, [*ALL, *AGAIN_ALL]), FakeClock())
    await use(waiting, 0, 1)
    _, last = waiting.idle

    await use(waiting, 0)

    assert waiting.idle[-1] == last


async def test_one_that_waits_too_long_goes(engine: Make) -> None:
    made, clock = engine([*ALL, *AGAIN_ALL], ALL), FakeClock()
    waiting = pool(made, clock)
    await use(waiting, 0, image="a")
    await use(waiting, 0, image="b")
    clock.advance(599.0)
    await use(waiting, 0, image="a")

    clock.advance(1.0)
    await waiting.tidy()

    assert (waiting.idle, made.discarded) == (("0",), 1)


async def test_the_servers_next_look_removes_what_died(engine: Make) -> None:
    made = engine(ALL)
    nested = sandbox(made)
    await executed(nested)
    assert await nested.remove_leftovers() == 0
    assert made.discarded == 0

    made.end(0)
    await settle()
    await nested.remove_leftovers()

    assert made.discarded == 1
    assert nested.idle == ()


async def test_when_it_is_closed_nothing_waits_any_more(engine: Make) -> None:
    made = engine(ALL, ALL)
    nested = sandbox(made)
    await asyncio.gather(*(nested.execute(REQUEST, run="r", slot=slot) for slot in range(2)))

    await nested.close()
    assert (made.discarded, nested.idle) == (2, ())


async def test_what_ends_after_the_closing_does_not_wait_either(engine: Make) -> None:
    made = engine([hello()])
    nested = sandbox(made)
    task = asyncio.create_task(executed(nested))
    await settle()

    await nested.close()
    made.say(0, *AGAIN_ALL)
    await task

    assert (made.discarded, nested.idle) == (1, ())


# -- numbers --------------------------------------------------------------------------------------


async def test_a_number_comes_back_when_its_container_has_gone_and_all_others_were_used(
    engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "NUMBERS", 3)
    made = engine(ALL, *[[hello(), *CASES, done("doubt")]] * 4)
    waiting = pool(made, FakeClock())

    await use(waiting, 0, image="stays")
    for _ in range(4):
        await use(waiting, 0, image="goes")

    assert made.names == ["0", "1", "2", "1", "2"]


def test_no_number_is_anybodys_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "NUMBERS", 3)
    numbers = Numbers()
    taken = [numbers.take() for _ in range(3)]

    with pytest.raises(SandboxError, match="3 containers already"):
        numbers.take()
    numbers.give(1)

    assert taken == [0, 1, 2]
    assert numbers.take() == 1


async def test_a_container_that_could_not_be_opened_has_no_number(
    engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "NUMBERS", 1)
    made = engine(ALL, ALL)
    waiting = pool(made, FakeClock())

    async def start(name: str) -> None:
        raise SandboxError("no")

    with monkeypatch.context() as patch:
        patch.setattr(made, "start", start)
        with pytest.raises(SandboxError, match="no"):
            await use(waiting, 0)
    await use(waiting, 0)

    assert made.names == ["0", "0"]
