"""What each recipient is still owed, and what it says it has."""

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.finals import Final, Recipient
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager

AT_ONCE = 64  # finals that are read for one receiver before it has taken them


class Owed(NamedTuple):
    """Finals to give, in order, of a series that ends at `last`; `more` are owed after these."""

    finals: list[Final]
    last: int
    more: bool


class FinalsService:
    """Reads the finals that were committed and are not delivered yet, and notes deliveries."""

    def __init__(self, database: DatabaseManager, daos: DaoManager, clock: Clock) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock

    async def owed(self, recipient: Recipient, after: int) -> Owed:
        """Return the first of what is owed above `after`.

        Raises:
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> Owed:
            notices = self._daos.notices
            last = await notices.last(connection, recipient)
            if last <= after:
                return Owed([], last, more=False)
            finals = await notices.owed(connection, recipient, after=after, limit=AT_ONCE + 1)
            return Owed(finals[:AT_ONCE], last, more=len(finals) > AT_ONCE)

        return await self._database.read(work)

    async def acknowledge(self, recipient: Recipient, seq: int) -> int:
        """Owe nothing up to `seq` any more; returns how many finals that was new for.

        Raises:
            StoreError: it could not be noted, so they will be told again.
        """
        at = self._clock.utc()
        return await self._database.write(
            lambda c: self._daos.notices.delivered(c, recipient, seq, at)
        )
