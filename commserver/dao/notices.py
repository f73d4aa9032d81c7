"""`notices` and `series`: the finals that were given to somebody, and which of them are owed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, bindparam, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.finals import ACCOUNT, Final, Notice
from commserver.core.jobs import AttemptId, Recipient, RunId
from commserver.dao.dao import DAO
from commserver.dao.executions import ended_by
from commserver.dao.tables import executions, notices, series

_n = notices.c
_e = executions.c

# One statement on both databases; the row stays locked until the transaction ends, so that numbers
# become visible in their order.
_NEXT = text(
    "INSERT INTO series (recipient, last) VALUES (:recipient, 1)"
    " ON CONFLICT (recipient) DO UPDATE SET last = series.last + 1 RETURNING last"
)


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """A final of a recipient as its row has it: when it first left, and when it had arrived."""

    recipient: Recipient
    seq: int
    created_at: datetime
    pushed_at: datetime | None
    delivered_at: datetime | None


class NoticeDAO(DAO):
    """The finals that were given to somebody, and which of them are owed."""

    table = notices

    async def add(
        self, connection: AsyncConnection, recipient: Recipient, run: RunId, at: datetime
    ) -> Notice:
        """Owe the end of a run to a recipient, as the next of its series."""
        seq = await connection.scalar(_NEXT, {"recipient": recipient})
        assert isinstance(seq, int)
        await connection.execute(
            notices.insert().values(recipient=recipient, seq=seq, execution_id=run, created_at=at)
        )
        return Notice(recipient, seq)

    async def last(self, connection: AsyncConnection, recipient: Recipient) -> int:
        """Return the highest number of a series, 0 before the first."""
        query = select(series.c.last).where(series.c.recipient == recipient)
        return await self._value(connection, query) or 0

    async def seq_of(self, connection: AsyncConnection, recipient: Recipient, run: RunId) -> int:
        """Return the number of a run's end in a series, 0 where it has none."""
        query = select(_n.seq).where(_n.execution_id == run, _n.recipient == recipient)
        return await self._value(connection, query) or 0

    async def owed(
        self,
        connection: AsyncConnection,
        recipient: Recipient,
        *,
        after: int = 0,
        since: int | None = None,
        limit: int,
    ) -> list[Final]:
        """Return the first `limit` finals above `after` that are not delivered, in order.

        Those above `since` whether they are delivered or not: to another receiver, then.
        """
        wanted: ColumnElement[bool] = _n.delivered_at.is_(None)
        if since is not None:
            wanted = wanted | (_n.seq > since)
        query = (
            select(
                *(_e.id, _e.user_exercise_id, _e.state, _n.seq),
                *(_e.status, _e.grade, _e.grade_max),
                *(_e.failure_cause, _e.message, _e.container),
            )
            .join_from(notices, executions, _e.id == _n.execution_id)
            .where(_n.recipient == recipient, _n.seq > after, wanted)
            .order_by(_n.seq)
            .limit(limit)
        )
        return [
            Final(
                run=RunId(run),
                attempt=None if attempt is None else AttemptId(attempt),
                state=state,
                ending=ended_by(*ending),
                seq=seq,
            )
            for run, attempt, state, seq, *ending in await connection.execute(query)
        ]

    async def of_run(self, connection: AsyncConnection, run: RunId) -> list[StoredNotice]:
        """Return what is kept of whom a run's end is owed, in the order of the recipients."""
        columns = (_n.recipient, _n.seq, _n.created_at, _n.pushed_at, _n.delivered_at)
        query = select(*columns).where(_n.execution_id == run).order_by(_n.recipient)
        return [StoredNotice(*row) for row in await connection.execute(query)]

    async def count_owed(self, connection: AsyncConnection) -> int:
        """Return how many finals are owed to anybody."""
        query = select(func.count()).select_from(notices).where(_n.delivered_at.is_(None))
        return await self._value(connection, query) or 0

    async def owed_by_recipient(self, connection: AsyncConnection) -> list[tuple[Recipient, int]]:
        """Return how many finals are owed to each who is no account, in the order of the words."""
        query = (
            select(_n.recipient, func.count())
            .where(_n.delivered_at.is_(None), _n.recipient.not_like(f"{ACCOUNT}%"))
            .group_by(_n.recipient)
            .order_by(_n.recipient)
        )
        return [(Recipient(to), count) for to, count in await connection.execute(query)]

    async def pushed(
        self,
        connection: AsyncConnection,
        pushes: Sequence[tuple[Recipient, int, datetime]],
    ) -> None:
        """Note when the finals up to a number have first left for each of these recipients."""
        await connection.execute(
            update(notices)
            .where(
                _n.recipient == bindparam("to"),
                _n.seq <= bindparam("up_to"),
                _n.pushed_at.is_(None),
            )
            .values(pushed_at=bindparam("at")),
            [{"to": recipient, "up_to": seq, "at": at} for recipient, seq, at in pushes],
        )

    async def delivered(
        self, connection: AsyncConnection, receipts: Sequence[tuple[Recipient, int]], at: datetime
    ) -> None:
        """Owe nothing any more to each recipient up to the number that it says it has."""
        await connection.execute(
            update(notices)
            .where(
                _n.recipient == bindparam("to"),
                _n.seq <= bindparam("up_to"),
                _n.delivered_at.is_(None),
            )
            .values(delivered_at=at),
            [{"to": recipient, "up_to": seq} for recipient, seq in receipts],
        )
