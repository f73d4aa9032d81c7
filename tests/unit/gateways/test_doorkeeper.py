"""Who is let in, and how slow guessing is."""

import asyncio

import pytest
from structlog.testing import capture_logs

from commserver.errors import NotAuthenticated, StoreError
from commserver.gateways import doorkeeper as module
from commserver.gateways.doorkeeper import AT_ONCE, WRONG_TOKENS, Doorkeeper, TooManyWrong
from commserver.services.auth_service import Identity
from tests.fakes import FakeClock, settle
from tests.unit.gateways.services import FakeAuthService

ROOM, ELSEWHERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def auth() -> FakeAuthService:
    return FakeAuthService({"ada": 1})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def door(auth: FakeAuthService, clock: FakeClock) -> Doorkeeper:
    return Doorkeeper(auth, clock)


async def guess(door: Doorkeeper, times: int, client: str = ROOM) -> list[str]:
    """Show wrong tokens; returns what each was answered by."""
    answers = []
    for number in range(times):
        try:
            await door.identify(f"wrong {number}", client)
        except (NotAuthenticated, TooManyWrong) as error:
            answers.append(type(error).__name__)
    return answers


async def test_after_twenty_wrong_tokens_in_a_minute_further_ones_are_too_many(
    door: Doorkeeper, clock: FakeClock
) -> None:
    first = await guess(door, 22)
    clock.advance(60)
    later = await guess(door, 1)

    assert first == ["NotAuthenticated"] * 20 + ["TooManyWrong"] * 2
    assert later == ["NotAuthenticated"]


async def test_a_right_token_is_let_in_whatever_its_address_did(door: Doorkeeper) -> None:
    await guess(door, 100)

    assert await door.identify("ada", ROOM) == Identity(1)


async def test_other_addresses_are_not_concerned(door: Doorkeeper) -> None:
    await guess(door, 100)

    assert await guess(door, 1, ELSEWHERE) == ["NotAuthenticated"]


async def test_the_addresses_of_one_ipv6_customer_count_together(door: Doorkeeper) -> None:
    answers = [(await guess(door, 1, f"2001:db8::{number:x}"))[0] for number in range(21)]

    assert answers == ["NotAuthenticated"] * 20 + ["TooManyWrong"]
    assert await guess(door, 1, "2001:db8:0:1::1") == ["NotAuthenticated"]


async def test_a_verifier_that_is_away_is_nobodys_failure(
    door: Doorkeeper, auth: FakeAuthService
) -> None:
    auth.fault = StoreError("away")
    for _ in range(WRONG_TOKENS + 1):
        with pytest.raises(StoreError):
            await door.identify("ada", ROOM)
    auth.fault = None

    assert await guess(door, 1) == ["NotAuthenticated"]


async def test_a_noisy_address_is_logged_once_without_any_token(door: Doorkeeper) -> None:
    with capture_logs() as lines:
        await guess(door, 100)

    assert lines == [
        {
            "event": "many_wrong_tokens",
            "client": ROOM,
            "counted_by": ROOM,
            "log_level": "warning",
        }
    ]


async def test_lookups_of_a_noisy_address_wait_for_each_other_and_others_do_not(
    door: Doorkeeper, auth: FakeAuthService
) -> None:
    await guess(door, WRONG_TOKENS)
    asked = auth.asked
    auth.open.clear()

    noisy = [asyncio.create_task(door.identify("ada", ROOM)) for _ in range(10)]
    await settle()
    from_there = auth.asked - asked
    calm = [asyncio.create_task(door.identify("ada", ELSEWHERE)) for _ in range(10)]
    await settle()
    both = auth.asked - asked
    auth.open.set()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*noisy, *calm)

    assert (from_there, both) == (AT_ONCE, AT_ONCE + 10)
    assert answers == [Identity(1)] * 20
    assert door._turns == {}  # what is forgotten is not to be seen from outside


async def test_a_turn_is_waited_for_only_so_long(
    door: Doorkeeper, auth: FakeAuthService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.0)
    await guess(door, WRONG_TOKENS)
    asked = auth.asked
    auth.open.clear()

    noisy = [asyncio.create_task(door.identify("ada", ROOM)) for _ in range(5)]
    async with asyncio.timeout(5):
        await auth.until_asked(asked + 5)
    auth.open.set()

    assert await asyncio.gather(*noisy) == [Identity(1)] * 5


async def test_who_leaves_while_waiting_for_a_turn_leaves_no_trace(
    door: Doorkeeper, auth: FakeAuthService
) -> None:
    await guess(door, WRONG_TOKENS)
    auth.open.clear()
    waiting = [asyncio.create_task(door.identify("ada", ROOM)) for _ in range(5)]
    await settle()

    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    auth.open.set()

    assert door._turns == {}
    assert await door.identify("ada", ROOM) == Identity(1)
