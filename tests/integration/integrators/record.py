"""Records what is really said on both links into `docs/protocols/exchanges`.

    python -m tests.integration.integrators.record

The server is the real one, on an engine that runs nothing; the platform's backend is the reference
backend, and everything that passes between them is written down on the way.
"""

import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr
from sqlalchemy import text

from commserver import app, operations
from commserver.commands import script
from commserver.config import Backend, Browser, Config, Docker, Http, Queue
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.reference.backend import ReferenceBackend
from commserver.reference.frames import FRAMINGS
from commserver.trial import Browser as Tab
from tests.conftest import ROOT
from tests.fake_sandbox import FakeSandbox

FOLDER = ROOT / "docs" / "protocols" / "exchanges"
SERVER_TOKEN, USER_TOKEN = "SERVER_TOKEN", "USER_TOKEN"
FIRST = 41  # the id of the first attempt
PATIENCE = 60.0  # seconds for what must come
UP, DOWN = "backend → commserver", "commserver → backend"
ASKED, TOLD = "browser → commserver", "commserver → browser"
DOUBLE = """
format = 1
key = "double"
course = "python-101"
title = "Double it"
kind = "tests"
language = "python"
grade_max = 20

[[cases]]
name = "the example"
input = "21\\n"
expected = "42\\n"
"""

_RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ACCEPTED = re.compile(r'("cmd":"ACCEPTED".*,"place":)"[01]"')
_FRAME = re.compile(r"  (?:[0-9a-f]{2} ){4}(?=\{)")  # a length, which a masked frame has not


@dataclass
class Wire:
    """Stands between commserver and its backend, and notes each frame as it passes.

    port: where commserver dials. lines: what was noted.
    """

    lines: list[str]
    framing: str
    port: int = 0
    backend_port: int = 0
    _links: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for writer in self._links:
            writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)

    def cut(self) -> None:
        """End every link without a word."""
        self.note("(the link is cut)")
        for writer in self._links:
            writer.transport.abort()

    def note(self, line: str) -> None:
        self.lines.append(line)
        self._moved.set()

    async def until(self, way: str, command: str, count: int = 1) -> None:
        """Wait until so many packets of this kind have passed."""
        async with asyncio.timeout(PATIENCE):
            while sum(line.startswith(way) and command in line for line in self.lines) < count:
                self._moved.clear()
                await self._moved.wait()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self.backend_port)
        self._links += [writer, back]
        await asyncio.gather(self._pass(reader, back, DOWN), self._pass(there, writer, UP))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        framing = FRAMINGS[self.framing]()
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                for frame in framing.receive(data):
                    length = f"{len(frame).to_bytes(4, 'big').hex(' ')} "
                    shown = length if self.framing == "length" else ""
                    self.note(f"{way}  {shown}{frame.decode()}")
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Stage:
    """A site with its backend and one student, Ada, and what they say."""

    wire: Wire
    backend: ReferenceBackend
    engine: FakeSandbox
    config: Config
    port: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def attempt(self, student: str = "ada") -> str:
        """Write one as the platform does; returns its id."""
        async with operations.admin(self.config) as admin:
            account, source = await admin.account(student), SourceFile("main.py", "print(42)")
            return str(await admin.add_attempt(account, 1, [source]))

    async def busy(self) -> None:
        """Wait until the one slot has something to do."""
        async with asyncio.timeout(PATIENCE):
            while not self.engine.running:  # noqa: ASYNC110  # an engine has no event for it
                await asyncio.sleep(0.005)

    async def browser(self, token: str | None = None) -> Tab:
        """Have Ada open a tab, which says AUTH."""
        if token is None:
            async with operations.admin(self.config) as admin:
                token = await admin.new_token(await admin.account("ada"))
        shown = json.dumps({"cmd": "AUTH", "TOKEN": USER_TOKEN}, separators=(",", ":"))
        self.wire.note(f"{ASKED}  {shown}")
        tab = Tab(lambda packet: self.wire.note(f"{TOLD}  {packet}"))
        await tab.open(f"ws://127.0.0.1:{self.port}", token)
        self._stack.push_async_callback(tab.close)
        return tab

    async def say(self, tab: Tab, packet: Mapping[str, str]) -> None:
        """Have a tab say something."""
        self.wire.note(f"{ASKED}  {json.dumps(packet, separators=(',', ':'))}")
        await tab.send(packet)


@asynccontextmanager
async def stage(
    state: Path,
    *,
    token: str = SERVER_TOKEN,
    framing: Literal["lines", "length"] = "lines",
    keep_alive: float = 8.0,
    verifier: Literal["database", "backend"] = "database",
    **options: Any,
) -> AsyncIterator[Stage]:
    """Yield a site that has shaken hands, if it may.

    token: what commserver shows. keep_alive: seconds of silence on either side until one is sent.
    options: of the reference backend.
    """
    async with AsyncExitStack() as stack:
        wire = Wire([], framing)
        await wire.start()
        stack.push_async_callback(wire.stop)
        backend = ReferenceBackend(
            SERVER_TOKEN, framing=framing, keep_alive_period=keep_alive, **options
        )
        await backend.start("127.0.0.1", 0, None)
        stack.push_async_callback(backend.stop)
        wire.backend_port = backend.port
        config = Config(
            state_dir=state,
            backend=Backend(
                port=wire.port,
                token=SecretStr(token),
                framing=framing,
                keepalive_period=keep_alive,
                retry_first=0.05,
            ),
            browser=Browser(port=0, place_period=0.0, verifier=verifier),
            http=Http(enabled=False),
            docker=Docker(slots=1),
            queue=Queue(grace=0.0, sweep="off"),
        )
        await _prepare(config, state / "double")
        engine = FakeSandbox()
        built = await stack.enter_async_context(app.built(config, sandboxes=lambda *_: [engine]))
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        made = Stage(wire, backend, engine, config)
        try:
            async with asyncio.timeout(PATIENCE):
                await built.server.listening.wait()
            made.port = built.server.port
            if token == SERVER_TOKEN:
                await wire.until(UP, "HANDSHAKE")
            yield made
        finally:
            await made._stack.aclose()
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served


async def _prepare(config: Config, folder: Path) -> None:
    """Make the database, with an exercise and an attempt before the first that is recorded."""
    await asyncio.to_thread(_write_exercise, folder)
    async with operations.opened(config) as database:
        await migrations.upgrade(database, with_platform=True)
    async with operations.admin(config) as admin:
        await admin.import_exercise(folder, "teacher")
        await admin.account("ada")
    before = {"id": FIRST - 1}
    row = text("INSERT INTO user_exercises (id, account_id, exercise_id) VALUES (:id, 1, 1)")
    async with operations.opened(config) as database:
        await database.write(lambda connection: connection.execute(row, before))


def _write_exercise(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "exercise.toml").write_text(DOUBLE)


# -- the exchanges --------------------------------------------------------------------------------


async def plain_life(state: Path) -> list[str]:
    """Two attempts on a site with one slot: another student's is running, Ada's waits for it."""
    async with stage(state) as site:
        site.engine.hang()
        others, hers = await site.attempt("grace"), await site.attempt()
        tab = await site.browser()
        await site.wire.until(TOLD, '"OK"')
        site.backend.submit(others)
        await site.busy()
        site.backend.submit(hers)
        await site.wire.until(TOLD, "PLACE_IN_QUEUE")
        site.engine.resume()
        site.engine.hang()  # only the first goes on
        await site.wire.until(TOLD, '"place":"0"')
        site.engine.resume()
        await site.wire.until(TOLD, "EXERCICE_EXECUTED")
        await site.say(tab, {"cmd": "ACK", "seq": "1"})
        await site.wire.until(TOLD, '"OK"', 2)
    return site.wire.lines


async def whole_life(state: Path) -> list[str]:
    """The same with "ack": the backend hears of both as well."""
    async with stage(state, ack=True) as site:
        site.engine.hang()
        others, hers = await site.attempt("grace"), await site.attempt()
        tab = await site.browser()
        await site.wire.until(TOLD, '"OK"')
        site.backend.submit(others)
        await site.wire.until(DOWN, "ACCEPTED")
        await site.busy()
        site.backend.submit(hers)
        await site.wire.until(DOWN, "ACCEPTED", 2)
        await site.wire.until(TOLD, "PLACE_IN_QUEUE")
        site.engine.resume()
        site.engine.hang()  # only the first goes on
        await site.wire.until(UP, '"ACK"')
        await site.wire.until(TOLD, '"place":"0"')
        site.engine.resume()
        await site.wire.until(UP, '"ACK"', 2)
        await site.wire.until(TOLD, "EXERCICE_EXECUTED")
        await site.say(tab, {"cmd": "ACK", "seq": "1"})
        await site.wire.until(TOLD, '"OK"', 2)
    return site.wire.lines


async def ack_life(state: Path) -> list[str]:
    """With "ack" the backend hears of it too: a right solution, then an exercise that is broken."""
    async with stage(state, ack=True) as site:
        site.backend.submit(await site.attempt())
        await site.wire.until(UP, '"ACK"')
        _, ends = (await script.written(site.config, ["error"]))[-2:]
        site.backend.submit(ends.partition("=")[0])
        await site.wire.until(UP, '"ACK"', 2)
    return site.wire.lines


async def refused_handshake(state: Path) -> list[str]:
    """A wrong token, of which this backend says so: commserver hangs up and tries again later."""
    async with stage(state, token="a-wrong-one", handshake="error") as site:
        await site.wire.until(UP, "ERROR", 2)
        return site.wire.lines[:4]


async def unknown_attempt(state: Path) -> list[str]:
    """An id that is not there, nor 4.4 s later: it has no owner, and nothing to acknowledge."""
    async with stage(state, ack=True) as site:
        site.backend.submit("999")
        await site.wire.until(DOWN, "ERROR")
    return site.wire.lines


async def length_framing(state: Path) -> list[str]:
    """Each frame after its length, KryoNet's own messages among them, and keep-alives when idle."""
    async with stage(state, framing="length", keep_alive=0.5) as site:
        site.backend.submit(await site.attempt())
        await site.wire.until(UP, "EXERCISE")
        await site.wire.until(UP, "KeepAlive")
        await site.wire.until(DOWN, "{}")
    return site.wire.lines


async def token_lookup(state: Path) -> list[str]:
    """A site that asks its backend whose a token is: a known one, then an unknown one."""
    async with stage(state, verifier="backend", clients={"known": 12}) as site:
        await site.browser("known")
        await site.wire.until(TOLD, '"OK"')
        await site.browser("unknown")
        await site.wire.until(TOLD, "401")
    lines = [line.replace('"known"', f'"{USER_TOKEN}"') for line in site.wire.lines]
    return [line.replace('"unknown"', f'"{USER_TOKEN}"') for line in lines]


async def replay(state: Path) -> list[str]:
    """The link is lost before the ACK: after the next HANDSHAKE the final comes again."""
    async with stage(state, ack=True) as site:
        site.backend.acknowledging.clear()
        site.backend.submit(await site.attempt())
        await site.wire.until(DOWN, "EXECUTED")
        site.backend.acknowledging.set()
        site.wire.cut()
        await site.wire.until(UP, '"ACK"')
    return site.wire.lines


EXCHANGES: Sequence[Callable[[Path], Awaitable[list[str]]]] = (
    plain_life,
    whole_life,
    ack_life,
    refused_handshake,
    unknown_attempt,
    length_framing,
    token_lookup,
    replay,
)


def name_of(exchange: Callable[..., object]) -> str:
    """Return the name of an exchange's file."""
    return exchange.__name__.replace("_", "-") + ".txt"


def masked(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return what was said on each link with its runs numbered.

    Without lengths, keep-alives and KryoNet's messages, which come when they come, and without the
    place in ACCEPTED, since a slot may be as fast. Two links have no common order, so each stands
    for itself.
    """
    said: dict[str, list[str]] = {"backend": [], "browser": []}
    runs: dict[str, dict[str, str]] = {"backend": {}, "browser": {}}
    for line in lines:
        if line.startswith("#") or '"class":' in line or line.endswith("{}"):
            continue
        link = "browser" if line.startswith((ASKED, TOLD)) else "backend"
        known = runs[link]
        bare = _ACCEPTED.sub(r"\1", _FRAME.sub("  ", line))
        for run in _RUN.findall(bare):
            bare = bare.replace(run, known.setdefault(run, f"run {len(known) + 1}"))
        said[link].append(bare)
    return said


async def record(folder: Path, scratch: Path) -> None:
    """Write every exchange into a file of its own."""
    for exchange in EXCHANGES:
        lines = await exchange(scratch / exchange.__name__)
        title = (exchange.__doc__ or "").replace("\n    ", " ")
        (folder / name_of(exchange)).write_text("\n".join([f"# {title}", *lines, ""]))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(record(FOLDER, Path(scratch)))
    sys.exit(0)
