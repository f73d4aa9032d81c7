"""What a backend's packets make us do."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from commserver.core.finals import Final
from commserver.core.jobs import AttemptId, Origin, Recipient, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.errors import MalformedPacket, NotFound, StoreError, StoreRefused, UnexpectedPacket
from commserver.gateways.backend import actions, notices, packets
from commserver.gateways.backend.actions import (
    STORE_TRIES,
    on_ack,
    on_authenticated,
    on_error,
    on_exercise,
    on_pushed,
    on_welcome,
)
from commserver.gateways.backend.link import REASONS, Link, Turn
from commserver.gateways.backend.notices import refuse
from commserver.gateways.backend.packets import (
    Ack,
    AuthenticatedClient,
    Error,
    Executed,
    Exercise,
    Handshake,
    Ok,
    RunError,
)
from commserver.gateways.backend.protocol import Phase
from commserver.gateways.words import Target, attempt_id
from tests.fakes import FakeClock, make_final, settle
from tests.unit.gateways.backend.links import SCHOOL, FedFinals, MemoryTransport
from tests.unit.gateways.services import RecordingExecService


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "STORE_PAUSES", (0.0001, 0.0001))


# -- EXERCISE -------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["42", 42, " 42\t", "0042"])
async def test_an_exercise_is_submitted_by_its_number(
    id: str | int, link: Link, execs: RecordingExecService
) -> None:
    await on_exercise(Exercise(id), Turn(link))

    assert execs.submitted == [(AttemptId(42), Origin("backend", "school", str(id)))]


async def test_a_backend_that_pushes_work_has_welcomed_us(link: Link) -> None:
    await on_pushed(Exercise(" " * 1000 + "42"), Turn(link))

    assert link.protocol.phase is Phase.WELCOMED
    assert link.exercises.get_nowait() == Exercise("42")  # in few bytes


@pytest.mark.usefixtures("_hurried")
async def test_an_exercise_is_submitted_again_until_the_database_is_back(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=3)

    with capture_logs() as logs:
        await on_exercise(Exercise("42"), Turn(link))

    assert execs.attempts == [42]
    assert [line["event"] for line in logs] == ["exercise_waits"] * 3


@pytest.mark.usefixtures("_hurried")
async def test_what_the_database_will_never_take_does_not_stop_the_link(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreRefused("not a text"), times=1)

    with pytest.raises(StoreRefused):
        await on_exercise(Exercise("42"), Turn(link))
    await on_exercise(Exercise("43"), Turn(link))

    assert execs.attempts == [43]


@pytest.mark.usefixtures("_hurried")
async def test_what_fails_alone_time_after_time_does_not_stop_the_link_for_ever(
    link: Link, execs: RecordingExecService
) -> None:
    execs.alone = True
    execs.fail(StoreError("took too long"), times=STORE_TRIES)

    with pytest.raises(StoreRefused, match="attempt 42: took too long"):
        await on_exercise(Exercise("42"), Turn(link))
    await on_exercise(Exercise("43"), Turn(link))

    assert execs.attempts == [43]


@pytest.mark.usefixtures("_hurried")
async def test_while_the_database_is_away_nothing_is_given_up(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=2 * STORE_TRIES)

    await on_exercise(Exercise("42"), Turn(link))

    assert execs.attempts == [42]


@pytest.mark.usefixtures("_hurried")
async def test_waiting_for_the_database_can_be_cancelled(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=1_000_000)
    waiting = asyncio.create_task(on_exercise(Exercise("42"), Turn(link)))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()


async def test_an_error_that_is_not_the_databases_is_not_retried(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(NotFound("attempt", "42"))

    with pytest.raises(NotFound):
        await on_exercise(Exercise("42"), Turn(link))

    assert execs.attempts == []


ABSURD = ["", " ", "x", "-1", -1, "+1", "4.2", "1e3", "0x2a", "4 2", "4_2", "42\x00", "٤٢", "²"]
TOO_LONG = [2**63, str(2**63), 10**4000, "9" * 20, "0" * 20 + "1", "x" * 1_000_000]


@pytest.mark.parametrize("id", [*ABSURD, *TOO_LONG])
async def test_an_id_that_no_attempt_can_have_is_not_found(
    id: str | int, link: Link, execs: RecordingExecService
) -> None:
    with pytest.raises(NotFound) as caught:
        await on_exercise(Exercise(id), Turn(link))

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
    await on_welcome(packet, Turn(link))

    assert link.protocol.phase is Phase.WELCOMED


async def test_an_error_is_a_refusal_and_its_reason_is_logged(link: Link) -> None:
    with capture_logs() as logs:
        await on_error(Error("who are you"), Turn(link))

    assert link.protocol.phase is Phase.REFUSED
    assert [(line["event"], line["log_level"]) for line in logs] == [("handshake_refused", "error")]
    assert "who are you" in logs[0]["message"]


async def test_an_error_of_a_backend_that_had_welcomed_us_refuses_nothing(link: Link) -> None:
    link.protocol.welcomed()

    with pytest.raises(UnexpectedPacket), capture_logs() as logs:
        await on_error(Error("something else"), Turn(link))

    assert (link.protocol.phase, logs) == (Phase.WELCOMED, [])


# -- errors ---------------------------------------------------------------------------------------


async def test_an_unknown_attempt_is_one_warning_each(link: Link) -> None:
    with capture_logs() as logs:
        answers = [refuse(NotFound("attempt", id), Turn(link)) for id in ("1", "2")]

    assert answers == [None, None]
    assert [(line["event"], line["log_level"], line["id"]) for line in logs] == [
        ("unknown_attempt", "warning", "1"),
        ("unknown_attempt", "warning", "2"),
    ]


async def test_frames_that_cannot_be_read_are_counted_and_logged_once(link: Link) -> None:
    with capture_logs() as logs:
        for _ in range(5):
            assert refuse(MalformedPacket("nonsense"), Turn(link)) is None

    assert link.unreadable == 5
    assert [(line["event"], line["log_level"]) for line in logs] == [("frame_ignored", "warning")]


@pytest.mark.parametrize("error", [StoreError("away"), ZeroDivisionError("a bug")])
async def test_anything_else_is_an_error_in_the_log(error: Exception, link: Link) -> None:
    with capture_logs() as logs:
        assert refuse(error, Turn(link)) is None

    assert [(line["event"], line["log_level"]) for line in logs] == [("exercise_failed", "error")]


# -- more than one kind of frame that means nothing ------------------------------------------------


async def test_an_unknown_cmd_has_one_line_of_its_own(link: Link) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            refuse(MalformedPacket("Invalid value 'DANCE' - at `$.cmd`", "DANCE"), Turn(link))
            refuse(MalformedPacket("nonsense"), Turn(link))
            refuse(UnexpectedPacket("an ERROR after the handshake: late", "welcomed"), Turn(link))

    assert link.unreadable == 9
    assert [line["event"] for line in logs] == ["frame_ignored"] * 3
    assert "DANCE" in logs[0]["reason"]


async def test_a_backend_with_a_thousand_cmds_does_not_fill_the_log(link: Link) -> None:
    with capture_logs() as logs:
        for number in range(1000):
            refuse(MalformedPacket("unknown", f"DANCE {number}"), Turn(link))

    assert link.unreadable == 1000
    assert len(logs) == REASONS


async def test_our_token_is_in_no_line_even_if_the_backend_repeats_it(link: Link) -> None:
    with capture_logs() as logs:
        refuse(MalformedPacket("Invalid value 'SERVER_TOKEN'", "SERVER_TOKEN"), Turn(link))
        await on_error(Error("no such token: SERVER_TOKEN"), Turn(link))

    assert len(logs) == 2
    assert "SERVER_TOKEN" not in repr(logs)


# -- looked for again ------------------------------------------------------------------------------


async def test_an_attempt_that_is_not_there_yet_steps_aside_and_is_found(
    link: Link, execs: RecordingExecService
) -> None:
    execs.lose(42)
    turn = Turn(link)
    looking = asyncio.create_task(on_exercise(Exercise("42"), turn))

    async with asyncio.timeout(10):
        await turn.aside.wait()
    execs.find(42)
    await looking

    assert execs.attempts == [42]


async def test_what_is_there_at_once_does_not_step_aside(link: Link) -> None:
    turn = Turn(link)

    await on_exercise(Exercise("42"), turn)

    assert not turn.aside.is_set()


# -- ack ------------------------------------------------------------------------------------------


async def test_with_ack_the_backend_hears_which_run_and_where_it_waits(
    link: Link, said: MemoryTransport, execs: RecordingExecService
) -> None:
    execs.places[RunId("run-42")] = 3

    await on_exercise(Exercise(42, ack=True), Turn(link))
    await on_exercise(Exercise("0043", ack="true"), Turn(link))

    assert execs.told == {42: (SCHOOL,), 43: (SCHOOL,)}
    assert said.packets == [
        {"cmd": "ACCEPTED", "id": "42", "run": "run-42", "place": "3"},
        {"cmd": "ACCEPTED", "id": "43", "run": "run-43", "place": "0"},
    ]


async def test_without_ack_the_backend_hears_nothing_and_is_owed_nothing(
    link: Link, said: MemoryTransport, execs: RecordingExecService
) -> None:
    await on_exercise(Exercise(42), Turn(link))

    assert execs.told == {42: ()}
    assert said.packets == []


def end(attempt: int) -> Final:
    return make_final(1, f"run-{attempt}", attempt=attempt)


async def test_the_finals_of_an_attempt_wait_until_its_accepted_was_said(
    link: Link, said: MemoryTransport, execs: RecordingExecService
) -> None:
    execs.open.clear()
    one, two = (
        asyncio.create_task(on_exercise(Exercise("42", ack=True), Turn(link))) for _ in range(2)
    )
    await settle()
    final = asyncio.create_task(link.accepted(end(42)))
    await settle()

    assert not final.done()
    await link.accepted(end(43))  # another's does not wait
    execs.open.set()
    await asyncio.gather(one, two)
    await final
    assert len(said.packets) == 2


async def test_an_exercise_that_is_given_up_holds_no_final_back(
    link: Link, execs: RecordingExecService
) -> None:
    execs.fail(NotFound("attempt", "42"))

    with pytest.raises(NotFound):
        await on_exercise(Exercise("42", ack=True), Turn(link))

    async with asyncio.timeout(10):
        await link.accepted(end(42))


async def test_no_final_waits_for_an_exercise_that_is_looked_for_again(
    link: Link, said: MemoryTransport, execs: RecordingExecService
) -> None:
    execs.lose(42)
    looking = asyncio.create_task(on_exercise(Exercise("42", ack=True), Turn(link)))
    await execs.until_looking(1)

    async with asyncio.timeout(10):
        await link.accepted(end(42))

    execs.open.clear()
    execs.find(42)
    await looking
    assert [packet["cmd"] for packet in said.packets] == ["ACCEPTED"]


@pytest.mark.usefixtures("_hurried")
async def test_no_final_waits_for_an_exercise_that_the_database_did_not_take(
    link: Link, execs: RecordingExecService
) -> None:
    class Asked(Exception):
        """While it rests."""

    async def held(attempt: AttemptId) -> bool:
        async with asyncio.timeout(10):
            await link.accepted(end(42))
        raise Asked

    execs.fail(StoreError("away"))
    execs.fails_alone = held  # type: ignore[method-assign]

    with pytest.raises(Asked):
        await on_exercise(Exercise("42", ack=True), Turn(link))


async def test_a_final_waits_again_for_an_exercise_that_is_submitted_once_more(
    link: Link, execs: RecordingExecService
) -> None:
    turn = Turn(link, asked="42")
    turn.hold(AttemptId(42))
    with turn.resting(AttemptId(42)):
        pass
    final = asyncio.create_task(link.accepted(end(42)))
    await settle()
    assert not final.done()

    turn.release()

    await final


async def test_a_final_does_not_wait_for_what_is_asked_after_it(link: Link) -> None:
    first, second = Turn(link, asked="42"), Turn(link, asked="42")
    first.hold(AttemptId(42))
    final = asyncio.create_task(link.accepted(end(42)))
    await settle()
    second.hold(AttemptId(42))

    first.release()

    async with asyncio.timeout(10):
        await final
    second.release()


async def test_a_final_waits_three_seconds_and_its_accepted_is_not_said_after_it(
    link: Link, said: MemoryTransport, execs: RecordingExecService, clock: FakeClock
) -> None:
    execs.open.clear()
    taking = asyncio.create_task(on_exercise(Exercise("42", ack=True), Turn(link)))
    await execs.until_asked(1)
    final = asyncio.create_task(link.accepted(end(42)))
    await settle()
    clock.advance(2.9)
    await settle()
    assert not final.done()

    with capture_logs() as logs:
        clock.advance(0.1)
        await final
    execs.open.set()
    await taking
    await on_exercise(Exercise("42", ack=True), Turn(link))

    assert [line["event"] for line in logs] == ["accepted_late"]
    assert [packet["cmd"] for packet in said.packets] == ["ACCEPTED"]  # the second one's


async def test_of_an_unknown_id_with_ack_the_backend_hears_404_exercice(link: Link) -> None:
    turn = Turn(link)
    with pytest.raises(NotFound) as caught:
        await on_exercise(Exercise("x" * 1000, ack=True), turn)

    answer = refuse(caught.value, turn)

    assert isinstance(answer, RunError)
    assert answer == RunError("x" * 40, "", "", "404", "EXERCICE", "", f"no attempt {'x' * 40}")


@pytest.mark.parametrize("error", [StoreRefused("gave up"), ZeroDivisionError("a bug")])
async def test_of_what_we_could_not_take_with_ack_the_backend_hears_500(
    error: Exception, link: Link
) -> None:
    answer = refuse(error, Turn(link, asked="42"))

    assert answer == RunError("42", "", "", "500", "OTHER", "system", "internal error")


async def test_an_ack_covers_everything_up_to_it(link: Link, finals: FedFinals) -> None:
    for run in "abc":
        finals.owe(run, 1)
    turn = Turn(link)

    await on_ack(Ack("2"), turn)

    assert finals.ledger.delivered == {SCHOOL: 2}
    assert turn.aside.is_set()


async def test_acks_that_come_while_one_is_noted_are_noted_together(
    link: Link, finals: FedFinals, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, gate = [], asyncio.Event()

    async def acknowledge(recipient: Recipient, seq: int) -> None:
        noted.append(seq)
        await gate.wait()

    monkeypatch.setattr(finals, "acknowledge", acknowledge)
    first = asyncio.create_task(on_ack(Ack(1), Turn(link)))
    await settle()
    async with asyncio.timeout(10):
        for seq in (2, 9, 5):
            await on_ack(Ack(seq), Turn(link))
    gate.set()
    await first

    assert noted == [1, 9]


async def test_an_ack_that_cannot_be_noted_is_a_line_in_the_log(
    link: Link, finals: FedFinals
) -> None:
    finals.fault = StoreError("away")

    with capture_logs() as logs:
        await on_ack(Ack(1), Turn(link))

    assert [line["event"] for line in logs] == ["ack_not_stored"]


async def test_a_seq_that_is_no_number_is_malformed(link: Link) -> None:
    with pytest.raises(MalformedPacket):
        await on_ack(Ack("x"), Turn(link))


# -- finals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "status"),
    [(State.CANCELLED, "cancelled"), (State.SUPERSEDED, "superseded")],
)
def test_a_run_without_a_verdict_is_executed_without_a_grade(state: State, status: str) -> None:
    packet = notices.final(make_final(7, "r", attempt=42, state=state))

    assert packet == Executed("42", "r", "7", status, "")


def test_a_verdict_is_executed_with_its_status_and_grade() -> None:
    judged = Judged(Status.WRONG_ANSWER, 4, 20)

    packet = notices.final(make_final(7, "r", attempt=42, ending=judged))

    assert packet == Executed("42", "r", "7", "wrong_answer", "4")


@pytest.mark.parametrize(
    ("cause", "code", "target", "fault", "message"),
    [
        (Cause.NOT_FOUND, "404", "EXERCICE", "teacher", "why"),
        (Cause.EXERCISE, "500", "EXERCICE", "teacher", "why"),
        (Cause.IMAGE, "404", "CONTAINER", "system", "why"),
        (Cause.CONTAINER, "500", "CONTAINER", "system", "the container that ran it failed"),
        (Cause.FULL, "429", "EXERCICE", "system", "why"),
        (Cause.INTERNAL, "500", "OTHER", "system", "internal error"),
    ],
)
def test_a_run_that_could_not_be_graded_is_an_error(
    cause: Cause, code: str, target: Target, fault: str, message: str
) -> None:
    final = make_final(7, "r", attempt=42, state=State.FAILED, ending=Failure(cause, "why"))

    assert notices.final(final) == RunError("42", "r", "7", code, target, fault, message)


def test_a_run_whose_end_was_erased_is_an_error_of_ours() -> None:
    packet = notices.final(make_final(7, "r", attempt=None, state=State.FAILED))

    assert packet == RunError("", "r", "7", "500", "OTHER", "system", "internal error")


def test_a_final_fits_into_a_frame_of_kryonet() -> None:
    failure = Failure(Cause.EXERCISE, "\N{PILE OF POO}" * 10_000)

    packet = notices.final(make_final(7, "r" * 36, state=State.FAILED, ending=failure))

    assert len(packets.encode(packet)) < 2048


# -- tokens ---------------------------------------------------------------------------------------


async def test_an_answer_reaches_who_asked(link: Link, said: MemoryTransport) -> None:
    asked = [asyncio.create_task(link.ask(number, f"t{number}")) for number in ("1", "2")]
    await settle()

    await on_authenticated(AuthenticatedClient("2", "-1"), Turn(link))
    await on_authenticated(AuthenticatedClient(1, 12), Turn(link))

    assert await asyncio.gather(*asked) == [12, None]
    assert link.protocol.phase is Phase.WELCOMED
    assert said.packets == [
        {"cmd": "AUTHENTICATE_CLIENT", "authentication_id": "1", "TOKEN": "t1"},
        {"cmd": "AUTHENTICATE_CLIENT", "authentication_id": "2", "TOKEN": "t2"},
    ]


async def test_an_answer_to_no_question_is_no_answer(link: Link) -> None:
    with pytest.raises(UnexpectedPacket):
        await on_authenticated(AuthenticatedClient("1", "12"), Turn(link))


async def test_an_answer_that_is_no_account_leaves_the_question_open(link: Link) -> None:
    asked = asyncio.create_task(link.ask("1", "t"))
    await settle()

    with pytest.raises(MalformedPacket):
        await on_authenticated(AuthenticatedClient("1", "ada"), Turn(link))
    await on_authenticated(AuthenticatedClient("1", "12"), Turn(link))

    assert await asked == 12
