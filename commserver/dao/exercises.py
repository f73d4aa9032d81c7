"""`exercises`: what students are asked."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import exercises


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise; `account_id` is its author's."""

    id: int
    account_id: int
    course_id: int
    title: str
    instruction: str
    grade_max: int


class ExerciseDAO(DAO):
    """What students are asked."""

    table = exercises

    async def find(self, connection: AsyncConnection, exercise_id: int) -> Exercise | None:
        """Return the exercise, None when there is none of this id."""
        return await self._one(connection, exercises.c.id == exercise_id)

    async def put(
        self,
        connection: AsyncConnection,
        *,
        account_id: int,
        course_id: int,
        title: str,
        instruction: str,
        grade_max: int,
        known: int | None = None,
    ) -> int:
        """Make the course's exercise of this title say so, added if there was none; its id.

        An exercise that was there keeps its author, and is written only if something changes.

        known: the id of the one that it is, whatever its title was.
        """
        if known is None:
            known = await self.id_of(connection, course_id, title)
        found = None if known is None else await self.find(connection, known)
        if found is None:
            return await self._add(
                connection,
                account_id=account_id,
                course_id=course_id,
                title=title,
                instruction=instruction,
                grade_max=grade_max,
            )
        if (found.title, found.instruction, found.grade_max) != (title, instruction, grade_max):
            await connection.execute(
                update(exercises)
                .where(exercises.c.id == found.id)
                .values(title=title, instruction=instruction, grade_max=grade_max)
            )
        return found.id

    async def id_of(self, connection: AsyncConnection, course_id: int, title: str) -> int | None:
        """Return the id of the course's exercise of this title, None when it has none."""
        found = await self._one(
            connection, (exercises.c.course_id == course_id) & (exercises.c.title == title)
        )
        return found.id if found else None

    async def _one(
        self, connection: AsyncConnection, condition: ColumnElement[bool]
    ) -> Exercise | None:
        columns = (exercises.c[name] for name in Exercise.__slots__)
        query = select(*columns).where(condition).order_by(exercises.c.id)
        row = await self._first(connection, query)
        return Exercise(*row) if row else None
