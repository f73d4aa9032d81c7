"""Finals on real sockets: owed until there is a receipt, in order, once on each socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Opcode

from commserver.core.finals import account
from commserver.errors import StoreError
from commserver.gateways.browser import session as module
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, GRACE, PATIENCE, Site, packet, said
from tests.integration.services.site import until

OK = '{"cmd":"OK"}'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECEIPT_DELAY", 0.0)
    monkeypatch.setattr(module, "STORE_PAUSES", (0.0, 0.0))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


class Deaf(ClientConnection):
    """A browser whose pongs are held back, until a test lets one go."""

    def send_data(self) -> None:
        frames = b"".join(self.protocol.data_to_send())
        if frames and frames[0] & 0x0F == Opcode.PONG:
            self.__dict__.setdefault("held", []).append(frames)
        elif frames:
            self.transport.write(frames)

    async def pinged(self, count: int) -> bytes:
        """Wait until `count` pings have come; returns the pong to the last of them."""
        await until(lambda: len(self.__dict__.get("held", ())) >= count)
        return bytes(self.__dict__["held"][count - 1])


@asynccontextmanager
async def tab(
    site: Site, *, answers_pings: bool = True, token: str = SECRET
) -> AsyncIterator[ClientConnection]:
    """Open a browser's tab that was answered by OK."""
    kind = ClientConnection if answers_pings else Deaf
    async with connect(site.url, create_connection=kind, ping_interval=None) as browser:
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{token}"}}')
        assert await said(browser) == OK
        yield browser


async def judged(site: Site, *runs: str) -> None:
    """Have runs of Ada's end, one after the other."""
    for run in runs:
        await site.end(await site.start(run, ADA))


async def finals(browser: ClientConnection, count: int) -> list[tuple[str, str]]:
    """Return the next finals as (run, seq)."""
    packets = [packet(await said(browser)) for _ in range(count)]
    return [(each["run"], each["seq"]) for each in packets]


async def quiet(browser: ClientConnection) -> bool:
    """Return whether nothing came: the next thing is a new answer."""
    await browser.send("hello")
    return packet(await said(browser)).get("error_code") == "400"


async def receipt(site: Site, seq: int) -> None:
    async with asyncio.timeout(PATIENCE):
        await site.finals.until_delivered(account(ADA), seq)


async def test_what_ended_while_nobody_was_there_is_told_in_order(site: Site) -> None:
    await judged(site, "a", "b", "c")

    async with tab(site) as browser:
        assert await finals(browser, 3) == [("a", "1"), ("b", "2"), ("c", "3")]
        assert await quiet(browser)


async def test_a_pong_to_a_ping_after_the_final_is_its_receipt(site: Site) -> None:
    async with tab(site) as browser:
        await judged(site, "a")
        assert await finals(browser, 1) == [("a", "1")]
        await receipt(site, 1)

    async with tab(site) as again:
        assert await quiet(again)


async def test_without_a_pong_a_final_is_told_again_at_every_auth(site: Site) -> None:
    async with tab(site, answers_pings=False) as browser:
        await judged(site, "a")
        assert await finals(browser, 1) == [("a", "1")]

    for _ in range(2):
        async with tab(site, answers_pings=False) as again:
            assert await finals(again, 1) == [("a", "1")]
            assert await quiet(again)


async def test_a_pong_to_a_ping_before_the_final_is_no_receipt() -> None:
    async with Site(ping_period=0.01) as site, tab(site, answers_pings=False) as browser:
        assert isinstance(browser, Deaf)
        early = await browser.pinged(1)
        await judged(site, "a")
        assert await finals(browser, 1) == [("a", "1")]

        browser.transport.write(early)
        late = await browser.pinged(2)  # the server has dealt with the first
        before = dict(site.ledger.delivered)
        browser.transport.write(late)
        await receipt(site, 1)

    assert before == {}


async def test_an_ack_ends_what_is_owed_up_to_it(site: Site) -> None:
    await judged(site, "a", "b", "c")

    async with tab(site, answers_pings=False) as browser:
        await finals(browser, 3)
        await browser.send('{"cmd":"ACK","seq":"2"}')
        assert await said(browser) == OK

    async with tab(site, answers_pings=False) as again:
        assert await finals(again, 1) == [("c", "3")]
        assert await quiet(again)


async def test_an_ack_of_what_is_not_there_yet_takes_nothing_from_later_finals(site: Site) -> None:
    async with tab(site, answers_pings=False) as browser:
        await browser.send('{"cmd":"ACK","seq":"999999999999999999"}')
        assert await said(browser) == OK
        await judged(site, "a")
        assert await finals(browser, 1) == [("a", "1")]

    async with tab(site, answers_pings=False) as again:
        assert await finals(again, 1) == [("a", "1")]


@pytest.mark.parametrize(
    "frame",
    [
        '{"cmd":"ACK"}',
        '{"cmd":"ACK","seq":17}',
        '{"cmd":"ACK","seq":""}',
        '{"cmd":"ACK","seq":"-1"}',
        '{"cmd":"ACK","seq":"1.0"}',
        '{"cmd":"ACK","seq":" 1"}',
        '{"cmd":"ACK","seq":"9999999999999999999"}',
        '{"cmd":"ACK","seq":"\\u0661"}',
        '{"cmd":"ACK","seq":null}',
    ],
)
async def test_an_ack_that_is_no_number_is_a_bad_request(site: Site, frame: str) -> None:
    async with tab(site) as browser:
        await browser.send(frame)

        assert packet(await said(browser))["error_code"] == "400"
        assert await quiet(browser)


async def test_an_ack_before_auth_is_not_authenticated(site: Site) -> None:
    async with connect(site.url) as browser:
        await browser.send('{"cmd":"ACK","seq":"1"}')

        assert packet(await said(browser))["error_code"] == "401"


async def test_one_accounts_ack_leaves_anothers_finals_alone(site: Site) -> None:
    await judged(site, "a")
    await site.end(await site.start("g", GRACE))

    async with tab(site, token="grace", answers_pings=False) as other:
        assert await finals(other, 1) == [("g", "1")]
        await other.send('{"cmd":"ACK","seq":"1"}')
        assert await said(other) == OK

    async with tab(site, answers_pings=False) as browser:
        assert await finals(browser, 1) == [("a", "1")]


async def test_what_ends_while_the_owed_ones_are_read_is_told_once_and_in_order(
    site: Site,
) -> None:
    await judged(site, "a")
    site.finals.open.clear()

    async with tab(site) as browser:
        await site.finals.until_read(1)
        await judged(site, "b", "c")
        site.finals.open.set()

        assert await finals(browser, 3) == [("a", "1"), ("b", "2"), ("c", "3")]
        assert await quiet(browser)


async def test_more_than_is_read_at_once_is_told_whole(site: Site) -> None:
    runs = [f"r{number}" for number in range(200)]
    await judged(site, *runs)

    async with tab(site) as browser:
        assert await finals(browser, 200) == [(r, str(n)) for n, r in enumerate(runs, start=1)]
        assert await quiet(browser)


async def test_while_the_database_is_away_finals_wait_and_answers_do_not(site: Site) -> None:
    await judged(site, "a")
    site.finals.fault = StoreError("away")

    async with tab(site) as browser:
        await site.finals.until_read(3)
        assert await quiet(browser)
        site.finals.fault = None

        assert await finals(browser, 1) == [("a", "1")]


async def test_a_receipt_that_could_not_be_stored_is_asked_for_again() -> None:
    async with Site(ping_period=0.01) as site, tab(site) as browser:
        await judged(site, "a")
        site.finals.fault = StoreError("away")
        assert await finals(browser, 1) == [("a", "1")]
        await until(lambda: site.finals.refused)
        site.finals.fault = None

        await receipt(site, 1)


async def test_a_peer_that_answers_no_ping_is_closed() -> None:
    async with (
        Site(ping_period=0.01, ping_timeout=0.01) as site,
        tab(site, answers_pings=False) as browser,
    ):
        async with asyncio.timeout(PATIENCE):
            await browser.wait_closed()

        assert browser.close_code == 1011
