"""Pipelines as the invoker protocol writes them (protocol page `invoker`): read, and answered.

What a program is and which files there are is not known here: whoever reads a pipeline says so.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from commserver.core import request_check
from commserver.core.execution import (
    KIB,
    MIB,
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    ProcessReport,
    Resource,
    Role,
    RunReport,
    Stage,
    StageReport,
    Stop,
    WorkFile,
)
from commserver.core.paths import is_safe
from commserver.errors import RequestError

MAX_DEPTH = 32  # of one thing in another
DEFAULT = Limits()
MOST = Limits(
    cpu=60.0,
    real=300.0,
    memory=1024 * MIB,
    output=64 * MIB,
    file_size=64 * MIB,
    processes=256,
)
"""The largest limits that are usually granted."""

STAGES = "cases[0].stages"  # where a check of our own finds a pipeline

E = TypeVar("E", bound=StrEnum)

_HASH = re.compile(r"[0-9a-f]{64}")
# A string, which may hold anything, or a comma before the end of an object or a list.
_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]++|\\.)*+"|,(?=[ \t\r\n]*[}\]])', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Program:
    """What a pipeline says of a program.

    executable: a hash, or where names are allowed a name. language, source: "" where not said.
    """

    language: str
    executable: str
    source: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executable:
    """How a program is started: `files` are placed beside the process's own.

    role, limits: what it has where the pipeline does not say.
    """

    argv: tuple[str, ...]
    files: tuple[Placement, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    role: Role = Role.LEARNER
    limits: Limits = DEFAULT


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What was read; stages are named by their number, all artifacts are returned.

    private: names of the artifacts that are not for contestants' eyes.
    """

    stages: tuple[Stage, ...]
    private: frozenset[str]


def read_json(text: str) -> object:
    """Return what a JSON text says, where a comma may follow the last item of a list or object.

    Raises:
        RequestError: it is no JSON, holds a key twice, or is more than `MAX_DEPTH` deep.
    """

    def cut(match: re.Match[str]) -> str:
        before = match.start() - 1
        while before >= 0 and text[before] in " \t\r\n":
            before -= 1
        follows_an_item = before >= 0 and text[before] not in ",:[{"
        return " " if match[0] == "," and follows_an_item else match[0]

    try:
        value = json.loads(
            _STRING_OR_COMMA.sub(cut, text), object_pairs_hook=_distinct, parse_constant=_refused
        )
    except json.JSONDecodeError as error:
        raise RequestError([f"line {error.lineno}: {error.msg}"]) from error
    except (ValueError, RecursionError) as error:
        raise RequestError([f"the text: {error}"]) from error
    if _depth(value) > MAX_DEPTH:
        raise RequestError([f"the text: it is more than {MAX_DEPTH} deep"])
    return value


def read_pipeline(
    value: object,
    *,
    program: Callable[[Program], Executable],
    file: Callable[[str], str] = str,
    by_name: bool = False,
    most: Limits = MOST,
) -> Pipeline:
    """Return what an `invoke_request`, or the `pipeline` in one, asks for.

    program: how a program is started. file: the name that a request has for the file of a hash.
    Either raises a RequestError where there is none; its problems begin with `executable` or the
    like. by_name: both may be given names in place of hashes, resources as `file`, and programs
    need no language.

    Raises:
        RequestError: it cannot be carried out; the problems' paths are those of the pipeline.
    """
    reader = _Reader(program, file, by_name, most)
    stages = reader.pipeline(value)
    if not reader.problems:
        reader.check(stages)
    if reader.problems:
        raise RequestError(reader.problems)
    return Pipeline(stages, frozenset(reader.private))


def answer(reports: Sequence[StageReport]) -> dict[str, object]:
    """Return `pipeline` and `artifacts` of the response for stages that were run."""
    return {
        "pipeline": [_stage(report) for report in reports],
        "artifacts": {
            artifact.name: hashlib.sha256(artifact.content or b"").hexdigest()
            for report in reports
            for artifact in report.artifacts
        },
    }


def _stage(report: StageReport) -> dict[str, object]:
    told: dict[str, object] = {
        "processes": {process.name: _measured(process) for process in report.processes}
    }
    if runs := [run for process in report.processes for run in process.runs]:
        told["runs"] = [{"name": run.name, **_measured(run)} for run in runs]
    return told


def _measured(report: ProcessReport | RunReport) -> dict[str, int]:
    return {
        "cpu": round(report.cpu * 1000),
        "real": round(report.real * 1000),
        "memory": -(-report.memory // KIB),
        "exitcode": report.exit_code,
        "flags": int(report.flags),
    }


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of what stands in one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return made


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


@dataclass(frozen=True, slots=True)
class _Given:
    """A resource: `name` is the file's or artifact's, `filename` where it is put, if it is."""

    path: str
    name: str
    filename: str | None


class _Reader:
    """One call of `read_pipeline`."""

    def __init__(
        self,
        program: Callable[[Program], Executable],
        file: Callable[[str], str],
        by_name: bool,
        most: Limits,
    ) -> None:
        self.problems: list[str] = []
        self.private: set[str] = set()
        self._program = program
        self._file = file
        self._by_name = by_name
        self._most = most
        self._files: set[str] = set()  # that the stages are given
        self._origins = {"": "", "cases": "pipeline", STAGES: "pipeline"}  # of the check's paths

    # -- pieces: each notes what is wrong, and gives what can be gone on with ----------------------

    def _wrong(self, path: str, what: str) -> None:
        self.problems.append(f"{path}: {what}")

    def _object(self, path: str, value: object, keys: Collection[str] = ()) -> Mapping[str, object]:
        """Return an object; `keys` are all that it may have, where they are known."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            self._wrong(path, "it is no object" if value is not None else "it is missing")
            return {}
        for key in value:
            if keys and key not in keys:
                self._wrong(f"{path}.{key}", f"it is none of {', '.join(keys)}")
        return value

    def _list(self, path: str, value: object) -> Sequence[object]:
        if isinstance(value, list | tuple):
            return value
        self._wrong(path, "it is no list" if value is not None else "it is missing")
        return ()

    def _text(self, path: str, value: object) -> str:
        if isinstance(value, str):
            return value
        self._wrong(path, "it is no string" if value is not None else "it is missing")
        return ""

    def _texts(self, path: str, value: object) -> tuple[str, ...]:
        items = enumerate(self._list(path, value))
        return tuple(self._text(f"{path}[{number}]", item) for number, item in items)

    def _whole(self, path: str, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        self._wrong(path, "it is no whole number" if value is not None else "it is missing")
        return 0

    def _one_of(self, path: str, value: object, kind: type[E], default: E) -> E:
        text = self._text(path, value)
        try:
            return kind(text)
        except ValueError:
            self._wrong(path, f"it is none of {', '.join(kind)}")
            return default

    # -- the pipeline -----------------------------------------------------------------------------

    def pipeline(self, value: object) -> tuple[Stage, ...]:
        """Return the stages, as far as they can be read."""
        if isinstance(value, Mapping):
            value = self._object("request", value, ("type", "id", "pipeline")).get("pipeline")
        stages = enumerate(self._list("pipeline", value))
        return tuple(self._stage(f"pipeline[{number}]", number, item) for number, item in stages)

    def check(self, stages: tuple[Stage, ...]) -> None:
        """Note what is wrong with stages that could be read."""
        files = tuple(File(name, b"") for name in sorted(self._files))
        try:
            request_check.check(ExecutionRequest("any", files, (Case("any", stages),)))
        except RequestError as error:
            self.problems += map(self._translated, error.problems)

    def _translated(self, problem: str) -> str:
        """Return a problem with the path that the pipeline has for it."""
        path, what = problem.split(": ", 1)
        ours = path
        while ours not in self._origins:
            ours = ours[: max(ours.rfind("."), ours.rfind("["))]
        return f"{self._origins[ours]}{path[len(ours) :]}: {what}"

    def _stage(self, path: str, number: int, value: object) -> Stage:
        ours = f"{STAGES}[{number}]"
        self._origins[ours] = path
        keys = ("processes", "resources", "pipes", "stop", "artifacts")
        stage = self._object(path, value, keys)
        shared = self._resources(f"{path}.resources", stage.get("resources", {}))
        own: dict[str, Mapping[str, _Given]] = {}
        processes: list[Process] = []
        written = self._object(f"{path}.processes", stage.get("processes"))
        for index, (name, item) in enumerate(written.items()):
            at = f"{path}.processes.{name}"
            process, own[name] = self._process(
                at, f"{ours}.processes[{index}]", name, item, shared.values()
            )
            processes.append(process)
        declared = self._artifacts(f"{path}.artifacts", stage.get("artifacts", {}))
        pipes = [
            self._pipe(f"{path}.pipes[{index}]", item, shared, own)
            for index, item in enumerate(self._list(f"{path}.pipes", stage.get("pipes", [])))
        ]
        leaving = {
            pipe.write.name: f"{path}.pipes[{index}].write.artifact"
            for index, pipe in enumerate(pipes)
            if isinstance(pipe.write, Artifact)
        }
        for name in declared - leaving.keys():
            self._wrong(f"{path}.artifacts.{name}", "no pipe writes to it")
        for name in leaving.keys() - declared:
            self._wrong(leaving[name], f"{name!r} is not among the stage's artifacts")
        stop = stage.get("stop", Stop.ON_FAILURE)
        return Stage(
            str(number),
            tuple(processes),
            tuple(pipes),
            self._one_of(f"{path}.stop", stop, Stop, Stop.ON_FAILURE),
        )

    def _process(
        self, path: str, ours: str, name: str, value: object, shared: Iterable[_Given]
    ) -> tuple[Process, Mapping[str, _Given]]:
        """Return a process, and the resources of its own."""
        keys = (
            *("language", "executable", "arguments", "limits", "cmdline", "resources"),
            *("role", "may_run"),
        )
        process = self._object(path, value, keys)
        self._origins[ours] = path
        started = self._executable(path, process)
        own = self._resources(f"{path}.resources", process.get("resources", {}))
        cmdline = self._texts(f"{path}.cmdline", process.get("cmdline", []))
        for index in range(len(cmdline)):
            self._origins[f"{ours}.argv[{len(started.argv) + index}]"] = f"{path}.cmdline[{index}]"
        files = list(started.files)
        for index in range(len(files)):
            self._origins[f"{ours}.files[{index}].name"] = f"{path}.executable"
            self._origins[f"{ours}.files[{index}].path"] = f"{path}.executable"
        for given in (*shared, *own.values()):
            if given.filename is not None:
                self._origins[f"{ours}.files[{len(files)}].name"] = given.path
                self._origins[f"{ours}.files[{len(files)}].path"] = f"{given.path}.filename"
                files.append(Placement(given.name, given.filename))
        role = process.get("role", started.role)
        runs = self._object(f"{path}.may_run", process.get("may_run", {}))
        made = Process(
            name=name,
            argv=(*started.argv, *cmdline),
            limits=self._limits(path, process.get("limits", {}), started.limits),
            files=tuple(files),
            environment=started.environment,
            role=self._one_of(f"{path}.role", role, Role, started.role),
            # Nothing of the stage's is put beside what a grader runs: it may be the answers.
            may_run=tuple(
                self._process(f"{path}.may_run.{key}", f"{ours}.may_run[{index}]", key, item, ())[0]
                for index, (key, item) in enumerate(runs.items())
            ),
        )
        return made, own

    def _executable(self, path: str, process: Mapping[str, object]) -> Executable:
        arguments = self._object(
            f"{path}.arguments", process.get("arguments", {}), ("source", "flags")
        )
        language = process.get("language", "" if self._by_name else None)
        said = Program(
            language=self._text(f"{path}.language", language),
            executable=self._text(f"{path}.executable", process.get("executable")),
            source=self._text(f"{path}.arguments.source", arguments.get("source", "")),
            flags=self._texts(f"{path}.arguments.flags", arguments.get("flags", [])),
        )
        if said.source and not is_safe(said.source):
            self._wrong(f"{path}.arguments.source", f"{said.source!r} is no relative, plain path")
        if said.executable and not (self._by_name or _HASH.fullmatch(said.executable)):
            self._wrong(f"{path}.executable", "it is no hash")
        elif said.executable and (said.language or self._by_name):
            try:
                found = self._program(said)
            except RequestError as error:
                self.problems += [f"{path}.{problem}" for problem in error.problems]
            else:
                self._files.update(placement.name for placement in found.files)
                return found
        return Executable((said.executable,))

    def _limits(self, path: str, value: object, default: Limits) -> Limits:
        most = self._most
        most_ms = {"cpu": int(most.cpu * 1000), "real": int(most.real * 1000)}
        allowed = {**most_ms, "memory": most.memory // KIB, "fsize": most.file_size}
        said = {}
        for key, item in self._object(f"{path}.limits", value, tuple(allowed)).items():
            amount = self._whole(f"{path}.limits.{key}", item)
            if key in allowed and not 0 < amount <= allowed[key]:
                self._wrong(f"{path}.limits.{key}", f"it is not from 1 to {allowed[key]}")
            said[key] = amount
        return replace(
            default,
            cpu=said["cpu"] / 1000 if "cpu" in said else default.cpu,
            real=said["real"] / 1000 if "real" in said else default.real,
            memory=said["memory"] * KIB if "memory" in said else default.memory,
            output=said.get("fsize", default.output),
            file_size=said.get("fsize", default.file_size),
        )

    def _resources(self, path: str, value: object) -> dict[str, _Given]:
        items = self._object(path, value).items()
        return {key: self._resource(f"{path}.{key}", key, item) for key, item in items}

    def _resource(self, path: str, key: str, value: object) -> _Given:
        kinds = ("hash", "intermediate", *(["file"] if self._by_name else []))
        resource = self._object(path, value, (*kinds, "filename"))
        filename = None
        if "filename" in resource:
            filename = self._text(f"{path}.filename", resource["filename"])
        said = [kind for kind in kinds if kind in resource]
        name = ""
        if said == ["intermediate"]:
            artifact = resource["intermediate"]
            name = key if artifact is True else self._text(f"{path}.intermediate", artifact)
        elif len(said) == 1:
            name = self._reference(f"{path}.{said[0]}", said[0], resource[said[0]])
        elif resource:
            self._wrong(path, f"it must have one of {', '.join(kinds)}")
        return _Given(path, name, filename)

    def _reference(self, path: str, kind: str, value: object) -> str:
        """Return the name of a file that is referred to."""
        text = self._text(path, value)
        if kind == "hash" and text and not _HASH.fullmatch(text):
            self._wrong(path, "it is no hash")
        elif text:
            try:
                name = self._file(text)
            except RequestError as error:
                self.problems += [f"{path}: {problem}" for problem in error.problems]
            else:
                self._files.add(name)
                return name
        return text

    def _artifacts(self, path: str, value: object) -> set[str]:
        """Return the names that a stage declares, after noting which are private."""
        declared = set()
        for name, item in self._object(path, value).items():
            private = self._object(f"{path}.{name}", item, ("private",)).get("private", False)
            if not isinstance(private, bool):
                self._wrong(f"{path}.{name}.private", "it is neither true nor false")
            elif private:
                self.private.add(name)
            declared.add(name)
        return declared

    def _pipe(
        self,
        path: str,
        value: object,
        shared: Mapping[str, _Given],
        own: Mapping[str, Mapping[str, _Given]],
    ) -> Pipe:
        pipe = self._object(path, value, ("read", "write"))
        write = self._write(f"{path}.write", pipe.get("write"))
        read = self._read(f"{path}.read", pipe.get("read"))
        if not isinstance(read, Resource):
            return Pipe(read, write)
        if isinstance(write, Descriptor):
            known = {**own.get(write.process, {}), **shared}
        else:
            known = {key: given for owned in own.values() for key, given in owned.items()}
            known.update(shared)
        if read.name in known:
            return Pipe(Resource(known[read.name].name), write)
        self._wrong(f"{path}.read.resource", f"there is no resource {read.name!r} here")
        return Pipe(read, write)

    def _read(self, path: str, value: object) -> Resource | Descriptor | WorkFile:
        end = self._object(path, value, ("resource", "process", "fd", "file"))
        match sorted(end):
            case ["resource"]:
                return Resource(self._text(f"{path}.resource", end["resource"]))
            case ["file", "process"]:
                process = self._text(f"{path}.process", end["process"])
                return WorkFile(process, self._text(f"{path}.file", end["file"]))
            case ["fd", "process"]:
                return self._descriptor(path, end)
        self._wrong(path, "it is neither a resource, nor the fd of a process, nor a file of one")
        return Resource("")

    def _write(self, path: str, value: object) -> Descriptor | Artifact:
        end = self._object(path, value, ("process", "fd", "artifact"))
        match sorted(end):
            case ["artifact"]:
                return Artifact(self._text(f"{path}.artifact", end["artifact"]))
            case ["fd", "process"]:
                return self._descriptor(path, end)
        self._wrong(path, "it is neither the fd of a process nor an artifact")
        return Artifact("")

    def _descriptor(self, path: str, end: Mapping[str, object]) -> Descriptor:
        process = self._text(f"{path}.process", end["process"])
        return Descriptor(process, self._whole(f"{path}.fd", end["fd"]))
