"""A disk with no block left: what it costs, and that all goes on by itself when there is room."""

import asyncio
import re

import pytest

from commserver.config import Queue
from commserver.errors import StoreError
from commserver.services.file_store import FileStore
from tests.integration.faults.conftest import Disk, Room, until

FULL = re.compile("database or disk is full|No space left on device")


async def test_an_exercise_waits_for_room_and_is_taken(cramped: Room, disk: Disk) -> None:
    async with cramped.serving():
        tab = await cramped.tab()
        attempts = await cramped.attempts(3)
        before = await cramped.counts()

        disk.fill()
        cramped.push(attempts)
        waits = await cramped.logged("exercise_waits", times=2)
        meanwhile = await cramped.counts()
        disk.free()

        await cramped.once(tab, attempts)

    assert meanwhile == before
    assert all(FULL.search(line["error"]) for line in waits)
    assert {line["id"] for line in waits} == {attempts[0]}, "the others are not even read"


async def test_a_verdict_waits_for_room_and_is_stored_once(cramped: Room, disk: Disk) -> None:
    cramped.engine.hang()
    async with cramped.serving():
        tab = await cramped.tab()
        attempts = await cramped.attempts(4)
        cramped.push(attempts)
        await until(lambda: cramped.engine.running == 2)
        await cramped.logged("run_queued", times=4)
        before = await cramped.counts()

        disk.fill()
        cramped.engine.resume()
        waits = await cramped.logged("outcome_not_stored", times=4)
        meanwhile = await cramped.counts()
        told = [tab.final(attempt) for attempt in attempts]
        disk.free()

        await cramped.once(tab, attempts)

    assert meanwhile == before
    assert told == [None] * 4, "nobody is told what is not stored"
    assert all(FULL.search(line["reason"]) for line in waits)
    assert len(cramped.engine.begun) == 4, "none had to be run again"


async def test_a_sweep_waits_for_room_and_takes_what_it_saw(cramped: Room, disk: Disk) -> None:
    cramped.queue = Queue(grace=0.0, sweep="new", sweep_period=0.1, sweep_age=0.3)
    async with cramped.serving():
        tab = await cramped.tab()
        before = await cramped.counts()
        attempts = await cramped.attempts(2)

        disk.fill()
        failed = await cramped.logged("sweep_failed", times=2)
        meanwhile = await cramped.counts()
        disk.free()

        await cramped.once(tab, attempts)

    assert meanwhile == before
    assert all(FULL.search(line["error"]) for line in failed)


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_a_token_whose_use_cannot_be_written_opens_the_door_all_the_same(
    cramped: Room, disk: Disk
) -> None:
    """PostgreSQL writes it over an older row, which needs no room."""
    async with cramped.serving():
        token = await cramped.token()
        await cramped.site.sql("UPDATE tokens SET created_at = '2020-01-01 00:00:00'")

        disk.fill()
        tab = await cramped.dial(token)
        disk.free()

    assert tab.packets == [{"cmd": "OK"}]
    [line] = cramped.said("token_not_prolonged")
    assert FULL.search(line["error"])


async def test_who_reads_is_served_while_nothing_can_be_written(cramped: Room, disk: Disk) -> None:
    async with cramped.serving():
        token = await cramped.token()

        disk.fill()
        tab = await cramped.dial(token)
        disk.free()

    assert tab.packets == [{"cmd": "OK"}]


# -- the file store -------------------------------------------------------------------------------


async def test_a_submission_waits_for_room_in_the_file_store(room: Room, disk: Disk) -> None:
    (room.site.state / "files").symlink_to(disk.folder)
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(2)
        before = await room.counts()

        disk.fill()
        room.push(attempts)
        waits = await room.logged("exercise_waits", times=2)
        meanwhile = await room.counts()
        disk.free()

        await room.once(tab, attempts)

    assert meanwhile == before
    assert all("cannot store a file: [Errno 28] No space" in line["error"] for line in waits)


async def test_a_file_that_did_not_fit_leaves_nothing_behind(disk: Disk) -> None:
    store = FileStore(disk.folder / "files")
    kept = await store.put(b"what is there")
    disk.fill()

    for size in (1, 100_000):
        with pytest.raises(StoreError, match="No space left on device"):
            await store.put(bytes(size))

    files = [path.name for path in disk.folder.glob("files/**/*") if path.is_file()]
    assert files == [kept]
    assert await store.get(kept) == b"what is there"
    disk.free()
    assert await asyncio.wait_for(store.put(bytes(100_000)), 5)
