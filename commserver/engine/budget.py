"""What a request can need of its container at most."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from commserver.core.execution import (
    MIB,
    Artifact,
    Descriptor,
    ExecutionRequest,
    Process,
    Resource,
    Stage,
    WorkFile,
)

PAGE = 4096  # bytes: what a file takes is a multiple of it

# What the runner needs for each program that runs: a child of its own, and namespaces. Measured:
# 1.2 MiB, and twice that while one starts.
CELL_MEMORY = 4 * MIB
RUNNER_BUFFERS = 8 * MIB  # what may pass through the runner and costs nothing more


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds for one request; sizes are bytes.

    using: what the programs that run at once may use, the files in their work directories
    included, and what the runner needs for them.
    kept: its files, and the artifacts that there can be at once; `files`: how many those are.
    placed: the files in one work directory; `entries`: how many it begins with, folders included.
    copies: the files in the work directories of all programs that run at once, and what they read
    through descriptors.
    body: the returned artifacts of one stage.
    processes: how many its programs may have at once. cells: how many programs run at once.
    """

    using: int
    kept: int
    files: int
    placed: int
    entries: int
    copies: int
    body: int
    processes: int
    cells: int


@dataclass(frozen=True, slots=True)
class _Step:
    """A stage, the bounds of all that it can read, and of the artifacts that it leaves."""

    stage: Stage
    sizes: Mapping[str, int]
    left: Mapping[str, int]


def budget(request: ExecutionRequest) -> Budget:
    """Return what a request that `request_check.check` has passed can need at most."""
    sizes = {file.name: len(file.content) for file in request.files}
    steps = list(_steps(request.prepare, sizes))
    for step in steps:
        sizes.update(step.left)
    kept, files = _paged(sizes.values()), len(sizes)
    of_cases = [(0, 0)]  # bytes and number of the artifacts of each
    for case in request.cases:
        own = list(_steps(case.stages, sizes))
        left = [size for step in own for size in step.left.values()]
        of_cases.append((_paged(left), len(left)))
        steps += own
    return Budget(
        using=_most(map(_using, steps)),
        kept=kept + max(size for size, _ in of_cases),
        files=files + max(count for _, count in of_cases),
        placed=_most(_placed(step.sizes, run) for step in steps for run in _runs(step.stage)),
        entries=_most(_entries(run) for step in steps for run in _runs(step.stage)),
        copies=_most(map(_copies, steps)),
        body=_most(map(_body, steps)),
        processes=_most(_at_once(step.stage, lambda p: p.limits.processes) for step in steps),
        cells=_most(_at_once(step.stage, lambda p: 1) for step in steps),
    )


def bounds(stage: Stage, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return how many bytes each of a stage's artifacts has at most, in their order.

    sizes: the bytes, or such bounds, of all that can be read in it, by name.
    """
    limits = {process.name: process.limits for process in stage.processes}
    found = {}
    for pipe in stage.pipes:
        if isinstance(pipe.write, Artifact):
            match pipe.read:
                case Descriptor(process, _):
                    found[pipe.write.name] = limits[process].output
                case WorkFile(process, _):
                    found[pipe.write.name] = limits[process].file_size
                case resource:
                    found[pipe.write.name] = sizes[resource.name]
    return found


def _steps(stages: Iterable[Stage], sizes: Mapping[str, int]) -> Iterator[_Step]:
    """Yield the stages of one pipeline, in order."""
    for stage in stages:
        left = bounds(stage, sizes)
        yield _Step(stage, sizes, left)
        sizes = {**sizes, **left}


def _runs(stage: Stage) -> Iterator[Process]:
    """Yield all that can be run in a stage, asked-for runs included."""
    for process in stage.processes:
        yield process
        yield from process.may_run


def _at_once(stage: Stage, measure: Callable[[Process], int]) -> int:
    """Sum up what runs at once: each process, and the largest of the runs that it asks for."""
    return sum(measure(p) + _most(map(measure, p.may_run)) for p in stage.processes)


def _using(step: _Step) -> int:
    cells = _at_once(step.stage, lambda p: 1) * CELL_MEMORY
    buffers = max(0, 2 * _passing(step) - RUNNER_BUFFERS)
    return step.stage.memory + _copies(step) + cells + buffers


def _placed(sizes: Mapping[str, int], process: Process) -> int:
    return _paged(sizes[placement.name] for placement in process.files)


def _copies(step: _Step) -> int:
    read = (
        step.sizes[pipe.read.name]
        for pipe in step.stage.pipes
        if isinstance(pipe.read, Resource) and isinstance(pipe.write, Descriptor)
    )
    return _paged(read) + _at_once(step.stage, partial(_placed, step.sizes))


def _entries(process: Process) -> int:
    return sum(placement.path.count("/") + 1 for placement in process.files)


def _passing(step: _Step) -> int:
    """Sum up what the runner may have to hold in its own memory.

    That is the artifacts that come through descriptors, and for a run that is asked for what it
    is told and answers: its input is bounded as its output is.
    """
    through = sum(
        step.left[pipe.write.name]
        for pipe in step.stage.pipes
        if isinstance(pipe.write, Artifact) and isinstance(pipe.read, Descriptor)
    )
    return through + sum(
        4 * _most(run.limits.output for run in process.may_run) for process in step.stage.processes
    )


def _body(step: _Step) -> int:
    return sum(step.left[item.name] for item in step.stage.artifacts if item.returned)


def _paged(sizes: Iterable[int]) -> int:
    return sum(-(-size // PAGE) * PAGE for size in sizes)


def _most(numbers: Iterable[int]) -> int:
    return max(numbers, default=0)
