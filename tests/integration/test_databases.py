"""A test's database is as if it were new, whatever tests before it have done with theirs."""

from collections.abc import Iterator

import asyncpg
import pytest

from commserver.cluster import Cluster
from tests import databases
from tests.conftest import TEMPLATE
from tests.databases import Maker

ADD = "INSERT INTO accounts (username) VALUES ('ada') RETURNING id"


@pytest.fixture
def own(cluster: Cluster, postgresql_template: str) -> Iterator[Maker]:
    """A maker whose databases no other test has."""
    maker = Maker(cluster)
    yield maker
    maker.close()


def next_but_one(maker: Maker) -> str:
    """Return the database that comes after the one that was made ahead."""
    maker.create(TEMPLATE)
    return maker.create(TEMPLATE)


def test_one_that_only_got_rows_is_emptied_and_comes_again(own: Maker, cluster: Cluster) -> None:
    used = own.create(TEMPLATE)
    first = cluster.sql(ADD, used)
    cluster.sql("INSERT INTO languages (name) VALUES ('Python'); DELETE FROM languages", used)
    own.take_back(used, TEMPLATE)

    assert next_but_one(own) == used

    assert cluster.sql("SELECT * FROM accounts", used) == ""
    assert cluster.sql("SELECT count(last_value) FROM pg_sequences", used) == "0"
    assert cluster.sql(ADD, used) == first == "1", "numbers begin anew"
    assert cluster.sql("SELECT count(*) FROM commserver_version", used) == "1"


CHANGES = (
    "CREATE TABLE more ()",
    "DROP INDEX ix_courses_account_id",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE grades ADD CONSTRAINT never CHECK (id < 0) NOT VALID",
    "GRANT SELECT ON grades TO pg_monitor",
    "COMMENT ON TABLE grades IS 'a word'",
    "TRUNCATE logs",
    "UPDATE commserver_version SET version_num = version_num",
    "DELETE FROM platform_version",
    'ALTER DATABASE "{name}" SET work_mem = 1024',
    'ALTER DATABASE "{name}" CONNECTION LIMIT 3',
    'GRANT CREATE ON DATABASE "{name}" TO pg_monitor',
    "INSERT INTO languages SELECT n, repeat('a', 68) || n FROM generate_series(1, 40000) AS n",
)


def test_one_in_which_anything_else_was_changed_does_not(own: Maker, cluster: Cluster) -> None:
    used = {own.create(TEMPLATE): change for change in CHANGES}
    for name, change in used.items():
        cluster.sql(change.format(name=name), name)
        own.take_back(name, TEMPLATE)
    own.settle()

    left = cluster.sql("SELECT datname FROM pg_database").splitlines()

    assert [used[name] for name in left if name in used] == []


async def test_nor_does_one_that_somebody_still_uses_or_that_has_another_name(
    own: Maker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LEAVING", 0.01)
    used, renamed = own.create(TEMPLATE), own.create(TEMPLATE)
    cluster.sql(f'ALTER DATABASE "{renamed}" RENAME TO "{renamed}_again"')
    connection = await asyncpg.connect(cluster.url(used))

    own.take_back(used, TEMPLATE)
    own.take_back(renamed, TEMPLATE)
    following = {own.create(TEMPLATE) for _ in range(3)}

    assert not following & {used, renamed}
    with pytest.raises(databases.LOST):
        await connection.fetch("SELECT 1")
