"""The real Client over real sockets, against backends that behave and backends that do not."""

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from structlog.typing import EventDict

from commserver.config import Backend
from commserver.core.jobs import AttemptId, Origin
from commserver.errors import NotFound, StoreError
from commserver.gateways.backend import actions, packets
from commserver.gateways.backend import client as module
from commserver.gateways.backend import link as backend_link
from commserver.gateways.backend.client import Client
from commserver.gateways.reconnect import BackOff
from commserver.reference.backend import ReferenceBackend
from tests.fakes import settle
from tests.integration.links.conftest import SECRET
from tests.integration.links.peers import PATIENCE, Link, ScriptedBackend, dialling, quick
from tests.unit.gateways.backend.links import SCHOOL, FedFinals
from tests.unit.gateways.services import RecordingExecService

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}\n'
FRAME_LIMIT = 4096


def exercise(id: int) -> bytes:
    return b'{"cmd":"EXERCISE","id":"%d"}\n' % id


class Pauses:
    """The pauses that a client makes: `steps` in seconds; in truth they last `scale` of that."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.scale = 0.001
        self._more = asyncio.Event()

    def made(self, step: float) -> float:
        """Keep a pause; returns how long it is to last."""
        self.steps.append(step)
        self._more.set()
        return step * self.scale

    async def until(self, count: int) -> None:
        """Wait until a client has made so many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.steps) < count:
                self._more.clear()
                await self._more.wait()


class RecordedBackOff(BackOff):
    """The real one without its jitter."""

    def __init__(self, pauses: Pauses, first: float, most: float) -> None:
        super().__init__(first, most, jitter=lambda: 1.0)
        self._pauses = pauses

    def pause(self) -> float:
        return self._pauses.made(super().pause())


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Nothing here waits for long."""
    pauses = Pauses()
    monkeypatch.setattr(module, "BackOff", partial(RecordedBackOff, pauses))
    monkeypatch.setattr(module, "DRAIN", 0.05)
    monkeypatch.setattr(actions, "STORE_PAUSES", (0.001, 0.01))
    return pauses


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


@asynccontextmanager
async def running(
    port: int, execs: RecordingExecService, token_file: Path | None = None
) -> AsyncIterator[Client]:
    """Run a Client for the length of the block."""
    config = Backend(
        port=port,
        token=SecretStr("" if token_file else SECRET),
        token_file=token_file,
        frame_limit=FRAME_LIMIT,
        retry_first=1.0,
        retry_most=8.0,
    )
    client = Client("school", config, execs, FedFinals())
    task = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        client.stop()
        async with asyncio.timeout(PATIENCE):
            await task


async def shaken(peer: ScriptedBackend, answer: bytes = HANDSHAKE) -> Link:
    """Return the next link, its HANDSHAKE read and answered."""
    link = await peer.link()
    assert await link.line() == HANDSHAKE
    await link.say(answer)
    return link


def events(logs: list[EventDict]) -> list[str]:
    return [line["event"] for line in logs]


# -- HANDSHAKE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [HANDSHAKE, b'{"cmd":"OK"}\n', b""])
async def test_an_echo_an_ok_and_silence_are_all_right(
    answer: bytes, peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer, answer)
        await link.say(exercise(42))

        assert await execs.until_taken(1) == [42]
    assert peer.dialled == 1


@pytest.mark.parametrize(
    "refusal",
    [
        [b'{"cmd":"ERROR","error_code":"401","message":"who are you"}\n'],
        [b'{"cmd":"ERROR"}\n'],
        [b'{"cmd":"ERR', b'OR","message":null}\n'],
        [b"hello\n", b'{"cmd":"ERROR"}\n'],
    ],
)
async def test_a_refused_client_hangs_up_and_tries_again_ever_later(
    refusal: list[bytes],
    peer: ScriptedBackend,
    execs: RecordingExecService,
    logs: list[EventDict],
    pauses: Pauses,
) -> None:
    async with running(peer.port, execs):
        for _ in range(5):
            link = await peer.link()
            assert await link.line() == HANDSHAKE
            await link.say(*refusal)
            assert await link.ended()
        last = await shaken(peer)
        await last.say(exercise(42))

        assert await execs.until_taken(1) == [42]
        assert pauses.steps == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert events(logs).count("handshake_refused") == 5


async def test_what_follows_a_refusal_in_one_breath_is_not_heard(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await peer.link()
        await link.say(b'{"cmd":"ERROR"}\n' + exercise(1))
        assert await link.ended() is False
        link = await shaken(peer)
        await link.say(exercise(2))

        assert await execs.until_taken(1) == [2]


async def test_an_error_after_the_welcome_does_not_end_the_link(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(b'{"cmd":"ERROR","message":"something else"}\n', exercise(42))

        assert await execs.until_taken(1) == [42]
    assert peer.dialled == 1


async def test_a_token_file_that_cannot_be_read_is_looked_for_again(
    tmp_path: Path,
    peer: ScriptedBackend,
    execs: RecordingExecService,
    logs: list[EventDict],
) -> None:
    file = tmp_path / "token"

    async with running(peer.port, execs, token_file=file):
        link = await peer.link()
        assert await link.ended()
        file.write_text(f"{SECRET}\n")
        link = await peer.link()
        while not (line := await link.line()):
            link = await peer.link()

    assert line == HANDSHAKE
    assert "link_down" in events(logs)


# -- EXERCISE -------------------------------------------------------------------------------------


async def test_exercises_are_taken_in_order_with_string_or_integer_ids(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(
            b'{"cmd":"EXERCISE","id":"3"}\n{"cmd":"EXERCISE","id":1}\r\n',
            b'\n{"id":9223372036854775807,"ack":true,"cmd":"EXERCISE"}\n',
        )

        await execs.until_taken(3)
    assert execs.submitted == [
        (3, Origin("backend", "school", "3")),
        (1, Origin("backend", "school", "1")),
        (2**63 - 1, Origin("backend", "school", "9223372036854775807")),
    ]


async def test_absurd_ids_are_passed_over_with_a_warning_each(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    absurd = [
        b'""',
        b'"x"',
        b"-1",
        b'"4 2"',
        b"9223372036854775808",
        b"9" * 3000,
        b'"%s"' % (b"x" * 3000),
    ]

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(*(b'{"cmd":"EXERCISE","id":%s}\n' % id for id in absurd), exercise(42))

        assert await execs.until_taken(1) == [42]
    assert peer.dialled == 1
    assert events(logs).count("unknown_attempt") == len(absurd)


async def test_frames_may_be_cut_anywhere(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    stream = exercise(1) + b'{"cmd":"EXERCISE","id":"2","note":"\xc3\xa9"}\r\n' + exercise(3)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(*(bytes([byte]) for byte in stream))

        assert await execs.until_taken(3) == [1, 2, 3]


async def test_a_burst_is_taken_whole(peer: ScriptedBackend, execs: RecordingExecService) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(b"".join(exercise(id) for id in range(5000)))

        assert await execs.until_taken(5000) == list(range(5000))


async def test_garbage_is_logged_once_a_kind_and_link_and_harms_nothing(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    garbage = [
        b"\xff\xfe\x00\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"null\n42\n[]\n{}\n",
        b'{"cmd":"DANCE"}\n',
        b'{"class":"com.esotericsoftware.kryonet.FrameworkMessage$KeepAlive"}\n',
        b'{"cmd":"EXERCISE"}\n{"cmd":"EXERCISE","id":null}\n',
        b"{" * 4000 + b"\n",
    ]

    async with running(peer.port, execs):
        for id in (1, 2):
            link = await shaken(peer)
            await link.say(*garbage, exercise(id))
            await execs.until_taken(id)
            link.close()
        await peer.link()

    assert execs.attempts == [1, 2]
    ignored = [line["reason"] for line in logs if line["event"] == "frame_ignored"]
    assert len(ignored) == 2 * 3  # no packet at all, an unknown cmd, an EXERCISE without an id
    assert len([reason for reason in ignored if "DANCE" in reason]) == 2


async def test_an_unknown_attempt_is_passed_over(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    execs.fail(NotFound("attempt", "1"))

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))

        assert await execs.until_taken(1) == [2]
    assert peer.dialled == 1
    assert events(logs).count("unknown_attempt") == 1


async def test_a_bug_costs_one_exercise_and_not_the_link(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    execs.fail(ZeroDivisionError("a bug"))

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))

        assert await execs.until_taken(1) == [2]
    assert peer.dialled == 1
    [failed] = [line for line in logs if line["event"] == "action_failed"]
    logs.remove(failed)


# -- what is not there yet ------------------------------------------------------------------------


async def test_what_is_looked_for_again_does_not_hold_up_the_others(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    execs.lose(1, 2, 3)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(*(exercise(id) for id in (1, 2, 10, 3, 11, 12)))
        assert await execs.until_taken(3) == [10, 11, 12]
        execs.find(3)
        execs.miss(1)
        assert await execs.until_taken(4) == [10, 11, 12, 3]
        execs.find(2)

        assert await execs.until_taken(5) == [10, 11, 12, 3, 2]
    assert [line["id"] for line in logs if line["event"] == "unknown_attempt"] == ["1"]


async def test_with_too_much_to_look_for_the_link_is_not_read_on(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.lose(*range(module.AT_ONCE))

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(b"".join(exercise(id) for id in range(module.AT_ONCE + 10)))
        await execs.until_looking(module.AT_ONCE)
        await settle(100)
        before = execs.attempts
        execs.find(7)

        await execs.until_taken(11)
    assert before == []
    assert execs.attempts == [7, *range(module.AT_ONCE, module.AT_ONCE + 10)]


@pytest.mark.parametrize("end", [Link.finish, Link.reset])
async def test_what_is_looked_for_when_the_link_ends_is_still_found(
    end: Callable[[Link], None], peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.lose(1)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_looking(1)
        end(link)
        await settle(100)
        execs.find(1)
        assert await execs.until_taken(1) == [1]
        link = await shaken(peer)
        await link.say(exercise(2))

        assert await execs.until_taken(2) == [1, 2]


async def test_a_backend_is_dialled_again_while_what_it_pushed_before_is_still_taken(
    peer: ScriptedBackend, execs: RecordingExecService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand that wait for the database must not cost a backend that starts anew its link."""
    monkeypatch.setattr(module, "PARTING", 0.05)
    execs.open.clear()

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))
        await execs.until_asked(1)
        link.reset()
        link = await shaken(peer)
        await link.say(exercise(3))
        await settle(100)
        execs.open.set()

        assert await execs.until_taken(3) == [1, 2, 3]


@pytest.mark.parametrize("gone", [True, False])
async def test_what_is_only_looked_for_is_let_go_when_we_stop(
    gone: bool, peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.lose(1)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))
        await execs.until_looking(1)
        await execs.until_taken(1)
        if gone:
            link.close()

    assert execs.attempts == [2]
    assert execs.missing[AttemptId(1)].cancelled()


# -- answers and receipts do not wait for work ---------------------------------------------------


async def test_an_answer_and_a_receipt_do_not_wait_for_the_work_that_was_pushed_before_them(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.open.clear()
    finals = FedFinals()
    finals.owe("run", 1)
    count = 9_000

    async with dialling(quick(peer.port), execs, finals) as client:
        link = await shaken(peer)
        assert (await link.packet())["cmd"] == "EXECUTED"
        await link.say(b"".join(exercise(id) for id in range(count)))
        await execs.until_asked(1)
        asked = asyncio.create_task(client.authenticate("token"))
        question = (await link.packet())["authentication_id"]
        await link.say(
            b'{"cmd":"ACK","seq":"1"}\n'
            b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"%s","client_id":"12"}\n'
            % question.encode()
        )

        async with asyncio.timeout(PATIENCE):
            assert await asked == 12
        await finals.until_delivered(SCHOOL, 1)
        assert execs.attempts == []
        execs.open.set()
        assert await execs.until_taken(count) == list(range(count))


async def test_with_too_much_to_take_the_link_is_not_read_on_and_nothing_is_lost(
    peer: ScriptedBackend, execs: RecordingExecService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_link, "PENDING", 3)
    execs.open.clear()

    async with running(peer.port, execs) as client:
        link = await shaken(peer)
        await link.say(b"".join(exercise(id) for id in range(10)))
        await execs.until_asked(1)
        asked = asyncio.create_task(client.authenticate("token"))
        question = (await link.packet())["authentication_id"]
        await link.say(
            b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"%s","client_id":"12"}\n'
            % question.encode()
        )
        await settle(100)
        assert not asked.done()
        execs.open.set()

        assert await execs.until_taken(10) == list(range(10))
        assert await asked == 12


async def test_an_id_of_a_megabyte_does_not_wait_whole(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    blank = packets.Exercise(" " * 1_000_000 + "42", ack="true").kept

    assert (blank.id, blank.answered) == ("42", True)
    assert packets.Exercise(" 42").kept.id == " 42"
    assert len(str(packets.Exercise("9" * 1_000_000).kept.id)) == packets.ID_KEPT


# -- the database away ----------------------------------------------------------------------------


async def test_while_the_database_is_away_an_exercise_is_retried_and_nothing_is_lost(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=1_000_000)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(*(exercise(id) for id in range(200)))
        await execs.until_asked(5)
        before = list(execs.attempts)
        execs.recover()

        assert await execs.until_taken(200) == list(range(200))
    assert before == []


async def test_what_a_backend_sent_before_it_left_is_taken_when_the_database_is_back(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.fail(StoreError("away"), times=1_000_000)

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1), exercise(2))
        link.close()
        await execs.until_asked(3)
        execs.recover()

        assert await execs.until_taken(2) == [1, 2]


async def test_what_had_arrived_before_a_reset_is_taken_when_the_database_is_back(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.open.clear()

    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_asked(1)
        await link.say(exercise(2), exercise(3))
        await settle(100)  # it has arrived, and waits behind the first
        link.reset()
        await settle(100)
        execs.open.set()

        assert await execs.until_taken(3) == [1, 2, 3]


# -- links that end -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Link.finish, Link.close, Link.reset])
async def test_a_link_that_ends_is_dialled_again_with_a_handshake(
    end: Callable[[Link], None], peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        for id in (1, 2, 3):
            link = await shaken(peer)
            await link.say(exercise(id))
            await execs.until_taken(id)
            end(link)

        assert await (await peer.link()).line() == HANDSHAKE
    assert execs.attempts == [1, 2, 3]


async def test_what_was_sent_before_a_half_close_is_taken(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1) + exercise(2) + b'{"cmd":"EXERC')
        link.finish()

        assert await execs.until_taken(2) == [1, 2]
        assert await link.ended()
    assert execs.attempts == [1, 2]


async def test_a_reset_in_the_middle_of_a_frame_costs_only_that_frame(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_taken(1)
        await link.say(b'{"cmd":"EXERC')
        link.reset()
        link = await shaken(peer)
        await link.say(b'ISE","id":"2"}\n', exercise(3))

        assert await execs.until_taken(2) == [1, 3]


@pytest.mark.parametrize("huge", [b"x" * (FRAME_LIMIT + 1), b"x" * (FRAME_LIMIT + 1) + b"\n"])
async def test_a_frame_above_the_limit_ends_the_link_and_those_before_it_count(
    huge: bytes, peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        await link.say(exercise(1) + huge)
        assert await link.ended()
        link = await shaken(peer)
        await link.say(exercise(2))

        assert await execs.until_taken(2) == [1, 2]
    assert "4096" in next(line["error"] for line in logs if line["event"] == "link_down")


async def test_a_frame_without_an_end_costs_no_more_memory_than_the_limit(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                await link.say(b"x" * (1 << 20))
                sent += 1 << 20

        assert await (await peer.link()).line() == HANDSHAKE
    assert sent < 64 << 20  # what the system keeps on both sides


@pytest.mark.parametrize(
    "before_the_end",
    [b"", b"x", b"hello\n", b'{"cmd":"DANCE"}\n', b"x" * (FRAME_LIMIT + 1)],
)
async def test_pauses_grow_while_nobody_welcomes_us_and_start_over_once_somebody_does(
    before_the_end: bytes, peer: ScriptedBackend, execs: RecordingExecService, pauses: Pauses
) -> None:
    async with running(peer.port, execs):
        for _ in range(6):
            link = await peer.link()
            assert await link.line() == HANDSHAKE
            await link.say(before_the_end)
            link.close()
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_taken(1)
        link.close()
        await peer.link()

        assert pauses.steps == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 1.0]


async def test_a_silent_backend_that_pushes_work_has_welcomed_us(
    peer: ScriptedBackend, execs: RecordingExecService, pauses: Pauses
) -> None:
    async with running(peer.port, execs):
        for id in (1, 2, 3):
            link = await peer.link()
            await link.say(exercise(id))
            await execs.until_taken(id)
            link.finish()
        await peer.link()

        assert pauses.steps == [1.0, 1.0, 1.0]


async def test_a_backend_that_comes_up_later_is_found(
    peer: ScriptedBackend, execs: RecordingExecService, pauses: Pauses
) -> None:
    peer.hush()

    async with running(peer.port, execs):
        await pauses.until(3)
        await peer.listen()
        link = await shaken(peer)
        await link.say(exercise(42))

        assert await execs.until_taken(1) == [42]


async def test_the_system_is_asked_to_notice_a_backend_that_died_without_a_word(
    peer: ScriptedBackend, execs: RecordingExecService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[socket.socket] = []
    original = module.dial

    async def dial(
        host: str, port: int, context: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await original(host, port, context)
        made.append(writer.get_extra_info("socket"))
        return reader, writer

    monkeypatch.setattr(module, "dial", dial)

    async with running(peer.port, execs):
        await shaken(peer)

        assert [s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for s in made] == [1]
        [one] = made
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) <= 30
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


# -- stopping -------------------------------------------------------------------------------------


async def test_stopping_tells_the_backend_and_takes_what_it_has_sent(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    execs.open.clear()

    async with running(peer.port, execs) as client:
        link = await shaken(peer)
        await link.say(*(exercise(id) for id in range(100)))
        await execs.until_asked(1)
        client.stop()
        assert await link.ended()
        await link.say(exercise(100))
        link.close()
        execs.open.set()

        assert await execs.until_taken(101) == list(range(101))
    assert peer.dialled == 1


async def test_what_was_on_its_way_when_we_stopped_is_taken(
    peer: ScriptedBackend, execs: RecordingExecService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN", PATIENCE)

    async with running(peer.port, execs) as client:
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_taken(1)
        client.stop()
        assert await link.ended()
        await link.say(exercise(2))
        await execs.until_taken(2)
        await link.say(exercise(3))
        link.close()

        assert await execs.until_taken(3) == [1, 2, 3]


async def test_stopping_does_not_wait_for_a_backend_that_says_nothing(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    async with running(peer.port, execs):
        link = await shaken(peer)

    assert await link.ended()
    assert peer.dialled == 1


async def test_stopping_does_not_wait_for_the_next_dial(
    execs: RecordingExecService, pauses: Pauses
) -> None:
    async with ScriptedBackend() as gone:
        port = gone.port

    pauses.scale = 3600

    async with running(port, execs):
        await pauses.until(1)


async def test_stopping_in_mid_dial_says_nothing_to_the_backend(
    peer: ScriptedBackend, execs: RecordingExecService, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module.dial

    async with running(peer.port, execs) as client:

        async def dial(
            host: str, port: int, context: ssl.SSLContext | None
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            client.stop()
            return await original(host, port, context)

        monkeypatch.setattr(module, "dial", dial)

        assert await (await peer.link()).ended()


async def test_a_cancelled_client_hangs_up(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    client = Client("backend", Backend(port=peer.port, token=SecretStr(SECRET)), execs, FedFinals())
    task = asyncio.create_task(client.run())
    link = await shaken(peer)

    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert await link.ended()


async def test_until_the_last_word_questions_are_answered_and_what_has_ended_is_told(
    peer: ScriptedBackend, execs: RecordingExecService
) -> None:
    finals = FedFinals()

    async with dialling(quick(peer.port), execs, finals) as client:
        link = await shaken(peer)
        await link.say(exercise(1))
        await execs.until_taken(1)
        finals.owe("run-1", 1)
        assert (await link.packet())["seq"] == "1"
        finals.open.clear()
        for number in range(2, 200):  # more than are read at once
            finals.owe(f"run-{number}", number)
        await finals.until_read(len(finals.read) + 1)
        client.stop()
        await finals.until_read(len(finals.read) + 1)  # once more, for the last time
        finals.open.set()
        told = [(await link.packet())["seq"] for _ in range(2, 200)]

        assert told == [str(number) for number in range(2, 200)]
        assert await link.ended()
    assert finals.noted == list(range(1, 200))


@pytest.mark.parametrize("fault", [StoreError("away"), None])
async def test_stopping_does_not_wait_long_for_what_has_ended(
    fault: Exception | None,
    peer: ScriptedBackend,
    execs: RecordingExecService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LAST_WORDS", 0.01)
    finals = FedFinals()

    async with dialling(quick(peer.port), execs, finals) as client:
        link = await shaken(peer)
        await finals.until_read(1)
        finals.fault = fault
        finals.open.clear()
        if fault:
            finals.open.set()
        client.stop()

        assert await link.ended()


# -- several backends -----------------------------------------------------------------------------


async def test_each_of_several_backends_has_its_own_name_and_link(
    peer: ScriptedBackend, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    async with ScriptedBackend() as second:
        config = Backend.model_validate(
            {
                "token": SECRET,
                "links": {
                    "school": {"port": peer.port},
                    "college": {"port": second.port, "token": "other"},
                },
            }
        )
        clients = [Client(name, one, execs, FedFinals()) for name, one in config.each.items()]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        link = await shaken(peer)
        other = await second.link()
        assert await other.line() == HANDSHAKE.replace(SECRET.encode(), b"other")
        await link.say(exercise(1))
        await execs.until_taken(1)
        link.close()
        await other.say(exercise(2))
        await execs.until_taken(2)
        for client in clients:
            client.stop()
        await asyncio.gather(*tasks)

    assert [origin.peer for _, origin in execs.submitted] == ["school", "college"]
    assert {line["peer"] for line in logs if line["event"] == "link_up"} == {"school", "college"}
    assert second.dialled == 1


# -- the reference backend ------------------------------------------------------------------------


async def test_the_reference_backend_and_the_client_understand_each_other(
    execs: RecordingExecService,
) -> None:
    backend = ReferenceBackend(SECRET)
    backend.submit("1")
    await backend.start("127.0.0.1", 0, None)

    async with running(backend.port, execs):
        await execs.until_taken(1)
        backend.submit("2")

        assert await execs.until_taken(2) == [1, 2]
    await backend.stop()


async def test_what_is_handed_in_while_the_client_is_away_reaches_it_afterwards(
    execs: RecordingExecService,
) -> None:
    backend = ReferenceBackend(SECRET)
    await backend.start("127.0.0.1", 0, None)

    async with running(backend.port, execs):
        async with asyncio.timeout(PATIENCE):
            await backend.connected.wait()
    async with asyncio.timeout(PATIENCE):
        while backend.connected.is_set():  # noqa: ASYNC110  # it has no event for the contrary
            await asyncio.sleep(0)
    backend.submit("1")
    async with running(backend.port, execs):
        assert await execs.until_taken(1) == [1]
    await backend.stop()


async def test_a_wrong_token_meets_silence_and_no_exercise(execs: RecordingExecService) -> None:
    shown = asyncio.Event()
    backend = ReferenceBackend("another", lambda line: shown.set())
    backend.submit("1")
    await backend.start("127.0.0.1", 0, None)

    async with running(backend.port, execs), asyncio.timeout(PATIENCE):
        await shown.wait()
        assert not backend.connected.is_set()
    await backend.stop()

    assert execs.asked == 0


async def test_a_backend_in_a_process_of_its_own_may_be_killed_and_come_back(
    execs: RecordingExecService,
) -> None:
    async def start(port: int, *ids: str) -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "commserver.reference.backend"),
            *("--port", str(port), "--token", SECRET, *ids),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        return process, int((await process.stdout.readline()).split()[1])

    process, port = await start(0, "1", "2")
    async with running(port, execs):
        try:
            await execs.until_taken(2)
            process.kill()
            await process.communicate()
            process, _ = await start(port, "3")

            assert await execs.until_taken(3) == [1, 2, 3]
        finally:
            process.kill()
            await process.communicate()


async def test_a_name_that_no_host_can_have_is_a_link_that_is_down(
    execs: RecordingExecService,
) -> None:
    client = Client("backend", Backend(host="no..host"), execs, FedFinals())
    with capture_logs() as logs:
        task = asyncio.create_task(client.run())
        async with asyncio.timeout(PATIENCE):
            while not logs:  # noqa: ASYNC110  # a log has no event
                await asyncio.sleep(0)
        client.stop()
        await task

    assert [line["event"] for line in logs] == ["link_down"]
