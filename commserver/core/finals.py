"""Finals: what ends a run, for those who must be told of it.

A final is owed from the commit that ends its run until its recipient has it, however often either
side goes away meanwhile. Each recipient has a series of its own, numbered without a gap.
"""

from dataclasses import dataclass
from typing import NamedTuple, NewType

from commserver.core.execution import Failure, Judged
from commserver.core.jobs import AttemptId, OwnerId, RunId
from commserver.core.states import State

Recipient = NewType("Recipient", str)


class Notice(NamedTuple):
    """One final that is owed: the `seq`-th of its recipient's series, counted from 1."""

    recipient: Recipient
    seq: int


@dataclass(frozen=True, slots=True)
class Final:
    """How a run ended, whether it was heard of just now or is read back much later.

    ending: how it was judged or why it could not be; None when it was cancelled.
    """

    run: RunId
    attempt: AttemptId | None
    state: State
    ending: Judged | Failure | None
    seq: int


def account(owner: OwnerId) -> Recipient:
    """Return the recipient that all browsers of a platform account are together."""
    return Recipient(f"account:{owner}")
