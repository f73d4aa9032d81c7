"""Installs and starts what commserver needs: `python3 scripts/prepare.py [STEP ...]`.

    venv         .venv with exactly what requirements-dev.lock says, and commserver itself
    engine       a Docker engine that answers: one that is there already, else one of our own
    engine-stop  end our own engine (and nobody else's)
    postgresql   the programs of a PostgreSQL server; none is started
    wheels       wheels/ with what requirements.lock says, for the Dockerfile

Without a step: venv and engine. A step that has nothing to do is silent and takes no time.
Debian packages that are missing are installed by apt-get if root runs this; it asks first, unless
YES=1 or there is no terminal to ask on.

Runs under the system's python3 before anything is installed: standard library only.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this is the check itself
    sys.exit("commserver needs Python 3.11 or newer: install it and say `make PYTHON=python3.11`.")

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from commserver.engine import discovery  # noqa: E402 - it is found by the line above

STATE = ROOT / "var"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

# The Python of the image that the Dockerfile makes: Debian 12's.
IMAGE_PYTHON = "3.11"

# From it all other images are made; whoever has it in their engine needs no mmdebstrap.
BASE_IMAGE = "commserver/base"

ENGINE_START = 60.0  # seconds until our engine must answer; it usually takes 0.3
ENGINE_STOP = 40.0  # seconds; dockerd gives containers 15 of them
SYSTEM_START = 20.0  # seconds until a freshly installed systemd service must answer

SYSTEMD = Path("/run/systemd/system")  # is there where systemd starts what is installed
NGINX = "nginx-light"

# Debian keeps each version's programs there, and its scripts look there for what to do.
POSTGRESQL = "postgresql"
INSTALLED = Path("/usr/lib/postgresql")
CLUSTERS = Path("/etc/postgresql-common/createcluster.d/commserver.conf")

# The daemons' folders are not on everybody's PATH.
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


# --- What is missing -------------------------------------------------------------------------


@dataclass(frozen=True)
class Missing:
    """Debian packages, and what to tell somebody who may not install them."""

    packages: tuple[str, ...]
    advice: str


# Other people's programs that the tests run against ours, by what each is called.
PEERS = {
    ("nginx",): Missing((NGINX,), "There is no nginx to test behind: {install}."),
    ("curl",): Missing(("curl",), "There is no curl to try the HTTP page with: {install}."),
    ("chromium", "chromium-browser", "google-chrome"): Missing(
        ("chromium", "fonts-dejavu-core"), "There is no Chromium to look at the pages: {install}."
    ),
    ("node",): Missing(("nodejs",), "There is no node to test the JavaScript with: {install}."),
    ("php",): Missing(("php-cli",), "There is no PHP to test its example with: {install}."),
    ("javac",): Missing(
        ("openjdk-17-jdk-headless",), "There is no JDK to test the Java example with: {install}."
    ),
}


def missing(steps: Sequence[str]) -> list[Missing]:
    """What these steps need and this machine lacks."""
    parts = []
    if "venv" in steps and importlib.util.find_spec("ensurepip") is None and not has_pip():
        parts.append(
            Missing(("python3-venv",), "python3 cannot make a virtual environment: {install}.")
        )
    if "engine" in steps:
        url = discovery.find(STATE, os.environ)
        if url is None and not shutil.which("dockerd", path=PATH):
            parts.append(
                Missing(
                    ("docker.io", "iptables"),
                    "No Docker engine answers: {install}, or set DOCKER_HOST to one that does.",
                )
            )
        if not (url and holds_base_image(url)) and not shutil.which("mmdebstrap", path=PATH):
            parts.append(
                Missing(
                    ("mmdebstrap",),
                    f"There is no image {BASE_IMAGE} and nothing to make it with: {{install}}.",
                )
            )
    if "peers" in steps:
        parts += [part for programs, part in PEERS.items() if not has_program(*programs)]
    if "postgresql" in steps and not has_postgresql():
        parts.append(Missing((POSTGRESQL,), "There is no PostgreSQL to test with: {install}."))
    return parts


def has_program(*names: str) -> bool:
    return any(shutil.which(name, path=PATH) for name in names)


def has_postgresql() -> bool:
    return any(INSTALLED.glob("*/bin/initdb")) or shutil.which("initdb", path=PATH) is not None


def holds_base_image(url: str) -> bool:
    filters = urlencode({"filters": json.dumps({"reference": [BASE_IMAGE]})})
    images = discovery.get(url, f"/images/json?{filters}")
    return images is not None and images.strip() != b"[]"


def install(parts: Sequence[Missing]) -> None:
    """Install all of it by one apt-get, or say what an administrator must do."""
    if not parts:
        return
    packages = [package for part in parts for package in part.packages]
    if os.geteuid() != 0 or not shutil.which("apt-get") or not may_install(packages):
        sys.exit("\n".join(advice(part) for part in parts))

    say(f"installing Debian packages: {' '.join(packages)}")
    if POSTGRESQL in packages:
        leave_no_cluster()
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120"]
    run(*apt, "update")
    run(*apt, "install", "-y", "--no-install-recommends", *packages)
    if NGINX in packages and SYSTEMD.is_dir():
        run("systemctl", "disable", "--now", "nginx")  # the tests start one of their own
    if "docker.io" in packages and SYSTEMD.is_dir():
        # systemd has just started that engine: a second one beside it would be wrong.
        wait_until(lambda: discovery.answers(discovery.SYSTEM), SYSTEM_START)


def leave_no_cluster() -> None:
    """Have Debian's package make no cluster of its own: our tests make theirs.

    Whoever has the file has made a choice of their own, which is left alone.
    """
    CLUSTERS.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), CLUSTERS.open("x") as file:
        file.write("create_main_cluster = false\n")


def advice(part: Missing) -> str:
    command = f"have an administrator run `apt-get install {' '.join(part.packages)}`"
    return part.advice.format(install=command)


def may_install(packages: Sequence[str]) -> bool:
    if os.environ.get("YES") == "1" or not sys.stdin.isatty():
        return True
    print(f"Install {' '.join(packages)} with apt-get? [Y/n] ", end="", flush=True)
    answer = sys.stdin.readline()  # empty at the end of input, which is no consent
    return answer.strip().lower() in ("y", "yes") or answer == "\n"


# --- Python ----------------------------------------------------------------------------------


def venv() -> None:
    stamp = VENV / ".prepared"
    if is_stamped(stamp, venv_fingerprint()):
        return
    say("making .venv with what requirements-dev.lock says (up to a minute)")
    run(sys.executable, "-m", "venv", "--clear", str(VENV))
    pip("install", "--require-hashes", "-r", "requirements-dev.lock")
    pip("install", "--no-deps", "--no-build-isolation", "-e", ".")
    stamp.write_text(venv_fingerprint())


def venv_fingerprint() -> str:
    """All that a finished .venv depends on.

    Its scripts hold its own path, so a copied checkout needs a new one; its packages belong to
    one version of Python, so an upgraded system needs a new one.
    """
    return fingerprint(
        bytes(VENV),
        os.fsencode(os.path.realpath(VENV_PYTHON)),
        (ROOT / "requirements-dev.lock").read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
    )


def wheels() -> None:
    folder = ROOT / "wheels"
    stamp = folder / ".prepared"
    wanted = fingerprint(IMAGE_PYTHON.encode(), (ROOT / "requirements.lock").read_bytes())
    if is_stamped(stamp, wanted):
        return
    if not has_pip():
        sys.exit("The wheels are downloaded by .venv's pip: `python3 scripts/prepare.py venv`.")
    say("downloading the wheels of requirements.lock for the server's own image")
    for old in folder.glob("*.whl"):
        old.unlink()
    pip(
        "download",
        "--require-hashes",
        "--only-binary=:all:",
        f"--python-version={IMAGE_PYTHON}",
        f"--dest={folder}",
        "--requirement=requirements.lock",
    )
    stamp.write_text(wanted)


def pip(command: str, *arguments: str) -> None:
    """.venv's pip; proxies and mirrors in the environment or pip's configuration count."""
    run(str(VENV_PYTHON), "-m", "pip", command, "-q", "--disable-pip-version-check", *arguments)


def has_pip() -> bool:
    """Whether .venv is there and works; half a one does not."""
    command = [str(VENV_PYTHON), "-m", "pip", "--version"]
    return VENV_PYTHON.exists() and subprocess.run(command, capture_output=True).returncode == 0


def fingerprint(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_stamped(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text() == wanted


# --- Docker ----------------------------------------------------------------------------------


def engine() -> None:
    url = discovery.find(STATE, os.environ)
    host = os.environ.get("DOCKER_HOST")
    if host and url != host:
        say(f"DOCKER_HOST={host} does not answer; {'using ' + url if url else 'no other does'}")
    if url is None:
        start_engine()


def start_engine() -> None:
    """Start dockerd for this checkout alone; it outlives us."""
    if os.geteuid() != 0:
        sys.exit(
            "No Docker engine answers you, and only root may start one:"
            " have it started, have yourself added to the group `docker`, or set DOCKER_HOST."
        )
    socket = discovery.own_socket(STATE)
    folder = socket.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not discovery.is_trusted(folder):
        sys.exit(f"{folder} belongs to somebody else: remove it.")
    log = STATE / "docker" / "dockerd.log"

    process = None if running(folder) else spawn_dockerd(folder, log)

    def is_gone() -> bool:
        # /proc still shows an empty command line of a child that is just being started.
        return process.poll() is not None if process else running(folder) is None

    answered = wait_until(lambda: discovery.answers(f"unix://{socket}") or is_gone(), ENGINE_START)
    if is_gone():
        sys.exit(f"{tail(log)}\nThe Docker engine ended while starting; its last words are above.")
    if not answered:
        sys.exit(f"{tail(log)}\nThe Docker engine does not answer; `make stop` ends it.")


def spawn_dockerd(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    say("starting a Docker engine of our own in var/docker (`make stop` ends it)")
    # A killed engine leaves them behind and takes its containerd along. Another process may have
    # the number by now, and the new engine would wait for that.
    for pidfile in ("docker.pid", "exec/containerd/containerd.pid"):
        (folder / pidfile).unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "dockerd",
        # No container of ours has a network: the host's is left alone.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        f"--data-root={STATE / 'docker' / 'data'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'docker.pid'}",
        f"--host=unix://{folder / 'docker.sock'}",
    ]
    # A session and descriptors of its own: neither Ctrl-C nor the end of make's pipe reaches it.
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PATH": PATH},
        )


def stop_engine() -> None:
    if os.geteuid() != 0:
        sys.exit("Only root has an engine of our own, and only root may stop it.")
    folder = discovery.own_socket(STATE).parent
    pid = running(folder)
    if pid is not None:
        say("stopping our own Docker engine")
        end(pid, folder)

    # Even a clean stop leaves two mounts behind; nothing can be removed while they are there.
    ours = [STATE.resolve() / "docker" / "data", folder]
    for mount in mounts_under(ours, Path("/proc/self/mounts").read_text()):
        run("umount", mount)
    if discovery.is_trusted(folder):
        shutil.rmtree(folder, ignore_errors=True)


def end(pid: int, folder: Path) -> None:
    """SIGTERM; SIGKILL if that is not enough."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda: not is_ours(pid, folder), ENGINE_STOP):
            return
    sys.exit(f"The Docker engine (process {pid}) cannot be ended.")


def running(folder: Path) -> int | None:
    """The process of our engine, if the one that its pidfile names still is that."""
    try:
        pid = int((folder / "docker.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if is_ours(pid, folder) else None


def is_ours(pid: int, folder: Path) -> bool:
    """Whether this process is our engine: neither another's nor some heir of its number."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    is_dockerd = os.path.basename(arguments[0]) == b"dockerd"
    return is_dockerd and b"--pidfile=" + bytes(folder / "docker.pid") in arguments


def mounts_under(folders: Sequence[Path], table: str) -> list[str]:
    """The mount points at or under these folders in a /proc/self/mounts, deepest first."""
    points = [unescape(line.split()[1]) for line in table.splitlines()]
    ours = [
        point for point in points if any(Path(point).is_relative_to(folder) for folder in folders)
    ]
    return sorted(ours, key=lambda point: point.count("/"), reverse=True)


def unescape(point: str) -> str:
    """The kernel writes a blank, tab, newline or backslash as three octal digits."""
    for character in " \t\n\\":
        point = point.replace(f"\\{ord(character):03o}", character)
    return point


# --- Plumbing --------------------------------------------------------------------------------


def say(line: str) -> None:
    print(f"prepare: {line}", flush=True)


def run(*command: str) -> None:
    """Run it here, silently; if it fails show its output and give up."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"},
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n`{' '.join(command)}` failed; its output is above.")


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Only one at a time may prepare this checkout."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "prepare.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another one to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


STEPS: dict[str, Callable[[], None]] = {
    "venv": venv,
    "engine": engine,
    "engine-stop": stop_engine,
    "postgresql": lambda: None,  # installed is all that it must be
    "peers": lambda: None,  # likewise
    "wheels": wheels,
}


def main(steps: Sequence[str]) -> None:
    if unknown := [step for step in steps if step not in STEPS]:
        sys.exit(f"Unknown: {' '.join(unknown)}. Steps are {', '.join(STEPS)}.")
    with alone():
        install(missing(steps))
        for step in steps:
            STEPS[step]()


if __name__ == "__main__":
    main(sys.argv[1:] or ["venv", "engine"])
