"""What browsers get over HTTP: the page, its files, and what it asks for."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from commserver.config import Browser, Http
from commserver.errors import SandboxLost
from commserver.gateways.http.application import Application
from commserver.services.auth_service import Identity
from commserver.services.record_service import RecordService
from commserver.trial import Browser as Tab
from commserver.web import app as web
from tests.fake_sandbox import says
from tests.fakes import FakeClock
from tests.integration.web.room import PATIENCE, Room

Row = dict[str, str]


@pytest.fixture
async def http(room: Room) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody yet, at the server."""
    async with httpx.AsyncClient(base_url=room.page, trust_env=False) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def listed(http: httpx.AsyncClient, token: str) -> list[Row]:
    answer = await http.get("/api/v1/me/attempts", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    rows: list[Row] = answer.json()["attempts"]
    return rows


async def until(
    http: httpx.AsyncClient, token: str, so: Callable[[list[Row]], object]
) -> list[Row]:
    """Return the user's attempts once they are as they should be."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            rows = await listed(http, token)
            if so(rows):
                return rows
            await asyncio.sleep(0.02)
    raise AssertionError


def states(*wanted: str) -> Callable[[list[Row]], bool]:
    return lambda rows: [row["state"] for row in rows] == list(wanted)


# -- files ----------------------------------------------------------------------------------------

sqlite_only = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


@sqlite_only
async def test_the_page_may_connect_to_the_websocket_and_to_nothing_else(
    http: httpx.AsyncClient, room: Room
) -> None:
    page = await http.get("/")
    port = (await http.get("/api/v1/config")).json()["port"]

    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert f"connect-src 'self' ws://127.0.0.1:{port} wss://127.0.0.1:{port}; " in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"


@sqlite_only
async def test_a_host_that_is_none_gets_nothing_into_the_policy(http: httpx.AsyncClient) -> None:
    page = await http.get("/", headers={"Host": "a; script-src *"})

    assert "script-src *" not in page.headers.get("content-security-policy", "")


@sqlite_only
@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/client/commserver.js", "text/javascript; charset=utf-8"),
        ("/static/pages/base.css", "text/css; charset=utf-8"),
        ("/static/pages/icon.svg", "image/svg+xml"),
    ],
)
async def test_a_file_is_sent_again_only_if_it_has_changed(
    http: httpx.AsyncClient, path: str, type: str
) -> None:
    first = await http.get(path)
    again = await http.get(path, headers={"If-None-Match": first.headers["etag"]})
    head = await http.head(path)

    assert (first.status_code, first.headers["content-type"]) == (200, type)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert first.headers["cache-control"] == "no-cache"
    assert "default-src 'none'" in first.headers["content-security-policy"]
    assert (head.status_code, head.content) == (200, b"")


@sqlite_only
@pytest.mark.parametrize(
    "path",
    [
        "/static/app.py",
        "/static/",
        "/static/pages",
        "/static/pages/nothing.js",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/pages/..%2f..%2fapp.py",
        "/static//etc/passwd",
    ],
)
async def test_no_other_file_is_served(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


@sqlite_only
async def test_the_page_is_told_where_the_websocket_is(
    room: Room, http: httpx.AsyncClient, state: Path, url: str
) -> None:
    found = (await http.get("/api/v1/config")).json()

    assert found == {"websocket": "", "port": found["port"], "tls": "0"}
    assert int(found["port"]) > 0


async def test_a_configured_websocket_is_told_and_allowed() -> None:
    async with asked(Http(websocket_url="wss://judge.example/live")) as client:
        found = (await client.get("/api/v1/config")).json()
        page = await client.get("/")

    assert found["websocket"] == "wss://judge.example/live"
    assert "connect-src 'self' wss://judge.example;" in page.headers["content-security-policy"]


async def test_a_websocket_with_tls_is_told(tmp_path: Path) -> None:
    async with asked(Http(), Browser(tls_cert=tmp_path / "cert.pem")) as client:
        assert (await client.get("/api/v1/config")).json()["tls"] == "1"


# -- one's own attempts ---------------------------------------------------------------------------


async def test_each_attempt_is_shown_as_it_stands_newest_first(
    room: Room, http: httpx.AsyncClient
) -> None:
    token = await room.token()
    room.engine.scripts.append(says("41"))
    [wrong] = await room.hand_in(title="Sum of two")
    await until(http, token, states("done"))
    room.engine.scripts.append(says("42"))
    [right] = await room.hand_in(title="<img src=x onerror=alert(1)>")
    await until(http, token, states("done", "done"))
    room.engine.hang()
    [runs] = await room.hand_in(title="Third")
    await until(http, token, states("running", "done", "done"))
    [waits] = await room.hand_in(title="Fourth")
    rows = await until(http, token, states("queued", "running", "done", "done"))
    room.engine.resume()

    assert [row["id"] for row in rows] == [str(one) for one in (waits, runs, right, wrong)]
    assert [row["place"] for row in rows] == ["1", "0", "0", "0"]
    assert rows[2]["title"] == "<img src=x onerror=alert(1)>"
    assert [row["status"] for row in rows] == ["", "", "accepted", "wrong_answer"]
    assert [(row["grade"], row["grade_max"]) for row in rows[2:]] == [("20", "20"), ("0", "20")]
    assert rows[0]["ended_at"] == ""
    assert rows[3]["created_at"] < rows[3]["ended_at"]
    assert rows[3]["created_at"].endswith("Z")
    assert all(row["run"] for row in rows)


async def test_of_an_attempt_that_was_run_again_the_newest_counts(
    room: Room, http: httpx.AsyncClient
) -> None:
    token = await room.token()
    room.engine.otherwise = says("41")
    [attempt] = await room.hand_in()
    await until(http, token, states("done"))
    room.engine.otherwise = says("42")
    await room.site.edit(attempt, "print('newer')")

    room.push([attempt])
    [row] = await until(http, token, lambda rows: rows[0]["status"] == "accepted")

    assert row["id"] == str(attempt)
    assert row["grade"] == "20"


async def test_others_attempts_are_not_shown(room: Room, http: httpx.AsyncClient) -> None:
    ada, grace = await room.token("ada"), await room.token("grace")
    await room.hand_in(student="ada")
    await until(http, ada, states("done"))

    assert await listed(http, grace) == []


async def test_who_has_to_act_is_said_and_no_detail_of_ours(
    room: Room, http: httpx.AsyncClient
) -> None:
    token = await room.token()
    room.engine.otherwise = SandboxLost("secret path /var/run", "c0ffee")
    await room.hand_in()
    await until(http, token, states("failed"))
    exercise = await room.site.exercise("format = 1\nnonsense", title="Broken")
    room.push([await room.site.attempt(exercise)])

    broken, lost = await until(http, token, states("failed", "failed"))

    assert (lost["fault"], lost["message"]) == ("system", "the container that ran it failed")
    assert broken["fault"] == "teacher"
    assert broken["message"] != ""
    assert (lost["status"], lost["grade"]) == ("", "")


async def test_a_cancelled_attempt_is_shown_as_one(room: Room, http: httpx.AsyncClient) -> None:
    token = await room.token()
    room.engine.hang()
    [attempt] = await room.hand_in()
    await until(http, token, states("running"))

    tab = await Tab().open(room.socket, token)
    await tab.send({"cmd": "CANCEL", "id": str(attempt)})
    [row] = await until(http, token, states("cancelled"))
    await tab.close()

    assert (row["status"], row["grade"], row["fault"]) == ("cancelled", "", "")


async def test_the_log_of_an_attempt_is_shown_while_it_is_kept(
    room: Room, http: httpx.AsyncClient
) -> None:
    token = await room.token()
    [attempt] = await room.hand_in()
    await until(http, token, states("done"))
    url = f"/api/v1/me/attempts/{attempt}"

    kept = (await http.get(url, headers=bearer(token))).json()
    [(run,)] = await room.site.sql("SELECT id FROM executions")
    await room.site.database.write(lambda c: room.site.daos.housekeeping.blank_logs(c, [run]))  # type: ignore[list-item]
    gone = (await http.get(url, headers=bearer(token))).json()

    assert "accepted" in kept["log"]
    assert kept["attempt"] == (await listed(http, token))[0]
    assert gone == {"attempt": kept["attempt"], "log": ""}


async def test_only_ones_own_attempt_is_shown_if_it_was_ever_to_be_run(
    room: Room, http: httpx.AsyncClient
) -> None:
    ada, grace = await room.token("ada"), await room.token("grace")
    [attempt] = await room.hand_in(student="ada")
    await until(http, ada, states("done"))
    never = await room.site.attempt(await room.site.exercise(), student="grace")

    async def answer(id: object) -> tuple[int, Row]:
        found = await http.get(f"/api/v1/me/attempts/{id}", headers=bearer(grace))
        return found.status_code, found.json()

    others = await answer(attempt)
    assert others[0] == 403
    assert others[1] == {
        "error_code": "403",
        "target": "EXERCICE",
        "target_id": str(attempt),
        "message": "this attempt is somebody else's",
        "fault": "",
    }
    for id in (never, 10**6, 2**63, 10**18, "x", "-1", "٣", "1e3"):
        status, problem = await answer(id)
        assert (status, problem["error_code"], problem["target"]) == (404, "404", "EXERCICE"), id


# -- who asks -------------------------------------------------------------------------------------


@sqlite_only
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Basic eA=="}, bearer("wrong")]
)
@pytest.mark.parametrize("path", ["/api/v1/me", "/api/v1/me/attempts", "/api/v1/me/attempts/1"])
async def test_nobody_is_shown_anything(
    http: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await http.get(path, headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error_code"] == "401"
    assert (answer.json()["target"], answer.json()["target_id"]) == ("OTHER", "")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_whoever_asks_is_told_who_they_are(room: Room, http: httpx.AsyncClient) -> None:
    for name in ("ada", "grace <b>"):
        answer = await http.get("/api/v1/me", headers=bearer(await room.token(name)))

        account = await room.site.admin.account(name)
        assert answer.json() == {"id": str(account), "name": name}
        assert answer.headers["cache-control"] == "no-store"
    records = RecordService(room.site.database, room.site.daos, room.site.board)
    assert await records.name_of(10**6) == ""


@sqlite_only
async def test_a_token_in_an_address_is_none(room: Room, http: httpx.AsyncClient) -> None:
    token = await room.token()

    answer = await http.get("/api/v1/me/attempts", params={"token": token})

    assert answer.status_code == 401


@sqlite_only
async def test_what_is_ones_own_is_kept_by_nobody(room: Room, http: httpx.AsyncClient) -> None:
    answer = await http.get("/api/v1/me/attempts", headers=bearer(await room.token()))

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


@sqlite_only
async def test_many_wrong_tokens_of_an_address_do_not_stop_a_right_one(
    room: Room, http: httpx.AsyncClient
) -> None:
    token = await room.token()

    wrong = [
        (await http.get("/api/v1/me/attempts", headers=bearer(f"wrong{n}"))).status_code
        for n in range(30)
    ]

    assert wrong[0] == 401
    assert wrong[-1] == 429
    assert await listed(http, token) == []


@sqlite_only
async def test_who_asks_for_others_attempts_again_and_again_has_to_wait(
    room: Room, http: httpx.AsyncClient
) -> None:
    ada, grace = await room.token("ada"), await room.token("grace")

    found = [
        (await http.get(f"/api/v1/me/attempts/{n}", headers=bearer(ada))).status_code
        for n in range(web.MISSES + 1)
    ]
    other = await http.get("/api/v1/me/attempts/1", headers=bearer(grace))

    assert found == [404] * web.MISSES + [429]
    assert other.status_code == 404
    assert await listed(http, ada) == []


# -- without a server -----------------------------------------------------------------------------


class FakeDoor:
    """Knows everybody, and remembers where they came from.

    open: clear it to have it hang.
    """

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def identify(self, token: str, client: str) -> Identity:
        self.clients.append(client)
        await self.open.wait()
        return Identity(1)


class FakeRecords(RecordService):
    """Has no attempt of anybody's."""

    def __init__(self) -> None:
        pass

    async def latest_of(self, account: int, limit: int = 50) -> list[Any]:
        return []


def asked(
    http: Http, browser: Browser | None = None, door: FakeDoor | None = None
) -> httpx.AsyncClient:
    """Return a client of the routes alone."""
    routes = web.routes(
        http, browser or Browser(), door or FakeDoor(), FakeRecords(), FakeClock(), lambda: 8765
    )
    transport = httpx.ASGITransport(Application(routes, http.body_limit), client=("10.0.0.9", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://school.example")


async def test_an_answer_has_a_deadline() -> None:
    door = FakeDoor()
    door.open.clear()

    async with asked(Http(timeout=0.05), door=door) as client:
        answer = await client.get("/api/v1/me/attempts", headers=bearer("x"))

    assert answer.status_code == 503
    assert answer.json()["message"] == "this took too long"


async def test_who_comes_through_a_trusted_proxy_is_known_by_their_own_address() -> None:
    for trusted, client in ((("10.0.0.0/8",), "192.0.2.7"), ((), "10.0.0.9")):
        door = FakeDoor()
        async with asked(Http(trusted_proxies=trusted), door=door) as http:
            headers = {**bearer("x"), "X-Forwarded-For": "192.0.2.7"}
            assert (await http.get("/api/v1/me/attempts", headers=headers)).status_code == 200
        assert door.clients == [client]
