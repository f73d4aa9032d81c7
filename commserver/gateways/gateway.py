"""What the application knows of a gateway."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LinkState:
    """How a link to somebody else is, and `since` when; `why` it is down, "" while it is up."""

    up: bool
    since: datetime
    why: str = ""


class Gateway(Protocol):
    """One protocol's way in or out; the application gives it a task of its own."""

    name: str

    async def run(self) -> None:
        """Serve until stopped or cancelled; a peer that fails is the gateway's own affair."""

    def stop(self) -> None:
        """Say and take nothing new; `run` returns once what was taken is safe."""
