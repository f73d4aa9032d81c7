"""Several backends of one server: each has its own link, name and series of finals."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from commserver import app
from commserver.config import Backend, Browser, Config, Database, Docker, Http, Queue
from commserver.gateways.backend import client as module
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.links.peers import PATIENCE, Link, ScriptedBackend
from tests.integration.services.site import Site, until


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)


async def shaken(peer: ScriptedBackend, token: bytes) -> Link:
    link = await peer.link()
    assert await link.line() == b'{"cmd":"HANDSHAKE","TOKEN":"%s"}\n' % token
    await link.say(b'{"cmd":"OK"}\n')
    return link


async def test_each_backend_is_told_of_what_it_has_asked_for(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "commserver.db"
    shutil.copy(sqlite_template, path)
    url = f"sqlite:///{path}"
    async with Site(tmp_path, FakeClock(), url=url).open() as site:
        exercise = await site.exercise()
        attempts = [await site.attempt(exercise) for _ in range(2)]

    async with ScriptedBackend() as first, ScriptedBackend() as second:
        backends = {
            "school": {"port": first.port},
            "college": {"port": second.port, "token": "theirs"},
        }
        config = Config(
            state_dir=tmp_path,
            database=Database(url=url),
            backend=Backend.model_validate({"token": "shared", "links": backends}),
            browser=Browser(port=0),
            http=Http(port=0),
            docker=Docker(slots=1),
            queue=Queue(grace=0.0, sweep="off"),
        )
        async with app.built(config, sandboxes=lambda *_: [FakeSandbox()]) as built:
            stop = asyncio.Event()
            served = asyncio.create_task(built.run(stop))
            links = [await shaken(first, b"shared"), await shaken(second, b"theirs")]
            for link, attempt in zip(links, attempts, strict=True):
                await link.say(b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % attempt)
            told = [[await link.packet() for _ in range(2)] for link in links]
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served

    assert [door.name for door in built.asking] == ["school", "college"]
    for packets, attempt in zip(told, attempts, strict=True):
        assert [packet["cmd"] for packet in packets] == ["ACCEPTED", "EXECUTED"]
        assert [packet["id"] for packet in packets] == [str(attempt)] * 2
        assert packets[1]["seq"] == "1"


async def test_to_the_end_a_backend_is_asked_told_and_listened_to(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "commserver.db"
    shutil.copy(sqlite_template, path)
    url = f"sqlite:///{path}"
    async with Site(tmp_path, FakeClock(), url=url).open() as site:
        exercise = await site.exercise()
        running, late = [await site.attempt(exercise) for _ in range(2)]
    engine = FakeSandbox()
    engine.hang()

    async with ScriptedBackend() as peer:
        config = Config(
            state_dir=tmp_path,
            database=Database(url=url),
            backend=Backend.model_validate({"port": peer.port}),
            browser=Browser(port=0, verifier="backend"),
            http=Http(port=0),
            docker=Docker(slots=1),
            queue=Queue(grace=PATIENCE, sweep="off"),
        )
        async with app.built(config, sandboxes=lambda *_: [engine]) as built:
            stop = asyncio.Event()
            served = asyncio.create_task(built.run(stop))
            link = await shaken(peer, b"")
            await link.say(b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % running)
            assert (await link.packet())["cmd"] == "ACCEPTED"
            await until(lambda: engine.running)
            stop.set()
            await until(lambda: built.door.shut)
            [client] = built.asking
            assert isinstance(client, module.Client)
            asked = asyncio.create_task(client.authenticate("token"))
            question = (await link.packet())["authentication_id"]
            await link.say(
                b'{"cmd":"AUTHENTICATED_CLIENT","authentication_id":"%s","client_id":"12"}\n'
                % question.encode(),
                b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % late,
            )
            assert await asked == 12
            assert (await link.packet())["id"] == str(late)
            engine.resume()
            end = await link.packet()
            async with asyncio.timeout(PATIENCE):
                await served

    assert (end["cmd"], end["id"]) == ("EXECUTED", str(running))
    async with Site(tmp_path, FakeClock(), url=url).open() as site:
        assert [job.attempt for job in site.board.runs_of_attempt(late)] == [late]
