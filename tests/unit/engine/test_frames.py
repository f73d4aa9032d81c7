"""Bytes in, frames out, however the bytes are cut."""

import json
import struct
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.core import request_check
from commserver.core.execution import (
    Artifact,
    ArtifactReport,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Flag,
    Limits,
    Pipe,
    Placement,
    Process,
    ProcessReport,
    Resource,
    Role,
    RunReport,
    Stage,
    Stop,
    WorkFile,
)
from commserver.engine import frames
from commserver.engine.frames import Demultiplexer, Frame, FrameReader, Walls
from commserver.engine.runner import runner
from commserver.errors import MalformedPacket, PacketTooLarge, RequestError

SETTINGS = frames.Settings(
    uid=200_001, grader_uid=201_001, nofile=256, stack=1 << 26, box=1 << 25, inodes=100
)

LIMITS = Limits(cpu=0.5, real=2.0, memory=1 << 20, output=4, file_size=8, processes=3)
STUDENT = Process("student", ("./main",), LIMITS, (Placement("main", "main"),))
GRADER = Process(
    "grader",
    ("python3", "a b"),
    LIMITS,
    (Placement("main.c", "data/x"),),
    environment=(("A", "é"),),
    role=Role.GRADER,
    may_run=(STUDENT,),
)
COMPILE = Stage(
    "compile",
    (replace(STUDENT, name="gcc", files=()),),
    (Pipe(WorkFile("gcc", "out/main"), Artifact("main", returned=False)),),
)
STAGE = Stage(
    "grade",
    (GRADER, replace(STUDENT, name="player")),
    (
        Pipe(Descriptor("grader", 1), Descriptor("player", 0)),
        Pipe(Resource("empty"), Descriptor("grader", 0)),
        Pipe(Descriptor("player", 1), Artifact("out")),
        Pipe(Descriptor("player", 2), Artifact("err", returned=False)),
        Pipe(WorkFile("player", "score"), Artifact("score")),
        Pipe(Resource("main"), Artifact("copy")),
    ),
    stop=Stop.ALWAYS,
)
REQUEST = ExecutionRequest(
    image="c",
    files=(File("main.c", b"int main;"), File("empty", b"")),
    prepare=(COMPILE,),
    cases=(Case("one", (STAGE,)), Case("two", (STAGE,))),
)
SIZES = {"main.c": 9, "empty": 0, "main": 5}  # what there is before the stage

RUN = {
    "name": "student",
    "exit": 1,
    "cpu": 0.25,
    "real": 0.5,
    "memory": 2048,
    "flags": 0,
    "stopped": False,
}
ENDED = {
    "exit": -9,
    "cpu": 0.5,
    "real": 1,
    "memory": 4096,
    "flags": 5,
    "stopped": True,
    "ended": 1.5,
    "runs": [RUN],
}
LEFT = [
    {"size": 3, "missing": False, "sent": 3},
    {"size": 4, "missing": False, "sent": 0},
    {"size": 0, "missing": True, "sent": 0},
    {"size": 5, "missing": False, "sent": 5},
]
REPORT = {
    "frame": "report",
    "case": 1,
    "stage": 0,
    "processes": [ENDED, {**ENDED, "exit": 0, "flags": 0, "stopped": False, "runs": []}],
    "artifacts": LEFT,
}
BODY = b"outELF.."


def frame(header: object, body: bytes = b"") -> bytes:
    """One frame, as the runner would write it."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">II", len(head), len(body)) + head + body


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces; an empty one does no harm."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [b"", *(data[a:b] for a, b in pairwise(edges))]


def read(data: bytes, max_body: int = 100) -> list[Frame]:
    """All frames in `data`, given at once."""
    return list(FrameReader(max_body).feed(data))


@given(
    bodies=st.lists(st.binary(max_size=50), max_size=6),
    cuts=st.lists(st.integers(min_value=0), max_size=30),
)
def test_any_chunking_gives_the_same_frames(bodies: list[bytes], cuts: list[int]) -> None:
    data = b"".join(
        frame({"frame": "started", "case": n, "stage": 0}, body) for n, body in enumerate(bodies)
    )
    reader = FrameReader(max_body=50)

    got = [item for chunk in chunks(data, cuts) for item in reader.feed(chunk)]

    assert got == [Frame(frames.Started(n, 0), body) for n, body in enumerate(bodies)]
    assert reader.is_between_frames


@given(
    pieces=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=6),
    cuts=st.lists(st.integers(min_value=0), max_size=30),
)
def test_any_chunking_gives_the_same_streams(
    pieces: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(struct.pack(">BxxxI", stream, len(piece)) + piece for stream, piece in pieces)
    demultiplexer = Demultiplexer()

    got = [item for chunk in chunks(data, cuts) for item in demultiplexer.feed(chunk)]

    for wanted in (frames.STDOUT, frames.STDERR):
        assert b"".join(piece for stream, piece in got if stream == wanted) == b"".join(
            piece for stream, piece in pieces if stream == wanted
        )
    assert all(piece for _, piece in got)


def test_a_stream_that_there_is_not_is_refused() -> None:
    with pytest.raises(MalformedPacket, match="stream 3"):
        list(Demultiplexer().feed(struct.pack(">BxxxI", 3, 1) + b"x"))


@pytest.mark.parametrize(
    "lengths", [(frames.MAX_HEADER + 1, 0), (2, 101), (0xFFFFFFFF, 0xFFFFFFFF)]
)
def test_a_frame_above_the_bounds_is_refused_before_it_has_come(lengths: tuple[int, int]) -> None:
    with pytest.raises(PacketTooLarge):
        read(struct.pack(">II", *lengths))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        {"frame": "unknown"},
        {"frame": "started"},
        {"frame": "started", "case": "0", "stage": 0},
        {"frame": "started", "case": 0, "stage": 0, "more": 1},
        {"frame": "done", "fit": True, "why": ""},
        {"frame": "done", "fit": 1, "why": "", "memory": 1},
        {"frame": "done", "fit": True, "why": "", "memory": 1, "more": 1},
        {**REPORT, "case": 1.5},
        {**REPORT, "processes": [{**ENDED, "cpu": "1"}]},
        {**REPORT, "processes": [{**ENDED, "more": "1"}]},
        {**REPORT, "processes": [{**ENDED, "runs": [{**RUN, "flags": None}]}]},
        {**REPORT, "artifacts": [{"size": 1, "missing": 0, "sent": 1}]},
        b'{"frame":"report","case":0,"stage":0,"artifacts":[],"processes":[NaN]}',
        {"frame": "hello", "runner": "2", "python": "3.11", "cgroup": {}, "walls": "paper"},
    ],
)
def test_what_no_runner_says_is_refused(header: object) -> None:
    with pytest.raises(MalformedPacket):
        read(frame(header))


def test_a_runner_says_which_walls_it_can_build() -> None:
    cgroup = {"version": 1, "cpu": True, "memory": True, "kills": True}
    old = {"frame": "hello", "runner": "1", "python": "3.11.2", "cgroup": cgroup}

    heads = [frame(old), frame({**old, "walls": "uids"}), frame({**old, "walls": "", "why": "no"})]
    hellos = [item.header for item in read(b"".join(heads))]

    assert [(h.walls, h.why) for h in hellos if isinstance(h, frames.Hello)] == [
        (Walls.NONE, ""),
        (Walls.UIDS, ""),
        (Walls.NONE, "no"),
    ]


def test_a_report_becomes_one_of_the_cores() -> None:
    (got,) = read(frame(REPORT, BODY))

    report = frames.read_report(got, STAGE, SIZES)

    assert report.name == "grade"
    assert report.processes == (
        ProcessReport(
            *("grader", -9, 0.5, 1.0, 4096, Flag.CPU | Flag.REAL),
            stopped=True,
            ended=1.5,
            runs=(RunReport("student", 1, 0.25, 0.5, 2048),),
        ),
        ProcessReport("player", 0, 0.5, 1.0, 4096, ended=1.5),
    )
    assert report.artifacts == (
        ArtifactReport("out", 3, b"out"),
        ArtifactReport("err", 4),
        ArtifactReport("score", 0, missing=True),
        ArtifactReport("copy", 5, b"ELF.."),
    )


def ended(**change: Any) -> dict[str, Any]:
    """A report in which the first process ended otherwise."""
    return {**REPORT, "processes": [{**ENDED, **change}, ENDED]}


def left(number: int, **change: Any) -> dict[str, Any]:
    """A report with another artifact in it."""
    artifacts = [{**item, **change} if n == number else item for n, item in enumerate(LEFT)]
    return {**REPORT, "artifacts": artifacts}


@pytest.mark.parametrize(
    "said",
    [
        {**REPORT, "processes": [ENDED]},
        {**REPORT, "processes": [ENDED] * 3},
        ended(flags=32),
        ended(flags=-1),
        ended(exit=256),
        ended(exit=-128),
        ended(cpu=-0.1),
        ended(real=-1),
        ended(memory=-1),
        ended(ended=-1),
        ended(runs=[RUN] * (frames.MAX_RUNS + 1)),
        ended(runs=[{**RUN, "name": "other"}]),
        ended(runs=[{**RUN, "flags": 32}]),
        {**REPORT, "processes": [ENDED, ENDED]},  # the second may ask for no runs
        {**REPORT, "artifacts": LEFT[:3]},
        {**REPORT, "artifacts": [*LEFT, {"size": 0, "missing": False, "sent": 0}]},
        left(0, size=2),
        left(0, size=5, sent=5),
        left(0, sent=2),
        left(0, sent=-1),
        left(0, size=-1, sent=-1),
        left(0, size=0, sent=0, missing=True),  # what comes through a descriptor cannot be missing
        left(1, size=5),
        left(1, sent=4),
        left(2, size=9, missing=False),
        left(2, size=1, sent=1),
        left(3, size=6, sent=6),
    ],
)
def test_a_report_that_cannot_be_is_refused(said: dict[str, Any]) -> None:
    sent = sum(item["sent"] for item in said["artifacts"])
    (got,) = read(frame(said, BODY.ljust(sent)[:sent] if sent > 0 else b""))

    with pytest.raises(MalformedPacket):
        frames.read_report(got, STAGE, SIZES)


def test_a_body_that_is_not_as_long_as_its_artifacts_is_refused() -> None:
    for body in (BODY[:-1], BODY + b"x"):
        (got,) = read(frame(REPORT, body))
        with pytest.raises(MalformedPacket, match="not as long"):
            frames.read_report(got, STAGE, SIZES)


def test_both_ends_are_of_one_version() -> None:
    assert runner.VERSION == frames.RUNNER_VERSION


def test_a_request_is_packed_as_the_runner_reads_it() -> None:
    data = b"".join(frames.pack_request(REQUEST, SETTINGS))
    head, body = struct.unpack_from(">II", data)
    header = json.loads(data[8 : 8 + head])

    assert data[8 + head :] == b"int main;"
    assert body == 9
    stage, again = (case.pop("stages") for case in header["cases"])
    assert stage == again
    assert header == {
        "frame": "request",
        "uid": 200_001,
        "grader_uid": 201_001,
        "nofile": 256,
        "stack": 1 << 26,
        "box": 1 << 25,
        "inodes": 100,
        "files": [{"name": "main.c", "size": 9}, {"name": "empty", "size": 0}],
        "prepare": header["prepare"],
        "cases": [{"name": "one"}, {"name": "two"}],
    }
    limits = {"cpu": 0.5, "real": 2.0, "memory": 1 << 20, "output": 4, "file_size": 8}
    student = {
        "name": "student",
        "role": "learner",
        "argv": ["./main"],
        "files": [["main", "main"]],
        "env": [],
        **limits,
        "processes": 3,
        "may_run": [],
    }
    assert header["prepare"] == [
        {
            "name": "compile",
            "stop": "on_failure",
            "processes": [{**student, "name": "gcc", "files": []}],
            "pipes": [{"from": ["file", "gcc", "out/main"], "to": ["artifact", "main", False]}],
        }
    ]
    assert stage == [
        {
            "name": "grade",
            "stop": "always",
            "processes": [
                {
                    **student,
                    "name": "grader",
                    "role": "grader",
                    "argv": ["python3", "a b"],
                    "files": [["main.c", "data/x"]],
                    "env": [["A", "é"]],
                    "may_run": [student],
                },
                {**student, "name": "player"},
            ],
            "pipes": [
                {"from": ["fd", "grader", 1], "to": ["fd", "player", 0]},
                {"from": ["resource", "empty"], "to": ["fd", "grader", 0]},
                {"from": ["fd", "player", 1], "to": ["artifact", "out", True]},
                {"from": ["fd", "player", 2], "to": ["artifact", "err", False]},
                {"from": ["file", "player", "score"], "to": ["artifact", "score", True]},
                {"from": ["resource", "main"], "to": ["artifact", "copy", True]},
            ],
        }
    ]


def test_what_passes_the_check_is_read_by_the_runner() -> None:
    request_check.check(REQUEST)
    data = b"".join(frames.pack_request(REQUEST, SETTINGS))
    head, body = struct.unpack_from(">II", data)

    request = runner.Request(runner.from_json(data[8 : 8 + head]), body)

    assert (request.uid, request.grader_uid, request.inodes) == (200_001, 201_001, 100)
    assert request.files == {"main.c": 9, "empty": 0}
    assert [stage.name for stage in request.prepare] == ["compile"]
    [stage] = request.cases[1]
    assert [end.name for end in stage.artifacts] == ["out", "err", "score", "copy"]
    assert stage.processes["grader"].env == {"A": "é"}
    assert stage.processes["grader"].may_run["student"].file_size == 8


def test_a_request_that_is_too_long_to_be_said_is_refused() -> None:
    long = replace(STAGE, processes=(replace(GRADER, argv=("x" * frames.MAX_REQUEST_HEADER,)),))

    with pytest.raises(RequestError, match="longer than"):
        frames.pack_request(replace(REQUEST, cases=(Case("one", (long,)),)), SETTINGS)
