"""What is made of what a runner says, in order and out of it: the engine is a few sockets."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Flag,
    Limits,
    Pipe,
    Process,
    Resource,
    Stage,
    Stop,
)
from commserver.engine import container, frames
from commserver.engine.frames import Walls
from commserver.engine.sandbox import FreshSandbox
from commserver.engine.wrapper import (
    Attachment,
    ContainerState,
    DockerWrapper,
    EngineInfo,
    ImageInfo,
)
from commserver.errors import SandboxError, SandboxLost

PROCESS = Process("p", ("./p",), Limits(output=10))
STAGE = Stage(
    "s",
    (PROCESS,),
    (
        Pipe(Resource("input"), Descriptor("p", 0)),
        Pipe(Descriptor("p", 1), Artifact("out")),
    ),
)
AGAIN = Stage("t", (PROCESS,), (Pipe(Resource("out"), Descriptor("p", 0)),))
REQUEST = ExecutionRequest(
    "python", (File("input", b"21"),), (Case("one", (STAGE, AGAIN)), Case("two", (STAGE, AGAIN)))
)
PREPARED = replace(REQUEST, prepare=(Stage("build", (PROCESS,)),))


class Engine(DockerWrapper):
    """Starts nothing: what each container's runner says is written down beforehand.

    created: the configurations of all containers. told: what each runner was sent.
    """

    def __init__(self, *says: Sequence[bytes], security_options: tuple[str, ...] = ()) -> None:
        super().__init__("unix:///nowhere")
        self.created: list[Mapping[str, Any]] = []
        self.asked = 0
        self.discarded = 0
        self._says = list(says)
        self._options = security_options
        self._ends: list[socket.socket] = []

    async def image(self, name: str) -> ImageInfo:
        return ImageInfo("sha256:1", (name,), {})

    async def info(self) -> EngineInfo:
        self.asked += 1
        return EngineInfo("1", "1.41", "6", "amd64", 2, 1, 1, self._options)

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        self.created.append(config)
        return f"id of {name}"

    async def attach(self, name: str) -> Attachment:
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        data = b"".join(self._says.pop(0))
        theirs.sendall(struct.pack(">BxxxI", frames.STDOUT, len(data)) + data)
        return Attachment(*await asyncio.open_connection(sock=ours))

    async def start(self, name: str) -> None:
        return

    async def state(self, name: str, deadline: float | None = None) -> ContainerState:
        return ContainerState("running", 0, False, "")

    async def discard(self, name: str, deadline: float = 20.0) -> None:
        self.discarded += 1

    def close(self) -> None:
        for end in self._ends:
            end.close()
        super().close()


def frame(kind: str, body: bytes = b"", **header: Any) -> bytes:
    """One frame of a runner's."""
    head = json.dumps({"frame": kind, **header}).encode()
    return struct.pack(">II", len(head), len(body)) + head + body


def hello(walls: str = "namespaces", runner: str = frames.RUNNER_VERSION) -> bytes:
    cgroup = {"version": 1, "cpu": True, "memory": True, "kills": True}
    why = "" if walls else "user namespaces:\x1b[31m EPERM"
    return frame("hello", runner=runner, python="3.11.2", cgroup=cgroup, walls=walls, why=why)


def stage(case: int, number: int, *, flags: int = 0, out: bytes | None = None) -> bytes:
    """A stage that begins and ends."""
    ended = {"exit": 0, "cpu": 0.1, "real": 0.2, "memory": 1, "flags": flags}
    process = {**ended, "stopped": False, "ended": 0.2, "runs": []}
    left = [] if out is None else [{"size": len(out), "missing": False, "sent": len(out)}]
    report = frame(
        "report", out or b"", case=case, stage=number, processes=[process], artifacts=left
    )
    return frame("started", case=case, stage=number) + report


def done() -> bytes:
    return frame("done")


ALL = [
    *(hello(), stage(0, 0, out=b"42"), stage(0, 1)),
    *(stage(1, 0, out=b"43"), stage(1, 1), done()),
]

Make = Callable[..., Engine]


@pytest.fixture
async def engine() -> AsyncIterator[Make]:
    """Makes engines, and closes them."""
    engines: list[Engine] = []

    def make(*says: Sequence[bytes], **options: Any) -> Engine:
        engines.append(Engine(*says, **options))
        return engines[-1]

    yield make
    for made in engines:
        made.close()


def sandbox(engine: Engine, walls: Walls | None = None) -> FreshSandbox:
    return FreshSandbox(engine, site="s" * 32, boot="b" * 32, walls=walls)


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
    made = engine([hello("")], [hello("uids"), *ALL[1:]], [hello("uids"), *ALL[1:]])
    fallen_back = sandbox(made)

    first = await fallen_back.execute(REQUEST, run="r", slot=3)
    second = await fallen_back.execute(REQUEST, run="r", slot=3)

    assert fallen_back.walls is Walls.UIDS
    assert [report.isolation for report in (first, second)] == ["fresh-uid"] * 2
    assert [config["User"] for config in made.created] == ["200003:200003", "0:0", "0:0"]
    assert made.discarded == 3


async def test_where_namespaces_are_there_they_are_used(engine: Make) -> None:
    made = engine(ALL, ALL)
    walled = sandbox(made)
    assert walled.walls is None

    for _ in range(2):
        await walled.execute(REQUEST, run="r", slot=0)

    assert walled.walls is Walls.NAMESPACES
    assert {config["User"] for config in made.created} == {"200000:200000"}


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


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (replace(REQUEST, cases=()), "cannot be carried out: cases: there is nothing to run"),
        (
            replace(REQUEST, cases=(Case("x" * 1024, (STAGE,)),)),
            "cannot be carried out: cases: the request is longer than",
        ),
    ],
)
async def test_what_cannot_be_carried_out_costs_no_container(
    engine: Make, monkeypatch: pytest.MonkeyPatch, request_: ExecutionRequest, message: str
) -> None:
    monkeypatch.setattr(frames, "MAX_REQUEST_HEADER", 1024)
    made = engine([hello()])

    with pytest.raises(SandboxError, match=message):
        await sandbox(made).execute(request_, run="r", slot=0)

    assert made.created == []
