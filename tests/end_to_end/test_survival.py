"""What is taken is never lost: stops, kills and restarts of the server."""

import asyncio
import signal
from functools import partial

import pytest

from commserver.trial import Browser
from tests.end_to_end.conftest import RIGHT, MakeSite, on_both_databases

pytestmark = [pytest.mark.docker, pytest.mark.slow]

SLEEPS = "import time\ntime.sleep({})\nprint(42)"


def _waits(browser: Browser, attempt: int) -> bool:
    return any(packet.get("place", "0") != "0" for packet in browser.of(attempt))


@on_both_databases
async def test_kill_9_loses_nothing_doubles_nothing_and_leaves_no_container(
    make_site: MakeSite,
) -> None:
    site = await make_site(docker__slots="1")
    [browser] = await site.join("ada")
    attempts = await site.write("ada", SLEEPS.format(3), *[RIGHT] * 4)
    site.push(attempts)
    await browser.until(partial(_waits, browser, attempts[-1]), 90)
    abandoned = await site.working()

    await site.trial.stop(signal.SIGKILL)
    await site.leave()
    assert site.containers() >= abandoned, "the kill must leave a container, or this shows nothing"
    await site.trial.start()
    [again] = await site.join("ada")
    await site.finals(again, attempts)

    assert not site.containers() & abandoned
    ended = [packet["id"] for packet in again.packets if packet["cmd"] == "EXERCICE_EXECUTED"]
    assert ended == [str(attempt) for attempt in attempts], "in the old order, once each"
    places = [packet for packet in again.packets if packet.get("place", "0") != "0"]
    assert {packet["user_exercice_id"] for packet in places} >= {str(one) for one in attempts[1:]}


async def test_two_sites_on_one_engine_leave_each_other_alone(make_site: MakeSite) -> None:
    ours = await make_site("ours", docker__slots="1", queue__max_tries="1")
    other = await make_site("other", docker__slots="1")
    await ours.join("ada")
    await other.join("ada")
    [mine] = await ours.write("ada", SLEEPS.format(4))
    [theirs] = await other.write("ada", SLEEPS.format(30))
    ours.push([mine])
    other.push([theirs])
    working, abandoned = await ours.working(), await other.working()

    await other.trial.stop(signal.SIGKILL)
    await other.trial.start()
    async with asyncio.timeout(90):
        while other.containers() & abandoned:
            await asyncio.sleep(0.02)  # an engine has no event for us to wait for

    assert ours.id != other.id
    assert ours.containers() >= working
    [final] = await ours.finals(ours.browsers["ada"][0], [mine])
    assert final["status"] == "accepted", "its only try was not taken from it"


async def test_sigterm_lets_a_running_one_end_and_puts_the_rest_back(make_site: MakeSite) -> None:
    site = await make_site(docker__slots="1")
    [browser] = await site.join("ada")
    attempts = await site.write("ada", SLEEPS.format(1.5), RIGHT, RIGHT)
    site.push(attempts)
    await browser.until(partial(_waits, browser, attempts[-1]), 90)

    status = await site.trial.stop(signal.SIGTERM)

    assert status == 0
    assert not site.containers(), "not even one that waited for the next run"
    assert browser.final(attempts[0]), "its browser still heard of it"
    assert not browser.final(attempts[1])
    assert not browser.final(attempts[2])
    await site.trial.start()
    [again] = await site.join("ada")
    rest = await site.finals(again, attempts[1:])
    assert [final["status"] for final in rest] == ["accepted", "accepted"]
    told = again.final(attempts[0])  # unless its receipt came before the end
    assert told in (None, browser.final(attempts[0])), "what ended is not run again"
    assert await site.sql("SELECT count(*) FROM grades") == [(3,)]


async def test_sigterm_puts_back_what_outlasts_the_grace_time_free_of_charge(
    make_site: MakeSite,
) -> None:
    site = await make_site(docker__slots="1", queue__grace="0.2", queue__max_tries="1")
    [browser] = await site.join("ada")
    attempts = await site.write("ada", SLEEPS.format(5), RIGHT)
    site.push(attempts)
    await browser.until(partial(_waits, browser, attempts[-1]), 90)
    before = await site.working()

    status = await site.trial.stop(signal.SIGTERM)

    assert status == 0
    assert not site.containers() & before
    assert not browser.final(attempts[0])
    await site.trial.start()
    [again] = await site.join("ada")
    finals = await site.finals(again, attempts)
    assert [final["status"] for final in finals] == ["accepted", "accepted"], "no try was counted"


async def test_the_backend_may_come_late_and_go_away(make_site: MakeSite) -> None:
    site = await make_site()
    await site.backend.stop()
    [browser] = await site.join("ada")
    attempts = await site.write("ada", RIGHT)

    site.push(attempts)
    await site.backend.start("127.0.0.1", site.trial.backend_port, None)

    [final] = await site.finals(browser, attempts)
    assert final["status"] == "accepted"
