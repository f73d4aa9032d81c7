"""`status`, `explain`, `watch` and `audit`: what they print, and how they end."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from commserver import app, cli, logs, operations
from commserver.app import App
from commserver.commands import status as status_command
from commserver.commands import watch as watch_command
from commserver.commands.status import NoAnswer
from commserver.config import Backend, Browser, Config, Docker, Http, Queue
from commserver.core.verdicts import Completed, Status, Verdict
from commserver.errors import ConfigError, StoreError
from commserver.gateways.backend.client import Client
from commserver.services.audit_service import AuditService
from commserver.trial import free_port
from tests.fake_sandbox import FakeSandbox
from tests.fakes import FakeClock
from tests.integration.links.certificates import Authority
from tests.integration.services.site import Site, until
from tests.integration.test_cli import Ran

Run = Callable[..., Ran]
PATIENCE = 60.0  # seconds for what must come


@pytest.fixture
def run(outside: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""
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
    """The state folder `./var` of a site that has never served."""
    folder = tmp_path / "var"
    folder.mkdir()
    (folder / "commserver.db").write_bytes(sqlite_template.read_bytes())
    return folder


# -- status ---------------------------------------------------------------------------------------


class Asked:
    """One `commserver status`."""

    def __init__(self, *, json: bool = False) -> None:
        self._json = json
        self._said = io.StringIO()

    async def __call__(self, config: Config, url: str = "", ca: Path | None = None) -> bool:
        out = Console(file=self._said, width=200, soft_wrap=True)
        return await status_command.run(config, out, url=url, ca=ca, as_json=self._json)

    @property
    def said(self) -> str:
        return self._said.getvalue()


@pytest.fixture
def config(state: Path) -> Config:
    sections = {
        "browser": Browser(port=0),
        "backend": Backend(enabled=False),
        "http": Http(port=free_port()),
        "docker": Docker(slots=2),
        "queue": Queue(grace=0.0),
    }
    return Config(state_dir=state).model_copy(update=sections)  # whatever the environment says


@asynccontextmanager
async def serving(config: Config, engine: FakeSandbox) -> AsyncIterator[App]:
    """Serve for the length of the block."""
    async with app.built(config, sandboxes=lambda site, boot: [engine]) as built:
        stop = asyncio.Event()
        served = asyncio.create_task(built.run(stop))
        try:
            assert built.http
            async with asyncio.timeout(PATIENCE):
                await built.http.listening.wait()
            await until(lambda: engine.down or not any(e.why for e in built.docker.engines()))
            yield built
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await served


async def test_a_server_that_is_well_says_so_on_one_screen(outside: None, config: Config) -> None:
    asked = Asked()

    async with serving(config, FakeSandbox()):
        well = await asked(config)

    assert well
    assert asked.said.startswith("commserver 0.1.0, up since ")
    for line in (
        "SQLite, answers in",
        "engine  up, 0 of 2 slots busy, images c, python, isolation fresh",
        "0 connected",
        "0 waiting, 0 running",
        "0 owed",
        "not yet",
        "GiB free at",
        "all is well",
    ):
        assert line in asked.said
    assert len(asked.said.splitlines()) < 20


async def test_a_server_with_a_problem_says_which(outside: None, config: Config) -> None:
    asked, as_json = Asked(), Asked(json=True)
    engine = FakeSandbox()
    engine.down = True
    backend = Backend(port=free_port())
    config = config.model_copy(update={"backend": backend})

    async with serving(config, engine):
        well = await asked(config)
        assert not await as_json(config)

    assert not well
    assert "! engine engine is down" in asked.said
    [down] = [line for line in asked.said.splitlines() if line.startswith("! engine ")]
    assert asked.said.count(down.partition(": ")[2]) == 1  # why, once
    assert "! the link to backend backend is down since" in asked.said
    told = json.loads(as_json.said)
    assert len(told["problems"]) == 2
    assert told["parts"]["engines"][0]["values"]["up"] is False
    assert told["parts"]["queue"][0]["values"] == {
        "waiting": 0,
        "running": 0,
        "oldest_seconds": 0.0,
    }


async def test_a_link_that_is_up_is_well_and_one_that_was_lost_says_since_when(
    outside: None, config: Config
) -> None:
    lost = asyncio.Event()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await lost.wait()
        writer.close()

    server = await asyncio.start_server(backend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    links = {"backend": Backend(port=port, retry_first=0.02, retry_most=0.02)}
    async with server, serving(config.model_copy(update=links), FakeSandbox()) as built:
        client = built.asking[0]
        assert isinstance(client, Client)
        await until(lambda: client.state.up)
        up, down = Asked(), Asked()
        assert await up(config)
        server.close()
        lost.set()
        await until(lambda: not client.state.up)
        since = client.state.since
        await until(lambda: "Connect" in client.state.why)  # dialled again, in vain
        assert client.state.since == since
        assert not await down(config)

    assert "link up since" in up.said
    assert "! the link to backend backend is down since" in down.said


async def test_what_waits_and_what_runs_is_counted_and_the_oldest_named(
    outside: None, config: Config
) -> None:
    async with Site(config.state_dir, FakeClock()).open() as before:
        for number in range(4):
            attempt = await before.attempt(await before.exercise(), {"main.py": f"print({number})"})
            await before.submit(attempt)
    engine = FakeSandbox()
    engine.hang()
    asked = Asked(json=True)

    async with serving(config, engine):
        await until(lambda: engine.running == 2)
        await asked(config)
        engine.resume()

    parts = json.loads(asked.said)["parts"]
    assert parts["queue"][0]["values"]["waiting"] == 2
    assert parts["queue"][0]["values"]["running"] == 2
    assert parts["queue"][0]["values"]["oldest_seconds"] > 1000  # by the clock of that site
    assert parts["engines"][0]["values"]["busy"] == 2


async def test_a_wrong_admin_token_is_told(
    outside: None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(config, FakeSandbox()):
        monkeypatch.setenv("COMMSERVER_TOKEN", "wrong")

        with pytest.raises(NoAnswer, match="does not take our admin token"):
            await Asked()(config)


async def test_another_server_is_asked_by_its_address(
    outside: None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(config, FakeSandbox()):
        elsewhere = config.model_copy(update={"http": Http(port=free_port())})

        assert await Asked()(elsewhere, f"http://127.0.0.1:{config.http.port}/")


async def test_with_tls_only_whom_we_trust_is_shown_a_token(
    outside: None, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("127.0.0.1")
    tls = {"tls_cert": pair.cert, "tls_key": pair.key}
    sections = {
        "http": config.http.model_copy(update=tls),
        "browser": Browser(port=free_port()).model_copy(update=tls),
    }
    config = config.model_copy(update=sections)
    async with Site(config.state_dir, FakeClock()).open() as before:
        token = await before.admin.new_token(await before.admin.account("ada"), days=400)
    (tmp_path / "token").write_text(token)

    async with serving(config, FakeSandbox()):
        assert await Asked()(config, ca=authority.file)
        with pytest.raises(NoAnswer, match="certificate verify failed"):
            await Asked()(config)
        await watch_command.run(
            *(config, Console(file=io.StringIO())),
            url="",
            token_file=tmp_path / "token",
            ca=authority.file,
            once=True,
        )

    assert "connected" in capsys.readouterr().out


async def test_what_is_no_server_of_ours_is_told(outside: None, config: Config) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    config.admin_token_file.write_text("token")
    server = await asyncio.start_server(other, "127.0.0.1", config.http.port)
    async with server:
        with pytest.raises(NoAnswer, match="is no server of this version"):
            await Asked()(config)


async def test_a_server_that_does_not_answer_costs_its_deadline(
    outside: None, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    monkeypatch.setattr(status_command, "DEADLINE", 0.2)
    config.admin_token_file.write_text("token")
    async with await asyncio.start_server(silent, "127.0.0.1", config.http.port):
        with pytest.raises(NoAnswer, match=r"answered in 0\.2 s|no server answers"):
            await Asked()(config)
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


@pytest.mark.parametrize(("host", "dialled"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])  # noqa: S104
async def test_a_server_that_listens_everywhere_is_asked_here(
    outside: None, config: Config, host: str, dialled: str
) -> None:
    http = Http(host=host, port=free_port())
    config.admin_token_file.write_text("token")

    with pytest.raises(NoAnswer, match=f"at http://{dialled}:{http.port}".replace("[", r"\[")):
        await Asked()(config.model_copy(update={"http": http}))


async def test_a_port_that_is_any_port_cannot_be_asked(outside: None, config: Config) -> None:
    with pytest.raises(ConfigError, match="use --url"):
        await Asked()(config.model_copy(update={"http": Http(port=0)}))


def test_no_server_is_told_in_one_line_and_exits_1(run: Run, state: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ran = run("status", "--url", url)

    assert ran.code == 1
    assert ran.out == ""
    [line] = ran.err.splitlines()
    assert "no server has made" in line
    (state / "admin.token").write_text("token")

    ran = run("status", "--url", url)

    assert ran.code == 1
    [line] = ran.err.splitlines()
    assert "no server answers at http://127.0.0.1:" in line
    assert "token" not in line


def test_misuse_of_status_exits_2(run: Run, state: Path, tmp_path: Path) -> None:
    (state / "admin.token").write_text("token")

    assert run("status", "--ca", tmp_path / "missing").code == 2
    assert run("status", "--what").code == 2
    for url in ("http://[", "ws://host", "http://", "x"):
        assert run("status", "--url", url).code == 2


# -- explain --------------------------------------------------------------------------------------


def test_an_attempt_is_explained_in_sentences_and_as_json(run: Run, state: Path) -> None:
    async def judged() -> int:
        async with Site(state, FakeClock()).open() as site:
            attempt = await site.attempt(await site.exercise())
            await site.submit(attempt)
            verdict = Verdict(Status.ACCEPTED, 20, 20, "its log", (), "its notes")
            await site.runs.finished(await site.lease(), Completed(verdict))
            return attempt

    attempt = asyncio.run(judged())

    ran = run("explain", attempt)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"attempt {attempt}, account 2 (ada), exercise 1\n")
    assert "2026-01-01 00:00:00.000 UTC" in ran.out
    assert "stored as done" in " ".join(ran.out.split())
    assert not [text for text in ("its log", "its notes") if text in ran.out]
    texts = run("explain", attempt, "--texts").out
    assert [text for text in ("its log", "its notes") if text in texts] == ["its log", "its notes"]
    told = json.loads(run("explain", attempt, "--json").out)
    assert [step["name"] for step in told["runs"][0]["steps"]][:3] == [
        "received",
        "content",
        "queued",
    ]


def test_an_unknown_attempt_is_told_in_one_line_and_exits_1(run: Run, state: Path) -> None:
    ran = run("explain", 4711)

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "commserver: there is no attempt 4711\n"


@pytest.mark.parametrize("number", ["x", "-1", str(2**63)])
def test_what_is_no_attempt_is_misuse(run: Run, state: Path, number: str) -> None:
    assert run("explain", "--", number).code == 2


# -- audit ----------------------------------------------------------------------------------------


def test_what_the_command_line_does_is_listed(run: Run, state: Path, tmp_path: Path) -> None:
    token = run("token", "create", "ada").out.strip()
    assert run("backup", tmp_path / "site.backup").code == 0
    assert run("erase", 1, "--yes").code == 0

    entries = json.loads(run("audit", "--json").out)

    assert [entry["action"] for entry in entries] == ["erase", "backup", "token.create"]
    assert {entry["who"] for entry in entries} == {operations.operator()}
    assert entries[0]["who"].startswith("cli:")
    assert entries[1]["target"] == f"file {tmp_path / 'site.backup'}"
    ran = run("audit", "--limit", 1)
    assert "erase" in ran.out
    assert "backup" not in ran.out
    assert token not in json.dumps(entries)


def test_a_migration_is_in_the_audit_once(run: Run, tmp_path: Path) -> None:
    assert run("migrate", "--with-platform").code == 0
    assert run("migrate").code == 0

    [entry] = json.loads(run("audit", "--json").out)

    assert (entry["action"], entry["target"]) == ("migrate", "database")
    assert entry["detail"].startswith("from nothing to ")


def test_a_restore_is_in_the_audit_of_the_new_site(run: Run, state: Path, tmp_path: Path) -> None:
    run("backup", tmp_path / "site.backup")

    assert run("restore", tmp_path / "site.backup", "--state-dir", tmp_path / "new").code == 0

    newest, *_ = json.loads(run("audit", "--json", "--state-dir", tmp_path / "new").out)
    assert newest["action"] == "restore"


def test_a_backup_that_the_audit_does_not_take_is_a_backup(
    run: Run, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreError("no space left")

    monkeypatch.setattr(AuditService, "record", full)

    ran = run("backup", tmp_path / "site.backup")

    assert ran.code == 0
    assert "the audit did not take it: no space left" in ran.err
    assert (tmp_path / "site.backup").exists()


# -- watch ----------------------------------------------------------------------------------------


async def test_watch_prints_plain_lines_and_ends_with_ctrl_c(
    outside: None, config: Config, tmp_path: Path
) -> None:
    async with Site(config.state_dir, FakeClock()).open() as before:
        attempt = await before.attempt(await before.exercise())
        await before.submit(attempt)
        token = await before.admin.new_token(await before.admin.account("ada"), days=400)
    (tmp_path / "token").write_text(token)
    config = config.model_copy(update={"browser": Browser(port=free_port())})

    async with serving(config, FakeSandbox()):
        url = f"ws://127.0.0.1:{config.browser.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "commserver.cli", "watch", "--url", url),
            *("--token-file", "token"),
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        assert process.stdout
        async with asyncio.timeout(PATIENCE):
            lines = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            code = await process.wait()

    assert lines == ["connected", f"attempt {attempt}: accepted, grade 20"]
    assert code == 0


def test_watch_without_a_token_is_misuse(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))

    ran = run("watch", "--url", "ws://127.0.0.1:9")

    assert ran.code == 2
    assert "the token is empty" in ran.err


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1", "ws://", "ws://ada:secret@host", "ws://host?token=secret", "ws://[", "x"],
)
def test_a_wrong_address_is_misuse_and_no_token_belongs_into_it(
    run: Run, state: Path, url: str
) -> None:
    ran = run("watch", "--url", url)

    assert ran.code == 2
    assert ran.err.startswith("commserver: --url: ")
    assert "secret" not in ran.err
