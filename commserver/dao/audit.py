"""`commserver_audit`: what admins did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import audit


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that an admin did.

    who: the door and the person behind it, as far as it is known: "cli:root", "http:admin".
    action: the object and what was done with it: "token.create".
    target: which one; a token by its fingerprint, never itself.
    """

    id: int
    at: datetime
    who: str
    action: str
    target: str
    detail: str


class AuditDAO(DAO):
    """What admins did; nothing is ever changed or removed."""

    table = audit

    async def add(
        self,
        connection: AsyncConnection,
        who: str,
        action: str,
        target: str = "",
        detail: str = "",
        *,
        at: datetime,
    ) -> None:
        """Write down what was done, in the transaction that does it."""
        await self._add(connection, at=at, who=who, action=action, target=target, detail=detail)

    async def latest(self, connection: AsyncConnection, limit: int) -> Sequence[AuditEntry]:
        """Return the newest `limit` entries, the newest first."""
        columns = (audit.c[name] for name in AuditEntry.__slots__)
        query = select(*columns).order_by(audit.c.id.desc()).limit(limit)
        return [AuditEntry(*row) for row in await connection.execute(query)]
