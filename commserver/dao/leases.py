"""`leases`: the runs that other machines have in hand."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import Lease, LeaseId, Offer, RunId
from commserver.dao.dao import DAO
from commserver.dao.tables import leases


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A remote lease as its row has it; `until` is UTC, None for never."""

    id: LeaseId
    run: RunId
    offer: Offer
    until: datetime | None
    granted_at: datetime


class LeaseDAO(DAO):
    """The runs that other machines have in hand."""

    table = leases

    async def add(
        self, connection: AsyncConnection, lease: Lease, *, until: datetime | None, at: datetime
    ) -> None:
        """Store a lease; `until` is its end in UTC, since its own is this process's time."""
        await connection.execute(
            leases.insert().values(
                id=lease.id,
                execution_id=lease.job.id,
                runner=lease.offer.runner,
                engine=lease.offer.engine,
                features=lease.offer.features,
                until=until,
                granted_at=at,
            )
        )

    async def extend(
        self, connection: AsyncConnection, lease: LeaseId, until: datetime | None
    ) -> bool:
        """Move a lease's end; False when there is no such lease."""
        result = await connection.execute(
            leases.update().where(leases.c.id == lease).values(until=until)
        )
        return result.rowcount == 1

    async def remove(self, connection: AsyncConnection, lease: LeaseId) -> bool:
        """Forget a lease that is over; False when there is no such lease."""
        result = await connection.execute(leases.delete().where(leases.c.id == lease))
        return result.rowcount == 1

    async def all(self, connection: AsyncConnection) -> list[StoredLease]:
        """Return every lease, oldest first."""
        rows = await connection.execute(select(leases).order_by(leases.c.granted_at, leases.c.id))
        return [
            StoredLease(
                id=LeaseId(row.id),
                run=RunId(row.execution_id),
                offer=Offer(row.runner, row.engine, row.features, remote=True),
                until=row.until,
                granted_at=row.granted_at,
            )
            for row in rows
        ]
