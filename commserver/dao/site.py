"""`site`: which installation this database belongs to."""

import uuid
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import site


class SiteDAO(DAO):
    """Which installation this database belongs to: one row, written once."""

    table = site

    async def id(self, connection: AsyncConnection, *, at: datetime) -> str:
        """Return the site's UUID, made now if the database has none: the transaction may write."""
        found: str | None = await self._value(connection, select(site.c.id))
        if found is not None:
            return found
        made = str(uuid.uuid4())
        await connection.execute(site.insert().values(single=1, id=made, created_at=at))
        return made
