"""`commserver serve` that kills itself with SIGKILL at one point of the first run's life.

    python -m tests.end_to_end.faulty_server POINT

The points are those at which something could be lost between a backend's EXERCISE and the browser
that has its final. Nothing of it is in the server: the fault is put in from outside.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence

from websockets.asyncio.server import ServerConnection

from commserver import cli
from commserver.core.changes import Change, Conflict
from commserver.core.finals import Notice
from commserver.core.states import Step
from commserver.services.ledger import DatabaseLedger

commit = DatabaseLedger.commit
send = ServerConnection.send


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def around_commit(step: Step, *, after: bool) -> None:
    """Die when this step is about to be committed, or when it just was and nobody knows yet."""

    async def committed(self: DatabaseLedger, change: Change) -> Sequence[Notice] | Conflict:
        if change.step is step and not after:
            die()
        result = await commit(self, change)
        if change.step is step:
            die()
        return result

    DatabaseLedger.commit = committed  # type: ignore[method-assign]


def around_push(*, after: bool) -> None:
    """Die when a final is about to be sent, or when it just was and no pong can have come."""

    async def sent(self: ServerConnection, message: str, **more: bool) -> None:
        final = b"EXERCICE_EXECUTED" in bytes(message)  # type: ignore[arg-type]
        if final and not after:
            die()
        await send(self, message, **more)
        if final:
            die()

    ServerConnection.send = sent  # type: ignore[method-assign,assignment]


POINTS: dict[str, Callable[[], None]] = {
    "before commit": lambda: around_commit(Step.SUBMITTED, after=False),
    "after commit": lambda: around_commit(Step.SUBMITTED, after=True),
    "before store": lambda: around_commit(Step.COMPLETED, after=False),
    "after store": lambda: around_commit(Step.COMPLETED, after=True),
    "before push": lambda: around_push(after=False),
    "before pong": lambda: around_push(after=True),
}


def main() -> None:
    """Serve with the fault that is named."""
    POINTS[sys.argv.pop()]()
    sys.argv.append("serve")
    cli.main()


if __name__ == "__main__":
    main()
