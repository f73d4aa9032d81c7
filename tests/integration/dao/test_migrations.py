"""Migrations: forth, back and forth again; ours never touch the platform's; all or nothing."""

import asyncio
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
from commserver.dao.plan import Written, named
from commserver.errors import AlreadyManaged, StoreError

VERSIONS = Path("migrations", "commserver", "versions")
OUR_REVISIONS = tuple(sorted(path.name[:4] for path in (migrations.ROOT / VERSIONS).glob("*.py")))
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


async def test_the_migrations_make_exactly_the_tables_of_the_code(empty: DatabaseManager) -> None:
    await migrations.upgrade(empty, with_platform=True)
    migrated = await schema(empty)
    for series in (COMMSERVER, PLATFORM):
        await migrations.downgrade(empty, series=series)

    await empty.write(sync(tables.platform.create_all))
    await empty.write(sync(tables.commserver.create_all))

    assert migrated == await schema(empty)


@pytest.mark.parametrize("series", [COMMSERVER, PLATFORM], ids=["commserver", "platform"])
async def test_alembic_finds_nothing_to_add(database: DatabaseManager, series: Series) -> None:
    # command.check raises when there is a difference.
    await database.write(sync(lambda c: command.check(migrations.config(series, c))))


# -- how far --------------------------------------------------------------------------------------


async def test_a_database_says_how_far_it_is(empty: DatabaseManager) -> None:
    assert await migrations.current(empty) is None
    assert await migrations.pending(empty) == OUR_REVISIONS

    await migrations.upgrade(empty)

    assert await migrations.current(empty) == OUR_REVISIONS[-1]
    assert await migrations.pending(empty) == ()
    assert await migrations.current(empty, PLATFORM) is None
    assert await migrations.pending(empty, PLATFORM) == ("0001",)


async def test_a_fresh_database_is_not_served_from(empty: DatabaseManager) -> None:
    with pytest.raises(StoreError, match=r"lacks \d migration.*commserver migrate"):
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


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_no_statement_of_ours_names_a_table_of_the_platforms(dialect: str) -> None:
    for change, span in ((command.upgrade, "head"), (command.downgrade, "head:base")):
        config, written = migrations.config(COMMSERVER), Written()
        config.attributes.update(dialect=dialect, written=written)

        change(config, span, sql=True)

        assert len(written.statements) > len(tables.commserver.tables)
        assert named(written.statements, tables.platform.tables) == ()


# -- all or nothing -------------------------------------------------------------------------------

MIGRATION = '''"""One more."""

from alembic import op

revision = "9000"
down_revision = "{last}"


def upgrade():
    for statement in {statements}:
        op.execute(statement)


def downgrade():
    pass
'''
FAILING = (
    "CREATE TABLE half (id INTEGER)",
    "INSERT INTO half VALUES (1)",
    "DROP TABLE leases",
    "not a statement",
)


@pytest.fixture
def add_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let our migrations be followed by one of these statements, in this test."""

    def add(*statements: str) -> None:
        root = tmp_path / "root"
        shutil.copytree(migrations.ROOT / "migrations", root / "migrations")
        shutil.copy(migrations.ROOT / "alembic.ini", root)
        written = MIGRATION.format(last=OUR_REVISIONS[-1], statements=statements)
        (root / VERSIONS / "9000_one_more.py").write_text(written)
        monkeypatch.setattr(migrations, "ROOT", root)

    return add


@pytest.fixture
def failing_migration(add_migration: Callable[..., None]) -> None:
    """Our migrations, followed by one that fails half-way."""
    add_migration(*FAILING)


@pytest.mark.usefixtures("failing_migration")
async def test_a_migration_that_fails_half_way_leaves_nothing(database: DatabaseManager) -> None:
    before = await schema(database)

    with pytest.raises(StoreError, match="syntax error"):
        await migrations.upgrade(database)

    assert await schema(database) == before
    assert await migrations.current(database) == OUR_REVISIONS[-1]
    assert await migrations.pending(database) == ("9000",)


@pytest.mark.usefixtures("failing_migration")
async def test_a_failure_undoes_the_platforms_migrations_too(empty: DatabaseManager) -> None:
    with pytest.raises(StoreError):
        await migrations.upgrade(empty, with_platform=True)

    assert await names(empty) == set()


# -- who else is there ----------------------------------------------------------------------------


async def test_a_database_that_a_server_works_on_is_not_migrated(
    empty: DatabaseManager, empty_url: str
) -> None:
    async with DatabaseManager(empty_url) as server, server.claim():
        with pytest.raises(AlreadyManaged, match=rf"managed by .*\b{os.getpid()} on "):
            await migrations.upgrade(empty)
        with pytest.raises(AlreadyManaged):
            await migrations.downgrade(empty)

    assert await names(empty) == set()
    await migrations.upgrade(empty)


# A SQLite transaction begins with every lock in hand: see test_sqlite.py.
@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_migration_does_not_wait_long_for_a_table_that_is_in_use(
    database: DatabaseManager,
    url: str,
    add_migration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_migration("CREATE TABLE more (id INTEGER)", "ALTER TABLE grades ADD COLUMN more INTEGER")
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", 0.2)
    before = await schema(database)

    async def use_and_migrate(connection: AsyncConnection) -> None:
        # A long transaction of the platform's has only read.
        await connection.execute(text("SELECT * FROM grades"))
        with pytest.raises(StoreError, match=r"in use .* for 0\.2 s; nothing was changed"):
            await migrations.upgrade(database)

    async with DatabaseManager(url) as platform:
        await platform.write(use_and_migrate)

    assert await schema(database) == before
    await migrations.upgrade(database)
    assert "more" in await names(database)


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


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_the_command_looks_beside_a_server_and_does_not_change(
    tmp_path: Path, url: str
) -> None:
    async with DatabaseManager(url) as server, server.claim():
        looked = await asyncio.to_thread(alembic, tmp_path, "current", url=url)
        changed = await asyncio.to_thread(alembic, tmp_path, "downgrade", "base", url=url)

    assert looked.stdout.strip() == f"{OUR_REVISIONS[-1]} (head)"
    assert changed.returncode != 0
    assert "already managed by" in changed.stderr


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize("section", ["alembic", "platform"])
async def test_the_command_takes_both_series_there_and_back(
    tmp_path: Path, empty_url: str, section: str
) -> None:
    for direction in (["upgrade", "head"], ["check"], ["downgrade", "base"]):
        done = await asyncio.to_thread(alembic, tmp_path, "-n", section, *direction, url=empty_url)

        assert done.returncode == 0, done.stderr


def test_the_command_finds_the_default_database(tmp_path: Path) -> None:
    done = alembic(tmp_path, "upgrade", "head")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "var" / "commserver.db").exists()


def test_the_command_says_that_it_cannot_print_sql(tmp_path: Path) -> None:
    done = alembic(tmp_path, "upgrade", "head", "--sql")

    assert done.returncode != 0
    assert "--sql is not supported" in done.stdout + done.stderr
