"""PID 1 of a container: runs what it is asked to under another uid, measures it and reports.

It is started as ``python3 -I -S`` on this one file (the standard library of Debian's Python 3.11
and nothing else), as uid 0 with no capability but SETUID, SETGID, KILL and CHOWN. The learner's
program gets a uid of its own and no capability: it cannot signal, trace or read this process, nor
anything in `KEEP`, and whatever it leaves behind dies or is wiped before the next program starts.

Frames go over standard input and output: two big-endian 32-bit lengths, a header in JSON, and a
body of raw bytes to which the header refers by lengths.

    out  hello    runner, python, cgroup {version, cpu, memory, kills}
    in   request  uid, nofile, fsize, stack, artifact, files [{path, size}], compile, cases
                  body: the files, then each process's standard input, in order
    out  started  index                  a process begins (0 is the compilation, if there is one)
    out  report   index, exit, cpu, real, memory, flags, stdout, stderr, missing
                  body: standard output, then standard error
    out  done
    out  error    message                this container is of no more use

A process: name, argv, files, stdin, artifacts, cpu, real, memory, output. Times are seconds, sizes
bytes. The body of the request is read only as far as it is needed: the inputs of a hundred cases
never lie in memory at once.

What is not limited here: the number of processes, by the container's pids cgroup (the learner's
and this one); RLIMIT_NPROC would count the uid on the whole host.
"""

# Every import costs start-up time, which every container pays: `json` would bring `re` (6 ms of
# 20), `signal` would bring `enum` (5 ms), and so would `typing`. Hence the C half of `json`,
# signals by number, and annotations of builtins only.
import ctypes
import errno
import os
import resource
import select
import struct
import sys
import time

# Private to CPython: what `json` itself calls.
from _json import encode_basestring_ascii, make_scanner

VERSION = "1"

BOX = "/box"
KEEP = "/box/keep"  # the request's files and the artifacts: mode 0700, ours
WORK = "/box/work"  # what the learner's program may write, made anew for each
SHARED = ("/tmp", "/dev/shm")  # noqa: S108 -- the container's own, wiped between programs
QUEUES = "/dev/mqueue"

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": WORK,
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

MAX_HEADER = 4 << 20  # bytes
MAX_PATH = 1024  # bytes
CHUNK = 1 << 16  # bytes a read or write
SAMPLE = 0.010  # seconds between two looks at cpu and memory
NEAR = 0.002  # seconds between them once half of the memory is used: the rest goes fast
# Together below the patience of the host between two frames.
START_TIMEOUT = 5.0  # seconds from fork to exec; nothing of the learner's runs before
WIPE_TIMEOUT = 5.0  # seconds to remove what one program left
MAX_BURIALS = 1000  # at once, so that no storm of dying orphans keeps us from looking at the clock

CPU, MEMORY, REAL, SECURITY, OUTPUT = 1, 2, 4, 8, 16  # `Flag` of commserver.core.execution

SIGKILL, SIGXFSZ, SIGSYS = 9, 25, 31
RT_SIGACTION = {"x86_64": 13, "aarch64": 134}  # the number of the system call
PR_SET_DUMPABLE = 4
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes, as a shell's

libc = ctypes.CDLL(None, use_errno=True)


class BrokenRequest(Exception):
    """The request does not say what it must."""


class Failure(Exception):
    """The container cannot do what was asked; no fault of the learner's program."""


class HostGone(Exception):
    """Nobody is left at the other end of standard input."""


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


def send(header: dict[str, object], *bodies: bytes | bytearray) -> None:
    """Write one frame to whoever holds the other end."""
    head = to_json(header).encode()
    size = sum(map(len, bodies))
    for part in (struct.pack(">II", len(head), size) + head, *bodies):
        view = memoryview(part)
        while view:
            view = view[os.write(1, view) :]


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


def take_seconds(where: dict[str, object], key: str) -> float:
    """A positive number of seconds, below a day."""
    value = where.get(key)
    if (type(value) is not int and type(value) is not float) or not 0 < value <= 86400:
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


class Task:
    """One program to run, as the request has it."""

    __slots__ = ("argv", "artifacts", "cpu", "files", "memory", "name", "output", "real", "stdin")

    def __init__(self, value: object) -> None:
        if type(value) is not dict:
            raise BrokenRequest("a process is no object")
        self.name = take_text(value.get("name"), "a name")
        self.argv = [take_text(item, "an argument") for item in take_list(value, "argv")]
        self.files = [take_path(item) for item in take_list(value, "files")]
        self.artifacts = [take_path(item) for item in take_list(value, "artifacts")]
        self.stdin = take_int(value, "stdin")
        self.cpu = take_seconds(value, "cpu")
        self.real = take_seconds(value, "real")
        self.memory = take_int(value, "memory")
        self.output = take_int(value, "output")
        if not self.argv or not self.argv[0]:
            raise BrokenRequest(f"{self.name} has no program")


class Request:
    """What this container is to do."""

    __slots__ = ("artifact", "compile", "files", "fsize", "nofile", "stack", "tasks", "uid")

    def __init__(self, header: dict[str, object], body: int) -> None:
        if header.get("frame") != "request":
            raise BrokenRequest("this is no request")
        self.uid = take_int(header, "uid")
        self.nofile = take_int(header, "nofile")
        self.fsize = take_int(header, "fsize")
        self.stack = take_int(header, "stack")
        self.artifact = take_int(header, "artifact")
        self.files: list[tuple[str, int]] = []
        for item in take_list(header, "files"):
            if type(item) is not dict:
                raise BrokenRequest("a file is no object")
            self.files.append((take_path(item.get("path")), take_int(item, "size")))
        self.tasks = [Task(item) for item in take_list(header, "cases")]
        self.compile = header.get("compile") is not None
        if self.compile:
            self.tasks.insert(0, Task(header["compile"]))
        if not 0 < self.uid < 1 << 31:
            raise BrokenRequest("the learner's uid is not theirs")
        promised = sum(size for _, size in self.files) + sum(task.stdin for task in self.tasks)
        if promised != body:
            raise BrokenRequest(f"{body} bytes follow, the header speaks of {promised}")


def read_request() -> Request:
    """The request without its body.

    Raises:
        BrokenRequest: it cannot be carried out as it stands.
        HostGone: there is none.
    """
    size, body = struct.unpack(">II", receive(8))
    if size > MAX_HEADER:
        raise BrokenRequest("the header is too long")
    return Request(from_json(receive(size)), body)


# --- what a program uses ------------------------------------------------------------------------


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


def kills(data: bytes) -> int:
    """Processes that were killed for want of memory: memory.oom_control or memory.events."""
    return number_after(data.split(), b"oom_kill")


class Meter:
    """Reads what this container uses, from its cgroup where that can be read, else from /proc."""

    def __init__(self, root: str = "/sys/fs/cgroup") -> None:
        self.version = 2 if os.path.exists(root + "/cgroup.controllers") else 1
        self._cpu = self._memory = self._kills = -1
        if self.version == 2:
            self._cpu = self._open(root + "/cpu.stat")
            self._memory = self._open(root + "/memory.stat")
            self._kills = self._open(root + "/memory.events")
        else:
            for name in ("/cpuacct", "/cpu,cpuacct", "/cpuacct,cpu"):
                if self._cpu < 0:
                    self._cpu = self._open(root + name + "/cpuacct.usage")
            self._memory = self._open(root + "/memory/memory.stat")
            self._kills = self._open(root + "/memory/memory.oom_control")

    @staticmethod
    def _open(path: str) -> int:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1

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
            return proc_cpu()
        data = os.pread(self._cpu, 8192, 0)
        total = cpu_v1(data) if self.version == 1 else cpu_v2(data)
        return total - time.process_time()

    def memory(self) -> int:
        """Bytes used by all, this process included; only differences mean something."""
        if self._memory < 0:
            return proc_memory()
        data = os.pread(self._memory, 8192, 0)
        return memory_v1(data) if self.version == 1 else memory_v2(data)

    def kills(self) -> int:
        """How often the kernel killed for want of memory; 0 where it does not say."""
        return kills(os.pread(self._kills, 8192, 0)) if self._kills >= 0 else 0


def proc_files(name: str) -> list[bytes]:
    """/proc/*/`name` of every process but this one."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid != "1":
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    found.append(file.read())
            except OSError:
                continue  # it has ended meanwhile
    return found


def proc_cpu() -> float:
    """Seconds used by the processes that live and the children they waited for."""
    ticks = 0
    for stat in proc_files("stat"):
        # The name stands in parentheses and may hold anything: count from its end.
        ticks += sum(map(int, stat[stat.rindex(b")") + 2 :].split()[11:15]))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks / os.sysconf("SC_CLK_TCK") + usage.ru_utime + usage.ru_stime


def proc_memory() -> int:
    """Bytes of the processes that live and of the tmpfs; mapped tmpfs counts twice."""
    kib = 0
    for status in proc_files("status"):
        fields = status.split()
        kib += number_after(fields, b"RssAnon:") + number_after(fields, b"RssShmem:")
    files = 0
    for path in (BOX, *SHARED):
        room = os.statvfs(path)
        files += (room.f_blocks - room.f_bfree) * room.f_frsize
    return kib * 1024 + files


# --- one program --------------------------------------------------------------------------------


def candidates(program: str) -> list[str]:
    """Where a program may be: as it stands if it has a slash, else along PATH."""
    if "/" in program:
        return [program]
    return [f"{folder}/{program}" for folder in ENVIRONMENT["PATH"].split(":")]


def become_learner(request: Request, fds: tuple[int, int, int]) -> None:
    """Turn this child into a process of the learner's; the order matters."""
    os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    # Both need uid 0: our files in /proc are root's, because we are not dumpable.
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"1000")
    os.nice(10)  # counts only inside this container: the runner comes first
    for what, wanted in (
        (resource.RLIMIT_CORE, core_limit()),
        (resource.RLIMIT_NOFILE, request.nofile),
        (resource.RLIMIT_FSIZE, request.fsize),
        (resource.RLIMIT_STACK, request.stack),
    ):
        hard = resource.getrlimit(what)[1]
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (limit, limit))
    os.setgroups([])
    os.setresgid(request.uid, request.uid, request.uid)
    os.setresuid(request.uid, request.uid, request.uid)
    os.umask(0o022)
    os.chdir(WORK)
    default_signals()


def default_signals() -> None:
    """Ignore no signal: what is ignored stays so in a program that is executed.

    Python ignores two, and an engine may have been started with others. The C library keeps a few
    for itself and refuses to set them; the kernel does not.
    """
    rt_sigaction = RT_SIGACTION.get(os.uname().machine)
    for number in range(1, 65):
        if libc.signal(number, None) != 0 and rt_sigaction is not None:
            whole = ctypes.c_ulong  # variadic, as in `prepare`
            libc.syscall(whole(rt_sigaction), whole(number), bytes(32), None, whole(8))


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


def start(task: Task, request: Request, fds: tuple[int, int, int]) -> tuple[int, float, float]:
    """Start the program: its pid, when it was released, and the cpu that was ours until then.

    It returns once the program has been executed, or has turned out to be none.

    Raises:
        Failure: the child could not be made the learner's.
    """
    paths = candidates(task.argv[0])
    heard, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = NOT_FOUND
        try:
            become_learner(request, fds)
            os.write(say, b"%r %r" % (time.monotonic(), time.process_time()))
            for path in paths:
                try:
                    os.execve(path, task.argv, ENVIRONMENT)  # noqa: S606 -- no shell, on purpose
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        code = NOT_EXECUTABLE
        except BaseException as error:
            os.write(say, f" {error!r}".encode(errors="replace"))
        finally:
            os._exit(code)
    os.close(say)
    said = b""
    try:
        poll = select.poll()
        poll.register(heard, select.POLLIN)
        # Ends when exec closes the other end; nothing of the learner's can delay it.
        while poll.poll(START_TIMEOUT * 1000):
            piece = os.read(heard, 1024)
            if not piece:
                break
            said += piece
    finally:
        os.close(heard)
    try:
        released, used = map(float, said.split())
    except ValueError as error:
        reason = said.decode(errors="replace").strip() or "it said nothing"
        raise Failure(f"a process could not be started: {reason}") from error
    return pid, released, used


def kill_all() -> None:
    """Kill every process of the container but this one; never mind if there is none."""
    try:
        os.kill(-1, SIGKILL)
    except ProcessLookupError:
        return


class Run:
    """One program from its start until nothing of it is left."""

    def __init__(self, task: Task, meter: Meter) -> None:
        self.task = task
        self.meter = meter
        self.flags = 0
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.peak = 0
        self.status: int | None = None  # of the direct child, once it has been reaped
        self.reaped = 0.0  # seconds of cpu of all that were
        self.cpu = 0.0
        self.real = 0.0

    def go(self, request: Request, stdin: bytes) -> None:
        """Run it to its end or to its first limit, then end whatever is left of it.

        Raises:
            Failure: it could not be started.
            HostGone: nobody waits for it any more.
        """
        learner_in, self._in = os.pipe()
        self._out, learner_out = os.pipe()
        self._err, learner_err = os.pipe()
        self._unwritten = memoryview(stdin)
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
            # Or opening /dev/stdin and /dev/stdout, which are links to these, would be denied.
            os.fchown(fd, request.uid, request.uid)
        self._feed()  # what fits into the pipe is there before the program is

        self._memory_before = self.meter.memory()
        self._kills_before = self.meter.kills()
        cpu_before = self.meter.cpu()
        fds = (learner_in, learner_out, learner_err)
        self._pid, self._began, head_start = start(self.task, request, fds)
        self._cpu_before = cpu_before + head_start
        for fd in fds:
            os.close(fd)
        try:
            self._watch()
        finally:
            self._end()
        self.cpu = max(self.meter.cpu() - self._cpu_before, self.reaped - head_start, 0.0)
        self._drain()
        self._judge()

    def _watch(self) -> None:
        """Serve the pipes and sample until the child has ended or a limit is met."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        poll.register(self._err, select.POLLIN)
        if self._in >= 0:
            poll.register(self._in, select.POLLOUT)
        poll.register(0, 0)  # no event asked for: only that the host hung up
        try:
            pidfd = os.pidfd_open(self._pid)
            poll.register(pidfd, select.POLLIN)
        except OSError:  # before Linux 5.3: the next sample notices its end
            pidfd = -1
        deadline = self._began + self.task.real
        pause = 0.001  # short programs are seen too: at once, then after 1, 2, 4, 8, 10 … ms
        sample_at = self._began
        try:
            while self.status is None and not self.flags:
                wait = min(sample_at, deadline) - time.monotonic()
                for fd, event in poll.poll(max(0, int(wait * 1000) + 1)):
                    if fd == self._out or fd == self._err:
                        if self._read(fd):
                            poll.unregister(fd)
                    elif fd == self._in:
                        self._feed()
                        if self._in < 0:
                            poll.unregister(fd)
                    elif fd == pidfd:
                        self._reap()
                    elif event & (select.POLLHUP | select.POLLERR):
                        raise HostGone
                now = time.monotonic()
                if now >= deadline and self.status is None:
                    self.flags |= REAL
                elif now >= sample_at:
                    near = 2 * self._sample() >= self.task.memory
                    pause = NEAR if near else min(2 * pause, SAMPLE)
                    sample_at = now + pause
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _feed(self) -> None:
        """Write as much of standard input as the pipe takes; close it after the last byte."""
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._in, self._unwritten[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # the program does not want it
        os.close(self._in)
        self._in = -1

    def _read(self, fd: int) -> bool:
        """Take what has been written; true at its end. One byte more than allowed is too many."""
        kept = self.stdout if fd == self._out else self.stderr
        room = self.task.output - len(kept)
        try:
            data = os.read(fd, min(CHUNK, room + 1))
        except BlockingIOError:
            return False
        kept += data[:room]
        if len(data) > room:
            self.flags |= OUTPUT
            return True
        return not data

    def _reap(self) -> None:
        """Bury all that have ended: orphans are ours, and the dead count as processes too."""
        for _ in range(MAX_BURIALS):
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._bury(pid, status, usage)

    def _bury(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        self.reaped += usage.ru_utime + usage.ru_stime
        if pid == self._pid:
            self.status = status
            self.real = time.monotonic() - self._began

    def _sample(self) -> int:
        """Look at what is used and judge it; the memory in use now, bytes."""
        self._reap()
        if self.meter.cpu() - self._cpu_before > self.task.cpu:
            self.flags |= CPU
        now = self._weigh()
        if self.peak >= self.task.memory or self.meter.kills() > self._kills_before:
            self.flags |= MEMORY
        return now

    def _weigh(self) -> int:
        ours = len(self.stdout) + len(self.stderr)
        now = self.meter.memory() - self._memory_before - ours
        self.peak = max(self.peak, now)
        return now

    def _end(self) -> None:
        """Kill whatever lives beside us and wait until all of it is gone.

        No race is lost to a fork bomb: a fork fails once a SIGKILL is pending for its parent, and
        every process here is a descendant of ours, so no child left means none left.
        """
        self._weigh()
        while True:
            kill_all()
            try:
                self._bury(*os.wait4(-1, 0))
            except ChildProcessError:
                break

    def _drain(self) -> None:
        """Take what was written before the end; all writers are gone."""
        for fd in (self._out, self._err):
            while not self.flags & OUTPUT and not self._read(fd):
                pass
            os.close(fd)
        if self._in >= 0:
            os.close(self._in)

    def _judge(self) -> None:
        """Flags that are known only afterwards."""
        if self.cpu > self.task.cpu:
            self.flags |= CPU
        if self.real > self.task.real:
            self.flags |= REAL
        if self.peak >= self.task.memory or self.meter.kills() > self._kills_before:
            self.flags |= MEMORY
        if self.exit_code == -SIGSYS:
            self.flags |= SECURITY
        if self.exit_code == -SIGXFSZ:  # a file above its bound
            self.flags |= OUTPUT

    @property
    def exit_code(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


# --- files --------------------------------------------------------------------------------------


class Store:
    """The files that programs are given: in a folder of ours, linked into theirs."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._paths: dict[str, str] = {}
        self._count = 0
        os.mkdir(KEEP, 0o700)

    def receive(self) -> None:
        """Take the request's files from standard input."""
        for path, size in self._request.files:
            fd = self._create(path)
            try:
                left = size
                while left:
                    left -= write_all(fd, receive(min(CHUNK, left)))
            finally:
                os.close(fd)

    def _create(self, path: str) -> int:
        self._count += 1
        self._paths[path] = f"{KEEP}/{self._count}"
        # 0555: read and executed by anybody, written by nobody, ourselves excepted.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._paths[path], flags, 0o555)
        os.fchmod(fd, 0o555)
        return fd

    def lay_out(self, task: Task) -> None:
        """Make the work directory with the files of a task, and hand it to the learner.

        Raises:
            BrokenRequest: a file is unknown, or lies where a folder must.
        """
        uid = self._request.uid
        os.mkdir(WORK, 0o700)
        folders = {""}
        try:
            for path in task.files:
                parts = path.split("/")
                for depth in range(1, len(parts)):
                    folder = "/".join(parts[:depth])
                    if folder not in folders:
                        folders.add(folder)
                        os.mkdir(f"{WORK}/{folder}", 0o700)
                os.link(self._paths[path], f"{WORK}/{path}")
        except KeyError as error:
            raise BrokenRequest(f"{task.name} asks for a file that is not there") from error
        except OSError as error:
            raise BrokenRequest(f"the files of {task.name} do not fit together") from error
        # Innermost first: what is handed over cannot be entered any more.
        for folder in sorted(folders, reverse=True):
            os.chown(f"{WORK}/{folder}", uid, uid, follow_symlinks=False)

    def take(self, paths: list[str], keep: bool) -> list[int]:
        """Look for artifacts in the work directory; return which of them are not there.

        keep: copy them, so that later programs can be given them like the request's files.
        Nothing of the learner's runs any more, so what is looked at does not change.
        """
        missing = []
        for index, path in enumerate(paths):
            try:
                source = self._open_artifact(path)
            except OSError:
                missing.append(index)
                continue
            try:
                if keep:
                    self._copy(source, path)
            except OSError:  # no room left
                os.unlink(self._paths.pop(path))
                missing.append(index)
            finally:
                os.close(source)
        return missing

    def _open_artifact(self, path: str) -> int:
        *folders, name = path.split("/")
        folder = open_folder(WORK, None)
        try:
            for part in folders:
                inner = open_folder(part, folder)
                os.close(folder)
                folder = inner
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if (
                found.st_mode & 0o170000 != 0o100000
                or found.st_nlink != 1
                or found.st_size > self._request.artifact
            ):
                raise FileNotFoundError(path)
            os.chown(name, 0, 0, dir_fd=folder, follow_symlinks=False)
            os.chmod(name, 0o400, dir_fd=folder)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=folder)
        finally:
            os.close(folder)

    def _copy(self, source: int, path: str) -> None:
        target = self._create(path)
        try:
            while data := os.read(source, CHUNK):
                write_all(target, data)
        finally:
            os.close(target)


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
    if found.st_uid != 0:
        os.chown(name, 0, 0, dir_fd=within, follow_symlinks=False)
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


def wipe(uid: int) -> None:
    """Leave nothing of the last program to the next.

    Raises:
        Failure: something is left.
    """
    deadline = time.monotonic() + WIPE_TIMEOUT
    try:
        for path in (WORK, *SHARED):
            empty(path, deadline)
        os.rmdir(WORK)
        for name in os.listdir(QUEUES) if os.path.isdir(QUEUES) else ():
            os.unlink(f"{QUEUES}/{name}")
        remove_ipc(uid)
    except OSError as error:
        raise Failure(f"what a program left could not be wiped: {error}") from error


IPC = (("shm", "shmctl"), ("msg", "msgctl"), ("sem", "semctl"))


def ipc_ids(kind: str) -> list[int]:
    """The numbers of all System V objects of a kind."""
    try:
        with open(f"/proc/sysvipc/{kind}", "rb") as file:
            return [int(line.split()[1]) for line in file.readlines()[1:]]
    except FileNotFoundError:  # a kernel without them
        return []


def remove_ipc(uid: int) -> None:
    """Remove System V objects: only their owner may, so a child becomes the learner for it."""
    if not any(ipc_ids(kind) for kind, _ in IPC):
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(uid, uid, uid)
            for kind, control in IPC:
                for number in ipc_ids(kind):
                    arguments = (number, 0, 0, 0) if kind == "sem" else (number, 0, 0)
                    getattr(libc, control)(*arguments)  # 0 is IPC_RMID
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    if any(ipc_ids(kind) for kind, _ in IPC):
        raise Failure("System V objects could not be wiped")


# --- all of it ----------------------------------------------------------------------------------


def prepare() -> None:
    """Make this process one that nothing in the container can look into."""
    # A variadic function: what is not a full word long would leave rubbish in the upper half.
    if libc.prctl(PR_SET_DUMPABLE, *(ctypes.c_ulong(0),) * 4) != 0:
        raise Failure("this process stays readable")
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError as error:
                if error.errno != errno.EBADF:  # the listing's own
                    raise
    os.umask(0)


def serve() -> None:
    """One request from beginning to end."""
    prepare()
    meter = Meter()
    send(
        {
            "frame": "hello",
            "runner": VERSION,
            "python": ".".join(map(str, sys.version_info[:3])),
            "cgroup": meter.facts(),
        }
    )
    request = read_request()
    store = Store(request)
    store.receive()
    for index, task in enumerate(request.tasks):
        if index:
            wipe(request.uid)
        stdin = receive(task.stdin)
        store.lay_out(task)
        send({"frame": "started", "index": index})
        run = Run(task, meter)
        run.go(request, stdin)
        is_compilation = request.compile and index == 0
        missing = list(range(len(task.artifacts)))
        if not run.flags and run.exit_code == 0:
            missing = store.take(task.artifacts, keep=is_compilation)
        send(
            {
                "frame": "report",
                "index": index,
                "exit": run.exit_code,
                "cpu": run.cpu,
                "real": run.real,
                "memory": run.peak,
                "flags": run.flags,
                "stdout": len(run.stdout),
                "stderr": len(run.stderr),
                "missing": missing,
            },
            run.stdout,
            run.stderr,
        )
        if is_compilation and (missing or run.flags or run.exit_code):
            break
    send({"frame": "done"})


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
