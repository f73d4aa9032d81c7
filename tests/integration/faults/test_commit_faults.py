"""The database goes away, hangs, or says something else, while runs are being committed."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy.engine import make_url

from commserver.cluster import Cluster
from commserver.core.jobs import AttemptId
from commserver.dao.advisory_lock import KEY
from commserver.errors import AlreadyManaged
from tests.integration.faults.conftest import CLAIMANTS, CUT_CLAIM, PATIENCE, TIMEOUT, Room, until

on_postgresql = pytest.mark.parametrize("engine_name", ["postgresql"])

BACK = 8.0  # seconds from the database's return until the next verdict is stored


# -- PostgreSQL goes away -------------------------------------------------------------------------


def restarted(cluster: Cluster) -> None:
    cluster.restart("immediate")


def killed(cluster: Cluster) -> None:
    cluster.kill()
    cluster.start()


def away_for_seconds(cluster: Cluster) -> None:
    cluster.halt("fast")
    time.sleep(2.0)
    cluster.start()


@on_postgresql
@pytest.mark.parametrize("fault", [restarted, killed, away_for_seconds])
async def test_a_database_that_goes_away_under_load_costs_nothing_but_time(
    room: Room, shaky: Cluster, fault: Callable[[Cluster], None]
) -> None:
    """Twice, whatever is under way: a submission, a verdict, a receipt."""
    pauses = []
    async with room.serving() as serving:
        tab = await room.tab()
        attempts = await room.attempts(60)
        room.push(attempts)
        for done in (5, 30):
            await room.logged("run_done", times=done)
            await asyncio.to_thread(fault, shaky)
            pauses.append(await next_verdict(room))

        await room.once(tab, attempts)
        assert len(serving.dispatcher.board) == 0

    print(f"until the next verdict: {', '.join(f'{pause:.2f}' for pause in pauses)} s")
    assert max(pauses) < BACK
    assert len(room.said("restored")) == 1, "it is the same server all the time"


async def next_verdict(room: Room) -> float:
    """Return the seconds from now until a verdict is stored."""
    now = time.monotonic()
    await until(lambda: room.said("run_done")[-1]["at"] > now)
    return float(next(line["at"] for line in room.said("run_done") if line["at"] > now)) - now


SLOW_COMMIT = """
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(60); RETURN NULL; END'
"""
AT_COMMIT = """
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON grades DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slow()
"""
COMMITTING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COMMIT%' AND state = 'active'"


@on_postgresql
async def test_a_verdict_whose_commit_was_cut_short_is_committed_again(
    room: Room, shaky: Cluster
) -> None:
    room.engine.hang()
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(2)
        room.push(attempts)
        await until(lambda: room.engine.running == 2)
        await room.site.sql(SLOW_COMMIT)
        await room.site.sql(AT_COMMIT)

        room.engine.resume()
        await until(lambda: shaky.sql(COMMITTING) == "1")
        await asyncio.to_thread(killed, shaky)
        await room.site.sql("DROP TRIGGER slow ON grades")

        await room.once(tab, attempts)

    assert {line["outcome"] for line in room.said("commit_outcome_known")} == {"aborted"}
    assert len(room.engine.begun) == 2, "none had to be run again"


@on_postgresql
async def test_a_verdict_whose_commit_was_not_answered_is_found_to_be_committed(
    room: Room, shaky: Cluster
) -> None:
    """It is on the disk and waits for a standby that does not exist when the server is killed."""
    room.engine.hang()
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(2)
        room.push(attempts)
        await until(lambda: room.engine.running == 2)
        shaky.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        shaky.sql("SELECT pg_reload_conf()")

        try:
            room.engine.resume()
            await until(lambda: shaky.sql(COMMITTING) == "1")
        finally:
            shaky.sql("ALTER SYSTEM RESET synchronous_standby_names")
            await asyncio.to_thread(killed, shaky)

        await room.once(tab, attempts)

    assert {line["outcome"] for line in room.said("commit_outcome_known")} == {"committed"}
    assert "mid-commit" not in repr(room.said("outcome_not_stored")), "it was stored"
    assert len(room.engine.begun) == 2


@on_postgresql
async def test_a_server_that_is_told_to_end_while_its_database_is_away_ends(
    room: Room, shaky: Cluster
) -> None:
    room.engine.hang()
    try:
        async with room.serving():
            tab = await room.tab()
            attempts = await room.attempts(4)
            room.push(attempts)
            await room.logged("run_queued", times=4)
            await until(lambda: room.engine.running == 2)

            await asyncio.to_thread(shaky.halt)
            room.engine.resume()
            await room.logged("outcome_not_stored", times=2)
            told = time.monotonic()
        ended = time.monotonic()
    finally:
        await asyncio.to_thread(shaky.start)

    async with room.serving():
        tab = await room.tab()
        await room.once(tab, attempts)
    assert ended - told < 5 * TIMEOUT


# -- another server takes over --------------------------------------------------------------------


@on_postgresql
async def test_a_server_that_lost_its_claim_ends_and_the_next_one_does_the_rest(
    room: Room, cluster: Cluster
) -> None:
    attempts = await room.attempts(4)
    room.engine.hang()

    with pytest.raises(ExceptionGroup) as caught:
        await overtaken(room, cluster, attempts)
    async with room.serving():
        tab = await room.tab()
        await room.once(tab, attempts)

    assert caught.group_contains(AlreadyManaged)


async def overtaken(room: Room, cluster: Cluster, attempts: Sequence[AttemptId]) -> None:
    """Serve until somebody else has the claim, who was waiting for it, with two runs in hand."""
    name = str(make_url(room.site.url).database)

    async def cut() -> None:
        await until(lambda: cluster.sql(CLAIMANTS, name) == "1")
        cluster.sql(CUT_CLAIM, name)
        room.engine.resume()

    async with room.serving():
        room.push(attempts)
        await room.logged("run_queued", times=4)
        await until(lambda: room.engine.running == 2)
        cutting = asyncio.create_task(cut())
        async with room.stranger(f"SELECT pg_advisory_xact_lock({KEY})"):
            await cutting
            await until(room.served.done)


# -- a statement hangs ----------------------------------------------------------------------------

HANGING = {
    "postgresql": (
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'",
        "CREATE TRIGGER hang BEFORE INSERT ON grades FOR EACH ROW"
        " WHEN (NEW.user_exercise_id = {attempt}) EXECUTE FUNCTION hang()",
    ),
    "sqlite": (
        "CREATE VIEW forever AS WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n)"
        " SELECT count(*) FROM n",
        "CREATE TRIGGER hang BEFORE INSERT ON grades"
        " WHEN NEW.user_exercise_id = {attempt} BEGIN SELECT * FROM forever; END",
    ),
}
NO_MORE = {"postgresql": "DROP TRIGGER hang ON grades", "sqlite": "DROP TRIGGER hang"}


async def test_a_statement_that_hangs_costs_its_deadline_and_nobody_else(
    room: Room, engine_name: str
) -> None:
    room.engine.hang()
    async with room.serving():
        tab = await room.tab()
        attempts = await room.attempts(6)
        room.push(attempts)
        await until(lambda: room.engine.running == 2)
        for statement in HANGING[engine_name]:
            await room.site.sql(statement.format(attempt=attempts[0]))

        room.engine.resume()
        await until(lambda: len(hung(room)) >= 2)
        await tab.until(lambda: all(map(tab.final, attempts[1:])), PATIENCE)
        told = tab.final(attempts[0])
        await room.site.sql(NO_MORE[engine_name])

        await tab.until(lambda: tab.final(attempts[0]) is not None, PATIENCE)
        await room.once(tab, attempts)

    assert told is None
    first, second = hung(room)[:2]
    assert TIMEOUT <= second - first < TIMEOUT + 2.0
    if engine_name == "postgresql":
        assert sum(line["at"] < first for line in room.said("run_done")) == 5


def hung(room: Room) -> list[float]:
    """Return when it was said that a verdict took too long."""
    said = room.said("outcome_not_stored")
    return [line["at"] for line in said if "took too long" in line["reason"]]


# -- a row says something else --------------------------------------------------------------------

CHANGES = {
    "cancelled": "UPDATE executions SET state = 'cancelled', ended_at = created_at"
    " WHERE user_exercise_id = {attempt}",
    "tried": "UPDATE executions SET tries = 1 WHERE user_exercise_id = {attempt}",
    "deleted": "DELETE FROM executions WHERE user_exercise_id = {attempt}",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", ["waiting", "leased", "being finished"])
async def test_a_row_that_a_stranger_changes_is_his_and_the_others_go_on(
    room: Room, change: str, moment: str
) -> None:
    room.engine.hang()
    async with room.serving() as serving:
        tab = await room.tab()
        attempts = await room.attempts(4)
        room.push(attempts)
        await room.logged("run_queued", times=4)
        await until(lambda: room.engine.running == 2)
        theirs = attempts.pop(2 if moment == "waiting" else 0)
        statement = CHANGES[change].format(attempt=theirs)

        if moment == "being finished":
            async with room.stranger(statement):
                room.engine.resume()
                await until(lambda: len(room.engine.ended) >= 2)
                await asyncio.sleep(0.2)  # for its commit to come upon the stranger's
        else:
            await room.site.sql(statement)
            room.engine.resume()

        await tab.until(lambda: all(map(tab.final, attempts)), PATIENCE)
        await room.logged("row_changed_elsewhere")
        assert len(serving.dispatcher.board) == 0

    assert len(room.said("row_changed_elsewhere")) == 1
    assert tab.final(theirs) is None
    assert await results(room) == dict.fromkeys(attempts, 1)
    assert await room.counts() == {
        "executions": 3 if change == "deleted" else 4,
        "grades": 3,
        "logs": 3,
        "notices": 3,
    }


async def results(room: Room) -> dict[object, object]:
    """Return how many grades each attempt has that has any."""
    rows = await room.site.sql("SELECT user_exercise_id, count(*) FROM grades GROUP BY 1")
    return {row[0]: row[1] for row in rows}


async def test_what_a_stranger_has_left_to_be_done_is_done_after_a_restart(room: Room) -> None:
    room.engine.hang()
    async with room.serving():
        [attempt] = await room.attempts(1)
        room.push([attempt])
        await until(lambda: room.engine.running == 1)
        await room.site.sql(CHANGES["tried"].format(attempt=attempt))
        room.engine.resume()
        await room.logged("row_changed_elsewhere")

    async with room.serving():
        tab = await room.tab()
        await tab.until(lambda: tab.final(attempt) is not None, PATIENCE)

    assert await room.counts() == dict.fromkeys(("executions", "grades", "logs", "notices"), 1)
