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
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from commserver.core.execution import ExecutionRequest, Flag, Process, ProcessReport
from commserver.errors import MalformedPacket, PacketTooLarge

RUNNER_VERSION = "1"  # what an image's runner must say it is

MAX_HEADER = 1 << 20  # bytes
MAX_REQUEST_HEADER = 4 << 20  # bytes; this and the next are the runner's own bounds
MAX_PATH = 1024  # bytes

STDOUT, STDERR = 1, 2

ALL_FLAGS = sum(Flag)


class Cgroup(msgspec.Struct, frozen=True):
    """What the runner can read of its cgroup; what it cannot, it sums up out of /proc."""

    version: int
    cpu: bool
    memory: bool
    kills: bool


class Hello(msgspec.Struct, tag_field="frame", tag="hello", frozen=True):
    """The runner is there; one of another version may say more."""

    runner: str
    python: str
    cgroup: Cgroup


class Started(
    msgspec.Struct, tag_field="frame", tag="started", frozen=True, forbid_unknown_fields=True
):
    """Process `index` of `ExecutionRequest.processes` begins."""

    index: int


class Report(
    msgspec.Struct, tag_field="frame", tag="report", frozen=True, forbid_unknown_fields=True
):
    """Process `index` has ended; the body is standard output, then standard error."""

    index: int
    exit: int
    cpu: float
    real: float
    memory: int
    flags: int
    stdout: int
    stderr: int
    missing: tuple[int, ...]  # which of the process's artifacts, by their place in its list


class Done(msgspec.Struct, tag_field="frame", tag="done", frozen=True, forbid_unknown_fields=True):
    """All is done, or the compilation failed."""


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
    """Cuts the runner's standard output into frames; a body is at most `max_body` bytes."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._buffer = bytearray()
        self._needed = 8

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and yield the frames that they complete; exhaust it before the next call."""
        self._buffer += data
        while len(self._buffer) >= self._needed:
            head, body = struct.unpack_from(">II", self._buffer)
            if head > MAX_HEADER or body > self._max_body:
                raise PacketTooLarge(MAX_HEADER if head > MAX_HEADER else self._max_body)
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What the runner is told beside the request: the learner's uid and bounds in bytes."""

    uid: int
    nofile: int
    fsize: int
    stack: int
    artifact: int


def check_request(request: ExecutionRequest) -> None:
    """Return if the runner can be told this request.

    Raises:
        ValueError: it cannot, because a path leaves its folder, a file is named that is not there,
            a text has no bytes, or there is too much of it.
    """
    if not request.processes:
        raise ValueError("there is nothing to run")
    known = _distinct([file.path for file in request.files])
    for process in request.processes:
        _text(process.name)
        if not process.argv or not process.argv[0]:
            raise ValueError(f"{process.name} has no program")
        for argument in process.argv:
            _text(argument)
        if unknown := _distinct(process.files) - known:
            raise ValueError(f"{process.name} asks for {min(unknown)!r}, which is not there")
        artifacts = _distinct(process.artifacts)
        if process is request.compile:
            known |= artifacts
    _header(request, Settings(0, 0, 0, 0, 0))


def pack_request(request: ExecutionRequest, settings: Settings) -> list[bytes]:
    """A checked request as the runner reads it, in pieces, so that no content is copied."""
    head, size = _header(request, settings)
    contents = [file.content for file in request.files]
    contents += [process.stdin for process in request.processes]
    return [struct.pack(">II", len(head), size) + head, *filter(None, contents)]


def _header(request: ExecutionRequest, settings: Settings) -> tuple[bytes, int]:
    """The header, and the length of what follows it."""
    header = {
        "frame": "request",
        "uid": settings.uid,
        "nofile": settings.nofile,
        "fsize": settings.fsize,
        "stack": settings.stack,
        "artifact": settings.artifact,
        "files": [{"path": file.path, "size": len(file.content)} for file in request.files],
        "compile": _describe(request.compile) if request.compile else None,
        "cases": [_describe(process) for process in request.cases],
    }
    # The standard library's: it writes what is no UTF-8 in a file's name as an escape.
    head = json.dumps(header, separators=(",", ":")).encode()
    size = sum(len(file.content) for file in request.files)
    size += sum(len(process.stdin) for process in request.processes)
    if len(head) > MAX_REQUEST_HEADER or size >= 1 << 32:
        raise ValueError("the request is too large")
    return head, size


def _describe(process: Process) -> dict[str, object]:
    return {
        "name": process.name,
        "argv": process.argv,
        "files": process.files,
        "stdin": len(process.stdin),
        "artifacts": process.artifacts,
        "cpu": process.limits.cpu,
        "real": process.limits.real,
        "memory": process.limits.memory,
        "output": process.limits.output,
    }


def _text(text: str) -> str:
    try:
        if "\0" in text:
            raise ValueError(f"{text!r} holds a zero byte")
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError(f"{text!r} has no bytes") from error
    return text


def _path(path: str) -> str:
    parts = _text(path).split("/")
    if len(os.fsencode(path)) > MAX_PATH or any(
        part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts
    ):
        raise ValueError(f"{path!r} is no relative, plain path")
    return path


def _distinct(paths: Sequence[str]) -> set[str]:
    """Paths that can all be in one folder: none twice, none a folder of another's."""
    distinct = set(map(_path, paths))
    if len(distinct) != len(paths):
        raise ValueError("a path is there twice")
    folders = {path[:end] for path in paths for end, char in enumerate(path) if char == "/"}
    if both := distinct & folders:
        raise ValueError(f"{min(both)!r} is a file and a folder")
    return distinct


def read_report(frame: Frame, process: Process) -> ProcessReport:
    """The report of one process out of a frame whose header is a `Report`.

    Raises:
        MalformedPacket: it says what cannot be.
    """
    report = frame.header
    assert isinstance(report, Report)
    sizes = report.stdout, report.stderr
    if min(sizes) < 0 or max(sizes) > process.limits.output or sum(sizes) != len(frame.body):
        raise MalformedPacket("a report's output is not as long as it says", "stdout")
    if report.flags & ~ALL_FLAGS or not -128 < report.exit < 256:
        raise MalformedPacket("a report has flags or an exit code that there are not", "flags")
    if min(report.cpu, report.real, report.memory) < 0:
        raise MalformedPacket("a report's measures are negative", "cpu")
    if any(not 0 <= index < len(process.artifacts) for index in report.missing):
        raise MalformedPacket("a report misses what was not asked for", "missing")
    return ProcessReport(
        name=process.name,
        exit_code=report.exit,
        cpu=report.cpu,
        real=report.real,
        memory=report.memory,
        flags=Flag(report.flags),
        stdout=frame.body[: report.stdout],
        stderr=frame.body[report.stdout :],
        missing=tuple(process.artifacts[index] for index in report.missing),
    )
