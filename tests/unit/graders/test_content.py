"""What a run judges, and the name by which it is kept."""

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commserver.core.jobs import content_hash
from commserver.errors import StoreError
from commserver.graders.content import Content, Draft

CONTENT = Content("python", 20, (("a.py", "print('é')\r\n"), ("b.py", "")), "format = 1\n")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_the_hash_of_a_content_never_changes() -> None:
    """It is a name in the file store and in the rows of earlier versions."""
    name = "f6c94f72fe116cd8dfd5e40e5520cdb8a44eed671be2f9cd2f0456eca4ee048f"

    assert content_hash(CONTENT.encode()) == name


def test_the_hash_is_the_sha256_of_what_is_stored() -> None:
    stored = CONTENT.encode()

    assert content_hash(stored) == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        Content("c", 20, CONTENT.files, CONTENT.grader),
        Content("python", 21, CONTENT.files, CONTENT.grader),
        Content("python", 20, CONTENT.files[:1], CONTENT.grader),
        Content("python", 20, (("a.py", "print('é')\n"), ("b.py", "")), CONTENT.grader),
        Content("python", 20, CONTENT.files, CONTENT.grader + "\n"),
        Content("python", 20, (("a.py", ""), ("b.py", "print('é')\r\n")), CONTENT.grader),
    ],
)
def test_whatever_a_verdict_depends_on_changes_the_hash(other: Content) -> None:
    assert content_hash(other.encode()) != content_hash(CONTENT.encode())


@settings(deadline=None, max_examples=40)
@given(TEXTS, st.integers(0, 2**31), st.lists(st.tuples(TEXTS, TEXTS)).map(tuple), TEXTS)
def test_what_was_encoded_is_decoded(
    language: str, grade_max: int, files: tuple[tuple[str, str], ...], grader: str
) -> None:
    content = Content(language, grade_max, files, grader)

    assert Content.decode(content.encode()) == content


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=40))
@example(b"")
@example(b"\x80")
@example(b"\x84" + b"\x91" * 100_000)
@example(b"\x81\xa1x" + b"\x91" * 100_000)
@example(CONTENT.encode()[:-1])
@example(CONTENT.encode() + b"\0")
def test_rubbish_is_an_error_of_the_store(stored: bytes) -> None:
    with pytest.raises(StoreError):
        Content.decode(stored)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, len(CONTENT.encode()) - 1), st.integers(0, 255))
def test_a_flipped_byte_is_another_content_or_an_error_of_the_store(at: int, byte: int) -> None:
    stored = bytearray(CONTENT.encode())
    stored[at] = byte
    try:
        content = Content.decode(bytes(stored))
    except StoreError:
        return

    assert isinstance(content, Content)


def test_sources_and_grader_are_not_shown() -> None:
    assert repr(CONTENT) == "Content(language='python', grade_max=20)"


# -- drafts ---------------------------------------------------------------------------------------

DRAFT = Draft(CONTENT.language, CONTENT.grade_max, CONTENT.files, CONTENT.grader)


def test_a_complete_draft_is_the_content_to_the_byte() -> None:
    assert DRAFT.encode() == CONTENT.encode()
    assert DRAFT.content() == CONTENT


@pytest.mark.parametrize(
    "incomplete",
    [
        Draft("python", None, CONTENT.files, CONTENT.grader),
        Draft("python", 20, CONTENT.files, None),
        Draft("python", 20, (), CONTENT.grader),
    ],
)
def test_what_lacks_something_has_a_hash_of_its_own_and_is_no_content(incomplete: Draft) -> None:
    assert content_hash(incomplete.encode()) != content_hash(DRAFT.encode())
    assert incomplete.content() is None


def test_a_draft_shows_no_sources_either() -> None:
    assert repr(DRAFT) == "Draft(language='python', grade_max=20)"
