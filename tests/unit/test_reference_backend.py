"""The reference backend: a true peer by the protocol page, which knows nothing of our code."""

import ast
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from commserver.reference import backend as module
from commserver.reference import frames
from commserver.reference.backend import ReferenceBackend

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"SERVER_TOKEN"}\n'
PATIENCE = 10.0  # seconds for what must come


class Judge:
    """One link as commserver dials it, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def line(self) -> bytes:
        """Return the next line, b"" when the backend has hung up."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                return await self._reader.readline()
        return b""

    async def frame(self) -> bytes:
        """Return the next frame that comes after its length."""
        async with asyncio.timeout(PATIENCE):
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            return await self._reader.readexactly(length)

    def leave(self) -> None:
        self._writer.close()

    def vanish(self) -> None:
        self._writer.transport.abort()


@pytest.fixture
async def backend() -> AsyncIterator[ReferenceBackend]:
    backend = ReferenceBackend("SERVER_TOKEN")
    await backend.start("127.0.0.1", 0, http_port=0)
    yield backend
    await backend.stop()


@asynccontextmanager
async def dialled(backend: ReferenceBackend) -> AsyncIterator[Judge]:
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    try:
        yield Judge(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def welcomed(backend: ReferenceBackend) -> AsyncIterator[Judge]:
    async with dialled(backend) as judge:
        await judge.say(HANDSHAKE)
        assert await judge.line() == HANDSHAKE
        yield judge


async def request(backend: ReferenceBackend, data: bytes) -> tuple[int, dict[str, object]]:
    """Return the status and the JSON of an answer; (0, {}) when it hangs up without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.http_port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return (int(head.split()[1]), json.loads(body)) if head else (0, {})


async def state(backend: ReferenceBackend) -> tuple[int, dict[str, object]]:
    return await request(backend, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


async def hand_in(backend: ReferenceBackend, body: bytes) -> tuple[int, dict[str, object]]:
    head = f"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return await request(backend, head.encode() + body)


async def until_connected(backend: ReferenceBackend, links: int) -> None:
    """Wait until the backend knows of so many links."""
    async with asyncio.timeout(PATIENCE):
        while (await state(backend))[1]["connected"] != links:
            pass


# -- whose it is ----------------------------------------------------------------------------------


PROGRAMS = sorted(Path(module.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_imports_nothing_but_the_standard_library(program: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(program.read_text())):
        match node:
            case ast.Import(names=names):
                imported |= {alias.name for alias in names}
            case ast.ImportFrom(module=name, level=level):
                assert level == 0, "a relative import"
                imported.add(name or "")

    outside = {name for name in imported if not name.startswith("commserver.reference")}
    assert {name.partition(".")[0] for name in outside} <= sys.stdlib_module_names


# -- HANDSHAKE ------------------------------------------------------------------------------------


async def test_a_right_handshake_is_echoed(backend: ReferenceBackend) -> None:
    async with dialled(backend) as judge:
        await judge.say(HANDSHAKE)

        assert await judge.line() == HANDSHAKE
        assert backend.connected.is_set()


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"cmd":"HANDSHAKE","TOKEN":"server_token"}\n',
        b'{"cmd":"HANDSHAKE","TOKEN":""}\n',
        b'{"cmd":"HANDSHAKE"}\n',
        b'{"cmd":"HANDSHAKE","TOKEN":null}\n',
        b'{"cmd":"HANDSHAKE","TOKEN":["SERVER_TOKEN"]}\n',
        b'{"cmd":"HANDSHAKE","TOKEN":"\\ud800"}\n',
        b'{"cmd":"AUTH","TOKEN":"SERVER_TOKEN"}\n',
        b'{"TOKEN":"SERVER_TOKEN"}\n',
        b"SERVER_TOKEN\n",
        b"[]\nnull\n42\n\xff\xfe\n\n",
        b"[" * 100_000 + b"\n",
        b"9" * 5000 + b"\n",
    ],
)
async def test_whatever_is_no_right_handshake_meets_silence_and_the_link_stays(
    wrong: bytes, backend: ReferenceBackend
) -> None:
    async with dialled(backend) as judge:
        await judge.say(wrong)
        backend.submit("42")
        assert await state(backend) == (200, {"connected": 0, "waiting": 1})
        await judge.say(HANDSHAKE)

        assert await judge.line() == HANDSHAKE
        assert await judge.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


async def test_a_frame_above_the_limit_ends_the_link(backend: ReferenceBackend) -> None:
    async with dialled(backend) as judge:
        with contextlib.suppress(ConnectionError):
            await judge.say(b"x" * (frames.FRAME_LIMIT * 2 + 1))

        assert await judge.line() == b""


async def test_a_handshake_may_come_in_pieces(backend: ReferenceBackend) -> None:
    async with dialled(backend) as judge:
        for byte in HANDSHAKE:
            await judge.say(bytes([byte]))

        assert await judge.line() == HANDSHAKE


async def test_tokens_are_never_told(backend: ReferenceBackend) -> None:
    told: list[str] = []
    chatty = ReferenceBackend("SERVER_TOKEN", told.append)
    await chatty.start("127.0.0.1", 0, None)
    async with welcomed(chatty) as judge:
        chatty.submit("42")
        await judge.line()
    await chatty.stop()

    assert told == [
        'commserver -> backend  {"cmd": "HANDSHAKE", "TOKEN": "***"}',
        'backend -> commserver  {"cmd": "HANDSHAKE", "TOKEN": "***"}',
        'backend -> commserver  {"cmd": "EXERCISE", "id": "42"}',
    ]


# -- EXERCISE -------------------------------------------------------------------------------------


async def test_what_is_handed_in_is_pushed_at_once(backend: ReferenceBackend) -> None:
    async with welcomed(backend) as judge:
        backend.submit("42")
        backend.submit("43")

        assert await judge.line() == b'{"cmd":"EXERCISE","id":"42"}\n'
        assert await judge.line() == b'{"cmd":"EXERCISE","id":"43"}\n'


async def test_what_is_handed_in_while_nobody_is_connected_waits_in_order(
    backend: ReferenceBackend,
) -> None:
    for id in ("1", "2", "3"):
        backend.submit(id)

    async with welcomed(backend) as judge:
        lines = [await judge.line() for _ in range(3)]

    assert lines == [b'{"cmd":"EXERCISE","id":"%d"}\n' % id for id in (1, 2, 3)]


async def test_each_submission_goes_to_one_link_of_several(backend: ReferenceBackend) -> None:
    async with welcomed(backend) as one, welcomed(backend) as other:
        for id in range(6):
            backend.submit(str(id))
        backend_done = asyncio.create_task(backend.stop())
        lines = []
        for judge in (one, other):
            while line := await judge.line():
                lines.append(line)
        await backend_done

    assert sorted(lines) == [b'{"cmd":"EXERCISE","id":"%d"}\n' % id for id in range(6)]


@pytest.mark.parametrize("end", [Judge.leave, Judge.vanish])
async def test_another_link_takes_over_when_one_is_gone(
    backend: ReferenceBackend, end: Callable[[Judge], None]
) -> None:
    async with welcomed(backend) as gone, welcomed(backend) as stays:
        end(gone)
        await until_connected(backend, links=1)

        backend.submit("42")

        assert await stays.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


@pytest.mark.parametrize("end", [Judge.leave, Judge.vanish])
async def test_after_the_last_link_is_gone_submissions_wait_again(
    backend: ReferenceBackend, end: Callable[[Judge], None]
) -> None:
    async with welcomed(backend) as gone:
        end(gone)
        await until_connected(backend, links=0)
    assert not backend.connected.is_set()

    backend.submit("42")

    async with welcomed(backend) as judge:
        assert await judge.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


async def test_too_many_waiting_submissions_are_refused(
    backend: ReferenceBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_LIMIT", 1)
    backend.submit("1")

    with pytest.raises(OverflowError):
        backend.submit("2")
    status, _ = await hand_in(backend, b'{"id":"2"}')

    assert status == 503


async def test_stopping_hangs_up_on_everybody(backend: ReferenceBackend) -> None:
    async with welcomed(backend) as friend, dialled(backend) as stranger:
        await stranger.say(b'{"cmd":"HANDSHAKE","TOKEN":"wrong"}\n')

        await backend.stop()

        assert await friend.line() == b""
        assert await stranger.line() == b""


# -- links of other kinds -------------------------------------------------------------------------


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[ReferenceBackend]:
    backend = ReferenceBackend("SERVER_TOKEN", **options)
    await backend.start("127.0.0.1", 0, http_port=0)
    try:
        yield backend
    finally:
        await backend.stop()


async def until(done: Callable[[], object]) -> None:
    """Let everybody go on until `done()`."""
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110  # a printed line has no event
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("mode", "right", "wrong"),
    [
        ("echo", HANDSHAKE, None),
        ("ok", b'{"cmd":"OK"}\n', None),
        ("silent", None, None),
        ("error", HANDSHAKE, b'{"cmd":"ERROR","message":"wrong token"}\n'),
    ],
)
async def test_what_a_handshake_is_met_with_can_be_chosen(
    mode: str, right: bytes | None, wrong: bytes | None
) -> None:
    async with listening(handshake=mode) as backend, dialled(backend) as judge:
        await judge.say(b'{"cmd":"HANDSHAKE","TOKEN":"wrong"}\n')
        if wrong:
            assert await judge.line() == wrong
        await judge.say(HANDSHAKE)
        if right:
            assert await judge.line() == right
        backend.submit("42")

        assert await judge.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


async def test_exercises_go_to_whoever_came_last_and_a_second_handshake_changes_nothing(
    backend: ReferenceBackend,
) -> None:
    async with welcomed(backend) as older, welcomed(backend) as newer:
        await older.say(HANDSHAKE)
        await older.line()
        backend.submit("42")

        assert await newer.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


async def test_with_length_it_speaks_as_a_kryonet_peer() -> None:
    async with listening(framing="length") as backend, dialled(backend) as judge:
        assert b"FrameworkMessage$RegisterTCP" in await judge.frame()
        await judge.say(len(HANDSHAKE[:-1]).to_bytes(4, "big") + HANDSHAKE[:-1])
        assert await judge.frame() == HANDSHAKE[:-1]
        backend.submit("42")

        assert await judge.frame() == b'{"cmd":"EXERCISE","id":"42"}'


async def test_with_length_it_says_something_before_it_has_been_silent_for_long() -> None:
    async with (
        listening(framing="length", keep_alive_period=0.01) as backend,
        dialled(backend) as judge,
    ):
        await judge.frame()

        assert b"FrameworkMessage$KeepAlive" in await judge.frame()
        assert b"FrameworkMessage$KeepAlive" in await judge.frame()


async def test_with_length_it_drops_whoever_is_silent_for_long() -> None:
    told: list[str] = []
    options = {"framing": "length", "timeout": 0.05, "tell": told.append}
    async with listening(**options) as backend, dialled(backend) as judge:
        await judge.frame()

        assert await judge.line() == b""
        await until(lambda: "a link is given up: silent for 0.05 s" in told)


async def test_with_length_a_keep_alive_is_enough_to_stay() -> None:
    async with (
        listening(framing="length", timeout=0.2) as backend,
        dialled(backend) as judge,
    ):
        await judge.frame()
        for _ in range(3):
            await asyncio.sleep(0.1)
            await judge.say(b"\0\0\0\2{}")
        backend_has = len(backend._open)

    assert backend_has == 1


async def test_with_length_a_frame_above_the_limit_ends_the_link() -> None:
    async with listening(framing="length") as backend, dialled(backend) as judge:
        await judge.frame()
        await judge.say((frames.FRAME_LIMIT + 1).to_bytes(4, "big"))

        assert await judge.line() == b""


# -- ack ------------------------------------------------------------------------------------------

EXECUTED = b'{"cmd":"EXECUTED","id":"42","run":"r","seq":"1","status":"accepted","grade":"20"}\n'


async def test_with_ack_it_asks_for_the_end_and_acknowledges_it_each_time_it_comes() -> None:
    async with listening(ack=True) as backend:
        async with welcomed(backend) as judge:
            backend.submit("42")
            assert await judge.line() == b'{"cmd":"EXERCISE","id":"42","ack":true}\n'
            await judge.say(b'{"cmd":"ACCEPTED","id":"42","run":"r","place":"1"}\n' + EXECUTED)
            assert await judge.line() == b'{"cmd":"ACK","seq":"1"}\n'
        async with welcomed(backend) as judge:
            await judge.say(EXECUTED)
            assert await judge.line() == b'{"cmd":"ACK","seq":"1"}\n'

        status, answer = await request(backend, b"GET /results HTTP/1.1\r\n\r\n")

    assert status == 200
    assert answer == {"results": [json.loads(EXECUTED)]}


async def test_an_error_without_a_number_is_an_end_that_nobody_acknowledges() -> None:
    error = {"cmd": "ERROR", "id": "7", "run": "", "seq": "", "error_code": "404", "fault": ""}
    async with listening(ack=True) as backend, welcomed(backend) as judge:
        await judge.say(frames.encoded(error) + b"\n" + EXECUTED)

        assert await judge.line() == b'{"cmd":"ACK","seq":"1"}\n'
        assert list(backend.finals()) == ["7", "42"]


async def test_it_can_be_told_to_leave_finals_unacknowledged() -> None:
    async with listening(ack=True) as backend, welcomed(backend) as judge:
        backend.acknowledging.clear()
        await judge.say(EXECUTED)
        await backend.until_ended(["42"])
        backend.submit("43")

        assert await judge.line() == b'{"cmd":"EXERCISE","id":"43","ack":true}\n'


async def test_strangers_are_told_nothing_whatever_they_say(backend: ReferenceBackend) -> None:
    async with dialled(backend) as stranger:
        lookup = b'{"cmd":"AUTHENTICATE_CLIENT","authentication_id":"1","TOKEN":"x"}\n'
        await stranger.say(EXECUTED + lookup + HANDSHAKE)

        assert await stranger.line() == HANDSHAKE
        assert backend.finals() == {}


async def test_only_so_many_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESULTS_LIMIT", 2)
    async with listening() as backend, welcomed(backend) as judge:
        for id in (b"1", b"2", b"3"):
            await judge.say(EXECUTED.replace(b"42", id))
            await judge.line()

        assert list(backend.finals()) == ["2", "3"]


# -- lookups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "client"), [(b"ada's", b"12"), (b"nobody's", b"-1"), (b"", b"-1")]
)
async def test_it_knows_whose_a_token_is(token: bytes, client: bytes) -> None:
    async with listening(clients={"ada's": 12}) as backend, welcomed(backend) as judge:
        await judge.say(
            b'{"cmd":"AUTHENTICATE_CLIENT","authentication_id":"7","TOKEN":"%s"}\n' % token
        )

        answer = b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"7","client_id":"%s"}\n'
        assert await judge.line() == answer % client


def test_tokens_and_their_accounts_are_read_from_lines() -> None:
    lines = ["# who", "", "a=b=12", " c=1 "]

    assert module.clients_in(lines) == {"a=b": 12, "c": 1}


@pytest.mark.parametrize("line", ["secret", "=1", "secret=", "secret=x", "secret=-1"])
def test_a_line_that_is_no_token_is_named_but_not_repeated(line: str) -> None:
    with pytest.raises(ValueError, match="number 2 is not TOKEN=ID") as raised:
        module.clients_in(["a=1", line])

    assert "secret" not in str(raised.value)


# -- HTTP -----------------------------------------------------------------------------------------


async def test_http_tells_what_is_connected_and_waits(backend: ReferenceBackend) -> None:
    backend.submit("42")
    before = await state(backend)
    async with welcomed(backend):
        after = await state(backend)

    assert before == (200, {"connected": 0, "waiting": 1})
    assert after == (200, {"connected": 1, "waiting": 0})


@pytest.mark.parametrize("body", [b'{"id":"42"}', b'{"id":42}', b' {"id": "42", "more": []} '])
async def test_http_takes_submissions(body: bytes, backend: ReferenceBackend) -> None:
    async with welcomed(backend) as judge:
        answer = await hand_in(backend, body)

        assert answer == (202, {"id": "42", "connected": 1})
        assert await judge.line() == b'{"cmd":"EXERCISE","id":"42"}\n'


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"42", b'{"id":""}', b'{"id":null}', b"\xff"])
async def test_http_says_what_a_submission_lacks(body: bytes, backend: ReferenceBackend) -> None:
    status, answer = await hand_in(backend, body)

    assert (status, list(answer)) == (400, ["error"])


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /submit HTTP/1.1", 404),
        (b"POST / HTTP/1.1", 404),
        (b"DELETE /submit HTTP/1.1", 404),
        (b"POST /submit HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST /submit HTTP/1.1\r\nContent-Length: 99999999999", 400),
        (b"POST /submit HTTP/1.1\r\nContent-Length: many", 400),
        (b"nonsense", 400),
    ],
)
async def test_http_refuses_other_requests(
    line: bytes, status: int, backend: ReferenceBackend
) -> None:
    assert (await request(backend, line + b"\r\n\r\n"))[0] == status


async def test_http_survives_whoever_hangs_up(backend: ReferenceBackend) -> None:
    for data in (b"", b"POST /submit HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", b"\xff\x00"):
        _, writer = await asyncio.open_connection("127.0.0.1", backend.http_port)
        writer.write(data)
        writer.transport.abort()

    assert (await state(backend))[0] == 200


# -- as a program ---------------------------------------------------------------------------------


async def test_as_a_program_it_takes_submissions_from_arguments_and_standard_input() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commserver.reference.backend"),
        *("--port", "0", "--http-port", "0", "--token", "SERVER_TOKEN", "1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE * 2):
            _, port, _, _ = (await process.stdout.readline()).split()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            judge = Judge(reader, writer)
            await judge.say(HANDSHAKE)
            process.stdin.write(b"2\n\n 3 \n")
            lines = [await judge.line() for _ in range(4)]
            process.terminate()
            status = await process.wait()
            assert await judge.line() == b""
            writer.close()
            told = await process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    exercises = [b'{"cmd":"EXERCISE","id":"%d"}\n' % id for id in (1, 2, 3)]
    assert lines == [HANDSHAKE, *exercises]
    assert status == 0
    assert b"SERVER_TOKEN" not in told


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Run it with a free port, which is yielded as well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commserver.reference.backend"),
        *("--port", "0", "--http-port", "0", "--token", "SERVER_TOKEN", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            _, port, _, _ = (await process.stdout.readline()).split()
        yield process, int(port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (b"accepted", 0, "as expected: 1 of 1"),
        (b"memory", 1, "differs: 42 should have ended with accepted, not with memory"),
    ],
)
async def test_what_is_expected_is_pushed_acknowledged_and_compared(
    status: bytes, code: int, said: str
) -> None:
    async with program("--expect", "42=accepted") as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        judge = Judge(reader, writer)
        await judge.say(HANDSHAKE)
        await judge.line()
        pushed = await judge.line()
        await judge.say(EXECUTED.replace(b"accepted", status))
        acknowledged = await judge.line()
        out, _ = await process.communicate()
        writer.close()

    assert pushed == b'{"cmd":"EXERCISE","id":"42","ack":true}\n'
    assert acknowledged == b'{"cmd":"ACK","seq":"1"}\n'
    assert process.returncode == code
    assert said in out.decode().splitlines()


async def test_what_has_not_ended_in_time_differs() -> None:
    async with program("--expect", "42=accepted", "--timeout", "0.1") as (process, _):
        out, _ = await process.communicate()

    assert process.returncode == 1
    assert out.decode().splitlines() == [
        "differs: 42 should have ended with accepted, and has not ended",
        "differs: no commserver is connected",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--expect", "42"],
        ["--client", "x"],
        ["--clients", "/nowhere"],
        ["--tls-key", "/nowhere"],
        ["--tls-cert", "/nowhere"],
    ],
)
def test_a_wrong_option_is_a_sentence(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(wrong)

    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
