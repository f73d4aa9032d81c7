"""One HTTP connection, bounded in everything for which its peer could let us wait or hold."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from commserver.config import Http
from commserver.gateways.http import notices, packets
from commserver.gateways.listening import SPARE

HEAD_LIMIT = 16 << 10  # bytes of a request's first line and headers together
PIPELINE_LIMIT = 8  # requests that are sent ahead of an answer
LINGER = 2.0  # seconds for a peer that was refused to take its answer and leave

HEADERS: Mapping[str, str] = {  # of every answer that does not say otherwise
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
API_HEADERS: Mapping[str, str] = {  # of every answer below /api/, and of refusals
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, with what it leaves open.

    A request must arrive within `http.timeout` seconds, head and body, and an answer must be taken
    at that pace; heads have a limit; what cannot be served is told so in JSON.
    """

    def __init__(
        self, limits: Http, config: Config, state: ServerState, idle: dict["Connection", None]
    ) -> None:
        """`idle`: those that wait for one more request, longest first; they share it."""
        super().__init__(config=config, server_state=state, app_state={})
        self._idle = idle
        self.lost = asyncio.Event()
        self._timeout = limits.timeout
        self._most = limits.connections
        self._arriving: asyncio.TimerHandle | None = None  # until the next request is there
        self._leaving: asyncio.TimerHandle | None = None  # until the peer reads on
        self._head = 0  # bytes of the present head, as they came
        self._parts = 0  # the same without what a body may have brought
        self._in_head = True
        self._deaf = False  # whatever comes is thrown away
        self._too_large = False

    # -- from the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most + SPARE:
            transport.abort()
        elif len(self.connections) > self._most and not self._make_room():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; come back later")
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._idle.pop(self, None)
        self._await_request()
        if self._in_head:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing else: it is answered as if it had not asked, as the standard has it.
            self._deaf = True
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._not_http()
        else:
            if self._in_head and self._head > HEAD_LIMIT:
                self._too_large = True
                self._not_http()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._deaf or self.scheme == "https":
            return None  # close
        if self.cycle is not None and not self.cycle.response_complete and not self._unfinished:
            self.cycle.keep_alive = False
            return True  # it has said all, and still listens
        if self._unfinished:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request ended before it was complete")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        self._idle.pop(self, None)
        self.resume_writing()
        super().connection_lost(exc)
        self.lost.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._leaving = self.loop.call_later(self._timeout, self.transport.abort)

    def resume_writing(self) -> None:
        if self._leaving:
            self._leaving.cancel()
            self._leaving = None
        if self.flow is not None:
            super().resume_writing()

    # -- from the parser --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_request()
        self._in_head = True
        self._head = self._head or 1  # it may have come behind the end of another
        self._parts = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._measure(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._measure(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise ValueError("too many requests ahead of their answers")
        super().on_headers_complete()
        self._in_head = False

    def on_message_complete(self) -> None:
        self._arrived()
        super().on_message_complete()
        self._in_head = True
        self._head = 0

    def on_response_complete(self) -> None:
        if self._deaf:  # it was the last
            self.transport.close()
        super().on_response_complete()
        if self.transport.is_closing():
            self._bound_closing()
        elif self.timeout_keep_alive_task and not self._unfinished:
            self._idle[self] = None

    def timeout_keep_alive_handler(self) -> None:
        self._idle.pop(self, None)
        super().timeout_keep_alive_handler()
        self._bound_closing()

    def shutdown(self) -> None:
        super().shutdown()
        self._bound_closing()

    # -- our own ----------------------------------------------------------------------------------

    @property
    def _unfinished(self) -> bool:
        """True when a request has begun to arrive and is not all there."""
        return self._head > 0 or not self._in_head

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest; False when none is.

        A browser keeps six of them for seconds after it has what it wanted.
        """
        oldest = next(iter(self._idle), None)
        if oldest is None:
            return False
        oldest.timeout_keep_alive_handler()
        return True

    def _measure(self, more: int) -> None:
        """Count the head by its parts: the bytes that it came in may hold a body as well."""
        self._parts += more
        if self._parts > HEAD_LIMIT:
            self._too_large = True
            raise ValueError("the head is too large")

    def _await_request(self) -> None:
        if self._arriving is None:
            self._arriving = self.loop.call_later(self._timeout, self._late)

    def _arrived(self) -> None:
        if self._arriving:
            self._arriving.cancel()
            self._arriving = None

    def _late(self) -> None:
        self._arriving = None
        if self.pipeline:  # it is we who do not read on
            self._await_request()
        elif self._unfinished:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
        else:
            self.transport.close()
            self._bound_closing()

    def _not_http(self) -> None:
        if self._too_large:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(status, f"the head of the request is longer than {HEAD_LIMIT} bytes")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer what no application is to see, and hear no more."""
        self._deaf = True
        self._arrived()
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if answering and self._in_head:  # an earlier request: its answer is the last
            self.pipeline.clear()
            return
        if not answering or not cycle.response_started:
            self.transport.write(raw(status, message))
        if answering:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.can_write_eof():
            # The peer may still be sending. Closed at once, it would be reset before it has read.
            self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.abort)
        else:
            self.transport.close()
            self._bound_closing()

    def _bound_closing(self) -> None:
        """Cut off a peer that does not take what is left for it."""
        self.loop.call_later(LINGER, self.transport.abort)


def raw(status: HTTPStatus, message: str) -> bytes:
    """Return a whole answer that ends its connection."""
    _, problem, headers = notices.problem(notices.Refused(status, message))
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": str(notices.RETRY_AFTER)}
    body = packets.encode(problem)
    lines = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **HEADERS,
        **API_HEADERS,
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body
