"""Checks somebody's backend: dials it as commserver does, and says of each rule whether it holds.

Standard library only. A rule is `ok`, `failed`, or `not seen` where nothing happened that would
have shown it. Most rules about EXERCISE need somebody to hand something in, time and again: that is
what `provoke` is for.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from commserver.reference import frames
from commserver.reference.frames import FRAME_LIMIT, FRAMINGS, Packet

CHUNK = 64 << 10  # bytes read at once
BYTE_PAUSE = 0.002  # seconds between the bytes of a HANDSHAKE that comes in pieces
SEVERAL = 3  # links at once
LARGEST_ID = 2**63 - 1  # what databases can hold
LOOKUPS = ("7001", "7002")  # authentication_id of a right and of a wrong token
SHOWN = 80  # characters of a frame that are shown

RULES: Mapping[str, str] = {
    "handshake": "meets a right HANDSHAKE with echo, OK or silence, and stays connected",
    "pieces": "takes a HANDSHAKE that comes byte by byte",
    "exercise": "pushes EXERCISE, whose id is the attempt's, a string or an integer",
    "frames": f"sends one JSON object a frame, {FRAME_LIMIT} bytes at most",
    "stranger": "pushes nothing to whoever has not shown the token",
    "refusal": "meets a wrong token with silence, ERROR or hanging up",
    "several": "serves several links at once",
    "unknown": "ignores a cmd and fields that it does not know",
    "keepalive": "ignores keep-alive frames",
    "idle": "keeps a link on which nothing is said",
    "reconnect": "pushes on after commserver has vanished and come back",
    "ack": "acknowledges finals, also those that come again",
    "lookup": "answers AUTHENTICATE_CLIENT",
}

Outcome = Literal["ok", "failed", "not seen"]
Provoke = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one rule; `why` is one sentence."""

    rule: str
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Target:
    """The backend that is checked, and how long it is given.

    user_token: one that it should know, "" = only a wrong one is looked up.
    settle: seconds in which what must not happen does not. idle: seconds of silence.
    patience: seconds for what must happen.
    """

    host: str
    port: int
    token: str
    framing: str = "lines"
    tls: ssl.SSLContext | None = None
    user_token: str = ""
    settle: float = 1.0
    idle: float = 30.0
    patience: float = 10.0


class NotHandedIn(Exception):
    """What should have handed something in did not; the text says why."""


@dataclass(frozen=True, slots=True)
class Push:
    """An EXERCISE; one whose frame cannot be read has neither id nor ack."""

    id: str = ""
    ack: bool = False


@dataclass(slots=True)
class _Seen:
    """What was wrong with frames and with EXERCISE on any link, and how many there were."""

    frames: int = 0
    exercises: int = 0
    bad_frame: str = ""
    bad_exercise: str = ""


@dataclass(slots=True)
class _Link:
    """One connection to the backend, read by a task of its own."""

    writer: asyncio.StreamWriter
    framing: frames.Framing
    seen: _Seen
    packets: list[dict[str, Any]] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    closed: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, packet: Packet) -> None:
        """Send a packet; whoever has hung up is found out by reading."""
        with suppress(OSError):
            self.writer.write(self.framing.send(frames.encoded(packet)))
            await self.writer.drain()

    async def until(self, done: Callable[[], object], seconds: float) -> bool:
        """Wait until `done()`; returns False when the link ends or the time is over before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not done() and not self.closed:
                    self.moved.clear()
                    await self.moved.wait()
        return bool(done())

    async def stays(self, seconds: float) -> bool:
        """Wait; returns whether the link is still there."""
        await self.until(lambda: False, seconds)
        return not self.closed

    def said(self, *commands: str) -> list[dict[str, Any]]:
        """Return the packets with one of these commands."""
        return [packet for packet in self.packets if packet.get("cmd") in commands]

    def vanish(self) -> None:
        """End the link with RST."""
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            self.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
        self.writer.transport.abort()

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Keep what comes until the link ends."""
        try:
            while data := await reader.read(CHUNK):
                for frame in self.framing.receive(data):
                    self._take(frame)
                self.moved.set()
        except ValueError as error:
            self.seen.bad_frame = self.seen.bad_frame or f"it sent {error}"
            self.pushes.append(Push())  # whatever it was
        except OSError:
            pass
        finally:
            self.closed = True
            self.moved.set()

    def _take(self, frame: bytes) -> None:
        self.seen.frames += 1
        shown = frame[:SHOWN].decode(errors="replace")
        try:
            packet = json.loads(frame)
        except (ValueError, RecursionError) as error:
            if isinstance(self.framing, frames.Lines) or frame.lstrip().startswith(b"{"):
                self.seen.bad_frame = self.seen.bad_frame or f"{shown} is not one object: {error}"
            if b"EXERCISE" in frame:
                self.pushes.append(Push())
            return
        if not isinstance(packet, dict):
            if isinstance(self.framing, frames.Lines):
                self.seen.bad_frame = self.seen.bad_frame or f"{shown} is no JSON object"
            return
        self.packets.append(packet)
        if packet.get("cmd") == "EXERCISE":
            self.seen.exercises += 1
            id = packet.get("id")
            self.seen.bad_exercise = self.seen.bad_exercise or _problem(id)
            self.pushes.append(Push(str(id), packet.get("ack") is True))


def _problem(id: object) -> str:
    """Return what is wrong with an EXERCISE's id, "" for nothing."""
    if isinstance(id, bool) or not isinstance(id, str | int):
        return f"its id is {json.dumps(id)[:SHOWN]}, neither a string nor an integer"
    text = str(id)
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > LARGEST_ID:
        return f"no attempt can have the id {text[:SHOWN]!r}"
    return ""


class Conformance:
    """One examination of one backend.

    provoke: has somebody hand something in; raises NotHandedIn when that fails. None = nobody does.
    """

    def __init__(self, target: Target, provoke: Provoke | None = None) -> None:
        self._target = target
        self._provoke = provoke
        self._seen = _Seen()
        self._findings: dict[str, Finding] = {}
        self._answers = False  # whether a right HANDSHAKE is answered at all
        self._pushes = False  # whether what is handed in is pushed at all

    async def run(self) -> Sequence[Finding]:
        """Return what became of each rule, in the order of `RULES`."""
        gone = await self._guarded("handshake", self._handshake)
        if self._findings["handshake"].outcome == "failed":
            gone = "no link could be made"
        checks: Mapping[str, Callable[[], Awaitable[None]]] = {
            "pieces": self._pieces,
            "exercise": self._exercise,
            "stranger": self._stranger,
            "several": self._several,
            "unknown": self._unknown,
            "keepalive": self._keepalive,
            "idle": self._idle,
            "reconnect": self._reconnect,
            "ack": self._ack,
            "lookup": self._lookup,
        }
        for rule, check in checks.items():
            gone = gone or await self._guarded(rule, check)
        self._sum_up()
        for rule in RULES:
            if rule not in self._findings:
                self._say(rule, "not seen", gone or "it did not come to this")
        return [self._findings[rule] for rule in RULES]

    async def _guarded(self, rule: str, check: Callable[[], Awaitable[None]]) -> str:
        """Make a check; returns why there can be no other, "" when there can."""
        try:
            await check()
        except NotHandedIn as error:
            self._say(rule, "not seen", str(error))
        except OSError as error:
            self._say(rule, "failed", f"it cannot be dialled: {error or type(error).__name__}")
            return f"it could not be dialled any more after the check of {rule!r}"
        if rule != "handshake" and not await self._lives():
            if self._findings[rule].outcome != "failed":
                self._say(rule, "failed", "afterwards it takes no right HANDSHAKE any more")
            return f"it took no HANDSHAKE any more after the check of {rule!r}"
        return ""

    def _say(self, rule: str, outcome: Outcome, why: str) -> None:
        self._findings[rule] = Finding(rule, outcome, why)

    # -- links ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[_Link]:
        """Yield a link on which nothing was said yet."""
        target = self._target
        async with asyncio.timeout(target.patience):
            reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls)
        link = _Link(writer, FRAMINGS[target.framing](), self._seen)
        tasks = [asyncio.create_task(link.read(reader))]
        if target.framing == "length":
            tasks.append(asyncio.create_task(_keep_alive(link)))
        try:
            yield link
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(target.settle):
                    await writer.wait_closed()

    @asynccontextmanager
    async def _welcomed(self, **more: object) -> AsyncIterator[_Link]:
        """Yield a link that has said a right HANDSHAKE and heard what there is to hear.

        more: further fields of the HANDSHAKE.
        """
        async with self._dialled() as link:
            await link.say({"cmd": "HANDSHAKE", "TOKEN": self._target.token, **more})
            await self._settled(link)
            yield link

    async def _settled(self, link: _Link) -> bool:
        """Wait for the answer to a HANDSHAKE, or a while; returns whether the link is welcome."""
        if self._answers:
            answered = await link.until(lambda: link.said("HANDSHAKE", "OK"), self._target.patience)
            return answered and not link.closed
        return await link.stays(self._target.settle)

    async def _lives(self) -> bool:
        """Return whether the backend still takes a right HANDSHAKE."""
        try:
            async with self._dialled() as link:
                await link.say({"cmd": "HANDSHAKE", "TOKEN": self._target.token})
                return await self._settled(link)
        except OSError:
            return False

    async def _handed_in(self) -> bool:
        """Have something handed in; returns whether anybody does that."""
        if self._provoke is None:
            return False
        await self._provoke()
        return True

    async def _pushed(self, link: _Link) -> Push | None:
        """Have something handed in and return its EXERCISE, None when none came in time."""
        await link.stays(self._target.settle)  # what came late from before does not count
        before = len(link.pushes)
        await self._handed_in()
        await link.until(lambda: len(link.pushes) > before, self._target.patience)
        return link.pushes[before] if len(link.pushes) > before else None

    def _unpushed(self) -> str:
        """Return why no EXERCISE can be waited for, "" when one can."""
        if self._provoke is None:
            return "nobody handed anything in"
        return "" if self._pushes else "what is handed in is not pushed"

    # -- rules ------------------------------------------------------------------------------------

    async def _handshake(self) -> None:
        async with self._welcomed() as link:
            if link.said("ERROR"):
                self._say("handshake", "failed", "it answered ERROR: is this its token?")
            elif link.closed:
                self._say("handshake", "failed", "it hung up")
            elif answer := link.said("HANDSHAKE", "OK"):
                self._answers = True
                self._say("handshake", "ok", f"it answered {answer[0]['cmd']}")
            else:
                self._say("handshake", "ok", "it was silent and stayed connected")

    async def _pieces(self) -> None:
        async with self._dialled() as link:
            packet = {"cmd": "HANDSHAKE", "TOKEN": self._target.token}
            with suppress(OSError):
                for byte in link.framing.send(frames.encoded(packet)):
                    link.writer.write(bytes([byte]))
                    await link.writer.drain()
                    await asyncio.sleep(BYTE_PAUSE)
            if not await self._settled(link):
                self._say("pieces", "failed", "it hung up" if link.closed else "no answer came")
            elif self._answers:
                self._say("pieces", "ok", "it answered as before")
            elif self._provoke is None:
                self._say("pieces", "not seen", "it is silent, and nobody handed anything in")
            elif await self._pushed(link):
                self._say("pieces", "ok", "what was handed in came")
            else:
                self._say("pieces", "failed", "nothing that was handed in came")

    async def _exercise(self) -> None:
        async with self._welcomed() as link:
            if self._provoke is None:
                await link.stays(self._target.settle)
                self._say("exercise", "not seen", self._unpushed())
            elif await self._pushed(link):
                self._pushes = True
                self._say("exercise", "ok", "what was handed in came")
            else:
                why = f"something was handed in, and nothing came in {self._target.patience:g} s"
                self._say("exercise", "failed", why)

    async def _stranger(self) -> None:
        async with self._dialled() as mute, self._dialled() as stranger:
            await stranger.say({"cmd": "HANDSHAKE", "TOKEN": f"{self._target.token}-wrong"})
            await stranger.stays(self._target.settle)
            self._refusal(stranger)
            handed_in = await self._handed_in()
            await mute.stays(self._target.settle)
            if stranger.pushes:
                self._say("stranger", "failed", "EXERCISE was pushed after a wrong HANDSHAKE")
            elif mute.pushes:
                self._say("stranger", "failed", "EXERCISE was pushed before any HANDSHAKE")
            elif handed_in:
                self._say("stranger", "ok", "what was handed in was not pushed to strangers")
            else:
                self._say("stranger", "not seen", self._unpushed())

    def _refusal(self, stranger: _Link) -> None:
        if welcome := stranger.said("HANDSHAKE", "OK"):
            why = f"it answered {welcome[0]['cmd']} to a wrong token"
            self._say("refusal", "failed", why)
        elif stranger.said("ERROR"):
            self._say("refusal", "ok", "it answered ERROR")
        else:
            self._say("refusal", "ok", "it hung up" if stranger.closed else "it was silent")

    async def _several(self) -> None:
        async with AsyncExitStack() as stack:
            links = [await stack.enter_async_context(self._welcomed()) for _ in range(SEVERAL)]
            await links[-1].stays(self._target.settle)
            answered = sum(bool(link.said("HANDSHAKE", "OK")) for link in links)
            if closed := sum(link.closed for link in links):
                self._say("several", "failed", f"{closed} of {SEVERAL} links were closed")
            elif self._answers and answered < SEVERAL:
                self._say("several", "failed", f"{answered} of {SEVERAL} links were answered")
            else:
                self._say("several", "ok", f"{SEVERAL} links stayed")

    async def _unknown(self) -> None:
        async with self._welcomed(version="1", more={"a": [1, None]}) as link:
            if link.closed or (self._answers and not link.said("HANDSHAKE", "OK")):
                self._say("unknown", "failed", "a HANDSHAKE with further fields was not taken")
                return
            await link.say({"cmd": "CONFORMANCE", "id": "1", "more": {"a": [1, None]}})
            if not await link.stays(self._target.settle):
                self._say("unknown", "failed", "it hung up on a cmd that it does not know")
            elif why := self._unpushed():
                self._say("unknown", "ok", f"it stayed connected ({why})")
            elif await self._pushed(link):
                self._say("unknown", "ok", "it stayed connected and pushed on")
            else:
                self._say("unknown", "failed", "it pushed nothing any more on that link")

    async def _keepalive(self) -> None:
        if self._target.framing != "length":
            self._say("keepalive", "not seen", "only the framing length has keep-alive frames")
            return
        async with self._welcomed() as link:
            await link.say({})
            await link.say(frames.KEEP_ALIVE)
            if await link.stays(self._target.settle):
                self._say("keepalive", "ok", "it stayed connected")
            else:
                self._say("keepalive", "failed", "it hung up")

    async def _idle(self) -> None:
        async with self._welcomed() as link:
            if await link.stays(self._target.idle):
                self._say("idle", "ok", f"it stayed connected for {self._target.idle:g} s")
            else:
                self._say("idle", "failed", f"it hung up within {self._target.idle:g} s")

    async def _reconnect(self) -> None:
        async with self._welcomed() as link:
            link.vanish()
        async with self._welcomed() as link:
            if not await self._settled(link):
                self._say("reconnect", "failed", "the second HANDSHAKE was not taken")
            elif why := self._unpushed():
                self._say("reconnect", "not seen", f"the second link stayed, but {why}")
            elif await self._pushed(link):
                self._say("reconnect", "ok", "what was handed in came on the new link")
            else:
                self._say("reconnect", "failed", "nothing that was handed in came on the new link")

    async def _ack(self) -> None:
        if why := self._unpushed():
            self._say("ack", "not seen", why)
            return
        async with self._welcomed() as link:
            push = await self._pushed(link)
            if push is None or not push.ack:
                self._say("ack", "not seen", 'no EXERCISE came with "ack": true')
                return
            told = {"id": push.id, "run": "conformance"}
            await link.say({"cmd": "ACCEPTED", **told, "place": "0"})
            final = {"cmd": "EXECUTED", **told, "seq": "1", "status": "accepted", "grade": "20"}
            if not await self._acknowledged(link, final):
                self._say("ack", "failed", "it did not answer a final with ACK")
                return
            link.vanish()
        async with self._welcomed() as link:
            if await self._acknowledged(link, final):
                self._say("ack", "ok", "it answered with ACK, also when the final came again")
            else:
                self._say("ack", "failed", "it did not answer with ACK when the final came again")

    async def _acknowledged(self, link: _Link, final: Packet) -> bool:
        await link.say(final)
        return await link.until(
            lambda: any(str(ack.get("seq")) == final["seq"] for ack in link.said("ACK")),
            self._target.patience,
        )

    async def _lookup(self) -> None:
        asked = dict(zip(LOOKUPS, (self._target.user_token, "no-such-token"), strict=True))
        async with self._welcomed() as link:
            for number, token in asked.items():
                if token:
                    ask = {"cmd": "AUTHENTICATE_CLIENT", "authentication_id": number}
                    await link.say({**ask, "TOKEN": token})
            wanted = sum(bool(token) for token in asked.values())
            command = "AUTHENTICATED_CLIENT"
            await link.until(lambda: len(link.said(command)) >= wanted, self._target.patience)
            if link.closed:
                self._say("lookup", "failed", "it hung up")
            elif answers := link.said(command):
                why = self._wrong_answer(answers)
                self._say("lookup", "failed" if why else "ok", why or "it knows whose they are")
            else:
                self._say("lookup", "not seen", "it does not offer lookups: no answer came")

    def _wrong_answer(self, answers: Sequence[Mapping[str, Any]]) -> str:
        """Return what is wrong with the answers to lookups, "" for nothing."""
        found = {str(one.get("authentication_id")): str(one.get("client_id")) for one in answers}
        if strange := found.keys() - set(LOOKUPS):
            return f"it answered with an authentication_id that was not asked: {min(strange)}"
        right, wrong = (found.get(number) for number in LOOKUPS)
        if wrong != "-1":
            return f"a wrong token must give client_id -1, not {wrong}"
        if self._target.user_token and not (right or "").isdigit():
            return f"the right token must give the id of its account, not {right}"
        return ""

    def _sum_up(self) -> None:
        """Say what all links together have shown of frames and of EXERCISE."""
        if self._seen.bad_frame:
            self._say("frames", "failed", self._seen.bad_frame)
        elif self._seen.frames:
            self._say("frames", "ok", f"{self._seen.frames} frames came")
        if self._seen.bad_exercise:
            self._say("exercise", "failed", self._seen.bad_exercise)
        elif "exercise" in self._findings and not self._seen.exercises and self._pushes:
            self._say("exercise", "not seen", "none came that could be read")


async def _keep_alive(link: _Link) -> None:
    """Say something before a KryoNet peer takes us for dead."""
    while True:
        await asyncio.sleep(frames.KEEP_ALIVE_PERIOD)
        await link.say({})
