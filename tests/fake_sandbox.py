"""An engine that runs nothing: what becomes of each execution is written down beforehand."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from commserver.core import request_check
from commserver.core.execution import (
    Artifact,
    ArtifactReport,
    CaseReport,
    Descriptor,
    ExecutionReport,
    ExecutionRequest,
    Pipe,
    Process,
    ProcessReport,
    Resource,
    Stage,
    StageReport,
)
from commserver.errors import RequestError, SandboxError, SandboxUnavailable
from commserver.services.docker_manager import Progress

Script = Callable[[ExecutionRequest], ExecutionReport] | Exception


class Execution(NamedTuple):
    """One call of `execute`."""

    run: str
    slot: int
    request: ExecutionRequest


Output = Callable[[ExecutionRequest, Stage, Process], bytes]


def says(stdout: str) -> Callable[[ExecutionRequest], ExecutionReport]:
    """Return the script of programs that all end well and print this on standard output."""
    return prints(lambda request, stage, process: stdout.encode())


def prints(output: Output) -> Callable[[ExecutionRequest], ExecutionReport]:
    """Return the script of programs that all end well; each prints on standard output what is its.

    Whatever else a stage leaves is empty.
    """

    def left(request: ExecutionRequest, stage: Stage, pipe: Pipe) -> ArtifactReport:
        assert isinstance(pipe.write, Artifact)
        content = b""
        if isinstance(pipe.read, Descriptor) and pipe.read.fd == 1:
            [process] = [p for p in stage.processes if p.name == pipe.read.process]
            content = output(request, stage, process)
        name, returned = pipe.write.name, pipe.write.returned
        return ArtifactReport(name, len(content), content if returned else None)

    def ended(request: ExecutionRequest, stages: Iterable[Stage]) -> tuple[StageReport, ...]:
        return tuple(
            StageReport(
                stage.name,
                tuple(ProcessReport(p.name, 0, 0.01, 0.02, 1024) for p in stage.processes),
                tuple(
                    left(request, stage, p) for p in stage.pipes if isinstance(p.write, Artifact)
                ),
            )
            for stage in stages
        )

    def script(request: ExecutionRequest) -> ExecutionReport:
        return ExecutionReport(
            ended(request, request.prepare),
            tuple(CaseReport(case.name, ended(request, case.stages)) for case in request.cases),
            image="sha256:fake",
            container="fake-container",
            isolation="fresh",
            runner="fake",
        )

    return script


def _leaves(pipe: Pipe) -> bool:
    return isinstance(pipe.write, Artifact)


def stdin(request: ExecutionRequest, stage: Stage, process: Process) -> bytes:
    """Return the file that a process reads on standard input, b"" where there is none."""
    names = [
        pipe.read.name
        for pipe in stage.pipes
        if isinstance(pipe.read, Resource) and pipe.write == Descriptor(process.name, 0)
    ]
    return next((file.content for file in request.files if file.name in names), b"")


class FakeSandbox:
    """A `services.docker_manager.Sandbox`.

    images: what it has. down: it does not answer. answers: until it is set, nobody is told what it
    has. scripts: what becomes of the next executions, `otherwise` of all later ones.
    broken_sweeps: what the next sweeps fail with.

    begun: every execution, in order. ended, cancelled: the runs of those that are over.
    probed, swept, closed: how often. leftovers: how many containers could not be removed yet.
    """

    isolation: str | None = "fresh"

    def __init__(self, name: str = "engine", images: Iterable[str] = ("python", "c")) -> None:
        self.name = name
        self.images = frozenset(images)
        self.down = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.scripts: deque[Script] = deque()
        self.otherwise: Script = says("42")
        self.broken_sweeps: deque[Exception] = deque()
        self.begun: list[Execution] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.probed = 0
        self.swept = 0
        self.closed = 0
        self.leftovers = 0
        self._gate = asyncio.Event()
        self._gate.set()
        self._slots: set[int] = set()

    # -- what a test tells it ---------------------------------------------------------------------

    def hang(self) -> None:
        """Let executions begin, but not end."""
        self._gate.clear()

    def resume(self) -> None:
        """Let them end."""
        self._gate.set()

    @property
    def running(self) -> int:
        """How many executions there are now."""
        return len(self._slots)

    # -- what the manager asks of it --------------------------------------------------------------

    async def languages(self) -> frozenset[str]:
        """Return the images, unless it is down."""
        self.probed += 1
        await self.answers.wait()
        self._answer()
        return self.images

    async def sweep(self) -> int:
        """Count a sweep that works."""
        self._answer()
        if self.broken_sweeps:
            raise self.broken_sweeps.popleft()
        self.swept += 1
        return 0

    async def remove_leftovers(self) -> int:
        """Remove one of them."""
        self._answer()
        self.leftovers = max(0, self.leftovers - 1)
        return self.leftovers

    async def close(self) -> None:
        """Count it; nothing may be executed any more."""
        assert not self._slots
        self.closed += 1

    async def execute(
        self, request: ExecutionRequest, *, run: str, slot: int, on_progress: Progress | None = None
    ) -> ExecutionReport:
        """Do what the next script says; a slot has one execution at a time."""
        self._answer()
        try:
            request_check.check(request)
        except RequestError as error:
            raise SandboxError(f"the request cannot be carried out: {error}") from error
        assert slot not in self._slots
        self._slots.add(slot)
        self.begun.append(Execution(run, slot, request))
        script = self.scripts.popleft() if self.scripts else self.otherwise
        try:
            await self._gate.wait()
            if isinstance(script, Exception):
                raise script
            if on_progress:
                on_progress(len(request.cases), len(request.cases))
            return script(request)
        except asyncio.CancelledError:
            self.cancelled.append(run)
            raise
        finally:
            self._slots.discard(slot)
            self.ended.append(run)

    def _answer(self) -> None:
        if self.down:
            raise SandboxUnavailable(f"{self.name} does not answer")
