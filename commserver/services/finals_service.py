"""What each recipient is still owed, and what it says it has."""

import asyncio
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.finals import Final, Recipient
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError

log = structlog.get_logger(__name__)

AT_ONCE = 64  # finals that are read for one receiver before it has taken them
RECEIPTS = 200  # recipients whose receipts are one transaction: grades wait for it


class Owed(NamedTuple):
    """Finals to give, in order, of a series that ends at `last`; `more` are owed after these."""

    finals: list[Final]
    last: int
    more: bool


class FinalsService:
    """Reads the finals that were committed and are not delivered yet, and notes deliveries.

    Receipts come by the hundred when a room hears of its results. `run` writes those together that
    came while it wrote the last ones, so that they do not stand in the way of grades.
    """

    def __init__(self, database: DatabaseManager, daos: DaoManager, clock: Clock) -> None:
        self._database = database
        self._daos = daos
        self._clock = clock
        self._away = False
        self._receipts: dict[Recipient, int] = {}  # to be written
        self._written: asyncio.Future[None] | None = None  # when those are
        self._came = asyncio.Event()

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

        try:
            owed = await self._database.read(work)
        except StoreError as error:
            if not self._away:  # a whole room asks
                log.warning("finals_not_read", error=str(error))
            self._away = True
            raise
        self._away = False
        return owed

    async def acknowledge(self, recipient: Recipient, seq: int) -> None:
        """Owe nothing up to `seq` any more.

        Raises:
            StoreError: it could not be noted, so they will be told again.
        """
        self._receipts[recipient] = max(seq, self._receipts.get(recipient, 0))
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        self._came.set()
        await asyncio.shield(self._written)

    async def run(self) -> None:
        """Write receipts, until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            receipts, self._receipts = self._receipts, {}
            written, self._written = self._written, None
            assert written is not None
            try:
                await self._write(sorted(receipts.items()))
            except StoreError as error:
                log.warning("receipts_not_stored", error=str(error))
                written.set_exception(error)
                written.exception()  # they may all have left
            else:
                written.set_result(None)

    async def _write(self, receipts: list[tuple[Recipient, int]]) -> None:
        at = self._clock.utc()
        for first in range(0, len(receipts), RECEIPTS):
            some = receipts[first : first + RECEIPTS]
            await self._database.write(partial(self._daos.notices.delivered, receipts=some, at=at))
