"""Tokens that the platform's backends keep: they are asked over their links."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from commserver.core.clock import Clock
from commserver.dao.column_types import is_id
from commserver.errors import NotAuthenticated, Unanswered
from commserver.services.auth_service import Identity, fingerprint

log = structlog.get_logger(__name__)

KEPT = 600.0  # seconds for which an answer that names somebody is believed
KEPT_LIMIT = 20_000  # such answers; the oldest goes first
AGAIN = 0.25  # seconds until a backend is asked once more whose link is down


class TokenAsker(Protocol):
    """One backend that can be asked."""

    @property
    def name(self) -> str:
        """What the backend is called in the configuration."""

    async def authenticate(self, token: str) -> int | None:
        """Return the account whose token this is, None where the backend knows nobody.

        Raises:
            Unanswered: its link is down, or went down meanwhile.
        """


class _Known(NamedTuple):
    identity: Identity
    until: float  # monotonic seconds


@dataclass(slots=True)
class _Question:
    """What all who show the same token wait for; None when it is nobody's."""

    answer: asyncio.Task[Identity | None]
    waiting: int = 0


class BackendVerifier:
    """Asks every backend at once; the first that names an account is believed.

    An answer that names nobody is never kept. Only hashes of tokens are.

    timeout: seconds within which somebody has to answer.
    """

    def __init__(self, askers: Sequence[TokenAsker], clock: Clock, *, timeout: float) -> None:
        self._askers = askers
        self._clock = clock
        self._timeout = timeout
        self._known: dict[str, _Known] = {}  # the oldest first
        self._questions: dict[str, _Question] = {}

    async def identify(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            NotAuthenticated: every backend says that it knows nobody.
            Unanswered: none names anybody, and one at least did not answer in time.
        """
        hashed = fingerprint(token)
        known = self._known.get(hashed)
        if known and self._clock.now() < known.until:
            return known.identity
        identity = await self._answered(hashed, token)
        if identity is None:
            raise NotAuthenticated("this token is not valid")
        return identity

    async def _answered(self, hashed: str, token: str) -> Identity | None:
        """Wait for the one question about this token; the last who goes away ends it."""
        question = self._questions.get(hashed)
        if question is None:
            question = _Question(asyncio.create_task(self._asked(hashed, token)))
            self._questions[hashed] = question
        question.waiting += 1
        try:
            await asyncio.wait({question.answer})
        finally:
            question.waiting -= 1
            over = question.answer.done()
            if (over or not question.waiting) and self._questions.get(hashed) is question:
                del self._questions[hashed]
            if not question.waiting and not over:
                question.answer.cancel()
        return question.answer.result()

    async def _asked(self, hashed: str, token: str) -> Identity | None:
        """Ask them all, and keep the answer that names somebody."""
        account = await self._first(token)
        if account is None:
            return None
        identity = Identity(account)
        self._known.pop(hashed, None)
        self._known[hashed] = _Known(identity, self._clock.now() + KEPT)
        if len(self._known) > KEPT_LIMIT:
            del self._known[next(iter(self._known))]
        return identity

    async def _first(self, token: str) -> int | None:
        """Return the first account that is named, None when all know nobody."""
        asked = {asyncio.create_task(self._ask(asker, token)) for asker in self._askers}
        until = self._clock.now() + self._timeout
        late = asyncio.create_task(self._clock.wait(asyncio.Event(), until))
        pending = set(asked)
        try:
            while pending:
                done, _ = await asyncio.wait({*pending, late}, return_when=asyncio.FIRST_COMPLETED)
                accounts = [task.result() for task in pending & done]
                pending -= done
                for account in accounts:
                    if account is not None:
                        return account
                if late in done and pending:
                    raise Unanswered("no backend said in time whose token this is")
        finally:
            for task in (*asked, late):
                task.cancel()
            await asyncio.wait({*asked, late})
        return None

    async def _ask(self, asker: TokenAsker, token: str) -> int | None:
        """Ask one backend, again while its link is down: it may come up in time."""
        while True:
            try:
                account = await asker.authenticate(token)
            except Unanswered:
                await self._clock.wait(asyncio.Event(), self._clock.now() + AGAIN)
            else:
                break
        if account is not None and not is_id(account):
            log.warning("no_such_account_id", backend=asker.name)
            return None
        return account
