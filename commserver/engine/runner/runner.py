"""PID 1 of a container: runs what it is asked to behind walls, measures it and reports.

It is started as ``python3 -I -S`` on this one file (the standard library of Debian's Python 3.11
and nothing else). Each program gets a *cell* of its own: a process tree that sees no file, process
or socket of another. What the walls are made of depends on how the container was started:

    namespaces  as an ordinary user without capabilities: user, pid, mount, ipc, uts and net
                namespaces and file systems of its own for each cell. They all have our kernel uid,
                so the namespaces are the wall, never file permissions.
    uids        as uid 0 with SETUID, SETGID, KILL and CHOWN, where the host forbids the above: a
                uid of its own for each cell, and directories that are wiped.

Frames go over standard input and output: two big-endian 32-bit lengths, a header in JSON, and a
body of raw bytes to which the header refers by lengths.

    out  hello    runner, python, cgroup {version, cpu, memory, kills}, walls, why
    in   request  uid, grader_uid, nofile, stack, box, inodes, files [{name, size}], prepare, cases
                  body: the files, in order
    out  started  case, stage            a stage begins (case -1: of `prepare`)
    out  report   case, stage, processes, artifacts
                  body: the returned artifacts, in order
    out  done     fit, why, memory       if `fit`, the next request may come
    out  error    message                this container is of no more use

`Stage`, `Process` and `Pipe` below say what a request holds. Times are seconds, sizes bytes.

A process that may ask for runs does so over a socket on descriptor 3, in messages of the same
form; `Control` has them.
"""

# Every import costs start-up time, which every container pays: `json` would bring `re` (6 ms of
# 20), `signal` and `socket` would bring `enum` (5 ms), and so would `typing`. Hence the C halves of
# `json` and `socket`, signals by number, and annotations of builtins only.
# Private to CPython: what `json`, `socket` and `collections.abc` themselves use.
import _socket
import ctypes
import errno
import fcntl
import gc
import os
import resource
import select
import struct
import sys
import time
from _collections_abc import Callable
from _json import encode_basestring_ascii, make_scanner

VERSION = "3"

BOX = "/box"
KEEP = "/box/keep"  # the request's files and the artifacts: mode 0700, ours
WORK = "/box/work"  # what a program may write, made anew for each
SHARED = ("/tmp", "/dev/shm")  # noqa: S108 -- where programs expect to write besides
QUEUES = "/dev/mqueue"
HOSTS = "/etc/hosts"
# What there is between two requests wherever an ordinary user can write.
FOLDERS = {BOX: ["keep"], KEEP: [], "/dev/shm": [], QUEUES: []}  # noqa: S108

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": WORK,
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

MAX_HEADER = 4 << 20  # bytes
MAX_PATH = 1024  # bytes
MAX_FD = 255
MAX_ASK = 1 << 20  # bytes of the header of what is asked for
MAX_TOLD = 64 << 20  # bytes of what a run that is asked for is told
MAX_RUNS = 1000  # that one process may ask for
CHUNK = 1 << 16  # bytes a read or write
PAGE = 4096  # bytes
OURS = 4 << 20  # bytes that our own processes may use for each cell
KERNEL_FREE = 16 << 20  # bytes of the kernel's own that nobody answers for
ABSENT = 320  # bytes that the kernel takes to remember that there is no file of a name
SWELL = 8 << 20  # bytes that we may use more after some requests than before the first
SAMPLE = 0.010  # seconds between two looks at cpu and memory
NEAR = 0.002  # seconds between them once half of the memory is used: the rest goes fast
GROWING = 0.001  # seconds between them while memory grows
GROWTH = 1 << 18  # bytes; below that, nothing grows
UNSURE = 1 << 20  # bytes; so much may our own process grow before it becomes a program
BUSY = 10  # a look may take one in so many parts of the time between two
# Together below the patience of the host between two frames.
START_TIMEOUT = 5.0  # seconds until a cell is ready; nothing of anybody else's runs in it before
WIPE_TIMEOUT = 5.0  # seconds to end and remove what one program left
MAX_BURIALS = 1000  # at once, so that no storm of dying orphans keeps us from looking at the clock
GRACE = 1.1  # times its cpu limit, then a program is ended

CPU, MEMORY, REAL, SECURITY, OUTPUT = 1, 2, 4, 8, 16  # `Flag` of commserver.core.execution

CONTROL_FD, RESULT_FD, INPUT_FD = 3, 3, 4  # of commserver.core.execution

# Between the uids of cells of one role that live at once. The host has 1000 slots, each with two
# uids that are 1000 apart: those of the other role and of other slots are never met.
UID_STEP = 2000

SIGKILL, SIGPIPE, SIGXFSZ, SIGSYS = 9, 13, 25, 31
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes, as a shell's
NICE = {"learner": 10, "grader": 5}  # count only inside this container: the runner comes first
# Whom the kernel kills first when memory runs out: learners' programs before graders, and those
# before us.
OOM_SCORE = {"learner": b"1000", "grader": b"500"}

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 4, 22, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION = 0x20080522
CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID = 0, 5, 6, 7

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NEW_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)
CLONE_NEW = 0x7E020000  # these and the cgroup namespace
NAMES_HELD = ("user", "pid", "uts", "net")  # see `Namespaces`
NAMES_PAST = {"mnt": CLONE_NEWNS, "ipc": CLONE_NEWIPC}
PTYS = "newinstance,ptmxmode=666,max=64"  # of which the host has not many
PASSED = "=7i"  # descriptors that an init gives us: of three file systems and these four

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_STRICTATIME = 32, 4096, 16384, 1 << 24

libc = ctypes.CDLL(None, use_errno=True)


class BrokenRequest(Exception):
    """The request does not say what it must."""


class Failure(Exception):
    """The container cannot do what was asked; no fault of anybody's program."""


class HostGone(Exception):
    """Nobody is left at the other end of standard input."""


def check(result: int, what: str) -> None:
    """Raise what a call of the C library failed with."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int = 0) -> int:
    """Call it. It is variadic: what is not a full word long would leave rubbish above."""
    return int(libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3))


# --- frames -------------------------------------------------------------------------------------


def to_json(value: object) -> str:
    """JSON of what our headers are made of; text may hold lone surrogates."""
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        items = [f"{to_json(key)}:{to_json(item)}" for key, item in value.items()]
        return f"{{{','.join(items)}}}"
    assert isinstance(value, list | tuple)
    return f"[{','.join(map(to_json, value))}]"


class _JsonRules:
    """What the scanner of `json` asks of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 -- the scanner's, emptied by itself

    @staticmethod
    def parse_constant(name: str) -> object:
        """Refuse NaN and the infinities."""
        raise BrokenRequest(f"{name} is no JSON")


def from_json(data: bytes) -> dict[str, object]:
    """Read a header.

    Raises:
        BrokenRequest: it is not one JSON object.
    """
    try:
        text = data.decode()
        # Typed as if it took a scanner; any object with these attributes does.
        value, end = make_scanner(_JsonRules)(text, 0)  # type: ignore[arg-type]
    except (ValueError, StopIteration, RecursionError, SystemError) as error:
        # SystemError: its own exception belongs to `json`, which is not loaded.
        raise BrokenRequest("the header is no JSON") from error
    if end != len(text) or type(value) is not dict:
        raise BrokenRequest("the header is not one JSON object")
    return value


def pack(header: dict[str, object], *bodies: bytes, more: int = 0) -> bytes:
    """One frame; `more` is how many bytes of its body follow it."""
    head = to_json(header).encode()
    size = sum(map(len, bodies)) + more
    return b"".join((struct.pack(">II", len(head), size), head, *bodies))


def send(header: dict[str, object], *, more: int = 0) -> None:
    """Write one frame, or its beginning, to whoever holds the other end."""
    write_all(1, pack(header, more=more))


def receive(size: int) -> bytes:
    """Read exactly `size` bytes.

    Raises:
        HostGone: there are fewer.
    """
    data = bytearray()
    while len(data) < size:
        piece = os.read(0, min(CHUNK, size - len(data)))
        if not piece:
            raise HostGone
        data += piece
    return bytes(data)


# --- the request --------------------------------------------------------------------------------


def take_int(where: dict[str, object], key: str) -> int:
    """A whole number from zero up to 2⁵³, where JSON's readers begin to differ."""
    value = where.get(key)
    if type(value) is not int or not 0 <= value <= 1 << 53:
        raise BrokenRequest(f"{key} is not a size")
    return value


DAY = 86400.0  # seconds


def take_seconds(where: dict[str, object], key: str) -> float:
    """A positive number of seconds, below a day."""
    value = where.get(key)
    if (type(value) is not int and type(value) is not float) or not 0 < value <= DAY:
        raise BrokenRequest(f"{key} is not a time")
    return float(value)


def take_text(value: object, what: str) -> str:
    """Text that the kernel takes: without NUL, and that has bytes."""
    if type(value) is not str or "\0" in value:
        raise BrokenRequest(f"{what} is not text")
    try:
        os.fsencode(value)
    except UnicodeEncodeError as error:
        raise BrokenRequest(f"{what} has no bytes") from error
    return value


def take_list(where: dict[str, object], key: str) -> list[object]:
    """An array, perhaps empty."""
    value = where.get(key)
    if type(value) is not list:
        raise BrokenRequest(f"{key} is not a list")
    return value


def take_path(value: object) -> str:
    """A relative path that stays where it is put."""
    path = take_text(value, "a path")
    parts = path.split("/")
    if len(os.fsencode(path)) > MAX_PATH or any(
        part in ("", ".", "..") or len(os.fsencode(part)) > 255 for part in parts
    ):
        raise BrokenRequest("a path is not relative and plain")
    return path


class End:
    """One end of a pipe.

    kind "resource": the file or artifact `name` · "fd": descriptor `fd` of the process `name` ·
    "file": what the process `name` leaves at `path` · "artifact": `name`, sent back if `returned`.
    """

    __slots__ = ("fd", "kind", "name", "path", "returned")

    def __init__(self, value: object) -> None:
        if type(value) is not list or len(value) < 2:
            raise BrokenRequest("an end of a pipe is none")
        self.kind = take_text(value[0], "an end of a pipe")
        self.name = take_text(value[1], "a name")
        self.fd = -1
        self.path = ""
        self.returned = False
        rest = value[2:]
        if self.kind == "fd" and len(rest) == 1:
            if type(rest[0]) is not int or not 0 <= rest[0] <= MAX_FD:
                raise BrokenRequest("a descriptor is none")
            self.fd = rest[0]
        elif self.kind == "file" and len(rest) == 1:
            self.path = take_path(rest[0])
        elif self.kind == "artifact" and len(rest) == 1 and type(rest[0]) is bool:
            self.returned = rest[0]
        elif self.kind != "resource" or rest:
            raise BrokenRequest("an end of a pipe is none")


FLOWS = (
    ("resource", "fd"),
    ("resource", "artifact"),
    ("fd", "fd"),
    ("fd", "artifact"),
    ("file", "artifact"),
)


class Process:
    """One program to run: name, role, argv, files [[name, path]], env [[key, value]], limits.

    The limits are cpu, real, memory, output, file_size, processes. may_run: what it can ask to be
    run, by name; they have the same form.
    """

    __slots__ = (
        "argv",
        "cpu",
        "env",
        "file_size",
        "files",
        "may_run",
        "memory",
        "name",
        "output",
        "processes",
        "real",
        "role",
    )

    def __init__(self, value: object, known: set[str], *, asked_for: bool = False) -> None:
        """known: names of files that there are by then."""
        if type(value) is not dict:
            raise BrokenRequest("a process is no object")
        self.name = take_text(value.get("name"), "a name")
        self.role = take_text(value.get("role"), "a role")
        if self.role not in NICE:
            raise BrokenRequest(f"{self.name} has no role")
        self.argv = [take_text(item, "an argument") for item in take_list(value, "argv")]
        if not self.argv or not self.argv[0]:
            raise BrokenRequest(f"{self.name} has no program")
        self.files = take_files(value, known)
        self.env = take_env(value)
        self.cpu = take_seconds(value, "cpu")
        self.real = take_seconds(value, "real")
        self.memory = take_int(value, "memory")
        self.output = take_int(value, "output")
        self.file_size = take_int(value, "file_size")
        self.processes = take_int(value, "processes")
        runs = [Process(item, known, asked_for=True) for item in take_list(value, "may_run")]
        self.may_run = {run.name: run for run in runs}
        if len(runs) != len(self.may_run) or (runs and asked_for):
            raise BrokenRequest(f"{self.name} cannot ask for such runs")

    def asked(self, arguments: list[str], real: float) -> "Process":
        """The same program with more arguments, and perhaps less time."""
        changed = object.__new__(Process)
        for name in Process.__slots__:
            setattr(changed, name, getattr(self, name))
        changed.argv = [*self.argv, *arguments]
        changed.real = min(self.real, real)
        return changed


def take_files(where: dict[str, object], known: set[str]) -> list[tuple[str, str]]:
    """Names and the paths they are put at; folders are made for them."""
    files: dict[str, str] = {}
    for item in take_list(where, "files"):
        if type(item) is not list or len(item) != 2 or item[0] not in known:
            raise BrokenRequest("a file is put somewhere that is not there")
        path = take_path(item[1])
        if path in files:
            raise BrokenRequest("two files are put at one place")
        files[path] = item[0]
    for path in files:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise BrokenRequest("a file lies where a folder must")
    return [(name, path) for path, name in files.items()]


def take_env(where: dict[str, object]) -> dict[str, str]:
    """Variables beside our own."""
    env = {}
    for item in take_list(where, "env"):
        if type(item) is not list or len(item) != 2:
            raise BrokenRequest("a variable is no pair")
        key, value = take_text(item[0], "a variable"), take_text(item[1], "a variable")
        if not key or "=" in key:
            raise BrokenRequest("a variable has no name")
        env[key] = value
    return env


class Stage:
    """Processes that run at once, and the pipes between them: name, stop, processes, pipes."""

    __slots__ = ("artifacts", "name", "pipes", "processes", "stop")

    def __init__(self, value: object, known: set[str]) -> None:
        """known: what can be read; the stage's artifacts are added."""
        if type(value) is not dict:
            raise BrokenRequest("a stage is no object")
        self.name = take_text(value.get("name"), "a name")
        self.stop = take_text(value.get("stop"), "a stop")
        if self.stop not in ("on_failure", "always"):
            raise BrokenRequest(f"{self.name} stops after nothing")
        processes = [Process(item, known) for item in take_list(value, "processes")]
        self.processes = {process.name: process for process in processes}
        if len(processes) != len(self.processes):
            raise BrokenRequest(f"{self.name} has two processes of one name")
        self.pipes: list[tuple[End, End]] = []
        self.artifacts: list[End] = []
        taken = {(p.name, CONTROL_FD) for p in processes if p.may_run}
        for item in take_list(value, "pipes"):
            if type(item) is not dict:
                raise BrokenRequest("a pipe is no object")
            source, target = End(item.get("from")), End(item.get("to"))
            if (source.kind, target.kind) not in FLOWS:
                raise BrokenRequest("a pipe does not lead that way")
            if source.kind == "resource" and source.name not in known:
                raise BrokenRequest("a pipe begins at nothing")
            for end in (source, target):
                if end.kind in ("fd", "file") and end.name not in self.processes:
                    raise BrokenRequest("a pipe has an end at no process")
                if end.kind == "fd" and (end.name, end.fd) in taken:
                    raise BrokenRequest("a descriptor has two pipes")
                if end.kind == "fd":
                    taken.add((end.name, end.fd))
            self.pipes.append((source, target))
            if target.kind == "artifact":
                if target.name in known or any(a.name == target.name for a in self.artifacts):
                    raise BrokenRequest("an artifact has a name that is taken")
                self.artifacts.append(target)
        known.update(artifact.name for artifact in self.artifacts)


class Request:
    """What this container is to do.

    uid, grader_uid: whose programs are, where uids are the walls. nofile, stack: limits of every
    process. box, inodes: bytes and files that a work directory holds.
    """

    __slots__ = (
        "box",
        "cases",
        "files",
        "grader_uid",
        "inodes",
        "nofile",
        "prepare",
        "stack",
        "uid",
    )

    def __init__(self, header: dict[str, object], body: int) -> None:
        if header.get("frame") != "request":
            raise BrokenRequest("this is no request")
        self.uid = take_int(header, "uid")
        self.grader_uid = take_int(header, "grader_uid")
        self.nofile = take_int(header, "nofile")
        self.stack = take_int(header, "stack")
        self.box = take_int(header, "box")
        self.inodes = take_int(header, "inodes")
        if not (0 < self.uid < 1 << 30 and 0 < self.grader_uid < 1 << 30):
            raise BrokenRequest("a uid is ours or nobody's")
        if (self.grader_uid - self.uid) % UID_STEP == 0:
            raise BrokenRequest("learners and graders would have one uid")
        self.files: dict[str, int] = {}
        for item in take_list(header, "files"):
            if type(item) is not dict:
                raise BrokenRequest("a file is no object")
            name = take_text(item.get("name"), "a name")
            if name in self.files:
                raise BrokenRequest("two files have one name")
            self.files[name] = take_int(item, "size")
        known = set(self.files)
        self.prepare = [Stage(item, known) for item in take_list(header, "prepare")]
        self.cases: list[list[Stage]] = []
        for item in take_list(header, "cases"):
            if type(item) is not dict:
                raise BrokenRequest("a case is no object")
            of_case = set(known)
            self.cases.append([Stage(stage, of_case) for stage in take_list(item, "stages")])
        promised = sum(self.files.values())
        if promised != body:
            raise BrokenRequest(f"{body} bytes follow, the header speaks of {promised}")


def read_request() -> Request | None:
    """The next request without its body, None if there is none any more.

    Raises:
        BrokenRequest: it cannot be carried out as it stands.
        HostGone: it ends too early.
    """
    first = os.read(0, 8)
    if not first:
        return None
    size, body = struct.unpack(">II", first + receive(8 - len(first)))
    if size > MAX_HEADER:
        raise BrokenRequest("the header is too long")
    return Request(from_json(receive(size)), body)


# --- what is kept between programs --------------------------------------------------------------


def copy(source: int, target: int, size: int) -> None:
    """Write the first `size` bytes of one file to another, at its present end."""
    done = 0
    while done < size:
        count = os.sendfile(target, source, done, size - done)
        if count == 0:
            raise Failure("a file became shorter while it was copied")
        done += count


def paged(size: int) -> int:
    """What a file takes in memory, bytes."""
    return -(-size // PAGE) * PAGE


F_ADD_SEALS, F_SEAL_ALL = 1033, 0x1 | 0x2 | 0x4 | 0x8  # no seal more, shrink, grow, write


def sealed(source: int, size: int) -> int:
    """A descriptor from which these bytes are read, and through which nothing can be changed.

    Each is a file of its own: not even a mode or a time that one reader sets is seen by another.
    """
    fd = unnamed()
    copy(source, fd, size)
    return seal(fd)


def unnamed() -> int:
    """A new file in memory."""
    return os.memfd_create("data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal(fd: int) -> int:
    """Let nobody change such a file any more; return a descriptor to read it from its start."""
    os.fchmod(fd, 0o444)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_ALL)
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    return reader


class Store:
    """The request's files and the artifacts: files in a folder of ours that no program sees.

    held: bytes that we took in since the request came, and that no program answers for.
    """

    def __init__(self) -> None:
        self.held = 0
        self._count = 0
        self._names: dict[str, tuple[int, int]] = {}  # number of the file, its size
        self._case: list[str] = []
        if not os.path.isdir(KEEP):
            os.mkdir(KEEP, 0o700)

    def receive(self, files: dict[str, int]) -> None:
        """Take files from standard input."""
        for name, size in files.items():
            number, fd = self.create()
            try:
                left = size
                while left:
                    left -= write_all(fd, receive(min(CHUNK, left)))
            finally:
                os.close(fd)
            self.keep(name, number, size)

    def create(self) -> tuple[int, int]:
        """The number of a new file, and a descriptor to write it with."""
        self._count += 1
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return self._count, os.open(f"{KEEP}/{self._count}", flags, 0o600)

    def keep(self, name: str, number: int, size: int, *, of_case: bool = False) -> None:
        """Know a file by its name from now on; until the case ends, if it is of one."""
        self._names[name] = (number, size)
        if of_case:
            self._case.append(name)

    def move(self, name: str, source: int, size: int, *, of_case: bool) -> None:
        """Keep what is in a file that is used for nothing else, and close that."""
        number, fd = self.create()
        move(source, fd, size)
        os.close(fd)
        os.close(source)
        self.keep(name, number, size, of_case=of_case)

    def alias(self, name: str, of: str, *, of_case: bool) -> None:
        """Know a file by one more name."""
        number, size = self._names[of]
        os.link(f"{KEEP}/{number}", f"{KEEP}/{self._count + 1}")
        self._count += 1
        self.keep(name, self._count, size, of_case=of_case)

    def end_case(self) -> None:
        """Forget the artifacts of a case."""
        for name in self._case:
            os.unlink(f"{KEEP}/{self._names.pop(name)[0]}")
        self._case.clear()

    def clear(self) -> None:
        """Forget all of it."""
        for number, _ in self._names.values():
            os.unlink(f"{KEEP}/{number}")
        self._names.clear()

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._names[name][1]

    def number(self, name: str) -> int:
        """The name it has in our folder."""
        return self._names[name][0]

    def open(self, name: str) -> int:
        """A descriptor of ours to read it with."""
        return os.open(f"{KEEP}/{self.number(name)}", os.O_RDONLY | os.O_CLOEXEC)

    def reader(self, name: str) -> int:
        """A descriptor for a program to read it with."""
        fd = self.open(name)
        try:
            return sealed(fd, self.size(name))
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes) -> int:
    """Write all of `data`; return how much that was."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return len(data)


def open_folder(name: str, within: int | None) -> int:
    """Open a folder that may be the learner's, after making it ours: we may not pass otherwise."""
    found = os.stat(name, dir_fd=within, follow_symlinks=False)
    if found.st_mode & 0o170000 != 0o040000:
        raise NotADirectoryError(name)
    ours = os.geteuid()
    if found.st_uid != ours:
        os.chown(name, ours, os.getegid(), dir_fd=within, follow_symlinks=False)
    if found.st_uid != ours or found.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=within)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=within)


def empty(path: str, deadline: float) -> None:
    """Remove all that is in a folder of ours, however deep it is and whatever its modes are.

    Sub-folders are moved up before they are emptied, so that depth costs nothing; under names that
    nobody could have taken on purpose.

    Raises:
        Failure: it took too long.
    """
    top = open_folder(path, None)
    try:
        while names := os.listdir(top):
            for name in names:
                if time.monotonic() > deadline:
                    raise Failure(f"{path} could not be wiped in time")
                if not remove_file(name, top):
                    continue
                folder = open_folder(name, top)
                try:
                    for inner in os.listdir(folder):
                        if time.monotonic() > deadline:
                            raise Failure(f"{path} could not be wiped in time")
                        if remove_file(inner, folder):
                            os.close(open_folder(inner, folder))  # it is ours now: may be moved
                            free = os.urandom(16).hex()
                            os.rename(inner, free, src_dir_fd=folder, dst_dir_fd=top)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def remove_file(name: str, folder: int) -> bool:
    """Remove it unless it is a folder; true if it is one."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return True
    return False


def open_artifact(root: int, path: str, limit: int) -> int:
    """Open what a program left below one of its folders, after making it ours.

    Raises:
        OSError: there is no plain file of at most `limit` bytes without another name.
    """
    own(root, None, os.fstat(root).st_uid)
    *folders, name = path.split("/")
    folder = os.dup(root)
    try:
        for part in folders:
            inner = open_folder(part, folder)
            os.close(folder)
            folder = inner
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        # Regular, and neither setuid nor setgid: nobody needs that, and not everybody may undo it.
        if found.st_mode & 0o176000 != 0o100000 or found.st_nlink != 1 or found.st_size > limit:
            raise FileNotFoundError(path)
        own(folder, name, found.st_uid)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def own(folder: int, name: str | None, uid: int) -> None:
    """Make a file or folder in one, or that itself, ours to pass and to read."""
    ours = os.geteuid()
    if name is None:
        if uid != ours:
            os.fchown(folder, ours, os.getegid())
        os.fchmod(folder, 0o700)
        return
    if uid != ours:
        os.chown(name, ours, os.getegid(), dir_fd=folder, follow_symlinks=False)
    os.chmod(name, 0o700, dir_fd=folder)


FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


def move(source: int, target: int, size: int) -> None:
    """Copy a file into an empty one; what is copied goes from the first, and holes stay holes.

    So it never takes twice its memory.
    """
    os.ftruncate(target, size)
    whole = ctypes.c_int64
    for start in range(0, size, CHUNK):
        data = os.pread(source, CHUNK, start)
        if data.count(0) != len(data):
            os.pwrite(target, data, start)
            libc.fallocate(
                source, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, whole(start), whole(len(data))
            )


# --- what cells use -----------------------------------------------------------------------------


def number_after(fields: list[bytes], name: bytes) -> int:
    """The number that follows `name` in a file of names and numbers; 0 if it is not there."""
    try:
        return int(fields[fields.index(name) + 1])
    except (ValueError, IndexError):
        return 0


def cpu_v1(data: bytes) -> float:
    """Seconds out of cpuacct.usage."""
    return int(data) / 1e9


def cpu_v2(data: bytes) -> float:
    """Seconds out of cpu.stat."""
    return number_after(data.split(), b"usage_usec") / 1e6


def memory_v1(data: bytes) -> int:
    """Anonymous memory and tmpfs out of memory.stat, cgroups below included; no page cache."""
    fields = data.split()
    return number_after(fields, b"total_rss") + number_after(fields, b"total_shmem")


def memory_v2(data: bytes) -> int:
    """The same out of the newer memory.stat, which is hierarchical by itself."""
    fields = data.split()
    return number_after(fields, b"anon") + number_after(fields, b"shmem")


def kernel_v2(data: bytes, whole: int) -> int:
    """Memory of the kernel's own out of it, such as what pipes and sockets hold.

    whole: all that is used; before Linux 5.18 the kernel's part is what nothing else is.
    """
    fields = data.split()
    kernel = number_after(fields, b"kernel") + number_after(fields, b"sock")
    if b"kernel" not in fields:
        kernel = whole - number_after(fields, b"anon") - number_after(fields, b"file")
    return max(0, kernel - number_after(fields, b"slab_reclaimable"))


def kills(data: bytes) -> int:
    """Processes that were killed for want of memory: memory.oom_control or memory.events."""
    return number_after(data.split(), b"oom_kill")


class Meter:
    """Reads what this container uses as a whole, from its cgroup where that can be read."""

    def __init__(self, root: str = "/sys/fs/cgroup") -> None:
        self.version = 2 if os.path.exists(root + "/cgroup.controllers") else 1
        self._cpu = self._memory = self._limit = self._kernel = self._kills = -1
        if self.version == 2:
            self._cpu = self._open(root + "/cpu.stat")
            self._memory = self._open(root + "/memory.stat")
            self._limit = self._open(root + "/memory.max")
            self._kernel = self._open(root + "/memory.current")
            self._kills = self._open(root + "/memory.events")
        else:
            for name in ("/cpuacct", "/cpu,cpuacct", "/cpuacct,cpu"):
                if self._cpu < 0:
                    self._cpu = self._open(root + name + "/cpuacct.usage")
            self._memory = self._open(root + "/memory/memory.stat")
            self._limit = self._open(root + "/memory/memory.limit_in_bytes")
            self._kernel = self._open(root + "/memory/memory.kmem.usage_in_bytes")
            self._kills = self._open(root + "/memory/memory.oom_control")

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

    @property
    def whole(self) -> bool:
        """Whether cpu and memory can be read; otherwise they are 0."""
        return self._cpu >= 0 and self._memory >= 0

    def facts(self) -> dict[str, object]:
        """What is read from a cgroup, for the greeting."""
        return {
            "version": self.version,
            "cpu": self._cpu >= 0,
            "memory": self._memory >= 0,
            "kills": self._kills >= 0,
        }

    def cpu(self) -> float:
        """Seconds used by all but this process; only differences mean something."""
        if self._cpu < 0:
            return 0.0
        # In this order: to ask for our own has the kernel put it down to all of us, too.
        own = time.process_time()
        data = os.pread(self._cpu, 8192, 0)
        return (cpu_v1(data) if self.version == 1 else cpu_v2(data)) - own

    def memory(self) -> int:
        """Bytes used by all, this process included; only differences mean something."""
        if self._memory < 0:
            return 0
        data = os.pread(self._memory, 8192, 0)
        return memory_v1(data) if self.version == 1 else memory_v2(data)

    def kernel(self) -> int:
        """Bytes that the kernel keeps for all; only what is above `KERNEL_FREE` is told."""
        if self._memory < 0 or self._kernel < 0:
            return 0
        kept = int(os.pread(self._kernel, 32, 0))
        if self.version == 2:
            kept = kernel_v2(os.pread(self._memory, 8192, 0), kept)
        return max(0, kept - KERNEL_FREE)

    def limit(self) -> int:
        """Bytes that all may use together; above all that there can be where that is not said."""
        data = os.pread(self._limit, 32, 0).strip() if self._limit >= 0 else b""
        return int(data) if data.isdigit() else sys.maxsize

    def kills(self) -> int:
        """How often the kernel killed for want of memory; 0 where it does not say."""
        return kills(os.pread(self._kills, 8192, 0)) if self._kills >= 0 else 0


def cpu_clock(pid: int) -> float:
    """Seconds used by all threads of a process, the ended ones too; 0 when it is gone.

    The number of such a clock is made as the C library's clock_getcpuclockid makes it.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def cpu_of(usage: resource.struct_rusage) -> float:
    """Seconds used by a process that was waited for, and by those that it waited for."""
    return usage.ru_utime + usage.ru_stime


def peak_of(usage: resource.struct_rusage) -> int:
    """Bytes that the largest of these processes once had, files that it mapped included."""
    return usage.ru_maxrss * 1024


class Seen:
    """A process as /proc shows it. waited: cpu seconds of children that it has waited for.

    memory: bytes, anonymous and shared. mapped: bytes of files and shared memory. space: bytes of
    addresses.
    """

    __slots__ = ("mapped", "memory", "parent", "space", "uid", "waited")

    def __init__(self, stat: bytes, status: bytes) -> None:
        # The name stands in parentheses and may hold anything: count from its end.
        numbers = stat[stat.rindex(b")") + 2 :].split()
        self.parent = int(numbers[1])
        self.waited = (int(numbers[13]) + int(numbers[14])) / os.sysconf("SC_CLK_TCK")
        # Its first line is the name, too.
        fields = status[status.index(b"\n") :].split()
        self.uid = number_after(fields, b"Uid:")
        self.space = number_after(fields, b"VmSize:") * 1024
        shared = number_after(fields, b"RssShmem:")
        self.memory = (number_after(fields, b"RssAnon:") + shared) * 1024
        self.mapped = (number_after(fields, b"RssFile:") + shared) * 1024


def absent() -> int:
    """How many names the kernel remembers to be no files, on the whole host."""
    try:
        return int(read("/proc/sys/fs/dentry-state").split()[4])
    except (OSError, IndexError):
        return 0


# In which tables of a network namespace the queues stand that are counted in these files, where
# there are such.
QUEUES_OF = {
    "sockstat": {b"TCP:": "tcp", b"UDP:": "udp"},
    "sockstat6": {b"TCP6:": "tcp6", b"UDP6:": "udp6"},
}


def queued(pid: int) -> int:
    """Bytes in the queues of the internet sockets in a process's network namespace.

    The older cgroups do not count them. The tables are read only if there is something in them: it
    takes milliseconds.
    """
    size = 0
    for counts, tables in QUEUES_OF.items():
        try:
            used = read(f"/proc/{pid}/net/{counts}").split()
            for label, table in tables.items():
                if used[used.index(label) + 2] != b"0":
                    for line in read(f"/proc/{pid}/net/{table}").splitlines()[1:]:
                        sent, received = line.split()[4].split(b":")
                        size += int(sent, 16) + int(received, 16)
        except OSError:  # there is no such protocol, or the process has ended meanwhile
            continue
    return size


def survey() -> dict[int, Seen]:
    """Every process of the container but this one."""
    found = {}
    own = str(os.getpid())
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid != own:
            try:
                found[int(pid)] = Seen(read(f"/proc/{pid}/stat"), read(f"/proc/{pid}/status"))
            except OSError:
                continue  # it has ended meanwhile
    return found


def mapped(init: int, space: int) -> int:
    """`Seen.mapped` of the process that has most; quickly.

    Not of this one, nor of our init of that number, nor of what has so much space: see `Head`.
    """
    most = 0
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) not in (os.getpid(), init):
            try:
                size, _, shared, *_ = map(int, read(f"/proc/{pid}/statm").split())
            except OSError:
                continue  # it has ended meanwhile
            if size * PAGE != space:
                most = max(most, shared * PAGE)
    return most


def read(path: str) -> bytes:
    """A whole file of the kernel's, which may give no more than a page at a time."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    data = b""
    try:
        while piece := os.read(fd, CHUNK):
            data += piece
        return data
    finally:
        os.close(fd)


class Account:
    """What the cells of a turn use, each by itself.

    A cell that is `sole`, because nobody but graders runs beside it, answers for all that the
    container uses and the others do not: nothing of it can hide. Where uids are the walls, files
    that graders write meanwhile are among it. Of any other cell only that is known which shows in
    /proc when we look, or is waited for.

    used: bytes that all of them use together, 0 where that is not known.
    """

    def __init__(self, walls: "Walls", meter: Meter, store: Store) -> None:
        self._walls = walls
        self._meter = meter
        self._store = store
        self._past = 0.0  # cpu seconds of cells that are gone
        self._absent = absent()
        self._memory = self._total()
        self._kills = meter.kills()
        self.used = 0
        self.cells: list[Cell] = []

    def open(self, cells: "list[Cell]") -> None:
        """Begin to count for cells that are about to be released."""
        before = list(self.cells)
        if before:
            self.look()
        self.cells += cells
        memory = self._total() - sum(cell.memory for cell in before)
        memory -= sum(cell.head.private for cell in cells)
        for cell in cells:
            cell.bases = (self._rest(cell), memory, cell.room())

    def _total(self) -> int:
        """Bytes that all use but for what we hold; only differences mean something.

        What the kernel keeps for them is among it: full pipes and sockets would end us before
        anything else shows, for their owner can be the smallest process of all. Where the older
        cgroups count we have to leave out what it keeps only as long as nobody needs the memory,
        and to add what they do not know.
        """
        total = self._meter.memory() + self._meter.kernel() - self._store.held
        if self._meter.version == 1:
            total += self._walls.queued() - ABSENT * max(0, absent() - self._absent)
        return total

    def _rest(self, cell: "Cell") -> float:
        """Cpu seconds of all that no other cell answers for; only differences mean something."""
        others = sum(other.cpu + other.overhead() for other in self.cells if other is not cell)
        return self._meter.cpu() - self._walls.spent - self._past - others - cell.overhead()

    def look(self) -> None:
        """Bring the cpu, memory and peak of every cell up to date."""
        trusted = self._meter.whole
        if len(self.cells) > 1 or not (trusted and self.cells[0].sole):
            table = survey()
            for cell in self.cells:
                cell.count(table)
        else:
            (alone,) = self.cells
            alone.mapped = max(alone.mapped, mapped(alone.init, alone.head.space))
        if not trusted:
            self._note()
            return
        for cell in self.cells:
            if cell.gone:  # nothing of it shows any more, but all of it is known
                cell.cpu = max(cell.cpu, cell.reaped)
        total = self._total()
        self.used = total - self._memory
        for cell in self.cells:
            if cell.sole:
                cpu, memory, _ = cell.bases
                cell.cpu = max(cell.cpu, self._rest(cell) - cpu)
                others = sum(other.memory for other in self.cells if other is not cell)
                cell.memory = max(0, total - memory - others)
            else:  # memory that its processes share was counted for each of them
                cell.memory = min(cell.memory, max(0, total - self._memory))
        self._note()

    def _note(self) -> None:
        for cell in self.cells:
            cell.peak = max(cell.peak, cell.memory + cell.borrowed)

    def killed(self) -> "Cell | None":
        """The cell that the kernel killed in for want of memory, if it did since the last call."""
        kills = self._meter.kills()
        if kills <= self._kills or not self.cells:
            return None
        self._kills = kills
        return max(self.cells, key=lambda c: (c.was_killed, c.process.role == "learner", c.memory))

    def close(self, cell: "Cell") -> None:
        """Count for the last time: nothing of the cell is left."""
        cell.cpu = max(cell.cpu, cell.reaped)
        cell.peak = max(cell.peak, cell.remembered())
        if cell.sole and self._meter.whole:
            if len(self.cells) > 1:
                table = survey()
                for other in self.cells:
                    if other is not cell:
                        other.count(table)
            cell.cpu = max(cell.cpu, self._rest(cell) - cell.bases[0])
        self.cells.remove(cell)
        self._past += cell.cpu + cell.overhead()
        cell.memory = 0


# --- the filter around every program ------------------------------------------------------------

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers of system calls, by machine. None of these is of use to an honest program: whoever makes
# one is ended, with a verdict of its own.
KILLED = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "request_key": (249, 218),
    "umount2": (166, 39),
    "userfaultfd": (323, 282),
}
# What the container's filter must leave to us, and what would do the same: denied.
DENIED = {
    "chroot": (161, 51),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "unshare": (272, 97),
}
# Denied with these arguments, by their places; the kernel reads the lower halves of them.
# Who could slow down our init, by its number or by its user's, would put off its own end; and
# filters of sockets are compiled into memory of which the whole host has not much.
FIRST, SOL_SOCKET = 1, 1
GUARDED: dict[str, tuple[tuple[int, int], tuple[dict[int, int], ...]]] = {
    "ioprio_set": ((251, 30), ({0: 1, 1: FIRST}, {0: 3})),
    "prlimit64": ((302, 261), ({0: FIRST},)),
    "sched_setaffinity": ((203, 122), ({0: FIRST},)),
    "sched_setattr": ((314, 274), ({0: FIRST},)),
    "sched_setparam": ((142, 118), ({0: FIRST},)),
    "sched_setscheduler": ((144, 119), ({0: FIRST},)),
    "setpriority": ((141, 140), ({0: 0, 1: FIRST}, {0: 2})),
    "setsockopt": ((54, 208), tuple({1: SOL_SOCKET, 2: name} for name in (26, 50, 51, 52))),
}
CLONE = (56, 220)
CLONE3 = (435, 435)  # its flags lie in memory; everybody falls back to clone
RT_SIGACTION = (13, 134)

LOAD, EQUAL, NOT_BELOW, ANY_BIT, ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
X32 = 0x40000000  # where the second set of numbers of x86_64 begins


def column(machine: str) -> int:
    """Where a machine's numbers stand in the tables above.

    Raises:
        Failure: nowhere.
    """
    try:
        return list(ARCHITECTURES).index(machine)
    except ValueError as error:
        raise Failure(f"there is no filter of system calls for {machine}") from error


def filter_program(machine: str) -> bytes:
    """The filter as the kernel takes it: 8 bytes an instruction."""
    place = column(machine)
    steps = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        (ANSWER, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number
    ]
    if machine == "x86_64":
        steps += [(NOT_BELOW, 0, 1, X32), (ANSWER, 0, 0, KILL)]
    rules = [(numbers[place], KILL) for numbers in KILLED.values()]
    rules += [(numbers[place], ERRNO | errno.EPERM) for numbers in DENIED.values()]
    rules.append((CLONE3[place], ERRNO | errno.ENOSYS))
    for number, answer in rules:
        steps += [(EQUAL, 0, 1, number), (ANSWER, 0, 0, answer)]
    for numbers, forbidden in GUARDED.values():
        body = [step for arguments in forbidden for step in guard(arguments)]
        steps += [(EQUAL, 0, len(body) + 1, numbers[place]), *body, (ANSWER, 0, 0, ALLOW)]
    steps += [
        (EQUAL, 0, 3, CLONE[place]),
        (LOAD, 0, 0, 16),  # the lower half of its flags
        (ANY_BIT, 0, 1, CLONE_NEW),
        (ANSWER, 0, 0, ERRNO | errno.EPERM),
        (ANSWER, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def guard(arguments: dict[int, int]) -> list[tuple[int, int, int, int]]:
    """Instructions that deny a call which has all of these arguments, and else end behind them."""
    steps = [(ANSWER, 0, 0, ERRNO | errno.EPERM)]
    for index, value in reversed(arguments.items()):
        steps = [(LOAD, 0, 0, 16 + 8 * index), (EQUAL, 0, len(steps), value), *steps]
    return steps


def install_filter() -> None:
    """Put it around this process and all that it starts."""
    code = ctypes.create_string_buffer(Once.filter, len(Once.filter))
    whole = struct.pack("@HP", len(Once.filter) // 8, ctypes.addressof(code))
    check(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    described = ctypes.create_string_buffer(whole, len(whole))
    result = libc.prctl(
        PR_SET_SECCOMP,
        ctypes.c_ulong(SECCOMP_MODE_FILTER),
        described,
        *(ctypes.c_ulong(0),) * 2,
    )
    check(result, "seccomp")


# --- a cell -------------------------------------------------------------------------------------


def candidates(program: str) -> list[str]:
    """Where a program may be: as it stands if it has a slash, else along PATH."""
    if "/" in program:
        return [program]
    return [f"{folder}/{program}" for folder in ENVIRONMENT["PATH"].split(":")]


def default_signals() -> None:
    """Ignore no signal but SIGPIPE: what is ignored stays so in a program that is executed.

    Python ignores two and handles one, and an engine may have been started with others. The C
    library keeps a few for itself and refuses to set them; the kernel does not.
    """
    rt_sigaction = RT_SIGACTION[column(os.uname().machine)]
    whole = ctypes.c_ulong  # variadic, as in `prctl`
    for number in range(1, 65):
        if libc.signal(number, None) != 0:
            libc.syscall(whole(rt_sigaction), whole(number), bytes(32), None, whole(8))
    libc.signal(SIGPIPE, ctypes.c_void_p(1))  # or whoever is gone would take us along


class Once:
    """What every child needs and one of them can work out for all; each has little time."""

    filter = b""
    core = 0  # see `core_limit`
    private = -1  # see `Head`
    faults = 0  # of our init, before it starts its child

    @classmethod
    def prepare(cls) -> None:
        """Work it out.

        Raises:
            Failure: this machine is none that we know.
        """
        cls.filter = filter_program(os.uname().machine)
        cls.core = core_limit()
        default_signals()
        gc.disable()  # it would touch, and so copy, all that a child shares with us


def core_limit() -> int:
    """The limit under which no core is dumped, bytes.

    A host whose dumps go to a program calls it whatever the limit, outside of any container; only
    one byte, which the kernel takes for a sign, keeps it from that.
    """
    try:
        with open("/proc/sys/kernel/core_pattern", "rb") as file:
            return int(file.read(1) == b"|")
    except OSError:
        return 0


# What a cell's own processes say to us, over a socket that keeps messages apart. No program has an
# end of it: what its cell says after it was started comes from our init, which it cannot touch.
MOTHER, ROOMS, READY, ENDED, BROKE = b"m", b"d", b"r", b"e", b"!"
GO = b"g"


def speak(link: int, kind: bytes, text: str = "") -> None:
    """Say something to the runner."""
    os.write(link, kind + text.encode(errors="replace")[:1000])


class Head:
    """What a program's process had used before it became the program.

    cpu: seconds. private: bytes that it shared with no other, which the exec gives back. peak:
    bytes, files that it mapped included. faults: of pages, our init's included. space: bytes of
    addresses, by which it is known for what it is until then.
    """

    __slots__ = ("cpu", "faults", "peak", "private", "space")

    def __init__(
        self, cpu: float = 0.0, private: int = 0, peak: int = 0, faults: int = 0, space: int = 0
    ) -> None:
        self.cpu = cpu
        self.private = private
        self.peak = peak
        self.faults = faults
        self.space = space

    @staticmethod
    def say() -> str:
        """In that process: what `hear` takes."""
        if Once.private < 0:
            Once.private = private_memory()
        used = resource.getrusage(resource.RUSAGE_SELF)
        space = int(read("/proc/self/statm").split()[0]) * PAGE
        faults = Once.faults + used.ru_minflt
        return f"{time.process_time()!r} {Once.private} {peak_of(used)} {faults} {space}"

    @classmethod
    def hear(cls, said: bytes) -> "Head":
        """What it has said."""
        cpu, *numbers = said.split()
        head = cls(float(cpu), *map(int, numbers))
        Once.private = head.private
        return head


class Cell:
    """One process tree behind its walls, from its start until nothing of it is left.

    status: of the program, once it has ended. ended: when that was (monotonic), seconds.
    flags, stopped, runs: as they are reported. cpu, memory, peak: what is known by now.
    borrowed: bytes that we hold for it. sole: see `Account`.
    """

    init = -1  # pid of a process of ours that it goes with

    def __init__(self, request: Request, process: Process) -> None:
        self.request = request
        self.process = process
        self.pid = -1  # of the process whose end is the cell's
        self.flags = 0
        self.status: int | None = None
        self.began = self.ended = 0.0
        self.ending = 0.0  # when we saw that it ends or began to end it (monotonic)
        self.gone = self.kill_sent = False
        self.runs: list[dict[str, object]] = []
        self.sole = False
        self.cpu = self.reaped = 0.0
        self.head = Head()
        self.memory = self.peak = self.borrowed = 0
        self.recent = 0  # bytes at the last look, what is borrowed included
        # In the end: bytes of the largest of its processes, files that it mapped included, and
        # faults of pages of all of them, our init's included.
        self.largest = self.faults = 0
        self.mapped = 0  # the most of `Seen.mapped` that one of its processes has shown
        self.bases = (0.0, 0, 0)  # see `Account.open`
        self.wakers: list[int] = []  # descriptors that become readable when there is news
        self.rooms: list[int] = []  # its file systems, the work directory first
        self._link = -1
        self._theirs = -1
        self._seen: dict[int, float] = {}
        self._lost = 0.0  # cpu seconds of processes that are no more

    # --- its beginning

    def begin(self, store: Store, fds: dict[int, int]) -> None:
        """Start its first process; `fds` are what the program gets, by its own numbers."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until the program has only to be released.

        Raises:
            Failure: it cannot be.
        """
        os.close(self._theirs)
        deadline = time.monotonic() + START_TIMEOUT
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        ready = False
        while not ready or self.pid < 0:  # they are several who speak, in any order
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(int(left * 1000) + 1):
                raise Failure(f"{self.process.name} could not be started in time")
            said = self._hear()
            if said[:1] == READY:
                self.head = Head.hear(said[1:])
                ready = True
            elif said[:1] == MOTHER:
                self.pid = int(said[1:])
            elif said[:1] != ROOMS:
                reason = said[1:].decode(errors="replace") or "it said nothing"
                raise Failure(f"{self.process.name} could not be started: {reason}")
        self.wakers = [self._link]
        try:
            self.wakers.append(os.pidfd_open(self.pid))
        except OSError:  # before Linux 5.3
            return  # the next look notices its end

    def _hear(self) -> bytes:
        return os.read(self._link, 2048)

    def release(self, now: float) -> None:
        """Let the program begin."""
        self.began = now
        os.write(self._link, GO)

    @property
    def deadline(self) -> float:
        """When it has used up its real time (monotonic)."""
        return self.began + self.process.real

    # --- its accounts

    def members(self, table: dict[int, Seen]) -> list[int]:
        """Those of these processes that are its programs'."""
        raise NotImplementedError

    def overhead(self) -> float:
        """Cpu seconds of our own process in it."""
        return 0.0

    def room(self) -> int:
        """Bytes in its file systems."""
        used = 0
        for fd in self.rooms:
            state = os.fstatvfs(fd)
            used += (state.f_blocks - state.f_bfree) * state.f_frsize
        return used

    def count(self, table: dict[int, Seen]) -> None:
        """Set cpu and memory to what its processes show."""
        pids = self.members(table)
        waited = table[self.pid].waited if self.pid in table else 0.0
        memory = alive = 0.0
        for pid in [pid for pid in self._seen if pid not in pids]:
            self._lost += self._seen.pop(pid)
        for pid in pids:
            used = cpu_clock(pid)
            before = self._seen.get(pid, 0.0)
            if used < before:  # another one of the same number
                self._lost += before
            self._seen[pid] = used
            alive += used + (table[pid].waited if pid != self.pid else 0.0)
            memory += table[pid].memory
            if table[pid].space != self.head.space:
                self.mapped = max(self.mapped, table[pid].mapped)
        shown = max(self._lost + sum(self._seen.values()), alive + waited) - self.head.cpu
        self.cpu = max(self.cpu, shown)
        self.memory = int(memory) + max(0, self.room() - self.bases[2])

    def remembered(self) -> int:
        """Bytes that its largest process had to itself, as the kernel remembers; 0 if unknown.

        So what was touched after the last look counts, too. Files do not, but they may have been
        mapped after it as well: these pages come by the dozen, a program's own each by a fault.
        Where huge pages hide that, what we saw must be half of it.
        """
        own = self.largest - self.mapped
        if self.largest < max(self.head.peak + UNSURE, 4 * self.mapped):
            return 0
        touched = (self.faults - self.head.faults) * PAGE
        if 4 * touched >= 3 * own:
            return min(own, touched)
        return own if own < 2 * self.peak else 0

    # --- its end

    def hear(self, fd: int) -> bool:
        """Take the news of a waker; false when that was the last."""
        return False

    def catch_up(self) -> None:
        """Take whatever news there is."""
        raise NotImplementedError

    def kill(self) -> None:
        """Begin to end all of it."""
        raise NotImplementedError

    def end_with(self, status: int, when: float) -> None:
        """Note how its program ended: killed, if that is what we did, though it was quicker."""
        self.status, self.ended = SIGKILL if self.kill_sent else status, when
        self.ending = self.ending or time.monotonic()

    def check(self) -> bool:
        """Look whether its program has ended; then end the rest, and be true once all is gone."""
        raise NotImplementedError

    @property
    def was_killed(self) -> bool:
        """Whether its program was killed, and not by us."""
        return self.status == SIGKILL and not self.kill_sent

    @property
    def exit_code(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(self.status or 0)

    @property
    def real(self) -> float:
        """Seconds from its release to its end."""
        return max(0.0, self.ended - self.began)

    @property
    def ok(self) -> bool:
        """Whether it met no limit and left with 0."""
        return not self.flags and self.exit_code == 0

    def judge(self) -> None:
        """Set the flags that are known only afterwards."""
        process = self.process
        for flag, met in (
            (CPU, self.cpu > process.cpu),
            (REAL, self.real > process.real),
            (MEMORY, self.peak >= process.memory),
            (SECURITY, self.exit_code == -SIGSYS),
            (OUTPUT, self.exit_code == -SIGXFSZ),  # a file above its bound
        ):
            if met:
                self.flags |= flag

    @property
    def stopped(self) -> bool:
        """Whether it was ended, by us or for want of memory, rather than by itself."""
        return self.kill_sent or (self.was_killed and self.flags & MEMORY != 0)

    def facts(self) -> dict[str, object]:
        """What a report says of it."""
        return {
            "exit": self.exit_code,
            "cpu": self.cpu,
            "real": self.real,
            "memory": self.peak,
            "flags": self.flags,
            "stopped": self.stopped,
        }

    def take(self, path: str, target: int) -> int:
        """Copy what it left at `path` into a file; return its size.

        Nothing of it runs any more, so what is looked at does not change.

        Raises:
            OSError: it is no regular file of its own, or too large.
        """
        source = open_artifact(self.rooms[0], path, self.process.file_size)
        try:
            size = os.fstat(source).st_size
            move(source, target, size)
            return size
        finally:
            os.close(source)

    def leave(self) -> None:
        """Let go of its files."""
        for fd in (*self.rooms, *self.wakers):
            os.close(fd)
        self.rooms, self.wakers = [], []


def environment(home: str, more: dict[str, str]) -> dict[str, str]:
    """The variables of a program."""
    return {**ENVIRONMENT, "HOME": home, **more}


def place(fds: dict[int, int], link: int) -> int:
    """In a child: have these descriptors under their numbers and no other; return the link's."""
    top = max(2, *fds) + 1
    above = {n: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, top) for n, fd in fds.items()}
    link = fcntl.fcntl(link, fcntl.F_DUPFD_CLOEXEC, top)
    for number, fd in above.items():
        os.dup2(fd, number)
    keep_only({*fds, link})
    return link


def keep_only(fds: "set[int]") -> None:
    """Close every other descriptor."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    start = 0
    for fd in (*sorted(fds), limit):
        if fd > start:
            os.closerange(start, fd)
        start = fd + 1


def confine(request: Request, process: Process, tasks: int | None) -> None:
    """In a child: set its limits. tasks: how many processes its user may have, if that is told."""
    os.nice(NICE[process.role])
    for what, wanted in (
        (resource.RLIMIT_CORE, Once.core),
        (resource.RLIMIT_FSIZE, process.file_size),
        (resource.RLIMIT_STACK, request.stack),
        (resource.RLIMIT_NPROC, tasks),
        (resource.RLIMIT_NOFILE, request.nofile),
    ):
        if wanted is None:
            continue
        hard = resource.getrlimit(what)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (limit, limit))


def private_memory() -> int:
    """Bytes of this process that it shares with no other: what an exec gives back."""
    try:
        return number_after(read("/proc/self/smaps_rollup").split(), b"Private_Dirty:") * 1024
    except FileNotFoundError:  # before Linux 4.14
        return 0


def execute(process: Process, paths: list[str], env: dict[str, str], link: int) -> int:
    """In a child that is the program's in all else: wait for the release and become it.

    Returns the exit code if it cannot be executed.
    """
    os.umask(0o022)
    libc.signal(SIGPIPE, None)
    install_filter()
    speak(link, READY, Head.say())
    if os.read(link, 1) != GO:
        return NOT_FOUND
    code = NOT_FOUND
    for path in paths:
        try:
            os.execve(path, process.argv, env)  # noqa: S606 -- no shell, on purpose
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                code = NOT_EXECUTABLE
    return code


# --- walls of namespaces ------------------------------------------------------------------------


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount something."""
    result = libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    check(result, f"mount {target}")


def drop_capabilities() -> None:
    """Have none, and have no way to get any."""
    number = 0
    while prctl(PR_CAPBSET_DROP, number) == 0:
        number += 1
    check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL), "ambient capabilities")
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    check(libc.capset(header, bytes(24)), "capset")


SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def raise_loopback() -> None:
    """Have 127.0.0.1 in a network namespace that is new."""
    form = "=16sh22x"  # struct ifreq
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    said = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack(form, b"lo", 0))
    flags = struct.unpack(form, said)[1] | IFF_UP
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(form, b"lo", flags))
    any_socket.close()


def namespace(name: str) -> int:
    """The number of one of our namespaces."""
    return os.stat(f"/proc/self/ns/{name}").st_ino


class Namespaces:
    """Walls of an ordinary user.

    The kernel gives the numbers of namespaces that are gone again, at once. No cell is to have one
    of the cell before it, lest it be taken for the same.

    spent: cpu seconds of processes of ours that belong to no cell. held: descriptors of those
    namespaces of the last cell that hold nothing, which keep their numbers. past: the numbers of
    those that hold files and shared memory, and so must go with it, by their kind.
    """

    name = "namespaces"
    spent = 0.0

    def __init__(self) -> None:
        self.held: list[int] = []
        self.past: dict[str, int] = {}
        self.cells: list[Inner] = []  # that are not gone

    def cell(self, request: Request, process: Process) -> Cell:
        """A cell for one program."""
        cell = Inner(self, request, process)
        self.cells.append(cell)
        return cell

    def remember(self, held: list[int], past: dict[str, int]) -> None:
        """A cell has been made since; its descriptors get the numbers of the last ones."""
        for new, old in zip(held, self.held or held, strict=True):
            if new != old:
                os.dup2(new, old, inheritable=False)
                os.close(new)
        self.held, self.past = self.held or held, past

    def queued(self) -> int:
        """Bytes that lie in queues of internet sockets, of all cells alive."""
        return sum(queued(cell.pid) for cell in self.cells)

    def meet(self, crowd: bool) -> None:
        """Several may run at once from now on: nothing to do."""

    def part(self) -> None:
        """None of them is left, nor anything that was theirs."""


class Inner(Cell):
    """A cell in namespaces of its own, whose process 1 is ours.

    A middle child makes the namespaces and ends; its child is the init, which furnishes them; the
    init's child becomes the program, so that signals and ends are those of any other process. When
    the program ends the init says so and ends, and with it every process of the cell.
    """

    def __init__(self, walls: Namespaces, request: Request, process: Process) -> None:
        super().__init__(request, process)
        self._walls = walls
        self._overhead = 0.0
        self._said_all = False

    def begin(self, store: Store, fds: dict[int, int]) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._socket = ours
        self._link, self._theirs = ours.fileno(), theirs.detach()
        middle = os.fork()
        if middle == 0:
            try:
                self._separate(store, fds)
                os._exit(0)
            except BaseException as error:
                speak(self._theirs, BROKE, f"{error}")
            finally:
                os._exit(1)
        self._middle = middle

    def _separate(self, store: Store, fds: dict[int, int]) -> None:
        """In the middle child: make the namespaces and the init."""
        uid, gid = os.getuid(), os.getgid()
        check(prctl(PR_SET_DUMPABLE, 1), "dumpable")  # or our own maps were not ours to write
        check(libc.unshare(NEW_NAMESPACES), "unshare")
        for name, flag in NAMES_PAST.items():
            if namespace(name) == self._walls.past.get(name):  # the next cannot be: this is there
                check(libc.unshare(flag), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(fd, text.encode())
            os.close(fd)
        pid = os.fork()
        if pid == 0:
            try:
                self._init(store, fds)
            except BaseException as error:
                speak(self._theirs, BROKE, f"{error}")
            finally:
                os._exit(1)
        speak(self._theirs, MOTHER, str(pid))
        raise_loopback()  # meanwhile: the kernel takes its time

    def _init(self, store: Store, fds: dict[int, int]) -> None:
        """In the init: furnish the cell, start the program and outlive it."""
        # Being process 1, it gets no signal from its own namespace: it asked for none.
        self._furnish(store)
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, OOM_SCORE[self.process.role])
        os.close(fd)
        mount("", "/proc", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        drop_capabilities()
        check(prctl(PR_SET_DUMPABLE, 0), "dumpable")
        Once.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        child = os.fork()
        if child == 0:
            self._become(fds)
        keep_only({self._theirs})
        while True:
            pid, status, _ = os.wait4(-1, 0)
            if pid == child:
                speak(self._theirs, ENDED, f"{status} {time.monotonic()!r}")
                os._exit(0)

    def _furnish(self, store: Store) -> None:
        """Have new file systems wherever a program can write, and the program's files."""
        mount("/proc", "/proc", "", MS_BIND | MS_REC)
        keep = os.open(KEEP, os.O_PATH | os.O_DIRECTORY)
        box, plain = self.request.box, MS_NOSUID | MS_NODEV
        mount("tmpfs", BOX, "tmpfs", plain, f"size={PAGE},nr_inodes=4,mode=755")
        os.mkdir(WORK)
        if os.path.isfile(HOSTS):  # the engine makes it, and empty where there is no network
            hosts = f"{BOX}/hosts"
            fd = os.open(hosts, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
            os.write(fd, b"127.0.0.1 localhost\n::1 localhost\n")
            os.close(fd)
            mount(hosts, HOSTS, "", MS_BIND)
            mount("", HOSTS, "", MS_REMOUNT | MS_BIND | MS_RDONLY | plain)
            os.unlink(hosts)
        room = f"size={box},nr_inodes={self.request.inodes},mode=700"
        mount("tmpfs", WORK, "tmpfs", plain, room)
        mount("", BOX, "", MS_REMOUNT | MS_BIND | MS_RDONLY | plain)
        for path, size, inodes in zip(SHARED, (box // 2, box // 4), (4096, 1024), strict=True):
            room = f"size={size},nr_inodes={inodes},mode=1777"
            mount("tmpfs", path, "tmpfs", plain | MS_NOEXEC, room)
        if os.path.isdir(QUEUES):
            mount("mqueue", QUEUES, "mqueue", plain | MS_NOEXEC)
        if os.path.isdir("/dev/pts"):
            mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, PTYS)
        # Devices can be used all the same, but bear no marks for others, such as a time.
        mount("", "/dev", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_STRICTATIME)
        check(libc.sethostname(b"sandbox", 7), "sethostname")
        put_files(self.process, store, keep, WORK)
        paths = (WORK, *SHARED, *(f"/proc/self/ns/{name}" for name in NAMES_HELD))
        fds = struct.pack(PASSED, *(os.open(path, os.O_RDONLY) for path in paths))
        with_fds = _socket.socket(fileno=os.dup(self._theirs))
        numbers = " ".join(str(namespace(name)) for name in NAMES_PAST)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)
        with_fds.sendmsg([ROOMS + numbers.encode()], [rights])

    def _become(self, fds: dict[int, int]) -> None:
        """In the init's child: become the program."""
        code = 1
        link = self._theirs
        try:
            paths = candidates(self.process.argv[0])
            os.setsid()
            link = place(fds, link)
            # The init is one of them.
            confine(self.request, self.process, self._tasks())
            os.chdir(WORK)
            code = execute(self.process, paths, environment(WORK, self.process.env), link)
        except BaseException as error:
            speak(link, BROKE, f"{error}")
        finally:
            os._exit(code)

    def _tasks(self) -> int | None:
        """The limit of processes: before Linux 5.14 it counts the user's on the whole host."""
        major, minor = os.uname().release.split("-")[0].split(".")[:2]
        return self.process.processes + 1 if (int(major), int(minor)) >= (5, 14) else None

    def _hear(self) -> bytes:
        said, ancillary, _, _ = self._socket.recvmsg(
            2048, _socket.CMSG_SPACE(struct.calcsize(PASSED)), _socket.MSG_CMSG_CLOEXEC
        )
        for _, _, data in ancillary:
            fds = list(struct.unpack(PASSED, data))
            self.rooms = fds[: -len(NAMES_HELD)]
            past = dict(zip(NAMES_PAST, map(int, said[1:].split()), strict=True))
            self._walls.remember(fds[-len(NAMES_HELD) :], past)
        return said

    def settle(self) -> None:
        super().settle()
        self.init = self.pid
        if os.waitpid(self._middle, 0)[1] != 0:
            raise Failure(f"{self.process.name} could not be started: {self._hear()!r}")
        self._socket.detach()
        os.set_blocking(self._link, False)

    def members(self, table: dict[int, Seen]) -> list[int]:
        children: dict[int, list[int]] = {}
        for pid, seen in table.items():
            children.setdefault(seen.parent, []).append(pid)
        found: list[int] = []
        new = children.get(self.pid, [])
        while new:
            found += new
            new = [pid for parent in new for pid in children.get(parent, ())]
        return found

    def overhead(self) -> float:
        if not self.gone:
            self._overhead = max(self._overhead, cpu_clock(self.pid))
        return self._overhead

    def hear(self, fd: int) -> bool:
        if fd != self._link:
            return False  # the init has ended; its link says so, too
        try:
            said = os.read(fd, 2048)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            said = b""
        if said[:1] == ENDED:
            status, at = said[1:].split()
            self.end_with(int(status), float(at))
        self._said_all = not said
        return not self._said_all

    def catch_up(self) -> None:
        if not self._said_all:
            self.hear(self._link)

    def kill(self) -> None:
        os.kill(self.pid, SIGKILL)

    def check(self) -> bool:
        if not self._said_all:
            return False
        spent = self.overhead()
        pid, _, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        if self.status is None:  # killed, by us or for want of memory or by a trick on itself
            self.end_with(SIGKILL, time.monotonic())
        self.reaped = max(0.0, cpu_of(usage) - spent - self.head.cpu)
        self.largest, self.faults = peak_of(usage), usage.ru_minflt
        self.gone = True
        return True

    def leave(self) -> None:
        super().leave()
        self._walls.cells.remove(self)


def put_files(process: Process, store: Store, keep: int, folder: str) -> None:
    """Copy a program's files into its work directory, in folders that are made for them.

    keep: our folder with all of them.
    """
    made = {""}
    for name, path in process.files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            inner = "/".join(parts[:depth])
            if inner not in made:
                made.add(inner)
                os.mkdir(f"{folder}/{inner}", 0o755)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        target = os.open(f"{folder}/{path}", flags, 0o755)
        source = os.open(str(store.number(name)), os.O_RDONLY, dir_fd=keep)
        copy(source, target, store.size(name))
        os.close(source)
        os.close(target)


# --- walls of uids ------------------------------------------------------------------------------


class Uids:
    """Walls of uid 0: what is shared is closed while several run, and wiped after each.

    spent: as `Namespaces`.
    """

    name = "uids"

    def __init__(self) -> None:
        self.spent = 0.0
        self.cells: list[Outer] = []  # that are not gone
        self._crowd = False

    def cell(self, request: Request, process: Process) -> Cell:
        """A cell for one program, under a uid that no other one alive has."""
        taken = {cell.uid for cell in self.cells}
        uid = request.uid if process.role == "learner" else request.grader_uid
        place = 0
        while uid in taken:
            uid += UID_STEP
        while any(cell.place == place for cell in self.cells):
            place += 1
        cell = Outer(self, request, process, uid, place)
        self.cells.append(cell)
        return cell

    def queued(self) -> int:
        """As `Namespaces.queued`: they all use our network."""
        return queued(os.getpid())

    @property
    def crowd(self) -> bool:
        """Whether several may run at once."""
        return self._crowd

    def meet(self, crowd: bool) -> None:
        """Several may run at once from now on, if `crowd`: what all share is only lent then."""
        self._crowd = crowd
        for path in SHARED:
            os.chmod(path, 0o700 if crowd else 0o1777)

    def part(self) -> None:
        """Leave nothing of the last programs to the next.

        Raises:
            Failure: something is left.
        """
        deadline = time.monotonic() + WIPE_TIMEOUT
        try:
            for path in SHARED:
                empty(path, deadline)
        except OSError as error:
            raise Failure(f"what a program left could not be wiped: {error}") from error

    def bury(self, wait: bool = False) -> bool:
        """Take leave of all that have ended; false if there is nobody left.

        wait: for one at least.
        """
        for _ in range(MAX_BURIALS):
            options = os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)
            try:
                found = os.waitid(os.P_ALL, 0, options)
            except ChildProcessError:
                return False
            if found is None:
                return True
            wait = False
            _, status, usage = os.wait4(found.si_pid, 0)
            for cell in self.cells:
                if cell.uid == found.si_uid or cell.pid == found.si_pid:
                    cell.reaped += cpu_of(usage)
                    cell.largest = max(cell.largest, peak_of(usage))
                    cell.faults += usage.ru_minflt
                if cell.pid == found.si_pid:
                    cell.end_with(status, time.monotonic())
        return True


def lend(gid: int) -> None:
    """Let one group into what all share, 0: nobody; it stays ours, or its modes were theirs."""
    for path in SHARED:
        os.chown(path, 0, gid)
        os.chmod(path, 0o1770 if gid else 0o700)


class Outer(Cell):
    """A cell under a uid of its own; its program is a child of ours, as its orphans are."""

    def __init__(
        self, walls: Uids, request: Request, process: Process, uid: int, place: int
    ) -> None:
        super().__init__(request, process)
        self.uid = uid
        self.place = place
        self.home = f"{WORK}-{place}" if place else WORK
        self._walls = walls
        self._scratch = ""

    def begin(self, store: Store, fds: dict[int, int]) -> None:
        self._furnish(store)
        for fd in fds.values():
            # Or opening /dev/stdin and /dev/stdout, which are links to these, would be denied.
            if os.fstat(fd).st_mode & 0o170000 == 0o010000:
                os.fchown(fd, self.uid, self.uid)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._link, self._theirs = ours.detach(), theirs.detach()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(fds)

    def _furnish(self, store: Store) -> None:
        os.mkdir(self.home, 0o700)
        self.rooms = [os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        keep = os.open(KEEP, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        put_files(self.process, store, keep, self.home)
        os.close(keep)
        if self._walls.crowd and self.sole:
            lend(self.uid)
        elif self._walls.crowd:
            self._scratch = f"{BOX}/scratch-{self.place}"
            os.mkdir(self._scratch, 0o700)
            os.chown(self._scratch, self.uid, self.uid)
        # Innermost first: what is handed over cannot be entered any more.
        for path in sorted((path for _, path in self.process.files), reverse=True):
            os.chown(f"{self.home}/{path}", self.uid, self.uid, follow_symlinks=False)
        folders = {
            "/".join(path.split("/")[:depth])
            for _, path in self.process.files
            for depth in range(1, path.count("/") + 1)
        }
        for folder in sorted(folders, key=lambda name: name.count("/"), reverse=True):
            os.chown(f"{self.home}/{folder}", self.uid, self.uid)
        os.fchown(self.rooms[0], self.uid, self.uid)

    def _become(self, fds: dict[int, int]) -> None:
        """In the child: become the program; the order matters."""
        code = 1
        link = self._theirs
        try:
            paths = candidates(self.process.argv[0])
            os.setsid()
            link = place(fds, link)
            # This needs uid 0: our files in /proc are root's, because we are not dumpable.
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, OOM_SCORE[self.process.role])
            os.close(fd)
            # Processes are limited by the container: a uid's are counted on the whole host.
            confine(self.request, self.process, None)
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
            os.chdir(self.home)
            more = {"TMPDIR": self._scratch} if self._scratch else {}
            env = environment(self.home, {**more, **self.process.env})
            code = execute(self.process, paths, env, link)
        except BaseException as error:
            speak(link, BROKE, f"{error}")
        finally:
            os._exit(code)

    def settle(self) -> None:
        super().settle()
        # Nothing comes after this, and descendants may hold no end of it.
        self.wakers.remove(self._link)

    def release(self, now: float) -> None:
        super().release(now)
        os.close(self._link)

    def members(self, table: dict[int, Seen]) -> list[int]:
        return [pid for pid, seen in table.items() if seen.uid == self.uid]

    def room(self) -> int:
        if self._walls.crowd:
            return 0  # what several write to cannot be told apart
        used = 0
        for path in (BOX, *SHARED):
            state = os.statvfs(path)
            used += (state.f_blocks - state.f_bfree) * state.f_frsize
        return used

    def catch_up(self) -> None:
        self._walls.bury()

    def kill(self) -> None:
        """Kill every process of its uid; never mind if there is none.

        At once, by one system call of a process that has this uid in one respect, so that no fork
        gets away, and not in those in which it could be killed by it.
        """
        try:
            if self._walls.cells == [self]:
                os.kill(-1, SIGKILL)
                return
            pid = os.fork()
        except ProcessLookupError:
            return
        except BlockingIOError:  # there are too many: some die so, then we come again
            for pid in self.members(survey()):
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
            return
        if pid == 0:
            try:
                os.setresuid(0, self.uid, 0)
                os.kill(-1, SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os._exit(0)
        self._walls.spent += cpu_of(os.wait4(pid, 0)[2])

    def check(self) -> bool:
        self._walls.bury()
        if self.status is None:
            return False
        self._end()
        self.reaped = max(0.0, self.reaped - self.head.cpu)
        self.gone = True
        return True

    def _end(self) -> None:
        """Kill whatever lives beside us and wait until all of it is gone.

        No race is lost to a fork bomb: a fork fails once a SIGKILL is pending for its parent, and
        every process here is a descendant of ours, so no child left means none left.
        """
        deadline = time.monotonic() + WIPE_TIMEOUT
        while True:
            self.kill()
            if self._walls.cells == [self]:
                if not self._walls.bury(wait=True):
                    return
            else:
                self._walls.bury()
                if not self.members(survey()):
                    return
            if time.monotonic() > deadline:
                raise Failure("what a program left could not be ended in time")

    def leave(self) -> None:
        super().leave()
        self._walls.cells.remove(self)
        deadline = time.monotonic() + WIPE_TIMEOUT
        try:
            for path in (self.home, self._scratch):
                if path:
                    empty(path, deadline)
                    os.rmdir(path)
            if self._walls.crowd and self.sole:
                lend(0)
                for path in SHARED:
                    empty(path, deadline)
            for name in os.listdir(QUEUES) if os.path.isdir(QUEUES) else ():
                if os.stat(f"{QUEUES}/{name}").st_uid == self.uid:
                    os.unlink(f"{QUEUES}/{name}")
            self._walls.spent += remove_ipc(self.uid)
        except OSError as error:
            raise Failure(f"what a program left could not be wiped: {error}") from error


IPC = (("shm", "shmctl"), ("msg", "msgctl"), ("sem", "semctl"))
IPC_OWNER = {"shm": 7, "msg": 7, "sem": 4}  # the column with the owner's uid


def ipc_ids(kind: str, uid: int) -> list[int]:
    """The numbers of a user's System V objects of a kind."""
    try:
        lines = read(f"/proc/sysvipc/{kind}").splitlines()[1:]
    except FileNotFoundError:  # a kernel without them
        return []
    rows = [line.split() for line in lines]
    return [int(row[1]) for row in rows if int(row[IPC_OWNER[kind]]) == uid]


def remove_ipc(uid: int) -> float:
    """Remove System V objects: only their owner may, so a child becomes the owner for it.

    Returns the cpu seconds of that child.
    """
    if not any(ipc_ids(kind, uid) for kind, _ in IPC):
        return 0.0
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            for kind, control in IPC:
                for number in ipc_ids(kind, uid):
                    arguments = (number, 0, 0, 0) if kind == "sem" else (number, 0, 0)
                    getattr(libc, control)(*arguments)  # 0 is IPC_RMID
        finally:
            os._exit(0)
    spent = cpu_of(os.wait4(pid, 0)[2])
    if any(ipc_ids(kind, uid) for kind, _ in IPC):
        raise Failure("System V objects could not be wiped")
    return spent


Walls = Namespaces | Uids


TRIAL: dict[str, object] = {
    "frame": "request",
    "uid": 1,
    "grader_uid": 2,
    "nofile": 64,
    "stack": 1 << 20,
    "box": 1 << 20,
    "inodes": 64,
    "files": [],
    "prepare": [],
    "cases": [],
}
TRIAL_PROCESS: dict[str, object] = {
    "name": "a trial",
    "role": "learner",
    "argv": ["true"],
    "files": [],
    "env": [],
    "cpu": 1,
    "real": 1,
    "memory": 1 << 20,
    "output": 0,
    "file_size": 1 << 20,
    "processes": 1,
    "may_run": [],
}


def find_walls() -> tuple["Walls | None", str]:
    """The walls that can be built here, found by trying; if none, what is in the way."""
    try:
        Once.prepare()
    except Failure as error:
        return None, str(error)
    if os.geteuid() == 0:
        fields = read("/proc/self/status").split()
        held = int(fields[fields.index(b"CapEff:") + 1], 16)
        wanted = sum(1 << number for number in (CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID))
        if held & wanted != wanted:
            return None, "uid 0 lacks the capabilities to become others"
        return Uids(), ""
    try:
        walls = Namespaces()
        cell = walls.cell(Request(TRIAL, 0), Process(TRIAL_PROCESS, set()))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        cell.begin(Store(), dict.fromkeys(range(3), null))
        cell.settle()
    except (Failure, OSError) as error:
        return None, str(error)
    os.close(null)
    cell.kill()
    deadline = time.monotonic() + WIPE_TIMEOUT
    while not cell.check():
        poll = select.poll()
        for fd in cell.wakers:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(10):
            cell.hear(fd)
        if time.monotonic() > deadline:
            return None, "a trial cell does not end"
    cell.leave()
    return walls, ""


# --- one stage ----------------------------------------------------------------------------------


class Sink:
    """Takes what a program writes on one descriptor into a file, up to a bound.

    The file is none of a file system that a program could fill up.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self.fd, self.theirs = os.pipe()
        os.set_blocking(self.fd, False)
        self.file = unnamed()
        self.size = 0
        self.too_much = False
        self._store = store
        self._limit = limit

    def take(self) -> bool:
        """Take what is there; false when there will be no more, or there was too much.

        One byte more than allowed is too many.

        Raises:
            BlockingIOError: there is nothing at present.
        """
        room = self._limit - self.size
        data = os.read(self.fd, min(CHUNK, room + 1))
        self._store.held -= paged(self.size)
        self.size += write_all(self.file, data[:room])
        self._store.held += paged(self.size)
        self.too_much = len(data) > room
        return bool(data) and not self.too_much

    def drain(self) -> None:
        """Take what was written before the end; there is nobody to write any more."""
        try:
            while self.fd >= 0 and not self.too_much and self.take():
                pass
        except BlockingIOError:  # a cell that just begins has not yet closed its copy of the pipe
            pass
        self.close()

    def close(self) -> None:
        """Take nothing more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def content(self) -> bytes:
        """All that was taken, which is then forgotten."""
        data = os.pread(self.file, self.size, 0)
        os.close(self.file)
        self._store.held -= paged(self.size)
        return data


class Turn:
    """One stage from its start until nothing of it is left, all in one loop."""

    def __init__(
        self, walls: "Walls", meter: Meter, store: Store, request: Request, stage: Stage
    ) -> None:
        self.account = Account(walls, meter, store)
        self.store = store
        self.cells: dict[str, Cell] = {}  # of the stage's processes
        self._walls = walls
        self._meter = meter
        self._request = request
        self._stage = stage
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._alive: list[Cell] = []
        self._sinks: dict[str, Sink] = {}  # by artifact
        self._left: dict[str, tuple[int, int]] = {}  # work files by artifact: copy and size
        self._outputs: dict[Cell, list[Sink]] = {}
        self._drains: dict[Cell, list[int]] = {}  # pipes to it that others write to
        self._draining: set[int] = set()  # those whose reader is gone
        self._controls: dict[Cell, Control] = {}
        self._asked_by: dict[Cell, Control] = {}
        self._runs_sole = False  # whether what is asked for answers for all that graders do not
        self._pause = 0.0
        self._look_at = 0.0  # when to look next (monotonic)

    def go(self) -> None:
        """Run it to its end.

        Raises:
            Failure: it could not be carried out.
            HostGone: nobody waits for it any more.
        """
        stage = self._stage
        self._await_memory()
        askers = [process for process in stage.processes.values() if process.may_run]
        self._walls.meet(len(stage.processes) > 1 or bool(askers))
        learners = [name for name, p in stage.processes.items() if p.role == "learner"]
        for name, process in stage.processes.items():
            cell = self.cells[name] = self._walls.cell(self._request, process)
            alone = len(stage.processes) == 1 or learners == [name]
            cell.sole = alone and not askers
        self._runs_sole = len(askers) == 1 and not learners
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        fds = {name: dict.fromkeys(range(3), null) for name in self.cells}
        theirs = [null, *self._lay(fds)]
        for name, cell in self.cells.items():
            cell.begin(self.store, fds[name])
        for cell in self.cells.values():
            cell.settle()
        for fd in theirs:
            os.close(fd)
        self._release(list(self.cells.values()))
        self.watch(0, 0, self._on_host)  # no event asked for: only that the host hung up
        self._serve()
        self._walls.part()
        for fd in self._draining:
            os.close(fd)

    def _await_memory(self) -> None:
        """Wait until there is what the processes may use: the kernel may be late to give back.

        Raises:
            Failure: there is not, which is no fault of theirs.
        """
        promised = sum(process.memory for process in self._stage.processes.values())
        deadline = time.monotonic() + WIPE_TIMEOUT
        while self._meter.limit() - self._meter.memory() < promised:
            if time.monotonic() > deadline:
                raise Failure(f"there is not the memory that {self._stage.name} may use")
            time.sleep(SAMPLE)

    def _lay(self, fds: dict[str, dict[int, int]]) -> list[int]:
        """Make the pipes; return what is the programs' alone."""
        theirs = []
        for source, target in self._stage.pipes:
            if source.kind == "resource" and target.kind == "fd":
                fd = fds[target.name][target.fd] = self.store.reader(source.name)
                theirs.append(fd)
            elif source.kind == "fd" and target.kind == "artifact":
                cell = self.cells[source.name]
                sink = self._sinks[target.name] = Sink(self.store, cell.process.output)
                fds[source.name][source.fd] = sink.theirs
                theirs.append(sink.theirs)
                self._listen(cell, sink)
            elif source.kind == "fd":
                reader, writer = os.pipe()
                fds[source.name][source.fd] = writer
                fds[target.name][target.fd] = reader
                theirs += [reader, writer]
                # Opened anew: the flags of the reader's own are the reader's.
                flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
                drain = os.open(f"/proc/self/fd/{reader}", flags)
                self._drains.setdefault(self.cells[target.name], []).append(drain)
        for name, cell in self.cells.items():
            if cell.process.may_run:
                ours, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
                fds[name][CONTROL_FD] = other.detach()
                theirs.append(fds[name][CONTROL_FD])
                self._controls[cell] = Control(self, cell, ours.detach())
        return theirs

    # --- the loop

    def watch(self, fd: int, events: int, handler: "Callable[[int], None]") -> None:
        """Have `handler` called with what happens at a descriptor."""
        self._poll.register(fd, events)
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Have it called no more."""
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)

    def _on_host(self, event: int) -> None:
        raise HostGone

    def _serve(self) -> None:
        """Wait for whatever happens next, until all cells are gone."""
        while self._alive:
            now = time.monotonic()
            for cell in self._alive:
                if cell.ending and now > cell.ending + WIPE_TIMEOUT:
                    raise Failure(f"{cell.process.name} could not be ended in time")
            self.stop([cell for cell in self._alive if now >= cell.deadline], REAL)
            if now >= self._look_at:
                self._look()
            deadlines = (cell.deadline for cell in self._alive if not cell.ending)
            wait = min(self._look_at, *deadlines, self._look_at) - time.monotonic()
            for fd, event in self._poll.poll(max(0, int(wait * 1000) + 1)):
                if handler := self._handlers.get(fd):
                    try:
                        handler(event)
                    except BlockingIOError:
                        continue  # programs can open their pipes to read: one was quicker
            for cell in [cell for cell in self._alive if cell.check()]:
                self._bid_farewell(cell)

    def _look(self) -> None:
        """See who has used up what is allowed."""
        began = time.process_time()
        self.account.look()
        self._ask_kernel()
        near = growing = False
        for cell in self._alive:
            used, before = cell.memory + cell.borrowed, cell.recent
            cell.recent = used
            growing |= used > before + max(GROWTH, before // 20)
            near |= 2 * used >= cell.process.memory
            if cell.cpu > GRACE * cell.process.cpu:
                self.stop([cell], CPU)
            if cell.peak >= cell.process.memory:
                self.stop([cell], MEMORY)
        # What no process shows, such as what lies in sockets, is some learner's. What our own
        # processes use is among it.
        allowed = sum(cell.process.memory + OURS for cell in self._alive)
        if self.account.used > allowed:
            self.stop([cell for cell in self._alive if cell.process.role == "learner"], MEMORY)
        near |= 2 * self.account.used >= allowed
        self._pause = min(2 * self._pause, NEAR if near else SAMPLE)
        if growing:
            self._pause = GROWING
        took = time.process_time() - began
        self._look_at = time.monotonic() + max(self._pause, BUSY * took)

    def _ask_kernel(self) -> None:
        """End whoever made the memory run out."""
        if victim := self.account.killed():
            victim.flags |= MEMORY
            if victim.sole:  # it was quicker than our looks
                victim.peak = max(victim.peak, victim.process.memory)
            self.stop([victim], MEMORY)

    def stop(self, cells: list[Cell], flag: int) -> None:
        """End cells that met a limit, unless they end already.

        They are all marked before the first is killed: what the end of one does to the others, such
        as the end of a pipe, is not theirs.
        """
        for cell in cells:
            cell.catch_up()
        late = [cell for cell in cells if not cell.ending]
        for cell in late:
            cell.flags |= flag
            cell.kill_sent = True
            cell.ending = time.monotonic()
        for cell in late:
            cell.kill()

    # --- cells come and go

    def _listen(self, cell: Cell, sink: Sink) -> None:
        """Take what a cell writes."""

        def on_output(event: int) -> None:
            if sink.take():
                return
            self.forget(sink.fd)
            if sink.too_much:
                self.stop([cell], OUTPUT)
            else:
                sink.close()

        self.watch(sink.fd, select.POLLIN, on_output)
        self._outputs.setdefault(cell, []).append(sink)

    def _release(self, cells: list[Cell]) -> None:
        """Let cells begin that are settled."""
        self.account.open(cells)
        now = time.monotonic()
        for cell in cells:
            for fd in cell.wakers:
                self.watch(fd, select.POLLIN, self._waker(cell, fd))
            cell.release(now)
        self._alive += cells
        # Short programs are seen too: at once, then after 1, 2, 4, 8, 10 … ms.
        self._pause = 0.001
        self._look_at = time.monotonic() + self._pause

    def _waker(self, cell: Cell, fd: int) -> "Callable[[int], None]":
        def on_news(event: int) -> None:
            if not cell.hear(fd):
                self.forget(fd)

        return on_news

    def _bid_farewell(self, cell: Cell) -> None:
        """Settle all that there was with a cell that is gone."""
        self.account.look()
        self._ask_kernel()
        self.account.close(cell)
        self._alive.remove(cell)
        outputs = self._outputs.get(cell, [])
        for sink in outputs:
            self.forget(sink.fd)
            sink.drain()
            if sink.too_much:
                cell.flags |= OUTPUT
        cell.judge()
        for fd in self._drains.pop(cell, []):
            self._drain(fd)
        for fd in cell.wakers:
            self.forget(fd)
        if control := self._controls.pop(cell, None):
            control.close()
        for source, target in self._stage.pipes:
            if source.kind == "file" and self.cells[source.name] is cell:
                self._take(cell, source.path, target.name)
        cell.leave()
        if asker := self._asked_by.pop(cell, None):
            del self._outputs[cell]
            asker.answer(cell, outputs)

    def _drain(self, fd: int) -> None:
        """Empty a pipe whose reader is gone, so that its writer is not ended for it."""

        def on_rest(event: int) -> None:
            if not os.read(fd, CHUNK):
                self.forget(fd)
                self._draining.remove(fd)
                os.close(fd)

        self._draining.add(fd)
        self.watch(fd, select.POLLIN, on_rest)

    def _take(self, cell: Cell, path: str, name: str) -> None:
        """Keep what a cell left at a path, if it is there."""
        fd = unnamed()
        try:
            size = cell.take(path, fd)
            self._left[name] = (fd, size)
            self.store.held += os.fstat(fd).st_blocks * 512
            if size >= cell.process.file_size and cell.exit_code != 0:
                cell.flags |= OUTPUT  # the signal for that is ignored by some, such as Python
        except OSError:
            os.close(fd)

    # --- runs that are asked for

    def start_run(self, control: "Control", process: Process, told: tuple[int, int]) -> Cell:
        """Start what a cell asked for; `told` is its standard input and what else it is told."""
        cell = self._walls.cell(self._request, process)
        cell.sole = self._runs_sole
        sinks = [Sink(self.store, process.output) for _ in range(3)]
        for sink in sinks:
            self._listen(cell, sink)
        fds = {number: sink.theirs for number, sink in zip((1, 2, RESULT_FD), sinks, strict=True)}
        cell.begin(self.store, {**fds, 0: told[0], INPUT_FD: told[1]})
        cell.settle()
        for fd in (*told, *fds.values()):
            os.close(fd)
        self._asked_by[cell] = control
        self._release([cell])
        return cell

    # --- its report

    def keep(self, *, of_case: bool) -> list[dict[str, object]]:
        """Put its artifacts into the store; return what a report says of them, in order."""
        found: list[dict[str, object]] = []
        for source, target in self._stage.pipes:
            if target.kind != "artifact":
                continue
            name = target.name
            if source.kind == "resource":
                self.store.alias(name, source.name, of_case=of_case)
            elif source.kind == "fd":
                sink = self._sinks[name]
                self.store.move(name, sink.file, sink.size, of_case=of_case)
            elif name in self._left:
                self.store.move(name, *self._left[name], of_case=of_case)
            else:
                found.append({"size": 0, "missing": True, "sent": 0})
                continue
            size = self.store.size(name)
            found.append({"size": size, "missing": False, "sent": size if target.returned else 0})
        return found

    def facts(self) -> list[dict[str, object]]:
        """What a report says of its processes, in order."""
        return [
            {**cell.facts(), "ended": cell.real, "runs": cell.runs} for cell in self.cells.values()
        ]


class Control:
    """Hears what one cell asks to be run, one after another, and answers.

    Messages both ways: two big-endian 32-bit lengths, a header in JSON, a body.

        in   run      name, args (appended to its argv), stdin, input; real if that is to be less
                      body: its standard input, then what it reads on descriptor 4
        out           exit, cpu, real, memory, flags, stopped, stdout, stderr, result
                      body: its outputs, and what it wrote on descriptor 3
        out  error    text: nothing was run
    """

    def __init__(self, turn: Turn, cell: Cell, fd: int) -> None:
        self._turn = turn
        self._cell = cell
        self._fd = fd
        self._run: Cell | None = None
        self._out = memoryview(b"")
        self._over = False  # whether nothing more is heard after what is being said
        self._told: tuple[int, ...] = ()  # files for the body, while it comes
        self._told_size = 0
        os.set_blocking(fd, False)
        self._listen()

    def _listen(self) -> None:
        """Wait for the next message."""
        self._expect(8, self._on_lengths)
        self._turn.watch(self._fd, select.POLLIN, self._on_event)

    def _expect(self, size: int, then: "Callable[[], None]") -> None:
        self._buffer = bytearray()
        self._need = size
        self._then = then

    @property
    def _hears(self) -> bool:
        """Whether it is the cell's turn to speak."""
        return self._fd >= 0 and self._run is None and not self._out

    def _on_event(self, event: int) -> None:
        try:
            if self._hears and event & select.POLLIN:
                self._read()
            elif self._out and event & select.POLLOUT:
                self._write()
            elif event & (select.POLLHUP | select.POLLERR):
                self.close()
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):
            self.close()

    def _read(self) -> None:
        """Take no more than what is waited for: what comes after it is not for now."""
        data = os.read(self._fd, min(CHUNK, self._need))
        if not data:
            self.close()
            return
        self._need -= len(data)
        if self._told:
            self._spool(data)
        else:
            self._buffer += data
        while self._hears and self._need == 0:
            self._then()

    def _on_lengths(self) -> None:
        head, self._body = struct.unpack(">II", self._buffer)
        if 0 < head <= MAX_ASK and self._body <= MAX_TOLD:
            self._expect(head, self._on_header)
        else:
            self._over = True  # where the next message would begin is not known
            self._say({"error": "the message is too long"})

    def _on_header(self) -> None:
        self._refusal = ""
        self._stdin = self._told_size = 0
        try:
            self._process, self._stdin = self._read_ask(bytes(self._buffer))
        except BrokenRequest as error:
            self._refusal = str(error)
        self._told = (unnamed(), unnamed())
        self._expect(self._body, self._on_body)

    def _read_ask(self, data: bytes) -> tuple[Process, int]:
        """The run that is asked for, and how much of the body is its standard input.

        Raises:
            BrokenRequest: it cannot be asked for.
        """
        ask = from_json(data)
        name = take_text(ask.get("run"), "run")
        arguments = [take_text(item, "an argument") for item in take_list(ask, "args")]
        real = take_seconds(ask, "real") if "real" in ask else DAY
        stdin = take_int(ask, "stdin")
        if stdin + take_int(ask, "input") != self._body:
            raise BrokenRequest("the message is not as long as it says")
        if name not in self._cell.process.may_run:
            raise BrokenRequest(f"there is no run {name!r} to ask for")
        if len(self._cell.runs) >= MAX_RUNS:
            raise BrokenRequest(f"more than {MAX_RUNS} runs")
        return self._cell.process.may_run[name].asked(arguments, real), stdin

    def _spool(self, data: bytes) -> None:
        if self._refusal:
            return
        for_stdin = max(0, self._stdin - self._told_size)
        write_all(self._told[0], data[:for_stdin])
        write_all(self._told[1], data[for_stdin:])
        self._hold(len(data))

    def _hold(self, size: int) -> None:
        """Answer for bytes that we keep for the cell: they count as its memory."""
        self._told_size += size
        self._cell.borrowed += size
        self._turn.store.held += size

    def _on_body(self) -> None:
        files, self._told = self._told, ()
        if self._refusal:
            for fd in files:
                os.close(fd)
            self._say({"error": self._refusal})
            return
        self._turn.watch(self._fd, 0, self._on_event)
        readers = (seal(files[0]), seal(files[1]))
        self._run = self._turn.start_run(self, self._process, readers)

    def answer(self, cell: Cell, outputs: list[Sink]) -> None:
        """Say what became of the run."""
        facts = cell.facts()
        self._cell.runs.append({"name": cell.process.name, **facts})
        self._run = None
        self._hold(-self._told_size)
        contents = [sink.content() for sink in outputs]
        if self._fd >= 0:
            lengths = zip(("stdout", "stderr", "result"), map(len, contents), strict=True)
            self._say({**facts, **dict(lengths)}, *contents)

    def _say(self, header: dict[str, object], *contents: bytes) -> None:
        self._out = memoryview(pack(header, *contents))
        self._turn.watch(self._fd, select.POLLOUT, self._on_event)

    def _write(self) -> None:
        while self._out:
            self._out = self._out[os.write(self._fd, self._out) :]
        if self._over:
            self.close()
        else:
            self._listen()

    def close(self) -> None:
        """Hear nothing more: the cell is gone, or wants no answer. Its run ends with that."""
        if self._fd >= 0:
            self._turn.forget(self._fd)
            for fd in (self._fd, *self._told):
                os.close(fd)
            self._fd, self._told, self._out = -1, (), memoryview(b"")
        if self._run is not None:
            self._turn.stop([self._run], 0)


# --- all of it ----------------------------------------------------------------------------------


def protect() -> None:
    """Make this process one that nothing in the container can look into."""
    check(prctl(PR_SET_DUMPABLE, 0), "dumpable")
    keep_only({0, 1, 2})
    os.umask(0)


def run_stages(stages: list[Stage], case: int, turn_of: "Callable[[Stage], Turn]") -> bool:
    """Run stages one after another as far as they go well; whether all of them did."""
    for number, stage in enumerate(stages):
        send({"frame": "started", "case": case, "stage": number})
        turn = turn_of(stage)
        turn.go()
        artifacts = turn.keep(of_case=case >= 0)
        header = {"frame": "report", "case": case, "stage": number, "processes": turn.facts()}
        returned = [
            target.name
            for target, artifact in zip(stage.artifacts, artifacts, strict=True)
            if artifact["sent"]
        ]
        size = sum(turn.store.size(name) for name in returned)
        send({**header, "artifacts": artifacts}, more=size)
        for name in returned:
            fd = turn.store.open(name)
            copy(fd, 1, turn.store.size(name))
            os.close(fd)
        if (
            stage.stop == "always"
            or not all(cell.ok for cell in turn.cells.values())
            or any(artifact["missing"] for artifact in artifacts)
        ):
            return False
    return True


def carry_out(request: Request, walls: "Walls", meter: Meter) -> None:
    """One request from beginning to end."""
    store = Store()
    store.receive(request.files)

    def turn_of(stage: Stage) -> Turn:
        return Turn(walls, meter, store, request, stage)

    if run_stages(request.prepare, -1, turn_of):
        for number, stages in enumerate(request.cases):
            run_stages(stages, number, turn_of)
            store.end_case()
    store.clear()


class Fitness:
    """Whether this container is after a request what it was before the first."""

    def __init__(self, walls: "Walls | None", meter: Meter) -> None:
        self._walls = walls
        self._meter = meter
        self._fds = os.listdir("/proc/self/fd")
        self._kills = meter.kills()
        self._memory = meter.memory() + meter.kernel()

    def facts(self) -> dict[str, object]:
        """What `done` says: whether it may serve again, what is in the way, and what it uses."""
        memory = self._meter.memory() + self._meter.kernel()
        why = self._why(memory)
        return {"fit": not why, "why": why, "memory": memory}

    def _why(self, memory: int) -> str:
        if not isinstance(self._walls, Namespaces):
            return "walls of uids serve once"
        if survey():
            return "a process is left"
        for path, known in FOLDERS.items():
            if os.path.isdir(path) and os.listdir(path) != known:
                return f"something is left in {path}"
        if os.listdir("/proc/self/fd") != self._fds:
            return "descriptors are left open"
        if self._meter.kills() != self._kills:
            return "the kernel killed for want of memory"
        if memory - self._memory > SWELL:
            return f"{memory - self._memory} bytes are used more than at first"
        return ""


def serve() -> None:
    """Say what we are, and carry out requests until there are no more."""
    protect()
    meter = Meter()
    kills = meter.kills()
    walls, why = find_walls()
    if meter.kills() != kills:  # where there is more memory, there may be walls
        raise Failure("memory ran out before anything was run")
    fitness = Fitness(walls, meter)
    send(
        {
            "frame": "hello",
            "runner": VERSION,
            "python": ".".join(map(str, sys.version_info[:3])),
            "cgroup": meter.facts(),
            "walls": walls.name if walls else "",
            "why": why,
        }
    )
    while (request := read_request()) is not None:
        if walls is None:
            raise Failure(f"there are no walls to run anything behind: {why}")
        carry_out(request, walls, meter)
        send({"frame": "done", **fitness.facts()})


def main() -> int:
    """Serve and return the exit code; every way to fail but a vanished host is said in a frame."""
    try:
        serve()
    except (HostGone, BrokenPipeError):
        return 1
    except (BrokenRequest, Failure) as error:
        send({"frame": "error", "message": str(error)})
        return 1
    except Exception as error:  # whatever it is, the host must hear of it rather than wait
        send({"frame": "error", "message": f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    # No clean-up of the interpreter: the container goes anyway, and it takes milliseconds.
    os._exit(main())
