"""A container engine of a few sockets: what each runner says is written down beforehand."""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Process,
    Resource,
    Stage,
)
from commserver.engine import frames
from commserver.engine.wrapper import (
    Attachment,
    ContainerState,
    DockerWrapper,
    EngineInfo,
    ImageInfo,
)

PROCESS = Process("p", ("./p",), Limits(output=10))
STAGE = Stage(
    "s",
    (PROCESS,),
    (
        Pipe(Resource("input"), Descriptor("p", 0)),
        Pipe(Descriptor("p", 1), Artifact("out")),
    ),
)
AGAIN = Stage("t", (PROCESS,), (Pipe(Resource("out"), Descriptor("p", 0)),))
REQUEST = ExecutionRequest(
    "python", (File("input", b"21"),), (Case("one", (STAGE, AGAIN)), Case("two", (STAGE, AGAIN)))
)
PREPARED = replace(REQUEST, prepare=(Stage("build", (PROCESS,)),))


class Engine(DockerWrapper):
    """Starts nothing: what each container's runner says is written down beforehand.

    image_id: of every image. created: the configurations of all containers; names: what they are
    called. asked, explained: how often it was, about itself and about a container. discarded: how
    many containers were.
    """

    def __init__(self, *says: Sequence[bytes], security_options: tuple[str, ...] = ()) -> None:
        super().__init__("unix:///nowhere")
        self.image_id = "sha256:1"
        self.created: list[Mapping[str, Any]] = []
        self.names: list[str] = []
        self.asked = 0
        self.explained = 0
        self.discarded = 0
        self._says = list(says)
        self._options = security_options
        self._ends: list[socket.socket] = []
        self._attachments: list[Attachment] = []

    async def image(self, name: str) -> ImageInfo:
        return ImageInfo(self.image_id, (name,), {})

    async def info(self) -> EngineInfo:
        self.asked += 1
        return EngineInfo("1", "1.41", "6", "amd64", 2, 1, 1, self._options)

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        self.created.append(config)
        self.names.append(name)
        return f"id of {name}"

    async def attach(self, name: str) -> Attachment:
        ours, theirs = socket.socketpair()
        self._ends.append(theirs)
        self.say(-1, *self._says.pop(0))
        self._attachments.append(Attachment(*await asyncio.open_connection(sock=ours)))
        return self._attachments[-1]

    async def start(self, name: str) -> None:
        return

    async def state(self, name: str, deadline: float | None = None) -> ContainerState:
        self.explained += 1
        return ContainerState("running", 0, False, "")

    async def discard(self, name: str, deadline: float = 20.0) -> None:
        self.discarded += 1

    def say(self, number: int, *pieces: bytes) -> None:
        """Have the runner of a container say more."""
        data = b"".join(pieces)
        self._ends[number].sendall(struct.pack(">BxxxI", frames.STDOUT, len(data)) + data)

    def end(self, number: int) -> None:
        """Let a container end."""
        self._ends[number].close()

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for attachment in self._attachments:
            attachment.close()
        super().close()


def frame(kind: str, body: bytes = b"", **header: Any) -> bytes:
    """One frame of a runner's."""
    head = json.dumps({"frame": kind, **header}).encode()
    return struct.pack(">II", len(head), len(body)) + head + body


def hello(walls: str = "namespaces", runner: str = frames.RUNNER_VERSION) -> bytes:
    cgroup = {"version": 1, "cpu": True, "memory": True, "kills": True}
    why = "" if walls else "user namespaces:\x1b[31m EPERM"
    return frame("hello", runner=runner, python="3.11.2", cgroup=cgroup, walls=walls, why=why)


def stage(case: int, number: int, *, flags: int = 0, out: bytes | None = None) -> bytes:
    """A stage that begins and ends."""
    ended = {"exit": 0, "cpu": 0.1, "real": 0.2, "memory": 1, "flags": flags}
    process = {**ended, "stopped": False, "ended": 0.2, "runs": []}
    left = [] if out is None else [{"size": len(out), "missing": False, "sent": len(out)}]
    report = frame(
        "report", out or b"", case=case, stage=number, processes=[process], artifacts=left
    )
    return frame("started", case=case, stage=number) + report


def done(why: str = "") -> bytes:
    """The end of a request; the container is fit for another one if there is no reason against."""
    return frame("done", fit=not why, why=why, memory=1)


CASES = [stage(0, 0, out=b"42"), stage(0, 1), stage(1, 0, out=b"43"), stage(1, 1)]
AGAIN_ALL = [*CASES, done()]
"""What a runner says to `REQUEST`."""
ALL = [hello(), *AGAIN_ALL]
"""What it says to its first one."""
