"""Whether a request can be carried out as it stands; if not, all that is wrong with it, and where.

Whoever makes a request out of what somebody else wrote checks it here, and so does whoever carries
it out.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from commserver.core.execution import (
    CONTROL_FD,
    Artifact,
    Descriptor,
    ExecutionRequest,
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
from commserver.core.paths import is_safe
from commserver.errors import RequestError

MAX_FD = 255
MAX_NAME = 1024  # bytes
MAX_PATH = 1024  # bytes
MAX_SECONDS = 86_400.0
MAX_BYTES = 1 << 53  # above it readers of JSON begin to differ
MAX_CONTENT = (1 << 32) - 1  # bytes of all files together

_IMAGE = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(request: ExecutionRequest) -> None:
    """Return if the request can be carried out.

    Raises:
        RequestError: it cannot; each problem begins with the path of what is wrong, such as
            `cases[2].stages[0].pipes[1].write.fd`.
    """
    if problems := [f"{path}: {what}" for path, what in _request(request)]:
        raise RequestError(problems)


Problems = Iterator[tuple[str, str]]  # where, and what


def _request(request: ExecutionRequest) -> Problems:
    if not _IMAGE.fullmatch(request.image):
        yield "image", f"{request.image!r} is no name of an image"
    yield from _names("files", "name", [file.name for file in request.files])
    if sum(len(file.content) for file in request.files) > MAX_CONTENT:
        yield "files", f"they are longer than {MAX_CONTENT} bytes together"
    if not request.stages:
        yield "cases", "there is nothing to run"
    known = {file.name: "a file" for file in request.files}
    for number, stage in enumerate(request.prepare):
        if stage.stop is Stop.ALWAYS:
            yield f"prepare[{number}].stop", "what comes after `prepare` is the cases"
    yield from _pipeline("prepare", request.prepare, known)
    yield from _names("cases", "name", [case.name for case in request.cases])
    for number, case in enumerate(request.cases):
        path = f"cases[{number}].stages"
        if not case.stages:
            yield path, "there is nothing to run"
        yield from _pipeline(path, case.stages, dict(known))


def _pipeline(path: str, stages: Sequence[Stage], known: dict[str, str]) -> Problems:
    """Check stages that follow one another, and add what they leave to what is known."""
    yield from _names(path, "name", [stage.name for stage in stages])
    for number, stage in enumerate(stages):
        yield from _stage(f"{path}[{number}]", stage, known)


def _stage(path: str, stage: Stage, known: dict[str, str]) -> Problems:
    if not stage.processes:
        yield f"{path}.processes", "there is nothing to run"
    yield from _names(f"{path}.processes", "name", [process.name for process in stage.processes])
    for number, process in enumerate(stage.processes):
        yield from _process(f"{path}.processes[{number}]", process, known)
        for inner, run in enumerate(process.may_run):
            where = f"{path}.processes[{number}].may_run[{inner}]"
            yield from _process(where, run, known)
            if run.may_run:
                yield f"{where}.may_run", "a run that is asked for asks for none"
    yield from _pipes(f"{path}.pipes", stage, known)


def _process(path: str, process: Process, known: Mapping[str, str]) -> Problems:
    if not process.argv or not process.argv[0]:
        yield f"{path}.argv", "there is no program"
    for number, argument in enumerate(process.argv):
        yield from _text(f"{path}.argv[{number}]", argument)
    yield from _limits(f"{path}.limits", process.limits)
    yield from _placements(f"{path}.files", process.files, known)
    yield from _environment(f"{path}.environment", process.environment)
    if process.may_run and process.role is not Role.GRADER:
        yield f"{path}.may_run", "only a grader may ask for runs"
    yield from _names(f"{path}.may_run", "name", [run.name for run in process.may_run])


def _limits(path: str, limits: Limits) -> Problems:
    for name in ("cpu", "real"):
        seconds: float = getattr(limits, name)
        if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
            yield f"{path}.{name}", f"{seconds} is not a time of up to {MAX_SECONDS:g} seconds"
    for name in ("memory", "output", "file_size", "processes"):
        amount: int = getattr(limits, name)
        if not 0 < amount <= MAX_BYTES:
            yield f"{path}.{name}", f"{amount} is no limit"


def _placements(path: str, placements: Sequence[Placement], known: Mapping[str, str]) -> Problems:
    """Check what is put into one directory."""
    taken: set[str] = set()
    for number, placement in enumerate(placements):
        if placement.name not in known:
            yield f"{path}[{number}].name", f"there is no file or artifact {placement.name!r} yet"
        where = f"{path}[{number}].path"
        yield from _path(where, placement.path)
        if placement.path in taken:
            yield where, f"{placement.path!r} is there already"
        taken.add(placement.path)
    folders = {name[:end] for name in taken for end, char in enumerate(name) if char == "/"}
    for number, placement in enumerate(placements):
        if placement.path in folders:
            yield f"{path}[{number}].path", f"{placement.path!r} is a file and a folder"


def _environment(path: str, environment: Sequence[tuple[str, str]]) -> Problems:
    taken: set[str] = set()
    for number, (key, value) in enumerate(environment):
        where = f"{path}[{number}]"
        if not _VARIABLE.fullmatch(key):
            yield where, f"{key!r} is no name of a variable"
        if key in taken:
            yield where, f"{key!r} is there already"
        taken.add(key)
        yield from _text(where, value)


def _pipes(path: str, stage: Stage, known: dict[str, str]) -> Problems:
    """Check a stage's pipes; what they leave is known to those after it."""
    processes = {process.name: process for process in stage.processes}
    bound: set[Descriptor] = set()
    left: dict[str, str] = {}
    for number, pipe in enumerate(stage.pipes):
        where = f"{path}[{number}]"
        match pipe.read:
            case Resource(name) if name not in known:
                yield f"{where}.read.resource", f"there is no file or artifact {name!r} yet"
            case WorkFile(process, name):
                yield from _known(f"{where}.read.process", process, processes)
                yield from _path(f"{where}.read.file", name)
                if isinstance(pipe.write, Descriptor):
                    yield f"{where}.write", "what a process leaves goes to an artifact"
        match pipe.write:
            case Artifact(name):
                at = f"{where}.write.artifact"
                yield from _name(at, name)
                if name in known or name in left:
                    yield at, f"{name!r} is {known.get(name) or left[name]} already"
                left[name] = "an artifact"
        for side, end in _descriptors(pipe):
            at = f"{where}.{side}"
            yield from _known(f"{at}.process", end.process, processes)
            if not 0 <= end.fd <= MAX_FD:
                yield f"{at}.fd", f"{end.fd} is not from 0 to {MAX_FD}"
            if end in bound:
                yield f"{at}.fd", f"descriptor {end.fd} of {end.process!r} has a pipe already"
            bound.add(end)
            owner = processes.get(end.process)
            if owner and owner.may_run and end.fd == CONTROL_FD:
                yield f"{at}.fd", f"descriptor {end.fd} is where {end.process!r} asks for runs"
    known.update(left)


def _descriptors(pipe: Pipe) -> Iterator[tuple[str, Descriptor]]:
    if isinstance(pipe.read, Descriptor):
        yield "read", pipe.read
    if isinstance(pipe.write, Descriptor):
        yield "write", pipe.write


def _known(path: str, name: str, processes: Mapping[str, Process]) -> Problems:
    if name not in processes:
        yield path, f"there is no process {name!r} in this stage"


def _names(path: str, key: str, names: Iterable[str]) -> Problems:
    """Check names that must all be different."""
    taken: set[str] = set()
    for number, name in enumerate(names):
        where = f"{path}[{number}].{key}"
        yield from _name(where, name)
        if name in taken:
            yield where, f"{name!r} is there already"
        taken.add(name)


def _name(path: str, name: str) -> Problems:
    if not name:
        yield path, "it is empty"
    elif len(name.encode(errors="replace")) > MAX_NAME:
        yield path, f"it is longer than {MAX_NAME} bytes"
    yield from _text(path, name)


def _text(path: str, text: str) -> Problems:
    """Check that it can be handed to a program."""
    if "\0" in text:
        yield path, "it holds a zero byte"
    try:
        text.encode()
    except UnicodeEncodeError:
        yield path, "it is no Unicode"


def _path(path: str, name: str) -> Problems:
    if not is_safe(name) or len(name.encode()) > MAX_PATH:
        yield path, f"{name!r} is no relative, plain path"
