"""`languages`: what courses are written in."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import languages


class LanguageDAO(DAO):
    """What courses are written in."""

    table = languages

    async def ensure(self, connection: AsyncConnection, name: str) -> int:
        """Return the id of the language of exactly this name, added now if there was none."""
        query = select(languages.c.id).where(languages.c.name == name).order_by(languages.c.id)
        found = await self._value(connection, query)
        return found if found is not None else await self._add(connection, name=name)
