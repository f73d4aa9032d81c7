"""`clean_text`: what is kept, what goes, where a long text is cut."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.core.text import CUT_MARK, TEXT_LIMIT, clean_text

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
# Every code point, lone surrogates among them, with the troublesome ones often.
ANY_TEXT = st.text(st.one_of(st.characters(), st.sampled_from(BIDI + "\0\x1b\r\n\t\x7f\x85\ud800")))
LIMITS = st.integers(min_value=len(CUT_MARK.encode()), max_value=60)


@given(ANY_TEXT)
def test_nothing_that_deceives_or_is_refused_is_left(text: str) -> None:
    cleaned = clean_text(text)

    assert not set(cleaned) & set(BIDI)
    assert all(
        character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")
        for character in cleaned
    )


@given(ANY_TEXT)
def test_all_else_stays_in_its_order(text: str) -> None:
    kept = [
        character
        for character in text
        if character in "\n\t"
        or (character not in BIDI and unicodedata.category(character) not in ("Cc", "Cs"))
    ]

    assert clean_text(text) == "".join(kept)


@given(ANY_TEXT, LIMITS)
def test_a_long_text_is_cut_between_characters_and_says_so(text: str, limit: int) -> None:
    whole = clean_text(text)
    cut = clean_text(text, limit)

    assert len(cut.encode()) <= limit
    if len(whole.encode()) <= limit:
        assert cut == whole
    else:
        assert cut.endswith(CUT_MARK)
        assert whole.startswith(cut.removesuffix(CUT_MARK))
        # No more is lost than one character's bytes.
        assert len(cut.encode()) > limit - 4


@given(ANY_TEXT, LIMITS)
def test_cleaning_twice_changes_nothing(text: str, limit: int) -> None:
    once = clean_text(text, limit)

    assert clean_text(once, limit) == once


@pytest.mark.parametrize("character", ["a", "é", "€", "🙂"])
def test_the_usual_limit_is_kept_to_the_byte(character: str) -> None:
    size = len(character.encode())
    fits = character * (TEXT_LIMIT // size)

    assert clean_text(fits) == fits
    assert len(clean_text(fits + character).encode()) <= TEXT_LIMIT
    assert clean_text(fits + character).endswith(CUT_MARK)
