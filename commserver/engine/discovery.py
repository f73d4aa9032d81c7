"""Where is a Docker engine that answers?

Standard library only: `scripts/prepare.py` imports this file too, before anything is installed,
so that both agree on the socket of the engine we start ourselves.
"""

import hashlib
import http.client
import os
import socket
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

SYSTEM = "unix:///var/run/docker.sock"

PING_TIMEOUT = 3.0  # seconds

# The kernel's limit for a socket's path, the closing zero byte included.
SOCKET_PATH_MAX = 108  # bytes

# The longest of the sockets that dockerd and its containerd make in their run folder.
LONGEST_SOCKET = "exec/containerd/containerd-debug.sock"


def candidates(state_dir: Path, environ: Mapping[str, str]) -> list[str]:
    """Every place where an engine may listen, as Docker URLs, the first to be asked first."""
    urls = [environ["DOCKER_HOST"]] if environ.get("DOCKER_HOST") else []
    urls.append(SYSTEM)
    if environ.get("XDG_RUNTIME_DIR"):  # rootless Docker
        urls.append(f"unix://{environ['XDG_RUNTIME_DIR']}/docker.sock")
    own = own_socket(state_dir)
    if is_trusted(own.parent):
        urls.append(f"unix://{own}")
    return list(dict.fromkeys(urls))


def own_socket(state_dir: Path) -> Path:
    """The socket of the engine that `scripts/prepare.py` starts for this state folder.

    It is beside the state if its siblings' paths are short enough for the kernel, else in the
    system's temporary folder, under a name that only this state folder has.
    """
    state_dir = state_dir.resolve()
    run = state_dir / "docker" / "run"
    if len(os.fsencode(run / LONGEST_SOCKET)) >= SOCKET_PATH_MAX:
        name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:8]
        run = Path(tempfile.gettempdir()) / f"commserver-{name}"
    return run / "docker.sock"


def is_trusted(run: Path) -> bool:
    """Whether this run folder is missing, ours or root's.

    Anybody can make a folder of that name in the temporary folder and listen in it.
    """
    try:
        return run.lstat().st_uid in (0, os.getuid())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def find(state_dir: Path, environ: Mapping[str, str], deadline: float = PING_TIMEOUT) -> str | None:
    """The URL of the first engine that answers, each within `deadline` seconds, or None."""
    for url in candidates(state_dir, environ):
        if answers(url, deadline, environ):
            return url
    return None


def answers(
    url: str, deadline: float = PING_TIMEOUT, environ: Mapping[str, str] = os.environ
) -> bool:
    """Whether an engine answers there within `deadline` seconds. Never raises.

    A socket that exists says nothing: a killed engine leaves its own behind.
    """
    return get(url, "/_ping", deadline, environ) == b"OK"


def get(
    url: str, path: str, deadline: float = PING_TIMEOUT, environ: Mapping[str, str] = os.environ
) -> bytes | None:
    """What the engine answers to a GET; None if it does not or not with 200. Never raises.

    `deadline` is seconds for each wait: to connect, for the head, for the body.
    """
    try:
        connection = _connection(url, deadline, environ)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == 200 else None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):  # ValueError: not a URL
        return None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(url: str, timeout: float, environ: Mapping[str, str]) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path, timeout)
    if parts.scheme not in ("tcp", "http", "https") or not parts.hostname:
        raise ValueError(f"no engine is reached by {url!r}")
    tls = _tls(environ)
    if tls or parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname, parts.port or 2376, timeout=timeout, context=tls
        )
    return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=timeout)


def _tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """TLS as the docker SDK reads it from the environment; None if the engine speaks plain HTTP."""
    verify = environ.get("DOCKER_TLS_VERIFY", "")
    folder = environ.get("DOCKER_CERT_PATH", "")
    if not verify and not folder:
        return None
    certificates = Path(folder) if folder else Path.home() / ".docker"
    if verify:
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context
