"""Programs that leave much, or what is not what it seems."""

from commserver.core.verdicts import Status
from tests.hostile.corpus.time import WAITING
from tests.hostile.entries import Entry

FLOODING = {"output": "256 KiB", "real": "10 s"}

FLOODS = (
    Entry(
        "output-without-end-or-line",
        "import os\nwhile True: os.write(1, b'x' * 65536)",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    Entry("lines-without-end", "while True: print('line')", Status.OUTPUT, limits=FLOODING),
    Entry(
        "complaints-without-end",
        "import os\nwhile True: os.write(2, b'x' * 65536)",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    Entry(
        "little-to-one-and-much-to-the-other",
        "import os\nprint('nothing', flush=True)\nwhile True: os.write(2, b'y' * 10000)",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    Entry("one-byte-too-many", "print('x' * (256 << 10))", Status.OUTPUT, limits=FLOODING),
    Entry(
        "flood-of-many-writers",
        """
import os
for _ in range(20):
    if os.fork() == 0: break
while True: os.write(1, b'x' * 4096)
""",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    # What its parent leaves behind goes on, and nobody answers for it but the parent.
    Entry(
        "flood-of-what-is-left-behind",
        """
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    while True: os.write(2, b'x' * 65536)
signal.pause()
""",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    # Pages of a file, which nobody writes, out of a pipe that is as large as can be.
    Entry(
        "flood-without-a-write",
        """
import fcntl, os
fcntl.fcntl(1, 1031, 1 << 20)  # F_SETPIPE_SZ
file = os.open("holes", os.O_CREAT | os.O_RDWR)
os.truncate(file, 1 << 20)
while True: os.sendfile(1, file, 0, 1 << 20)
""",
        Status.OUTPUT,
        limits=FLOODING,
    ),
    Entry(
        "all-that-it-may-say-and-then-nothing",
        "import time\nprint('x' * ((256 << 10) - 1), flush=True)\ntime.sleep(60)",
        Status.REAL_TIME,
        limits=FLOODING | WAITING,
    ),
)

MUCH = (
    # Python ignores SIGXFSZ, hence an error rather than an end.
    Entry(
        "sparse-and-allocated-giants",
        """
import mmap, os
def attempt(what):
    try: what()
    except (OSError, ValueError): return
    print("done")
memory = os.memfd_create("giant")
for name in ("giant", "/tmp/giant", "/dev/shm/giant", memory):
    file = name if name is memory else os.open(name, os.O_CREAT | os.O_RDWR)
    for size in (33 << 20, 1 << 40, (1 << 63) - 1):
        attempt(lambda: os.ftruncate(file, size))
        attempt(lambda: os.posix_fallocate(file, 0, size))
        attempt(lambda: os.pwrite(file, b"x", size))
for name in ("/tmp/giant", "/dev/shm/giant"):
    attempt(lambda: os.posix_fallocate(os.open(name, os.O_RDWR), 0, 31 << 20))
os.truncate("giant", 32 << 20)  # as large as it may be, and empty
print("nothing")
""",
    ),
    Entry(
        "sparse-giant-in-c",
        """
#include <fcntl.h>
#include <unistd.h>
int main(void) { return ftruncate(open("giant", O_CREAT | O_WRONLY, 0600), 1L << 40); }
""",
        Status.OUTPUT,
        language="c",
    ),
    Entry(
        "writes-until-the-disk-is-full",
        """
import os
for folder in ("/tmp", "/dev/shm", "."):
    names = [f"{folder}/{number}" for number in range(8)]
    written = 0
    try:
        for name in names:
            with open(name, "wb", 0) as file:
                while file.tell() < 8 << 20: written += file.write(bytes(1 << 18))
        print("no end in", folder)
    except OSError as error:
        if error.strerror != "No space left on device" or written > 34 << 20: print(error, written)
    for name in names if folder != "." else (): os.path.exists(name) and os.unlink(name)
print("nothing")
""",
    ),
    # What is mapped has its room only when it is touched.
    Entry(
        "maps-more-than-the-disk-holds",
        """
import mmap, os
file = os.open("/dev/shm/giant", os.O_CREAT | os.O_RDWR)
os.truncate(file, 24 << 20)
with mmap.mmap(file, 24 << 20) as mapped:
    for at in range(0, 24 << 20, 4096): mapped[at] = 1
print("nothing")
""",
        Status.RUNTIME_ERROR,
        log="ended by SIGBUS",
    ),
    Entry(
        "a-million-tiny-files",
        """
import os
for folder in (".", "/tmp", "/dev/shm"):
    count = 0
    try:
        while count < 1_000_000:
            os.close(os.open(f"{folder}/{count}", os.O_CREAT | os.O_WRONLY))
            count += 1
    except OSError: pass
    if count > 20_000: print(folder, count)
print("nothing")
""",
        limits={"cpu": "3 s", "real": "20 s"},
    ),
    Entry(
        "a-million-hard-links",
        """
import os
open("file", "w").close()
count = 0
try:
    while count < 1_000_000: os.link("file", f"link{count}"); count += 1
except OSError: pass
if count > 20_000: print(count)
for path in ("/etc/passwd", "/usr/bin/python3", "/proc/self/exe", "/box/keep/1"):
    try: os.link(path, "stolen"); print(path)
    except OSError: pass
print("nothing")
""",
        limits={"cpu": "3 s", "real": "20 s"},
    ),
    Entry(
        "folders-in-folders-in-folders",
        """
import os
for _ in range(3_000):
    os.mkdir("a" * 200); os.chmod(".", 0o300); os.chdir("a" * 200)
os.chmod(".", 0)
print("nothing")
""",
    ),
    # The value of an attribute is memory of the kernel's, that no file shows.
    Entry(
        "a-thousand-large-attributes",
        """
import os
written = 0
for folder in (".", "/tmp", "/dev/shm"):
    try:
        for number in range(1_000):
            file = f"{folder}/{number}"
            open(file, "w").close()
            for name in ("user.a", "trusted.a", "security.a"):
                try:
                    os.setxattr(file, name, bytes(60_000))
                    written += 60_000
                except PermissionError: pass
    except OSError: pass
if written > 64 << 20: print(written)
print("nothing")
""",
    ),
    # As large as it may be, open, and without a name.
    Entry(
        "files-that-only-a-daemon-holds",
        """
import os, time
files = [os.open(name, os.O_CREAT | os.O_RDWR) for name in ("a", "/tmp/a", "/dev/shm/a")]
for file in files: os.write(file, bytes(4 << 20))
for name in ("a", "/tmp/a", "/dev/shm/a"): os.unlink(name)
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    time.sleep(60)
print("nothing")
""",
    ),
    # Files that nobody holds but sockets, which nobody holds but one another.
    Entry(
        "files-in-flight",
        """
import os, socket
for number in range(8):
    one, other = socket.socketpair()
    file = os.open("file", os.O_CREAT | os.O_RDWR)
    os.write(file, bytes(1 << 20))
    os.unlink("file")
    socket.send_fds(one, [b"x"], [one.fileno(), other.fileno(), file])
    socket.send_fds(other, [b"x"], [one.fileno(), other.fileno(), file])
    one.close(); other.close(); os.close(file)
print("nothing")
""",
    ),
    # What the kernel counts for each user, and the next one here has the same uid.
    Entry(
        "all-that-a-user-may-have",
        """
import ctypes, fcntl, os
libc = ctypes.CDLL(None)
for _ in range(300):
    libc.inotify_init()
    libc.mq_open(b"/%d" % _, os.O_CREAT | os.O_RDWR, 0o666, None)
    libc.timer_create(1, None, ctypes.byref(ctypes.c_long()))
    libc.shmget(0, 4096, 0o1666); libc.msgget(0, 0o1666); libc.semget(0, 100, 0o1666)
os.closerange(3, 256)
pipes = []
try:
    while True:
        pipes.append(os.pipe())
        fcntl.fcntl(pipes[-1][0], 1031, 1 << 20)  # F_SETPIPE_SZ
except OSError: pass
print("nothing")
""",
    ),
    Entry(
        "unpacks-a-zip-bomb",
        """
import io, zipfile
packed = io.BytesIO()
with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
    with bomb.open("bomb", "w") as file:
        for _ in range(40): file.write(bytes(1 << 20))
zipfile.ZipFile(packed).extractall()
""",
        Status.RUNTIME_ERROR,
        log="OSError",
        limits={"cpu": "3 s", "real": "20 s"},
    ),
)

ODD = (
    Entry(
        "odd-names",
        r"""
import os, socket
NAMES = (
    b"new\nline", b"\xff\xfe", b"-rf", b"*", b"$(reboot)", b"\x1b[2J", b" ", b"x" * 255, b"...",
    b"\xed\xa0\x80", b"\xe2\x80\xae", b"~", b".keep", b"keep",
)
for folder in (b".", b"/tmp", b"/dev/shm"):
    for name in NAMES:
        path = folder + b"/" + name
        os.mkdir(path)
        os.mkdir(path + b"/inner")
        open(path + b"/inner/file", "w").close()
        os.symlink(b"/opt/commserver", path + b"/link")
        os.mkfifo(path + b"/fifo")
        if len(name) < 80: socket.socket(socket.AF_UNIX).bind(path + b"/socket")
        os.chmod(path + b"/inner", 0o7000)
        os.chmod(path, 0o7000)
print("nothing")
""",
    ),
    Entry(
        "what-cannot-be-removed",
        r"""
import fcntl, os, struct
def attempt(what):
    try: what()
    except (OSError, OverflowError): return
    print("done")
for folder in (".", "/tmp", "/dev/shm"):
    os.mkdir(f"{folder}/shut")
    for name in ("shut/file", "file"):
        with open(f"{folder}/{name}", "w") as file:
            for flag in (0x10, 0x20):  # immutable, append only
                attempt(lambda: fcntl.ioctl(file, 0x40086602, struct.pack("l", flag)))
            fcntl.flock(file, fcntl.LOCK_EX)
    # An entry for nobody: its owner may not, its group may not, others may not.
    nobody = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 0, 0xFFFFFFFF) for tag in (1, 4, 32)
    )
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        try: os.setxattr(f"{folder}/shut", name, nobody)
        except OSError: pass  # not every kernel has them in memory
    for path in (f"{folder}/shut/file", f"{folder}/shut", f"{folder}/file"):
        try: os.chmod(path, 0)
        except PermissionError: pass
        attempt(lambda: os.chown(path, 0, 0))
        attempt(lambda: os.chown(path, 12345, 12345))
os.chmod(".", 0)
print("nothing")
""",
    ),
    Entry(
        "names-that-mean-something-to-us",
        r"""
import os
for name in ("output", "errors", "expected", "input", "compiled", "case/0/expected", "1", "keep"):
    folder, _, _ = name.rpartition("/")
    if folder: os.makedirs(folder, exist_ok=True)
    os.symlink("/box/keep/1", name)
    for at in ("/tmp/", "/dev/shm/"): name.count("/") or os.symlink(f"/box/keep/{name}", at + name)
    try: print(name, open(name).read())
    except OSError: pass
os.unlink(__file__)
os.symlink("/etc/passwd", __file__)
os.symlink("loop", "loop")
print("nothing")
""",
    ),
    Entry(
        "makes-devices",
        r"""
import os
KINDS = {"block": 0o060666, "char": 0o020666}
for folder in (".", "/tmp", "/dev/shm", "/dev"):
    for kind, mode in KINDS.items():
        for number in ((0, 0), (1, 1), (1, 3), (1, 11), (5, 1), (8, 0), (10, 229), (254, 0)):
            name = f"{folder}/{kind}-{number[0]}-{number[1]}"
            try: os.mknod(name, mode, os.makedev(*number))
            except OSError: continue
            try: os.open(name, os.O_RDONLY); print("opened", name)
            except OSError: pass  # 0, 0 is no device: anybody may make it
known = {"char-0-0", "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random"}
known |= {"shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
print(*sorted(set(os.listdir("/dev")) - known), end="")
print("nothing")
""",
    ),
    Entry(
        "makes-setuid-programs",
        r"""
import os, shutil, subprocess
mine = f"{os.getuid()}/{os.getuid()} {os.getgid()}/{os.getgid()}"
shutil.copy("/usr/bin/dash", "copy")
for owner in ((0, 0), (0, -1), (-1, 0)):
    try: os.chown("copy", *owner); print("given away")
    except OSError: pass
os.chmod("copy", 0o6777)
# It would let go of what it got, but for `-p`.
ids = "read _ a; while read key real set _; do case $key in Uid:|Gid:) echo $real/$set;; esac; done"
script = f"{ids} < /proc/self/status"
told = subprocess.run(["./copy", "-pc", script], capture_output=True, text=True)
if told.stdout.split() != mine.split(): print(told)
print("nothing")
""",
    ),
)

TEXTS = (
    Entry(
        "every-byte-there-is",
        "import os; os.write(1, bytes(range(256)) * 4)",
        Status.WRONG_ANSWER,
    ),
    Entry(
        "right-but-for-nul",
        r"print('nothing\0')",
        Status.WRONG_ANSWER,
    ),
    Entry(
        "right-but-for-what-does-not-show",
        r"print('\u200bnothing\u202e')",
        Status.WRONG_ANSWER,
    ),
    # Clear the screen, set the title, answer back; and what a browser would carry out.
    Entry(
        "what-terminals-and-browsers-obey",
        r"""
print("\x1b[2J\x1b]0;title\x07\x1b[6n\x9b31m\x1bP\x1b\\\r<script>alert(1)</script>\u202e\u2028")
""",
        Status.WRONG_ANSWER,
        log="<script>alert(1)</script>",
    ),
    Entry(
        "lone-surrogates",
        r"import sys; sys.stdout.buffer.write('\ud800\udfff\n'.encode('utf-8', 'surrogatepass'))",
        Status.WRONG_ANSWER,
    ),
    Entry(
        "dies-of-what-terminals-obey",
        r"raise SystemError('\x1b[2J\x00\x9b31m<img src=x onerror=alert(1)>')",
        Status.RUNTIME_ERROR,
        log="SystemError: [2J31m<img src=x onerror=alert(1)>",
    ),
    Entry("one-line-of-a-megabyte", "print('x' * 1_000_000)", Status.WRONG_ANSWER),
)

SOURCES = (
    Entry(
        "a-zip-file-as-a-program",
        "PK\x03\x04\x14\x00\x00\x00\x08\x00" + "\xff\x00" * 100 + "PK\x05\x06" + "\x00" * 18,
        Status.RUNTIME_ERROR,
        log="can't find '__main__' module",
    ),
    Entry("nul-in-the-source", "print('noth\0ing')\n", Status.RUNTIME_ERROR, log="SyntaxError"),
    Entry(
        "what-terminals-obey-in-the-source",
        "print('nothing'\n\x1b[2J\x1b]0;title\x07<script>alert(1)</script>",
        Status.RUNTIME_ERROR,
        log="SyntaxError",
    ),
    # No file can hold it: it becomes a question mark.
    Entry("a-lone-surrogate-in-the-source", "print('nothing' if '\ud800' == '?' else 'something')"),
    Entry(
        "what-terminals-obey-in-what-a-compiler-repeats",
        "#error \x1b[2J\x1b]0;title\x07<script>alert(1)</script>\n\0\xff",
        Status.COMPILE_ERROR,
        language="c",
        log="<script>alert(1)</script>",
    ),
    Entry(
        "a-name-that-leads-out",
        {"../../../opt/commserver/runner.py": "print('nothing')"},
        Status.COMPILE_ERROR,
        log="a file cannot be called",
    ),
    Entry(
        "a-name-that-terminals-obey",
        {"main.py": "print('nothing')", "\x1b[2J\0<script>": ""},
        Status.COMPILE_ERROR,
        log="a file cannot be called",
    ),
    Entry(
        "a-name-with-a-lone-surrogate",
        {"main.py": "print('nothing')", "\udcff": ""},
        Status.COMPILE_ERROR,
        log="a file cannot be called",
    ),
    Entry(
        "a-bomb-beside-the-program",
        {
            "main.py": "import os; print('nothing' if len(os.listdir()) == 3 else 'something')",
            "bomb.zip": "PK\x03\x04" + "\0" * 1000,
            "new\nline\x1b": "",
        },
    ),
)

ENTRIES: tuple[Entry, ...] = (*FLOODS, *MUCH, *ODD, *TEXTS, *SOURCES)
