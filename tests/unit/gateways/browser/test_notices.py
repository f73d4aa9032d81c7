"""What a browser is told, byte for byte as the protocol page has it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest

from commserver.core.finals import Final
from commserver.core.jobs import AttemptId, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.errors import (
    MalformedPacket,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    PacketTooLarge,
    RateLimited,
    StoreError,
    Unanswered,
    UnexpectedPacket,
)
from commserver.gateways.browser import notices, packets
from commserver.gateways.words import Target
from commserver.services.announcement_service import Announcement
from tests.fakes import make_final, make_job

JOB = make_job("r", attempt=42)


def broken(cause: Cause, message: str = "m", container: str = "") -> Failure:
    return Failure(cause, message, container)


def final(state: State, ending: Judged | Failure | None) -> bytes:
    packet = notices.final(make_final(17, "r", attempt=42, state=state, ending=ending))
    assert packet is not None
    return packets.encode(packet)


# -- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 3, 12_000])
def test_a_place(place: int) -> None:
    frame = packets.encode(notices.place(JOB, place))

    assert frame == (
        b'{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"42","place":"%d",'
        b'"run":"r","total":"","eta_low":"","eta_high":"","reason":""}' % place
    )


# -- EXERCICE_EXECUTED ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "spelling"),
    [
        (Status.ACCEPTED, b"accepted"),
        (Status.WRONG_ANSWER, b"wrong_answer"),
        (Status.PRESENTATION, b"presentation"),
        (Status.CPU_TIME, b"cpu_time"),
        (Status.REAL_TIME, b"real_time"),
        (Status.MEMORY, b"memory"),
        (Status.OUTPUT, b"output"),
        (Status.RUNTIME_ERROR, b"runtime_error"),
        (Status.COMPILE_ERROR, b"compile_error"),
        (Status.SECURITY, b"security"),
    ],
)
def test_whatever_the_program_did_is_an_execution(status: Status, spelling: bytes) -> None:
    frame = final(State.DONE, Judged(status, 7, 10))

    assert frame == (
        b'{"cmd":"EXERCICE_EXECUTED","id":"42","run":"r","status":"%s","grade":"7","seq":"17"}'
        % spelling
    )


def test_a_grade_of_nothing_is_told_as_a_zero() -> None:
    frame = final(State.DONE, Judged(Status.WRONG_ANSWER, 0, 10))

    assert json.loads(frame)["grade"] == "0"


def test_a_cancelled_run_is_an_execution_without_a_grade() -> None:
    assert final(State.CANCELLED, None) == (
        b'{"cmd":"EXERCICE_EXECUTED","id":"42","run":"r","status":"cancelled","grade":"","seq":"17"}'
    )


def test_a_run_whose_verdict_was_erased_says_nothing() -> None:
    assert notices.final(Final(RunId("r"), AttemptId(42), State.DONE, None, 17)) is None


def test_a_superseded_run_says_nothing() -> None:
    assert notices.final(make_final(state=State.SUPERSEDED)) is None


def test_a_final_whose_number_is_not_known_any_more_has_none() -> None:
    packet = notices.final(make_final(0, "r", attempt=42, state=State.CANCELLED))

    assert isinstance(packet, packets.ExerciceExecuted)
    assert packet.seq == ""


# -- what may be left out -------------------------------------------------------------------------


def test_progress() -> None:
    assert packets.encode(notices.progress(JOB, "run", "3/7")) == (
        b'{"cmd":"PROGRESS","user_exercice_id":"42","run":"r","stage":"run","text":"3/7"}'
    )


@pytest.mark.parametrize(
    ("until", "spelling"),
    [
        (None, ""),
        (datetime(2026, 1, 1, 12, 30, tzinfo=UTC), "2026-01-01T12:30:00.000Z"),
        (
            datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-01T10:30:00.000Z",
        ),
    ],
)
def test_an_announcement_has_its_end_in_utc(until: datetime | None, spelling: str) -> None:
    assert notices.announcement(Announcement(7, "soon", until)) == packets.Announcement(
        "7", "soon", spelling
    )


# -- the ERROR that ends a run --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "frame"),
    [
        (
            broken(Cause.NOT_FOUND),
            b'{"cmd":"ERROR","error_code":"404","target":"EXERCICE","target_id":"42",'
            b'"run":"r","seq":"17","message":"m","fault":"teacher"}',
        ),
        (
            broken(Cause.IMAGE),
            b'{"cmd":"ERROR","error_code":"404","target":"CONTAINER","target_id":"",'
            b'"run":"r","seq":"17","message":"m","fault":"system"}',
        ),
        (
            broken(Cause.EXERCISE),
            b'{"cmd":"ERROR","error_code":"500","target":"EXERCICE","target_id":"42",'
            b'"run":"r","seq":"17","message":"m","fault":"teacher"}',
        ),
        (
            broken(Cause.CONTAINER, container="c0ffee"),
            b'{"cmd":"ERROR","error_code":"500","target":"CONTAINER","target_id":"c0ffee",'
            b'"run":"r","seq":"17","message":"the container that ran it failed","fault":"system"}',
        ),
        (
            broken(Cause.INTERNAL, container="c0ffee"),
            b'{"cmd":"ERROR","error_code":"500","target":"OTHER","target_id":"",'
            b'"run":"r","seq":"17","message":"internal error","fault":"system"}',
        ),
        (
            broken(Cause.FULL),
            b'{"cmd":"ERROR","error_code":"429","target":"EXERCICE","target_id":"42",'
            b'"run":"r","seq":"17","message":"m","fault":"system"}',
        ),
    ],
)
def test_what_could_not_be_graded_ends_with_the_error_of_the_table(
    ending: Failure, frame: bytes
) -> None:
    assert final(State.FAILED, ending) == frame


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_failure_has_its_error(cause: Cause) -> None:
    packet = json.loads(final(State.FAILED, broken(cause)))

    assert packet["target"] in get_args(Target)
    assert all(isinstance(value, str) for value in packet.values())


def test_the_message_of_a_final_may_hold_any_text_of_one_line() -> None:
    frame = final(State.FAILED, broken(Cause.EXERCISE, 'one "two"\tdrei — 四\nfor the teacher'))

    assert json.loads(frame)["message"] == 'one "two"\tdrei — 四'
    assert b"\n" not in frame


# -- the ERROR that answers a command -------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "frame"),
    [
        (
            NotAuthenticated("this token is not valid"),
            b'{"cmd":"ERROR","error_code":"401","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"this token is not valid","fault":""}',
        ),
        (
            NotAllowed("this connection belongs to another account"),
            b'{"cmd":"ERROR","error_code":"403","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"this connection belongs to another account","fault":""}',
        ),
        (
            NotAllowed("somebody else's", "attempt", "42"),
            b'{"cmd":"ERROR","error_code":"403","target":"EXERCICE","target_id":"42",'
            b'"run":"","seq":"","message":"somebody else\'s","fault":""}',
        ),
        (
            NotFound("attempt", "42"),
            b'{"cmd":"ERROR","error_code":"404","target":"EXERCICE","target_id":"42",'
            b'"run":"","seq":"","message":"no attempt 42","fault":""}',
        ),
        (
            NotFound("container", "c0ffee"),
            b'{"cmd":"ERROR","error_code":"404","target":"CONTAINER","target_id":"c0ffee",'
            b'"run":"","seq":"","message":"no container c0ffee","fault":""}',
        ),
        (
            RateLimited("later"),
            b'{"cmd":"ERROR","error_code":"429","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"later","fault":""}',
        ),
        (
            Unanswered("no backend answered"),
            b'{"cmd":"ERROR","error_code":"500","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"internal error","fault":"system"}',
        ),
        (
            MalformedPacket("no JSON"),
            b'{"cmd":"ERROR","error_code":"400","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"no JSON","fault":""}',
        ),
        (
            UnexpectedPacket("not now", "stranger"),
            b'{"cmd":"ERROR","error_code":"400","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"not now","fault":""}',
        ),
        (
            PacketTooLarge(64),
            b'{"cmd":"ERROR","error_code":"400","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"a frame is longer than 64 bytes","fault":""}',
        ),
        (
            StoreError("table tokens is locked"),
            b'{"cmd":"ERROR","error_code":"500","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"internal error","fault":"system"}',
        ),
        (
            ZeroDivisionError("a bug"),
            b'{"cmd":"ERROR","error_code":"500","target":"OTHER","target_id":"",'
            b'"run":"","seq":"","message":"internal error","fault":"system"}',
        ),
    ],
)
def test_a_command_that_was_not_carried_out_is_answered_by_the_error_of_the_table(
    error: Exception, frame: bytes
) -> None:
    assert packets.encode(notices.error(error)) == frame
