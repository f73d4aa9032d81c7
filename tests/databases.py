"""Databases for tests: hundreds of tests have one of their own."""

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

import asyncpg

from commserver.cluster import Cluster
from commserver.dao import migrations
from commserver.dao.database_manager import DatabaseManager

DEADLINE = 120.0  # seconds for a database to be made
BACKLOG = 4  # databases
LOST = (
    *(OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError),
    asyncpg.OperatorInterventionError,  # "terminating connection"
)
_numbers = itertools.count(1)


class _Hand:
    """One connection to a server, in a thread and a loop of its own, since tests have theirs."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None

    def execute(self, statement: str, copying: str = "") -> "Future[None]":
        """Have it do something; `copying` is added where the server knows of it."""
        return self._thread.submit(self._runner.run, self._execute(statement, copying))

    def close(self) -> None:
        self._thread.submit(self._runner.run, self._close()).result()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _execute(self, statement: str, copying: str) -> None:
        async with asyncio.timeout(DEADLINE):
            try:
                connection = await self._connected()
            except LOST:
                # A test before has ended the server, which is there again.
                self._connection = None
                connection = await self._connected()
            known = connection.get_server_version().major >= 15
            await connection.execute(f"{statement} {copying}" if known else statement)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None:
            self._connection = await asyncpg.connect(self._cluster.url("postgres"))
        await self._connection.fetchval("SELECT 1")
        return self._connection

    async def _close(self) -> None:
        if self._connection:
            await self._connection.close()


class Maker:
    """Makes and drops PostgreSQL databases, in a fraction of the time that psql takes.

    No test waits for what the one before it has left to be dropped.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._making, self._dropping = _Hand(cluster), _Hand(cluster)
        self._dropped: deque[Future[None]] = deque()
        self._ahead: dict[str | None, tuple[str, Future[None]]] = {}  # by template

    def create(self, template: str | None) -> str:
        """Return the name of a new database, empty or as `template` is.

        Nobody may be connected to the template. The next one of the kind is made ahead.
        """
        name, making = (
            self._ahead.pop(template) if template in self._ahead else self._make(template)
        )
        try:
            making.result()
        except LOST:  # a test has ended the server meanwhile
            name, making = self._make(template)
            making.result()
        self._ahead[template] = self._make(template)
        return name

    def _make(self, template: str | None) -> "tuple[str, Future[None]]":
        name = f"test_{next(_numbers)}"
        statement = f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"'
        return name, self._making.execute(statement, copying="STRATEGY file_copy")

    def drop(self, name: str) -> None:
        """Have a database removed soon, whoever is connected to it."""
        statement = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
        self._dropped.append(self._dropping.execute(statement))
        self._catch_up(BACKLOG)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        wait([making for _, making in self._ahead.values()])
        self._catch_up(0)

    def _catch_up(self, backlog: int) -> None:
        """Wait until no more than so many databases are still to be removed."""
        while len(self._dropped) > backlog:
            with suppress(*LOST):  # a test has ended the server: it stays until all are removed
                self._dropped.popleft().result()

    def close(self) -> None:
        """Leave the server."""
        self.settle()
        self._making.close()
        self._dropping.close()


def made(maker: Maker, template: str | None) -> Iterator[str]:
    """Yield the URL of a new database, which is dropped afterwards, whoever still uses it."""
    name = maker.create(template)
    yield maker.cluster.url(name)
    maker.drop(name)


def migrate(url: str) -> None:
    """Give a database every table."""

    async def work() -> None:
        async with DatabaseManager(url) as database:
            await migrations.upgrade(database, with_platform=True)

    with asyncio.Runner() as runner:
        runner.run(work())
