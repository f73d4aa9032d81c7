"""Migrations: forth, back and forth again; ours never touch the platform's; all or nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao import migrations, tables
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.migrations import COMMSERVER, PLATFORM, Series
from commserver.errors import StoreError

OURS = {*tables.commserver.tables, "commserver_version"}
PLATFORMS = {*tables.platform.tables, "platform_version"}


def sync(work: Callable[[Connection], object]) -> Callable[[AsyncConnection], Awaitable[None]]:
    async def transaction(connection: AsyncConnection) -> None:
        await connection.run_sync(work)

    return transaction


async def execute(database: DatabaseManager, statement: str) -> None:
    await database.write(lambda c: c.execute(text(statement)))


async def names(database: DatabaseManager) -> set[str]:
    """Return the names of all tables and views."""
    found: set[str] = set()

    def look(connection: Connection) -> None:
        inspector = sa.inspect(connection)
        found.update(inspector.get_table_names(), inspector.get_view_names())

    await database.read(sync(look))
    return found


async def schema(database: DatabaseManager) -> dict[str, object]:
    """Return all that makes up the tables: columns, keys, checks and indexes."""
    found: dict[str, object] = {}

    def look(connection: Connection) -> None:
        inspector = sa.inspect(connection)
        for table in inspector.get_table_names():
            found[table] = (
                [
                    {**column, "type": str(column["type"])}
                    for column in inspector.get_columns(table)
                ],
                inspector.get_pk_constraint(table),
                sorted(inspector.get_foreign_keys(table), key=str),
                sorted(inspector.get_unique_constraints(table), key=str),
                sorted(
                    (check["name"] or "", re.sub(r"\s+", " ", check["sqltext"]))
                    for check in inspector.get_check_constraints(table)
                ),
                sorted(
                    (index["name"] or "", index["unique"], index["column_names"], _where(index))
                    for index in inspector.get_indexes(table)
                ),
            )

    await database.read(sync(look))
    return found


def _where(index: sa.engine.interfaces.ReflectedIndex) -> str:
    options = index.get("dialect_options", {})
    return " ".join(str(value) for key, value in options.items() if key.endswith("_where"))


# -- forth and back -------------------------------------------------------------------------------


async def test_ours_alone_is_the_default(empty: DatabaseManager) -> None:
    await migrations.upgrade(empty)

    assert await names(empty) == OURS


async def test_up_down_up_gives_the_same_tables(empty: DatabaseManager) -> None:
    await migrations.upgrade(empty, with_platform=True)
    first = await schema(empty)
    assert set(first) == OURS | PLATFORMS

    for series in (COMMSERVER, PLATFORM):
        await migrations.downgrade(empty, series=series)
    assert await names(empty) == {"commserver_version", "platform_version"}

    await migrations.upgrade(empty, with_platform=True)
    assert await schema(empty) == first


async def test_upgrading_twice_changes_nothing(empty: DatabaseManager) -> None:
    await migrations.upgrade(empty, with_platform=True)
    first = await schema(empty)

    await migrations.upgrade(empty, with_platform=True)

    assert await schema(empty) == first


async def test_the_migrations_make_exactly_the_tables_of_the_code(
    empty: DatabaseManager, tmp_path: Path
) -> None:
    await migrations.upgrade(empty, with_platform=True)
    migrated = await schema(empty)
    for version in ("commserver_version", "platform_version"):
        del migrated[version]

    async with DatabaseManager(f"sqlite:///{tmp_path / 'created.db'}") as created:
        await created.write(sync(tables.platform.create_all))
        await created.write(sync(tables.commserver.create_all))

        assert migrated == await schema(created)


@pytest.mark.parametrize("series", [COMMSERVER, PLATFORM], ids=["commserver", "platform"])
async def test_alembic_finds_nothing_to_add(database: DatabaseManager, series: Series) -> None:
    # command.check raises when there is a difference.
    await database.write(sync(lambda c: command.check(migrations.config(series, c))))


# -- how far --------------------------------------------------------------------------------------


async def test_a_database_says_how_far_it_is(empty: DatabaseManager) -> None:
    assert await migrations.current(empty) is None
    assert await migrations.pending(empty) == ("0001",)

    await migrations.upgrade(empty)

    assert await migrations.current(empty) == "0001"
    assert await migrations.pending(empty) == ()
    assert await migrations.current(empty, PLATFORM) is None
    assert await migrations.pending(empty, PLATFORM) == ("0001",)


async def test_a_fresh_database_is_not_served_from(empty: DatabaseManager) -> None:
    with pytest.raises(StoreError, match=r"lacks 1 migration.*commserver migrate"):
        await migrations.check(empty)


async def test_a_database_without_a_platform_is_not_served_from(empty: DatabaseManager) -> None:
    await migrations.upgrade(empty)

    with pytest.raises(StoreError, match=r"no accounts, codes, .*--with-platform"):
        await migrations.check(empty)


async def test_a_whole_database_is_served_from(database: DatabaseManager) -> None:
    await migrations.check(database)


async def test_a_database_of_a_newer_version_is_refused(database: DatabaseManager) -> None:
    await execute(database, "UPDATE commserver_version SET version_num = '0999'")

    for attempt in (migrations.check(database), migrations.upgrade(database)):
        with pytest.raises(StoreError, match="0999"):
            await attempt


# -- the platform's tables are not ours -----------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE grades (id INTEGER)",
        "CREATE VIEW grades AS SELECT 1 AS id",
    ],
    ids=["table", "view"],
)
async def test_a_platform_that_is_there_is_left_alone(
    empty: DatabaseManager, statement: str
) -> None:
    await execute(empty, statement)

    with pytest.raises(StoreError, match="not ours to keep: grades"):
        await migrations.upgrade(empty, with_platform=True)

    assert await names(empty) == {"grades"}


async def test_our_migrations_neither_make_nor_drop_what_is_the_platforms(
    empty: DatabaseManager,
) -> None:
    await execute(empty, "CREATE TABLE grades (id INTEGER)")
    await execute(empty, "CREATE VIEW codes AS SELECT 1 AS id")

    await migrations.upgrade(empty)
    assert await names(empty) == {*OURS, "grades", "codes"}

    await migrations.downgrade(empty)
    assert await names(empty) == {"commserver_version", "grades", "codes"}


async def test_a_platform_at_an_unknown_revision_is_left_alone(database: DatabaseManager) -> None:
    await execute(database, "UPDATE platform_version SET version_num = '0999'")

    with pytest.raises(StoreError, match="not ours to keep"):
        await migrations.upgrade(database, with_platform=True)


# -- all or nothing -------------------------------------------------------------------------------

FAILING = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("CREATE TABLE half (id INTEGER)")
    op.execute("INSERT INTO half VALUES (1)")
    op.execute("DROP TABLE leases")
    op.execute("not a statement")


def downgrade():
    pass
"""


@pytest.fixture
def failing_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our migrations, followed by one that fails half-way."""
    root = tmp_path / "root"
    shutil.copytree(migrations.ROOT / "migrations", root / "migrations")
    shutil.copy(migrations.ROOT / "alembic.ini", root)
    (root / "migrations" / "commserver" / "versions" / "0002_failing.py").write_text(FAILING)
    monkeypatch.setattr(migrations, "ROOT", root)


@pytest.mark.usefixtures("failing_migration")
async def test_a_migration_that_fails_half_way_leaves_nothing(database: DatabaseManager) -> None:
    before = await schema(database)

    with pytest.raises(StoreError, match="syntax error"):
        await migrations.upgrade(database)

    assert await schema(database) == before
    assert await migrations.current(database) == "0001"
    assert await migrations.pending(database) == ("0002",)


@pytest.mark.usefixtures("failing_migration")
async def test_a_failure_undoes_the_platforms_migrations_too(empty: DatabaseManager) -> None:
    with pytest.raises(StoreError):
        await migrations.upgrade(empty, with_platform=True)

    assert await names(empty) == set()


# -- the alembic command --------------------------------------------------------------------------


def alembic(cwd: Path, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COMMSERVER_DATABASE__URL": url}
    ini = str(migrations.ROOT / "alembic.ini")
    return subprocess.run(
        [sys.executable, "-m", "alembic", "-c", ini, *arguments],
        cwd=cwd,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )


async def test_the_plain_command_migrates_ours(tmp_path: Path, empty_url: str) -> None:
    done = alembic(tmp_path, "upgrade", "head", url=empty_url)

    assert done.returncode == 0, done.stderr
    assert "Running upgrade  -> 0001" in done.stderr
    async with DatabaseManager(empty_url) as database:
        assert await names(database) == OURS


async def test_the_command_takes_another_section_and_a_url(tmp_path: Path, empty_url: str) -> None:
    wrong = "sqlite:////nowhere/at.all"

    done = alembic(
        tmp_path, "-n", "platform", "-x", f"url={empty_url}", "upgrade", "head", url=wrong
    )

    assert done.returncode == 0, done.stderr
    async with DatabaseManager(empty_url) as database:
        assert await names(database) == PLATFORMS


def test_the_command_finds_the_default_database(tmp_path: Path) -> None:
    done = alembic(tmp_path, "upgrade", "head")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "commserver.db").exists()


def test_the_command_says_that_it_cannot_print_sql(tmp_path: Path) -> None:
    done = alembic(tmp_path, "upgrade", "head", "--sql")

    assert done.returncode != 0
    assert "--sql is not supported" in done.stdout + done.stderr
