"""The real Server over real sockets: who may listen, who is turned away, and how it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from structlog.typing import EventDict
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from commserver.errors import StoreError
from commserver.gateways.browser import server
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, PATIENCE, Site, closing, packet, said
from tests.integration.services.site import until

OK = '{"cmd":"OK"}'
UNKNOWN_TOKEN = (
    '{"cmd":"ERROR","error_code":"401","target":"OTHER","target_id":"",'
    '"run":"","seq":"","message":"this token is not valid","fault":""}'
)
INTERNAL = (
    '{"cmd":"ERROR","error_code":"500","target":"OTHER","target_id":"",'
    '"run":"","seq":"","message":"internal error","fault":"system"}'
)


def auth(token: str) -> str:
    return json.dumps({"cmd": "AUTH", "TOKEN": token}, separators=(",", ":"))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[ClientConnection]:
    async with connect(site.url) as browser:
        yield browser


# -- AUTH -----------------------------------------------------------------------------------------


async def test_a_right_token_is_answered_by_ok(browser: ClientConnection) -> None:
    await browser.send(f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}')

    assert await said(browser) == OK


async def test_a_wrong_token_is_answered_by_401_and_a_right_one_still_counts(
    browser: ClientConnection,
) -> None:
    await browser.send(auth("wrong"))
    first = await said(browser)
    await browser.send(auth("wrong"))
    second = await said(browser)
    await browser.send(auth(SECRET))

    assert (first, second, await said(browser)) == (UNKNOWN_TOKEN, UNKNOWN_TOKEN, OK)


async def test_the_third_wrong_token_closes_the_socket(browser: ClientConnection) -> None:
    for _ in range(3):
        await browser.send(auth("wrong"))

    answers, code = await closing(browser)

    assert (answers, code) == ([UNKNOWN_TOKEN] * 3, 1008)


async def test_tokens_sent_in_one_breath_are_tried_three_times_and_no_more(
    site: Site, browser: ClientConnection
) -> None:
    for _ in range(10):
        await browser.send(auth("wrong"))
    await browser.send(auth(SECRET))

    answers, code = await closing(browser)

    assert (answers, code) == ([UNKNOWN_TOKEN] * 3, 1008)
    assert site.auth.asked == 3


async def test_who_does_not_authenticate_in_time_is_closed() -> None:
    async with Site(auth_timeout=0.1) as site, connect(site.url) as browser:
        answers, code = await closing(browser)

    assert (answers, code) == ([], 1008)


async def test_nonsense_buys_no_time() -> None:
    async with Site(auth_timeout=0.2) as site, connect(site.url) as browser:
        await browser.send("hello")

        answers, code = await closing(browser)

    assert ([packet(answer)["error_code"] for answer in answers], code) == (["400"], 1008)


async def test_who_has_authenticated_may_be_silent_for_ever() -> None:
    async with Site(auth_timeout=0.1) as site, connect(site.url) as browser:
        await browser.send(auth(SECRET))
        await said(browser)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await browser.recv()
        await browser.send(auth(SECRET))

        assert await said(browser) == OK


async def test_a_verifier_that_is_away_is_no_failure_and_a_later_auth_works(
    site: Site, browser: ClientConnection, logs: list[EventDict]
) -> None:
    site.auth.fault = StoreError("away")
    answers = []
    for _ in range(4):
        await browser.send(auth(SECRET))
        answers.append(await said(browser))
    site.auth.fault = None
    await browser.send(auth(SECRET))

    assert [*answers, await said(browser)] == [*[INTERNAL] * 4, OK]
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["command_failed"] * 4


async def test_an_auth_that_came_in_time_is_answered_however_long_the_verifier_takes() -> None:
    async with Site(auth_timeout=0.3) as site, connect(site.url) as browser:
        site.auth.open.clear()
        await browser.send(auth(SECRET))
        async with connect(site.url) as silent:
            _, too_late = await closing(silent)
        site.auth.open.set()

        assert (await said(browser), too_late) == (OK, 1008)


async def test_a_socket_that_we_could_not_verify_has_all_its_time_again() -> None:
    async with Site(auth_timeout=0.5) as site, connect(site.url) as browser:
        site.auth.open.clear()
        site.auth.fault = StoreError("away")
        await browser.send(auth(SECRET))
        async with connect(site.url) as silent:
            await closing(silent)
        site.auth.open.set()
        first = await said(browser)
        site.auth.fault = None
        await browser.send(auth(SECRET))

        assert (first, await said(browser)) == (INTERNAL, OK)


async def test_a_bug_in_the_verifier_is_500_and_the_socket_stays(
    site: Site, browser: ClientConnection, logs: list[EventDict]
) -> None:
    site.auth.fault = ZeroDivisionError("a bug")
    await browser.send(auth(SECRET))
    first = await said(browser)
    site.auth.fault = None
    await browser.send(auth(SECRET))

    assert (first, await said(browser)) == (INTERNAL, OK)
    [failed] = [line for line in logs if line["event"] == "action_failed"]
    logs.remove(failed)


async def test_the_same_account_again_is_ok_and_another_one_is_403(
    site: Site, browser: ClientConnection
) -> None:
    for token in (SECRET, "ada's second", "grace", SECRET):
        await browser.send(auth(token))
    answers = [await said(browser) for _ in range(4)]
    await site.end(await site.start("a", ADA))

    assert [answers[0], answers[1], answers[3]] == [OK, OK, OK]
    assert answers[2] == (
        '{"cmd":"ERROR","error_code":"403","target":"OTHER","target_id":"",'
        '"run":"","seq":"","message":"this connection belongs to another account","fault":""}'
    )
    assert packet(await said(browser))["cmd"] == "EXERCICE_EXECUTED"


async def test_a_wrong_token_does_not_unbind_a_socket(
    site: Site, browser: ClientConnection
) -> None:
    for token in (SECRET, "wrong", "wrong", "wrong", "wrong"):
        await browser.send(auth(token))
    answers = [await said(browser) for _ in range(5)]

    await site.end(await site.start("a", ADA))

    assert answers == [OK, *[UNKNOWN_TOKEN] * 4]
    assert packet(await said(browser))["cmd"] == "EXERCICE_EXECUTED"


# -- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "hello",
        "null",
        "[]",
        '"AUTH"',
        "{}",
        f'{{"TOKEN":"{SECRET}"}}',
        '{"cmd":"STATUS","id":42}',
        '{"cmd":"auth","TOKEN":"x"}',
        '{"cmd":"AUTH"}',
        '{"cmd":"AUTH","TOKEN":7}',
        "[" * 16_000,
        b"\xff\xfe\x00",
        b"",
    ],
)
async def test_what_is_no_known_command_is_400_and_the_socket_stays(
    frame: str | bytes, browser: ClientConnection
) -> None:
    await browser.send(frame)
    answer = packet(await said(browser))
    await browser.send(auth(SECRET))

    assert " ".join(answer) == "cmd error_code target target_id run seq message fault"
    assert (answer["cmd"], answer["error_code"]) == ("ERROR", "400")
    assert (answer["target"], answer["target_id"]) == ("OTHER", "")
    assert await said(browser) == OK


async def test_binary_frames_are_read_like_text_and_answered_by_text(
    browser: ClientConnection,
) -> None:
    await browser.send(auth(SECRET).encode())

    assert await said(browser) == OK


async def test_a_message_in_fragments_is_one_message(browser: ClientConnection) -> None:
    await browser.send(iter(['{"cmd":"AU', 'TH","TOKEN":', f'"{SECRET}"}}']))

    assert await said(browser) == OK


@pytest.mark.parametrize("frame", ["x" * 16_385, b"x" * 1_000_000])
async def test_a_message_above_the_limit_closes_the_socket(
    frame: str | bytes, browser: ClientConnection
) -> None:
    await browser.send(frame)

    assert await closing(browser) == ([], 1009)


async def test_a_message_of_exactly_the_limit_is_read(browser: ClientConnection) -> None:
    await browser.send(auth(SECRET).ljust(16_384))

    assert await said(browser) == OK


async def test_text_that_is_no_utf_8_closes_the_socket(browser: ClientConnection) -> None:
    await browser.send(b"\xff", text=True)

    assert await closing(browser) == ([], 1007)


# -- the room -------------------------------------------------------------------------------------


async def test_a_socket_too_many_is_turned_away_with_503_until_one_leaves() -> None:
    async with Site(connections=2) as site, connect(site.url) as first, connect(site.url):
        with pytest.raises(InvalidStatus) as caught:
            await connect(site.url)
        await first.close()
        async with connect(site.url) as third:
            await third.send(auth(SECRET))
            answer = await said(third)

    assert caught.value.response.status_code == 503
    assert answer == OK


async def test_sockets_that_do_not_even_shake_hands_are_counted_and_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "SPARE", 1)
    async with Site(connections=1) as site, connect(site.url) as first:
        silent, another = [
            await asyncio.open_connection("127.0.0.1", site.server.port) for _ in range(2)
        ]
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionResetError):
                assert await another[0].read() == b""
        silent[1].close()
        another[1].close()
        await until(lambda: len(site.server._present) == 1)
        await first.send(auth(SECRET))
        assert await said(first) == OK


async def test_a_crowd_at_once_does_not_get_more_than_the_room_holds() -> None:
    async with Site(connections=5) as site:
        answers = await asyncio.gather(
            *(connect(site.url) for _ in range(30)), return_exceptions=True
        )
        inside = [one for one in answers if isinstance(one, ClientConnection)]
        outside = [one for one in answers if isinstance(one, InvalidStatus)]
        for one in inside:
            await one.close()

    assert (len(inside), len(outside)) == (5, 25)


async def test_what_is_no_websocket_is_answered_and_logs_no_traceback(site: Site) -> None:
    async def answer(request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
        writer.write(request)
        if not request:
            writer.transport.abort()
            return b""
        try:
            async with asyncio.timeout(PATIENCE):
                return (await reader.read()).partition(b"\r\n")[0]
        finally:
            writer.close()

    probe = await answer(b"")
    plain = await answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    nonsense = await answer(b"\x16\x03\x01\x00\x00\r\n\r\n")

    assert probe == b""
    assert plain.startswith(b"HTTP/1.1 426 ")
    assert nonsense == b""


# -- stopping -------------------------------------------------------------------------------------


async def test_stopping_closes_every_socket_with_1001_and_listens_no_more(site: Site) -> None:
    async with connect(site.url) as known, connect(site.url) as stranger:
        await known.send(auth(SECRET))
        await said(known)

        await site.stop()

        assert await closing(known) == ([], 1001)
        assert await closing(stranger) == ([], 1001)
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(site.url)


async def test_what_has_ended_is_told_before_the_sockets_are_closed(
    site: Site, browser: ClientConnection
) -> None:
    await browser.send(auth(SECRET))
    await said(browser)
    leases = [await site.start(f"r{number}", ADA) for number in range(100)]

    for lease in leases:
        await site.end(lease)
    site.server.stop()

    answers, code = await closing(browser)
    assert [packet(answer)["run"] for answer in answers] == [f"r{n}" for n in range(100)]
    assert code == 1001


async def test_stopping_does_not_wait_for_a_verifier_that_hangs(
    site: Site, browser: ClientConnection
) -> None:
    site.auth.open.clear()
    await browser.send(auth(SECRET))
    await site.auth.until_asked(1)

    site.server.stop()

    assert await closing(browser) == ([], 1001)
    site.auth.open.set()


async def test_a_socket_that_leaves_while_it_is_verified_is_not_watched_for(
    site: Site, browser: ClientConnection
) -> None:
    site.auth.open.clear()
    await browser.send(auth(SECRET))
    await site.auth.until_asked(1)
    await browser.close()
    site.auth.open.set()

    await site.stop()

    assert site.watch._watchers == {}  # what is forgotten is not to be seen from outside
