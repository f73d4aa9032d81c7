"""The board against a model that is too simple to be wrong: plain lists, searched from end to end.

The model was written from the blueprint's rules, not from the board. Every public method is called
in any order; claims stay open and are committed, undone, found changed by a stranger, or cut short
by a crash whenever it pleases the test. After each step everything that the board shows and every
row must be what the model says, and what was told must be exactly what has happened.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from commserver.core.board import Board, Gone
from commserver.core.changes import Busy, Change, Known
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
from commserver.core.jobs import (
    AttemptId,
    Job,
    Lease,
    LeaseId,
    Offer,
    Origin,
    OwnerId,
    Priority,
    Purpose,
    Requires,
    RunId,
)
from commserver.core.states import State, Step
from commserver.core.verdicts import Broken, Cause, Failure, Outcome
from tests.fakes import JAVA, PYTHON, FakeLedger, broken, completed, make_job, make_offer
from tests.unit.core.desk import remains

LANES = (PYTHON, JAVA)
OFFERS = (
    make_offer("slot-1"),
    make_offer("slot-2"),
    make_offer("pythonist", images=("python",)),
    make_offer("node-1", engine="away", remote=True),
    make_offer("node-2", engine="away", remote=True, images=("java",)),
    make_offer("node-3", engine="far", remote=True),
    make_offer("slot-1", engine="anew"),  # as after its engine was started again
)
OUTCOMES: tuple[Outcome, ...] = (
    completed(),
    broken(),
    broken(engine_died=True),
    broken(engine_died=True),
    broken(Cause.EXERCISE),
)
LOST = Broken(Failure(Cause.CONTAINER, "the runner did not report in time"))
MAX_TRIES = (3, 3, 1, 5)  # by attempt
REFUSAL = Failure(Cause.FULL, "too many")

# -- the model ------------------------------------------------------------------------------------


@dataclass(eq=False)
class Run:
    """What a patient clerk knows of a run that has not ended."""

    job: Job
    order: tuple[int, int]  # its class and entry number
    where: str = "new"  # new: not committed yet; waiting; held
    row: State = State.QUEUED
    tries: int = 0
    deaths: int = 0
    rests_until: float = 0.0
    begun: bool = False
    lease: Lease | None = None  # the present or the last one
    busy: bool = True

    @property
    def id(self) -> RunId:
        return self.job.id

    @property
    def state(self) -> State | None:
        if self.where == "held":
            return State.RUNNING if self.begun else State.LEASED
        return State.QUEUED if self.where == "waiting" else None


@dataclass
class Plan:
    """What must come of a claim: the rows, the state of the model, what is told."""

    step: Step
    run: RunId
    touched: list[Run]
    rows: list[tuple[RunId, State, int, int, int]]  # run, state, tries, deaths, entry number
    effect: Callable[[Change], list[Event]]
    undo: Callable[[], None] = lambda: None


Answer = Plan | Busy | Known | Gone | Lease | None


@dataclass
class Model:
    runs: dict[RunId, Run] = field(default_factory=dict)
    known: dict[str, Offer] = field(default_factory=dict)
    kept_for: dict[str, Run] = field(default_factory=dict)  # engine -> suspect
    on: dict[str, list[Run]] = field(default_factory=dict)  # engine -> claimed for it, or held
    next_number: int = 1

    # -- looking ----------------------------------------------------------------------------------

    def lane(self, lane: Requires) -> list[RunId]:
        waiting = [r for r in self.runs.values() if r.where == "waiting" and r.job.requires == lane]
        return [run.id for run in sorted(waiting, key=lambda run: run.order)]

    def by_lease(self, lease: LeaseId) -> Run | None:
        return next((r for r in self.runs.values() if r.lease and r.lease.id == lease), None)

    def held_by(self, lease: LeaseId) -> Run | None:
        run = self.by_lease(lease)
        return run if run and run.where == "held" else None

    def others(self, job: Job) -> list[Run]:
        """The other runs of the same attempt and purpose."""
        return [
            run
            for run in self.runs.values()
            if job.attempt is not None
            and (run.job.attempt, run.job.purpose) == (job.attempt, job.purpose)
            and run.id != job.id
        ]

    def number(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    # -- judging ----------------------------------------------------------------------------------

    def submit(self, job: Job) -> Answer:
        others = self.others(job)
        for other in others:
            if other.where != "held":
                return self.replace(other, job)
        touched: list[Run] = []
        rows = []
        for other in others:
            if other.busy:
                return Busy(other.id)
            if other.job.content == job.content:
                return Known(other.id)
            if other.row is State.QUEUED:
                touched.append(other)
                rows.append(self.as_row(other, State.RUNNING))
        run = Run(job, (job.priority, self.number()))
        self.runs[job.id] = run

        def effect(_: Change) -> list[Event]:
            run.where = "waiting"
            for other in touched[:-1]:
                other.row = State.RUNNING
            return [RunQueued(job)]

        def undo() -> None:
            del self.runs[job.id]

        touched.append(run)
        rows.append(self.as_row(run, State.QUEUED))
        return Plan(Step.SUBMITTED, job.id, touched, rows, effect, undo)

    def replace(self, waiting: Run, job: Job) -> Answer:
        if waiting.busy:
            return Busy(waiting.id)
        if waiting.job.content == job.content:
            return Known(waiting.id)

        def effect(_: Change) -> list[Event]:
            if waiting.job.requires != job.requires:
                self.keep_free_no_more(waiting)
            waiting.job = replace(job, id=waiting.id)
            return [RunReplaced(waiting.job)]

        rows = [self.as_row(waiting, State.QUEUED)]
        return Plan(Step.REPLACED, waiting.id, [waiting], rows, effect)

    def ask(self, name: RunId, origin: Origin) -> Answer:
        run = self.runs.get(name)
        if run is None or run.where == "new":
            return None
        if run.busy:
            return Busy(run.id)
        if run.job.origin.gateway != "sweep":
            return Known(run.id)

        def effect(_: Change) -> list[Event]:
            run.job = replace(run.job, origin=origin)
            return []

        return Plan(Step.ASKED, run.id, [run], [self.as_row(run, run.row)], effect)

    def refuse(self, job: Job) -> Plan:
        def effect(_: Change) -> list[Event]:
            return [RunEnded(job, State.FAILED, Broken(REFUSAL))]

        rows = [(job.id, State.FAILED, 0, 0, self.number())]
        return Plan(Step.REFUSED, job.id, [], rows, effect)

    def lease(self, offer: Offer, now: float, skip: Iterable[RunId]) -> Answer:
        on = self.on.get(offer.engine, [])
        if any(run.deaths for run in on):
            return None
        if offer.engine not in self.kept_for:
            waiting = (run for run in self.runs.values() if run.where == "waiting")
            for run in sorted(waiting, key=lambda run: run.order):
                may = not run.busy and run.rests_until <= now and run.id not in skip
                free = not any(other.where == "held" for other in self.others(run.job))
                sought = run.deaths and on and run in self.kept_for.values()
                if may and free and fits(offer, run) and not sought:
                    break
            else:
                return None
            if not run.deaths:
                return self.give(Step.LEASED, run, offer)
            self.kept_for[offer.engine] = run
        suspect = self.kept_for[offer.engine]
        if on or suspect.busy or suspect.id in skip or not fits(offer, suspect):
            return None
        return self.give(Step.LEASED, suspect, offer)

    def adopt(self, lease: LeaseId, offer: Offer, now: float) -> Answer:
        run = self.by_lease(lease)
        if run is None or run.lease is None or run.lease.offer.runner != offer.runner:
            return Gone(lease)
        if run.busy:
            return Busy(run.id)
        if run.where == "held":
            until = None if run.job.lease is None else now + run.job.lease
            ends = run.lease.until
            longer = ends is not None and (until is None or until > ends)
            return self.extend(lease, until) if longer else run.lease
        on = self.on.get(offer.engine, [])
        if any(other.deaths for other in on) or (run.deaths and on):
            return Gone(lease)
        if run.job.content != run.lease.job.content:
            return Gone(lease)
        return self.give(Step.ADOPTED, run, offer)

    def give(self, step: Step, run: Run, offer: Offer) -> Plan:
        self.on.setdefault(offer.engine, []).append(run)

        def effect(change: Change) -> list[Event]:
            assert change.granted is not None
            run.where, run.begun, run.rests_until = "held", False, 0.0
            run.lease = change.granted
            run.row = State.LEASED if offer.remote else run.row
            self.keep_free_no_more(run)
            return [RunLeased(change.granted)]

        def undo() -> None:
            self.on[offer.engine].remove(run)

        rows = [self.as_row(run, State.LEASED)] if offer.remote else []
        return Plan(step, run.id, [run], rows, effect, undo)

    def started(self, lease: LeaseId) -> Answer:
        run = self.held_by(lease)
        if run is None or run.lease is None:
            return None
        if run.busy:
            return Busy(run.id)
        if run.begun:
            return Known(run.id)
        remote = run.lease.offer.remote

        def effect(_: Change) -> list[Event]:
            assert run.lease is not None
            run.begun = True
            run.row = State.RUNNING if remote else run.row
            return [RunStarted(run.lease)]

        rows = [self.as_row(run, State.RUNNING)] if remote else []
        return Plan(Step.STARTED, run.id, [run], rows, effect)

    def extend(self, lease: LeaseId, until: float | None) -> Answer:
        run = self.held_by(lease)
        if run is None or run.lease is None:
            return None
        if run.busy:
            return Busy(run.id)

        def effect(_: Change) -> list[Event]:
            assert run.lease is not None
            run.lease = replace(run.lease, until=until)
            return []

        return Plan(Step.EXTENDED, run.id, [run], [], effect)

    def release(self, lease: LeaseId) -> Answer:
        run = self.held_by(lease)
        if run is None or run.busy:
            return Busy(run.id) if run else None
        return self.back(run, Step.RELEASED, run.tries, run.deaths, 0.0, lost=False)

    def expire(self, lease: LeaseId, now: float) -> Answer:
        run = self.held_by(lease)
        if run is None or run.lease is None:
            return None
        if run.busy:
            return Busy(run.id)
        if run.lease.until is None or run.lease.until > now:
            return None
        return self.broken(run, LOST, now, lost=True)

    def finished(self, lease: Lease, outcome: Outcome, now: float) -> Answer:
        run = self.runs.get(lease.job.id)
        if run is None or run.busy:
            return Busy(run.id) if run else None
        if isinstance(outcome, Broken):
            own = self.held_by(lease.id) is run
            return self.broken(run, outcome, now, lost=False) if own else None
        if run.job.content != lease.job.content:
            return None
        revoked = None if self.held_by(lease.id) is run else run.lease
        return self.end(run, Step.COMPLETED, State.DONE, outcome, revoked)

    def cancel(self, name: RunId) -> Answer:
        run = self.runs.get(name)
        if run is None or run.where == "new":
            return None
        if run.busy:
            return Busy(run.id)
        return self.end(run, Step.CANCELLED, State.CANCELLED, None, run.lease)

    def broken(self, run: Run, outcome: Broken, now: float, *, lost: bool) -> Answer:
        tries, deaths = run.tries + 1, run.deaths + int(outcome.engine_died)
        if outcome.failure.cause is Cause.CONTAINER and tries < run.job.max_tries:
            rest = 1.0 if tries == 1 else 5.0
            return self.back(run, Step.RETRIED, tries, deaths, now + rest, lost=lost)
        revoked = run.lease if lost else None
        plan = self.end(run, Step.FAILED, State.FAILED, outcome, revoked)
        plan.rows = [(run.id, State.FAILED, tries, deaths, run.order[1])]
        return plan

    def back(
        self, run: Run, step: Step, tries: int, deaths: int, rests_until: float, *, lost: bool
    ) -> Answer:
        revoked = [LeaseRevoked(run.lease)] if lost and run.lease else []
        for newer in self.others(run.job):
            if newer.busy:
                return Busy(newer.id)
            return self.superseded(run, newer, tries, deaths, revoked)
        order = run.order
        if deaths >= 2 and deaths > run.deaths:
            order = (run.job.priority, self.number())

        def effect(_: Change) -> list[Event]:
            self.let_go(run)
            run.where, run.row, run.order = "waiting", State.QUEUED, order
            run.tries, run.deaths, run.rests_until = tries, deaths, rests_until
            return [*revoked, RunQueued(run.job, again=True)]

        rows = [(run.id, State.QUEUED, tries, deaths, order[1])]
        if step is Step.RELEASED and run.row is State.QUEUED:
            rows = []
        return Plan(step, run.id, [run], rows, effect)

    def superseded(
        self, run: Run, newer: Run, tries: int, deaths: int, revoked: list[LeaseRevoked]
    ) -> Plan:
        order = min(run.order, newer.order)

        def effect(_: Change) -> list[Event]:
            self.let_go(run)
            del self.runs[run.id]
            newer.order = order
            return [*revoked, RunEnded(run.job, State.SUPERSEDED)]

        rows = [
            (run.id, State.SUPERSEDED, tries, deaths, run.order[1]),
            (newer.id, State.QUEUED, newer.tries, newer.deaths, order[1]),
        ]
        return Plan(Step.SUPERSEDED, run.id, [run, newer], rows, effect)

    def end(
        self, run: Run, step: Step, state: State, outcome: Outcome | None, revoked: Lease | None
    ) -> Plan:
        def effect(_: Change) -> list[Event]:
            told: list[Event] = []
            if run.where == "held" and revoked:
                told.append(LeaseRevoked(revoked))
            self.drop(run)
            return [*told, RunEnded(run.job, state, outcome)]

        return Plan(step, run.id, [run], [self.as_row(run, state)], effect)

    # -- changing ---------------------------------------------------------------------------------

    def drop(self, run: Run) -> None:
        if run.where == "held":
            self.let_go(run)
        self.keep_free_no_more(run)
        del self.runs[run.id]

    def let_go(self, run: Run) -> None:
        assert run.lease is not None
        self.on[run.lease.offer.engine].remove(run)

    def keep_free_no_more(self, run: Run) -> None:
        self.kept_for = {name: kept for name, kept in self.kept_for.items() if kept is not run}

    def runners_changed(self) -> None:
        self.kept_for = {
            engine: run
            for engine, run in self.kept_for.items()
            if any(offer.engine == engine and fits(offer, run) for offer in self.known.values())
        }

    def crash(self) -> None:
        """Forget what no row says; what is left is as a new process finds it."""
        self.known, self.kept_for, self.on = {}, {}, {}
        self.runs = {name: run for name, run in self.runs.items() if run.where != "new"}
        for run in self.runs.values():
            run.busy, run.rests_until = False, 0.0
            if run.where == "held" and run.lease and run.lease.offer.remote:
                self.on.setdefault(run.lease.offer.engine, []).append(run)
            else:
                run.where, run.lease = "waiting", None
        for run in list(self.runs.values()):
            if run.row is not State.QUEUED and run.where == "waiting":
                for newer in self.others(run.job):
                    newer.order = min(run.order, newer.order)
                    del self.runs[run.id]
                run.row = State.QUEUED

    @staticmethod
    def as_row(run: Run, state: State) -> tuple[RunId, State, int, int, int]:
        return (run.id, state, run.tries, run.deaths, run.order[1])


def fits(offer: Offer, run: Run) -> bool:
    (requirement,) = run.job.requires
    return requirement.values[0] in offer.features["image"]


# -- the trial ----------------------------------------------------------------------------------

T = TypeVar("T")


class Choose(Protocol):
    """Whoever decides what happens: hypothesis, or dice."""

    def __call__(self, things: Sequence[T], /) -> T:
        """Return one of them."""


def weighted(**weights: int) -> list[str]:
    return [name for name, weight in weights.items() for _ in range(weight)]


DEEDS = weighted(
    report=9,
    lease=7,
    submit=5,
    decide=4,
    wait=3,
    ask=2,
    join=1,
    leave=1,
    cancel=1,
    refuse=1,
    crash=1,
)
REPORTS = weighted(start=2, extend=1, release=3, finish=5, expire=2, adopt=3)
LEASES = weighted(held=5, waiting=2, any=1)
DECISIONS = weighted(commit=5, undo=2, stranger=1)
AT_ONCE = [True, True, True, False]  # committed before anything else happens
ONE_IN_FIVE = [False, False, False, False, True]
ATTEMPTS = [0, 1, 1, 1, 2, 2, 3]
CONTENTS = ["x", "y", "z"]
REQUIRED = [PYTHON, PYTHON, JAVA]
PRIORITIES = [Priority.INTERACTIVE] * 3 + [Priority.EXAM, Priority.REGRADE]
ORIGINS = [Origin("backend", "main", "42"), Origin("sweep", "", "42")]
PURPOSES = [Purpose.SUBMIT] * 4 + [Purpose.REJUDGE]


class Trial:
    """The board, its rows and the model, side by side."""

    def __init__(self) -> None:
        self.board = Board()
        self.ledger = FakeLedger()
        self.model = Model()
        self.now = 0.0
        self.names: list[RunId] = []
        self.leases: list[Lease] = []  # every one that ever was
        self.open: list[tuple[Change, Plan]] = []
        self.ended: list[RunId] = []

    def do(self, deed: str, choose: Choose) -> None:
        """Do what one of DEEDS names."""
        getattr(self, deed)(choose)

    # -- claims -----------------------------------------------------------------------------------

    def claimed(
        self,
        claim: Change | Busy | Known | Gone | Lease | None,
        plan: Answer,
        choose: Choose | None = None,
    ) -> None:
        """Compare what the board answered with what the model expects, and keep it open."""
        if not isinstance(claim, Change):
            assert claim == plan
            return
        assert isinstance(plan, Plan), (claim, plan)
        assert (claim.step, claim.run) == (plan.step, plan.run)
        rows = [(w.job.id, w.state, w.tries, w.deaths, w.key.entry) for w in claim.writes]
        assert rows == plan.rows
        for run in plan.touched:
            run.busy = True
        self.open.append((claim, plan))
        assert self.board.drain_events() == []
        if choose is None or choose(AT_ONCE):
            self.commit((claim, plan))

    def submit(self, choose: Choose) -> None:
        attempt = choose(ATTEMPTS)
        job = make_job(
            self.new_name(),
            attempt=attempt or None,
            content=choose(CONTENTS),
            requires=choose(REQUIRED),
            priority=choose(PRIORITIES),
            purpose=choose(PURPOSES),
            max_tries=MAX_TRIES[attempt],
            lease=choose([None, 10.0]),
            owner=f"owner-{attempt % 2}",
        )
        job = replace(job, origin=choose(ORIGINS))
        self.claimed(self.board.submit(job), self.model.submit(job), choose)

    def new_name(self) -> RunId:
        self.names.append(RunId(f"r{len(self.names)}"))
        return self.names[-1]

    def refuse(self, choose: Choose) -> None:
        job = make_job(self.new_name(), attempt=1)
        self.claimed(self.board.refuse(job, REFUSAL), self.model.refuse(job), choose)

    def ask(self, choose: Choose) -> None:
        old = choose(ONE_IN_FIVE)
        if names := self.names if old else list(self.model.runs):
            name, origin = choose(names), Origin("backend", "main", self.names[-1])
            self.claimed(self.board.ask(name, origin), self.model.ask(name, origin), choose)

    def cancel(self, choose: Choose) -> None:
        old = choose(ONE_IN_FIVE)
        if names := self.names if old else list(self.model.runs):
            self.cancel_run(choose(names), choose)

    def cancel_run(self, name: RunId, choose: Choose | None = None) -> None:
        self.claimed(self.board.cancel(name), self.model.cancel(name), choose)

    def lease(self, choose: Choose) -> None:
        offer = choose(OFFERS)
        skip = set(self.names[-3:]) if choose(ONE_IN_FIVE) else set()
        claim = self.board.lease(offer, self.now, skip)
        plan = self.model.lease(offer, self.now, skip)
        if claim:
            self.check_granted(claim, offer)
        self.claimed(claim, plan, choose)

    def check_granted(self, claim: Change, offer: Offer) -> None:
        lease = claim.granted
        assert lease is not None
        assert lease.job == self.model.runs[claim.run].job
        assert lease.offer == offer
        assert lease.until == (None if lease.job.lease is None else self.now + lease.job.lease)
        if claim.step is Step.LEASED:
            assert lease.id not in [old.id for old in self.leases]
        self.leases.append(lease)

    def report(self, choose: Choose) -> None:
        """What is said of a lease: one that is held, one that was lost, any of the last ones."""
        leases: dict[str, list[Lease]] = {"held": [], "waiting": [], "any": self.leases[-6:]}
        for run in self.model.runs.values():
            if run.lease:
                leases[run.where].append(run.lease)
        known = leases[choose(LEASES)] or leases["any"]
        if not known:
            return
        lease = choose(known)
        board, model, now = self.board, self.model, self.now
        match choose(REPORTS):
            case "start":
                self.claimed(board.started(lease.id), model.started(lease.id), choose)
            case "extend":
                until = now + (30.0 if choose([True, False]) else 1.0)
                self.claimed(board.extend(lease.id, until), model.extend(lease.id, until), choose)
            case "release":
                self.claimed(board.release(lease.id), model.release(lease.id), choose)
            case "finish":
                how = choose(OUTCOMES)
                claim = board.finished(lease, how, now)
                self.claimed(claim, model.finished(lease, how, now), choose)
            case "expire":
                self.claimed(board.expire(lease.id, now), model.expire(lease.id, now), choose)
            case _:
                offer = choose(OFFERS) if choose(ONE_IN_FIVE) else lease.offer
                again = board.adopt(lease.id, offer, now)
                plan = model.adopt(lease.id, offer, now)
                if isinstance(again, Change) and again.step is Step.ADOPTED:
                    self.check_granted(again, offer)
                self.claimed(again, plan, choose)

    # -- what becomes of claims -------------------------------------------------------------------

    def decide(self, choose: Choose) -> None:
        """One of the open claims is through."""
        if not self.open:
            return
        claim = choose(self.open)
        match choose(DECISIONS):
            case "commit":
                self.commit(claim)
            case "undo":
                self.undo(claim)
            case _:
                self.stranger(claim, choose)

    def commit(self, claim: tuple[Change, Plan]) -> None:
        self.open.remove(claim)
        change, plan = claim
        assert self.ledger.write(change) is None, "a row said otherwise without a stranger"
        before = [self.model.lane(lane) for lane in LANES]

        self.board.apply(change)
        told = plan.effect(change)

        for run in plan.touched:
            run.busy = False
        after = [self.model.lane(lane) for lane in LANES]
        events = self.board.drain_events()
        assert [event for event in events if not isinstance(event, QueueMoved)] == told
        self.check_moves(events, before, after)
        for event in told:
            self.check_event(event)

    def undo(self, claim: tuple[Change, Plan]) -> None:
        self.open.remove(claim)
        change, plan = claim

        self.board.undo(change)

        for run in plan.touched:
            run.busy = False
        plan.undo()
        assert self.board.drain_events() == []

    def stranger(self, claim: tuple[Change, Plan], choose: Choose) -> None:
        """A row was changed elsewhere: the claim is undone and that run is no more ours."""
        change, plan = claim
        there = [write.job.id for write in change.writes if write.expected is not None]
        if not there:
            return
        strange = choose(there)
        self.ledger.change_elsewhere(strange)
        assert self.ledger.write(change) == strange
        before = [self.model.lane(lane) for lane in LANES]

        self.open.remove(claim)
        self.board.undo(change)
        self.board.forget(strange)

        for run in plan.touched:
            run.busy = False
        plan.undo()
        lost = self.model.runs[strange]
        revoked = [LeaseRevoked(lost.lease)] if lost.where == "held" and lost.lease else []
        self.model.drop(lost)
        after = [self.model.lane(lane) for lane in LANES]
        events = self.board.drain_events()
        assert [event for event in events if not isinstance(event, QueueMoved)] == revoked
        self.check_moves(events, before, after)

    def crash(self, choose: Choose) -> None:
        """The process is killed: some open commits had reached the rows, others had not."""
        for change, plan in self.open:
            if choose([True, False]):
                assert self.ledger.write(change) is None
                plan.effect(change)
            else:
                plan.undo()
        self.open = []
        entries = [row.key.entry for row in self.ledger.rows.values()]
        self.model.next_number = max(entries, default=0) + 1
        self.model.crash()

        self.board = Board(next_entry=self.model.next_number)
        rows = self.ledger.unfinished
        orphans = [
            self.board.restore(
                row.job,
                row.key,
                row.state,
                tries=row.tries,
                deaths=row.deaths,
                lease=self.ledger.leases.get(row.job.id),
            )
            for row in (reversed(rows) if choose([True, False]) else rows)
        ]
        for orphan in orphans:
            if orphan:
                released = self.board.release(orphan.id)
                assert isinstance(released, Change)
                assert self.ledger.write(released) is None
                self.board.apply(released)
        self.board.drain_events()

    # -- the world outside ------------------------------------------------------------------------

    def wait(self, choose: Choose) -> None:
        self.now += choose([0.5, 1.0, 5.0, 10.0])

    def join(self, choose: Choose) -> None:
        offer = choose(OFFERS)
        self.board.join(offer)
        self.model.known[offer.runner] = offer
        self.model.runners_changed()

    def leave(self, choose: Choose) -> None:
        runner = choose(OFFERS).runner
        self.board.leave(runner)
        self.model.known.pop(runner, None)
        self.model.runners_changed()

    # -- what must be so --------------------------------------------------------------------------

    def check_moves(
        self, events: list[Event], before: list[list[RunId]], after: list[list[RunId]]
    ) -> None:
        """One event for each lane where somebody who waited before has another place now."""
        expected = set()
        for lane, was, now in zip(LANES, before, after, strict=True):
            moved = [
                place
                for place, run in enumerate(now, start=1)
                if run in was and was.index(run) + 1 != place
            ]
            if moved:
                expected.add(QueueMoved(lane, moved[0]))
        moves = [event for event in events if isinstance(event, QueueMoved)]
        assert len(moves) == len(set(moves))
        assert set(moves) == expected

    def check_event(self, event: Event) -> None:
        match event:
            case RunQueued(job=job) | RunReplaced(job=job):
                assert job.id not in self.ended
            case RunLeased(lease=lease) | RunStarted(lease=lease):
                assert lease.job.id not in self.ended
            case RunEnded(job=job, state=state):
                assert job.id not in self.ended, "ended twice"
                assert self.ledger.rows[job.id].state is state
                self.ended.append(job.id)

    def check(self) -> None:
        """Compare everything that can be seen."""
        self.the_board_shows_what_the_model_says()
        self.the_lists_are_complete()
        self.leases_and_alarms_are_right()
        self.the_rows_say_what_a_restart_needs()
        self.an_attempt_has_one_run_waiting_and_one_in_hand_at_most()
        self.a_suspect_is_alone_on_its_engine()

    def the_board_shows_what_the_model_says(self) -> None:
        board, model = self.board, self.model
        lanes = {name: place for lane in LANES for place, name in enumerate(model.lane(lane), 1)}
        for name in {*self.names[-8:], *model.runs}:
            run = model.runs.get(name)
            if run is None or run.where == "new":
                assert (board.job(name), board.state(name), board.place(name)) == (None,) * 3
                assert board.busy(name) == (run is not None)
                continue
            assert board.job(name) == run.job
            assert board.state(name) is run.state
            assert board.place(name) == lanes.get(name)
            assert board.busy(name) == run.busy
            assert run.tries < run.job.max_tries or run.row.ended or run.tries == 0
        assert len(board) == len(model.runs)
        assert board.waiting() == len(lanes)

    def the_lists_are_complete(self) -> None:
        board, there = self.board, [r for r in self.model.runs.values() if r.where != "new"]
        for lane in LANES:
            assert board.waiting(lane) == len(self.model.lane(lane))
            images = {image for o in self.model.known.values() for image in o.features["image"]}
            assert board.could_run(lane) == (lane[0].values[0] in images)
        for number in (0, 1):
            owner = OwnerId(f"owner-{number}")
            owned = sorted((r for r in there if r.job.owner == owner), key=lambda r: r.order)
            assert board.runs_of(owner) == [run.job for run in owned]
        for number in (1, 2, 3):
            attempt = AttemptId(number)
            runs = [
                run.job
                for purpose in Purpose
                for where in ("held", "waiting")
                for run in there
                if (run.job.attempt, run.job.purpose, run.where) == (attempt, purpose, where)
            ]
            assert board.runs_of_attempt(attempt) == runs

    def leases_and_alarms_are_right(self) -> None:
        held = [r for r in self.model.runs.values() if r.where == "held" and r.lease]
        leases = {run.lease.id: run.lease for run in held if run.lease}
        assert {lease.id: lease for lease in self.board.leases()} == leases
        for old in self.leases[-6:]:
            assert self.board.holds(old.id) == (old.id in leases)
        ends = [lease.until for lease in leases.values() if lease.until is not None]
        assert {lease.id for lease in self.board.overdue(self.now)} == {
            lease.id
            for lease in leases.values()
            if lease.until is not None and lease.until <= self.now
        }
        rests = [r.rests_until for r in self.model.runs.values() if r.where == "waiting"]
        later = [moment for moment in ends + rests if moment > self.now]
        assert self.board.next_wake(self.now) == min(later, default=None)

    def the_rows_say_what_a_restart_needs(self) -> None:
        there = {r.id: r for r in self.model.runs.values() if r.where != "new"}
        rows = {row.job.id: row for row in self.ledger.unfinished}
        assert rows.keys() == there.keys(), "lost, or doubled"
        for name, row in rows.items():
            run = there[name]
            assert (row.job, row.state) == (run.job, run.row)
            assert (row.tries, row.deaths) == (run.tries, run.deaths)
            assert (row.key.priority, row.key.entry) == run.order
        assert len({row.key for row in rows.values()}) == len(rows)

    def an_attempt_has_one_run_waiting_and_one_in_hand_at_most(self) -> None:
        seen = [
            (run.job.attempt, run.job.purpose, run.where == "held")
            for run in self.model.runs.values()
            if run.job.attempt is not None
        ]
        assert len(seen) == len(set(seen))

    def a_suspect_is_alone_on_its_engine(self) -> None:
        held = [(lease.offer.engine, lease.job.id) for lease in self.board.leases()]
        held += [
            (change.granted.offer.engine, change.run)
            for change, _ in self.open
            if change.step in (Step.LEASED, Step.ADOPTED) and change.granted
        ]
        for engine, name in held:
            if self.model.runs[name].deaths:
                assert [other for other, _ in held].count(engine) == 1

    def end(self) -> None:
        """When every run has ended, nothing is remembered."""
        for claim in list(self.open):
            self.commit(claim)
        for name in self.names:
            if self.board.job(name):
                self.cancel_run(name)
        assert len(self.board) == 0
        assert remains(self.board) == {}


class BoardMachine(RuleBasedStateMachine):
    """Trials that hypothesis thinks of; what it finds it makes as short as it can."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = Trial()

    @rule(deed=st.sampled_from(DEEDS), data=st.data())
    def step(self, deed: str, data: st.DataObject) -> None:
        """One rule for all, so that each deed is as frequent as it is written down to be."""

        def choose(things: Sequence[T]) -> T:
            return data.draw(st.sampled_from(things))

        self.trial.do(deed, choose)

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.trial.check()

    def teardown(self) -> None:
        self.trial.end()


TestBoardModel = BoardMachine.TestCase


@pytest.mark.parametrize("seed", range(settings().max_examples // 2))
def test_a_long_random_day_goes_as_the_model_says(seed: int) -> None:
    """Dice get further than hypothesis does, which likes to do one thing again and again."""
    dice = random.Random(seed)  # noqa: S311 - nothing here is secret
    trial = Trial()

    for _ in range(400):
        trial.do(dice.choice(DEEDS), dice.choice)
        trial.check()

    trial.end()
