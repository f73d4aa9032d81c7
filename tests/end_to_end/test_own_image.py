"""The server's own image: built as its Dockerfile's head says, run as nobody special, at work."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from commserver.reference.backend import ReferenceBackend
from commserver.trial import SERVER_TOKEN, Trial
from tests.conftest import ROOT, missing
from tests.end_to_end.conftest import RIGHT, Site, exercise_of

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

TAG = "commserver/server:test"
BASE = "commserver/base:latest"
USER = 10001


@pytest.fixture(scope="module")
def client(docker_url: str) -> Iterator[Any]:
    client = docker.APIClient(base_url=docker_url, timeout=300)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(client: Any) -> str:
    subprocess.run([sys.executable, "scripts/prepare.py", "wheels"], cwd=ROOT, check=True)
    said = []
    for line in client.build(
        path=str(ROOT), tag=TAG, buildargs={"BASE": BASE}, network_mode="host", rm=True, decode=True
    ):
        said.append(line.get("stream", "") or str(line))
        assert "error" not in line, "".join(said)
    return TAG


@pytest.fixture
async def site(tmp_path: Path, docker_url: str) -> AsyncIterator[Site]:
    """A site whose server the test starts itself."""
    trial = Trial(tmp_path / "site", host=docker_url)
    await trial.prepare()
    backend = ReferenceBackend(SERVER_TOKEN)
    await backend.start("127.0.0.1", trial.backend_port, None)
    site = Site(trial, backend, await exercise_of(trial, tmp_path / "double"), docker_url)
    yield site
    await site.leave()
    await backend.stop()


async def test_the_image_serves_as_an_ordinary_user_through_the_engines_socket(
    client: Any, image: str, site: Site, docker_url: str
) -> None:
    if not docker_url.startswith("unix://"):
        missing("the engine has no socket to hand into a container")
    socket = Path(docker_url.removeprefix("unix://"))
    attempts = await site.write("ada", RIGHT)
    for path in (site.trial.state, *site.trial.state.rglob("*")):
        path.chmod(0o777)
    environ = {
        "COMMSERVER_BROWSER__HOST": "127.0.0.1",  # the host's network, for once
        "COMMSERVER_BROWSER__PORT": str(site.trial.websocket_port),
        "COMMSERVER_HTTP__PORT": str(site.trial.http_port),
        "COMMSERVER_BACKEND__PORT": str(site.trial.backend_port),
        "COMMSERVER_BACKEND__TOKEN": SERVER_TOKEN,
    }
    container = client.create_container(
        image,
        environment=environ,
        host_config=client.create_host_config(
            network_mode="host",
            binds=[f"{socket}:/var/run/docker.sock", f"{site.trial.state}:/srv/commserver/var"],
            group_add=[_group_of(socket)],
        ),
    )["Id"]
    try:
        client.start(container)
        await site.trial.listening()
        [browser] = await site.join("ada")
        site.push(attempts)

        [final] = await site.finals(browser, attempts)

        assert final["status"] == "accepted"
        assert client.inspect_container(container)["Config"]["User"] == "commserver"
        identity = client.exec_create(container, ["id", "-u"])["Id"]
        assert int(client.exec_start(identity)) == USER
        client.kill(container, "SIGTERM")
        assert client.wait(container, timeout=30)["StatusCode"] == 0
    finally:
        with suppress(docker.errors.APIError):
            client.remove_container(container, force=True)


def _group_of(socket: Path) -> str:
    return str(socket.stat().st_gid)
