"""Databases for tests: hundreds of tests have one of their own.

A PostgreSQL database takes longer to be made than many a test takes. One that a test has only put
rows into is emptied and serves another test; any other is replaced.
"""

import asyncio
import itertools
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from commserver.cluster import Cluster
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager

DEADLINE = 120.0  # seconds for a database to be made
LEAVING = 0.5  # seconds for connections to be gone that were closed
LOOK = 0.005  # seconds between two looks whether they are
GROWTH = 4 << 20  # bytes that deleted rows may take before a new database is quicker
LOST = (
    *(OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError),
    asyncpg.OperatorInterventionError,  # "terminating connection"
    asyncpg.InternalClientError,  # "another operation is in progress": the one that was cut off
)
T = TypeVar("T")
_numbers = itertools.count(1)

# Every table of a database, and whether no test may have changed it: a catalogue, or it has rows.
TABLES = """
    SELECT oid::regclass::text,
           relnamespace = 'pg_catalog'::regnamespace OR pg_relation_size(oid) > 0
    FROM pg_class WHERE relkind = 'r' AND NOT relisshared
"""
# How many rows those have, how many of them were written later, and whether nothing is different
# that is noted elsewhere.
STATE = """
    SELECT count(*), count(*) FILTER (WHERE age(xmin) < age('{xid}'::xid)),
           (SELECT datacl IS NULL AND datallowconn AND datconnlimit = -1
                   AND oid NOT IN (SELECT setdatabase FROM pg_db_role_setting)
                   AND pg_database_size(oid) < {size}
            FROM pg_database WHERE datname = current_database())
    FROM ({rows}) AS rows
"""
RESTART = """
    SELECT setval(seqrelid, seqstart, false) FROM pg_sequence
    WHERE pg_sequence_last_value(seqrelid) IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class _Untouched:
    """What all databases of a template are like as long as nobody has used them.

    state: what asks for it. rows: what that tells. empty: what removes the rows of all others.
    """

    state: str
    rows: int
    empty: str

    @classmethod
    async def of(cls, connection: asyncpg.Connection) -> "_Untouched":
        """Look at a database that is new."""
        tables = await connection.fetch(TABLES)
        kept = [f"SELECT xmin FROM {name}" for name, kept in tables if kept]  # noqa: S608
        state = STATE.format(
            rows=" UNION ALL ".join(kept),
            xid=await connection.fetchval("SELECT pg_current_xact_id()::xid"),
            size=GROWTH + await connection.fetchval("SELECT pg_database_size(current_database())"),
        )
        [(rows, _, _)] = await connection.fetch(state)
        others = [f"DELETE FROM {name}" for name, kept in tables if not kept]  # noqa: S608
        # In any order: this lets no trigger look at who refers to whom.
        at_once = "SET session_replication_role = replica"
        return cls(state, rows, ";".join([at_once, *others, RESTART]))

    async def restored(self, connection: asyncpg.Connection) -> bool:
        """Make a database so again; False if more was changed than rows."""
        [state] = await connection.fetch(self.state)
        if tuple(state) != (self.rows, 0, True):
            return False
        await connection.execute(self.empty)
        return True


class Maker:
    """Hands out PostgreSQL databases and takes them back.

    It works in a thread and a loop of its own, since tests have theirs: no test waits for what the
    one before it has left to be done.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._admin: asyncpg.Connection | None = None
        self._untouched: dict[str | None, _Untouched] = {}  # by template
        self._free: defaultdict[str | None, deque[Future[str]]] = defaultdict(deque)  # likewise

    def create(self, template: str | None) -> str:
        """Return the name of a database that is empty or as `template` is.

        Nobody may be connected to the template. There is always one more of the kind ahead.
        """
        free = self._free[template]
        ready = free.popleft() if free else self._do(self._made(template))
        if not free:
            free.append(self._do(self._made(template)))
        with suppress(*LOST):  # a test had ended the server meanwhile
            return ready.result()
        return self._do(self._made(template)).result()

    def take_back(self, name: str, template: str | None) -> None:
        """Have a database that was created be had again, or another instead, if in doubt."""
        self._free[template].append(self._do(self._restored(name, template)))

    def settle(self) -> None:
        """Wait until nothing is under way."""
        wait([ready for free in self._free.values() for ready in free])

    def close(self) -> None:
        """Leave the server."""
        self._do(self._leave()).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _do(self, work: Coroutine[None, None, T]) -> "Future[T]":
        return self._thread.submit(self._runner.run, work)

    async def _made(self, template: str | None) -> str:
        name = f"test_{next(_numbers)}"
        async with asyncio.timeout(DEADLINE):
            admin = await self._connected()
            known = admin.get_server_version().major >= 15
            copying = "STRATEGY file_copy" if known else ""
            await admin.execute(
                f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}" {copying}'
            )
            if template not in self._untouched:
                async with self._inside(name) as connection:
                    self._untouched[template] = await _Untouched.of(connection)
        return name

    async def _restored(self, name: str, template: str | None) -> str:
        async with asyncio.timeout(DEADLINE):
            with suppress(*LOST, asyncpg.PostgresError):  # it is away, or has another name
                if await self._left(name):
                    async with self._inside(name) as connection:
                        restored = await self._untouched[template].restored(connection)
                    if restored and await self._left(name):
                        return name
            admin = await self._connected()
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        return await self._made(template)

    async def _left(self, name: str) -> bool:
        """Wait until nobody is connected to a database; False if somebody stays."""
        admin = await self._connected()
        for _ in range(int(LEAVING / LOOK)):
            if not await admin.fetch("SELECT FROM pg_stat_activity WHERE datname = $1", name):
                return True
            await asyncio.sleep(LOOK)
        return False

    @asynccontextmanager
    async def _inside(self, name: str) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.cluster.url(name))
        try:
            yield connection
        finally:
            await connection.close()

    async def _connected(self) -> asyncpg.Connection:
        """Return a connection to no test's database, a new one where a test has ended the last."""
        if self._admin:
            with suppress(*LOST):
                await self._admin.fetchval("SELECT 1")
                return self._admin
        self._admin = await asyncpg.connect(self.cluster.url("postgres"))
        return self._admin

    async def _leave(self) -> None:
        if self._admin:
            await self._admin.close()


def made(maker: Maker, template: str | None) -> Iterator[str]:
    """Yield the URL of a database of a test's own, and take it back, whoever still uses it."""
    name = maker.create(template)
    yield maker.cluster.url(name)
    maker.take_back(name, template)


def migrate(url: str) -> None:
    """Give a database every table."""

    async def work() -> None:
        async with DatabaseManager(url) as database:
            await migrations.upgrade(database, with_platform=True)

    with asyncio.Runner() as runner:
        runner.run(work())
