"""`leases`, `tokens` and `site`."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.changes import Write
from commserver.core.jobs import Lease, LeaseId, Offer, SortKey
from commserver.core.states import State
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.leases import StoredLease
from commserver.dao.tokens import StoredToken
from commserver.errors import AlreadyExists, StoreError
from tests.fakes import make_job

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HASH = "ab" * 32

# -- leases ---------------------------------------------------------------------------------------

OFFER = Offer(
    "node-1/0",
    "node-1",
    {"image": frozenset({"python", "c"}), "memory": frozenset({1024}), "none": frozenset()},
    remote=True,
)
LEASE = Lease(LeaseId("lease"), make_job("run"), OFFER, until=12.5)


async def lease(connection: AsyncConnection, daos: DaoManager, until: datetime | None) -> None:
    key = SortKey(LEASE.job.priority, 0.0, 1)
    write = Write(LEASE.job, None, 0, State.LEASED, 0, 0, key)
    await daos.executions.write(connection, write, at=NOW)
    await daos.leases.add(connection, LEASE, until=until, at=NOW)


@pytest.mark.parametrize("until", [NOW + timedelta(minutes=1), None])
async def test_a_lease_comes_back_with_its_runner(
    database: DatabaseManager, daos: DaoManager, until: datetime | None
) -> None:
    await database.write(lambda c: lease(c, daos, until))

    stored = StoredLease(LEASE.id, LEASE.job.id, OFFER, until, NOW)
    assert await database.read(daos.leases.all) == [stored]


async def test_a_lease_is_extended_and_removed_once(
    database: DatabaseManager, daos: DaoManager
) -> None:
    await database.write(lambda c: lease(c, daos, NOW))
    later = NOW + timedelta(hours=1)

    assert await database.write(lambda c: daos.leases.extend(c, LEASE.id, later))
    assert [found.until for found in await database.read(daos.leases.all)] == [later]
    assert await database.write(lambda c: daos.leases.remove(c, LEASE.id))
    assert not await database.write(lambda c: daos.leases.remove(c, LEASE.id))
    assert not await database.write(lambda c: daos.leases.extend(c, LEASE.id, later))
    assert await database.read(daos.leases.all) == []


async def test_a_lease_of_no_run_is_refused(database: DatabaseManager, daos: DaoManager) -> None:
    with pytest.raises(StoreError) as caught:
        await database.write(lambda c: daos.leases.add(c, LEASE, until=None, at=NOW))

    assert not isinstance(caught.value, AlreadyExists)


# -- tokens ---------------------------------------------------------------------------------------


async def token(database: DatabaseManager, daos: DaoManager, life: int = 3600) -> StoredToken:
    return await database.write(
        lambda c: daos.tokens.add(c, HASH, account_id=7, life=life, at=NOW, label="laptop")
    )


async def test_a_token_is_found_by_its_hash(database: DatabaseManager, daos: DaoManager) -> None:
    made = await token(database, daos)

    found = await database.read(lambda c: daos.tokens.find(c, HASH))

    assert found == made
    assert found.expires_at == NOW + timedelta(hours=1)
    assert await database.read(lambda c: daos.tokens.find(c, HASH.upper())) is None


async def test_a_token_is_valid_until_its_end(database: DatabaseManager, daos: DaoManager) -> None:
    made = await token(database, daos, life=60)

    assert made.valid(NOW + timedelta(seconds=59))
    assert not made.valid(NOW + timedelta(seconds=60))


async def test_the_life_of_a_token_slides_but_is_written_at_most_every_ten_minutes(
    database: DatabaseManager, daos: DaoManager
) -> None:
    await token(database, daos)
    touched = []
    for minutes in (9, 10, 19, 20, 79, 80):
        at = NOW + timedelta(minutes=minutes)
        touched.append(await database.write(partial(daos.tokens.touch, sha256=HASH, at=at)))

    assert touched == [False, True, False, True, True, False]
    found = await database.read(lambda c: daos.tokens.find(c, HASH))
    assert found is not None
    assert found.expires_at == NOW + timedelta(minutes=139)
    assert found.last_used_at == NOW + timedelta(minutes=79)


async def test_an_expired_a_revoked_and_an_unknown_token_are_not_revived(
    database: DatabaseManager, daos: DaoManager
) -> None:
    await token(database, daos)
    expired = NOW + timedelta(hours=1)
    assert not await database.write(lambda c: daos.tokens.touch(c, HASH, expired))
    soon = NOW + timedelta(minutes=30)

    assert await database.write(lambda c: daos.tokens.revoke(c, HASH, soon))
    assert not await database.write(lambda c: daos.tokens.revoke(c, HASH, expired))

    assert not await database.write(lambda c: daos.tokens.touch(c, HASH, soon))
    assert not await database.write(lambda c: daos.tokens.touch(c, "unknown", soon))
    found = await database.read(lambda c: daos.tokens.find(c, HASH))
    assert found is not None
    assert found.revoked_at == soon
    assert not found.valid(soon)


async def test_tokens_are_listed_by_account(database: DatabaseManager, daos: DaoManager) -> None:
    for number in range(3):
        add = partial(
            daos.tokens.add,
            sha256=f"hash {number}",
            account_id=number % 2,
            life=1,
            at=NOW - timedelta(seconds=number),
        )
        await database.write(add)

    everybodys = await database.read(daos.tokens.list)
    ones = await database.read(lambda c: daos.tokens.list(c, 0))

    assert [found.sha256 for found in everybodys] == ["hash 2", "hash 1", "hash 0"]
    assert [found.sha256 for found in ones] == ["hash 2", "hash 0"]


async def test_a_token_that_the_platform_wrote_without_our_extras_works(
    database: DatabaseManager, daos: DaoManager
) -> None:
    async def insert(connection: AsyncConnection) -> None:
        await connection.execute(
            text(
                "INSERT INTO tokens (sha256, account_id, life, created_at, expires_at)"
                " VALUES (:hash, 7, 3600, '2026-01-01 12:00:00', '2026-01-01 13:00:00')"
            ),
            {"hash": HASH},
        )

    await database.write(insert)

    found = await database.read(lambda c: daos.tokens.find(c, HASH))
    assert found is not None
    assert found.valid(NOW)
    at = NOW + timedelta(minutes=59)
    assert await database.write(lambda c: daos.tokens.touch(c, HASH, at))


# -- site -----------------------------------------------------------------------------------------


async def test_a_site_has_one_identity_for_ever(url: str, daos: DaoManager) -> None:
    async with DatabaseManager(url) as database:
        made = await database.write(lambda c: daos.site.id(c, at=NOW))

    async with DatabaseManager(url) as database:
        assert await database.write(lambda c: daos.site.id(c, at=NOW + timedelta(1))) == made


@pytest.mark.parametrize(("single", "error"), [(1, AlreadyExists), (2, StoreError)])
async def test_a_database_belongs_to_one_site(
    database: DatabaseManager, daos: DaoManager, single: int, error: type[StoreError]
) -> None:
    await database.write(lambda c: daos.site.id(c, at=NOW))

    async def another(connection: AsyncConnection) -> None:
        values = {"single": single, "id": "other", "created_at": NOW}
        await connection.execute(daos.site.table.insert().values(values))

    with pytest.raises(error):
        await database.write(another)
