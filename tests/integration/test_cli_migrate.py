"""The commands for a live platform's database, in their order: check, plan, grants, migrate."""

import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy.engine import make_url

from commserver import cli, logs
from commserver.cluster import Cluster
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager
from tests.integration.dao.test_inspection import PLATFORM, make


class Ran(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: list[str]
    err: list[str]


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in an empty folder and without settings but a database."""
    for name in os.environ:
        if name.startswith("COMMSERVER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COMMSERVER_BACKEND__TOKEN", "given")  # or `check-config` warns
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # loggers remember their stream

    def call(*arguments: str, url: str) -> Ran:
        monkeypatch.setenv("COMMSERVER_DATABASE__URL", url)
        monkeypatch.setattr(sys, "argv", ["commserver", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ran(code, out.splitlines(), err.splitlines())

    return call


def platform(url: str, engine_name: str, **other: str) -> None:
    """Make a platform's tables, the `other` ones with these columns, as their owner did."""

    async def work() -> None:
        async with DatabaseManager(url) as database:
            await make(database, engine_name, **other)

    asyncio.run(work())


def state(url: str, request: pytest.FixtureRequest) -> object:
    """Return the names of all that is in a database, and of a SQLite file every byte."""
    parsed = make_url(url)
    assert parsed.database
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database)
        return path.read_bytes() if path.exists() else None
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.sql("SELECT relname, relfilenode FROM pg_class ORDER BY oid", parsed.database)


# -- check-config ---------------------------------------------------------------------------------


def test_the_way_to_a_live_platform(run: Run, empty_url: str, engine_name: str) -> None:
    platform(empty_url, engine_name)

    checked = run("check-config", url=empty_url)
    assert checked.code == 1
    [line] = checked.err
    assert re.fullmatch(
        r"commserver: the database lacks \d migration\(s\) \(.*\): run `commserver migrate`", line
    )
    assert run("migrate", "--plan", url=empty_url).code == 0
    assert run("migrate", "--grants", "judge", url=empty_url).code == 0
    assert run("migrate", url=empty_url).code == 0
    checked = run("check-config", url=empty_url)

    assert (checked.code, checked.err) == (0, [])


def test_all_that_cannot_be_used_is_listed(run: Run, empty_url: str, engine_name: str) -> None:
    platform(empty_url, engine_name, codes="id int", grades="", languages="id int, name text")
    run("migrate", url=empty_url)

    checked = run("check-config", url=empty_url)
    served = run("serve", url=empty_url)

    assert (checked.code, served.code) == (1, 1)
    assert served.err == ["; ".join(checked.err).replace("; commserver: ", "; ")]
    assert checked.out[0] == "{"
    assert [line.partition(":")[2].partition(":")[0] for line in checked.err] == [
        " the database has no grades",
        *(f" codes has no column {name}" for name in PLATFORM_CODES),
    ]


PLATFORM_CODES = [
    column.split()[0] for column in PLATFORM["codes"].split(", ") if not column.startswith("id ")
]


def test_a_site_that_is_not_there_yet_is_no_mistake(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "site" / "commserver.db"

    checked = run("check-config", url=f"sqlite:///{path}")

    assert (checked.code, checked.err) == (
        0,
        [
            "the database is not there yet, and a server refuses to start without it: run "
            "`commserver migrate`, or `commserver migrate --with-platform` for a new site"
        ],
    )
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    checked = run("check-config", url=f"sqlite:///{tmp_path}/file/site/commserver.db")

    assert (checked.code, checked.err) == (
        1,
        [
            f"commserver: the folder {tmp_path}/file/site of the database cannot be made: make it, "
            "for the server to write"
        ],
    )


def test_an_empty_file_is_a_site_that_is_not_there_yet(run: Run, tmp_path: Path) -> None:
    (tmp_path / "commserver.db").touch()

    assert run("check-config", url=f"sqlite:///{tmp_path}/commserver.db").code == 0


def test_a_file_that_is_no_database_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "commserver.db"
    path.write_text("something else altogether" * 100)

    checked = run("check-config", url=f"sqlite:///{path}")

    assert (checked.code, checked.err) == (
        1,
        [f"commserver: cannot read the database {path}: file is not a database"],
    )


def test_a_database_that_is_away_is_told(run: Run, cluster: Cluster) -> None:
    url = cluster.url("nowhere").replace(str(cluster.port), "1")

    checked = run("check-config", url=url)

    assert checked.code == 1
    assert len(checked.err) == 1
    assert checked.out[0] == "{"


# -- migrate --plan -------------------------------------------------------------------------------


@pytest.mark.parametrize("with_platform", [False, True])
def test_a_plan_changes_nothing_and_says_all_that_is_then_done(
    run: Run,
    empty_url: str,
    engine_name: str,
    request: pytest.FixtureRequest,
    *,
    with_platform: bool,
) -> None:
    options = ["--with-platform"] if with_platform else []
    if not with_platform:
        platform(empty_url, engine_name)
    before = state(empty_url, request)

    planned = run("migrate", "--plan", *options, url=empty_url)

    assert (planned.code, planned.err) == (0, [])
    assert state(empty_url, request) == before
    steps = [line for line in planned.out if re.match(r"\w+ \d{4}: .*\.$", line)]
    assert ("platform 0001" in steps[0]) is with_platform
    assert "commserver 0001: Runs, leases, tokens and the site's identity." in steps
    said = [line.strip() for line in planned.out]
    for table in ("commserver_version", "executions", "notices"):
        assert said.count(f"CREATE TABLE {table} (") == 1
    assert ("CREATE TABLE grades (" in said) is with_platform
    last = "No statement names a table of the platform's."
    assert (planned.out[-1] == last) is not with_platform
    locked = {line for line in said if line.startswith("locks ")}
    assert locked == {
        "locks the whole file for others that write, until the end; those that read go on"
        if engine_name == "sqlite"
        else "locks nothing that exists: it makes new tables"
    }


def test_with_everything_applied_there_is_nothing_to_plan(run: Run, url: str) -> None:
    planned = run("migrate", "--plan", "--with-platform", url=url)

    assert planned.out == ["Nothing to do: every migration is applied."]


def test_a_plan_goes_on_from_where_the_database_is(
    run: Run, empty_url: str, engine_name: str
) -> None:
    async def work() -> None:
        async with DatabaseManager(empty_url) as database:
            await migrations.upgrade(database)
            await migrations.downgrade(database, "0001")

    asyncio.run(work())

    planned = run("migrate", "--plan", url=empty_url)

    assert planned.out[0].startswith("commserver 0002: ")
    assert "    CREATE TABLE notices (" in planned.out
    assert not any("CREATE TABLE executions" in line for line in planned.out)
    if engine_name == "postgresql":
        assert (
            "  locks executions: others can read and not write until the end (SHARE ROW EXCLUSIVE)"
            in planned.out
        )


def test_a_plan_refuses_what_the_migration_would(
    run: Run, empty_url: str, engine_name: str
) -> None:
    platform(empty_url, engine_name)

    planned = run("migrate", "--plan", "--with-platform", url=empty_url)

    assert planned.code == 1
    assert "not ours to keep: accounts, " in planned.err[0]


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
def test_a_plan_needs_no_right_to_write(run: Run, url: str, cluster: Cluster) -> None:
    parsed = make_url(url)
    assert parsed.database
    cluster.sql(
        "CREATE ROLE reader LOGIN; ALTER ROLE reader SET default_transaction_read_only = on"
    )
    cluster.sql("GRANT SELECT ON commserver_version, platform_version TO reader", parsed.database)

    planned = run(
        "migrate", "--plan", "--with-platform", url=cluster.url(parsed.database, "reader")
    )
    cluster.sql("DROP OWNED BY reader; DROP ROLE reader", parsed.database)

    assert (planned.code, planned.err) == (0, [])


def test_a_plan_reads_a_file_that_may_not_be_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE accounts (id INTEGER)")
    before = path.read_bytes()

    assert run("migrate", "--plan", url=f"sqlite:///{path}").code == 0

    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["platform.db"]


def test_a_plan_leaves_what_a_server_that_was_killed_has_not_put_into_the_file(
    run: Run, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "platform.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE accounts (id INTEGER)")
        for name in ("platform.db", "platform.db-wal"):
            (tmp_path / f"killed-{name}").write_bytes((tmp_path / name).read_bytes())
    files = [tmp_path / "killed-platform.db", tmp_path / "killed-platform.db-wal"]
    before = [file.read_bytes() for file in files]

    planned = run("migrate", "--plan", "--with-platform", url=f"sqlite:///{files[0]}")

    assert planned.err == [
        "commserver: the platform's tables are there and not ours to keep: accounts"
    ]
    assert [file.read_bytes() for file in files] == before


# -- migrate --grants -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
def test_rights_are_printed_as_sql_that_an_owner_can_run(
    run: Run, url: str, cluster: Cluster
) -> None:
    database = make_url(url).database
    assert database

    printed = run("migrate", "--grants", 'a "b"', url=url)

    assert (printed.code, printed.err) == (0, [])
    assert all(re.fullmatch(r'GRANT .+ TO "a ""b""";', line) for line in printed.out)
    assert (
        'GRANT INSERT (user_exercise_id, value, timestamp) ON TABLE public.grades TO "a ""b""";'
        in printed.out
    )
    cluster.sql('CREATE ROLE "a ""b"""')
    cluster.sql("\n".join(printed.out), database)
    cluster.sql('DROP OWNED BY "a ""b"""; DROP ROLE "a ""b"""', database)


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
def test_rights_on_what_the_role_owns_are_not_printed(run: Run, url: str) -> None:
    owner = make_url(url).username
    assert owner

    printed = run("migrate", "--grants", owner, url=url).out

    assert [line for line in printed if "ON SCHEMA" not in line] == []


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
def test_sqlite_has_no_rights_to_print(run: Run, url: str) -> None:
    printed = run("migrate", "--grants", "judge", url=url)

    assert printed.code == 0
    [line] = printed.out
    assert line.startswith("-- SQLite has no roles: ")


def test_one_thing_at_a_time(run: Run, url: str) -> None:
    assert run("migrate", "--grants", "judge", "--plan", url=url).code == 2


def test_a_role_without_a_name_is_misuse_and_nothing_is_migrated(
    run: Run, empty_url: str, request: pytest.FixtureRequest
) -> None:
    before = state(empty_url, request)

    ran = run("migrate", "--grants", "", url=empty_url)

    assert (ran.code, ran.out, ran.err) == (2, [], ["commserver: --grants: which role?"])
    assert state(empty_url, request) == before


@pytest.mark.parametrize(
    "command", [["check-config"], ["migrate", "--plan"], ["migrate", "--grants", "judge"]]
)
@pytest.mark.parametrize("url", ["no URL, with a secret", "mysql://localhost/x", "sqlite://"])
def test_what_is_no_database_of_ours_is_told_in_one_line(
    run: Run, command: list[str], url: str
) -> None:
    ran = run(*command, url=url)

    assert ran.code == 2
    [line] = ran.err
    assert line.startswith("commserver: database.url: ")
    assert "secret" not in line


# -- migrate --------------------------------------------------------------------------------------


def test_a_database_that_a_server_works_on_is_not_migrated(run: Run, url: str) -> None:
    async def beside() -> Ran:
        async with DatabaseManager(url) as server, server.claim():
            return await asyncio.to_thread(run, "migrate", url=url)

    ran = asyncio.run(beside())

    assert ran.code == 3
    assert re.match(rf"commserver: .*managed by .*\b{os.getpid()} on ", ran.err[0])
    assert run("migrate", url=url).code == 0
