"""`baseline`: which attempts are older than this installation, and what there is above them."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId, Purpose
from commserver.dao.column_types import LARGEST_ID
from commserver.dao.dao import DAO
from commserver.dao.tables import (
    baseline,
    codes,
    courses,
    executions,
    exercises,
    grades,
    languages,
    scripts,
    user_exercises,
)

# What tells a changed attempt from an unchanged one while no file of it is handed over: language
# and highest grade, the newest grader's id; how many files, their highest id, their latest change
# and the sum of their lengths. Empty where nobody asked for it.
Fingerprint = tuple[object, ...]


class Page(NamedTuple):
    """Attempts that have files and a grader, in the order of their ids.

    last: the id after which the next page begins, None when this was the last one.
    """

    attempts: Mapping[AttemptId, Fingerprint]
    last: AttemptId | None


class BaselineDAO(DAO):
    """Which attempts are older than this installation, and what there is above them.

    The platform's tables may have no index at all: a page takes a few plain statements, none of
    which reads a table again for each row of another.
    """

    table = baseline

    async def ensure(self, connection: AsyncConnection, *, at: datetime) -> AttemptId:
        """Return the newest attempt of before the first start: the transaction may write.

        It is written down once, whatever becomes of the platform's rows; only where runs are
        forgotten it is raised later.
        """
        found = await self.attempt(connection)
        if found is not None:
            return found
        u = user_exercises.c
        query = select(func.max(u.id)).where(u.id <= LARGEST_ID)  # what is above is no number
        newest: int | None = await self._value(connection, query)
        attempt = AttemptId(newest or 0)
        await connection.execute(baseline.insert().values(single=1, attempt=attempt, created_at=at))
        return attempt

    async def attempt(self, connection: AsyncConnection) -> AttemptId | None:
        """Return the newest attempt that is no news, None before the first start."""
        return await self._value(connection, select(baseline.c.attempt))

    async def graded(self, connection: AsyncConnection, attempt: AttemptId) -> bool:
        """Return whether an attempt has a grade, whoever gave it."""
        return bool(await _among(connection, grades.c.user_exercise_id, [attempt]))

    async def unasked(
        self,
        connection: AsyncConnection,
        *,
        after: AttemptId,
        limit: int,
        without: Collection[AttemptId] = (),
    ) -> Page:
        """Return those of the next `limit` attempts without a run that have no grade either.

        The next ones above `after` and the baseline, `without` some.
        """
        u = user_exercises.c
        query = select(u.id, u.exercise_id).where(
            *_next(await self._after(connection, after), without), _NO_RUN
        )
        query = query.order_by(u.id).limit(limit)
        found = (await connection.execute(query)).all()
        last = AttemptId(found[-1].id) if len(found) == limit else None
        with_files = await _among(connection, codes.c.user_exercise_id, [id for id, _ in found])
        graded = await _among(connection, grades.c.user_exercise_id, with_files)
        left = [row for row in found if row[0] in with_files - graded]
        gradable = await _among(connection, scripts.c.exercise_id, {number for _, number in left})
        return Page({AttemptId(id): () for id, number in left if number in gradable}, last)

    async def fingerprints(
        self,
        connection: AsyncConnection,
        *,
        after: AttemptId,
        limit: int,
        without: Collection[AttemptId] = (),
    ) -> Page:
        """Return the next `limit` attempts, run or not, each with its fingerprint.

        The next ones above `after` and the baseline, `without` some.
        """
        after = await self._after(connection, after)
        u = user_exercises.c
        query = (
            select(u.id, u.exercise_id, languages.c.name, exercises.c.grade_max)
            .outerjoin_from(user_exercises, exercises, exercises.c.id == u.exercise_id)
            .outerjoin(courses, courses.c.id == exercises.c.course_id)
            .outerjoin(languages, languages.c.id == courses.c.language_id)
            .where(*_next(after, without))
            .order_by(u.id)
            .limit(limit)
        )
        found = (await connection.execute(query)).all()
        if not found:
            return Page({}, None)
        last = AttemptId(found[-1].id)
        graders = await _newest_graders(connection, {row.exercise_id for row in found})
        files = await _files(connection, after, last, without)
        attempts = {
            AttemptId(id): (language, grade_max, graders[exercise], *files[id])
            for id, exercise, language, grade_max in found
            if exercise in graders and id in files
        }
        return Page(attempts, last if len(found) == limit else None)

    async def first(
        self,
        connection: AsyncConnection,
        *,
        after: AttemptId,
        without: Collection[AttemptId],
        unasked: bool,
    ) -> AttemptId | None:
        """Return the first attempt of such a page, whatever else the database cannot give of it."""
        u = user_exercises.c
        query = select(u.id).where(*_next(await self._after(connection, after), without))
        if unasked:
            query = query.where(_NO_RUN)
        return await self._value(connection, query.order_by(u.id))

    async def _after(self, connection: AsyncConnection, after: AttemptId) -> AttemptId:
        return max(after, await self.attempt(connection) or after)


_NO_RUN = ~exists().where(
    executions.c.user_exercise_id == user_exercises.c.id,
    executions.c.purpose == Purpose.SUBMIT,
)


def _next(after: AttemptId, without: Collection[AttemptId]) -> Iterator[ColumnElement[bool]]:
    id = user_exercises.c.id
    yield id > after
    yield id <= LARGEST_ID
    if without:
        yield id.not_in(without)


async def _among(
    connection: AsyncConnection, column: ColumnElement[int], numbers: Collection[int | None]
) -> set[int]:
    """Return which of these numbers a column has; one statement, or none for no numbers."""
    wanted = [number for number in numbers if number is not None]
    if not wanted:
        return set()
    query = select(column).where(column.in_(wanted)).distinct()
    return set(await connection.scalars(query))


async def _newest_graders(
    connection: AsyncConnection, exercises: Collection[int | None]
) -> dict[int, int]:
    """Return the id of the newest grader of each of these exercises that has one."""
    s = scripts.c
    wanted = [number for number in exercises if number is not None]
    query = select(s.exercise_id, func.max(s.id)).where(s.exercise_id.in_(wanted))
    rows = await connection.execute(query.group_by(s.exercise_id))
    return {row.exercise_id: row[1] for row in rows}


async def _files(
    connection: AsyncConnection, after: int, last: int, without: Collection[AttemptId]
) -> dict[int, tuple[Any, ...]]:
    """Return what of its fingerprint is about files, for each attempt in a range of ids."""
    c = codes.c
    query = (
        select(
            c.user_exercise_id,
            func.count(),
            func.max(c.id),
            func.max(c.modify_timestamp),
            func.sum(func.length(c.content)),
        )
        .where(c.user_exercise_id > after, c.user_exercise_id <= last)
        .group_by(c.user_exercise_id)
    )
    if without:
        query = query.where(c.user_exercise_id.not_in(without))
    return {id: tuple(rest) for id, *rest in await connection.execute(query)}
