"""Time, as the core is given it: the system's in the server, a hand-driven one in tests."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two times and one way to wait."""

    def now(self) -> float:
        """Return monotonic seconds: for deadlines, never stored."""

    def utc(self) -> datetime:
        """Return the wall clock: for what is stored and shown."""

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        """Return when `event` is set or `now()` has reached `until`, whichever is first."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def utc(self) -> datetime:
        """Return the present time in UTC."""
        return datetime.now(UTC)

    async def wait(self, event: asyncio.Event, until: float | None) -> None:
        """Wait on the running loop."""
        timeout = None if until is None else max(0.0, until - self.now())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
