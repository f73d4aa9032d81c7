"""Servers that are there at once: each is forked off a process that has loaded the program before.

    python -m tests.nursery FD

Loading takes a process longer than all else that most tests have it do, and a slow machine longer
than they wait. What is forked off has an environment, an argument, a log and an id of its own, runs
the same `main` and ends as any process does. That a server also comes up as people start it is for
tests/integration/test_cli.py to show.
"""

import asyncio
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[1]

# Whatever a server loads, also what it only loads once it runs.
LOADED = (
    "commserver.app",
    "commserver.cli",
    "tests.end_to_end.faulty_server",
    "aiosqlite",
    "asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.dialects.postgresql.asyncpg",
)


class Request(msgspec.Struct):
    """What is to be forked off: `python -m module arguments`, and where its output goes."""

    module: str
    arguments: list[str]
    environ: dict[str, str]
    folder: str
    log: str
    out: str


# -- who asks -------------------------------------------------------------------------------------


class Child:
    """A process that was forked off: what a Trial asks of a process of its own."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ending = asyncio.create_task(self._end(reader, writer))

    async def wait(self) -> int:
        """Wait until it has ended; returns its exit status, below zero for a signal."""
        return await asyncio.shield(self._ending)

    def send_signal(self, signal: int) -> None:
        """Send a signal.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, signal)

    def kill(self) -> None:
        """End it by SIGKILL, if it has not ended."""
        with suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        try:
            self.returncode = int(await reader.readline())
        finally:
            writer.close()
        return self.returncode


class Nursery:
    """The process that others are forked off."""

    def __init__(self, door: Path) -> None:
        self._door = door

    async def start(
        self,
        module: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        log: Path,
        out: Path = Path(os.devnull),
    ) -> Child:
        """Start what `python -m module arguments` does; its standard error is added to the log."""
        reader, writer = await asyncio.open_unix_connection(self._door)
        where = os.getcwd(), str(log), str(out)
        request = Request(module, list(arguments), dict(environ), *where)
        writer.write(msgspec.json.encode(request) + b"\n")
        return Child(int(await reader.readline()), reader, writer)


@contextmanager
def opened() -> Iterator[Nursery]:
    """Yield a nursery that ends, with all that was forked off it, at the end of the block.

    It is asked as soon as it is there, and answers once it has loaded everything.
    """
    with tempfile.TemporaryDirectory(prefix="commserver-nursery-") as folder:
        path = Path(folder) / "door"
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
            door.listen()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.nursery", str(door.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[door.fileno()],
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for us
            )
        with process:  # which closes its standard input, and waits
            yield Nursery(path)


# -- who is asked ---------------------------------------------------------------------------------


def main() -> None:
    """Fork off what is asked for, until standard input ends."""
    door = socket.socket(fileno=int(sys.argv[1]))
    for name in LOADED:
        import_module(name)
    gc.freeze()  # nothing of it has to be looked at again, or copied, in any child
    request = _asked(door)
    if request is not None:
        _become(request)


def _asked(door: socket.socket) -> Request | None:
    """Return None at the end and, in every child, what that one was asked to be."""
    children: dict[int, tuple[int, socket.socket]] = {}  # by what tells that they have ended
    with door, selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(door, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is door:
                    peer, _ = door.accept()
                    with peer.makefile("rb") as file:
                        request = msgspec.json.decode(file.readline(), type=Request)
                    pid = os.fork()
                    if pid == 0:
                        _forget(children, peer)
                        return request
                    _say(peer, pid)
                    ends = os.pidfd_open(pid)
                    children[ends] = pid, peer
                    selector.register(ends, selectors.EVENT_READ)
                elif key.fd in children:
                    selector.unregister(key.fd)
                    pid, peer = children.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    _say(peer, os.waitstatus_to_exitcode(status))
                    _forget({key.fd: (pid, peer)})
                else:
                    for pid, _ in children.values():
                        os.kill(pid, signal.SIGKILL)
                    return None


def _forget(children: Mapping[int, tuple[int, socket.socket]], *more: socket.socket) -> None:
    for ends, (_, peer) in children.items():
        os.close(ends)
        peer.close()
    for peer in more:
        peer.close()


def _say(peer: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody waits for it any more
        peer.sendall(b"%d\n" % number)


def _become(request: Request) -> None:
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environ)
    added = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request.out, added),
        (2, request.log, added),
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.argv = [request.module, *request.arguments]
    import_module(request.module).main()


if __name__ == "__main__":
    main()
