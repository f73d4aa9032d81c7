"""The reference backend's HTTP side: just enough of the protocol for curl and for tests."""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from commserver.reference.frames import FRAME_LIMIT, decoded

HEADER_LIMIT = 16 << 10  # bytes of one line
PATIENCE = 10.0  # seconds for a request to arrive

Answer = tuple[HTTPStatus, dict[str, Any]]


class Door:
    """Takes submissions and tells how they ended.

    submit: takes an id; raises OverflowError when too many wait.
    state: what `GET /` says. results: what `GET /results` says.
    """

    def __init__(
        self,
        submit: Callable[[str], None],
        state: Callable[[], dict[str, Any]],
        results: Callable[[], list[dict[str, str]]],
    ) -> None:
        self._submit = submit
        self._state = state
        self._results = results

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the caller closes."""
        try:
            async with asyncio.timeout(PATIENCE):
                status, answer = await self._answer(reader)
            body = json.dumps(answer).encode()
            writer.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # whoever vanishes, or is too slow, is let go

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            method, path, length = await _request(reader)
        except ValueError:
            return HTTPStatus.BAD_REQUEST, {"error": "this is no HTTP request"}
        match method, path:
            case "GET", "/":
                return HTTPStatus.OK, self._state()
            case "GET", "/results":
                return HTTPStatus.OK, {"results": self._results()}
            case "POST", "/submit" if 0 < length <= FRAME_LIMIT:
                return self._taken(decoded(await reader.readexactly(length)).get("id", ""))
            case "POST", "/submit":
                return HTTPStatus.BAD_REQUEST, {"error": "no body, or too long"}
            case _:
                return HTTPStatus.NOT_FOUND, {"error": "POST /submit, GET /results or GET /"}

    def _taken(self, id: str) -> Answer:
        if not id:
            return HTTPStatus.BAD_REQUEST, {"error": 'send {"id": "42"}'}
        try:
            self._submit(id)
        except OverflowError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
        return HTTPStatus.ACCEPTED, {"id": id, "connected": self._state()["connected"]}


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, int]:
    method, path, _ = (await reader.readline()).decode("latin-1").split()
    length = 0
    while (line := (await reader.readline()).strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return method, path, length
