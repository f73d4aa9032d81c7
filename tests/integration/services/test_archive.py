"""A site in one file: out of one kind of database, into another, and nothing that is not one."""

import hashlib
import itertools
import json
import os
import resource
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from commserver.core.finals import account
from commserver.core.jobs import OwnerId, RunId, content_hash
from commserver.core.states import State
from commserver.dao import migrations, whole_tables
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import AlreadyManaged, StoreError, StoreRefused
from commserver.services import archive as archive_file
from commserver.services.archive_service import ArchiveService, Summary, opened
from commserver.services.file_store import FileStore
from tests.databases import made
from tests.fakes import FakeClock, completed, make_offer
from tests.integration.services.site import Site
from tests.unit.graders.toml import CASE, exercise

NODE = make_offer("node", engine="node", remote=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.backup"


@pytest.fixture
def new_host(engine_name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with nothing in it, of the kind that the site does not have."""
    if engine_name == "postgresql":
        yield f"sqlite:///{tmp_path / 'new' / 'commserver.db'}"
    else:
        yield from made(request.getfixturevalue("maker"), None)


@pytest.fixture
def archives(site: Site) -> ArchiveService:
    return ArchiveService(site.database, site.files, site.clock)


@asynccontextmanager
async def arrived(url: str, state: Path, clock: FakeClock) -> AsyncIterator[ArchiveService]:
    """Yield what restores into this database and folder."""
    async with DatabaseManager(url) as database:
        yield ArchiveService(database, FileStore(state / "files"), clock)


async def restored(path: Path, url: str, state: Path, clock: FakeClock) -> Summary:
    async with arrived(url, state, clock) as service:
        with opened(path) as archive:
            return await service.restore(archive)


async def busy(site: Site) -> dict[str, RunId]:
    """Let the site have runs of every kind: two that wait behind one in hand, two that ended."""
    await site.sql(
        "INSERT INTO baseline (single, attempt, created_at) VALUES (1, 0, :at)",
        at=site.clock.utc(),
    )
    await site.database.write(lambda c: site.daos.site.id(c, at=site.clock.utc()))
    exercise = await site.exercise()
    runs = {}
    for name in ("done", "cancelled", "first", "second", "third"):
        attempt = await site.attempt(exercise, {"main.py": f"{name} \N{SNOWMAN}"}, student=name)
        runs[name] = await site.submit(attempt)
        if name == "done":
            await site.runs.finished(await site.lease(), completed(7))
        if name == "cancelled":
            await site.exec.cancel(attempt)
        site.clock.advance(1.0)
    await site.lease(NODE)
    await site.admin.new_token(await site.admin.account("done"), label="laptop")
    return runs


async def rows(url: str) -> dict[str, list[dict[str, object]]]:
    """Return every row of every table, in some order that is always the same."""
    found: dict[str, list[dict[str, object]]] = {}
    async with DatabaseManager(url) as database:
        for table in (*whole_tables.PLATFORMS, *whole_tables.OURS):

            async def work(connection: object, table: object = table) -> list[dict[str, object]]:
                return [
                    row
                    async for some in whole_tables.rows(connection, table)  # type: ignore[arg-type]  # of the loop
                    for row in some
                ]

            found[table.name] = sorted(await database.read(work), key=repr)
    return found


async def test_large_files_that_only_a_content_refers_to_are_in_it_and_lost_ones_are_told(
    site: Site, archives: ArchiveService, path: Path
) -> None:
    there, lost = await site.files.put(b"21"), content_hash(b"42")
    files = [f'"{n}.in" = {{ sha256 = "{one}", size = 2 }}' for n, one in enumerate((there, lost))]
    cases = "\n".join([CASE, "[files]", *files, ""])
    await site.submit(await site.attempt(await site.exercise(exercise(cases=cases))))
    await site.sql("DELETE FROM scripts")

    with capture_logs() as logs:
        summary = await archives.backup(path)

    assert (summary.contents, summary.missing) == (2, 0)
    with opened(path) as archive:
        assert there in [one.name for one in archive.contents()]
    assert [line["file"] for line in logs if line["event"] == "exercise_file_missing"] == [lost]


# -- there and back -------------------------------------------------------------------------------


async def test_a_site_goes_on_in_the_other_kind_of_database_as_if_nothing_had_been(
    site: Site, archives: ArchiveService, path: Path, new_host: str, clock: FakeClock
) -> None:
    runs = await busy(site)
    token = await site.admin.new_token(await site.admin.account("first"))
    bulky = [await site.files.put(one) for one in (b"21", b"42")]
    files = [f'"{n}.in" = {{ sha256 = "{one}", size = 2 }}' for n, one in enumerate(bulky)]
    await site.exercise(exercise(cases="\n".join([CASE, "[files]", *files, ""])))
    summary = await archives.backup(path)
    elsewhere = path.parent / "elsewhere"

    assert await restored(path, new_host, elsewhere, clock) == summary
    former = await site.database.read(whole_tables.site_id)
    assert summary == Summary(runs=5, contents=7, missing=0, platform=True, site=former)
    # It may be tried out beside the former one, on its engine, whose containers it sweeps.
    assert former
    assert await rows(new_host) == await rows(site.url) | {"site": []}

    async with Site(elsewhere, clock, url=new_host).open() as moved:
        assert [await moved.files.get(one) for one in bulky] == [b"21", b"42"]
        waiting = [runs["second"], runs["third"]]
        assert [moved.board.place(run) for run in waiting] == [1, 2]
        assert moved.board.state(runs["first"]) is State.LEASED
        content = await moved.runs.content(await moved.lease())
        assert dict(content.files) == {"main.py": "second \N{SNOWMAN}"}
        assert (await moved.auth.identify(token)).account == await moved.admin.account("first")
        recipient = account(OwnerId(str(await moved.admin.account("done"))))
        owed = await moved.database.read(lambda c: moved.daos.notices.owed(c, recipient, limit=9))
        assert [(final.run, final.seq) for final in owed] == [(runs["done"], 1)]
        # Numbers go on: of the account's finals, of the platform's rows, of the entries.
        attempt = await moved.attempt(await moved.exercise(), student="done")
        assert attempt == 6
        newer = await moved.submit(attempt)
        assert (await moved.row(newer)).key.entry == 6
        await moved.exec.cancel(attempt)
        assert await moved.database.read(lambda c: moved.daos.notices.last(c, recipient)) == 2


async def test_a_live_platforms_tables_are_left_to_the_platform(
    site: Site, archives: ArchiveService, path: Path, empty_of_ours: str, clock: FakeClock
) -> None:
    runs = await busy(site)
    await site.sql("DROP TABLE platform_version")

    summary = await archives.backup(path)

    assert not summary.platform
    with opened(path) as archive:
        assert set(archive.manifest.members) == {
            *("executions", "leases", "series", "notices", "baseline", "tokens", "site"),
            *("commserver_audit", "commserver_announcements", "commserver_requests"),
            "contents",
        }
    elsewhere = path.parent / "elsewhere"
    assert await restored(path, empty_of_ours, elsewhere, clock) == summary
    async with Site(elsewhere, clock, url=empty_of_ours).open() as moved:
        assert moved.board.place(runs["second"]) == 1
        assert await moved.count("accounts") == 0


@pytest.fixture
async def empty_of_ours(new_host: str) -> str:
    """A new host where a platform is, which made its tables itself."""
    async with DatabaseManager(new_host) as database:
        await migrations.upgrade(database, with_platform=True)
        await migrations.downgrade(database)
    return new_host


async def test_it_is_of_one_moment_whatever_is_written_meanwhile(
    site: Site, archives: ArchiveService, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await busy(site)
    read = whole_tables.rows
    handed_in: list[RunId] = []

    async def slow(*arguments: object) -> AsyncIterator[object]:
        async for some in read(*arguments):  # type: ignore[arg-type]  # as they were given
            yield some
        if not handed_in:
            handed_in.append(await site.submit(await site.attempt(1, {"main.py": "meanwhile"})))

    monkeypatch.setattr(whole_tables, "rows", slow)

    summary = await archives.backup(path)

    assert summary.runs == 5
    assert await site.count("executions") == 6


async def test_contents_that_are_not_there_are_told_where_they_are_needed(
    site: Site, archives: ArchiveService, path: Path
) -> None:
    runs = await busy(site)
    for name in ("done", "second"):
        await site.files.remove((await site.row(runs[name])).job.content)

    summary = await archives.backup(path)

    assert (summary.contents, summary.missing) == (3, 1), "of `second`, which waits for it"


# -- the file -------------------------------------------------------------------------------------


async def test_it_is_nobody_elses_and_replaces_nothing_unless_told_to(
    site: Site, archives: ArchiveService, path: Path
) -> None:
    fill(path, b"something else")

    with pytest.raises(StoreError, match="is there already; --force replaces it"):
        await archives.backup(path)
    assert filling(path) == b"something else"

    await archives.backup(path, force=True)
    assert os.stat(path).st_mode & 0o777 == 0o600
    with opened(path) as archive:
        assert archive.manifest.members["executions"].rows == 0
    assert [found.name for found in path.parent.iterdir() if "backup" in found.name] == [path.name]


def test_a_file_that_comes_meanwhile_is_not_replaced_either(path: Path) -> None:
    with pytest.raises(StoreError, match="--force replaces it"), archive_file.written(path):
        fill(path, b"somebody else's")

    assert filling(path) == b"somebody else's"
    assert os.listdir(path.parent) == [path.name]


async def test_a_disk_that_is_full_leaves_no_half_of_it(
    site: Site, archives: ArchiveService, path: Path
) -> None:
    await site.files.put(b"x")
    await busy(site)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(StoreError, match=f"cannot write {path}: File too large"):
            await archives.backup(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [found.name for found in path.parent.iterdir() if "backup" in found.name] == []


async def test_a_folder_that_is_not_there_is_told(site: Site, archives: ArchiveService) -> None:
    with pytest.raises(StoreError, match="cannot write /nowhere/x: No such file or directory"):
        await archives.backup(Path("/nowhere/x"))


# -- where it may go ------------------------------------------------------------------------------


async def test_it_goes_into_no_database_that_has_something_of_ours(
    site: Site, archives: ArchiveService, path: Path, clock: FakeClock
) -> None:
    await busy(site)
    await archives.backup(path)
    before = await rows(site.url)

    with pytest.raises(StoreRefused, match="this database is in use, it has rows in accounts, "):
        await restored(path, site.url, path.parent / "elsewhere", clock)

    assert await rows(site.url) == before
    assert not (path.parent / "elsewhere").exists()


async def test_what_came_in_between_is_not_mixed_with_it(
    good: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the rows a server may have come and gone."""
    migrate = migrations.upgrade

    async def migrated_and_used(database: DatabaseManager, *, with_platform: bool) -> None:
        await migrate(database, with_platform=with_platform)
        await database.write(
            lambda c: DaoManager().tokens.add(c, "0" * 64, account_id=1, life=1, at=clock.utc())
        )

    monkeypatch.setattr(migrations, "upgrade", migrated_and_used)
    folder = good.parent / "elsewhere"

    with pytest.raises(StoreRefused, match="it has rows in tokens"):
        await restored(good, f"sqlite:///{folder / 'new.db'}", folder, clock)

    assert len((await rows(f"sqlite:///{folder / 'new.db'}"))["tokens"]) == 1


async def test_it_goes_into_no_database_that_a_server_works_on(
    site: Site, archives: ArchiveService, path: Path, clock: FakeClock
) -> None:
    await archives.backup(path)

    async with site.database.claim():
        with pytest.raises(AlreadyManaged):
            await restored(path, site.url, site.state, clock)


async def test_it_is_not_put_among_a_strangers_tables(
    site: Site, archives: ArchiveService, path: Path, new_host: str, clock: FakeClock
) -> None:
    await archives.backup(path)
    async with DatabaseManager(new_host) as database:
        await migrations.upgrade(database)
        await database.write(lambda c: c.exec_driver_sql("CREATE TABLE codes (id INTEGER)"))

    with pytest.raises(StoreError, match="not ours to keep: codes"):
        await restored(path, new_host, path.parent / "elsewhere", clock)

    assert "elsewhere" not in os.listdir(path.parent)


async def test_rows_that_the_database_refuses_leave_nothing_behind(
    site: Site, archives: ArchiveService, path: Path, new_host: str, clock: FakeClock
) -> None:
    await busy(site)
    await archives.backup(path)
    changed(path, "leases", lambda row: row | {"execution_id": "nobody's"})
    elsewhere = path.parent / "elsewhere"

    with pytest.raises(StoreRefused):
        await restored(path, new_host, elsewhere, clock)

    assert all(not some for some in (await rows(new_host)).values())
    assert [found for found in elsewhere.rglob("*") if found.is_file()] == []


# -- what is no archive ---------------------------------------------------------------------------

Rows = Callable[[dict[str, object]], dict[str, object]]


def changed(path: Path, member: str, change: Rows) -> None:
    """Change each row of a member, and let manifest and checksums fit it."""
    members = unpacked(path)
    lines = [change(json.loads(line)) for line in members[f"{member}.jsonl"].splitlines()]
    members[f"{member}.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    repack(path, members)


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def repack(path: Path, contents: dict[str, bytes], **manifest: object) -> None:
    """Write an archive of these members whose manifest is right but for what is given."""
    told = json.loads(contents.pop("manifest.json"))
    told["members"] = {
        name.removesuffix(".jsonl"): {
            "rows": data.count(b"\n"),
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in contents.items()
    }
    contents["manifest.json"] = json.dumps(told | manifest).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)


def fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def filling(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def sqlite_site(state: Path, clock: FakeClock) -> Site:
    return Site(state, clock)


@pytest.fixture
async def good(sqlite_site: Site, path: Path) -> Path:
    """A right archive of a busy site."""
    async with sqlite_site.open() as site:
        await busy(site)
        await ArchiveService(site.database, site.files, site.clock).backup(path)
    return path


async def refused(path: Path) -> str:
    """Return why an archive cannot be restored from, into any database."""
    folder = path.parent / "refused"
    with pytest.raises(StoreError) as caught:
        await restored(path, f"sqlite:///{folder / 'new.db'}", folder, FakeClock())
    if (folder / "new.db").exists():
        with closing(sqlite3.connect(folder / "new.db")) as database:
            assert database.execute("SELECT name FROM sqlite_master").fetchall() == []
    assert not (folder / "files").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"cannot restore from {path}: ")


async def test_a_changed_archive_that_says_so_is_right(good: Path) -> None:
    """What the tests below change could be restored, but for what they change."""
    changed(good, "executions", lambda row: row)

    with opened(good) as archive:
        assert archive.manifest.members["executions"].rows == 5


@pytest.mark.parametrize("length", [0, 1, 21, 22, 100, 0.5, 0.9, -1])
async def test_a_cut_archive_is_refused(good: Path, length: float) -> None:
    whole = filling(good)
    kept = int(len(whole) * length) if 0 < length < 1 else int(length)
    fill(good, whole[:kept])

    assert await refused(good) == "the archive is damaged, cut or none at all"


async def test_no_flipped_bit_goes_unnoticed_or_does_worse_than_a_sentence(good: Path) -> None:
    whole = filling(good)
    expected = list(everything(good))
    refusals = damage = 0
    for position in range(0, len(whole), 11):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        fill(good, bytes(flipped))
        try:
            found = list(everything(good))
        except StoreError as error:
            refusals += 1
            damage += "the archive is damaged" in str(error)
        else:
            # In a field that means nothing to us, such as the time of a member.
            assert found == expected
    assert refusals > len(whole) // 11 * 0.8
    assert damage > refusals * 0.8


def everything(path: Path) -> Iterator[object]:
    """Yield all that would be restored."""
    with opened(path) as archive:
        yield msgspec.structs.replace(archive.manifest, made_at=None)
        for name in archive.manifest.members:
            if name != archive_file.CONTENTS:
                yield list(archive.rows(name))
        yield list(archive.contents())


async def test_other_files_are_refused(good: Path) -> None:
    fill(good, b"a letter")
    assert await refused(good) == "the archive is damaged, cut or none at all"

    with zipfile.ZipFile(good, "w") as file:
        file.writestr("letter.txt", "Dear")
    assert await refused(good) == "it is no archive of commserver"

    os.unlink(good)
    assert await refused(good) == f"cannot read {good}: No such file or directory"


async def test_a_newer_format_is_refused_whatever_else_it_says(good: Path) -> None:
    members = unpacked(good)
    members["manifest.json"] = b'{"format": 2, "colour": "blue"}'
    with zipfile.ZipFile(good, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)

    assert await refused(good) == "its format is 2, this version of commserver has 1"


@pytest.mark.parametrize("name", ["commserver", "platform"])
async def test_tables_of_another_version_are_refused(good: Path, name: str) -> None:
    revisions = {"commserver": migrations.latest(), "platform": "0001"} | {name: "9999"}
    repack(good, unpacked(good), revisions=revisions)

    assert f"the tables of {name} at revision 9999" in await refused(good)


async def test_tables_that_are_not_those_of_a_site_are_refused(good: Path) -> None:
    members = unpacked(good)
    del members["notices.jsonl"]
    repack(good, members)

    assert await refused(good) == "the archive has not the tables of a site"


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "a/../../b", "C:\\evil", "x" * 5000, "link"]
)
async def test_a_strange_member_is_refused_and_never_written(good: Path, name: str) -> None:
    info = zipfile.ZipInfo(name)
    if name == "link":
        info.external_attr = 0o120777 << 16  # a symbolic link
    with zipfile.ZipFile(good, "a") as file:
        file.writestr(info, "/etc/passwd")

    assert await refused(good) == f"its manifest does not name {name!r}"


async def test_a_strange_member_that_the_manifest_names_is_refused_too(good: Path) -> None:
    members = unpacked(good)
    members["../../evil.jsonl"] = b"{}\n"
    repack(good, members)

    assert await refused(good) == "nobody knows its member '../../evil'"


async def test_a_member_that_is_there_twice_is_refused(good: Path) -> None:
    with zipfile.ZipFile(good, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("tokens.jsonl", b"{}\n")

    assert await refused(good) == "its members are not those of its manifest"


async def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_file, "LINE_LIMIT", 1 << 20)
    members = unpacked(good)
    members["tokens.jsonl"] = bytes(1 << 30 >> 4)
    repack(good, members)
    size = len(filling(good))

    assert await refused(good) == "the archive is damaged: a line of tokens is too long or cut"
    assert size < 1 << 20


async def test_a_manifest_without_end_is_refused(good: Path) -> None:
    members = unpacked(good)
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", members["manifest.json"] + b" " * (2 << 20))

    assert await refused(good) == "its manifest is too long"


async def test_a_content_under_another_name_is_refused(good: Path) -> None:
    changed(good, "contents", lambda row: row | {"name": "../../evil"})

    assert await refused(good) == (
        "the archive is damaged: a content is not what its name says: '../../evil'"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tries": "1"}, "Expected `int`, got `str`"),
        ({"created_at": "2026-01-01T00:00:00"}, "Expected `datetime` with a timezone"),
        ({"colour": "blue"}, "unknown field `colour`"),
        ({"owner": None}, "Expected `str`, got `null`"),
    ],
)
async def test_a_row_that_is_none_is_refused(
    good: Path, change: dict[str, object], told: str
) -> None:
    changed(good, "executions", lambda row: row | change)

    assert told in await refused(good)


async def test_a_member_that_is_not_what_the_manifest_says_is_refused(good: Path) -> None:
    members = unpacked(good)
    told = json.loads(members["manifest.json"])["members"]
    told["tokens"]["sha256"] = "0" * 64
    repack(good, members, members=told)
    assert await refused(good) == "the archive is damaged: tokens is not what its manifest says"

    told["tokens"] = {"rows": 1, "size": 3, "sha256": "0" * 64}
    repack(good, unpacked(good), members=told)
    assert (
        await refused(good) == "the archive is damaged: tokens is not as long as its manifest says"
    )


@pytest.mark.parametrize("engine_name", ["postgresql"])
@pytest.mark.parametrize("losses", [1, 2])
async def test_a_backup_that_loses_its_connection_is_made_anew_or_not_at_all(
    site: Site,
    archives: ArchiveService,
    path: Path,
    new_host: str,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    losses: int,
) -> None:
    await busy(site)
    expected = await rows(site.url)
    contents, tries = whole_tables.contents, itertools.count(1)

    async def lost(connection: AsyncConnection) -> AsyncIterator[object]:
        if next(tries) <= losses:  # when all tables are written
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        async for one in contents(connection):
            yield one

    monkeypatch.setattr(whole_tables, "contents", lost)

    if losses > 1:
        with pytest.raises(StoreError, match="the connection to the database was lost"):
            await archives.backup(path)
        assert list(path.parent.glob(f"*{path.name}*")) == []
        return
    await archives.backup(path)

    await restored(path, new_host, path.parent / "elsewhere", clock)
    assert await rows(new_host) == expected | {"site": []}
    undisturbed = path.with_name("undisturbed")
    await archives.backup(undisturbed)
    assert size(path) == size(undisturbed)


def size(path: Path) -> int:
    return path.stat().st_size


def test_no_member_is_written_twice(path: Path) -> None:
    with archive_file.written(path) as writer:
        with writer.member("tokens"):
            pass

        with pytest.raises(StoreRefused, match="twice"), writer.member("tokens"):
            pass


async def test_a_site_of_many_runs_needs_no_more_memory_than_one_of_few(
    sqlite_site: Site, path: Path
) -> None:
    """What is in memory at a time does not depend on how many there are."""
    async with sqlite_site.open() as site:
        runs = await busy(site)
        await site.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)"
            " INSERT INTO executions SELECT 'copy-' || i, i, account_id, owner, course, gateway,"
            " peer, reference, purpose, content_hash, requires, lease, priority, tag, i, state,"
            " tries, deaths, max_tries, status, grade, grade_max, fault, failure_cause, message,"
            " container, verdict, created_at, started_at, ended_at, tell, runner, engine,"
            " leased_at FROM executions, n"
            " WHERE id = :run",
            run=runs["done"],
        )
        most = 0
        rows = whole_tables.rows

        async def counted(*arguments: object) -> AsyncIterator[object]:
            nonlocal most
            async for some in rows(*arguments):  # type: ignore[arg-type]  # as they were given
                most = max(most, len(some))
                yield some

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(whole_tables, "rows", counted)
            summary = await ArchiveService(site.database, site.files, site.clock).backup(path)

    assert summary.runs == 10_005
    assert most == whole_tables.AT_ONCE
    with opened(path) as archive:
        assert {len(some) for some in archive.rows("executions")} == {500, 5}
