"""The sandbox in its simplest form: a fresh container for every execution."""

import itertools
from dataclasses import dataclass

from commserver.core import request_check
from commserver.core.execution import MIB, ExecutionReport, ExecutionRequest
from commserver.engine.budget import budget
from commserver.engine.container import (
    BOOT,
    CLASSES,
    RUN,
    SITE,
    Container,
    ContainerSpec,
    NoWalls,
    Progress,
)
from commserver.engine.frames import Walls
from commserver.engine.wrapper import DockerWrapper, ImageInfo
from commserver.errors import RequestError, SandboxError

SLOTS = 1000  # at most, so that each has its own uids

REPOSITORY = "commserver"
LABEL = "commserver.context"
"""Every image that we built has it."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What an execution gets, whatever it is.

    cpus: cores. nofile: open files of each process. stack: bytes of each thread.
    first_uid: the learner's in slot 0; each slot has its own, and one for graders `SLOTS` above it,
    for the kernel counts some things per uid. An engine that runs in a user namespace itself has
    none above 65535.
    """

    cpus: float = 1.0
    nofile: int = 256
    stack: int = 64 * MIB
    first_uid: int = 200_000


class FreshSandbox:
    """Executes requests on one engine, each in a container of its own.

    site, boot: ids of the database and of this start of the server; `sweep` goes by them.
    walls: what is between the programs of an execution; None: namespaces if the engine's host
    allows them, found out with the first execution, else uids.
    """

    def __init__(
        self,
        wrapper: DockerWrapper,
        *,
        site: str,
        boot: str,
        settings: SandboxSettings = SandboxSettings(),
        walls: Walls | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._site = site
        self._boot = boot
        self._settings = settings
        self._walls = walls
        self._fixed = walls is not None
        self._confines: bool | None = None  # by AppArmor; None: not asked yet
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        """The engine's URL."""
        return self._wrapper.url

    @property
    def walls(self) -> Walls | None:
        """What is between the programs of an execution; None as long as that is not known."""
        return self._walls

    async def execute(
        self,
        request: ExecutionRequest,
        *,
        run: str,
        slot: int,
        on_progress: Progress | None = None,
    ) -> ExecutionReport:
        """Run it in a new container and return what became of it, once the container is gone.

        run: written on the container, for people. slot: below `SLOTS`, one execution at a time.
        on_progress: is told (ended, total) cases.

        Raises:
            SandboxUnavailable: the engine does not answer; nothing was begun.
            ImageMissing: it has no image of that name.
            SandboxLost: it was begun and went away.
            SandboxError: the engine refuses, or the request cannot be carried out as it stands.
        """
        try:
            request_check.check(request)
            return await self._execute(request, run, slot, on_progress)
        except RequestError as error:
            raise SandboxError(f"the request cannot be carried out: {error}") from error

    async def _execute(
        self, request: ExecutionRequest, run: str, slot: int, on_progress: Progress | None
    ) -> ExecutionReport:
        image = await self._wrapper.image(f"{REPOSITORY}/{request.image}:latest")
        if self._confines is None:
            options = (await self._wrapper.info()).security_options
            self._confines = any("name=apparmor" in option for option in options)
        walls = self._walls or Walls.NAMESPACES
        try:
            report = await self._once(request, image, run, slot, walls, on_progress)
        except NoWalls:
            if self._fixed or walls is Walls.UIDS:
                raise
            self._walls = walls = Walls.UIDS
            return await self._once(request, image, run, slot, walls, on_progress)
        self._walls = walls
        return report

    async def _once(
        self,
        request: ExecutionRequest,
        image: ImageInfo,
        run: str,
        slot: int,
        walls: Walls,
        on_progress: Progress | None,
    ) -> ExecutionReport:
        spec = self.spec(request, image.id, run, slot, walls)
        async with Container(self._wrapper, spec, request) as container:
            return await container.execute(on_progress)

    def spec(
        self, request: ExecutionRequest, image: str, run: str, slot: int, walls: Walls
    ) -> ContainerSpec:
        """Return the container that a request gets."""
        settings = self._settings
        return ContainerSpec(
            name=f"commserver-{self._site[:8]}-{self._boot[:8]}-{next(self._numbers)}",
            image=image,
            walls=walls,
            memory=memory_class(request.memory),
            budget=budget(request),
            uid=settings.first_uid + slot,
            grader_uid=settings.first_uid + SLOTS + slot,
            cpus=settings.cpus,
            nofile=settings.nofile,
            stack=settings.stack,
            unconfined=bool(self._confines),
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
