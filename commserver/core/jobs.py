"""Runs, the runners that offer to take them, and the leases between the two."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Literal, NamedTuple, NewType

RunId = NewType("RunId", str)
LeaseId = NewType("LeaseId", str)
AttemptId = NewType("AttemptId", int)
OwnerId = NewType("OwnerId", str)
ContentHash = NewType("ContentHash", str)
Recipient = NewType("Recipient", str)  # whom finals are owed: words without a blank, "account:12"


def content_hash(content: bytes) -> ContentHash:
    """Return the name under which `content` is stored: its sha256, lowercase hex."""
    return ContentHash(hashlib.sha256(content).hexdigest())


class Priority(IntEnum):
    """The class of a run: a lower one is served first, always."""

    EXAM = 0
    INTERACTIVE = 1
    REGRADE = 2


class Purpose(StrEnum):
    """What a run of an attempt is for; at most one waits for each."""

    SUBMIT = "submit"
    REJUDGE = "rejudge"


SWEEP = "sweep"  # the gateway of runs that nobody asked for


class Origin(NamedTuple):
    """Who asked: the gateway, the peer behind it, and the peer's own name for the work."""

    gateway: str
    peer: str
    reference: str

    @property
    def swept(self) -> bool:
        """True when nobody asked: the sweep found the work by itself."""
        return self.gateway == SWEEP


Value = str | int


class Requirement(NamedTuple):
    """One condition on a runner's offer.

    ``=`` the offer has exactly this value among its own · ``in`` it has at least one of them ·
    ``<=`` the value is at most the largest number offered.
    """

    name: str
    op: Literal["=", "<=", "in"]
    values: tuple[Value, ...]


Requires = tuple[Requirement, ...]


def normalised(requires: Iterable[Requirement]) -> Requires:
    """Return equal requirements as equal tuples, so that they share a lane."""
    distinct = {
        Requirement(name, op, tuple(sorted(set(values), key=repr))) for name, op, values in requires
    }
    return tuple(sorted(distinct, key=repr))  # values may be words beside numbers


@dataclass(frozen=True, slots=True)
class Job:
    """A run as the queue sees it.

    id: the `executions` row, and the `run` that clients see.
    origin: who asked, and their own name for it.
    owner: whom it is fair to; a platform account's id, else `<gateway>:<peer>[:<user>]`.
    course: what a share of the machine is given to; for foreign jobs the gateway.
    content: sha256 of what is judged, kept in the file store (see docs/decisions).
    requires: what a runner must offer, normalised; equal ones share a lane.
    attempt: the platform's `user_exercises` row, None for foreign jobs.
    priority: its class.
    max_tries: counted tries after which it is FAILED.
    lease: seconds that a runner may hold it without extending, None for ever.
    tell: who is owed its end beside its student, such as the backend that asked with `ack`.
    """

    id: RunId
    origin: Origin
    owner: OwnerId
    course: str
    content: ContentHash
    requires: Requires
    attempt: AttemptId | None = None
    purpose: Purpose = Purpose.SUBMIT
    priority: Priority = Priority.INTERACTIVE
    max_tries: int = 3
    lease: float | None = None
    tell: tuple[Recipient, ...] = ()

    def telling(self, more: Iterable[Recipient]) -> "Job":
        """Return the job with these to be told as well, each once."""
        return replace(self, tell=tuple(dict.fromkeys((*self.tell, *more))))


@dataclass(frozen=True, slots=True)
class Offer:
    """What one runner brings.

    runner: its name, unique among those that are known.
    engine: what dies as one: runners that share an engine share its fate.
    features: for each name the values it has; numbers for ``<=``.
    remote: true when the runner is another process, whose leases are rows of their own.
    """

    runner: str
    engine: str
    features: Mapping[str, frozenset[Value]] = field(hash=False)
    remote: bool = False

    def fits(self, requires: Requires) -> bool:
        """Return whether this runner can take what `requires` asks."""
        return all(self._meets(requirement) for requirement in requires)

    def _meets(self, requirement: Requirement) -> bool:
        has = self.features.get(requirement.name, frozenset())
        if requirement.op == "<=":
            numbers = [value for value in has if isinstance(value, int)]
            return bool(numbers) and all(
                isinstance(value, int) and value <= max(numbers) for value in requirement.values
            )
        return not has.isdisjoint(requirement.values)


class SortKey(NamedTuple):
    """Where a run stands: class, then tag (fair share), then entry number. Fixed at entry."""

    priority: int
    tag: float
    entry: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A job in the hands of one runner; one lease is one try.

    job: as it was when leased; an outcome counts only for this content.
    until: monotonic seconds of the board's clock after which it is lost, None for never.
    since: monotonic seconds at which it was granted.
    """

    id: LeaseId
    job: Job
    offer: Offer
    until: float | None = None
    since: float = 0.0
