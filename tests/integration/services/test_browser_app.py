"""The browser link of the whole application, on real databases and a fake engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from commserver import app
from commserver.app import App
from commserver.config import Backend, Browser, Config, Database, Docker, Http, Queue
from commserver.core.jobs import AttemptId
from commserver.services.announcement_service import AnnouncementService
from commserver.services.auth_service import fingerprint
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.services.site import Site, until

PATIENCE = 60.0  # seconds for what must come


class Students(NamedTuple):
    """Ada's attempts, one that is judged and two that wait; and one of Grace's, never run."""

    ada: str  # tokens
    grace: str
    judged: AttemptId
    waiting: AttemptId
    behind: AttemptId
    graces: AttemptId


@pytest.fixture
async def students(state: Path, url: str, clock: FakeClock) -> Students:
    async with Site(state, clock, url=url).open() as site:
        exercise = await site.exercise()
        attempts = [await site.attempt(exercise) for _ in range(3)]
        graces = await site.attempt(exercise, student="grace")
        await site.submit(attempts[0])
        async with site.working(FakeSandbox()):
            await until(lambda: len(site.board) == 0)
        for attempt in attempts[1:]:
            await site.submit(attempt)
        tokens = [
            await site.admin.new_token(await site.admin.account(name)) for name in ("ada", "grace")
        ]
        announcements = AnnouncementService(site.database, site.daos, clock)
        await announcements.announce("good luck")
    return Students(tokens[0], tokens[1], attempts[0], attempts[1], attempts[2], graces)


@asynccontextmanager
async def serving(state: Path, url: str, clock: FakeClock, **browser: float) -> AsyncIterator[App]:
    """Serve with one slot, which never comes to an end with its run."""
    engine = FakeSandbox()
    engine.hang()
    config = Config(
        state_dir=state,
        database=Database(url=url),
        backend=Backend(enabled=False),
        browser=Browser.model_validate({"port": 0, **browser}),
        http=Http(enabled=False),
        docker=Docker(slots=1),
        queue=Queue(grace=0.0),
    )
    async with app.built(config, clock=clock, sandboxes=lambda *_: [engine]) as built:
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        try:
            async with asyncio.timeout(PATIENCE):
                await built.server.listening.wait()
            await until(lambda: engine.running)
            yield built
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served


async def say(browser: ClientConnection, cmd: str, **fields: str) -> None:
    await browser.send(json.dumps({"cmd": cmd, **fields}))


async def hear(browser: ClientConnection, count: int) -> list[dict[str, str]]:
    """Return the next packets."""
    async with asyncio.timeout(PATIENCE):
        return [json.loads(await browser.recv()) for _ in range(count)]


async def end_of(browser: ClientConnection) -> tuple[list[dict[str, str]], int]:
    """Return the packets that come before the server closes a socket, and its close code."""
    packets = []
    try:
        while True:
            packets += await hear(browser, 1)
    except ConnectionClosed as closed:
        return packets, closed.rcvd.code if closed.rcvd else 0


async def test_every_command_does_what_the_page_says(
    state: Path, url: str, clock: FakeClock, students: Students
) -> None:
    async with (
        serving(state, url, clock) as served,
        connect(f"ws://127.0.0.1:{served.server.port}") as ada,
    ):
        await say(ada, "AUTH", TOKEN=students.ada)
        ok, *caught_up = await hear(ada, 3)
        place, final = sorted(caught_up, key=lambda packet: packet["cmd"], reverse=True)
        await say(ada, "ACK", seq=final["seq"])
        acknowledged = await hear(ada, 1)
        status = []
        for attempt in (students.judged, students.waiting, students.behind):
            await say(ada, "STATUS", id=str(attempt))
            status += await hear(ada, 2)
        await say(ada, "CANCEL", id=str(students.behind))
        cancelled = await hear(ada, 2)
        missed = []
        for id in (students.behind, students.graces, 4711):
            await say(ada, "CANCEL", id=str(id))
            missed += await hear(ada, 1)
        await say(ada, "ANNOUNCEMENTS", on="1")
        announced = await hear(ada, 2)
        await say(ada, "PROGRESS", on="1")
        switched = await hear(ada, 1)

    assert (ok, final["id"], final["seq"]) == ({"cmd": "OK"}, str(students.judged), "1")
    assert (place["user_exercice_id"], place["place"]) == (str(students.behind), "1")
    assert acknowledged == switched == [ok]
    assert status[1] == final
    assert [each.get("place") for each in status[2:]] == [None, "0", None, "1"]
    assert [each["cmd"] for each in cancelled] == ["OK", "EXERCICE_EXECUTED"]
    assert (cancelled[1]["status"], cancelled[1]["grade"]) == ("cancelled", "")
    assert cancelled[1]["seq"] == "2"
    assert [(each["error_code"], each["target_id"]) for each in missed] == [
        ("404", str(students.behind)),
        ("403", str(students.graces)),
        ("404", "4711"),
    ]
    assert announced == [ok, {"cmd": "ANNOUNCEMENT", "id": "1", "text": "good luck", "until": ""}]


async def test_a_token_that_is_revoked_is_shown_out_at_the_next_look(
    state: Path, url: str, clock: FakeClock, students: Students
) -> None:
    async with serving(state, url, clock) as served:
        address = f"ws://127.0.0.1:{served.server.port}"
        async with connect(address) as ada, connect(address) as grace:
            for browser, token in ((ada, students.ada), (grace, students.grace)):
                await say(browser, "AUTH", TOKEN=token)
                await hear(browser, 1)
            site = Site(state, clock, url=url)
            async with site.database:
                await site.admin.revoke(fingerprint(students.ada))
            clock.advance(1000)  # a period of 900 and its tenth

            refused, code = await end_of(ada)
            await say(grace, "STATUS", id=str(students.graces))
            stays = await hear(grace, 1)

    assert [each["error_code"] for each in refused if each["cmd"] == "ERROR"] == ["401"]
    assert code == 1008
    assert stays[0]["error_code"] == "404"
