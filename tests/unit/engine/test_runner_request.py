"""Requests as the runner reads them: what the host sends is taken, anything else refused."""

from typing import Any

import pytest

from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
    Stage,
    Stop,
    WorkFile,
)
from commserver.engine import frames
from commserver.engine.runner import runner

PROCESS: dict[str, Any] = {
    "name": "p",
    "role": "learner",
    "argv": ["./main"],
    "files": [["main", "bin/main"]],
    "env": [["KEY", "value"]],
    "cpu": 1,
    "real": 2.5,
    "memory": 1 << 26,
    "output": 1 << 20,
    "file_size": 1 << 20,
    "processes": 8,
    "may_run": [],
}

STAGE: dict[str, Any] = {
    "name": "s",
    "stop": "on_failure",
    "processes": [PROCESS],
    "pipes": [
        {"from": ["resource", "main"], "to": ["fd", "p", 0]},
        {"from": ["fd", "p", 1], "to": ["artifact", "out", True]},
        {"from": ["file", "p", "a/b"], "to": ["artifact", "left", False]},
        {"from": ["resource", "main"], "to": ["artifact", "copy", True]},
    ],
}

HEADER: dict[str, Any] = {
    "frame": "request",
    "uid": 200_000,
    "grader_uid": 201_000,
    "nofile": 256,
    "stack": 1,
    "box": 1,
    "inodes": 1,
    "files": [{"name": "main", "size": 4}],
    "prepare": [STAGE],
    "cases": [{"name": "c", "stages": []}],
}


def test_what_the_host_packs_is_read() -> None:
    run = Process("run", ("python3",), Limits(cpu=0.5), (Placement("in", "in"),))
    script = Process("script", ("./a", "b"), Limits(), role=Role.GRADER, may_run=(run,))
    player = Process("player", ("./a",), Limits(), environment=(("A", "ü"),))
    request = ExecutionRequest(
        "python",
        (File("in", b"21"), File("empty", b"")),
        (
            Case(
                "case",
                (
                    Stage(
                        "play",
                        (script, player),
                        (
                            Pipe(Descriptor("script", 1), Descriptor("player", 0)),
                            Pipe(Descriptor("player", 255), Artifact("out", returned=False)),
                            Pipe(WorkFile("player", "a/b"), Artifact("left")),
                            Pipe(Resource("made"), Descriptor("player", 5)),
                        ),
                        Stop.ALWAYS,
                    ),
                ),
            ),
        ),
        prepare=(Stage("make", (player,), (Pipe(Resource("in"), Artifact("made")),)),),
    )
    settings = frames.Settings(uid=200_007, grader_uid=201_007, nofile=9, stack=8, box=7, inodes=6)

    packed = b"".join(frames.pack_request(request, settings))
    size = int.from_bytes(packed[:4], "big")
    read = runner.Request(runner.from_json(packed[8 : 8 + size]), 2)

    assert (read.uid, read.grader_uid, read.nofile, read.stack) == (200_007, 201_007, 9, 8)
    assert (read.box, read.inodes, read.files) == (7, 6, {"in": 2, "empty": 0})
    assert [stage.name for stage in read.prepare] == ["make"]
    ((play,),) = read.cases
    assert (play.stop, [end.name for end in play.artifacts]) == ("always", ["out", "left"])
    assert [(a.kind, b.kind) for a, b in play.pipes] == [
        ("fd", "fd"),
        ("fd", "artifact"),
        ("file", "artifact"),
        ("resource", "fd"),
    ]
    asker = play.processes["script"]
    assert asker.role == "grader"
    assert asker.may_run["run"].cpu == 0.5
    asked = asker.may_run["run"].asked(["x", "y"], 0.25)
    assert (asked.argv, asked.real) == (["python3", "x", "y"], 0.25)
    assert asker.may_run["run"].asked([], 1e6).real == asker.may_run["run"].real
    assert asker.may_run["run"].argv == ["python3"]
    assert play.processes["player"].env == {"A": "ü"}


def test_a_request_is_read() -> None:
    request = runner.Request(HEADER, 4)

    (stage,) = request.prepare
    (process,) = stage.processes.values()
    assert (process.cpu, process.real, process.files) == (1.0, 2.5, [("main", "bin/main")])


def change(key: str, value: object) -> dict[str, Any]:
    """The request, changed in its only process."""
    return {"prepare": [{**STAGE, "processes": [{**PROCESS, key: value}]}]}


def pipes(*ends: tuple[object, object]) -> dict[str, Any]:
    """The request with these pipes only."""
    return {"prepare": [{**STAGE, "pipes": [{"from": a, "to": b} for a, b in ends]}]}


FD, OUT = ["fd", "p", 1], ["artifact", "out", True]


WRONG: dict[str, list[Any]] = {
    "name": [None],
    "role": ["admin", None],
    "argv": [[], [""], ["a\0"], ["\ud800"], "a"],
    "files": [
        [["nothing", "a"]],
        [["main", "/x"]],
        [["main", "../x"]],
        [["main", "a"], ["main", "a"]],
        [["main", "a"], ["main", "a/b"]],
        ["main"],
    ],
    "env": [[["a"]], [["", "b"]], [["a=", "b"]], ["ab"]],
    "cpu": [0, "1", True, 86_401],
    "real": [-1],
    "memory": ["1"],
    "output": [None],
    "file_size": [-1],
    "processes": [1.5],
    "may_run": [
        None,
        [{}],
        [PROCESS, PROCESS],
        [{**PROCESS, "may_run": [PROCESS]}],
    ],
}


WRONG_PIPES: list[list[tuple[object, object]]] = [
    [(["resource", "nothing"], FD)],
    [(["resource", "main"], ["resource", "main"])],
    [(["file", "p", "a"], FD)],
    [(["file", "p", "../a"], OUT)],
    [(["file", "q", "a"], OUT)],
    [(FD, ["fd", "q", 1])],
    [(FD, OUT), (["resource", "main"], FD)],
    [(FD, OUT), (["fd", "p", 2], OUT)],
    [(FD, ["artifact", "main", True])],
    [(FD, ["artifact", "out"])],
    [(FD, ["artifact", "out", 1])],
    [(["fd", "p", 256], OUT)],
    [(["fd", "p", -1], OUT)],
    [(["fd", "p", True], OUT)],
    [(["fd", "p"], OUT)],
    [("fd", OUT)],
    [(["socket", "p"], OUT)],
]


@pytest.mark.parametrize(
    "changed",
    [
        {"frame": "hello"},
        {"uid": 0},
        {"uid": 1 << 31},
        {"uid": True},
        {"uid": "200000"},
        {"grader_uid": 200_000},
        {"grader_uid": 204_000},
        {"nofile": -1},
        {"box": 1.5},
        {"stack": 1 << 54},
        {"inodes": None},
        {"files": None},
        {"files": ["main"]},
        {"files": [{"name": "main", "size": 5}]},
        {"files": [{"name": "main", "size": 2}, {"name": "main", "size": 2}]},
        {"prepare": {}},
        {"prepare": [None]},
        {"cases": {}},
        {"cases": [None]},
        {"cases": [{"name": "c"}]},
        {"cases": [{"name": "c", "stages": [STAGE]}]},  # its artifacts have these names already
        {"prepare": [{**STAGE, "stop": "never"}]},
        {"prepare": [{**STAGE, "processes": [PROCESS, PROCESS]}]},
        {"prepare": [{**STAGE, "pipes": [[]]}]},
        *(change(key, value) for key, values in WRONG.items() for value in values),
        *(pipes(*ends) for ends in WRONG_PIPES),
    ],
)
def test_a_broken_request_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(runner.BrokenRequest):
        runner.Request({**HEADER, **changed}, 4)


def test_the_socket_of_who_asks_for_runs_is_taken() -> None:
    asker = {**PROCESS, "role": "grader", "may_run": [{**PROCESS, "name": "run"}]}
    pipe = {"from": ["fd", "p", 3], "to": ["artifact", "out", True]}
    stage = {**STAGE, "processes": [asker], "pipes": [pipe]}

    with pytest.raises(runner.BrokenRequest):
        runner.Request({**HEADER, "prepare": [stage]}, 4)


def test_the_trial_of_walls_is_a_request() -> None:
    assert runner.Request(runner.TRIAL, 0).cases == []
    assert runner.Process(runner.TRIAL_PROCESS, set()).argv == ["true"]
