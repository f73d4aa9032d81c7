"""What we and the runner in a container say to one another: bytes in, frames out, no I/O.

Two layers lie on an attach socket. The engine wraps what a container writes into chunks that tell
standard output from standard error (`Demultiplexer`); on standard output the runner writes frames
(`FrameReader`; `runner/runner.py` describes them). Only the runner can write there, and it is ours,
yet everything is bounded and checked as if it were not.

Raises:
    MalformedPacket: bytes that are no frame, or a frame that says what no runner says.
    PacketTooLarge: a frame above the bounds.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from commserver.core.execution import (
    Artifact,
    ArtifactReport,
    Descriptor,
    ExecutionRequest,
    Flag,
    Pipe,
    Process,
    ProcessReport,
    Resource,
    RunReport,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.engine.budget import bounds
from commserver.errors import MalformedPacket, PacketTooLarge, RequestError

RUNNER_VERSION = "3"  # what an image's runner must say it is

MAX_HEADER = 1 << 20  # bytes
MAX_REQUEST_HEADER = 4 << 20  # bytes; the runner's own bound
MAX_RUNS = 1000  # that one process may have asked for

STDOUT, STDERR = 1, 2

ALL_FLAGS = sum(Flag)

PREPARE = -1  # as a case: the stages before all cases


class Walls(StrEnum):
    """What a runner can put between two programs."""

    NAMESPACES = "namespaces"
    """Namespaces and file systems of its own for each."""
    UIDS = "uids"
    """One uid for learners, one for graders, and directories that are wiped."""
    NONE = ""
    """Nothing: a container of the other form is needed."""


class Cgroup(msgspec.Struct, frozen=True):
    """What the runner can read of its cgroup; what it cannot, it sums up out of /proc."""

    version: int
    cpu: bool
    memory: bool
    kills: bool


class Hello(msgspec.Struct, tag_field="frame", tag="hello", frozen=True):
    """The runner is there; one of another version may say more, or less.

    why: what keeps it from building walls, if something does.
    """

    runner: str
    python: str
    cgroup: Cgroup
    walls: Walls = Walls.NONE
    why: str = ""


class Started(
    msgspec.Struct, tag_field="frame", tag="started", frozen=True, forbid_unknown_fields=True
):
    """A stage begins: number `stage` of case `case`, or of what comes before all (`PREPARE`)."""

    case: int
    stage: int


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run that a process asked for."""

    name: str
    exit: int
    cpu: float
    real: float
    memory: int
    flags: int
    stopped: bool


class Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A process that was started with its stage."""

    exit: int
    cpu: float
    real: float
    memory: int
    flags: int
    stopped: bool
    ended: float
    runs: tuple[Run, ...]


class Left(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An artifact; `sent` bytes of the body are its content."""

    size: int
    missing: bool
    sent: int


class Report(
    msgspec.Struct, tag_field="frame", tag="report", frozen=True, forbid_unknown_fields=True
):
    """A stage has ended: its processes and artifacts in the order of the request."""

    case: int
    stage: int
    processes: tuple[Ended, ...]
    artifacts: tuple[Left, ...]


class Done(msgspec.Struct, tag_field="frame", tag="done", frozen=True, forbid_unknown_fields=True):
    """No further stage of the request is run.

    fit: the container is as it was before it, so that it may serve another one; why: it is not.
    memory: bytes that it uses now.
    """

    fit: bool
    why: str
    memory: int


class Failed(
    msgspec.Struct, tag_field="frame", tag="error", frozen=True, forbid_unknown_fields=True
):
    """The container is of no more use."""

    message: str


Header = Hello | Started | Report | Done | Failed

_decoder: msgspec.json.Decoder[Header] = msgspec.json.Decoder(Header)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of the runner's."""

    header: Header
    body: bytes = b""


class FrameReader:
    """Cuts the runner's standard output into frames.

    max_body: the most bytes of a body; it may be changed between two of them.
    """

    def __init__(self, max_body: int = 0) -> None:
        self.max_body = max_body
        self._buffer = bytearray()
        self._needed = 8

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and yield the frames that they complete; exhaust it before the next call."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            head, body = struct.unpack_from(">II", self._buffer)
            if head > MAX_HEADER or body > self.max_body:
                raise PacketTooLarge(MAX_HEADER if head > MAX_HEADER else self.max_body)
            self._needed = 8 + head + body
            if len(self._buffer) < self._needed:
                return
            header = _read_header(bytes(self._buffer[8 : 8 + head]))
            content = bytes(self._buffer[8 + head : self._needed])
            del self._buffer[: self._needed]
            self._needed = 8
            yield Frame(header, content)

    @property
    def is_between_frames(self) -> bool:
        """True when nothing of a further frame has come."""
        return not self._buffer


def _read_header(data: bytes) -> Header:
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise MalformedPacket(f"a frame of the runner: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedPacket("a frame of the runner is no JSON") from error


class Demultiplexer:
    """Undoes what the engine does to a container's output: a type, a length, the bytes."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes and yield them by stream, `STDOUT` or `STDERR`, in pieces of any size."""
        view = memoryview(data)
        while view:
            if self._left == 0:
                wanted = 8 - len(self._head)
                self._head += view[:wanted]
                view = view[wanted:]
                if len(self._head) < 8:
                    return
                self._stream, self._left = struct.unpack(">BxxxI", self._head)
                self._head = b""
                if self._stream not in (STDOUT, STDERR):
                    raise MalformedPacket(f"the engine speaks of stream {self._stream}")
                continue
            piece = bytes(view[: self._left])
            view = view[len(piece) :]
            self._left -= len(piece)
            yield self._stream, piece


# --- the request ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What the runner is told beside the request.

    uid, grader_uid: whose the programs are, where uids are the walls.
    nofile: open files of each process. stack: bytes of each thread.
    box, inodes: what the file system of a work directory holds, bytes and files.
    """

    uid: int
    grader_uid: int
    nofile: int
    stack: int
    box: int
    inodes: int


def pack_request(request: ExecutionRequest, settings: Settings) -> list[bytes]:
    """Return a request as the runner reads it, in pieces, so that no content is copied.

    request: one that `request_check.check` has passed.

    Raises:
        RequestError: it is too long to be said.
    """
    header = {
        "frame": "request",
        "uid": settings.uid,
        "grader_uid": settings.grader_uid,
        "nofile": settings.nofile,
        "stack": settings.stack,
        "box": settings.box,
        "inodes": settings.inodes,
        "files": [{"name": file.name, "size": len(file.content)} for file in request.files],
        "prepare": list(map(_stage, request.prepare)),
        "cases": [
            {"name": case.name, "stages": list(map(_stage, case.stages))} for case in request.cases
        ],
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > MAX_REQUEST_HEADER:
        raise RequestError([f"cases: the request is longer than {MAX_REQUEST_HEADER} bytes"])
    contents = [file.content for file in request.files]
    return [struct.pack(">II", len(head), sum(map(len, contents))) + head, *filter(None, contents)]


def _stage(stage: Stage) -> dict[str, object]:
    return {
        "name": stage.name,
        "stop": stage.stop,
        "processes": list(map(_process, stage.processes)),
        "pipes": list(map(_pipe, stage.pipes)),
    }


def _process(process: Process) -> dict[str, object]:
    return {
        "name": process.name,
        "role": process.role,
        "argv": process.argv,
        "files": [(placement.name, placement.path) for placement in process.files],
        "env": process.environment,
        "cpu": process.limits.cpu,
        "real": process.limits.real,
        "memory": process.limits.memory,
        "output": process.limits.output,
        "file_size": process.limits.file_size,
        "processes": process.limits.processes,
        "may_run": list(map(_process, process.may_run)),
    }


def _pipe(pipe: Pipe) -> dict[str, object]:
    return {"from": _end(pipe.read), "to": _end(pipe.write)}


def _end(end: Resource | Descriptor | WorkFile | Artifact) -> list[object]:
    match end:
        case Resource(name):
            return ["resource", name]
        case Descriptor(process, fd):
            return ["fd", process, fd]
        case WorkFile(process, path):
            return ["file", process, path]
        case Artifact(name, returned):
            return ["artifact", name, returned]


# --- its reports ----------------------------------------------------------------------------------


def read_report(frame: Frame, stage: Stage, sizes: Mapping[str, int]) -> StageReport:
    """Return what became of a stage, out of a frame whose header is a `Report`.

    sizes: as `budget.bounds` takes them.

    Raises:
        MalformedPacket: it says what cannot be.
    """
    report = frame.header
    assert isinstance(report, Report)
    if len(report.processes) != len(stage.processes):
        raise MalformedPacket("a report is of other processes", "processes")
    return StageReport(
        name=stage.name,
        processes=tuple(map(_ended, report.processes, stage.processes)),
        artifacts=tuple(_artifacts(report.artifacts, frame.body, stage, sizes)),
    )


def _ended(said: Ended, process: Process) -> ProcessReport:
    _measures(said)
    if not (math.isfinite(said.ended) and said.ended >= 0):
        raise MalformedPacket("a report's measures are none", "ended")
    if len(said.runs) > MAX_RUNS:
        raise MalformedPacket("a process cannot have asked for so many runs", "runs")
    names = {run.name for run in process.may_run}
    return ProcessReport(
        name=process.name,
        exit_code=said.exit,
        cpu=said.cpu,
        real=said.real,
        memory=said.memory,
        flags=Flag(said.flags),
        stopped=said.stopped,
        ended=said.ended,
        runs=tuple(_run(run, names) for run in said.runs),
    )


def _run(said: Run, names: set[str]) -> RunReport:
    _measures(said)
    if said.name not in names:
        raise MalformedPacket("a process cannot have asked for such a run", "runs")
    return RunReport(
        name=said.name,
        exit_code=said.exit,
        cpu=said.cpu,
        real=said.real,
        memory=said.memory,
        flags=Flag(said.flags),
        stopped=said.stopped,
    )


def _measures(said: Run | Ended) -> None:
    if said.flags & ~ALL_FLAGS or not -128 < said.exit < 256:
        raise MalformedPacket("a report has flags or an exit code that there are not", "flags")
    if not all(math.isfinite(number) and number >= 0 for number in (said.cpu, said.real)):
        raise MalformedPacket("a report's measures are none", "cpu")
    if said.memory < 0:
        raise MalformedPacket("a report's measures are none", "memory")


def _artifacts(
    said: Sequence[Left], body: bytes, stage: Stage, sizes: Mapping[str, int]
) -> Iterator[ArtifactReport]:
    bounded = bounds(stage, sizes)
    if len(said) != len(bounded):
        raise MalformedPacket("a report is of other artifacts", "artifacts")
    if sum(left.sent for left in said) != len(body) or any(left.sent < 0 for left in said):
        raise MalformedPacket("a report's artifacts are not as long as it says", "sent")
    start = 0
    left_by = [pipe for pipe in stage.pipes if isinstance(pipe.write, Artifact)]
    for left, pipe, artifact in zip(said, left_by, stage.artifacts, strict=True):
        if not 0 <= left.size <= bounded[artifact.name]:
            raise MalformedPacket("an artifact is longer than it can be", "size")
        if left.sent != (left.size if artifact.returned else 0):
            raise MalformedPacket("an artifact is not sent as was asked", "sent")
        if left.missing and (left.size or not isinstance(pipe.read, WorkFile)):
            raise MalformedPacket("an artifact is missing that cannot be", "missing")
        content = body[start : start + left.sent] if artifact.returned else None
        start += left.sent
        yield ArtifactReport(
            artifact.name, left.size, None if left.missing else content, left.missing
        )
