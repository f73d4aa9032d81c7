"""What stands in for the services behind the two links."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from commserver.core.dispatcher import Submitted
from commserver.core.jobs import AttemptId, Origin, RunId
from commserver.errors import NotAuthenticated
from commserver.services.auth_service import AuthService, Identity
from commserver.services.exec_service import ExecService


class RecordingExecService(ExecService):
    """Takes every attempt and runs none.

    submitted: what was taken, in order. asked: how often it was asked, refusals included.
    open: clear it to have submissions hang.
    """

    def __init__(self) -> None:
        self.submitted: list[tuple[AttemptId, Origin]] = []
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()
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

    async def submit(self, attempt: AttemptId, origin: Origin) -> Submitted:
        self.asked += 1
        self._moved.set()
        await self.open.wait()
        if self._faults:
            raise self._faults.popleft()
        self.submitted.append((attempt, origin))
        self._moved.set()
        return Submitted(RunId(f"run-{attempt}"), new=True)

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


async def _until(moved: asyncio.Event, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            moved.clear()
            await moved.wait()
