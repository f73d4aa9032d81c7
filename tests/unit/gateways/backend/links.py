"""A link to a backend that is nowhere: what is said on it stays in memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commserver.core.bus import EventBus
from commserver.core.clock import Clock
from commserver.core.events import RunEnded
from commserver.core.finals import Final, Notice, backend
from commserver.core.jobs import AttemptId, Recipient, RunId
from commserver.core.states import State
from commserver.core.verdicts import Failure, Judged
from commserver.gateways.backend.link import Link
from commserver.gateways.backend.protocol import BackendProtocol
from commserver.gateways.framing import LineFraming
from tests.fakes import FakeClock, FakeLedger, make_final, make_job
from tests.unit.gateways.services import FakeFinalsService, RecordingExecService

TOKEN = "SERVER_TOKEN"
SCHOOL = backend("school")


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; `block` makes it a peer that does not read."""

    def __init__(self, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self.written = bytearray()
        self.finished = False
        self.aborted = False
        self._protocol = protocol
        self._closing = False
        self._blocked = False
        protocol.connection_made(self)

    @property
    def packets(self) -> list[dict[str, str]]:
        """What was said, one packet a line."""
        return [json.loads(line) for line in self.written.splitlines()]

    def block(self) -> None:
        self._blocked = True
        self._protocol.pause_writing()

    def unblock(self) -> None:
        self._blocked = False
        self._protocol.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.finished
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.finished = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self._blocked else 0

    def close(self) -> None:
        if not self._closing and not self._blocked:
            self.abort()

    def abort(self) -> None:
        if not self.aborted:
            self._closing = self.aborted = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


class FedFinals(FakeFinalsService):
    """Owes what it is told to, and feeds it as the real service does.

    noted: what it was told had left.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.ledger = FakeLedger()
        super().__init__(self.ledger)
        self.noted: list[int] = []
        self._clock = clock or FakeClock()
        self._bus = EventBus()
        self._feeds: dict[Recipient, set[asyncio.Event]] = {}
        self._bus.subscribe(self._heard, RunEnded)

    def pushed(self, recipient: Recipient, seq: int) -> None:
        self.noted.append(seq)

    def owe(
        self,
        run: str,
        attempt: int,
        *,
        state: State = State.DONE,
        ending: Judged | Failure | None = None,
        to: Recipient = SCHOOL,
    ) -> Final:
        """Owe a final more: an accepted one unless it is told otherwise."""
        series = self.ledger.finals.setdefault(to, [])
        final = make_final(len(series) + 1, run, attempt=attempt, state=state, ending=ending)
        series.append(final)
        self._bus.publish(RunEnded(make_job(run), state, None, (Notice(to, final.seq),)))
        return final

    def owe_at_once(self, run: RunId, attempt: AttemptId) -> None:
        """End a run before whoever asked for it knows that it is there."""
        self.owe(run, attempt)


@asynccontextmanager
async def linked(
    execs: RecordingExecService, finals: FedFinals, clock: FakeClock
) -> AsyncIterator[tuple[Link, MemoryTransport]]:
    """Yield a link named "school" and its wire."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = MemoryTransport(protocol)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    link = Link(
        "school",
        BackendProtocol(TOKEN, LineFraming(1024)),
        writer,
        execs,
        finals,
        clock,
    )
    yield link, transport
    transport.abort()
