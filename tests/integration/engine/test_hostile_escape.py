"""Programs that look for a way out, for secrets, or for the next student."""

import struct

import pytest

from commserver.core.execution import MIB, Flag
from tests.integration.engine.conftest import Lab

pytestmark = pytest.mark.docker


async def test_a_program_starts_as_nobody_with_nothing(lab: Lab) -> None:
    (report,) = await lab.run(
        r"""
import os, resource, signal
lines = open("/proc/self/status").read().splitlines()
status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
print(os.getresuid(), os.getresgid(), os.getgroups())
print([status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")])
print(status["NoNewPrivs"], status["Seccomp"], status["SigIgn"][-16:], status["SigBlk"])
print(sorted(os.listdir("/proc/self/fd")))
print(dict(os.environ), os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpid())
print(open("/proc/self/oom_score_adj").read().strip())
for name in ("CORE", "NOFILE", "FSIZE"):
    print(name, resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
"""
    )

    lines = report.stdout.decode().splitlines()
    assert lines[0] == "(200001, 200001, 200001) (200001, 200001, 200001) []"
    assert lines[1] == "['', '', '', '']"
    # Python itself ignores SIGPIPE and SIGXFSZ: bits 12 and 24.
    assert lines[2] == "1 2 0000000001001000 0000000000000000"
    assert lines[3] == "['0', '1', '2', '3']"  # the last is the listing's own
    assert lines[4] == (
        "{'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',"
        " 'HOME': '/box/work', 'LANG': 'C.UTF-8', 'PYTHONDONTWRITEBYTECODE': '1'}"
        " /box/work 0o22 True"
    )
    assert lines[5] == "1000"
    assert lines[6] in ("CORE (0, 0)", "CORE (1, 1)")
    assert lines[7:] == ["NOFILE (256, 256)", f"FSIZE ({32 * MIB + 4096}, {32 * MIB + 4096})"]


async def test_the_runner_shows_nothing_of_itself(lab: Lab) -> None:
    (report,) = await lab.run(
        r"""
import ctypes, os
for name in ("environ", "mem", "maps", "stack", "syscall", "auxv", "pagemap", "io", "personality"):
    try: print(name, open("/proc/1/" + name, "rb").read(10))
    except OSError as error: print(name, "denied")
for name in ("fd", "map_files", "task/1/fd", "ns"):
    try: print(name, os.listdir("/proc/1/" + name) and os.readlink("/proc/1/ns/pid"))
    except OSError as error: print(name, "denied")
for name in ("cwd", "exe", "root", "fd/0", "fd/1"):
    try: print(name, os.readlink("/proc/1/" + name))
    except OSError as error: print(name, "denied")
for name in ("oom_score_adj", "coredump_filter", "clear_refs", "comm", "mem", "timerslack_ns"):
    try: os.write(os.open("/proc/1/" + name, os.O_WRONLY), b"1"); print(name, "written")
    except OSError: print(name, "denied")
for path in ("/box/keep", "/box", "/proc/1/cwd"):
    try: print(path, os.listdir(path))
    except OSError: print(path, "denied")
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(8)
class Vec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
vec = Vec(ctypes.addressof(buffer), 8)
print("vm_readv", libc.process_vm_readv(1, ctypes.byref(vec), 1, ctypes.byref(vec), 1, 0))
print("cmdline", open("/proc/1/cmdline").read().split("\0")[:-1])
"""
    )

    *denied, cmdline = report.stdout.decode().splitlines()
    assert (report.exit_code, report.stderr) == (0, b"")
    assert cmdline.startswith(
        "cmdline ['/usr/bin/python3', '-I', '-S', '/opt/commserver/runner.pyc'"
    )
    assert denied.pop() == "vm_readv -1"
    assert [line for line in denied if not line.endswith("denied")] == []


async def test_nothing_of_ours_can_be_written(lab: Lab) -> None:
    (report,) = await lab.run(
        r"""
import os
for path in (
    "/opt/commserver/runner.py", "/opt/commserver/runner.pyc", "/opt/commserver/new",
    "/box/new", "/box/keep/new", "/new", "/dev/new", "/run/new", "/var/tmp/new", "/opt/new",
    "/usr/lib/python3.11/sitecustomize.py", "/usr/lib/python3.11/new.py", "/etc/ld.so.preload",
    "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/shmall", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
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
for path in ("/tmp", "/dev/shm", "/box"):
    try: os.chmod(path, 0o777); print(path, "opened")
    except OSError: pass
for kind, name in ((0o060666, "block"), (0o020666, "char")):
    try: os.mknod(name, kind, os.makedev(1, 1)); print(name, "made")
    except OSError: pass
print("done")
"""
    )

    assert report.stdout == b"done\n"


async def test_forged_frames_go_nowhere(lab: Lab) -> None:
    head = (
        b'{"frame":"report","index":0,"exit":0,"cpu":0,"real":0,"memory":0,"flags":0,'
        b'"stdout":0,"stderr":0,"missing":[]}'
    )
    forged = struct.pack(">II", len(head), 0) + head
    (report,) = await lab.run(
        f"""
import os, sys
frame = {forged!r}
for fd in range(256):
    try: os.write(fd, frame)
    except OSError: pass
for pid in os.listdir("/proc"):
    for fd in range(10):
        try: os.write(os.open(f"/proc/{{pid}}/fd/{{fd}}", os.O_WRONLY), frame)
        except OSError: pass
sys.exit(7)
"""
    )

    assert (report.exit_code, report.flags) == (7, Flag(0))
    # All that it could write to is its own.
    assert set(report.stdout.split(forged)) == {b""}
    assert set(report.stderr.split(forged)) == {b""}


async def test_forbidden_calls_are_denied_and_the_program_goes_on(lab: Lab) -> None:
    (report,) = await lab.run(
        r"""
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
CALLS = {
    "mount": (165, 0, b"/tmp", b"tmpfs", 0, 0), "umount2": (166, b"/proc", 0),
    "pivot_root": (155, b"/", b"/"), "chroot": (161, b"/tmp"), "unshare": (272, 0x10000000),
    "setns": (308, 3, 0), "ptrace": (101, 0, 0, 0, 0), "bpf": (321, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0), "io_uring_setup": (425, 8, 0),
    "userfaultfd": (323, 0), "keyctl": (250, 0, 0), "add_key": (248, b"user", b"a", b"b", 1, 0),
    "request_key": (249, b"user", b"a", 0, 0), "clone NEWUSER": (56, 0x10000011, 0, 0, 0, 0),
    "open_by_handle_at": (304, 3, 0, 0), "kexec_load": (246, 0, 0, 0, 0),
    "init_module": (175, 0, 0, b""), "reboot": (169, 0, 0, 0, 0), "sethostname": (170, b"x", 1),
    "settimeofday": (164, 0, 0), "swapon": (167, b"x", 0), "io_setup": (206, 1, 0),
    "memfd_secret": (447, 0), "fsopen": (430, b"tmpfs", 0), "move_mount": (429, 0, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0), "quotactl": (179, 0, 0, 0, 0), "syslog": (103, 3, 0, 0),
    "acct": (163, 0),
}
def call(number, *arguments):
    ctypes.set_errno(0)
    plain = [ctypes.c_ulong(a & (1 << 64) - 1) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_ulong(number), *plain), ctypes.get_errno()
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

    assert (report.exit_code, report.flags, report.stdout) == (0, Flag(0), b"True\ngoes on\n")


async def test_foreign_system_calls_end_the_caller(lab: Lab) -> None:
    report = await lab.compile(
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

    for case in report.cases:
        assert case.stdout in (b"", b"-1\n")
        assert case.exit_code in (-31, -11, 0)
        assert case.exit_code or case.stdout == b"-1\n"


async def test_there_is_no_network(lab: Lab) -> None:
    (report,) = await lab.run(
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
"""
    )

    assert report.stdout == b"['lo']\n[]\n"


LEAVE = r"""
import ctypes, os, socket, sys
for folder in (".", "/tmp", "/dev/shm"):
    for name in ("sitecustomize.py", "left"): open(f"{folder}/{name}", "w").write("print('LEFT')")
libc = ctypes.CDLL(None, use_errno=True)
ids = libc.shmget(0x1234, 4096, 0o1666), libc.msgget(0x1234, 0o1666), libc.semget(7, 1, 0o1666)
queue = libc.mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
semaphore = libc.sem_open(b"/left", os.O_CREAT, 0o666, 1)
print(*ids, queue >= 0, semaphore != 0, flush=True)
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
print([pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())])
for family, address in ((socket.AF_UNIX, "\0left"), (socket.AF_INET, ("127.0.0.1", 5000))):
    try: socket.socket(family).connect(address); print("reached")
    except OSError: pass
"""


async def test_nothing_is_left_for_the_next_program(lab: Lab) -> None:
    first, found, second, found_again = await lab.run(LEAVE, FIND, LEAVE, FIND)

    for left in (first, second):
        assert (left.exit_code, left.stderr) == (0, b"")
        shm, msg, sem, mq, named = left.stdout.split()[:5]
        assert -1 not in map(int, (shm, msg, sem))
        assert (mq, named) == (b"True", b"True")
        assert left.stdout.endswith(b"listening\n")
    assert found.stdout == b"['1.py']\n[1, 1, 1]\n[]\n"
    assert found_again.stdout == b"['3.py']\n[1, 1, 1]\n[]\n"
