"""Every point between a backend's EXERCISE and its browser at which something could be lost.

| the server is killed (or the packet cut) | what the student gets, and why |
|---|---|
| in the middle of the packet | the result: the sweep takes the attempt |
| before its run is committed | the result: the sweep takes the attempt |
| after its run is committed | the result: the run waits in its row |
| before its verdict is stored | the result, of a second try: nothing was written of the first |
| after its verdict is stored | that very result at the next AUTH: it is owed |
| before its final is pushed | the same |
| before the pong that is the receipt | the same once more, and no third time |

In each case one grade, one log and one final of one number.
"""

import signal

import pytest

from commserver.core.jobs import AttemptId
from commserver.trial import Browser
from tests.end_to_end import faulty_server
from tests.end_to_end.conftest import RIGHT, MakeSite, Site, on_both_databases

pytestmark = [pytest.mark.docker, pytest.mark.slow, on_both_databases]

SWEEP = {"queue__sweep_period": "0.2", "queue__sweep_age": "0.5"}


@pytest.fixture
async def site(make_site: MakeSite) -> Site:
    """A site whose server is not started yet."""
    return await make_site(start=False, **SWEEP)


async def ended(site: Site, attempt: AttemptId) -> Browser:
    """Return a tab once it has been told how the attempt's run ended; once, and nothing else."""
    [browser] = await site.join("ada")
    [final] = await site.finals(browser, [attempt])
    assert (final["cmd"], final["status"], final["seq"]) == ("EXERCICE_EXECUTED", "accepted", "1")
    return browser


async def once(site: Site, attempt: AttemptId) -> bool:
    """Return whether there is one run, one grade, one log and one final of the attempt."""
    counted = [
        await site.sql(f"SELECT count(*) FROM {table} WHERE user_exercise_id = {attempt}")  # noqa: S608
        for table in ("executions", "grades", "logs")
    ]
    owed = await site.sql("SELECT count(*) FROM notices")
    return [*counted, owed] == [[(1,)]] * 4


@pytest.mark.parametrize("point", faulty_server.POINTS)
async def test_a_server_that_is_killed_at_any_point_loses_nothing_and_doubles_nothing(
    site: Site, point: str
) -> None:
    await site.trial.start("tests.end_to_end.faulty_server", point)
    [browser] = await site.join("ada")
    [attempt] = await site.write("ada", RIGHT)

    site.push([attempt])
    status = await site.trial.died()
    await site.leave()
    first = browser.final(attempt)
    await site.trial.start()
    again = await ended(site, attempt)

    assert status == -signal.SIGKILL
    assert (first is not None) == (point == "before pong")
    assert first in (None, again.final(attempt)), "the same final, to the letter"
    assert await once(site, attempt)


async def test_a_packet_that_is_cut_is_made_good_by_the_sweep(site: Site) -> None:
    await site.trial.start()
    [attempt] = await site.write("ada", RIGHT)

    await site.backend.connected.wait()
    site.backend.cut(str(attempt))

    await ended(site, attempt)
    assert await once(site, attempt)


async def test_a_final_whose_receipt_has_come_is_told_no_more(site: Site) -> None:
    await site.trial.start()
    [attempt] = await site.write("ada", RIGHT)
    site.push([attempt])
    browser = await ended(site, attempt)
    await browser.send({"cmd": "ACK", "seq": "1"})
    await browser.until(lambda: browser.packets[-1] == {"cmd": "OK"}, 90)
    await site.leave()

    await site.trial.stop(signal.SIGKILL)
    await site.trial.start()
    [again] = await site.join("ada")
    [newer] = await site.write("ada", RIGHT)
    site.push([newer])
    [final] = await site.finals(again, [newer])

    assert final["seq"] == "2"
    assert again.final(attempt) is None
