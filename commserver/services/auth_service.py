"""Who is behind a token."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from commserver.core.jobs import OwnerId
from commserver.errors import NotAuthenticated

TOKEN_LIMIT = 8 << 10  # characters; signed ones have a few hundred


@dataclass(frozen=True, slots=True)
class Identity:
    """A known user: `account` is `accounts.id`."""

    account: int

    @property
    def owner(self) -> OwnerId:
        """The account as the queue knows it."""
        return owner_of(self.account)


def owner_of(account: int) -> OwnerId:
    """Return how the queue calls a platform account."""
    return OwnerId(str(account))


def fingerprint(token: str) -> str:
    """Return what of a token is stored: its sha256 in lowercase hex, never itself."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class Verifier(Protocol):
    """One way to find out whose a token is."""

    async def identify(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            NotAuthenticated: it is nobody's, or not any more.
            StoreError, Unanswered: whoever knows did not answer; that is nobody's failure.
        """


class AuthService:
    """Says who is behind a token, asking the configured verifier."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    async def identify(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            NotAuthenticated: nobody's, expired or revoked; or longer than any token is.
            StoreError, Unanswered: whoever knows did not answer; that is nobody's failure.
        """
        if not token or len(token) > TOKEN_LIMIT:
            raise NotAuthenticated("this token is not valid")
        return await self._verifier.identify(token)
