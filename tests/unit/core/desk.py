"""A board whose claims are committed and applied at once, for tests that are about one rule."""

from collections.abc import Collection
from dataclasses import replace
from typing import NoReturn

from commserver.core.board import Board, Gone
from commserver.core.changes import Busy, Change, Known
from commserver.core.dispatcher import Dispatcher
from commserver.core.events import Event
from commserver.core.jobs import Job, Lease, LeaseId, Offer, RunId
from commserver.core.verdicts import Outcome
from tests.fakes import FakeLedger, broken, completed, make_job, make_offer

A, B, C, D = (RunId(name) for name in "abcd")
SLOT = make_offer()
ELSEWHERE = make_offer("other", engine="elsewhere")
REMOTE = make_offer("node", engine="away", remote=True)
PYTHONIST = make_offer("pythonist", images=("python",))


class Desk:
    """Drives one board and its rows; `now` is the time at which everything is done."""

    def __init__(self, board: Board | None = None, ledger: FakeLedger | None = None) -> None:
        self.board = Board() if board is None else board  # an empty board is false
        self.ledger = ledger or FakeLedger()
        self.now = 0.0

    # -- the three steps --------------------------------------------------------------------------

    def carry_out(self, change: Change) -> Change:
        """Commit and apply; a row that says otherwise is a bug of the board."""
        assert self.ledger.write(change) is None
        self.board.apply(change)
        return change

    def commit(self, claim: Change | Busy | Known | Lease | Gone | None) -> Change:
        """Carry out a claim that must be one."""
        if not isinstance(claim, Change):
            _refused(claim)
        return self.carry_out(claim)

    def events(self) -> list[Event]:
        """Return what was told since the last call."""
        return self.board.drain_events()

    # -- doors ------------------------------------------------------------------------------------

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self.commit(self.board.submit(job))

    def lease(self, offer: Offer = SLOT, skip: Collection[RunId] = ()) -> Lease:
        """Lease the next run for this offer; there must be one."""
        change = self.commit(self.board.lease(offer, self.now, skip))
        assert change.granted is not None
        return change.granted

    def next_for(self, offer: Offer = SLOT) -> RunId | None:
        """Return which run this offer would get now, without taking it."""
        claim = self.board.lease(offer, self.now)
        if claim is None:
            return None
        self.board.undo(claim)
        return claim.run

    def start(self, lease: Lease) -> None:
        self.commit(self.board.started(lease.id))

    def finish(self, lease: Lease, outcome: Outcome | None = None) -> Change:
        return self.commit(self.board.finished(lease, outcome or completed(), self.now))

    def release(self, lease: Lease) -> Change:
        return self.commit(self.board.release(lease.id))

    def expire(self, lease: Lease) -> Change:
        return self.commit(self.board.expire(lease.id, self.now))

    def cancel(self, run: str) -> Change:
        return self.commit(self.board.cancel(RunId(run)))

    def lose(self, job: Job, offer: Offer = REMOTE) -> Lease:
        """Submit a run and lease it, let the lease run out and the run rest: it waits again."""
        self.submit(replace(job, lease=10.0))
        lease = self.lease(offer)
        self.now += 10.0
        self.expire(lease)
        self.now += 1.0
        return lease

    def kill_engine_under(self, lease: Lease) -> None:
        """Report that the lease's engine died, and let the run rest."""
        self.finish(lease, broken(engine_died=True))
        self.now += 5.0

    def suspect(self, run: str, deaths: int = 1, attempt: int | None = None) -> None:
        """Submit a run and let that many engines die under it, one after the other."""
        self.submit(make_job(run, max_tries=9, attempt=attempt))
        for number in range(deaths):
            doomed = make_offer(f"doomed-{number}", engine="doomed")
            self.kill_engine_under(self.lease(doomed))

    def adopt(self, lease: LeaseId, offer: Offer) -> Change:
        return self.commit(self.board.adopt(lease, offer, self.now))

    # -- what there is ----------------------------------------------------------------------------

    def order(self, *, offer: Offer = SLOT) -> list[RunId]:
        """Return in which order this offer would be served; nothing is taken."""
        served: list[RunId] = []
        claims: list[Change] = []
        while claim := self.board.lease(offer, self.now, skip=served):
            served.append(claim.run)
            claims.append(claim)
        for claim in claims:
            self.board.undo(claim)
        return served

    def restarted(self, next_entry: int = 1) -> "Desk":
        """Return the desk of a process that found these rows; orphans are released."""
        desk = Desk(Board(next_entry=next_entry), self.ledger)
        for orphan in self.ledger.restore(desk.board):
            desk.release(orphan)
        return desk


def _refused(claim: object) -> NoReturn:
    raise AssertionError(f"a claim was expected, not {claim!r}")


def remains(thing: Board | Dispatcher) -> dict[str, object]:
    """Return what it still remembers in its containers: nothing after all runs have ended.

    Looks into private attributes, for memory is not to be seen from outside.
    """
    kept = {"_runners", "_events"}
    return {
        name: value
        for name, value in vars(thing).items()
        if isinstance(value, dict | set | list) and value and name not in kept
    }
