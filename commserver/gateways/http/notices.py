"""What is answered over HTTP and told to a webhook, in this protocol's own words."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Literal, Protocol

from commserver.core.finals import Final
from commserver.core.jobs import AttemptId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.errors import (
    KeyReused,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PacketTooLarge,
    ProtocolError,
    RateLimited,
    StoreError,
    StoreRefused,
    Unanswered,
)
from commserver.gateways.http.packets import (
    Announced,
    AuditRow,
    AuditRows,
    Executed,
    Problem,
    Run,
    RunError,
)
from commserver.gateways.words import EXERCICE, OTHER, Target, ending, moment, target_of, word
from commserver.services.announcement_service import Announcement
from commserver.services.record_service import RunRecord

RETRY_AFTER = 5  # seconds after which it is worth asking again

_LATER = {"Retry-After": str(RETRY_AFTER)}


class Entry(Protocol):
    """One thing that an admin did, as it is on record."""

    @property
    def id(self) -> int: ...
    @property
    def at(self) -> datetime: ...
    @property
    def who(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Refused(ProtocolError):
    """A request that HTTP has a status of its own for."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        headers: Mapping[str, str] | None = None,
        attempt: AttemptId | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.attempt = attempt


def unavailable(message: str) -> Refused:
    """Return the answer to what may go better a few seconds later."""
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, message, _LATER)


def problem(error: Exception) -> tuple[HTTPStatus, Problem, Mapping[str, str]]:
    """Return status, body and headers of the answer to a request that failed."""
    status, headers = _status(error)
    target: Target
    match error:
        case Refused(attempt=attempt):
            target, target_id = (EXERCICE, str(attempt)) if attempt is not None else (OTHER, "")
        case NotAllowed() | NotFound() if target_of(error.kind) != OTHER:
            target, target_id = target_of(error.kind), error.id
        case _:
            target, target_id = OTHER, ""
    ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    message = _message(error, status)
    fault: Literal["", "system"] = "system" if ours else ""
    return status, Problem(str(status.value), target, target_id, message, fault), headers


def _status(error: Exception) -> tuple[HTTPStatus, Mapping[str, str]]:
    match error:
        case Refused():
            return error.status, error.headers
        case NotAuthenticated():
            return HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": 'Bearer realm="commserver"'}
        case NotAllowed():
            return HTTPStatus.FORBIDDEN, {}
        case NotFound():
            return HTTPStatus.NOT_FOUND, {}
        case KeyReused():
            return HTTPStatus.CONFLICT, {}
        case PacketTooLarge():
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"Connection": "close"}
        case ProtocolError():
            return HTTPStatus.BAD_REQUEST, {}
        case RateLimited():
            return HTTPStatus.TOO_MANY_REQUESTS, _LATER
        case Unanswered():
            return HTTPStatus.INTERNAL_SERVER_ERROR, _LATER
        case StoreError() if not isinstance(error, StoreRefused):
            return HTTPStatus.SERVICE_UNAVAILABLE, _LATER
        case TimeoutError():
            return HTTPStatus.SERVICE_UNAVAILABLE, _LATER
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, {}


def _message(error: Exception, status: HTTPStatus) -> str:
    match error:
        case PacketTooLarge():
            return f"the body is longer than {error.limit} bytes"
        case StoreError() if status is HTTPStatus.SERVICE_UNAVAILABLE:
            return "the database does not answer"
        case TimeoutError():
            return "this took too long"
        case Unanswered():
            return "whoever knows this token did not answer"
        case Refused():
            return str(error)
        case _ if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            return "internal error"
        case _:
            return str(error)


def run(record: RunRecord) -> Run:
    """Return a run as it is shown to a platform."""
    stored = record.stored
    attempt = word(stored.job.attempt)
    status = grade = grade_max = code = message = fault = target_id = ""
    target: Target | str = ""
    match record.state, stored.ending:
        case State.DONE, Judged() as judged:
            status, grade, grade_max = judged.status, str(judged.grade), str(judged.grade_max)
        case State.CANCELLED, _:
            status = Status.CANCELLED
        case State.FAILED, Failure() as failure:
            code, target, target_id, fault, message = ending(failure, stored.job.attempt)
    return Run(
        id=attempt,
        run=stored.job.id,
        state=record.state.value,
        place=str(record.place),
        status=status,
        grade=grade,
        grade_max=grade_max,
        error_code=code,
        target=target,  # type: ignore[arg-type]  # one of its words, or ""
        target_id=target_id,
        fault=fault,  # type: ignore[arg-type]  # likewise
        message=message,
        created_at=moment(stored.created_at),
        started_at=moment(stored.started_at),
        ended_at=moment(stored.ended_at),
    )


def told(final: Final) -> Executed | RunError:
    """Return what a webhook is told of a run's end."""
    attempt, seq = word(final.attempt), str(final.seq)
    match final.state, final.ending:
        case State.DONE, Judged(status=status, grade=grade, grade_max=grade_max):
            judged = (status.value, str(grade), str(grade_max))
            return Executed(attempt, final.run, seq, *judged)
        case ((State.CANCELLED | State.SUPERSEDED), _):
            return Executed(attempt, final.run, seq, final.state.value, "", "")
        case _, Failure() as failure:
            pass
        case _:  # its details were erased
            failure = Failure(Cause.INTERNAL, "")
    said = ending(failure, final.attempt)
    return RunError(
        attempt,
        final.run,
        seq,
        error_code=said.code,
        target=said.target,
        target_id=said.target_id,
        fault=said.fault,
        message=said.message,
    )


def announced(said: Announcement | None) -> Announced:
    """Return what is said to all students."""
    if said is None:
        return Announced("", "", "")
    return Announced(str(said.id), said.text, moment(said.until))


def audited(entries: Sequence[Entry]) -> AuditRows:
    """Return what admins did."""
    return AuditRows(
        [
            AuditRow(str(one.id), moment(one.at), one.who, one.action, one.target, one.detail)
            for one in entries
        ]
    )
