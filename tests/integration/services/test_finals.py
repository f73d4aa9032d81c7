"""Finals that are owed, in real databases: numbered by the commit that ends the run."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from commserver.core.finals import account
from commserver.core.jobs import AttemptId, OwnerId, Recipient, RunId
from commserver.core.states import State
from commserver.core.verdicts import Cause, Failure, Judged, Status
from commserver.errors import StoreError, StoreRefused
from commserver.services.finals_service import AT_ONCE, FinalsService
from tests.fakes import broken, completed
from tests.integration.services.site import Site


@pytest.fixture
async def finals(site: Site) -> AsyncIterator[FinalsService]:
    service = FinalsService(site.database, site.daos, site.clock, site.bus)
    running = asyncio.create_task(service.run())
    yield service
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled(), "it ended by itself"


async def recipient_of(site: Site, student: str = "ada") -> Recipient:
    return account(OwnerId(str(await site.admin.account(student))))


async def judged(site: Site, student: str = "ada") -> tuple[RunId, AttemptId]:
    """Hand in, and have it judged."""
    attempt = await site.attempt(await site.exercise(), student=student)
    run = await site.submit(attempt)
    await site.runs.finished(await site.lease(), completed(7))
    return run, attempt


async def seqs(finals: FinalsService, recipient: Recipient, after: int = 0) -> list[int]:
    return [final.seq for final in (await finals.owed(recipient, after)).finals]


async def test_each_kind_of_end_is_owed_and_reads_back_as_it_was_told(
    site: Site, finals: FinalsService
) -> None:
    exercise = await site.exercise()
    attempts = [await site.attempt(exercise) for _ in range(3)]
    done, cancelled, failed = [await site.submit(attempt) for attempt in attempts]
    await site.runs.finished(await site.lease(), completed(7))
    await site.exec.cancel(attempts[1])
    await site.runs.finished(await site.lease(), broken(Cause.EXERCISE))

    owed = await finals.owed(await recipient_of(site), 0)

    assert [(f.run, f.attempt, f.state, f.ending, f.seq) for f in owed.finals] == [
        (done, attempts[0], State.DONE, Judged(Status.ACCEPTED, 7, 10), 1),
        (cancelled, attempts[1], State.CANCELLED, None, 2),
        (failed, attempts[2], State.FAILED, Failure(Cause.EXERCISE, "it broke"), 3),
    ]
    assert (owed.last, owed.more) == (3, False)
    told = [notice.seq for end in site.ends() for notice in end.notices]
    assert told == [1, 2, 3]


async def test_a_refusal_is_owed_like_any_end(site: Site, finals: FinalsService) -> None:
    run = await site.submit(await site.attempt(await site.exercise(), {}))

    [final] = (await finals.owed(await recipient_of(site), 0)).finals

    assert (final.run, final.state, final.seq) == (run, State.FAILED, 1)


async def test_a_superseded_run_is_owed_to_nobody(site: Site, finals: FinalsService) -> None:
    attempt = await site.attempt(await site.exercise())
    await site.submit(attempt)
    lease = await site.lease()
    await site.edit(attempt, "print(43)")
    newer = await site.submit(attempt)

    await site.runs.release(lease.id)

    assert await seqs(finals, await recipient_of(site)) == []
    await site.runs.finished(await site.lease(), completed())
    [final] = (await finals.owed(await recipient_of(site), 0)).finals
    assert (final.run, final.seq) == (newer, 1)


async def test_every_account_has_a_series_of_its_own(site: Site, finals: FinalsService) -> None:
    for student in ("ada", "grace", "ada"):
        await judged(site, student)

    assert await seqs(finals, await recipient_of(site, "ada")) == [1, 2]
    assert await seqs(finals, await recipient_of(site, "grace")) == [1]


async def test_a_commit_that_fails_uses_no_number(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = await site.attempt(await site.exercise())
    await site.submit(attempt)
    lease = await site.lease()
    add = site.daos.notices.add

    async def fails(*arguments: object) -> None:
        await add(*arguments)  # type: ignore[arg-type]
        raise StoreError("away")

    monkeypatch.setattr(site.daos.notices, "add", fails)
    with pytest.raises(StoreError):
        await site.runs.finished(lease, completed())
    monkeypatch.undo()

    assert await seqs(finals, await recipient_of(site)) == []
    await site.runs.finished(lease, completed())
    assert await seqs(finals, await recipient_of(site)) == [1]


async def test_ends_at_the_same_moment_are_numbered_without_gap_or_double(
    site: Site, finals: FinalsService
) -> None:
    exercise = await site.exercise()
    for _ in range(20):
        await site.submit(await site.attempt(exercise))
    leases = [await site.lease() for _ in range(20)]

    await asyncio.gather(*(site.runs.finished(lease, completed()) for lease in leases))

    assert await seqs(finals, await recipient_of(site)) == list(range(1, 21))
    notices = [notice for end in site.ends() for notice in end.notices]
    assert sorted(notice.seq for notice in notices) == list(range(1, 21))


async def test_a_receipt_ends_what_is_owed_up_to_it_and_nothing_else(
    site: Site, finals: FinalsService
) -> None:
    for student in ("ada", "ada", "ada", "grace"):
        await judged(site, student)
    ada = await recipient_of(site)

    await finals.acknowledge(ada, 2)
    await finals.acknowledge(ada, 1)

    assert await seqs(finals, ada) == [3]
    assert await seqs(finals, await recipient_of(site, "grace")) == [1]
    rows = await site.sql("SELECT seq FROM notices WHERE delivered_at IS NOT NULL ORDER BY seq")
    assert rows == [(1,), (2,)]


async def test_a_receiver_that_fell_behind_gets_what_another_has_had_meanwhile(
    site: Site, finals: FinalsService
) -> None:
    for _ in range(3):
        await judged(site)
    ada = await recipient_of(site)
    await finals.acknowledge(ada, 3)

    assert await seqs(finals, ada) == [], "a new receiver has no need of it"
    later = await finals.owed(ada, 1, since=1)
    assert [final.seq for final in later.finals] == [2, 3]
    assert [final.seq for final in (await finals.owed(ada, 0, since=2)).finals] == [3]


async def test_a_receipt_for_what_is_not_there_yet_is_none_for_what_comes(
    site: Site, finals: FinalsService
) -> None:
    ada = await recipient_of(site)
    await finals.acknowledge(ada, 10**18 - 1)

    await judged(site)

    assert await seqs(finals, ada) == [1]


async def test_the_first_of_many_are_read_and_then_the_others(
    site: Site, finals: FinalsService
) -> None:
    exercise = await site.exercise(grader=None)
    for _ in range(AT_ONCE + 1):
        await site.submit(await site.attempt(exercise))
    ada = await recipient_of(site)

    first = await finals.owed(ada, 0)
    rest = await finals.owed(ada, first.finals[-1].seq)

    assert [final.seq for final in first.finals] == list(range(1, AT_ONCE + 1))
    assert (first.more, rest.more) == (True, False)
    assert [final.seq for final in rest.finals] == [AT_ONCE + 1]
    assert first.last == rest.last == AT_ONCE + 1


async def test_a_new_process_owes_what_the_old_one_did_and_counts_on(
    site: Site, finals: FinalsService
) -> None:
    await judged(site)
    ada = await recipient_of(site)
    again = Site(site.state, site.clock, url=site.url)

    async with again.open():
        assert await seqs(
            FinalsService(again.database, again.daos, again.clock, again.bus), ada
        ) == [1]
        await judged(again)
        assert await seqs(
            FinalsService(again.database, again.daos, again.clock, again.bus), ada
        ) == [1, 2]


async def test_what_is_forgotten_is_owed_no_more_and_its_number_is_not_given_again(
    site: Site, finals: FinalsService
) -> None:
    await judged(site)
    await judged(site)
    ada = await recipient_of(site)

    gone = await site.database.write(lambda c: site.daos.housekeeping.forget_notices(c, [(ada, 1)]))

    assert gone == 1
    assert await seqs(finals, ada) == [2]
    await judged(site)
    assert await seqs(finals, ada) == [2, 3]


async def test_receipts_that_come_together_are_written_together(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("ada", "grace", "joan"):
        await judged(site, student)
        await judged(site, student)
    students = [await recipient_of(site, student) for student in ("ada", "grace", "joan")]
    delivered, writes = site.daos.notices.delivered, []

    async def counted(
        connection: AsyncConnection, receipts: Sequence[tuple[Recipient, int]], at: datetime
    ) -> None:
        writes.append(list(receipts))
        await delivered(connection, receipts, at)

    monkeypatch.setattr(site.daos.notices, "delivered", counted)

    tabs = [finals.acknowledge(student, seq) for student in students for seq in (2, 1)]
    await asyncio.gather(*tabs)

    assert writes == [sorted((student, 2) for student in students)]
    for student in students:
        assert await seqs(finals, student) == []


async def test_who_waits_for_a_receipt_that_cannot_be_written_is_told_and_the_next_is_written(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await judged(site)
    ada = await recipient_of(site)

    async def full(*_: object, **__: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(site.daos.notices, "delivered", full)
    with pytest.raises(StoreError):
        await finals.acknowledge(ada, 1)
    monkeypatch.undo()

    await finals.acknowledge(ada, 1)

    assert await seqs(finals, ada) == []


async def test_a_receipt_that_can_never_be_written_stands_in_nobody_s_way(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for student in ("ada", "grace"):
        await judged(site, student)
    ada, grace = await recipient_of(site, "ada"), await recipient_of(site, "grace")
    delivered = site.daos.notices.delivered

    async def choosy(
        connection: AsyncConnection, receipts: Sequence[tuple[Recipient, int]], at: datetime
    ) -> None:
        if ada in dict(receipts):
            raise StoreRefused("no row of hers can be written")
        await delivered(connection, receipts, at)

    monkeypatch.setattr(site.daos.notices, "delivered", choosy)
    hers, other = await asyncio.gather(
        finals.acknowledge(ada, 1), finals.acknowledge(grace, 1), return_exceptions=True
    )

    assert isinstance(hers, StoreRefused)
    assert other is None
    assert await seqs(finals, ada) == [1]
    assert await seqs(finals, grace) == []


async def test_a_database_that_is_away_is_said_once_however_many_ask(
    site: Site, finals: FinalsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: object) -> None:
        raise StoreError("away")

    monkeypatch.setattr(site.daos.notices, "last", away)
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(StoreError):
                await finals.owed(Recipient("account:1"), 0)
        monkeypatch.undo()
        await finals.owed(Recipient("account:1"), 0)
        monkeypatch.setattr(site.daos.notices, "last", away)
        with pytest.raises(StoreError):
            await finals.owed(Recipient("account:1"), 0)

    assert [line["event"] for line in lines] == ["finals_not_read"] * 2
