"""`executions`: runs, from their entry to their end."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Result, Row, Text, func, select, text, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.jobs import (
    SWEEP,
    AttemptId,
    ContentHash,
    Job,
    Origin,
    OwnerId,
    Priority,
    Purpose,
    Recipient,
    Requires,
    RunId,
    SortKey,
)
from commserver.core.states import State
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Judged, Outcome, Status
from commserver.dao.column_types import is_id
from commserver.dao.dao import DAO
from commserver.dao.tables import UNFINISHED, executions, user_exercises
from commserver.dao.verdicts import VerdictRecord


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as its row has it; the board may know better where a local slot has it.

    ending: how it was judged or why it could not be, None when it was neither.
    started_at: when its latest try began; for a slot of ours when it was leased, and known once
        that try is over.
    runner, engine, leased_at: who had it last and from when, once that try is over; for runs of
        another process from its beginning.
    """

    job: Job
    key: SortKey
    state: State
    tries: int
    deaths: int
    created_at: datetime
    started_at: datetime | None = None
    runner: str = ""
    engine: str = ""
    leased_at: datetime | None = None
    ended_at: datetime | None = None
    ending: Judged | Failure | None = None


class Held(NamedTuple):
    """Who had a run in a try, and from when."""

    runner: str
    engine: str
    leased_at: datetime


_c = executions.c

# In the order in which `_stored` and `ended_by` take them, since a restart reads the first of every
# run that waits, by the hundred thousand: each column and each look-up by name counts.
_RUN = (
    *(_c.id, _c.user_exercise_id, _c.owner, _c.course, _c.gateway, _c.peer, _c.reference, _c.tell),
    *(_c.purpose, _c.content_hash, _c.requires, _c.lease, _c.priority, _c.tag, _c.entry),
    *(_c.state, _c.tries, _c.deaths, _c.max_tries, _c.created_at, _c.started_at),
)
# The verdict is left out: it is long, and hardly ever asked for.
_END = (
    *(_c.runner, _c.engine, _c.leased_at, _c.ended_at),
    *(_c.status, _c.grade, _c.grade_max, _c.failure_cause, _c.message, _c.container),
)


# Two runs share an entry number when the newer was given the older one's place.
_NEWEST = (_c.entry.desc(), _c.created_at.desc())


class ExecutionDAO(DAO):
    """Runs, from their entry to their end."""

    table = executions

    async def write(
        self,
        connection: AsyncConnection,
        write: Write,
        *,
        at: datetime,
        outcome: Outcome | None = None,
        started: datetime | None = None,
        held: Held | None = None,
    ) -> bool:
        """Make the row of a run say what `write` says; False when it did not say what it must.

        at: now. outcome: how the run ended, when it did so by a verdict or a failure.
        started: when the latest try began; where it is not given and the run becomes RUNNING, now.
        held: whose try begins or ends with it, None where it is none's.

        Raises (out of the transaction):
            AlreadyExists: the run is new and its id is not, or another run of its attempt and
                purpose waits.
        """
        assert outcome is None or write.state.ended
        job = write.job
        values = _values(write, at, outcome, started)
        if held:
            values |= held._asdict()
        if write.expected is None:
            await connection.execute(
                executions.insert().values(
                    id=job.id,
                    user_exercise_id=job.attempt,
                    account_id=_account(job),
                    purpose=job.purpose,
                    created_at=at,
                    **values,
                )
            )
            return True
        result = await connection.execute(
            executions.update()
            .where(_c.id == job.id, _c.state == write.expected, _c.tries == write.expected_tries)
            .values(**values)
        )
        return result.rowcount == 1

    async def unfinished(self, connection: AsyncConnection) -> list[StoredRun]:
        """Return every run that has not ended, in the order of their keys."""
        query = select(*_RUN).where(text(UNFINISHED)).order_by(_c.priority, _c.tag, _c.entry)
        rows: Result[*tuple[Any, ...]] = await connection.execute(query)
        return [_stored(*row) for row in rows]

    async def waiting_since(
        self, connection: AsyncConnection, besides: Collection[RunId]
    ) -> datetime | None:
        """Return when the oldest run that waits came in, None when none does.

        besides: runs that are in hand, which their rows may not say.
        """
        query = select(func.min(_c.created_at)).where(text(UNFINISHED), _c.state == State.QUEUED)
        return await self._value(connection, query.where(_c.id.not_in(besides)))

    async def ahead(self, connection: AsyncConnection, run: StoredRun) -> int:
        """Return how many runs of its lane were before a run when it came in, as rows tell it.

        Runs that were tried again, or were forgotten since, are not all seen.
        """
        at, job = run.created_at, run.job
        query = (
            select(func.count())
            .select_from(executions)
            .where(
                tuple_(_c.priority, _c.tag, _c.entry) < tuple_(*run.key),
                _c.requires == job.requires,
                _c.created_at <= at,
                _c.leased_at.is_(None) | (_c.leased_at > at),
                _c.ended_at.is_(None) | (_c.ended_at > at),
            )
        )
        return await self._value(connection, query) or 0

    async def last_entry(self, connection: AsyncConnection) -> int:
        """Return the highest entry number ever given, 0 before the first."""
        return await self._value(connection, select(func.max(_c.entry))) or 0

    async def find(self, connection: AsyncConnection, run: RunId) -> StoredRun | None:
        """Return the run, None when there is none of this id."""
        return await self._one(connection, _c.id == run)

    async def latest_of(self, connection: AsyncConnection, attempt: AttemptId) -> StoredRun | None:
        """Return the newest run of an attempt, whatever for, None when it never had one."""
        if not is_id(attempt):
            return None
        return await self._one(connection, _c.user_exercise_id == attempt)

    async def newest_submitted(
        self, connection: AsyncConnection, attempt: AttemptId
    ) -> StoredRun | None:
        """Return the run of what an attempt handed in last, None when it never had one.

        A run that gave way to a newer one is not it, whatever place it had.
        """
        return await self._one(connection, _submitted(attempt) & (_c.state != State.SUPERSEDED))

    async def waiting_of(self, connection: AsyncConnection, attempt: AttemptId) -> StoredRun | None:
        """Return the submitted run of an attempt whose row says that it waits, None for none."""
        return await self._one(connection, _submitted(attempt) & (_c.state == State.QUEUED))

    async def newest_ended(
        self, connection: AsyncConnection, attempt: AttemptId
    ) -> StoredRun | None:
        """Return the newest submitted run of an attempt that has a final, None for none."""
        if not is_id(attempt):
            return None
        ends = (State.DONE, State.FAILED, State.CANCELLED)
        return await self._one(connection, _submitted(attempt) & _c.state.in_(ends))

    async def contents_of(
        self, connection: AsyncConnection, attempt: AttemptId
    ) -> frozenset[ContentHash]:
        """Return every content that an attempt was run with, "" among them after an erasure."""
        rows = await connection.scalars(select(_c.content_hash).where(_submitted(attempt)))
        return frozenset(map(ContentHash, rows))

    async def ask(self, connection: AsyncConnection, run: RunId, origin: Origin) -> bool:
        """Let a run of the sweep that has ended be `origin`'s; False when it is somebody's."""
        result = await connection.execute(
            executions.update()
            .where(_c.id == run, _c.gateway == SWEEP)
            .values(gateway=origin.gateway, peer=origin.peer, reference=origin.reference)
        )
        return result.rowcount == 1

    async def tell(
        self, connection: AsyncConnection, run: RunId, recipients: Iterable[Recipient]
    ) -> tuple[Recipient, ...]:
        """Have a run's end told to these as well; returns those of them that it was not to be.

        The row stays locked until the transaction ends, so that the run does not end meanwhile.
        """
        # An update of nothing locks a row on both databases.
        lock = executions.update().where(_c.id == run).values(tell=_c.tell).returning(_c.tell)
        told = await connection.scalar(lock)
        if told is None:
            return ()
        known = told.split()
        new = tuple(dict.fromkeys(one for one in recipients if one not in known))
        if new:
            both = " ".join((*known, *new))
            await connection.execute(executions.update().where(_c.id == run).values(tell=both))
        return new

    async def of_attempt(
        self, connection: AsyncConnection, attempt: AttemptId, limit: int
    ) -> list[StoredRun]:
        """Return the newest `limit` runs of an attempt, whatever for, the newest first."""
        if not is_id(attempt):
            return []
        query = select(*_RUN, *_END).where(_c.user_exercise_id == attempt).order_by(*_NEWEST)
        return [_ended(row) for row in await connection.execute(query.limit(limit))]

    async def newest_of_account(
        self, connection: AsyncConnection, account: int, limit: int
    ) -> list[StoredRun]:
        """Return the newest run of each attempt of an account, `limit` at most, newest first.

        A run that gave way to a newer one is not it, whatever place it had.
        """
        if not is_id(account):
            return []
        nth = func.row_number().over(partition_by=_c.user_exercise_id, order_by=_NEWEST)
        mine = _c.account_id == account, _c.user_exercise_id.is_not(None)
        runs = select(_c.id, nth.label("nth")).where(*mine, _c.state != State.SUPERSEDED).subquery()
        newest = select(runs.c.id).where(runs.c.nth == 1)
        query = select(*_RUN, *_END).where(_c.id.in_(newest))
        query = query.order_by(_c.created_at.desc(), _c.entry.desc()).limit(limit)
        return [_ended(row) for row in await connection.execute(query)]

    async def verdict(self, connection: AsyncConnection, run: RunId) -> VerdictRecord | None:
        """Return the full record of how a run was judged, or could not be; None without one."""
        record: VerdictRecord | None = await self._value(
            connection, select(_c.verdict).where(_c.id == run)
        )
        return record

    async def records_of_exercise(
        self, connection: AsyncConnection, exercise: int, limit: int
    ) -> list[str]:
        """Return how the newest `limit` runs of an exercise were judged, as JSON, newest first.

        Each is a `VerdictRecord`, of whichever version wrote it.
        """
        attempts = select(user_exercises.c.id).where(user_exercises.c.exercise_id == exercise)
        query = (
            select(type_coerce(_c.verdict, Text))
            .where(_c.user_exercise_id.in_(attempts), _c.purpose == Purpose.SUBMIT)
            .where(_c.status.is_not(None), _c.verdict.is_not(None))
            .order_by(*_NEWEST)
            .limit(limit)
        )
        return list(await connection.scalars(query))

    async def _one(
        self, connection: AsyncConnection, condition: ColumnElement[bool]
    ) -> StoredRun | None:
        query = select(*_RUN, *_END).where(condition).order_by(*_NEWEST)
        row = await self._first(connection, query)
        return _ended(row) if row else None


def _submitted(attempt: AttemptId) -> ColumnElement[bool]:
    return (_c.user_exercise_id == attempt) & (_c.purpose == Purpose.SUBMIT)


def _account(job: Job) -> int | None:
    """Return the platform's account behind a run; foreign owners are never plain numbers."""
    return int(job.owner) if job.attempt is not None and job.owner.isdecimal() else None


def _values(
    write: Write, at: datetime, outcome: Outcome | None, started: datetime | None
) -> dict[str, object]:
    """Return every column that may change in a run's life."""
    job = write.job
    values: dict[str, object] = {
        "owner": job.owner,
        "course": job.course,
        "gateway": job.origin.gateway,
        "peer": job.origin.peer,
        "reference": job.origin.reference,
        "tell": " ".join(job.tell),
        "content_hash": job.content,
        "requires": job.requires,
        "lease": job.lease,
        "priority": write.key.priority,
        "tag": write.key.tag,
        "entry": write.key.entry,
        "state": write.state,
        "tries": write.tries,
        "deaths": write.deaths,
        "max_tries": job.max_tries,
    }
    if started is not None:
        values["started_at"] = started
    elif write.state is State.RUNNING and write.expected is not State.RUNNING:
        values["started_at"] = at
    if write.state.ended:
        values["ended_at"] = at
    match outcome:
        case Completed():
            values |= _judged(outcome)
        case Broken(failure):
            values |= _failed(failure)
    return values


def _judged(completed: Completed) -> dict[str, object]:
    verdict, report = completed.verdict, completed.report
    return {
        "status": verdict.status,
        "grade": verdict.grade,
        "grade_max": verdict.grade_max,
        "container": report.container if report else "",
        "verdict": VerdictRecord.of(completed),
    }


def _failed(failure: Failure) -> dict[str, object]:
    values: dict[str, object] = {
        "fault": failure.fault,
        "failure_cause": failure.cause,
        "message": failure.message,
        "container": failure.container,
    }
    if record := VerdictRecord.failed(failure):
        values["verdict"] = record
    return values


def _ended(row: Row[*tuple[Any, ...]]) -> StoredRun:
    """Return the run in a row of `_RUN` and `_END`."""
    runner, engine, leased_at, ended_at, *ending = row[len(_RUN) :]
    return replace(
        _stored(*row[: len(_RUN)]),
        runner=runner,
        engine=engine,
        leased_at=leased_at,
        ended_at=ended_at,
        ending=ended_by(*ending),
    )


def _stored(
    id: str,
    attempt: int | None,
    owner: str,
    course: str,
    gateway: str,
    peer: str,
    reference: str,
    tell: str,
    purpose: Purpose,
    content: str,
    requires: Requires,
    lease: float | None,
    number: int,
    tag: float,
    entry: int,
    state: State,
    tries: int,
    deaths: int,
    max_tries: int,
    created_at: datetime,
    started_at: datetime | None,
) -> StoredRun:
    priority = Priority(number)
    job = Job(
        id=RunId(id),
        origin=Origin(gateway, peer, reference),
        owner=OwnerId(owner),
        course=course,
        content=ContentHash(content),
        requires=requires,
        attempt=None if attempt is None else AttemptId(attempt),
        purpose=purpose,
        priority=priority,
        max_tries=max_tries,
        lease=lease,
        tell=tuple(map(Recipient, tell.split())),
    )
    key = SortKey(priority, tag, entry)
    return StoredRun(job, key, state, tries, deaths, created_at, started_at)


def ended_by(
    status: Status | None,
    grade: int,
    grade_max: int,
    cause: Cause | None,
    message: str,
    container: str,
) -> Judged | Failure | None:
    """Return how a run was judged or why it could not be, from these columns of its row."""
    if status is not None:
        return Judged(status, grade, grade_max)
    return None if cause is None else Failure(cause, message, container)
