"""What is reported of programs that want time and processes, beyond their verdicts."""

import pytest

from commserver.core.execution import Flag, Limits
from commserver.engine.frames import Walls
from tests.lab import BURNING, Lab

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

KILLED = -9


async def test_what_burns_is_ended_by_its_cpu_limit(lab: Lab) -> None:
    burning = await lab.run(
        # The parent sleeps, the children burn, and nobody waits for them.
        """
import os, time
for _ in range(3):
    if os.fork() == 0:
        while True: pass
time.sleep(60)
""",
        # Each child is gone before it is seen, and nobody is told what it used.
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
        limits=BURNING,
    )

    for ran in burning:
        assert ran.end == (KILLED, Flag.CPU)
        assert ran.report.stopped
        assert 0.33 < ran.report.cpu < 0.6


async def test_a_program_may_go_on_a_little_beyond_its_limit(lab: Lab) -> None:
    (ran,) = await lab.run(
        """
import time
while time.process_time() < 0.62: pass
print("by itself")
""",
        limits=Limits(cpu=0.6, real=30.0),
    )

    assert (ran.end, ran.report.stopped, ran.stdout) == ((0, Flag.CPU), False, b"by itself\n")


async def test_what_waits_is_ended_by_its_real_limit(lab: Lab) -> None:
    (waiting,) = await lab.run("import time; time.sleep(60)", limits=Limits(cpu=0.3, real=0.3))

    assert waiting.end == (KILLED, Flag.REAL)
    assert waiting.report.stopped
    assert waiting.report.real >= 0.3


async def test_busy_threads_are_added_up(lab: Lab) -> None:
    compiled = await lab.compile(
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
        limits=BURNING,
    )

    (case,) = compiled.cases
    assert case.end == (KILLED, Flag.CPU)
    assert 0.33 < case.report.cpu < 0.6


async def test_a_fork_bomb_does_not_reach_the_next_case(lab: Lab) -> None:
    bomb, after = await lab.run(
        """
import os
try:
    while True: os.fork()
except OSError: pass
while True: pass
""",
        # By then it is the only one: whatever it forks has a place, up to its own limit.
        """
import os, time
for _ in range(10):
    if os.fork() == 0: time.sleep(60)
print(len(os.listdir("/proc/self/task")), "free")
""",
        limits=Limits(cpu=0.3, real=30.0, processes=30),
    )

    assert (bomb.end, bomb.report.stopped) == ((KILLED, Flag.CPU), True)
    assert (after.end, after.stdout, after.stderr) == ((0, 0), b"1 free\n", b"")


async def test_processes_are_bounded(lab: Lab) -> None:
    (ran,) = await lab.run(
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

    assert ran.end == (0, 0)  # the sleepers are not waited for
    # Itself is one of them. Where uids are the walls, the container's bound is all there is.
    assert 19 <= int(ran.stdout) <= (19 if lab.walls is Walls.NAMESPACES else 30)


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
        # The runner, its own process in the cell if there is one, and the program.
        """
import os
names = [name for name in os.listdir("/proc") if name.isdigit()]
print(len(names))
""",
    )

    assert (leaver.end, leaver.stdout) == ((3, 0), b"gone\n")
    assert after.stdout == (b"3\n" if lab.walls is Walls.NAMESPACES else b"2\n")


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

    assert exits.end == (3, 0)
    assert aborts.end == (-6, 0)
    assert killed.end == (KILLED, 0)
    assert not killed.report.stopped
    assert denied_call.end == (-31, Flag.SECURITY)
    assert broken_pipe.end == (-13, 0)
