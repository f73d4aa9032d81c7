"""The sandbox: executes requests in containers of one engine, in the best form that it allows."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import structlog

from commserver.core import request_check
from commserver.core.execution import MIB, ExecutionReport, ExecutionRequest
from commserver.engine.budget import budget
from commserver.engine.container import BOOT, RUN, SITE, ContainerSpec, NoWalls, Progress
from commserver.engine.frames import Walls
from commserver.engine.pool import NUMBERS, Key, Pool
from commserver.engine.room import Room, memory_class, needed, ordinary
from commserver.engine.wrapper import DockerWrapper, ImageInfo
from commserver.errors import RequestError, SandboxError, SandboxLost

log = structlog.get_logger(__name__)

REPOSITORY = "commserver"
LABEL = "commserver.context"
"""Every image that we built has it."""


class Isolation(StrEnum):
    """What an execution has to itself."""

    NESTED = "nested"
    """Namespaces of its own, in a container that serves many one after another."""
    FRESH = "fresh"
    """A container, and namespaces in it."""
    FRESH_UID = "fresh-uid"
    """A container, and uids in it."""


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """What an execution gets, whatever it is.

    cpus: cores. nofile: open files of each process. stack: bytes of each thread.
    first_uid: the learner's in the first container alive; each has its own, and one for graders
    `NUMBERS` above it, for the kernel counts some things per uid. An engine that runs in a user
    namespace itself has none above 65535.
    runtime: the engine's name of what is to run containers, "" for its default.
    runs: how many executions a warm container serves. idle: seconds that it waits for the next at
    most. warm: how many wait for each slot at most.
    """

    cpus: float = 1.0
    nofile: int = 256
    stack: int = 64 * MIB
    first_uid: int = 200_000
    runtime: str = ""
    runs: int = 100
    idle: float = 600.0
    warm: int = 2


@dataclass(frozen=True, slots=True)
class _Work:
    """One call of `DockerSandbox.execute`."""

    request: ExecutionRequest
    run: str
    slot: int
    on_progress: Progress | None


class DockerSandbox:
    """Executes requests on one engine.

    site, boot: ids of the database and of this start of the server; `sweep` goes by them.
    nested: ordinary requests are executed in containers that serve many, one after another, as far
    as namespaces are the walls; else each has a container of its own.
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
        nested: bool = True,
        walls: Walls | None = None,
    ) -> None:
        self._wrapper = wrapper
        self._site = site
        self._boot = boot
        self._settings = settings
        self._nested = nested
        self._walls = walls
        self._confines: bool | None = None  # by AppArmor; None: not asked yet
        self._serial = itertools.count(1)
        self._pool = Pool(wrapper, runs=settings.runs, age=settings.idle, spare=settings.warm)

    @property
    def name(self) -> str:
        """The engine's URL."""
        return self._wrapper.url

    @property
    def walls(self) -> Walls | None:
        """What is between the programs of an execution; None as long as that is not known."""
        return self._walls

    @property
    def isolation(self) -> Isolation | None:
        """What an ordinary execution has to itself; None as long as that is not known."""
        match self._walls:
            case None:
                return None
            case Walls.NAMESPACES:
                return Isolation.NESTED if self._nested else Isolation.FRESH
        return Isolation.FRESH_UID

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the containers that wait for their next execution."""
        return self._pool.idle

    async def execute(
        self,
        request: ExecutionRequest,
        *,
        run: str,
        slot: int,
        on_progress: Progress | None = None,
    ) -> ExecutionReport:
        """Carry it out and return what became of it, once nothing of it is left.

        run: written on a container of its own, for people. slot: who asks; one execution at a time.
        on_progress: is told (ended, total) cases.

        Raises:
            SandboxUnavailable: the engine does not answer; nothing was begun.
            ImageMissing: it has no image of that name.
            SandboxLost: it was begun and went away.
            SandboxError: the engine refuses, or the request cannot be carried out as it stands.
        """
        try:
            request_check.check(request)
            return await self._execute(_Work(request, run, slot, on_progress))
        except RequestError as error:
            raise SandboxError(f"the request cannot be carried out: {error}") from error

    async def _execute(self, work: _Work) -> ExecutionReport:
        image = await self._wrapper.image(f"{REPOSITORY}/{work.request.image}:latest")
        if self._confines is None:
            options = (await self._wrapper.info()).security_options
            self._confines = any("name=apparmor" in option for option in options)
        key = Key(image.id, memory_class(work.request.memory))
        walls = self._walls or Walls.NAMESPACES
        try:
            report = await self._behind(walls, work, key)
        except NoWalls as error:
            if self._walls is not None:  # they could be built before: it is not the host
                raise
            log.warning("no_namespaces", engine=self.name, reason=str(error))
            self._walls = walls = Walls.UIDS
            return await self._behind(walls, work, key)
        self._walls = walls
        return report

    async def _behind(self, walls: Walls, work: _Work, key: Key) -> ExecutionReport:
        """Execute with these walls between the programs."""
        room = needed(budget(work.request), key.memory, walls)
        if walls is Walls.UIDS:
            report = await self._fresh(walls, work, key, room)
            return replace(report, isolation=Isolation.FRESH_UID)
        if self._nested and ordinary(key.memory).holds(room):
            return replace(await self._warm(work, key), isolation=Isolation.NESTED)
        report = await self._fresh(walls, work, key, room)
        return replace(report, isolation=Isolation.FRESH)

    async def _fresh(self, walls: Walls, work: _Work, key: Key, room: Room) -> ExecutionReport:
        """Execute in a container that serves nothing else."""
        labels = {RUN: work.run}
        async with self._pool.fresh(partial(self.spec, key, room, walls, labels)) as container:
            return await container.execute(work.request, work.on_progress)

    async def _warm(self, work: _Work, key: Key) -> ExecutionReport:
        """Execute in a warm container."""
        make = partial(self.spec, key, ordinary(key.memory), Walls.NAMESPACES, {})
        async with self._pool.warm(work.slot, key, make) as container:
            has_waited = container.served > 0
            try:
                return await container.execute(work.request, work.on_progress)
            except SandboxLost as error:
                if container.begun or not has_waited:
                    raise
                log.info("container_died_idle", container=container.id, reason=str(error))
        async with self._pool.warm(work.slot, key, make, new=True) as container:
            return await container.execute(work.request, work.on_progress)

    def spec(
        self, key: Key, room: Room, walls: Walls, labels: Mapping[str, str], number: int
    ) -> ContainerSpec:
        """Return what a container is to be.

        number: its own among those alive, below `NUMBERS`.
        """
        settings = self._settings
        return ContainerSpec(
            name=f"commserver-{self._site[:8]}-{self._boot[:8]}-{next(self._serial)}",
            image=key.image,
            walls=walls,
            memory=key.memory,
            room=room,
            uid=settings.first_uid + number,
            grader_uid=settings.first_uid + NUMBERS + number,
            cpus=settings.cpus,
            nofile=settings.nofile,
            stack=settings.stack,
            unconfined=bool(self._confines),
            runtime=settings.runtime,
            labels={SITE: self._site, BOOT: self._boot, **labels},
        )

    async def close(self) -> None:
        """Remove the containers that wait; no container waits any more."""
        await self._pool.close()

    async def sweep(self) -> int:
        """Remove what earlier boots of this site left on the engine; return how many."""
        found = await self._wrapper.containers({SITE: self._site})
        old = [item for item in found if item.labels.get(BOOT) != self._boot]
        for item in old:
            await self._wrapper.discard(item.name)
        return len(old)

    async def remove_leftovers(self) -> int:
        """Remove what waits no longer, and try again what could not be removed.

        Returns how many of the latter are left.
        """
        await self._pool.tidy()
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
