"""In which order things are said on one browser's socket. Sans-I/O."""

from enum import Enum, auto
from typing import Generic, TypeVar

from commserver.errors import NotAllowed, NotAuthenticated

Who = TypeVar("Who")


class Phase(Enum):
    """How far the socket is."""

    STRANGER = auto()
    """Nothing but AUTH is heard."""
    KNOWN = auto()
    """Bound to one account for good."""
    BARRED = auto()
    """Nothing is heard any more: to be closed with 1008."""


class BrowserProtocol(Generic[Who]):
    """One socket: a stranger until its first right AUTH, then bound to that account."""

    def __init__(self, failures: int) -> None:
        self._failures_left = failures
        self.phase = Phase.STRANGER
        self.identity: Who | None = None
        self.reason = ""  # why it is barred

    def known(self) -> Who:
        """Return who is behind the socket.

        Raises:
            NotAuthenticated: nobody yet.
        """
        if self.identity is None:
            raise NotAuthenticated("AUTH comes first")
        return self.identity

    def bind(self, identity: Who) -> bool:
        """Bind the socket; True the first time, False when it was bound to the same already.

        Raises:
            NotAllowed: it is bound to another, and stays so.
        """
        if self.identity is None:
            self.identity, self.phase = identity, Phase.KNOWN
            return True
        if self.identity != identity:
            raise NotAllowed("this connection belongs to another account")
        return False

    def failed(self) -> None:
        """Count a failure to prove who one is; too many bar a stranger."""
        self._failures_left -= 1
        if self._failures_left <= 0 and self.phase is Phase.STRANGER:
            self.bar("too many failures")

    def bar(self, reason: str) -> None:
        """Hear nothing any more from whoever is behind it."""
        self.phase = Phase.BARRED
        self.reason = self.reason or reason
