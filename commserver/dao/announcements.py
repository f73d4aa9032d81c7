"""`commserver_announcements`: what is said to everybody."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import announcements


@dataclass(frozen=True, slots=True)
class StoredAnnouncement:
    """An announcement's row; `until` is None when it has no end of its own."""

    id: int
    text: str
    until: datetime | None
    created_at: datetime
    withdrawn_at: datetime | None


class AnnouncementDAO(DAO):
    """What was said to everybody; the newest counts."""

    table = announcements

    async def newest(self, connection: AsyncConnection) -> StoredAnnouncement | None:
        """Return the last that was made, be it over or withdrawn, None before the first."""
        query = select(*_COLUMNS).order_by(announcements.c.id.desc())
        row = await self._first(connection, query)
        return StoredAnnouncement(*row) if row else None

    async def add(
        self, connection: AsyncConnection, text: str, *, until: datetime | None, at: datetime
    ) -> int:
        """Store one that counts from now on; returns its id."""
        return await self._add(connection, text=text, until=until, created_at=at)

    async def withdraw(self, connection: AsyncConnection, id: int, at: datetime) -> bool:
        """Take one back; False when it was, or is not there."""
        result = await connection.execute(
            announcements.update()
            .where(announcements.c.id == id, announcements.c.withdrawn_at.is_(None))
            .values(withdrawn_at=at)
        )
        return result.rowcount == 1


_COLUMNS = [announcements.c[name] for name in StoredAnnouncement.__slots__]
