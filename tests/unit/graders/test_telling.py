"""What teachers' programs tell us."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.verdicts import Status
from commserver.graders.telling import HEARD_MOST, Check, Say, Told, read_told


def told(*lines: Mapping[str, object]) -> Told:
    """Return what is read of these lines."""
    return read_told("".join(f"{json.dumps(line)}\n" for line in lines).encode())


def test_checks_and_what_is_said_are_read_in_order() -> None:
    check = {"check": "a", "points": 5, "earned": 3, "status": "wrong_answer", "hidden": True}
    check |= {"hint": "h", "message": "m", "note": "n", "runs": 2}

    found = told({"say": "before"}, check, {"say": "after"}, {"done": True}, {"grader": True})

    read = Check(
        "a", 5, 3, Status.WRONG_ANSWER, hidden=True, hint="h", message="m", note="n", runs=2
    )
    assert found == Told(lines=(Say("before"), read, Say("after")), done=True, grader=True)
    assert found.checks == (read,)
    assert found.said == ("before", "after")


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ({"points": 2.5}, Told(points=2.5)),
        ({"eof": True}, Told(eof=True)),
        ({"heard": 20}, Told(heard=frozenset({20}))),
        ({"heard_many": True}, Told(many=True)),
        ({"fault": "NameError", "details": "line 3"}, Told(fault="NameError", details="line 3")),
        ({"fault": ""}, Told(fault="it broke")),
        ({"done": True}, Told(done=True)),
        ({"grader": True}, Told(grader=True)),
        ({"done": False}, Told(unread=1)),
    ],
)
def test_each_tell_is_read(line: dict[str, object], read: Told) -> None:
    assert told(line) == read


def test_the_first_fault_counts_and_the_last_points() -> None:
    found = told({"fault": "a"}, {"fault": "b"}, {"points": 1}, {"points": 2})

    assert (found.fault, found.points) == ("a", 2)


def test_grades_beyond_number_are_only_many() -> None:
    assert not told(*({"heard": number} for number in range(HEARD_MOST))).many
    assert told(*({"heard": number} for number in range(HEARD_MOST + 1))).many


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\xff",
        b"[1]",
        b'{"check": "a"}',
        b'{"check": "a", "status": "fine"}',
        b'{"points": "2"}',
        b'{"points": NaN}',
        b"[" * 100_000,
    ],
)
def test_what_says_nothing_is_counted_and_left_out(line: bytes) -> None:
    assert read_told(line + b'\n{"say": "b"}\n') == Told(lines=(Say("b"),), unread=1)


@settings(deadline=None, max_examples=50)
@given(st.binary())
def test_any_bytes_are_read(content: bytes) -> None:
    assert isinstance(read_told(content), Told)
