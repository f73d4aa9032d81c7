"""A platform that only speaks HTTP: hands in, a real engine grades, the webhook tells."""

import asyncio
import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT, missing
from tests.end_to_end.conftest import RIGHT, MakeSite, Site, on_both_databases

pytestmark = [pytest.mark.docker, pytest.mark.slow]

TOKEN = "the-platform-s-token"
SECRET = "the-webhook-s-secret"
PAGE = (ROOT / "docs" / "protocols" / "http.md").read_text()


class Receiver:
    """What the platform listens with; `taking` says whether it takes what it is told.

    told: each final that was taken, in order. tried: how many came.
    """

    def __init__(self) -> None:
        self.taking = True
        self.tried = 0
        self.told: list[dict[str, str]] = []
        self.forged = 0
        [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102  # the page's own example, which must work
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.tried += 1
                receiver.forged += not names["genuine"](SECRET, self.headers, body)
                if receiver.taking:
                    receiver.told.append(json.loads(body))
                self.send_response(204 if receiver.taking else 500)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/finals"

    async def until_tried(self, count: int) -> None:
        async with asyncio.timeout(90):
            while self.tried < count:
                await asyncio.sleep(0.05)

    async def until_told(self, count: int) -> list[dict[str, str]]:
        async with asyncio.timeout(90):
            while len(self.told) < count:
                await asyncio.sleep(0.05)
        return self.told


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    serving = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    serving.start()
    yield receiver
    receiver.server.shutdown()
    serving.join()
    receiver.server.server_close()


@pytest.fixture
async def site(make_site: MakeSite, receiver: Receiver) -> Site:
    settings = {
        "http__token": TOKEN,
        "http__webhook_url": receiver.url,
        "http__webhook_secret": SECRET,
    }
    return await make_site(**settings)


async def handed_in(site: Site, attempt: int, key: str) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": key}
    async with httpx.AsyncClient(base_url=site.trial.page, headers=headers) as client:
        answer = await client.post("/api/v1/executions", json={"id": str(attempt)})
    assert answer.status_code == 202
    body: dict[str, str] = answer.json()
    return body


@on_both_databases
async def test_a_platform_hands_in_over_http_and_is_told_also_after_a_kill(
    site: Site, receiver: Receiver
) -> None:
    [attempt] = await site.write("ada", RIGHT)
    receiver.taking = False
    taken = await handed_in(site, attempt, "once")
    await receiver.until_tried(1)

    await site.trial.stop(signal.SIGKILL)
    receiver.taking = True
    await site.trial.start()
    again = await handed_in(site, attempt, "once")
    [told] = await receiver.until_told(1)
    [other] = await site.write("ada", "print(1)")
    await handed_in(site, other, "another")
    [_, wrong] = await receiver.until_told(2)

    assert again["run"] == taken["run"] == told["run"]
    assert (told["cmd"], told["id"], told["seq"]) == ("EXECUTED", str(attempt), "1")
    assert (told["status"], told["grade"]) == ("accepted", told["grade_max"])
    assert (wrong["status"], wrong["seq"]) == ("wrong_answer", "2")
    assert receiver.forged == 0
    assert await site.sql("SELECT count(*) FROM executions") == [(2,)]


@pytest.mark.parametrize("point", ["before commit", "after commit"])
async def test_a_server_that_is_killed_while_it_takes_a_request_takes_it_once(
    make_site: MakeSite, point: str
) -> None:
    site = await make_site(start=False, http__token=TOKEN, queue__sweep="off")
    await site.trial.start("tests.end_to_end.faulty_server", point)
    [attempt] = await site.write("ada", RIGHT)

    with pytest.raises(httpx.TransportError):
        await handed_in(site, attempt, "once")
    status = await site.trial.died()
    await site.trial.start()
    taken = await handed_in(site, attempt, "once")

    assert status == -signal.SIGKILL
    assert await site.sql("SELECT id FROM executions") == [(taken["run"],)]
    assert await site.sql("SELECT key, execution_id FROM commserver_requests") == [
        ("once", taken["run"])
    ]


async def test_the_commands_of_the_page_do_what_it_says(site: Site) -> None:
    if shutil.which("curl") is None:
        missing("curl is not installed")
    [attempt] = await site.write("ada", RIGHT)
    admin = (site.trial.state / "admin.token").read_text().strip()
    environ = {
        "HTTP": site.trial.page,
        "TOKEN": TOKEN,
        "ADMIN": admin,
        "ID": str(attempt),
        "RUN": (await handed_in(site, attempt, f"hand-in-{attempt}"))["run"],
    }
    console = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    examples = list(zip(console[::2], console[1::2], strict=True))

    assert len(examples) == 10
    for command, shown in examples:
        assert command.startswith("$ curl -s ")
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command[2:]), env=environ, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        pattern = re.escape(shown).replace("…", ".*")
        assert re.fullmatch(pattern, said.decode(), re.DOTALL), (command, said)
