"""`backup`, `restore` and `erase`: what they print, where they go, how they end."""

import asyncio
import json
import os
import re
import shlex
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import typer

from commserver import cli, logs
from commserver.dao.database_manager import DatabaseManager
from commserver.services.admin_service import AdminService
from tests.conftest import ROOT
from tests.databases import made
from tests.fakes import FakeClock, completed
from tests.integration.served import serving
from tests.integration.services.site import Site
from tests.integration.test_cli import Ran
from tests.nursery import Nursery

Run = Callable[..., Ran]
PAGE = ROOT / "docs" / "operations.md"


@pytest.fixture
def run(outside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which saves the time of loading everything again."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # loggers remember their stream

    def call(*arguments: object, url: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["commserver", *map(str, arguments)])
        monkeypatch.setenv("COMMSERVER_DATABASE__URL", url)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def site(outside: None, url: str, tmp_path: Path) -> str:
    """A site in `./var`, in each kind of database: a run waits, another was judged."""

    async def work() -> None:
        async with Site(tmp_path / "var", FakeClock(), url=url).open() as site:
            for source in ("first", "second"):
                attempt = await site.attempt(await site.exercise(), {"main.py": source})
                await site.submit(attempt)
            await site.runs.finished(await site.lease(), completed())
            await site.admin.new_token(await site.admin.account("ada"))

    asyncio.run(work())
    return url


@pytest.fixture
def new_host(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the other kind, with nothing in it."""
    if engine_name == "postgresql":
        yield f"sqlite:///{tmp_path / 'new' / 'commserver.db'}"
    else:
        yield from made(request.getfixturevalue("maker"), None)


def tokens_of(url: str) -> int:
    """Return how many tokens a site has."""

    async def work() -> int:
        async with DatabaseManager(url) as database:
            site = Site(Path(), FakeClock())
            admin = AdminService(database, site.daos, site.files, FakeClock())
            return len(await admin.tokens())

    return asyncio.run(work())


OURS_TOO = "the platform's tables are in it, since commserver made them\n"


def test_a_backup_is_restored_into_the_other_kind_of_database(
    run: Run, site: str, new_host: str
) -> None:
    ran = run("backup", "site.backup", url=site)
    assert (ran.code, ran.out) == (0, f"2 runs and 2 contents in site.backup\n{OURS_TOO}")

    ran = run("restore", "site.backup", "--state-dir", "new", url=new_host)

    assert (ran.code, ran.lines) == (0, [])
    told = f"2 runs and 2 contents restored from site.backup\n{OURS_TOO}"
    assert ran.out == told  # the site has never served, nothing is left of it anywhere
    assert tokens_of(new_host) == 1
    files = {path.name for path in Path("new/files").rglob("*") if path.is_file()}
    assert files == {path.name for path in Path("var/files").rglob("*") if path.is_file()}


def test_a_restored_site_leaves_its_former_id_behind_and_says_so(
    run: Run, site: str, new_host: str
) -> None:
    former = asyncio.run(id_of(site))
    assert run("backup", "site.backup", url=site).code == 0

    ran = run("restore", "site.backup", "--state-dir", "new", url=new_host)

    assert ran.out.splitlines()[2:] == [
        "the site gets a new id: what an engine still has of the former one, "
        f"{former}, is left alone"
    ]
    assert asyncio.run(id_of(new_host)) != former


async def id_of(url: str) -> str:
    """Return a site's id, which it has as soon as it has served."""
    async with DatabaseManager(url) as database:
        return await database.write(
            lambda c: Site(Path(), FakeClock()).daos.site.id(c, at=FakeClock().utc())
        )


def test_a_backup_that_is_there_is_replaced_only_when_told_to(run: Run, site: str) -> None:
    Path("site.backup").write_text("precious")

    ran = run("backup", "site.backup", url=site)
    assert (ran.code, ran.lines) == (1, ["site.backup is there already; --force replaces it"])
    assert Path("site.backup").read_text() == "precious"

    assert run("backup", "site.backup", "--force", url=site).code == 0
    assert Path("site.backup").stat().st_mode & 0o777 == 0o600


def test_a_live_platforms_tables_are_said_not_to_be_in_it(run: Run, site: str) -> None:
    async def live() -> None:
        async with Site(Path("var"), FakeClock(), url=site).open() as opened:
            await opened.sql("DROP TABLE platform_version")

    asyncio.run(live())

    ran = run("backup", "site.backup", url=site)

    assert ran.out.splitlines()[1:] == [
        "the platform's tables are not in it: they are the platform's to back up"
    ]


def test_a_database_that_is_not_migrated_has_nothing_to_back_up_or_erase(
    run: Run, empty_url: str
) -> None:
    for command in (["backup", "site.backup"], ["erase", "1", "--yes"]):
        ran = run(*command, url=empty_url)

        assert ran.code == 1
        assert "`commserver migrate`" in ran.lines[0]
    assert not Path("site.backup").exists()


def test_a_restore_beside_a_running_server_exits_3(run: Run, site: str) -> None:
    assert run("backup", "site.backup", url=site).code == 0
    with asyncio.Runner() as server:
        stack = AsyncExitStack()

        async def claim() -> None:
            database = await stack.enter_async_context(DatabaseManager(site))
            await stack.enter_async_context(database.claim())

        server.run(claim())
        try:
            ran = run("restore", "site.backup", url=site)
        finally:
            server.run(stack.aclose())

    assert ran.code == 3
    assert "already managed by" in ran.lines[0]


def test_a_restore_into_a_site_that_is_in_use_is_refused(run: Run, site: str) -> None:
    assert run("backup", "site.backup", url=site).code == 0

    ran = run("restore", "site.backup", url=site)

    assert ran.code == 1
    [line] = ran.lines
    assert line.startswith("this database is in use, it has rows in accounts, ")
    assert tokens_of(site) == 1


def test_what_is_no_archive_is_told_in_one_line_before_a_database_is_made(run: Run) -> None:
    Path("letter").write_text("Dear Ada")

    for name, why in (
        ("letter", "cannot restore from letter: the archive is damaged, cut or none at all"),
        ("nothing", "cannot read nothing: No such file or directory"),
    ):
        ran = run("restore", name)

        assert (ran.code, ran.lines) == (1, [why])
    assert not Path("var").exists()


# -- erase ----------------------------------------------------------------------------------------


def test_an_account_is_erased_and_once_more_there_is_nothing(run: Run, site: str) -> None:
    for path in Path("var/files").rglob("*"):
        os.utime(path, (0, 0))

    ran = run("erase", "2", "--yes", url=site)

    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "2 runs made blank, 1 of them cancelled",
            "1 tokens, 1 finals and 2 contents removed",
            "the platform's own tables are not touched",
        ],
    )
    ran = run("erase", "2", "--yes", url=site)
    assert (ran.code, ran.out) == (0, "nothing was held about account 2\n")


def test_what_was_handed_in_a_moment_ago_is_left_to_the_server_and_said(
    run: Run, site: str
) -> None:
    ran = run("erase", "2", "--yes", url=site)

    assert "0 contents removed" in ran.out
    assert "2 contents were handed in a moment ago" in ran.out


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("", 1), ("y\n", 0)])
def test_it_asks_before_it_erases(
    run: Run, site: str, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    read, write = os.pipe()
    os.write(write, answer.encode())
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        ran = run("erase", "2", url=site)

    assert "Erase what commserver holds about account 2 (ada), for good?" in ran.out
    assert ran.code == left
    assert tokens_of(site) == left


def test_it_asks_about_an_account_that_the_platform_has_no_more(
    run: Run, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        ran = run("erase", str(2**63 - 1), url=site)

    assert f"about account {2**63 - 1}, for good?" in ran.out


@pytest.mark.parametrize("account", ["ada", "-1", str(2**63)])
def test_no_account_has_such_an_id(run: Run, site: str, account: str) -> None:
    assert run("erase", "--yes", "--", account, url=site).code == 2


def test_the_help_says_what_is_not_touched(run: Run) -> None:
    for command in ("erase", "backup"):
        told = " ".join(re.sub("[│ \n]+", " ", run(command, "--help").out).split())
        assert "platform's" in told


async def test_all_of_it_works_beside_a_running_server(
    site: str, outside: None, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_DATABASE__URL", site)
    monkeypatch.setenv("COMMSERVER_LOG__FORMAT", "json")
    async with serving(nursery, tmp_path / "var") as server:
        await server.said("listening")
        for command in (["backup", "site.backup"], ["erase", "2", "--yes"]):
            said, printed = tmp_path / "said", tmp_path / "printed"
            process = await nursery.start("commserver.cli", command, os.environ, said, printed)
            assert await process.wait() == 0, said.read_text()
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    assert "2 runs made blank" in printed.read_text()


# -- settings and pages ---------------------------------------------------------------------------


def test_how_long_things_are_kept_is_set_in_days_and_how_much_in_bytes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = json.loads(run("check-config").out)
    kept = {key: value for key, value in printed["database"].items() if key.startswith("keep_")}
    assert kept == {"keep_executions": 365, "keep_notices": 30, "keep_logs": 90}
    files = {"keep": 180, "limit": 20 << 30, "file_limit": 64 << 20}
    assert printed["files"] == files
    page = PAGE.read_text()
    for section, values in (("database", kept), ("files", files)):
        for key, value in values.items():
            assert f"| `{section}.{key}` | {value} " in page

    monkeypatch.setenv("COMMSERVER_FILES__KEEP", "-1")
    ran = run("check-config")
    assert ran.code == 2
    assert ran.lines[0].startswith("files.keep: ")


def test_every_command_of_the_page_is_one(run: Run, site: str, new_host: str) -> None:
    """Those that end by themselves are run as they stand, in their order."""
    commands = re.findall(r"^    commserver (.*)$", PAGE.read_text(), re.MULTILINE)
    assert {command.split()[0] for command in commands} == {
        *("backup", "restore", "check-config", "serve", "erase")
    }
    known = typer.main.get_command(cli.cli).commands  # type: ignore[attr-defined]  # a group's

    for command in commands:
        name, *arguments = shlex.split(command)
        assert name in known
        if name != "serve":
            at = new_host if name in ("restore", "check-config") else site
            assert run(name, *arguments, url=at).code == 0, command


def test_a_sqlite_file_of_the_new_host_is_nobody_elses(run: Run, site: str, tmp_path: Path) -> None:
    assert run("backup", "site.backup", url=site).code == 0

    assert run("restore", "site.backup", "--state-dir", "moved").code == 0

    assert (tmp_path / "moved" / "commserver.db").stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / "moved" / "commserver.db")) as database:
        assert database.execute("SELECT count(*) FROM executions").fetchall() == [(2,)]
