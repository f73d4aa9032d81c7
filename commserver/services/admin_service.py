"""What the platform and its admins do by other means: for new sites, demos and tests."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.clock import Clock
from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.tokens import StoredToken
from commserver.errors import DefinitionError, NotFound
from commserver.graders.definition import Definition, is_definition, parse
from commserver.services import exercise_folder
from commserver.services.auth_service import fingerprint
from commserver.services.exercise_folder import ExerciseFolder, key_of
from commserver.services.file_store import FileStore

TOKEN_BYTES = 17  # 136 random bits
DAY = 86_400  # seconds


class AdminService:
    """Accounts, tokens, exercises and attempts in the platform's own tables.

    files: where large files of exercises are kept. who: what the audit calls whoever does it, such
    as "cli:root".
    """

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        files: FileStore,
        clock: Clock,
        *,
        who: str = "unknown",
    ) -> None:
        self._database = database
        self._daos = daos
        self._files = files
        self._clock = clock
        self._who = who

    async def account(self, username: str) -> int:
        """Return the account of this name, added if there was none and the platform is ours.

        Raises:
            NotFound: there is none, and a live platform adds its accounts itself.
        """
        return await self._database.write(lambda c: self._account(c, username))

    async def _account(self, connection: AsyncConnection, username: str) -> int:
        found = await self._daos.accounts.id_of(connection, username)
        if found is not None:
            return found
        if not await connection.run_sync(migrations.keeps_platform):
            raise NotFound("account", username, f"there is no account {username}")
        return await self._daos.accounts.add(connection, username)

    async def new_token(self, account: int, *, days: int = 1, label: str = "") -> str:
        """Return a new token for an account; only its hash is kept.

        days: how long it lives after each use.
        """
        token = secrets.token_urlsafe(TOKEN_BYTES)
        hashed = fingerprint(token)
        at = self._clock.utc()

        async def work(connection: AsyncConnection) -> None:
            await self._daos.tokens.add(
                connection, hashed, account_id=account, life=days * DAY, at=at, label=label
            )
            detail = f"fingerprint {hashed}, {days} days"
            await self._audited(connection, "token.create", f"account {account}", detail)

        await self._database.write(work)
        return token

    async def tokens(self, account: int | None = None) -> Sequence[StoredToken]:
        """Return an account's tokens, or everybody's."""
        return await self._database.read(lambda c: self._daos.tokens.list(c, account))

    async def revoke(self, sha256: str) -> None:
        """Let a token open nothing any more.

        Raises:
            NotFound: there is none of this hash that could.
        """
        now = self._clock.utc()

        async def work(connection: AsyncConnection) -> None:
            if not await self._daos.tokens.revoke(connection, sha256, now):
                raise NotFound("token", sha256)
            await self._audited(connection, "token.revoke", f"token {sha256}")

        await self._database.write(work)

    async def _audited(
        self, connection: AsyncConnection, action: str, target: str, detail: str = ""
    ) -> None:
        at = self._clock.utc()
        await self._daos.audit.add(connection, self._who, action, target, detail, at=at)

    async def import_exercise(
        self, folder: Path, teacher: str, *, course: str = "", exercise: int | None = None
    ) -> int:
        """Put the exercise in `folder` into the platform's tables; see `put_exercise`.

        Raises:
            DefinitionError: it is wrong; nothing was written.
        """
        found = await asyncio.to_thread(exercise_folder.read, folder)
        return await self.put_exercise(found, teacher, course=course, exercise=exercise)

    async def put_exercise(
        self,
        folder: ExerciseFolder,
        teacher: str,
        *,
        course: str = "",
        exercise: int | None = None,
    ) -> int:
        """Put an exercise into the platform's tables, its large files into ours; returns its id.

        It is the teacher's of this key in the course, else the one of this title, else a new one.
        It may be put again: the newest counts from then on. Of a live platform only the grader is
        written.

        course: its title, where it is to be another than the definition says. exercise: its id,
        where that is known.

        Raises:
            NotFound: a live platform has no such teacher, course or exercise; nothing was written.
            StoreError: it could not be written; what is in the tables is as it was.
        """
        if folder.bulk:
            await self._files.measure()
        for content in folder.bulk.values():  # before the row that needs them
            await self._files.put(content)

        async def work(connection: AsyncConnection) -> int:
            ours = await connection.run_sync(migrations.keeps_platform)
            if exercise is not None:
                number = exercise
                if await self._daos.exercises.find(connection, number) is None:
                    raise NotFound("exercise", str(number))
            elif ours:
                number = await self._put(connection, folder, teacher, course)
            else:
                number = await self._found(connection, folder, teacher, course)
            if await self._daos.scripts.newest(connection, number) != folder.row:
                await self._daos.scripts.add(connection, number, folder.row)
            title = folder.definition.title
            await self._audited(connection, "exercise.import", f"exercise {number}", title)
            return number

        return await self._database.write(work)

    async def _put(
        self, connection: AsyncConnection, folder: ExerciseFolder, teacher: str, course: str
    ) -> int:
        """Make the rows of an exercise say so, with all that they need."""
        daos, definition = self._daos, folder.definition
        author = await self._account(connection, teacher)
        language = await daos.languages.ensure(connection, definition.language)
        course_id = await daos.courses.ensure(
            connection,
            account_id=author,
            title=course or definition.course,
            language_id=language,
        )
        return await daos.exercises.put(
            connection,
            account_id=author,
            course_id=course_id,
            title=definition.title,
            instruction=folder.instruction,
            grade_max=definition.grade_max,
            known=await self._of_key(connection, course_id, definition.key),
        )

    async def _found(
        self, connection: AsyncConnection, folder: ExerciseFolder, teacher: str, course: str
    ) -> int:
        """Return the id of the live platform's exercise that this is.

        Raises:
            NotFound: there is none.
        """
        definition = folder.definition
        author = await self._account(connection, teacher)
        title = course or definition.course
        course_id = await self._daos.courses.id_of(connection, account_id=author, title=title)
        number = None
        if course_id is not None:
            number = await self._of_key(connection, course_id, definition.key)
            if number is None:
                number = await self._daos.exercises.id_of(connection, course_id, definition.title)
        if number is None:
            why = f"{teacher} has no exercise {definition.title!r} in a course {title!r}"
            advice = "a live platform makes its exercises itself: name its own with --exercise ID"
            raise NotFound("exercise", definition.title, f"{why}; {advice}")
        return number

    async def _of_key(self, connection: AsyncConnection, course: int, key: str) -> int | None:
        rows = await self._daos.scripts.newest_of(connection, course=course, having=key)
        return next((number for number, row in rows if key_of(row) == key), None)

    async def expected_files(self, exercise: int) -> Sequence[str]:
        """Return how the files are called that are to be handed in, none where any may be.

        Raises:
            NotFound: there is no such exercise.
        """

        async def work(connection: AsyncConnection) -> str | None:
            if await self._daos.exercises.find(connection, exercise) is None:
                raise NotFound("exercise", str(exercise))
            return await self._daos.scripts.newest(connection, exercise)

        grader = await self._database.read(work)
        if grader is None or not is_definition(grader):
            return ()
        try:
            return parse(grader).submission.files
        except DefinitionError:  # whoever hands in is told so once it is judged
            return ()

    async def add_attempt(
        self, account: int, exercise: int, files: Sequence[SourceFile]
    ) -> AttemptId:
        """Write an attempt as the platform does when a student hands in.

        Raises:
            NotFound: there is no such exercise.
        """
        at_ms = int(self._clock.utc().timestamp() * 1000)

        async def work(connection: AsyncConnection) -> AttemptId:
            if await self._daos.exercises.find(connection, exercise) is None:
                raise NotFound("exercise", str(exercise))
            attempt = await self._daos.attempts.add(
                connection, account_id=account, exercise_id=exercise
            )
            await self._daos.codes.add(connection, attempt, files, at_ms)
            return attempt

        return await self._database.write(work)

    async def result(self, attempt: AttemptId) -> tuple[int | None, str | None]:
        """Return the attempt's newest grade and log, as its student's page would read them."""

        async def work(connection: AsyncConnection) -> tuple[int | None, str | None]:
            grade = await self._daos.grades.latest(connection, attempt)
            return grade, await self._daos.attempt_logs.latest(connection, attempt)

        return await self._database.read(work)


def read_exercise(folder: Path) -> tuple[str, Definition]:
    """Return the text and meaning of a folder's `exercise.toml`.

    Raises:
        DefinitionError: it is not there, or wrong.
    """
    found = exercise_folder.read(folder)
    return found.text, found.definition
