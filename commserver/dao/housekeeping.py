"""What is forgotten in time, and all of it that concerns one account."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import ContentHash, Recipient, RunId
from commserver.core.states import ENDS, State
from commserver.dao.dao import DAO
from commserver.dao.tables import (
    UNFINISHED,
    baseline,
    executions,
    leases,
    notices,
    requests,
    tokens,
)
from commserver.dao.verdicts import without_texts

_e = executions.c
_n = notices.c
_record = type_coerce(_e.verdict, Text)  # as it is written, whoever wrote it

# In a verdict's JSON; inside of a text their quotes would be escaped. Old records have no notes.
NO_LOG = '"log":""'
NOTES, NO_NOTES = '"notes":', '"notes":""'
AT_ONCE = 500  # values in one statement: every database takes that many

NoticeKey = tuple[Recipient, int]


class Held(NamedTuple):
    """How much there was about one account, and the contents that nobody else's runs name."""

    runs: int
    ended: int  # of the runs, those that had not ended before
    tokens: int
    notices: int
    contents: tuple[ContentHash, ...]
    owed: tuple[tuple[Recipient, RunId], ...]  # ends that this made, in the order of the recipients


class HousekeepingDAO(DAO):
    """What is forgotten in time, and all of it that concerns one account.

    What is due is looked for in a transaction that only reads, in the order of the keys and after
    the last that was found, and checked again by the one that writes, which touches no other rows:
    so nobody waits for a search.
    """

    table = executions

    # -- in time ----------------------------------------------------------------------------------

    async def due_runs(
        self, connection: AsyncConnection, *, ended: datetime, after: RunId | None, limit: int
    ) -> list[RunId]:
        """Return runs that ended before `ended` and whose final is owed to nobody any more."""
        return await self._next_runs(connection, _forgettable(ended), after, limit)

    async def forget_runs(
        self,
        connection: AsyncConnection,
        runs: Sequence[RunId],
        *,
        ended: datetime,
    ) -> int:
        """Delete those of `runs` that are still due, with their leases and finals; how many.

        Their attempts belong to the baseline from then on: what is forgotten is not news again.
        """
        due = and_(_e.id.in_(runs), _forgettable(ended))
        # Of what was deleted, not of what was due a statement ago: receipts come at any time.
        deleted = delete(executions).where(due).returning(_e.user_exercise_id)
        attempts = (await connection.scalars(deleted)).all()
        highest = max((attempt for attempt in attempts if attempt is not None), default=None)
        if highest is not None:
            await connection.execute(
                update(baseline).where(baseline.c.attempt < highest).values(attempt=highest)
            )
        return len(attempts)

    async def due_notices(
        self, connection: AsyncConnection, *, before: datetime, after: NoticeKey | None, limit: int
    ) -> list[NoticeKey]:
        """Return finals of before this moment, delivered or not."""
        query = select(_n.recipient, _n.seq).where(_n.created_at < before)
        if after is not None:
            query = query.where(tuple_(_n.recipient, _n.seq) > after)
        query = query.order_by(_n.recipient, _n.seq).limit(limit)
        return [(Recipient(to), seq) for to, seq in await connection.execute(query)]

    async def forget_notices(self, connection: AsyncConnection, keys: Sequence[NoticeKey]) -> int:
        """Delete finals, which are owed to nobody any more; how many."""
        result = await connection.execute(
            delete(notices).where(tuple_(_n.recipient, _n.seq).in_(keys))
        )
        return result.rowcount

    async def due_requests(
        self, connection: AsyncConnection, *, before: datetime, after: str | None, limit: int
    ) -> list[str]:
        """Return the keys of requests of before this moment."""
        query = select(requests.c.key).where(requests.c.created_at < before)
        if after is not None:
            query = query.where(requests.c.key > after)
        return list(await connection.scalars(query.order_by(requests.c.key).limit(limit)))

    async def forget_requests(self, connection: AsyncConnection, keys: Sequence[str]) -> int:
        """Delete requests: their keys may stand for others from then on; how many."""
        result = await connection.execute(delete(requests).where(requests.c.key.in_(keys)))
        return result.rowcount

    async def due_logs(
        self, connection: AsyncConnection, *, ended: datetime, after: RunId | None, limit: int
    ) -> list[RunId]:
        """Return runs that ended before `ended` and whose record still has texts for people."""
        has_log = ~_record.contains(NO_LOG, autoescape=True)
        has_notes = and_(
            _record.contains(NOTES, autoescape=True), ~_record.contains(NO_NOTES, autoescape=True)
        )
        due = and_(_e.ended_at < ended, _e.verdict.is_not(None), or_(has_log, has_notes))
        return await self._next_runs(connection, due, after, limit)

    async def blank_logs(self, connection: AsyncConnection, runs: Sequence[RunId]) -> int:
        """Take what students and teachers could read out of the records of runs; how many.

        Whatever version wrote a record: of one that cannot be read nothing is kept.
        """
        kept = _e.verdict.is_not(None)
        query = select(_e.id, _record).where(_e.id.in_(runs), kept)
        blank = [
            {"run": run, "record": without_texts(record)}
            for run, record in await connection.execute(query)
        ]
        if blank:
            # `kept` once more: an erasure may have been quicker.
            change = update(executions).where(_e.id == bindparam("run"), kept)
            record = bindparam("record", type_=Text())
            await connection.execute(change.values(verdict=record), blank)
        return len(blank)

    async def contents(
        self, connection: AsyncConnection, shard: str, *, ended: datetime | None
    ) -> set[str]:
        """Return the contents whose names begin with `shard` and that a run needs.

        ended: runs that ended before this moment need none any more; None: every run does.
        """
        query = select(_e.content_hash).where(_e.content_hash.startswith(shard))
        if ended is not None:
            query = query.where(or_(text(UNFINISHED), _e.ended_at >= ended))
        return set(await connection.scalars(query.distinct()))

    async def _next_runs(
        self,
        connection: AsyncConnection,
        due: ColumnElement[bool],
        after: RunId | None,
        limit: int,
    ) -> list[RunId]:
        query = select(_e.id).where(due).order_by(_e.id).limit(limit)
        if after is not None:
            query = query.where(_e.id > after)
        return [RunId(run) for run in await connection.scalars(query)]

    # -- one account ------------------------------------------------------------------------------

    async def erase(
        self, connection: AsyncConnection, account: int, recipient: Recipient, at: datetime
    ) -> Held:
        """Forget an account: its tokens and finals, and whatever of its runs says who or what.

        What others are owed of the runs stays: it names attempts and runs.

        The runs stay as blanks with their attempts, states and times, so that none is taken for
        work that was never run; those that had not ended are cancelled. The account's series goes
        on where it is: a number that was given once must not mean another final.

        Rows are locked in the order of a commit, runs before all that hangs on them: one that is
        under way is waited for and erased with the rest, a later one finds its run ended.
        """
        query = select(_e.id, _e.content_hash, _e.state, _e.tell).where(_e.account_id == account)
        rows = (await connection.execute(query.order_by(_e.id).with_for_update())).all()
        runs = [run for run, _, _, _ in rows]
        names = sorted({name for _, name, _, _ in rows if name})
        ended = [(run, tell.split()) for run, _, state, tell in rows if not state.ended]
        owed = sorted((Recipient(to), RunId(run)) for run, tell in ended for to in tell)
        for some in _chunks(runs):
            await connection.execute(update(executions).where(_e.id.in_(some)).values(**_blank(at)))
            await connection.execute(delete(leases).where(leases.c.execution_id.in_(some)))
        gone = await connection.execute(delete(notices).where(_n.recipient == recipient))
        removed = await connection.execute(delete(tokens).where(tokens.c.account_id == account))
        others: set[str] = set()
        for some in _chunks(names):
            query = select(_e.content_hash).where(_e.content_hash.in_(some)).distinct()
            others |= set(await connection.scalars(query))
        contents = tuple(ContentHash(name) for name in names if name not in others)
        counts = (len(runs), len(ended), removed.rowcount, gone.rowcount)
        return Held(*counts, contents, tuple(owed))


def _forgettable(ended: datetime) -> ColumnElement[bool]:
    """Return the condition of a run that may be deleted."""
    owed = exists().where(_n.execution_id == _e.id, _n.delivered_at.is_(None))
    return and_(_e.state.in_(sorted(ENDS)), _e.ended_at < ended, ~owed)


def _blank(at: datetime) -> dict[str, object]:
    """Return what an erased run's row says of its student: nothing."""
    nothing = ("account_id", "status", "grade", "grade_max", "fault", "failure_cause", "verdict")
    empty = ("owner", "course", "peer", "reference", "content_hash", "message", "container")
    return {
        **dict.fromkeys(nothing),
        **dict.fromkeys(empty, ""),
        "state": case((text(UNFINISHED), literal(State.CANCELLED, _e.state.type)), else_=_e.state),
        "ended_at": func.coalesce(_e.ended_at, literal(at, _e.ended_at.type)),
    }


def _chunks(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[i : i + AT_ONCE] for i in range(0, len(values), AT_ONCE)]
