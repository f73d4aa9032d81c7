"""The board in use: its clock, its commits, and those who wait for work."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import structlog

from commserver.core.board import Board, Gone
from commserver.core.bus import EventBus
from commserver.core.changes import Busy, Change, Conflict, Known
from commserver.core.clock import Clock
from commserver.core.events import QueueMoved, RunAsked, RunProgressed, RunQueued
from commserver.core.finals import Notice
from commserver.core.jobs import Job, Lease, LeaseId, Offer, Origin, Recipient, RunId, SortKey
from commserver.core.states import State
from commserver.core.verdicts import Failure, Outcome
from commserver.errors import AlreadyExists, StoreError, StoreRefused

log = structlog.get_logger(__name__)

T = TypeVar("T")

STORE_REST = 1.0  # seconds until an end of a lease is tried again that could not be stored


class Ledger(Protocol):
    """Where changes are made certain."""

    async def commit(self, change: Change) -> Sequence[Notice] | Conflict:
        """Write all of `change` or nothing, comparing each row with what it must say.

        Returns to whom its final is owed, if it makes one.

        Raises:
            StoreError: nothing is written; `AlreadyExists` when a row is there that should be new.
        """


class Submitted(NamedTuple):
    """The run that stands for a submission; `new` is false when it was there already."""

    run: RunId
    new: bool


class Dispatcher:
    """Makes every change of the board in three steps: claim, commit, apply and publish.

    A change that meets a busy run waits for it and is judged again. A commit that fails undoes the
    claim and its error reaches the caller; a row that says otherwise drops its run from the board,
    for then it is somebody else's, and what was wanted is judged again without it. A caller that is
    cancelled in mid-commit still ends in a known state: the commit runs on, and its result is
    applied.
    """

    def __init__(self, board: Board, ledger: Ledger, bus: EventBus, clock: Clock) -> None:
        self.board = board
        self._ledger = ledger
        self._bus = bus
        self._clock = clock
        self._commits: set[asyncio.Task[bool]] = set()
        self._through: dict[RunId, asyncio.Event] = {}
        self._waiters: dict[asyncio.Future[Change], Offer] = {}
        self._unheard: dict[LeaseId, RunId] = {}  # leases whose holder is gone, to be released
        self._alarm = asyncio.Event()

    async def run(self) -> None:
        """Let time act, until cancelled: leases run out, back-offs end."""
        while True:
            now = self._clock.now()
            self._alarm.clear()
            stored = [await self._expire(lease) for lease in self.board.overdue(now)]
            for lease_id, run in list(self._unheard.items()):
                if self.board.holds(lease_id):
                    stored.append(await self._give_back(lease_id))
                elif not self.board.busy(run):
                    del self._unheard[lease_id]
            self._grant()
            wakes = [self.board.next_wake(now), None if all(stored) else now + STORE_REST]
            wake = min((wake for wake in wakes if wake is not None), default=None)
            await self._clock.wait(self._alarm, wake)

    async def _expire(self, lease: Lease) -> bool:
        try:
            await self._change(lambda: self.board.expire(lease.id, self._clock.now()))
        except StoreRefused as error:
            self.drop(lease.job.id, error)
        except StoreError as error:
            log.warning("expiry_not_stored", run=lease.job.id, error=str(error))
            return False
        return True

    # -- ask --------------------------------------------------------------------------------------

    async def submit(self, job: Job) -> Submitted:
        """Queue a run, or find the run that is the same work already.

        Raises:
            StoreError: it could not be stored, and is not queued.
        """
        claim = await self._change(lambda: self.board.submit(job))
        if isinstance(claim, Known):
            return Submitted(claim.run, new=False)
        assert claim is not None
        return Submitted(claim.run, new=claim.run == job.id)

    async def ask(self, run: RunId, origin: Origin, tell: Collection[Recipient] = ()) -> bool:
        """Let a run that is there be asked for once more; False when it has ended.

        See `Board.ask`.

        Raises:
            StoreError: it could not be stored, and is as it was.
        """
        return await self._change(lambda: self.board.ask(run, origin, tell)) is not None

    def asked(self, run: RunId, notices: Sequence[Notice]) -> None:
        """Tell that somebody asked for a run that had ended, and what is owed for it now."""
        self._bus.publish(RunAsked(run, tuple(notices)))

    async def refuse(self, job: Job, failure: Failure) -> None:
        """Store and tell the end of a run that cannot even wait."""
        await self._change(lambda: self.board.refuse(job, failure))

    async def cancel(self, run: RunId) -> bool:
        """End a run before its verdict; False when an end came first."""
        return await self._change(lambda: self.board.cancel(run)) is not None

    # -- run --------------------------------------------------------------------------------------

    def join(self, offer: Offer) -> None:
        """Know a runner, or its newer offer."""
        self.board.join(offer)
        self._grant()

    def leave(self, runner: str) -> None:
        """Forget a runner; what it holds stays its own until the lease ends."""
        self.board.leave(runner)
        self._grant()

    async def lease(self, offer: Offer) -> Lease:
        """Wait for a run that fits the offer and lease it.

        A caller that is cancelled holds nothing: what was already claimed for it goes back.
        """
        while True:
            change = self.board.lease(offer, self._clock.now()) or await self._wait(offer)
            if lease := await self._leased(change):
                return lease

    async def try_lease(
        self, offer: Offer, count: int = 1, skip: Collection[RunId] = ()
    ) -> list[Lease]:
        """Lease up to `count` runs that are there now, none of `skip`.

        Raises:
            StoreError: not even the first could be stored.
        """
        leases: list[Lease] = []
        try:
            while len(leases) < count:
                change = self.board.lease(offer, self._clock.now(), skip)
                if change is None:
                    break
                if lease := await self._leased(change):
                    leases.append(lease)
        except StoreError as error:
            if not leases:
                raise
            log.warning("fewer_leased", runner=offer.runner, error=str(error))
        except asyncio.CancelledError:
            await self._abandon(leases)
            raise
        return leases

    async def started(self, lease: LeaseId) -> bool:
        """Record that the holder has begun; False when the lease is not the present one.

        Told twice, it is recorded once.
        """
        return await self._change(lambda: self.board.started(lease)) is not None

    def progressed(self, lease: Lease, stage: str, text: str) -> None:
        """Tell how far the holder is, if it still is the holder."""
        if self.board.holds(lease.id):
            self._bus.publish(RunProgressed(lease, stage, text))

    async def extend(self, lease: LeaseId, until: float) -> bool:
        """Let a lease last until `until`, monotonic seconds; False when it is over already."""
        return await self._change(lambda: self.board.extend(lease, until)) is not None

    async def release(self, lease: LeaseId) -> bool:
        """Put a run back where it stood, at no cost; False when the lease is over already."""
        return await self._change(lambda: self.board.release(lease)) is not None

    async def adopt(self, lease: LeaseId, offer: Offer) -> Lease | Gone:
        """Give a runner that was away its lease back, if nobody else had the run since."""
        claim = await self._change(lambda: self.board.adopt(lease, offer, self._clock.now()))
        if isinstance(claim, Change) and claim.granted:
            return claim.granted
        return claim if isinstance(claim, Lease) else Gone(lease)

    async def finished(self, lease: Lease, outcome: Outcome) -> bool:
        """Record how a try went; False when the report is late, doubled or stale, and dropped.

        Raises:
            StoreError: it could not be stored; the lease is still held, so it may be told again.
        """
        claim = await self._change(lambda: self.board.finished(lease, outcome, self._clock.now()))
        if claim is None:
            log.warning("report_dropped", run=lease.job.id, lease=lease.id)
        return claim is not None

    def drop(self, run: RunId, error: StoreRefused) -> None:
        """Let go of a run whose row cannot be changed, so that it is not tried for ever.

        Its row says what it said: the next process takes it up. Nothing happens while another
        change of it is being committed.
        """
        log.error("run_dropped", run=run, error=str(error))
        if not self.board.busy(run):
            self._let_go(run)

    async def ended_elsewhere(self, run: RunId) -> bool:
        """Let go of a run whose row was seen to have ended; False when that is no news."""

        def judge() -> Busy | bool:
            if self.board.busy(run):
                return Busy(run)
            known = self.board.job(run) is not None
            if known:
                log.warning("row_changed_elsewhere", run=run)
                self._let_go(run)
            return known

        return bool(await self._change(judge))

    def take_up(self, job: Job, key: SortKey, *, tries: int, deaths: int) -> None:
        """Queue a run again that was let go of and whose row still says that it waits."""
        log.warning("run_taken_up_again", run=job.id)
        self.board.restore(job, key, State.QUEUED, tries=tries, deaths=deaths)
        place = self.board.place(job.id)
        assert place is not None
        self._bus.publish(RunQueued(job, again=True))
        self._bus.publish(QueueMoved(job.requires, place))
        self._grant()

    def _let_go(self, run: RunId) -> None:
        self.board.forget(run)
        self._publish()
        self._grant()

    # -- the three steps --------------------------------------------------------------------------

    async def _change(self, judge: "Callable[[], Change | Busy | T | None]") -> "Change | T | None":
        """Claim what `judge` says, as soon as nobody else is at it, and carry it out.

        Returns the change that was made, or what the judge said instead of one.
        """
        while True:
            claim = judge()
            if isinstance(claim, Busy):
                await self._through.setdefault(claim.run, asyncio.Event()).wait()
            elif not isinstance(claim, Change) or await self._carry_out(claim):
                return claim

    async def _carry_out(self, change: Change) -> bool:
        """Commit and apply a claim; False when a row said otherwise."""
        if not change.durable:
            self._apply(change)
            return True
        task = asyncio.create_task(self._commit(change))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(partial(_log_failure, change.run))
            await asyncio.wait({task})  # ends by the store's own deadline
            raise

    async def _commit(self, change: Change) -> bool:
        try:
            result = await self._ledger.commit(change)
        except BaseException:  # whatever it was, the claim must not stay
            self._undo(change)
            raise
        if not isinstance(result, Conflict):
            self._apply(change, result)
            return True
        run = result.run
        log.warning("row_changed_elsewhere", run=run, step=change.step)
        self.board.undo(change)
        new = self.board.job(run) is None
        self.board.forget(run)  # before anybody else can be granted it
        self._free(change)
        self._publish()
        self._grant()
        if new:
            raise AlreadyExists(run)
        return False

    def _apply(self, change: Change, notices: Sequence[Notice] = ()) -> None:
        self.board.apply(change, notices)
        self._free(change)
        self._publish()
        lease = change.granted
        if change.not_before or (lease and (lease.until is not None or lease.id in self._unheard)):
            self._alarm.set()
        self._grant()

    def _undo(self, change: Change) -> None:
        self.board.undo(change)
        self._free(change)
        self._grant()

    def _free(self, change: Change) -> None:
        """Let those judge again who wait for a run of this change."""
        for run in {change.run, *(write.job.id for write in change.writes)}:
            if waiting := self._through.pop(run, None):
                waiting.set()

    def _publish(self) -> None:
        for event in self.board.drain_events():
            self._bus.publish(event)

    # -- those who wait for work ------------------------------------------------------------------

    async def _wait(self, offer: Offer) -> Change:
        """Wait until a run is claimed for this offer; first come, first served."""
        waiter: asyncio.Future[Change] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = offer
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._undo(waiter.result())
            raise
        finally:
            self._waiters.pop(waiter, None)

    def _grant(self) -> None:
        """Claim what fits for those who wait."""
        now = self._clock.now()
        for waiter, offer in list(self._waiters.items()):
            if not waiter.done() and (change := self.board.lease(offer, now)):
                waiter.set_result(change)

    async def _leased(self, change: Change) -> Lease | None:
        """Carry out a claimed lease; None when a row said otherwise."""
        assert change.granted is not None
        try:
            done = await self._carry_out(change)
        except asyncio.CancelledError:
            await self._abandon([change.granted])
            raise
        return change.granted if done else None

    async def _abandon(self, leases: Iterable[Lease]) -> None:
        """Release what no holder will ever hear of; what fails, or is cancelled, `run` does."""
        unheard = {lease.id: lease.job.id for lease in leases}
        self._unheard |= unheard
        try:
            for lease in unheard:
                await self._give_back(lease)
        finally:
            if self._unheard:
                self._alarm.set()

    async def _give_back(self, lease: LeaseId) -> bool:
        run = self._unheard.get(lease)
        if run is None:
            return True

        def judge() -> Change | Busy | None:
            # A lease that is still being committed cannot be found by its id yet.
            return Busy(run) if self.board.busy(run) else self.board.release(lease)

        try:
            await self._change(judge)
        except StoreRefused as error:
            self.drop(run, error)
        except StoreError as error:
            log.warning("release_not_stored", run=run, error=str(error))
            return False
        self._unheard.pop(lease, None)
        return True


def _log_failure(run: RunId, commit: asyncio.Task[bool]) -> None:
    """Say what the caller of this commit does not hear any more."""
    if not commit.cancelled() and (error := commit.exception()):
        log.warning("commit_failed_unheard", run=run, error=str(error))
