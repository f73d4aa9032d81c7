"""The backend link's words, with the protocol page's own bytes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commserver.errors import MalformedPacket
from commserver.gateways.backend import packets
from commserver.gateways.backend.packets import Error, Exercise, Handshake, Ok
from tests.unit.gateways.wire import frames


def test_a_handshake_is_what_the_page_says() -> None:
    frame = packets.encode(Handshake("SERVER_TOKEN"))

    assert frame == b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}'


@pytest.mark.parametrize(
    ("frame", "packet"),
    [
        (b'{"cmd":"EXERCISE","id":"ID_EXERCICE"}', Exercise("ID_EXERCICE")),
        (b'{"cmd":"EXERCISE","id":"42"}', Exercise("42")),
        (b'{"cmd":"EXERCISE","id":42}', Exercise(42)),
        (b'{"cmd":"EXERCISE","id":-1}', Exercise(-1)),
        (
            b'{"cmd":"EXERCISE","id":123456789012345678901234567890}',
            Exercise(int("1234567890" * 3)),
        ),
        (b'{ "id" : "42", "cmd" : "EXERCISE" }', Exercise("42")),
        (b'{"cmd":"EXERCISE","id":"42","ack":true,"new":{"a":[1,null]}}', Exercise("42")),
        (b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}', Handshake("SERVER_TOKEN")),
        (b'{"cmd":"HANDSHAKE"}', Handshake("")),
        (b'{"cmd":"OK"}', Ok()),
        (b'{"cmd":"ERROR"}', Error()),
        (b'{"cmd":"ERROR","error_code":"401","message":"who are you"}', Error("who are you")),
        (b'{"cmd":"ERROR","message":{"why":null}}', Error({"why": None})),
    ],
)
def test_what_a_backend_may_say_is_understood(frame: bytes, packet: packets.Received) -> None:
    assert packets.decode(frame) == packet


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"null",
        b"42",
        b'"EXERCISE"',
        b'["EXERCISE","42"]',
        b"{}",
        b'{"id":"42"}',
        b'{"cmd":null,"id":"42"}',
        b'{"cmd":"exercise","id":"42"}',
        b'{"cmd":"EXERCICE","id":"42"}',
        b'{"cmd":"EXERCISE"}',
        b'{"cmd":"EXERCISE","id":null}',
        b'{"cmd":"EXERCISE","id":true}',
        b'{"cmd":"EXERCISE","id":4.2}',
        b'{"cmd":"EXERCISE","id":["42"]}',
        b'{"cmd":"EXERCISE","id":' + b"9" * 5000 + b"}",
        b'{"cmd":"EXERCISE","id":"\xff"}',
        b'{"cmd":"EXERCISE","id":"\\ud800"}',
        b'{"cmd":"EXERCISE","id":"42"',
        b'{"cmd":"EXERCISE","id":"42"}{"cmd":"EXERCISE","id":"43"}',
        b'{"cmd":"OK","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"class":"com.esotericsoftware.kryonet.FrameworkMessage$RegisterTCP","connectionID":1}',
    ],
)
def test_everything_else_is_a_malformed_packet(frame: bytes) -> None:
    with pytest.raises(MalformedPacket):
        packets.decode(frame)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames({"EXERCISE", "HANDSHAKE", "OK", "ERROR"}, {"id", "TOKEN", "message"}))
def test_no_bytes_make_it_raise_anything_but_malformed_packet(frame: bytes) -> None:
    try:
        packet = packets.decode(frame)
    except MalformedPacket:
        return

    assert isinstance(packet, packets.Received)


@settings(deadline=None)
@given(st.text().filter(lambda text: text.isprintable()))
def test_a_token_survives_the_wire_and_never_shows(token: str) -> None:
    packet = packets.decode(packets.encode(Handshake(token)))

    assert isinstance(packet, Handshake)
    assert packet.token == token
    assert repr(packet) == "Handshake(token=***)"
