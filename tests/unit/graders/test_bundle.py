"""A whole exercise in one row, and back."""

import hashlib
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.errors import DefinitionError
from commserver.graders.bundle import INLINE_ALL, INLINE_MOST, MARK, pack, unpack
from commserver.graders.definition import is_definition, parse
from tests.unit.graders.toml import exercise

TEXTS = st.sampled_from(
    [
        "format = 1",
        "format = 1\n",
        "format = 1\r\n[a]\r\nb = 1\r\n",
        'format = 1\n\n[a.b]\nx = """\n[files]\n"""\n# the end',
        f"format = 1\n\n{MARK}\n# said by somebody else\n",
        "",
    ]
)
PATHS = st.text("ab./é \"'\\\n", min_size=1, max_size=6)
CONTENTS = st.one_of(
    st.binary(max_size=20), st.text("ab\n\r\t\0\"'\\é\x85\u2028\ufeff", max_size=12).map(str.encode)
)


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.dictionaries(PATHS, CONTENTS, max_size=4))
def test_unpack_is_the_inverse_of_pack(text: str, files: dict[str, bytes]) -> None:
    bundle = pack(text, files)

    assert unpack(bundle.row, bundle.bulk) == (text, files)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(PATHS, CONTENTS, max_size=4))
def test_what_a_browsers_text_box_makes_of_the_row_changes_no_file(files: dict[str, bytes]) -> None:
    bundle = pack("format = 1\n", files)

    sent = bundle.row.replace("\n", "\r\n")

    assert unpack(sent, bundle.bulk) == ("format = 1\r\n", files)


def test_the_row_is_a_definition_that_a_person_can_read() -> None:
    text = exercise('checker = { program = "check.py" }')
    check = "import sys\n\nsys.exit(open('a\\\\b').read() == \"c\")\n"

    row = pack(text, {"check.py": check.encode(), "cases/1.in": b"3 4"}).row

    assert is_definition(row)
    assert parse(row).files == {"check.py": check, "cases/1.in": "3 4"}
    assert (
        row
        == f"{text}\n{MARK}\n[files]\n\"cases/1.in\" = \"3 4\"\n\"check.py\" = '''\n{check}'''\n"
    )


def test_an_exercise_without_files_is_its_text() -> None:
    assert pack("format = 1", {}).row == "format = 1"


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"a\r\nb", b"\0", b"x" * (INLINE_MOST + 1), b"\xef\xbb\xbf", b"\x7f"],
    ids=["no text", "other line ends", "zero", "long", "byte order mark", "delete"],
)
def test_what_is_bulky_or_no_plain_text_goes_into_the_file_store(content: bytes) -> None:
    bundle = pack("format = 1", {"a": content})

    name = hashlib.sha256(content).hexdigest()
    assert bundle.bulk == {name: content}
    assert tomllib.loads(bundle.row)["files"] == {"a": {"sha256": name, "size": len(content)}}


def test_many_short_texts_do_not_make_a_long_row() -> None:
    files = {f"cases/{number}.in": b"x" * INLINE_MOST for number in range(20)}

    bundle = pack("format = 1", files)

    assert len(bundle.row) < INLINE_ALL + 10_000
    assert len(bundle.bulk) == 1
    assert unpack(bundle.row, bundle.bulk)[1] == files


def test_a_row_written_by_hand_is_taken_apart_as_well() -> None:
    row = 'format = 1\n[files]\n"a" = "1"\n[limits]\ncpu = "1 s"\n[files.b]\nbase64 = "Mg=="\n'

    assert unpack(row, {}) == (
        'format = 1\n[limits]\ncpu = "1 s"\n',
        {"a": b"1", "b": b"2"},
    )


@pytest.mark.parametrize("text", ["format = 1\n[files]\na = 1", "format = 1\nfiles.a = ''"])
def test_a_text_that_brings_its_files_is_not_packed(text: str) -> None:
    with pytest.raises(DefinitionError, match="files: come from the folder"):
        pack(text, {"b": b""})


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("= 1", "not TOML"),
        ("files = 1", "files: "),
        ('[files]\n"a" = { sha256 = "00" }', "files.a: is not in the file store"),
    ],
)
def test_what_cannot_be_unpacked_is_the_teachers_to_mend(row: str, problem: str) -> None:
    with pytest.raises(DefinitionError, match=problem):
        unpack(row, {})
