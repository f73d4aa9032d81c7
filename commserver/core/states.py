"""The states of a run and every way from one to another, as data.

`python -m commserver.core.states` prints the diagram that the documentation shows.
"""

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a run is; the last four are ends."""

    QUEUED = "queued"
    """Waiting for a runner, also between two tries."""
    LEASED = "leased"
    """Promised to one runner, which has not begun."""
    RUNNING = "running"
    """Begun by its runner."""
    DONE = "done"
    """Judged: there is a verdict."""
    FAILED = "failed"
    """Could not be graded; a fault of the exercise's or ours."""
    CANCELLED = "cancelled"
    """Called off before a verdict."""
    SUPERSEDED = "superseded"
    """Gave its place to a newer run of the same attempt."""

    @property
    def ended(self) -> bool:
        """True when nothing can happen to the run any more."""
        return self in ENDS


ENDS = frozenset({State.DONE, State.FAILED, State.CANCELLED, State.SUPERSEDED})
ACTIVE = frozenset({State.LEASED, State.RUNNING})


class Step(StrEnum):
    """What can happen to a run."""

    SUBMITTED = "submitted"
    REFUSED = "refused"
    REPLACED = "replaced"
    ASKED = "asked"
    LEASED = "leased"
    ADOPTED = "adopted"
    EXTENDED = "extended"
    STARTED = "started"
    COMPLETED = "completed"
    RETRIED = "retried"
    RELEASED = "released"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Transition(NamedTuple):
    """One arrow: `before` is None where a run begins."""

    before: State | None
    step: Step
    after: State


TRANSITIONS = (
    Transition(None, Step.SUBMITTED, State.QUEUED),
    Transition(None, Step.REFUSED, State.FAILED),
    Transition(State.QUEUED, Step.REPLACED, State.QUEUED),
    # Somebody asks for a run that was made unasked.
    Transition(State.QUEUED, Step.ASKED, State.QUEUED),
    Transition(State.QUEUED, Step.LEASED, State.LEASED),
    Transition(State.QUEUED, Step.ADOPTED, State.LEASED),
    # An outcome that comes after its lease was lost still counts, if nothing newer was handed in.
    Transition(State.QUEUED, Step.COMPLETED, State.DONE),
    Transition(State.QUEUED, Step.CANCELLED, State.CANCELLED),
    *(
        transition
        for active in (State.LEASED, State.RUNNING)
        for transition in (
            Transition(active, Step.ASKED, active),
            Transition(active, Step.EXTENDED, active),
            Transition(active, Step.COMPLETED, State.DONE),
            Transition(active, Step.FAILED, State.FAILED),
            Transition(active, Step.RETRIED, State.QUEUED),
            Transition(active, Step.RELEASED, State.QUEUED),
            Transition(active, Step.CANCELLED, State.CANCELLED),
            Transition(active, Step.SUPERSEDED, State.SUPERSEDED),
        )
    ),
    Transition(State.LEASED, Step.STARTED, State.RUNNING),
)

_TABLE = {(transition.before, transition.step): transition.after for transition in TRANSITIONS}


def after(before: State | None, step: Step) -> State | None:
    """Return the state that `step` leads to from `before`, None where there is no such arrow."""
    return _TABLE.get((before, step))


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2"]
    lines += [f"    {before or '[*]'} --> {after}: {step}" for before, step, after in TRANSITIONS]
    lines += [f"    {state} --> [*]" for state in State if state.ended]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
