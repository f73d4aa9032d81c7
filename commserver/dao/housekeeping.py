"""What is forgotten in time, and all of it that concerns one account."""

from collections.abc import Sequence
from dataclasses import replace
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

from commserver.core.finals import Recipient
from commserver.core.jobs import ContentHash, RunId
from commserver.core.states import ENDS, State
from commserver.dao.dao import DAO
from commserver.dao.tables import UNFINISHED, baseline, executions, leases, notices, series, tokens

_e = executions.c
_n = notices.c

NO_LOG = '"log":""'  # in a verdict's JSON; inside of a text its quotes would be escaped
AT_ONCE = 500  # values in one statement: every database takes that many

NoticeKey = tuple[Recipient, int]


class Held(NamedTuple):
    """How much there was about one account, and the contents that nobody else's runs name."""

    runs: int
    ended: int  # of the runs, those that had not ended before
    tokens: int
    notices: int
    contents: tuple[ContentHash, ...]


class HousekeepingDAO(DAO):
    """What is forgotten in time, and all of it that concerns one account.

    What is due is looked for in a transaction that only reads, and checked again by the one that
    writes, which touches no other rows: so nobody waits for a search.
    """

    table = executions

    # -- in time ----------------------------------------------------------------------------------

    async def due_runs(
        self, connection: AsyncConnection, *, ended: datetime, limit: int
    ) -> list[RunId]:
        """Return runs that ended before `ended` and whose final is owed to nobody any more."""
        query = select(_e.id).where(_forgettable(ended)).limit(limit)
        return [RunId(run) for run in await connection.scalars(query)]

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
        highest = await self._value(connection, select(func.max(_e.user_exercise_id)).where(due))
        result = await connection.execute(delete(executions).where(due))
        if highest is not None:
            await connection.execute(
                update(baseline).where(baseline.c.attempt < highest).values(attempt=highest)
            )
        return result.rowcount

    async def due_notices(
        self, connection: AsyncConnection, *, before: datetime, limit: int
    ) -> list[NoticeKey]:
        """Return finals of before this moment, delivered or not."""
        query = select(_n.recipient, _n.seq).where(_n.created_at < before).limit(limit)
        return [(Recipient(to), seq) for to, seq in await connection.execute(query)]

    async def forget_notices(self, connection: AsyncConnection, keys: Sequence[NoticeKey]) -> int:
        """Delete finals, which are owed to nobody any more; how many."""
        result = await connection.execute(
            delete(notices).where(tuple_(_n.recipient, _n.seq).in_(keys))
        )
        return result.rowcount

    async def due_logs(
        self, connection: AsyncConnection, *, ended: datetime, limit: int
    ) -> list[RunId]:
        """Return runs that ended before `ended` and whose record still has their student's log."""
        has_log = ~type_coerce(_e.verdict, Text).contains(NO_LOG, autoescape=True)
        query = select(_e.id).where(_e.ended_at < ended, _e.verdict.is_not(None), has_log)
        return [RunId(run) for run in await connection.scalars(query.limit(limit))]

    async def blank_logs(self, connection: AsyncConnection, runs: Sequence[RunId]) -> int:
        """Take what their students could read out of the records of runs; how many."""
        query = select(_e.id, _e.verdict).where(_e.id.in_(runs), _e.verdict.is_not(None))
        blank = [
            {"run": run, "record": replace(record, verdict=replace(record.verdict, log=""))}
            for run, record in await connection.execute(query)
        ]
        if blank:
            record = bindparam("record", type_=_e.verdict.type)
            await connection.execute(
                update(executions).where(_e.id == bindparam("run")).values(verdict=record), blank
            )
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

    # -- one account ------------------------------------------------------------------------------

    async def erase(
        self, connection: AsyncConnection, account: int, recipient: Recipient, at: datetime
    ) -> Held:
        """Forget an account: its tokens and finals, and whatever of its runs says who or what.

        The runs stay as blanks with their attempts, states and times, so that none is taken for
        work that was never run; those that had not ended are cancelled.
        """
        mine = _e.account_id == account
        runs = list(await connection.scalars(select(_e.id).where(mine)))
        names = await self._named(connection, mine)
        unfinished = select(func.count()).select_from(executions).where(mine, text(UNFINISHED))
        ended = await self._value(connection, unfinished) or 0
        gone = 0
        for some in _chunks(runs):
            await connection.execute(delete(leases).where(leases.c.execution_id.in_(some)))
            result = await connection.execute(delete(notices).where(_n.execution_id.in_(some)))
            gone += result.rowcount
        gone += (
            await connection.execute(delete(notices).where(_n.recipient == recipient))
        ).rowcount
        await connection.execute(delete(series).where(series.c.recipient == recipient))
        removed = await connection.execute(delete(tokens).where(tokens.c.account_id == account))
        await connection.execute(update(executions).where(mine).values(**_blank(at)))
        others: set[str] = set()
        for some in _chunks(names):
            others |= set(await self._named(connection, _e.content_hash.in_(some)))
        contents = tuple(ContentHash(name) for name in names if name not in others)
        return Held(len(runs), ended, removed.rowcount, gone, contents)

    async def _named(
        self, connection: AsyncConnection, condition: ColumnElement[bool]
    ) -> list[str]:
        """Return the contents that these runs name."""
        query = select(_e.content_hash).where(condition, _e.content_hash != "").distinct()
        return list(await connection.scalars(query))


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
