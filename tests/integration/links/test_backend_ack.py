"""What a backend is told of the runs that it asked for, and until when."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.typing import EventDict

from commserver.core.finals import backend
from commserver.core.jobs import RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure
from commserver.errors import NotFound, StoreError
from commserver.gateways.backend import actions
from commserver.gateways.backend import client as module
from tests.fakes import FakeClock, settle
from tests.integration.links.peers import Link, ScriptedBackend, dialling, quick
from tests.unit.gateways.backend.links import SCHOOL, FedFinals
from tests.unit.gateways.services import RecordingExecService

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}\n'


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)
    monkeypatch.setattr(actions, "STORE_PAUSES", (0.001, 0.01))


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def finals() -> FedFinals:
    return FedFinals()


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


async def shaken(peer: ScriptedBackend, answer: bytes = HANDSHAKE) -> Link:
    link = await peer.link()
    assert await link.line() == HANDSHAKE
    await link.say(answer)
    return link


def exercise(id: int) -> bytes:
    return b'{"cmd":"EXERCISE","id":"%d","ack":true}\n' % id


def executed(run: str, id: int, seq: int) -> dict[str, str]:
    return {
        "cmd": "EXECUTED",
        "id": str(id),
        "run": run,
        "seq": str(seq),
        "status": "accepted",
        "grade": "10",
    }


async def test_an_attempt_is_accepted_executed_and_acknowledged(
    peer: ScriptedBackend, execs: RecordingExecService, finals: FedFinals
) -> None:
    execs.places[RunId("run-42")] = 3

    async with dialling(quick(peer.port), execs, finals):
        link = await shaken(peer)
        await link.say(exercise(42))
        assert await link.line() == (b'{"cmd":"ACCEPTED","id":"42","run":"run-42","place":"3"}\n')
        assert execs.told[execs.attempts[0]] == (SCHOOL,)
        finals.owe("run-42", 42)
        assert await link.line() == (
            b'{"cmd":"EXECUTED","id":"42","run":"run-42","seq":"1",'
            b'"status":"accepted","grade":"10"}\n'
        )
        await link.say(b'{"cmd":"ACK","seq":"1"}\n')

        await finals.until_delivered(SCHOOL, 1)
    assert finals.noted == [1]


async def test_every_kind_of_end_is_told_with_values_that_are_strings(
    peer: ScriptedBackend, finals: FedFinals
) -> None:
    finals.owe("a", 1, state=State.CANCELLED)
    finals.owe("b", 2, state=State.SUPERSEDED)
    finals.owe("c", 3, state=State.FAILED, ending=Failure(Cause.EXERCISE, "bad definition"))
    ended = {"cmd": "EXECUTED", "grade": ""}

    async with dialling(quick(peer.port), finals=finals):
        link = await shaken(peer)
        told = [await link.packet() for _ in range(3)]

    assert told == [
        {**ended, "id": "1", "run": "a", "seq": "1", "status": "cancelled"},
        {**ended, "id": "2", "run": "b", "seq": "2", "status": "superseded"},
        {
            "cmd": "ERROR",
            "id": "3",
            "run": "c",
            "seq": "3",
            "error_code": "500",
            "target": "EXERCICE",
            "fault": "teacher",
            "message": "bad definition",
        },
    ]


async def test_accepted_goes_out_before_its_final_even_of_a_run_that_ends_at_once(
    peer: ScriptedBackend, execs: RecordingExecService, finals: FedFinals
) -> None:
    execs.taken = finals.owe_at_once

    async with dialling(quick(peer.port), execs, finals):
        link = await shaken(peer)
        await link.say(b"".join(exercise(id) for id in range(200)))
        told = [await link.packet() for _ in range(400)]

    accepted = {packet["run"]: at for at, packet in enumerate(told) if packet["cmd"] == "ACCEPTED"}
    ended = {packet["run"]: at for at, packet in enumerate(told) if packet["cmd"] == "EXECUTED"}
    assert len(accepted) == len(ended) == 200
    assert [run for run, at in ended.items() if at < accepted[run]] == []


async def test_finals_wait_for_an_accepted_that_hangs(
    peer: ScriptedBackend, execs: RecordingExecService, finals: FedFinals
) -> None:
    execs.open.clear()

    async with dialling(quick(peer.port), execs, finals):
        link = await shaken(peer)
        await link.say(exercise(42))
        await execs.until_asked(1)
        finals.owe("run-42", 42)
        await settle(100)
        execs.open.set()

        assert [(await link.packet())["cmd"] for _ in range(2)] == ["ACCEPTED", "EXECUTED"]


async def test_an_exercise_without_ack_is_owed_nothing(
    peer: ScriptedBackend, execs: RecordingExecService, finals: FedFinals
) -> None:
    async with dialling(quick(peer.port), execs, finals):
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":"1"}\n{"cmd":"EXERCISE","id":"2","ack":false}\n')
        await execs.until_taken(2)
        await link.say(exercise(3))

        assert (await link.packet())["id"] == "3"
    assert list(execs.told.values()) == [(), (), (SCHOOL,)]


# -- owed until ACK -------------------------------------------------------------------------------


async def test_finals_are_told_again_after_each_handshake_until_an_ack_covers_them(
    peer: ScriptedBackend, finals: FedFinals
) -> None:
    for number in (1, 2, 3):
        finals.owe(f"run-{number}", number)

    async with dialling(quick(peer.port), finals=finals):
        link = await shaken(peer)
        assert [(await link.packet())["seq"] for _ in range(3)] == ["1", "2", "3"]
        link.reset()
        link = await shaken(peer)
        assert [(await link.packet())["seq"] for _ in range(3)] == ["1", "2", "3"]
        await link.say(b'{"cmd":"ACK","seq":2}\n')
        await finals.until_delivered(SCHOOL, 2)
        link.reset()
        link = await shaken(peer)
        assert await link.packet() == executed("run-3", 3, 3)
        await link.say(b'{"cmd":"ACK","seq":"99"}\n')
        await finals.until_delivered(SCHOOL, 3)
        link.close()
        link = await shaken(peer)
        finals.owe("run-4", 4)

        assert await link.packet() == executed("run-4", 4, 4)


async def test_what_is_owed_to_another_backend_is_not_told(
    peer: ScriptedBackend, finals: FedFinals
) -> None:
    finals.owe("theirs", 1, to=backend("college"))
    finals.owe("ours", 2)

    async with dialling(quick(peer.port), finals=finals):
        link = await shaken(peer)

        assert await link.packet() == executed("ours", 2, 1)


async def test_an_ack_that_cannot_be_stored_disturbs_nothing(
    peer: ScriptedBackend, execs: RecordingExecService, finals: FedFinals, logs: list[EventDict]
) -> None:
    async with dialling(quick(peer.port), execs, finals):
        link = await shaken(peer)
        await settle(100)
        finals.fault = StoreError("away")
        await link.say(b'{"cmd":"ACK","seq":"1"}\n{"cmd":"ACK","seq":"x"}\n' + exercise(1))
        assert (await link.packet())["cmd"] == "ACCEPTED"
        finals.fault = None

    events = [line["event"] for line in logs]
    assert events.count("ack_not_stored") == 1
    assert events.count("frame_ignored") == 1
    assert peer.dialled == 1


# -- whom finals are told -------------------------------------------------------------------------


async def test_a_silent_backend_is_told_what_it_is_owed_after_a_second(
    peer: ScriptedBackend, finals: FedFinals, clock: FakeClock
) -> None:
    finals.owe("a", 1)

    async with dialling(quick(peer.port), finals=finals, clock=clock):
        link = await shaken(peer, b"")
        async with asyncio.timeout(10):
            while not clock.alarms:  # noqa: ASYNC110  # an alarm has no event
                await asyncio.sleep(0)
        before = list(finals.read)
        clock.advance(1.0)

        assert await link.packet() == executed("a", 1, 1)
    assert before == []


async def test_a_silent_backend_that_works_is_told_at_once(
    peer: ScriptedBackend, finals: FedFinals, clock: FakeClock
) -> None:
    finals.owe("a", 1)

    async with dialling(quick(peer.port), finals=finals, clock=clock):
        link = await shaken(peer, b'{"cmd":"EXERCISE","id":"9"}\n')

        assert await link.packet() == executed("a", 1, 1)


async def test_a_backend_that_refuses_us_is_told_nothing(
    peer: ScriptedBackend, finals: FedFinals, clock: FakeClock, logs: list[EventDict]
) -> None:
    finals.owe("a", 1)

    async with dialling(quick(peer.port), finals=finals, clock=clock):
        for _ in range(3):
            link = await shaken(peer, b'{"cmd":"ERROR"}\n')
            assert await link.ended()
        assert finals.read == []
    assert [line["event"] for line in logs].count("handshake_refused") == 3


# -- what starts nothing --------------------------------------------------------------------------


async def test_an_unknown_id_with_ack_is_one_warning_and_an_error_on_the_link(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    execs.lose(1)

    async with dialling(quick(peer.port), execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))
        assert (await link.packet())["id"] == "2"
        execs.miss(1)

        assert await link.line() == (
            b'{"cmd":"ERROR","id":"1","run":"","seq":"","error_code":"404","target":"EXERCICE",'
            b'"fault":"","message":"no attempt 1"}\n'
        )
    assert [line["id"] for line in logs if line["event"] == "unknown_attempt"] == ["1"]


async def test_a_backend_that_has_nothing_more_to_say_still_hears_what_became_of_it(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.lose(1, 2)

    async with dialling(quick(peer.port), execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))
        await execs.until_looking(2)
        link.finish()
        await settle(100)
        execs.find(1)
        assert (await link.packet())["cmd"] == "ACCEPTED"
        execs.miss(2)
        assert (await link.packet())["cmd"] == "ERROR"

        assert await link.ended()


async def test_an_unknown_id_without_ack_is_only_the_warning(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    execs.fail(NotFound("attempt", "1"))

    async with dialling(quick(peer.port), execs):
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":"1"}\n', exercise(2))

        assert (await link.packet())["cmd"] == "ACCEPTED"
    assert [line["event"] for line in logs].count("unknown_attempt") == 1


async def test_what_is_taken_when_the_database_is_back_is_accepted_then(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=3)

    async with dialling(quick(peer.port), execs):
        link = await shaken(peer)
        await link.say(exercise(1))

        assert (await link.packet())["cmd"] == "ACCEPTED"
    assert execs.asked == 4
