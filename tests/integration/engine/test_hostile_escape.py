"""Programs that look for a way out, for secrets, or for the next student."""

import struct

import pytest

from commserver.core.execution import MIB, Flag, Limits
from commserver.engine.frames import Walls
from tests.integration.engine.conftest import GENTLE, Lab, check_all_is_well

pytestmark = pytest.mark.docker


async def test_a_program_starts_as_nobody_with_nothing(lab: Lab) -> None:
    (ran,) = await lab.run(
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

    assert (ran.end, ran.stderr) == ((0, 0), b"")
    lines = ran.stdout.decode().splitlines()
    ids, groups = lines[0].rsplit(" ", 1)
    assert ids == "(200001, 200001, 200001) (200001, 200001, 200001)"
    assert groups in ("[]", "[200001]")  # engines differ in whether its own is one of them
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


async def test_the_runner_shows_nothing_of_itself(lab: Lab) -> None:
    (ran,) = await lab.run(
        r"""
import ctypes, os
others = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid != os.readlink("/proc/self")]
for pid in others:
    for name in ("environ", "mem", "maps", "stack", "auxv", "pagemap", "io", "personality"):
        try: print(pid, name, open(f"/proc/{pid}/{name}", "rb").read(10))
        except OSError as error: pass
    for name in ("fd", "map_files", "task/1/fd", "ns"):
        try: print(pid, name, os.listdir(f"/proc/{pid}/{name}"), os.readlink(f"/proc/{pid}/ns/pid"))
        except OSError as error: pass
    for name in ("cwd", "exe", "root", "fd/0", "fd/1", "ns/mnt", "ns/user"):
        try: print(pid, name, os.readlink(f"/proc/{pid}/{name}"))
        except OSError as error: pass
    for name in ("oom_score_adj", "coredump_filter", "clear_refs", "comm", "mem", "timerslack_ns",
                 "uid_map", "gid_map", "setgroups"):
        path = f"/proc/{pid}/{name}"
        try: os.write(os.open(path, os.O_WRONLY), b"1"); print(path, "written")
        except OSError: pass
for path in ("/box/keep", "/proc/1/cwd"):
    try: print(path, os.listdir(path))
    except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
class Limit(ctypes.Structure): _fields_ = [("soft", ctypes.c_ulong), ("hard", ctypes.c_ulong)]
for pid in others:
    limit = ctypes.byref(Limit(1, 1))
    if pid != "1" and libc.prlimit(int(pid), 7, limit, None) == 0: print(pid, "limited")
print(len(others), "cmdline", open("/proc/1/cmdline").read().split("\0")[:-1])
"""
    )

    assert (ran.end, ran.stderr) == ((0, 0), b"")
    others = 2 if lab.walls is Walls.NAMESPACES else 1
    assert ran.stdout.decode().startswith(
        f"{others} cmdline ['/usr/bin/python3', '-I', '-S', '/opt/commserver/runner.pyc'"
    )


async def test_nobody_gets_out_of_the_way_when_memory_runs_out(lab: Lab) -> None:
    (ran,) = await lab.run(
        """
try: open("/proc/self/oom_score_adj", "w").write("0")
except OSError: print("denied")
"""
    )

    # Where uids are the walls, /proc cannot be made read-only.
    assert ran.stdout == (b"denied\n" if lab.walls is Walls.NAMESPACES else b"")


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
    assert {ran.end for ran in ends} <= {(5, 0), (-9, 0)}


async def test_nothing_of_ours_can_be_written(lab: Lab) -> None:
    (ran,) = await lab.run(
        r"""
import os
for path in (
    "/opt/commserver/runner.py", "/opt/commserver/runner.pyc", "/opt/commserver/new",
    "/box/new", "/box/keep/new", "/new", "/dev/new", "/run/new", "/var/tmp/new", "/opt/new",
    "/usr/lib/python3.11/sitecustomize.py", "/usr/lib/python3.11/new.py", "/etc/ld.so.preload",
    "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/shmall", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
    "/proc/sys/kernel/ns_last_pid", "/proc/sys/user/max_user_namespaces",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory.max",
):
    try:
        os.close(os.open(path, os.O_WRONLY | (os.O_CREAT if "new" in path else 0)))
        print(path, "written")
    except OSError: pass
for path in ("/box/work", "/box", "/tmp", "/dev/shm", "/box/keep"):
    try: os.rename(path, path + "2"); print(path, "moved")
    except OSError: pass
for path in ("/box", "/opt/commserver"):
    try: os.chmod(path, 0o777); print(path, "opened")
    except OSError: pass
for kind, name in ((0o060666, "block"), (0o020666, "char")):
    try: os.mknod(name, kind, os.makedev(1, 1)); print(name, "made")
    except OSError: pass
print("done")
"""
    )

    assert ran.stdout == b"done\n"


async def test_forged_frames_go_nowhere(lab: Lab) -> None:
    head = (
        b'{"frame":"report","case":0,"stage":0,"processes":[{"exit":0,"cpu":0,"real":0,"memory":0,'
        b'"flags":0,"stopped":false,"ended":0,"runs":[]}],"artifacts":[]}'
    )
    forged = struct.pack(">II", len(head), 0) + head
    (ran,) = await lab.run(
        f"""
import os, sys
frames = {forged!r}, b"e0 0.0", b"r0 0", b"m1"
for fd in range(256):
    for frame in frames:
        try: os.write(fd, frame)
        except OSError: pass
for pid in os.listdir("/proc"):
    for fd in range(10):
        try: os.write(os.open(f"/proc/{{pid}}/fd/{{fd}}", os.O_WRONLY), frames[0])
        except OSError: pass
sys.exit(7)
"""
    )

    assert ran.end == (7, 0)
    # All that it could write to is its own.
    for output in (ran.stdout, ran.stderr):
        assert set(output.replace(b"e0 0.0r0 0m1", b"").split(forged)) == {b""}


CALL = r"""
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    plain = [ctypes.c_ulong(a & (1 << 64) - 1) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_ulong(number), *plain), ctypes.get_errno()
"""


async def test_forbidden_calls_are_denied_and_the_program_goes_on(lab: Lab) -> None:
    (ran,) = await lab.run(
        CALL
        + r"""
CALLS = {
    "chroot": (161, b"/tmp"), "unshare": (272, 0x10000000), "unshare nothing": (272, 0),
    "setns": (308, 3, 0), "clone NEWUSER": (56, 0x10000011, 0, 0, 0, 0),
    "clone NEWPID": (56, 0x20000011, 0, 0, 0, 0), "clone high": (56, 1 << 32 | 0x20000011, 0, 0),
    "open_by_handle_at": (304, 3, 0, 0), "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""), "reboot": (169, 0, 0, 0, 0), "sethostname": (170, b"x", 1),
    "settimeofday": (164, 0, 0), "swapon": (167, b"x", 0), "io_setup": (206, 1, 0),
    "memfd_secret": (447, 0), "fsopen": (430, b"tmpfs", 0), "move_mount": (429, 0, 0, 0, 0, 0),
    "open_tree": (428, -100, b"/", 1), "mount_setattr": (442, 0, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0), "quotactl": (179, 0, 0, 0, 0), "syslog": (103, 3, 0, 0),
    "acct": (163, 0),
}
for name, arguments in CALLS.items():
    result, error = call(*arguments)
    if result == 0 and name.startswith("clone"): libc._exit(0)
    if (result, error) != (-1, errno.EPERM): print(name, result, errno.errorcode.get(error))
print(call(435, 0, 0) == (-1, errno.ENOSYS))  # clone3
for family in (*range(46), 38 | 1 << 32, 40 | 1 << 32):
    for kind in (1, 2, 3, 5):
        known = family in (1, 16) or family in (2, 10) and kind != 3  # 3 is raw
        if call(41, family, kind, 0)[0] >= 0 and not known: print("socket", family, kind)
print("goes on")
"""
    )

    assert (ran.end, ran.stdout) == ((0, 0), b"True\ngoes on\n")


KILLED_FOR = {
    "mount": (165, 0, b"/tmp", b"tmpfs", 0, 0),
    "umount2": (166, b"/proc", 0),
    "pivot_root": (155, b"/", b"/"),
    "ptrace": (101, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "io_uring_setup": (425, 8, 0),
    "userfaultfd": (323, 0),
    "keyctl": (250, 0, 0),
    "add_key": (248, b"user", b"a", b"b", 1, 0),
    "request_key": (249, b"user", b"a", 0, 0),
}


async def test_tools_of_escape_end_the_program(lab: Lab) -> None:
    ends = await lab.run(
        *(
            f"{CALL}print('calls', flush=True)\nprint(call(*{call!r}))"
            for call in KILLED_FOR.values()
        )
    )

    for name, ran in zip(KILLED_FOR, ends, strict=True):
        assert (name, ran.end, ran.stdout) == (name, (-31, Flag.SECURITY), b"calls\n")


async def test_foreign_system_calls_end_the_caller(lab: Lab) -> None:
    compiled = await lab.compile(
        """
        #include <stdio.h>
        #include <string.h>
        #include <unistd.h>
        int main(int n, char **v) {
            long r;
            if (!strcmp(v[1], "x32")) r = syscall(0x40000000 + 39);
            else __asm__ volatile ("int $0x80" : "=a"(r) : "a"(20));
            printf("%ld\\n", r);
            return 0;
        }
        """,
        ("x32",),
        ("i386",),
    )

    for case in compiled.cases:
        assert (case.end, case.stdout) in (((-31, Flag.SECURITY), b""), ((-11, 0), b""))


async def test_there_is_no_network(lab: Lab) -> None:
    (ran,) = await lab.run(
        r"""
import os, socket
print(sorted(name for _, name in socket.if_nameindex()))
for _, address in (
    (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, ("192.0.2.1", 53)),
    (socket.AF_INET, ("172.17.0.1", 22)), (socket.AF_INET6, ("2001:db8::1", 53)),
):
    try: socket.create_connection(address, timeout=2); print(address, "reached")
    except OSError: pass
for port in (22, 80, 2375, 5432, 8080, 8765):
    try: socket.create_connection(("127.0.0.1", port), timeout=2); print(port, "reached")
    except OSError: pass
try: socket.getaddrinfo("example.org", 80); print("resolved")
except OSError: pass
print([path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)])
# One's own loopback is there, for exercises with sockets.
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.send(b"hello"); print(server.accept()[0].recv(5))
"""
    )

    assert (ran.end, ran.stdout) == ((0, 0), b"['lo']\n[]\nb'hello'\n")


LEAVE = r"""
import ctypes, os, socket, sys
for folder in (".", "/tmp", "/dev/shm"):
    for name in ("sitecustomize.py", "left"): open(f"{folder}/{name}", "w").write("print('LEFT')")
libc = ctypes.CDLL(None, use_errno=True)
ids = libc.shmget(0x1234, 4096, 0o1666), libc.msgget(0x1234, 0o1666), libc.semget(7, 1, 0o1666)
queue = libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
semaphore = libc.sem_open(b"/left", os.O_CREAT, 0o666, 1)
by_path = os.open("/dev/mqueue/by-path", os.O_CREAT | os.O_RDWR)
main, other = os.openpty()
print(*ids, queue >= 0, semaphore != 0, by_path >= 0, flush=True)
if os.fork() == 0:
    os.setsid()
    abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0left"); abstract.listen()
    tcp = socket.socket(); tcp.bind(("127.0.0.1", 5000)); tcp.listen()
    print("listening", flush=True); os.close(1)
    import time; time.sleep(60)
import time; time.sleep(0.3)
"""

FIND = r"""
import ctypes, os, socket
print([name for folder in (".", "/tmp", "/dev/shm", "/dev/mqueue") for name in os.listdir(folder)])
print([len(open(f"/proc/sysvipc/{kind}").readlines()) for kind in ("shm", "msg", "sem")])
print([name for name in os.listdir("/dev/pts") if name != "ptmx"])
for family, address in ((socket.AF_UNIX, "\0left"), (socket.AF_INET, ("127.0.0.1", 5000))):
    try: socket.socket(family).connect(address); print("reached")
    except OSError: pass
"""


async def test_nothing_is_left_for_the_next_program(lab: Lab) -> None:
    limits = Limits(cpu=2.0, real=10.0)
    first, found, second, found_again = await lab.run(LEAVE, FIND, LEAVE, FIND, limits=limits)

    for left in (first, second):
        assert (left.end, left.stderr) == ((0, 0), b"")
        shm, msg, sem, *made = left.stdout.split()[:6]
        assert -1 not in map(int, (shm, msg, sem))
        assert made == [b"True", b"True", b"True"]
        assert left.stdout.endswith(b"listening\n")
    assert found.stdout == b"['1.py']\n[1, 1, 1]\n[]\n"
    assert found_again.stdout == b"['3.py']\n[1, 1, 1]\n[]\n"


async def test_the_next_submission_is_judged_as_ever(lab: Lab) -> None:
    await check_all_is_well(lab)
