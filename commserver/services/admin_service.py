"""What the platform and its admins do by other means: for new sites, demos and tests."""

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
from commserver.services.auth_service import fingerprint

TOKEN_BYTES = 17  # 136 random bits
DAY = 86_400  # seconds


class AdminService:
    """Accounts, tokens, exercises and attempts in the platform's own tables.

    who: what the audit calls whoever does it, such as "cli:root".
    """

    def __init__(
        self, database: DatabaseManager, daos: DaoManager, clock: Clock, *, who: str = "unknown"
    ) -> None:
        self._database = database
        self._daos = daos
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

    async def import_exercise(self, folder: Path, teacher: str) -> int:
        """Put the exercise in `folder` into the platform's tables; returns its id.

        It may be imported again: the newest counts from then on.

        Raises:
            DefinitionError: it is wrong; nothing was written.
            NotFound: a live platform has no such teacher; nothing was written.
        """
        text, definition = read_exercise(folder)
        instruction = folder / "instruction.md"
        told = _text(instruction) if instruction.exists() else ""

        async def work(connection: AsyncConnection) -> int:
            daos = self._daos
            author = await self._account(connection, teacher)
            language = await daos.languages.ensure(connection, definition.language)
            course = await daos.courses.ensure(
                connection, account_id=author, title=definition.course, language_id=language
            )
            exercise = await daos.exercises.put(
                connection,
                account_id=author,
                course_id=course,
                title=definition.title,
                instruction=told,
                grade_max=definition.grade_max,
            )
            if await daos.scripts.newest(connection, exercise) != text:
                await daos.scripts.add(connection, exercise, text)
            target = f"exercise {exercise}"
            await self._audited(connection, "exercise.import", target, definition.title)
            return exercise

        return await self._database.write(work)

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
    path = folder / "exercise.toml"
    text = _text(path)
    try:
        return text, parse(text)
    except DefinitionError as error:
        raise DefinitionError([f"{path}: {problem}" for problem in error.problems]) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError([f"{path}: {error}"]) from error
