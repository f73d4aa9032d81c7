"""A backend with `ack`, on real databases: what it is told is what the rows say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.typing import EventDict

from commserver.gateways.backend import client as module
from commserver.gateways.backend.client import Client
from commserver.services.finals_service import FinalsService
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.links.peers import PATIENCE, Link, ScriptedBackend, quick
from tests.integration.services.site import Site, until

HANDSHAKE = b'{"cmd":"HANDSHAKE","TOKEN":"s3cret-Token"}\n'


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN", 0.05)


@pytest.fixture
async def site(url: str, tmp_path: Path) -> AsyncIterator[Site]:
    state = tmp_path / "state"
    state.mkdir()
    async with Site(state, FakeClock(), url=url).open() as site:
        site.dispatcher.join(make_offer())
        yield site


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedBackend]:
    async with ScriptedBackend() as backend:
        yield backend


@asynccontextmanager
async def linked(site: Site, peer: ScriptedBackend) -> AsyncIterator[FinalsService]:
    """Run a Client named "school" and what writes its receipts."""
    finals = FinalsService(site.database, site.daos, site.clock, site.bus)
    client = Client("school", quick(peer.port), site.exec, finals, site.clock)
    receipts, dialling = asyncio.create_task(finals.run()), asyncio.create_task(client.run())
    try:
        yield finals
    finally:
        client.stop()
        async with asyncio.timeout(PATIENCE):
            await dialling
        receipts.cancel()
        await asyncio.wait({receipts})


async def shaken(peer: ScriptedBackend) -> Link:
    link = await peer.link()
    assert await link.line() == HANDSHAKE
    await link.say(HANDSHAKE)
    return link


async def look_again(site: Site, pause: float) -> None:
    """Let it be time for the next look at what is not there, once somebody waits for it."""
    due = pytest.approx(site.clock.now() + pause)
    await until(lambda: due in site.clock.alarms)
    site.clock.advance(pause * 1.00001)


async def test_an_attempt_that_is_committed_late_is_accepted_executed_and_owed_until_ack(
    site: Site, peer: ScriptedBackend
) -> None:
    exercise = await site.exercise()

    async with linked(site, peer):
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":"1","ack":true}\n')
        await until(lambda: 0.1 in site.clock.alarms)  # the first look was in vain
        assert await site.attempt(exercise) == 1
        site.clock.advance(0.1)
        accepted = await link.packet()
        run = accepted["run"]
        assert accepted == {"cmd": "ACCEPTED", "id": "1", "run": run, "place": "1"}
        await site.dispatcher.finished(await site.lease(), completed())
        executed = await link.packet()
        assert executed == {
            "cmd": "EXECUTED",
            "id": "1",
            "run": run,
            "seq": "1",
            "status": "accepted",
            "grade": "10",
        }
        link.reset()
        link = await shaken(peer)
        assert await link.packet() == executed
        await link.say(b'{"cmd":"ACK","seq":"1"}\n')
        [(owed,)] = await site.sql("SELECT count(*) FROM notices WHERE delivered_at IS NULL")
        async with asyncio.timeout(PATIENCE):
            while owed != 1:  # the student's, who is not there
                [(owed,)] = await site.sql(
                    "SELECT count(*) FROM notices WHERE delivered_at IS NULL"
                )
        told = await site.sql("SELECT recipient, seq FROM notices WHERE pushed_at IS NOT NULL")

    assert told == [("backend:school", 1)]


async def test_a_run_that_is_refused_at_once_is_accepted_before_its_error(
    site: Site, peer: ScriptedBackend
) -> None:
    exercise = await site.exercise(grader="format = 1\nTOTAL NONSENSE")
    attempts = [await site.attempt(exercise) for _ in range(5)]

    async with linked(site, peer):
        link = await shaken(peer)
        await link.say(*(b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % id for id in attempts))
        told = [await link.packet() for _ in range(10)]

    for id in map(str, attempts):
        accepted, error = (packet for packet in told if packet["id"] == id)
        assert (accepted["cmd"], accepted["place"]) == ("ACCEPTED", "0")
        assert (error["cmd"], error["run"]) == ("ERROR", accepted["run"])
        assert (error["error_code"], error["target"]) == ("500", "EXERCICE")
        assert error["fault"] == "teacher"
    assert [packet["seq"] for packet in told if packet["cmd"] == "ERROR"] == list("12345")


async def test_a_run_that_gives_way_is_superseded_for_the_backend_that_asked_for_it(
    site: Site, peer: ScriptedBackend
) -> None:
    attempt = await site.attempt(await site.exercise())

    async with linked(site, peer):
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % attempt)
        first = await link.packet()
        lease = await site.lease()
        await site.edit(attempt, "print(43)")
        await link.say(b'{"cmd":"EXERCISE","id":%d,"ack":true}\n' % attempt)
        second = await link.packet()
        await site.dispatcher.release(lease.id)
        ended = await link.packet()

    assert second["cmd"] == "ACCEPTED"
    assert second["run"] != first["run"]
    assert ended["run"] == first["run"]
    assert (ended["cmd"], ended["status"], ended["grade"]) == ("EXECUTED", "superseded", "")


async def test_an_unknown_id_is_looked_for_four_times_more_and_then_404(
    site: Site, peer: ScriptedBackend, logs: list[EventDict]
) -> None:
    async with linked(site, peer):
        link = await shaken(peer)
        await link.say(b'{"cmd":"EXERCISE","id":"999","ack":true}\n')
        for pause in (0.1, 0.3, 1.0, 3.0):
            await look_again(site, pause)
        error = await link.packet()

    assert (error["cmd"], error["id"], error["run"], error["seq"]) == ("ERROR", "999", "", "")
    assert (error["error_code"], error["target"]) == ("404", "EXERCICE")
    assert [line["id"] for line in logs if line["event"] == "unknown_attempt"] == ["999"]
    assert await site.count("executions") == 0
