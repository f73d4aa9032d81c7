"""The ask door: run this attempt for me."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.config import Docker, Queue
from commserver.core.clock import Clock
from commserver.core.dispatcher import Dispatcher, Submitted
from commserver.core.finals import Notice
from commserver.core.jobs import (
    SWEEP,
    AttemptId,
    ContentHash,
    Job,
    Origin,
    OwnerId,
    Recipient,
    Requirement,
    Requires,
    RunId,
    content_hash,
    normalised,
)
from commserver.core.verdicts import Cause, Failure
from commserver.dao.attempts import Attempt
from commserver.dao.codes import SourceFile
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.errors import (
    AlreadyExists,
    DefinitionError,
    NotFound,
    StoreError,
    StoreFull,
    StoreRefused,
)
from commserver.graders import kinds
from commserver.graders.content import Content, Draft
from commserver.graders.languages import LANGUAGES
from commserver.services.auth_service import owner_of
from commserver.services.file_store import FileStore
from commserver.services.run_service import RunService, lease_for

log = structlog.get_logger(__name__)

LOOK_AGAIN = (0.1, 0.3, 1.0, 3.0)  # seconds until each further look at what is not there yet
FURTHER_LOOKS = 2  # at the same time, so that those who are there do not wait for them
NOBODYS = AttemptId(0)  # platforms count from 1
NO_ROOM = "there is no room for what was handed in; hand in again later"
TOO_LONG = "what was handed in is, with its exercise, longer than may be kept"
ERASED = ContentHash("")  # the content of a run that has none: erased, or not to be read


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An attempt as the tables have it at one moment.

    newest: the run of what it handed in last. `contents`: what it was ever run with, and `graded`
    whether it has a grade, both where the sweep looks.
    """

    attempt: Attempt
    files: tuple[SourceFile, ...]
    grader: str | None
    newest: StoredRun | None = None
    contents: frozenset[ContentHash] = frozenset()
    graded: bool = False

    @property
    def gap(self) -> str:
        """What is missing between the attempt and its grader, in words."""
        if self.attempt.exercise_id is None:
            return "the attempt is of no exercise"
        if self.grader is None:
            return "the exercise has no grader"
        return "the exercise has no highest grade"


@dataclass(frozen=True, slots=True)
class Frozen:
    """What an attempt handed in, with the name under which it is stored, if it can be judged."""

    draft: Draft
    encoded: bytes = field(repr=False)
    name: ContentHash


@dataclass(frozen=True, slots=True)
class _Judgeable:
    """What a runner must have, the seconds it may need, and the files of the exercise it reads."""

    requires: Requires
    lease: float
    references: frozenset[str]


@dataclass(slots=True)
class _Turn:
    """The submissions of one attempt that are being taken: one, and those that wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


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
        clock: Clock,
        *,
        tell: Sequence[Recipient] = (),
    ) -> None:
        """`tell`: who is owed the end of every run beside its student and whoever asked."""
        self._database = database
        self._daos = daos
        self._files = files
        self._dispatcher = dispatcher
        self._runs = runs
        self._queue = queue
        self._clock = clock
        self._tell = tuple(tell)
        self._languages = {
            alias.casefold(): ours for ours, names in docker.languages.items() for alias in names
        }
        self._turns: dict[AttemptId, _Turn] = {}
        self._looks = asyncio.Semaphore(FURTHER_LOOKS)

    async def submit(
        self,
        attempt: AttemptId,
        origin: Origin,
        tell: Sequence[Recipient] = (),
        *,
        patient: bool = False,
        meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Submitted:
        """Queue the attempt as it is now, by the rule "the same id again" (see `Board.submit`).

        A run that the sweep has made of this very content becomes `origin`'s, and nothing begins.

        tell: who is owed the run's end for asking, whether or not the run is new.
        patient: look again for an attempt that is not there, or has no files, `LOOK_AGAIN` seconds
        later: backends may ask before they commit.
        meanwhile: entered for each pause until it is looked for again: nothing is under way then.

        Raises:
            NotFound: there is no such attempt, so there is nobody to tell.
            StoreError: nothing was taken; ask again.
        """
        submitted = await self._submit(attempt, origin, tell, certain=not patient)
        pauses = list(LOOK_AGAIN) if patient else []
        while pauses and submitted is None:
            with meanwhile():
                await self._clock.wait(asyncio.Event(), self._clock.now() + pauses.pop(0))
                await self._looks.acquire()
            try:
                submitted = await self._submit(attempt, origin, tell, certain=not pauses)
            finally:
                self._looks.release()
        if submitted is None:
            raise NotFound("attempt", str(attempt))
        return submitted

    async def _submit(
        self, attempt: AttemptId, origin: Origin, tell: Sequence[Recipient], *, certain: bool
    ) -> Submitted | None:
        """Return None for an attempt that is not there or, unless that is certain, has no files."""
        async with self._turn(attempt):
            try:
                seen = await self._database.read(lambda c: self._asked(c, attempt))
            except StoreRefused:
                return await self._unreadable(attempt, origin, tell)
            if seen is None or not (seen.files or certain):
                return None
            frozen = await self._frozen(seen)
            submitted = await self._claimed(seen.newest, frozen.name, origin)
            submitted = submitted or await self._take(seen, frozen, origin, tell)
            everybody = (*tell, *self._tell)
            if everybody and not submitted.new:
                await self._told(submitted.run, origin, everybody)
            return submitted

    async def _told(self, run: RunId, origin: Origin, tell: Sequence[Recipient]) -> None:
        """Owe the end of a run that is there, or was a moment ago, to these as well."""
        if await self._dispatcher.ask(run, origin, tell):
            return

        async def work(connection: AsyncConnection) -> list[Notice]:
            new = await self._daos.executions.tell(connection, run, tell)
            at = self._clock.utc()
            return [await self._daos.notices.add(connection, to, run, at) for to in sorted(new)]

        self._dispatcher.asked(run, await self._database.write(work))

    async def content(self, attempt: AttemptId) -> ContentHash | None:
        """Return the name of what the attempt has handed in now, None when there is no such one.

        Raises:
            StoreError: it could not be looked up; `StoreRefused` when it never can be.
        """
        seen = await self._database.read(lambda c: self._asked(c, attempt))
        return (await self._frozen(seen)).name if seen else None

    async def missed(self, attempt: AttemptId) -> ContentHash | None:
        """Return the content that ought to have been asked for and was not, None if there is none.

        Raises:
            StoreError: it could not be looked up; `StoreRefused` when it never can be.
        """
        found = await self._missed(attempt)
        return found[1].name if found else None

    async def sweep(self, attempt: AttemptId, content: ContentHash) -> Submitted | None:
        """Queue what nobody asked for; None when there is no need, it has changed, or no room.

        Raises:
            StoreError: nothing was taken; `StoreRefused` when it never can be.
        """
        async with self._turn(attempt):
            found = await self._missed(attempt)
            if found is None or self.full or self._dispatcher.board.runs_of_attempt(attempt):
                return None
            seen, frozen = found
            if frozen.name != content:
                return None
            return await self._take(seen, frozen, Origin(SWEEP, "", str(attempt)))

    @property
    def full(self) -> bool:
        """True when no more runs may wait."""
        return self._dispatcher.board.waiting() >= self._queue.limit

    async def fails_alone(self, attempt: AttemptId) -> bool:
        """Return whether the database cannot give this attempt, and could give others.

        A disk that is full, a lock, a right that is missing concern all of them, and pass.
        """
        try:
            await self._database.read(self._nobodys)
        except StoreError:
            return False
        try:
            await self._database.read(lambda c: self._asked(c, attempt))
        except StoreError:
            return True
        return False

    async def _nobodys(self, connection: AsyncConnection) -> None:
        """Read what an attempt is read from, for one that nobody has."""
        await self._daos.attempts.find(connection, NOBODYS)
        await self._daos.codes.of_attempt(connection, NOBODYS)
        await self._daos.scripts.newest(connection, NOBODYS)

    async def cancel(self, attempt: AttemptId) -> int:
        """End every run of the attempt that has not ended; returns how many were still to end.

        Raises:
            StoreError: one at least could not be ended.
        """
        runs = [job.id for job in self._dispatcher.board.runs_of_attempt(attempt)]
        return sum([await self._dispatcher.cancel(run) for run in runs])

    async def cancel_run(self, run: RunId) -> bool:
        """End one run before its verdict; False when an end came first, or there is no such run.

        Raises:
            StoreError: it is as it was.
        """
        return await self._dispatcher.cancel(run)

    def place(self, run: RunId) -> int:
        """Return where a run stands in its lane, from 1; 0 when it does not wait any more."""
        return self._dispatcher.board.place(run) or 0

    # -- what is there ----------------------------------------------------------------------------

    async def _asked(self, connection: AsyncConnection, attempt: AttemptId) -> Snapshot | None:
        """Return what somebody asks to have run, None when there is no such attempt."""
        found = await self._daos.attempts.find(connection, attempt)
        if found is None:
            return None
        files = await self._daos.codes.of_attempt(connection, attempt)
        grader = None
        if found.exercise_id is not None:
            grader = await self._daos.scripts.newest(connection, found.exercise_id)
        newest = await self._daos.executions.newest_submitted(connection, attempt)
        return Snapshot(found, files, grader, newest)

    async def _unasked(self, connection: AsyncConnection, attempt: AttemptId) -> Snapshot | None:
        """Return the same with what was made of the attempt so far."""
        seen = await self._asked(connection, attempt)
        if seen is None:
            return None
        contents = await self._daos.executions.contents_of(connection, attempt)
        graded = await self._daos.baseline.graded(connection, attempt)
        return replace(seen, contents=contents, graded=graded)

    async def _missed(self, attempt: AttemptId) -> tuple[Snapshot, Frozen] | None:
        """Return an attempt that the sweep may take, None when it is to be left alone."""
        seen = await self._database.read(lambda c: self._unasked(c, attempt))
        if seen is None:
            return None
        frozen = await self._frozen(seen)
        if frozen.draft.content() is None:
            return None
        if not seen.contents:
            return None if seen.graded else (seen, frozen)
        changed = self._queue.sweep == "changed" and frozen.name not in seen.contents
        return (seen, frozen) if changed and ERASED not in seen.contents else None

    async def _frozen(self, seen: Snapshot) -> Frozen:
        draft = Draft(
            language=self._language(seen) or (seen.attempt.language or "").strip(),
            grade_max=seen.attempt.grade_max,
            files=tuple(sorted((file.name, file.content) for file in seen.files)),
            grader=seen.grader,
        )
        return await asyncio.to_thread(_freeze, draft)

    def _language(self, seen: Snapshot) -> str | None:
        """Return our name for the language that the platform names, None when we have none."""
        return self._languages.get((seen.attempt.language or "").strip().casefold())

    # -- what becomes of it -----------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, attempt: AttemptId) -> AsyncIterator[None]:
        """Take one submission of an attempt at a time.

        So what was read last is queued last, and what was not there a moment ago still is not.
        """
        turn = self._turns.setdefault(attempt, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[attempt]

    async def _claimed(
        self, newest: StoredRun | None, content: ContentHash, origin: Origin
    ) -> Submitted | None:
        """Return the run of the sweep that is `origin`'s from here on, None when there is none."""
        if newest is None or not newest.job.origin.swept or newest.job.content != content:
            return None
        run = newest.job.id
        claimed = await self._dispatcher.ask(run, origin)
        if not claimed:  # it has ended
            claimed = await self._database.write(
                lambda c: self._daos.executions.ask(c, run, origin)
            )
        if not claimed:
            return None
        log.info("swept_run_asked_for", run=run, attempt=newest.job.attempt)
        return Submitted(run, new=False)

    async def _take(
        self, seen: Snapshot, frozen: Frozen, origin: Origin, tell: Sequence[Recipient] = ()
    ) -> Submitted:
        job = self._job(seen.attempt, frozen.name, origin, tell)
        judged = await self._judged(seen, frozen.draft)
        if isinstance(judged, Failure):
            return await self._refuse(job, judged)
        job = replace(job, requires=judged.requires, lease=judged.lease)
        if not self._runs.could_run(job.requires):
            message = f"no engine has the image for {frozen.draft.language}"
            return await self._refuse(job, Failure(Cause.IMAGE, message))
        try:
            await self._files.refresh(judged.references)
            await self._files.put(frozen.encoded)
        except StoreFull as error:
            never = len(frozen.encoded) > error.limit
            if origin.swept and not never:
                raise  # nobody waits for it: it is taken when there is room
            log.warning("no_room_for_content", attempt=job.attempt, error=str(error))
            return await self._refuse(job, Failure(Cause.FULL, TOO_LONG if never else NO_ROOM))
        submitted = await self._queued(job)
        log.info("run_queued", run=submitted.run, attempt=job.attempt, new=submitted.new)
        return submitted

    async def _queued(self, job: Job) -> Submitted:
        """Queue a run, or find the one that is the same work, by its row as well as by the board.

        An erasure or a stranger may have changed rows, and the board hears of it only when it
        comes to write them.
        """
        try:
            submitted = await self._dispatcher.submit(job)
        except AlreadyExists:
            if not await self._taken_up(job):
                raise
            submitted = await self._dispatcher.submit(job)
        while not submitted.new and await self._has_ended(submitted.run):
            if not await self._dispatcher.ended_elsewhere(submitted.run):
                break  # by its verdict, a moment ago
            submitted = await self._dispatcher.submit(job)
        return submitted

    async def _taken_up(self, job: Job) -> bool:
        """Have the board know the run whose row waits in the way of a new one; False for none."""
        attempt = job.attempt
        assert attempt is not None
        row = await self._database.read(lambda c: self._daos.executions.waiting_of(c, attempt))
        if row is None or self._dispatcher.board.job(row.job.id) is not None:
            return False
        job = row.job.telling(self._tell)
        self._dispatcher.take_up(job, row.key, tries=row.tries, deaths=row.deaths)
        return True

    async def _has_ended(self, run: RunId) -> bool:
        row = await self._database.read(lambda c: self._daos.executions.find(c, run))
        return row is None or row.state.ended

    async def _unreadable(
        self, attempt: AttemptId, origin: Origin, tell: Sequence[Recipient]
    ) -> Submitted:
        """Refuse what a database holds and cannot give, such as what is no text in SQLite."""
        found = await self._database.read(lambda c: self._daos.attempts.find(c, attempt))
        if found is None:
            raise NotFound("attempt", str(attempt))
        job = self._job(found, ERASED, origin, tell)
        return await self._refuse(job, Failure(Cause.INTERNAL, "what was handed in cannot be read"))

    def _job(
        self, attempt: Attempt, content: ContentHash, origin: Origin, tell: Sequence[Recipient]
    ) -> Job:
        """Return a new run of an attempt, without what its runner must have."""
        return Job(
            id=RunId(str(uuid.uuid4())),
            origin=origin,
            owner=_owner(attempt),
            course=str(attempt.course_id or ""),
            content=content,
            requires=(),
            attempt=attempt.id,
            max_tries=self._queue.max_tries,
        ).telling((*tell, *self._tell))

    async def _judged(self, seen: Snapshot, draft: Draft) -> _Judgeable | Failure:
        """Return what judging this takes, or why it cannot be judged."""
        if not draft.files:
            return Failure(Cause.NOT_FOUND, "the attempt has no files")
        content = draft.content()
        if content is None:
            return Failure(Cause.NOT_FOUND, seen.gap)
        if self._full_for(seen.attempt.id):
            return Failure(Cause.FULL, "too many submissions are waiting; hand in again later")
        if self._language(seen) not in LANGUAGES:
            named = seen.attempt.language or ""
            return Failure(Cause.IMAGE, f"there is no image for the language {named!r}")
        try:
            return await asyncio.to_thread(_looked_at, content)
        except DefinitionError as error:
            return Failure(Cause.EXERCISE, str(error))

    def _full_for(self, attempt: AttemptId) -> bool:
        """Return whether one run more is too many; an attempt that has one is no newcomer."""
        return self.full and not self._dispatcher.board.runs_of_attempt(attempt)

    async def _refuse(self, job: Job, failure: Failure) -> Submitted:
        log.warning("run_refused", attempt=job.attempt, cause=failure.cause, why=failure.message)
        await self._dispatcher.refuse(job, failure)
        return Submitted(job.id, new=True)


def _freeze(draft: Draft) -> Frozen:
    encoded = draft.encode()
    return Frozen(draft, encoded, content_hash(encoded))


def _owner(attempt: Attempt) -> OwnerId:
    """Return whose attempt it is; an attempt that is nobody's has nobody to tell."""
    return owner_of(attempt.account_id) if attempt.account_id is not None else OwnerId("")


def _looked_at(content: Content) -> _Judgeable:
    """Return what judging this takes.

    Raises:
        DefinitionError: it cannot be judged.
    """
    return _Judgeable(
        requires=normalised([Requirement("image", "=", (kinds.image(content),))]),
        lease=lease_for(kinds.check(content)),
        references=kinds.references(content.grader),
    )
