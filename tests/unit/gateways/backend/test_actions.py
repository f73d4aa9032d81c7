"""What a backend's packets make us do."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from commserver.core.jobs import AttemptId, Origin
from commserver.errors import MalformedPacket, NotFound, StoreError, StoreRefused, UnexpectedPacket
from commserver.gateways.backend import actions
from commserver.gateways.backend.actions import (
    STORE_TRIES,
    Link,
    attempt_id,
    on_error,
    on_exercise,
    on_welcome,
)
from commserver.gateways.backend.notices import refuse
from commserver.gateways.backend.packets import Error, Exercise, Handshake, Ok
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from tests.unit.gateways.services import RecordingExecService


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
def link(execs: RecordingExecService) -> Link:
    return Link("school", BackendProtocol("SERVER_TOKEN", 1024), execs)


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "STORE_PAUSES", (0.0001, 0.0001))


# -- EXERCISE -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["42", 42, " 42\t", "0042"])
async def test_an_exercise_is_submitted_by_its_number(
    id: str | int, link: Link, execs: RecordingExecService
) -> None:
    await on_exercise(Exercise(id), link)

    assert execs.submitted == [(AttemptId(42), Origin("backend", "school", str(id)))]


async def test_a_backend_that_pushes_work_has_welcomed_us(link: Link) -> None:
    await on_exercise(Exercise("42"), link)

    assert link.protocol.phase is Phase.WELCOMED


@pytest.mark.usefixtures("_hurried")
async def test_an_exercise_is_submitted_again_until_the_database_is_back(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=3)

    with capture_logs() as logs:
        await on_exercise(Exercise("42"), link)

    assert execs.attempts == [42]
    assert [line["event"] for line in logs] == ["exercise_waits"] * 3


@pytest.mark.usefixtures("_hurried")
async def test_what_the_database_will_never_take_does_not_stop_the_link(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreRefused("not a text"), times=1)

    with pytest.raises(StoreRefused):
        await on_exercise(Exercise("42"), link)
    await on_exercise(Exercise("43"), link)

    assert execs.attempts == [43]


@pytest.mark.usefixtures("_hurried")
async def test_what_fails_alone_time_after_time_does_not_stop_the_link_for_ever(
    link: Link, execs: RecordingExecService
) -> None:
    execs.alone = True
    execs.fail(StoreError("took too long"), times=STORE_TRIES)

    with pytest.raises(StoreRefused, match="attempt 42: took too long"):
        await on_exercise(Exercise("42"), link)
    await on_exercise(Exercise("43"), link)

    assert execs.attempts == [43]


@pytest.mark.usefixtures("_hurried")
async def test_while_the_database_is_away_nothing_is_given_up(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=2 * STORE_TRIES)

    await on_exercise(Exercise("42"), link)

    assert execs.attempts == [42]


@pytest.mark.usefixtures("_hurried")
async def test_waiting_for_the_database_can_be_cancelled(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=1_000_000)
    waiting = asyncio.create_task(on_exercise(Exercise("42"), link))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()


async def test_an_error_that_is_not_the_databases_is_not_retried(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(NotFound("attempt", "42"))

    with pytest.raises(NotFound):
        await on_exercise(Exercise("42"), link)

    assert execs.attempts == []


ABSURD = ["", " ", "x", "-1", -1, "+1", "4.2", "1e3", "0x2a", "4 2", "4_2", "42\x00", "٤٢", "²"]
TOO_LONG = [2**63, str(2**63), 10**4000, "9" * 20, "0" * 20 + "1", "x" * 1_000_000]


@pytest.mark.parametrize("id", [*ABSURD, *TOO_LONG])
async def test_an_id_that_no_attempt_can_have_is_not_found(
    id: str | int, link: Link, execs: RecordingExecService
) -> None:
    with pytest.raises(NotFound) as caught:
        await on_exercise(Exercise(id), link)

    assert caught.value.kind == "attempt"
    assert len(caught.value.id) <= 40
    assert execs.attempts == []


@settings(deadline=None)
@given(st.text() | st.integers() | st.integers(0, 2**63 - 1).map(str))
def test_an_id_is_a_number_that_both_databases_hold_or_not_found(id: str | int) -> None:
    try:
        attempt = attempt_id(id)
    except NotFound:
        return

    assert 0 <= attempt < 2**63
    assert str(attempt) == str(id).strip().lstrip("0").rjust(1, "0")


# -- answers to the HANDSHAKE ---------------------------------------------------------------------


@pytest.mark.parametrize("packet", [Handshake("SERVER_TOKEN"), Ok()])
async def test_an_echo_or_ok_welcomes(packet: Handshake | Ok, link: Link) -> None:
    await on_welcome(packet, link)

    assert link.protocol.phase is Phase.WELCOMED


async def test_an_error_is_a_refusal_and_its_reason_is_logged(link: Link) -> None:
    with capture_logs() as logs:
        await on_error(Error("who are you"), link)

    assert link.protocol.phase is Phase.REFUSED
    assert [(line["event"], line["log_level"]) for line in logs] == [("handshake_refused", "error")]
    assert "who are you" in logs[0]["message"]


async def test_an_error_of_a_backend_that_had_welcomed_us_refuses_nothing(link: Link) -> None:
    link.protocol.welcomed()

    with pytest.raises(UnexpectedPacket), capture_logs() as logs:
        await on_error(Error("something else"), link)

    assert (link.protocol.phase, logs) == (Phase.WELCOMED, [])


# -- errors ---------------------------------------------------------------------------------------


def test_an_unknown_attempt_is_one_warning_each(link: Link) -> None:
    with capture_logs() as logs:
        answers = [refuse(NotFound("attempt", id), link) for id in ("1", "2")]

    assert answers == [None, None]
    assert [(line["event"], line["log_level"], line["id"]) for line in logs] == [
        ("unknown_attempt", "warning", "1"),
        ("unknown_attempt", "warning", "2"),
    ]


def test_frames_that_cannot_be_read_are_counted_and_logged_once(link: Link) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            assert refuse(MalformedPacket("nonsense"), link) is None

    assert link.unreadable == 5
    assert [(line["event"], line["log_level"]) for line in logs] == [("frame_ignored", "warning")]


@pytest.mark.parametrize("error", [StoreError("away"), ZeroDivisionError("a bug")])
def test_anything_else_is_an_error_in_the_log(error: Exception, link: Link) -> None:
    with capture_logs() as logs:
        assert refuse(error, link) is None

    assert [(line["event"], line["log_level"]) for line in logs] == [("exercise_failed", "error")]
