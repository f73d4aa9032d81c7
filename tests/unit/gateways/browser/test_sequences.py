"""What a student's sockets are told of a run, from its submission to its end.

The real queue, watch door and outboxes; time is driven by hand, rows are in memory.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.finals import account
from commserver.core.jobs import Job, Lease, OwnerId, RunId
from commserver.core.verdicts import Cause
from commserver.gateways.browser.outbox import Outbox
from commserver.gateways.browser.packets import Error, ExerciceExecuted
from commserver.services.watch_service import FIRST_PLACE, WatchService
from tests.fakes import FakeClock, FakeLedger, broken, completed, make_job, make_offer, settle
from tests.unit.gateways.browser.outboxes import drained, following, told
from tests.unit.gateways.services import FakeFinalsService

ADA, GRACE = OwnerId("1"), OwnerId("2")
PERIOD = 1.0  # seconds between two tellings of places


class Room:
    """Students' sockets at one queue with one slot, which the test plays."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        bus = EventBus()
        ledger = FakeLedger()
        self.finals = FakeFinalsService(ledger)
        self.dispatcher = Dispatcher(Board(), ledger, bus, self.clock)
        self.watch = WatchService(self.dispatcher, bus, self.clock, period=PERIOD)
        self._attempts = 0

    def socket(self, owner: OwnerId = ADA, limit: int = 100) -> Outbox:
        """Return what a socket of this user is to be sent from now on; it is owed nothing yet."""
        outbox = following(limit)
        self.watch.join(owner, outbox)
        return outbox

    async def read(self, socket: Outbox, owner: OwnerId = ADA) -> list[tuple[str, str]]:
        """Return what a socket is sent that reads what it is owed whenever it is behind."""
        heard = []
        while words := await told(socket):
            if words[-1][1].startswith("behind"):
                (_, behind) = words.pop()
                owed = await self.finals.owed(account(owner), int(behind.removeprefix("behind ")))
                socket.caught_up(owed.finals, owed.last, more=owed.more)
            heard += words
        return heard

    async def submit(self, run: str, owner: OwnerId = ADA, **more: int) -> Job:
        self._attempts += 1
        job = make_job(run, owner=owner, attempt=more.get("attempt", self._attempts))
        await self.dispatcher.submit(job)
        return job

    async def take(self) -> Lease:
        """Have the slot take the next run."""
        [lease] = await self.dispatcher.try_lease(make_offer())
        return lease

    async def finish(self, lease: Lease) -> None:
        await self.dispatcher.finished(lease, completed())

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settle()


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    running = [asyncio.create_task(room.watch.run()), asyncio.create_task(room.dispatcher.run())]
    await settle()
    yield room
    for task in running:
        task.cancel()
    await asyncio.wait(running)


# -- one run --------------------------------------------------------------------------------------


async def test_a_run_that_begins_at_once_is_only_told_of_when_it_ends(room: Room) -> None:
    socket = room.socket()

    await room.submit("a")
    lease = await room.take()
    await room.pass_time(PERIOD)
    await room.finish(lease)

    assert await told(socket) == [("a", "accepted")]


async def test_a_run_that_waits_hears_its_places_its_beginning_and_its_end(room: Room) -> None:
    socket, heard = room.socket(), []

    for run in ("x", "y"):
        await room.submit(run, GRACE)
    await room.submit("a")
    await room.pass_time(FIRST_PLACE)
    heard += await told(socket)
    for _ in ("x", "y", "a"):
        lease = await room.take()
        await room.pass_time(PERIOD + FIRST_PLACE)
        heard += await told(socket)
        await room.finish(lease)
    heard += await told(socket)

    assert heard == [
        ("a", "place 3"),
        ("a", "place 2"),
        ("a", "place 1"),
        ("a", "place 0"),
        ("a", "accepted"),
    ]


async def test_a_socket_that_takes_nothing_meanwhile_hears_only_the_newest_place(
    room: Room,
) -> None:
    socket = room.socket()
    for run in ("w", "x", "y", "a"):
        await room.submit(run, GRACE if run != "a" else ADA)
    await room.pass_time(FIRST_PLACE)

    for _ in range(2):
        await room.finish(await room.take())
        await room.pass_time(PERIOD + FIRST_PLACE)

    assert await told(socket) == [("a", "place 2")]


async def test_places_are_told_at_most_once_a_period(room: Room) -> None:
    socket, heard = room.socket(), []
    for number in range(9):
        await room.submit(f"x{number}", GRACE)
    await room.submit("a")
    await room.pass_time(PERIOD)
    await room.finish(await room.take())
    await room.pass_time(PERIOD)
    heard += await told(socket)

    for _ in range(4):
        await room.finish(await room.take())
        await room.pass_time(PERIOD / 4)
        heard += await told(socket)

    assert heard == [("a", "place 9"), ("a", "place 5")]


async def test_a_place_that_did_not_change_is_not_told_again(room: Room) -> None:
    socket = room.socket()
    await room.submit("a")
    for run in ("x", "y", "z"):
        await room.submit(run, GRACE)
    await room.pass_time(PERIOD + FIRST_PLACE)
    await drained(socket)

    await room.dispatcher.cancel(RunId("y"))
    await room.pass_time(PERIOD + FIRST_PLACE)

    assert await told(socket) == []


async def test_who_was_sent_no_place_is_not_told_of_the_beginning(room: Room) -> None:
    early, heard = room.socket(), []
    await room.submit("a")
    await room.pass_time(FIRST_PLACE)
    heard += await told(early)
    late = room.socket()  # has its place still to be sent when the run begins

    await room.take()

    assert [*heard, *await told(early)] == [("a", "place 1"), ("a", "place 0")]
    assert await told(late) == []


async def test_a_run_that_is_tried_again_waits_and_begins_again(room: Room) -> None:
    socket, heard = room.socket(), []
    await room.submit("a")
    await room.pass_time(FIRST_PLACE)
    heard += await told(socket)

    lease = await room.take()
    heard += await told(socket)
    await room.dispatcher.finished(lease, broken(Cause.CONTAINER))
    await room.pass_time(PERIOD + FIRST_PLACE)
    heard += await told(socket)
    lease = await room.take()
    heard += await told(socket)
    await room.finish(lease)

    assert [*heard, *await told(socket)] == [
        ("a", "place 1"),
        ("a", "place 0"),
        ("a", "place 1"),
        ("a", "place 0"),
        ("a", "accepted"),
    ]


async def test_no_place_comes_after_the_final(room: Room) -> None:
    socket = room.socket()
    await room.submit("x", GRACE)
    await room.submit("a")
    await room.pass_time(FIRST_PLACE)

    await room.dispatcher.cancel(RunId("a"))
    await room.finish(await room.take())
    await room.pass_time(PERIOD + FIRST_PLACE)

    assert await told(socket) == [("a", "cancelled")]


async def test_a_cancelled_run_has_no_grade(room: Room) -> None:
    socket = room.socket()
    await room.submit("a", attempt=42)
    lease = await room.take()

    await room.dispatcher.cancel(RunId("a"))
    await room.finish(lease)

    assert await drained(socket) == [ExerciceExecuted("42", "a", "cancelled", grade="", seq="1")]


async def test_a_superseded_run_says_nothing_and_the_newer_takes_its_place(room: Room) -> None:
    socket, heard = room.socket(), []
    await room.submit("a", attempt=42)
    await room.pass_time(FIRST_PLACE)
    heard += await told(socket)
    lease = await room.take()
    heard += await told(socket)
    await room.dispatcher.submit(make_job("b", owner=ADA, attempt=42, content="newer"))
    await room.pass_time(PERIOD + FIRST_PLACE)
    heard += await told(socket)

    await room.dispatcher.release(lease.id)
    await room.pass_time(PERIOD + FIRST_PLACE)
    heard += await told(socket)
    await room.finish(await room.take())

    assert [*heard, *await told(socket)] == [
        ("a", "place 1"),
        ("a", "place 0"),
        ("b", "place 1"),
        ("b", "accepted"),
    ]


async def test_a_submission_that_is_refused_ends_without_ever_waiting(room: Room) -> None:
    socket = room.socket()
    job = make_job("a", owner=ADA, attempt=42)

    await room.dispatcher.refuse(job, broken(Cause.FULL).failure)
    await room.pass_time(PERIOD + FIRST_PLACE)

    [final] = await drained(socket)
    assert isinstance(final, Error)
    assert (final.error_code, final.target, final.target_id) == ("429", "EXERCICE", "42")


# -- several sockets ------------------------------------------------------------------------------


async def test_all_tabs_of_a_user_are_told_and_nobody_else_is(room: Room) -> None:
    tabs, stranger = [room.socket(), room.socket()], room.socket(GRACE)
    await room.submit("a")
    await room.pass_time(FIRST_PLACE)
    places = [await told(tab) for tab in tabs]

    await room.finish(await room.take())

    assert places == [[("a", "place 1")]] * 2
    assert [await told(tab) for tab in tabs] == [[("a", "accepted")]] * 2
    assert await told(stranger) == []


async def test_a_tab_that_comes_late_catches_up_without_doubles(room: Room) -> None:
    room.socket()
    for run in ("x", "a", "b"):
        await room.submit(run, GRACE if run == "x" else ADA)
    await room.pass_time(PERIOD + FIRST_PLACE)

    late = room.socket()
    await room.pass_time(PERIOD + FIRST_PLACE)

    assert await told(late) == [("a", "place 2"), ("b", "place 3")]


async def test_a_tab_that_comes_between_submission_and_first_place_is_told_once(
    room: Room,
) -> None:
    first = room.socket()
    await room.submit("a")

    second = room.socket()
    await room.pass_time(PERIOD + FIRST_PLACE)

    assert await told(second) == [("a", "place 1")]
    assert await told(first) in ([], [("a", "place 1")])


async def test_a_tab_that_left_is_told_nothing_and_the_others_are(room: Room) -> None:
    gone, stays = room.socket(), room.socket()
    room.watch.leave(ADA, gone)

    await room.submit("a")
    await room.pass_time(FIRST_PLACE)
    await room.finish(await room.take())

    assert await told(gone) == []
    assert await told(stays) == [("a", "accepted")]


async def test_who_comes_back_is_told_where_each_run_stands_now(room: Room) -> None:
    first = room.socket()
    for run in ("x", "a"):
        await room.submit(run, GRACE if run == "x" else ADA)
    await room.pass_time(PERIOD + FIRST_PLACE)
    room.watch.leave(ADA, first)
    await room.finish(await room.take())
    await room.pass_time(PERIOD + FIRST_PLACE)

    again = room.socket()

    assert await told(again) == [("a", "place 1")]


async def test_a_slow_reader_hears_everything_in_the_end_and_the_others_at_once(room: Room) -> None:
    slow, quick = room.socket(limit=3), room.socket(limit=3)
    heard = []

    for number in range(5):
        await room.submit(f"r{number}")
        await room.finish(await room.take())
        heard += await told(quick)

    assert heard == [(f"r{number}", "accepted") for number in range(5)]
    assert await room.read(slow) == heard
