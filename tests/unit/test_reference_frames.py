"""The two framings of other people's programs: however a stream is cut, the same frames come."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.gateways.framing import LengthFraming, LineFraming
from commserver.reference.frames import FRAME_LIMIT, Length, Lines, decoded, masked, same

FRAMES = [b'{"cmd":"OK"}', b"x", b'{"a":"\xc3\xa9"}']


@pytest.mark.parametrize("kind", [Lines, Length])
@given(cuts=st.lists(st.integers(0, 60)))
def test_frames_come_out_as_they_went_in(kind: type[Lines | Length], cuts: list[int]) -> None:
    stream = b"".join(kind().send(frame) for frame in FRAMES)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    framing = kind()

    found = [
        frame for begin, end in pairwise(edges) for frame in framing.receive(stream[begin:end])
    ]

    assert found == FRAMES


def test_both_ends_of_a_link_frame_alike() -> None:
    for frame in FRAMES:
        assert LineFraming(100).receive(Lines().send(frame)) == [frame]
        assert LengthFraming(100).receive(Length().send(frame)) == [frame]
        assert Length().receive(LengthFraming(100).send(frame)) == [frame]


@pytest.mark.parametrize(
    ("framing", "huge"),
    [
        (Lines(), b"x" * (FRAME_LIMIT + 1)),
        (Lines(), b"x" * (FRAME_LIMIT + 1) + b"\n"),
        (Length(), b"\x00\x10\x00\x01"),
        (Length(), b"\xff\xff\xff\xff"),
    ],
)
def test_a_frame_above_the_limit_is_refused(framing: Lines | Length, huge: bytes) -> None:
    with pytest.raises(ValueError, match="more than"):
        framing.receive(huge)


def test_the_largest_frame_is_taken() -> None:
    frame = b"x" * FRAME_LIMIT

    assert Lines().receive(Lines().send(frame)) == [frame]
    assert Length().receive(Length().send(frame)) == [frame]


@pytest.mark.parametrize("text", [b"", b"null", b"[1]", b"{", b"\xff", b"[" * 100_000, b"9" * 5000])
def test_what_is_no_object_is_an_empty_one(text: bytes) -> None:
    assert decoded(text) == {}


def test_an_object_is_read_as_strings() -> None:
    assert decoded(b'{"a":"b","n":7,"l":[],"o":{},"z":null}') == {"a": "b", "n": "7"}


def test_tokens_are_masked() -> None:
    assert masked({"cmd": "X", "TOKEN": "secret"}) == '{"cmd": "X", "TOKEN": "***"}'


def test_secrets_are_compared_whatever_they_hold() -> None:
    assert same("\ud800é", "\ud800é")
    assert not same("a", "b")
