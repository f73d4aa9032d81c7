"""The rights that are printed: everything works with exactly those, and not without any one."""

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.cluster import Cluster, ClusterFailed
from commserver.core.changes import Write
from commserver.core.finals import account
from commserver.core.jobs import AttemptId, Lease, LeaseId, OwnerId, RunId, SortKey
from commserver.core.states import State
from commserver.dao import grants, migrations, tables
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.grants import Right
from commserver.errors import StoreError
from tests.fakes import completed, make_job, make_offer
from tests.integration.dao.conftest import NOW

ROLE = 'judge "of" Arc'
AT_MS = 1_767_268_800_000
ATTEMPT = AttemptId(1)

pytestmark = pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)

ROWS = """
INSERT INTO accounts VALUES (1, 'ada');
INSERT INTO languages VALUES (1, 'Python');
INSERT INTO courses VALUES (1, 1, 1, 'first');
INSERT INTO exercises VALUES (1, 1, 1, 'a', '', 20);
INSERT INTO user_exercises VALUES (1, 1, 1);
INSERT INTO codes VALUES (1, 1, 'main.py', 'pass', 1, 1);
INSERT INTO scripts VALUES (1, 1, 'format = 1');
"""


class Site(NamedTuple):
    """A migrated database, by its owner and by a role that has been given nothing yet."""

    cluster: Cluster
    name: str

    def admin(self, statement: str) -> str:
        """Do something as a superuser."""
        return self.cluster.sql(statement, self.name)

    async def rights(self) -> list[Right]:
        """Return what commserver says it needs."""
        found = await migrations.glance(self.cluster.url(self.name), grants.needed)
        assert found
        return found

    @property
    def url(self) -> str:
        """The database, by the role."""
        return self.cluster.url(self.name, quote(ROLE))


@pytest.fixture
def site(url: str, cluster: Cluster) -> Iterator[Site]:
    name = make_url(url).database
    assert name
    quoted = ROLE.replace('"', '""')
    site = Site(cluster, name)
    cluster.sql(f'CREATE ROLE "{quoted}" LOGIN')
    site.admin(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; {ROWS}")
    yield site
    site.admin(f'DROP OWNED BY "{quoted}"; DROP ROLE "{quoted}"')


@pytest.fixture
async def judge(site: Site) -> AsyncIterator[DatabaseManager]:
    """The database, opened by the role with exactly the rights that are printed."""
    for statement in grants.statements(await site.rights(), ROLE):
        site.admin(statement)
    async with DatabaseManager(site.url) as database:
        yield database


class _Undo(Exception):
    """All of it worked: undo the transaction, so that it works again."""


async def everything(database: DatabaseManager, daos: DaoManager) -> None:
    """Do all that a server and the other commands do with the tables.

    Raises:
        StoreError: a right was missing.
    """
    await migrations.pending(database)
    await migrations.current(database, migrations.PLATFORM)

    async def work(connection: AsyncConnection) -> None:
        await _look(connection, daos)
        await _judge(connection, daos)
        await _let_in(connection, daos)
        await _forget(connection, daos)
        raise _Undo

    with pytest.raises(_Undo):
        await database.write(work)


async def _look(connection: AsyncConnection, daos: DaoManager) -> None:
    assert await daos.accounts.id_of(connection, "ada") == 1
    assert await daos.attempts.find(connection, ATTEMPT)
    assert await daos.attempts.titles(connection, [ATTEMPT])
    assert await daos.codes.of_attempt(connection, ATTEMPT)
    assert await daos.scripts.newest(connection, 1)
    for swept in (daos.baseline.unasked, daos.baseline.fingerprints):
        assert (await swept(connection, after=AttemptId(0), limit=10)).attempts
    await daos.site.id(connection, at=NOW)
    await daos.baseline.ensure(connection, at=NOW)


async def _judge(connection: AsyncConnection, daos: DaoManager) -> None:
    job = make_job("run", attempt=ATTEMPT, owner="1")
    key = SortKey(job.priority, 0.0, 1)
    queued = Write(job, None, 0, State.QUEUED, 0, 0, key)
    done = Write(job, State.QUEUED, 0, State.DONE, 1, 0, key)
    recipient = account(OwnerId("1"))
    assert await daos.executions.write(connection, queued, at=NOW)
    assert await daos.executions.unfinished(connection)
    lease = Lease(LeaseId("lease"), job, make_offer())
    await daos.leases.add(connection, lease, until=NOW, at=NOW)
    assert await daos.leases.extend(connection, lease.id, NOW)
    assert await daos.leases.all(connection)
    assert await daos.leases.remove(connection, lease.id)
    assert await daos.executions.write(connection, done, at=NOW, outcome=completed())
    await daos.grades.add(connection, ATTEMPT, 20, AT_MS)
    await daos.attempt_logs.add(connection, ATTEMPT, "well done", AT_MS)
    for seq in (1, 2):
        assert (await daos.notices.add(connection, recipient, job.id, NOW)).seq == seq
    assert await daos.notices.owed(connection, recipient, limit=10)
    await daos.notices.delivered(connection, [(recipient, 2)], NOW)
    assert not await daos.notices.owed(connection, recipient, limit=10)


async def _let_in(connection: AsyncConnection, daos: DaoManager) -> None:
    used = NOW + timedelta(hours=1)
    await daos.tokens.add(connection, "a" * 64, account_id=1, life=86400, at=NOW)
    assert await daos.tokens.touch(connection, "a" * 64, used)
    assert await daos.tokens.list(connection)
    assert await daos.tokens.revoke(connection, "a" * 64, used)
    await daos.requests.reserve(connection, "key", "a" * 64, at=NOW)
    await daos.requests.answered(connection, "key", RunId("run"))
    assert await daos.requests.find(connection, "key")
    await daos.audit.add(connection, "cli:root", "token.revoke", at=used)
    assert await daos.audit.latest(connection, 1)
    said = await daos.announcements.add(connection, "soon", until=used, at=NOW)
    assert await daos.announcements.newest(connection)
    assert await daos.announcements.withdraw(connection, said, used)


async def _forget(connection: AsyncConnection, daos: DaoManager) -> None:
    later = NOW + timedelta(days=100)
    await daos.housekeeping.erase(connection, 1, account(OwnerId("1")), later)
    await daos.housekeeping.forget_runs(connection, [RunId("run")], ended=later)
    await daos.housekeeping.forget_requests(connection, ["key"])


async def test_with_what_is_printed_everything_works(
    judge: DatabaseManager, daos: DaoManager
) -> None:
    await migrations.check(judge)
    async with judge.claim():
        await everything(judge, daos)


async def test_without_any_of_it_something_does_not(
    site: Site, judge: DatabaseManager, daos: DaoManager
) -> None:
    quoted = '"' + ROLE.replace('"', '""') + '"'
    single = [part for right in await site.rights() for part in parts(right)]
    assert len(single) > 50

    for right in single:
        site.admin(f"REVOKE {right.what} FROM {quoted}")

        with pytest.raises(StoreError):
            await everything(judge, daos)
        with pytest.raises(StoreError, match=said_of(right)):
            await migrations.check(judge)
        site.admin(f"GRANT {right.what} TO {quoted}")

    await everything(judge, daos)


def parts(right: Right) -> list[Right]:
    """Return a right column by column."""
    if not right.columns:
        return [right]
    return [replace(right, columns=(column,)) for column in right.columns]


def said_of(right: Right) -> str:
    """Return what the check says when a right is missing."""
    if right.kind == "SCHEMA":  # then nothing in it is there
        return "the role needs USAGE on it"
    return rf"lacks {re.escape(right.what)}: see `commserver migrate --grants"


async def test_what_is_not_needed_is_refused(site: Site, judge: DatabaseManager) -> None:
    for statement in (
        "UPDATE grades SET value = 20",
        "DELETE FROM logs",
        "SELECT title FROM courses",
        "INSERT INTO accounts (username) VALUES ('mallory')",
        "CREATE TABLE mine (id int)",
        "DROP TABLE executions",
    ):
        with pytest.raises(StoreError, match=r"permission denied|must be owner"):
            await judge.write(lambda c, said=statement: c.execute(sa.text(said)))  # type: ignore[misc]


async def test_before_the_migration_the_right_to_make_our_tables_is_printed(
    site: Site, daos: DaoManager
) -> None:
    site.admin(f"DROP TABLE {', '.join([*tables.commserver.tables, 'commserver_version'])} CASCADE")
    rights = await site.rights()
    assert Right("CREATE", "SCHEMA", "public") in rights
    for statement in grants.statements(rights, ROLE):
        site.admin(statement)

    async with DatabaseManager(site.url) as database:
        await migrations.upgrade(database)
        await migrations.check(database)
        await everything(database, daos)


async def test_beside_a_live_platform_its_owner_may_grant_all_that_is_printed(site: Site) -> None:
    """What the role has made is its own: the owner of the platform's tables may not grant it."""
    made = [*tables.commserver.tables, "commserver_version", grants.PLATFORM_VERSION]
    site.admin(f"DROP TABLE {', '.join(made)} CASCADE")
    quoted = '"' + ROLE.replace('"', '""') + '"'
    site.admin("CREATE ROLE school; ALTER SCHEMA public OWNER TO school")
    for table in grants.PLATFORM:
        site.admin(f"ALTER TABLE {table} OWNER TO school")
    first = await _printed(site)
    site.admin("\n".join(["SET ROLE school;", *first]))
    async with DatabaseManager(site.url) as database:
        await migrations.upgrade(database)

    again = await _printed(site)

    try:
        site.admin("\n".join(["SET ROLE school;", *again]))
        assert [line for line in again if any(f".{table} " in line for table in made)] == []
        assert any("ON TABLE public.grades" in line for line in again)
        site.admin(f'CREATE SCHEMA "The Judge" AUTHORIZATION {quoted}')
        mine = Right("USAGE", "SCHEMA", '"The Judge"')
        assert await _owned_by_others(site, [mine]) == []
    finally:
        site.admin("REASSIGN OWNED BY school TO postgres; DROP OWNED BY school; DROP ROLE school")


async def _printed(site: Site) -> list[str]:
    """Return what `migrate --grants` prints."""
    return list(grants.statements(await _owned_by_others(site, await site.rights()), ROLE))


async def _owned_by_others(site: Site, rights: Sequence[Right]) -> list[Right]:
    def look(connection: sa.Connection) -> list[Right]:
        return list(grants.not_owned(connection, rights, ROLE))

    return await migrations.glance(site.cluster.url(site.name), look) or []


async def test_numbers_of_a_sequence_need_a_right_and_those_of_an_identity_none(
    site: Site,
) -> None:
    site.admin(
        "ALTER TABLE logs ALTER id DROP DEFAULT;"
        "ALTER TABLE logs ALTER id ADD GENERATED BY DEFAULT AS IDENTITY;"
        'CREATE SCHEMA "The School"; CREATE SEQUENCE "The School"."№";'
        """ALTER TABLE grades ALTER id SET DEFAULT nextval('"The School"."№"');"""
        "ALTER TABLE grades RENAME TO marks;"
        "CREATE VIEW grades AS SELECT * FROM marks"
    )

    named = [right.name for right in await site.rights() if right.kind == "SEQUENCE"]

    assert [name for name in named if "commserver_" not in name] == ['"The School"."№"']


async def test_an_owner_who_grants_nothing_to_a_role_that_is_not_there_is_told(site: Site) -> None:
    [statement, *_] = grants.statements(await site.rights(), 'x"; DROP TABLE grades; --')

    with pytest.raises(ClusterFailed, match="does not exist"):
        site.admin(statement)
    assert site.admin("SELECT count(*) FROM grades") == "0"
