"""What each part of the server says of itself, and what of that is a problem."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from commserver.gateways.gateway import LinkState
from commserver.services import probes
from commserver.services.file_store import BLOCK, FileStore
from commserver.services.status_service import Item, Probe
from tests.fake_sandbox import FakeSandbox
from tests.fakes import settle
from tests.unit.services.shop import RIGHT, Shop, until

SINCE = datetime(2026, 1, 1, 8, 30, tzinfo=UTC)


class Backend(NamedTuple):
    name: str
    state: LinkState


def spoil(folder: Path, name: str) -> None:
    """Let the disk damage a stored file."""
    next(folder.rglob(name)).write_bytes(b"rubbish")


async def one(probe: Probe) -> Item:
    [item] = await probe()
    return item


async def test_a_link_that_is_up_says_since_when() -> None:
    item = await one(probes.links([Backend("main", LinkState(True, SINCE))]))

    assert (item.name, item.problem) == ("main", "")
    assert item.says == "link up since 2026-01-01 08:30:00 UTC"
    assert item.values == {"up": True, "since": "2026-01-01T08:30:00+00:00", "why": ""}


async def test_a_link_that_is_down_is_a_problem_and_says_why() -> None:
    item = await one(probes.links([Backend("main", LinkState(False, SINCE, "refused"))]))

    assert item.problem == (
        "the link to backend main is down since 2026-01-01 08:30:00 UTC: refused"
    )
    assert item.says == "link down since 2026-01-01 08:30:00 UTC"
    assert item.values["up"] is False


async def test_a_webhook_that_nobody_takes_is_a_problem_and_says_why() -> None:
    works = await one(probes.webhook(Backend("webhook", LinkState(True, SINCE))))
    fails = await one(probes.webhook(Backend("webhook", LinkState(False, SINCE, "answered 503"))))

    assert (works.says, works.problem) == ("takes finals since 2026-01-01 08:30:00 UTC", "")
    assert fails.problem == (
        "the receiver of the webhook takes none since 2026-01-01 08:30:00 UTC: answered 503"
    )
    assert await probes.webhook(None)() == []


@pytest.mark.parametrize(("there", "problem"), [(0, False), (9, False), (10, True), (11, True)])
async def test_browsers_are_counted_and_too_many_are_a_problem(there: int, problem: bool) -> None:
    item = await one(probes.browsers(lambda: there, 10))

    assert item.values == {"connected": there}
    assert ("browser.connections" in item.problem) is problem


async def test_engines_say_what_they_have_and_how_busy_they_are(tmp_path: Path) -> None:
    engine = FakeSandbox("engine")
    engine.hang()
    shop = Shop(tmp_path, engine, slots=2)
    probe = probes.engines(shop.manager, shop.dispatcher)
    before = await one(probe)
    assert before.problem == "engine engine is down: it has not answered yet"
    engine.isolation = None

    async with shop.open():
        await shop.submit("a", RIGHT)
        await until(lambda: engine.running == 1)
        item = await one(probe)
        assert item.says == "up, 1 of 2 slots busy, images c, python"
        assert item.values == {
            **{"up": True, "slots": 2, "busy": 1, "images": "c python"},
            "isolation": "",
        }
        assert item.problem == ""

        engine.isolation = "nested"
        item = await one(probe)
        assert item.says == "up, 1 of 2 slots busy, images c, python, isolation nested"
        assert item.values["isolation"] == "nested"

        engine.down = True
        shop.clock.advance(5.0)
        await settle()
        item = await one(probe)
        assert item.problem.startswith("engine engine is down: ")
        assert item.says == "down"
        assert item.values["up"] is False


async def test_an_engine_without_images_is_a_problem(tmp_path: Path) -> None:
    shop = Shop(tmp_path, FakeSandbox("engine", images=()))
    probe = probes.engines(shop.manager, shop.dispatcher)

    async with shop.open():
        await settle()

        item = await one(probe)

    assert item.problem == "engine engine has no images: run `commserver images build`"


@pytest.mark.parametrize(
    ("free", "size", "problem"),
    [(2 << 30, 100 << 30, False), ((1 << 30) - 1, 100 << 30, True), (1 << 20, 4 << 20, False)],
)
async def test_a_disk_that_is_nearly_full_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, free: int, size: int, problem: bool
) -> None:
    found = os.statvfs_result((1, 1, size, free, free, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)

    item = await one(probes.disk(Path("var")))

    assert item.values == {"free": free, "size": size, "folder": "var"}
    assert bool(item.problem) is problem


async def test_a_file_store_says_how_much_of_it_is_used(tmp_path: Path) -> None:
    store = FileStore(tmp_path, limit=100 * BLOCK)
    await store.put(b"a file")
    await store.measure()

    item = await one(probes.files(store))

    assert (item.name, item.says, item.problem) == ("files", "1 files, 0.0 of 0.0 GiB", "")
    assert item.values == {"bytes": BLOCK, "files": 1, "damaged": 0, "limit": 100 * BLOCK}


async def test_a_file_store_that_is_nearly_full_or_damaged_is_a_problem(tmp_path: Path) -> None:
    store = FileStore(tmp_path, limit=BLOCK)
    name = await store.put(b"a file")
    await store.measure()
    spoil(tmp_path, name)
    await store.verify(name[:2])

    full, damaged = await probes.files(store)()

    assert full.problem.startswith("the file store is nearly full, 0.0 of 0.0 GiB: see files.limit")
    assert damaged.problem.startswith("1 stored files were found damaged: their names are in")


async def test_a_file_store_without_a_limit_is_never_full(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    await store.put(b"a file")
    await store.measure()

    item = await one(probes.files(store))

    assert (item.says, item.problem) == ("1 files, 0.0 GiB", "")
