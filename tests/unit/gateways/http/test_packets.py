"""What is read of a body, and what is not."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.errors import MalformedPacket
from commserver.gateways.http import packets
from commserver.gateways.http.packets import Announce, Submission

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("body", [b'{"id":"42"}', b'{"id":42}', b' {"id": 42, "more": [1.5]} '])
def test_an_id_is_text_or_a_number_and_other_fields_are_ignored(body: bytes) -> None:
    assert str(packets.decode(body, Submission).id) == "42"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'{"id":null}',
        b'{"id":true}',
        b'{"id":4.2}',
        b'{"id":["42"]}',
        b'{"id":NaN}',
        b'{"id":"1","x":NaN}',
        b'{"id":"1","x":-Infinity}',
        b'{"id":"1","id":"2"}',
        b'{"id":"1","x":{"a":1,"a":2}}',
        b'{"id":"1","x":' + DEEP + b"}",
        b'{"id":1' + b"0" * 5000 + b"}",
        b'{"id":"\xff"}',
        b'{"id":"1","x":"\xff"}',
        b'{"id":"1","x":"\\ud800"}',
        b'\xef\xbb\xbf{"id":"1"}',
        '{"id":"1"}'.encode("utf-16"),
        b'{"id":"1"} {"id":"2"}',
    ],
    ids=lambda body: body[:24].decode("latin1"),
)
def test_what_is_not_exactly_one_right_object_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedPacket, match="the body is not what was expected"):
        packets.decode(body, Submission)


def test_a_key_that_is_there_twice_is_named() -> None:
    with pytest.raises(MalformedPacket, match="'id' is there twice"):
        packets.decode(b'{"id":"1","id":"1"}', Submission)


@given(st.binary() | st.text().map(str.encode))
def test_no_body_raises_anything_else(body: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        packets.decode(body, Submission)


def test_an_announcement_has_a_text_and_perhaps_an_end_with_its_zone() -> None:
    read = packets.decode(b'{"text":"hi","until":"2030-01-01T00:00:00Z"}', Announce)

    assert read == Announce("hi", datetime(2030, 1, 1, tzinfo=UTC))
    assert packets.decode(b'{"text":"hi"}', Announce).until is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"text":""}',
        b'{"text":"hi","until":"2030-01-01T00:00:00"}',
        b'{"text":"hi","until":""}',
        b'{"text":"hi","untill":null}',
    ],
)
def test_a_typing_error_in_an_announcement_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedPacket):
        packets.decode(body, Announce)
