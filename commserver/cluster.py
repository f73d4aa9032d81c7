"""A PostgreSQL server of one's own, for tests, trials and benchmarks: made, used, thrown away."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from commserver.errors import CommServerError

START = 120.0  # seconds for the server to answer, after a crash as well
COMMAND = 120.0  # seconds for any other command
INSTALLED = Path("/usr/lib/postgresql")  # where Debian keeps each version's programs

# Loses what was committed when the machine stops, never when the server does.
HASTY = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}

# Ends server and folder when the pipe on its standard input is closed, which the end of our
# process does as well, however it comes.
GUARD = 'read -r never; "$1" -D "$2/data" -m immediate -w -t 10 stop; rm -rf "$2"'


class ClusterFailed(CommServerError):
    """The server cannot be had, or did not do what it was told."""


class Cluster:
    """A server on a free loopback port, with its data in the system's temporary folder.

    Everybody on this machine may log in as its superuser without a password. It ends with the
    process that started it. Root runs it as the user `postgres`, since PostgreSQL refuses root.
    All of this blocks, each call with a deadline.

    durable: False for a server that is faster because a power failure may cost what it holds.
    """

    def __init__(self, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> None:
        self._programs = programs()
        self._user = _user()
        self._durable = durable
        self._settings = {**({} if durable else HASTY), **(settings or {})}
        self._guard: subprocess.Popen[bytes] | None = None
        self.folder = Path()  # from `start` on
        self.port = 0

    def start(self) -> None:
        """Make the server if there is none yet, and start it.

        Raises:
            ClusterFailed: it does not come up.
        """
        if self._guard is None:
            self._make()
        options = " ".join(f"-c {key}={value}" for key, value in self._settings.items())
        where = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        # Backends of a server that was killed are gone a moment later, and only then it starts.
        deadline = time.monotonic() + START
        while True:
            try:
                return self._control("-t", f"{START:.0f}", "-o", f"{where} {options}", "start")
            except ClusterFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        """End the server and remove all that it held; nothing happens when there is none."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(COMMAND)

    def halt(self, mode: str = "fast") -> None:
        """End the server and keep what it holds: "smart", "fast" or "immediate", as pg_ctl says."""
        self._control("-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        """End the server as `halt` does and start it again."""
        self.halt(mode)
        self.start()

    def kill(self) -> None:
        """End the server by SIGKILL; `start` starts it again."""
        pid = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # interrupted as well: half a server must not stay
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def url(self, database: str, user: str = "postgres") -> str:
        """Return what a DatabaseManager takes."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, name: str, template: str | None = None) -> None:
        """Make a database, empty or as `template` is, to which nobody may be connected."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"')

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Return what a statement prints, one line a row, columns apart by "|".

        Raises:
            ClusterFailed: the server refuses it.
        """
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1")
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database)
        return self._run([str(self._programs / "psql"), *options, *where, "-c", statement]).strip()

    def _make(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="commserver-pg-"))
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._programs / "pg_ctl"), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )
        self.port = _free_port()
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        if not self._durable:
            options.append("--no-sync")
        self._run(
            [str(self._programs / "initdb"), "-D", str(self.folder / "data"), *options],
        )

    def _control(self, *arguments: str) -> None:
        data, log = str(self.folder / "data"), str(self.folder / "log")
        program = str(self._programs / "pg_ctl")
        self._run([program, "-D", data, "-l", log, "-s", "-w", *arguments])

    def _run(self, command: Sequence[str]) -> str:
        # Into a file: the server inherits it and would keep a pipe open for as long as it lives.
        with tempfile.TemporaryFile() as output:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=COMMAND,
                    cwd="/",
                    check=False,
                    user=self._user,
                    group=self._user,
                    extra_groups=[] if self._user else None,
                )
            except subprocess.TimeoutExpired as error:
                raise ClusterFailed(f"{command[0]} took more than {COMMAND:g} s") from error
            output.seek(0)
            text = output.read().decode(errors="replace")
        if done.returncode != 0:
            raise ClusterFailed(f"{command[0]} failed: {text.strip()}")
        return text


def programs() -> Path:
    """Return the folder with PostgreSQL's programs, the newest version's if there are several.

    Raises:
        ClusterFailed: there is none.
    """
    found = [path.parent for path in INSTALLED.glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda folder: float(folder.parent.name))
    if path := shutil.which("initdb"):
        return Path(path).resolve().parent
    raise ClusterFailed("there is no PostgreSQL server: `make test` installs one")


def _user() -> str | None:
    """Return whose the server must be, None for our own user.

    Raises:
        ClusterFailed: we are root and there is no other.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError as error:
        raise ClusterFailed("PostgreSQL refuses root and there is no user postgres") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
