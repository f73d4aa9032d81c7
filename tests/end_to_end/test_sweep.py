"""What a backend never sent, or sent while an older version ran: real processes, each database."""

import asyncio
import signal
from collections.abc import Callable

import pytest
from sqlalchemy import text

from commserver import operations
from commserver.core.jobs import AttemptId
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from tests.end_to_end.conftest import RIGHT, MakeSite, Site, on_both_databases

pytestmark = [pytest.mark.docker, pytest.mark.slow, on_both_databases]

SLOW = f"import time\ntime.sleep(2)\n{RIGHT}"
SWEEP = {"queue__sweep_period": "0.2", "queue__sweep_age": "0.6"}
PATIENCE = 60.0  # seconds


async def seen(
    site: Site, query: str, expected: Callable[[list[tuple[object, ...]]], bool]
) -> None:
    """Wait until a query gives what is expected."""
    async with asyncio.timeout(PATIENCE):
        while not expected(await site.sql(query)):
            await asyncio.sleep(0.05)  # a database has no event for us to wait for


async def runs(site: Site, attempt: AttemptId) -> list[tuple[object, object]]:
    """Return state and gateway of each run of an attempt, oldest first."""
    found = await site.sql(
        "SELECT user_exercise_id, state, gateway FROM executions ORDER BY created_at"
    )
    return [(state, gateway) for of, state, gateway in found if of == attempt]


async def grades(site: Site, attempt: AttemptId) -> int:
    """Return how many grades an attempt has."""
    found = await site.sql("SELECT user_exercise_id FROM grades")
    return [of for (of,) in found].count(attempt)


async def edit(site: Site, attempt: AttemptId, source: str) -> None:
    """Hand a newer file in, as the platform writes it."""
    files = [SourceFile("main.py", source)]
    async with operations.opened(site.trial.config) as database:
        await database.write(lambda c: DaoManager().codes.add(c, attempt, files, 0))


async def first_start(site: Site) -> None:
    """Start the server as if it never had been started."""
    async with operations.opened(site.trial.config) as database:
        await database.write(lambda connection: connection.execute(text("DELETE FROM baseline")))
    await site.trial.start()


async def draft(site: Site) -> AttemptId:
    """Write an attempt without files."""
    async with site.trial.admin() as admin:
        return await admin.add_attempt(await admin.account("ada"), site.exercise, [])


async def test_what_was_never_sent_is_graded_and_the_rest_left_alone(
    make_site: MakeSite,
) -> None:
    site = await make_site(**SWEEP)
    await site.trial.stop()
    old = await site.write("ada", RIGHT, RIGHT)
    await first_start(site)
    [browser] = await site.join("ada")
    unfinished = await draft(site)
    lost = await site.write("ada", RIGHT)

    [final] = await site.finals(browser, lost)
    later = await site.write("ada", RIGHT)
    await site.finals(browser, later)  # so much for sweeps: they had their chance

    assert final["status"] == "accepted"
    for attempt in (*lost, *later):
        assert await runs(site, attempt) == [("done", "sweep")]
        assert await grades(site, attempt) == 1
    for attempt in (*old, unfinished):
        assert await runs(site, attempt) == []
        assert await grades(site, attempt) == 0


async def test_an_exercise_after_the_sweep_took_it_starts_nothing(
    make_site: MakeSite,
) -> None:
    site = await make_site(docker__slots="1", **SWEEP)
    [browser] = await site.join("ada")
    attempts = await site.write("ada", SLOW, RIGHT)
    query = "SELECT gateway FROM executions"
    await seen(site, query, lambda found: len(found) == 2)  # one runs, one waits

    site.push(attempts)
    await seen(site, query, lambda found: [gateway for (gateway,) in found] == ["backend"] * 2)
    await site.finals(browser, attempts)
    [ended] = await site.write("ada", RIGHT)
    await site.finals(browser, [ended])
    site.push([ended])
    await seen(site, query, lambda found: [gateway for (gateway,) in found] == ["backend"] * 3)

    for attempt in (*attempts, ended):
        assert await runs(site, attempt) == [("done", "backend")]
        assert await grades(site, attempt) == 1
        assert len([one for one in browser.of(attempt) if one["cmd"] == "EXERCICE_EXECUTED"]) == 1


async def test_kill_9_with_one_running_and_its_successor_waiting(
    make_site: MakeSite,
) -> None:
    site = await make_site(docker__slots="1")
    [attempt, behind] = await site.write("ada", "import time\ntime.sleep(9)\nprint(0)", RIGHT)
    site.push([attempt])
    async with asyncio.timeout(PATIENCE):
        while '"run_leased"' not in site.trial.log.read_text():
            await asyncio.sleep(0.05)  # a log has no event for us to wait for
    site.push([behind])
    await seen(site, "SELECT id FROM executions", lambda found: len(found) == 2)
    await edit(site, attempt, RIGHT)
    site.push([attempt])
    query = "SELECT state FROM executions WHERE state = 'running'"
    await seen(site, query, lambda found: len(found) == 1)

    await site.trial.stop(signal.SIGKILL)
    await site.trial.start()
    [browser] = await site.join("ada")
    finals = await site.finals(browser, [attempt, behind])

    assert [final["status"] for final in finals] == ["accepted", "accepted"], "the newer content"
    assert await runs(site, attempt) == [("superseded", "backend"), ("done", "backend")]
    assert await grades(site, attempt) == 1
    executed = [one["id"] for one in browser.packets if one["cmd"] == "EXERCICE_EXECUTED"]
    assert executed == [str(attempt), str(behind)], "the earlier place, and one final each"
