"""What became of an attempt, told from what is stored: with a server or without, days later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import NamedTuple

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.core.execution import KIB, MIB, Flag
from commserver.core.finals import WEBHOOK, account
from commserver.core.jobs import AttemptId, Job, Priority, Purpose, Recipient
from commserver.core.states import State
from commserver.core.verdicts import CaseVerdict, Failure, Judged, Verdict
from commserver.dao.attempts import Attempt
from commserver.dao.dao_manager import DaoManager
from commserver.dao.database_manager import DatabaseManager
from commserver.dao.executions import StoredRun
from commserver.dao.notices import StoredNotice
from commserver.dao.verdicts import MeasuredStage, Measurement, VerdictRecord
from commserver.errors import NotFound, StoreError, StoreRefused
from commserver.graders.content import Content
from commserver.services.file_store import FileStore

RUNS = 20  # of an attempt that are told of
FILES = 20  # of a content that are named
ASKED = 10  # runs that one process asked for which are told of


class Step(Struct, frozen=True):
    """One thing that happened to a run, or that is not known any more.

    name: received, content, queued, leased, started, container, verdict, case, process, run, log,
    notes, details, stored, tell, pushed or acknowledged. at: when, where it has a moment of its own
    that is known. after: seconds since the last step before it that has one, for pushed since the
    end of the run.
    """

    name: str
    says: str
    at: datetime | None = None
    after: float | None = None


class RunStory(Struct, frozen=True):
    """One run of the attempt, step by step."""

    run: str
    state: State
    purpose: Purpose
    erased: bool
    steps: list[Step]


class Story(Struct, frozen=True):
    """An attempt with its runs, the newest first. `about` is what there is to say beside them."""

    attempt: int
    account: int | None
    username: str | None
    exercise: int | None
    about: list[str]
    runs: list[RunStory]


class _Stored(NamedTuple):
    """What the rows have of one run."""

    run: StoredRun
    ahead: int
    record: VerdictRecord | None
    unreadable: bool  # there is a record, and this version cannot read it
    texts: bool  # of the record are to be told as well
    notices: list[StoredNotice]


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the rows have of an attempt at one moment."""

    attempt: Attempt | None
    username: str | None
    baseline: AttemptId | None
    runs: list[StoredRun]


class ExplainService:
    """Tells the life of an attempt from the database and the file store alone."""

    def __init__(self, database: DatabaseManager, daos: DaoManager, files: FileStore) -> None:
        self._database = database
        self._daos = daos
        self._files = files

    async def explain(self, attempt: AttemptId, *, texts: bool = False) -> Story:
        """Return what became of an attempt: of its newest runs everything that is still known.

        texts: with what its student read, and what only its teacher may read.

        Raises:
            NotFound: there is no such attempt, nor a run of one.
            StoreError: the database did not answer.
        """
        rows = await self._database.read(lambda c: self._rows(c, attempt))
        if rows.attempt is None and not rows.runs:
            raise NotFound("attempt", str(attempt), f"there is no attempt {attempt}")
        runs = [await self._run(run, texts) for run in rows.runs[:RUNS]]
        found = rows.attempt
        return Story(
            attempt=attempt,
            account=found.account_id if found else None,
            username=rows.username,
            exercise=found.exercise_id if found else None,
            about=list(_about(attempt, rows)),
            runs=runs,
        )

    async def _rows(self, connection: AsyncConnection, attempt: AttemptId) -> _Rows:
        found = await self._daos.attempts.find(connection, attempt)
        username = None
        if found and found.account_id is not None:
            username = await self._daos.accounts.name_of(connection, found.account_id)
        baseline = await self._daos.baseline.attempt(connection)
        runs = await self._daos.executions.of_attempt(connection, attempt, RUNS + 1)
        return _Rows(found, username, baseline, runs)

    async def _run(self, run: StoredRun, texts: bool) -> RunStory:
        stored = await self._database.read(lambda c: self._stored(c, run, texts))
        try:
            record = await self._database.read(
                lambda c: self._daos.executions.verdict(c, run.job.id)
            )
        except StoreRefused:
            stored = stored._replace(unreadable=True)
        else:
            stored = stored._replace(record=record)
        content = await self._content(run)
        steps = _after(_steps(stored, content))
        return RunStory(run.job.id, run.state, run.job.purpose, _erased(run), list(steps))

    async def _stored(self, connection: AsyncConnection, run: StoredRun, texts: bool) -> _Stored:
        ahead = await self._daos.executions.ahead(connection, run)
        notices = await self._daos.notices.of_run(connection, run.job.id)
        return _Stored(run, ahead, None, unreadable=False, texts=texts, notices=notices)

    async def _content(self, run: StoredRun) -> str:
        """Return what is to say about what was judged."""
        name = run.job.content
        if not name:
            return "" if _erased(run) else "what was handed in could not be read"
        try:
            content = Content.decode(await self._files.get(name))
        except NotFound:
            return f"its files are not kept any more, or never were; sha256 {name}"
        except StoreError as error:
            return f"its files cannot be read: {error}; sha256 {name}"
        files = [f"{file} ({len(text.encode())} bytes)" for file, text in content.files]
        more = [f"{len(files) - FILES} more"] if len(files) > FILES else []
        told = ", ".join([*files[:FILES], *more])
        return f"{content.language}, {told}, as it was handed in; sha256 {name}"


def _about(attempt: AttemptId, rows: _Rows) -> Iterator[str]:
    """Yield what is to say about the attempt beside its runs."""
    if rows.attempt is None:
        yield "the platform has no such attempt any more"
    if len(rows.runs) > RUNS:
        yield f"it has more runs: the newest {RUNS} are shown"
    if rows.runs:
        return
    if rows.baseline is None:
        yield "no server has ever been started on this database"
    elif attempt <= rows.baseline:
        yield (
            "it has no run: it belongs to the baseline, so it was there before the first start, or "
            "its runs are not kept any more"
        )
    else:
        yield (
            "it has no run: nobody has asked for it as far as is known, and the sweep has not "
            "taken it, which takes what has files, a grader and no grade"
        )


# -- one run --------------------------------------------------------------------------------------


def _erased(run: StoredRun) -> bool:
    """Return whether a row is what an erasure leaves."""
    return not run.job.owner and not run.job.content and run.state.ended


def _after(steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the steps with the time since the one before; to be pushed, since the end."""
    last: datetime | None = None
    ended: datetime | None = None
    for step in steps:
        if step.at is None:
            yield step
            continue
        since = ended if step.name == "pushed" else last
        after = (step.at - since).total_seconds() if since else None
        last = step.at
        if step.name == "stored":
            ended = step.at
        yield Step(step.name, step.says, step.at, after)


def _steps(stored: _Stored, content: str) -> Iterator[Step]:
    run = stored.run
    yield Step("received", _received(run), run.created_at)
    if _erased(run):
        yield Step("content", "erased on demand: what it was, whose, and its verdict are gone")
        if run.ended_at:
            yield Step("stored", f"ended: {run.state}", run.ended_at)
        return
    yield Step("content", content)
    if _refused(run):
        assert isinstance(run.ending, Failure)
        yield Step("verdict", f"refused at once, never queued: {_failure(run.ending)}")
    else:
        yield Step("queued", _queued(stored))
        yield from _tries(run)
        yield from _ending(stored)
    if run.state.ended:
        yield Step("stored", f"stored as {run.state}", run.ended_at)
        yield from _told(stored)


def _received(run: StoredRun) -> str:
    origin = run.job.origin
    if origin.swept:
        return "found by the sweep: nobody had asked for it"
    who = f"{origin.gateway} {origin.peer}".strip() or "somebody"
    reference = f", as {origin.reference}" if origin.reference else ""
    return f"asked for by {who}{reference}"


def _refused(run: StoredRun) -> bool:
    """Return whether a run ended before it was ever queued."""
    return run.state is State.FAILED and run.leased_at is None and not run.tries


def _queued(stored: _Stored) -> str:
    key = stored.run.key
    before = {0: "no run", 1: "one run"}.get(stored.ahead, f"{stored.ahead} runs")
    rank = f", with rank {key.tag:g}" if key.tag else ""
    return (
        f"among the {Priority(key.priority).name.lower()} runs, as number {key.entry} of all that "
        f"ever came in{rank}; as far as is known, {before} for the same image stood before it then"
    )


def _tries(run: StoredRun) -> Iterator[Step]:
    """Yield who had it."""
    if run.leased_at:
        yield Step("leased", f"by {run.runner} on engine {run.engine}", run.leased_at)
    elif run.state is State.QUEUED:
        yield Step("leased", "not yet, or a slot has it at this moment: see `commserver status`")
    elif run.state is not State.CANCELLED:
        yield Step("leased", "by whom is not known")
    if run.started_at:
        yield Step("started", "its runner began", run.started_at)
    if run.tries:
        last = run.ending if isinstance(run.ending, Failure) else None
        why = f"the last: {last.message}" if last else "why was logged then, and is not kept here"
        yield Step("started", f"{run.tries} of at most {run.job.max_tries} tries broke; {why}")


def _ending(stored: _Stored) -> Iterator[Step]:
    run, record = stored.run, stored.record
    match run.ending:
        case Judged(status=status, grade=grade, grade_max=grade_max):
            yield from _container(stored)
            twice = record and record.verdict and record.verdict.rerun
            better = "; close to a time limit, so run twice: the better end counts" if twice else ""
            yield Step("verdict", f"{status}, {grade} of {grade_max}{better}")
            if record and record.verdict:
                yield from _cases(record, record.verdict)
                yield from _texts(stored, log=record.verdict.log, notes=record.verdict.notes)
        case Failure() as failure:
            container = failure.container or "none was begun, or it is not known"
            yield Step("container", container)
            yield Step("verdict", f"it could not be graded: {_failure(failure)}")
            if record:
                yield from _texts(stored, details=record.details)
        case None if run.state is State.CANCELLED:
            yield Step("verdict", "none: it was cancelled before one")
        case None if run.state is State.SUPERSEDED:
            yield Step("verdict", "none: something newer was handed in and took its place")
        case None if run.state.ended:
            yield Step("verdict", "not known any more")
        case None:
            yield Step("verdict", f"none yet: the row says {run.state}")


def _failure(failure: Failure) -> str:
    whose = f"the {failure.fault}'s fault"
    return f"{failure.message or failure.cause} ({failure.cause}, {whose})"


def _container(stored: _Stored) -> Iterator[Step]:
    record = stored.record
    if record is None:
        gone = "cannot be read by this version" if stored.unreadable else "is not kept any more"
        yield Step("container", f"the record of the verdict {gone}: no container, image or case")
    elif not record.container:
        yield Step("container", "none: it was judged without running anything")
    else:
        isolation = f", isolation {record.isolation}" if record.isolation else ""
        runner = f", runner {record.runner}" if record.runner else ""
        image = f"{_image(stored.run.job)}{record.image or 'not known'}"
        yield Step("container", f"{record.container}, image {image}{isolation}{runner}")


def _image(job: Job) -> str:
    """Return the name of the image that a run asks for, with a space behind it, "" for none."""
    asked = (one.values[0] for one in job.requires if one.name == "image" and len(one.values) == 1)
    return next((f"commserver/{name} " for name in asked), "")


def _cases(record: VerdictRecord, verdict: Verdict) -> Iterator[Step]:
    """Yield what each case is worth, and what each process used and met."""
    if record.compile:
        yield Step("case", f"compilation: {_used(record.compile)}")
    yield from _processes(record.prepare)
    if len(record.measured) != len(verdict.cases):  # checks of a script, or nothing was run
        # In the order of the cases, whatever the processes are called.
        for case, used in zip_longest(verdict.cases, record.cases[: len(verdict.cases)]):
            yield Step("case", _worth(case) + (f"; {_used(used)}" if used else ""))
        for measured in record.measured:
            yield from _processes(measured.stages)
        return
    for case, measured in zip(verdict.cases, record.measured, strict=True):
        alone = _alone(measured.stages)
        yield Step("case", _worth(case) + (f"; {_used(alone)}" if alone else ""))
        if not alone:
            yield from _processes(measured.stages)


def _worth(case: CaseVerdict) -> str:
    return f"{case.name}: {case.status}, {case.earned} of {case.points} points"


def _alone(stages: Sequence[MeasuredStage]) -> Measurement | None:
    """Return the only process, None for several or one that asked for runs."""
    processes = [process for stage in stages for process in stage.processes]
    return processes[0] if len(processes) == 1 and not processes[0].runs else None


def _processes(stages: Sequence[MeasuredStage]) -> Iterator[Step]:
    """Yield what each process used, with what it asked for."""
    for stage in stages:
        together = len(stage.processes) > 1
        for one in stage.processes:
            name = one.name if one.name == stage.name else f"{stage.name}, {one.name}"
            ended = f"; ended {one.ended:.2f} s after the stage began" if together else ""
            yield Step("process", f"{name}: {_used(one)}{ended}")
            for run in one.runs[:ASKED]:
                yield Step("run", f"{name} asked for {run.name}: {_used(run)}")
            if more := len(one.runs[ASKED:]) + one.more_runs:
                yield Step("run", f"{name} asked for {more} more")


def _texts(stored: _Stored, **texts: str) -> Iterator[Step]:
    """Yield what people may read of a run, or that there is something."""
    for name, text in texts.items():
        if text and stored.texts:
            yield Step(name, text)
        elif text and name != "log":
            count = len(text.splitlines())
            lines = "one line" if count == 1 else f"{count} lines"
            yield Step(name, f"{lines} for the teacher: see --texts")


def _used(one: Measurement) -> str:
    memory = f"{one.memory / MIB:.1f} MiB" if one.memory >= MIB else f"{one.memory / KIB:.0f} KiB"
    met = ", ".join(str(flag.name).lower() for flag in Flag(one.flags)) or "none"
    return (
        f"{one.cpu:.2f} s of cpu, {one.real:.2f} s, {memory}; exit code {one.exit_code}, "
        f"limits met: {met}" + (", ended by us" if one.stopped else "")
    )


def _told(stored: _Stored) -> Iterator[Step]:
    """Yield what became of the final, for each whom it is or was owed."""
    run = stored.run
    kept = {notice.recipient: notice for notice in stored.notices}
    for recipient in _recipients(run, list(kept)):
        who = _called(recipient, run)
        if recipient not in kept:
            yield Step("tell", f"{who}: no final is kept any more, if there ever was one")
        else:
            yield from _final(who, kept[recipient])
    if run.state is State.SUPERSEDED:
        yield Step("tell", "the student: nothing is said of a run that gave way to a newer one")


def _recipients(run: StoredRun, kept: Sequence[Recipient]) -> Sequence[Recipient]:
    """Return whom the end of a run is owed, the student first."""
    expected = list(run.job.tell)
    student = run.job.attempt is not None and run.job.purpose is Purpose.SUBMIT and run.job.owner
    if student and run.state is not State.SUPERSEDED:
        expected.insert(0, account(run.job.owner))
    return list(dict.fromkeys([*expected, *kept]))


def _called(recipient: Recipient, run: StoredRun) -> str:
    if recipient == account(run.job.owner):
        return "the student"
    if recipient == WEBHOOK:
        return "the webhook"
    return recipient.replace(":", " ", 1)


def _final(who: str, notice: StoredNotice) -> Iterator[Step]:
    number = f"{who}: final {notice.seq}"
    if notice.pushed_at:
        yield Step("pushed", f"{number} was pushed", notice.pushed_at)
    elif notice.delivered_at is None:
        yield Step("pushed", f"{number} was not pushed yet: nobody of theirs has been connected")
    if notice.delivered_at:
        yield Step("acknowledged", f"{number} was acknowledged", notice.delivered_at)
    elif notice.pushed_at:
        yield Step("acknowledged", f"{number} was not acknowledged yet: it is still owed")
