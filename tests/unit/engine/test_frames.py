"""Bytes in, frames out, however the bytes are cut."""

import json
import struct
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.core.execution import ExecutionRequest, File, Flag, Limits, Process
from commserver.engine import frames
from commserver.engine.frames import Demultiplexer, Frame, FrameReader
from commserver.engine.runner import runner
from commserver.errors import MalformedPacket, PacketTooLarge

SETTINGS = frames.Settings(uid=200_001, nofile=256, fsize=1 << 25, stack=1 << 26, artifact=1 << 23)

COMPILE = Process("compile", ("gcc", "main.c"), Limits(), ("main.c",), artifacts=("main",))
CASE = Process("one", ("./main", "a b"), Limits(cpu=0.5), ("main", "data/x"), b"21\n")
REQUEST = ExecutionRequest(
    image="c",
    files=(File("main.c", b"int main;"), File("data/x", b"")),
    compile=COMPILE,
    cases=(CASE, replace(CASE, name="two", stdin=b"")),
)

REPORT = {
    "frame": "report",
    "index": 1,
    "exit": -9,
    "cpu": 0.5,
    "real": 1,
    "memory": 4096,
    "flags": 5,
    "stdout": 3,
    "stderr": 2,
    "missing": [],
}


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
    data = b"".join(frame({"frame": "started", "index": n}, body) for n, body in enumerate(bodies))
    reader = FrameReader(max_body=50)

    got = [item for chunk in chunks(data, cuts) for item in reader.feed(chunk)]

    assert got == [Frame(frames.Started(n), body) for n, body in enumerate(bodies)]
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
        {"frame": "started", "index": "0"},
        {"frame": "started", "index": 0, "more": 1},
        {"frame": "done", "more": 1},
        {**REPORT, "cpu": "1"},
        {**REPORT, "missing": ["main"]},
        b'{"frame":"report","index":0,"exit":0,"cpu":NaN}',
    ],
)
def test_what_no_runner_says_is_refused(header: object) -> None:
    with pytest.raises(MalformedPacket):
        read(frame(header))


def test_a_report_becomes_one_of_the_cores() -> None:
    (got,) = read(frame({**REPORT, "missing": [0]}, b"outer"))

    report = frames.read_report(got, replace(CASE, artifacts=("main",)))

    assert (report.name, report.exit_code, report.flags) == ("one", -9, Flag.CPU | Flag.REAL)
    assert (report.cpu, report.real, report.memory) == (0.5, 1.0, 4096)
    assert (report.stdout, report.stderr, report.missing) == (b"out", b"er", ("main",))


@pytest.mark.parametrize(
    "change",
    [
        {"stdout": 2},
        {"stdout": -1, "stderr": 6},
        {"stdout": 5, "stderr": 1},
        {"flags": 32},
        {"flags": -1},
        {"exit": 256},
        {"exit": -128},
        {"cpu": -0.1},
        {"real": -1},
        {"memory": -1},
        {"missing": [0]},
        {"missing": [-1]},
    ],
)
def test_a_report_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    (got,) = read(frame({**REPORT, **change}, b"outer"))

    with pytest.raises(MalformedPacket):
        frames.read_report(got, replace(CASE, limits=Limits(output=4)))


def test_both_ends_are_of_one_version() -> None:
    assert runner.VERSION == frames.RUNNER_VERSION


def test_the_runner_reads_what_we_pack() -> None:
    frames.check_request(REQUEST)
    data = b"".join(frames.pack_request(REQUEST, SETTINGS))
    head, body = struct.unpack_from(">II", data)

    request = runner.Request(runner.from_json(data[8 : 8 + head]), body)

    assert data[8 + head :] == b"int main;21\n"
    assert (request.uid, request.nofile, request.artifact) == (200_001, 256, 1 << 23)
    assert request.files == [("main.c", 9), ("data/x", 0)]
    assert request.compile
    assert [task.name for task in request.tasks] == ["compile", "one", "two"]
    assert request.tasks[0].artifacts == ["main"]
    assert request.tasks[1].argv == ["./main", "a b"]
    assert (request.tasks[1].cpu, request.tasks[1].stdin) == (0.5, 3)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/.", "a\0b", "\ud800"),
        "x" * 256,
        "a/" * 600 + "a",
    ],
)
def test_paths_that_lead_elsewhere_are_refused_by_both_ends(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|byte"):
        frames.check_request(replace(REQUEST, files=(*REQUEST.files, File(path, b""))))
    with pytest.raises(ValueError, match=r"path|byte"):
        frames.check_request(replace(REQUEST, compile=replace(COMPILE, artifacts=("main", path))))
    with pytest.raises(runner.BrokenRequest):
        runner.take_path(path)


@pytest.mark.parametrize("path", ["x", "a/b", "-o", "@file", " ", "ü", "\udcff", "x" * 255, "..."])
def test_odd_but_plain_paths_are_taken_by_both_ends(path: str) -> None:
    frames.check_request(replace(REQUEST, files=(*REQUEST.files, File(path, b""))))

    assert runner.take_path(path) == path


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (replace(REQUEST, cases=(), compile=None), "nothing to run"),
        (replace(REQUEST, compile=None), "'main'"),
        (replace(REQUEST, cases=(replace(CASE, files=("nothing",)),)), "'nothing'"),
        (replace(REQUEST, cases=(replace(CASE, argv=()),)), "no program"),
        (replace(REQUEST, files=REQUEST.files * 2), "twice"),
        (replace(REQUEST, cases=(replace(CASE, files=("main", "main")),)), "twice"),
        (replace(REQUEST, files=(*REQUEST.files, File("data", b""))), "'data' is a file and"),
        (replace(REQUEST, compile=replace(COMPILE, artifacts=("a/b/c", "a/b"))), "'a/b' is a"),
        (replace(REQUEST, cases=(replace(CASE, argv=("",)),)), "no program"),
        (replace(REQUEST, cases=(replace(CASE, argv=("./main", "a\0b")),)), "zero byte"),
        (replace(REQUEST, cases=(replace(CASE, argv=("./main", "\ud800")),)), "no bytes"),
        (
            replace(REQUEST, cases=(replace(CASE, argv=("x" * frames.MAX_REQUEST_HEADER,)),)),
            "large",
        ),
    ],
)
def test_requests_that_cannot_be_said_are_refused(request_: ExecutionRequest, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frames.check_request(request_)


def test_what_one_case_leaves_is_not_there_for_another() -> None:
    leaving = replace(CASE, artifacts=("left",))

    with pytest.raises(ValueError, match="'left'"):
        frames.check_request(replace(REQUEST, cases=(leaving, replace(CASE, files=("left",)))))
