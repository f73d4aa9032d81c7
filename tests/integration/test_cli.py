"""The command line: what it prints, where, and how it ends."""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from commserver import cli, logs
from commserver.services.auth_service import fingerprint
from tests.unit.graders.toml import exercise

ROOT = Path(__file__).parents[2]
START = 120.0  # seconds for a server to listen on a busy machine


class Ran(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it complained about, without the name it puts before each line."""
        assert "Traceback" not in self.err
        return [line.removeprefix("commserver: ") for line in self.err.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(outside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which saves the time of loading everything again."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # loggers remember their stream

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["commserver", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def state(tmp_path: Path, sqlite_template: Path) -> Path:
    """A migrated site's state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "commserver.db")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right exercise."""
    folder = tmp_path / "double [1]"
    folder.mkdir()
    (folder / "exercise.toml").write_text(exercise())
    return folder


def select(state: Path, query: str) -> list[tuple[object, ...]]:
    """Return what a site's database says."""
    with closing(sqlite3.connect(state / "commserver.db")) as database:
        return database.execute(query).fetchall()


# -- check-config ---------------------------------------------------------------------------------


def test_check_config_prints_what_will_be_used_without_secrets(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        '[backend]\ntoken = "hush"\n[database]\nurl = "postgresql+asyncpg://me:hush@127.0.0.1:1/x"\n'
    )
    monkeypatch.setenv("COMMSERVER_QUEUE__LIMIT", "77")

    ran = run("check-config", "--config", file, "--state-dir", "here")

    assert ran.code == 1  # no database is there
    printed = json.loads(ran.out)
    assert printed["queue"]["limit"] == 77
    assert printed["state_dir"] == "here"
    assert printed["database"]["url"] == "postgresql+asyncpg://me:***@127.0.0.1:1/x"
    assert "hush" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("", ["backend.token"]),
        ("[backend]\nenabled = false", []),
        ('[backend]\ntoken = "x"', []),
        (
            "[backend.links.east]\nport = 1\n[backend.links.west]\ntoken = 'x'",
            ["backend.links.east.token"],
        ),
    ],
)
def test_an_empty_token_is_warned_of(
    run: Run,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    warned: list[str],
) -> None:
    monkeypatch.delenv("COMMSERVER_BACKEND__ENABLED")
    file = tmp_path / "my.toml"
    file.write_text(text)

    ran = run("check-config", "--config", file, "--state-dir", state)

    assert ran.code == 0
    said = [line for line in ran.lines if line.startswith("warning: ")]
    assert [line.split()[1] for line in said] == warned


def test_a_wrong_configuration_is_told_with_all_its_problems(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "commserver.toml"
    file.write_text('[queue]\n"[/red]" = 1\nlimit = "high"\n')
    monkeypatch.setenv("COMMSERVER_NONSENSE", "1")

    for command in (["check-config"], ["serve"], ["migrate"], ["token", "list"]):
        ran = run(*command, "--config", file)

        assert (ran.code, ran.out) == (2, "")
        assert [line.partition(":")[0] for line in ran.lines] == [
            "COMMSERVER_NONSENSE",
            "queue.limit",
            "queue.[/red]",
        ]


def test_what_takes_long_to_load_is_not_loaded_for_every_command() -> None:
    code = "import sys, commserver.cli; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"commserver.app", "uvicorn", "docker", "jwt"} & set(done.stdout.split())


def test_no_command_and_an_unknown_one_are_misuse(run: Run) -> None:
    assert run().code == 2
    assert run("dance").code == 2


# -- migrate --------------------------------------------------------------------------------------


def test_migrate_makes_our_tables_and_no_others(run: Run, tmp_path: Path) -> None:
    ran = run("migrate", "--state-dir", tmp_path / "new")

    assert ran.code == 0
    assert ran.out == f"migrated: sqlite+aiosqlite:///{tmp_path}/new/commserver.db\n"
    tables = {name for (name,) in select(tmp_path / "new", "SELECT name FROM sqlite_master")}
    assert "executions" in tables
    assert "accounts" not in tables


def test_migrate_makes_the_platforms_tables_where_it_is_told_to(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("migrate", "--with-platform", "--state-dir", tmp_path / "new").code == 0

    assert select(tmp_path / "new", "SELECT count(*) FROM accounts") == [(0,)]


def test_a_migration_with_nothing_to_do_says_so(run: Run, tmp_path: Path) -> None:
    where = ("--state-dir", tmp_path / "new")
    assert run("migrate", *where).out.startswith("migrated: sqlite")

    again = run("migrate", *where)
    assert again.out.startswith("nothing to do, it was migrated before: sqlite")
    assert again.code == 0

    assert run("migrate", "--with-platform", *where).out.startswith("migrated: sqlite")
    again = run("migrate", "--with-platform", *where)
    assert again.out.startswith("nothing to do")


def test_migrate_leaves_a_live_platforms_tables_alone(run: Run, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "commserver.db")) as database:
        database.execute("CREATE TABLE accounts (id INTEGER)")

    ran = run("migrate", "--with-platform", "--state-dir", tmp_path)

    assert ran.code == 1
    assert ran.lines == ["the platform's tables are there and not ours to keep: accounts"]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(run: Run) -> None:
    ran = run("migrate", "--state-dir", "/dev/null/state")

    assert ran.code == 1
    assert ran.lines == [
        "cannot open the database /dev/null/state/commserver.db: Not a directory",
    ]


@pytest.mark.parametrize("platform", ["nothing", "no platform"])
def test_a_database_that_is_not_ready_is_told_with_what_to_do(
    run: Run, tmp_path: Path, platform: str
) -> None:
    if platform == "no platform":
        run("migrate", "--state-dir", tmp_path)
    advice = (
        "commserver migrate --with-platform" if platform == "no platform" else "commserver migrate"
    )

    for command in (["serve"], ["token", "create", "ada"], ["exercise", "import", "."]):
        ran = run(*command, "--state-dir", tmp_path)

        assert ran.code == 1
        [line] = ran.lines
        assert f"`{advice}`" in line


# -- token ----------------------------------------------------------------------------------------


def test_a_token_is_printed_once_listed_by_its_fingerprint_and_revoked(
    run: Run, state: Path
) -> None:
    made = run("token", "create", "ada", "--label", "[/laptop]", "--state-dir", state)
    token = made.out.strip()
    assert made.code == 0
    assert re.fullmatch(r"[\w-]{22,}", token)

    listed = run("token", "list", "--state-dir", state)
    assert listed.code == 0
    assert token not in listed.out
    [line] = [line for line in listed.out.splitlines() if fingerprint(token) in line]
    assert "[/laptop]" in line
    assert "yes" in line

    assert run("token", "revoke", fingerprint(token), "--state-dir", state).code == 0
    listed = run("token", "list", "--state-dir", state)
    [line] = [line for line in listed.out.splitlines() if fingerprint(token) in line]
    assert "no" in line


def test_nobody_is_added_to_a_live_platforms_accounts(run: Run, state: Path, source: Path) -> None:
    with closing(sqlite3.connect(state / "commserver.db")) as database:
        database.execute("DROP TABLE platform_version")

    for command in (["token", "create"], ["submit", 1, source, "--push", "", "--username"]):
        ran = run(*command, "nosuchuser", "--state-dir", state)

        assert (ran.code, ran.lines) == (1, ["there is no account nosuchuser"])
    assert select(state, "SELECT * FROM accounts") == []


def test_the_account_of_a_token_is_told_beside_it(run: Run, state: Path) -> None:
    made = run("token", "create", "ada", "--state-dir", state)

    [(account,)] = select(state, "SELECT id FROM accounts WHERE username = 'ada'")
    assert made.err == f"account {account}\n"
    assert len(made.out.split()) == 1


def test_a_fingerprint_is_listed_whole_whatever_is_beside_it(run: Run, state: Path) -> None:
    made = run("token", "create", "ada", "--label", "my old phone " * 9, "--state-dir", state)

    assert fingerprint(made.out.strip()) in run("token", "list", "--state-dir", state).out


def test_a_token_that_is_not_there_cannot_be_revoked(run: Run, state: Path) -> None:
    ran = run("token", "revoke", "0" * 64, "--state-dir", state)

    assert (ran.code, ran.lines) == (1, [f"no token {'0' * 64}"])


def test_a_token_lives_for_a_day_at_least(run: Run, state: Path) -> None:
    assert run("token", "create", "ada", "--days", "0", "--state-dir", state).code == 2


# -- exercise -------------------------------------------------------------------------------------


def test_an_exercise_is_imported_and_its_id_printed(run: Run, state: Path, folder: Path) -> None:
    for _ in range(2):
        ran = run("exercise", "import", folder, "--teacher", "turing", "--state-dir", state)

        assert (ran.code, ran.out) == (0, f"1\t{folder}\n")
    assert select(state, "SELECT username FROM accounts") == [("turing",)]


def test_a_wrong_exercise_is_told_in_one_line_a_problem_with_its_file(
    run: Run, state: Path, folder: Path
) -> None:
    (folder / "exercise.toml").write_text(exercise('nonsense = 1\nlimits = { cpu = "1" }'))

    ran = run("exercise", "import", folder, "--state-dir", state)

    assert (ran.code, ran.out) == (1, "")
    file = folder / "exercise.toml"
    assert ran.lines == [
        f"{file}: nonsense: no such key (line 7)",
        f"{file}: limits.cpu: '1' is not a quantity of 1 ms or more, in one of s, ms, min",
    ]
    assert select(state, "SELECT * FROM exercises") == []


def test_a_folder_without_an_exercise_is_told_in_one_line(run: Run, state: Path) -> None:
    ran = run("exercise", "import", "nowhere", "--state-dir", state)

    assert ran.code == 1
    [line] = ran.lines
    assert line.startswith("nowhere/exercise.toml: ")


# -- submit ---------------------------------------------------------------------------------------


class Peer:
    """A reference backend reduced to an address: answers with `status`, keeps what it is told."""

    def __init__(self) -> None:
        self.status = 202
        self.told: list[tuple[str, object]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                peer.told.append((self.path, json.loads(body)))
                self.send_response(peer.status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    thread = threading.Thread(target=peer.server.serve_forever, args=(0.01,))
    thread.start()
    yield peer
    peer.server.shutdown()
    thread.join()
    peer.server.server_close()
    gc.collect()  # what was left open is told here and not in a later test


@pytest.fixture
def site(run: Run, state: Path, folder: Path) -> Path:
    """The state folder of a site with exercise 1."""
    assert run("exercise", "import", folder, "--state-dir", state).code == 0
    return state


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "main.py"
    path.write_text("print('é')\n", encoding="utf-8")
    return path


def test_an_attempt_is_written_and_pushed(run: Run, site: Path, source: Path, peer: Peer) -> None:
    ran = run("submit", 1, source, "--push", peer.address, "--state-dir", site)

    assert (ran.code, ran.out) == (0, "attempt 1\n")
    assert peer.told == [("/submit", {"id": "1"})]
    assert select(site, "SELECT user_exercise_id, name, content FROM codes") == [
        (1, "main.py", "print('é')\n")
    ]


def test_a_single_file_gets_the_single_name_that_is_expected(
    run: Run, state: Path, folder: Path, source: Path
) -> None:
    (folder / "exercise.toml").write_text(exercise('submission.files = ["task.py"]'))
    assert run("exercise", "import", folder, "--state-dir", state).code == 0

    ran = run("submit", 1, source, "--push", "", "--state-dir", state)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "main.py is handed in as task.py, as exercise 1 expects\nattempt 1\n"
    assert select(state, "SELECT name FROM codes") == [("task.py",)]


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        ('["task.py", "more.py"]', ["main.py"]),
        ('["task.py"]', ["task.py", "other.py"]),
        ('["task.py"]', ["main.py", "other.py"]),
    ],
)
def test_files_that_are_not_those_of_the_exercise_are_refused(
    run: Run, state: Path, folder: Path, expected: str, names: list[str]
) -> None:
    (folder / "exercise.toml").write_text(exercise(f"submission.files = {expected}"))
    assert run("exercise", "import", folder, "--state-dir", state).code == 0
    files = [folder / name for name in names]
    for file in files:
        file.write_text("pass")

    ran = run("submit", 1, *files, "--push", "", "--state-dir", state)

    wanted = ", ".join(json.loads(expected))
    assert ran.code == 2
    assert ran.lines == [f"exercise 1 expects {wanted}; these are {', '.join(names)}"]
    assert select(state, "SELECT * FROM user_exercises") == []


def test_files_of_the_right_names_are_handed_in_in_any_order(
    run: Run, state: Path, folder: Path
) -> None:
    (folder / "exercise.toml").write_text(exercise('submission.files = ["a.py", "b.py"]'))
    assert run("exercise", "import", folder, "--state-dir", state).code == 0
    for name in ("a.py", "b.py"):
        (folder / name).write_text("pass")

    files = folder / "b.py", folder / "a.py"
    ran = run("submit", 1, *files, "--push", "", "--state-dir", state)

    assert (ran.code, ran.out) == (0, "attempt 1\n")
    assert sorted(select(state, "SELECT name FROM codes")) == [("a.py",), ("b.py",)]


def test_an_attempt_may_be_written_without_a_push(run: Run, site: Path, source: Path) -> None:
    ran = run("submit", 1, source, "--username", "grace", "--push", "", "--state-dir", site)

    assert (ran.code, ran.out) == (0, "attempt 1\n")
    assert ("grace",) in select(site, "SELECT username FROM accounts")


def test_a_backend_that_does_not_take_it_is_told(
    run: Run, site: Path, source: Path, peer: Peer
) -> None:
    peer.status = 503

    ran = run("submit", 1, source, "--push", peer.address, "--state-dir", site)

    assert ran.code == 1
    [line] = ran.lines
    assert line.startswith(f"the reference backend at {peer.address} did not take it: ")
    assert "503" in line


def test_a_backend_that_is_not_there_is_told(run: Run, site: Path, source: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"

        ran = run("submit", 1, source, "--push", address, "--state-dir", site)

    assert ran.code == 1
    assert ran.lines[0].startswith(f"the reference backend at {address} did not take it: ")


def test_an_unknown_exercise_is_told_and_nothing_pushed(
    run: Run, site: Path, source: Path, peer: Peer
) -> None:
    ran = run("submit", 99, source, "--push", peer.address, "--state-dir", site)

    assert (ran.code, ran.lines) == (1, ["no exercise 99"])
    assert peer.told == []


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (b"\xff\xfe", 2, "{source}: not a text in UTF-8"),
        (None, 1, "[Errno 2] No such file or directory: '{source}'"),
    ],
)
def test_a_file_that_cannot_be_handed_in_is_told(
    run: Run, site: Path, source: Path, content: bytes | None, code: int, line: str
) -> None:
    source.unlink() if content is None else source.write_bytes(content)

    ran = run("submit", 1, source, "--push", "", "--state-dir", site)

    assert (ran.code, ran.lines) == (code, [line.format(source=source)])
    assert select(site, "SELECT * FROM user_exercises") == []


def test_only_http_is_pushed_to(run: Run, site: Path, source: Path) -> None:
    ran = run("submit", 1, source, "--push", "file:///etc/passwd", "--state-dir", site)

    assert (ran.code, ran.lines) == (
        2,
        ["--push: 'file:///etc/passwd' is not an http:// address"],
    )


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_language_that_nobody_knows_is_told(
    command: str, run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_DOCKER__LANGUAGES", '{"fortran": ["F77"]}')

    ran = run(command, "--state-dir", state)

    assert (ran.code, ran.lines) == (2, ["docker.languages.fortran: none of python, c"])


# -- serve ----------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_told_in_one_line(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("COMMSERVER_BROWSER__PORT", str(taken.getsockname()[1]))

        ran = run("serve", "--state-dir", state)

    assert ran.code == 1
    [line] = ran.lines
    assert "address already in use" in line


@asynccontextmanager
async def serving(state: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a server as admins do, and end it by force if the test does not."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "commserver.cli", "serve", "--state-dir", state),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        async with asyncio.timeout(START):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def listening(process: asyncio.subprocess.Process) -> None:
    """Read a server's log until it listens."""
    assert process.stderr is not None
    async for line in process.stderr:
        if b'"listening"' in line:
            return
    raise AssertionError("it ended without having listened")


async def complaint(process: asyncio.subprocess.Process) -> str:
    """Return the last line of a server that ends by itself."""
    assert process.stderr is not None
    return (await process.stderr.read()).decode().splitlines()[-1]


async def test_servers_take_turns_on_a_database(outside: None, state: Path) -> None:
    """The second says who is there; after a kill -9 the third begins; SIGTERM is a good end."""
    async with serving(state) as first:
        await listening(first)
        async with serving(state) as second:
            said = await complaint(second)
            assert await second.wait() == 3
        assert f"already managed by process {first.pid} on {socket.gethostname()} since" in said
        first.kill()
        await first.wait()

    async with serving(state) as third:
        await listening(third)
        third.send_signal(signal.SIGTERM)
        assert await third.wait() == 0


async def test_a_server_with_a_wrong_configuration_exits_2(
    outside: None, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMSERVER_BROWSER__PORT", "high")

    async with serving(state) as server:
        assert (await complaint(server)).startswith("commserver: browser.port: ")
        assert await server.wait() == 2


# -- backend --------------------------------------------------------------------------------------


def test_the_reference_backend_has_options_of_its_own(run: Run) -> None:
    ran = run("backend", "--help")

    assert ran.code == 0
    assert "--http-port" in ran.out
