"""What admins did, written down and read back."""

from collections.abc import Sequence

from commserver.core.clock import Clock
from commserver.dao.audit import AuditEntry
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager

HTTP = "http:admin"  # who did what comes in at the admins' endpoints


class AuditService:
    """The record of what admins did; no entry is ever changed or removed.

    Who has a transaction of their own writes the entry in it, with `daos.audit.add`.
    """

    def __init__(self, database: DatabaseManager, daos: DaoManager, clock: Clock) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock

    async def record(self, who: str, action: str, target: str = "", detail: str = "") -> None:
        """Write down what was done now; never with a token or a secret in it.

        Raises:
            StoreError: the database did not answer; nothing was written.
        """
        at = self._clock.utc()
        await self._database.write(
            lambda c: self._daos.audit.add(c, who, action, target, detail, at=at)
        )

    async def latest(self, limit: int) -> Sequence[AuditEntry]:
        """Return the newest `limit` entries, the newest first.

        Raises:
            StoreError: the database did not answer.
        """
        return await self._database.read(lambda c: self._daos.audit.latest(c, limit))
