"""The webhook: real sockets, real finals, and a receiver that does not always do as it should."""

import asyncio
import hashlib
import hmac
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog.typing import EventDict

from commserver.config import Http
from commserver.core.finals import WEBHOOK
from commserver.core.jobs import AttemptId, Recipient, RunId
from commserver.core.verdicts import Cause
from commserver.errors import ConfigError, StoreError
from commserver.gateways.http import webhook
from commserver.gateways.http.webhook import Webhook
from commserver.services.finals_service import FinalsService
from tests.fakes import FakeClock, broken, completed
from tests.integration.links.conftest import SECRET
from tests.integration.links.http_site import PATIENCE, certificate
from tests.integration.services.site import ORIGIN, Site
from tests.unit.gateways.http.checked import matches

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)

TOLD = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Executed", "RunError")]}


class Post(NamedTuple):
    """What the receiver was sent."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def packet(self) -> dict[str, str]:
        read: dict[str, str] = json.loads(self.body)
        return read


class Receiver:
    """An HTTP server that answers by a script, 204 at its end.

    script: a status, or "hang", "cut", "endless" or "redirect".
    """

    def __init__(self) -> None:
        self.script: deque[int | str] = deque()
        self.posts: list[Post] = []
        self.url = ""
        self._hanging: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def open(self, context: ssl.SSLContext | None = None) -> AsyncIterator["Receiver"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        scheme = "https" if context else "http"
        self.url = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/finals"
        try:
            yield self
        finally:
            server.close()
            for task in self._hanging:
                task.cancel()
            if self._hanging:
                await asyncio.wait(self._hanging)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._hanging.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._hanging.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:])
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.posts.append(Post(head[0], headers, body))
        match self.script.popleft() if self.script else 204:
            case "hang":
                await asyncio.Event().wait()
            case "cut":
                return False
            case "endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write(bytes(1 << 16))
                    await writer.drain()
            case "redirect":
                writer.write(b"HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
            case status:
                writer.write(f"HTTP/1.1 {status} x\r\n".encode())
                writer.write(b"\r\n" if status == 204 else b"Content-Length: 0\r\n\r\n")
        await writer.drain()
        return True


class Scene:
    """A site whose ends are owed to a receiver."""

    def __init__(self, site: Site, receiver: Receiver) -> None:
        self.site = site
        self.receiver = receiver
        self.finals = FinalsService(site.database, site.daos, site.clock, site.bus)

    async def attempt(self) -> AttemptId:
        return await self.site.attempt(await self.site.exercise())

    async def submit(self, attempt: AttemptId) -> RunId:
        return (await self.site.exec.submit(attempt, ORIGIN, (WEBHOOK,))).run

    async def ended(self, outcome: Any = None) -> RunId:
        """Have a run end."""
        run = await self.submit(await self.attempt())
        lease = await self.site.lease()
        await self.site.dispatcher.finished(lease, outcome or completed(7))
        return run

    @asynccontextmanager
    async def telling(self, **settings: Any) -> AsyncIterator[Webhook]:
        """Have the webhook work until the end of the block."""
        config = Http(**{"webhook_url": self.receiver.url, "webhook_secret": SECRET, **settings})
        hook = Webhook(config, self.finals, self.site.clock)
        noting = asyncio.create_task(self.finals.run())
        running = asyncio.create_task(hook.run())
        try:
            yield hook
        finally:
            hook.stop()
            async with asyncio.timeout(PATIENCE):
                await running
            noting.cancel()
            await asyncio.wait({noting})

    async def until(self, done: Callable[[], bool], step: float = 0.0) -> None:
        """Let everything go on, and `step` seconds pass at each alarm, until something is so."""
        clock = self.site.clock
        async with asyncio.timeout(PATIENCE):
            while not done():
                if step and clock.alarms:
                    clock.advance(step)
                await asyncio.sleep(0.002)  # sockets and threads need time of their own

    async def until_told(self, count: int, step: float = 0.0) -> list[Post]:
        """Wait for so many posts."""
        await self.until(lambda: len(self.receiver.posts) >= count, step)
        return self.receiver.posts

    async def owed(self) -> int:
        return len((await self.finals.owed(WEBHOOK, 0)).finals)

    async def until_nothing_is_owed(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.owed():  # rows have no event
                self.site.clock.advance(webhook.NOTE_PAUSE)
                await asyncio.sleep(0.002)


@pytest.fixture
async def scene(tmp_path: Path, url: str) -> AsyncIterator[Scene]:
    state = tmp_path / "state"
    state.mkdir()
    site = Site(state, FakeClock(now=1000.0), url=url)
    async with Receiver().open() as receiver, site.open():
        yield Scene(site, receiver)


def genuine(post: Post) -> bool:
    """Return whether the signature is right, as the page tells platforms to check it."""
    signed = post.headers["x-commserver-timestamp"].encode() + b"." + post.body
    right = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(right, post.headers["x-commserver-signature"])


async def test_every_end_is_told_once_in_order_and_signed(scene: Scene) -> None:
    early = await scene.ended()
    async with scene.telling():
        await scene.until_told(1)
        attempt = await scene.attempt()
        dropped = await scene.submit(attempt)
        lease = await scene.site.lease()
        await scene.site.edit(attempt, "print(1)")
        newer = await scene.submit(attempt)
        await scene.site.dispatcher.release(lease.id)
        await scene.site.dispatcher.cancel(newer)
        failed = await scene.ended(broken(Cause.EXERCISE))
        posts = await scene.until_told(4)
        await scene.until_nothing_is_owed()

    told = [(post.packet["run"], post.packet["cmd"], post.packet.get("status")) for post in posts]
    assert lease.job.id == dropped
    assert told[:2] == [(early, "EXECUTED", "accepted"), (dropped, "EXECUTED", "superseded")]
    assert told[2] == (newer, "EXECUTED", "cancelled")
    assert (posts[3].packet["run"], posts[3].packet["error_code"]) == (failed, "500")
    assert [post.headers["x-commserver-seq"] for post in posts] == ["1", "2", "3", "4"]
    for post in posts:
        matches(TOLD, post.packet)
        assert post.line == "POST /finals HTTP/1.1"
        assert post.headers["content-type"] == "application/json"
        assert genuine(post)
        assert not genuine(post._replace(body=post.body + b" "))


@on_sqlite
async def test_it_is_told_again_until_it_is_taken_and_said_once(
    scene: Scene, logs: list[EventDict]
) -> None:
    scene.receiver.script.extend([500, "cut", "redirect", 404, 410, 429, 401])
    await scene.ended()
    await scene.ended()
    started = scene.site.clock.now()

    async with scene.telling():
        posts = await scene.until_told(9, step=300.0)
        await scene.until_nothing_is_owed()

    assert [post.packet["seq"] for post in posts] == ["1"] * 8 + ["2"]
    assert {post.line for post in posts} == {"POST /finals HTTP/1.1"}, "redirects are not followed"
    assert len({post.body for post in posts[:8]}) == 1
    assert scene.site.clock.now() > started
    said = [(line["log_level"], line["event"]) for line in logs if "webhook" in line["event"]]
    assert said == [("warning", "webhook_fails"), ("info", "webhook_works")]


@on_sqlite
async def test_the_pauses_grow_to_five_minutes_and_start_over(scene: Scene) -> None:
    hook = Webhook(
        Http(webhook_url=scene.receiver.url, webhook_secret=SECRET),  # type: ignore[arg-type]
        scene.finals,
        scene.site.clock,
    )
    pauses = [hook._back_off.pause() for _ in range(12)]
    hook._works()

    assert 0.5 <= pauses[0] <= 1.0
    assert 150.0 <= pauses[-1] <= 300.0
    assert 0.5 <= hook._back_off.pause() <= 1.0


@on_sqlite
async def test_a_receiver_that_hangs_costs_its_deadline(scene: Scene) -> None:
    scene.receiver.script.extend(["hang"])
    await scene.ended()

    async with scene.telling(webhook_timeout=0.5):
        await scene.until_told(2, step=300.0)
        await scene.until_nothing_is_owed()


@on_sqlite
async def test_an_endless_answer_is_not_read(scene: Scene) -> None:
    scene.receiver.script.extend(["endless"])
    await scene.ended()

    async with scene.telling():
        await scene.until_told(1)
        await scene.until_nothing_is_owed()

    assert len(scene.receiver.posts) == 1


@on_sqlite
async def test_a_final_that_the_receiver_cannot_take_is_let_go_after_five_minutes(
    scene: Scene, logs: list[EventDict]
) -> None:
    scene.receiver.script.extend([422] * 20)
    await scene.ended()
    await scene.ended()
    started = scene.site.clock.now()

    async with scene.telling() as hook:
        posts = await scene.until_told(21, step=webhook.UNFIT_PAUSE)
        await scene.until(lambda: hook.state.up)
        await scene.until_nothing_is_owed()

    tries = [post.packet["seq"] for post in posts].count("1")
    assert tries >= webhook.UNFIT_TRIES
    assert scene.site.clock.now() - started >= webhook.UNFIT_TIME
    [gave_up] = [line for line in logs if line["event"] == "webhook_gave_up"][:1]
    assert (gave_up["log_level"], gave_up["seq"]) == ("error", 1)


@on_sqlite
async def test_an_address_that_is_wrong_loses_nothing_however_long_it_is(
    scene: Scene, logs: list[EventDict]
) -> None:
    scene.receiver.script.extend([404] * 60)
    await scene.ended()
    started = scene.site.clock.now()

    async with scene.telling():
        posts = await scene.until_told(61, step=300.0)
        await scene.until_nothing_is_owed()

    assert {post.packet["seq"] for post in posts} == {"1"}
    assert scene.site.clock.now() - started > 2 * webhook.UNFIT_TIME
    assert "webhook_gave_up" not in [line["event"] for line in logs]


@on_sqlite
async def test_what_was_told_and_could_not_be_noted_is_noted_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, faults = scene.site.database.write, [StoreError("away")] * 2

    async def faulty(*given: Any, **more: Any) -> Any:
        if faults:
            raise faults.pop()
        return await write(*given, **more)

    await scene.ended()
    monkeypatch.setattr(scene.site.database, "write", faulty)

    async with scene.telling():
        await scene.until(lambda: not faults, step=5.0)
        await scene.until(lambda: not scene.site.clock.alarms, step=5.0)
        await scene.until_nothing_is_owed()

    assert len(scene.receiver.posts) == 1


@on_sqlite
async def test_what_is_taken_is_noted_together_and_all_of_it_at_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, acknowledge = list[int](), scene.finals.acknowledge

    async def acknowledged(recipient: Recipient, seq: int) -> None:
        noted.append(seq)
        await acknowledge(recipient, seq)

    monkeypatch.setattr(scene.finals, "acknowledge", acknowledged)
    for _ in range(6):
        await scene.ended()

    async with scene.telling() as hook:
        await scene.until_told(6)
        await scene.until(lambda: bool(noted) and hook._taken == 6)
        for _ in range(5):
            await scene.owed()  # time for further notes, which wait for the clock
        hurried = list(noted)
    assert await scene.owed() == 0

    assert len(hurried) == 1  # and no more before time goes on
    assert noted[-1] == 6
    assert len(noted) <= 2


@on_sqlite
async def test_it_says_whether_it_works(scene: Scene) -> None:
    scene.receiver.script.extend([503, "cut"])
    await scene.ended()

    async with scene.telling() as hook:
        before = hook.state
        await scene.until(lambda: not hook.state.up)
        broken_since = hook.state
        await scene.until_told(3, step=1.0)
        await scene.until(lambda: hook.state.up)

    assert before.up
    assert broken_since.why == "it answered 503"
    assert hook.state.since > broken_since.since


@on_sqlite
async def test_what_is_owed_outlives_the_webhook(scene: Scene) -> None:
    scene.receiver.script.extend(["hang"])
    await scene.ended()
    async with scene.telling():
        await scene.until_told(1)
    assert await scene.owed() == 1

    async with scene.telling():
        posts = await scene.until_told(2)
        await scene.until_nothing_is_owed()

    assert posts[0].body == posts[1].body


@on_sqlite
async def test_over_tls_the_receiver_must_be_who_it_says(
    scene: Scene, tmp_path: Path, logs: list[EventDict]
) -> None:
    cert, key = await certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    await scene.ended()
    async with Receiver().open(context) as receiver:
        scene.receiver = receiver
        async with scene.telling():
            await scene.until(lambda: "webhook_fails" in [line["event"] for line in logs])
        assert receiver.posts == []

        async with scene.telling(webhook_ca=cert):
            await scene.until_told(1)
            await scene.until_nothing_is_owed()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"webhook_url": "http://a/b"}, "webhook_url needs webhook_secret"),
        ({"webhook_url": "ftp://a/b", "webhook_secret": "x"}, "webhook_url"),
        ({"webhook_url": "http://me:secret@a/b", "webhook_secret": "x"}, "webhook_url"),
        ({"token": "a", "token_file": "b"}, "token and token_file are both given"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Http(**settings)


@on_sqlite
@pytest.mark.parametrize(
    "address", ["http://a:99999/", "http://:80/", "https://[::1/", "http://xn--/"]
)
async def test_an_address_that_is_none_is_refused_at_once(scene: Scene, address: str) -> None:
    scene.receiver.url = address

    with pytest.raises(ConfigError, match=r"http\.webhook_url"):
        async with scene.telling():
            pass


@on_sqlite
async def test_an_address_that_cannot_be_dialled_is_a_failure_and_no_crash(
    scene: Scene, logs: list[EventDict]
) -> None:
    scene.receiver.url = f"http://{'a' * 300}.invalid/"
    await scene.ended()

    async with scene.telling():
        await scene.until(lambda: "webhook_fails" in [line["event"] for line in logs])


@on_sqlite
async def test_certificates_that_cannot_be_read_are_named(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pem"):
        async with scene.telling(webhook_ca=tmp_path / "gone.pem"):
            pass
