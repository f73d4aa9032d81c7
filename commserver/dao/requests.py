"""`commserver_requests`: what callers of the HTTP door asked for under a key of their own."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import RunId
from commserver.dao.dao import DAO
from commserver.dao.tables import requests

_c = requests.c


class StoredRequest(NamedTuple):
    """A request that must not be carried out twice.

    body: sha256 of what was asked. run: what stands for it, None until it is known to be there.
    """

    body: str
    run: RunId | None
    created_at: datetime


class RequestDAO(DAO):
    """What callers of the HTTP door asked for under a key of their own."""

    table = requests

    async def find(self, connection: AsyncConnection, key: str) -> StoredRequest | None:
        """Return what was asked under a key, None when nothing was."""
        query = select(_c.body, _c.execution_id, _c.created_at).where(_c.key == key)
        row = await self._first(connection, query)
        return StoredRequest(*row) if row else None

    async def reserve(
        self, connection: AsyncConnection, key: str, body: str, *, at: datetime
    ) -> StoredRequest:
        """Keep a key for this body from now on."""
        await connection.execute(requests.insert().values(key=key, body=body, created_at=at))
        return StoredRequest(body, None, at)

    async def answered(self, connection: AsyncConnection, key: str, run: RunId) -> None:
        """Have a run stand for what was asked under a key."""
        await connection.execute(update(requests).where(_c.key == key).values(execution_id=run))
