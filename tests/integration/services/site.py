"""Every service tied together on a real database, without gateways: what `app` builds, by hand."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.config import Docker, Queue
from commserver.core.board import Board
from commserver.core.bus import EventBus
from commserver.core.dispatcher import Dispatcher
from commserver.core.events import Event, RunEnded, RunLeased, RunQueued, RunReplaced
from commserver.core.jobs import AttemptId, Lease, LeaseId, Offer, Origin, Recipient, RunId
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.services.admin_service import AdminService
from commserver.services.auth_service import AuthService
from commserver.services.docker_manager import DockerManager
from commserver.services.exec_service import ExecService
from commserver.services.file_store import FileStore
from commserver.services.ledger import DatabaseLedger
from commserver.services.run_service import RunService
from commserver.services.verifiers.database import DatabaseVerifier
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock, make_offer, settle
from tests.unit.graders.toml import exercise

PATIENCE = 60.0  # seconds of real time for the database and a few threads
ORIGIN = Origin("backend", "main", "ref")
QUEUE = Queue()
ONE_SLOT = Docker(slots=1)


async def until(condition: Callable[[], object]) -> None:
    """Let all else go on until something is so."""
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            if condition():
                return
            await settle(1)


def _copied(url: str, folder: Path) -> str:
    """Copy a SQLite database with what is not in its file yet; returns the copy's URL."""
    path = Path(url.removeprefix("sqlite:///"))
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), folder / name)
    return f"sqlite:///{folder / path.name}"


async def _taken_away(url: str) -> str:
    """Cut everybody off from a PostgreSQL database and return its new URL."""
    server, _, name = url.rpartition("/")
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await admin.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name
    )
    await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_again"')
    await admin.execute(f'ALTER DATABASE "{name}_again" ALLOW_CONNECTIONS true')
    await admin.close()
    return f"{url}_again"


class Site:
    """One process' worth of services on a database, or on the one in the state folder.

    events: what was published, in order. orphans: what `restore` told to release.
    """

    def __init__(
        self,
        state: Path,
        clock: FakeClock,
        *,
        url: str | None = None,
        queue: Queue = QUEUE,
        docker: Docker = ONE_SLOT,
        tell: Sequence[Recipient] = (),
        limit: int = 0,
        file_limit: int = 0,
    ) -> None:
        """`tell`: who is owed the end of every run, such as a webhook. limits: of the files."""
        self.state = state
        self.clock = clock
        self.url = url or f"sqlite:///{state / 'commserver.db'}"
        self.queue = queue
        self.database = DatabaseManager(self.url)
        self.daos = DaoManager()
        self.files = FileStore(state / "files", limit=limit, file_limit=file_limit)
        self.bus = EventBus()
        self.board = Board()
        self.ledger = DatabaseLedger(self.database, self.daos, clock, tell=tell)
        self.dispatcher = Dispatcher(self.board, self.ledger, self.bus, clock)
        self.runs = RunService(self.dispatcher, self.files)
        self.auth = AuthService(DatabaseVerifier(self.database, self.daos, clock))
        self.admin = AdminService(self.database, self.daos, self.files, clock)
        self.exec = ExecService(
            *(self.database, self.daos, self.files, self.dispatcher, self.runs),
            *(queue, docker, clock),
            tell=tell,
        )
        self.docker = docker
        self.events: list[Event] = []
        self.orphans: list[LeaseId] = []
        self.bus.subscribe(self.events.append, RunQueued, RunReplaced, RunLeased, RunEnded)

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        """Take up what is in the database, as a new process does."""
        async with self.database:
            self.orphans = await self.ledger.restore(self.board)
            for lease in self.orphans:
                await self.dispatcher.release(lease)
            yield self

    @asynccontextmanager
    async def working(self, *sandboxes: FakeSandbox) -> AsyncIterator[None]:
        """Let the slots of these engines work, and time act, until the end of the block."""
        manager = DockerManager(self.docker, sandboxes, self.runs, self.bus, self.clock)
        tasks = {asyncio.create_task(manager.run()), asyncio.create_task(self.dispatcher.run())}
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def killed(self) -> "Site":
        """Return the site of the next process, as if this one were killed now."""
        folder = self.state.with_name(f"{self.state.name}-again")
        shutil.copytree(self.state, folder)
        if self.url.startswith("sqlite"):
            url = _copied(self.url, folder)
        else:
            url = await _taken_away(self.url)
        return Site(folder, self.clock, url=url, queue=self.queue)

    # -- the platform -----------------------------------------------------------------------------

    async def exercise(
        self,
        grader: str | None = exercise(),
        *,
        language: str = "Python",
        course: str = "a course",
        title: str = "Double it",
    ) -> int:
        """Add an exercise, with this newest `scripts` row if any."""

        async def work(connection: AsyncConnection) -> int:
            daos = self.daos
            teacher = await daos.accounts.id_of(connection, "teacher")
            teacher = teacher or await daos.accounts.add(connection, "teacher")
            number = await daos.languages.ensure(connection, language)
            course_id = await daos.courses.ensure(
                connection, account_id=teacher, title=course, language_id=number
            )
            exercise_id = await daos.exercises.put(
                connection,
                account_id=teacher,
                course_id=course_id,
                title=title,
                instruction="",
                grade_max=20,
            )
            if grader is not None:
                await daos.scripts.add(connection, exercise_id, grader)
            return exercise_id

        return await self.database.write(work)

    async def attempt(
        self,
        exercise_id: int,
        files: Mapping[str, str] | None = None,
        *,
        student: str = "ada",
    ) -> AttemptId:
        """Add an attempt of one right file, or of others."""
        files = {"main.py": "print(42)"} if files is None else files
        account = await self.admin.account(student)
        sources = [SourceFile(name, content) for name, content in files.items()]
        return await self.admin.add_attempt(account, exercise_id, sources)

    async def edit(self, attempt: AttemptId, source: str, name: str = "main.py") -> None:
        """Give an attempt a newer file."""
        await self.database.write(
            lambda c: self.daos.codes.add(c, attempt, [SourceFile(name, source)], 0)
        )

    # -- doors ------------------------------------------------------------------------------------

    async def submit(self, attempt: AttemptId) -> RunId:
        return (await self.exec.submit(attempt, ORIGIN)).run

    async def lease(self, offer: Offer | None = None) -> Lease:
        """Lease the next run; there must be one."""
        [lease] = await self.runs.try_lease(offer or make_offer())
        return lease

    # -- what there is ----------------------------------------------------------------------------

    async def row(self, run: RunId) -> StoredRun:
        """Return the run's row; there must be one."""
        found = await self.database.read(lambda c: self.daos.executions.find(c, run))
        assert found is not None
        return found

    async def sql(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        """Return the rows that a statement gives, as a stranger would see them."""

        async def work(connection: AsyncConnection) -> list[tuple[object, ...]]:
            result = await connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.database.write(work)

    async def count(self, table: str) -> int:
        """Return how many rows a table has."""
        [(number,)] = await self.sql(f"SELECT count(*) FROM {table}")  # noqa: S608  # ours
        assert isinstance(number, int)
        return number

    async def results(self, attempt: AttemptId) -> list[tuple[object, ...]]:
        """Return each grade with each log of an attempt: one pair for one verdict."""
        return await self.sql(
            "SELECT value, content FROM grades JOIN logs USING (user_exercise_id)"
            " WHERE user_exercise_id = :attempt ORDER BY grades.id, logs.id",
            attempt=attempt,
        )

    def ends(self) -> list[RunEnded]:
        """Return the ends that were told, in order."""
        return [event for event in self.events if isinstance(event, RunEnded)]


async def hide_files(site: Site, attempt: AttemptId) -> None:
    """Let a live platform's view on PostgreSQL fail for the files of one attempt."""
    await site.sql("ALTER TABLE codes RENAME TO all_codes")
    await site.sql(
        "CREATE FUNCTION shown(attempt bigint, content text) RETURNS text LANGUAGE plpgsql AS"
        f" $$ BEGIN IF attempt = {attempt} THEN RAISE 'cannot be shown'; END IF;"
        " RETURN content; END $$"
    )
    await site.sql(
        "CREATE VIEW codes AS SELECT id, user_exercise_id, name, create_timestamp,"
        " modify_timestamp, shown(user_exercise_id, content) AS content FROM all_codes"
    )
