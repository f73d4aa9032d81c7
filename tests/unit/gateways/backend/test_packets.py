"""The backend link's words, with the protocol page's own bytes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commserver.errors import MalformedPacket
from commserver.gateways.backend import packets
from commserver.gateways.backend.packets import (
    Accepted,
    Ack,
    AuthenticateClient,
    AuthenticatedClient,
    Error,
    Executed,
    Exercise,
    Handshake,
    Ok,
    RunError,
    Sent,
)
from commserver.gateways.words import EXERCICE
from tests.unit.gateways.wire import frames


@pytest.mark.parametrize(
    ("packet", "frame"),
    [
        (Handshake("SERVER_TOKEN"), b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}'),
        (Accepted("42", "r", "3"), b'{"cmd":"ACCEPTED","id":"42","run":"r","place":"3"}'),
        (
            Executed("42", "r", "17", "accepted", "20"),
            b'{"cmd":"EXECUTED","id":"42","run":"r","seq":"17","status":"accepted","grade":"20"}',
        ),
        (
            RunError("42", "r", "17", "404", EXERCICE, "teacher", "no files"),
            b'{"cmd":"ERROR","id":"42","run":"r","seq":"17","error_code":"404",'
            b'"target":"EXERCICE","fault":"teacher","message":"no files"}',
        ),
        (
            AuthenticateClient("7", "TOKEN"),
            b'{"cmd":"AUTHENTICATE_CLIENT","authentication_id":"7","TOKEN":"TOKEN"}',
        ),
    ],
)
def test_what_we_say_is_what_the_page_says(packet: Sent, frame: bytes) -> None:
    assert packets.encode(packet) == frame


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
        (b'{"cmd":"EXERCISE","id":"42","ack":true,"new":{"a":[1,null]}}', Exercise("42", ack=True)),
        (b'{"cmd":"EXERCISE","id":"42","ack":"true"}', Exercise("42", ack="true")),
        (b'{"cmd":"EXERCISE","id":"42","ack":false}', Exercise("42", ack=False)),
        (b'{"cmd":"EXERCISE","id":"42","x":1e999,"y":-1' + b"0" * 9000 + b"}", Exercise("42")),
        (b'{"cmd":"ACK","seq":"17"}', Ack("17")),
        (b'{"cmd":"ACK","seq":17}', Ack(17)),
        (
            b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"7","client_id":"12"}',
            AuthenticatedClient("7", "12"),
        ),
        (
            b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":7,"client_id":-1}',
            AuthenticatedClient(7, -1),
        ),
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
        b'{"cmd":"EXERCISE","id":NaN}',
        b'{"cmd":"EXERCISE","id":"42","x":NaN}',
        b'{"cmd":"EXERCISE","id":-Infinity}',
        b'{"cmd":"EXERCISE","id":1e999}',
        b'{"cmd":"EXERCISE","id":"42","ack":1}',
        b'{"cmd":"EXERCISE","id":"42","ack":"1"}',
        b'{"cmd":"EXERCISE","id":"42","ack":"TRUE"}',
        b'{"cmd":"EXERCISE","id":"42","ack":null}',
        b'{"cmd":"ACK"}',
        b'{"cmd":"ACK","seq":1.5}',
        b'{"cmd":"ACK","seq":true}',
        b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"7"}',
        b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"7","client_id":null}',
        b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":[],"client_id":1}',
        b'\xef\xbb\xbf{"cmd":"OK"}',
        b"{class:RegisterTCP,connectionID:1}",
        b"{class:KeepAlive}",
        b'{"class":"KeepAlive"}',
        b'{"cmd":"OK","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"class":"com.esotericsoftware.kryonet.FrameworkMessage$RegisterTCP","connectionID":1}',
    ],
)
def test_everything_else_is_a_malformed_packet(frame: bytes) -> None:
    with pytest.raises(MalformedPacket):
        packets.decode(frame)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    frames(
        {"EXERCISE", "HANDSHAKE", "OK", "ERROR", "ACK", "AUTHENTICATED_CLIENT"},
        {"id", "TOKEN", "message", "ack", "seq", "authentication_id", "client_id"},
    )
)
def test_no_bytes_make_it_raise_anything_but_malformed_packet(frame: bytes) -> None:
    try:
        packet = packets.decode(frame)
        match packet:
            case Ack():
                assert packet.number >= 0
            case AuthenticatedClient():
                assert packet.account is None or packet.account >= 0
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


def test_of_a_field_that_is_there_twice_the_last_counts() -> None:
    assert packets.decode(b'{"cmd":"EXERCISE","id":"1","id":"2"}') == Exercise("2")
    assert packets.decode(b'{"cmd":"OK","cmd":"OK"}') == Ok()


@pytest.mark.parametrize(
    "frame",
    [b'{"cmd":"OK","cmd":"EXERCISE","id":"1"}', b'{"cmd":"EXERCISE","id":"1","cmd":"OK"}'],
)
def test_two_commands_in_one_frame_are_none(frame: bytes) -> None:
    with pytest.raises(MalformedPacket):
        packets.decode(frame)


@pytest.mark.parametrize(
    ("frame", "command"),
    [
        (b'{"cmd":"DANCE"}', "DANCE"),
        (b'{"cmd":"EXERCISE"}', "EXERCISE"),
        (b"{}", ""),
        (b'{"cmd":7}', ""),
        (b"{class:KeepAlive}", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_what_cannot_be_read_tells_its_command_if_it_has_one(frame: bytes, command: str) -> None:
    with pytest.raises(MalformedPacket) as caught:
        packets.decode(frame)

    assert caught.value.field == command


def test_of_what_cannot_be_read_little_is_told() -> None:
    with pytest.raises(MalformedPacket) as caught:
        packets.decode(b'{"cmd":"' + b"x" * 1_000_000 + b'"}')

    assert len(str(caught.value)) <= packets.SHOWN
    assert len(caught.value.field) <= packets.SHOWN


@pytest.mark.parametrize("seq", ["", "x", "-1", -1, "1.5", "٤", 2**63, 10**4000])
def test_a_seq_that_no_final_can_have_is_malformed(seq: str | int) -> None:
    with pytest.raises(MalformedPacket):
        _ = Ack(seq).number


@pytest.mark.parametrize("seq", [17, "17", " 17 ", "0017"])
def test_a_seq_is_a_number_as_a_string_or_as_an_integer(seq: str | int) -> None:
    assert Ack(seq).number == 17


@pytest.mark.parametrize(
    ("client", "account"), [("12", 12), (12, 12), (0, 0), ("-1", None), (-1, None)]
)
def test_whose_a_token_is_comes_as_a_string_or_as_an_integer(
    client: str | int, account: int | None
) -> None:
    packet = AuthenticatedClient(7, client)

    assert packet.question == "7"
    assert packet.account == account


@pytest.mark.parametrize("client", ["", "ada", -2, "--1", 2**63])
def test_an_account_that_nobody_has_is_malformed(client: str | int) -> None:
    with pytest.raises(MalformedPacket):
        _ = AuthenticatedClient(7, client).account


def test_a_token_that_is_asked_about_never_shows() -> None:
    assert repr(AuthenticateClient("7", "s3cret")) == (
        "AuthenticateClient(authentication_id='7', token=***)"
    )
