"""What a student may ask for over real sockets, and in which order the answers come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.typing import EventDict
from websockets.asyncio.client import ClientConnection, connect

from commserver.core.finals import account
from commserver.errors import StoreError
from commserver.gateways.browser import session as module
from tests.fakes import settle
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, GRACE, HOST, Site, packet, said

OK = '{"cmd":"OK"}'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECEIPT_DELAY", 0.0)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


@asynccontextmanager
async def tab(site: Site, token: str = SECRET) -> AsyncIterator[ClientConnection]:
    """Open a browser's tab that was answered by OK."""
    async with connect(site.url) as browser:
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{token}"}}')
        assert await said(browser) == OK
        yield browser


async def ask(browser: ClientConnection, command: str, id: str) -> str:
    """Send a command about an attempt; returns its answer."""
    await browser.send(f'{{"cmd":"{command}","id":"{id}"}}')
    return await said(browser)


async def switch(browser: ClientConnection, command: str, on: str) -> None:
    await browser.send(f'{{"cmd":"{command}","on":"{on}"}}')
    assert await said(browser) == OK


async def quiet(browser: ClientConnection) -> bool:
    """Return whether nothing came: the next thing is a new answer."""
    await browser.send("hello")
    return packet(await said(browser)).get("error_code") == "400"


def place(attempt: int, at: int, run: str) -> str:
    return (
        f'{{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"{attempt}","place":"{at}","run":"{run}",'
        '"total":"","eta_low":"","eta_high":"","reason":""}'
    )


def executed(attempt: int, run: str, status: str, grade: str, seq: str) -> str:
    return (
        f'{{"cmd":"EXERCICE_EXECUTED","id":"{attempt}","run":"{run}",'
        f'"status":"{status}","grade":"{grade}","seq":"{seq}"}}'
    )


# -- STATUS ---------------------------------------------------------------------------------------


async def test_status_is_answered_by_ok_and_then_by_how_it_stands(site: Site) -> None:
    async with tab(site) as browser:
        await site.submit("x", GRACE)
        await site.submit("a", ADA)
        waiting = [await ask(browser, "STATUS", "2"), await said(browser)]
        await site.end(await site.take())
        lease = await site.take()
        begun = await said(browser)
        running = [await ask(browser, "STATUS", "2"), await said(browser)]
        await site.end(lease)
        final = await said(browser)
        ended = [await ask(browser, "STATUS", "2"), await said(browser)]

        assert await quiet(browser)
    assert waiting == [OK, place(2, 2, "a")]
    assert begun == place(2, 0, "a")
    assert running == [OK, place(2, 0, "a")]
    assert final == executed(2, "a", "accepted", "10", "1")
    assert ended == [OK, final]


async def test_a_final_told_for_status_is_no_receipt_for_those_before_it() -> None:
    """A pong acknowledges what was pushed before its ping; nothing was."""
    async with Site(ping_period=0.01) as site:
        for run in ("a", "b"):
            await site.end(await site.start(run, ADA))
        site.finals.open.clear()
        async with tab(site) as browser:
            assert await ask(browser, "STATUS", "2") == OK
            assert await said(browser) == executed(2, "b", "accepted", "10", "2")
            await asyncio.sleep(0.05)  # several pings and pongs
            before = dict(site.ledger.delivered)
            site.finals.open.set()
            pushed = [packet(await said(browser))["seq"] for _ in range(2)]
            await site.finals.until_delivered(account(ADA), 2)

    assert (before, pushed) == ({}, ["1", "2"])


async def test_what_has_left_a_socket_is_noted_as_pushed_and_nothing_else_is(site: Site) -> None:
    async with tab(site) as browser:
        for number in range(1, 3):
            await site.end(await site.start(f"r{number}", ADA))
            await said(browser)
            assert await ask(browser, "STATUS", str(number)) == OK
            await said(browser)

    assert site.finals.left == [(account(ADA), 1), (account(ADA), 2)]


# -- CANCEL ---------------------------------------------------------------------------------------


async def test_cancel_is_answered_by_ok_before_the_final_and_other_tabs_get_the_final(
    site: Site,
) -> None:
    async with tab(site) as browser, tab(site) as other:
        await site.submit("a", ADA)

        answer = await ask(browser, "CANCEL", "1")
        finals = [await said(browser), await said(other)]

        assert await quiet(browser)
        assert await quiet(other)
    assert answer == OK
    assert finals == [executed(1, "a", "cancelled", "", "1")] * 2


async def test_cancel_after_the_result_is_404(site: Site) -> None:
    async with tab(site) as browser:
        await site.end(await site.start("a", ADA))
        await said(browser)

        answer = packet(await ask(browser, "CANCEL", "1"))

    assert (answer["error_code"], answer["target"], answer["target_id"]) == ("404", "EXERCICE", "1")


async def test_cancel_that_could_not_be_stored_is_500_and_the_run_goes_on(site: Site) -> None:
    async with tab(site) as browser:
        lease = await site.start("a", ADA)
        site.ledger.fail()

        answer = packet(await ask(browser, "CANCEL", "1"))
        await site.end(lease)

        assert (answer["error_code"], answer["target"]) == ("500", "OTHER")
        assert await said(browser) == executed(1, "a", "accepted", "10", "1")


async def test_somebody_elses_attempt_is_403_and_goes_on(site: Site) -> None:
    await site.submit("a", ADA)

    async with tab(site, "grace") as browser:
        answers = [packet(await ask(browser, each, "1")) for each in ("STATUS", "CANCEL")]

    assert [(each["error_code"], each["target"], each["target_id"]) for each in answers] == [
        ("403", "EXERCICE", "1")
    ] * 2
    assert site.ledger.finals == {}


async def test_a_database_that_is_away_is_500_and_no_miss(
    site: Site, logs: list[EventDict]
) -> None:
    site.records.fault = StoreError("away")
    async with tab(site) as browser:
        answers = [packet(await ask(browser, "STATUS", "1")) for _ in range(40)]

    assert {(each["error_code"], each["target"]) for each in answers} == {("500", "OTHER")}
    failed = [line for line in logs if line["event"] == "command_failed"]
    assert [(line["gateway"], line["client"]) for line in failed] == [("browser", HOST)] * 40


async def test_who_asks_in_vain_too_often_gets_429_in_every_tab(site: Site) -> None:
    async with tab(site) as browser, tab(site) as other, tab(site, "grace") as grace:
        answers = [packet(await ask(browser, "STATUS", "99"))["error_code"] for _ in range(30)]
        further = [packet(await ask(each, "CANCEL", "99")) for each in (browser, other, grace)]

    assert answers == ["404"] * 30
    assert [each["error_code"] for each in further] == ["429", "429", "404"]
    assert further[0]["target"] == "OTHER"


# -- PROGRESS and ANNOUNCEMENTS -------------------------------------------------------------------


async def test_progress_of_ones_own_runs_comes_to_the_tab_that_asked(site: Site) -> None:
    async with tab(site) as browser, tab(site) as other, tab(site, "grace") as grace:
        await switch(browser, "PROGRESS", "1")
        await switch(grace, "PROGRESS", "1")
        lease = await site.start("a", ADA)

        site.dispatcher.progressed(lease, "run", "3/7")
        progress = await said(browser)
        await site.end(lease)
        site.dispatcher.progressed(lease, "run", "7/7")

        assert await said(browser) == await said(other)
        assert await quiet(browser)
        assert await quiet(other)
        assert await quiet(grace)
    assert progress == (
        '{"cmd":"PROGRESS","user_exercice_id":"1","run":"a","stage":"run","text":"3/7"}'
    )


async def test_announcements_come_to_whom_asked_the_current_one_at_once(site: Site) -> None:
    def announcement(id: int, text: str) -> str:
        return f'{{"cmd":"ANNOUNCEMENT","id":"{id}","text":"{text}","until":""}}'

    async with tab(site) as early, tab(site) as late, tab(site) as never:
        await switch(early, "ANNOUNCEMENTS", "1")
        await site.announcements.announce("one")
        heard = [await said(early)]
        await switch(late, "ANNOUNCEMENTS", "1")
        at_once = await said(late)
        await site.announcements.withdraw()
        heard += [await said(early), await said(late)]
        await switch(early, "ANNOUNCEMENTS", "0")
        await site.announcements.announce("two")

        assert await said(late) == announcement(2, "two")
        assert await quiet(early)
        assert await quiet(never)
    assert at_once == announcement(1, "one")
    assert heard == [announcement(1, "one"), announcement(1, ""), announcement(1, "")]
    await settle()


async def test_a_final_that_another_tab_has_acknowledged_still_follows_the_ok_of_its_cancel(
    site: Site,
) -> None:
    async with tab(site) as browser, tab(site) as other:
        await site.submit("a", ADA)
        site.finals.open.clear()  # whoever reads it now, reads it too late

        answer = await ask(browser, "CANCEL", "1")

        assert answer == OK
        assert await said(browser) == await said(other) == executed(1, "a", "cancelled", "", "1")
        site.finals.open.set()
