"""Programs that look for a way out, for secrets, or for the next student.

Each tries all ways of one kind, prints those that led somewhere, and is accepted if there is none.
"""

import struct

from commserver.core.verdicts import Status
from tests.hostile.entries import Entry

CALL = r"""
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    plain = [ctypes.c_ulong(a & (1 << 64) - 1) if isinstance(a, int) else a for a in arguments]
    return libc.syscall(ctypes.c_ulong(number), *plain), ctypes.get_errno()
def refused(name, why, number, *arguments):
    result, error = call(number, *arguments)
    if result == 0 and name.startswith("clone"): libc._exit(0)
    if result != -1 or error not in why: print(name, result, errno.errorcode.get(error, error))
"""
"""The beginning of a program that makes system calls by their numbers (x86_64)."""

SECRET = "expected-b1946ac92492d2347c6235b4d2611184"

SEARCH = r"""
import os, re, sys
secret = re.compile(b"expected" + b"-[0-9a-f]{32}")
def look(path):
    try:
        # One that would wait for its other end is skipped, as is what never ends.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError: return
    try:
        rest = b""
        for _ in range(64):
            data = os.read(file, 1 << 20)
            if not data: break
            if found := secret.search(rest + data): print(found[0].decode()); sys.exit()
            rest = data[-64:]
    except OSError: pass
    finally: os.close(file)
for top, folders, names in os.walk("/"):
    if top == "/": folders[:] = [name for name in folders if name not in ("proc", "sys", "dev")]
    for name in names: look(f"{top}/{name}")
for fd in range(256): look(f"/proc/self/fd/{fd}")
for top in ("/dev/shm", "/dev/mqueue", "/box/keep", "/box/work"):
    for name in os.listdir(top) if os.access(top, os.R_OK) else (): look(f"{top}/{name}")
FILES = ("environ", "cmdline", "auxv", "stack", "syscall", "wchan", "mountinfo", "cgroup", "status")
for pid in os.listdir("/proc"):
    if not pid.isdigit(): continue
    for name in FILES: look(f"/proc/{pid}/{name}")
    for fd in range(64): look(f"/proc/{pid}/fd/{fd}")
    try: maps = [line.split()[0].split("-") for line in open(f"/proc/{pid}/maps") if " r" in line]
    except OSError: continue
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for first, last in maps:
            try: memory.seek(int(first, 16)); data = memory.read(int(last, 16) - int(first, 16))
            except (OSError, ValueError, OverflowError): continue
            if found := secret.search(data): print(found[0].decode()); sys.exit()
print("nothing")
"""
"""Prints a secret of that form if it finds one, else `nothing`."""

SPYING = (
    # Right if it finds it: it looks into whatever can be read, and so never prints it.
    Entry(
        "searches-everything-for-what-is-expected",
        SEARCH,
        Status.WRONG_ANSWER,
        expected=SECRET + "\n",
        log=f"expected '{SECRET}', got 'nothing'",
        limits={"cpu": "3 s", "real": "20 s"},
    ),
    Entry(
        "looks-into-other-processes",
        r"""
import os
RUNNER = b"/usr/bin/python3\0-I\0-S\0/opt/commserver/runner.pyc\0"
me = os.readlink("/proc/self")
for pid in os.listdir("/proc"):
    if not pid.isdigit() or pid == me: continue
    if open(f"/proc/{pid}/cmdline", "rb").read() != RUNNER: print(pid, "is not the runner")
    for name in (
        "environ", "mem", "maps", "smaps", "numa_maps", "stack", "syscall", "auxv", "pagemap", "io",
        "personality", "clear_refs", "timerslack_ns", "patch_state", "task/1/environ", "root/etc",
    ):
        try: print(pid, name, open(f"/proc/{pid}/{name}", "rb").read(10))
        except OSError: pass
    for name in ("fd", "fdinfo", "map_files", "cwd", "root", "task/1/fd"):
        try: print(pid, name, os.listdir(f"/proc/{pid}/{name}"))
        except OSError: pass
    for name in ("cwd", "exe", "root", *(f"fd/{fd}" for fd in range(16)), "ns/mnt", "ns/user"):
        try: print(pid, name, os.readlink(f"/proc/{pid}/{name}"))
        except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "reaches-for-what-others-hold",
        CALL
        + r"""
import struct
DENIED = errno.EPERM, errno.ESRCH, errno.ENOSYS, errno.EINVAL, errno.EBADF, errno.EACCES
me = os.getpid()
others = {1, 2, os.getppid(), *(int(name) for name in os.listdir("/proc") if name.isdigit())}
for pid in others - {0, me, int(os.readlink("/proc/self"))}:
    handle = call(434, pid, 0)[0]  # pidfd_open
    for fd in range(16): refused(f"pidfd_getfd {pid} {fd}", DENIED, 438, handle, fd, 0)
    for kind in range(8): refused(f"kcmp {pid} {kind}", DENIED, 312, me, pid, kind, 0, 0)
    refused(f"process_madvise {pid}", DENIED, 440, handle, b"\0" * 16, 1, 21, 0)
    refused(f"process_mrelease {pid}", DENIED, 448, handle, 0)
    refused(f"move_pages {pid}", DENIED, 279, pid, 1, b"\0" * 8, 0, b"\0" * 4, 0)
    refused(f"migrate_pages {pid}", DENIED, 256, pid, 8, b"\1" + bytes(7), b"\1" + bytes(7))
    refused(f"get_robust_list {pid}", DENIED, 274, pid, ctypes.c_ulong(), ctypes.c_ulong())
    refused(f"rt_sigqueueinfo {pid}", DENIED, 129, pid, 9, b"\0" * 128)
    if pid not in (1, os.getppid()):  # its own init is as much of its uid as it is itself
        refused(f"prlimit {pid}", DENIED, 302, pid, 7, struct.pack("QQ", 1, 1), 0)
print("nothing")
""",
    ),
    Entry(
        "looks-at-what-it-inherited",
        r"""
import os, signal, stat
KNOWN = {"PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
print(*(name for name in os.environ if name not in KNOWN), end="")
for fd in range(256):
    try: kind = os.fstat(fd).st_mode
    except OSError: continue
    if fd > 2 or not (stat.S_ISFIFO(kind) or stat.S_ISREG(kind) and fd == 0): print(fd, oct(kind))
    for way in (".", "..", "../../../../etc/hostname"):
        try: print(fd, way, os.open(way, os.O_RDONLY, dir_fd=fd))
        except OSError: pass
print(*signal.pthread_sigmask(signal.SIG_BLOCK, ()), end="")
if os.getsid(0) != os.getpid() or os.getpgrp() != os.getpid(): print("session")
for name in ("/dev/tty", "/proc/self/fd/3/..", "/proc/1/fd/0", "/proc/1/cwd/.."):
    try: print(name, os.open(name, os.O_RDWR))
    except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "reads-what-the-host-keeps-to-itself",
        r"""
import os
for path in (
    "/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/timer_list",
    "/proc/sched_debug", "/proc/latency_stats", "/proc/vmallocinfo", "/proc/slabinfo",
    "/proc/pagetypeinfo", "/proc/kpageflags", "/proc/kpagecount",
    "/proc/tty/driver/serial", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/sda",
    "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/net/tun", "/dev/vsock",
    "/etc/shadow", "/etc/gshadow", "/etc/.pwd.lock", "/var/lib/docker",
):
    try:
        with open(path, "rb") as file:
            if data := file.read(16): print(path, data)
    except OSError: pass
for path in ("/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/bpf",
             "/sys/fs/pstore", "/proc/acpi", "/proc/scsi", "/root", "/var/lib/docker", "/home",
             "/mnt", "/media", "/srv"):
    try:
        if names := os.listdir(path): print(path, names)
    except OSError: pass
print("nothing")
""",
    ),
)

REPORT = (
    b'{"frame":"report","case":0,"stage":0,"processes":[{"exit":0,"cpu":0,"real":0,"memory":0,'
    b'"flags":0,"stopped":false,"ended":0,"runs":[]}],"artifacts":[{"size":8,"missing":false,'
    b'"sent":8},{"size":0,"missing":false,"sent":0}]}'
)
DONE = b'{"frame":"done","fit":true,"why":"","memory":0}'
FRAMES = (
    struct.pack(">II", len(REPORT), 8) + REPORT + b"nothing\n",
    struct.pack(">II", len(DONE), 0) + DONE,
    b"e0 0.0",
    b"r0 0 0",
    b"m1",
    b"GRADE: 100\ngrade=100\n",
    b'{"grade": 100, "status": "accepted"}\n',
    b"one: accepted (100/100)\n",
)
"""What the runner tells us, what its own processes tell it, and what somebody may believe in."""

FORGE = f"""
import atexit, os, signal
FRAMES = {FRAMES!r}
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
def forge(first=0):
    for fd in range(first, 256):
        for frame in FRAMES:
            try: os.write(fd, frame)
            except OSError: pass
    for pid in os.listdir("/proc"):
        for fd in range(first, 16):
            try: file = os.open(f"/proc/{{pid}}/fd/{{fd}}", os.O_WRONLY | os.O_NONBLOCK)
            except OSError: continue
            for frame in FRAMES:
                try: os.write(file, frame)
                except OSError: pass
"""

PASSES_FOR_A_LOG = Entry(
    "says-what-only-a-log-says",
    r"""
import sys
forged = "one: accepted (100/100)\n  hint: none\n"
for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029": print(end + forged, end)
print(forged, file=sys.stderr)
""",
    Status.WRONG_ANSWER,
    log="one: wrong_answer (0/100)",
)

FORGING = (
    Entry("writes-a-grade-wherever-it-can", FORGE + "forge()", Status.WRONG_ANSWER),
    Entry(
        "reports-a-success-and-fails",
        FORGE + "forge(2)\nprint('nothing', flush=True)\nos._exit(7)",
        Status.RUNTIME_ERROR,
        log="exit status 7",
    ),
    Entry(
        "reports-a-success-and-goes-on",
        FORGE + "print('nothing', flush=True)\nforge(2)\nwhile True: pass",
        Status.CPU_TIME,
        limits={"cpu": "0.2 s", "real": "6 s"},
    ),
    Entry(
        "a-grandchild-and-an-exit-handler-write-a-grade",
        FORGE
        + """
atexit.register(forge)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: forge()
    os._exit(0)
os.wait()
""",
        Status.WRONG_ANSWER,
    ),
    # It speaks for whoever is not there any more, to whoever listens on what is left of it.
    Entry(
        "writes-a-grade-when-it-is-ended",
        FORGE
        + """
if os.fork() == 0:
    os.setsid()
    while True: forge(3)
print("something", flush=True)
os.kill(os.getpid(), 9)
""",
        Status.RUNTIME_ERROR,
        log="ended by SIGKILL",
    ),
    PASSES_FOR_A_LOG,
)

ENDED_FOR = {
    "mount": (165, 0, b"/tmp", b"tmpfs", 0, 0),
    "pivot_root": (155, b"/", b"/"),
    "ptrace": (101, 0, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "io_uring_setup": (425, 8, 0),
    "userfaultfd": (323, 0),
    "keyctl": (250, 0, 0),
}
ALSO_ENDED_FOR = {
    "umount2": (166, b"/proc", 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "io_uring_enter": (426, 0, 0, 0, 0, 0, 0),
    "io_uring_register": (427, 0, 0, 0, 0),
    "add_key": (248, b"user", b"a", b"b", 1, 0),
    "request_key": (249, b"user", b"a", 0, 0),
    "a call of x32": (0x40000000 + 39,),
}

ENDED = (
    *(
        Entry(f"calls-{name}", f"{CALL}call(*{call!r})\nprint('nothing')", Status.SECURITY)
        for name, call in ENDED_FOR.items()
    ),
    # Only a program's own end is its verdict.
    Entry(
        "lets-its-children-call-all-that",
        f"""{CALL}
for name, arguments in {ENDED_FOR | ALSO_ENDED_FOR!r}.items():
    child = os.fork()
    if child == 0: call(*arguments); os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -31: print(name, status)
print("nothing")
""",
    ),
    Entry(
        "lets-a-thread-trace-it",
        f"""{CALL}
import threading
def trace(): call(101, 16, os.getpid(), 0, 0)
threading.Thread(target=trace).start()
while True: pass
""",
        Status.SECURITY,
    ),
    # Whatever it decides about itself, ours decides as well.
    Entry(
        "allows-itself-to-mount",
        f"""{CALL}
import struct
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
allow_all = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(code)))
if libc.prctl(22, ctypes.c_ulong(2), allow_all, 0, 0): print("no filter of its own")
for off in ((22, 0, 0, 0, 0), (38, 0, 0, 0, 0)): libc.prctl(*map(ctypes.c_ulong, off))
call(165, 0, b"/tmp", b"tmpfs", 0, 0)
print("nothing")
""",
        Status.SECURITY,
    ),
    # What ends a process is not to be had: the C library's last resort is an instruction of none.
    Entry(
        "forbids-itself-to-end",
        f"""{CALL}
import struct
steps = (  # neither exit_group nor exit
    (0x20, 0, 0, 0), (0x15, 1, 0, 231), (0x15, 0, 1, 60), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)
)
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
never_end = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
if libc.prctl(22, ctypes.c_ulong(2), never_end, 0, 0): print("no filter of its own")
print("nothing", flush=True)
os._exit(0)
""",
        Status.RUNTIME_ERROR,
        log="ended by SIG",
    ),
)

DENIED = (
    Entry(
        "makes-namespaces-and-leaves-its-own",
        CALL
        + r"""
DENIED = (errno.EPERM,)
CLONES = {
    "NEWTIME": 0x80, "NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000,
    "NEWIPC": 0x8000000, "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}
for name, flag in CLONES.items():
    refused(f"unshare {name}", DENIED, 272, flag)
    refused(f"unshare {name} and a user", DENIED, 272, flag | 0x10000000)
    if name != "NEWTIME":  # of clone that bit is part of the signal
        refused(f"clone {name}", DENIED, 56, flag | 17, 0, 0, 0, 0)
        refused(f"clone {name} and a user", DENIED, 56, flag | 0x10000000 | 17, 0, 0, 0, 0)
        refused(f"clone high {name}", DENIED, 56, 1 << 32 | flag | 17, 0, 0, 0, 0)
refused("unshare nothing", DENIED, 272, 0)
refused("clone3", (errno.ENOSYS,), 435, b"\0" * 88, 88)
for name in os.listdir("/proc/self/ns"):
    for pid in ("self", "1", str(os.getppid())):
        try: file = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        except OSError: continue
        refused(f"setns {pid} {name}", DENIED, 308, file, 0)
        for query in (0xb701, 0xb702):  # the user namespace that owns it, its parent
            if name not in ("pid", "user") or query == 0xb701: continue
            result, _ = call(16, file, query, 0)
            if result >= 0: print(pid, name, "parent")
refused("setns a process", DENIED, 308, call(434, os.getpid(), 0)[0], 0x20000)
for path in (b"/tmp", b".", b"/proc/1/root"): refused("chroot", DENIED, 161, path)
for name in ("uid_map", "gid_map", "setgroups", "projid_map"):
    for text in ("0 0 1", f"0 {os.getuid()} 1", "allow"):
        try: os.write(os.open(f"/proc/self/{name}", os.O_WRONLY), text.encode()); print(name, text)
        except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "asks-for-all-that-only-root-may",
        CALL
        + r"""
DENIED = (errno.EPERM,)
refused("open_by_handle_at", DENIED, 304, -100, bytes(128), 0)
refused("name_to_handle_at", (*DENIED, errno.EOVERFLOW), 303, -100, b"/", bytes(8), bytes(8), 0)
for name, number in {"kexec_load": 246, "kexec_file_load": 320, "init_module": 175,
                     "finit_module": 313, "delete_module": 176, "syslog": 103, "acct": 163,
                     "quotactl": 179, "iopl": 172, "ioperm": 173, "fanotify_init": 300,
                     "lookup_dcookie": 212, "sethostname": 170, "setdomainname": 171,
                     "settimeofday": 164, "swapon": 167, "swapoff": 168, "modify_ldt": 154,
                     "vhangup": 153, "io_setup": 206, "memfd_secret": 447, "fsopen": 430,
                     "fsconfig": 431, "fsmount": 432, "fspick": 433, "move_mount": 429,
                     "open_tree": 428, "mount_setattr": 442, "nfsservctl": 180, "uselib": 134,
                     "mbind": 237, "set_mempolicy": 238}.items():
    refused(name, (*DENIED, errno.ENOSYS), number, 0, 0, 0, 0, 0, 0)
for name, how in {"restart": 0x1234567, "halt": 0xCDEF0123, "cad": 0x89ABCDEF}.items():
    refused(f"reboot {name}", DENIED, 169, 0xFEE1DEAD, 672274793, how, 0)
change = (1).to_bytes(4, "little") + bytes(300)  # ADJ_OFFSET: by nothing
for clock in range(12):
    refused(f"clock_settime {clock}", DENIED, 227, clock, b"\xff" * 16)  # to no time
    if call(305, clock, change)[0] >= 0: print("clock_adjtime", clock)
if call(159, change)[0] >= 0: print("adjtimex")
for way in (0x0040000, 0x0400000, 0x4000000, 0x0100000, 0x0200000, 6):
    refused(f"personality {way:x}", DENIED, 135, way)
print("nothing")
""",
    ),
    Entry(
        "becomes-somebody-else",
        CALL
        + r"""
import struct
me, group = os.getuid(), os.getgid()
for other in (0, 1, 1000, me + 1, me - 1, me + 1000, 65534):
    for change in (os.setuid, os.seteuid, os.setgid, os.setegid, lambda o: os.setgroups([o]),
                   lambda o: os.setresuid(o, me, me), lambda o: os.setresuid(me, me, o),
                   lambda o: os.setresgid(o, group, group), lambda o: os.setreuid(me, o)):
        try: change(other); print("is", other)
        except OSError: pass
    call(122, other); call(123, other)  # setfsuid and setfsgid tell nothing
    if call(122, -1)[0] != me or call(123, -1)[0] != group: print("reads as", other)
for sets in ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-1, -1, -1)):
    whole = struct.pack("=6I", *(value & 0xFFFFFFFF for value in sets * 2))
    if libc.capset(struct.pack("=Ii", 0x20080522, 0), whole) == 0 and any(sets[:2]): print(sets)
for number in range(41):
    if libc.prctl(*map(ctypes.c_ulong, (47, 2, number, 0, 0))) == 0: print("ambient", number)
if libc.prctl(*map(ctypes.c_ulong, (28, 0x2F, 0, 0, 0))) == 0: print("secure bits")
for line in open("/proc/self/status"):
    if line[:6] in ("CapPrm", "CapEff", "CapAmb") and int(line.split()[1], 16): print(line)
print("nothing")
""",
    ),
    Entry(
        "takes-precedence",
        CALL
        + r"""
import resource, struct
me = os.getpriority(os.PRIO_PROCESS, 0)
for way in (os.PRIO_PROCESS, os.PRIO_PGRP, os.PRIO_USER):
    try: os.setpriority(way, 0, me - 1); print("nicer")
    except OSError: pass
for policy in (os.SCHED_FIFO, os.SCHED_RR):
    try: os.sched_setscheduler(0, policy, os.sched_param(1)); print("policy", policy)
    except OSError: pass
deadline = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**7, 10**8, 10**8)
refused("deadline", (errno.EPERM,), 314, 0, deadline, 0)
refused("ioprio", (errno.EPERM,), 251, 1, 0, 1 << 13)
for name in ("RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_STACK", "RLIMIT_NICE",
             "RLIMIT_RTPRIO", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE"):
    limit = getattr(resource, name)
    soft, hard = resource.getrlimit(limit)
    for more in (hard + 1, resource.RLIM_INFINITY):
        if hard == resource.RLIM_INFINITY: continue
        try: resource.setrlimit(limit, (more, more)); print(name)
        except (OSError, ValueError): pass
for pid in {1, os.getppid()} - {0}:
    try: resource.prlimit(pid, resource.RLIMIT_CORE, (1 << 20, 1 << 20)); print(pid, "may dump")
    except (OSError, ValueError): pass
print("nothing")
""",
    ),
    # Where uids are the walls /proc cannot be made read-only; there the runner counts instead.
    Entry(
        "spares-itself-when-memory-runs-out",
        """
import os
try: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"0"); print("spared")
except OSError: print("nothing")
""",
        elsewhere=Status.WRONG_ANSWER,
    ),
    # Its own init is as much of its uid as it is itself, where namespaces are the walls.
    # It would end late, and others' ends would be told before its own.
    Entry(
        "slows-down-whoever-ends-it",
        CALL
        + r"""
import struct
slow = struct.pack("=IIQiIQQQ", 48, 5, 0, 19, 0, 100_000_000, 0, 0)
some = ctypes.addressof(kept := ctypes.create_string_buffer(slow))
for who in (1, 1 | 1 << 32):
    for name, arguments in {
        "setpriority": (141, 0, who, 19), "of a user": (141, 2, 0, 19),
        "ioprio": (251, 1, who, 3 << 13),
        "scheduler": (144, who, 5, some + 20), "parameters": (142, who, some + 20),
        "attributes": (314, who, some, 0), "affinity": (203, who, 8, some + 4),
        "limits": (302, who, 0, some, 0),
    }.items():
        if call(*arguments)[0] >= 0: print(name, who)
print("nothing")
""",
    ),
    Entry(
        "holds-back-who-reports-its-end",
        r"""
import os, signal
for pid in {1, os.getppid()} - {0}:
    for harm in (
        lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.sched_setaffinity(pid, {max(os.sched_getaffinity(0))}),
        lambda: os.setpgid(pid, pid),
        *(lambda number=number: os.kill(pid, number) for number in range(1, 65)),
    ):
        try: harm()
        except OSError: pass
print("nothing")
""",
    ),
    # The kernel sends a signal for whoever asks to be told of news: on whose account?
    Entry(
        "has-signals-sent-to-others",
        r"""
import fcntl, os, socket
for pid in {1, 2, os.getppid(), *(int(name) for name in os.listdir("/proc") if name.isdigit())}:
    if pid in (0, os.getpid(), int(os.readlink("/proc/self"))): continue
    one, other = socket.socketpair()
    try:
        fcntl.fcntl(one, fcntl.F_SETOWN, pid)
        fcntl.fcntl(one, 10, 9)  # F_SETSIG
        fcntl.fcntl(one, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        other.send(b"x")
    except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "asks-prctl-for-everything",
        CALL
        + r"""
WALLS = "NoNewPrivs:\t1\n", "Seccomp:\t2\n"
for option in (*range(80), 0x53564D41, 0x59616D61):
    for value in (0, 1):
        child = os.fork()
        if child == 0:
            libc.prctl(*map(ctypes.c_ulong, (option, value, 0, 0, 0)))
            status = open("/proc/self/status").read()
            os._exit(0 if all(wall in status for wall in WALLS) else 1)
        # That some of it ends itself is another matter.
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1: print(option, value)
print("nothing")
""",
    ),
    Entry(
        "types-for-others",
        r"""
import fcntl, os, pty, struct, termios
for name in ("tty", "console", "tty0", "tty1", "ttyS0", "vcs", "vcs1", "pts/0", "ptmx"):
    try: file = os.open(f"/dev/{name}", os.O_RDWR | os.O_NOCTTY)
    except OSError: continue
    if name not in ("ptmx", "console"): print(name, "opened")
for fd in range(256):
    for request in (termios.TIOCSTI, 0x541C, termios.TIOCSCTTY, 0x4B33, termios.TIOCNOTTY):
        if os.isatty(fd) and os.ttyname(fd).startswith("/dev/pt"): continue
        try: fcntl.ioctl(fd, request, b"x"); print(fd, request)
        except OSError: pass
print("nothing")
""",
    ),
)

KERNEL = (
    Entry(
        "finds-what-it-may-write",
        r"""
import os
MINE = ("/box/work", "/tmp", "/dev/shm", "/dev/mqueue")
DEVICES = {"/dev/" + name for name in ("full", "null", "random", "tty", "urandom", "zero")}
DEVICES |= {"/dev/ptmx", "/dev/pts/ptmx", "/dev/stdin", "/dev/stdout", "/dev/stderr"}
for top, folders, names in os.walk("/"):
    if top == "/": folders.remove("proc")
    folders[:] = [name for name in folders if os.path.join(top, name) not in MINE]
    for path in (top, *(os.path.join(top, name) for name in names)):
        if os.access(path, os.W_OK) and path not in DEVICES:
            if not os.path.islink(path): print(path)
for top, _, names in os.walk("/proc/sys"):
    for name in names:
        try: os.close(os.open(f"{top}/{name}", os.O_WRONLY)); print(top, name)
        except OSError: pass
print("nothing")
""",
        limits={"cpu": "2 s", "real": "20 s"},
    ),
    Entry(
        "writes-what-the-kernel-obeys",
        r"""
import os
for path in (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/shmall", "/proc/sys/kernel/ns_last_pid", "/proc/sys/vm/drop_caches",
    "/proc/sys/user/max_user_namespaces", "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
    "/proc/bus/pci/00/00.0", "/proc/fs/ext4", "/proc/mtrr", "/proc/acpi/alarm",
    "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/ksm/run",
    "/sys/kernel/security/apparmor/.load", "/sys/module/printk/parameters/time",
    "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cgroup.subtree_control", "/sys/fs/cgroup/cgroup.kill",
    *(f"/sys/fs/cgroup/{kind}/{name}" for kind in ("memory", "pids", "rdma", "devices", "cpu")
      for name in ("release_agent", "notify_on_release", "cgroup.procs", "tasks", "devices.allow",
                   "cgroup.event_control", "memory.limit_in_bytes", "pids.max", "cpu.shares")),
    "/proc/1/mem", "/proc/1/oom_score_adj", "/proc/1/sched", "/proc/1/coredump_filter",
):
    for flags in (os.O_WRONLY, os.O_RDWR):
        try: os.open(path, flags); print(path)
        except OSError: pass
for parent in ("memory", "pids", "rdma", "cpu", "."):
    try: os.mkdir(f"/sys/fs/cgroup/{parent}/mine"); print(parent)
    except OSError: pass
print("nothing")
""",
    ),
    # A runtime that once entered this container through /proc/self/exe could be overwritten.
    Entry(
        "overwrites-whoever-executes-it",
        r"""
import os, subprocess
targets = ["/proc/self/exe", "/proc/1/exe", f"/proc/{os.getppid()}/exe", "/usr/bin/python3",
           "/usr/bin/python3.11", "/opt/commserver/runner.pyc", "/opt/commserver/call.pyc",
           "/lib64/ld-linux-x86-64.so.2", "/etc/ld.so.preload", "/etc/ld.so.cache", "/etc/passwd",
           "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/usr/bin/runc", "/sbin/docker-init"]
for path in targets:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        try: os.open(path, flags); print(path)
        except OSError: pass
    # Through a descriptor that was opened for something harmless.
    try: os.open(f"/proc/self/fd/{os.open(path, os.O_PATH)}", os.O_WRONLY); print(path, "by path")
    except OSError: pass
    for change in (os.unlink, lambda p: os.rename(p, p + "2"), lambda p: os.chmod(p, 0o777),
                   lambda p: os.utime(p), lambda p: os.truncate(p, 0), lambda p: os.remove(p)):
        try: change(path); print(path, "changed")
        except OSError: pass
for path in ("/box", "/box/keep", "/opt/commserver", "/usr/lib/python3.11"):
    for change in (os.rmdir, lambda p: os.rename(p, p + "2"), lambda p: os.chmod(p, 0o777),
                   lambda p: os.symlink("/etc", p + "/../new"), lambda p: os.mkdir(p + "/../new")):
        try: change(path); print(path, "changed")
        except OSError: pass
with open("again", "w") as file: file.write("#!/proc/self/exe\nprint('nothing')\n")
os.chmod("again", 0o755)
subprocess.run(["./again"], check=True)
""",
    ),
    Entry("dumps-its-core", "import os; os.abort()", Status.RUNTIME_ERROR, log="SIGABRT"),
    # As its name stands in /proc, it could be taken for another's line, or for what follows it.
    Entry(
        "hides-behind-its-name",
        CALL
        + r"""
import time
for name in (b"a) Z 0 0 0", b"\nUid:\t0\t0", b")\nTgid:\t1", b"\xff) S 1 1 1 0"):
    if os.fork() == 0:
        libc.prctl(ctypes.c_ulong(15), name, 0, 0, 0)
        while True: pass
time.sleep(60)
""",
        Status.CPU_TIME,
        limits={"cpu": "0.2 s", "real": "6 s"},
    ),
)

NETWORK = (
    Entry(
        "opens-sockets-of-every-family",
        CALL
        + r"""
for family in (*range(64), 38 | 1 << 32, 40 | 1 << 32, 17 | 1 << 32):
    for kind in (1, 2, 3, 4, 5, 6, 10):
        for protocol in (0, 1, 6, 17, 58, 132, 255, 768):
            made, _ = call(41, family, kind, protocol)
            if made < 0: continue
            known = family == 1 or family in (2, 10) and kind in (1, 2) and protocol in (0, 6, 17)
            if not known: print("socket", family, kind, protocol)
            os.close(made)
print("nothing")
""",
    ),
    # There is no way to anywhere, which is known at once.
    Entry(
        "connects-to-the-world",
        r"""
import errno, os, socket
for host in ("169.254.169.254", "172.17.0.1", "192.0.2.1", "fd00:ec2::254", "2001:db8::1",
             "::ffff:192.0.2.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for port in (53, 80, 2375):
            with socket.socket(family, kind) as client:
                try: client.connect((host, port)); print("reached", host, port)
                except OSError as error:
                    if error.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL): print(error)
for host in ("127.0.0.1", "::1", "127.0.0.53", "localhost"):
    for port in (22, 53, 80, 443, 2375, 2376, 5432, 6379, 8000, 8080, 8765):
        try: socket.create_connection((host, port), timeout=1).close(); print("reached", host, port)
        except OSError: pass
for name in ("example.org", "metadata.google.internal", "host.docker.internal"):
    try: print(socket.getaddrinfo(name, 80))
    except OSError: pass
print(*(line for line in open("/proc/net/dev").readlines()[2:] if "lo:" not in line), end="")
# One's own loopback is there, for exercises with sockets.
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(server.getsockname()) as client: client.send(b"hello")
if server.accept()[0].recv(5) != b"hello": print("not even oneself")
print("nothing")
""",
    ),
    # Each is compiled into memory of the kernel's that all of the host shares.
    Entry(
        "has-filters-compiled",
        r"""
import ctypes, socket, struct
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))
program = struct.pack("@HP", 1, ctypes.addressof(code))
for pair in (socket.socketpair(), [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]):
    for option in (26, 50, 51, 52):
        try: pair[0].setsockopt(socket.SOL_SOCKET, option, program); print(option)
        except PermissionError: pass
print("nothing")
""",
    ),
    Entry(
        "looks-for-sockets-of-the-host",
        r"""
import os, socket, stat
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock",
             "/run/systemd/private", "/run/dbus/system_bus_socket", "/dev/log", "/run/podman"):
    if os.path.exists(path): print(path)
for top, folders, names in os.walk("/"):
    if top == "/": folders[:] = [name for name in folders if name not in ("proc", "sys", "usr")]
    for name in names:
        kind = os.lstat(f"{top}/{name}").st_mode
        if stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind): print(top, name)
for line in open("/proc/net/unix").readlines()[1:]: print(line)
for name in ("docker", "containerd", "/containerd-shim", "dbus", "systemd", "/tmp/.X11-unix/X0"):
    try: socket.socket(socket.AF_UNIX).connect("\0" + name); print(name)
    except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "changes-the-network",
        CALL
        + r"""
import fcntl, socket, struct
for protocol in range(23):  # links, firewall, audit, uevents, crypto …
    try: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol); print("netlink", protocol)
    except PermissionError: pass
any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for request in (0x8914, 0x8916, 0x891A, 0x8922, 0x8924, 0x8943, 0x890B, 0x8953, 0x89A0, 0x89F0):
    try: fcntl.ioctl(any_socket, request, struct.pack("16sH22x", b"lo", 0)); print(hex(request))
    except OSError: pass
for level, option, value in ((1, 25, b"lo\0"), (1, 33, b"\1\0\0\0"), (0, 19, b"\1\0\0\0")):
    try: any_socket.setsockopt(level, option, value)
    except OSError: continue
    if option == 33 or option == 19: print("option", option)
print("nothing")
""",
    ),
)

ENTRIES: tuple[Entry, ...] = (*SPYING, *FORGING, *ENDED, *DENIED, *KERNEL, *NETWORK)
