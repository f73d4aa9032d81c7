"""Files by the hash of what is in them."""

import asyncio
import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from commserver.core.jobs import ContentHash, content_hash
from commserver.errors import NotFound, StoreError

SHARDS = "0123456789abcdef"  # what names begin with: a store is looked through in parts
LOCK_TIMEOUT = 10.0  # seconds to wait for whoever puts or removes
LOCK_PERIOD = 0.005  # seconds between two looks at the lock


class FileStore:
    """Keeps bytes under their sha256, two levels of folders deep.

    A file is written beside its place, flushed to the disk, then renamed: it is there whole or not
    at all, also after a power cut. What is read is compared with its name.

    A put of what is there makes it young again, and only what is old is ever removed, under a lock
    that no put holds meanwhile, in whatever process: nobody loses what they have just put.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, content: bytes) -> ContentHash:
        """Keep `content` and return its name; what is there already costs a look.

        Raises:
            StoreError: the disk did not take it.
        """
        return await asyncio.to_thread(self._put, content)

    async def get(self, name: ContentHash) -> bytes:
        """Return what `put` was given.

        Raises:
            NotFound: there is nothing of this name.
            StoreError: it cannot be read, or is not what its name says.
        """
        return await asyncio.to_thread(self._get, name)

    async def has(self, name: ContentHash) -> bool:
        """Return whether there is a file of this name, be it whole or not."""
        return await asyncio.to_thread(self._path(name).is_file)

    async def collect(self, shard: str, kept: Collection[str], *, before: datetime) -> int:
        """Remove what nobody needs of the names that begin with `shard`; returns how many files.

        That is what was last put before this moment and is none of `kept`, and what a process was
        writing before it that did not live to end it.

        Raises:
            StoreError: the disk did not let us; what was removed until then is removed.
        """
        return await asyncio.to_thread(self._collect, shard, kept, before.timestamp())

    async def remove(self, name: ContentHash, *, before: datetime | None = None) -> bool:
        """Remove a file that was last put before this moment; False when there is none so old.

        Raises:
            StoreError: the disk did not let us.
        """
        oldest = float("inf") if before is None else before.timestamp()
        return await asyncio.to_thread(self._remove, self._path(name), oldest)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:4] / name

    def _put(self, content: bytes) -> ContentHash:
        name = content_hash(content)
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(fcntl.LOCK_SH):
                if _holds(path, content):
                    os.utime(path)
                else:
                    self._write(path, content)
        except OSError as error:
            raise StoreError(f"cannot store a file: {error}") from error
        return name

    def _write(self, path: Path, content: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # whatever it was, nothing half-written stays
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        for folder in path.parents[:4]:  # up to the one that has the store's own entry
            flush_folder(folder)

    def _get(self, name: ContentHash) -> bytes:
        try:
            content = self._path(name).read_bytes()
        except FileNotFoundError as error:
            raise NotFound("file", name) from error
        except OSError as error:
            raise StoreError(f"cannot read a file: {error}") from error
        if content_hash(content) != name:
            raise StoreError(f"the file {name} is not what its name says")
        return content

    def _collect(self, shard: str, kept: Collection[str], before: float) -> int:
        try:
            paths = self._folder.glob(f"{shard}*/*/*")
            return sum(self._remove(path, before) for path in paths if path.name not in kept)
        except OSError as error:
            raise StoreError(f"cannot look through the stored files: {error}") from error

    def _remove(self, path: Path, before: float) -> bool:
        try:
            if not _older(path, before):
                return False
            with self._locked(fcntl.LOCK_EX):
                if not _older(path, before):  # somebody has put it since
                    return False
                path.unlink()
        except OSError as error:
            raise StoreError(f"cannot remove a file: {error}") from error
        return True

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the store's lock: any number may put at once, or one may remove."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + LOCK_TIMEOUT
            while not _lock(descriptor, kind):
                if time.monotonic() >= deadline:
                    raise StoreError(f"another process does not let go of {self._folder}")
                time.sleep(LOCK_PERIOD)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holds(path: Path, content: bytes) -> bool:
    """Return whether the file is there and whole; what a disk has damaged is written again."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _older(path: Path, before: float) -> bool:
    """Return whether this is a file that was last put before `before`, seconds since 1970."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < before


def flush_folder(folder: Path) -> None:
    """Make a rename in it outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
