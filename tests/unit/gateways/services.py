"""What stands in for the services behind the two links."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from commserver.core.dispatcher import Submitted
from commserver.core.jobs import AttemptId, Origin, Recipient, RunId
from commserver.errors import NotAuthenticated
from commserver.services.auth_service import AuthService, Identity
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import AT_ONCE, FinalsService, Owed
from tests.fakes import FakeLedger


class RecordingExecService(ExecService):
    """Takes every attempt and runs none.

    submitted: what was taken, in order. asked: how often it was asked, refusals included.
    open: clear it to have submissions hang. alone: whether what fails does so
    while the database gives others.
    """

    def __init__(self) -> None:
        self.submitted: list[tuple[AttemptId, Origin]] = []
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self.alone = False
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
    ) -> Submitted:
        self.asked += 1
        self._moved.set()
        await self.open.wait()
        if self._faults:
            raise self._faults.popleft()
        self.submitted.append((attempt, origin))
        self._moved.set()
        return Submitted(RunId(f"run-{attempt}"), new=True)

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
    open: clear it to have the verifier hang.
    """

    def __init__(self, accounts: Mapping[str, int]) -> None:
        self._accounts = accounts
        self.fault: Exception | None = None
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
        self._moved = asyncio.Event()

    async def identify(self, token: str) -> Identity:
        self.asked += 1
        self._moved.set()
        await self.open.wait()
        if self.fault:
            raise self.fault
        if token not in self._accounts:
            raise NotAuthenticated("this token is not valid")
        return Identity(self._accounts[token])

    async def until_asked(self, count: int) -> None:
        """Wait until it was asked `count` times, answered or not."""
        await _until(self._moved, lambda: self.asked >= count)


class FakeFinalsService(FinalsService):
    """Owes what the rows in memory say.

    fault: raised instead of an answer. open: clear it to have reads hang.
    read: the `after` of each read, in order. refused: how many receipts it did not take.
    """

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self.fault: Exception | None = None
        self.read: list[int] = []
        self.refused = 0
        self.open = asyncio.Event()
        self.open.set()
        self._moved = asyncio.Event()

    async def owed(self, recipient: Recipient, after: int) -> Owed:
        self.read.append(after)
        self._moved.set()
        await self.open.wait()
        if self.fault:
            raise self.fault
        series = self._ledger.finals.get(recipient, [])
        above = max(after, self._ledger.delivered.get(recipient, 0))
        finals = [final for final in series if final.seq > above]
        return Owed(finals[:AT_ONCE], len(series), more=len(finals) > AT_ONCE)

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
