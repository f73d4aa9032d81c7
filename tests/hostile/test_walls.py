"""Each wall by itself: filters call by call, capabilities, and the processes of others."""

import asyncio
import ctypes
import os
import platform
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from commserver.core.execution import MIB, Case, Descriptor, Pipe, Role, Stage, StageReport
from commserver.engine import frames
from commserver.engine.container import RUNNER
from commserver.engine.frames import Walls
from commserver.engine.pool import Key
from commserver.engine.room import ordinary
from tests.hostile import syscalls
from tests.hostile.conftest import Room
from tests.hostile.inventory import PROC, processes
from tests.lab import GENTLE, Lab, outputs, python

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the table of system calls is of x86_64"
)

# --- filters ------------------------------------------------------------------------------------


INTERPRETER = RUNNER[: RUNNER.index("-S") + 1]

INNER = f"""
from importlib.machinery import SourcelessFileLoader
runner = SourcelessFileLoader("runner", {RUNNER[-1]!r}).load_module()
runner.Once.prepare()
runner.install_filter()
"""
"""The beginning of a program that has the runner put its filter around it."""


async def answers(rooms: dict[str, Room], walls: Walls, program: str, *security: str) -> list[str]:
    """What a program in place of the runner prints.

    security: options of the engine, instead of those that a container has.
    """
    room = rooms["fresh"]
    image = await room.wrapper.image("commserver/python:latest")
    key = Key(image.id, 64 * MIB)
    spec = room.sandbox.spec(key, ordinary(key.memory), walls, {}, number=999)
    config = {**spec.config(), "Entrypoint": [*INTERPRETER, "-c", program]}
    if security:
        config["HostConfig"]["SecurityOpt"] = list(security)
    await room.wrapper.create(spec.name, config)
    try:
        attachment = await room.wrapper.attach(spec.name)
        await room.wrapper.start(spec.name)
        async with asyncio.timeout(20):
            data = await attachment.reader.read()
        attachment.close()
    finally:
        await room.wrapper.discard(spec.name)
    pieces = frames.Demultiplexer().feed(data)
    return b"".join(piece for _, piece in pieces).decode().splitlines()


@x86_64
@pytest.mark.parametrize("walls", [Walls.NAMESPACES, Walls.UIDS])
async def test_a_container_may_make_these_calls_and_no_other(
    rooms: dict[str, Room], walls: Walls
) -> None:
    calls = syscalls.of_container(namespaces=walls is Walls.NAMESPACES)

    given = await answers(rooms, walls, syscalls.asking(calls))

    assert syscalls.differences(calls, given) == []


@x86_64
async def test_the_inner_filter_alone_keeps_programs_in(rooms: dict[str, Room]) -> None:
    calls = syscalls.of_inner()

    given = await answers(
        rooms,
        Walls.NAMESPACES,
        INNER + syscalls.asking(calls),
        *("no-new-privileges", "seccomp=unconfined"),
    )

    assert syscalls.differences(calls, given) == []


@x86_64
async def test_a_program_may_make_these_calls_and_no_other(lab: Lab) -> None:
    """The two filters together: what either denies is denied, and the worse answer holds."""
    calls = syscalls.of_program()

    (ran,) = await lab.run(syscalls.asking(calls))

    assert (ran.end, ran.stderr) == ((0, 0), b"")
    assert syscalls.differences(calls, ran.stdout.decode().splitlines()) == []


# --- capabilities -------------------------------------------------------------------------------

CAPABILITIES = r"""
import ctypes, os, struct, sys
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
print(*(status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")))
print(status["NoNewPrivs"], status["Seccomp"])

libc = ctypes.CDLL(None, use_errno=True)
word = ctypes.c_ulong
uid, gid = os.getuid(), os.getgid()
new = "program"
open(new, "w").close()
one_capability = struct.pack("=5I", 0x02000001, 1 << 7, 0, 0, 0)  # SETUID, in effect
header = struct.pack("=Ii", 0x20080522, 0)
attempts = {
    "setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0),
    "setreuid": lambda: os.setreuid(0, 0), "setregid": lambda: os.setregid(0, 0),
    "setresuid": lambda: os.setresuid(-1, 0, -1), "setresgid": lambda: os.setresgid(-1, 0, -1),
    "another": lambda: os.setuid(uid + 1000), "setgroups": lambda: os.setgroups([0]),
    "no groups": lambda: os.setgroups([]), "chown": lambda: os.chown(new, 0, 0),
    "chown away": lambda: os.chown(new, uid + 1000, -1), "chgrp": lambda: os.chown(new, -1, 0),
    "file capability": lambda: os.setxattr(new, "security.capability", one_capability),
    "trusted": lambda: os.setxattr(new, "trusted.x", b"x"),
    "nice": lambda: os.nice(-1), "realtime": lambda: os.sched_setscheduler(
        0, os.SCHED_FIFO, os.sched_param(1)),
}
for name, attempt in attempts.items():
    try: attempt()
    except OSError: continue
    print(name, "done")
calls = {
    "capset": lambda: libc.capset(header, struct.pack("=6I", 1 << 7, 1 << 7, 1 << 7, 0, 0, 0)),
    "inheritable": lambda: libc.capset(header, struct.pack("=6I", 0, 0, 1 << 7, 0, 0, 0)),
    "ambient": lambda: libc.prctl(47, *map(word, (2, 7, 0, 0))),
    "securebits": lambda: libc.prctl(28, *map(word, (1, 0, 0, 0))),
    "keep": lambda: libc.prctl(8, *map(word, (1, 0, 0, 0))) or libc.setuid(0),
    "privileges": lambda: libc.prctl(38, *map(word, (0, 0, 0, 0))),
    "no filter": lambda: libc.prctl(22, *map(word, (0, 0, 0, 0))),
}
for name, call in calls.items():
    if call() != -1: print(name, "done")
libc.setfsuid(0)
if libc.setfsuid(-1) != uid: print("setfsuid done")
"""

SETUID = r"""
import os, signal

def status(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

def child():  # as /proc, which is the container's, calls it
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if status(pid)["PPid"] == me: return pid

found = []
for folder, folders, names in os.walk("/"):
    if folder == "/": folders[:] = [name for name in folders if name not in ("proc", "sys")]
    for path in (f"{folder}/{name}" for name in names):
        try:
            if os.lstat(path).st_mode & 0o106000 > 0o100000: found.append(path)
            elif "security.capability" in os.listxattr(path, follow_symlinks=False):
                found.append(path)
        except OSError: continue

me = os.readlink("/proc/self")
mine = [status("self")[name] for name in ("Uid", "Gid", "CapPrm", "CapEff")]
ours, theirs = os.pipe()
for path in found:
    files = [(os.POSIX_SPAWN_DUP2, ours, 0)]
    files += [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
    pid = os.posix_spawn(path, [path], {}, file_actions=files)
    # Until it waits for its input, or for us to take note of its end.
    while status(child())["State"][0] not in "SZ": pass
    its = [status(child())[name] for name in ("Uid", "Gid", "CapPrm", "CapEff")]
    if its != mine: print(path, its)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(len(found) > 5)
"""
OF_UIDS = sum(1 << number for number in (0, 5, 6, 7))  # CHOWN, KILL, SETGID, SETUID


async def test_a_program_has_no_capability_and_gets_none(lab: Lab) -> None:
    """Nor is there one in its bounding set, where namespaces are the walls.

    Elsewhere the runner cannot empty that set, for this takes a capability that it does not have;
    nothing can be had of it, for no program gets more than its parent has.
    """
    has, gets = await lab.run(CAPABILITIES, SETUID)

    assert (has.end, has.stderr) == ((0, 0), b"")
    *held, bounding = (int(one, 16) for one in has.stdout.splitlines()[0].split())
    assert held == [0, 0, 0, 0]
    assert bounding == (0 if lab.walls is Walls.NAMESPACES else OF_UIDS)
    assert has.stdout.splitlines()[1:] == [b"1 2"]  # no new privileges; under filters
    assert (gets.end, gets.stdout, gets.stderr) == ((0, 0), b"True\n", b"")


# --- the processes of others --------------------------------------------------------------------

FOUND_BY_HOST = r"""
import ctypes, os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

def wait_for_host(name):
    ctypes.CDLL(None).prctl(15, name.encode())  # PR_SET_NAME
    signal.sigwait([signal.SIGUSR1])
"""
"""`wait_for_host(name)`: the host finds it by its name, looks around, and lets it go on."""

JUDGE = """
import ctypes, os, sys
if os.fork() > 0: ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
os.read(0, 1)
"""
"""One that has a child and waits with it until its standard input ends."""

libc = ctypes.CDLL(None)
T = TypeVar("T")


def called(name: str) -> int:
    """The process of that name; 0: none."""
    for process in processes():
        if content(process / "comm") == f"{name}\n":
            return int(process.name)
    return 0


async def process_named(name: str) -> int:
    """The process that calls itself so, as soon as it does."""
    async with asyncio.timeout(10):
        while True:
            if pid := called(name):
                return pid
            await asyncio.sleep(0.01)


def content(path: Path) -> str:
    """What a file says, or why it does not."""
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return str(error.strerror)


def status(pid: int) -> dict[str, str]:
    """What /proc/…/status says."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return {key: value for key, _, value in (line.partition(":\t") for line in lines)}


def companions(pid: int) -> set[int]:
    """All processes of the same container, this one included."""
    cgroup = content(PROC / str(pid) / "cgroup")
    return {int(one.name) for one in processes() if content(one / "cgroup") == cgroup}


FLEETING = {"sched", "mem"}  # statistics; and a file that is as long as there are addresses
TOLD = ("Uid", "Gid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapPrm", "CapBnd")


Facts = dict[int, dict[str, object]]


def facts(pid: int) -> dict[str, object]:
    """All of a process that another one could have changed."""
    home = PROC / str(pid)
    files = (
        path
        for folder in (home, home / "attr", home / f"task/{pid}")
        for path in (folder.iterdir() if folder.is_dir() else ())
        if not path.is_symlink() and path.is_file()
        if path.stat().st_mode & 0o222 and path.name not in FLEETING
    )
    told = status(pid)
    fields = (home / "stat").read_text().rpartition(")")[2].split()
    return {
        **{str(path): content(path) for path in files},
        **{name: told[name] for name in TOLD},
        "limits": content(home / "limits"),
        "stopped": told["State"][0] in "tT",
        # Its group and session; priority, niceness, and what it has of real time.
        "order": (*fields[2:4], *fields[15:17], *fields[37:39]),
        "cores": os.sched_getaffinity(pid),
        "scheduler": os.sched_getscheduler(pid),
    }


async def beside_a_judge(
    lab: Lab, attempt: str, look: Callable[[int], T]
) -> tuple[StageReport, T, T]:
    """Let a program attempt something while a judge and its child wait beside it.

    Returns the report, and what one sees who looks before and after, given the program's pid.
    """
    name = f"w{uuid.uuid4().hex[:8]}"
    source = f"{FOUND_BY_HOST}wait_for_host('{name}')\n{attempt}\nwait_for_host('{name}-done')\n"
    judge = replace(python("judge.py", (), GENTLE, f"{name}-judge"), role=Role.GRADER)
    stage = Stage(
        "run",
        (judge, python("main.py")),
        (*outputs("main.py"), Pipe(Descriptor("main.py", 3), Descriptor("judge.py", 0))),
    )
    running = asyncio.ensure_future(
        lab.execute(Case("beside", (stage,)), files={"judge.py": JUDGE, "main.py": source})
    )
    try:
        await process_named(f"{name}-judge")
        pid = await process_named(name)
        before = look(pid)
        os.kill(pid, signal.SIGUSR1)
        await process_named(f"{name}-done")
        after = look(pid)
        os.kill(pid, signal.SIGUSR1)
        (stage_report,) = (await running).cases[0].stages
        return stage_report, before, after
    finally:
        running.cancel()
        await asyncio.wait([running])


WRITE = r"""
import os, sys
mine = os.readlink("/proc/self")
NULL = os.stat("/dev/null").st_rdev
tried, found = 0, []

def attempt(path, *contents):
    global tried
    tried += 1
    for flags in (os.O_WRONLY, os.O_RDWR):
        try: fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError: continue
        # What all may open must refuse what they write; the engine covers some with /dev/null.
        state = os.fstat(fd)
        if not state.st_mode & 0o002: found.append(path)
        if state.st_rdev == NULL: contents = ()
        for data in contents:
            try:
                if os.write(fd, data): found.append(f"{path} {data}")
            except OSError: pass
        os.close(fd)

pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != mine]
for pid in pids:
    home = f"/proc/{pid}"
    for folder, folders, names in os.walk(home):
        for name in names: attempt(f"{folder}/{name}", b"1", b"0", b"999", b"0 0 1")
    for fd in range(64): attempt(f"{home}/fd/{fd}", b"1")
    for name in ("cwd", "root", "map_files"):
        try: found.append(f"{home}/{name}: {os.listdir(f'{home}/{name}')}")
        except OSError: pass
for folder, folders, names in os.walk("/proc"):
    if folder == "/proc":
        folders[:] = [name for name in folders if not name.isdigit() and "self" not in name]
    for name in names:
        if "self" not in name: attempt(f"{folder}/{name}", b"x")
print(len(pids), tried > 1000, *found, sep="\n", flush=True)
"""


async def test_no_file_of_another_process_can_be_written(lab: Lab) -> None:
    def look(pid: int) -> Facts:
        return {other: facts(other) for other in companions(pid) - {pid}}

    stage, before, after = await beside_a_judge(lab, WRITE, look)

    assert [process.exit_code for process in stage.processes] == [0, 0]
    # The runner, the judge and its child; with namespaces, the init of each.
    number = 5 if lab.walls is Walls.NAMESPACES else 3
    assert stage.content("out").decode().splitlines() == [f"{number}", "True"]
    assert len(before) == number
    assert after == before


CALL_UPON = r"""
import ctypes, os, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
SIGNAL = int(signal.SIGUSR1)
me, uid = os.getpid(), os.getuid()
init = os.getppid()  # the runner, if it is not our own
found = []

def attempt(name, pid, number, *arguments):
    given = [one if isinstance(one, bytes) else ctypes.c_ulong(one) for one in arguments]
    if libc.syscall(ctypes.c_ulong(number), *given) != -1: found.append(f"{name} {pid}")

info = struct.pack("=iii4xi", SIGNAL, 0, -1, 0).ljust(128, b"\0")
idle = struct.pack("=IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0)
none, one_core, zero = bytes(64), b"\1".ljust(128, b"\0"), bytes(4)
limits = struct.pack("=QQ", 1, 1)

def call_upon(pid):
    attempt("kill", pid, 62, pid, SIGNAL)
    attempt("kill its group", pid, 62, -pid, SIGNAL) if pid > 1 else None
    attempt("tkill", pid, 200, pid, SIGNAL)
    attempt("tgkill", pid, 234, pid, pid, SIGNAL)
    attempt("rt_sigqueueinfo", pid, 129, pid, SIGNAL, info)
    attempt("rt_tgsigqueueinfo", pid, 297, pid, pid, SIGNAL, info)
    attempt("setpriority", pid, 141, 0, pid, 19)
    attempt("setpriority of its group", pid, 141, 1, pid, 19)
    attempt("ioprio_set", pid, 251, 1, pid, 3 << 13)
    attempt("ioprio_set of its group", pid, 251, 2, pid, 3 << 13)
    attempt("sched_setaffinity", pid, 203, pid, 128, one_core)
    attempt("sched_setscheduler", pid, 144, pid, 5, zero)
    attempt("sched_setparam", pid, 142, pid, zero)
    attempt("sched_setattr", pid, 314, pid, idle, 0)
    attempt("prlimit", pid, 302, pid, 7, limits, none)
    attempt("prlimit, to read", pid, 302, pid, 7, 0, none)
    attempt("setpgid", pid, 109, pid, me)
    attempt("get_robust_list", pid, 274, pid, bytes(8), bytes(8))
    attempt("migrate_pages", pid, 256, pid, 8, none, none)
    attempt("move_pages", pid, 279, pid, 0, 0, 0, 0, 0)
    attempt("kcmp", pid, 312, pid, me, 0, 0, 0)
    fd = libc.syscall(ctypes.c_ulong(434), ctypes.c_ulong(pid), ctypes.c_ulong(0))
    if fd >= 0: call_through(fd, pid)

def call_through(fd, pid):
    attempt("pidfd_send_signal", pid, 424, fd, SIGNAL, 0, 0)
    attempt("pidfd_getfd", pid, 438, fd, 0, 0)
    attempt("process_madvise", pid, 440, fd, bytes(16), 1, 20, 0)
    attempt("process_mrelease", pid, 448, fd, 0)
    attempt("setns", pid, 308, fd, 0x40000000)
    os.close(fd)

# By their numbers here; and by those that /proc has, which are the container's, and its folders.
shown = [int(name) for name in os.listdir("/proc") if name.isdigit()]
mine = {me, init} if OWN_INIT else {me}
for pid in sorted({*range(1, 200), *shown} - mine): call_upon(pid)
lines = open("/proc/self/status").read().splitlines()
parent = next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
mine = {int(os.readlink("/proc/self"))} | ({parent} if OWN_INIT else set())
for pid in shown:
    if pid not in mine:
        call_through(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY), pid)
# Whoever these reach must be our own.
libc.kill(-1, SIGNAL)
libc.setpriority(2, uid, 19)
libc.syscall(*map(ctypes.c_ulong, (251, 3, uid, 3 << 13)))
print(len(shown), *found, sep="\n", flush=True)
"""


def ioprio_get(pid: int) -> int:
    """How a process stands with disks."""
    return int(libc.syscall(syscalls.NUMBERS["ioprio_get"], 1, pid))


@x86_64
async def test_no_call_reaches_a_process_of_others(lab: Lab) -> None:
    nested = lab.walls is Walls.NAMESPACES

    def look(pid: int) -> Facts:
        own = {pid, int(status(pid)["PPid"])} if nested else {pid}
        return {
            other: {**facts(other), "disk": ioprio_get(other)} for other in companions(pid) - own
        }

    stage, before, after = await beside_a_judge(lab, f"OWN_INIT = {nested}{CALL_UPON}", look)

    assert [process.exit_code for process in stage.processes] == [0, 0]
    number = 6 if nested else 4
    assert stage.content("out").decode().splitlines() == [f"{number}"]
    assert len(before) == number - (2 if nested else 1)
    assert after == before


ORDER = "print(*open('/proc/self/oom_score_adj'), __import__('os').nice(0))"


async def test_learners_go_first_and_after_all_others(lab: Lab) -> None:
    """When memory runs out they are the first to be killed, and when cpu time does, to wait."""
    judge = replace(python("judge"), role=Role.GRADER)
    pipes = (*outputs("judge", "judge "), *outputs("learner", "learner "))
    stage = Stage("run", (judge, python("learner")), pipes)

    report = await lab.execute(Case("both", (stage,)), files={"judge": ORDER, "learner": ORDER})

    (said,) = report.cases[0].stages
    assert said.content("judge out").split() == [b"500", b"5"]
    assert said.content("learner out").split() == [b"1000", b"10"]


SIX = ("user", "pid", "mnt", "ipc", "uts", "net")

PEEK = """
import ctypes, os, struct, sys
pid, uid, capabilities = map(int, sys.argv[1:])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
held = struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)
assert ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), held) == 0
try: open(f"/proc/{pid}/environ").close()
except PermissionError: print("denied")
"""


def twin_sees(pid: int) -> bool:
    """Whether a process with the ids and capabilities of another may look into it.

    It may, unless the other is not dumpable.
    """
    told = status(pid)
    who = (pid, told["Uid"].split()[0], int(told["CapPrm"], 16))
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PEEK, *map(str, who)],
        capture_output=True,
        check=True,
        timeout=20,
    )
    return shown.stdout == b""


@dataclass(frozen=True, slots=True)
class Apart:
    """What keeps one process of a container from the others."""

    namespaces: dict[str, str]
    uid: str
    capabilities: int
    visible: bool

    @classmethod
    def of(cls, pid: int) -> "Apart":
        """Look at a process."""
        told = status(pid)
        kinds = {kind: os.readlink(PROC / f"{pid}/ns/{kind}") for kind in SIX}
        return cls(kinds, told["Uid"].split()[0], int(told["CapPrm"], 16), twin_sees(pid))


async def test_runner_judge_and_program_have_nothing_in_common(lab: Lab) -> None:
    nested = lab.walls is Walls.NAMESPACES

    def look(pid: int) -> tuple[Apart, list[Apart], list[Apart]]:
        parents = {one: int(status(one)["PPid"]) for one in companions(pid)}
        (runner,) = (one for one, parent in parents.items() if parent not in parents)
        inits = [one for one, parent in parents.items() if parent == runner] if nested else []
        programs = [one for one, parent in parents.items() if parent in (inits or [runner])]
        return Apart.of(runner), [*map(Apart.of, inits)], [*map(Apart.of, programs)]

    _, (runner, inits, programs), _ = await beside_a_judge(lab, "", look)

    host = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in SIX[1:]}
    assert not host.items() & runner.namespaces.items()
    for kind in SIX:
        numbers = {one.namespaces[kind] for one in (runner, *programs)}
        assert len(numbers) == (3 if nested else 1)
    assert len({one.uid for one in (runner, *programs)}) == (1 if nested else 3)
    assert runner.capabilities == (0 if nested else OF_UIDS)
    assert {one.capabilities for one in (*inits, *programs)} == {0}
    assert [one.visible for one in (runner, *inits)] == [False] * (3 if nested else 1)
    assert [one.visible for one in programs] == [True, True]  # or nothing would be


async def test_what_runs_at_once_has_different_uids(lab: Lab) -> None:
    """For the kernel counts some things per uid, on the whole host."""
    names = [f"w{uuid.uuid4().hex[:8]}" for _ in range(2)]
    running = asyncio.gather(
        *(lab.run(f"{FOUND_BY_HOST}wait_for_host('{name}')\n") for name in names)
    )
    pids = [await process_named(name) for name in names]
    uids = {uid for pid in pids for uid in status(pid)["Uid"].split()}
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)

    assert [ran.end for (ran,) in await running] == [(0, 0), (0, 0)]
    assert len(uids) == 2


# --- files and devices --------------------------------------------------------------------------

SHOWN = ("size", "nr_inodes", "mode", "ptmxmode", "max")  # of what a file system was made with


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo. device: the file system's number. root: which part of it is there."""

    device: str
    root: str
    point: str
    flags: str
    kind: str
    options: tuple[str, ...]

    @classmethod
    def of(cls, line: str) -> "Mount":
        """Read it."""
        _, _, device, root, point, flags, *rest = line.split()
        kind, _, options = rest[rest.index("-") + 1 :]
        made = tuple(one for one in options.split(",") if one.partition("=")[0] in SHOWN)
        return cls(device, root, point, flags, kind, made)


PLAIN = "nosuid,nodev"
OWN = {
    "/proc": (f"ro,{PLAIN},noexec,relatime", "proc"),
    "/box": (f"ro,{PLAIN},relatime", "tmpfs", "size=4k", "nr_inodes=4", "mode=755"),
    "/etc/hosts": (f"ro,{PLAIN},relatime", "tmpfs", "size=4k", "nr_inodes=4", "mode=755"),
    # Half of the class, 64 MiB, and what the program is given: one file of less than a page.
    "/box/work": (f"rw,{PLAIN},relatime", "tmpfs", "size=32772k", "nr_inodes=16386", "mode=700"),
    "/tmp": (f"rw,{PLAIN},noexec,relatime", "tmpfs", "size=16388k", "nr_inodes=4096"),
    "/dev/shm": (f"rw,{PLAIN},noexec,relatime", "tmpfs", "size=8196k", "nr_inodes=1024"),
    "/dev/mqueue": (f"rw,{PLAIN},noexec,relatime", "mqueue"),
    "/dev/pts": ("rw,nosuid,noexec,relatime", "devpts", "mode=600", "ptmxmode=666", "max=64"),
    "/dev": ("ro,nosuid", "tmpfs", "size=65536k", "mode=755"),  # the engine's, made read-only
}


@pytest.mark.parametrize("form", ["nested", "fresh"])
async def test_a_cell_has_these_file_systems_and_no_other_that_can_be_written(lab: Lab) -> None:
    (ran,) = await lab.run("print(open('/proc/self/mountinfo').read(), end='')")
    mounts = [Mount.of(line) for line in ran.stdout.decode().splitlines()]
    on_top = {mount.point: mount for mount in mounts}

    own = {point: on_top[point] for point in OWN}
    assert {point: (m.flags, m.kind, *m.options) for point, m in own.items()} == OWN
    # The rest is the engine's, read-only but for /dev/null in place of a file, and for what holds
    # the folders of the older cgroups.
    rest = [mount for point, mount in on_top.items() if point not in OWN]
    writable = {mount.point for mount in rest if "ro" not in mount.flags.split(",")}
    assert writable - {m.point for m in rest if m.root == "/null"} <= {"/sys/fs/cgroup"}
    # They are new, where the container has some as well.
    beneath = {mount.point: mount.device for mount in mounts if mount is not on_top[mount.point]}
    for point in ("/box", "/dev/mqueue", "/dev/pts", "/dev/shm"):
        assert own[point].device != beneath[point]


WRITABLE = r"""
import fcntl, os, stat, termios
uid = os.getuid()
def alterable(path):
    if os.access(path, os.W_OK, follow_symlinks=False): return True
    return os.lstat(path).st_uid == uid and not os.statvfs(path).f_flag & os.ST_RDONLY

for folder, folders, names in os.walk("/"):
    if folder == "/": folders.remove("proc")
    if folder == os.getcwd(): continue
    for name in (*folders, *names):
        path = os.path.join(folder, name)
        if path != os.getcwd() and not os.path.islink(path) and alterable(path): print(path)
print("terminals", *filter(os.isatty, range(256)))
for path in ("/dev/tty", "/dev/console", "/dev/tty0", "/dev/kmsg", "/dev/mem", "/dev/loop0"):
    try: os.open(path, os.O_RDWR | os.O_NOCTTY); print(path)
    except OSError: pass
TIOCLINUX = 0x541C
main, other = os.openpty()
for what in (termios.TIOCSTI, TIOCLINUX):
    try: fcntl.ioctl(other, what, b"\2"); print(what)
    except OSError: pass
"""


async def test_a_program_can_write_to_its_own_rooms_and_nowhere_else(lab: Lab) -> None:
    (ran,) = await lab.run(WRITABLE)

    assert (ran.end, ran.stderr) == ((0, 0), b"")
    *paths, terminals = ran.stdout.decode().splitlines()
    assert terminals == "terminals"
    rooms = {"mqueue", "shm"}
    devices = {"full", "null", "pts/ptmx", "random", "tty", "urandom", "zero"}
    assert set(paths) == {"/tmp", *(f"/dev/{name}" for name in rooms | devices)}
