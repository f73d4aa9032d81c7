"""`codes`: the files of attempts."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.jobs import AttemptId
from commserver.dao.dao import DAO
from commserver.dao.tables import codes


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a student handed in."""

    name: str
    content: str = field(repr=False)


class CodeDAO(DAO):
    """The files of attempts."""

    table = codes

    async def of_attempt(
        self, connection: AsyncConnection, attempt: AttemptId
    ) -> tuple[SourceFile, ...]:
        """Return the attempt's files by name; of rows that share a name the newest counts.

        A row without a name is no file, one without content an empty file.
        """
        query = (
            select(codes.c.name, codes.c.content)
            .where(codes.c.user_exercise_id == attempt)
            .order_by(codes.c.id)
        )
        rows = await connection.execute(query)
        newest = {row.name: row.content or "" for row in rows if row.name is not None}
        # Sorted here: databases differ in how they order letters.
        return tuple(SourceFile(name, newest[name]) for name in sorted(newest))

    async def add(
        self,
        connection: AsyncConnection,
        attempt: AttemptId,
        files: Iterable[SourceFile],
        at_ms: int,
    ) -> None:
        """Add files to an attempt; `at_ms` is when, epoch milliseconds."""
        rows = [
            {
                "user_exercise_id": attempt,
                "name": file.name,
                "content": file.content,
                "create_timestamp": at_ms,
                "modify_timestamp": at_ms,
            }
            for file in files
        ]
        if rows:
            await connection.execute(insert(codes), rows)
