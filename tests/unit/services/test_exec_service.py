"""What is missing where the platform's tables have a gap, in words."""

import pytest

from commserver.core.jobs import AttemptId
from commserver.dao.attempts import Attempt
from commserver.services.exec_service import Snapshot


@pytest.mark.parametrize(
    ("exercise", "grade_max", "grader", "gap"),
    [
        (None, None, None, "the attempt is of no exercise"),
        (1, 20, None, "the exercise has no grader"),
        (1, None, "kind = 'tests'", "the exercise has no highest grade"),
    ],
)
def test_a_gap_is_called_what_it_is(
    exercise: int | None, grade_max: int | None, grader: str | None, gap: str
) -> None:
    attempt = Attempt(AttemptId(1), 1, exercise, 1, "Python", grade_max)

    assert Snapshot(attempt, (), grader).gap == gap
