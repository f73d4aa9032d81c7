"""A lock that one process of a machine holds for as long as it lives."""

import asyncio
import fcntl
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

from commserver.errors import AlreadyManaged, StoreError


class LockFile:
    """An exclusive lock on a file that says in words who holds it.

    The kernel drops the lock when its process ends, however it ends: what a dead holder left in
    the file means nothing. The file itself stays, since removing it would let two processes lock
    two files of the same name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or say at once who has it.

        Raises:
            AlreadyManaged: somebody has it, perhaps this very process.
            StoreError: the file cannot be opened.
        """
        assert self._descriptor is None
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(descriptor, _myself())
        except BlockingIOError as error:
            holder = _read(descriptor)
            os.close(descriptor)
            raise AlreadyManaged(holder) from error
        except OSError as error:
            os.close(descriptor)
            raise StoreError(f"cannot lock {self.path}: {error.strerror}") from error
        self._descriptor = descriptor

    async def keep(self) -> None:
        """Wait until cancelled: the kernel keeps it for us."""
        await asyncio.Event().wait()

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


def _myself() -> str:
    now = datetime.now(UTC)
    return f"process {os.getpid()} on {socket.gethostname()} since {now:%Y-%m-%d %H:%M:%S} UTC"


def _write(descriptor: int, holder: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{holder}\n".encode(), 0)


def _read(descriptor: int) -> str:
    """Return who holds the lock; it may have taken it a moment ago and not have said so yet."""
    text = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
    return text or "a process that has not said its name"
