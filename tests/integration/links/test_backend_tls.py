"""A link over TLS: with the right certificates, with wrong ones, and with a peer that has none."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.typing import EventDict

from commserver.gateways import tls
from commserver.gateways.backend import client as module
from tests.integration.links.certificates import Authority, Pair
from tests.integration.links.peers import Link, ScriptedBackend, dialling, quick
from tests.unit.gateways.services import RecordingExecService

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}\n'
EXERCISE = b'{"cmd":"EXERCISE","id":"42"}\n'


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)


@pytest.fixture
def execs() -> RecordingExecService:
    return RecordingExecService()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def secured(pair: Pair, clients: Path | None = None) -> AsyncIterator[ScriptedBackend]:
    """Run a backend that speaks TLS; `clients`: who must have signed its clients' certificates."""
    context = tls.server_context(pair.cert, pair.key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    async with ScriptedBackend(context) as backend:
        yield backend


async def shaken(peer: ScriptedBackend) -> Link:
    link = await peer.link()
    assert await link.line() == HANDSHAKE
    await link.say(HANDSHAKE)
    return link


async def until_down(logs: list[EventDict], count: int = 2) -> list[str]:
    """Wait until a link went down so often; returns why."""
    async with asyncio.timeout(10):
        while True:
            errors = [line["error"] for line in logs if line["event"] == "link_down"]
            if len(errors) >= count:
                return errors
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")])
async def test_with_the_right_certificate_a_link_works_as_without_tls(
    host: str, name: str, authority: Authority, execs: RecordingExecService
) -> None:
    async with secured(authority.issue(name)) as peer:
        config = quick(peer.port, host=host, tls=True, tls_ca=authority.file)
        async with dialling(config, execs) as client:
            link = await shaken(peer)
            await link.say(*(bytes([byte]) for byte in EXERCISE))
            assert await execs.until_taken(1) == [42]
            link.close()
            link = await shaken(peer)
            await link.say(EXERCISE)
            await execs.until_taken(2)
            asked = asyncio.create_task(client.authenticate("user's"))
            number = (await link.packet())["authentication_id"]
            await link.say(
                b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":%s,"client_id":7}\n'
                % number.encode()
            )
            assert await asked == 7
            client.stop()
            assert await link.ended()


async def test_a_certificate_of_somebody_whom_we_do_not_trust_is_refused(
    authority: Authority, tmp_path: Path, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    other = Authority(tmp_path, "other")

    async with secured(other.issue("127.0.0.1")) as peer:
        async with dialling(quick(peer.port, tls=True, tls_ca=authority.file), execs):
            errors = await until_down(logs)
        assert peer.dialled == 0

    assert all("certificate is not good: unable to get local issuer" in text for text in errors)


async def test_without_a_ca_file_this_machine_says_whom_to_trust(
    authority: Authority, logs: list[EventDict]
) -> None:
    async with secured(authority.issue("127.0.0.1")) as peer, dialling(quick(peer.port, tls=True)):
        errors = await until_down(logs)

    assert "certificate is not good" in errors[0]


async def test_a_certificate_for_another_name_is_refused(
    authority: Authority, logs: list[EventDict]
) -> None:
    async with secured(authority.issue("school.example")) as peer:
        async with dialling(quick(peer.port, tls=True, tls_ca=authority.file)):
            errors = await until_down(logs)
        assert peer.dialled == 0

    assert "certificate is not good: IP address mismatch" in errors[0]


async def test_a_certificate_that_has_expired_is_refused(
    authority: Authority, logs: list[EventDict]
) -> None:
    old = authority.issue("127.0.0.1", age=timedelta(days=2))

    async with (
        secured(old) as peer,
        dialling(quick(peer.port, tls=True, tls_ca=authority.file)),
    ):
        errors = await until_down(logs)

    assert "certificate has expired" in errors[0]


async def test_a_backend_that_asks_for_our_certificate_is_shown_it(
    authority: Authority, execs: RecordingExecService
) -> None:
    ours = authority.issue("commserver")

    async with secured(authority.issue("127.0.0.1"), authority.file) as peer:
        config = quick(
            peer.port, tls=True, tls_ca=authority.file, tls_cert=ours.cert, tls_key=ours.key
        )
        async with dialling(config, execs):
            link = await shaken(peer)
            await link.say(EXERCISE)

            assert await execs.until_taken(1) == [42]


def refuse_who_has_no_certificate(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Serve two links as OpenSSL alone does: asyncio would not say why it hangs up."""
    for _ in range(2):
        plain, _address = listener.accept()
        plain.settimeout(10)
        with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secure:
            with contextlib.suppress(ssl.SSLError):
                secure.do_handshake()
            secure.shutdown(socket.SHUT_WR)
            while secure.recv(4096):
                pass


async def test_without_a_certificate_of_ours_such_a_backend_refuses_us_in_words(
    authority: Authority, logs: list[EventDict]
) -> None:
    pair = authority.issue("127.0.0.1")
    context = tls.server_context(pair.cert, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.to_thread(refuse_who_has_no_certificate, listener, context)
        served = asyncio.create_task(serving)
        config = quick(listener.getsockname()[1], tls=True, tls_ca=authority.file)
        async with dialling(config):
            errors = await until_down(logs)
        await served

    assert "certificate required" in errors[0]


@pytest.mark.parametrize("said", [b"hello\n" * 100, b"", HANDSHAKE])
async def test_a_backend_that_speaks_no_tls_is_one_line_each_time_and_later_ever(
    said: bytes, logs: list[EventDict]
) -> None:
    async with (
        ScriptedBackend() as peer,
        dialling(quick(peer.port, tls=True, connect_timeout=0.5)),
    ):
        for _ in range(2):
            link = await peer.link()
            await link.say(said)
            link.finish()
        errors = await until_down(logs)

    assert all("\n" not in text and text for text in errors)
    if said:
        assert errors[0].startswith("no TLS with the peer: ")


async def test_a_backend_that_says_nothing_at_all_is_given_up_in_time(
    logs: list[EventDict],
) -> None:
    async with (
        ScriptedBackend() as peer,
        dialling(quick(peer.port, tls=True, connect_timeout=0.05)),
    ):
        errors = await until_down(logs)

    assert errors[0] == "no answer within 0.05 s"


async def test_without_tls_a_backend_that_wants_it_hears_nothing_it_can_read(
    authority: Authority, logs: list[EventDict]
) -> None:
    async with secured(authority.issue("127.0.0.1")) as peer, dialling(quick(peer.port)):
        await until_down(logs)
        assert peer.dialled == 0


async def test_files_that_are_not_there_yet_are_looked_for_again(
    authority: Authority, tmp_path: Path, execs: RecordingExecService, logs: list[EventDict]
) -> None:
    ca = tmp_path / "later.pem"

    async with (
        secured(authority.issue("127.0.0.1")) as peer,
        dialling(quick(peer.port, tls=True, tls_ca=ca), execs),
    ):
        errors = await until_down(logs)
        ca.write_bytes(authority.file.read_bytes())
        link = await shaken(peer)
        await link.say(EXERCISE)

        assert await execs.until_taken(1) == [42]
    assert "later.pem: No such file" in errors[0]
