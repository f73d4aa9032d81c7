"""What is kept for a time only."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.config import Database, Days, Files
from commserver.core.clock import Clock
from commserver.core.jobs import ContentHash
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import NotFound, StoreError
from commserver.services import exercise_files
from commserver.services.file_store import SHARDS, FileStore

log = structlog.get_logger(__name__)

T = TypeVar("T")

PERIOD = 6 * 3600.0  # seconds from the end of one cleaning to the next
BATCH = 500  # rows a transaction: others write in between
KEEP_REQUESTS = timedelta(days=7)  # a key of the HTTP door stands for its request so long
FILE_GRACE = timedelta(days=1)  # a content is stored before the row that names it


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much one cleaning has removed."""

    runs: int
    notices: int
    logs: int
    files: int
    requests: int = 0


class RetentionService:
    """Forgets what the configuration does not let us keep any longer.

    A run that has not ended is never touched, nor one whose final is owed and may still come.
    """

    name = "retention"

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        files: FileStore,
        clock: Clock,
        keep: Database,
        keep_files: Files,
    ) -> None:
        self._database = database
        self._dao = daos.housekeeping
        self._scripts = daos.scripts
        self._files = files
        self._clock = clock
        self._keep = keep
        self._keep_files = keep_files

    async def run(self) -> None:
        """Clean now and every six hours, until cancelled."""
        while True:
            try:
                forgotten = await self.clean()
            except StoreError as error:
                log.warning("cleaning_failed", error=str(error))
            else:
                log.info("cleaned", **{n: getattr(forgotten, n) for n in Forgotten.__slots__})
            await self._clock.wait(asyncio.Event(), self._clock.now() + PERIOD)

    async def clean(self) -> Forgotten:
        """Remove everything that is due now, a batch at a time.

        Raises:
            StoreError: not all could be removed; the rest is still due. What failed is in it.
        """
        parts = {
            "notices": self._notices,  # first: while a final is owed its run stays
            "runs": self._runs,
            "logs": self._logs,
            "files": self._contents,
            "requests": self._requests,
        }
        gone: dict[str, int] = {}
        failures: list[str] = []
        for name, part in parts.items():
            try:
                gone[name] = await part()
            except StoreError as error:
                failures.append(f"{name}: {error}")
            except Exception:  # a bug of ours must not stop the others, nor end the server
                log.exception("part_of_cleaning_failed", part=name)
                failures.append(f"{name}: internal error")
        if failures:
            raise StoreError("; ".join(failures))
        return Forgotten(**gone)

    def _before(self, days: Days) -> datetime | None:
        """Return the moment before which nothing is kept, None for never."""
        return self._clock.utc() - timedelta(days=days) if days else None

    async def _notices(self) -> int:
        before = self._before(self._keep.keep_notices)
        if before is None:
            return 0
        dao = self._dao
        return await self._batches(
            lambda after, c: dao.due_notices(c, before=before, after=after, limit=BATCH),
            lambda keys, c: dao.forget_notices(c, keys),
        )

    async def _runs(self) -> int:
        ended = self._before(self._keep.keep_executions)
        if ended is None:
            return 0
        dao = self._dao
        return await self._batches(
            lambda after, c: dao.due_runs(c, ended=ended, after=after, limit=BATCH),
            lambda runs, c: dao.forget_runs(c, runs, ended=ended),
        )

    async def _logs(self) -> int:
        ended = self._before(self._keep.keep_logs)
        if ended is None:
            return 0
        dao = self._dao
        return await self._batches(
            lambda after, c: dao.due_logs(c, ended=ended, after=after, limit=BATCH),
            lambda runs, c: dao.blank_logs(c, runs),
        )

    async def _requests(self) -> int:
        before = self._clock.utc() - KEEP_REQUESTS
        dao = self._dao
        return await self._batches(
            lambda after, c: dao.due_requests(c, before=before, after=after, limit=BATCH),
            lambda keys, c: dao.forget_requests(c, keys),
        )

    async def _batches(
        self,
        find: Callable[[T | None, AsyncConnection], Awaitable[Sequence[T]]],
        forget: Callable[[Sequence[T], AsyncConnection], Awaitable[int]],
    ) -> int:
        """Forget what is found, each batch after the last; how much."""
        total, last = 0, None
        while due := await self._database.read(partial(find, last)):
            total += await self._database.write(partial(forget, due))
            last = due[-1]
            if len(due) < BATCH:
                break
        return total

    async def _contents(self) -> int:
        """Remove the stored files that nobody needs, and what was never finished.

        Runs need the contents they judge; exercises and contents the large files of exercises.
        """
        young = self._clock.utc() - FILE_GRACE
        ended = self._before(self._keep_files.keep)
        unneeded: set[str] = set()
        for shard in SHARDS:
            old = await self._files.old(shard, before=young)
            unneeded |= old - await self._needed(shard, ended)
        if unneeded:
            unneeded -= await self._database.read(
                lambda c: exercise_files.of_exercises(c, self._scripts)
            )
        unneeded -= await self._referred(unneeded, ended)
        return sum([await self._files.collect(s, unneeded, before=young) for s in SHARDS])

    async def _needed(self, shard: str, ended: datetime | None) -> set[str]:
        return await self._database.read(lambda c: self._dao.contents(c, shard, ended=ended))

    async def _referred(self, names: set[str], ended: datetime | None) -> set[str]:
        """Return which of the files a content refers to whose exercise does so no more.

        Nearly all that is to be removed is contents, which nothing refers to: only where something
        else is among it, a platform has lost or changed a grader, and the contents are read.
        """
        wanted = {name for name in names if await self._refers(name) is None}
        found: set[str] = set()
        for shard in SHARDS if wanted else ():
            for name in await self._needed(shard, ended):
                found |= wanted.intersection(await self._refers(name) or ())
        return found

    async def _refers(self, name: str) -> Collection[str] | None:
        """Return what a stored content refers to; None for a file that is no content."""
        try:
            stored = await self._files.get(ContentHash(name))
        except (NotFound, StoreError):  # what is lost or damaged needs nothing more
            return ()
        return await asyncio.to_thread(exercise_files.of_content, stored)
