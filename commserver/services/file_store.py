"""Files by the hash of what is in them."""

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

from commserver.core.jobs import ContentHash, content_hash
from commserver.errors import NotFound, StoreError


class FileStore:
    """Keeps bytes under their sha256, two levels of folders deep.

    A file is written beside its place, flushed to the disk, then renamed: it is there whole or not
    at all, also after a power cut. What is read is compared with its name.
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

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:4] / name

    def _put(self, content: bytes) -> ContentHash:
        name = content_hash(content)
        path = self._path(name)
        try:
            if not _holds(path, content):
                path.parent.mkdir(parents=True, exist_ok=True)
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
        for folder in (path.parent, *path.parents[1:3]):
            _flush_folder(folder)

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


def _holds(path: Path, content: bytes) -> bool:
    """Return whether the file is there and whole; one that a disk has damaged is written again."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def _flush_folder(folder: Path) -> None:
    """Make a rename in it outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
