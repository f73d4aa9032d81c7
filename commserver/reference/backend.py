"""The reference backend: a true peer for tests, demos and integrators. Standard library only.

It listens for commserver, checks its HANDSHAKE, and pushes an EXERCISE for each submission that it
is told of, over HTTP (`POST /submit {"id": "42"}`) or on its standard input (one id a line). What
it is told while nobody is connected waits, in order. Every packet is printed.

    python -m commserver.reference.backend --port 9500 --token SECRET --http-port 9501
"""

import argparse
import asyncio
import hmac
import json
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

FRAME_LIMIT = 1 << 20
HEADER_LIMIT = 16 << 10
PATIENCE = 10.0  # seconds for an HTTP request to arrive
WAITING_LIMIT = 100_000  # submissions while nobody is connected


class ReferenceBackend:
    """A teaching platform reduced to its judge link: it listens, commserver dials in.

    A right HANDSHAKE is echoed, a wrong one met with silence, as the real platform does.
    """

    def __init__(self, token: str, tell: Callable[[str], None] | None = None) -> None:
        """`tell` is given one line for each packet, in either direction."""
        self._tell = tell or (lambda line: None)
        self._token = token
        self._open: set[asyncio.StreamWriter] = set()
        self._links: set[asyncio.StreamWriter] = set()  # those of them that were welcomed
        self._waiting: deque[str] = deque()
        self._servers: list[asyncio.Server] = []
        self.connected = asyncio.Event()
        self.port = 0
        self.http_port = 0

    async def start(self, host: str, port: int, http_port: int | None) -> None:
        """Listen; 0 takes any free port, which `port` and `http_port` then tell."""
        server = await asyncio.start_server(self._link, host, port, limit=FRAME_LIMIT)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        if http_port is not None:
            http = await asyncio.start_server(self._http, host, http_port, limit=HEADER_LIMIT)
            self._servers.append(http)
            self.http_port = http.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        for server in self._servers:
            server.close()
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0)

    def submit(self, id: str) -> None:
        """Push one EXERCISE now, or as soon as somebody is connected.

        Raises:
            OverflowError: too many are waiting.
        """
        if len(self._waiting) >= WAITING_LIMIT:
            raise OverflowError("too many submissions are waiting")
        self._waiting.append(id)
        self._flush()

    def cut(self, id: str) -> None:
        """Hang up in the middle of an EXERCISE, which is then forgotten: a fault for tests."""
        for writer in list(self._links):
            writer.write(json.dumps({"cmd": "EXERCISE", "id": id}).encode()[:-4])
            writer.close()

    def _flush(self) -> None:
        while self._waiting and self._links:
            packet = {"cmd": "EXERCISE", "id": self._waiting.popleft()}
            self._send(next(iter(self._links)), packet)

    def _send(self, writer: asyncio.StreamWriter, packet: dict[str, str]) -> None:
        line = json.dumps(packet, separators=(",", ":"))
        self._tell(f"backend -> commserver  {_masked(packet)}")
        writer.write(line.encode() + b"\n")

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one commserver."""
        self._open.add(writer)
        try:
            while line := await reader.readline():
                packet = _object(line)
                self._tell(f"commserver -> backend  {_masked(packet)}")
                if packet.get("cmd") == "HANDSHAKE" and hmac.compare_digest(
                    packet.get("TOKEN", "").encode(errors="surrogatepass"), self._token.encode()
                ):
                    self._send(writer, packet)
                    self._links.add(writer)
                    self.connected.set()
                    self._flush()
        except (OSError, ValueError):
            pass  # a peer that vanishes or talks nonsense is let go
        finally:
            self._open.discard(writer)
            self._links.discard(writer)
            if not self._links:
                self.connected.clear()
            writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        self._open.add(writer)
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
            pass  # likewise
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[HTTPStatus, dict[str, object]]:
        try:
            method, path, length = await _request(reader)
        except ValueError:
            return HTTPStatus.BAD_REQUEST, {"error": "this is no HTTP request"}
        match method, path:
            case "GET", "/":
                connected, waiting = len(self._links), len(self._waiting)
                return HTTPStatus.OK, {"connected": connected, "waiting": waiting}
            case "POST", "/submit" if 0 < length <= FRAME_LIMIT:
                id = _object(await reader.readexactly(length)).get("id", "")
                if not id:
                    return HTTPStatus.BAD_REQUEST, {"error": 'send {"id": "42"}'}
                try:
                    self.submit(id)
                except OverflowError as error:
                    return HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
                return HTTPStatus.ACCEPTED, {"id": id, "connected": len(self._links)}
            case "POST", "/submit":
                return HTTPStatus.BAD_REQUEST, {"error": "no body, or too long"}
            case _:
                return HTTPStatus.NOT_FOUND, {"error": "POST /submit or GET /"}


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, int]:
    method, path, _ = (await reader.readline()).decode("latin-1").split()
    length = 0
    while (line := (await reader.readline()).strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return method, path, length


def _object(text: bytes) -> dict[str, str]:
    """Return a JSON object's strings; anything else is an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {str(key): str(item) for key, item in value.items() if isinstance(item, str | int)}


def _masked(packet: dict[str, str]) -> str:
    return json.dumps({k: "***" if k == "TOKEN" else v for k, v in packet.items()})


async def serve(host: str, port: int, token: str, http_port: int | None, ids: list[str]) -> None:
    """Run a backend until SIGTERM or SIGINT; `ids` are pushed first, then those on stdin."""
    backend = ReferenceBackend(token, partial(print, flush=True))
    await backend.start(host, port, http_port)
    print(f"listening {backend.port} http {backend.http_port}", flush=True)
    for id in ids:
        backend.submit(id)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_typed, args=(backend, loop), daemon=True).start()
    await stop.wait()
    await backend.stop()


def _typed(backend: ReferenceBackend, loop: asyncio.AbstractEventLoop) -> None:
    """Push what is typed; in a thread, since a file cannot be waited for in any other way."""
    for line in sys.stdin:
        if line.strip():
            loop.call_soon_threadsafe(backend.submit, line.strip())


def main(arguments: list[str] | None = None) -> None:
    """Run it from a command line."""
    parser = argparse.ArgumentParser(prog="commserver backend", description=__doc__)
    parser.add_argument("ids", nargs="*", help="attempts to push as soon as commserver is there")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9500)
    parser.add_argument("--token", default="", help="the SERVER_TOKEN that commserver must show")
    parser.add_argument("--http-port", type=int, default=9501)
    given = parser.parse_args(arguments)
    asyncio.run(serve(given.host, given.port, given.token, given.http_port, given.ids))


if __name__ == "__main__":
    main()
