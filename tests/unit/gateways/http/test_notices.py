"""Errors, runs and finals in the words of HTTP."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus

import pytest

from commserver.core.jobs import AttemptId, SortKey
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.dao.executions import StoredRun
from commserver.errors import (
    KeyReused,
    MalformedPacket,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PacketTooLarge,
    RateLimited,
    StoreError,
    StoreRefused,
    Unanswered,
)
from commserver.gateways.http import notices, packets
from commserver.gateways.http.notices import Refused
from commserver.gateways.words import moment
from commserver.services.record_service import RunRecord
from tests.fakes import make_final, make_job
from tests.unit.gateways.http.checked import matches

NOW = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "code", "target", "id", "message", "fault"),
    [
        (NotAuthenticated("no"), "401", "OTHER", "", "no", ""),
        (NotAllowed("no", "attempt", "42"), "403", "EXERCICE", "42", "no", ""),
        (NotAllowed("no", "container", "c"), "403", "CONTAINER", "c", "no", ""),
        (NotAllowed("no"), "403", "OTHER", "", "no", ""),
        (NotFound("attempt", "42"), "404", "EXERCICE", "42", "no attempt 42", ""),
        (NotFound("run", "a"), "404", "OTHER", "", "no run a", ""),
        (MalformedPacket("odd", "id"), "400", "OTHER", "", "odd", ""),
        (PacketTooLarge(7), "413", "OTHER", "", "the body is longer than 7 bytes", ""),
        (RateLimited("slow"), "429", "OTHER", "", "slow", ""),
        (StoreError("secret"), "503", "OTHER", "", "the database does not answer", "system"),
        (StoreRefused("secret"), "500", "OTHER", "", "internal error", "system"),
        (TimeoutError("secret"), "503", "OTHER", "", "this took too long", "system"),
        (ZeroDivisionError("secret"), "500", "OTHER", "", "internal error", "system"),
        (Refused(HTTPStatus.CONFLICT, "no", None, AttemptId(4)), "409", "EXERCICE", "4", "no", ""),
    ],
    ids=repr,
)
def test_an_error_is_told_in_the_words_of_the_table(
    error: Exception, code: str, target: str, id: str, message: str, fault: str
) -> None:
    status, problem, _ = notices.problem(error)

    told = (problem.error_code, problem.target, problem.target_id, problem.message, problem.fault)
    assert told == (code, target, id, message, fault)
    assert str(status.value) == code


def test_a_verifier_that_is_silent_is_no_failure_of_whoever_asks() -> None:
    status, problem, headers = notices.problem(Unanswered("backend main"))

    assert (status, problem.target, problem.fault) == (500, "OTHER", "system")
    assert headers["Retry-After"]


def test_a_key_that_stands_for_something_else_is_a_conflict() -> None:
    status, problem, _ = notices.problem(KeyReused("k"))

    assert status == HTTPStatus.CONFLICT
    assert "another request" in problem.message


@pytest.mark.parametrize("error", [StoreError("x"), TimeoutError(), RateLimited("x")])
def test_what_may_go_better_later_says_when(error: Exception) -> None:
    assert notices.problem(error)[2]["Retry-After"] == "5"


def record(
    state: State, ending: Judged | Failure | None = None, *, place: int = 0, ended: bool = True
) -> RunRecord:
    job = make_job("run", attempt=42)
    stored = StoredRun(job, SortKey(1, 0.0, 1), state, 0, 0, NOW)
    if ended:
        stored = replace(stored, ended_at=NOW + timedelta(seconds=1), ending=ending)
    return RunRecord(stored, state, place)


def test_a_run_that_waits_says_where() -> None:
    run = notices.run(record(State.QUEUED, place=3, ended=False))

    assert run == packets.Run(
        id="42",
        run="run",
        state="queued",
        place="3",
        status="",
        grade="",
        grade_max="",
        error_code="",
        target="",
        target_id="",
        fault="",
        message="",
        created_at="2026-01-01T12:00:00.123Z",
        started_at="",
        ended_at="",
    )


def test_a_run_that_was_judged_says_how() -> None:
    run = notices.run(record(State.DONE, Judged(Status.WRONG_ANSWER, 7, 20)))

    assert (run.status, run.grade, run.grade_max) == ("wrong_answer", "7", "20")
    assert run.ended_at == "2026-01-01T12:00:01.123Z"
    assert run.error_code == run.target == run.fault == ""


def test_a_run_that_was_cancelled_has_a_status_and_no_grade() -> None:
    run = notices.run(record(State.CANCELLED))

    assert (run.state, run.status, run.grade) == ("cancelled", "cancelled", "")


ENDINGS = [
    (Cause.NOT_FOUND, "404", "EXERCICE", "42", "teacher", "why"),
    (Cause.EXERCISE, "500", "EXERCICE", "42", "teacher", "why"),
    (Cause.IMAGE, "404", "CONTAINER", "box", "system", "why"),
    (Cause.CONTAINER, "500", "CONTAINER", "box", "system", "the container that ran it failed"),
    (Cause.FULL, "429", "EXERCICE", "42", "system", "why"),
    (Cause.INTERNAL, "500", "OTHER", "", "system", "internal error"),
]


@pytest.mark.parametrize(("cause", "code", "target", "id", "fault", "message"), ENDINGS)
def test_a_run_that_failed_says_why_in_its_record_and_to_the_webhook(
    cause: Cause, code: str, target: str, id: str, fault: str, message: str
) -> None:
    failure = Failure(cause, "why", "box")

    run = notices.run(record(State.FAILED, failure))
    told = notices.told(make_final(3, "run", attempt=42, state=State.FAILED, ending=failure))

    expected = (code, target, id, fault, message)
    assert (run.error_code, run.target, run.target_id, run.fault, run.message) == expected
    assert isinstance(told, packets.RunError)
    assert (told.id, told.run, told.seq) == ("42", "run", "3")
    said = (told.error_code, told.target, told.target_id, told.fault, told.message)
    assert said == expected


@pytest.mark.parametrize(
    ("state", "status", "grade"),
    [
        (State.DONE, "accepted", "10"),
        (State.CANCELLED, "cancelled", ""),
        (State.SUPERSEDED, "superseded", ""),
    ],
)
def test_a_webhook_is_told_every_end(state: State, status: str, grade: str) -> None:
    told = notices.told(make_final(3, "run", attempt=42, state=state))

    assert isinstance(told, packets.Executed)
    assert (told.id, told.run, told.seq, told.status, told.grade) == (
        *("42", "run", "3"),
        *(status, grade),
    )
    matches({"$ref": "#/components/schemas/Executed"}, {**_dict(told)})


def test_a_webhook_is_told_of_a_run_whose_details_were_erased() -> None:
    told = notices.told(replace(make_final(3, "run"), ending=None))

    assert isinstance(told, packets.RunError)
    assert (told.error_code, told.target, told.fault) == ("500", "OTHER", "system")


def _dict(told: packets.Executed) -> dict[str, object]:
    read: dict[str, object] = json.loads(packets.encode(told))
    return read


def test_moments_are_utc() -> None:
    at = NOW.astimezone(timezone(timedelta(hours=2)))

    assert moment(at) == "2026-01-01T12:00:00.123Z"
    assert moment(None) == ""
