"""`make demo`: a small course judged by the real thing, every packet shown, every result checked.

Three processes speak over real sockets: the reference backend, the server, and this one, which
plays the platform (it writes attempts into the database) and the students' browsers.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from commserver import app, config
from commserver.core.jobs import AttemptId
from commserver.dao import migrations
from commserver.dao.codes import SourceFile
from commserver.errors import CommServerError
from commserver.graders.definition import Expected
from commserver.services.admin_service import AdminService, read_exercise

SERVER_TOKEN = "demo-server-token"  # noqa: S105  # between two processes of one demo
START = 30.0  # seconds for a process to be there
STOP = 15.0
RESULTS = 300.0  # seconds for all results
KEPT_PORTS = {"websocket": 8765, "backend": 9500, "http": 9501}


class DemoFailed(CommServerError):
    """Something that the demo needs did not come up."""


@dataclass(slots=True)
class Submission:
    """One solution that is handed in, and what it must get."""

    exercise: str
    solution: str
    expected: Expected
    attempt: AttemptId
    student: str
    final: dict[str, str] | None = None
    grade: int | None = None

    @property
    def good(self) -> bool:
        """True when the browser was told, and the database has, what it should be."""
        if self.final is None or self.final["cmd"] != "EXERCICE_EXECUTED":
            return False
        wanted = self.expected.grade
        return self.final["status"] == self.expected.verdict and wanted in (None, self.grade)


@dataclass(slots=True)
class Student:
    """A browser of one account."""

    name: str
    account: int
    token: str
    finals: dict[str, dict[str, str]] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)


async def run(state_dir: Path, *, keep: bool, console: Console) -> bool:
    """Run the demo; returns whether everything ended as it should.

    keep: stay open afterwards, until interrupted, on the usual ports.

    Raises:
        CommServerError: it could not be set up.
    """
    state = state_dir / "demo"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    ports = KEPT_PORTS if keep else {name: _free_port() for name in KEPT_PORTS}
    environ = {
        **os.environ,
        "COMMSERVER_STATE_DIR": str(state),
        "COMMSERVER_DATABASE__URL": f"sqlite+aiosqlite:///{state / 'commserver.db'}",
        "COMMSERVER_BROWSER__PORT": str(ports["websocket"]),
        "COMMSERVER_BACKEND__PORT": str(ports["backend"]),
        "COMMSERVER_BACKEND__TOKEN": SERVER_TOKEN,
        "COMMSERVER_DOCKER__HOSTS": json.dumps(app.engines(config.Config(state_dir=state_dir))),
        "COMMSERVER_LOG__FORMAT": "json",
    }
    loaded = config.Config(
        state_dir=state,
        database=config.Database(url=f"sqlite+aiosqlite:///{state / 'commserver.db'}"),
    )
    async with app.opened(loaded) as database:
        await migrations.upgrade(database, with_platform=True)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_reference_backend(ports, environ, console))
        await stack.enter_async_context(_server(state, environ, ports["websocket"]))
        admin = await stack.enter_async_context(app.admin(loaded))
        students = [await _student(admin, name) for name in ("ada", "grace")]
        submissions = await _hand_in(admin, students)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        address = f"ws://127.0.0.1:{ports['websocket']}"
        browsers = [tasks.create_task(_browse(address, one, console)) for one in students]
        for submission in submissions:
            await _push(ports["http"], submission.attempt)
        await _results(admin, students, submissions)
        _show(submissions, console)
        if keep:
            console.print(f"[bold]open:[/bold] {address}, tokens:")
            for one in students:
                console.print(f"  {one.name} {one.token}", highlight=False)
            console.print("Ctrl-C ends it.")
            await asyncio.Event().wait()
        for browser in browsers:
            browser.cancel()
    return all(submission.good for submission in submissions)


async def _student(admin: AdminService, name: str) -> Student:
    account = await admin.account(name)
    return Student(name, account, await admin.new_token(account))


async def _hand_in(admin: AdminService, students: Sequence[Student]) -> list[Submission]:
    """Write every solution of the example courses as an attempt, students taking turns."""
    submissions: list[Submission] = []
    for file in sorted((migrations.ROOT / "examples").glob("*/*/exercise.toml")):
        folder = file.parent
        _, definition = read_exercise(folder)
        exercise = await admin.import_exercise(folder, "teacher")
        main = (definition.submission.files or ("",))[0]
        for solution, wanted in definition.solutions.items():
            student = students[len(submissions) % len(students)]
            path = folder / solution
            source = SourceFile(main or path.name, path.read_text())
            attempt = await admin.add_attempt(student.account, exercise, [source])
            expected = Expected(wanted) if isinstance(wanted, str) else wanted
            submissions.append(
                Submission(definition.key, path.name, expected, attempt, student.name)
            )
    return submissions


async def _results(
    admin: AdminService, students: Sequence[Student], submissions: Sequence[Submission]
) -> None:
    """Wait until each student was told of each attempt, then read the grades."""
    by_name = {student.name: student for student in students}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RESULTS):
            for submission in submissions:
                student = by_name[submission.student]
                while str(submission.attempt) not in student.finals:
                    student.moved.clear()
                    await student.moved.wait()
    for submission in submissions:
        submission.final = by_name[submission.student].finals.get(str(submission.attempt))
        submission.grade, _ = await admin.result(submission.attempt)


def _show(submissions: Sequence[Submission], console: Console) -> None:
    table = Table("attempt", "student", "exercise", "solution", "expected", "got", "grade", "")
    for one in submissions:
        got = (one.final or {}).get("status") or (one.final or {"message": "nothing"})["message"]
        grade = "" if one.grade is None else str(one.grade)
        wanted = (
            f"{one.expected.verdict} {'' if one.expected.grade is None else one.expected.grade}"
        )
        mark = "[green]as it should[/green]" if one.good else "[red]WRONG[/red]"
        table.add_row(
            str(one.attempt), one.student, one.exercise, one.solution, wanted, got, grade, mark
        )
    console.print(table, soft_wrap=True)


async def _browse(address: str, student: Student, console: Console) -> None:
    """Be a student's browser: AUTH, then print and keep what comes."""
    async with connect(address) as browser:
        await browser.send(json.dumps({"cmd": "AUTH", "TOKEN": student.token}))
        console.print(f"{student.name:>6} -> commserver  AUTH", highlight=False, style="cyan")
        with contextlib.suppress(ConnectionClosed):
            await _listen(browser, student, console)


async def _listen(browser: ClientConnection, student: Student, console: Console) -> None:
    async for frame in browser:
        text = frame if isinstance(frame, str) else frame.decode()
        console.print(f"commserver -> {student.name:<6}  {text}", highlight=False, style="cyan")
        packet = json.loads(text)
        attempt = packet.get("id") or packet.get("target_id")
        if attempt and packet["cmd"] in ("EXERCICE_EXECUTED", "ERROR"):
            student.finals[attempt] = packet
            student.moved.set()


async def _push(port: int, attempt: AttemptId) -> None:
    """Tell the reference backend that an attempt was handed in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"id": str(attempt)}).encode()
    writer.write(b"POST /submit HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.readline()
    writer.close()
    if b" 202 " not in answer:
        raise DemoFailed(f"the reference backend answered {answer.decode().strip()!r}")


@asynccontextmanager
async def _reference_backend(
    ports: dict[str, int], environ: dict[str, str], console: Console
) -> AsyncIterator[None]:
    """Run the reference backend and print what it says."""
    module = "commserver.reference.backend"
    options = [f"--port={ports['backend']}", f"--http-port={ports['http']}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *options, f"--token={SERVER_TOKEN}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environ,
    )
    assert process.stdout is not None

    async def relay(output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            console.print(line.decode().rstrip(), highlight=False, style="magenta", markup=False)

    async with _ended(process), asyncio.TaskGroup() as tasks:
        async with asyncio.timeout(START):
            if not (await process.stdout.readline()).startswith(b"listening"):
                raise DemoFailed("the reference backend did not start: is its port taken?")
        relaying = tasks.create_task(relay(process.stdout))
        yield
        relaying.cancel()


@asynccontextmanager
async def _server(state: Path, environ: dict[str, str], port: int) -> AsyncIterator[None]:
    """Run `commserver serve`; its log goes to a file in the state directory."""
    log = state / "serve.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "commserver.cli", "serve"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=environ,
        )
        async with _ended(process):
            try:
                async with asyncio.timeout(START):
                    await _reachable(port, process)
            except TimeoutError as error:
                raise DemoFailed(f"the server is not there; its log is {log}") from error
            yield


async def _reachable(port: int, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """End a process with the block: politely, then not."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
