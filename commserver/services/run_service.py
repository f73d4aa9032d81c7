"""The run door: whoever runs jobs takes them here and says here how it went."""

import asyncio
from collections.abc import Collection

import structlog

from commserver.core.board import Gone
from commserver.core.dispatcher import Dispatcher
from commserver.core.jobs import ContentHash, Lease, LeaseId, Offer, Requires, RunId
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Outcome
from commserver.errors import NotFound, StoreRefused
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.services.file_store import FileStore

log = structlog.get_logger(__name__)

LEASE_MARGIN = 120.0  # seconds a slot may need beside the sandboxed programs themselves
RUNS = 2  # of the same programs in one lease: what is close to a limit is run once more


def lease_for(real: float) -> float:
    """Return how long a runner may need for what takes `real` at most in the sandbox, seconds."""
    return RUNS * real + LEASE_MARGIN


class RunService:
    """What a runner of any kind may ask: our own slots, and later other machines'."""

    def __init__(self, dispatcher: Dispatcher, files: FileStore) -> None:
        self._dispatcher = dispatcher
        self._files = files
        self._away: set[str] = set()  # runners that will be back, with what they offer then

    def expect(self, runner: str) -> None:
        """Know that a runner will come, or come back: until then nobody can say what fits none."""
        self._away.add(runner)

    def join(self, offer: Offer) -> None:
        """Know a runner before it asks, or its newer offer."""
        self._away.discard(offer.runner)
        self._dispatcher.join(offer)

    def leave(self, runner: str) -> None:
        """Forget a runner; what it has leased stays its own until the lease ends."""
        self._dispatcher.leave(runner)

    def could_run(self, requires: Requires) -> bool:
        """Return whether a known runner fits, or one that is expected might, or none is known."""
        board = self._dispatcher.board
        return bool(self._away) or not board.runners or board.could_run(requires)

    async def lease(self, offer: Offer) -> Lease:
        """Wait for a run that fits."""
        lease = await self._dispatcher.lease(offer)
        log.info("run_leased", run=lease.job.id, runner=offer.runner)
        return lease

    async def try_lease(
        self, offer: Offer, count: int = 1, skip: Collection[RunId] = ()
    ) -> list[Lease]:
        """Return up to `count` runs that fit and are there now."""
        return await self._dispatcher.try_lease(offer, count, skip)

    async def content(self, lease: Lease) -> Content:
        """Return what there is to judge.

        Raises:
            NotFound, StoreError: it cannot be had.
        """
        return Content.decode(await self._files.get(lease.job.content))

    async def bulk(self, content: Content) -> dict[str, bytes]:
        """Return the large files of its exercise by their sha256, those of them that are there.

        Raises:
            StoreError: one cannot be read, or is not what its name says.
        """
        found: dict[str, bytes] = {}
        for name in sorted(await asyncio.to_thread(kinds.references, content.grader)):
            try:
                found[name] = await self._files.get(ContentHash(name))
            except NotFound:  # whoever plans with it knows what its teacher calls it
                log.warning("exercise_file_missing", file=name)
        return found

    async def started(self, lease: LeaseId) -> bool:
        """Say that it has begun; False when the lease is over."""
        return await self._dispatcher.started(lease)

    def progressed(self, lease: Lease, stage: str, text: str) -> None:
        """Say how far it is, for whoever looks on."""
        self._dispatcher.progressed(lease, stage, text)

    async def extend(self, lease: LeaseId, until: float) -> bool:
        """Keep it until `until`, monotonic seconds; False when the lease is over."""
        return await self._dispatcher.extend(lease, until)

    async def release(self, lease: LeaseId) -> bool:
        """Give it back untouched: free of charge, to its old place."""
        return await self._dispatcher.release(lease)

    async def adopt(self, lease: LeaseId, offer: Offer) -> Lease | Gone:
        """Ask whether what was leased before a separation is still one's own."""
        return await self._dispatcher.adopt(lease, offer)

    async def finished(self, lease: Lease, outcome: Outcome) -> bool:
        """Say how it went; False when that does not count any more.

        An outcome that the store refuses, as it always will, counts as a broken try of ours.

        Raises:
            StoreError: not recorded, and the lease still held: say it again.
        """
        try:
            counted = await self._dispatcher.finished(lease, outcome)
        except StoreRefused as error:
            log.exception("outcome_refused", run=lease.job.id, reason=str(error))
            outcome = Broken(Failure(Cause.INTERNAL, "the outcome could not be stored"))
            counted = await self._refused(lease, outcome)
        if counted:
            match outcome:
                case Completed(verdict=verdict):
                    log.info(
                        "run_done", run=lease.job.id, status=verdict.status, grade=verdict.grade
                    )
                case _:
                    failure = outcome.failure
                    log.warning(
                        "try_broken",
                        run=lease.job.id,
                        cause=failure.cause,
                        reason=failure.message,
                        engine_died=outcome.engine_died,
                    )
        return counted

    async def _refused(self, lease: Lease, broken: Broken) -> bool:
        """Record a broken try; where even that is refused, let go of the run."""
        try:
            return await self._dispatcher.finished(lease, broken)
        except StoreRefused as error:
            self._dispatcher.drop(lease.job.id, error)
            return False
