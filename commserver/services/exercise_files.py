"""Which of the stored files are large files of exercises, and still needed."""

import asyncio
from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao.scripts import ScriptDAO
from commserver.errors import StoreError
from commserver.graders import kinds
from commserver.graders.content import Content

WORD = "sha256"  # is in every grader that refers to a file
AT_ONCE = 50  # rows of `scripts` that are in memory at a time


async def of_exercises(connection: AsyncConnection, scripts: ScriptDAO) -> set[str]:
    """Return the sha256 of every file that a row of `scripts` refers to, old rows included."""
    found: set[str] = set()
    after = 0
    while rows := await scripts.having(connection, WORD, after=after, limit=AT_ONCE):
        for _, grader in rows:
            found |= await asyncio.to_thread(kinds.references, grader)
        after, _ = rows[-1]
    return found


def of_content(stored: bytes) -> Collection[str] | None:
    """Return the sha256 of every file that a stored content refers to; None for what is none."""
    try:
        content = Content.decode(stored)
    except StoreError:
        return None
    return kinds.references(content.grader) if WORD in content.grader else ()
