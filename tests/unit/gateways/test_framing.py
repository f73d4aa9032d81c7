"""Frames out of a stream, however the stream is cut."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commserver.errors import PacketTooLarge
from commserver.gateways.framing import Framing, LengthFraming, LineFraming, make

LIMIT = 8


def received(framing: Framing, chunks: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the frames in `chunks`, and whether the stream can be read on."""
    frames = []
    try:
        for chunk in [*chunks, b""]:
            frames += framing.receive(chunk)
    except PacketTooLarge:
        return frames, False
    return frames, True


def test_one_line_is_one_frame_without_its_end() -> None:
    framing = LineFraming(LIMIT)

    frames = framing.receive(b'{"a":1}\n')

    assert frames == [b'{"a":1}']


def test_a_frame_comes_out_once_its_end_is_there() -> None:
    framing = LineFraming(LIMIT)

    assert framing.receive(b"one") == []
    assert framing.receive(b"\ntwo") == [b"one"]
    assert framing.receive(b"\n") == [b"two"]


def test_empty_lines_and_carriage_returns_are_no_part_of_any_frame() -> None:
    framing = LineFraming(LIMIT)

    frames = framing.receive(b"\n\r\n  \na\r\n\n")

    assert frames == [b"a"]


def test_what_is_sent_is_one_line() -> None:
    assert LineFraming(LIMIT).send(b'{"cmd":"OK"}') == b'{"cmd":"OK"}\n'


def test_a_line_of_exactly_the_limit_is_a_frame() -> None:
    framing = LineFraming(LIMIT)

    assert framing.receive(b"12345678") == []
    assert framing.receive(b"\n") == [b"12345678"]


@pytest.mark.parametrize("data", [b"123456789\n", b"123456789"])
def test_a_line_above_the_limit_ends_the_stream(data: bytes) -> None:
    framing = LineFraming(LIMIT)

    with pytest.raises(PacketTooLarge) as caught:
        framing.receive(data)

    assert caught.value.limit == LIMIT


def test_frames_before_one_that_is_too_long_are_not_lost() -> None:
    framing = LineFraming(LIMIT)

    frames = framing.receive(b"a\nb\n123456789\nc\n")

    assert frames == [b"a", b"b"]
    with pytest.raises(PacketTooLarge):
        framing.receive(b"")


def test_a_stream_that_cannot_be_read_stays_so() -> None:
    framing = LineFraming(LIMIT)
    with pytest.raises(PacketTooLarge):
        framing.receive(b"123456789")

    with pytest.raises(PacketTooLarge):
        framing.receive(b"\na\n")


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Return the stream in pieces."""
    ends = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(ends)]


def assert_chunking_changes_nothing(
    make_framing: Callable[[int], Framing], stream: bytes, cuts: list[int]
) -> None:
    whole = received(make_framing(LIMIT), [stream])
    cut = received(make_framing(LIMIT), chunked(stream, cuts))
    bytewise = received(make_framing(LIMIT), [bytes([byte]) for byte in stream])

    assert whole == cut == bytewise


CUTS = st.lists(st.integers(min_value=0), max_size=12)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=LIMIT + 2) | st.sampled_from([b"\r", b" ", b"a\r"])), CUTS)
@example([b"ab"], [1])
@example([b"a", b"123456789", b"b"], [3, 7])
def test_any_chunking_gives_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    assert_chunking_changes_nothing(LineFraming, b"\n".join(lines), cuts)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=LIMIT).filter(lambda line: b"\n" not in line)))
def test_what_one_side_sends_the_other_receives(lines: list[bytes]) -> None:
    sender, receiver = LineFraming(LIMIT), LineFraming(LIMIT)

    frames = receiver.receive(b"".join(sender.send(line) for line in lines))

    assert frames == [stripped for line in lines if (stripped := line.strip())]


# -- length ---------------------------------------------------------------------------------------


def framed(length: int, content: bytes = b"") -> bytes:
    return length.to_bytes(4, "big") + content


def test_one_frame_follows_its_length_highest_byte_first() -> None:
    assert LengthFraming(1000).receive(b"\x00\x00\x01\x02" + b"x" * 258) == [b"x" * 258]
    assert LengthFraming(LIMIT).send(b"{}") == b"\x00\x00\x00\x02{}"


def test_a_frame_with_a_length_may_hold_anything_and_is_kept_as_it_is() -> None:
    assert LengthFraming(LIMIT).receive(framed(4, b" \n\r\0")) == [b" \n\r\0"]


def test_a_frame_with_a_length_comes_out_once_all_of_it_is_there() -> None:
    framing = LengthFraming(LIMIT)

    assert framing.receive(b"\0\0") == []
    assert framing.receive(b"\0\x03on") == []
    assert framing.receive(b"e\0\0\0\x01t") == [b"one", b"t"]


def test_a_frame_of_no_bytes_is_none() -> None:
    assert LengthFraming(LIMIT).receive(framed(0) + framed(1, b"a") + framed(0)) == [b"a"]


def test_a_length_of_exactly_the_limit_is_a_frame() -> None:
    assert LengthFraming(LIMIT).receive(framed(LIMIT, b"12345678")) == [b"12345678"]


@pytest.mark.parametrize("length", [LIMIT + 1, 2**31, 2**32 - 1])
def test_only_a_length_above_the_limit_ends_the_stream(length: int) -> None:
    framing = LengthFraming(LIMIT)

    with pytest.raises(PacketTooLarge) as caught:
        framing.receive(framed(length))
    with pytest.raises(PacketTooLarge):
        framing.receive(framed(1, b"a"))

    assert caught.value.limit == LIMIT


def test_frames_before_a_length_above_the_limit_are_not_lost() -> None:
    framing = LengthFraming(LIMIT)

    frames = framing.receive(framed(1, b"a") + framed(2, b"bc") + framed(99, b"x" * 99))

    assert frames == [b"a", b"bc"]
    with pytest.raises(PacketTooLarge):
        framing.receive(b"")


@settings(deadline=None)
@given(
    st.lists(
        st.binary(max_size=LIMIT + 2).map(lambda frame: framed(len(frame), frame))
        | st.binary(max_size=6)
    ),
    CUTS,
)
def test_any_chunking_gives_the_same_frames(pieces: list[bytes], cuts: list[int]) -> None:
    assert_chunking_changes_nothing(LengthFraming, b"".join(pieces), cuts)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=LIMIT)))
def test_what_one_side_sends_with_lengths_the_other_receives(frames: list[bytes]) -> None:
    sender, receiver = LengthFraming(LIMIT), LengthFraming(LIMIT)

    assert receiver.receive(b"".join(sender.send(frame) for frame in frames)) == frames


@pytest.mark.parametrize(("kind", "stream"), [("lines", b"abc\n"), ("length", framed(3, b"abc"))])
def test_a_framing_is_chosen_by_its_name(kind: str, stream: bytes) -> None:
    framing = make("length" if kind == "length" else "lines", LIMIT)

    assert framing.receive(stream) == [b"abc"]
    assert framing.send(b"abc") == stream


@pytest.mark.parametrize("kind", [LineFraming, LengthFraming])
def test_of_an_endless_frame_no_more_is_kept_than_the_limit_and_one_chunk(
    kind: Callable[[int], LineFraming | LengthFraming],
) -> None:
    framing = kind(LIMIT)

    for _ in range(50):
        with pytest.raises(PacketTooLarge):
            framing.receive(b"\xff" * 1000)

    assert len(framing._rest) <= LIMIT + 1000
