"""`logs`: what students read about how their attempts went."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.core.text import clean_text
from commserver.dao.dao import DAO
from commserver.dao.tables import logs


class AttemptLogDAO(DAO):
    """What students read about how their attempts went."""

    table = logs

    async def add(
        self, connection: AsyncConnection, attempt: AttemptId, content: str, at_ms: int
    ) -> None:
        """Give the attempt a newer log, cleaned, at `at_ms`, epoch milliseconds."""
        cleaned = clean_text(content)
        row = logs.insert().values(user_exercise_id=attempt, content=cleaned, timestamp=at_ms)
        # Inline: to be told the row's id we would need the right to read it.
        await connection.execute(row.inline())

    async def latest(self, connection: AsyncConnection, attempt: AttemptId) -> str | None:
        """Return the attempt's log, None when it has none."""
        query = select(logs.c.content).where(logs.c.user_exercise_id == attempt)
        return await self._value(connection, query.order_by(logs.c.id.desc()))
