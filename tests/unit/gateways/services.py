"""What stands in for the services behind the two links."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from typing import TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.board import Board
from commserver.core.clock import Clock
from commserver.core.dispatcher import Dispatcher, Submitted
from commserver.core.finals import Final, account
from commserver.core.jobs import AttemptId, Origin, OwnerId, Recipient, RunId
from commserver.core.states import State
from commserver.dao.announcements import AnnouncementDAO, StoredAnnouncement
from commserver.dao.attempts import Attempt
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import NotAllowed, NotAuthenticated, NotFound
from commserver.services.announcement_service import AnnouncementService
from commserver.services.auth_service import AuthService, Identity
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import AT_ONCE, FinalsService, Owed
from commserver.services.record_service import RecordService
from tests.fakes import FakeLedger

T = TypeVar("T")
ENDS = (State.DONE, State.FAILED, State.CANCELLED)  # those that a student has a final for


class RecordingExecService(ExecService):
    """Takes every attempt and runs none.

    submitted: what was taken, in order. asked: how often it was asked, refusals included.
    open: clear it to have submissions hang. alone: whether what fails does so
    while the database gives others. told: to whom the end of each attempt's run is owed.
    missing: attempts that are not there yet; `find` or `miss` says how that ends. looking: those of
    them that are looked for again. taken: called with each run before its submission returns.
    places: where runs wait.
    """

    def __init__(self) -> None:
        self.submitted: list[tuple[AttemptId, Origin]] = []
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.alone = False
        self.told: dict[AttemptId, tuple[Recipient, ...]] = {}
        self.missing: dict[AttemptId, asyncio.Future[bool]] = {}
        self.looking: list[AttemptId] = []
        self.taken: Callable[[RunId, AttemptId], None] = lambda run, attempt: None
        self.places: dict[RunId, int] = {}
        self._faults: deque[Exception] = deque()
        self._moved = asyncio.Event()

    @property
    def attempts(self) -> list[AttemptId]:
        """The attempts that were taken, in order."""
        return [attempt for attempt, _ in self.submitted]

    def fail(self, error: Exception, times: int = 1) -> None:
        """Let the next submissions end with an error; nothing is taken."""
        self._faults.extend([error] * times)

    def recover(self) -> None:
        """Let nothing fail any more."""
        self._faults.clear()

    async def submit(
        self,
        attempt: AttemptId,
        origin: Origin,
        tell: Sequence[Recipient] = (),
        *,
        patient: bool = False,
        meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Submitted:
        self.asked += 1
        self._moved.set()
        await self.open.wait()
        if self._faults:
            raise self._faults.popleft()
        if attempt in self.missing and patient:
            self.looking.append(attempt)
            self._moved.set()
            with meanwhile():
                found = await self.missing[attempt]
            if not found:
                raise NotFound("attempt", str(attempt))
        run = RunId(f"run-{attempt}")
        self.submitted.append((attempt, origin))
        self.told[attempt] = tuple(tell)
        self.taken(run, attempt)
        self._moved.set()
        await asyncio.sleep(0)  # others hear of it first
        return Submitted(run, new=True)

    def place(self, run: RunId) -> int:
        return self.places.get(run, 0)

    def lose(self, *attempts: int) -> None:
        """Let these not be there until `find` or `miss`."""
        for attempt in attempts:
            self.missing[AttemptId(attempt)] = asyncio.get_running_loop().create_future()

    def find(self, attempt: int) -> None:
        """Let it be there at the next look."""
        self.missing[AttemptId(attempt)].set_result(True)

    def miss(self, attempt: int) -> None:
        """Let the last look at it be in vain."""
        self.missing[AttemptId(attempt)].set_result(False)

    async def until_looking(self, count: int) -> None:
        """Wait until so many are looked for again."""
        await _until(self._moved, lambda: len(self.looking) >= count)

    async def fails_alone(self, attempt: AttemptId) -> bool:
        return self.alone

    async def until_taken(self, count: int) -> list[AttemptId]:
        """Wait until `count` attempts were taken; returns all that were."""
        await _until(self._moved, lambda: len(self.submitted) >= count)
        return self.attempts

    async def until_asked(self, count: int) -> None:
        """Wait until somebody tried `count` times, in vain or not."""
        await _until(self._moved, lambda: self.asked >= count)


class FakeAuthService(AuthService):
    """Knows some tokens.

    fault: raised instead of an answer, such as StoreError while the database is away.
    open: clear it to have the verifier hang, for `held` alone where that names a token.
    delay: seconds that each answer takes.
    """

    def __init__(self, accounts: Mapping[str, int]) -> None:
        self._accounts = dict(accounts)
        self.held = ""
        self.delay = 0.0
        self.fault: Exception | None = None
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self._moved = asyncio.Event()

    def learn(self, token: str, account: int) -> None:
        """Let a token be an account's."""
        self._accounts[token] = account

    def forget(self, token: str) -> None:
        """Let a token be nobody's any more."""
        del self._accounts[token]

    async def identify(self, token: str) -> Identity:
        self.asked += 1
        self._moved.set()
        if self.held in ("", token):
            await self.open.wait()
        await asyncio.sleep(self.delay)
        if self.fault:
            raise self.fault
        if token not in self._accounts:
            raise NotAuthenticated("this token is not valid")
        return Identity(self._accounts[token])

    async def until_asked(self, count: int) -> None:
        """Wait until it was asked `count` times, answered or not."""
        await _until(self._moved, lambda: self.asked >= count)


class QueueExecService(ExecService):
    """Ends runs of the queue, and takes none."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher


class FakeRecordService(RecordService):
    """Knows the attempts of the queue's rows in memory, and those it is told of.

    attempts: others, with their owners. fault: raised instead of an answer. open: clear it to have
    reads hang.
    """

    def __init__(self, ledger: FakeLedger, board: Board) -> None:
        self._ledger = ledger
        self._board = board
        self.attempts: dict[AttemptId, OwnerId] = {}
        self.fault: Exception | None = None
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self._moved = asyncio.Event()

    async def owned(self, attempt: AttemptId, owner: OwnerId) -> Attempt:
        await self._read()
        owners = [row.job.owner for row in self._ledger.rows.values() if row.job.attempt == attempt]
        found = self.attempts.get(attempt) or (owners and owners[0])
        if not found:
            raise NotFound("attempt", str(attempt))
        if found != owner:
            raise NotAllowed("this attempt is somebody else's", "attempt", str(attempt))
        return Attempt(attempt, int(owner), 1, 1, "python", 20)

    async def last_final(self, attempt: AttemptId, owner: OwnerId) -> Final | None:
        await self._read()
        ended = [
            row
            for row in self._ledger.rows.values()
            if row.job.attempt == attempt and row.state in ENDS
        ]
        if not ended:
            return None
        newest = max(ended, key=lambda row: row.key.entry)
        for final in self._ledger.finals.get(account(owner), []):
            if final.run == newest.job.id:
                return final
        return Final(newest.job.id, attempt, newest.state, None, 0)

    async def _read(self) -> None:
        await asyncio.sleep(0)  # as any read gives others a turn
        self.asked += 1
        self._moved.set()
        await self.open.wait()
        if self.fault:
            raise self.fault

    async def until_asked(self, count: int) -> None:
        """Wait until it was asked `count` times, answered or not."""
        await _until(self._moved, lambda: self.asked >= count)


class MemoryDatabase(DatabaseManager):
    """Gives each transaction no connection, for data access objects that need none.

    fault: raised instead of each transaction. gate: clear it to have them hang.
    """

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        deadline: float | None = None,
    ) -> T:
        self.reads += 1
        return await self.write(work)

    async def write(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        deadline: float | None = None,
    ) -> T:
        await self.gate.wait()
        if self.fault:
            raise self.fault
        return await work(cast("AsyncConnection", None))


class MemoryAnnouncementDAO(AnnouncementDAO):
    """Announcements in memory."""

    def __init__(self) -> None:
        self.rows: list[StoredAnnouncement] = []

    async def newest(self, connection: AsyncConnection) -> StoredAnnouncement | None:
        return self.rows[-1] if self.rows else None

    async def add(
        self, connection: AsyncConnection, text: str, *, until: datetime | None, at: datetime
    ) -> int:
        self.rows.append(StoredAnnouncement(len(self.rows) + 1, text, until, at, None))
        return len(self.rows)

    async def withdraw(self, connection: AsyncConnection, id: int, at: datetime) -> bool:
        row = self.rows[id - 1]
        if row.withdrawn_at:
            return False
        self.rows[id - 1] = replace(row, withdrawn_at=at)
        return True


def memory_announcements(database: MemoryDatabase, clock: Clock) -> AnnouncementService:
    """Return the real service, with its rows in memory."""
    daos = DaoManager()
    daos.announcements = MemoryAnnouncementDAO()
    return AnnouncementService(database, daos, clock)


class FakeFinalsService(FinalsService):
    """Owes what the rows in memory say.

    fault: raised instead of an answer. open: clear it to have reads hang.
    read: the `after` of each read, in order. refused: how many receipts it did not take.
    left: what was noted as pushed, in order.
    """

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.fault: Exception | None = None
        self.read: list[int] = []
        self.refused = 0
        self.left: list[tuple[Recipient, int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._moved = asyncio.Event()

    async def owed(self, recipient: Recipient, after: int, since: int | None = None) -> Owed:
        self.read.append(after)
        self._moved.set()
        await self.open.wait()
        if self.fault:
            raise self.fault
        series = self._ledger.finals.get(recipient, [])
        delivered = self._ledger.delivered.get(recipient, 0)
        wanted = delivered if since is None else min(delivered, since)
        finals = [final for final in series if final.seq > max(after, wanted)]
        return Owed(finals[:AT_ONCE], len(series), more=len(finals) > AT_ONCE)

    def pushed(self, recipient: Recipient, seq: int) -> None:
        self.left.append((recipient, seq))

    async def acknowledge(self, recipient: Recipient, seq: int) -> None:
        if self.fault:
            self.refused += 1
            raise self.fault
        known = len(self._ledger.finals.get(recipient, []))
        before = self._ledger.delivered.get(recipient, 0)
        self._ledger.delivered[recipient] = max(before, min(seq, known))
        self._moved.set()

    async def until_read(self, count: int) -> None:
        """Wait until it was asked for finals `count` times, answered or not."""
        await _until(self._moved, lambda: len(self.read) >= count)

    async def until_delivered(self, recipient: Recipient, seq: int) -> None:
        """Wait until the finals up to `seq` have a receipt."""
        await _until(self._moved, lambda: self._ledger.delivered.get(recipient, 0) >= seq)


async def _until(moved: asyncio.Event, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            moved.clear()
            await moved.wait()
