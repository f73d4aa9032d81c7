"""`commserver backend --script`: attempts whose ends are known, as a platform's CI wants them."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver import operations
from commserver.config import Config
from commserver.core.clock import SystemClock
from commserver.core.jobs import AttemptId
from commserver.core.verdicts import Status
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import ConfigError
from commserver.services.admin_service import AdminService, read_exercise

EXAMPLE = migrations.ROOT / "examples" / "python-101" / "double"
BREAKS = '\n[[cases]]\nname = "broken on purpose: it expects nothing"\n'
STUDENT, TEACHER = "commserver-script", "commserver-teacher"

ENDS = {  # what each word's attempt must end with, as the reference backend's --expect says it
    "right": Status.ACCEPTED.value,
    "wrong": Status.WRONG_ANSWER.value,
    "error": "500/teacher",
}


def parsed(text: str) -> list[str]:
    """Return the words in `right,wrong,error`.

    Raises:
        ConfigError: there are others.
    """
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in ENDS]:
        raise ConfigError([f"--script: {unknown[0]!r} is none of {', '.join(ENDS)}"])
    return words


async def written(config: Config, words: Sequence[str]) -> list[str]:
    """Write an attempt for each word; returns what makes the reference backend push and check them.

    Raises:
        ConfigError: the platform's tables are a live platform's.
    """
    async with operations.ready(config) as database:
        if not await database.read(lambda c: c.run_sync(migrations.keeps_platform)):
            raise ConfigError(["--script writes attempts, and these tables are a live platform's"])
        daos = DaoManager()
        admin = AdminService(database, daos, operations.stored(config), SystemClock())
        attempts = [await _attempt(word, admin, database, daos) for word in words]
    ends = ",".join(f"{id}={ENDS[word]}" for id, word in zip(attempts, words, strict=True))
    return [*_link(config), "--expect", ends]


def _link(config: Config) -> list[str]:
    """Return where a commserver with this configuration dials, for the reference backend."""
    for link in config.backend.each.values():
        return ["--port", str(link.port), "--token", link.secret(), "--framing", link.framing]
    return []


async def _attempt(
    word: str, admin: AdminService, database: DatabaseManager, daos: DaoManager
) -> AttemptId:
    if word == "error":
        exercise = await _broken_exercise(admin, database, daos)
    else:
        exercise = await admin.import_exercise(EXAMPLE, TEACHER)
    solution = EXAMPLE / ("solutions/no-negatives.py" if word == "wrong" else "solutions/right.py")
    source = SourceFile("main.py", solution.read_text(encoding="utf-8"))
    return await admin.add_attempt(await admin.account(STUDENT), exercise, [source])


async def _broken_exercise(admin: AdminService, database: DatabaseManager, daos: DaoManager) -> int:
    """Put the example, but with a grader that cannot be used, beside it; returns its id."""
    text, definition = read_exercise(EXAMPLE)
    broken = text + BREAKS
    teacher = await admin.account(TEACHER)

    async def work(connection: AsyncConnection) -> int:
        language = await daos.languages.ensure(connection, definition.language)
        course = await daos.courses.ensure(
            connection, account_id=teacher, title=definition.course, language_id=language
        )
        exercise = await daos.exercises.put(
            connection,
            account_id=teacher,
            course_id=course,
            title=f"{definition.title} (broken)",
            instruction="",
            grade_max=definition.grade_max,
        )
        if await daos.scripts.newest(connection, exercise) != broken:
            await daos.scripts.add(connection, exercise, broken)
        return exercise

    return await database.write(work)
