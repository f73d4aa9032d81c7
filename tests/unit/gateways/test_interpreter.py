"""The shared Interpretator: frame in, action called, answer or refusal out."""

import asyncio
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from commserver.errors import MalformedPacket, NotFound
from commserver.gateways.interpreter import ActionTable, Interpreter


@dataclass(frozen=True)
class Echo:
    text: str


@dataclass(frozen=True)
class Refused:
    error: Exception


@dataclass
class Link:
    heard: list[str] = field(default_factory=list)
    fault: BaseException | None = None


def decode(frame: bytes) -> Echo:
    if not frame.startswith(b"echo "):
        raise MalformedPacket("no echo")
    return Echo(frame.removeprefix(b"echo ").decode())


async def on_echo(packet: Echo, link: Link) -> Echo | None:
    link.heard.append(packet.text)
    if link.fault:
        raise link.fault
    return packet if packet.text else None


def refuse(error: Exception, link: Link) -> Echo | Refused | None:
    return None if isinstance(error, NotFound) else Refused(error)


ACTIONS: ActionTable[Link, Echo | Refused] = {Echo: on_echo}


@pytest.fixture
def interpreter() -> Interpreter[Link, Echo | Refused]:
    return Interpreter(decode, ACTIONS, refuse)


async def test_a_frame_is_decoded_acted_on_and_answered(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    link = Link()

    answer = await interpreter.interpret(b"echo hello", link)

    assert (answer, link.heard) == (Echo("hello"), ["hello"])


async def test_an_action_may_have_no_answer(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    assert await interpreter.interpret(b"echo ", Link()) is None


async def test_what_cannot_be_decoded_is_refused_without_a_traceback(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    link = Link()

    with capture_logs() as logs:
        answer = await interpreter.interpret(b"nonsense", link)

    assert isinstance(answer, Refused)
    assert isinstance(answer.error, MalformedPacket)
    assert (link.heard, logs) == ([], [])


async def test_an_error_of_ours_becomes_what_the_protocol_says_of_it(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    with capture_logs() as logs:
        answer = await interpreter.interpret(b"echo x", Link(fault=NotFound("attempt", "1")))

    assert (answer, logs) == (None, [])


async def test_a_bug_is_refused_and_logged_with_its_traceback(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    fault = ZeroDivisionError("a bug")

    with capture_logs() as logs:
        answer = await interpreter.interpret(b"echo x", Link(fault=fault))

    assert answer == Refused(fault)
    assert [(line["event"], line["log_level"], line["exc_info"]) for line in logs] == [
        ("action_failed", "error", True)
    ]


async def test_a_packet_without_an_action_is_a_bug_and_not_the_end() -> None:
    interpreter: Interpreter[Link, Echo | Refused] = Interpreter(decode, {}, refuse)

    with capture_logs() as logs:
        answer = await interpreter.interpret(b"echo x", Link())

    assert isinstance(answer, Refused)
    assert [line["event"] for line in logs] == ["action_failed"]


async def test_cancellation_is_no_error(
    interpreter: Interpreter[Link, Echo | Refused],
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await interpreter.interpret(b"echo x", Link(fault=asyncio.CancelledError()))
