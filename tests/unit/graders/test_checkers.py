"""Whether an output says what was expected."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.verdicts import Status
from commserver.graders.checkers import CHECKERS, Difference, exact, floats, lines, tokens

WRONG, PRESENTATION = Status.WRONG_ANSWER, Status.PRESENTATION

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


# -- tokens ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.data(), WORDS)
def test_spacing_and_line_ends_make_no_difference(data: st.DataObject, words: list[bytes]) -> None:
    output, expected = data.draw(spaced(words)), data.draw(spaced(words))

    assert tokens(output, expected) is None


@settings(deadline=None, max_examples=40)
@given(st.data(), WORDS, WORDS)
def test_other_words_do(data: st.DataObject, said: list[bytes], meant: list[bytes]) -> None:
    output, expected = data.draw(spaced(said)), data.draw(spaced(meant))

    assert (tokens(output, expected) is None) is (said == meant)


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
    assert tokens(output, expected) is not None


@pytest.mark.parametrize(
    ("output", "expected"),
    [(b"", b""), (b" \n", b""), (b"42", b"42\n"), (b"1\r\n2", b"1 2"), (b"\xff", b"\xff\n")],
)
def test_these_are_the_same(output: bytes, expected: bytes) -> None:
    assert tokens(output, expected) is None


@pytest.mark.parametrize(
    ("output", "expected", "difference"),
    [
        (b"1\n2\n4\n", b"1 2 3", Difference(WRONG, 3, b"3", b"4")),
        (b"1\n2\n\n", b"1 2 3", Difference(WRONG, 2, b"3", None)),
        (b"1\n\n2", b"1", Difference(WRONG, 3, None, b"2")),
        (b"", b"x", Difference(WRONG, 1, b"x", None)),
    ],
)
def test_where_words_differ_is_told(output: bytes, expected: bytes, difference: Difference) -> None:
    assert tokens(output, expected) == difference


# -- float ----------------------------------------------------------------------------------------

within = partial(floats, tolerance=1e-6)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"3.1415926", b"3.14159265"),
        (b"1000000.9", b"1000000"),  # in relation to what was expected
        (b"0.0000009", b"0"),  # absolutely
        (b"-0", b"0.0"),
        (b"1e3", b"1000"),
        (b".5 +2.", b"0.5\n2"),
        (b"nan inf x1", b"nan inf x1"),
        (b"1e999", b"1e999"),
    ],
)
def test_numbers_are_compared_by_value(output: bytes, expected: bytes) -> None:
    assert within(output, expected) is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (b"3.14158", b"3.14159265"),
        (b"0.0000011", b"0"),
        (b"nan", b"1"),
        (b"inf", b"1"),
        (b"1e999", b"1"),
        (b"1e999", b"-1e999"),
        (b"5", b"1e999"),
        (b"1_000", b"1000"),
        (b"0x10", b"16"),
        (b"1.0x", b"1x"),
        (b"1 2", b"1"),
    ],
)
def test_what_is_no_number_or_too_far_is_different(output: bytes, expected: bytes) -> None:
    assert within(output, expected) is not None


def test_a_word_of_any_length_is_looked_at_once() -> None:
    assert within(b"1" * 1_000_000 + b"x", b"1") is not None


# -- lines and exact ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [(b"a b \nc\n\n\n", b"a b\nc"), (b"a\r\nb", b"a\nb\n"), (b"", b"\n \n"), (b" a", b" a\n")],
)
def test_ends_of_lines_do_not_matter_to_lines(output: bytes, expected: bytes) -> None:
    assert lines(output, expected) is None


@pytest.mark.parametrize(
    ("output", "expected", "difference"),
    [
        (b"a b\nc", b"a\nb c", Difference(PRESENTATION, 1, b"a", b"a b")),
        (b" a", b"a", Difference(PRESENTATION, 1, b"a", b" a")),
        (b"a\n\nb", b"a\nb", Difference(PRESENTATION, 2, b"b", b"")),
        (b"a\nc", b"a\nb", Difference(WRONG, 2, b"b", b"c")),
        (b"a", b"a\nb", Difference(WRONG, 2, b"b", None)),
        (b"a\nb", b"a", Difference(WRONG, 2, None, b"b")),
    ],
)
def test_lines_differ_where_they_do(output: bytes, expected: bytes, difference: Difference) -> None:
    assert lines(output, expected) == difference


@pytest.mark.parametrize(
    ("output", "expected", "difference"),
    [
        (b"a\n", b"a\n", None),
        (b"a", b"a\n", Difference(PRESENTATION, 1, b"a\n", b"a")),
        (b"a\n\n", b"a\n", Difference(PRESENTATION, 2, None, b"\n")),
        (b"b\n", b"a\n", Difference(WRONG, 1, b"a\n", b"b\n")),
    ],
)
def test_exact_means_every_byte(
    output: bytes, expected: bytes, difference: Difference | None
) -> None:
    assert exact(output, expected) == difference


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=12), st.binary(max_size=12))
def test_each_checker_is_stricter_than_the_one_before(output: bytes, expected: bytes) -> None:
    right = [check(output, expected) is None for check in (exact, lines, tokens, within)]

    assert right == sorted(right)


def test_these_are_what_exercises_can_name() -> None:
    assert {"tokens": tokens, "exact": exact, "lines": lines} == CHECKERS
