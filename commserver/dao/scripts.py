"""`scripts`: what exercises are graded by."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import exercises, scripts


class ScriptDAO(DAO):
    """What exercises are graded by: definitions and correction scripts."""

    table = scripts

    async def newest(self, connection: AsyncConnection, exercise_id: int) -> str | None:
        """Return what grades the exercise now, None when nothing does."""
        query = select(scripts.c.content).where(scripts.c.exercise_id == exercise_id)
        return await self._value(connection, query.order_by(scripts.c.id.desc()))

    async def newest_of(
        self, connection: AsyncConnection, *, course: int | None = None, having: str = ""
    ) -> list[tuple[int, str]]:
        """Return which exercises are graded by what now, in the order of their ids.

        course: only its exercises. having: a text that the grader must contain.
        """
        newest = select(func.max(scripts.c.id)).group_by(scripts.c.exercise_id)
        query = select(scripts.c.exercise_id, scripts.c.content).where(
            scripts.c.id.in_(newest), scripts.c.content.contains(having, autoescape=True)
        )
        if course is not None:
            query = query.join(exercises, exercises.c.id == scripts.c.exercise_id)
            query = query.where(exercises.c.course_id == course)
        rows = await connection.execute(query.order_by(scripts.c.exercise_id))
        return [(number, content) for number, content in rows]

    async def having(
        self, connection: AsyncConnection, text: str, *, after: int = 0, limit: int
    ) -> list[tuple[int, str]]:
        """Return rows, old ones too, that contain `text`: id and content, in the order of ids.

        after: only rows with higher ids.
        """
        query = select(scripts.c.id, scripts.c.content).where(
            scripts.c.id > after, scripts.c.content.contains(text, autoescape=True)
        )
        rows = await connection.execute(query.order_by(scripts.c.id).limit(limit))
        return [(number, content) for number, content in rows]

    async def add(self, connection: AsyncConnection, exercise_id: int, content: str) -> int:
        """Grade the exercise by `content` from now on; returns the row's id."""
        return await self._add(connection, exercise_id=exercise_id, content=content)
