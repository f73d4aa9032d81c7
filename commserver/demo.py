"""`make demo`: real courses judged by the real thing, every packet shown, every result checked.

The server is a process of its own. This one plays everybody else over real sockets: the platform's
backend, its database, and the students' browsers.
"""

import asyncio
import contextlib
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.dao.lock_file import LockFile
from commserver.graders.definition import Expected
from commserver.reference.backend import ReferenceBackend
from commserver.services import exercise_folder
from commserver.services.admin_service import AdminService
from commserver.services.exercise_folder import ExerciseFolder
from commserver.trial import SERVER_TOKEN, Browser, Packet, Trial, TrialFailed

RESULTS = 300.0  # seconds for all results
# Of the courses' solutions, those that are handed in: every kind of exercise, every way to end.
HANDED_IN = {
    "c-101/sum": ("right.c", "small-ints.c", "does-not-compile.c", "writes-nowhere.c", "hoards.c"),
    "c-101/vectors": ("right.c",),
    "c-101/list": ("right.c", "never-frees.c"),
    "c-101/backwards": ("frees-twice.c",),
    "c-101/queens": ("other-board.c",),
    "c-101/nim": ("right.c",),
    "python-101/double": ("right.py", "no-negatives.py", "counts-down.py", "floods.py", "forks.py"),
    "python-101/triangle": ("right.py", "prints-grades.py", "own-grader"),
    "python-101/words": ("right.py",),
    "python-101/change": ("largest-first.py",),
    "python-101/shapes": ("right", "one-file"),
    "python-101/receipt": ("right.py",),
    "python-101/leap": ("right.py",),
    "python-101/guess": ("right.py", "one-by-one.py"),
}
# When it stays open; the last takes what is handed in from the command line.
WEBSOCKET_PORT, PAGE_PORT, BACKEND_PORT, SUBMIT_PORT = 8765, 8080, 9500, 9501


@dataclass(slots=True)
class Submission:
    """One solution that is handed in, what it must get, and what it got."""

    exercise: str
    solution: str
    expected: Expected
    attempt: AttemptId
    student: str
    final: Packet | None = None
    grade: int | None = None

    @property
    def good(self) -> bool:
        """True when the browser was told, and the database has, what it should be."""
        if self.final is None or self.final["cmd"] != "EXERCICE_EXECUTED":
            return False
        told = (self.final["status"], self.final["grade"])
        wanted = self.expected.grade
        return told == (self.expected.verdict, str(self.grade)) and wanted in (None, self.grade)


async def run(state_dir: Path, *, keep: bool, console: Console) -> bool:
    """Run the demo; returns whether everything ended as it should.

    keep: stay open afterwards, until interrupted, on the usual ports.

    Raises:
        AlreadyManaged: another one is under way in the same folder.
        CommServerError: it could not be set up.
    """
    state = state_dir / ("serve" if keep else "demo")
    with _alone(state):
        shutil.rmtree(state, ignore_errors=True)
        return await _run(state, keep=keep, console=console)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Keep others out of a folder that is about to be made anew."""
    state.parent.mkdir(parents=True, exist_ok=True)
    lock = LockFile(state.with_suffix(".lock"))
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _run(state: Path, *, keep: bool, console: Console) -> bool:
    trial = Trial(
        state,
        websocket_port=WEBSOCKET_PORT if keep else 0,
        backend_port=BACKEND_PORT if keep else 0,
        http_port=PAGE_PORT if keep else 0,
    )
    if keep:
        _free(WEBSOCKET_PORT, PAGE_PORT, BACKEND_PORT, SUBMIT_PORT)
    say = partial(console.print, highlight=False, markup=False)
    await trial.prepare()
    async with AsyncExitStack() as stack:
        backend = ReferenceBackend(SERVER_TOKEN, partial(say, style="magenta"))
        await backend.start("127.0.0.1", trial.backend_port, SUBMIT_PORT if keep else None)
        stack.push_async_callback(backend.stop)
        await stack.enter_async_context(trial.server())
        admin = await stack.enter_async_context(trial.admin())
        browsers: dict[str, Browser] = {}
        tokens: dict[str, str] = {}
        for name in ("ada", "grace"):
            tokens[name] = await admin.new_token(await admin.account(name))
            tell = partial(_told, say, name)
            browsers[name] = await Browser(tell).open(trial.address, tokens[name])
            stack.push_async_callback(browsers[name].close)
            say(f"{name:>6} -> commserver   AUTH", style="cyan")
        lessons = await imported(admin)
        submissions = await _hand_in(admin, lessons, list(browsers))
        for submission in submissions:
            backend.submit(str(submission.attempt))
        await _results(admin, browsers, submissions)
        _show(submissions, console)
        if keep:
            _invite(console, trial.page, tokens, lessons, state)
            await _interrupted()
    return all(submission.good for submission in submissions)


def _free(*ports: int) -> None:
    """Return if nobody has these ports.

    Raises:
        TrialFailed: somebody has.
    """
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(str(port))
    if taken:
        raise TrialFailed(
            f"port {', '.join(taken)} of this machine is taken: end what listens there"
        )


class Lesson(NamedTuple):
    """An exercise of the example courses, by its number on this site."""

    exercise: int
    folder: ExerciseFolder


async def imported(admin: AdminService) -> list[Lesson]:
    """Put the example courses' exercises into the platform's tables."""
    lessons = []
    for file in sorted((migrations.ROOT / "examples").glob("*/*/exercise.toml")):
        folder = await asyncio.to_thread(exercise_folder.read, file.parent)
        lessons.append(Lesson(await admin.put_exercise(folder, "teacher"), folder))
    return lessons


def _invite(
    console: Console,
    page: str,
    tokens: Mapping[str, str],
    lessons: Sequence[Lesson],
    state: Path,
) -> None:
    """Say where the students' page is, how to get in, and what to type for something to happen."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say()
    say(f"The students' page:  {page}", style="bold green")
    for name, token in tokens.items():
        label = f"{name}'s token:"
        say(f"  {label:<18} {token}")
    for lesson in lessons:
        definition = lesson.folder.definition
        files = ", ".join(definition.submission.files) or "one of any name"
        kind = f"{', '.join(definition.languages)}; file: {files}"
        say(f"  exercise {lesson.exercise}: {definition.title} ({kind})")
    say("  Hand something in, in another terminal:")
    say(f"    {handing_in(lessons[0], next(iter(tokens)), state)}")
    say("  Ctrl-C ends it.")


def handing_in(lesson: Lesson, student: str, state: Path) -> str:
    """Return the command that hands a solution in, as it can be typed in the present folder."""
    solution = lesson.folder.path / next(iter(lesson.folder.solutions))
    files = sorted(solution.iterdir()) if solution.is_dir() else [solution]
    command = ["submit", str(lesson.exercise), *map(_near, files)]
    options = ["--username", student, "--state-dir", str(state)]
    return shlex.join([*_program(), *command, *options])


def _program() -> list[str]:
    """Return how the present command was started."""
    if Path(sys.argv[0]).name == "commserver":
        return [sys.argv[0]]
    return [sys.executable, "-m", "commserver.cli"]


def _near(path: Path) -> str:
    """Return a path as it is written in the present folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


async def _interrupted() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


async def _hand_in(
    admin: AdminService, lessons: Sequence[Lesson], students: Sequence[str]
) -> list[Submission]:
    """Write the chosen solutions of the example courses as attempts, students taking turns."""
    submissions: list[Submission] = []
    for exercise, folder in lessons:
        key = folder.definition.key
        for name in HANDED_IN.get(f"{folder.path.parent.name}/{folder.path.name}", ()):
            solution = f"solutions/{name}"
            student = students[len(submissions) % len(students)]
            sources = [SourceFile(file, text) for file, text in folder.solution(solution)]
            attempt = await admin.add_attempt(await admin.account(student), exercise, sources)
            expected = folder.solutions[solution]
            submissions.append(Submission(key, name, expected, attempt, student))
    return submissions


async def _results(
    admin: AdminService, browsers: dict[str, Browser], submissions: Sequence[Submission]
) -> None:
    """Wait until each student was told of each attempt, then read the grades."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RESULTS):
            for one in submissions:
                browser = browsers[one.student]
                await browser.until(partial(_ended, browser, one.attempt), RESULTS)
    for one in submissions:
        one.final = browsers[one.student].final(one.attempt)
        one.grade, _ = await admin.result(one.attempt)


def _ended(browser: Browser, attempt: AttemptId) -> bool:
    return browser.final(attempt) is not None


def _told(say: partial[None], name: str, packet: str) -> None:
    say(f"commserver -> {name:<8} {packet}", style="cyan")


def _show(submissions: Sequence[Submission], console: Console) -> None:
    table = Table("attempt", "student", "exercise", "solution", "expected", "got", "")
    for one in submissions:
        final = one.final or {"message": "nothing"}
        got = f"{final.get('status') or final['message']} {'' if one.grade is None else one.grade}"
        grade = "" if one.expected.grade is None else one.expected.grade
        table.add_row(
            *(str(one.attempt), one.student, one.exercise, one.solution),
            *(f"{one.expected.verdict} {grade}", got),
            "[green]as it should[/green]" if one.good else "[red]WRONG[/red]",
        )
    console.print(table)
