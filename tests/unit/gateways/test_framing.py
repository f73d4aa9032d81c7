"""Lines out of a stream, however the stream is cut."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commserver.errors import PacketTooLarge
from commserver.gateways.framing import LineFraming

LIMIT = 8


def received(framing: LineFraming, chunks: list[bytes]) -> tuple[list[bytes], bool]:
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


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=LIMIT + 2) | st.sampled_from([b"\r", b" ", b"a\r"])),
    st.lists(st.integers(min_value=0), max_size=12),
)
@example([b"ab"], [1])
@example([b"a", b"123456789", b"b"], [3, 7])
def test_any_chunking_gives_the_same_frames(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"\n".join(lines)
    ends = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})

    whole = received(LineFraming(LIMIT), [stream])
    cut = received(LineFraming(LIMIT), [stream[a:b] for a, b in pairwise(ends)])
    bytewise = received(LineFraming(LIMIT), [bytes([byte]) for byte in stream])

    assert whole == cut == bytewise


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=LIMIT).filter(lambda line: b"\n" not in line)))
def test_what_one_side_sends_the_other_receives(lines: list[bytes]) -> None:
    sender, receiver = LineFraming(LIMIT), LineFraming(LIMIT)

    frames = receiver.receive(b"".join(sender.send(line) for line in lines))

    assert frames == [stripped for line in lines if (stripped := line.strip())]
