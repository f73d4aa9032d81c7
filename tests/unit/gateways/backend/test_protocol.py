"""The order of things on the backend link."""

import pytest

from commserver.errors import PacketTooLarge, UnexpectedPacket
from commserver.gateways.backend.packets import Accepted
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from commserver.gateways.framing import LengthFraming, LineFraming


@pytest.fixture
def protocol() -> BackendProtocol:
    return BackendProtocol("SERVER_TOKEN", LineFraming(64))


def test_it_begins_with_the_handshake_on_a_line(protocol: BackendProtocol) -> None:
    assert protocol.handshake() == b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}\n'
    assert protocol.phase is Phase.DIALLED


def test_with_lengths_everything_that_is_sent_has_its_length_before_it() -> None:
    protocol = BackendProtocol("T", LengthFraming(64))

    assert protocol.handshake() == b'\0\0\0\x1f{"cmd":"HANDSHAKE","TOKEN":"T"}'
    assert protocol.frame(b"{}") == b"\0\0\0\x02{}"
    assert protocol.send(Accepted("1", "r", "0"))[:4] == b"\0\0\0\x31"


def test_what_a_backend_says_is_shown_without_our_token(protocol: BackendProtocol) -> None:
    assert protocol.masked("who is SERVER_TOKEN?") == "who is ***?"
    assert BackendProtocol("", LineFraming(64)).masked("nobody") == "nobody"


def test_frames_come_out_whatever_the_phase(protocol: BackendProtocol) -> None:
    first = protocol.receive(b'{"cmd":"EXERCISE","id":"1"}\n{"cmd":"EXER')
    protocol.welcomed()
    second = protocol.receive(b'CISE","id":"2"}\n')

    assert first == [b'{"cmd":"EXERCISE","id":"1"}']
    assert second == [b'{"cmd":"EXERCISE","id":"2"}']


def test_only_a_frame_above_the_limit_ends_the_link(protocol: BackendProtocol) -> None:
    assert protocol.receive(b"x" * 64 + b"\n") == [b"x" * 64]

    with pytest.raises(PacketTooLarge):
        protocol.receive(b"x" * 65)


def test_an_echo_welcomes(protocol: BackendProtocol) -> None:
    protocol.welcomed()
    protocol.welcomed()

    assert protocol.phase is Phase.WELCOMED


def test_an_error_before_anything_else_refuses(protocol: BackendProtocol) -> None:
    protocol.refused("who are you")

    assert protocol.phase is Phase.REFUSED


def test_an_error_after_a_welcome_does_not_refuse(protocol: BackendProtocol) -> None:
    protocol.welcomed()

    with pytest.raises(UnexpectedPacket, match="late") as caught:
        protocol.refused("late")

    assert caught.value.state == "welcomed"
    assert protocol.phase is Phase.WELCOMED
