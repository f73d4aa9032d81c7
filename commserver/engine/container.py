"""One container from its creation to its removal, and what is executed in it meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from commserver.core.execution import (
    MIB,
    CaseReport,
    ExecutionReport,
    ExecutionRequest,
    Stage,
    StageReport,
    Stop,
)
from commserver.core.text import clean_text
from commserver.engine import frames, seccomp
from commserver.engine.budget import PAGE, Budget, budget
from commserver.engine.frames import Walls
from commserver.engine.room import INODES, Room
from commserver.engine.wrapper import Attachment, DockerWrapper
from commserver.errors import (
    MalformedPacket,
    ProtocolError,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
)

# Of the runner: pipes and files of all programs that run at once.
NOFILE = 4096
CPU_PERIOD = 20_000  # microseconds

START_DEADLINE = 20.0  # seconds from the start to the runner's greeting
MARGIN = 15.0  # seconds past a stage's real limit until its report must be there
REMOVE_DEADLINE = 20.0  # seconds
STATE_DEADLINE = 5.0  # seconds, to ask what became of a container
PING_DEADLINE = 3.0  # seconds

READ_SIZE = 1 << 18  # bytes at most from the attach socket
WRITE_SIZE = 1 << 18  # bytes at most between two looks at whether it takes them
STDERR_KEPT = 4096  # bytes of what PID 1 says when it breaks
WHY_KEPT = 200  # characters of what it says keeps it from building walls

STAGED = (frames.Started, frames.Report)

RUNNER = ("/usr/bin/python3", "-I", "-S", "/opt/commserver/runner.pyc")

SITE, BOOT, RUN = "commserver.site", "commserver.boot", "commserver.run"

Progress = Callable[[int, int], None]
"""Is told how many cases have ended, of how many: first (0, n)."""


class NoWalls(SandboxError):
    """The runner cannot build the walls in this form of container; nothing was run."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is to be.

    image: an image's name or digest.
    walls: what is between its programs, which decides the form: as one ordinary user without any
    capability where the runner makes namespaces, else as uid 0 that turns into two others.
    memory: the class, bytes of `room.CLASSES`, and the room that there is with it.
    uid: the learner's, and with namespaces everybody's. grader_uid: the graders'. cpus: how many
    cores. unconfined: the engine confines containers by AppArmor, whose default forbids mounts.
    runtime: the engine's name of what is to run it, "" for its default.
    """

    name: str
    image: str
    walls: Walls
    memory: int
    room: Room
    uid: int
    grader_uid: int
    cpus: float = 1.0
    nofile: int = 256
    stack: int = 64 * MIB
    unconfined: bool = False
    runtime: str = ""
    labels: Mapping[str, str] | None = None

    def settings(self, needed: Budget) -> frames.Settings:
        """What the runner has to know of it, for a request that needs this."""
        return frames.Settings(
            uid=self.uid,
            grader_uid=self.grader_uid,
            nofile=self.nofile,
            stack=self.stack,
            box=self.memory // 2 + needed.placed,
            inodes=INODES + 2 * needed.entries,
        )

    def config(self) -> dict[str, Any]:
        """The body of the engine API's "create a container"."""
        return {
            "Image": self.image,
            "Entrypoint": list(RUNNER),
            "Cmd": [],
            "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
            "WorkingDir": "/",
            "Hostname": "sandbox",
            "Labels": dict(self.labels or {}),
            "Healthcheck": {"Test": ["NONE"]},
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "OpenStdin": True,
            # The runner's standard input ends when we hang up, and with it the runner.
            "StdinOnce": True,
            "Tty": False,
            "NetworkDisabled": True,
            "User": f"{self.uid}:{self.uid}" if self.walls is Walls.NAMESPACES else "0:0",
            "HostConfig": {
                "NetworkMode": "none",
                "CapDrop": ["ALL"],
                "Privileged": False,
                "ReadonlyRootfs": True,
                "IpcMode": "private",
                "CgroupnsMode": "private",
                "Memory": self.room.memory,
                "MemorySwap": self.room.memory,
                "PidsLimit": self.room.processes,
                # A tenth of a core for the runner, or a program on all of it would be throttled.
                # In small portions: while there is none left the runner sees nothing either.
                "CpuPeriod": CPU_PERIOD,
                "CpuQuota": int((self.cpus + 0.1) * CPU_PERIOD),
                "Ulimits": [
                    {"Name": "core", "Soft": 0, "Hard": 1},  # 1: see the runner
                    {"Name": "nofile", "Soft": NOFILE, "Hard": NOFILE},
                ],
                "LogConfig": {"Type": "none"},
                "Init": False,
                "AutoRemove": False,
                "RestartPolicy": {"Name": "no"},
                **({"Runtime": self.runtime} if self.runtime else {}),
                **(self._nested() if self.walls is Walls.NAMESPACES else self._apart()),
            },
        }

    def _nested(self) -> dict[str, Any]:
        """What lets an ordinary user make namespaces, and gives it room for what it keeps."""
        options = f"exec,mode=700,uid={self.uid},gid={self.uid}"
        return {
            "SecurityOpt": [
                "no-new-privileges",
                f"seccomp={seccomp.profile(namespaces=True)}",
                *(["apparmor=unconfined"] if self.unconfined else []),
            ],
            "Tmpfs": {"/box": _tmpfs(self.room.box, self.room.inodes, options)},
            "ShmSize": PAGE,  # each program has one of its own
        }

    def _apart(self) -> dict[str, Any]:
        """What lets uid 0 start programs as others, who share file systems that are wiped."""
        return {
            "CapAdd": ["SETUID", "SETGID", "KILL", "CHOWN"],
            "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp.profile(namespaces=False)}"],
            # Together below the class: files alone never take the runner's own memory.
            "Tmpfs": {
                "/box": _tmpfs(self.room.box, self.room.inodes, "exec,mode=711"),
                "/tmp": _tmpfs(self.memory // 4, 4096, "noexec,mode=1777"),  # noqa: S108
                "/dev/shm": _tmpfs(self.memory // 8, 1024, "noexec,mode=1777"),  # noqa: S108
            },
            "Sysctls": {
                "kernel.shmall": str(self.memory // 16 // PAGE),
                "kernel.shm_rmid_forced": "1",
                "kernel.msgmni": "16",
            },
        }


def _tmpfs(size: int, inodes: int, options: str) -> str:
    return f"rw,nosuid,nodev,size={size},nr_inodes={inodes},{options}"


class Container:
    """A container that carries out one request after the other; an async context manager.

    It is always removed. When that fails, the wrapper remembers it for `remove_leftovers`.

    id: the engine's, "" before it is open. served: how many requests were begun in it. begun: the
    last of them got so far that a program may have run. fit: it may serve another one.
    why: what is in the way, as far as the runner said so.
    """

    def __init__(self, wrapper: DockerWrapper, spec: ContainerSpec) -> None:
        self.spec = spec
        self.id = ""
        self.served = 0
        self.begun = False
        self.fit = False
        self.why = ""
        self._wrapper = wrapper
        self._attachment: Attachment | None = None
        self._reader = frames.FrameReader()
        self._incoming = self._frames()
        self._hello: frames.Hello | None = None
        self._stderr = b""

    async def __aenter__(self) -> Self:
        """Open it."""
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Create, attach and start it.

        Raises:
            SandboxUnavailable, ImageMissing, SandboxError: as `DockerWrapper`.
        """
        # Creation cleans up after itself.
        self.id = await self._wrapper.create(self.spec.name, self.spec.config())
        try:
            self._attachment = await self._wrapper.attach(self.spec.name)
            await self._wrapper.start(self.spec.name)
        except BaseException:  # cancelled as well: a container must not outlive us
            await self.close()
            raise

    async def close(self) -> None:
        """Remove it in any case: a cancellation waits for that, within its deadline."""
        self.fit = False
        await self._incoming.aclose()
        if self._attachment is not None:
            self._attachment.close()
        removal = asyncio.ensure_future(
            self._wrapper.discard(self.spec.name, deadline=REMOVE_DEADLINE)
        )
        try:
            await asyncio.shield(removal)
        except asyncio.CancelledError:
            await asyncio.wait([removal])
            raise

    @property
    def alive(self) -> bool:
        """False once its end has been heard of."""
        assert self._attachment is not None
        reader = self._attachment.reader
        return not reader.at_eof() and reader.exception() is None

    async def execute(
        self, request: ExecutionRequest, on_progress: Progress | None = None
    ) -> ExecutionReport:
        """Carry out a request that `request_check.check` has passed; return what became of it.

        Raises:
            RequestError: the request is too long.
            NoWalls: its walls cannot be built here; nothing was run.
            SandboxLost: the container or the engine went away, or the runner fell silent or gave
                up. Nothing is known of stages that were not reported.
            SandboxError: the image's runner is not of our version.
        """
        assert self._attachment is not None
        self.served += 1
        self.begun = self.fit = False
        needed = budget(request)
        pieces = frames.pack_request(request, self.spec.settings(needed))
        self._reader.max_body = needed.body
        sending = asyncio.ensure_future(_send(self._attachment.writer, pieces))
        try:
            return await self._listen(request, on_progress or (lambda ended, total: None))
        except (ProtocolError, _GaveUp, EOFError, OSError) as error:
            raise await self._explain(error) from error
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def _listen(self, request: ExecutionRequest, on_progress: Progress) -> ExecutionReport:
        sizes = {file.name: len(file.content) for file in request.files}
        cases: list[CaseReport] = []
        hello = await self._greeting()
        on_progress(0, len(request.cases))
        prepare = await self._pipeline(frames.PREPARE, request.prepare, sizes)
        if all(stage.ok for stage in prepare):
            for number, case in enumerate(request.cases):
                stages = await self._pipeline(number, case.stages, dict(sizes))
                cases.append(CaseReport(case.name, stages))
                on_progress(len(cases), len(request.cases))
        done = (await self._next(frames.Done, MARGIN)).header
        assert isinstance(done, frames.Done)
        self.fit, self.why = done.fit, clean_text(done.why)[:WHY_KEPT]
        return ExecutionReport(
            prepare=prepare,
            cases=tuple(cases),
            image=self.spec.image,
            container=self.id,
            runner=hello.runner,
        )

    async def _greeting(self) -> frames.Hello:
        """What the runner said when it began."""
        if self._hello is not None:
            return self._hello
        hello = (await self._next(frames.Hello, START_DEADLINE)).header
        assert isinstance(hello, frames.Hello)
        if hello.runner != frames.RUNNER_VERSION:
            raise SandboxError(
                f"the image {self.spec.image} has runner {hello.runner}, not"
                f" {frames.RUNNER_VERSION}: build the images again"
            )
        if hello.walls is not self.spec.walls:
            raise NoWalls(f"no {self.spec.walls} here: {clean_text(hello.why)[:WHY_KEPT]}")
        self._hello = hello
        return hello

    async def _pipeline(
        self, case: int, stages: Sequence[Stage], sizes: dict[str, int]
    ) -> tuple[StageReport, ...]:
        """Return what became of stages that follow one another; add what they leave to `sizes`."""
        reports: list[StageReport] = []
        for number, stage in enumerate(stages):
            await self._next(frames.Started, MARGIN, (case, number))
            self.begun = True
            frame = await self._next(frames.Report, stage.real + MARGIN, (case, number))
            report = frames.read_report(frame, stage, sizes)
            sizes.update((artifact.name, artifact.size) for artifact in report.artifacts)
            reports.append(report)
            if stage.stop is Stop.ALWAYS or not report.ok:
                break
        return tuple(reports)

    async def _next(
        self, kind: type[frames.Header], within: float, where: tuple[int, int] | None = None
    ) -> frames.Frame:
        """The next frame, which must be of this kind and about this stage of this case.

        Raises:
            _GaveUp: the runner says that the container is of no more use.
            MalformedPacket: it is another one.
            TimeoutError, EOFError: there is none.
        """
        try:
            async with asyncio.timeout(within):
                frame = await anext(self._incoming)
        except StopAsyncIteration as error:
            raise EOFError("the container says no more") from error
        except TimeoutError as error:
            raise TimeoutError(f"the container said nothing for {within:g} s") from error
        header = frame.header
        if isinstance(header, frames.Failed):
            raise _GaveUp(header.message)
        said = (header.case, header.stage) if isinstance(header, STAGED) else None
        if not isinstance(header, kind) or said != where:
            raise MalformedPacket(
                f"the runner said {type(header).__name__} {said}, not {kind.__name__} {where}"
            )
        return frame

    async def _frames(self) -> AsyncGenerator[frames.Frame]:
        """What the runner says, until the container ends."""
        assert self._attachment is not None
        demultiplexer = frames.Demultiplexer()
        while data := await self._attachment.reader.read(READ_SIZE):
            for stream, piece in demultiplexer.feed(data):
                if stream == frames.STDERR:
                    self._stderr = (self._stderr + piece)[-STDERR_KEPT:]
                    continue
                for frame in self._reader.feed(piece):
                    yield frame

    async def _explain(self, error: Exception) -> SandboxLost:
        """What an execution that stopped in the middle is to be called."""
        message = str(error) or type(error).__name__
        try:
            state = await self._wrapper.state(self.spec.name, STATE_DEADLINE)
        except SandboxUnavailable:
            return SandboxLost(
                "the engine went away", self.id, engine_down=not await self._engine_answers()
            )
        except SandboxError:
            return SandboxLost("the container was removed by somebody else", self.id)
        if state.status == "running":
            return SandboxLost(message, self.id)
        if state.out_of_memory:
            return SandboxLost("the container ran out of memory", self.id)
        said = self._stderr.decode(errors="replace").strip()
        return SandboxLost(
            f"the container ended with exit code {state.exit_code}: {said or message}", self.id
        )

    async def _engine_answers(self) -> bool:
        try:
            await self._wrapper.ping(PING_DEADLINE)
        except SandboxError:
            return False
        return True


class _GaveUp(Exception):
    """The runner cannot go on."""


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    """Write the request as fast as the runner takes it; what it does not want is dropped."""
    with contextlib.suppress(OSError):
        for piece in pieces:
            for start in range(0, len(piece), WRITE_SIZE):
                writer.write(piece[start : start + WRITE_SIZE])
                await writer.drain()
