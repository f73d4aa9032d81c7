"""Our own slots: they come through the run door as any other runner does."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import NamedTuple, Protocol

import structlog

from commserver.config import Docker
from commserver.core.bus import EventBus
from commserver.core.clock import Clock
from commserver.core.events import Event, LeaseRevoked
from commserver.core.execution import ExecutionReport, ExecutionRequest
from commserver.core.jobs import Lease, LeaseId, Offer, Value
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Outcome, Verdict
from commserver.errors import (
    DefinitionError,
    GraderError,
    ImageMissing,
    NotFound,
    SandboxError,
    SandboxLost,
    SandboxUnavailable,
    StoreError,
)
from commserver.graders import kinds
from commserver.services.reruns import Slots
from commserver.services.run_service import RunService, lease_for

log = structlog.get_logger(__name__)

RECORD_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0)  # seconds between tries to record an outcome
RECORD_LEASE = 120.0  # seconds that a lease lasts at least beyond the next of them
RECORD_GRACE = 2.0  # seconds for them once all else has ended
CLOSE_DEADLINE = 25.0  # seconds to remove what is left on the engines; one removal has 20

Progress = Callable[[int, int], None]  # processes ended, of how many


class Sandbox(Protocol):
    """One engine, as the manager needs it (`engine.sandbox` has the real one)."""

    @property
    def name(self) -> str:
        """How the engine is called; what dies as one has one name."""

    @property
    def isolation(self) -> str | None:
        """What an ordinary execution has to itself, such as "nested"; None if not known yet."""

    async def languages(self) -> frozenset[str]:
        """Return which of our images the engine has, such as "python"; so it is alive, too.

        Raises:
            SandboxUnavailable: it does not answer.
        """

    async def sweep(self) -> int:
        """Remove what earlier processes of this site left; returns how many containers."""

    async def remove_leftovers(self) -> int:
        """Remove what this process could not remove before; returns how many are still there.

        Called every few seconds: what waited too long for its next execution goes as well.
        """

    async def close(self) -> None:
        """Remove what waits for its next execution; there will be none."""

    async def execute(
        self, request: ExecutionRequest, *, run: str, slot: int, on_progress: Progress | None = None
    ) -> ExecutionReport:
        """Run the request, away from all others; nothing is left of it, whatever happens.

        Raises:
            SandboxUnavailable: the engine did not answer, nothing was begun.
            ImageMissing: it has no such image.
            SandboxLost, SandboxError: it went wrong under way.
        """


@dataclass(slots=True)
class _Engine:
    """An engine and what its slots share; those that are `idle` wait for it or for a run."""

    sandbox: Sandbox
    slots: range
    images: frozenset[str] = frozenset()
    up: asyncio.Event = field(default_factory=asyncio.Event)
    doubted: asyncio.Event = field(default_factory=asyncio.Event)
    idle: dict[int, asyncio.Task[Lease]] = field(default_factory=dict)
    why: str = "it has not answered yet"  # it is down; "" while it is up
    told: bool = False  # the log has that it is down

    def offer(self, slot: int) -> Offer:
        """Return what a slot brings."""
        features = {"image": frozenset[Value](self.images)}
        return Offer(self.runner(slot), self.sandbox.name, features)

    def runner(self, slot: int) -> str:
        """Return the name of a slot."""
        return f"{self.sandbox.name}/{slot}"

    def rouse(self) -> None:
        """Let idle slots look again: what they wait with is no longer true."""
        for waiting in self.idle.values():
            waiting.cancel()

    def lend(self, slot: int) -> bool:
        """Let somebody else work on an idle slot; False when it has a run of its own by now."""
        waiting = self.idle.get(slot)
        return waiting is None or waiting.cancel()


class EngineState(NamedTuple):
    """How an engine is.

    images: of our languages. why: what keeps it down, "" while up. isolation: what an execution has
    to itself, "" as long as that is not known.
    """

    name: str
    slots: int
    images: frozenset[str]
    why: str
    isolation: str


class DockerManager:
    """The seed's DockerManager: keeps every slot of every engine busy, and every engine clean.

    An engine that stops answering loses its slots until it is back; a run that it had in hand then
    counts a try, one that was only about to begin does not.
    """

    name = "docker"

    def __init__(
        self,
        config: Docker,
        sandboxes: Sequence[Sandbox],
        runs: RunService,
        bus: EventBus,
        clock: Clock,
    ) -> None:
        self._config = config
        self._runs = runs
        self._clock = clock
        self._engines = [
            _Engine(sandbox, range(i * config.slots, (i + 1) * config.slots))
            for i, sandbox in enumerate(sandboxes)
        ]
        self._of_slot = {slot: engine for engine in self._engines for slot in engine.slots}
        self._slots = Slots(self._of_slot, clock, lambda slot: self._of_slot[slot].lend(slot))
        self._tries: dict[LeaseId, asyncio.Task[Outcome]] = {}
        self._draining = False
        self._record_until = math.inf  # monotonic seconds; an outcome not stored by then goes back
        for engine in self._engines:
            for slot in engine.slots:
                runs.expect(engine.runner(slot))
        bus.subscribe(self._revoked, LeaseRevoked)

    async def run(self) -> None:
        """Work until drained, then return; when cancelled, give back what is in hand."""
        try:
            async with asyncio.TaskGroup() as tasks:
                probes = [tasks.create_task(self._probe(engine)) for engine in self._engines]
                async with asyncio.TaskGroup() as slots:
                    for engine in self._engines:
                        for slot in engine.slots:
                            slots.create_task(self._slot(engine, slot), name=f"slot-{slot}")
                for probe in probes:
                    probe.cancel()
        finally:
            await self._close()

    async def _close(self) -> None:
        """Leave nothing on the engines; what cannot be removed now, the next start sweeps."""
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await asyncio.gather(*(engine.sandbox.close() for engine in self._engines))
        except TimeoutError:
            log.warning("engines_not_closed", within=CLOSE_DEADLINE)

    def stop(self) -> None:
        """Take nothing new."""
        self._draining = True
        for engine in self._engines:
            engine.rouse()

    async def drain(self, grace: float) -> None:
        """Take nothing new; give what runs `grace` seconds to end, then put it back."""
        self.stop()
        if self._tries:
            await asyncio.wait(self._tries.values(), timeout=grace)
        for attempt in list(self._tries.values()):
            attempt.cancel()
        self._record_until = self._clock.now() + RECORD_GRACE

    # -- engines ----------------------------------------------------------------------------------

    def engines(self) -> list[EngineState]:
        """Return how each engine is, as it was found last."""
        return [
            EngineState(e.sandbox.name, len(e.slots), e.images, e.why, e.sandbox.isolation or "")
            for e in self._engines
        ]

    async def _probe(self, engine: _Engine) -> None:
        """Know whether the engine answers and what it has, as long as we run."""
        swept = False
        while True:
            engine.doubted.clear()
            try:
                images = await engine.sandbox.languages()
                if not swept:
                    removed = await engine.sandbox.sweep()
                    log.info("engine_swept", engine=engine.sandbox.name, containers=removed)
                    swept = True
                await engine.sandbox.remove_leftovers()
            except SandboxError as error:
                self._down(engine, str(error))
            else:
                self._up(engine, images)
            pause = self._clock.now() + self._config.probe_period
            await self._clock.wait(engine.doubted, pause)

    def _up(self, engine: _Engine, images: frozenset[str]) -> None:
        engine.why, engine.told = "", False
        if engine.up.is_set() and engine.images == images:
            return
        engine.images = images
        log.info("engine_up", engine=engine.sandbox.name, images=sorted(images))
        if not images:
            log.error("no_images", advice="run: commserver images build")
        for slot in engine.slots:
            self._runs.join(engine.offer(slot))
        engine.up.set()
        engine.rouse()

    def _down(self, engine: _Engine, reason: str) -> None:
        engine.why = reason
        if not engine.told:
            log.error("engine_down", engine=engine.sandbox.name, reason=reason)
            engine.told = True
        if engine.up.is_set():
            engine.up.clear()
            for slot in engine.slots:
                self._runs.leave(engine.runner(slot))
                self._runs.expect(engine.runner(slot))
            engine.rouse()

    # -- slots ------------------------------------------------------------------------------------

    async def _slot(self, engine: _Engine, slot: int) -> None:
        """Take one run after the other, until drained."""
        while not self._draining:
            await self._slots.home(slot)
            if self._draining:
                return
            lease = await self._next(engine, slot)
            if lease is None:
                continue
            if not self._slots.take(slot, lease.id):  # lent at the same moment
                await self._give_back(lease)
                continue
            try:
                with structlog.contextvars.bound_contextvars(run=lease.job.id, slot=slot):
                    await self._serve(engine, slot, lease)
            finally:
                self._slots.give(slot, lease.id)

    async def _next(self, engine: _Engine, slot: int) -> Lease | None:
        """Wait for a run; None when the slot was roused."""
        waiting = asyncio.create_task(self._leased(engine, slot))
        engine.idle[slot] = waiting
        try:
            await asyncio.wait({waiting})
        except asyncio.CancelledError:
            waiting.cancel()
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                await self._give_back(waiting.result())
            raise
        finally:
            del engine.idle[slot]
        if waiting.cancelled():
            return None
        if self._draining:  # since it was leased, a moment ago
            await self._give_back(waiting.result())
            return None
        return waiting.result()

    async def _leased(self, engine: _Engine, slot: int) -> Lease:
        await engine.up.wait()
        return await self._runs.lease(engine.offer(slot))

    async def _serve(self, engine: _Engine, slot: int, lease: Lease) -> None:
        """See one lease through to its outcome, or give it back."""
        attempt = asyncio.create_task(self._try(engine, slot, lease))
        self._tries[lease.id] = attempt
        try:
            await asyncio.wait({attempt})
        except asyncio.CancelledError:
            attempt.cancel()
            await asyncio.wait({attempt})
            raise
        finally:
            del self._tries[lease.id]
            if attempt.cancelled():  # revoked, or put back: then nobody waits for a verdict
                await self._give_back(lease)
        if attempt.cancelled():
            return
        error = attempt.exception()
        if not isinstance(error, SandboxUnavailable):
            await self._record(lease, attempt.result())
            return
        log.warning("engine_silent", engine=engine.sandbox.name, reason=str(error))
        self._down(engine, str(error))  # until it has answered
        answers = await _answers(engine.sandbox)
        engine.doubted.set()
        if answers:
            # It is there and does not do it: without counting, that could go on for ever.
            await self._record(lease, Broken(Failure(Cause.CONTAINER, str(error))))
        else:
            await self._give_back(lease)

    async def _try(self, engine: _Engine, slot: int, lease: Lease) -> Outcome:
        """Judge one run; whatever goes wrong becomes a Broken that names its cause.

        Raises:
            SandboxUnavailable: nothing was begun; the try is to be released.
        """
        try:
            content = await self._runs.content(lease)
            bulk = await self._runs.bulk(content)
            plan = await asyncio.to_thread(kinds.plan, content, bulk)
            await self._begin(lease)
            if isinstance(plan, Verdict):
                return Completed(plan)
            await self._prolong(lease, lease_for(plan.request.real))
            report = await engine.sandbox.execute(
                plan.request,
                run=lease.job.id,
                slot=slot,
                on_progress=lambda done, of: self._runs.progressed(lease, "run", f"{done}/{of}"),
            )
            judged = Completed(await asyncio.to_thread(plan.judge, report), report)
            return await self._again(slot, lease, plan, judged) if plan.close(report) else judged
        except DefinitionError as error:
            return Broken(Failure(Cause.EXERCISE, str(error)))
        except GraderError as error:
            return Broken(Failure(Cause.EXERCISE, error.message, details=error.details))
        except ImageMissing as error:
            return Broken(Failure(Cause.IMAGE, str(error)))
        except SandboxUnavailable:
            raise
        except SandboxLost as error:
            engine.doubted.set()
            failure = Failure(Cause.CONTAINER, str(error), error.container)
            return Broken(failure, engine_died=error.engine_down)
        except SandboxError as error:
            return Broken(Failure(Cause.CONTAINER, str(error)))
        except (StoreError, NotFound) as error:
            return Broken(Failure(Cause.INTERNAL, str(error)))
        except (
            Exception
        ):  # a bug of ours must not stop the slot: the run counts a try, the next comes
            log.exception("try_failed")
            return Broken(Failure(Cause.INTERNAL, "internal error"))

    async def _prolong(self, lease: Lease, seconds: float) -> None:
        """Keep a lease for so long where it is shorter: all files are known only by now."""
        if lease.job.lease is not None and lease.job.lease < seconds:
            await self._runs.extend(lease.id, self._clock.now() + seconds)

    async def _again(
        self, slot: int, lease: Lease, plan: kinds.Plan, first: Completed
    ) -> Completed:
        """Run once more, on another slot if there is one, what was close to a limit.

        Returns the better of both; the first when there is no second.
        """
        image = plan.request.image
        engine = self._of_slot[slot]

        def fits(other: int) -> bool:
            there = self._of_slot[other]
            return there.up.is_set() and image in there.images

        try:
            async with self._slots.another(slot, lease.id, fits) as other:
                engine = self._of_slot[other]
                report = await engine.sandbox.execute(plan.request, run=lease.job.id, slot=other)
            second = await asyncio.to_thread(plan.judge, report)
        except (SandboxError, GraderError) as error:
            log.warning("rerun_failed", engine=engine.sandbox.name, reason=str(error))
            if isinstance(error, SandboxLost | SandboxUnavailable):
                engine.doubted.set()
            return first
        log.info("rerun", on=other, first=first.verdict.status, second=second.status)
        counts = report if kinds.second_is_better(first.verdict, second) else first.report
        return Completed(kinds.better(first.verdict, second), counts)

    async def _begin(self, lease: Lease) -> None:
        """Say that a try begins; one that was revoked before it could be told ends here."""
        if not await self._runs.started(lease.id):
            raise asyncio.CancelledError

    async def _record(self, lease: Lease, outcome: Outcome) -> None:
        """Have the outcome stored, however long the database is away: it was worked for.

        Only when we are to end, the run goes back instead.
        """
        for pause in chain(RECORD_PAUSES, repeat(RECORD_PAUSES[-1])):
            try:
                await self._runs.finished(lease, outcome)
            except StoreError as error:
                log.warning("outcome_not_stored", reason=str(error))
            else:
                return
            again = self._clock.now() + pause
            if lease.until is not None:
                await self._runs.extend(lease.id, again + RECORD_LEASE)
            await self._clock.wait(asyncio.Event(), again)
            if self._clock.now() >= self._record_until:
                return await self._give_back(lease)

    async def _give_back(self, lease: Lease) -> None:
        """Put a run back; where even that has to be stored and cannot be, its lease runs out."""
        try:
            await self._runs.release(lease.id)
        except StoreError as error:
            log.warning("release_not_stored", reason=str(error))

    def _revoked(self, event: Event) -> None:
        """Stop what nobody waits for any more: cancelling removes its container."""
        assert isinstance(event, LeaseRevoked)
        if attempt := self._tries.get(event.lease.id):
            attempt.cancel()


async def _answers(sandbox: Sandbox) -> bool:
    try:
        await sandbox.languages()
    except SandboxError:
        return False
    return True
