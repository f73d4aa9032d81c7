"""`commserver watch` on the real server."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from commserver.commands.watch import NoServer, Watch
from commserver.core.finals import account
from commserver.errors import NotAuthenticated, StoreError
from commserver.trial import free_port
from tests.fakes import completed
from tests.integration.links.conftest import SECRET
from tests.integration.links.site import ADA, GRACE, HOST, PATIENCE, Site


class Seen:
    """A watch of Ada's, and what it told."""

    def __init__(self, url: str, token: str = SECRET, *, once: bool = False) -> None:
        self.told: list[str] = []
        self._moved = asyncio.Event()
        self.watch = Watch(url, token, self._tell, once=once, settle=0.1, patience=0.5)
        self._task: asyncio.Task[None] | None = None

    def _tell(self, news: str) -> None:
        self.told.append(news)
        self._moved.set()

    async def __aenter__(self) -> "Seen":
        self._task = asyncio.create_task(self.watch.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    async def until(self, news: str, count: int = 1) -> None:
        """Wait until it has told this so often."""
        async with asyncio.timeout(PATIENCE):
            while self.told.count(news) < count:
                self._moved.clear()
                await self._moved.wait()

    async def ended(self) -> None:
        """Wait until it has ended by itself; raises what it raised."""
        assert self._task is not None
        async with asyncio.timeout(PATIENCE):
            await self._task


def url_of(server: Server) -> str:
    """Return where a stand-in listens."""
    return f"ws://{HOST}:{next(iter(server.sockets)).getsockname()[1]}"


async def until_delivered(site: Site, seq: int) -> None:
    """Wait until Ada's finals up to this number are delivered."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            if site.ledger.delivered.get(account(ADA), 0) >= seq:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site() as site:
        yield site


async def test_places_fall_and_a_result_comes(site: Site) -> None:
    first = await site.start("grace's", GRACE)
    await site.submit("one", GRACE)
    await site.submit("mine", ADA)
    async with Seen(site.url) as seen:
        await seen.until("attempt 3: place 2")

        await site.end(first)
        await site.end(await site.take())
        await site.pass_time()
        await seen.until("attempt 3: place 1")
        lease = await site.take()
        await site.pass_time()
        await seen.until("attempt 3: running")
        await site.end(lease)

        await seen.until("attempt 3: accepted, grade 10")


async def test_a_final_that_was_shown_is_acknowledged(site: Site) -> None:
    await site.end(await site.start("mine", ADA))
    async with Seen(site.url) as seen:
        await seen.until("attempt 1: accepted, grade 10")
        await until_delivered(site, 1)

    async with Seen(site.url, once=True) as again:
        await again.ended()

    assert again.told == ["connected"]


async def test_it_comes_back_after_the_connection_was_lost() -> None:
    place = {"cmd": "PLACE_IN_QUEUE", "user_exercice_id": "1", "place": "1", "run": "r"}
    said: list[str] = []

    async def fickle(socket: ServerConnection) -> None:
        said.append(str(await socket.recv()))
        for packet in ({"cmd": "OK"}, place):
            await socket.send(json.dumps(packet))
        if len(said) == 1:
            socket.transport.abort()
        await socket.wait_closed()

    async with serve(fickle, HOST, 0) as server, Seen(url_of(server)) as seen:
        await seen.until("the connection is lost")
        await seen.until("connected", 2)
        await seen.until("attempt 1: place 1")

    assert [json.loads(frame) for frame in said] == [{"cmd": "AUTH", "TOKEN": SECRET}] * 2


async def test_once_ends_when_nothing_waits_any_more(site: Site) -> None:
    await site.submit("mine", ADA)
    async with Seen(site.url, once=True) as seen:
        await seen.until("attempt 1: place 1")
        lease = await site.take()
        await site.pass_time()
        await seen.until("attempt 1: running")

        await site.end(lease, completed())
        await seen.ended()

    assert seen.told[-1] == "attempt 1: accepted, grade 10"
    await until_delivered(site, 1)


async def test_once_ends_at_once_when_nothing_waits(site: Site) -> None:
    async with Seen(site.url, once=True) as seen:
        await seen.ended()

    assert seen.told == ["connected"]


@pytest.mark.parametrize("once", [True, False])
async def test_a_token_that_nobody_knows_ends_it(site: Site, once: bool) -> None:
    async with Seen(site.url, "wrong", once=once) as seen:
        with pytest.raises(NotAuthenticated, match="does not know this token"):
            await seen.ended()


async def test_a_server_that_cannot_tell_is_asked_again(site: Site) -> None:
    site.auth.fault = StoreError("away")
    async with Seen(site.url) as seen:
        await site.auth.until_asked(2)
        site.auth.fault = None

        await seen.until("connected")


async def test_once_gives_up_where_no_server_is() -> None:
    async with Seen(f"ws://{HOST}:{free_port()}", once=True) as seen:
        with pytest.raises(NoServer, match="no server at"):
            await seen.ended()


async def test_what_is_no_packet_is_passed_over() -> None:
    async def speaker(socket: ServerConnection) -> None:
        await socket.recv()
        for frame in (json.dumps({"cmd": "OK"}), "nonsense", b"\xff", "[1]", '{"cmd":7}'):
            await socket.send(frame)
        await socket.wait_closed()

    async with serve(speaker, HOST, 0) as server, Seen(url_of(server), once=True) as seen:
        await seen.ended()

    assert seen.told == ["connected"]
