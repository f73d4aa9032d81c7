"""Who is let in: tokens are looked up, and guessing them is kept slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from commserver.core.clock import Clock
from commserver.errors import NotAuthenticated, RateLimited
from commserver.gateways.limits import Failures
from commserver.gateways.proxies import neighbourhood
from commserver.services.auth_service import AuthService, Identity

log = structlog.get_logger(__name__)

WRONG_TOKENS = 20  # from one address within a minute, until it is a noisy one
WINDOW = 60.0  # seconds
AT_ONCE = 2  # tokens from one noisy address that are looked up at the same time
LONGEST_WAIT = 2.0  # seconds for such a turn; then it is looked up all the same


class TooManyWrong(RateLimited):
    """One wrong token more from a noisy address; who showed it is shown out."""


class Doorkeeper:
    """Asks whose a token is.

    An exam room is one address: whatever was wrong there before, a right token is never refused.
    From a noisy address only wrong ones are, and lookups wait for each other, so that guessing
    does not crowd everybody else out.
    """

    def __init__(self, auth: AuthService, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._wrong = Failures(WRONG_TOKENS, WINDOW)
        self._turns: dict[str, _Turns] = {}

    async def identify(self, token: str, client: str) -> Identity:
        """Return whose token this is; `client` is the address that it came from.

        Raises:
            NotAuthenticated: nobody's.
            TooManyWrong: nobody's, like too many from there.
            StoreError: the database did not answer.
            Unanswered: the verifier did not.
        """
        key = neighbourhood(client)
        async with self._turn(key):
            try:
                return await self._auth.identify(token)
            except NotAuthenticated:
                now = self._clock.now()
                noisy = self._wrong.over(key, now)
                self._wrong.count(key, now)
                if noisy:
                    raise TooManyWrong("too many wrong tokens; try again in a minute") from None
                if self._wrong.over(key, now):
                    log.warning("many_wrong_tokens", client=client, counted_by=key)
                raise

    async def again(self, token: str) -> Identity:
        """Return whose a token is that was right before; raises as `AuthService.identify` does."""
        return await self._auth.identify(token)

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        """Wait for one's turn at a noisy address; elsewhere at once."""
        if not self._wrong.over(key, self._clock.now()):
            yield
            return
        turns = self._turns.setdefault(key, _Turns())
        turns.users += 1
        got = False
        try:
            try:
                async with asyncio.timeout(LONGEST_WAIT):
                    got = await turns.free.acquire()
            except TimeoutError:
                pass
            yield
        finally:
            if got:
                turns.free.release()
            turns.users -= 1
            if not turns.users:
                del self._turns[key]


class _Turns:
    """The lookups of one noisy address."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(AT_ONCE)
        self.users = 0
