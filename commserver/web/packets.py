"""What the pages get in answer to what they ask for, as JSON. What is not known is ""."""

import msgspec
from msgspec.structs import replace

from commserver.core.states import State
from commserver.core.verdicts import Failure, Judged, Status
from commserver.gateways.words import moment, shown
from commserver.services.record_service import AttemptRecord


class PageConfig(msgspec.Struct, frozen=True):
    """Where the WebSocket is: at `websocket`, else at the page's own host, this port.

    tls: "1" when that port wants TLS.
    """

    websocket: str
    port: str
    tls: str


class Me(msgspec.Struct, frozen=True):
    """Who asks; `name` is "" if nobody knows it."""

    id: str
    name: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt as its newest run is now.

    place: from 1 while it waits, else "0". fault: who has to act where it could not be graded, and
    `message` why. created_at, ended_at: ISO 8601 in UTC.
    """

    id: str
    run: str
    title: str
    state: State
    place: str
    status: str = ""
    grade: str = ""
    grade_max: str = ""
    message: str = ""
    fault: str = ""
    created_at: str
    ended_at: str


class AttemptWithLog(msgspec.Struct, frozen=True):
    """One attempt, and what its student may read; "" when there is nothing, or nothing any more."""

    attempt: Attempt
    log: str


class Attempts(msgspec.Struct, frozen=True):
    """The newest attempts of whoever asked, newest first."""

    attempts: list[Attempt]


def attempt(record: AttemptRecord) -> Attempt:
    """Return an attempt as its student sees it."""
    run = record.run
    told = Attempt(
        id=str(record.attempt),
        run=run.stored.job.id,
        title=record.title,
        state=run.state,
        place=str(run.place),
        created_at=moment(run.stored.created_at),
        ended_at=moment(run.stored.ended_at),
    )
    match run.state, run.stored.ending:
        case State.CANCELLED, _:
            return replace(told, status=Status.CANCELLED)
        case State.DONE, Judged(status=status, grade=grade, grade_max=grade_max):
            return replace(told, status=status, grade=str(grade), grade_max=str(grade_max))
        case State.FAILED, Failure() as failure:
            message = shown(failure)
            return replace(told, message=message, fault=failure.fault)
        case _:
            return told
