"""The ask door: run this attempt for me."""

import uuid
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.config import Docker, Queue
from commserver.core.dispatcher import Dispatcher, Submitted
from commserver.core.execution import Cause, ExecutionRequest, Failure
from commserver.core.jobs import (
    AttemptId,
    ContentHash,
    Job,
    Origin,
    OwnerId,
    Requirement,
    Requires,
    RunId,
    normalised,
)
from commserver.dao.attempts import Attempt
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import DefinitionError, NotFound
from commserver.graders import tests
from commserver.graders.content import Content
from commserver.graders.definition import is_definition
from commserver.graders.languages import LANGUAGES
from commserver.services.auth_service import owner_of
from commserver.services.file_store import FileStore
from commserver.services.run_service import RunService

log = structlog.get_logger(__name__)

LEASE_MARGIN = 120.0  # seconds a slot may need beside the sandboxed programs themselves
NOTHING = ContentHash("")  # the content of a run that is refused before it has any


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An attempt as the platform's tables have it at one moment."""

    attempt: Attempt
    files: tuple[SourceFile, ...]
    grader: str | None


class ExecService:
    """Takes attempts: freezes what is to be judged, and queues it.

    What cannot be judged ends at once, with a run that says why: so it is kept, told and never
    taken up again by mistake.
    """

    def __init__(
        self,
        database: DatabaseManager,
        daos: DaoManager,
        files: FileStore,
        dispatcher: Dispatcher,
        runs: RunService,
        queue: Queue,
        docker: Docker,
    ) -> None:
        self._database = database
        self._daos = daos
        self._files = files
        self._dispatcher = dispatcher
        self._runs = runs
        self._queue = queue
        self._languages = {
            alias.casefold(): ours for ours, names in docker.languages.items() for alias in names
        }

    async def submit(self, attempt: AttemptId, origin: Origin) -> Submitted:
        """Queue the attempt as it is now, by the rule "the same id again" (see `Board.submit`).

        Raises:
            NotFound: there is no such attempt, so there is nobody to tell.
            StoreError: nothing was taken; ask again.
        """

        async def snapshot(connection: AsyncConnection) -> Snapshot | None:
            found = await self._daos.attempts.find(connection, attempt)
            if found is None:
                return None
            files = await self._daos.codes.of_attempt(connection, attempt)
            grader = None
            if found.exercise_id is not None:
                grader = await self._daos.scripts.newest(connection, found.exercise_id)
            return Snapshot(found, files, grader)

        seen = await self._database.read(snapshot)
        if seen is None:
            raise NotFound("attempt", str(attempt))
        job = Job(
            id=RunId(str(uuid.uuid4())),
            origin=origin,
            owner=_owner(seen.attempt),
            course=str(seen.attempt.course_id or ""),
            content=NOTHING,
            requires=(),
            attempt=attempt,
            max_tries=self._queue.max_tries,
        )
        judged = self._judged(seen)
        if isinstance(judged, Failure):
            return await self._refuse(job, judged)
        content, lease = judged
        job = replace(
            job,
            content=await self._files.put(content.encode()),
            requires=_requires(content),
            lease=lease,
        )
        if not self._runs.could_run(job.requires):
            message = f"no engine has the image for {content.language}"
            return await self._refuse(job, Failure(Cause.IMAGE, message))
        submitted = await self._dispatcher.submit(job)
        log.info("run_queued", run=submitted.run, attempt=attempt, new=submitted.new)
        return submitted

    async def cancel(self, attempt: AttemptId) -> int:
        """End every run of the attempt that has not ended; returns how many were still to end."""
        runs = [job.id for job in self._dispatcher.board.runs_of_attempt(attempt)]
        return sum([await self._dispatcher.cancel(run) for run in runs])

    def _judged(self, seen: Snapshot) -> tuple[Content, float] | Failure:
        """Return what is to be judged and how long a slot may need for it, or why it cannot be."""
        if not seen.files:
            return Failure(Cause.NOT_FOUND, "the attempt has no files")
        if seen.grader is None or seen.attempt.grade_max is None:
            return Failure(Cause.NOT_FOUND, "the exercise has no grader")
        if self._full_for(seen.attempt.id):
            return Failure(Cause.FULL, "too many submissions are waiting; hand in again later")
        named = seen.attempt.language or ""
        language = self._languages.get(named.strip().casefold())
        if language is None or language not in LANGUAGES:
            return Failure(Cause.IMAGE, f"there is no image for the language {named!r}")
        if not is_definition(seen.grader):
            return Failure(Cause.EXERCISE, "correction scripts cannot be run yet")
        files = tuple(sorted((file.name, file.content) for file in seen.files))
        content = Content(language, seen.attempt.grade_max, files, seen.grader)
        try:
            plan = tests.plan(content)
        except DefinitionError as error:
            return Failure(Cause.EXERCISE, str(error))
        real = plan.real if isinstance(plan, ExecutionRequest) else 0.0
        return content, real + LEASE_MARGIN

    def _full_for(self, attempt: AttemptId) -> bool:
        """Return whether one run more is too many; an attempt that has one is no newcomer."""
        board = self._dispatcher.board
        return board.waiting() >= self._queue.limit and not board.runs_of_attempt(attempt)

    async def _refuse(self, job: Job, failure: Failure) -> Submitted:
        log.warning("run_refused", attempt=job.attempt, cause=failure.cause, why=failure.message)
        await self._dispatcher.refuse(job, failure)
        return Submitted(job.id, new=True)


def _owner(attempt: Attempt) -> OwnerId:
    """Return whose attempt it is; an attempt that is nobody's has nobody to tell."""
    return owner_of(attempt.account_id) if attempt.account_id is not None else OwnerId("")


def _requires(content: Content) -> Requires:
    """Return what a runner must offer to judge this."""
    image = LANGUAGES[content.language].image
    return normalised([Requirement("image", "=", (image,))])
