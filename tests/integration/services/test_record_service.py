"""What is on record of attempts and runs: for STATUS and CANCEL, the HTTP door and the page."""

import pytest

from commserver.core.jobs import AttemptId, OwnerId, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.errors import NotAllowed, NotFound
from commserver.services.record_service import RecordService
from tests.fakes import broken, completed
from tests.integration.services.site import Site


@pytest.fixture
def records(site: Site) -> RecordService:
    return RecordService(site.database, site.daos, site.board)


async def owner(site: Site, student: str = "ada") -> OwnerId:
    return OwnerId(str(await site.admin.account(student)))


async def test_an_attempt_is_its_owners_alone(site: Site, records: RecordService) -> None:
    attempt = await site.attempt(await site.exercise())

    assert (await records.owned(attempt, await owner(site))).id == attempt
    with pytest.raises(NotAllowed) as caught:
        await records.owned(attempt, await owner(site, "grace"))
    assert (caught.value.kind, caught.value.id) == ("attempt", str(attempt))


@pytest.mark.parametrize("id", [0, 99, 2**63 - 1, -1])
async def test_what_is_not_there_is_not_found(site: Site, records: RecordService, id: int) -> None:
    with pytest.raises(NotFound):
        await records.owned(AttemptId(id), OwnerId("1"))
    with pytest.raises(NotFound):
        await records.runs_of(AttemptId(id))


async def test_runs_that_have_not_ended_are_there_with_their_places(
    site: Site, records: RecordService
) -> None:
    attempt = await site.attempt(await site.exercise())
    assert records.unfinished(attempt) == []
    first = await site.submit(attempt)
    assert [(job.id, place) for job, place in records.unfinished(attempt)] == [(first, 1)]

    await site.lease()
    await site.edit(attempt, "print(43)")
    second = await site.submit(attempt)

    found = [(job.id, place) for job, place in records.unfinished(attempt)]
    assert found == [(first, 0), (second, 1)]


async def test_the_last_final_is_that_of_the_newest_run_that_ended(
    site: Site, records: RecordService
) -> None:
    ada = await owner(site)
    attempt = await site.attempt(await site.exercise())
    assert await records.last_final(attempt, ada) is None
    first = await site.submit(attempt)
    assert await records.last_final(attempt, ada) is None, "it has not ended"
    await site.runs.finished(await site.lease(), completed(7))

    final = await records.last_final(attempt, ada)
    assert final is not None
    assert (final.run, final.ending, final.seq) == (first, Judged(Status.ACCEPTED, 7, 10), 1)

    second = await site.submit(attempt)
    await site.runs.finished(await site.lease(), broken(Cause.EXERCISE))
    final = await records.last_final(attempt, ada)
    assert final is not None
    assert (final.run, final.state, final.seq) == (second, State.FAILED, 2)
    assert final.ending == Failure(Cause.EXERCISE, "it broke")


async def test_a_run_that_gave_way_is_no_last_final(site: Site, records: RecordService) -> None:
    attempt = await site.attempt(await site.exercise())
    await site.submit(attempt)
    lease = await site.lease()
    await site.edit(attempt, "print(43)")
    await site.submit(attempt)
    await site.runs.release(lease.id)

    assert await records.last_final(attempt, await owner(site)) is None


async def test_a_final_whose_notice_is_kept_no_more_has_no_number(
    site: Site, records: RecordService
) -> None:
    attempt = await site.attempt(await site.exercise())
    await site.submit(attempt)
    await site.runs.finished(await site.lease(), completed(7))
    await site.sql("DELETE FROM notices")

    final = await records.last_final(attempt, await owner(site))

    assert final is not None
    assert final.seq == 0


async def test_a_run_is_as_the_board_has_it(site: Site, records: RecordService) -> None:
    run = await site.submit(await site.attempt(await site.exercise()))
    record = await records.run(run)
    assert (record.state, record.place) == (State.QUEUED, 1)

    lease = await site.lease()
    await site.runs.started(lease.id)
    record = await records.run(run)
    assert (record.state, record.stored.state, record.place) == (State.RUNNING, State.QUEUED, 0)

    await site.runs.finished(lease, completed(7))
    record = await records.run(run)
    assert (record.state, record.place) == (State.DONE, 0)
    with pytest.raises(NotFound) as caught:
        await records.run(RunId("nobody's"))
    assert (caught.value.kind, caught.value.id) == ("run", "nobody's")


async def test_the_runs_of_an_attempt_come_newest_first(site: Site, records: RecordService) -> None:
    attempt = await site.attempt(await site.exercise())
    runs = []
    for _ in range(3):
        runs.append(await site.submit(attempt))
        await site.runs.finished(await site.lease(), completed(7))

    assert [one.stored.job.id for one in await records.runs_of(attempt)] == runs[::-1]
    assert [one.stored.job.id for one in await records.runs_of(attempt, 1)] == runs[-1:]
    assert await records.runs_of(await site.attempt(await site.exercise())) == []
