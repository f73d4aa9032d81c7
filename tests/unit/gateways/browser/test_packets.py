"""The browser link's words, with the protocol page's own bytes."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commserver.errors import MalformedPacket
from commserver.gateways.browser import packets
from commserver.gateways.browser.packets import (
    Ack,
    Announcement,
    AnnouncementsSwitch,
    Auth,
    Cancel,
    Error,
    ExerciceExecuted,
    Ok,
    Packet,
    PlaceInQueue,
    Progress,
    ProgressSwitch,
    Status,
)
from commserver.gateways.words import CONTAINER, EXERCICE, OTHER
from tests.unit.gateways.wire import frames

COMMAND_NAMES = {"AUTH", "ACK", "STATUS", "CANCEL", "PROGRESS", "ANNOUNCEMENTS"}
SENT: list[tuple[Packet, bytes]] = [
    (Ok(), b'{"cmd":"OK"}'),
    (
        PlaceInQueue("42", "3"),
        b'{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"42","place":"3",'
        b'"run":"","total":"","eta_low":"","eta_high":"","reason":""}',
    ),
    (
        PlaceInQueue("42", "3", "r", "9", "5", "7", "newcomers"),
        b'{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"42","place":"3",'
        b'"run":"r","total":"9","eta_low":"5","eta_high":"7","reason":"newcomers"}',
    ),
    (
        ExerciceExecuted("42"),
        b'{"cmd":"EXERCICE_EXECUTED","id":"42","run":"","status":"","grade":"","seq":""}',
    ),
    (
        ExerciceExecuted("42", "r", "wrong_answer", "5", "17"),
        b'{"cmd":"EXERCICE_EXECUTED","id":"42",'
        b'"run":"r","status":"wrong_answer","grade":"5","seq":"17"}',
    ),
    (
        Error("404", EXERCICE, "42"),
        b'{"cmd":"ERROR","error_code":"404","target":"EXERCICE","target_id":"42",'
        b'"run":"","seq":"","message":"","fault":""}',
    ),
    (
        Error("500", CONTAINER, "c0ffee", "r", "17", "it went away", "system"),
        b'{"cmd":"ERROR","error_code":"500","target":"CONTAINER","target_id":"c0ffee",'
        b'"run":"r","seq":"17","message":"it went away","fault":"system"}',
    ),
    (
        Error("401", OTHER, ""),
        b'{"cmd":"ERROR","error_code":"401","target":"OTHER","target_id":"",'
        b'"run":"","seq":"","message":"","fault":""}',
    ),
    (
        Progress("42", "r", "run", "3/7"),
        b'{"cmd":"PROGRESS","user_exercice_id":"42","run":"r","stage":"run","text":"3/7"}',
    ),
    (
        Announcement("7", "ten minutes more", "2026-01-01T12:00:00Z"),
        b'{"cmd":"ANNOUNCEMENT","id":"7","text":"ten minutes more","until":"2026-01-01T12:00:00Z"}',
    ),
]
COMMANDS: list[tuple[bytes, Packet]] = [
    (b'{"cmd":"ACK","seq":"17"}', Ack("17")),
    (b'{"cmd":"STATUS","id":"42"}', Status("42")),
    (b'{"cmd":"CANCEL","id":"42"}', Cancel("42")),
    (b'{"cmd":"PROGRESS","on":"1"}', ProgressSwitch("1")),
    (b'{"cmd":"PROGRESS","on":"0"}', ProgressSwitch("0")),
    (b'{"cmd":"ANNOUNCEMENTS","on":"1"}', AnnouncementsSwitch("1")),
    (b'{"cmd":"STATUS","id":"41","id":"42"}', Status("42")),  # of two the last counts
]


@pytest.mark.parametrize(("frame", "command"), COMMANDS)
def test_each_command_of_the_page_is_understood(frame: bytes, command: Packet) -> None:
    assert packets.decode(frame) == command


@pytest.mark.parametrize(("packet", "frame"), SENT)
def test_what_is_sent_has_the_seeds_fields_first_and_always_the_same_shape(
    packet: Packet, frame: bytes
) -> None:
    assert packets.encode(packet) == frame


@pytest.mark.parametrize(("packet", "frame"), SENT)
def test_every_value_sent_is_a_string(packet: Packet, frame: bytes) -> None:
    assert all(isinstance(value, str) for value in json.loads(frame).values())


@pytest.mark.parametrize(
    "frame",
    [
        b'{"cmd":"AUTH","TOKEN":"TOKEN_UTILISATEUR"}',
        b' { "TOKEN" : "TOKEN_UTILISATEUR" ,\n "cmd" : "AUTH" } ',
        b'{"cmd":"AUTH","TOKEN":"TOKEN_UTILISATEUR","token":1,"client":{"version":[2]}}',
    ],
)
def test_an_auth_is_understood(frame: bytes) -> None:
    assert packets.decode(frame) == Auth("TOKEN_UTILISATEUR")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"null",
        b'"AUTH"',
        b'["AUTH","TOKEN_UTILISATEUR"]',
        b"{}",
        b'{"TOKEN":"TOKEN_UTILISATEUR"}',
        b'{"cmd":null,"TOKEN":"TOKEN_UTILISATEUR"}',
        b'{"cmd":"auth","TOKEN":"TOKEN_UTILISATEUR"}',
        b'{"cmd":"HANDSHAKE","TOKEN":"TOKEN_UTILISATEUR"}',
        b'{"cmd":"OK"}',
        b'{"CMD":"AUTH","TOKEN":"TOKEN_UTILISATEUR"}',
        b'{"cmd":"AUTH"}',
        b'{"cmd":"AUTH","token":"TOKEN_UTILISATEUR"}',
        b'{"cmd":"AUTH","TOKEN":null}',
        b'{"cmd":"AUTH","TOKEN":7}',
        b'{"cmd":"AUTH","TOKEN":["TOKEN_UTILISATEUR"]}',
        b'{"cmd":"AUTH","TOKEN":"\xff"}',
        b'{"cmd":"AUTH","TOKEN":"\\ud800"}',
        b'{"cmd":"AUTH","TOKEN":"TOKEN_UTILISATEUR"',
        b'{"cmd":"AUTH","TOKEN":"TOKEN_UTILISATEUR"}{}',
        b'{"cmd":"STATUS"}',
        b'{"cmd":"STATUS","id":42}',
        b'{"cmd":"CANCEL","id":["42"]}',
        b'{"cmd":"PROGRESS","on":1}',
        b'{"cmd":"PROGRESS","on":true}',
        b'{"cmd":"PROGRESS","on":"2"}',
        b'{"cmd":"ANNOUNCEMENTS","on":""}',
        b'{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"1","place":"1"}',
        b'{"cmd":"AUTH","TOKEN":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_everything_else_is_a_malformed_packet(frame: bytes) -> None:
    with pytest.raises(MalformedPacket):
        packets.decode(frame)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames({"OK", *COMMAND_NAMES}, {"TOKEN", "id", "seq", "on"}))
def test_no_bytes_make_it_raise_anything_but_malformed_packet(frame: bytes) -> None:
    try:
        packet = packets.decode(frame)
    except MalformedPacket:
        return

    assert isinstance(packet, packets.Received)
    assert json.loads(frame)["cmd"] in COMMAND_NAMES


@settings(deadline=None)
@given(st.text())
def test_a_token_never_shows(token: str) -> None:
    assert repr(Auth(token)) == "Auth(token=***)"


def test_what_is_wrong_with_a_frame_is_said_without_its_token() -> None:
    with pytest.raises(MalformedPacket) as caught:
        packets.decode(b'{"cmd":"AUTH","TOKEN":["s3cret"]}')

    assert "s3cret" not in str(caught.value)
