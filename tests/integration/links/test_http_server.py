"""The HTTP server against peers that are slow, wrong, too many, or gone."""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from structlog.typing import EventDict

from commserver.config import Http
from commserver.errors import ConfigError, NotFound
from commserver.gateways.http import connection
from commserver.gateways.http.server import HttpServer
from tests.integration.links.http_site import PATIENCE, Wire, certificate, serving

GET = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"


class Echo:
    """Says what it was sent; `/wait` waits for the test."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()
        self.routes = (
            Route("/echo", self.echo, methods=["GET", "POST"]),
            Route("/wait", self.wait),
            Route("/bug", self.bug),
            Route("/missing", self.missing),
            Route("/much", self.much),
            Route("/api/x", self.echo),
        )

    async def echo(self, request: Request) -> Response:
        return JSONResponse({"said": (await request.body()).decode()})

    async def wait(self, request: Request) -> Response:
        self.waiting.set()
        await self.go.wait()
        return JSONResponse({"waited": True})

    async def bug(self, request: Request) -> Response:
        raise ZeroDivisionError("a secret of ours")

    async def missing(self, request: Request) -> Response:
        raise NotFound("attempt", "42")

    async def much(self, request: Request) -> Response:
        async def blocks() -> AsyncIterator[bytes]:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)

        return StreamingResponse(blocks())


class Served:
    """An HttpServer with `Echo` behind it."""

    def __init__(self, server: HttpServer, running: asyncio.Task[None], echo: Echo) -> None:
        self.server = server
        self.running = running
        self.echo = echo
        self._wires: list[Wire] = []

    async def dial(self, context: ssl.SSLContext | None = None) -> Wire:
        wire = await Wire.dial(self.server.port, context)
        self._wires.append(wire)
        return wire

    def leave(self) -> None:
        """Close every connection."""
        for wire in self._wires:
            wire.writer.close()

    async def asked(self, *chunks: bytes) -> tuple[int, dict[str, str], Any]:
        """Say this on a new connection, and return the answer."""
        wire = await self.dial()
        await wire.say(*chunks)
        answer = await wire.answer()
        wire.writer.close()
        return answer

    async def fine(self) -> bool:
        """Return whether somebody else is served as ever."""
        return (await self.asked(GET))[0] == 200


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Served]:
    echo = Echo()
    async with serving(Http(**{"port": 0, **settings}), echo.routes) as (server, running):
        site = Served(server, running, echo)
        try:
            yield site
        finally:
            echo.go.set()
            site.leave()


def problem(answer: tuple[int, dict[str, str], Any]) -> tuple[int, str]:
    """Return the status and message of a refusal, which must be one in every respect."""
    status, headers, body = answer
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert set(body) == {"error_code", "target", "target_id", "message", "fault"}
    assert (body["error_code"], body["target"], body["target_id"]) == (str(status), "OTHER", "")
    return status, body["message"]


# -- what every answer has ------------------------------------------------------------------------


async def test_every_answer_has_the_headers_that_protect_browsers() -> None:
    async with served() as site:
        status, headers, body = await site.asked(GET)
        _, api, _ = await site.asked(b"GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (status, body) == (200, {"said": ""})
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers
    assert "date" in headers
    assert api["cache-control"] == "no-store"
    assert api["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        (b"GET /nowhere", 404, "there is nothing at this path"),
        (b"GET /echo/", 404, "there is nothing at this path"),
        (b"GET //evil.example/..", 404, "there is nothing at this path"),
        (b"DELETE /echo", 405, "this path does not know this method"),
    ],
)
async def test_what_no_route_takes_is_refused_in_json(
    line: bytes, status: int, message: str
) -> None:
    async with served() as site:
        answer = await site.asked(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert problem(answer) == (status, message)
    assert answer[1].get("allow") == ("GET, HEAD, OPTIONS, POST" if status == 405 else None)


async def test_options_names_the_methods_and_head_has_no_body() -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"OPTIONS /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        options = await wire.heard()
        wire = await site.dial()
        await wire.say(b"HEAD /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        head = await wire.heard()

    assert options.startswith(b"HTTP/1.1 204 ")
    assert b"\r\nallow: GET, HEAD, OPTIONS, POST\r\n" in options
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")


async def test_a_bug_is_answered_logged_once_and_hurts_nobody(logs: list[EventDict]) -> None:
    async with served() as site:
        answer = await site.asked(b"GET /bug HTTP/1.1\r\nHost: a\r\n\r\n")

        assert problem(answer) == (500, "internal error")
        assert await site.fine()
    [line] = [line for line in logs if "exc_info" in line]
    logs.remove(line)
    assert line["event"] == "request_failed"


async def test_an_error_of_ours_becomes_its_words() -> None:
    async with served() as site:
        status, _, body = await site.asked(b"GET /missing HTTP/1.1\r\nHost: a\r\n\r\n")

    assert (status, body["target"], body["target_id"]) == (404, "EXERCICE", "42")


# -- what is not HTTP -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /echo HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_400_and_the_end(said: bytes) -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(said)

        assert problem(await wire.answer()) == (400, "this is not HTTP")
        assert await wire.ended()
        assert await site.fine()


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["endless", "whole"])
async def test_a_head_that_is_too_large_gets_431(end: bytes) -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(
            b"GET /echo HTTP/1.1\r\nA: " + b"a" * connection.HEAD_LIMIT,
            *[b"a" * 4096 for _ in range(20)],
            end,
        )

        status, message = problem(await wire.answer())
        assert (status, message) == (431, "the head of the request is longer than 16384 bytes")
        assert await wire.ended()
        assert await site.fine()


async def test_who_goes_on_sending_after_a_refusal_can_still_read_it() -> None:
    async with served() as site:
        wire = await site.dial()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.say(b"hello\r\n\r\n")
        for _ in range(20):
            await wire.say(bytes(1000))
            await asyncio.sleep(0.005)  # a reset would have come by then
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]

        assert problem(await wire.answer())[0] == 400


async def test_many_small_headers_are_too_large_a_head_as_well() -> None:
    lines = b"".join(b"h%d: x\r\n" % number for number in range(4000))
    async with served() as site:
        answer = await site.asked(b"GET /echo HTTP/1.1\r\n" + lines + b"\r\n")

    assert problem(answer)[0] == 431


async def test_a_body_in_one_piece_with_its_head_does_not_count_as_head() -> None:
    body = b"x" * 40_000
    async with served() as site:
        status, _, answer = await site.asked(POST % (len(body), body))

    assert (status, answer) == (200, {"said": body.decode()})


async def test_however_the_bytes_are_cut_the_answers_are_the_same() -> None:
    bodies = [b"", b"one", b"x" * 3000]
    stream = b"".join(POST % (len(body), body) for body in bodies)
    cuts = random.Random(7)  # noqa: S311  # guards nothing
    async with served() as site:
        for _ in range(30):
            at = sorted(cuts.sample(range(len(stream)), cuts.randint(0, 12)))
            wire = await site.dial()
            for first, last in pairwise([0, *at, len(stream)]):
                await wire.say(stream[first:last])
                await asyncio.sleep(0)
            answers = [await wire.answer() for _ in bodies]
            wire.writer.close()

            assert [answer[2]["said"].encode() for answer in answers] == bodies


async def test_no_bytes_whatever_hurt_anybody(logs: list[EventDict]) -> None:
    dice = random.Random(7)  # noqa: S311  # guards nothing
    async with served(timeout=0.3) as site:
        for _ in range(100):
            wire = await site.dial()
            request = bytearray(POST % (5, b"hello"))
            for _ in range(dice.randint(1, 6)):
                request[dice.randrange(len(request))] = dice.randrange(256)
            await wire.say(bytes(request))
            wire.writer.write_eof()
            heard = await wire.heard()

            assert heard == b"" or heard.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4"))
        assert await site.fine()
    assert [line for line in logs if line["log_level"] != "info"] == []


# -- bodies ---------------------------------------------------------------------------------------


async def test_a_body_at_the_limit_is_taken_and_one_above_it_gets_413() -> None:
    async with served(body_limit=1000) as site:
        exact = await site.asked(POST % (1000, b"x" * 1000))
        above = await site.asked(POST % (1001, b"x" * 1001))

        assert exact[2] == {"said": "x" * 1000}
        assert problem(above) == (413, "the body is longer than 1000 bytes")


async def test_a_body_far_above_the_limit_is_read_to_its_end_so_that_413_arrives() -> None:
    async with served(body_limit=1000) as site:
        wire = await site.dial()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.say(POST % (3_000_000, b""))
        for _ in range(30):
            await wire.say(bytes(100_000))
            await asyncio.sleep(0.001)  # a reset would have come by then
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]

        assert problem(await wire.answer())[0] == 413
        assert await wire.ended()


async def test_a_body_without_a_length_is_cut_off_at_the_limit() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(body_limit=1000) as site:
        answer = await site.asked(head, *[b"400\r\n" + bytes(1024) + b"\r\n"] * 50, b"0\r\n\r\n")

        assert problem(answer)[0] == 413
        assert await site.fine()


async def test_who_asks_before_sending_too_much_is_told_no() -> None:
    async with served(body_limit=1000) as site:
        head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n"
        answer = await site.asked(head + b"\r\n")

    assert problem(answer)[0] == 413


# -- slow, half, gone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"G",
        b"GET /echo HTTP/1.1\r\nHost: a\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        GET + b"GET /echo HT",
    ],
    ids=["line", "headers", "body", "second"],
)
async def test_a_request_that_does_not_arrive_in_time_gets_408(said: bytes) -> None:
    async with served(timeout=0.2) as site:
        wire = await site.dial()
        await wire.say(said)
        if said.startswith(GET):
            assert (await wire.answer())[0] == 200

        assert problem(await wire.answer()) == (408, "the request did not arrive in time")
        assert await wire.ended()


async def test_a_byte_now_and_then_does_not_buy_time() -> None:
    async def drip(wire: Wire) -> None:
        await wire.say(b"GET /echo HTTP/1.1\r\n")
        for byte in b"X-Slow: " + b"a" * 1000:
            await wire.say(bytes([byte]))
            await asyncio.sleep(0.02)

    async with served(timeout=0.3) as site:
        wire = await site.dial()
        dripping = asyncio.create_task(drip(wire))

        assert problem(await wire.answer())[0] == 408
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_who_says_nothing_is_let_go() -> None:
    async with served(timeout=0.1) as site:
        wire = await site.dial()

        assert await wire.ended()


async def test_an_empty_line_after_an_answer_does_not_buy_time() -> None:
    async with served(timeout=0.2) as site:
        wire = await site.dial()
        await wire.say(GET)
        await wire.answer()
        await wire.say(b"\r\n")

        assert problem(await wire.answer())[0] == 408
        assert await wire.ended()


async def test_a_request_that_is_cut_short_gets_400() -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        wire.writer.write_eof()

        assert problem(await wire.answer()) == (400, "the request ended before it was complete")


async def test_who_has_said_all_may_close_that_side_and_is_answered() -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        wire.writer.write_eof()
        await site.echo.waiting.wait()
        site.echo.go.set()

        assert (await wire.answer())[2] == {"waited": True}
        assert await wire.ended()


async def test_who_does_not_read_is_cut_off() -> None:
    async with served(timeout=0.2) as site:
        wire = await site.dial()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.say(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            while not wire.writer.transport.is_closing():
                wire.writer.write(b"\r\n")
                await asyncio.sleep(0.05)  # until a write meets the reset


async def test_several_requests_on_one_connection_are_answered_in_order() -> None:
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"".join(POST % (1, b"%d" % n) for n in range(5)))

        assert [(await wire.answer())[2]["said"] for _ in range(5)] == list("01234")


async def test_requests_far_ahead_of_their_answers_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("commserver.gateways.http.server.KEEP_ALIVE", 60)
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" + GET * 1000)
        await site.echo.waiting.wait()
        site.echo.go.set()

        heard = await wire.heard()
        assert heard.count(b"HTTP/1.1 ") <= connection.PIPELINE_LIMIT + 1


async def test_a_wish_for_another_protocol_is_not_heard() -> None:
    async with served() as site:
        answer = await site.asked(
            b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    assert answer[0] == 200


async def test_too_many_connections_are_told_so_and_the_others_live() -> None:
    async with served(connections=2) as site:
        first, second = await site.dial(), await site.dial()
        for busy in (first, second):
            await busy.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await site.echo.waiting.wait()
            site.echo.waiting.clear()

        third = await site.dial()
        answer = await third.answer()

        assert problem(answer)[0] == 503
        assert answer[1]["retry-after"]
        site.echo.go.set()
        assert (await first.answer())[0] == (await second.answer())[0] == 200


async def test_an_idle_connection_makes_room_and_the_one_that_was_idle_longest_is_it() -> None:
    async with served(connections=2) as site:
        first, second = await site.dial(), await site.dial()
        for wire in (first, second, first):  # of which the second is idle longest
            await wire.say(GET)
            assert (await wire.answer())[0] == 200

        assert await site.fine()

        assert await second.heard() == b""
        await first.say(GET)
        assert (await first.answer())[0] == 200


async def test_a_connection_that_is_answering_is_not_idle() -> None:
    async with served(connections=1) as site:
        first = await site.dial()
        await first.say(GET)
        assert (await first.answer())[0] == 200
        await first.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await site.echo.waiting.wait()

        assert (await (await site.dial()).answer())[0] == 503

        site.echo.go.set()
        assert (await first.answer())[0] == 200


async def test_far_too_many_connections_are_cut_off_unanswered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SPARE", 0)
    async with served(connections=1) as site:
        first, second = await site.dial(), await site.dial()

        with suppress(ConnectionResetError):
            assert await second.heard() == b""
        await first.say(GET)
        assert (await first.answer())[0] == 200


# -- ports, TLS, the end --------------------------------------------------------------------------


async def test_a_port_that_is_taken_ends_the_server_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"'127.0.0.1', {port}.*in use"):
            async with served(port=port):
                pass


async def test_it_speaks_tls_and_lets_hanging_handshakes_go(tmp_path: Path) -> None:
    cert, key = await certificate(tmp_path)
    context = ssl.create_default_context(cafile=cert)
    async with served(tls_cert=cert, tls_key=key, timeout=0.8) as site:
        hanging = await site.dial()
        plain = await site.dial()
        await plain.say(GET)
        wire = await site.dial(context)
        await wire.say(GET)

        assert (await wire.answer())[0] == 200
        assert await plain.ended()
        assert await hanging.ended()
        late = await site.dial(context)
        await late.say(b"GET /echo HT")
        assert problem(await late.answer())[0] == 408


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        HttpServer(Http(port=0, tls_cert=tmp_path / "gone.pem"), ())


async def test_what_is_being_answered_when_it_stops_is_answered() -> None:
    async with served() as site:
        wire, idle = await site.dial(), await site.dial()
        await wire.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await site.echo.waiting.wait()

        site.server.stop()
        await asyncio.sleep(0)
        site.echo.go.set()

        status, headers, body = await wire.answer()
        assert (status, headers["connection"], body) == (200, "close", {"waited": True})
        assert await wire.ended()
        assert await idle.ended()
        await asyncio.wait_for(site.running, PATIENCE)


async def test_what_does_not_end_by_itself_is_told_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commserver.gateways.http.server.STOP", 0.1)
    async with served() as site:
        wire = await site.dial()
        await wire.say(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await site.echo.waiting.wait()

        site.server.stop()

        assert problem(await wire.answer()) == (503, "the server stops")
        assert await wire.ended()
