"""Where the board's changes are made certain, and what a new process finds there."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.board import Board
from commserver.core.changes import Change, Conflict
from commserver.core.clock import Clock
from commserver.core.finals import Notice, recipients
from commserver.core.jobs import Job, Lease, LeaseId, Purpose, Recipient, RunId
from commserver.core.states import Step
from commserver.core.verdicts import Completed
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import Held, StoredRun
from commserver.dao.leases import StoredLease

ADOPT_GRACE = 60.0  # seconds after a start in which other machines may say what they still hold


class _Conflict(Exception):
    """A row said otherwise: undo the transaction."""

    def __init__(self, run: RunId) -> None:
        super().__init__(run)
        self.run = run


class DatabaseLedger:
    """The `core.dispatcher.Ledger` in the database: a change is one transaction.

    The verdict of a student's submission brings grade and log along, in the same transaction, so
    that whoever is told of it finds them.
    """

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        clock: Clock,
        *,
        tell: Sequence[Recipient] = (),
    ) -> None:
        """`tell`: who is owed the end of every run, of those as well that were there before."""
        self._tell = tuple(tell)
        self._database = database
        self._daos = daos
        self._clock = clock

    async def commit(self, change: Change) -> Sequence[Notice] | Conflict:
        """Write the change, or nothing; returns to whom the end that it brings is owed."""
        at = self._clock.utc()

        async def work(connection: AsyncConnection) -> list[Notice]:
            for write in change.writes:
                own = write.job.id == change.run
                if not await self._daos.executions.write(
                    connection,
                    write,
                    at=at,
                    outcome=change.outcome if own else None,
                    started=self._started(change, at) if own else None,
                    held=self._held(change, at) if own else None,
                ):
                    raise _Conflict(write.job.id)
            await self._write_lease(connection, change, at)
            if isinstance(change.outcome, Completed):
                await self._write_grade(connection, change.writes[0].job, change.outcome, at)
            return [
                await self._daos.notices.add(connection, recipient, change.run, at)
                for recipient in recipients(change)
            ]

        try:
            return await self._database.write(work)
        except _Conflict as conflict:
            return Conflict(conflict.run)

    def _held(self, change: Change, at: datetime) -> Held | None:
        """Return who has, or had, the run in the try that this change is about."""
        lease = change.granted or change.ended
        if lease is None or not lease.offer.runner:
            return None
        since = at - timedelta(seconds=self._clock.now() - lease.since)
        return Held(lease.offer.runner, lease.offer.engine, since)

    def _started(self, change: Change, at: datetime) -> datetime | None:
        """Return when the try that this change ends began, for a slot of ours, else None.

        That our slots begin is not written down at that moment. They begin at once: it is when they
        were given the run. One that is put back did not begin.
        """
        if change.ended is None or change.ended.offer.remote or change.step is Step.RELEASED:
            return None
        held = self._held(change, at)
        return held.leased_at if held else None

    async def restore(self, board: Board) -> list[LeaseId]:
        """Put every run that has not ended onto the board, in its old order.

        Returns the leases to `release` now: of runs that a slot of an earlier process had.
        """

        async def work(
            connection: AsyncConnection,
        ) -> tuple[list[StoredRun], list[StoredLease], int]:
            runs = await self._daos.executions.unfinished(connection)
            leases = await self._daos.leases.all(connection)
            return runs, leases, await self._daos.executions.last_entry(connection)

        runs, leases, last_entry = await self._database.read(work)
        board.start_after(last_entry)
        held = {lease.run: lease for lease in leases}
        orphans: list[LeaseId] = []
        for run in runs:
            stored = held.get(run.job.id)
            job = run.job.telling(self._tell)  # in its row with whatever is written next
            orphan = board.restore(
                job,
                run.key,
                run.state,
                tries=run.tries,
                deaths=run.deaths,
                lease=self._lease(job, stored) if stored else None,
            )
            if orphan:
                orphans.append(orphan.id)
        return orphans

    def _lease(self, job: Job, stored: StoredLease) -> Lease:
        """Return another machine's lease, which waits for it a little, its end permitting."""
        now = self._clock.now()
        left = ADOPT_GRACE
        if stored.until is not None:
            left = min(left, (stored.until - self._clock.utc()).total_seconds())
        return Lease(stored.id, job, stored.offer, now + left)

    async def _write_lease(self, connection: AsyncConnection, change: Change, at: datetime) -> None:
        """Keep the leases of other machines; those of our own slots die with this process."""
        ended, granted = change.ended, change.granted
        if ended and ended.offer.remote:
            await self._daos.leases.remove(connection, ended.id)
        if granted and granted.offer.remote:
            until = None
            if granted.until is not None:
                until = at + timedelta(seconds=granted.until - self._clock.now())
            if change.step is Step.EXTENDED:
                await self._daos.leases.extend(connection, granted.id, until)
            else:
                await self._daos.leases.add(connection, granted, until=until, at=at)

    async def _write_grade(
        self, connection: AsyncConnection, job: Job, outcome: Completed, at: datetime
    ) -> None:
        if job.attempt is None or job.purpose is not Purpose.SUBMIT:
            return
        at_ms = int(at.timestamp() * 1000)
        verdict = outcome.verdict
        await self._daos.grades.add(connection, job.attempt, verdict.grade, at_ms)
        await self._daos.attempt_logs.add(connection, job.attempt, verdict.log, at_ms)
