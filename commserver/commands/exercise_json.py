"""What the exercise commands print for programs: seconds, bytes, and our own names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from commserver.core.verdicts import Broken, Completed
from commserver.errors import DefinitionError
from commserver.graders.definition import shown
from commserver.services.exercise_folder import ExerciseFolder
from commserver.services.exercise_service import Statistics
from commserver.services.rehearsal_service import Checked, Rehearsal


def refused(folder: Path, error: DefinitionError) -> dict[str, Any]:
    """Return an exercise that cannot be graded."""
    return {"folder": str(folder), "good": False, "problems": list(error.problems)}


def checked(exercise: ExerciseFolder, solutions: Sequence[Checked]) -> dict[str, Any]:
    """Return an exercise, what is in force, and what its solutions got."""
    definition = exercise.definition
    return {
        "folder": str(exercise.path),
        "good": all(one.good for one in solutions),
        "problems": [],
        "key": definition.key,
        "course": definition.course,
        "title": definition.title,
        "kind": definition.kind,
        "languages": list(definition.languages),
        "in_force": {
            key: {"value": value, "default": default} for key, value, default in shown(definition)
        },
        "solutions": [_solution(one) for one in solutions],
    }


def _solution(one: Checked) -> dict[str, Any]:
    return {
        "solution": one.solution,
        "good": one.good,
        "expected": {"verdict": one.expected.verdict.value, "grade": one.expected.grade},
        "close": one.rehearsal.close,
        **_outcome(one.rehearsal),
    }


def _outcome(rehearsal: Rehearsal) -> dict[str, Any]:
    match rehearsal.outcome:
        case Completed(verdict):
            told = msgspec.to_builtins(verdict)
            return {"verdict": told.pop("status"), **told}
        case Broken(failure):
            return {"failure": {**msgspec.to_builtins(failure), "fault": failure.fault.value}}


def statistics(found: Statistics) -> dict[str, Any]:
    """Return how students fare with an exercise."""
    told = {**found._asdict(), "cases": [case._asdict() for case in found.cases]}
    return {str(key): value for key, value in msgspec.to_builtins(told).items()}
