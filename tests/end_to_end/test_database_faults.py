"""What becomes of a server process whose database goes away, or has another manager."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from commserver.cluster import Cluster, ClusterFailed
from commserver.dao.advisory_lock import KEY
from commserver.trial import Packet, Trial, TrialFailed
from tests.end_to_end.conftest import RIGHT, MakeSite, on_both_databases
from tests.integration.faults.conftest import CLAIMANTS, CUT_CLAIM
from tests.nursery import Nursery

pytestmark = pytest.mark.slow

ENGINE = "unix:///nowhere/docker.sock"  # nothing is run
PATIENCE = 90.0  # seconds for what must come

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
async def trial(
    tmp_path: Path, nursery: Nursery, database: str | None, shaky: Cluster
) -> AsyncIterator[Trial]:
    """A site whose server is not started yet."""
    site = Trial(tmp_path / "site", host=ENGINE, database=database, launch=nursery.start)
    await site.prepare()
    yield site
    await site.stop()


@pytest.fixture
def name(trial: Trial) -> str:
    """What the site's PostgreSQL database is called."""
    return trial.database_url.rpartition("/")[2]


class Ran(NamedTuple):
    """How a command ended, and its last words."""

    code: int
    said: str


Run = Callable[..., Awaitable[Ran]]


@pytest.fixture
def run(trial: Trial, nursery: Nursery, tmp_path: Path) -> Run:
    """Returns a function that runs a command of an admin on the site."""

    async def run(*arguments: str, database: str = "") -> Ran:
        log = tmp_path / f"{arguments[0]}.log"
        environ = {
            **{name: v for name, v in os.environ.items() if not name.startswith("COMMSERVER_")},
            "COMMSERVER_STATE_DIR": str(trial.state),
            "COMMSERVER_DATABASE__URL": database or trial.database_url,
            "COMMSERVER_BACKEND__ENABLED": "false",
            "COMMSERVER_BROWSER__PORT": "0",
            "COMMSERVER_HTTP__PORT": "0",
            "COMMSERVER_DOCKER__HOSTS": json.dumps([ENGINE]),
        }
        process = await nursery.start("commserver.cli", arguments, environ, log)
        try:
            async with asyncio.timeout(PATIENCE):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            raise
        said = log.read_text()
        assert "Traceback" not in said
        return Ran(code, said.splitlines()[-1] if said else "")

    return run


def logged(trial: Trial, event: str) -> list[dict[str, object]]:
    """Return the lines of this event in the server's log."""
    text = trial.log.read_text() if trial.log.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


async def until_logged(trial: Trial, event: str) -> dict[str, object]:
    """Wait for a line of this event; return the first."""
    async with asyncio.timeout(PATIENCE):
        while not (lines := logged(trial, event)):
            await asyncio.sleep(0.02)
    return lines[0]


# -- one manager ----------------------------------------------------------------------------------


@on_both_databases
async def test_whoever_comes_second_is_told_who_is_there(trial: Trial, run: Run) -> None:
    await trial.start()
    assert trial.process is not None

    for command in ("serve", "migrate"):
        ran = await run(command)

        assert ran.code == 3
        assert "this database is already managed by" in ran.said
        assert f"{trial.process.pid} on " in ran.said


@on_both_databases
async def test_what_a_killed_server_held_is_free_at_once(trial: Trial) -> None:
    await trial.start()
    await trial.stop(signal.SIGKILL)

    await trial.start()

    assert len(logged(trial, "restored")) == 2


@on_postgresql
async def test_a_claim_whose_connection_is_cut_is_taken_again(
    trial: Trial, run: Run, cluster: Cluster, name: str
) -> None:
    await trial.start()

    cluster.sql(CUT_CLAIM, name)
    await until_logged(trial, "claim_taken_again")

    assert (await run("serve")).code == 3
    assert await trial.stop() == 0


@on_postgresql
async def test_a_server_that_lost_its_claim_to_another_ends(
    trial: Trial, cluster: Cluster, name: str
) -> None:
    await trial.start()
    successor = asyncio.create_task(asyncio.to_thread(cluster.sql, TAKE_OVER, name))
    async with asyncio.timeout(PATIENCE):
        while cluster.sql(CLAIMANTS, name) != "1":
            await asyncio.sleep(0.02)

    cluster.sql(CUT_CLAIM, name)

    assert await trial.died() == 3
    assert "already managed by psql" in trial.log.read_text().splitlines()[-1]
    cluster.sql(CUT_CLAIM, name)
    with pytest.raises(ClusterFailed, match="terminating connection"):
        await successor


TAKE_OVER = f"SELECT pg_advisory_lock({KEY}), pg_sleep(60)"


# -- a database that is away ----------------------------------------------------------------------


@on_postgresql
async def test_a_server_waits_for_a_database_that_is_away_and_says_so_once(
    trial: Trial, shaky: Cluster
) -> None:
    await asyncio.to_thread(shaky.halt)
    starting = asyncio.create_task(trial.start())
    away = await until_logged(trial, "database_is_away")
    await asyncio.sleep(1.0)  # to be asked for several times, in silence

    await asyncio.to_thread(shaky.start)
    back = time.monotonic()
    await starting

    print(f"listening {time.monotonic() - back:.2f} s after the database's return")
    assert str(away["reason"]).startswith("the database is away: ")
    assert len(logged(trial, "database_is_away")) == len(logged(trial, "database_is_back")) == 1


@on_postgresql
async def test_a_server_that_still_waits_for_its_database_can_be_told_to_end(
    trial: Trial, shaky: Cluster
) -> None:
    await asyncio.to_thread(shaky.halt)
    starting = asyncio.create_task(trial.start())
    await until_logged(trial, "database_is_away")

    assert trial.process is not None
    trial.process.send_signal(signal.SIGTERM)
    status = await trial.process.wait()

    assert status == 0
    with contextlib.suppress(TrialFailed):
        await starting


@on_postgresql
async def test_a_wrong_password_is_not_waited_for(run: Run, cluster: Cluster, name: str) -> None:
    rules = cluster.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    cluster.sql("CREATE ROLE careful LOGIN PASSWORD 'right'")
    rules.write_text(f"host all careful 127.0.0.1/32 scram-sha-256\n{before}")
    try:
        cluster.sql("SELECT pg_reload_conf()")
        url = cluster.url(name, "careful:wrong")

        ran = await run("serve", database=url)
    finally:
        rules.write_text(before)
        cluster.sql("SELECT pg_reload_conf()")
        cluster.sql("DROP ROLE careful")

    assert ran == Ran(2, "commserver: database.url: wrong user or password")


@pytest.mark.docker
@on_postgresql
async def test_a_database_that_is_killed_under_a_server_costs_nothing_but_time(
    make_site: MakeSite, shaky: Cluster
) -> None:
    site = await make_site()
    [browser] = await site.join("ada")
    attempts = await site.write("ada", *[RIGHT] * 12)
    site.push(attempts)

    for number in (2, 6):
        await browser.until(partial(_are_told, browser.packets, number), 60)
        await asyncio.to_thread(shaky.kill)
        await asyncio.to_thread(shaky.start)
    finals = await site.finals(browser, attempts)

    assert {final["cmd"] for final in finals} == {"EXERCICE_EXECUTED"}
    told = [packet["seq"] for packet in browser.packets if "status" in packet]
    assert told == [str(number + 1) for number in range(12)]
    for table in ("executions", "grades", "logs"):
        counted = await site.sql(f"SELECT user_exercise_id, count(*) FROM {table} GROUP BY 1")  # noqa: S608
        assert sorted(counted) == [(attempt, 1) for attempt in sorted(attempts)]
    assert len(logged(site.trial, "restored")) == 1, "it is the same server all the time"
    assert "Traceback" not in site.trial.log.read_text()


def _are_told(packets: Sequence[Packet], number: int) -> bool:
    return sum("status" in packet for packet in packets) >= number
