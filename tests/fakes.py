"""What stands in for the world in tests: a clock driven by hand, rows in memory, jobs and offers.

`FakeLedger` keeps the promises of a real one (compare-and-set, all of a change or nothing, at most
one waiting row for an attempt and purpose), so that a board that breaks a promise is caught here.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from commserver.core.board import Board
from commserver.core.changes import Change, Conflict, Write
from commserver.core.finals import Final, Notice, ending, recipients
from commserver.core.jobs import (
    AttemptId,
    ContentHash,
    Job,
    Lease,
    Offer,
    Origin,
    OwnerId,
    Priority,
    Purpose,
    Recipient,
    Requirement,
    RunId,
    SortKey,
    Value,
    normalised,
)
from commserver.core.states import ACTIVE, State
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Judged, Status, Verdict
from commserver.errors import AlreadyExists, StoreError

# -- time -----------------------------------------------------------------------------------------


class FakeClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now: float = 0.0, utc: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._utc = utc
        self._alarms: dict[asyncio.Timeout, float] = {}

    def now(self) -> float:
        """Return monotonic seconds, `now` of the constructor plus what was advanced."""
        return self._now

    def utc(self) -> datetime:
        """Return the wall clock, which moves with `advance`."""
        return self._utc

    def advance(self, seconds: float) -> None:
        """Let time pass at once; whoever waited for it goes on when the loop next turns."""
        self._now += seconds
        self._utc += timedelta(seconds=seconds)
        for alarm, until in list(self._alarms.items()):
            if until <= self._now:
                del self._alarms[alarm]
                alarm.reschedule(0.0)  # long past on any loop's clock

    @property
    def alarms(self) -> list[float]:
        """The moments that somebody waits for, earliest first."""
        return sorted(self._alarms.values())

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        """Return when `event` is set or time was advanced to `until`."""
        due = until is not None and until <= self._now
        try:
            async with asyncio.timeout(0.0 if due else None) as alarm:
                if until is not None and not due:
                    self._alarms[alarm] = until
                try:
                    await event.wait()
                finally:
                    self._alarms.pop(alarm, None)
        except TimeoutError:
            return


async def settle(turns: int = 30) -> None:
    """Let every task go as far as it can without time or outside help."""
    for _ in range(turns):
        await asyncio.sleep(0)


# -- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `executions`, as far as the queue is concerned."""

    job: Job
    state: State
    tries: int
    deaths: int
    key: SortKey


class HeldCommit:
    """A commit that hangs until a test decides how it goes."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self._gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go(self) -> None:
        """Let it reach the rows."""
        if not self._gate.done():
            self._gate.set_result(None)

    def fail(self, error: Exception | None = None) -> None:
        """Let it end with an error; nothing is written."""
        if not self._gate.done():
            self._gate.set_exception(error or StoreError("told to fail"))

    async def wait(self) -> None:
        await self._gate


class FakeLedger:
    """Rows in memory. `rows` and `leases` are what a restart would find.

    leases: those of other processes, by run, as they were last committed.
    finals: what was ever owed to each recipient, in order; `delivered` of them are no more.
    committed: every change that was written, in order.
    held: commits that hang now, oldest first.
    """

    def __init__(self) -> None:
        self.rows: dict[RunId, Row] = {}
        self.leases: dict[RunId, Lease] = {}
        self.finals: dict[Recipient, list[Final]] = {}
        self.delivered: dict[Recipient, int] = {}
        self.committed: list[Change] = []
        self.held: list[HeldCommit] = []
        self._hanging = False
        self._errors: list[Exception] = []

    # -- what a test tells it ---------------------------------------------------------------------

    def fail(self, times: int = 1, error: Exception | None = None) -> None:
        """Let the next commits end with an error; nothing is written."""
        self._errors += [error or StoreError("told to fail")] * times

    def recover(self) -> None:
        """Let no commit fail any more."""
        self._errors.clear()

    def hang(self) -> None:
        """Hold every later commit back until `resume` or until it is told by itself."""
        self._hanging = True

    def resume(self) -> None:
        """Let go what hangs, and hold nothing back any more."""
        self._hanging = False
        for held in list(self.held):
            held.go()

    def change_elsewhere(self, run: RunId, state: State = State.CANCELLED) -> None:
        """Let a stranger change a row behind our back."""
        self.rows[run] = replace(self.rows[run], state=state)
        self.leases.pop(run, None)

    # -- what the core asks of it -----------------------------------------------------------------

    async def commit(self, change: Change) -> Sequence[Notice] | Conflict:
        """Write all of `change` or nothing; see `core.dispatcher.Ledger`."""
        if self._hanging:
            held = HeldCommit(change)
            self.held.append(held)
            try:
                await held.wait()
            finally:
                self.held.remove(held)
        if self._errors:
            raise self._errors.pop(0)
        conflict = self.write(change)
        return self._owe(change) if conflict is None else Conflict(conflict)

    def _owe(self, change: Change) -> list[Notice]:
        notices = []
        for recipient in recipients(change):
            series = self.finals.setdefault(recipient, [])
            job, end, seq = change.writes[0].job, ending(change.outcome), len(series) + 1
            series.append(Final(job.id, job.attempt, change.state, end, seq))
            notices.append(Notice(recipient, seq))
        return notices

    def write(self, change: Change) -> RunId | None:
        """Write at once; returns the run whose row says otherwise, None when all is written."""
        rows = dict(self.rows)
        for write in change.writes:
            if write.expected is None:
                if write.job.id in rows:
                    raise AlreadyExists(write.job.id)
            elif not _says(rows.get(write.job.id), write):
                return write.job.id
            rows[write.job.id] = Row(write.job, write.state, write.tries, write.deaths, write.key)
            _only_one_waits(rows.values())
        self.rows = rows
        if change.ended or change.state.ended:
            self.leases.pop(change.run, None)
        if change.granted and change.granted.offer.remote:
            self.leases[change.run] = change.granted
        self.committed.append(change)
        return None

    # -- what a restart finds ---------------------------------------------------------------------

    @property
    def unfinished(self) -> list[Row]:
        """The rows that a restart takes up, in the order of their stored keys."""
        rows = (row for row in self.rows.values() if not row.state.ended)
        return sorted(rows, key=lambda row: row.key)

    def restore(self, board: Board) -> list[Lease]:
        """Take every unfinished row up into a new board; returns the leases to release."""
        orphans = [
            board.restore(
                row.job,
                row.key,
                row.state,
                tries=row.tries,
                deaths=row.deaths,
                lease=self.leases.get(row.job.id) if row.state in ACTIVE else None,
            )
            for row in self.unfinished
        ]
        return [orphan for orphan in orphans if orphan]


def _says(row: Row | None, write: Write) -> bool:
    expected = (write.expected, write.expected_tries)
    return row is not None and (row.state, row.tries) == expected


def _only_one_waits(rows: Iterable[Row]) -> None:
    """Be the partial unique index: checked at each single write, not at the end."""
    seen = set()
    for row in rows:
        if row.state is State.QUEUED and row.job.attempt is not None:
            waiting = (row.job.attempt, row.job.purpose)
            if waiting in seen:
                raise AlreadyExists(f"a waiting run of {waiting}")
            seen.add(waiting)


# -- jobs, offers, outcomes -----------------------------------------------------------------------

PYTHON = normalised([Requirement("image", "=", ("python",))])
JAVA = normalised([Requirement("image", "=", ("java",))])


def make_job(
    run: str,
    *,
    attempt: int | None = None,
    content: str = "content",
    requires: Iterable[Requirement] = PYTHON,
    priority: Priority = Priority.INTERACTIVE,
    purpose: Purpose = Purpose.SUBMIT,
    owner: str = "owner",
    max_tries: int = 3,
    lease: float | None = None,
) -> Job:
    """Return a job that any runner of `make_offer` takes; without `attempt` it is a foreign one."""
    return Job(
        id=RunId(run),
        origin=Origin("backend", "test", run),
        owner=OwnerId(owner),
        course="course",
        content=ContentHash(content),
        requires=normalised(requires),
        attempt=None if attempt is None else AttemptId(attempt),
        purpose=purpose,
        priority=priority,
        max_tries=max_tries,
        lease=lease,
    )


def make_offer(
    runner: str = "slot",
    *,
    engine: str = "engine",
    images: Iterable[Value] = ("python", "java"),
    remote: bool = False,
) -> Offer:
    """Return what a runner brings: a slot of ours, or with `remote` another process."""
    return Offer(runner, engine, {"image": frozenset(images)}, remote)


def completed(grade: int = 10) -> Completed:
    """Return the outcome of a program that was run and judged."""
    return Completed(Verdict(Status.ACCEPTED, grade, 10))


def broken(cause: Cause = Cause.CONTAINER, *, engine_died: bool = False) -> Broken:
    """Return the outcome of a try that went wrong without the student's doing."""
    return Broken(Failure(cause, "it broke"), engine_died)


def make_final(
    seq: int = 1,
    run: str = "a",
    *,
    attempt: int | None = 1,
    state: State = State.DONE,
    ending: Judged | Failure | None = None,
) -> Final:
    """Return a final as its recipient's `seq`-th: an accepted one unless it is told otherwise."""
    if state is State.DONE and ending is None:
        ending = Judged(Status.ACCEPTED, 10, 10)
    return Final(RunId(run), None if attempt is None else AttemptId(attempt), state, ending, seq)
