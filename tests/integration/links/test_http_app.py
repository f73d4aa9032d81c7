"""The HTTP side as the application builds and ends it, on a fake engine."""

import asyncio
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from commserver import app
from commserver.config import Backend, Browser, Config, Database, Docker, Http, Queue
from commserver.core.finals import WEBHOOK
from commserver.core.jobs import Origin
from commserver.services.docker_manager import Sandbox
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.links.conftest import SECRET
from tests.integration.links.http_site import EXECUTIONS, PATIENCE, SERVER
from tests.integration.services.site import Site, until
from tests.unit.gateways.http.checked import Checked

pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


@pytest.fixture
def config(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    state = tmp_path / "state"
    state.mkdir()
    return Config(
        state_dir=state,
        database=Database(url=url),
        backend=Backend(enabled=False),
        browser=Browser(port=0),
        http=Http.model_validate({"port": 0, "token": SECRET}),
        docker=Docker(slots=1),
        queue=Queue(grace=PATIENCE),
    )


async def test_while_the_server_ends_the_door_takes_nothing_and_all_else_is_answered(
    config: Config, url: str
) -> None:
    engine = FakeSandbox()
    engine.hang()
    async with Site(config.state_dir, FakeClock(), url=url).open() as before:
        attempt = await before.attempt(await before.exercise())

    def engines(site: str, boot: str) -> Sequence[Sandbox]:
        return [engine]

    async with app.built(config, sandboxes=engines) as built:
        stop = asyncio.Event()
        running = asyncio.create_task(built.run(stop))
        assert built.http
        await built.http.listening.wait()
        base = f"http://127.0.0.1:{built.http.port}"
        async with Checked(base_url=base, headers=SERVER) as client:
            taken = await client.post(EXECUTIONS, json={"id": str(attempt)})
            await until(lambda: engine.running)
            admin = (config.state_dir / "admin.token").read_text().strip()

            stop.set()
            await until(lambda: built.door.shut)
            refused = await client.post(EXECUTIONS, json={"id": str(attempt)})
            ready = await client.get("/readyz")
            status = await client.get(
                "/api/v1/admin/status", headers={"Authorization": f"Bearer {admin}"}
            )
            engine.resume()
            await asyncio.wait_for(running, PATIENCE)
            with pytest.raises(httpx.TransportError):
                await client.get("/healthz")

    assert taken.status_code == 202
    assert (refused.status_code, ready.status_code) == (503, 503)
    assert refused.headers["Retry-After"]
    assert status.status_code == 200
    assert stat.S_IMODE((config.state_dir / "admin.token").stat().st_mode) == 0o600


async def test_a_port_that_is_taken_ends_the_server(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        http = Http(port=taken.getsockname()[1])
        other = config.model_copy(update={"http": http})
        async with app.built(other, sandboxes=lambda *_: [FakeSandbox()]) as built:
            with pytest.raises(ExceptionGroup) as caught:
                await built.run(asyncio.Event())

    assert caught.group_contains(OSError, match="in use")


@pytest.mark.parametrize(("enabled", "told"), [(True, (WEBHOOK,)), (False, ())])
async def test_a_webhook_is_owed_every_end_where_there_is_one(
    config: Config, url: str, enabled: bool, told: tuple[str, ...]
) -> None:
    settings = {"webhook_url": "http://127.0.0.1:1/", "webhook_secret": "x", "enabled": enabled}
    other = config.model_copy(update={"http": Http.model_validate(settings)})
    async with Site(config.state_dir, FakeClock(), url=url).open() as before:
        attempt = await before.attempt(await before.exercise())

    async with app.built(other, sandboxes=lambda *_: []) as built:
        await built.door.execs.submit(attempt, Origin("http", "door", "1"))
        [job] = built.dispatcher.board.runs_of_attempt(attempt)

    assert job.tell == told
    assert (built.webhook is not None) == enabled
    assert (built.http is not None) == enabled
