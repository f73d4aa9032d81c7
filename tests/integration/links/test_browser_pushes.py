"""What the real Server pushes over real sockets: to every tab, in order, whoever else is there."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from commserver.core.jobs import OwnerId, RunId
from commserver.core.verdicts import Broken, Cause, Failure
from commserver.gateways.browser import session as module
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, GRACE, PATIENCE, Site, closing, packet, said

OK = '{"cmd":"OK"}'
TOKENS = {ADA: SECRET, GRACE: "grace"}
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BIG = Broken(Failure(Cause.EXERCISE, "x" * 60_000))  # a final of more than 60 kB


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


@asynccontextmanager
async def tab(site: Site, owner: OwnerId = ADA) -> AsyncIterator[ClientConnection]:
    """Open a browser's tab that was answered by OK."""
    async with connect(site.url) as browser:
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{TOKENS[owner]}"}}')
        assert await said(browser) == OK
        yield browser


async def quiet(*tabs: ClientConnection) -> bool:
    """Return whether none of the tabs was told anything: the next that comes is a new answer."""
    for each in tabs:
        await each.send("hello")
    answers = [packet(await said(each)) for each in tabs]
    return [answer.get("error_code") for answer in answers] == ["400"] * len(tabs)


def place(attempt: int, at: int, run: str) -> str:
    return (
        f'{{"cmd":"PLACE_IN_QUEUE","user_exercice_id":"{attempt}","place":"{at}","run":"{run}",'
        '"total":"","eta_low":"","eta_high":"","reason":""}'
    )


def executed(
    attempt: int, run: str, status: str = "accepted", grade: str = "10", *, seq: int = 1
) -> str:
    return (
        f'{{"cmd":"EXERCICE_EXECUTED","id":"{attempt}","run":"{run}",'
        f'"status":"{status}","grade":"{grade}","seq":"{seq}"}}'
    )


# -- all tabs -------------------------------------------------------------------------------------


async def test_every_tab_of_a_user_is_told_and_nobody_else_is(site: Site) -> None:
    async with (
        tab(site) as one,
        tab(site) as two,
        tab(site, GRACE) as other,
        connect(site.url) as stranger,
    ):
        await site.submit("a", ADA)
        await site.pass_time()
        first = [await said(one), await said(two)]
        lease = await site.take()
        second = [await said(one), await said(two)]
        await site.end(lease)
        third = [await said(one), await said(two)]

        assert await quiet(one, two, other, stranger)
    assert first == [place(1, 1, "a")] * 2
    assert second == [place(1, 0, "a")] * 2
    assert third == [executed(1, "a")] * 2


async def test_a_cancelled_run_is_told_like_any_end(site: Site) -> None:
    async with tab(site) as browser:
        await site.start("a", ADA)

        await site.dispatcher.cancel(RunId("a"))

        assert await said(browser) == executed(1, "a", "cancelled", "")


async def test_a_run_that_could_not_be_graded_is_told_as_an_error(site: Site) -> None:
    async with tab(site) as browser:
        lease = await site.start("a", ADA)

        await site.end(lease, Broken(Failure(Cause.EXERCISE, "no such checker")))

        assert await said(browser) == (
            '{"cmd":"ERROR","error_code":"500","target":"EXERCICE","target_id":"1",'
            '"run":"a","seq":"1","message":"no such checker","fault":"teacher"}'
        )


# -- the catch-up ---------------------------------------------------------------------------------


async def test_who_comes_late_hears_ok_first_and_then_each_place_once(site: Site) -> None:
    for run, owner in [("a", ADA), ("b", GRACE), ("c", ADA)]:
        await site.submit(run, owner)
    await site.pass_time()

    async with tab(site) as browser:
        places = [await said(browser), await said(browser)]
        await site.pass_time()

        assert places == [place(1, 1, "a"), place(3, 3, "c")]
        assert await quiet(browser)


async def test_what_moves_while_the_token_is_verified_is_told_as_it_is_afterwards(
    site: Site,
) -> None:
    for run, owner in [("x", GRACE), ("y", GRACE), ("a", ADA), ("b", ADA)]:
        await site.submit(run, owner)
    await site.pass_time()
    site.auth.open.clear()

    async with connect(site.url) as browser:
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}')
        await site.auth.until_asked(1)
        await site.end(await site.take())
        await site.pass_time()
        await site.dispatcher.cancel(RunId("b"))
        site.auth.open.set()

        assert await said(browser) == OK
        assert {await said(browser), await said(browser)} == {
            executed(4, "b", "cancelled", ""),
            place(3, 2, "a"),
        }
        await site.pass_time()
        assert await quiet(browser)


async def test_a_second_auth_tells_no_place_again(site: Site) -> None:
    await site.submit("a", ADA)

    async with tab(site) as browser:
        assert await said(browser) == place(1, 1, "a")
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}')

        assert await said(browser) == OK
        assert await quiet(browser)


async def test_what_has_begun_before_the_tab_came_is_told_when_it_ends(site: Site) -> None:
    lease = await site.start("a", ADA)

    async with tab(site) as browser:
        await site.end(lease)

        assert await said(browser) == executed(1, "a")


# -- tabs that vanish, tabs that do not read ------------------------------------------------------


def masked(text: str) -> bytes:
    """Return a short text frame as a browser sends it, under a mask of zeros."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text.encode()


def reset(sock: socket.socket) -> None:
    """Close so that the other side gets RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def test_tabs_that_vanish_disturb_nobody(site: Site) -> None:
    async with tab(site) as stays:
        for said_before in (
            b"",
            b"GET / HTTP/1.1\r\nHost: x\r\nUpg",
            UPGRADE,
            UPGRADE + masked(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}'),
            UPGRADE + masked(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}')[:-3],
            UPGRADE + masked("hello") * 100,
        ):
            sock = socket.create_connection(("127.0.0.1", site.server.port))
            sock.sendall(said_before)
            await site.end(await site.start(f"r{len(said_before)}", ADA))
            reset(sock)

            assert packet(await said(stays))["run"] == f"r{len(said_before)}"


async def test_a_tab_that_vanishes_in_mid_push_disturbs_nobody(site: Site) -> None:
    async with tab(site) as stays:
        for number in range(10):
            async with tab(site) as vanishes:
                lease = await site.start(f"r{number}", ADA)
                vanishes.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                vanishes.transport.abort()
                await site.end(lease)

                assert await said(stays) == executed(number + 1, f"r{number}", seq=number + 1)


@asynccontextmanager
async def sluggish(site: Site) -> AsyncIterator[ClientConnection]:
    """Open a tab that buffers as little as it can and reads only when it is asked to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", site.server.port))
    async with connect(site.url, sock=sock, max_queue=1, close_timeout=0.1) as browser:
        await browser.send(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}')
        assert await said(browser) == OK
        yield browser


async def flood(site: Site, reader: ClientConnection) -> list[str]:
    """Push more than a socket buffers, at the speed of `reader`; returns what it was told."""
    heard = []
    for number in range(150):
        await site.end(await site.start(f"r{number}", ADA), BIG)
        heard.append(packet(await said(reader))["run"])
    return heard


async def test_a_slow_reader_gets_all_of_it_without_harm_to_others_and_without_a_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RECEIPT_DELAY", PATIENCE)  # or the quick tab's would end it all
    async with Site(owed_limit=5) as site, tab(site) as quick, sluggish(site) as slow:
        heard = await flood(site, quick)

        late = [packet(await said(slow))["run"] for _ in heard]

        assert await quiet(slow)
    assert heard == [f"r{number}" for number in range(150)]
    assert late == heard
    assert len(site.finals.read) > 2, "it would show nothing if all had fitted into the buffers"


async def test_a_reader_that_lets_answers_pile_up_is_closed() -> None:
    async with Site(owed_limit=5) as site, tab(site) as quick, sluggish(site) as slow:
        await flood(site, quick)
        for _ in range(50):
            await slow.send("hello")

        frames, code = await closing(slow)

    assert code == 1013
    told = [packet(frame)["run"] for frame in frames]
    assert told == [f"r{number}" for number in range(len(told))]


async def test_a_reader_that_lets_one_packet_wait_too_long_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.0)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", PATIENCE)

    async with Site(owed_limit=1000) as site, tab(site) as quick, sluggish(site) as slow:
        heard = await flood(site, quick)

        frames, code = await closing(slow)

    assert code == 1013
    assert [packet(frame)["run"] for frame in frames] == heard[: len(frames)]


async def test_a_reader_that_stopped_for_good_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.1)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.1)

    async with Site(owed_limit=5, connections=2) as site, tab(site) as quick, sluggish(site):
        await flood(site, quick)

        async with asyncio.timeout(PATIENCE):
            while True:  # until its seat is free
                try:
                    async with tab(site, GRACE):
                        break
                except InvalidStatus:
                    continue


async def test_a_reader_that_stopped_for_good_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.1)

    async with Site(owed_limit=5) as site, tab(site) as quick, sluggish(site):
        await flood(site, quick)
        site.server.stop()

        assert await closing(quick) == ([], 1001)
        await site.stop()
