"""A link with lengths before its frames, as the peers of KryoNet have it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.typing import EventDict

from commserver.gateways.backend import client as module
from commserver.gateways.backend import link as link_module
from tests.fakes import FakeClock, settle
from tests.integration.links.peers import Link, ScriptedBackend, dialling, quick
from tests.unit.gateways.services import RecordingExecService

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}'
REGISTER = b"{class:RegisterTCP,connectionID:1}"  # as KryoNet's JsonSerialization writes them
KEEP_ALIVE = b"{class:KeepAlive}"


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


async def shaken(peer: ScriptedBackend) -> Link:
    """Return the next link, as a server of KryoNet welcomes it."""
    link = await peer.link()
    await link.say_frames(REGISTER)
    assert await link.frame() == HANDSHAKE
    await link.say_frames(HANDSHAKE)
    return link


async def test_kryonets_own_messages_are_counted_logged_once_and_ignored(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    async with dialling(quick(peer.port, framing="length"), execs):
        link = await shaken(peer)
        for id in (1, 2, 3):
            await link.say_frames(KEEP_ALIVE, b"", b'{"cmd":"EXERCISE","id":"%d"}' % id, b"{}")

        assert await execs.until_taken(3) == [1, 2, 3]
        await link.say_frames(b'{"cmd":"DANCE"}', b'{"cmd":"EXERCISE","id":4}')
        await execs.until_taken(4)
    assert peer.dialled == 1
    reasons = [line["reason"] for line in logs if line["event"] == "frame_ignored"]
    assert len(reasons) == 2
    assert "DANCE" in reasons[1]


NONSENSE = {
    "no JSON": b"\xff\xfe\x00",
    "a list": b'["EXERCISE","1"]',
    "no cmd": b'{"id":"1"}',
    "nesting": b'{"cmd":"EXERCISE","id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"cmd":"EXERCISE","id":NaN}',
    "a huge integer": b'{"cmd":"EXERCISE","id":' + b"9" * 100_000 + b"}",
    "no UTF-8": b'{"cmd":"EXERCISE","id":"\xc3"}',
    "half a character": b'{"cmd":"EXERCISE","id":"\\ud800"}',
    "wrong type": b'{"cmd":"EXERCISE","id":{"id":"1"}}',
    "wrong type of ack": b'{"cmd":"EXERCISE","id":"1","ack":1}',
    "two commands": b'{"cmd":"EXERCISE","id":"1","cmd":"OK"}',
    "truncated": b'{"cmd":"EXERCISE","id":"1"',
    "a megabyte": b"x" * (1 << 20),
}


@pytest.mark.parametrize("frame", NONSENSE.values(), ids=NONSENSE)
async def test_nonsense_has_one_line_and_disturbs_nothing(
    frame: bytes, peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    async with dialling(quick(peer.port, framing="length"), execs):
        link = await peer.link()
        await link.say_frames(HANDSHAKE, *[frame] * 3, b'{"cmd":"EXERCISE","id":"42"}')

        assert await execs.until_taken(1) == [42]
    assert peer.dialled == 1
    [line] = [line for line in logs if line["event"] == "frame_ignored"]
    assert len(line["reason"]) < 300


async def test_frames_with_lengths_may_be_cut_anywhere(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    frame = b'{"cmd":"EXERCISE",\n"id":"1"}'
    stream = 2 * (len(frame).to_bytes(4, "big") + frame)

    async with dialling(quick(peer.port, framing="length"), execs):
        link = await shaken(peer)
        await link.say(*(bytes([byte]) for byte in stream))

        assert await execs.until_taken(2) == [1, 1]


@pytest.mark.parametrize("head", [b"\0\0\x10\x01", b"\xff\xff\xff\xff"])
async def test_only_a_length_above_the_cap_ends_the_link(
    head: bytes, peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    async with dialling(quick(peer.port, framing="length", frame_limit=4096), execs):
        link = await shaken(peer)
        await link.say_frames(b"x" * 4096, b'{"cmd":"EXERCISE","id":"1"}')
        await execs.until_taken(1)
        await link.say(b'\0\0\0\x1b{"cmd":"EXERCISE","id":"2"}' + head)
        assert await link.ended()
        link = await shaken(peer)
        await link.say_frames(b'{"cmd":"EXERCISE","id":"3"}')

        assert await execs.until_taken(3) == [1, 2, 3]
    assert "4096" in next(line["error"] for line in logs if line["event"] == "link_down")


# -- keep-alive -----------------------------------------------------------------------------------


async def test_after_eight_seconds_in_which_we_said_nothing_a_keep_alive_is_sent(
    peer: ScriptedBackend, execs: RecordingExecService, clock: FakeClock
) -> None:
    async with dialling(quick(peer.port, framing="length"), execs, clock=clock):
        link = await shaken(peer)
        await settle()
        for _ in range(3):
            clock.advance(7.9)
            await settle()
            clock.advance(0.1)

            assert await link.frame() == b"{}"
        assert min(clock.alarms) == clock.now() + 8.0
        await link.say_frames(b'{"cmd":"EXERCISE","id":"1","ack":true}')
        clock.advance(5.0)
        assert (await link.frame()).startswith(b'{"cmd":"ACCEPTED"')
        await settle()
        clock.advance(5.0)
        await settle()
        clock.advance(3.0)
        assert await link.frame() == b"{}"


async def test_the_keep_alive_is_the_platforms_to_choose(
    peer: ScriptedBackend, clock: FakeClock
) -> None:
    config = quick(
        peer.port, framing="length", keepalive_period=2.0, keepalive_frame='{"class":"KeepAlive"}'
    )

    async with dialling(config, clock=clock):
        link = await shaken(peer)
        await settle()
        clock.advance(2.0)

        assert await link.frame() == b'{"class":"KeepAlive"}'


@pytest.mark.parametrize(
    "options", [{"framing": "length", "keepalive_period": 0}, {"framing": "lines"}]
)
async def test_with_lines_or_without_a_period_nothing_is_sent(
    options: dict[str, object], peer: ScriptedBackend, clock: FakeClock
) -> None:
    async with dialling(quick(peer.port, **options), clock=clock):
        link = await peer.link()
        if options["framing"] == "length":
            await link.frame()
        else:
            await link.line()
        await settle(100)
        clock.advance(3600)
        await settle(100)

    assert await link.ended()


async def test_a_backend_that_reads_nothing_is_hung_up_on(
    peer: ScriptedBackend, logs: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "SEND_TIMEOUT", 0.05)
    config = quick(
        peer.port, framing="length", keepalive_period=0.01, keepalive_frame="x" * (8 << 20)
    )

    async with dialling(config):
        link = await peer.link()
        link.deafen()
        await peer.link()

    assert "read nothing" in next(line["error"] for line in logs if line["event"] == "link_down")


async def test_keep_alives_end_with_their_link(peer: ScriptedBackend, clock: FakeClock) -> None:
    async with dialling(quick(peer.port, framing="length"), clock=clock):
        link = await shaken(peer)
        await settle()
        link.close()
        link = await shaken(peer)
        async with asyncio.timeout(10):
            while 8.0 not in clock.alarms:  # noqa: ASYNC110  # an alarm has no event
                await asyncio.sleep(0)

        assert clock.alarms.count(8.0) == 1
