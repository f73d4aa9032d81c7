"""What has happened on the board, told after it is certain. Names are in the past tense."""

from dataclasses import dataclass

from commserver.core.finals import Notice
from commserver.core.jobs import Job, Lease, Requires, RunId
from commserver.core.states import State
from commserver.core.verdicts import Outcome


@dataclass(frozen=True, slots=True)
class RunQueued:
    """A run waits, for the first time or (`again`) after a try that did not count for it."""

    job: Job
    again: bool = False


@dataclass(frozen=True, slots=True)
class RunReplaced:
    """A waiting run keeps its id and place, and will grade this newer content."""

    job: Job


@dataclass(frozen=True, slots=True)
class RunAsked:
    """Somebody asked for a run that had ended: its end is owed to them now."""

    run: RunId
    notices: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class RunLeased:
    """A runner has it: the run waits no longer."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class RunStarted:
    """Its runner has begun."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class RunProgressed:
    """Its runner says how far it is: for the curious, may be dropped."""

    lease: Lease
    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Nothing more will happen to it; `outcome` is None when CANCELLED or SUPERSEDED.

    notices: to whom this end is owed until they have it; committed together with it.
    """

    job: Job
    state: State
    outcome: Outcome | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseRevoked:
    """A lease ended without its holder: who has it must stop, its report will not count."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class QueueMoved:
    """In the lane of these requirements the places from `first` (1-based) on are not as before.

    One event for all of them: whoever has somebody watching asks for that somebody's places.
    """

    lane: Requires
    first: int


Event = (
    RunQueued
    | RunReplaced
    | RunAsked
    | RunLeased
    | RunStarted
    | RunProgressed
    | RunEnded
    | LeaseRevoked
    | QueueMoved
)
