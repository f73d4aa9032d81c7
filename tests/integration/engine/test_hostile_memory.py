"""Programs that want memory, wherever it is kept."""

from dataclasses import replace

import pytest

from commserver.core.execution import MIB, Case, Flag, Limits, Role, Stage
from tests.integration.engine.conftest import Lab, check_all_is_well, python

pytestmark = pytest.mark.docker

LIMITS = Limits(cpu=5.0, real=30.0)


async def test_touched_memory_is_a_memory_verdict_and_not_a_time_out(lab: Lab) -> None:
    reports = await lab.run(
        "data = b'x' * (8 << 30)",
        "data = []\nwhile True: data.append(bytearray(b'x' * (1 << 20)))",
        # Only in a child, while the parent waits.
        """
import os
if os.fork() == 0:
    data = b"x" * (200 << 20)
    os._exit(0)
os.wait()
""",
        # Shared by two.
        """
import mmap
area = mmap.mmap(-1, 200 << 20)
while True: area.write(b"x" * (1 << 20))
""",
        # In a file that no file system shows, and that is mapped by nobody.
        """
import os, time
for _ in range(4):
    file = os.memfd_create("x")
    for _ in range(20): os.write(file, b"x" * (1 << 20))
time.sleep(5)
""",
        # The killed are replaced, for somebody always tries again.
        """
import os
while True:
    if os.fork() == 0:
        data = b"x" * (200 << 20)
        os._exit(0)
    os.wait()
""",
        limits=LIMITS,
    )

    for ran in reports:
        assert Flag.MEMORY in ran.report.flags
        assert not ran.report.flags & (Flag.CPU | Flag.REAL)
        assert ran.report.stopped


async def test_memory_that_nobody_touches_is_free(lab: Lab) -> None:
    (ran,) = await lab.run(
        """
import mmap
area = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
area[5 << 30] = 1
print(len(area) >> 30)
"""
    )

    assert (ran.end, ran.stdout) == ((0, 0), b"64\n")
    assert ran.report.memory < 32 * MIB


async def test_files_in_memory_are_memory(lab: Lab) -> None:
    fill = """
import sys
size = 0
try:
    with open(PATH, "wb", buffering=0) as file:
        while True: size += file.write(b"x" * 65536)
except OSError as error:
    print(error.strerror, size >> 20)
"""
    paths = ("'/dev/shm/full'", "'/tmp/full'", "'full'")
    shm, tmp, work, together, nothing = await lab.run(
        *(fill.replace("PATH", path) for path in paths),
        "".join(fill.replace("PATH", path) for path in paths)
        + "import time; data = b'x' * (12 << 20); time.sleep(5)",
        "pass",
        limits=Limits(cpu=2.0, real=30.0, file_size=40 * MIB),
    )

    assert 0 < nothing.report.memory < 16 * MIB
    assert (shm.report.exit_code, shm.stdout) == (0, b"No space left on device 8\n")
    assert 7 * MIB < shm.report.memory < 24 * MIB
    assert (tmp.report.exit_code, tmp.stdout) == (0, b"No space left on device 16\n")
    assert 15 * MIB < tmp.report.memory < 32 * MIB
    assert work.report.exit_code == 0
    # Where uids are the walls, it shares the file system with what we keep.
    assert 31 <= int(work.stdout.removeprefix(b"No space left on device ")) <= 36
    assert 31 * MIB < work.report.memory < 52 * MIB
    assert together.end == (-9, Flag.MEMORY)


async def test_a_limit_below_the_class_is_kept(lab: Lab) -> None:
    above, below = await lab.run(
        "import time; data = b'x' * (24 << 20); time.sleep(5)",
        "import time; data = b'x' * (4 << 20); time.sleep(0.5); print(len(data))",
        limits=Limits(memory=20 * MIB, real=30.0),
    )

    assert above.end == (-9, Flag.MEMORY)
    assert above.report.memory >= 20 * MIB
    assert (below.end, below.stdout) == ((0, 0), b"4194304\n")
    assert 4 * MIB < below.report.memory < 20 * MIB


async def test_deep_recursion_is_the_programs_own_crash(lab: Lab) -> None:
    (in_python,) = await lab.run("def f(): f()\nf()")
    in_c = await lab.compile(
        "int f(int n) { return n ? f(n + 1) + n : n; } int main() { return f(1); }", ()
    )

    assert in_python.end == (1, 0)
    assert b"RecursionError" in in_python.stderr
    (crash,) = in_c.cases
    assert crash.end == (-11, 0) or Flag.MEMORY in crash.report.flags


async def test_locked_memory_counts_too(lab: Lab) -> None:
    compiled = await lab.compile(
        """
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/mman.h>
        int main(void) {
            printf("%d\\n", mlockall(MCL_CURRENT | MCL_FUTURE)); fflush(stdout);
            for (;;) { char *p = malloc(1 << 20); if (!p) return 1; memset(p, 1, 1 << 20); }
        }
        """,
        (),
        limits=LIMITS,
    )

    (case,) = compiled.cases
    assert Flag.MEMORY in case.report.flags or case.report.exit_code == 1


SOCKETS = """
import os, socket, time
# Where uids are the walls, this makes the runner as good a victim of the kernel as this is.
try: open("/proc/self/oom_score_adj", "w").write("0")
except OSError: pass
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
time.sleep(1)
"""
"""Fills what the kernel keeps for it, far beyond what the container has."""


async def test_memory_of_the_kernels_is_bounded(lab: Lab) -> None:
    reports = await lab.run(
        # Full pipes, of the largest size that there is, in many processes.
        """
import fcntl, os
for _ in range(5): os.fork()
try:
    while True:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        fcntl.fcntl(writer, 1031, 1 << 20)
        os.write(writer, b"x" * (1 << 20))
except OSError: pass
import time; time.sleep(0.2)
""",
        SOCKETS,
        "print('well')",
        limits=Limits(cpu=2.0, real=5.0),
    )

    pipes, sockets, well = reports
    assert pipes.report.flags or pipes.report.exit_code == 0
    assert (sockets.end, sockets.report.stopped) == ((-9, Flag.MEMORY), True)
    assert well.stdout == b"well\n"


async def test_memory_that_no_process_shows_ends_learners_and_never_a_grader(lab: Lab) -> None:
    files: dict[str, str | bytes] = {
        "sockets": SOCKETS,
        "waits": "import time; time.sleep(1.5)",
        "unmapped": """
import os, time
kept = [os.memfd_create("kept") for _ in range(8)]
for fd in kept: os.posix_fallocate(fd, 0, 32 << 20)
time.sleep(1.5)
""",
    }
    limits = Limits(cpu=2.0, real=10.0)
    judge = replace(python("waits", limits=limits), name="judge", role=Role.GRADER)
    crowds = [("sockets",), ("sockets", "waits"), ("unmapped", "waits")]

    report = await lab.execute(
        *(
            Case(
                f"{number}",
                (Stage("all", (judge, *(python(name, limits=limits) for name in crowd))),),
            )
            for number, crowd in enumerate(crowds)
        ),
        files=files,
    )

    for case in report.cases:
        grader, hog, *_ = case.stages[0].processes
        assert (grader.exit_code, grader.flags) == (0, 0)
        assert (hog.exit_code, hog.flags, hog.stopped) == (-9, Flag.MEMORY, True)


async def test_the_next_submission_is_judged_as_ever(lab: Lab) -> None:
    await check_all_is_well(lab)
