"""How the server is, gathered from all its parts for whoever looks after it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from commserver import __version__
from commserver.core.clock import Clock
from commserver.errors import CommServerError

PROBE_DEADLINE = 2.0  # seconds for one part to say how it is

NO_ANSWER = "no answer"  # why stands with what an admin has to look at

Value = bool | int | float | str | None


class Item(Struct, frozen=True):
    """One thing of a part, such as one engine.

    says: how it is, in words. values: the same for programs; moments are ISO texts in UTC.
    problem: what an admin has to look at, a sentence; "" when all is well. It says why: `says` does
    not, since both are on one screen.
    """

    name: str
    says: str
    values: Mapping[str, Value] = {}
    problem: str = ""


class StatusReport(Struct, frozen=True):
    """How everything is at one moment.

    since: when the server began. parts: by name, in the order in which they are shown.
    problems: what an admin has to look at, a sentence each; none when all is well.
    """

    version: str
    at: datetime
    since: datetime
    problems: list[str]
    parts: dict[str, list[Item]]


def moment(at: datetime) -> str:
    """Return a moment as people are told it."""
    return f"{at:%F %T} UTC"


Probe = Callable[[], Awaitable[Sequence[Item]]]


class StatusService:
    """Asks every part how it is, all at once; one that does not answer is a problem by itself.

    probes: by the name of the part. One that raises an error of ours or the system's, or has not
    answered in `deadline` seconds, is shown with that; it is not asked again before it ends.
    """

    def __init__(
        self, probes: Mapping[str, Probe], clock: Clock, *, deadline: float = PROBE_DEADLINE
    ) -> None:
        self._probes = probes
        self._clock = clock
        self._since = clock.utc()
        self._deadline = deadline
        self._asking: dict[str, asyncio.Task[Sequence[Item]]] = {}

    async def report(self) -> StatusReport:
        """Return how everything is, within the deadline."""
        names = list(self._probes)
        found = await asyncio.gather(*(self._asked(name) for name in names))
        parts = {name: list(items) for name, items in zip(names, found, strict=True)}
        problems = [item.problem for items in found for item in items if item.problem]
        return StatusReport(__version__, self._clock.utc(), self._since, problems, parts)

    async def _asked(self, name: str) -> Sequence[Item]:
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name))
        await asyncio.wait({task}, timeout=self._deadline)
        if not task.done():
            late = f"did not answer in {self._deadline:g} s"
            return [Item(name, NO_ANSWER, problem=f"{name}: {late}")]
        return task.result()

    async def _ask(self, name: str) -> Sequence[Item]:
        try:
            return await self._probes[name]()
        except (CommServerError, OSError) as error:
            return [Item(name, NO_ANSWER, problem=f"{name}: {error}")]
        finally:
            del self._asking[name]

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
