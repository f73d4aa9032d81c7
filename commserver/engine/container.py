"""One container from its creation to its removal, and one execution in it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from commserver.core.execution import (
    MIB,
    ExecutionReport,
    ExecutionRequest,
    ProcessReport,
)
from commserver.engine import frames, seccomp
from commserver.engine.wrapper import Attachment, DockerWrapper
from commserver.errors import (
    MalformedPacket,
    ProtocolError,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
)

CLASSES = tuple(size * MIB for size in (64, 128, 256, 512, 1024))
"""The memory that a learner's program can get, bytes; a limit between two is sampled for."""

RUNNER_MEMORY = 32 * MIB  # what PID 1 has beside the class
RUNNER_BUFFERS = 8 * MIB  # of it, for a program's input and outputs

# runc is several threads while it starts a container, and they count.
PROCESSES_MIN = 16

CPU_PERIOD = 20_000  # microseconds

START_DEADLINE = 20.0  # seconds from the start to the runner's greeting
MARGIN = 15.0  # seconds past a process's real limit until its report must be there
REMOVE_DEADLINE = 20.0  # seconds
STATE_DEADLINE = 5.0  # seconds, to ask what became of a container
PING_DEADLINE = 3.0  # seconds

READ_SIZE = 1 << 18  # bytes at most from the attach socket
WRITE_SIZE = 1 << 18  # bytes at most between two looks at whether it takes them
STDERR_KEPT = 4096  # bytes of what PID 1 says when it breaks

RUNNER = ("/usr/bin/python3", "-I", "-S", "/opt/commserver/runner.pyc")

SITE, BOOT, RUN = "commserver.site", "commserver.boot", "commserver.run"

Progress = Callable[[int, int], None]
"""Is told how many processes have ended, of how many: first (0, n)."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a container is to be.

    image: an image's name or digest.
    memory: the class, bytes of `CLASSES`. files: bytes for the request's files beside it.
    buffers: bytes that the runner needs beyond `RUNNER_BUFFERS`.
    processes: how many the learner may have at once. uid: the learner's. cpus: how many cores.
    """

    name: str
    image: str
    memory: int
    uid: int
    processes: int = 32
    files: int = 0
    buffers: int = 0
    file_count: int = 0
    cpus: float = 1.0
    nofile: int = 256
    stack: int = 64 * MIB
    labels: Mapping[str, str] | None = None

    @property
    def box(self) -> int:
        """Bytes of the file system with the work directory."""
        return self.memory // 2 + self.files

    def settings(self) -> frames.Settings:
        """What the runner has to know of it."""
        return frames.Settings(
            uid=self.uid,
            nofile=self.nofile,
            fsize=self.box,
            stack=self.stack,
            artifact=self.memory // 8,
        )

    def config(self) -> dict[str, Any]:
        """The body of the engine API's "create a container"."""
        memory = self.memory + self.files + RUNNER_MEMORY + self.buffers
        return {
            "Image": self.image,
            "Entrypoint": list(RUNNER),
            "Cmd": [],
            "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
            "User": "0:0",
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
            "HostConfig": {
                "NetworkMode": "none",
                "CapDrop": ["ALL"],
                "CapAdd": ["SETUID", "SETGID", "KILL", "CHOWN"],
                "SecurityOpt": ["no-new-privileges", f"seccomp={seccomp.profile()}"],
                "Privileged": False,
                "ReadonlyRootfs": True,
                # Together below the class: files alone never take the runner's own memory.
                "Tmpfs": {
                    "/box": _tmpfs(self.box, 16384 + 2 * self.file_count, "exec,mode=711"),
                    "/tmp": _tmpfs(self.memory // 4, 4096, "noexec,mode=1777"),  # noqa: S108
                    "/dev/shm": _tmpfs(self.memory // 8, 1024, "noexec,mode=1777"),  # noqa: S108
                },
                "IpcMode": "private",
                "CgroupnsMode": "private",
                "Sysctls": {
                    "kernel.shmall": str(self.memory // 16 // 4096),
                    "kernel.shm_rmid_forced": "1",
                    "kernel.msgmni": "16",
                },
                "Memory": memory,
                "MemorySwap": memory,
                "PidsLimit": max(self.processes + 1, PROCESSES_MIN),
                # A tenth of a core for the runner, or a program on all of it would be throttled.
                # In small portions: while there is none left the runner sees nothing either.
                "CpuPeriod": CPU_PERIOD,
                "CpuQuota": int((self.cpus + 0.1) * CPU_PERIOD),
                "Ulimits": [
                    {"Name": "core", "Soft": 0, "Hard": 1},  # 1: see the runner
                    {"Name": "nofile", "Soft": self.nofile, "Hard": self.nofile},
                ],
                "LogConfig": {"Type": "none"},
                "Init": False,
                "AutoRemove": False,
                "RestartPolicy": {"Name": "no"},
            },
        }


def _tmpfs(size: int, inodes: int, options: str) -> str:
    return f"rw,nosuid,nodev,size={size},nr_inodes={inodes},{options}"


class Container:
    """A container that runs one request; use it as an async context manager.

    It is always removed. When that fails, the wrapper remembers it for `remove_leftovers`.
    """

    def __init__(self, wrapper: DockerWrapper, spec: ContainerSpec) -> None:
        self.spec = spec
        self.id = ""
        self._wrapper = wrapper
        self._attachment: Attachment | None = None
        self._stderr = b""

    async def __aenter__(self) -> Self:
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
            await self._remove()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._remove()

    async def _remove(self) -> None:
        """Remove it in any case: a cancellation waits for that, within its deadline."""
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

    async def execute(
        self, request: ExecutionRequest, on_progress: Progress | None = None
    ) -> ExecutionReport:
        """Run a request that `frames.check_request` has passed; return what became of it.

        Raises:
            SandboxLost: the container or the engine went away, or the runner fell silent or gave
                up. Nothing is known of processes that were not reported.
            SandboxError: the image's runner is not of our version.
        """
        assert self._attachment is not None
        pieces = frames.pack_request(request, self.spec.settings())
        sending = asyncio.ensure_future(_send(self._attachment.writer, pieces))
        try:
            return await self._listen(request, on_progress or (lambda ended, total: None))
        except (ProtocolError, _GaveUp, EOFError, OSError) as error:
            raise await self._explain(error) from error
        finally:
            sending.cancel()
            await asyncio.wait([sending])

    async def _listen(self, request: ExecutionRequest, on_progress: Progress) -> ExecutionReport:
        processes = request.processes
        longest = max(process.limits.output for process in processes)
        reports: list[ProcessReport] = []
        async with contextlib.aclosing(self._frames(max_body=2 * longest)) as incoming:
            hello = (await _next(incoming, frames.Hello, START_DEADLINE)).header
            assert isinstance(hello, frames.Hello)
            if hello.runner != frames.RUNNER_VERSION:
                raise SandboxError(
                    f"the image {self.spec.image} has runner {hello.runner}, not"
                    f" {frames.RUNNER_VERSION}: build the images again"
                )
            on_progress(0, len(processes))
            for index, process in enumerate(processes):
                await _next(incoming, frames.Started, MARGIN, index)
                frame = await _next(incoming, frames.Report, process.limits.real + MARGIN, index)
                reports.append(frames.read_report(frame, process))
                on_progress(len(reports), len(processes))
                if request.compile is process and not reports[-1].ok:
                    break
            await _next(incoming, frames.Done, MARGIN)
        return ExecutionReport(
            compile=reports.pop(0) if request.compile else None,
            cases=tuple(reports),
            image=self.spec.image,
            container=self.id,
            isolation="fresh",
            runner=hello.runner,
        )

    async def _frames(self, max_body: int) -> AsyncGenerator[frames.Frame]:
        """What the runner says, until the container ends."""
        assert self._attachment is not None
        demultiplexer = frames.Demultiplexer()
        reader = frames.FrameReader(max_body)
        while data := await self._attachment.reader.read(READ_SIZE):
            for stream, piece in demultiplexer.feed(data):
                if stream == frames.STDERR:
                    self._stderr = (self._stderr + piece)[-STDERR_KEPT:]
                    continue
                for frame in reader.feed(piece):
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


async def _next(
    incoming: AsyncGenerator[frames.Frame],
    kind: type[frames.Header],
    within: float,
    index: int | None = None,
) -> frames.Frame:
    """The next frame, which must be of this kind and about this process.

    Raises:
        _GaveUp: the runner says that the container is of no more use.
        MalformedPacket: it is another one.
        TimeoutError, EOFError: there is none.
    """
    try:
        async with asyncio.timeout(within):
            frame = await anext(incoming)
    except StopAsyncIteration as error:
        raise EOFError("the container says no more") from error
    except TimeoutError as error:
        raise TimeoutError(f"the container said nothing for {within:g} s") from error
    header = frame.header
    if isinstance(header, frames.Failed):
        raise _GaveUp(header.message)
    if not isinstance(header, kind) or getattr(header, "index", None) != index:
        raise MalformedPacket(f"the runner said {header}, not {kind.__name__} {index}")
    return frame


class _GaveUp(Exception):
    """The runner cannot go on."""


async def _send(writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> None:
    """Write the request as fast as the runner takes it; what it does not want is dropped."""
    with contextlib.suppress(OSError):
        for piece in pieces:
            for start in range(0, len(piece), WRITE_SIZE):
                writer.write(piece[start : start + WRITE_SIZE])
                await writer.drain()
