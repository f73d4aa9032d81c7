"""How attempts must end, as a command line says it."""

import pytest

from commserver.core.verdicts import Status
from commserver.reference.expected import STATUSES, differences, end_of, parsed

ACCEPTED = {"cmd": "EXECUTED", "id": "1", "status": "accepted", "grade": "20"}
TEACHER = {"cmd": "ERROR", "id": "1", "error_code": "500", "fault": "teacher", "message": "why"}


def test_every_status_that_there_is_can_be_expected() -> None:
    assert {status.value for status in Status} <= set(STATUSES)


def test_ends_are_read_by_id() -> None:
    found = parsed("42=accepted, 43=500/teacher,44=500")

    assert found == {"42": "accepted", "43": "500/teacher", "44": "500"}


@pytest.mark.parametrize(
    "wrong",
    ["", "42", "=accepted", "42=", "42=great", "42=500/nobody", "42=501", "1=500/", "1=404,"],
)
def test_what_is_no_end_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not ID=END"):
        parsed(wrong)


def test_an_id_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="1 is there twice"):
        parsed("1=accepted,1=memory")


@pytest.mark.parametrize(
    ("final", "end"), [(ACCEPTED, "accepted"), (TEACHER, "500/teacher"), ({"cmd": "ERROR"}, "/")]
)
def test_a_final_says_how_it_ended(final: dict[str, str], end: str) -> None:
    assert end_of(final) == end


@pytest.mark.parametrize(
    ("end", "final"),
    [("accepted", ACCEPTED), ("500/teacher", TEACHER), ("500", TEACHER)],
)
def test_what_ended_as_expected_makes_no_difference(end: str, final: dict[str, str]) -> None:
    assert differences({"1": end}, {"1": final}) == []


@pytest.mark.parametrize(
    ("end", "final", "sentence"),
    [
        ("memory", ACCEPTED, "1 should have ended with memory, not with accepted"),
        ("accepted", TEACHER, "1 should have ended with accepted, not with 500/teacher (why)"),
        ("500/system", TEACHER, "1 should have ended with 500/system, not with 500/teacher (why)"),
        ("404", TEACHER, "1 should have ended with 404, not with 500/teacher (why)"),
        ("accepted", None, "1 should have ended with accepted, and has not ended"),
    ],
)
def test_what_ended_otherwise_is_said(
    end: str, final: dict[str, str] | None, sentence: str
) -> None:
    finals = {"1": final} if final else {}

    assert differences({"1": end}, finals) == [sentence]
