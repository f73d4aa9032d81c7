"""Whatever a socket says: the exact answer, and nobody else notices."""

from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, Site, closing, packet, said

OK = '{"cmd":"OK"}'
AUTH = f'{{"cmd":"AUTH","TOKEN":"{SECRET}"}}'
LIMIT = 1 << 20  # so that deep nesting gets as far as the decoder


def refused(code: str, message: str, target: str = "OTHER", target_id: str = "") -> str:
    return (
        f'{{"cmd":"ERROR","error_code":"{code}","target":"{target}","target_id":"{target_id}",'
        f'"run":"","seq":"","message":"{message}","fault":""}}'
    )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(frame_limit=LIMIT) as site:
        yield site


@pytest.fixture
async def other(site: Site) -> AsyncIterator[ClientConnection]:
    """A socket that was there before."""
    async with connect(site.url) as browser:
        await browser.send(AUTH)
        assert await said(browser) == OK
        yield browser
        await site.end(await site.start("a", ADA))
        assert packet(await said(browser))["run"] == "a", "somebody else was disturbed"


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        pytest.param("", refused("400", "Input data was truncated"), id="nothing"),
        pytest.param("hello", refused("400", "JSON is malformed: invalid character (byte 0)"),
                     id="no JSON"),
        pytest.param("null", refused("400", "Expected `object`, got `null`"), id="null"),
        pytest.param('["AUTH"]', refused("400", "Expected `object`, got `array`"), id="array"),
        pytest.param("{}", refused("400", "Object missing required field `cmd`"), id="no cmd"),
        pytest.param('{"cmd":"MORE"}', refused("400", "Invalid value 'MORE' - at `$.cmd`"),
                     id="unknown cmd"),
        pytest.param('{"cmd":7}', refused("400", "Expected `str` - at `$.cmd`"),
                     id="cmd of the wrong type"),
        pytest.param('{"cmd":"AUTH"}', refused("400", "Object missing required field `TOKEN`"),
                     id="no field"),
        pytest.param('{"cmd":"AUTH","TOKEN":7}',
                     refused("400", "Expected `str`, got `int` - at `$.TOKEN`"),
                     id="a field of the wrong type"),
        pytest.param('{"cmd":"AUTH","TOKEN":' + "9" * 100_000 + "}",
                     refused("400", "Number out of range - at `$.TOKEN`"), id="a huge integer"),
        pytest.param('{"cmd":"AUTH","TOKEN":NaN}', None, id="NaN"),
        pytest.param('{"cmd":"AUTH","TOKEN":"x","n":' + "9" * 100_000 + "}",
                     refused("401", "this token is not valid"),
                     id="a huge integer where nobody looks"),
        pytest.param("[" * 100_000, None, id="deep"),
        pytest.param('{"cmd":"AUTH","TOKEN":"x","deep":' + "[" * 100_000 + "]" * 100_000 + "}",
                     None, id="deep where nobody looks"),
        pytest.param('{"cmd":"AUTH","TOKEN":"wrong","TOKEN":"' + SECRET + '"}', OK,
                     id="of two keys the last counts"),
        pytest.param('{"cmd":"AUTH","TOKEN":"\\ud800"}', None, id="a lone surrogate"),
        pytest.param('{"cmd":"AUTH","TOKEN":"\\u0000"}', refused("401", "this token is not valid"),
                     id="NUL"),
        pytest.param('{"cmd":"STATUS","id":"1"}', refused("401", "AUTH comes first"),
                     id="a command before AUTH"),
        pytest.param(AUTH.encode(), OK, id="a binary frame is read like text"),
        pytest.param(b'\xff\xfe\x00', None, id="a binary frame of nonsense"),
        pytest.param(AUTH + AUTH, None, id="two packets in one frame"),
    ],
)  # fmt: skip
async def test_each_bad_frame_has_its_answer_and_the_socket_stays(
    site: Site, other: ClientConnection, frame: str | bytes, answer: str | None
) -> None:
    """Where the words are the decoder's own, the answer is told by its code alone."""
    async with connect(site.url) as browser:
        await browser.send(frame)
        heard = await said(browser)
        await browser.send(AUTH)

        assert await said(browser) == OK
    if answer is None:
        told = packet(heard)
        assert (told["cmd"], told["error_code"], told["target"]) == ("ERROR", "400", "OTHER")
        assert (told["target_id"], told["seq"], told["fault"]) == ("", "", "")
    else:
        assert heard == answer


@pytest.mark.parametrize(
    ("frame", "text", "code"),
    [
        pytest.param(b"\xff", True, 1007, id="text that is no UTF-8"),
        pytest.param(b"x" * (LIMIT + 1), True, 1009, id="text above the limit"),
        pytest.param(b"x" * (LIMIT + 1), False, 1009, id="bytes above the limit"),
    ],
)
async def test_what_is_no_message_closes_its_socket_alone(
    site: Site, other: ClientConnection, frame: bytes, text: bool, code: int
) -> None:
    async with connect(site.url) as browser:
        await browser.send(frame, text=text)

        assert await closing(browser) == ([], code)


async def test_frames_that_break_the_protocol_close_their_socket_alone(
    site: Site, other: ClientConnection
) -> None:
    """Not masked, of an unknown kind, a continuation of nothing, too long by their length."""
    unmasked, unknown = b"\x81\x05hello", b"\x83\x80\0\0\0\0"
    orphan, endless = b"\x80\x80\0\0\0\0", b"\x81\xff" + b"\x7f" * 8
    for frame in (unmasked, unknown, orphan, endless):
        async with connect(site.url) as browser:
            browser.transport.write(frame)
            _, code = await closing(browser)

        assert code in (1002, 1009)
