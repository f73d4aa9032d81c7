"""Forgetting one person, on demand."""

from dataclasses import dataclass
from datetime import timedelta

from commserver.core.clock import Clock
from commserver.core.finals import account as recipient_of
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.services.auth_service import owner_of
from commserver.services.file_store import FileStore

FILE_GRACE = timedelta(minutes=1)  # in which somebody who put the same content names it in a row


@dataclass(frozen=True, slots=True)
class Erased:
    """What there was of an account and is no more.

    ended: of the runs, those that had not ended. left: contents that were handed in a moment ago,
    perhaps by others as well: a running server removes them within about a day.
    """

    runs: int
    ended: int
    tokens: int
    finals: int
    contents: int
    left: int


class EraseService:
    """Removes what commserver holds about an account, while a server may be running.

    The platform's own tables, among them the student's files, grades and logs, are the platform's.
    """

    def __init__(
        self, database: DatabaseManager, daos: DaoManager, files: FileStore, clock: Clock
    ) -> None:
        self._database = database
        self._daos = daos
        self._files = files
        self._clock = clock

    async def erase(self, account: int) -> Erased:
        """Forget an account; once more changes nothing.

        A server that has a run of it in hand finds the row ended when it comes to write, and drops
        the run.

        Raises:
            StoreError: nothing was removed but, perhaps, some of the stored contents.
        """
        at = self._clock.utc()
        recipient = recipient_of(owner_of(account))
        held = await self._database.write(
            lambda c: self._daos.housekeeping.erase(c, account, recipient, at)
        )
        removed = left = 0
        for name in held.contents:
            if await self._files.remove(name, before=at - FILE_GRACE):
                removed += 1
            elif await self._files.has(name):
                left += 1
        return Erased(held.runs, held.ended, held.tokens, held.notices, removed, left)
