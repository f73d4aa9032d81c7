"""Each verifier in a whole server: a browser says AUTH, and is who the verifier says."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from commserver import app, trial
from commserver.config import Backend, Browser, Config, Docker, Http, Jwt, Queue
from commserver.core.clock import SystemClock
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import ConfigError, Unanswered
from commserver.services import verifiers
from commserver.services.verifiers.backend import BackendVerifier
from commserver.services.verifiers.database import DatabaseVerifier
from tests.fake_sandbox import FakeSandbox

PATIENCE = 60.0  # seconds for what must come
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def config(outside: None, state: Path) -> Config:
    sections = {
        "backend": Backend(enabled=False),
        "http": Http(enabled=False),
        "docker": Docker(slots=1),
        "queue": Queue(grace=0.0),
    }
    return Config(state_dir=state).model_copy(update=sections)  # whatever the environment says


@asynccontextmanager
async def listening(config: Config) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where browsers dial."""
    async with app.built(config, sandboxes=lambda site, boot: [FakeSandbox()]) as built:
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        try:
            async with asyncio.timeout(PATIENCE):
                await built.server.listening.wait()
            yield f"ws://127.0.0.1:{built.server.port}"
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served


async def answered(address: str, token: str) -> Mapping[str, str]:
    """Return the answer to AUTH."""
    browser = await trial.Browser().open(address, token)
    try:
        await browser.until(lambda: bool(browser.packets), PATIENCE)
    finally:
        await browser.close()
    return browser.packets[0]


class Platform:
    """A backend that keeps tokens in memory and answers lookups over its link."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self._accounts = accounts
        self.asked: list[str] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listen for the length of the block; yields the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            packet = json.loads(line)
            if packet["cmd"] == "AUTHENTICATE_CLIENT":
                self.asked.append(packet["TOKEN"])
                account = self._accounts.get(packet["TOKEN"], "-1")
                reply = {"cmd": "AUTHENTICATED_CLIENT", "client_id": account}
                reply["authentication_id"] = packet["authentication_id"]
                writer.write(json.dumps(reply).encode() + b"\n")
        writer.close()


async def test_the_backends_say_whose_a_token_is(config: Config) -> None:
    platform = Platform({"ada's": "1"})
    async with platform.listening() as port:
        sections = {
            "backend": Backend(port=port, token=SecretStr("server")),
            "browser": Browser(port=0, verifier="backend"),
        }
        async with listening(config.model_copy(update=sections)) as address:
            assert (await answered(address, "ada's"))["cmd"] == "OK"
            assert (await answered(address, "ada's"))["cmd"] == "OK"
            assert (await answered(address, "unknown"))["error_code"] == "401"

    assert platform.asked == ["ada's", "unknown"]


async def test_a_backend_that_is_away_is_an_internal_error_and_no_failure(config: Config) -> None:
    sections = {
        "backend": Backend(port=trial.free_port()),
        "browser": Browser(port=0, verifier="backend", verifier_timeout=0.1),
    }
    async with listening(config.model_copy(update=sections)) as address:
        packet = await answered(address, "ada's")

    assert (packet["error_code"], packet["target"], packet["target_id"]) == ("500", "OTHER", "")


async def test_a_signature_says_whose_a_token_is(config: Config, tmp_path: Path) -> None:
    keys = tmp_path / "keys.pem"
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    keys.write_bytes(public)
    browser = Browser(port=0, verifier="jwt", jwt=Jwt(keys=keys))
    exp = datetime.now(UTC) + timedelta(minutes=1)
    token = jwt.encode({"sub": "1", "exp": exp}, KEY, "EdDSA")

    async with listening(config.model_copy(update={"browser": browser})) as address:
        assert (await answered(address, token))["cmd"] == "OK"
        assert (await answered(address, token[:-8] + "AAAAAAAA"))["error_code"] == "401"


async def test_the_configuration_says_which_verifier_it_is_and_how_long_it_may_take() -> None:
    class Silent:
        name = "silent"

        async def authenticate(self, token: str) -> int | None:
            await asyncio.Event().wait()
            return None

    daos, clock, database = DaoManager(), SystemClock(), DatabaseManager("sqlite:///x")
    usual = verifiers.chosen(Config(), database, daos, clock, [])
    browser = Browser(verifier="backend", verifier_timeout=0.05)
    asking = verifiers.chosen(
        Config().model_copy(update={"browser": browser}), database, daos, clock, [Silent()]
    )

    assert isinstance(usual, DatabaseVerifier)
    assert isinstance(asking, BackendVerifier)
    async with asyncio.timeout(2.0):
        with pytest.raises(Unanswered):
            await asking.identify("token")


def test_what_is_wrong_with_a_verifier_is_told_at_the_start_with_all_else(config: Config) -> None:
    sections = {
        "browser": Browser(verifier="jwt", jwt=Jwt(algorithms=("none", "HS256"))),
        "docker": Docker(languages={"cobol": ()}),
    }

    with pytest.raises(ConfigError) as caught:
        app.check(config.model_copy(update=sections))

    starts = [problem.partition(":")[0] for problem in caught.value.problems]
    assert starts == [
        "docker.languages.cobol",
        "browser.jwt.algorithms",
        "browser.jwt.secret",
        "browser.jwt.keys",
    ]


def test_a_verifier_without_a_backend_to_ask_is_told(config: Config) -> None:
    with pytest.raises(ConfigError, match="no backend is configured to ask"):
        app.check(config.model_copy(update={"browser": Browser(verifier="backend")}))
