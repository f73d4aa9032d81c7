"""Programs that look for a way out, for secrets, or for the next student."""

import asyncio
import platform
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from commserver.core.execution import MIB, Case, Flag, Limits, Role
from commserver.core.verdicts import Status
from commserver.engine.frames import Walls
from tests.hostile.conftest import Room
from tests.hostile.corpus.escape import FRAMES, SEARCH, SECRET
from tests.hostile.entries import Entry
from tests.lab import GENTLE, Lab, alone, check_all_is_well, python, ran

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only this machine has another one's system calls"
)


async def test_a_program_starts_as_nobody_with_nothing(lab: Lab) -> None:
    (only,) = await lab.run(
        r"""
import ctypes, os, resource, signal
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
print(os.getresuid(), os.getresgid(), os.getgroups())
print([status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")])
print(status["NoNewPrivs"], status["Seccomp"], status["SigIgn"][-16:], status["SigBlk"])
print(sorted(os.listdir("/proc/self/fd")))
print(dict(os.environ), os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpid())
print(open("/proc/self/oom_score_adj").read().strip(), os.nice(0))
for name in ("CORE", "NOFILE", "FSIZE", "STACK"):
    print(name, resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
print(status["CapBnd"].strip("0"), os.getpid(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    )

    assert (only.end, only.stderr) == ((0, 0), b"")
    lines = only.stdout.decode().splitlines()
    uid = int(lines[0].removeprefix("(").partition(",")[0])
    assert 200_000 <= uid < 201_000
    ids, groups = lines[0].rsplit(" ", 1)
    assert ids == f"({uid}, {uid}, {uid}) ({uid}, {uid}, {uid})"
    assert groups in ("[]", f"[{uid}]")  # engines differ in whether its own is one of them
    assert lines[1] == "['', '', '', '']"
    # Python itself ignores SIGPIPE and SIGXFSZ: bits 12 and 24.
    assert lines[2] == "1 2 0000000001001000 0000000000000000"
    assert lines[3] == "['0', '1', '2', '3']"  # the last is the listing's own
    assert lines[4] == (
        "{'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',"
        " 'HOME': '/box/work', 'LANG': 'C.UTF-8', 'PYTHONDONTWRITEBYTECODE': '1'}"
        " /box/work 0o22 True"
    )
    assert lines[5] == "1000 10"
    assert lines[6] in ("CORE (0, 0)", "CORE (1, 1)")
    assert lines[7:10] == [
        "NOFILE (256, 256)",
        f"FSIZE ({GENTLE.file_size}, {GENTLE.file_size})",
        f"STACK ({64 * MIB}, {64 * MIB})",
    ]
    if lab.walls is Walls.NAMESPACES:  # otherwise the container's own bounding set stays
        assert lines[10] == " 2 1"


async def test_its_own_init_cannot_be_turned_against_us(lab: Lab) -> None:
    ends = await lab.run(
        *(
            f"""
import os, resource, time
try:
    resource.prlimit(1, resource.{limit}, (0, 0))
    print("limited")
except PermissionError: pass
if os.fork() == 0: os._exit(0)
os.wait()
raise SystemExit(5)
"""
            for limit in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_STACK")
        )
    )

    # At worst the whole cell dies, which is the program's own end.
    assert {one.end for one in ends} <= {(5, 0), (-9, 0)}


async def test_forged_frames_go_nowhere(lab: Lab) -> None:
    (only,) = await lab.run(
        f"""
import os, sys
for fd in range(256):
    for frame in {FRAMES!r}:
        try: os.write(fd, frame)
        except OSError: pass
sys.exit(7)
"""
    )

    # All that it could write to is its own.
    assert only.end == (7, 0)
    assert only.stdout == only.stderr == b"".join(FRAMES)


# getpid() of the other architecture, and its return.
FOREIGN = """
import ctypes, mmap
area = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
area.write(bytes.fromhex("b814000000" "cd80" "c3"))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
"""


def has_another_architecture() -> bool:
    """Whether the kernel answers its calls where nothing forbids them."""
    ran = subprocess.run(
        [sys.executable, "-c", FOREIGN], stderr=subprocess.DEVNULL, check=False, timeout=20
    )
    assert ran.returncode in (0, -signal.SIGSEGV)
    return ran.returncode == 0


@x86_64
async def test_a_foreign_system_call_ends_the_caller(lab: Lab) -> None:
    """A kernel without that architecture, or told to forget it, takes its calls for faults."""
    compiled = await lab.compile(
        """
        #include <stdio.h>
        int main(void) {
            long r;
            __asm__ volatile ("int $0x80" : "=a"(r) : "a"(20));
            printf("%ld\\n", r);
            return 0;
        }
        """,
        (),
    )

    (case,) = compiled.cases
    expected = (-31, Flag.SECURITY) if has_another_architecture() else (-11, 0)
    assert (case.end, case.stdout) == (expected, b"")


async def test_what_others_are_given_is_not_found(lab: Lab) -> None:
    grader = replace(python("grader.py", ("expected",)), role=Role.GRADER)

    report = await lab.execute(
        Case("graded", (alone(grader),)),
        Case("searched", (alone(python("search.py", limits=Limits(cpu=3.0, real=20.0))),)),
        files={
            "search.py": SEARCH,
            "expected": SECRET,
            "grader.py": """
for name in ("mine", "/tmp/mine", "/dev/shm/mine"): open(name, "w").write(open("expected").read())
print("graded")
""",
        },
    )

    graded, searched = map(ran, report.cases)
    assert graded.stdout == b"graded\n"
    assert (searched.end, searched.stdout, searched.stderr) == ((0, 0), b"nothing\n", b"")


async def test_nothing_of_the_host_answers(room: Room) -> None:
    heard: list[object] = []

    def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(writer.get_extra_info("sockname"))
        writer.close()

    server = await asyncio.start_server(on_client, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    abstract = f"commserver-{port}"
    local = await asyncio.start_unix_server(on_client, f"\0{abstract}")
    async with server, local:
        verdict = await room.submit(
            Entry(
                "looks-for-a-server-of-the-host",
                r"""
import socket
port, abstract = input().split()
for host in ("127.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "0.0.0.0", "127.1.2.3"):
    try: socket.create_connection((host, int(port)), timeout=1); print("reached", host)
    except OSError: pass
try: socket.socket(socket.AF_UNIX).connect("\0" + abstract); print("reached", abstract)
except OSError: pass
if abstract in open("/proc/net/unix").read(): print("seen")
print("nothing")
""",
                given=f"{port} {abstract}\n",
            )
        )

    assert (verdict.status, heard) == (Status.ACCEPTED, []), verdict.log
    await room.check_nothing_is_left()


# Leaves something in every place that it finds, some of it kept by a daemon.
LEAVE = r"""
import ctypes, fcntl, os, socket, time
LINE = "print('LEFT')\n"
libc = ctypes.CDLL(None, use_errno=True)
packages = ".local/lib/python3.11/site-packages"
for folder in (".", "/tmp", "/dev/shm", packages, ".config/python"):
    os.makedirs(folder, exist_ok=True)
    for name in ("sitecustomize.py", "usercustomize.py", "os.py", "left.pth", "pyvenv.cfg", "left",
                 ".pythonrc", ".bashrc", ".profile", "left.so", "ld.so.preload"):
        with open(f"{folder}/{name}", "w") as file: file.write(LINE)
os.environ.update(PYTHONSTARTUP="/tmp/left", LD_PRELOAD="/tmp/left.so", PYTHONPATH="/tmp")
ids = libc.shmget(0x1234, 4096, 0o1666), libc.msgget(0x1234, 0o1666), libc.semget(7, 1, 0o1666)
queue = libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
semaphore = libc.sem_open(b"/left", os.O_CREAT, 0o666, 1)
by_path = os.open("/dev/mqueue/by-path", os.O_CREAT | os.O_RDWR)
main, other = os.openpty()
locked = os.open("/usr/bin/python3", os.O_RDONLY)
fcntl.flock(locked, fcntl.LOCK_EX)
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0left"); abstract.listen()
    tcp = socket.create_server(("127.0.0.1", 5000))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 5000))
    libc.prctl(ctypes.c_ulong(15), b"left", 0, 0, 0)
    os.write(writer, b"x"); os.closerange(0, 3)
    time.sleep(60)
os.read(reader, 1)
made = queue >= 0, semaphore != 0, by_path >= 0
print("left" if -1 not in ids and all(made) else (ids, made))
"""

# Looks for all of that.
FIND = r"""
import ctypes, fcntl, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
for folder in (".", "/tmp", "/dev/shm", "/dev/mqueue", "/dev/pts"):
    for name in os.listdir(folder):
        if name not in (os.path.basename(sys.argv[0]), "ptmx"): print(folder, name)
for kind in ("shm", "msg", "sem"):
    print(*open(f"/proc/sysvipc/{kind}").readlines()[1:], end="")
for kind in ("unix", "tcp", "udp", "raw"):
    print(*open(f"/proc/net/{kind}").readlines()[1:], end="")
for key in (0x1234, 7):
    ids = libc.shmget(key, 0, 0), libc.msgget(key, 0), libc.semget(key, 0, 0)
    if ids != (-1, -1, -1): print(ids)
if libc.mq_open(b"/left", os.O_RDWR) >= 0 or libc.sem_open(b"/left", 0): print("queue or semaphore")
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as server:
        try: server.bind(("127.0.0.1", 5000))
        except OSError: print("port")
try: socket.socket(socket.AF_UNIX).connect("\0left"); print("abstract")
except OSError: pass
try: fcntl.flock(os.open("/usr/bin/python3", os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: print("locked")
for pid in os.listdir("/proc"):
    if pid.isdigit() and open(f"/proc/{pid}/comm").read() == "left\n": print("alive")
KNOWN = {"PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
print(*set(os.environ) - KNOWN, end="")
print("nothing")
"""


async def test_nothing_is_left_for_the_next_program(lab: Lab) -> None:
    first, found, second, found_again = await lab.run(LEAVE, FIND, LEAVE, FIND)

    for left in (first, second):
        assert (left.end, left.stdout, left.stderr) == ((0, 0), b"left\n", b"")
    for looked in (found, found_again):
        assert (looked.end, looked.stdout, looked.stderr) == ((0, 0), b"nothing\n", b"")


async def test_nothing_is_left_for_the_next_student(room: Room) -> None:
    left = await room.submit(Entry("leaves", LEAVE, expected="left\n"))
    found = await room.submit(Entry("looks", FIND))

    assert left.status is Status.ACCEPTED, left.log
    assert found.status is Status.ACCEPTED, found.log
    await room.check_nothing_is_left()


# Takes everything that there can be only one of, holds it until the other has done so as well, and
# says what was taken already.
MEET = r"""
import ctypes, fcntl, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
until = float(input())
NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR
def take(what, how):
    try: result = how()
    except OSError: result = -1
    if result == -1: print("taken", what)
    return result
def bound(family, kind, address):
    server = socket.socket(family, kind)
    server.bind(address)
    return server
held = [
    take("abstract", lambda: bound(socket.AF_UNIX, socket.SOCK_STREAM, "\0meeting")),
    take("tcp", lambda: bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 5000))),
    take("udp", lambda: bound(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 5000))),
    take("shm", lambda: libc.shmget(0x3EE7, 4096, 0o3666)),
    take("msg", lambda: libc.msgget(0x3EE7, 0o3666)),
    take("sem", lambda: libc.semget(0x3EE7, 1, 0o3666)),
    take("queue", lambda: libc.mq_open(b"/meeting", NEW, 0o666, None)),
    *(take(folder, lambda: os.open(f"{folder}/meeting", NEW))
      for folder in ("/tmp", "/dev/shm", "/box/work")),
]
for path in ("/usr/bin/python3", "/etc/passwd"):
    file = os.open(path, os.O_RDONLY)
    take(path, lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
    held.append(file)
libc.prctl(ctypes.c_ulong(15), b"meeting", 0, 0, 0)
if time.monotonic() > until: print("late")
time.sleep(max(0, until - time.monotonic()))
for pid in os.listdir("/proc"):
    if pid.isdigit() and open(f"/proc/{pid}/comm").read() == "meeting\n":
        if pid != os.readlink("/proc/self"): print("sees", pid)
for line in open("/proc/net/unix").readlines()[1:]:
    if not line.endswith("@meeting\n"): print(line)
time.sleep(0.1)
print("nothing")
"""


async def test_those_who_run_at_once_do_not_meet(room: Room) -> None:
    # The clock is one for all on a host, and by then both have begun.
    entry = Entry("meets", MEET, given=f"{time.monotonic() + 2}\n")

    verdicts = await asyncio.gather(room.submit(entry, slot=3), room.submit(entry, slot=4))

    for verdict in verdicts:
        assert verdict.status is Status.ACCEPTED, verdict.log
    await room.check_nothing_is_left()


async def test_the_next_submission_is_judged_as_ever(lab: Lab) -> None:
    await check_all_is_well(lab)
