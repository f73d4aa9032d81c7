"""What a judged step will do: to the rows of the database first, then to the board.

Every change has three steps: it is *claimed* on the board (no await, the runs are marked busy),
*committed* as compare-and-set on rows, then *applied* to the board and published (no await).
"""

from dataclasses import dataclass
from typing import NamedTuple

from commserver.core.jobs import Job, Lease, RunId, SortKey
from commserver.core.states import State, Step
from commserver.core.verdicts import Outcome


@dataclass(frozen=True, slots=True)
class Write:
    """One row of `executions`: what it must say now, and what it will say.

    expected: the state in the row, None for a row that is new. `expected_tries` likewise. A row
    that says otherwise is somebody else's: then nothing of the change is written.
    state: what the row says afterwards. It may lag behind the board: a run in the hands of a local
    slot still says QUEUED.
    """

    job: Job
    expected: State | None
    expected_tries: int
    state: State
    tries: int
    deaths: int
    key: SortKey


@dataclass(frozen=True, slots=True)
class Change:
    """One claimed step of one run, with everything that the commit and the board need.

    state: where the run will be on the board. `writes`: its rows, in the order in which they must
    be written, none when nothing outlives this process.
    granted: the lease that begins or goes on. `ended`: the lease that ends with it; `revoked` when
    its holder does not know yet and has to stop.
    outcome: how the run ended, for COMPLETED, FAILED and REFUSED.
    not_before: monotonic seconds before which a retried run is not leased again.
    successor: the newer run that takes a superseded run's place.
    """

    step: Step
    run: RunId
    state: State
    writes: tuple[Write, ...] = ()
    granted: Lease | None = None
    ended: Lease | None = None
    revoked: bool = False
    outcome: Outcome | None = None
    not_before: float = 0.0
    successor: RunId | None = None

    @property
    def durable(self) -> bool:
        """True when there is something to commit: rows, or the lease of another process."""
        leases = (lease for lease in (self.granted, self.ended) if lease)
        return bool(self.writes) or any(lease.offer.remote for lease in leases)


class Busy(NamedTuple):
    """Another change of `run` is being committed: wait until it is through, then judge again."""

    run: RunId


class Conflict(NamedTuple):
    """The row of `run` says otherwise: nothing of the change was written."""

    run: RunId


class Known(NamedTuple):
    """Nothing to do: `run` is already what was asked for."""

    run: RunId
