"""Finals: what ends a run, for those who must be told of it.

A final is owed from the commit that ends its run until its recipient has it, however often either
side goes away meanwhile. Each recipient has a series of its own, numbered without a gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from commserver.core.changes import Change
from commserver.core.jobs import AttemptId, OwnerId, Purpose, Recipient, RunId
from commserver.core.states import State
from commserver.core.text import clean_text
from commserver.core.verdicts import Broken, Completed, Failure, Judged, Outcome

ACCOUNT = "account:"  # begins the word for each platform account
WEBHOOK = Recipient("webhook")  # the one address that hears of every end over HTTP


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


class Cursor:
    """How far one receiver, such as a socket, is in its recipient's series. Sans-I/O.

    It begins behind. Whoever is behind reads what is owed above `after`; whoever is not is given
    each final as it happens, if it is the next one. So all come in order, none twice and none left
    out, whichever way the reports of two commits overtake each other.
    """

    def __init__(self) -> None:
        self.after = 0  # the number up to which nothing more has to be given
        self.since: int | None = None  # the highest number at its first read
        self._heard = 0  # the highest number that is known to be there
        self._read = False

    @property
    def behind(self) -> bool:
        """True when there may be something to read above `after`."""
        return not self._read or self._heard > self.after

    def heard(self, seq: int, *, room: bool = True) -> bool:
        """Return whether to give this one now: it is the next, and there is `room` for it."""
        following = not self.behind and seq == self.after + 1 and room
        self._heard = max(self._heard, seq)
        if following:
            self.after = seq
        return following

    def caught_up(self, finals: Sequence[Final], last: int, *, more: bool) -> None:
        """Note what was read: these, of a series that ends at `last`; `more` are left to read."""
        if not self._read:
            self.since = last
        self._read = True
        if more:
            self.after = finals[-1].seq
        else:
            self.after = max(self.after, last)
        self._heard = max(self._heard, last)


def account(owner: OwnerId) -> Recipient:
    """Return the recipient that all browsers of a platform account are together."""
    return Recipient(f"{ACCOUNT}{owner}")


def backend(name: str) -> Recipient:
    """Return the recipient that a configured backend is, whichever link it has at the moment."""
    return Recipient(f"backend:{name}")


def recipients(change: Change) -> list[Recipient]:
    """Return whom the final that this change brings is owed; none when it ends nothing for them.

    In one order for all changes, in which their series are locked. A student hears nothing of a
    run that gave way to a newer one; whoever asked for the run does.
    """
    job = change.writes[0].job if change.writes else None
    if job is None or not change.state.ended:
        return []
    submitted = job.attempt is not None and job.purpose is Purpose.SUBMIT and job.owner
    if not submitted or change.state is State.SUPERSEDED:
        return sorted(job.tell)
    return sorted((account(job.owner), *job.tell))


def ending(outcome: Outcome | None) -> Judged | Failure | None:
    """Return an outcome in short, as it is read back later: its texts are clean. None for none."""
    match outcome:
        case Completed(verdict=verdict):
            return Judged(verdict.status, verdict.grade, verdict.grade_max)
        case Broken(failure=failure):
            return replace(
                failure,
                message=clean_text(failure.message),
                container=clean_text(failure.container),
            )
        case None:
            return None
