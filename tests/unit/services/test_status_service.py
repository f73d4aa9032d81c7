"""How the server is: every part is asked, and none that fails hides the others."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from commserver import __version__
from commserver.errors import StoreError
from commserver.services.status_service import Item, StatusReport, StatusService
from tests.conftest import ROOT
from tests.fakes import FakeClock, settle

WELL = Item("a", "well", {"number": 1})
ILL = Item("b", "ill", {}, "b is ill")


async def well() -> Sequence[Item]:
    return [WELL]


async def ill() -> Sequence[Item]:
    return [ILL]


class Stuck:
    """A part that does not answer until it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self.answers = asyncio.Event()

    async def __call__(self) -> Sequence[Item]:
        self.asked += 1
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return [WELL]


def test_the_version_is_the_packages() -> None:
    assert f'\nversion = "{__version__}"\n' in (ROOT / "pyproject.toml").read_text()


async def test_a_report_has_every_part_in_order_with_what_is_wrong() -> None:
    clock = FakeClock()
    since = clock.utc()
    service = StatusService({"one": well, "two": ill, "none": _nothing}, clock)
    clock.advance(60.0)

    report = await service.report()

    assert report == StatusReport(
        __version__, clock.utc(), since, ["b is ill"], {"one": [WELL], "two": [ILL], "none": []}
    )
    assert list(report.parts) == ["one", "two", "none"]


async def _nothing() -> Sequence[Item]:
    return []


async def test_a_report_is_json() -> None:
    report = await StatusService({"one": well, "two": ill}, FakeClock()).report()

    assert msgspec.json.decode(msgspec.json.encode(report), type=StatusReport) == report


@pytest.mark.parametrize("error", [StoreError("away"), OSError("away")])
async def test_a_part_that_fails_is_shown_with_why(error: Exception) -> None:
    async def broken() -> Sequence[Item]:
        raise error

    report = await StatusService({"broken": broken, "one": well}, FakeClock()).report()

    assert report.problems == ["broken: away"]
    assert [item.says for item in report.parts["broken"]] == ["no answer"]
    assert report.parts["one"] == [WELL]


async def test_a_part_that_does_not_answer_costs_its_deadline_and_is_shown() -> None:
    stuck = Stuck()
    service = StatusService({"stuck": stuck, "one": well}, FakeClock(), deadline=0.01)

    async with asyncio.timeout(1.0):
        report = await service.report()

    assert report.problems == ["stuck: did not answer in 0.01 s"]
    assert [item.says for item in report.parts["stuck"]] == ["no answer"]
    assert report.parts["one"] == [WELL]
    await service.close()


async def test_a_part_that_hangs_is_not_asked_again_before_it_answers() -> None:
    stuck = Stuck()
    service = StatusService({"stuck": stuck}, FakeClock(), deadline=0.01)
    await asyncio.gather(service.report(), service.report())
    await service.report()
    assert stuck.asked == 1

    stuck.answers.set()
    await settle()

    assert (await service.report()).problems == []
    assert stuck.asked == 2


async def test_closing_lets_go_of_what_hangs() -> None:
    stuck = Stuck()
    service = StatusService({"stuck": stuck}, FakeClock(), deadline=0.01)
    await service.report()

    await service.close()

    assert stuck.cancelled == 1
