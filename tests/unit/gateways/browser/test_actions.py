"""What a browser's packets make us do."""

import pytest
from structlog.testing import capture_logs

from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.execution import Cause, Failure
from commserver.errors import MalformedPacket, NotAllowed, NotAuthenticated, StoreError
from commserver.gateways.browser.actions import Connection, on_ack, on_auth, refuse
from commserver.gateways.browser.outbox import Behind, Outbox
from commserver.gateways.browser.packets import Ack, Auth, Ok, PlaceInQueue
from commserver.gateways.browser.protocol import BrowserProtocol, Phase
from commserver.services.auth_service import Identity
from commserver.services.watch_service import WatchService
from tests.fakes import FakeClock, FakeLedger, make_job
from tests.unit.gateways.browser.outboxes import drained
from tests.unit.gateways.services import FakeAuthService, FakeFinalsService

ADA, GRACE = Identity(1), Identity(2)


@pytest.fixture
def auth() -> FakeAuthService:
    return FakeAuthService({"ada": 1, "ada's second": 1, "grace": 2})


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def dispatcher(ledger: FakeLedger) -> Dispatcher:
    return Dispatcher(Board(), ledger, EventBus(), FakeClock())


@pytest.fixture
def connection(auth: FakeAuthService, dispatcher: Dispatcher, ledger: FakeLedger) -> Connection:
    watch = WatchService(dispatcher, EventBus(), FakeClock(), period=1.0)
    finals = FakeFinalsService(ledger)
    return Connection(BrowserProtocol(failures=3), auth, watch, finals, Outbox(limit=10))


async def test_a_right_token_binds_the_socket_and_is_answered_by_ok(connection: Connection) -> None:
    answer = await on_auth(Auth("ada"), connection)

    assert answer is None
    assert await drained(connection.outbox) == [Ok(), Behind(0)]
    assert connection.protocol.known() == ADA


async def test_the_catch_up_comes_after_the_ok(
    connection: Connection, dispatcher: Dispatcher
) -> None:
    for run in ("a", "b", "c"):
        owner = "2" if run == "b" else "1"
        await dispatcher.submit(make_job(run, attempt=ord(run), owner=owner))

    await on_auth(Auth("ada"), connection)

    assert await drained(connection.outbox) == [Ok(), Behind(0)]
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
