"""What is on record of attempts and their runs, for whoever asks about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.board import Board
from commserver.core.finals import Final, account
from commserver.core.jobs import AttemptId, Job, OwnerId, RunId
from commserver.core.states import State
from commserver.dao.attempts import Attempt
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.errors import NotAllowed, NotFound
from commserver.services.auth_service import owner_of


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as it is now.

    state: the board's where it knows better than the row. place: in its lane, from 1; 0 when it
    does not wait.
    """

    stored: StoredRun
    state: State
    place: int


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """An attempt of a student's: its newest run, and what its exercise is called ("" if nobody
    knows).
    """

    attempt: AttemptId
    title: str
    run: RunRecord


class RecordService:
    """Reads the rows of runs, and from the board what is not in them."""

    def __init__(self, database: DatabaseManager, daos: DaoManager, board: Board) -> None:
        self._database = database
        self._daos = daos
        self._board = board

    async def owned(self, attempt: AttemptId, owner: OwnerId) -> Attempt:
        """Return an attempt that must be this owner's.

        Raises:
            NotFound: there is none of this id.
            NotAllowed: it is somebody else's.
            StoreError: the database did not answer.
        """
        found = await self._database.read(lambda c: self._daos.attempts.find(c, attempt))
        if found is None:
            raise NotFound("attempt", str(attempt))
        if found.account_id is None or owner_of(found.account_id) != owner:
            raise NotAllowed("this attempt is somebody else's", "attempt", str(attempt))
        return found

    def unfinished(self, attempt: AttemptId) -> list[tuple[Job, int]]:
        """Return the attempt's runs that have not ended, each with its place, 0 when in hand."""
        runs = self._board.runs_of_attempt(attempt)
        return [(job, self._board.place(job.id) or 0) for job in runs]

    async def last_final(self, attempt: AttemptId, owner: OwnerId) -> Final | None:
        """Return how the newest run of what was handed in ended, None when there is no such run.

        `seq` is its number in the owner's series, 0 where that is not known any more.

        Raises:
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> Final | None:
            run = await self._daos.executions.newest_ended(connection, attempt)
            if run is None:
                return None
            seq = await self._daos.notices.seq_of(connection, account(owner), run.job.id)
            return Final(run.job.id, attempt, run.state, run.ending, seq)

        return await self._database.read(work)

    async def name_of(self, account: int) -> str:
        """Return the user name of an account, "" if nobody knows it.

        Raises:
            StoreError: the database did not answer.
        """
        name = await self._database.read(lambda c: self._daos.accounts.name_of(c, account))
        return name or ""

    async def latest_of(self, account: int, limit: int = 50) -> Sequence[AttemptRecord]:
        """Return the newest attempts of an account that were ever to be run, newest run first.

        Raises:
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> Sequence[AttemptRecord]:
            runs = await self._daos.executions.newest_of_account(connection, account, limit)
            return await self._titled(connection, runs)

        return await self._database.read(work)

    async def with_log(self, attempt: AttemptId, owner: OwnerId) -> tuple[AttemptRecord, str]:
        """Return an attempt that must be this owner's, and what its student may read of its run.

        The text is "" while there is none, and once it is kept no more.

        Raises:
            NotFound: there is none of this id, or it was never to be run.
            NotAllowed: it is somebody else's.
            StoreError: the database did not answer.
        """
        await self.owned(attempt, owner)

        async def work(connection: AsyncConnection) -> tuple[Sequence[AttemptRecord], str]:
            runs = [
                run
                for run in await self._daos.executions.of_attempt(connection, attempt, 20)
                if run.state is not State.SUPERSEDED
            ][:1]
            found = [await self._daos.executions.verdict(connection, run.job.id) for run in runs]
            log = "".join(one.verdict.log for one in found if one and one.verdict)
            return await self._titled(connection, runs), log

        records, log = await self._database.read(work)
        if not records:
            raise NotFound("attempt", str(attempt), "this attempt was not run yet")
        return records[0], log

    async def run(self, run: RunId) -> RunRecord:
        """Return a run.

        Raises:
            NotFound: there is none of this id.
            StoreError: the database did not answer.
        """
        found = await self._database.read(lambda c: self._daos.executions.find(c, run))
        if found is None:
            raise NotFound("run", run)
        return self._record(found)

    async def runs_of(self, attempt: AttemptId, limit: int = 20) -> Sequence[RunRecord]:
        """Return the newest runs of an attempt, the newest first.

        Raises:
            NotFound: there is no such attempt.
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> list[StoredRun]:
            if await self._daos.attempts.find(connection, attempt) is None:
                raise NotFound("attempt", str(attempt))
            return await self._daos.executions.of_attempt(connection, attempt, limit)

        return [self._record(run) for run in await self._database.read(work)]

    async def _titled(
        self, connection: AsyncConnection, runs: Sequence[StoredRun]
    ) -> Sequence[AttemptRecord]:
        attempts = [run.job.attempt for run in runs if run.job.attempt is not None]
        titles = await self._daos.attempts.titles(connection, attempts)
        return [
            AttemptRecord(attempt, titles.get(attempt, ""), self._record(run))
            for attempt, run in zip(attempts, runs, strict=True)
        ]

    def _record(self, stored: StoredRun) -> RunRecord:
        run = stored.job.id
        state = stored.state if stored.state.ended else self._board.state(run) or stored.state
        return RunRecord(stored, state, self._board.place(run) or 0)
