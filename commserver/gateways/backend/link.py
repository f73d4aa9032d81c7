"""One connection to a backend, as its actions see it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from commserver.core.clock import Clock
from commserver.core.finals import backend
from commserver.core.jobs import AttemptId
from commserver.errors import Unanswered, UnexpectedPacket
from commserver.gateways.backend.packets import AuthenticateClient, Sent
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import FinalsService

log = structlog.get_logger(__name__)

SEND_TIMEOUT = 10.0  # seconds for a backend to read what it is sent
BACKLOG = 1 << 20  # bytes it may have left unread when it is asked whose a token is
QUESTIONS = 1_000  # tokens that are asked about at once
REASONS = 20  # kinds of frames that are ignored with a line in the log, a link


class Link:
    """What is said on one connection, and what waits for its other side.

    unreadable: frames that were ignored. cut: why we hung up in the middle, "" unless we did.
    welcome: set once the backend took us. said_at: the clock's seconds when we last said something.
    """

    def __init__(
        self,
        name: str,
        protocol: BackendProtocol,
        writer: asyncio.StreamWriter,
        exec_service: ExecService,
        finals: FinalsService,
        clock: Clock,
    ) -> None:
        self.name = name
        self.recipient = backend(name)
        self.protocol = protocol
        self.exec = exec_service
        self.finals = finals
        self.unreadable = 0
        self.cut = ""
        self.welcome = asyncio.Event()
        self.said_at = clock.now()
        self._writer = writer
        self._clock = clock
        self._silent = False  # we have nothing more to say
        self._deserted = False  # nor has the backend
        self._reasons: set[str] = set()
        self._accepting: Counter[AttemptId] = Counter()
        self._accepted = asyncio.Event()
        self._questions: dict[str, asyncio.Future[int | None]] = {}

    # -- what we say ------------------------------------------------------------------------------

    async def send(self, packet: Sent) -> bool:
        """Say it, and wait while the backend is slow to read; False when it cannot hear us.

        Packets leave in the order of the calls. Who reads nothing for `SEND_TIMEOUT` is cut off.
        """
        return await self.write(self.protocol.send(packet))

    async def write(self, data: bytes) -> bool:
        """Do the same with bytes."""
        self.said_at = self._clock.now()
        if self._silent or self._writer.is_closing():
            return False
        self._writer.write(data)
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._writer.drain()
        except TimeoutError:
            self.cut = f"the backend has read nothing for {SEND_TIMEOUT:g} s"
            self._writer.transport.abort()
            return False
        except OSError:  # whoever reads hears of it too
            return False
        return True

    def finish(self) -> None:
        """Say nothing more, and let the backend know where that can be said."""
        self._silent = True
        if self._writer.can_write_eof() and not self._writer.is_closing():
            try:
                self._writer.write_eof()
            except OSError:  # it is down already
                return

    async def close(self, patience: float) -> None:
        """Hang up, after what was said has left or `patience` seconds. Once is enough."""
        self._silent = True
        self.deserted()
        self._writer.close()
        try:
            async with asyncio.timeout(patience):
                await self._writer.wait_closed()
        except OSError:
            pass
        finally:
            self._writer.transport.abort()

    # -- what we hear -----------------------------------------------------------------------------

    def welcomed(self) -> None:
        """The backend takes us: it said so, or works with us."""
        self.protocol.welcomed()
        self.welcome.set()

    def ignored(self, kind: str, reason: str) -> None:
        """Count a frame that means nothing to us, and log the first of its kind."""
        self.unreadable += 1
        if kind not in self._reasons and len(self._reasons) < REASONS:
            self._reasons.add(kind)
            log.warning("frame_ignored", reason=self.protocol.masked(reason))

    def deserted(self) -> None:
        """The backend says nothing more: no question will be answered."""
        self._deserted = True
        for question in self._questions.values():
            if not question.done():
                question.set_exception(Unanswered(f"the link to {self.name} went down"))
                question.exception()  # its asker may be gone

    # -- ACCEPTED before its final ----------------------------------------------------------------

    @contextmanager
    def accepting(self, attempt: AttemptId) -> Iterator[None]:
        """Hold the attempt's finals back: the ACCEPTED of its run is still to be said."""
        self._accepting[attempt] += 1
        try:
            yield
        finally:
            self._accepting[attempt] -= 1
            if not self._accepting[attempt]:
                del self._accepting[attempt]
            self._accepted.set()

    async def accepted(self, attempt: AttemptId | None) -> None:
        """Wait until a final of this attempt may be said; for one waiter at a time."""
        while attempt in self._accepting:
            self._accepted.clear()
            await self._accepted.wait()

    # -- whose tokens are -------------------------------------------------------------------------

    async def ask(self, number: str, token: str) -> int | None:
        """Return whose a token is, None when the backend does not know it.

        Raises:
            Unanswered: the link is down, goes down, or has too much to do.
        """
        refused = self.protocol.phase is Phase.REFUSED
        if refused or self._silent or self._deserted or len(self._questions) >= QUESTIONS:
            raise Unanswered(f"{self.name} cannot be asked now")
        if self._writer.transport.get_write_buffer_size() > BACKLOG:
            raise Unanswered(f"{self.name} reads too slowly")
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            await self.send(AuthenticateClient(number, token))
            return await answer
        finally:
            del self._questions[number]

    def answer(self, number: str, account: int | None) -> None:
        """Hand an answer to whoever asked.

        Raises:
            UnexpectedPacket: nobody did, or has stopped waiting.
        """
        question = self._questions.get(number)
        if question is None or question.done():
            raise UnexpectedPacket("an answer to no question", "AUTHENTICATED_CLIENT")
        question.set_result(account)


@dataclass(slots=True)
class Turn:
    """One frame of a link, while it is acted upon.

    asked: the `id` of an EXERCISE whose sender wants to hear of it, None for anything else.
    aside: set when the frames behind it need not wait for it.
    """

    link: Link
    asked: str | None = None
    aside: asyncio.Event = field(default_factory=asyncio.Event)
