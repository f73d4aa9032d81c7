"""Containers that wait warm for their next request, and the uids that each alive one has."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from commserver.engine.container import Container, ContainerSpec
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import SandboxError

log = structlog.get_logger(__name__)

NUMBERS = 1000  # of containers alive at once; as many uids lie between learners' and graders'

MakeSpec = Callable[[int], ContainerSpec]
"""Given the number of a container among those alive."""


class Key(NamedTuple):
    """What ordinary containers differ in: the image's id, and the memory class in bytes."""

    image: str
    memory: int


class Numbers:
    """Gives each of what is alive at once a number of its own, below `NUMBERS`.

    In rotation: what the kernel still counts for a uid when its container has gone is nobody's for
    as long as can be.
    """

    def __init__(self) -> None:
        self._next = 0
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return one that nobody has.

        Raises:
            SandboxError: there is none.
        """
        if len(self._taken) == NUMBERS:
            raise SandboxError(f"there are {NUMBERS} containers already")
        while self._next in self._taken:
            self._next = (self._next + 1) % NUMBERS
        number, self._next = self._next, (self._next + 1) % NUMBERS
        self._taken.add(number)
        return number

    def give(self, number: int) -> None:
        """Take a number back."""
        self._taken.discard(number)


@dataclass(frozen=True, slots=True)
class _Idle:
    """A container that waits, and since when: monotonic seconds."""

    container: Container
    key: Key
    since: float


class Pool:
    """One engine's containers: each is made when it is needed, and the warm ones kept for more.

    runs: how many requests one serves. age: seconds that one waits for the next at most. spare: how
    many wait for each slot there is at most; those used longest ago go first.
    """

    def __init__(
        self,
        wrapper: DockerWrapper,
        *,
        runs: int,
        age: float,
        spare: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wrapper = wrapper
        self._runs = runs
        self._age = age
        self._spare = spare
        self._clock = clock
        self._numbers = Numbers()
        self._number_of: dict[str, int] = {}  # by the container's name
        self._idle: list[_Idle] = []  # the one that was used last is the last
        self._slots: set[int] = set()
        self._closed = False

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of the containers that wait."""
        return tuple(item.container.spec.name for item in self._idle)

    @asynccontextmanager
    async def fresh(self, make: MakeSpec) -> AsyncIterator[Container]:
        """Yield a container that is nobody else's, before or afterwards.

        Raises:
            SandboxError: as `Container.open`.
        """
        container = await self._opened(make)
        try:
            yield container
        finally:
            await self._remove(container)

    @asynccontextmanager
    async def warm(
        self, slot: int, key: Key, make: MakeSpec, *, new: bool = False
    ) -> AsyncIterator[Container]:
        """Yield a container that waited, else a new one; if it stays fit, it waits afterwards.

        new: none that has waited.

        Raises:
            SandboxError: as `Container.open`.
        """
        self._slots.add(slot)
        container = (None if new else self._waiting(key)) or await self._opened(make)
        try:
            yield container
        finally:
            await self._give_back(container, key)

    async def tidy(self) -> None:
        """Remove those that have died, have waited too long, or are too many."""
        oldest = self._clock() - self._age
        kept = [item for item in self._idle if item.container.alive and item.since > oldest]
        kept = kept[max(0, len(kept) - self._spare * len(self._slots)) :]
        await self._keep(kept)

    async def close(self) -> None:
        """Remove all that wait; from now on none does."""
        self._closed = True
        await self._keep([])

    async def _keep(self, kept: list[_Idle]) -> None:
        """Let only these wait on."""
        gone = [item.container for item in self._idle if item not in kept]
        self._idle = kept
        await asyncio.gather(*map(self._remove, gone))

    def _waiting(self, key: Key) -> Container | None:
        """Take the container that was used last, or None; `tidy` removes the dead ones."""
        for item in reversed(self._idle):
            if item.key == key and item.container.alive:
                self._idle.remove(item)
                return item.container
        return None

    async def _opened(self, make: MakeSpec) -> Container:
        number = self._numbers.take()
        try:
            container = Container(self._wrapper, make(number))
            await container.open()
        except BaseException:  # cancelled as well: it has removed itself
            self._numbers.give(number)
            raise
        self._number_of[container.spec.name] = number
        return container

    async def _give_back(self, container: Container, key: Key) -> None:
        if container.fit and container.served < self._runs and not self._closed:
            self._idle.append(_Idle(container, key, self._clock()))
        else:
            if container.why:
                log.info("container_unfit", container=container.id, reason=container.why)
            await self._remove(container)
        await self.tidy()

    async def _remove(self, container: Container) -> None:
        try:
            await container.close()
        finally:
            self._numbers.give(self._number_of.pop(container.spec.name))
