"""One connection to a backend, as its actions see it."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import structlog

from commserver.core.clock import Clock
from commserver.core.finals import Final, backend
from commserver.core.jobs import AttemptId, RunId
from commserver.errors import Unanswered, UnexpectedPacket
from commserver.gateways.backend.packets import Accepted, AuthenticateClient, Exercise, Sent
from commserver.gateways.backend.protocol import BackendProtocol, Phase
from commserver.services.exec_service import ExecService
from commserver.services.finals_service import FinalsService

log = structlog.get_logger(__name__)

SEND_TIMEOUT = 10.0  # seconds for a backend to read what it is sent
BACKLOG = 1 << 20  # bytes it may have left unread when it is asked whose a token is
QUESTIONS = 1_000  # tokens that are asked about at once
REASONS = 20  # kinds of frames that are ignored with a line in the log, a link
PENDING = 10_000  # EXERCISEs that were read and wait for those before them; 3 MB or so
HOLD = 3.0  # seconds a final waits for an ACCEPTED at most


class Link:
    """What is said on one connection, and what waits for its other side.

    unreadable: frames that were ignored. cut: why we hung up in the middle, "" unless we did.
    welcome: set once the backend took us. finished: set once we say nothing more.
    said_at: the clock's seconds when we last said something. told: the last final that was told.
    exercises: what was read and is to be taken, None at its end.
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
        self.finished = asyncio.Event()
        self.said_at = clock.now()
        self.told = 0
        self.exercises: asyncio.Queue[Exercise | None] = asyncio.Queue(PENDING)
        self._writer = writer
        self._clock = clock
        self._deserted = False  # the backend says nothing more
        self._reasons: set[str] = set()
        self._holds: dict[AttemptId, set[asyncio.Event]] = {}
        self._overtaken: set[RunId] = set()
        self._acked = 0
        self._acking = False
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
        if self.finished.is_set() or self._writer.is_closing():
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
        self.finished.set()
        if self._writer.can_write_eof() and not self._writer.is_closing():
            try:
                self._writer.write_eof()
            except OSError:  # it is down already
                return

    async def close(self, patience: float) -> None:
        """Hang up, after what was said has left or `patience` seconds. Once is enough."""
        self.finished.set()
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

    async def acknowledge(self, seq: int) -> None:
        """Owe nothing up to `seq`. One write at a time: whoever comes meanwhile leaves it to that.

        Raises:
            StoreError: it could not be noted, so it will be told again.
        """
        self._acked = max(self._acked, seq)
        if self._acking:
            return
        self._acking = True
        noted = -1
        try:
            while noted < self._acked:
                noted = self._acked
                await self.finals.acknowledge(self.recipient, noted)
        finally:
            self._acking = False

    # -- ACCEPTED before its final ----------------------------------------------------------------

    @contextmanager
    def accepting(self, attempt: AttemptId) -> Iterator[None]:
        """Hold the attempt's finals back: the ACCEPTED of its run may be still to be said."""
        said = asyncio.Event()
        holds = self._holds.setdefault(attempt, set())
        holds.add(said)
        try:
            yield
        finally:
            said.set()
            holds.discard(said)
            if not holds:
                del self._holds[attempt]
            if not self._holds:
                self._overtaken.clear()

    async def accepted(self, final: Final) -> None:
        """Wait until a final may be said: its ACCEPTED has been, or is late.

        What is asked for from now on is asked of another run.
        """
        if final.attempt is None:
            return
        due = self._clock.now() + HOLD
        for said in list(self._holds.get(final.attempt, ())):
            await self._clock.wait(said, due)
            if not said.is_set():
                log.warning("accepted_late", id=final.attempt, run=final.run)
                self._overtaken.add(final.run)

    async def accept(self, packet: Accepted) -> None:
        """Say that a run stands for an EXERCISE; nothing if its end has been said first."""
        if packet.run not in self._overtaken:
            await self.send(packet)

    # -- whose tokens are -------------------------------------------------------------------------

    async def ask(self, number: str, token: str) -> int | None:
        """Return whose a token is, None when the backend does not know it.

        Raises:
            Unanswered: the link is down, goes down, or has too much to do.
        """
        over = self.finished.is_set() or self._deserted or self.protocol.phase is Phase.REFUSED
        if over or len(self._questions) >= QUESTIONS:
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
    _hold: ExitStack = field(default_factory=ExitStack)

    def hold(self, attempt: AttemptId) -> None:
        """Hold the attempt's finals back from now on, if its sender wants to hear of it."""
        if self.asked is not None:
            self._hold.enter_context(self.link.accepting(attempt))

    def release(self) -> None:
        """Hold nothing back any more."""
        self._hold.close()

    @contextmanager
    def resting(self, attempt: AttemptId) -> Iterator[None]:
        """Hold nothing back meanwhile: there is no run yet."""
        self.release()
        try:
            yield
        finally:
            self.hold(attempt)

    @contextmanager
    def stepping_aside(self, attempt: AttemptId) -> Iterator[None]:
        """Do the same, and let the frames behind this one pass."""
        self.aside.set()
        with self.resting(attempt):
            yield
