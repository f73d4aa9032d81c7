"""What is made of what a runner says, in order and out of it: the engine is a few sockets."""

from dataclasses import replace

import pytest

from commserver.core.execution import Case, Flag, Stop
from commserver.engine import container, frames
from commserver.engine.frames import Walls
from commserver.engine.sandbox import DockerSandbox, Isolation
from commserver.errors import SandboxError, SandboxLost
from tests.unit.engine.conftest import Make
from tests.unit.engine.fake_engine import (
    AGAIN,
    ALL,
    CASES,
    PREPARED,
    REQUEST,
    STAGE,
    Engine,
    done,
    frame,
    hello,
    stage,
)


def sandbox(engine: Engine, walls: Walls | None = None, *, nested: bool = False) -> DockerSandbox:
    return DockerSandbox(engine, site="s" * 32, boot="b" * 32, nested=nested, walls=walls)


async def test_reports_of_stages_become_reports_of_cases(engine: Make) -> None:
    progress: list[tuple[int, int]] = []
    made = engine(ALL)

    report = await sandbox(made).execute(
        REQUEST, run="r", slot=0, on_progress=lambda ended, total: progress.append((ended, total))
    )

    assert progress == [(0, 2), (1, 2), (2, 2)]
    assert report.prepare == ()
    assert [case.name for case in report.cases] == ["one", "two"]
    assert [[stage.name for stage in case.stages] for case in report.cases] == [["s", "t"]] * 2
    assert [case.stages[0].content("out") for case in report.cases] == [b"42", b"43"]
    assert (report.image, report.isolation, report.runner) == (
        *("sha256:1", "fresh"),
        frames.RUNNER_VERSION,
    )
    assert report.container.startswith("id of commserver-ssssssss-bbbbbbbb-")
    assert made.discarded == 1


async def test_a_case_ends_with_its_first_stage_that_is_not_well(engine: Make) -> None:
    says = [hello(), stage(0, 0, flags=1, out=b""), stage(1, 0, out=b""), stage(1, 1), done()]

    report = await sandbox(engine(says)).execute(REQUEST, run="r", slot=0)

    assert [len(case.stages) for case in report.cases] == [1, 2]
    assert report.cases[0].stages[0].processes[0].flags is Flag.CPU


async def test_a_case_ends_where_it_is_to_end_always(engine: Make) -> None:
    ending = replace(STAGE, stop=Stop.ALWAYS)
    request = replace(REQUEST, cases=(Case("one", (ending, AGAIN)),))

    report = await sandbox(engine([hello(), stage(0, 0, out=b""), done()])).execute(
        request, run="r", slot=0
    )

    assert [len(case.stages) for case in report.cases] == [1]


@pytest.mark.parametrize("flags", [0, 1])
async def test_cases_are_run_only_if_what_comes_before_went_well(engine: Make, flags: int) -> None:
    cases = [done()] if flags else ALL[1:]

    report = await sandbox(engine([hello(), stage(-1, 0, flags=flags), *cases])).execute(
        PREPARED, run="r", slot=0
    )

    assert report.prepared == (not flags)
    assert len(report.cases) == (0 if flags else 2)


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ([stage(0, 0)], "Started"),
        ([hello(), done()], "Done None, not Started"),
        ([hello(), stage(0, 1)], r"Started \(0, 1\), not Started \(0, 0\)"),
        ([hello(), stage(-1, 0)], r"Started \(-1, 0\), not Started \(0, 0\)"),
        ([hello(), frame("started", case=0, stage=0), stage(0, 0)], "Started .* not Report"),
        ([*ALL[:-1], stage(2, 0)], "not Done"),
        ([hello(), stage(0, 0)], "other artifacts"),
        ([hello(), stage(0, 0, out=b"x" * 11)], "frame is longer than 10 bytes"),
        ([hello(), frame("error", message="no room")], "no room"),
        ([b"\0" * 8], "JSON"),
        ([hello()], "said nothing for"),
        ([], "said nothing for"),
    ],
)
async def test_a_runner_that_says_what_cannot_be_is_lost(
    engine: Make, monkeypatch: pytest.MonkeyPatch, says: list[bytes], message: str
) -> None:
    monkeypatch.setattr(container, "MARGIN", 0.01)
    monkeypatch.setattr(container, "START_DEADLINE", 0.01)
    made = engine(says)

    with pytest.raises(SandboxLost, match=message) as lost:
        await sandbox(made).execute(REQUEST, run="r", slot=0)

    assert lost.value.container.startswith("id of ")
    assert not lost.value.engine_down
    assert made.discarded == 1


async def test_an_image_with_another_runner_has_to_be_built_again(engine: Make) -> None:
    with pytest.raises(SandboxError, match="build the images again"):
        await sandbox(engine([hello(runner="1")])).execute(REQUEST, run="r", slot=0)


# -- walls ----------------------------------------------------------------------------------------


async def test_where_namespaces_are_forbidden_uids_are_the_walls_from_then_on(
    engine: Make,
) -> None:
    apart = [hello("uids"), *CASES, done("walls of uids serve once")]
    made = engine([hello("")], apart, apart)
    fallen_back = sandbox(made, nested=True)

    first = await fallen_back.execute(REQUEST, run="r", slot=3)
    second = await fallen_back.execute(REQUEST, run="r", slot=3)

    assert (fallen_back.walls, fallen_back.isolation) == (Walls.UIDS, Isolation.FRESH_UID)
    assert [report.isolation for report in (first, second)] == ["fresh-uid"] * 2
    assert [config["User"] for config in made.created] == ["200000:200000", "0:0", "0:0"]
    assert made.discarded == 3


async def test_walls_that_could_be_built_before_are_not_given_up(engine: Make) -> None:
    """A host that is out of something for a moment is none that forbids them."""
    made = engine(ALL, [hello("")], ALL)
    walled = sandbox(made)
    await walled.execute(REQUEST, run="r", slot=0)

    with pytest.raises(SandboxError, match="no namespaces here"):
        await walled.execute(REQUEST, run="r", slot=0)
    again = await walled.execute(REQUEST, run="r", slot=0)

    assert (again.isolation, walled.walls) == ("fresh", Walls.NAMESPACES)


async def test_where_namespaces_are_there_they_are_used(engine: Make) -> None:
    made = engine(ALL, ALL)
    walled = sandbox(made)
    assert (walled.walls, walled.isolation) == (None, None)

    for _ in range(2):
        await walled.execute(REQUEST, run="r", slot=0)

    assert (walled.walls, walled.isolation) == (Walls.NAMESPACES, Isolation.FRESH)
    assert [config["User"] for config in made.created] == ["200000:200000", "200001:200001"]
    assert made.discarded == 2


@pytest.mark.parametrize("walls", [Walls.NAMESPACES, Walls.UIDS])
async def test_walls_that_were_asked_for_are_built_or_nothing_is_run(
    engine: Make, walls: Walls
) -> None:
    made = engine([hello("")])

    with pytest.raises(SandboxError, match=rf"no {walls} here: user namespaces:.* EPERM"):
        await sandbox(made, walls).execute(REQUEST, run="r", slot=0)

    assert len(made.created) == 1


async def test_an_engine_is_asked_once_whether_it_confines_by_apparmor(engine: Make) -> None:
    made = engine(ALL, ALL, security_options=("name=apparmor", "name=seccomp,profile=default"))
    confined = sandbox(made)

    for _ in range(2):
        await confined.execute(REQUEST, run="r", slot=0)

    assert made.asked == 1
    for config in made.created:
        assert "apparmor=unconfined" in config["HostConfig"]["SecurityOpt"]


async def test_what_cannot_be_carried_out_costs_no_container(engine: Make) -> None:
    made = engine()

    with pytest.raises(SandboxError, match="cannot be carried out: cases: there is nothing to run"):
        await sandbox(made).execute(replace(REQUEST, cases=()), run="r", slot=0)

    assert made.created == []


@pytest.mark.parametrize("nested", [False, True])
async def test_a_request_that_cannot_be_said_leaves_nothing(
    engine: Make, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    monkeypatch.setattr(frames, "MAX_REQUEST_HEADER", 1024)
    made = engine([hello()])
    long = replace(REQUEST, cases=(Case("x" * 1024, (STAGE,)),))

    with pytest.raises(SandboxError, match="carried out: cases: the request is longer than"):
        await sandbox(made, nested=nested).execute(long, run="r", slot=0)

    assert made.discarded == 1
