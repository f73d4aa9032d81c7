"""What all routes share: a bound on bodies, headers, and one place where errors become answers."""

import asyncio
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Message, Receive, Scope, Send

from commserver.errors import CommServerError, PacketTooLarge, StoreError
from commserver.gateways.http import notices, packets
from commserver.gateways.http.connection import API_HEADERS, HEADERS
from commserver.gateways.http.notices import Refused

log = structlog.get_logger(__name__)

DRAIN_LIMIT = 16 << 20  # bytes of a body too large that are read to their end before the answer

_SAID = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not know this method",
}


class Application:
    """The ASGI application that uvicorn's connections call for each request."""

    def __init__(self, routes: Sequence[BaseRoute], body_limit: int) -> None:
        self._router = Router(list(routes), redirect_slashes=False)
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Never raises."""
        scope["app"] = self  # so that the router raises what it cannot answer
        body = _Body(scope, receive, self._body_limit)
        reply = _Reply(scope, send)
        try:
            await body.check()
            await self._router(scope, body.receive, reply.send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:  # the server ends, and this task is the request's own
            answer = _answer(notices.unavailable("the server stops"))
        except HTTPException as error:
            answer = _routed(scope, error)
        except (CommServerError, TimeoutError) as error:
            if isinstance(error, StoreError | TimeoutError):
                log.warning("request_failed", path=scope["path"], error=str(error))
            answer = _answer(error)
        except Exception as error:  # a bug of ours: say so, stay alive
            log.exception("request_failed", path=scope["path"])
            answer = _answer(error)
        else:
            return
        if not reply.begun:
            await answer(scope, receive, reply.send)


class _Body:
    """Passes a request's body on, up to a limit."""

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        headers = dict(scope["headers"])
        self._declared = int(headers.get(b"content-length", b"0"))
        self._asks = b"expect" in headers  # and sends nothing before we say so
        self._receive = receive
        self._limit = limit
        self._taken = 0

    async def check(self) -> None:
        """Raise for what is known to be too large before anything is read of it."""
        if self._declared > self._limit:
            if not self._asks and self._declared <= DRAIN_LIMIT:
                await self._drain()
            raise PacketTooLarge(self._limit)

    async def receive(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > self._limit:
            if message.get("more_body"):
                await self._drain()
            raise PacketTooLarge(self._limit)
        return message

    async def _drain(self) -> None:
        """Let the peer finish: it would be cut off before it has read why, and try again."""
        more = True
        while more and self._taken <= DRAIN_LIMIT:
            message = await self._receive()
            self._taken += len(message.get("body", b""))
            more = message.get("more_body", False)


class _Reply:
    """Sends an answer with the headers that every answer has."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._api = scope["path"].startswith("/api/")
        self._send = send
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = list(message.get("headers", []))
            known = {name.lower() for name, _ in headers}
            usual = {
                "Date": formatdate(usegmt=True),
                **HEADERS,
                **(API_HEADERS if self._api else {}),
            }
            for name, value in usual.items():
                if name.lower().encode() not in known:
                    headers.append((name.lower().encode(), value.encode()))
            message = {**message, "headers": headers}
        await self._send(message)


def _answer(error: Exception) -> Response:
    status, problem, headers = notices.problem(error)
    return Response(packets.encode(problem), status, dict(headers), "application/json")


def _routed(scope: Scope, error: HTTPException) -> Response:
    """Return the answer to what no route takes."""
    status = HTTPStatus(error.status_code)
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted({*headers["Allow"].split(", "), "OPTIONS"}))
        if scope["method"] == "OPTIONS":
            return Response(None, HTTPStatus.NO_CONTENT, headers)
    return _answer(Refused(status, _SAID.get(status, error.detail), headers))
