"""`grades`: what attempts were worth."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao.dao import DAO
from commserver.dao.tables import grades


class GradeDAO(DAO):
    """What attempts were worth."""

    table = grades

    async def add(
        self, connection: AsyncConnection, attempt: AttemptId, value: int, at_ms: int
    ) -> None:
        """Give the attempt a newer grade at `at_ms`, epoch milliseconds."""
        row = grades.insert().values(user_exercise_id=attempt, value=value, timestamp=at_ms)
        # Inline: to be told the row's id we would need the right to read it.
        await connection.execute(row.inline())

    async def latest(self, connection: AsyncConnection, attempt: AttemptId) -> int | None:
        """Return the attempt's grade, None when it has none."""
        query = select(grades.c.value).where(grades.c.user_exercise_id == attempt)
        return await self._value(connection, query.order_by(grades.c.id.desc()))
