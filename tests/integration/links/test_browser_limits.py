"""How much one socket, one account and one address may ask, and who stays in."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from structlog.typing import EventDict
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from commserver.errors import StoreError, Unanswered
from tests.fakes import settle
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, PATIENCE, Site, closing, packet, said
from tests.integration.services.site import until

OK = '{"cmd":"OK"}'


def auth(token: str) -> str:
    return json.dumps({"cmd": "AUTH", "TOKEN": token})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


async def code(browser: ClientConnection) -> str:
    """Return the code of the next answer, "" for OK."""
    return packet(await said(browser)).get("error_code", "")


# -- commands of one socket -----------------------------------------------------------------------


async def test_too_many_commands_are_429_and_not_looked_at(site: Site) -> None:
    async with connect(site.url) as browser, connect(site.url) as other:
        await browser.send(auth(SECRET))
        for _ in range(79):
            await browser.send('{"cmd":"ACK","seq":"1"}')
        in_time = [await code(browser) for _ in range(80)]
        await browser.send('{"cmd":"ACK","seq":"1"}')
        await browser.send("hello")
        above = [packet(await said(browser)) for _ in range(2)]
        await other.send(auth(SECRET))
        elsewhere = await said(other)
        site.clock.advance(0.05)  # one more of twenty a second
        for _ in range(2):
            await browser.send(auth("ada's second"))

        assert [await code(browser) for _ in range(2)] == ["", "429"]
    assert in_time == [""] * 80
    assert [(each["error_code"], each["target"], each["target_id"]) for each in above] == [
        ("429", "OTHER", "")
    ] * 2
    assert elsewhere == OK


async def test_the_first_auth_of_a_socket_above_its_limit_is_answered_by_429() -> None:
    async with Site(commands=1) as site, connect(site.url) as browser:
        for _ in range(4):
            await browser.send("hello")
        await browser.send(auth(SECRET))

        assert [await code(browser) for _ in range(5)] == ["400"] * 4 + ["429"]
        assert site.auth.asked == 0


async def test_who_goes_on_for_ten_seconds_is_closed() -> None:
    async with Site(commands=1) as site, connect(site.url) as browser:
        await browser.send(auth(SECRET))
        await said(browser)
        answers = []
        for _ in range(20):
            for _ in range(5):
                await browser.send("hello")
            answers += [await code(browser) for _ in range(5)]
            site.clock.advance(0.5)
        last, closed = await _flood(browser)

    assert answers.count("429") > 80
    assert (last, closed) == ("429", 1008)


async def _flood(browser: ClientConnection) -> tuple[str, int | None]:
    try:
        for _ in range(10):
            await browser.send("hello")
    except ConnectionClosed:
        pass
    answers, closed = await closing(browser)
    return packet(answers[-1])["error_code"], closed


# -- wrong tokens of one address ------------------------------------------------------------------


async def test_after_twenty_wrong_tokens_one_more_closes_its_socket_and_a_right_one_is_ok(
    site: Site,
) -> None:
    for number in range(20):
        async with connect(site.url) as guessing:
            await guessing.send(auth(f"wrong {number}"))
            assert await code(guessing) == "401"

    async with connect(site.url) as guessing, connect(site.url) as right:
        await guessing.send(auth("wrong"))
        answers, closed = await closing(guessing)
        await right.send(auth(SECRET))

        assert await said(right) == OK
    assert ([packet(each)["error_code"] for each in answers], closed) == (["429"], 1008)
    async with connect(site.url) as guessing:
        site.clock.advance(60)
        await guessing.send(auth("wrong"))
        assert await code(guessing) == "401"


async def test_a_room_of_500_comes_back_at_once_beside_100_wrong_tokens() -> None:
    """No limit keyed on the address alone may stop a valid token."""
    async with Site() as site:

        async def dial(token: str) -> str:
            async with connect(
                site.url, ping_interval=None, compression=None, open_timeout=PATIENCE
            ) as browser:
                await browser.send(auth(token))
                return await code(browser)

        for number in range(20):
            await dial(f"wrong {number}")
        site.auth.delay = 0.001
        tokens = [SECRET if number % 6 else f"guess {number}" for number in range(600)]
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*map(dial, tokens))

    right = [answer for token, answer in zip(tokens, answers, strict=True) if token == SECRET]
    wrong = [answer for token, answer in zip(tokens, answers, strict=True) if token != SECRET]
    assert right == [""] * 500
    assert wrong == ["429"] * 100


# -- whether a token is still good ----------------------------------------------------------------


async def welcome(site: Site, browser: ClientConnection, token: str = SECRET) -> None:
    await browser.send(auth(token))
    assert await said(browser) == OK
    await settle()


async def test_a_token_that_is_gone_after_the_period_is_401_and_closes(site: Site) -> None:
    async with connect(site.url) as browser, connect(site.url) as grace:
        await welcome(site, browser)
        await welcome(site, grace, "grace")
        site.auth.forget(SECRET)
        site.clock.advance(800)
        await settle()
        early = site.auth.asked
        site.clock.advance(200)

        answers, closed = await closing(browser)

        await grace.send("hello")
        assert await code(grace) == "400"
    assert early == 2
    assert ([packet(each)["error_code"] for each in answers], closed) == (["401"], 1008)


@pytest.mark.parametrize("fault", [StoreError("away"), Unanswered("away")])
async def test_who_cannot_be_looked_at_stays_and_is_looked_at_a_minute_later(
    site: Site, fault: Exception
) -> None:
    async with connect(site.url) as browser:
        await welcome(site, browser)
        site.auth.fault = fault
        site.clock.advance(1000)
        await site.auth.until_asked(2)
        await browser.send("hello")
        stays = await code(browser)
        site.auth.fault = None
        site.auth.forget(SECRET)
        site.clock.advance(61)

        _, closed = await closing(browser)
    assert (stays, closed) == ("400", 1008)


async def test_the_newer_token_is_looked_at_from_then_on(site: Site) -> None:
    async with connect(site.url) as browser:
        await welcome(site, browser)
        await welcome(site, browser, "ada's second")
        site.auth.forget(SECRET)
        site.clock.advance(1000)
        await site.auth.until_asked(3)
        await browser.send("hello")
        stays = await code(browser)
        site.auth.forget("ada's second")
        site.clock.advance(1000)

        _, closed = await closing(browser)
    assert (stays, closed) == ("400", 1008)


async def test_a_newer_token_that_comes_while_the_older_is_looked_at_keeps_the_socket(
    site: Site,
) -> None:
    async with connect(site.url) as browser:
        await welcome(site, browser)
        site.auth.forget(SECRET)
        site.auth.held = SECRET
        site.auth.open.clear()
        site.clock.advance(1000)
        await site.auth.until_asked(2)
        await welcome(site, browser, "ada's second")
        site.auth.open.set()
        await settle()
        await browser.send("hello")
        assert await code(browser) == "400"


async def test_a_token_that_has_become_anothers_is_gone(site: Site) -> None:
    async with connect(site.url) as browser:
        await welcome(site, browser)
        site.auth.learn(SECRET, 2)
        site.clock.advance(1000)

        assert (await closing(browser))[1] == 1008


async def test_who_was_shown_out_is_heard_no_more(site: Site) -> None:
    await site.submit("a", ADA)
    async with connect(site.url) as browser:
        await welcome(site, browser)
        site.auth.forget(SECRET)
        site.clock.advance(1000)
        _, closed = await closing(browser)
    await until(lambda: site.watch._watchers == {})  # not to be seen from outside

    assert closed == 1008
    assert site.server._rechecks._due == {}


async def test_a_stranger_is_not_looked_at(site: Site, logs: list[EventDict]) -> None:
    async with connect(site.url) as browser:
        await browser.send(auth("wrong"))
        await said(browser)
        site.clock.advance(1000)
        await settle()

        assert site.auth.asked == 1
