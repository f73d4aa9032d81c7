"""`commserver watch`: one's own places and results, live, as a browser is told them."""

import asyncio
import getpass
import json
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from commserver.config import Config
from commserver.errors import CommServerError, ConfigError, NotAuthenticated
from commserver.gateways.reconnect import BackOff

OPEN_TIMEOUT = 10.0  # seconds for a connection, and for the answer to AUTH
SETTLE = 2.0  # seconds of silence after which, with nothing waiting, there is nothing to wait for
PATIENCE = 60.0  # seconds without a server after which `--once` gives up
RETRY_FIRST, RETRY_MOST = 0.2, 10.0  # seconds between two dials
FRAME_LIMIT = 1 << 20  # bytes
SHOWN = 200  # attempts on a terminal, the newest news

Packet = Mapping[str, str]


class NoServer(CommServerError):
    """No server could be watched."""


@dataclass(slots=True)
class Line:
    """How it stands with one attempt, in words; `open` while the end of its run is to come."""

    attempt: str
    says: str
    open: bool
    run: str


class Places:
    """What is known of one's attempts. Each final counts once, however often it is sent."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}  # the newest news last
        self.seen = 0  # the highest number of a final

    @property
    def waiting(self) -> bool:
        """True while the end of anything is still to come."""
        return any(line.open for line in self.lines.values())

    def take(self, packet: Packet) -> Line | None:
        """Return the line that a packet changes, None when it says nothing new."""
        number = packet.get("seq", "")
        if number.isdecimal():
            if int(number) <= self.seen:
                return None
            self.seen = int(number)
        match packet.get("cmd"):
            case "PLACE_IN_QUEUE":
                place = packet.get("place", "")
                says = "running" if place == "0" else f"place {place}"
                return self._put(packet.get("user_exercice_id", ""), says, packet, open=True)
            case "PROGRESS":
                says = f"running: {packet.get('stage', '')} {packet.get('text', '')}".rstrip()
                return self._put(packet.get("user_exercice_id", ""), says, packet, open=True)
            case "EXERCICE_EXECUTED":
                grade = packet.get("grade", "")
                says = packet.get("status", "") or "judged"
                says += f", grade {grade}" if grade else ""
                return self._put(packet.get("id", ""), says, packet, open=False)
            case "ERROR" if number:
                why = packet.get("message") or f"error {packet.get('error_code', '')}"
                attempt = self._attempt(packet)
                return self._put(attempt, f"not graded: {why}", packet, open=False)
        return None

    def _attempt(self, packet: Packet) -> str:
        """Return which attempt a final ERROR is of: its target may be a container."""
        if packet.get("target") in ("EXERCICE", "EXERCISE"):
            return packet.get("target_id", "")
        run = packet.get("run", "")
        known = (line.attempt for line in self.lines.values() if line.run == run)
        return next(known, f"of run {run}")

    def _put(self, attempt: str, says: str, packet: Packet, *, open: bool) -> Line | None:
        run = packet.get("run", "")
        before = self.lines.pop(attempt, None)
        if open and before and not before.open and run and before.run == run:
            self.lines[attempt] = before  # progress that was overtaken by the end
            return None
        line = self.lines[attempt] = Line(attempt, says, open, run)
        return line


Tell = Callable[[str], None]  # news about the link or an attempt, in a line


class Watch:
    """Stays connected as one user, tells what comes, and acknowledges finals.

    once: end when nothing waits any more. settle, patience: seconds, see `SETTLE`, `PATIENCE`.
    """

    def __init__(
        self,
        url: str,
        token: str,
        tell: Tell,
        *,
        once: bool = False,
        trusted: ssl.SSLContext | None = None,
        settle: float = SETTLE,
        patience: float = PATIENCE,
    ) -> None:
        self._url = url
        self._token = token
        self._tell = tell
        self._once = once
        self._ssl = trusted
        self._settle = settle
        self._patience = patience
        self._known = False  # on this connection, who we are
        self._back_off = BackOff(RETRY_FIRST, RETRY_MOST)
        self.places = Places()

    async def run(self) -> None:
        """Watch until cancelled or, with `once`, nothing waits any more.

        Raises:
            NotAuthenticated: the server does not know the token.
            NoServer: with `once`, there was none for too long.
        """
        loop = asyncio.get_running_loop()
        lost = loop.time()
        while True:
            try:
                await self._watched()
            except (OSError, InvalidHandshake, ConnectionClosed, NoServer) as error:
                if self._known:
                    self._tell("the connection is lost")
                    lost = loop.time()
                self._known = False
                if self._once and loop.time() - lost >= self._patience:
                    raise NoServer(f"no server at {self._url}: {error}") from error
                await asyncio.sleep(self._back_off.pause())
            else:
                return

    async def _watched(self) -> None:
        """Watch over one connection; returns when there is nothing more to wait for."""
        async with connect(
            self._url,
            ssl=self._ssl,
            proxy=None,  # none of the environment is to see the token
            compression=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=1.0,
            max_size=FRAME_LIMIT,
        ) as socket:
            await socket.send(json.dumps({"cmd": "AUTH", "TOKEN": self._token}))
            while True:
                try:
                    async with asyncio.timeout(self._silence()):
                        frame = await socket.recv()
                except TimeoutError as error:
                    if self._known:
                        return
                    raise NoServer("it did not answer AUTH in time") from error
                await self._took(_decoded(frame), socket)

    def _silence(self) -> float | None:
        """Return for how many seconds nothing may come, None for ever."""
        if not self._known:
            return OPEN_TIMEOUT
        return self._settle if self._once and not self.places.waiting else None

    async def _took(self, packet: Packet, socket: ClientConnection) -> None:
        if not self._known:
            await self._welcomed(packet, socket)
        elif packet.get("cmd") == "ERROR" and packet.get("error_code") == "401":
            raise NotAuthenticated("the server does not know this token any more")
        elif line := self.places.take(packet):
            self._tell(f"attempt {line.attempt}: {line.says}")
        if (number := packet.get("seq", "")).isdecimal():
            await socket.send(json.dumps({"cmd": "ACK", "seq": number}))

    async def _welcomed(self, packet: Packet, socket: ClientConnection) -> None:
        """Take the answer to AUTH.

        Raises:
            NotAuthenticated: the token is nobody's.
            NoServer: the server cannot tell at the moment.
        """
        if packet.get("cmd") == "OK":
            self._known = True
            self._back_off.reset()
            self._tell("connected")
            await socket.send(json.dumps({"cmd": "PROGRESS", "on": "1"}))
        elif packet.get("error_code") == "401":
            raise NotAuthenticated("the server does not know this token")
        else:
            raise NoServer(packet.get("message") or "the server cannot say whose this token is")


def _decoded(frame: str | bytes) -> Packet:
    """Return the packet in a frame, an empty one for what is none."""
    try:
        packet: Packet = msgspec.json.decode(frame, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return packet


# -- the command ----------------------------------------------------------------------------------


async def run(
    config: Config,
    out: Console,
    *,
    url: str,
    token_file: Path | None,
    ca: Path | None,
    once: bool,
) -> None:
    """Show one's places and results, live on a terminal, else in plain lines.

    Raises:
        ConfigError: there is no token, or no address.
        NotAuthenticated, NoServer: see `Watch.run`.
    """
    address = url or _address(config)
    trusted = _trusted(address, ca)
    token = await asyncio.to_thread(read_token, token_file)
    if out.is_terminal:
        with Live(console=out, auto_refresh=False) as live:

            def show(news: str) -> None:
                live.update(_table(address, watch.places, news), refresh=True)

            watch = Watch(address, token, show, once=once, trusted=trusted)
            await watch.run()
    else:
        await Watch(address, token, _say, once=once, trusted=trusted).run()


def _say(news: str) -> None:
    print(news, flush=True)  # this is the command's output


def _address(config: Config) -> str:
    browser = config.browser
    if not browser.port:
        raise ConfigError(["watch: browser.port is 0, so that any port may be it; use --url"])
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(browser.host, browser.host)  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    return f"{'wss' if browser.tls_cert else 'ws'}://{host}:{browser.port}"


def _trusted(address: str, ca: Path | None) -> ssl.SSLContext | None:
    """Return whom to trust, None for an address without TLS.

    Raises:
        ConfigError: this is no address, or says what does not belong into one.
    """
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(["--url: not an address such as ws://127.0.0.1:8765"])
    if parts.username is not None or parts.query:  # it would be in logs and process lists
        raise ConfigError(["--url: no token or password belongs into an address"])
    if parts.scheme == "ws":
        return None
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except OSError as error:
        raise ConfigError([f"--ca: {ca}: {error}"]) from error


def read_token(file: Path | None) -> str:
    """Return the token: from a file, a person at the terminal who is not shown it, or stdin.

    Raises:
        ConfigError: there is none.
    """
    try:
        if file is not None:
            token = file.read_text(encoding="utf-8")
        elif sys.stdin.isatty():
            token = getpass.getpass("token: ")
        else:
            token = sys.stdin.readline()
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise ConfigError([f"the token cannot be read: {error}"]) from error
    if not token.strip():
        raise ConfigError(["the token is empty: give it by --token-file, or on standard input"])
    return token.strip()


def _table(address: str, places: Places, news: str) -> Table:
    table = Table("attempt", "now", box=None, pad_edge=False, title=f"{address}: {news}")
    table.title_justify = "left"
    for line in reversed(list(places.lines.values())[-SHOWN:]):
        table.add_row(Text(line.attempt), Text(line.says, "" if line.open else "bold"))
    return table
