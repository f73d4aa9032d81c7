"""Which engines are looked for, and which of them count as answering."""

import hashlib
import os
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from commserver.engine import discovery

StartEngine = Callable[[Path], str]


class FakeEngine(BaseHTTPRequestHandler):
    """Answers a ping as Docker does, and tells what else it was asked."""

    def do_GET(self) -> None:
        if self.path == "/broken":
            self.send_error(500)
            return
        body = b"OK" if self.path == "/_ping" else self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing; a unix socket's peer has no address to say, either."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    # A client that does not wait for the answer is no news.
    server.handle_error = lambda request, address: None  # type: ignore[assignment]
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: pytest's own are too long for sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name).resolve()


@pytest.fixture
def start_engine() -> Iterator[StartEngine]:
    with ExitStack() as engines:

        def start(path: Path) -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            server = socketserver.UnixStreamServer(str(path), FakeEngine)
            engines.enter_context(serving(server))
            return f"unix://{path}"

        yield start


def test_engines_are_looked_for_in_the_order_of_how_much_they_were_meant(folder: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://10.0.0.1:2375", "XDG_RUNTIME_DIR": "/run/user/1000"}

    assert discovery.candidates(folder, environ) == [
        "tcp://10.0.0.1:2375",
        "unix:///var/run/docker.sock",
        "unix:///run/user/1000/docker.sock",
        f"unix://{folder}/docker/run/docker.sock",
    ]


def test_an_engine_named_twice_is_asked_once(folder: Path) -> None:
    urls = discovery.candidates(folder, {"DOCKER_HOST": discovery.SYSTEM})

    assert urls.count(discovery.SYSTEM) == 1


def test_empty_variables_name_no_engine(folder: Path) -> None:
    environ = {"DOCKER_HOST": "", "XDG_RUNTIME_DIR": ""}

    assert discovery.candidates(folder, environ) == discovery.candidates(folder, {})


def test_the_run_folder_of_somebody_else_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.stat_result((0o40700, 0, 0, 1, 4242, 4242, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "lstat", lambda path: stranger)

    assert f"unix://{discovery.own_socket(folder)}" not in discovery.candidates(folder, {})


def test_a_run_folder_that_cannot_be_looked_at_is_not_used(folder: Path) -> None:
    (folder / "docker").write_text("not a folder")

    assert not discovery.is_trusted(folder / "docker" / "run")


def test_own_socket_moves_to_the_temp_folder_when_a_path_gets_too_long() -> None:
    room = 108 - len("/docker/run/exec/containerd/containerd-debug.sock")
    fits = Path("/" + "x" * (room - 2))
    too_long = Path("/" + "x" * (room - 1))

    assert discovery.own_socket(fits) == fits / "docker/run/docker.sock"
    name = hashlib.sha256(bytes(too_long)).hexdigest()[:8]
    expected = Path(tempfile.gettempdir()) / f"commserver-{name}" / "docker.sock"
    assert discovery.own_socket(too_long) == expected


def test_length_is_counted_in_bytes() -> None:
    assert discovery.own_socket(Path("/" + "é" * 40)).parent.name != "run"


def test_own_socket_is_the_same_by_a_relative_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    assert discovery.own_socket(Path("var")) == discovery.own_socket(folder / "var")


def test_an_engine_on_a_unix_socket_answers(folder: Path, start_engine: StartEngine) -> None:
    assert discovery.answers(start_engine(folder / "docker.sock"))


def test_an_engine_on_tcp_answers() -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), FakeEngine)
    with serving(server):
        assert discovery.answers(f"tcp://127.0.0.1:{server.server_address[1]}", environ={})


def test_without_its_certificates_a_tls_engine_does_not_answer(folder: Path) -> None:
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}

    assert not discovery.answers("tcp://127.0.0.1:1", environ=environ)


def test_a_socket_left_behind_by_a_killed_engine_does_not_answer(folder: Path) -> None:
    path = folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))

    assert path.exists()
    assert not discovery.answers(f"unix://{path}")


def test_an_engine_that_accepts_and_stays_silent_does_not_answer(folder: Path) -> None:
    path = folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()

        assert not discovery.answers(f"unix://{path}", deadline=0.05)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\1\2 no HTTP at all\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOK",
        b"HTTP/1.1 503 Starting\r\nContent-Length: 2\r\n\r\nOK",
    ],
    ids=["nothing", "garbage", "other-text", "cut", "error"],
)
def test_whatever_else_speaks_there_is_no_engine(folder: Path, answer: bytes) -> None:
    class Stranger(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    path = folder / "docker.sock"
    with serving(socketserver.UnixStreamServer(str(path), Stranger)):
        assert not discovery.answers(f"unix://{path}")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "unix://",
        "unix:///nowhere/docker.sock",
        "unix:///" + "x" * 200,
        "tcp://",
        "tcp://127.0.0.1:port",
        "tcp://[::1",
        "ssh://host",
    ],
)
def test_a_url_that_leads_nowhere_does_not_answer(url: str) -> None:
    assert not discovery.answers(url)


def test_get_gives_the_body_of_a_success_only(folder: Path, start_engine: StartEngine) -> None:
    url = start_engine(folder / "docker.sock")

    assert discovery.get(url, "/images/json?a=b") == b"/images/json?a=b"
    assert discovery.get(url, "/broken") is None


def test_the_first_engine_that_answers_is_found(
    folder: Path, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "SYSTEM", f"unix://{folder}/system.sock")
    environ = {"DOCKER_HOST": "unix:///nowhere.sock", "XDG_RUNTIME_DIR": str(folder / "user")}

    assert discovery.find(folder, environ) is None

    own = start_engine(discovery.own_socket(folder))
    assert discovery.find(folder, environ) == own

    rootless = start_engine(folder / "user" / "docker.sock")
    assert discovery.find(folder, environ) == rootless

    shutil.rmtree(folder / "user")
    assert discovery.find(folder, environ) == own
