"""Ports at which a whole exam room may knock at once, more than can be let in."""

import asyncio
import errno
from collections.abc import Iterable
from contextlib import closing
from typing import Any, Protocol

import structlog

from commserver.core.clock import Clock

log = structlog.get_logger(__name__)

BACKLOG = 4096  # who may have knocked and not been let in yet
# Who is let in at one turn of the loop. asyncio takes one number for both, and where descriptors
# are missing it fails as often at once, and each failure makes as many more a second later.
ACCEPTS = 1
SPARE = 32  # connections above the limit that are told that they are too many; further ones are not
QUIET = 60.0  # seconds in which it is said once that there are no descriptors

_NONE_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listening(Protocol):
    """A socket as asyncio shows it."""

    def dup(self) -> Any:
        """Return another descriptor of the same socket."""


def deepen(sockets: Iterable[Listening]) -> None:
    """Let `BACKLOG` peers wait at each of these sockets, which listen already."""
    for one in sockets:
        with closing(one.dup()) as again:
            again.listen(BACKLOG)


class NoDescriptors:
    """An exception handler of a loop: an accept that fails for want of descriptors is one line.

    asyncio tries again after a second, and would log a traceback for each try until then.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        none_left = isinstance(error, OSError) and error.errno in _NONE_LEFT
        if not (none_left and "socket" in context):
            loop.default_exception_handler(context)
            return
        now = self._clock.now()
        if self._said is None or now - self._said >= QUIET:
            self._said = now
            log.warning("cannot_accept", error=str(error), set="LimitNOFILE= or ulimit -n")
