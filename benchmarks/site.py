"""The site that is measured: a real server in a process of its own; everybody else is here."""

import json
import os
import platform
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.floors import python_process
from commserver import operations
from commserver.cluster import Cluster
from commserver.config import load
from commserver.core.jobs import AttemptId
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.reference.backend import ReferenceBackend
from commserver.trial import SERVER_TOKEN, Browser, Trial

DATABASES = {
    "sqlite": "sqlite, WAL, synchronous=FULL",
    "postgresql": "postgresql, fsync=on, synchronous_commit=on",
}

EXERCISE = f"""
format = 1
key = "double"
course = "benchmark"
title = "Double it"
kind = "tests"
language = "python"

[[cases]]
name = "the only one"
input = "{python_process.STDIN.decode()}"
expected = "{python_process.STDOUT.decode().strip()}"
"""


@dataclass(slots=True)
class Site:
    """A running site with one student, whose attempts are written ahead."""

    trial: Trial
    backend: ReferenceBackend
    browser: Browser
    exercise: int
    attempts: list[AttemptId]
    slots: int
    folder: Path

    async def isolation(self) -> str:
        """Return what the executions had to themselves, as the records of their verdicts say."""
        executions = DaoManager().executions
        async with operations.opened(self.trial.config) as database:
            records = await database.read(
                lambda c: executions.records_of_exercise(c, self.exercise, len(self.attempts))
            )
        return ", ".join(sorted({json.loads(record)["isolation"] for record in records}))

    def cpu(self) -> float:
        """Return the server's user and system seconds so far."""
        assert self.trial.process is not None
        fields = Path(f"/proc/{self.trial.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def running(attempts: int, database: str) -> AsyncIterator[Site]:
    """Yield a site with so many attempts to push."""
    with TemporaryDirectory(prefix="commserver-bench-") as name, _url(database) as url:
        folder = Path(name)
        trial = Trial(folder / "site", database=url)
        await trial.prepare()
        exercise_folder = folder / "exercise"
        exercise_folder.mkdir()
        (exercise_folder / "exercise.toml").write_text(EXERCISE)
        async with trial.admin() as admin:
            exercise = await admin.import_exercise(exercise_folder, "teacher")
            account = await admin.account("student")
            token = await admin.new_token(account)
            source = [SourceFile("main.py", python_process.PROGRAM)]
            written = [await admin.add_attempt(account, exercise, source) for _ in range(attempts)]
        backend = ReferenceBackend(SERVER_TOKEN)
        await backend.start("127.0.0.1", trial.backend_port, None)
        async with trial.server():
            await backend.connected.wait()
            browser = await Browser().open(trial.address, token)
            slots = load().docker.slots
            yield Site(trial, backend, browser, exercise, written, slots, folder)
            await browser.close()
        await backend.stop()


@contextmanager
def _url(database: str) -> Iterator[str | None]:
    """Yield where the site's database is; None for a file in its folder."""
    if database == "sqlite":
        yield None
    else:
        with Cluster() as cluster:
            cluster.create("site")
            yield cluster.url("site")


def facts(database: str) -> dict[str, object]:
    """Return where and with what it was measured."""
    return {
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "database": DATABASES[database],
    }
