"""What is said to everybody, on real databases."""

from datetime import timedelta

from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.services.announcement_service import Announcement, AnnouncementService
from tests.fakes import FakeClock


async def test_an_announcement_outlives_a_restart_until_its_end_or_its_withdrawal(
    url: str,
) -> None:
    clock = FakeClock()
    until = clock.utc() + timedelta(minutes=10)
    async with DatabaseManager(url) as database:

        def restarted() -> AnnouncementService:
            return AnnouncementService(database, DaoManager(), clock)

        first = await restarted().announce("the exam begins", until)
        second = await restarted().announce("ten minutes more — 四", None)
        current = await restarted().current()
        withdrawn = await restarted().withdraw()
        afterwards = await restarted().current(), await restarted().withdraw()
        third = await restarted().announce("again", until)
        before = await restarted().current()
        clock.advance(600)
        over = await restarted().current()

    assert current == second == Announcement(second.id, "ten minutes more — 四", None)
    assert first.id < second.id < third.id
    assert withdrawn == Announcement(second.id, "", None)
    assert afterwards == (None, None)
    assert (before, over) == (third, None)
