"""The sandbox in its simplest form: a fresh container for every execution."""

import itertools
from dataclasses import dataclass

from commserver.core.execution import MIB, ExecutionReport, ExecutionRequest
from commserver.engine import frames
from commserver.engine.container import (
    BOOT,
    CLASSES,
    RUN,
    RUNNER_BUFFERS,
    SITE,
    Container,
    ContainerSpec,
    Progress,
)
from commserver.engine.wrapper import DockerWrapper, ImageInfo
from commserver.errors import SandboxError

PAGE = 4096  # bytes: what a file takes is a multiple of it

REPOSITORY = "commserver"
LABEL = "commserver.context"
"""Every image that we built has it."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What an execution gets, whatever it is.

    cpus: cores. nofile: open files of each process. stack: bytes of each thread.
    first_uid: the learner's in slot 0; each slot has its own, for the kernel counts some things per
    uid. An engine that runs in a user namespace itself has none above 65535.
    """

    cpus: float = 1.0
    nofile: int = 256
    stack: int = 64 * MIB
    first_uid: int = 200_000


class FreshSandbox:
    """Executes requests on one engine, each in a container of its own.

    site, boot: ids of the database and of this start of the server; `sweep` goes by them.
    """

    def __init__(
        self,
        wrapper: DockerWrapper,
        *,
        site: str,
        boot: str,
        settings: SandboxSettings = SandboxSettings(),
    ) -> None:
        self._wrapper = wrapper
        self._site = site
        self._boot = boot
        self._settings = settings
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        """The engine's URL."""
        return self._wrapper.url

    async def execute(
        self,
        request: ExecutionRequest,
        *,
        run: str,
        slot: int,
        on_progress: Progress | None = None,
    ) -> ExecutionReport:
        """Run it in a new container and return what became of it, once the container is gone.

        run: written on the container, for people. slot: below 1000, one execution at a time.
        on_progress: is told (ended, total) processes.

        Raises:
            SandboxUnavailable: the engine does not answer; nothing was begun.
            ImageMissing: it has no image of that name.
            SandboxLost: it was begun and went away.
            SandboxError: the engine refuses, or the request cannot be carried out as it stands.
        """
        try:
            frames.check_request(request)
        except ValueError as error:
            raise SandboxError(f"the request cannot be carried out: {error}") from error
        image = await self._wrapper.image(f"{REPOSITORY}/{request.image}:latest")
        spec = self.spec(request, image.id, run, slot)
        async with Container(self._wrapper, spec) as container:
            return await container.execute(request, on_progress)

    def spec(self, request: ExecutionRequest, image: str, run: str, slot: int) -> ContainerSpec:
        processes = request.processes
        files = sum(-(-len(file.content) // PAGE) * PAGE for file in request.files)
        buffers = max(len(process.stdin) + 4 * process.limits.output for process in processes)
        return ContainerSpec(
            name=f"commserver-{self._site[:8]}-{self._boot[:8]}-{next(self._numbers)}",
            image=image,
            memory=memory_class(request.memory),
            uid=self._settings.first_uid + slot,
            processes=max(process.limits.processes for process in processes),
            files=files,
            file_count=len(request.files),
            buffers=max(0, buffers - RUNNER_BUFFERS),
            cpus=self._settings.cpus,
            nofile=self._settings.nofile,
            stack=self._settings.stack,
            labels={SITE: self._site, BOOT: self._boot, RUN: run},
        )

    async def sweep(self) -> int:
        """Remove what earlier boots of this site left on the engine; return how many."""
        found = await self._wrapper.containers({SITE: self._site})
        old = [item for item in found if item.labels.get(BOOT) != self._boot]
        for item in old:
            await self._wrapper.discard(item.name)
        return len(old)

    async def remove_leftovers(self) -> int:
        """Try again to remove what could not be removed; return how many are left."""
        return await self._wrapper.remove_leftovers()

    async def images(self) -> list[ImageInfo]:
        """Our images that the engine has."""
        return await self._wrapper.images(LABEL)

    async def languages(self) -> frozenset[str]:
        """What an `ExecutionRequest.image` can be on this engine."""
        prefix, suffix = f"{REPOSITORY}/", ":latest"
        return frozenset(
            tag.removeprefix(prefix).removesuffix(suffix)
            for image in await self.images()
            for tag in image.tags
            if tag.startswith(prefix) and tag.endswith(suffix) and tag != f"{prefix}base{suffix}"
        )


def memory_class(memory: int) -> int:
    """The smallest class that a limit fits into.

    Raises:
        SandboxError: it is above all of them.
    """
    for size in CLASSES:
        if memory <= size:
            return size
    raise SandboxError(f"a memory limit of {memory} bytes is above {CLASSES[-1]}")
