"""The queue itself: which runs there are, who has them, who is next. No clock, task or database.

Methods that change something only *claim*: they judge the step, mark the runs busy and return a
`Change`. The caller commits it and then calls `apply`, or `undo` when it could not. Events are
collected and drained by the caller. `Dispatcher` does all of this; the board is pure.
"""

import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from sortedcontainers import SortedDict

from commserver.core.changes import Busy, Change, Known, Write
from commserver.core.events import (
    Event,
    LeaseRevoked,
    QueueMoved,
    RunEnded,
    RunLeased,
    RunQueued,
    RunReplaced,
    RunStarted,
)
from commserver.core.finals import Notice
from commserver.core.jobs import (
    AttemptId,
    Job,
    Lease,
    LeaseId,
    Offer,
    Origin,
    OwnerId,
    Purpose,
    Recipient,
    Requires,
    RunId,
    SortKey,
)
from commserver.core.ordering import FirstInFirstOut, Ordering
from commserver.core.states import ACTIVE, State, Step, after
from commserver.core.verdicts import Broken, Cause, Failure, Outcome

BACK_OFF = (1.0, 5.0)  # seconds before the second and every later try
DEATHS_TO_THE_END = 2  # engines lost under a run before it goes to the end of its class


class Gone(NamedTuple):
    """There is no such lease any more: its holder has to abort."""

    lease: LeaseId


@dataclass(slots=True)
class _Entry:
    """A run that has not ended."""

    job: Job
    key: SortKey
    state: State
    stored: State | None  # what its row says; None before the row is there
    tries: int = 0
    deaths: int = 0
    lease: Lease | None = None  # the present one, or the last one while it waits again
    not_before: float = 0.0
    busy: bool = False

    def write(
        self,
        state: State,
        *,
        job: Job | None = None,
        key: SortKey | None = None,
        tries: int | None = None,
        deaths: int | None = None,
    ) -> Write:
        """Return the row change from what is stored to `state`; what is not named stays."""
        return Write(
            job=job or self.job,
            expected=self.stored,
            expected_tries=self.tries,
            state=state,
            tries=self.tries if tries is None else tries,
            deaths=self.deaths if deaths is None else deaths,
            key=key or self.key,
        )


@dataclass(slots=True)
class _Attempt:
    """The runs of one attempt and purpose: at most one waits, at most one is in hand."""

    waiting: RunId | None = None  # from its claim on, before it is committed
    active: RunId | None = None


@dataclass(slots=True)
class _Engine:
    """What the runners of one engine hold, and for which suspect it is kept free."""

    held: set[RunId] = field(default_factory=set)
    reserved: RunId | None = None
    alone: bool = False  # a suspect is on it: nothing else may be


class Board:
    """All runs that have not ended, in order.

    Each claiming method returns a `Change`, or `Busy` when another change of a run it needs is
    being committed, or None when there is nothing (more) to do: the run ended, the lease is not the
    present one, the report is stale.
    """

    def __init__(
        self,
        ordering: Ordering | None = None,
        *,
        next_entry: int = 1,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._ordering = ordering or FirstInFirstOut()
        self._next_entry = next_entry
        self._new_id = new_id
        self._entries: dict[RunId, _Entry] = {}
        self._lanes: dict[Requires, SortedDict[SortKey, _Entry]] = {}
        self._attempts: dict[tuple[AttemptId, Purpose], _Attempt] = {}
        self._owners: dict[OwnerId, set[RunId]] = {}
        self._leases: dict[LeaseId, RunId] = {}
        self._resting: set[RunId] = set()
        self._runners: dict[str, Offer] = {}
        self._engines: dict[str, _Engine] = {}
        self._events: list[Event] = []

    # -- what is there ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def job(self, run: RunId) -> Job | None:
        """Return the run as it is now, None once it has ended."""
        entry = self._known(run)
        return entry.job if entry else None

    def state(self, run: RunId) -> State | None:
        """Return where the run is, None once it has ended."""
        entry = self._known(run)
        return entry.state if entry else None

    def busy(self, run: RunId) -> bool:
        """Return whether a change of this run is being committed."""
        entry = self._entries.get(run)
        return entry is not None and entry.busy

    def place(self, run: RunId) -> int | None:
        """Return its 1-based place among the waiting of its lane, None if it does not wait."""
        entry = self._known(run)
        if entry is None or entry.state is not State.QUEUED:
            return None
        return int(self._lanes[entry.job.requires].bisect_left(entry.key)) + 1

    def waiting(self, lane: Requires | None = None) -> int:
        """Return how many wait, in one lane or in all."""
        lanes = [self._lanes.get(lane, ())] if lane is not None else self._lanes.values()
        return sum(len(waiting) for waiting in lanes)

    def runs_of(self, owner: OwnerId) -> list[Job]:
        """Return the owner's runs that have not ended, oldest first."""
        entries = [self._entries[run] for run in self._owners.get(owner, ())]
        return [e.job for e in sorted(entries, key=lambda e: e.key) if e.stored is not None]

    def runs_of_attempt(self, attempt: AttemptId) -> list[Job]:
        """Return the attempt's runs that have not ended: the one in hand, then the waiting one."""
        return [
            job
            for purpose in Purpose
            if (runs := self._attempts.get((attempt, purpose)))
            for run in (runs.active, runs.waiting)
            if run is not None and (job := self.job(run)) is not None
        ]

    def leases(self) -> Iterator[Lease]:
        """Yield the leases that are held now."""
        for run in self._leases.values():
            entry = self._entries[run]
            if entry.lease is not None and entry.state in ACTIVE:
                yield entry.lease

    def holds(self, lease: LeaseId) -> bool:
        """Return whether this lease is the present one of its run."""
        return self._present(lease) is not None

    @property
    def runners(self) -> int:
        """How many runners are known."""
        return len(self._runners)

    def could_run(self, requires: Requires) -> bool:
        """Return whether any known runner, free or not, fits these requirements."""
        return any(offer.fits(requires) for offer in self._runners.values())

    def next_wake(self, now: float) -> float | None:
        """Return when time alone changes something next: a lease runs out, a back-off ends."""
        moments = [lease.until for lease in self.leases() if lease.until is not None]
        moments += [self._entries[run].not_before for run in self._resting]
        return min((moment for moment in moments if moment > now), default=None)

    def overdue(self, now: float) -> list[Lease]:
        """Return the leases that have run out: give each to `expire`."""
        return [lease for lease in self.leases() if lease.until is not None and lease.until <= now]

    def drain_events(self) -> list[Event]:
        """Return what happened since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    # -- runners ----------------------------------------------------------------------------------

    def join(self, offer: Offer) -> None:
        """Know this runner, or its newer offer."""
        self._runners[offer.runner] = offer
        self._unreserve()

    def leave(self, runner: str) -> None:
        """Forget this runner; what it has leased stays leased until its lease ends."""
        self._runners.pop(runner, None)
        self._unreserve()

    # -- claims -----------------------------------------------------------------------------------

    def submit(self, job: Job) -> Change | Busy | Known:
        """Claim a place at the end of the job's class, by the rule "the same attempt again".

        A run of the attempt waits: it gets the newer content and keeps place and id. One is in
        hand with this very content: nothing to do. With other content: one more run waits.
        """
        runs = self._siblings(job)
        writes: list[Write] = []
        if runs and runs.waiting:
            return self._replace(self._entries[runs.waiting], job)
        if runs and runs.active:
            active = self._entries[runs.active]
            if active.busy:
                return Busy(active.job.id)
            if active.job.content == job.content:
                return Known(active.job.id)
            if active.stored is State.QUEUED:  # a local slot's: two rows may not wait
                writes.append(active.write(State.RUNNING))
                active.busy = True
        entry = _Entry(job, self._new_key(job), State.QUEUED, stored=None, busy=True)
        self._add(entry)
        writes.append(entry.write(State.QUEUED))
        return Change(Step.SUBMITTED, job.id, State.QUEUED, tuple(writes))

    def ask(
        self, run: RunId, origin: Origin, tell: Collection[Recipient] = ()
    ) -> Change | Busy | Known | None:
        """Claim a run that is there for whoever asks for it too; they are told of its end as well.

        One of the sweep's is theirs from then on; one that somebody asked for stays that one's.
        """
        entry = self._known(run)
        if entry is None:
            return None
        if busy := self._busy(entry):
            return busy
        asked = entry.job.telling(tell)
        if entry.job.origin.swept:
            asked = replace(asked, origin=origin)
        if asked == entry.job:
            return Known(run)
        assert entry.stored is not None
        entry.busy = True
        write = entry.write(entry.stored, job=asked)
        return Change(Step.ASKED, run, entry.state, (write,))

    def refuse(self, job: Job, failure: Failure) -> Change:
        """Claim the row of a run that ends before it waits, so that its end is kept like any."""
        key = self._new_key(job)
        write = Write(job, None, 0, State.FAILED, 0, 0, key)
        return Change(Step.REFUSED, job.id, State.FAILED, (write,), outcome=Broken(failure))

    def lease(self, offer: Offer, now: float, skip: Collection[RunId] = ()) -> Change | None:
        """Claim the first run that fits the offer, none of `skip`; None when there is none.

        A run rests between two tries, waits while another run of its attempt is in hand, and is
        alone on its engine when an earlier engine died under it.
        """
        engine = self._engines.setdefault(offer.engine, _Engine())
        entry = None if engine.alone else self._first(offer, engine, now, skip)
        if entry is None:
            self._forget_engine(offer.engine)
            return None
        entry.busy = True
        engine.held.add(entry.job.id)
        engine.alone = entry.deaths > 0
        until = None if entry.job.lease is None else now + entry.job.lease
        lease = Lease(LeaseId(self._new_id()), entry.job, offer, until, now)
        writes = (entry.write(State.LEASED),) if offer.remote else ()
        return Change(Step.LEASED, entry.job.id, State.LEASED, writes, granted=lease)

    def adopt(self, lease: LeaseId, offer: Offer, now: float) -> Change | Busy | Lease | Gone:
        """Give a runner that was away its lease back.

        It may still be the present one (then its time begins anew, or it is returned as it is if
        that changes nothing), or its run waits again and nobody else had it since; else it is gone.
        """
        entry = self._held(lease)
        if entry is None or entry.lease is None or entry.lease.offer.runner != offer.runner:
            return Gone(lease)
        if busy := self._busy(entry):
            return busy
        until = None if entry.job.lease is None else now + entry.job.lease
        if entry.state in ACTIVE:
            present = entry.lease.until
            if present is None or (until is not None and until <= present):
                return entry.lease
            return self._extended(entry, entry.lease, until)
        runs = self._siblings(entry.job)
        engine = self._engines.setdefault(offer.engine, _Engine())
        taken = engine.alone or (entry.deaths > 0 and engine.held)
        if entry.job.content != entry.lease.job.content or (runs and runs.active) or taken:
            self._forget_engine(offer.engine)
            return Gone(lease)
        entry.busy = True
        engine.held.add(entry.job.id)
        engine.alone = entry.deaths > 0
        again = replace(entry.lease, job=entry.job, offer=offer, until=until)
        writes = (entry.write(State.LEASED),) if offer.remote else ()
        return Change(Step.ADOPTED, entry.job.id, State.LEASED, writes, granted=again)

    def started(self, lease: LeaseId) -> Change | Busy | Known | None:
        """Claim that the holder has begun; saying so again changes nothing."""
        entry = self._present(lease)
        if entry is None or entry.lease is None:
            return None
        if busy := self._busy(entry):
            return busy
        if entry.state is State.RUNNING:
            return Known(entry.job.id)
        entry.busy = True
        writes = (entry.write(State.RUNNING),) if entry.lease.offer.remote else ()
        return Change(Step.STARTED, entry.job.id, State.RUNNING, writes)

    def extend(self, lease: LeaseId, until: float) -> Change | Busy | None:
        """Claim a later end of the lease, monotonic seconds."""
        entry = self._present(lease)
        if entry is None or entry.lease is None:
            return None
        return self._busy(entry) or self._extended(entry, entry.lease, until)

    def release(self, lease: LeaseId) -> Change | Busy | None:
        """Claim the run back, free of charge: no try counted, no back-off."""
        entry = self._present(lease)
        if entry is None:
            return None
        return self._busy(entry) or self._back(entry, Step.RELEASED, entry.tries, entry.deaths)

    def expire(self, lease: LeaseId, now: float) -> Change | Busy | None:
        """Claim the run back from a holder whose lease has run out; a counted try."""
        entry = self._present(lease)
        if entry is None or entry.lease is None:
            return None
        if busy := self._busy(entry):
            return busy
        if entry.lease.until is None or entry.lease.until > now:  # was extended meanwhile
            return None
        lost = Failure(Cause.CONTAINER, "the runner did not report in time")
        claimed = self._broken(entry, Broken(lost), now)
        return replace(claimed, revoked=True) if isinstance(claimed, Change) else claimed

    def finished(self, lease: Lease, outcome: Outcome, now: float) -> Change | Busy | None:
        """Claim an outcome.

        The first one for the run's present content counts, even from a lease that was lost; a
        Broken counts only from the present lease.
        """
        entry = self._entries.get(lease.job.id)
        if entry is None:
            return None
        if busy := self._busy(entry):
            return busy
        present = self._present(lease.id) is entry
        if isinstance(outcome, Broken):
            return self._broken(entry, outcome, now) if present else None
        if entry.job.content != lease.job.content:
            return None
        held = entry.lease if entry.state in ACTIVE else None
        entry.busy = True
        return Change(
            Step.COMPLETED,
            entry.job.id,
            State.DONE,
            (entry.write(State.DONE),),
            ended=held,
            revoked=held is not None and not present,
            outcome=outcome,
        )

    def cancel(self, run: RunId) -> Change | Busy | None:
        """Claim the end of a run that has not ended; who holds it is told after the commit."""
        entry = self._known(run)
        if entry is None:
            return None
        if busy := self._busy(entry):
            return busy
        held = entry.lease if entry.state in ACTIVE else None
        entry.busy = True
        write = entry.write(State.CANCELLED)
        return Change(
            Step.CANCELLED, run, State.CANCELLED, (write,), ended=held, revoked=held is not None
        )

    def start_after(self, last_entry: int) -> None:
        """Number later runs above `last_entry`, the highest that was ever given."""
        self._next_entry = max(self._next_entry, last_entry + 1)

    def restore(
        self,
        job: Job,
        key: SortKey,
        stored: State,
        *,
        tries: int = 0,
        deaths: int = 0,
        lease: Lease | None = None,
    ) -> Lease | None:
        """Take up a run that an earlier process left, as its row says.

        Returns a lease to `release` when the row says that a runner had it but none is known: it
        was a slot of the earlier process. Restore all runs first.
        """
        lease = lease if stored in ACTIVE else None
        orphan = stored in ACTIVE and lease is None
        if orphan:
            lease = Lease(LeaseId(self._new_id()), job, Offer("", "", {}))
        entry = _Entry(job, key, stored, stored, tries, deaths)
        self._add(entry)
        self._next_entry = max(self._next_entry, key.entry + 1)
        if lease is None:
            self._enter(entry)
            self._events.clear()  # nobody knew other places before
        else:
            self._hold(entry, lease)
        return lease if orphan else None

    # -- the end of a claim -----------------------------------------------------------------------

    def apply(self, change: Change, notices: Sequence[Notice] = ()) -> None:
        """Make a committed change true here, and say what happened.

        notices: to whom its final is owed, as it was committed.
        """
        for write in change.writes:
            if entry := self._entries.get(write.job.id):
                entry.stored, entry.busy = write.state, False
        if change.step is Step.REFUSED:
            self._ended(change.writes[0].job, change, notices)
            return
        entry = self._entries[change.run]
        entry.busy = False
        before = None if change.step is Step.SUBMITTED else entry.state
        assert after(before, change.step) is change.state, (before, change)
        if change.revoked and change.ended:
            self._events.append(LeaseRevoked(change.ended))
        match change.step:
            case Step.SUBMITTED:
                self._enter(entry)
                self._events.append(RunQueued(entry.job))
            case Step.REPLACED:
                self._renew(entry, change.writes[0].job)
                self._events.append(RunReplaced(entry.job))
            case Step.ASKED:
                entry.job = change.writes[0].job
            case Step.LEASED | Step.ADOPTED:
                assert change.granted is not None
                self._leave(entry)
                entry.state = State.LEASED
                self._hold(entry, change.granted)
                self._ordering.leased(entry.job, entry.key)
                self._events.append(RunLeased(change.granted))
            case Step.STARTED:
                assert entry.lease is not None
                entry.state = State.RUNNING
                self._events.append(RunStarted(entry.lease))
            case Step.EXTENDED:
                entry.lease = change.granted
            case Step.RETRIED | Step.RELEASED:
                self._let_go(entry)
                for write in change.writes:
                    entry.tries, entry.deaths, entry.key = write.tries, write.deaths, write.key
                entry.not_before = change.not_before
                self._enter(entry)
                self._events.append(RunQueued(entry.job, again=True))
            case _:
                if before is State.QUEUED:
                    self._leave(entry)
                else:
                    self._let_go(entry)
                self._remove(entry)
                self._ended(entry.job, change, notices)
                if change.successor:
                    self._move(self._entries[change.successor], change.writes[-1].key)

    def undo(self, change: Change) -> None:
        """Forget a claim that could not be committed: all is as before it, nothing is said."""
        for run in {change.run, *(write.job.id for write in change.writes)}:
            if entry := self._entries.get(run):
                entry.busy = False
                if entry.stored is None:
                    self._remove(entry)
        if change.step in (Step.LEASED, Step.ADOPTED) and change.granted:
            self._off_engine(change.granted.offer.engine, change.run)

    def forget(self, run: RunId) -> None:
        """Drop a run whose row is no longer ours to change; says nothing of it but the places."""
        entry = self._entries.get(run)
        if entry is None:
            return
        if entry.state is State.QUEUED:
            self._leave(entry)
        else:
            if entry.lease:
                self._events.append(LeaseRevoked(entry.lease))
            self._let_go(entry)
        self._remove(entry)
        self._ordering.ended(entry.job, entry.key)

    # -- judging ----------------------------------------------------------------------------------

    def _first(
        self, offer: Offer, engine: _Engine, now: float, skip: Collection[RunId]
    ) -> _Entry | None:
        """Return the run that this runner may take now.

        When a suspect is the next, the engine is reserved: nothing more is put on it until it is
        empty and takes the suspect. Another engine is not emptied for it as well, but takes it if
        it is empty already.
        """
        if engine.reserved is None:
            entry = self._next(offer, engine, now, skip)
            if entry is None or not entry.deaths:
                return entry
            engine.reserved = entry.job.id
        suspect = self._entries[engine.reserved]
        if engine.held or suspect.busy or engine.reserved in skip:
            return None
        return suspect if offer.fits(suspect.job.requires) else None

    def _next(
        self, offer: Offer, engine: _Engine, now: float, skip: Collection[RunId]
    ) -> _Entry | None:
        heads = [
            head
            for requires, lane in self._lanes.items()
            if offer.fits(requires) and (head := self._head(lane, engine, now, skip)) is not None
        ]
        first: _Entry | None = min(heads, key=lambda head: head.key, default=None)
        return first

    def _head(
        self,
        lane: "SortedDict[SortKey, _Entry]",
        engine: _Engine,
        now: float,
        skip: Collection[RunId],
    ) -> _Entry | None:
        entry: _Entry
        for entry in lane.values():
            run = entry.job.id
            if entry.busy or entry.not_before > now or run in skip:
                continue
            if (runs := self._siblings(entry.job)) and runs.active:
                continue
            if entry.deaths and engine.held and self._reserved(run):
                continue
            return entry
        return None

    def _reserved(self, run: RunId) -> bool:
        return any(engine.reserved == run for engine in self._engines.values())

    def _replace(self, waiting: _Entry, job: Job) -> Change | Busy | Known:
        if waiting.busy:
            return Busy(waiting.job.id)
        if waiting.job.content == job.content:
            return Known(waiting.job.id)
        told = waiting.job.telling(job.tell).tell
        newer = replace(job, id=waiting.job.id, tell=told)
        waiting.busy = True
        write = waiting.write(State.QUEUED, job=newer)
        return Change(Step.REPLACED, newer.id, State.QUEUED, (write,))

    @staticmethod
    def _extended(entry: _Entry, lease: Lease, until: float | None) -> Change:
        entry.busy = True
        granted = replace(lease, until=until)
        return Change(Step.EXTENDED, entry.job.id, entry.state, granted=granted)

    def _broken(self, entry: _Entry, outcome: Broken, now: float) -> Change | Busy:
        tries = entry.tries + 1
        deaths = entry.deaths + outcome.engine_died
        if outcome.failure.passing and tries < entry.job.max_tries:
            rest = BACK_OFF[min(tries, len(BACK_OFF)) - 1]
            return self._back(entry, Step.RETRIED, tries, deaths, now + rest)
        entry.busy = True
        write = entry.write(State.FAILED, tries=tries, deaths=deaths)
        return Change(
            Step.FAILED, entry.job.id, State.FAILED, (write,), ended=entry.lease, outcome=outcome
        )

    def _back(
        self, entry: _Entry, step: Step, tries: int, deaths: int, not_before: float = 0.0
    ) -> Change | Busy:
        """Claim the way back to the queue, or the end of a run that a newer one waits behind."""
        run = entry.job.id
        runs = self._siblings(entry.job)
        if runs and runs.waiting:
            newer = self._entries[runs.waiting]
            if newer.busy:
                return Busy(newer.job.id)
            entry.busy = newer.busy = True
            writes = (
                entry.write(State.SUPERSEDED, tries=tries, deaths=deaths),
                newer.write(State.QUEUED, key=min(entry.key, newer.key)),
            )
            return Change(
                Step.SUPERSEDED,
                run,
                State.SUPERSEDED,
                writes,
                ended=entry.lease,
                successor=newer.job.id,
            )
        entry.busy = True
        key = entry.key
        if deaths >= DEATHS_TO_THE_END and deaths > entry.deaths:
            key = self._new_key(entry.job)
        write = entry.write(State.QUEUED, key=key, tries=tries, deaths=deaths)
        unchanged = entry.stored is State.QUEUED and step is Step.RELEASED
        return Change(
            step,
            run,
            State.QUEUED,
            () if unchanged else (write,),
            ended=entry.lease,
            not_before=not_before,
        )

    @staticmethod
    def _busy(entry: _Entry) -> Busy | None:
        return Busy(entry.job.id) if entry.busy else None

    # -- finding ----------------------------------------------------------------------------------

    def _known(self, run: RunId) -> _Entry | None:
        """Return the entry of a run whose row is there; one in its first commit is nobody's yet."""
        entry = self._entries.get(run)
        return entry if entry and entry.stored is not None else None

    def _held(self, lease: LeaseId) -> _Entry | None:
        """Return the run whose present or, while it waits again, last lease this is."""
        run = self._leases.get(lease)
        return self._entries[run] if run is not None else None

    def _present(self, lease: LeaseId) -> _Entry | None:
        """Return the run that is in hand under this lease."""
        entry = self._held(lease)
        return entry if entry and entry.state in ACTIVE else None

    def _siblings(self, job: Job) -> _Attempt | None:
        """Return the runs of the job's attempt and purpose, None when there are none."""
        return None if job.attempt is None else self._attempts.get((job.attempt, job.purpose))

    # -- bookkeeping: every index changes here and nowhere else ------------------------------------

    def _new_key(self, job: Job) -> SortKey:
        key = SortKey(job.priority, self._ordering.tag(job), self._next_entry)
        self._next_entry += 1
        return key

    def _add(self, entry: _Entry) -> None:
        """Know a run, waiting or not."""
        job = entry.job
        self._entries[job.id] = entry
        self._own(entry)
        if job.attempt is not None:
            runs = self._attempts.setdefault((job.attempt, job.purpose), _Attempt())
            if entry.state is State.QUEUED:
                runs.waiting = job.id
            else:
                runs.active = job.id

    def _remove(self, entry: _Entry) -> None:
        """Forget a run that neither waits in a lane nor is in hand."""
        job = entry.job
        del self._entries[job.id]
        if entry.lease:
            self._leases.pop(entry.lease.id, None)
        self._disown(entry)
        if runs := self._siblings(job):
            assert job.attempt is not None
            runs.waiting = None if runs.waiting == job.id else runs.waiting
            if runs.waiting is runs.active is None:
                del self._attempts[job.attempt, job.purpose]

    def _own(self, entry: _Entry) -> None:
        self._owners.setdefault(entry.job.owner, set()).add(entry.job.id)

    def _disown(self, entry: _Entry) -> None:
        owned = self._owners[entry.job.owner]
        owned.discard(entry.job.id)
        if not owned:
            del self._owners[entry.job.owner]

    def _renew(self, entry: _Entry, job: Job) -> None:
        """Give a waiting run newer content; tries and their back-off stay."""
        moves = job.requires != entry.job.requires
        if moves:
            self._leave(entry)
        self._disown(entry)
        entry.job = job
        self._own(entry)
        if moves:
            self._enter(entry)
        else:
            self._ordering.entered(job, entry.key)

    def _move(self, entry: _Entry, key: SortKey) -> None:
        """Give a waiting run an earlier key; it and those it overtakes have other places now."""
        lane = self._lanes[entry.job.requires]
        before = lane.bisect_left(entry.key)
        del lane[entry.key]
        entry.key = key
        lane[key] = entry
        rank = lane.bisect_left(key)
        if rank != before:
            self._moved(entry, rank)
        self._ordering.entered(entry.job, key)

    def _enter(self, entry: _Entry) -> None:
        """Put a run into its lane."""
        entry.state = State.QUEUED
        if runs := self._siblings(entry.job):
            runs.waiting = entry.job.id
        if entry.not_before:
            self._resting.add(entry.job.id)
        lane = self._lanes.setdefault(entry.job.requires, SortedDict())
        lane[entry.key] = entry
        self._moved(entry, lane.bisect_right(entry.key))
        self._ordering.entered(entry.job, entry.key)

    def _leave(self, entry: _Entry) -> None:
        """Take a run out of its lane; it still stands for its attempt until something follows."""
        lane = self._lanes[entry.job.requires]
        rank = lane.bisect_left(entry.key)
        del lane[entry.key]
        self._moved(entry, rank)
        if not lane:
            del self._lanes[entry.job.requires]
        self._resting.discard(entry.job.id)
        if entry.deaths:
            for name, engine in list(self._engines.items()):
                if engine.reserved == entry.job.id:
                    engine.reserved = None
                    self._forget_engine(name)

    def _moved(self, entry: _Entry, others: int) -> None:
        """Say that those behind the first `others` of the lane have another place now."""
        if others < len(self._lanes[entry.job.requires]):
            self._events.append(QueueMoved(entry.job.requires, others + 1))

    def _hold(self, entry: _Entry, lease: Lease) -> None:
        """Put a run into a runner's hands."""
        if entry.lease:
            self._leases.pop(entry.lease.id, None)
        entry.lease = lease
        self._leases[lease.id] = entry.job.id
        if runs := self._siblings(entry.job):
            runs.waiting = None if runs.waiting == entry.job.id else runs.waiting
            runs.active = entry.job.id
        engine = self._engines.setdefault(lease.offer.engine, _Engine())
        engine.held.add(entry.job.id)
        engine.alone = entry.deaths > 0

    def _let_go(self, entry: _Entry) -> None:
        """Take a run out of its runner's hands; the lease is remembered in case it comes back."""
        assert entry.lease is not None
        if runs := self._siblings(entry.job):
            runs.active = None
        self._off_engine(entry.lease.offer.engine, entry.job.id)

    def _off_engine(self, name: str, run: RunId) -> None:
        engine = self._engines[name]
        engine.held.discard(run)
        engine.alone = False
        self._forget_engine(name)

    def _unreserve(self) -> None:
        """Keep no engine free for a suspect that none of its runners could take."""
        for name, engine in list(self._engines.items()):
            if engine.reserved is not None and not any(
                offer.engine == name and offer.fits(self._entries[engine.reserved].job.requires)
                for offer in self._runners.values()
            ):
                engine.reserved = None
                self._forget_engine(name)

    def _forget_engine(self, name: str) -> None:
        engine = self._engines.get(name)
        if engine and not engine.held and engine.reserved is None:
            del self._engines[name]

    def _ended(self, job: Job, change: Change, notices: Sequence[Notice]) -> None:
        key = change.writes[0].key
        self._ordering.ended(job, key)
        self._events.append(RunEnded(job, change.state, change.outcome, tuple(notices)))
