"""What scripts/prepare.py decides. That it installs, each `make` on a fresh machine tries."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from commserver.engine import discovery
from scripts import prepare

DOCKER = prepare.Missing(("docker.io", "iptables"), "No engine: {install}, or set DOCKER_HOST.")
VENV = prepare.Missing(("python3-venv",), "No venv: {install}.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder with a short path, no engine to be found outside of it, and root's rights."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        monkeypatch.setattr(prepare, "STATE", folder / "var")
        monkeypatch.setattr(discovery, "SYSTEM", f"unix://{folder}/system.sock")
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        yield folder / "var"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What prepare would have run."""
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(prepare, "run", lambda *command: ran.append(command))
    return ran


def fake_dockerd(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Put a dockerd on prepare's PATH that is this Python code."""
    program = folder / "bin" / "dockerd"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o755)
    monkeypatch.setattr(prepare, "PATH", str(program.parent))


# --- The script as such


def test_nothing_but_the_standard_library_is_needed() -> None:
    """It runs before anything is installed; -S leaves all installed packages out."""
    script = prepare.ROOT / "scripts" / "prepare.py"

    done = subprocess.run(
        [sys.executable, "-S", str(script), "nonsense"], capture_output=True, text=True, check=False
    )

    assert done.stderr == (
        "Unknown: nonsense. Steps are venv, engine, engine-stop, postgresql, peers, wheels.\n"
    )
    assert done.returncode == 1


def test_a_failing_command_is_shown_with_its_output() -> None:
    with pytest.raises(SystemExit, match=r"(?s)out of luck.*`sh -c .*` failed"):
        prepare.run("sh", "-c", "echo out of luck; exit 3")


def test_two_do_not_prepare_at_the_same_time(state: Path) -> None:
    with (
        prepare.alone(),
        (state / "prepare.lock").open() as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_waiting_ends_when_its_time_is_over() -> None:
    assert prepare.wait_until(lambda: True, 0)
    assert not prepare.wait_until(lambda: False, -1)


# --- What is missing


def test_who_may_not_install_gets_one_sentence_for_each_part(
    monkeypatch: pytest.MonkeyPatch, commands: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(SystemExit) as refused:
        prepare.install([VENV, DOCKER])

    assert str(refused.value).splitlines() == [
        "No venv: have an administrator run `apt-get install python3-venv`.",
        "No engine: have an administrator run `apt-get install docker.io iptables`,"
        " or set DOCKER_HOST.",
    ]
    assert commands == []


def test_root_installs_everything_by_one_apt_get(
    state: Path, monkeypatch: pytest.MonkeyPatch, commands: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/apt-get")
    monkeypatch.setattr(prepare, "wait_until", lambda *_: True)
    monkeypatch.setenv("YES", "1")

    prepare.install([VENV, DOCKER])

    update, install = commands
    assert update[-1] == "update"
    assert install[-5:] == (
        "-y", "--no-install-recommends", "python3-venv", "docker.io", "iptables",
    )  # fmt: skip


def test_nothing_missing_means_nothing_done(commands: list[tuple[str, ...]]) -> None:
    prepare.install([])

    assert commands == []


@pytest.mark.parametrize(
    ("answer", "consent"),
    [("\n", True), ("y\n", True), ("Yes\n", True), ("n\n", False), ("", False)],
)
def test_a_person_at_a_terminal_is_asked(
    monkeypatch: pytest.MonkeyPatch, answer: str, consent: bool
) -> None:
    monkeypatch.delenv("YES", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    assert prepare.may_install(["docker.io"]) is consent


def test_nobody_is_asked_without_a_terminal_or_with_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YES", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert prepare.may_install(["docker.io"])

    monkeypatch.setenv("YES", "1")
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert prepare.may_install(["docker.io"])


def test_an_engine_and_its_base_image_are_missing_on_a_fresh_machine(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)

    parts = prepare.missing(["engine"])

    assert [part.packages for part in parts] == [("docker.io", "iptables"), ("mmdebstrap",)]
    assert prepare.missing(["wheels"]) == []


def test_nothing_is_missing_when_an_engine_answers_and_holds_the_base_image(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    monkeypatch.setattr(discovery, "find", lambda *_: "unix:///engine")
    monkeypatch.setattr(discovery, "get", lambda *_: b'[{"Id": "sha256:1"}]\n')

    assert prepare.missing(["engine"]) == []


def test_python3_venv_is_missing_only_while_there_is_no_venv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    monkeypatch.setattr(prepare, "has_pip", lambda: False)
    assert [part.packages for part in prepare.missing(["venv"])] == [("python3-venv",)]

    monkeypatch.setattr(prepare, "has_pip", lambda: True)
    assert prepare.missing(["venv"]) == []


@pytest.mark.parametrize(
    ("answer", "held"), [(b"[]\n", False), (None, False), (b'[{"Id": "sha256:1"}]\n', True)]
)
def test_the_engine_is_asked_for_the_base_image(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, held: bool
) -> None:
    asked = []

    def get(url: str, path: str) -> bytes | None:
        asked.append(path)
        return answer

    monkeypatch.setattr(discovery, "get", get)

    assert prepare.holds_base_image("unix:///engine") is held
    query = parse_qs(urlsplit(asked[0]).query)
    assert json.loads(query["filters"][0]) == {"reference": ["commserver/base"]}


# --- PostgreSQL


@pytest.fixture
def no_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without its programs; where those of a version would be."""
    monkeypatch.setattr(prepare, "INSTALLED", tmp_path)
    monkeypatch.setattr(prepare, "PATH", str(tmp_path / "bin"))
    return tmp_path


def test_postgresql_is_missing_only_for_who_asks_for_it(no_postgresql: Path) -> None:
    assert [part.packages for part in prepare.missing(["postgresql"])] == [("postgresql",)]
    assert prepare.missing(["wheels"]) == []


@pytest.mark.parametrize("where", ["15/bin/initdb", "bin/initdb"])
def test_postgresql_that_is_there_is_not_installed(no_postgresql: Path, where: str) -> None:
    program = no_postgresql / where
    program.parent.mkdir(parents=True)
    program.touch(0o755)

    assert prepare.missing(["postgresql"]) == []


def test_the_package_makes_no_cluster_unless_somebody_has_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[tuple[str, ...]]
) -> None:
    choice = tmp_path / "createcluster.d" / "commserver.conf"
    monkeypatch.setattr(prepare, "CLUSTERS", choice)
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("YES", "1")
    postgresql = prepare.Missing(("postgresql",), "{install}")

    prepare.install([postgresql])
    assert choice.read_text() == "create_main_cluster = false\n"
    assert commands[-1][-1] == "postgresql"

    choice.write_text("start_conf = 'manual'\n")
    prepare.install([postgresql])
    assert choice.read_text() == "start_conf = 'manual'\n"


@pytest.mark.parametrize("peer", prepare.PEERS)
def test_a_peer_is_missing_only_for_who_asks_for_it(
    peer: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {names[0] for names in prepare.PEERS if names != peer}
    monkeypatch.setattr("shutil.which", lambda name, **_: name if name in there else None)

    assert prepare.missing(["peers"]) == [prepare.PEERS[peer]]
    assert prepare.missing([]) == []


@pytest.mark.parametrize("systemd", [True, False])
def test_no_web_server_is_left_running_by_the_tests(
    systemd: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(prepare, "SYSTEMD", tmp_path if systemd else tmp_path / "none")
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("YES", "1")

    prepare.install([prepare.PEERS["nginx",]])

    stopped = ("systemctl", "disable", "--now", "nginx")
    assert (commands[-1] == stopped) == systemd


# --- Python


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setattr(prepare, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(prepare, "VENV_PYTHON", tmp_path / ".venv" / "bin" / "python")
    monkeypatch.setattr(prepare, "has_pip", lambda: True)
    (tmp_path / ".venv").mkdir()
    return tmp_path


@pytest.mark.parametrize("changed", ["requirements-dev.lock", "pyproject.toml"])
def test_the_venv_is_made_again_only_after_a_change(
    project: Path, commands: list[tuple[str, ...]], changed: str
) -> None:
    prepare.venv()
    assert commands[0] == (sys.executable, "-m", "venv", "--clear", str(project / ".venv"))
    assert [command[3:5] for command in commands[1:]] == [("install", "-q")] * 2

    commands.clear()
    prepare.venv()
    assert commands == []

    (project / changed).write_text("changed")
    prepare.venv()
    assert commands != []


def test_a_copied_checkout_does_not_believe_the_copied_stamp(
    project: Path, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.venv()
    commands.clear()
    copy = project / "copy"
    (project / ".venv").rename(copy)
    monkeypatch.setattr(prepare, "VENV", copy)

    prepare.venv()

    assert commands != []


def test_wheels_of_another_lock_are_replaced(
    project: Path, commands: list[tuple[str, ...]]
) -> None:
    old = project / "wheels" / "old-1.0-py3-none-any.whl"
    old.touch()

    prepare.wheels()
    assert not old.exists()
    assert "--require-hashes" in commands[0]

    commands.clear()
    prepare.wheels()
    assert commands == []


def test_fingerprints_tell_where_one_part_ends() -> None:
    assert prepare.fingerprint(b"ab", b"c") != prepare.fingerprint(b"a", b"bc")


# --- Docker

ANSWERING = """
import os, socketserver, sys
options = dict(option.lstrip("-").split("=", 1) for option in sys.argv[1:])
open(options["pidfile"], "w").write(str(os.getpid()))

class Ping(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nOK")

socketserver.UnixStreamServer(options["host"].removeprefix("unix://"), Ping).serve_forever()
"""


# The engine outlives whoever started it: that its handle is dropped while it runs is the point.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_an_engine_of_our_own_is_started_once(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_dockerd(state.parent, monkeypatch, ANSWERING)
    pidfile = discovery.own_socket(state).parent / "docker.pid"
    try:
        prepare.engine()
        assert discovery.find(state, {}) == f"unix://{discovery.own_socket(state)}"
        assert "starting" in capsys.readouterr().out

        prepare.engine()
        assert capsys.readouterr().out == ""
        assert os.getsid(int(pidfile.read_text())) != os.getsid(0)
    finally:
        os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_an_engine_that_dies_while_starting_is_not_waited_for(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_dockerd(state.parent, monkeypatch, "raise SystemExit('no cgroups here')")

    with pytest.raises(SystemExit, match=r"(?s)no cgroups here.*ended while starting"):
        prepare.engine()


def test_only_root_starts_and_stops_an_engine(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(SystemExit, match="only root may start one"):
        prepare.engine()
    with pytest.raises(SystemExit, match="only root may stop it"):
        prepare.stop_engine()


def test_a_docker_host_that_does_not_answer_is_named(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr(discovery, "find", lambda *_: "unix:///elsewhere.sock")

    prepare.engine()

    assert capsys.readouterr().out == (
        "prepare: DOCKER_HOST=unix:///nowhere.sock does not answer; using unix:///elsewhere.sock\n"
    )


@pytest.fixture
def dockerd(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like the engine whose run folder is tmp_path, and ignores SIGTERM."""
    code = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(flush=True); signal.pause()"
    )
    pidfile = tmp_path / "docker.pid"
    command = ["/usr/sbin/dockerd", "-c", code, f"--pidfile={pidfile}"]
    with subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pidfile.write_text(f"{process.pid}\n")
        yield process
        process.kill()


def test_our_engine_is_known_by_its_command_line(
    tmp_path: Path, dockerd: subprocess.Popen[bytes]
) -> None:
    assert prepare.running(tmp_path) == dockerd.pid
    assert not prepare.is_ours(dockerd.pid, tmp_path / "another")


@pytest.mark.parametrize("content", ["", "garbage", "self", "999999999"])
def test_a_stale_pidfile_names_no_engine(tmp_path: Path, content: str) -> None:
    (tmp_path / "docker.pid").write_text(str(os.getpid()) if content == "self" else content)

    assert prepare.running(tmp_path) is None


def test_no_pidfile_names_no_engine(tmp_path: Path) -> None:
    assert prepare.running(tmp_path) is None


def test_an_engine_that_ignores_sigterm_is_killed(
    tmp_path: Path, dockerd: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "ENGINE_STOP", 0.2)

    prepare.end(dockerd.pid, tmp_path)

    assert dockerd.wait() == -signal.SIGKILL


def test_stopping_clears_what_the_engine_left(state: Path, commands: list[tuple[str, ...]]) -> None:
    folder = discovery.own_socket(state).parent
    folder.mkdir(parents=True)

    prepare.stop_engine()
    prepare.stop_engine()

    assert not folder.exists()
    assert commands == []


def test_mounts_are_found_deepest_first() -> None:
    table = (
        "proc /proc proc rw 0 0\n"
        "/dev/vda /srv/my\\040site/data ext4 rw 0 0\n"
        "overlay /srv/my\\040site/data/overlay2/1/merged overlay rw 0 0\n"
        "nsfs /run/c/exec/netns/default nsfs rw 0 0\n"
        "/dev/vda /srv/my\\040site/data-of-another ext4 rw 0 0\n"
    )

    assert prepare.mounts_under([Path("/srv/my site/data"), Path("/run/c")], table) == [
        "/srv/my site/data/overlay2/1/merged",
        "/run/c/exec/netns/default",
        "/srv/my site/data",
    ]
