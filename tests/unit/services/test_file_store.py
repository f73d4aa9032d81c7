"""Files by their hash: whole or not at all."""

import asyncio
import fcntl
import hashlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from commserver.core.jobs import ContentHash
from commserver.errors import NotFound, StoreError, StoreFull
from commserver.services import file_store
from commserver.services.file_store import BLOCK, FOLDERS, SHARDS, FileStore, Used


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

    assert path.stat().st_ino == before.st_ino


async def test_what_is_there_is_young_again_when_it_is_put_again(
    store: FileStore, folder: Path
) -> None:
    name = await store.put(b"the same")
    [path] = files_in(folder)
    make_old(path)

    await store.put(b"the same")

    assert not await store.remove(name, before=YESTERDAY)


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
async def test_an_injected_failure_while_writing_leaves_nothing_behind(
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

    assert steps == ["flushed", "named", *["flushed"] * 4], "the last ones are the folders"


async def test_every_folder_is_on_the_disk_up_to_the_one_that_names_the_store(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync = os.fsync

    def flush(file: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", flush)

    name = await store.put(b"outlives a power cut")

    inner = folder / name[:2] / name[2:4]
    assert flushed[1:] == [str(path) for path in (inner, inner.parent, folder, folder.parent)]


# -- a disk that does not take or give ------------------------------------------------------------


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """Let the kernel refuse to write more than `size` bytes into any file of this process."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_what_the_kernel_does_not_take_whole_is_not_there_at_all(
    store: FileStore, folder: Path
) -> None:
    with no_file_longer_than(4096), pytest.raises(StoreError) as caught:
        await store.put(b"x" * 10_000)

    assert str(caught.value) == "cannot store a file: [Errno 27] File too large"
    assert files_in(folder) == []
    name = await store.put(b"x" * 10_000)
    assert await store.get(name) == b"x" * 10_000


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_keeps_what_it_has_and_takes_more_when_there_is_room(tiny: Path) -> None:
    store = FileStore(tiny / "files")
    kept = await store.put(b"k" * 10_000)

    with pytest.raises(StoreError, match="No space left on device"):
        await store.put(b"x" * 100_000)

    assert await store.get(kept) == b"k" * 10_000
    assert [path.name for path in files_in(tiny)] == [kept]
    fits = await store.put(b"x" * 20_000)
    assert await store.get(fits) == b"x" * 20_000


# -- what nobody needs any more -------------------------------------------------------------------

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def make_old(path: Path) -> None:
    """Let a file have been put two days ago."""
    at = (YESTERDAY - timedelta(days=1)).timestamp()
    os.utime(path, (at, at))


async def test_what_is_old_and_not_needed_is_collected_shard_by_shard(
    store: FileStore, folder: Path
) -> None:
    names = [await store.put(str(number).encode()) for number in range(40)]
    for path in files_in(folder):
        make_old(path)
    young = await store.put(b"young")
    kept = set(names[::2])
    unneeded = {*names, young} - kept

    removed = [await store.collect(shard, unneeded, before=YESTERDAY) for shard in SHARDS]

    assert {path.name for path in files_in(folder)} == kept | {young}
    assert removed == [
        sum(name.startswith(shard) and name not in kept for name in names) for shard in SHARDS
    ]


async def test_what_is_old_is_told_shard_by_shard(store: FileStore, folder: Path) -> None:
    names = {await store.put(str(number).encode()) for number in range(20)}
    for path in files_in(folder):
        make_old(path)
    files_in(folder)[0].with_name(".half-written").write_bytes(b"hal")
    await store.put(b"young")

    old = [await store.old(shard, before=YESTERDAY) for shard in SHARDS]

    assert set().union(*old) == names
    assert all(
        name.startswith(shard) for shard, found in zip(SHARDS, old, strict=True) for name in found
    )


async def test_what_is_refreshed_is_young_again_and_what_is_not_there_stays_away(
    store: FileStore, folder: Path
) -> None:
    await store.refresh(["0" * 64])  # there is no store yet
    name = await store.put(b"of an exercise")
    [path] = files_in(folder)
    make_old(path)

    await store.refresh([name, "0" * 64])

    assert await store.old(name[0], before=YESTERDAY) == set()
    assert files_in(folder) == [path]


async def test_a_store_without_a_folder_has_nothing_to_collect(store: FileStore) -> None:
    assert await store.collect("0", (), before=YESTERDAY) == 0


async def test_what_is_half_written_is_collected_when_it_is_old(
    store: FileStore, folder: Path
) -> None:
    name = await store.put(b"whole")
    [path] = files_in(folder)
    left = path.with_name(".left-by-a-kill")
    left.write_bytes(b"who")

    assert await store.collect(name[0], (), before=YESTERDAY) == 0
    make_old(left)
    assert await store.collect(name[0], (), before=YESTERDAY) == 1

    assert files_in(folder) == [path]


async def test_one_file_is_removed_if_it_is_old_enough(store: FileStore, folder: Path) -> None:
    name = await store.put(b"handed in")
    [path] = files_in(folder)

    assert not await store.remove(name, before=YESTERDAY)
    make_old(path)
    assert await store.remove(name, before=YESTERDAY)

    assert not await store.has(name)
    assert not await store.remove(name)


async def test_what_is_put_while_it_is_about_to_be_removed_stays(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look before the lock says old; a put comes in between; the look under it says young."""
    waits, sleep = threading.Event(), time.sleep

    def polled(seconds: float) -> None:
        waits.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", polled)
    name = await store.put(b"the same")
    [path] = files_in(folder)
    make_old(path)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as a put does, perhaps of another process

    removing = asyncio.create_task(store.remove(name, before=YESTERDAY))
    assert await asyncio.to_thread(waits.wait, 5.0)
    await store.put(b"the same")
    os.close(descriptor)

    assert not await removing
    assert await store.get(name) == b"the same"


async def test_a_lock_that_is_never_let_go_is_an_error_of_the_store(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(b"something")
    monkeypatch.setattr(file_store, "LOCK_TIMEOUT", 0.05)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(StoreError, match="does not let go of"):
            await store.put(b"something else")
    finally:
        os.close(descriptor)
    assert await store.put(b"something else")


async def test_a_folder_that_cannot_be_looked_through_is_a_store_error(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await store.put(b"kept")

    def scandir(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", scandir)

    for work in (
        store.collect(name[0], (), before=datetime.now(UTC)),
        store.old(name[0], before=datetime.now(UTC)),
        store.measure(),
        store.verify(name[:2]),
    ):
        with pytest.raises(StoreError, match="cannot look through"):
            await work


# -- bounds ---------------------------------------------------------------------------------------


async def measured(folder: Path, **limits: int) -> FileStore:
    """Return a store that holds what is put to its limits."""
    store = FileStore(folder, **limits)
    await store.measure()
    return store


async def test_what_is_above_the_limit_is_not_taken_and_all_else_goes_on(folder: Path) -> None:
    store = await measured(folder, limit=3 * BLOCK)
    first, second = [await store.put(bytes([number]) * BLOCK) for number in (1, 2)]

    with pytest.raises(StoreFull, match=r"no room for 4097 bytes more: files.limit is 12288") as no:
        await store.put(b"3" * (BLOCK + 1))

    assert no.value.limit == 3 * BLOCK
    assert await store.put(bytes([1]) * BLOCK) == first, "what is there is there"
    await store.remove(second)
    await store.put(b"3" * (BLOCK + 1))
    assert store.used == Used(3 * BLOCK, 2, 0)


async def test_what_was_there_before_counts_once_it_was_measured(folder: Path) -> None:
    await FileStore(folder).put(b"of another process")
    store = FileStore(folder, limit=BLOCK)

    await store.put(b"not measured yet")
    assert await store.measure() == Used(2 * BLOCK, 2, 0)

    with pytest.raises(StoreFull):
        await store.put(b"one more")


async def test_a_file_that_is_too_long_is_never_taken(folder: Path) -> None:
    store = FileStore(folder, file_limit=10)
    await store.put(b"1234567890")

    with pytest.raises(StoreFull, match="11 bytes is longer than files"):
        await store.put(b"12345678901")

    assert len(files_in(folder)) == 1


async def test_what_the_disk_did_not_take_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await measured(folder)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(StoreError):
            await store.put(b"too much")

    assert store.used == Used(0, 0, 0)


async def test_counts_stay_right_whatever_is_done(folder: Path) -> None:
    store = await measured(folder)
    names = [await store.put(bytes([number]) * 5000) for number in range(12)]
    await asyncio.gather(*(store.put(b"the same") for _ in range(10)))
    spoil(folder, names[0])
    await store.put(bytes([0]) * 5000)
    await store.remove(names[1])
    spoil(folder, names[2])
    await store.verify(names[2][:2])
    spoil(folder, names[3])
    await store.verify(names[3][:2])
    await store.put(bytes([3]) * 5000)
    for path in files_in(folder):
        make_old(path)
    unneeded = names[4:6]
    for shard in SHARDS:
        await store.collect(shard, unneeded, before=YESTERDAY)

    counted = store.used

    assert counted == await FileStore(folder).measure()
    assert (counted.files, counted.damaged) == (10, 1)


# -- verification ---------------------------------------------------------------------------------


def spoil(folder: Path, name: str) -> None:
    """Let the disk damage a file."""
    next(folder.rglob(name)).write_bytes(b"rubbish")


async def test_what_is_damaged_is_set_aside_and_mended_by_a_put(
    store: FileStore, folder: Path
) -> None:
    names = [await store.put(str(number).encode()) for number in range(20)]
    bad = names[7]
    spoil(folder, bad)

    found = [name for part in FOLDERS for name in await store.verify(part)]
    with pytest.raises(StoreError, match="was damaged on the disk"):
        await store.get(bad)
    left = {path.name for path in files_in(folder)}
    await store.put(b"7")

    assert found == [bad]
    assert left == {*names, f"{bad}.damaged"} - {bad}
    assert await store.get(bad) == b"7"
    assert {path.name for path in files_in(folder)} == set(names)
    assert await store.verify(bad[:2]) == []


def make_folder_beside(folder: Path, name: str) -> None:
    """Let there be a folder where a file would be."""
    next(folder.rglob(name)).with_name("0" * 64).mkdir()


async def test_what_cannot_be_read_is_told_and_keeps_nobody_from_the_others(
    store: FileStore, folder: Path
) -> None:
    name = await store.put(b"a file")
    spoil(folder, name)
    make_folder_beside(folder, name)

    with pytest.raises(StoreError, match=f"Is a directory.*damaged and set aside: {name}"):
        await store.verify(name[:2])


async def test_what_was_mended_while_it_was_about_to_be_set_aside_stays(
    store: FileStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await store.put(b"the same")
    [path] = files_in(folder)
    spoil(folder, name)
    lock = file_store.FileStore._locked

    def mended(self: FileStore, kind: int) -> object:
        path.write_bytes(b"the same")
        return lock(self, kind)

    monkeypatch.setattr(file_store.FileStore, "_locked", mended)

    assert await store.verify(name[:2]) == []

    assert await store.get(name) == b"the same"


async def test_what_was_set_aside_goes_after_a_month(store: FileStore, folder: Path) -> None:
    name = await store.put(b"a file")
    spoil(folder, name)
    await store.verify(name[:2])
    now = datetime.now(UTC)

    kept = await store.collect(name[0], (), before=now + timedelta(days=29))
    gone = await store.collect(name[0], (), before=now + timedelta(days=31))

    assert (kept, gone, files_in(folder)) == (0, 1, [])
    with pytest.raises(NotFound):
        await store.get(name)
