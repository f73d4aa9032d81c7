"""Programs that want memory, wherever it is kept."""

from commserver.core.verdicts import Status
from tests.hostile.entries import Entry

PATIENT = {"cpu": "5 s", "real": "20 s"}
"""Limits of what is ended for its memory: there is time to use far more of it than it may."""

_PRIVATE = (
    Entry("touches-8-gigabytes", "data = b'x' * (8 << 30)", Status.MEMORY, limits=PATIENT),
    Entry(
        "takes-more-and-more",
        "data = []\nwhile True: data.append(b'x' * (1 << 20))",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # Not one object that is large.
    Entry(
        "endless-list",
        "data = None\nwhile True: data = [data]",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "deep-recursion-without-a-bound",
        "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry("deep-recursion", "def f(): f()\nf()", Status.RUNTIME_ERROR, log="RecursionError"),
    # The stack ends before the memory does.
    Entry(
        "endless-recursion",
        "int f(volatile int n) { return f(n + 1) + n; }\nint main(void) { return f(1); }",
        Status.RUNTIME_ERROR,
        language="c",
        limits=PATIENT | {"memory": "256 MiB"},
        log="ended by SIGSEGV",
    ),
    Entry(
        "stacks-of-threads",
        """
#include <pthread.h>
#include <unistd.h>
static void *fill(void *_) {
    volatile char area[8 << 20];
    for (int i = 0; i < sizeof area; i += 4096) area[i] = 1;
    for (;;) pause();
}
int main(void) {
    pthread_t id;
    for (int i = 0; i < 16; i++) pthread_create(&id, 0, fill, 0);
    for (;;) pause();
}
""",
        Status.MEMORY,
        language="c",
        limits=PATIENT,
    ),
    # The memory that is locked may be bounded by the engine: then it is not locked.
    Entry(
        "locks-its-memory",
        """
import ctypes
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4
libc = ctypes.CDLL(None)
libc.mlockall(MCL_CURRENT | MCL_FUTURE) and libc.mlockall(MCL_FUTURE | MCL_ONFAULT)
data = []
while True:
    try: data.append(b"x" * (1 << 20))
    except MemoryError: libc.munlockall()
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "asks-to-be-spared",
        """
for score in ("-1000", "0"):
    try: open("/proc/self/oom_score_adj", "w").write(score)
    except OSError: pass
data = []
while True: data.append(b"x" * (1 << 20))
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
)

_IN_OTHERS = (
    Entry(
        "in-a-child-only",
        """
import os
if os.fork() == 0:
    data = b"x" * (200 << 20)
    os._exit(0)
os.wait()
print("nothing")
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "a-little-in-each-of-many-children",
        """
import os, time
for _ in range(8):
    if os.fork() == 0:
        data = b"x" * (12 << 20)
        time.sleep(60)
while True: os.wait()
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "in-a-daemon",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    data = []
    while True: data.append(b"x" * (1 << 20))
os.wait()
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # Somebody always tries again.
    Entry(
        "killed-hogs-are-replaced",
        """
import os
while True:
    if os.fork() == 0:
        data = b"x" * (200 << 20)
        os._exit(0)
    os.wait()
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "not-for-its-children",
        """
import mmap, os, time
area = mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_DONTFORK)
for _ in range(4):
    if os.fork() == 0: time.sleep(60)
while True: area.write(b"x" * (1 << 20))
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
)

_SHARED = (
    Entry(
        "shared-by-two",
        """
import mmap, os
area = mmap.mmap(-1, 200 << 20)
os.fork()
while True: area.write(b"x" * (1 << 20))
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # In files that no file system shows.
    Entry(
        "in-files-without-names",
        """
import os, time
for _ in range(4):
    file = os.memfd_create("x")
    for _ in range(20): os.write(file, b"x" * (1 << 20))
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # They are nobody's: on their way from a process to itself.
    Entry(
        "in-files-that-are-being-sent",
        """
import os, socket, time
ends = socket.socketpair()
for _ in range(4):
    file = os.memfd_create("x")
    for _ in range(20): os.write(file, b"x" * (1 << 20))
    socket.send_fds(ends[0], [b"x"], [file])
    os.close(file)
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # Where the kernel's objects are shared by all, there is less of them than of memory.
    Entry(
        "in-system-v-segments",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
for _ in range(200):
    number = libc.shmget(0, 1 << 20, 0o600)
    if number < 0: break
    at = libc.shmat(number, None, 0)
    ctypes.memset(at, 1, 1 << 20)
    libc.shmdt(ctypes.c_void_p(at))
print("nothing")
""",
        Status.MEMORY,
        elsewhere=Status.ACCEPTED,
        limits=PATIENT,
    ),
    Entry(
        "fills-shared-memory",
        """
import errno
try:
    with open("/dev/shm/full", "wb", buffering=0) as file:
        while True: file.write(b"x" * 65536)
except OSError as error: print(errno.errorcode[error.errno])
""",
        expected="ENOSPC\n",
        limits=PATIENT,
    ),
    # Less than it may have, and so are the files: it is both together that is too much.
    Entry(
        "fills-shared-memory-and-its-own",
        """
import time
try:
    with open("/dev/shm/full", "wb", buffering=0) as file:
        while True: file.write(b"x" * 65536)
except OSError: pass
data = b"x" * (17 << 20)
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT | {"memory": "24 MiB"},
    ),
    Entry(
        "fills-every-file-system",
        """
import time
for path in ("/dev/shm/full", "/tmp/full", "full"):
    try:
        with open(path, "wb", buffering=0) as file:
            while True: file.write(b"x" * 65536)
    except OSError: pass
data = b"x" * (12 << 20)
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT | {"file_size": "40 MiB"},
    ),
)

_KERNEL = (
    # A user may fill so many pipes and no more.
    Entry(
        "in-pipes",
        """
import fcntl, os, time
kept = []
try:
    while True:
        kept.append(os.pipe())
        os.set_blocking(kept[-1][1], False)
        fcntl.fcntl(kept[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(kept[-1][1], b"x" * (1 << 20))
except OSError: pass
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT | {"memory": "32 MiB"},
    ),
    Entry(
        "in-sockets",
        """
import os, socket, time
for _ in range(4): os.fork()
kept = []
try:
    while True:
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        try:
            while True: kept[-1][0].send(b"x" * 65536)
        except BlockingIOError: pass
except OSError: pass
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # Which the older cgroups do not count.
    Entry(
        "in-datagrams-to-itself",
        """
import socket, time
kept = []
for _ in range(200):
    kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    kept[-1].bind(("127.0.0.1", 0))
    for _ in range(64): kept[-1].sendto(b"x" * 65000, kept[-1].getsockname())
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    Entry(
        "in-streams-that-nobody-reads",
        """
import socket, time
kept = []
for host in ("127.0.0.1", "::1") * 40:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family)
    client = socket.create_connection(server.getsockname()[:2])
    kept += [server, client, server.accept()[0]]
    client.setblocking(False)
    try:
        while True: client.send(b"x" * 65536)
    except BlockingIOError: pass
time.sleep(60)
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
    # What it reads is the same page of zeros everywhere, which costs nothing but how to find it.
    Entry(
        "in-tables-of-pages",
        """
import mmap
MAP_NORESERVE = 0x4000
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
area = mmap.mmap(-1, 128 << 30, flags=flags)
area.madvise(mmap.MADV_NOHUGEPAGE)
while True: sum(area[:: 2 << 20])
""",
        Status.MEMORY,
        limits=PATIENT,
    ),
)

_FREE = (
    # The kernel remembers each, for as long as nobody needs the memory.
    Entry(
        "looks-for-files-that-are-not-there",
        """
import os
for number in range(120_000): os.path.exists(f"/usr/lib/{number:0100d}")
print("nothing")
""",
        limits=PATIENT,
    ),
    Entry(
        "nobody-touches-it",
        """
import mmap
MAP_NORESERVE = 0x4000
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
area = mmap.mmap(-1, 64 << 30, flags=flags)
area[5 << 30] = 1
print(len(area) >> 30)
""",
        expected="64\n",
    ),
    # Half a gigabyte each.
    Entry(
        "stacks-that-nobody-uses",
        """
import threading
threading.stack_size(512 << 20)
event = threading.Event()
threads = [threading.Thread(target=event.wait) for _ in range(20)]
for thread in threads: thread.start()
event.set()
for thread in threads: thread.join()
print("nothing")
""",
    ),
    Entry(
        "many-share-what-was-there-before",
        """
import os
data = b"x" * (30 << 20)
for _ in range(8):
    if os.fork() == 0: os._exit(data[-1] - 120)
print(*{os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(8)})
""",
        expected="0\n",
        limits=PATIENT,
    ),
    Entry(
        "gives-back-what-it-has-used",
        "for _ in range(10): data = None; data = b'x' * (40 << 20)\nprint('nothing')",
        limits=PATIENT,
    ),
    # A limit below what its container has is no other limit.
    Entry(
        "just-above-a-small-limit",
        "import time; data = b'x' * (24 << 20); time.sleep(60)",
        Status.MEMORY,
        limits=PATIENT | {"memory": "20 MiB"},
    ),
    Entry(
        "just-below-a-small-limit",
        "data = b'x' * (8 << 20); print('nothing')",
        limits=PATIENT | {"memory": "20 MiB"},
    ),
)

ENTRIES: tuple[Entry, ...] = (*_PRIVATE, *_IN_OTHERS, *_SHARED, *_KERNEL, *_FREE)
