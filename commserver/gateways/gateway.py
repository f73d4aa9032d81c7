"""What the application knows of a gateway."""

from typing import Protocol


class Gateway(Protocol):
    """One protocol's way in or out; the application gives it a task of its own."""

    name: str

    async def run(self) -> None:
        """Serve until stopped or cancelled; a peer that fails is the gateway's own affair."""

    def stop(self) -> None:
        """Take nothing new; `run` returns once what was taken is safe."""
