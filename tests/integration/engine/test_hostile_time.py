"""Programs that want time and processes: each ends with its exact verdict."""

import pytest

from commserver.core.execution import Flag, Limits
from tests.integration.engine.conftest import BRIEF, Lab

pytestmark = pytest.mark.docker

KILLED = -9


async def test_what_burns_is_ended_by_its_cpu_limit(lab: Lab) -> None:
    loop, children, ignoring = await lab.run(
        "while True: pass",
        # The parent sleeps, the children burn, and nobody waits for them.
        """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True: pass
time.sleep(60)
""",
        """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
""",
        limits=BRIEF,
    )

    for report in (loop, children, ignoring):
        assert (report.exit_code, report.flags) == (KILLED, Flag.CPU)
        assert 0.3 < report.cpu < 0.6
        assert report.real < 1.0


async def test_what_waits_is_ended_by_its_real_limit(lab: Lab) -> None:
    reports = await lab.run(
        "import time; time.sleep(60)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        # Both outputs closed: an end of file is not an end.
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import os; os.closerange(0, 256)\nimport signal; signal.pause()",
        """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
time.sleep(60)
""",
        limits=Limits(cpu=0.3, real=0.4),
    )

    for report in reports:
        assert (report.exit_code, report.flags) == (KILLED, Flag.REAL)
        assert 0.4 <= report.real < 0.6
        assert report.cpu < 0.2


async def test_busy_threads_are_added_up(lab: Lab) -> None:
    report = await lab.compile(
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
        (),
        flags=("-pthread",),
        limits=BRIEF,
    )

    (case,) = report.cases
    assert (case.exit_code, case.flags) == (KILLED, Flag.CPU)
    assert 0.3 < case.cpu < 0.6


async def test_a_fork_bomb_harms_nobody(lab: Lab) -> None:
    polite, rude, after = await lab.run(
        """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
        # Each child leaves its parent at once: they are nobody's but ours.
        """
import os
os.setsid()
while True:
    try:
        if os.fork(): os._exit(0) if os.getpid() % 7 else None
    except OSError: pass
""",
        "import os; print(os.listdir('/proc/self/task'), os.fork() >= 0)",
        limits=Limits(cpu=0.3, real=1.0, processes=30),
    )

    assert polite.flags
    assert not polite.flags & ~(Flag.CPU | Flag.REAL)
    assert polite.real < 1.5
    assert rude.real < 1.5
    assert (after.exit_code, after.flags, after.stderr) == (0, Flag(0), b"")


async def test_processes_are_bounded(lab: Lab) -> None:
    (report,) = await lab.run(
        """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except BlockingIOError:
    print(count)
""",
        limits=Limits(processes=20),
    )

    assert (report.exit_code, report.stdout) == (0, b"19\n")  # and itself
    assert report.real < 1.0  # the sleepers are not waited for


async def test_the_dead_are_buried_while_a_program_runs(lab: Lab) -> None:
    zombies, orphans = await lab.run(
        # Its own zombies, which nobody but itself can bury, count as processes.
        """
import os
for _ in range(10):
    if os.fork() == 0: os._exit(0)
print("zombies")
""",
        # Orphans are ours: many more than may live at once.
        """
import os, time
for _ in range(100):
    child = os.fork()
    if child == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.002)
print("orphans")
""",
    )

    assert (zombies.exit_code, zombies.flags, zombies.stdout) == (0, Flag(0), b"zombies\n")
    assert (orphans.exit_code, orphans.flags, orphans.stdout) == (0, Flag(0), b"orphans\n")


async def test_signals_reach_only_what_is_the_learners(lab: Lab) -> None:
    (report,) = await lab.run(
        """
import os, time
if os.fork() == 0: time.sleep(60)
for number in (1, 2, 9, 15, 17, 19):
    try: os.kill(1, number)
    except PermissionError: print(number, "denied")
os.kill(-1, 9)
print("still here")
"""
    )

    assert (report.exit_code, report.flags) == (0, Flag(0))
    assert report.stdout.splitlines() == [
        *(b"%d denied" % number for number in (1, 2, 9, 15, 17, 19)),
        b"still here",
    ]


async def test_a_daemon_that_holds_the_pipes_is_not_waited_for(lab: Lab) -> None:
    leaver, after = await lab.run(
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("gone", flush=True)
os._exit(3)
""",
        "import os; print({*filter(str.isdigit, os.listdir('/proc'))} == {'1', str(os.getpid())})",
    )

    assert (leaver.exit_code, leaver.flags, leaver.stdout) == (3, Flag(0), b"gone\n")
    assert leaver.real < 0.5
    assert after.stdout == b"True\n"


async def test_ends_are_told_apart(lab: Lab) -> None:
    exits, aborts, killed, denied_call, broken_pipe = await lab.run(
        "raise SystemExit(3)",
        "import os; os.abort()",
        "import os; os.kill(os.getpid(), 9)",
        "import os; os.kill(os.getpid(), 31)",
        # SIGPIPE is as it should be for a program: not ignored, though Python ignores it.
        """
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
a, b = os.pipe(); os.close(a); os.write(b, b"x")
""",
    )

    assert (exits.exit_code, exits.flags) == (3, Flag(0))
    assert (aborts.exit_code, aborts.flags) == (-6, Flag(0))
    assert (killed.exit_code, killed.flags) == (KILLED, Flag(0))
    assert (denied_call.exit_code, denied_call.flags) == (-31, Flag.SECURITY)
    assert (broken_pipe.exit_code, broken_pipe.flags) == (-13, Flag(0))
