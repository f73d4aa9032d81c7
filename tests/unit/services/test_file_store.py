"""Files by their hash: whole or not at all."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from commserver.core.jobs import ContentHash
from commserver.errors import NotFound, StoreError
from commserver.services.file_store import FileStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def store(folder: Path) -> FileStore:
    return FileStore(folder)


def files_in(folder: Path) -> list[Path]:
    """Return every file, those with a leading dot included."""
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [b"", b"print(42)\n", bytes(range(256)) * 1000])
async def test_what_was_put_is_got_by_its_sha256(store: FileStore, content: bytes) -> None:
    name = await store.put(content)

    assert name == hashlib.sha256(content).hexdigest()
    assert await store.get(name) == content


async def test_another_store_on_the_same_folder_has_it(store: FileStore, folder: Path) -> None:
    name = await store.put(b"kept")

    assert await FileStore(folder).get(name) == b"kept"


async def test_nobody_else_may_read_it(store: FileStore, folder: Path) -> None:
    await store.put(b"a student's work")

    assert [path.stat().st_mode & 0o077 for path in files_in(folder)] == [0]


@pytest.mark.parametrize("damage", [b"", b"a student's w", b"A student's work"])
async def test_a_damaged_file_is_written_again(
    store: FileStore, folder: Path, damage: bytes
) -> None:
    name = await store.put(b"a student's work")
    [path] = files_in(folder)
    path.write_bytes(damage)

    await store.put(b"a student's work")

    assert await store.get(name) == b"a student's work"


async def test_equal_contents_are_kept_once(store: FileStore, folder: Path) -> None:
    names = await asyncio.gather(*(store.put(b"the same") for _ in range(20)))

    assert len(set(names)) == 1
    assert [path.name for path in files_in(folder)] == names[:1]


async def test_what_is_there_is_not_written_again(store: FileStore, folder: Path) -> None:
    await store.put(b"the same")
    [path] = files_in(folder)
    before = path.stat()

    await store.put(b"the same")

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_what_is_not_there_is_not_found(store: FileStore) -> None:
    with pytest.raises(NotFound) as caught:
        await store.get(ContentHash("0" * 64))

    assert (caught.value.kind, caught.value.id) == ("file", "0" * 64)


async def test_no_name_is_no_file(store: FileStore) -> None:
    await store.put(b"something")

    with pytest.raises(StoreError):
        await store.get(ContentHash(""))


@pytest.mark.parametrize("damaged", [b"", b"whol", b"wholf", b"whole "])
async def test_a_damaged_file_is_an_error_of_the_store(
    store: FileStore, folder: Path, damaged: bytes
) -> None:
    name = await store.put(b"whole")
    files_in(folder)[0].write_bytes(damaged)

    with pytest.raises(StoreError, match="not what its name says"):
        await store.get(name)


async def test_a_file_that_cannot_be_read_is_an_error_of_the_store(
    store: FileStore, folder: Path
) -> None:
    name = await store.put(b"whole")
    [path] = files_in(folder)
    path.unlink()
    path.mkdir()

    with pytest.raises(StoreError, match="cannot read"):
        await store.get(name)


@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_a_failure_while_writing_leaves_nothing_behind(
    store: FileStore, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        with pytest.raises(StoreError, match="No space left"):
            await store.put(b"too much")

    assert files_in(folder) == []
    name = await store.put(b"too much")
    assert await store.get(name) == b"too much"


async def test_a_folder_that_cannot_be_made_is_an_error_of_the_store() -> None:
    with pytest.raises(StoreError):
        await FileStore(Path("/dev/null/files")).put(b"anything")


async def test_it_is_on_the_disk_before_it_has_its_name(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flushed(file: int) -> None:
        steps.append("flushed")
        fsync(file)

    def named(source: str, target: str) -> None:
        steps.append("named")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", named)

    await store.put(b"outlives a power cut")

    assert steps[:3] == ["flushed", "named", "flushed"], "the last ones are the folders"
