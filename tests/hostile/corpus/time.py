"""Programs that want time or processes."""

from commserver.core.verdicts import Status
from tests.hostile.entries import Entry

BURNING = {"cpu": "0.2 s", "real": "6 s"}
"""Limits of what burns: however busy the machine is, the cpu limit is the first that it meets."""

WAITING = {"cpu": "1 s", "real": "0.3 s"}
"""Limits of what waits: long before it has used its cpu, its real time is over."""

BOMBING = {"cpu": "0.2 s", "real": "6 s", "memory": "448 MiB"}
"""Limits of what forks in vain: what the kernel has not yet cleared away of that is memory too."""

_BURNS = (
    Entry("endless-loop", "while True: pass", Status.CPU_TIME, limits=BURNING),
    Entry(
        "endless-system-calls",
        "import os\nwhile True: os.getppid()",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    # In one call of C, which no handler of a signal interrupts.
    Entry("one-long-operation", "print(9 ** 9 ** 9)", Status.CPU_TIME, limits=BURNING),
    Entry(
        "catastrophic-regular-expression",
        "import re; re.match('(a|a)*$', 'a' * 60 + 'b')",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "burns-with-all-signals-ignored",
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "storm-of-timers",
        """
import signal
for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
    signal.signal(number, lambda number, frame: None)
for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
    signal.setitimer(timer, 1e-6, 1e-6)
while True: signal.pause()
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "executes-itself-for-ever",
        "import os\nos.execv('/usr/bin/python3', ['python3', '-S', 'main.py'])",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "busy-threads",
        """
#include <pthread.h>
#include <unistd.h>
static void *burn(void *_) { for (;;) ; }
int main(void) {
    pthread_t id;
    for (int i = 0; i < 8; i++) pthread_create(&id, 0, burn, 0);
    sleep(60);
}
""",
        Status.CPU_TIME,
        language="c",
        limits=BURNING,
    ),
    Entry(
        "first-thread-ends-and-another-burns",
        """
#include <pthread.h>
static void *burn(void *_) { for (;;) ; }
int main(void) {
    pthread_t id;
    pthread_create(&id, 0, burn, 0);
    pthread_exit(0);
}
""",
        Status.CPU_TIME,
        language="c",
        limits=BURNING,
    ),
    Entry(
        "children-burn-while-the-parent-sleeps",
        """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True: pass
time.sleep(60)
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "a-daemon-burns-while-the-parent-sleeps",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    os.closerange(0, 256)
    while True: pass
os.wait()
time.sleep(60)
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    # Each child is gone before it is seen, and nobody is told what it used.
    Entry(
        "children-that-nobody-waits-for",
        """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if os.fork() == 0:
        end = time.process_time() + 0.004
        while time.process_time() < end: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    # Each leaves its work to a child and ends: an orphan, of no age when it is looked at.
    Entry(
        "chain-of-orphans",
        """
import os, time
if os.fork(): time.sleep(60)
while True:
    end = time.process_time() + 0.004
    while time.process_time() < end: pass
    if os.fork(): os._exit(0)
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "storm-of-spawned-programs",
        """
import os
while True:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
)

_BOMBS = (
    Entry(
        "fork-bomb",
        "#include <unistd.h>\nint main(void) { for (;;) fork(); }",
        Status.CPU_TIME,
        language="c",
        limits=BOMBING,
    ),
    Entry(
        "fork-bomb-of-a-shell",
        """
import os
bomb = "exec 2>/dev/null; bomb(){ bomb|bomb& }; bomb & while :; do :; done"
os.execv("/bin/sh", ["sh", "-c", bomb])
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    # Each in a session of its own, and most leave their children to whoever takes orphans.
    Entry(
        "fork-bomb-of-daemons",
        """
#include <unistd.h>
int main(void) {
    if (fork()) for (;;) pause();
    for (;;) {
        pid_t child = fork();
        if (child == 0) setsid();
        else if (child > 0 && getpid() % 7) _exit(0);
    }
}
""",
        Status.CPU_TIME,
        language="c",
        limits=BOMBING,
    ),
    # A parent cannot run, nor be stopped, until its child executes something or ends.
    Entry(
        "bomb-of-vfork",
        "#include <unistd.h>\nint main(void) { for (;;) vfork(); }",
        Status.CPU_TIME,
        language="c",
        limits=BOMBING,
    ),
    # Siblings rather than children: they are not their maker's to wait for.
    Entry(
        "bomb-of-siblings",
        """
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { for (;;) syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0); }
""",
        Status.CPU_TIME,
        language="c",
        limits=BOMBING,
    ),
    Entry(
        "bomb-of-threads",
        """
import threading, time
while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
        Status.RUNTIME_ERROR,
        log="can't start new thread",
    ),
    Entry(
        "bomb-of-sleepers",
        """
import os, time
while True:
    if os.fork() == 0: time.sleep(60)
""",
        Status.RUNTIME_ERROR,
        log="BlockingIOError",
    ),
    Entry(
        "bomb-of-zombies",
        """
import os
while True:
    if os.fork() == 0: os._exit(0)
""",
        Status.RUNTIME_ERROR,
        log="BlockingIOError",
    ),
    # Nobody who is left can be waited for, and nobody waits.
    Entry(
        "fork-bomb-that-is-left-behind",
        """
import os
if os.fork():
    print("nothing", flush=True)
    os._exit(0)
try:
    while True: os.fork()
except OSError: pass
while True: pass
""",
    ),
    # Many more than may live at once: they are buried while the program goes on.
    Entry(
        "orphans-by-the-hundred",
        """
import os, time
for _ in range(100):
    child = os.fork()
    if child == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.001)
print("nothing")
""",
        limits={"cpu": "5 s", "real": "20 s"},
    ),
    Entry(
        "zombies-are-left-behind",
        """
import os
for _ in range(20):
    if os.fork() == 0: os._exit(0)
print("nothing")
""",
    ),
)

_WAITS = (
    Entry("sleeps", "import time; time.sleep(60)", Status.REAL_TIME, limits=WAITING),
    Entry(
        "sleeps-with-all-signals-ignored",
        """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
time.sleep(60)
""",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "waits-for-itself",
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "stops-itself",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "stops-its-whole-group",
        """
import os, signal, time
for _ in range(5):
    if os.fork() == 0: time.sleep(60)
os.kill(0, signal.SIGSTOP)
""",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "is-stopped-by-its-child",
        """
import os, signal, time
if os.fork() == 0:
    while True: os.kill(os.getppid(), signal.SIGSTOP); time.sleep(0.01)
time.sleep(60)
""",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "waits-in-vfork",
        "#include <unistd.h>\nint main(void) { if (vfork() == 0) for (;;) pause(); }",
        Status.REAL_TIME,
        language="c",
        limits=WAITING,
    ),
    # An end of file is not an end.
    Entry(
        "closes-its-output-and-goes-on",
        "import os, time\nprint('nothing', flush=True)\nos.close(1)\nos.close(2)\ntime.sleep(60)",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "closes-everything-and-goes-on",
        "import os, signal\nos.closerange(0, 256)\nsignal.pause()",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    Entry(
        "waits-for-a-daemon",
        """
import os, time
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    time.sleep(60)
os.close(writer)
os.read(reader, 1)
""",
        Status.REAL_TIME,
        limits=WAITING,
    ),
    # What it leaves behind holds its outputs open.
    Entry(
        "leaves-a-daemon",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    time.sleep(60)
os.wait()
print("nothing")
""",
    ),
    Entry(
        "leaves-a-burner",
        """
import os
if os.fork() == 0:
    while True: pass
print("nothing")
""",
    ),
    Entry(
        "leaves-what-is-stopped",
        """
import os, signal
for _ in range(5):
    if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
print("nothing")
""",
    ),
)

_SIGNALS = (
    Entry(
        "kills-all-that-it-can",
        """
import os, signal, time
if os.fork() == 0: time.sleep(60)
for target in (-1, 1, os.getppid()):
    try: os.kill(target, signal.SIGKILL)
    except (PermissionError, ProcessLookupError): pass
print("nothing")
""",
    ),
    Entry(
        "is-killed-by-its-child",
        """
import os, signal, time
if os.fork() == 0: os.kill(-1, signal.SIGKILL)
time.sleep(60)
""",
        Status.RUNTIME_ERROR,
        log="ended by SIGKILL",
    ),
    Entry(
        "kills-its-group",
        """
import os, signal, time
if os.fork() == 0: time.sleep(60)
os.kill(0, signal.SIGKILL)
""",
        Status.RUNTIME_ERROR,
        log="ended by SIGKILL",
    ),
    Entry(
        "sends-every-signal-to-whoever-is-first",
        """
import os, signal
for number in range(1, 65):
    for target in {1, os.getppid()}:
        try: os.kill(target, number)
        except (PermissionError, OSError): pass
print("nothing")
""",
    ),
    # As if its limit had been another one.
    Entry(
        "sends-itself-sigxcpu",
        "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)",
        Status.RUNTIME_ERROR,
        log="ended by SIGXCPU",
    ),
    Entry(
        "sets-an-alarm-and-sleeps",
        "import signal, time\nsignal.alarm(1)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "time.sleep(60)",
        Status.RUNTIME_ERROR,
        log="ended by SIGALRM",
    ),
)

_PRIVILEGES = (
    # The first that it sees is ours: in namespaces one of its own uid, which can be bothered.
    Entry(
        "bothers-whoever-is-first",
        """
import os, resource
for pid in {1, os.getppid()}:
    try:
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        for name in dir(resource):
            if name.startswith("RLIMIT_"): resource.prlimit(pid, getattr(resource, name), (0, 0))
    except (PermissionError, ProcessLookupError): pass
print("nothing")
""",
    ),
    Entry(
        "wants-precedence",
        """
import os
wanted = {
    "nice": lambda: os.nice(-20),
    "group": lambda: os.setpriority(os.PRIO_PGRP, 0, -20),
    "user": lambda: os.setpriority(os.PRIO_USER, 0, -20),
    "fifo": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
    "round robin": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
}
got = []
for name, ask in wanted.items():
    try: ask()
    except PermissionError: continue
    except OSError as error: name += f" ({error.strerror})"
    got.append(name)
print(*got or ["nothing"])
""",
    ),
    Entry(
        "wants-every-core",
        """
import os
os.sched_setaffinity(0, range(1024))
for _ in range(2): os.fork()
while True: pass
""",
        Status.CPU_TIME,
        limits=BURNING,
    ),
    Entry(
        "wants-higher-limits",
        """
import resource
wanted = {
    name: getattr(resource, name)
    for name in ("RLIMIT_FSIZE", "RLIMIT_STACK", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NICE")
}
got = []
for name, what in wanted.items():
    hard = resource.getrlimit(what)[1]
    try: resource.setrlimit(what, (hard, hard + 1))
    except ValueError: continue
    got.append(name)
print(*got or ["nothing"])
""",
    ),
)

ENTRIES: tuple[Entry, ...] = (*_BURNS, *_BOMBS, *_WAITS, *_SIGNALS, *_PRIVILEGES)
