"""Who gets as far as a socket: origins, TLS, and those who dial and say nothing."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.typing import EventDict
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.typing import Origin

from commserver.config import Browser
from commserver.errors import ConfigError
from commserver.gateways.browser.server import ORIGINS_LOGGED
from tests.integration.links.certificates import Authority, Pair
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import HOST, PATIENCE, Site, said

OK = '{"cmd":"OK"}'
AUTH = f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}'


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


async def welcome(site: Site, **more: object) -> bool:
    """Return whether a new socket is let in and answered."""
    async with connect(site.url, **more) as browser:  # type: ignore[arg-type]  # which says so
        await browser.send(AUTH)
        return await said(browser) == OK


async def turned_away(site: Site, origin: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        await connect(site.url, origin=Origin(origin))
    response = caught.value.response
    return response.status_code, bytes(response.body or b"").decode()


# -- origins --------------------------------------------------------------------------------------


async def test_pages_of_the_own_host_and_who_is_no_browser_may_dial(site: Site) -> None:
    assert await welcome(site)
    assert await welcome(site, origin=Origin(f"http://{HOST}:8080"))


async def test_a_page_of_another_origin_is_told_which_key_lets_it_in(
    site: Site, logs: list[EventDict]
) -> None:
    answers = [await turned_away(site, "https://evil.example") for _ in range(3)]

    assert {status for status, _ in answers} == {403}
    assert all("browser.origins" in body for _, body in answers)
    assert all("https://evil.example" in body for _, body in answers)
    [line] = [line for line in logs if line["event"] == "origin_not_allowed"]
    assert (line["key"], line["add"]) == ("browser.origins", "https://evil.example")
    assert line["log_level"] == "warning"


async def test_listed_origins_may_dial() -> None:
    async with Site(origins=["https://school.example"]) as site:
        assert await welcome(site, origin=Origin("https://school.example"))
        assert (await turned_away(site, "https://evil.example"))[0] == 403
    async with Site(origins=["*"]) as site:
        assert await welcome(site, origin=Origin("https://evil.example"))


async def test_a_thousand_origins_do_not_fill_the_log(site: Site, logs: list[EventDict]) -> None:
    for number in range(ORIGINS_LOGGED + 5):
        await turned_away(site, f"https://evil{number}.example")

    assert len([x for x in logs if x["event"] == "origin_not_allowed"]) == ORIGINS_LOGGED


# -- TLS ------------------------------------------------------------------------------------------


class Tls(NamedTuple):
    """What the server has, and whom browsers trust."""

    pair: Pair
    authority: Path

    @property
    def settings(self) -> dict[str, object]:
        return {"tls_cert": self.pair.cert, "tls_key": self.pair.key}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    return Tls(authority.issue(HOST), authority.file)


async def secure(site: Site, tls: Tls) -> bool:
    """Return whether a new socket over TLS is let in and answered."""
    trust = ssl.create_default_context(cafile=tls.authority)
    async with connect(site.url.replace("ws:", "wss:"), ssl=trust) as browser:
        await browser.send(AUTH)
        return await said(browser) == OK


async def test_wss_works_and_plain_ws_disturbs_nobody(tls: Tls) -> None:
    async with Site(**tls.settings) as site:
        with pytest.raises((InvalidMessage, OSError)):
            await connect(site.url)

        assert await secure(site, tls)


async def test_half_open_tls_handshakes_are_ended_and_hold_nobody_up(
    tls: Tls,
) -> None:
    async with Site(auth_timeout=0.3, **tls.settings) as site:
        silent = [await asyncio.open_connection(HOST, site.server.port) for _ in range(50)]
        for _, writer in silent[:25]:
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")  # the beginning of a hello

        assert await secure(site, tls)
        async with asyncio.timeout(PATIENCE):
            for reader, writer in silent:
                await ended(reader)
                writer.close()


@pytest.mark.parametrize("given", [("cert",), ("key",), ("cert", "key")])
def test_a_certificate_that_is_of_no_use_is_said_at_the_start(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    files = {f"tls_{name}": tmp_path / name for name in given}
    for path in files.values():
        path.write_text("nonsense")

    with pytest.raises(ConfigError, match=r"browser\.tls_cert"):
        Site(**files)


def test_a_trusted_proxy_that_is_no_address_is_said_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"browser\.trusted_proxies"):
        Site(trusted_proxies=["proxy.example"])


# -- who says nothing -----------------------------------------------------------------------------


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the server has ended a connection."""
    try:
        await reader.read()
    except ConnectionError:
        return


async def test_a_thousand_connections_that_say_nothing_disturb_nobody_and_are_closed() -> None:
    assert Browser().auth_timeout == 10
    async with Site(auth_timeout=1) as site:
        dialled = [asyncio.open_connection(HOST, site.server.port) for _ in range(1000)]
        silent = await asyncio.gather(*dialled)

        assert await welcome(site)
        async with asyncio.timeout(PATIENCE):
            for reader, writer in silent:
                await ended(reader)
                writer.close()


async def test_an_upgrade_that_comes_drop_by_drop_is_ended_in_time() -> None:
    async with Site(auth_timeout=0.3) as site:
        reader, writer = await asyncio.open_connection(HOST, site.server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"X-Slow: 1\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await welcome(site)
        async with asyncio.timeout(PATIENCE):
            await ended(reader)
        dripping.cancel()
        await asyncio.wait({dripping})
        writer.close()


# -- those who flood ------------------------------------------------------------------------------


async def test_who_floods_us_with_pings_is_shown_out_and_no_one_else(site: Site) -> None:
    async with connect(site.url) as flooding, connect(site.url) as other:
        await flooding.send(AUTH)
        assert await said(flooding) == OK

        with contextlib.suppress(ConnectionClosed):
            for number in range(1000):
                await flooding.ping(str(number))
        async with asyncio.timeout(PATIENCE):
            await flooding.wait_closed()

        assert flooding.close_code == 1008
        await other.send(AUTH)
        assert await said(other) == OK


async def test_a_few_pings_are_answered(site: Site) -> None:
    async with connect(site.url) as browser, asyncio.timeout(PATIENCE):
        for number in range(20):
            await (await browser.ping(str(number)))


async def test_who_goes_on_sending_after_it_was_shown_out_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("commserver.gateways.browser.socket.PARTING", 0.1)
    async with connect(site.url) as browser:
        transport = browser.transport
        frame = b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4)  # of a terabyte

        async with asyncio.timeout(PATIENCE):
            while not transport.is_closing():
                transport.write(frame + bytes(1 << 16))
                frame = b""
                await asyncio.sleep(0)
