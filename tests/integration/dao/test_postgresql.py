"""What is particular to PostgreSQL: lost connections, known outcomes, hung servers, its claim."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.testing import capture_logs

from commserver.cluster import Cluster
from commserver.core.states import State
from commserver.dao import postgresql
from commserver.dao.advisory_lock import KEY, AdvisoryLock
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import (
    AlreadyExists,
    AlreadyManaged,
    ConfigError,
    StoreError,
    StoreRefused,
)
from tests.fakes import make_job
from tests.integration.dao.conftest import NOW
from tests.integration.dao.test_executions import new, then

PATIENCE = 60.0  # seconds of real time for a server to come back and be noticed


@pytest.fixture
def engine_name() -> str:
    return "postgresql"


@pytest.fixture
async def notes(empty: DatabaseManager) -> DatabaseManager:
    """A database with one table, `notes(body)`."""
    await empty.write(lambda c: c.execute(text("CREATE TABLE notes (body TEXT UNIQUE)")))
    return empty


async def add(connection: AsyncConnection, body: str) -> str:
    await connection.execute(text("INSERT INTO notes VALUES (:body)"), {"body": body})
    return body


async def bodies(database: DatabaseManager) -> set[str]:
    async def work(connection: AsyncConnection) -> set[str]:
        return set(await connection.scalars(text("SELECT body FROM notes")))

    return await database.read(work)


async def scalar(database: DatabaseManager, statement: str) -> object:
    return await database.read(lambda c: c.scalar(text(statement)))


async def settings(connection: AsyncConnection, *names: str) -> list[object]:
    return [await connection.scalar(text(f"SHOW {name}")) for name in names]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens elsewhere and has no event for us."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def backend_of(cluster: Cluster, url: str, condition: str = "true") -> int:
    """Return the number of a server process that serves a connection to this database."""
    name = urlsplit(url).path[1:]
    found = cluster.sql(
        f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}' AND {condition}"  # noqa: S608
    )
    return int(found.split()[0])


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """A process that hangs for the length of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# -- settings -------------------------------------------------------------------------------------


async def test_every_connection_has_the_settings_that_lose_nothing(empty: DatabaseManager) -> None:
    names = ("synchronous_commit", "transaction_isolation", "transaction_read_only")

    assert await empty.write(lambda c: settings(c, *names)) == ["on", "read committed", "off"]
    assert await empty.read(lambda c: settings(c, *names)) == ["on", "repeatable read", "on"]


async def test_the_server_knows_who_we_are(empty: DatabaseManager) -> None:
    name = await scalar(empty, "SHOW application_name")

    assert name == f"commserver {os.getpid()} on {os.uname().nodename}"


async def test_a_vanished_client_is_noticed_within_a_minute(empty: DatabaseManager) -> None:
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")

    idle, interval, count = await empty.read(lambda c: settings(c, *names))

    assert int(str(idle)) + int(str(interval)) * int(str(count)) <= 60


async def test_writers_run_side_by_side_as_many_as_the_pool_has(empty_url: str) -> None:
    inside, all_in, go = 0, asyncio.Event(), asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        nonlocal inside
        inside += 1
        if inside == 3:
            all_in.set()
        await go.wait()

    async with DatabaseManager(empty_url, pool=3, acquire_timeout=0.2) as database:
        tasks = [asyncio.create_task(database.write(work)) for _ in range(3)]
        await all_in.wait()
        with pytest.raises(StoreError, match="was free within"):
            await database.write(work)
        assert await scalar(database, "SELECT 1") == 1  # readers have their own
        go.set()
        await asyncio.gather(*tasks)


# -- opening --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_urls_as_people_write_them(empty_url: str, scheme: str) -> None:
    url = empty_url.replace("postgresql", scheme, 1) + "?sslmode=disable"
    async with DatabaseManager(url) as database:
        assert await scalar(database, "SELECT 1") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("/test_", "/no_such_"), "no such database"),
        (("postgres@", "nobody:secret@"), "does not let this user in"),
    ],
)
async def test_what_only_an_admin_can_mend_is_told_at_once(
    empty_url: str, change: tuple[str, str], says: str
) -> None:
    database = DatabaseManager(empty_url.replace(*change))

    with pytest.raises(ConfigError, match=says) as caught:
        await database.open(wait=True)

    assert "secret" not in str(caught.value)


@pytest.fixture
async def guarded(cluster: Cluster) -> AsyncIterator[str]:
    """The name of a role that needs its password, "right"."""
    cluster.sql("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules = cluster.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
    cluster.sql("SELECT pg_reload_conf()")
    yield "guarded"
    rules.write_text(before)
    cluster.sql("SELECT pg_reload_conf()")
    cluster.sql("DROP ROLE guarded")


async def test_a_wrong_password_is_told_at_once_and_not_shown(empty_url: str, guarded: str) -> None:
    async with DatabaseManager(empty_url.replace("postgres@", f"{guarded}:right@")) as database:
        assert await scalar(database, "SELECT current_user") == guarded

    for password in (":wrong", ""):
        database = DatabaseManager(empty_url.replace("postgres@", f"{guarded}{password}@"))
        with pytest.raises(ConfigError, match=r"^database\.url: ") as caught:
            await database.open(wait=True)
        assert "wrong@" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_cannot_hold_every_text_is_refused(
    cluster: Cluster, encoding: str
) -> None:
    name = f"other_{encoding.lower()}"
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    try:
        with pytest.raises(ConfigError, match=f"in {encoding}, it must be in UTF8"):
            await DatabaseManager(cluster.url(name)).open(wait=True)
    finally:
        cluster.drop(name)


async def test_a_database_that_is_away_is_waited_for_only_on_request(
    cluster: Cluster, empty_url: str
) -> None:
    database = DatabaseManager(empty_url)
    await asyncio.to_thread(cluster.halt)
    try:
        with pytest.raises(StoreError, match="the database is away"):
            await database.open()
        with capture_logs() as logs:
            opening = asyncio.create_task(database.open(wait=True))
            await until(lambda: logs)
            await asyncio.to_thread(cluster.start)
            async with asyncio.timeout(PATIENCE):
                await opening
    except BaseException:  # whatever failed, the next test finds a server
        await asyncio.to_thread(cluster.start)
        raise

    assert [line["event"] for line in logs] == ["database_is_away", "database_is_back"]
    assert await scalar(database, "SELECT 1") == 1
    await database.close()


async def test_what_is_waited_for_can_be_given_up(empty_url: str) -> None:
    away = empty_url.replace("127.0.0.1", "127.0.0.2")
    opening = asyncio.create_task(DatabaseManager(away).open(wait=True))
    await asyncio.sleep(0.1)

    opening.cancel()

    with pytest.raises(asyncio.CancelledError):
        await opening


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "kind", "says"),
    [
        ("SELECT 'secret'::int", StoreRefused, "cannot hold"),
        ("SELECT convert_from('\\x00', 'UTF8')", StoreRefused, "cannot hold"),
        ("INSERT INTO strict VALUES (NULL, 'secret')", StoreRefused, "not-null"),
        ("INSERT INTO strict VALUES (-1, 'secret')", StoreRefused, "check"),
        ("INSERT INTO strict VALUES (1, 'secret'), (1, 'secret')", AlreadyExists, "strict.strict_"),
        ("SELECT * FROM nowhere", StoreError, "does not exist"),
        ("SELECT pg_cancel_backend(pg_backend_pid())", StoreError, "user request"),
        ("DO $$ BEGIN RAISE 'full' USING ERRCODE = '53100'; END $$", StoreError, "full"),
        ("DO $$ BEGIN RAISE 'many' USING ERRCODE = '53300'; END $$", StoreError, "many"),
        ("DO $$ BEGIN RAISE 'torn' USING ERRCODE = '40001'; END $$", StoreError, "torn"),
        ("DO $$ BEGIN RAISE 'mute' USING ERRCODE = '25006'; END $$", StoreError, "mute"),
        ("DO $$ BEGIN RAISE 'barred' USING ERRCODE = '42501'; END $$", StoreError, "barred"),
        ("DO $$ BEGIN RAISE 'lock' USING ERRCODE = '55P03'; END $$", StoreError, "lock"),
        ("DO $$ BEGIN RAISE 'disk' USING ERRCODE = '58030'; END $$", StoreError, "disk"),
        ("DO $$ BEGIN RAISE 'remote' USING ERRCODE = 'HV00N'; END $$", StoreError, "remote"),
        ("DO $$ BEGIN RAISE 'by a rule'; END $$", StoreRefused, "by a rule"),
        ("DO $$ BEGIN RAISE 'deep' USING ERRCODE = '54001'; END $$", StoreRefused, "deep"),
        ("DO $$ BEGIN RAISE 'rotten' USING ERRCODE = 'XX001'; END $$", StoreRefused, "rotten"),
    ],
)
async def test_what_will_never_go_better_is_told_from_what_may(
    empty: DatabaseManager, statement: str, kind: type[StoreError], says: str
) -> None:
    await empty.write(
        lambda c: c.execute(text("CREATE TABLE strict (n INT PRIMARY KEY CHECK (n > 0), t TEXT)"))
    )

    with pytest.raises(StoreError, match=says) as caught:
        await empty.write(lambda c: c.exec_driver_sql(statement))

    assert type(caught.value) is kind
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret" not in str(error)
        error = error.__cause__
    assert await empty.write(lambda c: c.scalar(text("SELECT 1"))) == 1


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int", 2**31), ("bigint", 2**63), ("text", "a\0b"), ("text", "\ud800"), ("int", "secret")],
)
async def test_a_value_that_no_column_can_hold_is_refused(
    empty: DatabaseManager, kind: str, value: object
) -> None:
    with pytest.raises(StoreRefused) as caught:
        await empty.write(lambda c: c.execute(text(f"SELECT CAST(:v AS {kind})"), {"v": value}))

    assert str(value) not in str(caught.value) + str(caught.value.__cause__)


# -- a server that hangs --------------------------------------------------------------------------


async def test_a_server_that_hangs_costs_one_deadline(cluster: Cluster, empty_url: str) -> None:
    async with DatabaseManager(empty_url, pool=1) as database:
        backend = int(
            str(await database.write(lambda c: c.scalar(text("SELECT pg_backend_pid()"))))
        )
        async with stopped(backend):
            async with asyncio.timeout(5):
                with pytest.raises(StoreError, match="took too long"):
                    await database.write(lambda c: c.scalar(text("SELECT 1")), deadline=0.1)

                assert await database.write(lambda c: c.scalar(text("SELECT 1"))) == 1


async def test_a_server_that_hangs_when_it_should_undo_is_left_alone(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ROLLBACK", 0.1)
    stopped_one = 0

    async def work(connection: AsyncConnection) -> None:
        nonlocal stopped_one
        stopped_one = int(str(await connection.scalar(text("SELECT pg_backend_pid()"))))
        os.kill(stopped_one, signal.SIGSTOP)
        raise KeyError

    async with DatabaseManager(empty_url, pool=1) as database:
        try:
            async with asyncio.timeout(5):
                with pytest.raises(KeyError):
                    await database.write(work)
                assert await database.write(lambda c: c.scalar(text("SELECT 1"))) == 1
        finally:
            os.kill(stopped_one, signal.SIGCONT)


async def test_a_server_that_hangs_while_we_leave_is_left(empty_url: str, cluster: Cluster) -> None:
    database = DatabaseManager(empty_url)
    await database.open()
    async with stopped(backend_of(cluster, empty_url)), asyncio.timeout(postgresql.CLOSE + 3):
        await database.close()


async def test_a_strangers_lock_costs_one_deadline(notes: DatabaseManager, empty_url: str) -> None:
    locked, go = asyncio.Event(), asyncio.Event()

    async def lock(connection: AsyncConnection) -> None:
        await connection.execute(text("LOCK TABLE notes"))
        locked.set()
        await go.wait()

    async with DatabaseManager(empty_url) as stranger:
        holding = asyncio.create_task(stranger.write(lock))
        await locked.wait()
        with pytest.raises(StoreError, match="took too long"):
            await notes.write(lambda c: add(c, "a"), deadline=0.1)
        with pytest.raises(StoreError, match="took too long"):
            await notes.read(lambda c: c.execute(text("SELECT * FROM notes")), deadline=0.1)
        go.set()
        await holding

    await notes.write(lambda c: add(c, "b"))
    assert await bodies(notes) == {"b"}


async def test_statements_that_are_each_in_time_are_bounded_together(
    notes: DatabaseManager,
) -> None:
    async def work(connection: AsyncConnection) -> None:
        await add(connection, "a")
        for _ in range(100):
            await connection.execute(text("SELECT pg_sleep(0.08)"))

    with pytest.raises(StoreError, match="took too long"):
        await notes.write(work, deadline=0.1)

    assert await bodies(notes) == set()


# -- connections that are lost --------------------------------------------------------------------


async def test_a_restart_costs_an_idle_server_nothing(
    cluster: Cluster, notes: DatabaseManager
) -> None:
    calls: list[str] = []

    async def work(connection: AsyncConnection) -> None:
        calls.append(await add(connection, str(len(calls))))

    for mode in ("fast", "immediate", "fast"):
        await asyncio.gather(*(scalar(notes, "SELECT pg_sleep(0.01)") for _ in range(5)))
        await asyncio.to_thread(cluster.restart, mode)

        await notes.write(work)
        await asyncio.gather(*(scalar(notes, "SELECT 1") for _ in range(5)))

    assert calls == ["0", "1", "2"]  # no dead connection was tried
    assert await bodies(notes) == set(calls)


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_what_loses_its_connection_before_the_commit_is_run_once_more(
    notes: DatabaseManager, kind: str
) -> None:
    calls = itertools.count(1)

    async def work(connection: AsyncConnection) -> int:
        if kind == "write":
            await add(connection, "a")
        if (call := next(calls)) == 1:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return call

    assert await getattr(notes, kind)(work) == 2
    assert await bodies(notes) == ({"a"} if kind == "write" else set())


async def test_a_second_loss_is_an_error(notes: DatabaseManager) -> None:
    calls = itertools.count(1)

    async def work(connection: AsyncConnection) -> None:
        await add(connection, str(next(calls)))
        await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreError, match="nothing was written"):
        await notes.write(work)

    assert next(calls) == 3
    assert await bodies(notes) == set()


async def test_a_statement_whose_tables_have_changed_is_run_once_more(
    notes: DatabaseManager, empty_url: str
) -> None:
    async def read(connection: AsyncConnection) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await connection.execute(text("SELECT * FROM notes"))]

    await notes.write(lambda c: add(c, "a"))
    assert await notes.read(read) == [("a",)]
    async with DatabaseManager(empty_url) as admin:
        await admin.write(lambda c: c.execute(text("ALTER TABLE notes ADD n INT DEFAULT 1")))

    assert await notes.read(read) == [("a", 1)]


# -- commits whose answer is lost -----------------------------------------------------------------

Cut = Callable[["Cable", asyncio.StreamWriter, asyncio.StreamReader, bytes], Awaitable[None]]


class Cable:
    """What lies between us and the server; at the next commit after `arm` it does as it is told."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self._cut: Cut | None = None
        self._kept: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut = asyncio.Event()

    @asynccontextmanager
    async def plugged(self, user: str = "postgres") -> AsyncIterator[str]:
        """Yield the URL at our end."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._to._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._kept:
                self._kept.close()

    def arm(self, cut: Cut) -> None:
        self._cut = cut

    async def _serve(self, ours: asyncio.StreamReader, to_us: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            theirs, to_them = await asyncio.open_connection(self._to.hostname, self._to.port)
        except OSError:
            to_us.close()
            return
        answers = asyncio.create_task(_forward(theirs, to_us))
        try:
            while block := await ours.read(65536):
                if self._cut and b"COMMIT;" in block:
                    cut, self._cut = self._cut, None
                    answers.cancel()
                    await asyncio.wait({answers})
                    await cut(self, to_them, theirs, block)
                    self.cut.set()
                    break
                to_them.write(block)
        except OSError:
            pass
        finally:
            answers.cancel()
            to_us.close()
            if self._kept is not to_them:
                to_them.close()

    def keep(self, to_them: asyncio.StreamWriter) -> None:
        """Leave the server's end open, as a network does that loses everything."""
        self._kept = to_them


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while block := await source.read(65536):
            sink.write(block)
    except OSError:
        pass
    sink.close()


async def before(
    cable: Cable, to_them: asyncio.StreamWriter, theirs: asyncio.StreamReader, block: bytes
) -> None:
    """The commit never arrives."""


async def silently(
    cable: Cable, to_them: asyncio.StreamWriter, theirs: asyncio.StreamReader, block: bytes
) -> None:
    """The commit never arrives, and the server waits for it."""
    cable.keep(to_them)


async def after(
    cable: Cable, to_them: asyncio.StreamWriter, theirs: asyncio.StreamReader, block: bytes
) -> None:
    """The commit is done; its answer never arrives."""
    to_them.write(block)
    assert b"COMMIT" in await theirs.read(65536)


async def never(
    cable: Cable, to_them: asyncio.StreamWriter, theirs: asyncio.StreamReader, block: bytes
) -> None:
    """The commit is done, and both ends go on waiting."""
    await after(cable, to_them, theirs, block)
    cable.cut.set()
    await asyncio.Event().wait()


@pytest.fixture
def cable(empty_url: str) -> Cable:
    return Cable(empty_url)


@pytest.fixture
async def far(cable: Cable, notes: DatabaseManager) -> AsyncIterator[DatabaseManager]:
    """The database of `notes`, at the other end of the cable."""
    async with cable.plugged() as url, DatabaseManager(url, acquire_timeout=1.0) as database:
        yield database


async def test_a_commit_whose_answer_is_lost_is_a_commit(
    cable: Cable, far: DatabaseManager
) -> None:
    cable.arm(after)

    with capture_logs() as logs:
        assert await far.write(lambda c: add(c, "a")) == "a"

    assert cable.cut.is_set()
    assert [(line["event"], line.get("outcome")) for line in logs] == [
        ("commit_outcome_unknown", None),
        ("commit_outcome_known", "committed"),
    ]
    assert await bodies(far) == {"a"}


async def test_a_commit_that_is_not_answered_is_asked_for(
    cable: Cable, far: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "COMMIT", 0.1)
    cable.arm(never)

    async with asyncio.timeout(10):
        assert await far.write(lambda c: add(c, "a")) == "a"

    assert cable.cut.is_set()
    assert await bodies(far) == {"a"}


@pytest.mark.parametrize("cut", [silently, after])
async def test_all_this_takes_no_rights(
    cluster: Cluster, cable: Cable, notes: DatabaseManager, guarded: str, cut: Cut
) -> None:
    await notes.write(lambda c: c.execute(text(f"GRANT ALL ON notes TO {guarded}")))
    user = f"{guarded}:right"
    async with cable.plugged(user) as url, DatabaseManager(url, acquire_timeout=1.0) as database:
        cable.arm(cut)
        if cut is after:
            await database.write(lambda c: add(c, "a"))
        else:
            with pytest.raises(StoreError, match="nothing was written"):
                await database.write(lambda c: add(c, "a"))
    await notes.write(lambda c: c.execute(text(f"REVOKE ALL ON notes FROM {guarded}")))


@pytest.mark.parametrize("cut", [before, silently])
async def test_a_commit_that_never_arrives_is_none(
    cable: Cable, far: DatabaseManager, cut: Cut
) -> None:
    cable.arm(cut)

    with pytest.raises(StoreError, match="nothing was written"):
        await far.write(lambda c: add(c, "a"))

    assert cable.cut.is_set()
    await far.write(lambda c: add(c, "a"))  # which nothing holds up any more
    assert await bodies(far) == {"a"}


@pytest.mark.parametrize("first", [before, after])
async def test_a_server_that_crashes_in_mid_commit_says_afterwards_what_became_of_it(
    cluster: Cluster, cable: Cable, far: DatabaseManager, first: Cut
) -> None:
    went = asyncio.Event()

    async def crash(*arguments: object) -> None:
        await first(*arguments)  # type: ignore[arg-type]  # what a Cut takes
        await asyncio.to_thread(cluster.halt, "immediate")
        went.set()

    cable.arm(crash)
    with capture_logs() as logs:
        writing = asyncio.create_task(far.write(lambda c: add(c, "a")))
        await went.wait()
        await until(lambda: logs)
        await asyncio.sleep(0.2)  # it is asked for in vain
        assert not writing.done()
        await asyncio.to_thread(cluster.start)
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({writing})

    if first is after:
        assert await writing == "a"
    else:
        with pytest.raises(StoreError, match="nothing was written"):
            await writing
    assert [line["event"] for line in logs] == ["commit_outcome_unknown", "commit_outcome_known"]
    assert await bodies(far) == ({"a"} if first is after else set())


async def test_only_closing_ends_the_asking(
    cluster: Cluster, cable: Cable, far: DatabaseManager
) -> None:
    async def crash(*arguments: object) -> None:
        await after(*arguments)  # type: ignore[arg-type]  # what a Cut takes
        await asyncio.to_thread(cluster.halt, "immediate")

    cable.arm(crash)
    try:
        writing = asyncio.create_task(far.write(lambda c: add(c, "a")))
        await cable.cut.wait()
        async with asyncio.timeout(PATIENCE):
            await far.close()
    finally:
        await asyncio.to_thread(cluster.start)

    with pytest.raises(StoreError, match="what became of it is unknown"):
        await writing


async def test_a_number_that_a_crashed_server_gives_again_is_not_taken_for_the_first(
    cluster: Cluster, notes: DatabaseManager
) -> None:
    dialect = notes._dialect
    assert isinstance(dialect, postgresql.Postgresql)
    mark = await notes.write(lambda c: postgresql._begun(c, 1.0, writes=True))
    assert mark is not None
    await dialect._settled(mark)  # committed, as it says

    await asyncio.to_thread(cluster.restart, "immediate")
    lost = replace(mark, lsn="FFFF/0")  # beyond all that is left

    with pytest.raises(StoreError, match="nothing was written"):
        await dialect._settled(lost)
    await dialect._settled(mark)


async def test_a_number_that_the_server_never_gave_has_no_outcome(notes: DatabaseManager) -> None:
    dialect = notes._dialect
    assert isinstance(dialect, postgresql.Postgresql)
    mark = await notes.write(lambda c: postgresql._begun(c, 1.0, writes=True))
    assert mark is not None

    with pytest.raises(StoreError, match="what became of it is unknown"):
        await dialect._settled(replace(mark, xid="999999999999"))
    with pytest.raises(StoreError, match="what became of it is unknown"):
        await dialect._settled(replace(mark, xid="3"))  # frozen long ago


# -- one manager a database -----------------------------------------------------------------------


@pytest.fixture
async def rival(empty_url: str) -> AsyncIterator[DatabaseManager]:
    async with DatabaseManager(empty_url) as rival:
        yield rival


async def test_a_second_manager_is_told_who_is_the_first(
    empty: DatabaseManager, rival: DatabaseManager
) -> None:
    async with empty.claim():
        with pytest.raises(AlreadyManaged) as caught:
            async with rival.claim():
                raise AssertionError

    who = f"commserver {os.getpid()} on {os.uname().nodename} at 127.0.0.1 since 20"
    assert caught.value.holder.startswith(who)
    async with rival.claim():
        pass


async def test_another_database_of_the_server_has_a_manager_of_its_own(
    cluster: Cluster, empty: DatabaseManager
) -> None:
    cluster.create("another")
    try:
        async with (
            DatabaseManager(cluster.url("another")) as other,
            empty.claim(),
            other.claim(),
        ):
            pass
    finally:
        cluster.drop("another")


@pytest.fixture
async def brisk(empty_url: str, notes: DatabaseManager) -> AsyncIterator[DatabaseManager]:
    """A manager that looks after its claim all the time."""
    async with DatabaseManager(empty_url, acquire_timeout=0.5, claim_period=0.05) as database:
        yield database


HOLDS_LOCK = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"


@asynccontextmanager
async def kept(database: DatabaseManager) -> AsyncIterator[asyncio.Task[None]]:
    async with database.claim() as claim:
        keeping = asyncio.create_task(claim.keep())
        try:
            yield keeping
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_claim_survives_a_restart_of_the_database(
    cluster: Cluster, brisk: DatabaseManager, rival: DatabaseManager, mode: str
) -> None:
    async with kept(brisk) as keeping:
        await asyncio.to_thread(cluster.restart, mode)

        async with asyncio.timeout(PATIENCE):
            await brisk.write(lambda c: add(c, "a"))  # which waits for the claim
        with pytest.raises(AlreadyManaged):
            async with rival.claim():
                raise AssertionError
        assert not keeping.done()


async def test_a_claim_survives_a_hung_connection(
    cluster: Cluster, empty_url: str, brisk: DatabaseManager
) -> None:
    async with kept(brisk) as keeping:
        first = backend_of(cluster, empty_url, HOLDS_LOCK)
        with capture_logs() as logs:
            async with stopped(first):
                await until(lambda: logs)
            await until(lambda: any(line["event"] == "claim_taken_again" for line in logs))

        assert backend_of(cluster, empty_url, HOLDS_LOCK) != first
        assert not keeping.done()


async def test_who_has_lost_the_claim_to_another_writes_no_more(
    cluster: Cluster, empty_url: str, brisk: DatabaseManager, rival: DatabaseManager
) -> None:
    """The rival stands behind a lock that is let go: it gets it before we can ask again."""
    async with kept(brisk) as keeping:
        backend = backend_of(cluster, empty_url, HOLDS_LOCK)
        queued = asyncio.create_task(
            rival.write(lambda c: c.execute(text(f"SELECT pg_advisory_lock({KEY})")))
        )
        await until(lambda: cluster.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1")
        cluster.sql(f"SELECT pg_terminate_backend({backend})")

        async with asyncio.timeout(PATIENCE):
            with pytest.raises(AlreadyManaged, match="commserver"):
                await keeping
        with pytest.raises(AlreadyManaged):
            await brisk.write(lambda c: add(c, "a"))
    await queued

    assert await bodies(brisk) == set()


async def test_nothing_is_committed_when_the_claim_is_lost_meanwhile(
    cluster: Cluster, empty_url: str, brisk: DatabaseManager
) -> None:
    async with brisk.claim() as claim:  # which nobody keeps
        assert isinstance(claim, AdvisoryLock)

        async def work(connection: AsyncConnection) -> None:
            await add(connection, "a")
            cluster.sql(
                f"SELECT pg_terminate_backend({backend_of(cluster, empty_url, HOLDS_LOCK)})"
            )
            await until(lambda: not claim.held)

        with pytest.raises(StoreError, match="was lost meanwhile"):
            await brisk.write(work)
        with pytest.raises(StoreError, match="not taken again"):
            await brisk.write(lambda c: add(c, "b"))

        assert await bodies(brisk) == set()


# -- many at once ---------------------------------------------------------------------------------


async def test_under_load_a_restart_neither_loses_nor_doubles_a_row(
    cluster: Cluster, notes: DatabaseManager, empty_url: str
) -> None:
    told: dict[str, bool] = {}
    done = asyncio.Event()
    numbers = itertools.count()

    async def writer(database: DatabaseManager) -> None:
        while not done.is_set():
            body = str(next(numbers))
            try:
                await database.write(partial(add, body=body))
            except StoreError:
                told[body] = False
                await asyncio.sleep(0.01)
            else:
                told[body] = True

    async with DatabaseManager(empty_url) as other:
        writers = [asyncio.create_task(writer(one)) for one in (notes, other) for _ in range(4)]
        for mode in ("immediate", "fast", "immediate"):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(cluster.restart, mode)
        await asyncio.sleep(0.3)
        done.set()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*writers)

    assert await bodies(notes) == {body for body, committed in told.items() if committed}
    assert sum(told.values()) > 50


async def test_of_two_managers_that_change_a_row_at_once_one_wins(
    url: str, daos: DaoManager
) -> None:
    rounds = 50
    runs = [new(make_job(f"run-{n}"), entry=n + 1) for n in range(rounds)]
    async with DatabaseManager(url) as one, DatabaseManager(url) as other:
        for run in runs:
            assert await one.write(partial(daos.executions.write, write=run, at=NOW))
        for run in runs:
            rival = then(run, State.LEASED), then(run, State.CANCELLED)

            won = await asyncio.gather(
                *(
                    database.write(partial(daos.executions.write, write=write, at=NOW))
                    for write in rival
                    for database in (one, other)
                )
            )

            assert sum(won) == 1


async def test_of_many_that_let_an_attempt_wait_at_once_one_does(
    url: str, daos: DaoManager
) -> None:
    async with DatabaseManager(url) as one, DatabaseManager(url) as other:
        for attempt in range(1, 11):
            runs = [new(make_job(f"{attempt}-{n}", attempt=attempt), entry=n) for n in range(8)]

            results = await asyncio.gather(
                *(
                    database.write(partial(daos.executions.write, write=run, at=NOW))
                    for run, database in zip(runs, itertools.cycle((one, other)), strict=False)
                ),
                return_exceptions=True,
            )

            assert [result for result in results if result is True] == [True]
            refused = [r for r in results if isinstance(r, AlreadyExists)]
            assert {error.what for error in refused} == {"executions.uq_executions_waiting"}
            assert len(refused) == 7
