"""`tokens`: who may speak, by the hash of what they show."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.dao import DAO
from commserver.dao.tables import tokens

TOUCH_PERIOD = timedelta(minutes=10)  # the sliding life is written no more often than that


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token's row. `life`: seconds that it lives on after a use; `last_used_at` lags behind."""

    sha256: str
    account_id: int
    label: str
    life: int
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def valid(self, at: datetime) -> bool:
        """Return whether it opens the door at this moment."""
        return self.revoked_at is None and at < self.expires_at

    def touch_due(self, at: datetime) -> bool:
        """Return whether a use at this moment is to be written down."""
        last = self.last_used_at or self.created_at
        return self.valid(at) and at - last >= TOUCH_PERIOD


class TokenDAO(DAO):
    """Who may speak, by the sha256 of what they show, in lower-case hex."""

    table = tokens

    async def find(self, connection: AsyncConnection, sha256: str) -> StoredToken | None:
        """Return the token, be it valid or not, None when there is none of this hash."""
        query = select(*_COLUMNS).where(tokens.c.sha256 == sha256)
        row = await self._first(connection, query)
        return StoredToken(*row) if row else None

    async def add(
        self,
        connection: AsyncConnection,
        sha256: str,
        *,
        account_id: int,
        life: int,
        at: datetime,
        label: str = "",
    ) -> StoredToken:
        """Store a token that is valid from now on for `life` seconds after its last use."""
        expires_at = at + timedelta(seconds=life)
        token = StoredToken(sha256, account_id, label, life, at, expires_at)
        await connection.execute(
            tokens.insert().values({name: getattr(token, name) for name in StoredToken.__slots__})
        )
        return token

    async def touch(self, connection: AsyncConnection, sha256: str, at: datetime) -> bool:
        """Write a use down and let the token's life begin anew, if that is due."""
        token = await self.find(connection, sha256)
        if token is None or not token.touch_due(at):
            return False
        await connection.execute(
            tokens.update()
            .where(tokens.c.sha256 == sha256)
            .values(last_used_at=at, expires_at=at + timedelta(seconds=token.life))
        )
        return True

    async def revoke(self, connection: AsyncConnection, sha256: str, at: datetime) -> bool:
        """Shut the door for good; False when there is no such token or it was shut before."""
        result = await connection.execute(
            tokens.update()
            .where(tokens.c.sha256 == sha256, tokens.c.revoked_at.is_(None))
            .values(revoked_at=at)
        )
        return result.rowcount == 1

    async def list(
        self, connection: AsyncConnection, account_id: int | None = None
    ) -> tuple[StoredToken, ...]:
        """Return an account's tokens, or everybody's, oldest first."""
        query = select(*_COLUMNS).order_by(tokens.c.created_at, tokens.c.sha256)
        if account_id is not None:
            query = query.where(tokens.c.account_id == account_id)
        return tuple(StoredToken(*row) for row in await connection.execute(query))


_COLUMNS = [tokens.c[name] for name in StoredToken.__slots__]
