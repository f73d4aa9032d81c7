"""What only a teacher may read: it is kept, told to admins, and never on any way to a student."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from commserver.core.execution import ExecutionReport, ExecutionRequest, ProcessReport
from commserver.core.finals import WEBHOOK
from commserver.core.jobs import AttemptId
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Outcome, Status, Verdict
from commserver.dao import whole_tables
from commserver.reference.backend import ReferenceBackend
from commserver.services.explain_service import ExplainService
from commserver.trial import Browser
from tests.fake_sandbox import Script, says
from tests.integration.services.site import ORIGIN, Site
from tests.integration.web.room import PATIENCE, TOKEN, Room
from tests.unit.graders.toml import exercise

SECRET = "the-hidden-answer"
HIDDEN = '[[cases]]\nname = "h"\nhidden = true\ninput = "i"\nexpected = "42"\n'
ON_SQLITE = pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)


async def everything(site: Site, *, records: bool) -> str:
    """Return every row of every table as text, without what explains verdicts unless asked for."""

    async def work(connection: AsyncConnection) -> str:
        found: list[object] = []
        for table in (*whole_tables.PLATFORMS, *whole_tables.OURS):
            async for some in whole_tables.rows(connection, table):
                found += [row if records else row | {"verdict": None} for row in some]
        return repr(found)

    return await site.database.read(work)


@pytest.mark.parametrize(
    "outcome",
    [
        Completed(Verdict(Status.WRONG_ANSWER, 0, 20, "wrong", (), SECRET)),
        Broken(Failure(Cause.EXERCISE, "the grader broke", details=SECRET)),
    ],
)
async def test_it_is_kept_nowhere_but_with_the_verdict(site: Site, outcome: Outcome) -> None:
    attempt = await site.attempt(await site.exercise())
    await site.exec.submit(attempt, ORIGIN, (WEBHOOK,))
    await site.runs.finished(await site.lease(), outcome)

    assert SECRET in await everything(site, records=True)
    assert SECRET not in await everything(site, records=False)


# -- a whole server -------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[str]:
    """What students, their pages and their backend were told."""
    return []


@pytest.fixture
async def room(
    state: Path, url: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Room]:
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    room = Room(state, url)
    room.backend = ReferenceBackend(TOKEN, told.append)
    async with room.open():
        yield room


def breaks(request: ExecutionRequest) -> ExecutionReport:
    """Be a correction script that tells the answer, and then breaks."""
    report = says(SECRET)(request)
    [case] = report.cases
    [stage] = case.stages
    broken = replace(stage, processes=(ProcessReport("script", 1, 0.1, 0.1, 1024),))
    return replace(report, cases=(replace(case, stages=(broken,)),))


@ON_SQLITE
@pytest.mark.parametrize(
    ("grader", "script", "field"),
    [
        (exercise(cases=HIDDEN), says(SECRET), "notes"),
        ("print('GRADE: 20')", breaks, "details"),
    ],
)
async def test_no_student_nor_backend_is_told_it_and_an_admin_who_asks_is(
    room: Room, told: list[str], grader: str, script: Script, field: str
) -> None:
    with capture_logs() as logs:
        async with room.serving():
            room.engine.otherwise = script
            token = await room.token()
            tab = await Browser(told.append).open(room.socket, token)
            attempt = await room.site.attempt(await room.site.exercise(grader))
            room.push([attempt])
            await tab.until(lambda: tab.final(attempt) is not None, PATIENCE)
            async with httpx.AsyncClient(base_url=room.page, trust_env=False) as http:
                headers = {"Authorization": f"Bearer {token}"}
                for path in ("attempts", f"attempts/{attempt}"):
                    answer = await http.get(f"/api/v1/me/{path}", headers=headers)
                    assert answer.status_code == 200
                    told.append(answer.text)
            await tab.close()

    explain = ExplainService(room.site.database, room.site.daos, room.site.files)
    [story] = (await explain.explain(AttemptId(attempt), texts=True)).runs
    assert any(step.name == field and SECRET in step.says for step in story.steps)
    assert len(told) > 3
    assert SECRET not in repr(told)
    assert SECRET not in repr(logs)
    assert SECRET not in await everything(room.site, records=False)
