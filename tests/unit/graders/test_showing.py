"""Grades, and texts for whoever may read them."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.verdicts import Status
from commserver.graders.checkers import Difference
from commserver.graders.showing import NOTES_LIMIT, Result, difference, grade, verdict

POINTS = st.integers(1, 1000).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.just(total))
)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), POINTS)
def test_a_grade_is_the_rounded_share_and_full_only_for_all_points(
    grade_max: int, points: tuple[int, int]
) -> None:
    earned, total = points
    exact = floor(Fraction(grade_max * earned, total) + Fraction(1, 2))

    found = grade(grade_max, earned, total)

    if earned == total:
        assert found == grade_max
    elif grade_max:
        assert found == min(exact, grade_max - 1)
    else:
        assert found == 0


@pytest.mark.parametrize(
    ("grade_max", "earned", "total", "found"),
    [(20, 5, 20, 5), (20, 1, 8, 3), (10, 1, 3, 3), (1, 1, 2, 0), (20, 99, 100, 19), (0, 1, 2, 0)],
)
def test_some_grades(grade_max: int, earned: int, total: int, found: int) -> None:
    assert grade(grade_max, earned, total) == found


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (b"42", b"41", "line 3: expected '42', got '41'"),
        (b"42\n", None, "line 3: expected '42', got nothing more"),
        (None, b"\n", "line 3: expected nothing more, got an empty line"),
        (b"a b", b" a  b", "line 3: expected 'a b', got ' a  b'"),
        (b"x" * 81, b"'\t", f"line 3: expected '{'x' * 80}…', got \"'\\t\""),
        (b"42\n", b"42", "line 3: expected '42\\n', got '42'"),
        (b"42\n", b"42\r\n", "line 3: expected '42\\n', got '42\\r\\n'"),
        (
            b"x" * 99 + b"y" * 99,
            b"x" * 99 + b"z",
            f"line 3: expected '…{'x' * 40}{'y' * 40}…', got '…{'x' * 40}z'",
        ),
        (b"\xff", b"\x1b[31m", "line 3: expected '\N{REPLACEMENT CHARACTER}', got '\\x1b[31m'"),
    ],
)
def test_a_difference_is_one_bounded_line(
    expected: bytes | None, got: bytes | None, said: str
) -> None:
    assert difference(Difference(Status.WRONG_ANSWER, 3, expected, got)) == said


def test_what_is_said_cannot_pass_itself_off_as_a_case() -> None:
    result = Result("seen", Status.WRONG_ANSWER, 0, 5, said=("no\nunseen: accepted (5/5)",))

    log = verdict([result, "well\x1b[0m done"], 20).log

    assert log == "seen: wrong_answer (0/5)\n  no\n  unseen: accepted (5/5)\nwell[0m done"


def test_of_a_hidden_case_only_the_teacher_reads_what_was_said_and_shown() -> None:
    result = Result(
        "unseen",
        Status.WRONG_ANSWER,
        0,
        5,
        hidden=True,
        hint="think",
        said=("the secret",),
        shown=(("input", b"the input"),),
        notes=(("check.py wrote", b"a note"),),
    )

    found = verdict([result], 20)

    assert found.log == "unseen: wrong_answer (0/5)\n  hint: think"
    assert found.notes == "\n".join(
        [
            "unseen: wrong_answer",
            "  the secret",
            "  input:",
            "    the input",
            "  check.py wrote:",
            "    a note",
        ]
    )


def test_notes_are_bounded_and_clean() -> None:
    results = [
        Result(str(number), Status.ACCEPTED, 1, 1, notes=(("log", b"\0x\x1b" * 1000),))
        for number in range(500)
    ]

    notes = verdict(results, 20).notes

    assert len(notes.encode()) <= NOTES_LIMIT
    assert not {"\0", "\x1b"} & set(notes)
