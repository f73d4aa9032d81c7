"""Tokens that the backends keep: all are asked at once, and the first who knows is believed."""

import asyncio
from contextlib import suppress

import pytest

from commserver.errors import NotAuthenticated, Unanswered
from commserver.services.auth_service import AuthService, Identity
from commserver.services.verifiers import backend
from commserver.services.verifiers.backend import BackendVerifier
from tests.fakes import FakeClock, settle

TOKEN = "a user's token"  # it opens nothing
ADA, GRACE = Identity(1), Identity(2)


class FakeBackend:
    """A backend and its link.

    accounts: whose tokens it knows. up: whether its link is there. asked: what it was asked.
    cancelled: how many questions were taken back.
    """

    def __init__(self, name: str, accounts: dict[str, int] | None = None, *, up: bool = True):
        self.name = name
        self.accounts = accounts or {}
        self.up = up
        self.asked: list[str] = []
        self.cancelled = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def authenticate(self, token: str) -> int | None:
        self.asked.append(token)
        if not self.up:
            raise Unanswered("no link")
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if not self.up:
            raise Unanswered("the link was lost")
        return self.accounts.get(token)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def first() -> FakeBackend:
    return FakeBackend("first")


@pytest.fixture
def second() -> FakeBackend:
    return FakeBackend("second", {TOKEN: 1})


@pytest.fixture
def verifier(first: FakeBackend, second: FakeBackend, clock: FakeClock) -> BackendVerifier:
    return BackendVerifier([first, second], clock, timeout=5.0)


async def passing(clock: FakeClock, asking: "asyncio.Task[Identity]", seconds: float) -> None:
    """Let time pass in small steps, until the question is answered at the latest."""
    for _ in range(int(seconds * 10)):
        await settle()
        if asking.done():
            return
        clock.advance(0.1)
    await settle()


async def test_every_backend_is_asked_at_once(
    verifier: BackendVerifier, first: FakeBackend, second: FakeBackend
) -> None:
    first.answers.clear()
    second.answers.clear()

    asking = asyncio.create_task(verifier.identify(TOKEN))
    await settle()

    assert first.asked == second.asked == [TOKEN]
    second.answers.set()
    assert await asking == ADA


async def test_the_first_that_names_an_account_is_believed_and_the_others_are_let_go(
    verifier: BackendVerifier, first: FakeBackend, second: FakeBackend
) -> None:
    first.answers.clear()

    assert await verifier.identify(TOKEN) == ADA

    assert first.cancelled == 1


async def test_account_zero_is_an_account(clock: FakeClock) -> None:
    verifier = BackendVerifier([FakeBackend("only", {TOKEN: 0})], clock, timeout=5.0)

    assert await verifier.identify(TOKEN) == Identity(0)


async def test_a_token_that_no_backend_knows_is_nobodys(verifier: BackendVerifier) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier.identify("unknown")


@pytest.mark.parametrize("number", [-1, -7, 2**63, 10**30])
async def test_an_id_that_no_account_can_have_is_refused(clock: FakeClock, number: int) -> None:
    verifier = BackendVerifier([FakeBackend("odd", {TOKEN: number})], clock, timeout=5.0)

    with pytest.raises(NotAuthenticated):
        await verifier.identify(TOKEN)


async def test_an_odd_id_of_one_backend_does_not_hide_the_account_of_another(
    verifier: BackendVerifier, first: FakeBackend
) -> None:
    first.accounts[TOKEN] = 2**63

    assert await verifier.identify(TOKEN) == ADA


async def test_when_nobody_answers_in_five_seconds_it_is_nobodys_failure(
    verifier: BackendVerifier, first: FakeBackend, second: FakeBackend, clock: FakeClock
) -> None:
    first.answers.clear()
    second.answers.clear()
    asking = asyncio.create_task(verifier.identify(TOKEN))
    await settle()

    clock.advance(4.9)
    await settle()
    assert not asking.done()
    clock.advance(0.1)

    with pytest.raises(Unanswered):
        await asking
    assert first.cancelled == second.cancelled == 1


async def test_one_no_and_one_silence_are_no_answer(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    second.answers.clear()
    asking = asyncio.create_task(verifier.identify("unknown"))

    await passing(clock, asking, 6.0)

    with pytest.raises(Unanswered):
        await asking


async def test_one_no_and_a_link_that_is_down_are_no_answer(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    second.up = False
    asking = asyncio.create_task(verifier.identify("unknown"))

    await passing(clock, asking, 6.0)

    with pytest.raises(Unanswered):
        await asking


async def test_a_link_that_comes_up_in_time_is_asked(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    second.up = False
    asking = asyncio.create_task(verifier.identify(TOKEN))
    await passing(clock, asking, 3.0)

    second.up = True
    await passing(clock, asking, 1.0)

    assert await asking == ADA


async def test_a_link_that_is_lost_with_the_question_is_asked_again(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    second.answers.clear()
    asking = asyncio.create_task(verifier.identify(TOKEN))
    await settle()
    second.up = False
    second.answers.set()
    await settle()

    second.up = True
    await passing(clock, asking, 1.0)

    assert await asking == ADA
    assert len(second.asked) == 2


async def test_who_was_named_is_believed_for_ten_minutes(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    await verifier.identify(TOKEN)
    second.accounts.clear()

    clock.advance(599.9)
    assert await verifier.identify(TOKEN) == ADA
    assert len(second.asked) == 1
    clock.advance(0.1)
    with pytest.raises(NotAuthenticated):
        await verifier.identify(TOKEN)


async def test_that_nobody_is_known_is_never_kept(
    verifier: BackendVerifier, first: FakeBackend
) -> None:
    with pytest.raises(NotAuthenticated):
        await verifier.identify("new")
    first.accounts["new"] = 2

    assert await verifier.identify("new") == GRACE


async def test_that_nobody_answered_is_never_kept(
    verifier: BackendVerifier, second: FakeBackend, clock: FakeClock
) -> None:
    second.up = False
    asking = asyncio.create_task(verifier.identify(TOKEN))
    await passing(clock, asking, 6.0)
    with pytest.raises(Unanswered):
        await asking

    second.up = True

    assert await verifier.identify(TOKEN) == ADA


async def test_no_more_answers_are_kept_than_there_is_room_for(
    first: FakeBackend, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "KEPT_LIMIT", 3)
    first.accounts = {f"token {n}": n for n in range(5)}
    verifier = BackendVerifier([first], clock, timeout=5.0)
    for token in first.accounts:
        await verifier.identify(token)

    for token in ("token 4", "token 3", "token 2", "token 1"):
        await verifier.identify(token)

    assert first.asked[5:] == ["token 1"]


async def test_only_hashes_of_tokens_are_kept(verifier: BackendVerifier) -> None:
    await verifier.identify(TOKEN)

    assert TOKEN not in repr(vars(verifier))


async def test_equal_tokens_at_the_same_time_are_one_question(
    verifier: BackendVerifier, second: FakeBackend
) -> None:
    second.answers.clear()
    asking = [asyncio.create_task(verifier.identify(TOKEN)) for _ in range(5)]
    await settle()

    second.answers.set()

    assert await asyncio.gather(*asking) == [ADA] * 5
    assert len(second.asked) == 1


async def test_who_goes_away_leaves_the_question_to_the_others(
    verifier: BackendVerifier, second: FakeBackend
) -> None:
    second.answers.clear()
    gone, stays = (asyncio.create_task(verifier.identify(TOKEN)) for _ in range(2))
    await settle()

    gone.cancel()
    await settle()
    second.answers.set()

    assert await stays == ADA
    assert gone.cancelled()
    assert len(second.asked) == 1


async def test_the_last_who_goes_away_takes_the_question_back(
    verifier: BackendVerifier, second: FakeBackend
) -> None:
    second.answers.clear()
    asking = asyncio.create_task(verifier.identify(TOKEN))
    await settle()

    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await settle()

    assert second.cancelled == 1
    second.answers.set()
    assert await verifier.identify(TOKEN) == ADA


async def test_different_tokens_do_not_wait_for_each_other(
    verifier: BackendVerifier, first: FakeBackend, second: FakeBackend
) -> None:
    second.answers.clear()
    slow = asyncio.create_task(verifier.identify("slow"))
    await settle()
    first.accounts[TOKEN] = 2

    assert await verifier.identify(TOKEN) == GRACE

    slow.cancel()
    await settle()


@pytest.mark.parametrize("token", ["", "x" * 8193])
async def test_what_no_token_is_costs_no_question(
    verifier: BackendVerifier, first: FakeBackend, token: str
) -> None:
    with pytest.raises(NotAuthenticated):
        await AuthService(verifier).identify(token)

    assert not first.asked
