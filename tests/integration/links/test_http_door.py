"""The door for platforms, and the admins' endpoints: real server, services and database.

Every answer is held against the OpenAPI document by the client.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.typing import EventDict

from commserver.core.jobs import Origin, RunId
from commserver.core.verdicts import Cause
from commserver.errors import StoreError
from commserver.gateways.http import routing
from commserver.services.exec_service import LOOK_AGAIN
from tests.fakes import FakeClock, broken, completed
from tests.integration.links.conftest import SECRET
from tests.integration.links.http_site import EXECUTIONS, HttpSite, http_site
from tests.integration.services.site import Site

DOOR = Origin("http", "door", "")
ADMIN = "/api/v1/admin"

on_sqlite = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1000.0)


@pytest.fixture
async def site(tmp_path: Path, url: str, clock: FakeClock) -> AsyncIterator[HttpSite]:
    """A door on a database of each kind."""
    state = tmp_path / "state"
    state.mkdir()
    async with Site(state, clock, url=url).open() as services, http_site(services) as http:
        yield http


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """Return the status, target and target's id of a refusal."""
    body = answer.json()
    return answer.status_code, body["target"], body["target_id"]


# -- executions -----------------------------------------------------------------------------------


async def test_an_attempt_is_taken_and_says_where_it_stands(site: HttpSite) -> None:
    first, second = await site.attempt(), await site.attempt()

    one, two = await site.submit(str(first)), await site.submit(int(second))

    assert (one.status_code, one.json()["place"]) == (202, "1")
    assert (two.status_code, two.json()["place"]) == (202, "2")
    row = await site.site.row(RunId(one.json()["run"]))
    assert (row.job.attempt, row.job.origin) == (first, Origin("http", "door", str(first)))


@on_sqlite
async def test_a_run_that_begins_at_once_has_place_0(site: HttpSite) -> None:
    attempt = await site.attempt()
    run = (await site.submit(attempt)).json()["run"]
    await site.site.lease()

    assert (await site.submit(attempt)).json() == {"run": run, "place": "0"}
    assert (await site.client.get(f"{EXECUTIONS}/{run}")).json()["state"] == "leased"


@on_sqlite
async def test_an_unknown_attempt_is_404_after_the_lookups(site: HttpSite) -> None:
    before = site.clock.now()

    answer = await site.later(asyncio.create_task(site.submit("42")))

    assert told(answer) == (404, "EXERCICE", "42")
    assert site.clock.now() - before >= sum(LOOK_AGAIN)


@on_sqlite
async def test_what_can_be_no_id_is_404_at_once(site: HttpSite) -> None:
    for id in ("", "x", "-1", "4.2", "9" * 19, "9" * 400, 10**30):
        assert told(await site.submit(id)) == (404, "EXERCICE", str(id)[:40])


@on_sqlite
async def test_an_attempt_that_is_committed_a_moment_later_is_taken(site: HttpSite) -> None:
    exercise = await site.site.exercise()
    asking = asyncio.create_task(site.submit("1"))
    async with asyncio.timeout(10):
        while not site.clock.alarms:  # noqa: ASYNC110  # it waits for the clock, not for us
            await asyncio.sleep(0.001)
    attempt = await site.site.attempt(exercise)

    answer = await site.later(asking)

    assert attempt == 1
    assert answer.status_code == 202


@on_sqlite
async def test_what_cannot_be_graded_is_a_run_that_says_why(site: HttpSite) -> None:
    attempt = await site.site.attempt(await site.site.exercise(language="cobol"))

    run = (await site.submit(attempt)).json()
    shown = (await site.client.get(f"{EXECUTIONS}/{run['run']}")).json()

    assert run["place"] == "0"
    assert (shown["state"], shown["error_code"], shown["target"]) == ("failed", "404", "CONTAINER")


@on_sqlite
@pytest.mark.parametrize("outcome", [completed(7), broken(Cause.EXERCISE)])
async def test_a_run_is_shown_from_its_entry_to_its_end(site: HttpSite, outcome: Any) -> None:
    attempt = await site.attempt()
    run = (await site.submit(attempt)).json()["run"]
    path = f"{EXECUTIONS}/{run}"
    waiting = (await site.client.get(path)).json()
    await site.site.dispatcher.finished(await site.site.lease(), outcome)

    ended = (await site.client.get(path)).json()
    listed = (await site.client.get(f"/api/v1/attempts/{attempt}")).json()

    assert (waiting["id"], waiting["state"], waiting["place"]) == (str(attempt), "queued", "1")
    if outcome == completed(7):
        assert (ended["state"], ended["grade"], ended["grade_max"]) == ("done", "7", "10")
    else:
        assert (ended["state"], ended["fault"]) == ("failed", "teacher")
    assert ended["ended_at"] > ""
    assert listed == {"id": str(attempt), "runs": [ended]}


@on_sqlite
async def test_the_runs_of_an_attempt_are_the_newest_first_and_as_many_as_asked(
    site: HttpSite,
) -> None:
    attempt = await site.attempt()
    runs = []
    for number in range(3):
        await site.site.edit(attempt, f"print({number})")
        runs.append((await site.submit(attempt)).json()["run"])
        await site.site.dispatcher.finished(await site.site.lease(), completed())
        site.clock.advance(1.0)

    path = f"/api/v1/attempts/{attempt}"
    every = (await site.client.get(path)).json()["runs"]
    two = (await site.client.get(path, params={"limit": "2"})).json()["runs"]

    assert [run["run"] for run in every] == runs[::-1]
    assert two == every[:2]


@on_sqlite
async def test_a_wrong_parameter_is_400(site: HttpSite) -> None:
    for query in ("limit=0", "limit=101", "limit=x", "limit=1&limit=2", "page=2"):
        assert told(await site.client.get(f"/api/v1/attempts/1?{query}")) == (400, "OTHER", "")


async def test_an_unknown_run_is_404(site: HttpSite) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    for run in (unknown, "x", "%00", "%2e%2e", "a" * 300, "é"):
        shown = await site.client.get(f"{EXECUTIONS}/{run}")
        cancelled = await site.client.delete(f"{EXECUTIONS}/{run}")

        assert told(shown) == told(cancelled) == (404, "OTHER", "")


async def test_a_run_is_cancelled_once_and_then_it_has_ended(site: HttpSite) -> None:
    attempt = await site.attempt()
    path = f"{EXECUTIONS}/{(await site.submit(attempt)).json()['run']}"

    won = await site.client.delete(path)
    again = await site.client.delete(path)

    assert (won.status_code, won.json()["state"], won.json()["status"]) == (
        *(200, "cancelled"),
        "cancelled",
    )
    assert told(again) == (409, "EXERCICE", str(attempt))
    assert (await site.client.get(path)).json() == won.json()


@on_sqlite
async def test_a_wrong_body_is_told_so(site: HttpSite) -> None:
    for kind, body, status in (
        ("application/json", b"hello", 400),
        ("application/json", b'{"id":"1","id":"2"}', 400),
        ("application/json", b'{"id":' + b"[" * 30_000, 400),
        ("application/json; charset=utf-8", b"{}", 400),
        ("text/plain", b'{"id":"1"}', 415),
        ("application/json", b" " * 70_000, 413),
    ):
        answer = await site.client.post(EXECUTIONS, content=body, headers={"Content-Type": kind})

        assert told(answer) == (status, "OTHER", "")


@on_sqlite
async def test_while_the_database_is_away_it_is_503_with_a_time(
    site: HttpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreError("postgresql://secret")

    monkeypatch.setattr(site.site.database, "read", away)

    for answer in (
        await site.submit("1"),
        await site.submit("1", "key"),
        await site.client.get(f"{EXECUTIONS}/a"),
        await site.client.get("/readyz"),
    ):
        assert told(answer) == (503, "OTHER", "")
        assert answer.json()["message"] == "the database does not answer"
        assert answer.headers["Retry-After"]
    assert (await site.client.get("/healthz")).json() == {"status": "ok"}


@on_sqlite
async def test_what_takes_too_long_is_503(site: HttpSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "ANSWER_TIMEOUT", 0.05)

    answer = await site.submit("42")  # time stands still: it is looked for for ever

    assert told(answer) == (503, "OTHER", "")


@on_sqlite
async def test_once_the_server_is_to_stop_nothing_new_is_taken_and_all_else_goes_on(
    site: HttpSite,
) -> None:
    run = (await site.submit(await site.attempt())).json()["run"]
    site.door.shut = True

    assert told(await site.submit("1")) == (503, "OTHER", "")
    assert (await site.client.get("/readyz")).status_code == 503
    assert (await site.client.get(f"{EXECUTIONS}/{run}")).status_code == 200


@on_sqlite
async def test_it_says_when_it_is_ready(site: HttpSite) -> None:
    assert (await site.client.get("/readyz")).json() == {"status": "ok"}
    described = await site.client.get("/api/v1/openapi.json", headers={"Authorization": ""})
    assert described.json()["openapi"] == "3.1.0"


# -- the same request again -----------------------------------------------------------------------


async def test_the_same_key_and_body_get_the_same_run_whatever_became_of_it(
    site: HttpSite,
) -> None:
    attempt = await site.attempt()
    first = await site.submit(str(attempt), "key")
    second = await site.submit(int(attempt), "key")
    await site.site.dispatcher.finished(await site.site.lease(), completed())
    site.clock.advance(6 * 86400)
    third = await site.submit(str(attempt), "key")
    other = await site.submit(str(attempt), "another")

    runs = [answer.json()["run"] for answer in (first, second, third, other)]
    assert runs[0] == runs[1] == runs[2] != runs[3]
    assert third.json()["place"] == "0"
    assert await site.site.count("executions") == 2


async def test_one_key_for_two_requests_is_a_conflict(site: HttpSite) -> None:
    first, second = await site.attempt(), await site.attempt()
    await site.submit(first, "key")

    assert told(await site.submit(second, "key")) == (409, "OTHER", "")
    assert await site.site.count("executions") == 1


async def test_two_at_the_same_time_get_the_same_run(site: HttpSite) -> None:
    attempt = await site.attempt()

    answers = await asyncio.gather(*(site.submit(attempt, "key") for _ in range(8)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["run"] for answer in answers}) == 1
    assert await site.site.count("executions") == 1


async def kept(site: HttpSite, key: str) -> list[tuple[object, ...]]:
    return await site.site.sql(
        "SELECT execution_id FROM commserver_requests WHERE key = :key", key=key
    )


async def test_a_kill_between_the_key_and_the_run_costs_nothing(site: HttpSite) -> None:
    attempt = await site.attempt()
    site.door.requests._execs = Killed()  # type: ignore[assignment]
    assert (await site.submit(attempt, "key")).status_code == 503
    assert await kept(site, "key") == [(None,)]
    site.door.requests._execs = site.site.exec

    answer = await site.submit(attempt, "key")

    assert answer.status_code == 202
    assert await kept(site, "key") == [(answer.json()["run"],)]
    assert await site.site.count("executions") == 1


class Killed:
    """Takes nothing any more."""

    async def submit(self, *_: object, **__: object) -> None:
        raise StoreError("killed")


async def test_a_kill_between_the_run_and_its_note_starts_no_second_one(site: HttpSite) -> None:
    attempt = await site.attempt()
    old = await site.site.exec.submit(attempt, DOOR._replace(reference=str(attempt)))
    await site.site.dispatcher.finished(await site.site.lease(), completed())
    site.clock.advance(1.0)
    made = await site.submit(attempt, "key")
    await site.site.dispatcher.finished(await site.site.lease(), completed())
    await site.site.sql("UPDATE commserver_requests SET execution_id = NULL")

    again = await site.submit(attempt, "key")

    assert again.json()["run"] == made.json()["run"] != old.run
    assert await kept(site, "key") == [(made.json()["run"],)]
    assert await site.site.count("executions") == 2


@pytest.mark.parametrize("found", ["waits", "in hand", "swept", "replaced"])
async def test_nor_where_the_run_was_there_before_the_key(site: HttpSite, found: str) -> None:
    attempt, services = await site.attempt(), site.site
    if found == "swept":
        content = await services.exec.missed(attempt)
        assert content is not None
        swept = await services.exec.sweep(attempt, content)
        assert swept is not None
        there = swept.run
        await services.dispatcher.finished(await services.lease(), completed())
    else:
        there = await services.submit(attempt)  # a backend's
    if found == "in hand":
        lease = await services.lease()
    if found == "replaced":
        await services.edit(attempt, "print(1)")
    site.clock.advance(1.0)
    made = await site.submit(attempt, "key")
    await services.sql("UPDATE commserver_requests SET execution_id = NULL")  # killed before it
    if found != "swept":
        lease = lease if found == "in hand" else await services.lease()
        await services.dispatcher.finished(lease, completed())
    if found == "replaced":
        await services.edit(attempt, "print(2)")

    again = await site.submit(attempt, "key")

    assert again.json()["run"] == made.json()["run"] == there
    assert await services.count("executions") == 1


@on_sqlite
async def test_a_run_of_older_content_does_not_stand_for_a_request(site: HttpSite) -> None:
    attempt = await site.attempt()
    older = await site.site.submit(attempt)
    lease = await site.site.lease()
    await site.site.edit(attempt, "print(1)")
    site.door.requests._execs = Killed()  # type: ignore[assignment]
    await site.submit(attempt, "key")
    site.door.requests._execs = site.site.exec
    await site.site.dispatcher.finished(lease, completed())

    assert (await site.submit(attempt, "key")).json()["run"] != older


@on_sqlite
async def test_nor_one_that_had_ended_before_it(site: HttpSite) -> None:
    attempt = await site.attempt()
    older = await site.site.submit(attempt)
    await site.site.dispatcher.finished(await site.site.lease(), completed())
    site.clock.advance(1.0)
    site.door.requests._execs = Killed()  # type: ignore[assignment]
    await site.submit(attempt, "key")
    site.door.requests._execs = site.site.exec

    assert (await site.submit(attempt, "key")).json()["run"] != older


@on_sqlite
async def test_a_key_may_be_used_again_where_there_was_no_attempt(site: HttpSite) -> None:
    missing = await site.later(asyncio.create_task(site.submit("1", "key")))
    attempt = await site.attempt()

    assert missing.status_code == 404
    assert attempt == 1
    assert (await site.submit("1", "key")).status_code == 202


@on_sqlite
async def test_a_key_is_visible_ascii_and_not_too_long(site: HttpSite) -> None:
    for key in ("", "a b", "k" * 201, "é", "a\tb"):
        headers = {b"Idempotency-Key": key.encode()}

        answer = await site.client.post(EXECUTIONS, json={"id": "1"}, headers=headers)

        assert told(answer) == (400, "OTHER", "")
        assert "Idempotency-Key" in answer.json()["message"]


@on_sqlite
async def test_the_longest_key_is_taken(site: HttpSite) -> None:
    assert (await site.submit(await site.attempt(), "~" * 200)).status_code == 202


# -- who may come in ------------------------------------------------------------------------------

WRONG = {"Authorization": "Bearer wrong"}


@on_sqlite
async def test_without_the_right_token_nobody_comes_in(site: HttpSite) -> None:
    shown = ("", "Bearer", "Basic abc", "Bearer wrong", f"Bearer {SECRET}x", "Bearer é")
    for path in (f"{EXECUTIONS}/a", f"{ADMIN}/status"):
        for value in shown:
            headers = {b"Authorization": value.encode()}

            answer = await site.client.get(path, headers=headers)

            assert told(answer) == (401, "OTHER", "")
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@on_sqlite
async def test_one_door_s_token_does_not_open_the_other(site: HttpSite) -> None:
    assert (await site.client.get(f"{ADMIN}/status")).status_code == 401
    assert (await site.client.get(f"{EXECUTIONS}/a", headers=site.admin)).status_code == 401


@on_sqlite
async def test_a_door_without_a_token_names_the_key_to_set(site: HttpSite, tmp_path: Path) -> None:
    async with http_site(site.site, token="") as shut:
        answer = await shut.client.post(EXECUTIONS, json={"id": "1"})
        empty = await shut.client.get(f"{EXECUTIONS}/a", headers={"Authorization": "Bearer"})

    assert told(answer) == told(empty) == (403, "OTHER", "")
    assert "http.token is not set" in answer.json()["message"]


@on_sqlite
async def test_wrong_tokens_are_limited_by_address_and_never_stop_a_right_one(
    site: HttpSite,
) -> None:
    path = f"{ADMIN}/announcement"
    codes = [(await site.client.get(path, headers=WRONG)).status_code for _ in range(25)]
    right = await site.client.get(path, headers=site.admin)
    site.clock.advance(routing.FAILURES_PERIOD + 1)
    later = await site.client.get(path, headers=WRONG)

    assert codes == [401] * routing.FAILURES + [429] * (25 - routing.FAILURES)
    assert right.status_code == 200
    assert later.status_code == 401


@on_sqlite
async def test_behind_a_trusted_proxy_each_address_has_its_own_limit(site: HttpSite) -> None:
    async with http_site(site.site, trusted_proxies=("127.0.0.1",)) as behind:
        path = f"{EXECUTIONS}/a"
        for _ in range(25):
            await behind.client.get(path, headers={**WRONG, "X-Forwarded-For": "192.0.2.1"})
        one = await behind.client.get(path, headers={**WRONG, "X-Forwarded-For": "192.0.2.1"})
        two = await behind.client.get(path, headers={**WRONG, "X-Forwarded-For": "192.0.2.2"})

    assert (one.status_code, two.status_code) == (429, 401)


# -- admins ---------------------------------------------------------------------------------------


@on_sqlite
async def test_the_status_is_shown_as_it_is_described(site: HttpSite) -> None:
    answer = await site.client.get(f"{ADMIN}/status", headers=site.admin)

    assert answer.status_code == 200
    assert answer.json()["problems"] == []


async def test_an_announcement_is_made_shown_withdrawn_and_on_record(site: HttpSite) -> None:
    path = f"{ADMIN}/announcement"
    until = {"text": "ten minutes more", "until": "2026-01-01T10:00:00+02:00"}
    nothing = await site.client.get(path, headers=site.admin)
    made = await site.client.put(path, json=until, headers=site.admin)
    shown = await site.client.get(path, headers=site.admin)
    gone = await site.client.delete(path, headers=site.admin)
    again = await site.client.delete(path, headers=site.admin)
    audit = await site.client.get(f"{ADMIN}/audit?limit=10", headers=site.admin)

    assert nothing.json() == gone.json() == again.json() == {"id": "", "text": "", "until": ""}
    assert made.json() == shown.json()
    assert (made.json()["text"], made.json()["until"]) == (
        *("ten minutes more", "2026-01-01T08:00:00.000Z"),
    )
    rows = [
        (row["who"], row["action"], row["target"], row["detail"]) for row in audit.json()["entries"]
    ]
    assert rows == [
        ("http:admin", "announcement.withdraw", made.json()["id"], ""),
        ("http:admin", "announcement.set", made.json()["id"], "ten minutes more"),
    ]


@on_sqlite
async def test_a_wrong_announcement_changes_nothing(site: HttpSite) -> None:
    path = f"{ADMIN}/announcement"
    past = {"text": "a", "until": "2020-01-01T00:00:00Z"}
    for body in ({}, {"text": ""}, {"text": "\x00"}, past):
        assert told(await site.client.put(path, json=body, headers=site.admin))[0] == 400

    assert (await site.client.get(path, headers=site.admin)).json()["text"] == ""
    assert await site.site.count("commserver_audit") == 0


@on_sqlite
async def test_tokens_are_in_no_log(site: HttpSite, logs: list[EventDict]) -> None:
    await site.submit(await site.attempt())
    await site.client.get(f"{ADMIN}/status", headers=WRONG)

    assert "wrong" not in repr(logs)
