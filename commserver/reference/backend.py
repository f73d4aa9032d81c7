"""The reference backend: a true peer for tests, demos and integrators. Standard library only.

It listens for commserver, checks its HANDSHAKE, and pushes an EXERCISE for each submission that it
is told of, over HTTP (`POST /submit {"id": "42"}`) or on its standard input (one id a line). What
it is told while nobody is connected waits, in order. Every packet is printed. With --ack it hears
how each attempt ends (`GET /results` tells), and acknowledges it. It answers token lookups. With
--expect it pushes attempts, checks how they end, and exits 0, or 1 and says what differed.

    python -m commserver.reference.backend --port 9500 --token SECRET --http-port 9501
"""

import argparse
import asyncio
import signal
import ssl
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from commserver.reference import frames
from commserver.reference.door import HEADER_LIMIT, Door
from commserver.reference.expected import WHAT, differences, parsed
from commserver.reference.frames import FRAMINGS, KEEP_ALIVE, REGISTER_TCP, Packet

CHUNK = 64 << 10  # bytes read at once
WAITING_LIMIT = 100_000  # submissions while nobody is connected
RESULTS_LIMIT = 10_000  # ends that are remembered; the oldest are forgotten first
STOP = 1.0  # seconds for links to end
EXPECT_TIMEOUT = 120.0  # seconds for all that is expected
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HANDSHAKES = ("echo", "ok", "silent", "error")


class _Link:
    """One connection that a commserver has dialled."""

    def __init__(self, writer: asyncio.StreamWriter, framing: str) -> None:
        self.writer = writer
        self.frames = FRAMINGS[framing]()
        self.written = 0.0  # when something was last said, by the loop's clock

    def send(self, packet: Packet) -> None:
        self.writer.write(self.frames.send(frames.encoded(packet)))
        self.written = asyncio.get_running_loop().time()


class ReferenceBackend:
    """A teaching platform reduced to its judge link: it listens, commservers dial in.

    tell: is given one line for each packet, in either direction.
    framing: "lines", or "length" with the messages and deadlines of a KryoNet peer.
    ack: asks commserver to tell it how each attempt ends.
    handshake: what a right token is met with: "echo", as the real platform does, "ok" or "silent".
        A wrong one is met with silence, as there; with "error" it is told ERROR, a right one is
        echoed.
    clients: the account of each user token, for lookups.
    tls: how links are encrypted, None = they are not.

    results: how attempts ended, by id and run, in the order in which they did.
    acknowledging: clear it to keep commserver waiting for its ACKs.
    """

    def __init__(
        self,
        token: str,
        tell: Callable[[str], None] | None = None,
        *,
        framing: str = "lines",
        ack: bool = False,
        handshake: str = "echo",
        clients: Mapping[str, int] | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = frames.TIMEOUT,
        keep_alive_period: float = frames.KEEP_ALIVE_PERIOD,
    ) -> None:
        assert handshake in HANDSHAKES
        self._tell = tell or (lambda line: None)
        self._token = token
        self._framing = framing
        self._ack = ack
        self._handshake = handshake
        self._clients = dict(clients or {})
        self._tls = tls
        self._timeout = timeout
        self._keep_alive_period = keep_alive_period
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # one for each of them
        self._links: list[_Link] = []  # those that were welcomed, the newest last
        self._waiting: deque[str] = deque()
        self._servers: list[asyncio.Server] = []
        self._moved = asyncio.Event()
        self.results: dict[tuple[str, str], dict[str, str]] = {}
        self.connected = asyncio.Event()
        self.acknowledging = asyncio.Event()
        self.acknowledging.set()
        self.port = 0
        self.http_port = 0

    async def start(self, host: str, port: int, http_port: int | None) -> None:
        """Listen; 0 takes any free port, which `port` and `http_port` then tell."""
        serve, answer = self._kept(self._serve), self._kept(self._http)
        server = await asyncio.start_server(serve, host, port, ssl=self._tls)
        self._servers.append(server)
        self.port = server.sockets[0].getsockname()[1]
        if http_port is not None:
            http = await asyncio.start_server(answer, host, http_port, limit=HEADER_LIMIT)
            self._servers.append(http)
            self.http_port = http.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Hang up on everybody and stop listening."""
        for server in self._servers:
            server.close()
        for writer in list(self._open):
            writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP)

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
        for link in list(self._links):
            packet = frames.encoded({"cmd": "EXERCISE", "id": id})
            link.writer.write(link.frames.send(packet)[:-5])
            link.writer.close()

    def finals(self) -> dict[str, dict[str, str]]:
        """Return how each attempt ended last, by its id."""
        return {id: final for (id, _), final in self.results.items()}

    async def until_ended(self, ids: Iterable[str]) -> None:
        """Return once commserver has told the end of each of these attempts."""
        wanted = set(ids)
        while wanted - self.finals().keys():
            self._moved.clear()
            await self._moved.wait()

    def _flush(self) -> None:
        """Push what waits, to the commserver that came last: the others may be half gone."""
        while self._waiting and self._links:
            packet: dict[str, object] = {"cmd": "EXERCISE", "id": self._waiting.popleft()}
            if self._ack:
                packet["ack"] = True
            self._send(self._links[-1], packet)

    def _send(self, link: _Link, packet: Packet) -> None:
        self._tell(f"backend -> commserver  {frames.masked(packet)}")
        link.send(packet)

    def _kept(self, serve: Serve) -> Serve:
        """Return the same, known to `stop` for as long as it takes."""

        async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open.add(writer)
            self._tasks.add(task)
            try:
                await serve(reader, writer)
            finally:
                self._open.discard(writer)
                self._tasks.discard(task)
                writer.close()

        return work

    # -- one link ---------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one commserver."""
        link = _Link(writer, self._framing)
        keeper = None
        try:
            if self._framing == "length":
                self._send(link, REGISTER_TCP)
                keeper = asyncio.create_task(self._keep_alive(link))
            while data := await self._next(reader):
                for frame in link.frames.receive(data):
                    packet = frames.decoded(frame)
                    self._tell(f"commserver -> backend  {frames.masked(packet)}")
                    self._act(packet, link)
        except (OSError, ValueError) as error:  # a peer that vanishes or talks nonsense is let go
            self._tell(f"a link is given up: {error or type(error).__name__}")
        finally:
            if keeper:
                keeper.cancel()
            if link in self._links:
                self._links.remove(link)
            if not self._links:
                self.connected.clear()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        """Return what has come; a KryoNet peer does not wait for it for ever."""
        if self._framing == "lines":
            return await reader.read(CHUNK)
        try:
            async with asyncio.timeout(self._timeout):
                return await reader.read(CHUNK)
        except TimeoutError:
            raise TimeoutError(f"silent for {self._timeout:g} s") from None

    async def _keep_alive(self, link: _Link) -> None:
        """Say something before the other side takes us for dead, as a KryoNet peer does."""
        loop = asyncio.get_running_loop()
        while True:
            due = link.written + self._keep_alive_period
            if loop.time() >= due:
                self._send(link, KEEP_ALIVE)
            else:
                await asyncio.sleep(due - loop.time())

    def _act(self, packet: dict[str, str], link: _Link) -> None:
        """Do what a commserver asks; strangers are heard only until their HANDSHAKE is right."""
        if packet.get("cmd") == "HANDSHAKE":
            self._shaken(packet, link)
        elif link in self._links:
            match packet.get("cmd"):
                case "EXECUTED" | "ERROR" if packet.get("id"):
                    self._ended(packet, link)
                case "AUTHENTICATE_CLIENT":
                    self._send(link, self._looked_up(packet))

    def _shaken(self, packet: dict[str, str], link: _Link) -> None:
        if not frames.same(packet.get("TOKEN", ""), self._token):
            if self._handshake == "error":
                self._send(link, {"cmd": "ERROR", "message": "wrong token"})
            return
        if self._handshake == "ok":
            self._send(link, {"cmd": "OK"})
        elif self._handshake != "silent":
            self._send(link, packet)
        if link not in self._links:
            self._links.append(link)
        self.connected.set()
        self._flush()

    def _ended(self, packet: dict[str, str], link: _Link) -> None:
        """Remember a final, which may come more than once, and acknowledge it."""
        self.results.setdefault((packet["id"], packet.get("run", "")), packet)
        if len(self.results) > RESULTS_LIMIT:
            del self.results[next(iter(self.results))]
        self._moved.set()
        if packet.get("seq") and self.acknowledging.is_set():
            self._send(link, {"cmd": "ACK", "seq": packet["seq"]})

    def _looked_up(self, packet: dict[str, str]) -> Packet:
        token = packet.get("TOKEN", "")
        found = [id for known, id in self._clients.items() if frames.same(known, token)]
        return {
            "cmd": "AUTHENTICATED_CLIENT",
            "authentication_id": packet.get("authentication_id", ""),
            "client_id": str(found[0] if found else -1),
        }

    # -- the HTTP side ----------------------------------------------------------------------------

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Door(self.submit, self._state, self._results).answer(reader, writer)

    def _state(self) -> dict[str, object]:
        return {"connected": len(self._links), "waiting": len(self._waiting)}

    def _results(self) -> list[dict[str, str]]:
        return list(self.results.values())


# -- as a program --------------------------------------------------------------------------------


async def serve(
    backend: ReferenceBackend,
    address: tuple[str, int, int],
    ids: Iterable[str],
    expected: Mapping[str, str],
    patience: float,
) -> int:
    """Run a backend until SIGTERM or SIGINT, or until all that is expected has ended.

    address: host, port and port of the HTTP side.
    ids: are pushed first, then what is expected, then what comes on standard input.
    patience: seconds for all that is expected.

    Returns the exit status: 1 when something did not end as expected.
    """
    await backend.start(*address)
    print(f"listening {backend.port} http {backend.http_port}", flush=True)
    for id in (*ids, *expected):
        backend.submit(id)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_typed, args=(backend, loop), daemon=True).start()
    if expected:
        status = await _checked(backend, expected, patience, stop)
    else:
        await stop.wait()
        status = 0
    await backend.stop()
    return status


async def _checked(
    backend: ReferenceBackend, expected: Mapping[str, str], patience: float, stop: asyncio.Event
) -> int:
    """Wait for the ends that are expected, and say whether they are."""
    ended = asyncio.ensure_future(backend.until_ended(expected))
    stopped = asyncio.ensure_future(stop.wait())
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, stopped):
        task.cancel()
    wrong = differences(expected, backend.finals())
    for sentence in wrong:
        print(f"differs: {sentence}", flush=True)
    if len(wrong) < len(expected):
        print(f"as expected: {len(expected) - len(wrong)} of {len(expected)}", flush=True)
    elif not backend.connected.is_set():
        print("differs: no commserver is connected", flush=True)
    return 1 if wrong else 0


def _typed(backend: ReferenceBackend, loop: asyncio.AbstractEventLoop) -> None:
    """Push what is typed; in a thread, since a file cannot be waited for in any other way."""
    for line in sys.stdin:
        if line.strip():
            loop.call_soon_threadsafe(backend.submit, line.strip())


def clients_in(lines: Iterable[str]) -> dict[str, int]:
    """Return the accounts in lines of `TOKEN=ID`; blank ones and those that begin with # are none.

    Raises:
        ValueError: a line is none of these; what it says is not repeated, it may be a token.
    """
    clients = {}
    for number, line in enumerate(lines, 1):
        token, equals, id = line.strip().rpartition("=")
        if line.strip() and not line.startswith("#"):
            if not (token and equals and id.isascii() and id.isdigit()):
                raise ValueError(f"number {number} is not TOKEN=ID")
            clients[token] = int(id)
    return clients


def main(arguments: list[str] | None = None) -> int:
    """Run it from a command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="commserver backend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ids", nargs="*", help="attempts to push as soon as commserver is there")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=9500)
    add("--token", default="", help="the SERVER_TOKEN that commserver must show")
    add("--http-port", type=int, default=9501)
    add("--framing", choices=sorted(FRAMINGS), default="lines", help="length: as KryoNet does")
    add("--ack", action="store_true", help="ask how attempts end, and acknowledge it")
    add("--handshake", choices=HANDSHAKES, default="echo", help="what a HANDSHAKE is met with")
    add("--client", metavar="TOKEN=ID", action="append", default=[], help="whose a user token is")
    add("--clients", metavar="FILE", type=Path, help="the same, one a line")
    add("--tls-cert", metavar="FILE", type=Path, help="PEM, with its chain")
    add("--tls-key", metavar="FILE", type=Path)
    add("--expect", metavar="ID=END,...", default="", help=f"how attempts must end: {WHAT}")
    add("--timeout", type=float, default=EXPECT_TIMEOUT, help="seconds for all that is expected")
    given = parser.parse_args(arguments)
    try:
        expected = parsed(given.expect) if given.expect else {}
        lines = given.clients.read_text().splitlines() if given.clients else []
        clients = clients_in(lines) | clients_in(given.client)
        tls = _tls(given.tls_cert, given.tls_key)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    backend = partial(
        ReferenceBackend,
        *(given.token, partial(print, flush=True)),
        framing=given.framing,
        ack=given.ack or bool(expected),
        handshake=given.handshake,
        clients=clients,
        tls=tls,
    )
    address = (given.host, given.port, given.http_port)

    async def work() -> int:
        return await serve(backend(), address, given.ids, expected, given.timeout)

    return asyncio.run(work())


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key:
            raise ValueError("--tls-key needs --tls-cert")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


if __name__ == "__main__":
    sys.exit(main())
