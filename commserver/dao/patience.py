"""Waiting for a database that is away, and saying so without flooding the log."""

import asyncio
import time

import structlog

log = structlog.get_logger(__name__)

FIRST, MOST = 0.05, 2.0  # seconds of pause between two tries, doubled from the one to the other
SAY_AGAIN = 30.0  # seconds between two lines that say the same


class Patience:
    """The pauses between tries of one thing, and what is logged meanwhile."""

    def __init__(self) -> None:
        self._pause = FIRST
        self._since: float | None = None
        self._said = -SAY_AGAIN

    async def wait(self, reason: Exception) -> None:
        """Say that the database is away, if it is time to, and pause."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._said >= SAY_AGAIN:
            self._said = now
            log.warning("database_is_away", reason=str(reason))
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, MOST)

    def over(self) -> None:
        """Say that it is back, if it was away."""
        if self._since is not None:
            log.info("database_is_back", seconds=round(time.monotonic() - self._since, 1))
