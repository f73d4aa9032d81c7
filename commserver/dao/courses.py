"""`courses`: an author's exercises in one language."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import courses


class CourseDAO(DAO):
    """An author's exercises in one language."""

    table = courses

    async def ensure(
        self, connection: AsyncConnection, *, account_id: int, title: str, language_id: int
    ) -> int:
        """Return the id of the author's course of this title, added now if there was none.

        A course that was there keeps its language.
        """
        found = await self.id_of(connection, account_id=account_id, title=title)
        if found is not None:
            return found
        return await self._add(
            connection, account_id=account_id, title=title, language_id=language_id
        )

    async def id_of(
        self, connection: AsyncConnection, *, account_id: int, title: str
    ) -> int | None:
        """Return the id of the author's course of this title, None when there is none."""
        query = (
            select(courses.c.id)
            .where(courses.c.account_id == account_id, courses.c.title == title)
            .order_by(courses.c.id)
        )
        found: int | None = await self._value(connection, query)
        return found
