"""What a browser's packets make us do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.finals import account
from commserver.core.jobs import AttemptId, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure
from commserver.errors import (
    MalformedPacket,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    RateLimited,
    StoreError,
)
from commserver.gateways.browser.actions import (
    ACTIONS,
    MISSES,
    Connection,
    Room,
    Services,
    on_ack,
    on_announcements,
    on_auth,
    on_cancel,
    on_progress,
    on_status,
    refuse,
)
from commserver.gateways.browser.outbox import Behind, Outbox
from commserver.gateways.browser.packets import (
    Ack,
    Announcement,
    AnnouncementsSwitch,
    Auth,
    Cancel,
    ExerciceExecuted,
    Ok,
    Packet,
    PlaceInQueue,
    Progress,
    ProgressSwitch,
    Status,
)
from commserver.gateways.browser.protocol import BrowserProtocol, Phase
from commserver.gateways.doorkeeper import WRONG_TOKENS, Doorkeeper
from commserver.services.auth_service import Identity
from commserver.services.watch_service import WatchService
from tests.fakes import FakeClock, FakeLedger, completed, make_job, make_offer
from tests.unit.gateways.browser.outboxes import drained
from tests.unit.gateways.services import (
    FakeAuthService,
    FakeFinalsService,
    FakeRecordService,
    MemoryDatabase,
    QueueExecService,
    memory_announcements,
)

ADA, GRACE = Identity(1), Identity(2)
CLIENT = "192.0.2.1"
Ask = Callable[[Any, Connection], Awaitable[Packet | None]]


@pytest.fixture
def auth() -> FakeAuthService:
    return FakeAuthService({"ada": 1, "ada's second": 1, "grace": 2})


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def bus() -> EventBus:
    return EventBus()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def dispatcher(ledger: FakeLedger, bus: EventBus, clock: FakeClock) -> Dispatcher:
    return Dispatcher(Board(), ledger, bus, clock)


@pytest.fixture
def records(ledger: FakeLedger, dispatcher: Dispatcher) -> FakeRecordService:
    return FakeRecordService(ledger, dispatcher.board)


@pytest.fixture
def connection(
    auth: FakeAuthService,
    dispatcher: Dispatcher,
    ledger: FakeLedger,
    records: FakeRecordService,
    database: MemoryDatabase,
    bus: EventBus,
    clock: FakeClock,
) -> Connection:
    services = Services(
        Doorkeeper(auth, clock),
        WatchService(dispatcher, bus, clock, period=1.0),
        FakeFinalsService(ledger),
        QueueExecService(dispatcher),
        records,
        memory_announcements(database, clock),
        clock,
    )
    return Connection(BrowserProtocol(failures=3), Room(services), Outbox(limit=100), CLIENT)


async def test_a_right_token_binds_the_socket_and_is_answered_by_ok(connection: Connection) -> None:
    answer = await on_auth(Auth("ada"), connection)

    assert answer is None
    assert await drained(connection.outbox) == [Ok(), Behind(0, None)]
    assert connection.protocol.known() == ADA


async def test_the_catch_up_comes_after_the_ok(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    for run in ("a", "b", "c"):
        owner = "2" if run == "b" else "1"
        await dispatcher.submit(make_job(run, attempt=ord(run), owner=owner))

    await on_auth(Auth("ada"), connection)

    assert await drained(connection.outbox) == [Ok(), Behind(0, None)]
    connection.outbox.caught_up([], 0, more=False)
    assert await drained(connection.outbox) == [
        PlaceInQueue("97", "1", "a"),
        PlaceInQueue("99", "3", "c"),
    ]


async def test_the_same_account_again_is_ok_again_and_nothing_is_told_twice(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await dispatcher.submit(make_job("a", attempt=1, owner="1"))
    await on_auth(Auth("ada"), connection)
    connection.outbox.caught_up([], 0, more=False)
    await drained(connection.outbox)

    await on_auth(Auth("ada's second"), connection)

    assert await drained(connection.outbox) == [Ok()]


async def test_another_account_is_not_allowed_and_learns_nothing(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await dispatcher.submit(make_job("a", attempt=1, owner="2"))
    await on_auth(Auth("ada"), connection)
    connection.outbox.caught_up([], 0, more=False)
    await drained(connection.outbox)

    with pytest.raises(NotAllowed):
        await on_auth(Auth("grace"), connection)

    assert await drained(connection.outbox) == []
    assert connection.protocol.known() == ADA


async def test_an_ack_ends_what_is_owed_to_this_account_and_no_other(
    connection: Connection, dispatcher: Dispatcher, ledger: FakeLedger
) -> None:
    for run, owner in (("a", "1"), ("b", "1"), ("c", "2")):
        job = make_job(run, attempt=ord(run), owner=owner)
        await dispatcher.refuse(job, Failure(Cause.FULL, "full"))
    await on_auth(Auth("ada"), connection)

    answer = await on_ack(Ack("1"), connection)

    assert answer == Ok()
    assert ledger.delivered == {"account:1": 1}


async def test_a_stranger_acknowledges_nothing(connection: Connection, ledger: FakeLedger) -> None:
    with pytest.raises(NotAuthenticated):
        await on_ack(Ack("1"), connection)

    assert ledger.delivered == {}


async def test_a_wrong_token_binds_nobody(connection: Connection) -> None:
    with pytest.raises(NotAuthenticated):
        await on_auth(Auth("mallory"), connection)

    assert connection.protocol.phase is Phase.STRANGER
    assert await drained(connection.outbox) == []


async def test_a_verifier_that_is_away_binds_nobody_and_counts_no_failure(
    connection: Connection, auth: FakeAuthService
) -> None:
    auth.fault = StoreError("away")
    for _ in range(5):
        with pytest.raises(StoreError) as caught:
            await on_auth(Auth("ada"), connection)
        refuse(caught.value, connection)

    assert connection.protocol.phase is Phase.STRANGER


def test_only_failures_to_prove_who_one_is_bar_a_stranger(connection: Connection) -> None:
    for _ in range(5):
        refuse(MalformedPacket("nonsense"), connection)
        refuse(NotAllowed("no"), connection)
    before = connection.protocol.phase

    codes = [refuse(NotAuthenticated("no"), connection).error_code for _ in range(3)]

    assert codes == ["401", "401", "401"]
    assert (before, connection.protocol.phase) == (Phase.STRANGER, Phase.BARRED)


def test_what_is_our_fault_is_logged_and_what_is_theirs_is_not(connection: Connection) -> None:
    with capture_logs() as theirs:
        refuse(MalformedPacket("nonsense"), connection)
        refuse(NotAuthenticated("no"), connection)
    with capture_logs() as ours:
        refuse(StoreError("away"), connection)

    assert theirs == []
    assert [(line["event"], line["log_level"]) for line in ours] == [("command_failed", "warning")]


# -- STATUS ---------------------------------------------------------------------------------------


async def known(connection: Connection) -> None:
    """Be Ada, with everything told that she is owed."""
    await on_auth(Auth("ada"), connection)
    connection.outbox.caught_up([], 0, more=False)
    await drained(connection.outbox)


async def waits(dispatcher: Dispatcher, run: str, attempt: int, owner: str = "1") -> None:
    await dispatcher.submit(make_job(run, attempt=attempt, owner=owner))


async def test_status_tells_the_place_of_a_run_that_waits(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "x", 1, "2")
    await waits(dispatcher, "a", 2)

    answer = await on_status(Status("2"), connection)

    assert answer is None
    assert await drained(connection.outbox) == [Ok(), PlaceInQueue("2", "2", "a")]


async def test_status_tells_0_of_a_run_in_hand(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    await dispatcher.try_lease(make_offer())

    await on_status(Status("1"), connection)

    assert await drained(connection.outbox) == [Ok(), PlaceInQueue("1", "0", "a")]


async def test_status_tells_of_the_run_that_waits_behind_one_in_hand(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    await dispatcher.try_lease(make_offer())
    await dispatcher.submit(make_job("b", attempt=1, owner="1", content="changed"))

    await on_status(Status("1"), connection)

    assert await drained(connection.outbox) == [Ok(), PlaceInQueue("1", "1", "b")]


async def test_status_tells_the_last_final_and_that_is_no_push(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    for run in ("a", "b"):
        await waits(dispatcher, run, 1)
        [lease] = await dispatcher.try_lease(make_offer())
        await dispatcher.finished(lease, completed())
    await on_auth(Auth("ada"), connection)  # nothing that is owed was sent yet
    await drained(connection.outbox)

    await on_status(Status("1"), connection)
    [first, second] = await drained(connection.outbox)

    assert first == Ok()
    assert second == ExerciceExecuted("1", "b", "accepted", "10", "2")
    assert (connection.outbox.left(), connection.outbox.sent) == (0, 0)


async def test_status_tells_a_final_whose_number_is_forgotten_without_one(
    connection: Connection, ledger: FakeLedger, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    await dispatcher.cancel(RunId("a"))
    connection.outbox.caught_up([], 1, more=False)
    await drained(connection.outbox)
    ledger.finals.clear()

    await on_status(Status("1"), connection)

    assert await drained(connection.outbox) == [
        Ok(),
        ExerciceExecuted("1", "a", "cancelled", "", ""),
    ]


async def test_status_of_a_run_that_is_queued_while_the_rows_are_read_tells_its_place(
    connection: Connection, dispatcher: Dispatcher, records: FakeRecordService
) -> None:
    records.attempts[AttemptId(1)] = ADA.owner
    await known(connection)
    asked = records.asked
    asking = asyncio.create_task(on_status(Status("1"), connection))
    await records.until_asked(asked + 1)
    records.open.clear()  # for what it reads next
    await records.until_asked(asked + 2)

    await waits(dispatcher, "a", 1)
    records.open.set()
    await asking

    assert await drained(connection.outbox) == [Ok(), PlaceInQueue("1", "1", "a")]


async def test_a_final_that_overtakes_the_place_asked_for_is_told_alone(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)

    await on_status(Status("1"), connection)
    await dispatcher.cancel(RunId("a"))

    assert await drained(connection.outbox) == [
        Ok(),
        ExerciceExecuted("1", "a", "cancelled", "", "1"),
    ]


@pytest.mark.parametrize("ask", [on_status, on_cancel])
@pytest.mark.parametrize(
    ("id", "error"),
    [
        ("9", NotFound),  # nobody's
        ("7", NotFound),  # one's own, never run
        ("2", NotAllowed),
        ("", NotFound),
        ("x", NotFound),
        ("-1", NotFound),
        ("1.0", NotFound),
        (" 2", NotAllowed),
        ("\u0661", NotFound),
        ("9223372036854775808", NotFound),
        ("9" * 10_000, NotFound),
    ],
)
async def test_what_is_not_there_is_404_and_what_is_somebody_elses_403(
    connection: Connection,
    dispatcher: Dispatcher,
    records: FakeRecordService,
    ask: Ask,
    id: str,
    error: type[NotFound | NotAllowed],
) -> None:
    await known(connection)
    await waits(dispatcher, "g", 2, "2")
    records.attempts[AttemptId(7)] = ADA.owner

    with pytest.raises(error) as caught:
        await ask(Status(id) if ask is on_status else Cancel(id), connection)

    answer = refuse(caught.value, connection)
    assert (answer.target, answer.target_id) == ("EXERCICE", id.strip()[:40])
    assert await drained(connection.outbox) == []
    assert dispatcher.board.state(RunId("g")) is State.QUEUED


# -- CANCEL ---------------------------------------------------------------------------------------


async def test_cancel_ends_every_run_and_its_ok_goes_before_the_finals(
    connection: Connection, dispatcher: Dispatcher, ledger: FakeLedger
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    await dispatcher.try_lease(make_offer())
    await dispatcher.submit(make_job("b", attempt=1, owner="1", content="changed"))

    answer = await on_cancel(Cancel("1"), connection)

    assert answer is None
    assert await drained(connection.outbox) == [
        Ok(),
        ExerciceExecuted("1", "a", "cancelled", "", "1"),
        ExerciceExecuted("1", "b", "cancelled", "", "2"),
    ]
    finals = ledger.finals[account(ADA.owner)]
    assert [(final.run, final.state) for final in finals] == [
        ("a", State.CANCELLED),
        ("b", State.CANCELLED),
    ]


async def test_cancel_of_what_has_ended_is_404(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    [lease] = await dispatcher.try_lease(make_offer())
    await dispatcher.finished(lease, completed())

    with pytest.raises(NotFound):
        await on_cancel(Cancel("1"), connection)

    assert [type(one) for one in await drained(connection.outbox)] == [ExerciceExecuted]


async def test_a_cancel_that_could_not_be_stored_holds_nothing_back_afterwards(
    connection: Connection, dispatcher: Dispatcher, ledger: FakeLedger
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    ledger.fail()

    with pytest.raises(StoreError):
        await on_cancel(Cancel("1"), connection)
    await dispatcher.cancel(RunId("a"))

    assert [type(one) for one in await drained(connection.outbox)] == [ExerciceExecuted]


# -- who asks in vain -----------------------------------------------------------------------------


async def test_more_than_thirty_misses_in_a_minute_are_too_many(
    connection: Connection, dispatcher: Dispatcher, clock: FakeClock
) -> None:
    await known(connection)
    await waits(dispatcher, "g", 2, "2")
    await waits(dispatcher, "a", 1)
    for number in range(MISSES):
        with pytest.raises(NotAllowed if number % 2 else NotFound):
            await on_status(Status("2" if number % 2 else "9"), connection)

    with pytest.raises(RateLimited):
        await on_status(Status("1"), connection)
    with pytest.raises(RateLimited):
        await on_cancel(Cancel("1"), connection)
    clock.advance(60)
    await on_status(Status("1"), connection)

    assert await drained(connection.outbox) == [Ok(), PlaceInQueue("1", "2", "a")]


async def test_misses_are_an_accounts_not_a_sockets_and_nobody_elses(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    for _ in range(MISSES):
        with pytest.raises(NotFound):
            await on_status(Status("9"), connection)
    again, other = beside(connection), beside(connection)
    await on_auth(Auth("ada's second"), again)
    await on_auth(Auth("grace"), other)

    with pytest.raises(RateLimited):
        await on_status(Status("9"), again)
    with pytest.raises(NotFound):
        await on_status(Status("9"), other)


def beside(connection: Connection) -> Connection:
    """Return another socket of the same room."""
    return Connection(BrowserProtocol(failures=3), connection.room, Outbox(limit=100), CLIENT)


# -- PROGRESS and ANNOUNCEMENTS -------------------------------------------------------------------


async def test_progress_is_told_while_it_is_asked_for(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    await known(connection)
    await waits(dispatcher, "a", 1)
    [lease] = await dispatcher.try_lease(make_offer())

    answers, heard = [], []
    for switch in (ProgressSwitch("1"), ProgressSwitch("0")):
        answers.append(await on_progress(switch, connection))
        dispatcher.progressed(lease, "run", "3/7")
        heard.append(await drained(connection.outbox))

    assert answers == [Ok(), Ok()]
    assert heard == [[Progress("1", "a", "run", "3/7")], []]


async def test_the_current_announcement_comes_at_once_and_later_ones_as_they_come(
    connection: Connection,
) -> None:
    await known(connection)
    announcements = connection.room.services.announcements
    await announcements.announce("one")

    await on_announcements(AnnouncementsSwitch("1"), connection)
    at_once = await drained(connection.outbox)
    await announcements.announce("two")
    later = await drained(connection.outbox)
    await announcements.withdraw()

    assert at_once == [Ok(), Announcement("1", "one", "")]
    assert later == [Announcement("2", "two", "")]
    assert await drained(connection.outbox) == [Announcement("2", "", "")]


async def test_without_an_announcement_there_is_nothing_but_ok(connection: Connection) -> None:
    await known(connection)

    await on_announcements(AnnouncementsSwitch("1"), connection)

    assert await drained(connection.outbox) == [Ok()]


async def test_announcements_end_when_they_are_switched_off_or_the_socket_leaves(
    connection: Connection,
) -> None:
    other = beside(connection)
    for one in (connection, other):
        await known(one)
        for _ in range(2):  # twice is once
            await on_announcements(AnnouncementsSwitch("1"), one)

    await on_announcements(AnnouncementsSwitch("0"), connection)
    other.leave()
    await drained(connection.outbox), await drained(other.outbox)
    announcements = connection.room.services.announcements
    await announcements.announce("one")

    assert await drained(connection.outbox) == await drained(other.outbox) == []
    assert announcements._handlers == {}  # what is forgotten is not to be seen from outside


async def test_announcements_that_cannot_be_read_are_not_subscribed_to(
    connection: Connection, database: MemoryDatabase
) -> None:
    await known(connection)
    database.fault = StoreError("away")

    with pytest.raises(StoreError):
        await on_announcements(AnnouncementsSwitch("1"), connection)

    assert await drained(connection.outbox) == []
    assert connection.unsubscribe is None


# -- strangers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "packet",
    [
        Ack("1"),
        Status("1"),
        Cancel("1"),
        ProgressSwitch("1"),
        AnnouncementsSwitch("1"),
    ],
)
async def test_every_other_command_before_ok_is_401(connection: Connection, packet: Packet) -> None:
    await connection.room.services.announcements.announce("one")

    with pytest.raises(NotAuthenticated):
        await ACTIONS[type(packet)](packet, connection)

    assert await drained(connection.outbox) == []


async def test_a_wrong_token_too_many_bars_its_socket_even_a_known_one(
    connection: Connection,
) -> None:
    guessing = beside(connection)
    for number in range(WRONG_TOKENS):
        with pytest.raises(NotAuthenticated):
            await on_auth(Auth(f"wrong {number}"), guessing)
    await on_auth(Auth("ada"), connection)

    with pytest.raises(RateLimited) as caught:
        await on_auth(Auth("wrong"), connection)
    answer = refuse(caught.value, connection)

    assert (answer.error_code, answer.target) == ("429", "OTHER")
    assert connection.protocol.phase is Phase.BARRED


async def test_other_limits_bar_nobody(connection: Connection) -> None:
    refuse(RateLimited("later"), connection)

    assert connection.protocol.phase is Phase.STRANGER


async def test_a_token_is_remembered_and_never_shown(connection: Connection) -> None:
    await on_auth(Auth("ada"), connection)
    await on_auth(Auth("ada's second"), connection)
    with pytest.raises(NotAllowed):
        await on_auth(Auth("grace"), connection)

    assert connection.token == "ada's second"  # which is none
    assert "second" not in repr(connection)
