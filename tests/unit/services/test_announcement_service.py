"""What is said to everybody."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from commserver.errors import MalformedPacket, StoreError
from commserver.gateways.http import packets
from commserver.services.announcement_service import LONGEST, Announcement, AnnouncementService
from tests.fakes import FakeClock, settle
from tests.unit.gateways.services import MemoryDatabase, memory_announcements


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def service(database: MemoryDatabase, clock: FakeClock) -> AnnouncementService:
    return memory_announcements(database, clock)


async def test_nothing_counts_before_the_first(service: AnnouncementService) -> None:
    assert await service.current() is None


async def test_the_newest_counts(service: AnnouncementService) -> None:
    await service.announce("first")
    await service.announce("second")

    assert await service.current() == Announcement(2, "second", None)


async def test_it_counts_until_its_end(service: AnnouncementService, clock: FakeClock) -> None:
    until = clock.utc() + timedelta(minutes=10)
    await service.announce("soon", until)
    before = await service.current()

    clock.advance(600)

    assert before == Announcement(1, "soon", until)
    assert await service.current() is None


async def test_withdrawn_it_counts_no_more_nor_does_the_one_before(
    service: AnnouncementService,
) -> None:
    await service.announce("first")
    await service.announce("second")

    withdrawn = await service.withdraw()

    assert withdrawn == Announcement(2, "", None)
    assert await service.current() is None
    assert await service.withdraw() is None


async def test_who_subscribes_hears_what_comes_until_it_ends_that(
    service: AnnouncementService,
) -> None:
    heard: list[Announcement] = []
    await service.announce("before")
    unsubscribe = service.subscribe(heard.append)
    service.subscribe(heard.append)

    await service.announce("soon")
    unsubscribe()
    unsubscribe()
    await service.withdraw()

    soon = Announcement(2, "soon", None)
    assert heard == [soon, soon, Announcement(2, "", None)]


async def test_a_crowd_that_asks_reads_the_database_once(
    service: AnnouncementService, database: MemoryDatabase
) -> None:
    await asyncio.gather(*(service.current() for _ in range(100)))

    assert database.reads == 1


async def test_what_was_said_before_a_restart_still_counts(
    service: AnnouncementService, clock: FakeClock
) -> None:
    await service.announce("soon")

    again = AnnouncementService(service._database, service._daos, clock)

    assert await again.current() == Announcement(1, "soon", None)
    assert await again.withdraw() == Announcement(1, "", None)
    last = AnnouncementService(service._database, service._daos, clock)
    assert await last.current() is None


async def test_what_could_not_be_stored_is_told_to_nobody(
    service: AnnouncementService, database: MemoryDatabase
) -> None:
    heard: list[Announcement] = []
    await service.announce("first")
    service.subscribe(heard.append)
    database.fault = StoreError("away")
    for change in (service.announce("second"), service.withdraw()):
        with pytest.raises(StoreError):
            await change
    database.fault = None

    assert heard == []
    assert await service.current() == Announcement(1, "first", None)


@pytest.mark.parametrize("text", ["second", ""])
async def test_a_change_that_is_given_up_in_its_commit_is_told_all_the_same(
    service: AnnouncementService, database: MemoryDatabase, text: str
) -> None:
    await service.announce("first")
    heard: list[Announcement] = []
    service.subscribe(heard.append)
    database.gate.clear()
    change = service.announce(text) if text else service.withdraw()
    changing = asyncio.ensure_future(change)
    await settle(5)
    changing.cancel()
    await settle(5)
    database.gate.set()
    await asyncio.wait({changing})

    assert changing.cancelled()
    assert [said.text for said in heard] == [text]


async def test_every_port_has_the_one_limit(service: AnnouncementService) -> None:
    assert packets.TEXT_LIMIT == LONGEST
    assert (await service.announce("é" * LONGEST)).text == "é" * LONGEST


async def test_a_text_is_cleaned(service: AnnouncementService) -> None:
    said = await service.announce("  so\x00on\u202e \ud800")

    assert said.text == "soon"


@pytest.mark.parametrize(
    ("text", "until"),
    [
        ("", None),
        (" \x00\n", None),
        ("é" * (LONGEST + 1), None),
        ("late", datetime(2025, 12, 31, tzinfo=UTC)),
        ("late", datetime(2026, 1, 1, tzinfo=UTC)),
        ("where", datetime(2026, 6, 1)),  # noqa: DTZ001  # that is what is wrong with it
    ],
)
async def test_what_makes_no_sense_is_not_said(
    service: AnnouncementService, text: str, until: datetime | None
) -> None:
    with pytest.raises(MalformedPacket):
        await service.announce(text, until)

    assert await service.current() is None
