"""Every change of the board on a real database: all of it or nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.board import Board, Gone
from commserver.core.changes import Change, Conflict
from commserver.core.jobs import (
    SWEEP,
    AttemptId,
    Job,
    LeaseId,
    Offer,
    Origin,
    Priority,
    Purpose,
    RunId,
    SortKey,
)
from commserver.core.states import State, Step
from commserver.core.verdicts import Broken, Cause, Completed, Failure, Judged, Status, Verdict
from commserver.dao.attempt_logs import AttemptLogDAO
from commserver.errors import StoreError
from commserver.services.ledger import ADOPT_GRACE, DatabaseLedger
from tests.fakes import FakeClock, broken, completed, make_job, make_offer
from tests.integration.services.site import ORIGIN, Site

A, B, C = (RunId(name) for name in "abc")
NODE = make_offer("node", engine="node", remote=True)
VERDICT = Completed(Verdict(Status.WRONG_ANSWER, 5, 20, "what the student reads\0"))


@pytest.fixture
async def attempt(site: Site) -> AttemptId:
    return await site.attempt(await site.exercise())


def job(run: str, attempt: AttemptId | None = None, *, content: str = "content") -> Job:
    """Return a job that a remote holder keeps for a minute at a time."""
    return make_job(run, attempt=attempt, content=content, owner="7", lease=60.0)


async def states(site: Site, *runs: RunId) -> list[State]:
    return [(await site.row(run)).state for run in runs]


async def leases(site: Site) -> list[tuple[object, ...]]:
    return await site.sql("SELECT execution_id, runner FROM leases ORDER BY granted_at")


# -- one step after the other ---------------------------------------------------------------------


async def test_submitted_is_a_new_row(site: Site, attempt: AttemptId) -> None:
    await site.dispatcher.submit(job("a", attempt))

    row = await site.row(A)
    assert row.job == job("a", attempt)
    assert (row.state, row.tries, row.deaths) == (State.QUEUED, 0, 0)
    assert row.key == SortKey(Priority.INTERACTIVE, 0.0, 1)
    assert row.created_at == site.clock.utc()


async def test_refused_is_a_row_that_has_ended(site: Site, attempt: AttemptId) -> None:
    failure = Failure(Cause.NOT_FOUND, "the attempt has no files")

    await site.dispatcher.refuse(job("a", attempt), failure)

    row = await site.row(A)
    assert (row.state, row.ending, row.ended_at) == (State.FAILED, failure, site.clock.utc())


async def test_replaced_is_the_same_row_with_newer_content(site: Site, attempt: AttemptId) -> None:
    await site.dispatcher.submit(job("a", attempt))

    await site.dispatcher.submit(job("b", attempt, content="newer"))

    row = await site.row(A)
    assert (row.state, row.job.content, row.key.entry) == (State.QUEUED, "newer", 1)
    assert await site.count("executions") == 1


@pytest.mark.parametrize("offer", [None, make_offer(), NODE])
async def test_asked_is_the_same_row_with_another_origin(
    site: Site, attempt: AttemptId, clock: FakeClock, offer: Offer | None
) -> None:
    swept = replace(job("a", attempt), origin=Origin(SWEEP, "", ""))
    await site.dispatcher.submit(swept)
    if offer:
        await site.runs.started((await site.lease(offer)).id)
    before = await site.row(A)
    clock.advance(1.0)

    assert await site.dispatcher.ask(A, ORIGIN)

    asked = replace(swept, origin=ORIGIN)
    assert await site.row(A) == replace(before, job=asked)
    assert site.board.job(A) == asked


async def test_leased_and_started_by_our_own_slot_are_not_written(site: Site) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease()
    await site.runs.started(lease.id)

    assert site.board.state(A) is State.RUNNING
    assert (await states(site, A), await leases(site)) == ([State.QUEUED], [])


async def test_leased_and_started_elsewhere_are_written(site: Site, clock: FakeClock) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(NODE)
    assert (await states(site, A), await leases(site)) == ([State.LEASED], [("a", "node")])
    [stored] = await site.database.read(site.daos.leases.all)
    assert (stored.id, stored.offer) == (lease.id, NODE)
    assert stored.until == clock.utc() + timedelta(seconds=60)

    clock.advance(2.0)
    await site.runs.started(lease.id)

    assert await states(site, A) == [State.RUNNING]
    assert (await site.row(A)).started_at == clock.utc()


@pytest.mark.parametrize("outcome", [VERDICT, broken()])
async def test_when_our_own_slot_began_is_written_as_the_try_ends(
    site: Site, clock: FakeClock, outcome: Completed | Broken
) -> None:
    await site.dispatcher.submit(job("a"))
    clock.advance(1.0)
    lease = await site.lease()
    began = clock.utc()
    await site.runs.started(lease.id)
    assert (await site.row(A)).started_at is None
    clock.advance(5.0)

    await site.runs.finished(lease, outcome)

    row = await site.row(A)
    assert (row.started_at, row.leased_at) == (began, began)


async def test_when_another_machine_began_stays_as_it_said(site: Site, clock: FakeClock) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(NODE)
    clock.advance(2.0)
    await site.runs.started(lease.id)
    began = clock.utc()
    clock.advance(5.0)

    await site.runs.finished(lease, VERDICT)

    assert (await site.row(A)).started_at == began


@pytest.mark.parametrize("offer", [None, make_offer()])
async def test_what_was_refused_or_put_back_or_never_leased_did_not_begin(
    site: Site, attempt: AttemptId, offer: Offer | None
) -> None:
    await site.dispatcher.refuse(job("b"), Failure(Cause.NOT_FOUND, "no files"))
    await site.dispatcher.submit(job("a", attempt))
    if offer:
        await site.runs.release((await site.lease(offer)).id)
    await site.dispatcher.cancel(A)

    assert [(await site.row(run)).started_at for run in (A, B)] == [None, None]


async def test_extended_moves_the_end_of_the_lease(site: Site, clock: FakeClock) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(NODE)

    clock.advance(50.0)
    assert await site.runs.extend(lease.id, clock.now() + 60.0)

    [stored] = await site.database.read(site.daos.leases.all)
    assert stored.until == clock.utc() + timedelta(seconds=60)


async def test_a_lease_without_end_is_stored_without_end(site: Site) -> None:
    await site.dispatcher.submit(replace(job("a"), lease=None))
    await site.lease(NODE)

    [stored] = await site.database.read(site.daos.leases.all)
    assert stored.until is None


async def test_released_goes_back_as_it_was(site: Site) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(NODE)

    await site.runs.release(lease.id)

    row = await site.row(A)
    assert (row.state, row.tries, row.key.entry) == (State.QUEUED, 0, 1)
    assert await leases(site) == []


async def test_adopted_is_leased_again(site: Site) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(NODE)
    await site.runs.release(lease.id)

    adopted = await site.runs.adopt(lease.id, NODE)

    assert not isinstance(adopted, Gone)
    assert adopted.id == lease.id
    assert (await states(site, A), await leases(site)) == ([State.LEASED], [("a", "node")])


@pytest.mark.parametrize("offer", [make_offer(), NODE])
async def test_retried_counts_in_the_row(site: Site, offer: Offer) -> None:
    await site.dispatcher.submit(job("a"))
    lease = await site.lease(offer)

    await site.runs.finished(lease, broken(engine_died=True))

    row = await site.row(A)
    assert (row.state, row.tries, row.deaths) == (State.QUEUED, 1, 1)
    assert await leases(site) == []


@pytest.mark.parametrize("offer", [make_offer(), NODE])
async def test_failed_keeps_why(site: Site, attempt: AttemptId, offer: Offer) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease(offer)
    failure = Failure(Cause.EXERCISE, "limits.cpu: no\0", "c1")

    await site.runs.finished(lease, Broken(failure))

    row = await site.row(A)
    assert (row.state, row.tries) == (State.FAILED, 1)
    assert row.ending == Failure(Cause.EXERCISE, "limits.cpu: no", "c1")
    assert (await leases(site), await site.results(attempt)) == ([], [])


@pytest.mark.parametrize("offer", [make_offer(), NODE])
async def test_completed_brings_grade_and_log(
    site: Site, clock: FakeClock, attempt: AttemptId, offer: Offer
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease(offer)
    clock.advance(3.0)

    await site.runs.finished(lease, VERDICT)

    row = await site.row(A)
    assert row.state is State.DONE
    assert row.ending == Judged(Status.WRONG_ANSWER, 5, 20)
    assert row.ended_at == clock.utc()
    assert await site.results(attempt) == [(5, "what the student reads")]
    at = int(clock.utc().timestamp() * 1000)
    assert await site.sql("SELECT timestamp FROM grades UNION ALL SELECT timestamp FROM logs") == [
        (at,),
        (at,),
    ]
    assert await leases(site) == []


async def test_the_whole_verdict_is_kept(site: Site, attempt: AttemptId) -> None:
    await site.dispatcher.submit(job("a", attempt))

    await site.runs.finished(await site.lease(), VERDICT)

    record = await site.database.read(lambda c: site.daos.executions.verdict(c, A))
    assert record is not None
    assert record.verdict == replace(VERDICT.verdict, log="what the student reads")


@pytest.mark.parametrize(
    "other", [replace(job("a"), attempt=None), replace(job("a"), purpose=Purpose.REJUDGE)]
)
async def test_only_a_students_submission_brings_grade_and_log(
    site: Site, attempt: AttemptId, other: Job
) -> None:
    if other.purpose is Purpose.REJUDGE:
        other = replace(other, attempt=attempt)
    await site.dispatcher.submit(other)

    await site.runs.finished(await site.lease(), VERDICT)

    assert await states(site, A) == [State.DONE]
    assert [await site.count(table) for table in ("grades", "logs")] == [0, 0]


@pytest.mark.parametrize("offer", [None, make_offer(), NODE])
async def test_cancelled_ends_the_row_and_the_lease(
    site: Site, attempt: AttemptId, offer: Offer | None
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    if offer:
        await site.lease(offer)

    assert await site.dispatcher.cancel(A)

    row = await site.row(A)
    assert (row.state, row.ending) == (State.CANCELLED, None)
    assert (await leases(site), await site.results(attempt)) == ([], [])


@pytest.mark.parametrize("offer", [make_offer(), NODE])
async def test_superseded_gives_its_place_to_the_newer_one(
    site: Site, attempt: AttemptId, offer: Offer
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease(offer)
    await site.dispatcher.submit(job("other"))
    await site.dispatcher.submit(job("b", attempt, content="newer"))
    in_hand = State.LEASED if offer is NODE else State.RUNNING  # two rows may not wait
    assert await states(site, A, B) == [in_hand, State.QUEUED]

    await site.runs.release(lease.id)

    assert await states(site, A, B) == [State.SUPERSEDED, State.QUEUED]
    assert (await site.row(B)).key == SortKey(Priority.INTERACTIVE, 0.0, 1)
    assert site.board.place(B) == 1
    assert await leases(site) == []


def test_every_step_is_tested_above() -> None:
    """A new step has to come here as well."""
    words = " ".join(name for name in globals() if name.startswith("test_"))

    assert [step for step in Step if step not in words] == []


# -- all or nothing -------------------------------------------------------------------------------


async def test_a_verdict_without_its_log_is_no_verdict(
    site: Site, attempt: AttemptId, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(
        self: AttemptLogDAO, connection: AsyncConnection, attempt: AttemptId, *rest: object
    ) -> int:
        raise StoreError("the disk is full")

    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease()
    with monkeypatch.context() as patched:
        patched.setattr(AttemptLogDAO, "add", away)
        with pytest.raises(StoreError):
            await site.runs.finished(lease, VERDICT)

    assert await states(site, A) == [State.QUEUED]
    assert [await site.count(table) for table in ("grades", "logs")] == [0, 0]
    assert site.ends() == []

    assert await site.runs.finished(lease, VERDICT)
    assert await site.results(attempt) == [(5, "what the student reads")]


async def test_a_verdict_that_comes_twice_is_written_once(site: Site, attempt: AttemptId) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease()

    assert await site.runs.finished(lease, VERDICT)
    assert not await site.runs.finished(lease, completed(20))

    assert await site.results(attempt) == [(5, "what the student reads")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE executions SET state = 'cancelled' WHERE id = 'a'",
        "UPDATE executions SET tries = 1 WHERE id = 'a'",
        "DELETE FROM executions WHERE id = 'a'",
    ],
)
async def test_a_row_that_says_otherwise_is_left_alone(
    site: Site, attempt: AttemptId, statement: str
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease()
    await site.sql(statement)
    before = await site.sql("SELECT * FROM executions")

    assert not await site.runs.finished(lease, VERDICT)

    assert await site.sql("SELECT * FROM executions") == before
    assert [await site.count(table) for table in ("grades", "logs")] == [0, 0]
    assert site.ends() == []
    assert len(site.board) == 0, "it is somebody else's now"


async def test_a_conflict_says_which_run_and_undoes_the_writes_before_it(
    site: Site, attempt: AttemptId
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease(NODE)
    await site.dispatcher.submit(job("b", attempt, content="newer"))
    await site.sql("UPDATE executions SET tries = 2 WHERE id = 'b'")
    change = site.board.release(lease.id)
    assert isinstance(change, Change)
    assert change.step is Step.SUPERSEDED

    assert await site.ledger.commit(change) == Conflict(B)

    assert await states(site, A, B) == [State.LEASED, State.QUEUED]
    assert await leases(site) == [("a", "node")]


async def test_two_waiting_rows_of_one_attempt_are_never_written(
    site: Site, attempt: AttemptId
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    stranger = Board(next_entry=5)
    change = stranger.submit(job("b", attempt))
    assert isinstance(change, Change)

    with pytest.raises(StoreError):
        await site.ledger.commit(change)

    assert await site.count("executions") == 1


# -- a new process --------------------------------------------------------------------------------


async def restored(site: Site) -> tuple[Board, list[LeaseId]]:
    """Return the board of a new process on the same database, and what it has to release."""
    board = Board()
    ledger = DatabaseLedger(site.database, site.daos, site.clock)
    return board, await ledger.restore(board)


def order(board: Board) -> list[RunId]:
    """Return in which order the waiting runs would be served."""
    served: list[RunId] = []
    while change := board.lease(make_offer(), 0.0, skip=served):
        served.append(change.run)
    return served


async def test_waiting_runs_come_back_in_their_order(site: Site) -> None:
    priorities = {"a": Priority.INTERACTIVE, "b": Priority.REGRADE, "c": Priority.EXAM}
    for run, priority in (*priorities.items(), ("d", Priority.INTERACTIVE)):
        await site.dispatcher.submit(replace(job(run), priority=priority))
    for run in "ef":
        await site.dispatcher.submit(job(run))
    await site.dispatcher.cancel(RunId("e"))

    board, orphans = await restored(site)

    assert order(board) == ["c", "a", "d", "f", "b"]
    assert orphans == []


async def test_nothing_comes_back_that_has_ended(site: Site, attempt: AttemptId) -> None:
    await site.dispatcher.submit(job("a", attempt))
    await site.runs.finished(await site.lease(), VERDICT)
    await site.dispatcher.submit(job("b"))
    await site.dispatcher.cancel(B)
    await site.dispatcher.refuse(job("c"), Failure(Cause.FULL, "full"))

    board, orphans = await restored(site)

    assert (len(board), orphans) == (0, [])


async def test_numbers_of_entry_are_never_given_twice(site: Site) -> None:
    for run in "ab":
        await site.dispatcher.submit(job(run))
    await site.dispatcher.cancel(B)

    board, _ = await restored(site)
    change = board.submit(job("c"))

    assert isinstance(change, Change)
    assert change.writes[0].key.entry == 3


async def test_tries_and_deaths_come_back(site: Site) -> None:
    await site.dispatcher.submit(job("a"))
    await site.runs.finished(await site.lease(), broken(engine_died=True))

    board, _ = await restored(site)
    change = board.lease(make_offer(), 0.0)

    assert change is not None
    assert change.granted is not None
    board.apply(change)
    again = board.finished(change.granted, broken(engine_died=True), 0.0)
    assert isinstance(again, Change)
    assert (again.writes[0].tries, again.writes[0].deaths) == (2, 2)


async def test_what_our_own_slots_had_waits_again(site: Site) -> None:
    for run in "ab":
        await site.dispatcher.submit(job(run))
    await site.runs.started((await site.lease()).id)

    board, orphans = await restored(site)

    assert (order(board), orphans) == (["a", "b"], [])


async def test_a_run_in_hand_that_nobody_holds_is_to_be_released(
    site: Site, attempt: AttemptId
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    await site.lease()
    await site.dispatcher.submit(job("b", attempt, content="newer"))

    board, orphans = await restored(site)

    assert len(orphans) == 1
    assert board.holds(orphans[0])
    assert board.state(A) is State.RUNNING


@pytest.mark.parametrize(
    ("held", "passed", "waits"),
    [
        (3600.0, 10.0, ADOPT_GRACE),
        (40.0, 10.0, 30.0),
        (40.0, 50.0, -10.0),
        (None, 10.0, ADOPT_GRACE),
    ],
)
async def test_other_machines_have_a_while_to_say_what_they_hold(
    site: Site, clock: FakeClock, held: float | None, passed: float, waits: float
) -> None:
    await site.dispatcher.submit(replace(job("a"), lease=held))
    lease = await site.lease(NODE)
    clock.advance(passed)

    board, orphans = await restored(site)

    assert orphans == []
    assert board.holds(lease.id)
    [back] = board.leases()
    assert (back.id, back.offer) == (lease.id, NODE)
    assert back.until == pytest.approx(clock.now() + waits)
    assert [one.id for one in board.overdue(clock.now())] == ([lease.id] if waits < 0 else [])


async def test_a_lease_of_before_can_be_adopted_and_finished(
    site: Site, attempt: AttemptId
) -> None:
    await site.dispatcher.submit(job("a", attempt))
    lease = await site.lease(NODE)
    again = Site(site.state, site.clock, url=site.url)
    async with again.open():
        adopted = await again.runs.adopt(lease.id, NODE)
        assert not isinstance(adopted, Gone)

        assert await again.runs.finished(adopted, VERDICT)

    assert await states(site, A) == [State.DONE]
    assert await leases(site) == []
    assert await site.results(attempt) == [(5, "what the student reads")]
