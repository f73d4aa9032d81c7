"""`user_exercises`: attempts, each a student's work on an exercise."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao.column_types import is_id
from commserver.dao.dao import DAO
from commserver.dao.tables import courses, exercises, languages, user_exercises


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt with what leads to its grader; None where the platform's tables have a gap.

    language: as the platform calls it. grade_max: of its exercise.
    """

    id: AttemptId
    account_id: int | None
    exercise_id: int | None
    course_id: int | None
    language: str | None
    grade_max: int | None


class AttemptDAO(DAO):
    """Attempts, each a student's work on an exercise."""

    table = user_exercises

    async def find(self, connection: AsyncConnection, attempt: AttemptId) -> Attempt | None:
        """Return the attempt, None when there is none of this id, which may be any number."""
        if not is_id(attempt):
            return None
        query = (
            select(
                user_exercises.c.id,
                user_exercises.c.account_id,
                user_exercises.c.exercise_id,
                exercises.c.course_id,
                languages.c.name,
                exercises.c.grade_max,
            )
            .outerjoin_from(
                user_exercises, exercises, exercises.c.id == user_exercises.c.exercise_id
            )
            .outerjoin(courses, courses.c.id == exercises.c.course_id)
            .outerjoin(languages, languages.c.id == courses.c.language_id)
            .where(user_exercises.c.id == attempt)
        )
        row = await self._first(connection, query)
        return Attempt(*row) if row else None

    async def titles(
        self, connection: AsyncConnection, attempts: Collection[AttemptId]
    ) -> dict[AttemptId, str]:
        """Return what the exercise of each attempt is called, of those where that is known."""
        query = (
            select(user_exercises.c.id, exercises.c.title)
            .join_from(user_exercises, exercises, exercises.c.id == user_exercises.c.exercise_id)
            .where(user_exercises.c.id.in_(attempts), exercises.c.title.is_not(None))
        )
        return {AttemptId(id): title for id, title in await connection.execute(query)}

    async def add(
        self, connection: AsyncConnection, *, account_id: int, exercise_id: int
    ) -> AttemptId:
        """Add an attempt, still without files, and return its id."""
        return AttemptId(
            await self._add(connection, account_id=account_id, exercise_id=exercise_id)
        )
