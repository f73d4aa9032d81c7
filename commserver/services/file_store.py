"""Files by the hash of what is in them."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from commserver.core.jobs import ContentHash, content_hash
from commserver.errors import NotFound, StoreError, StoreFull

SHARDS = "0123456789abcdef"  # what names begin with: a store is looked through in parts
FOLDERS = tuple(f"{number:02x}" for number in range(256))  # smaller ones: it is verified in these
LOCK_TIMEOUT = 10.0  # seconds to wait for whoever puts or removes
LOCK_PERIOD = 0.005  # seconds between two looks at the lock
BLOCK = 4096  # bytes: what a file takes is a multiple of it
DAMAGED = ".damaged"  # ends the name of a file that is not what its name says
KEEP_DAMAGED = timedelta(days=30)  # in which somebody may look what has become of it
NAME = 64  # characters of a sha256


class Used(NamedTuple):
    """What there is: bytes of whole blocks, and how many of the files were set aside as damaged."""

    size: int
    files: int
    damaged: int


class FileStore:
    """Keeps bytes under their sha256, two levels of folders deep.

    A file is written beside its place, flushed to the disk, then renamed: it is there whole or not
    at all, also after a power cut. What is read is compared with its name.

    A put of what is there makes it young again, and only what is old is ever removed, under a lock
    that no put holds meanwhile, in whatever process: nobody loses what they have just put.

    limit, file_limit: bytes, of all and of one file; 0 for none. The first holds once the store was
    measured. From then on this process counts what it puts and removes itself; what others do is
    seen when a shard is collected or measured again.
    """

    def __init__(self, folder: Path, *, limit: int = 0, file_limit: int = 0) -> None:
        self._folder = folder
        self._limit = limit
        self._file_limit = file_limit
        self._counting = threading.Lock()  # of what is below; never while the disk is waited for
        self._used: dict[str, Used] = {}  # by shard, as far as they were measured
        self._meanwhile: dict[str, Used] = {}  # what has changed in shards that are being measured
        self._measured = False
        self._writing = tuple(threading.Lock() for _ in FOLDERS)  # one writes a file, not two

    async def put(self, content: bytes) -> ContentHash:
        """Keep `content` and return its name; what is there already costs a look.

        Raises:
            StoreFull: it is more than may be kept.
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

    async def refresh(self, names: Collection[str]) -> None:
        """Make files young again, as a put of them does; those that are not there stay away.

        Raises:
            StoreError: the disk did not let us.
        """
        if names:
            await asyncio.to_thread(self._refresh, names)

    async def old(self, shard: str, *, before: datetime) -> set[str]:
        """Return which names that begin with `shard` were last put before this moment.

        Raises:
            StoreError: the disk did not let us look.
        """
        return await asyncio.to_thread(self._old, shard, before.timestamp())

    async def collect(self, shard: str, unneeded: Collection[str], *, before: datetime) -> int:
        """Remove what nobody needs of the names that begin with `shard`; returns how many files.

        That is what of `unneeded` was last put before this moment, and what a process was writing
        before it that did not live to end it. What was set aside as damaged stays for
        `KEEP_DAMAGED` more.

        Raises:
            StoreError: the disk did not let us; what was removed until then is removed.
        """
        return await asyncio.to_thread(self._collect, shard, unneeded, before.timestamp())

    async def remove(self, name: ContentHash, *, before: datetime | None = None) -> bool:
        """Remove a file that was last put before this moment; False when there is none so old.

        Raises:
            StoreError: the disk did not let us.
        """
        oldest = float("inf") if before is None else before.timestamp()
        return await asyncio.to_thread(self._remove, self._path(name), oldest)

    # -- bounds -----------------------------------------------------------------------------------

    async def measure(self) -> Used:
        """Count what there is, in all processes; from now on the limit holds for what is put.

        Raises:
            StoreError: the disk did not let us.
        """
        for shard in SHARDS:
            await asyncio.to_thread(self._measure, shard)
        self._measured = True
        return self.used

    @property
    def used(self) -> Used:
        """What there is, as far as it was measured."""
        with self._counting:
            return _sum(self._used.values())

    @property
    def limit(self) -> int:
        """Bytes that there may be; 0 for no limit."""
        return self._limit

    # -- verification -----------------------------------------------------------------------------

    async def verify(self, folder: str) -> list[str]:
        """Compare every file of one of the `FOLDERS` with its name; returns those that differ.

        They are set aside: whoever wants one is told so, until somebody puts the same again.

        Raises:
            StoreError: the disk did not let us.
        """
        return await asyncio.to_thread(self._verify, folder)

    # -- at work, in a thread ---------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:4] / name

    def _put(self, content: bytes) -> ContentHash:
        if 0 < self._file_limit < len(content):
            raise StoreFull(
                f"a file of {len(content)} bytes is longer than files.file_limit, "
                f"{self._file_limit} bytes",
                self._file_limit,
            )
        name = content_hash(content)
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing[int(name[:2], 16)], self._locked(fcntl.LOCK_SH):
                if _holds(path, content):
                    os.utime(path)
                else:
                    with self._room(path, len(content)):
                        self._write(path, content)
                    self._healed(path)
        except OSError as error:
            raise StoreError(f"cannot store a file: {error}") from error
        return name

    @contextmanager
    def _room(self, path: Path, size: int) -> Iterator[None]:
        """Count a file that is being written, unless it is too much."""
        there = _size(path)  # of one that is to be replaced
        takes = Used(_blocks(size) - _blocks(there or 0), int(there is None), 0)
        with self._counting:
            used = sum(one.size for one in self._used.values())
            if self._measured and 0 < self._limit < used + takes.size:
                raise StoreFull(
                    f"the file store has no room for {size} bytes more: files.limit is "
                    f"{self._limit} bytes",
                    self._limit,
                )
            self._count(path, takes)
        try:
            yield
        except BaseException:  # whatever it was, the file is not there
            with self._counting:
                self._count(path, Used(-takes.size, -takes.files, 0))
            raise

    def _count(self, path: Path, change: Used) -> None:
        """Note a change, under the lock, where its shard was measured or is being measured."""
        for counts in (self._used, self._meanwhile):
            if (count := counts.get(path.name[:1])) is not None:
                counts[path.name[:1]] = _sum((count, change))

    def _healed(self, path: Path) -> None:
        """Remove what was set aside of a file that is whole again."""
        aside = _aside(path)
        size = _size(aside)
        if size is not None:
            aside.unlink(missing_ok=True)
            with self._counting:
                self._count(path, Used(-_blocks(size), -1, -1))

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
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            if name and _aside(path).exists():
                raise StoreError(f"the file {name} was damaged on the disk") from error
            raise NotFound("file", name) from error
        except OSError as error:
            raise StoreError(f"cannot read a file: {error}") from error
        if content_hash(content) != name:
            raise StoreError(f"the file {name} is not what its name says")
        return content

    def _refresh(self, names: Iterable[str]) -> None:
        try:
            with self._locked(fcntl.LOCK_SH):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        os.utime(self._path(name))
        except FileNotFoundError:  # there is no store yet
            return
        except OSError as error:
            raise StoreError(f"cannot look after a file: {error}") from error

    def _old(self, shard: str, before: float) -> set[str]:
        try:
            return {
                path.name
                for path in self._folder.glob(f"{shard}*/*/*")
                if len(path.name) == NAME and _older(path, before)
            }
        except OSError as error:
            raise StoreError(f"cannot look through the stored files: {error}") from error

    def _collect(self, shard: str, unneeded: Collection[str], before: float) -> int:
        try:
            paths = self._folder.glob(f"{shard}*/*/*")
            removed = sum(
                self._remove(path, _due(path, before))
                for path in paths
                if path.name in unneeded or len(path.name) != NAME
            )
        except OSError as error:
            raise StoreError(f"cannot look through the stored files: {error}") from error
        if self._measured:
            self._measure(shard)
        return removed

    def _remove(self, path: Path, before: float) -> bool:
        try:
            if not _older(path, before):
                return False
            with self._locked(fcntl.LOCK_EX):
                if not _older(path, before):  # somebody has put it since
                    return False
                size = path.lstat().st_size
                path.unlink()
        except OSError as error:
            raise StoreError(f"cannot remove a file: {error}") from error
        with self._counting:
            self._count(path, Used(-_blocks(size), -1, -int(_is_aside(path))))
        return True

    def _measure(self, shard: str) -> None:
        """Count a shard; what is put into it meanwhile may be counted twice until the next time."""
        with self._counting:
            self._meanwhile[shard] = NOTHING
        size = files = damaged = 0
        try:
            for path in self._folder.glob(f"{shard}*/*/*"):
                there = _size(path)
                if there is not None:
                    size += _blocks(there)
                    files += 1
                    damaged += _is_aside(path)
        except OSError as error:
            with self._counting:
                del self._meanwhile[shard]
            raise StoreError(f"cannot look through the stored files: {error}") from error
        with self._counting:
            found = Used(size, files, damaged)
            self._used[shard] = _sum((found, self._meanwhile.pop(shard)))

    def _verify(self, folder: str) -> list[str]:
        damaged: list[str] = []
        unread: list[str] = []
        try:
            paths = sorted(self._folder.glob(f"{folder}/*/*"))
        except OSError as error:
            raise StoreError(f"cannot look through the stored files: {error}") from error
        for path in paths:
            if len(path.name) != NAME:
                continue
            try:
                if not _sound(path) and self._set_aside(path):
                    damaged.append(path.name)
            except OSError as error:  # the others are looked at all the same
                unread.append(f"{path.name}: {error}")
        if unread:
            damaged_too = f"; damaged and set aside: {', '.join(damaged)}" if damaged else ""
            raise StoreError(f"stored files cannot be read: {'; '.join(unread)}{damaged_too}")
        return damaged

    def _set_aside(self, path: Path) -> bool:
        """Take a damaged file out of the way; False when it is gone, or was mended meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            if _sound(path):
                return False
            os.utime(path)  # it is kept for a time from now
            os.replace(path, _aside(path))
        with self._counting:
            self._count(path, Used(0, 0, 1))
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


NOTHING = Used(0, 0, 0)


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


def _sound(path: Path) -> bool:
    """Return whether a file is what its name says, or not there any more.

    Raises:
        OSError: it cannot be read, which may pass.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == path.name
    except FileNotFoundError:
        return True


def _aside(path: Path) -> Path:
    return path.with_name(path.name + DAMAGED)


def _is_aside(path: Path) -> bool:
    return path.name.endswith(DAMAGED)


def _size(path: Path) -> int | None:
    """Return how long a file is, None when it is not there."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _sum(counts: Iterable[Used]) -> Used:
    size = files = damaged = 0
    for count in counts:
        size, files, damaged = size + count.size, files + count.files, damaged + count.damaged
    return Used(size, files, damaged)


def _due(path: Path, before: float) -> float:
    """Return before when a file must have been put to be removed at all."""
    return before - KEEP_DAMAGED.total_seconds() if _is_aside(path) else before


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
