"""Whether an output says what was expected."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.graders.checkers import CHECKERS, tokens

WORDS = st.lists(
    st.binary(min_size=1, max_size=4).filter(lambda word: len(word.split()) == 1).map(bytes.strip),
    max_size=6,
)
GAP = st.text(" \t\r\n\v\f", min_size=1, max_size=3).map(str.encode)


@st.composite
def spaced(draw: st.DrawFn, words: list[bytes]) -> bytes:
    """Return the words with any spacing between and around them."""
    text = draw(st.just(b"") | GAP)
    for word in words:
        text += word + draw(GAP)
    return text if draw(st.booleans()) else text.strip()


@settings(deadline=None)
@given(st.data(), WORDS)
def test_spacing_and_line_ends_make_no_difference(data: st.DataObject, words: list[bytes]) -> None:
    output, expected = data.draw(spaced(words)), data.draw(spaced(words))

    assert tokens(output, expected)


@settings(deadline=None)
@given(st.data(), WORDS, WORDS)
def test_other_words_do(data: st.DataObject, said: list[bytes], meant: list[bytes]) -> None:
    output, expected = data.draw(spaced(said)), data.draw(spaced(meant))

    assert tokens(output, expected) is (said == meant)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"", b"42"),
        (b"42", b""),
        (b"42 43", b"42"),
        (b"42", b"42 43"),
        (b"4 2", b"42"),
        (b"42.0", b"42"),
        (b"YES", b"yes"),
        (b"42\0", b"42"),
        ("42\N{NO-BREAK SPACE}43".encode(), b"42 43"),
    ],
)
def test_these_are_different(output: bytes, expected: bytes) -> None:
    assert not tokens(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [(b"", b""), (b" \n", b""), (b"42", b"42\n"), (b"1\r\n2", b"1 2"), (b"\xff", b"\xff\n")],
)
def test_these_are_the_same(output: bytes, expected: bytes) -> None:
    assert tokens(output, expected)


def test_this_is_what_exercises_call_tokens() -> None:
    assert CHECKERS["tokens"] is tokens
