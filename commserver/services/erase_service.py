"""Forgetting one person, on demand."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.finals import account as recipient_of
from commserver.core.jobs import ContentHash
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.housekeeping import Held
from commserver.errors import StoreError, StoreRefused
from commserver.services import exercise_files
from commserver.services.auth_service import owner_of
from commserver.services.file_store import FileStore

log = structlog.get_logger(__name__)

FILE_GRACE = timedelta(minutes=1)  # in which somebody who put the same content names it in a row


@dataclass(frozen=True, slots=True)
class Erased:
    """What there was of an account and is no more.

    ended: of the runs, those that had not ended. left: contents that were handed in a moment ago,
    perhaps by others as well, that exercises have among their files, or that the disk did not let
    go of: a running server removes them within about a day of when nobody needs them any more.

    How many finals the account was ever given is still known, as a number beside that of the
    account: the next one gets the next number.
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

    who: what the audit calls whoever does it, such as "cli:root".
    """

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        files: FileStore,
        clock: Clock,
        *,
        who: str = "unknown",
    ) -> None:
        self._database = database
        self._daos = daos
        self._files = files
        self._clock = clock
        self._who = who

    async def username(self, account: int) -> str | None:
        """Return what the platform calls an account, None where it has none of this id."""
        return await self._database.read(lambda c: self._daos.accounts.name_of(c, account))

    async def erase(self, account: int) -> Erased:
        """Forget an account; once more changes nothing.

        A server that has a run of it in hand finds the row ended when it comes to write, and drops
        the run.

        What is handed in meanwhile may stay: it is new. Who else was to be told of a run that had
        not ended is owed its end, cancelled; a running server tells it with the next.

        Raises:
            StoreError: nothing was removed.
        """
        at = self._clock.utc()
        held = await self._held(account, at)
        removed = left = 0
        kept = await self._kept(held.contents)
        for name in held.contents:
            try:
                if name in kept:
                    left += 1
                elif await self._files.remove(name, before=at - FILE_GRACE):
                    removed += 1
                elif await self._files.has(name):
                    left += 1
            except StoreError as error:
                log.warning("content_not_removed", content=name, error=str(error))
                left += 1
        return Erased(held.runs, held.ended, held.tokens, held.notices, removed, left)

    async def _kept(self, names: Collection[ContentHash]) -> Collection[str]:
        """Return which of the files exercises have as well: all, where that cannot be looked up."""
        if not names:
            return ()
        try:
            return await self._database.read(
                lambda c: exercise_files.of_exercises(c, self._daos.scripts)
            )
        except StoreError as error:
            log.warning("contents_not_removed", error=str(error))
            return names

    async def _held(self, account: int, at: datetime) -> Held:
        """Forget the rows and return what there was."""
        recipient = recipient_of(owner_of(account))

        async def work(connection: AsyncConnection) -> Held:
            held = await self._daos.housekeeping.erase(connection, account, recipient, at)
            for to, run in held.owed:
                await self._daos.notices.add(connection, to, run, at)
            detail = f"{held.runs} runs, {held.tokens} tokens, {held.notices} finals"
            target = f"account {account}"
            await self._daos.audit.add(connection, self._who, "erase", target, detail, at=at)
            return held

        try:
            return await self._database.write(work)
        except StoreRefused:
            raise
        except StoreError as error:
            # A server works beside us: where each waits for a row of the other, PostgreSQL undoes
            # one of them, and then there is nothing left to wait for.
            log.warning("erasure_begins_again", error=str(error))
            return await self._database.write(work)
