"""The exercises that the platform has: taken out again, and how students fare with them."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import ContentHash
from commserver.core.verdicts import CaseVerdict, Status
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import ConfigError, DefinitionError, NotFound
from commserver.graders import bundle, kinds
from commserver.graders.definition import is_definition
from commserver.services.exercise_folder import DEFINITION, INSTRUCTION, key_of
from commserver.services.file_store import FileStore

RUNS = 10_000  # the newest of an exercise that are counted


@dataclass(frozen=True, slots=True)
class Exported:
    """An exercise as its folder was when it was put in; `files` by their POSIX paths."""

    exercise: int
    title: str
    files: dict[str, bytes] = field(repr=False)


class CaseStatistics(NamedTuple):
    """How one case went. cpu, real, memory: the median of what it took, seconds and bytes.

    runs: how often it was run and judged. accepted: the share of them from 0 to 1.
    most: the most frequent other verdict, None where there is none.
    """

    name: str
    runs: int
    accepted: float
    most: Status | None
    cpu: float
    real: float
    memory: float


class Statistics(NamedTuple):
    """How an exercise goes. runs: those that were judged. unread: what this version cannot read."""

    exercise: int
    title: str
    runs: int
    accepted: float
    cases: tuple[CaseStatistics, ...]
    unread: int


class ExerciseService:
    """Reads what there is of exercises; who may see it has been asked before."""

    def __init__(self, database: DatabaseManager, daos: DaoManager, files: FileStore) -> None:
        self._database = database
        self._daos = daos
        self._files = files

    async def find(self, name: str) -> int:
        """Return the id of the exercise of this id or key.

        Raises:
            NotFound: there is none.
            ConfigError: several have this key.
        """
        if name.isascii() and name.isdecimal():
            return int(name)
        rows = await self._database.read(lambda c: self._daos.scripts.newest_of(c, having=name))
        found = await asyncio.to_thread(lambda: [n for n, row in rows if key_of(row) == name])
        if not found:
            raise NotFound("exercise", name)
        if len(found) > 1:
            ids = ", ".join(map(str, found))
            raise ConfigError([f"several exercises have the key {name}: say which of {ids}"])
        return found[0]

    async def export(self, exercise: int) -> Exported:
        """Return everything that was imported as this exercise.

        Raises:
            NotFound: there is none, or one of its large files is gone.
            DefinitionError: nothing that we could have imported grades it.
            StoreError: a large file cannot be read.
        """

        async def work(connection: AsyncConnection) -> tuple[str, str, str | None]:
            found = await self._daos.exercises.find(connection, exercise)
            if found is None:
                raise NotFound("exercise", str(exercise))
            row = await self._daos.scripts.newest(connection, exercise)
            return found.title, found.instruction, row

        title, instruction, row = await self._database.read(work)
        if row is None or not is_definition(row):
            has = "a correction script" if row else "nothing"
            raise DefinitionError(
                [f"exercise {exercise} is graded by {has}, which is not a definition"]
            )
        names = map(ContentHash, sorted(kinds.references(row)))
        bulk = {str(name): await self._files.get(name) for name in names}
        text, files = bundle.unpack(row, bulk)
        head = {DEFINITION: text.encode()}
        if instruction:
            head[INSTRUCTION] = instruction.encode()
        return Exported(exercise, title, head | files)

    async def statistics(self, exercise: int) -> Statistics:
        """Return how the newest runs of an exercise went, case by case as they are called now.

        Raises:
            NotFound: there is no such exercise.
            StoreError: the database did not answer.
        """

        async def work(connection: AsyncConnection) -> tuple[str, list[str]]:
            found = await self._daos.exercises.find(connection, exercise)
            if found is None:
                raise NotFound("exercise", str(exercise))
            records = await self._daos.executions.records_of_exercise(connection, exercise, RUNS)
            return found.title, records

        title, records = await self._database.read(work)
        return await asyncio.to_thread(_counted, exercise, title, records)


class _Verdict(msgspec.Struct):
    """What is counted of a verdict."""

    status: Status
    cases: tuple[CaseVerdict, ...]


class _Record(msgspec.Struct):
    """What is counted of a record, which has more and may be of another version."""

    verdict: _Verdict


def _counted(exercise: int, title: str, texts: Iterable[str]) -> Statistics:
    """Return what these records, the newest first, come to."""
    cases: dict[str, list[CaseVerdict]] = {}
    ends: Counter[Status] = Counter()
    unread = 0
    for text in texts:
        try:
            verdict = msgspec.json.decode(text, type=_Record).verdict
        except msgspec.MsgspecError:
            unread += 1
            continue
        ends[verdict.status] += 1
        for case in verdict.cases:
            cases.setdefault(case.name, []).append(case)
    runs = ends.total()
    return Statistics(
        exercise,
        title,
        runs,
        ends[Status.ACCEPTED] / runs if runs else 0.0,
        tuple(_case(name, judged) for name, judged in cases.items()),
        unread,
    )


def _case(name: str, judged: list[CaseVerdict]) -> CaseStatistics:
    ends = Counter(case.status for case in judged)
    accepted = ends.pop(Status.ACCEPTED, 0)
    # What did not compile has used nothing.
    run = [case for case in judged if case.status is not Status.COMPILE_ERROR] or judged
    return CaseStatistics(
        name,
        len(judged),
        accepted / len(judged),
        max(ends, key=lambda status: ends[status], default=None),
        median(case.cpu for case in run),
        median(case.real for case in run),
        median(case.memory for case in run),
    )
