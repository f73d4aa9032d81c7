"""`scripts`: what exercises are graded by."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import scripts


class ScriptDAO(DAO):
    """What exercises are graded by: definitions and correction scripts."""

    table = scripts

    async def newest(self, connection: AsyncConnection, exercise_id: int) -> str | None:
        """Return what grades the exercise now, None when nothing does."""
        query = select(scripts.c.content).where(scripts.c.exercise_id == exercise_id)
        return await self._value(connection, query.order_by(scripts.c.id.desc()))

    async def add(self, connection: AsyncConnection, exercise_id: int, content: str) -> int:
        """Grade the exercise by `content` from now on; returns the row's id."""
        return await self._add(connection, exercise_id=exercise_id, content=content)
