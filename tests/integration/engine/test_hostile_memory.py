"""Programs that want memory, wherever it is kept."""

import pytest

from commserver.core.execution import MIB, Flag, Limits
from tests.integration.engine.conftest import Lab

pytestmark = pytest.mark.docker

LIMITS = Limits(cpu=5.0, real=10.0)


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

    for report in reports:
        assert Flag.MEMORY in report.flags
        assert not report.flags & (Flag.CPU | Flag.REAL)
        assert report.real < 2.0


async def test_memory_that_nobody_touches_is_free(lab: Lab) -> None:
    (report,) = await lab.run(
        """
import mmap
area = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
area[5 << 30] = 1
print(len(area) >> 30)
"""
    )

    assert (report.exit_code, report.flags, report.stdout) == (0, Flag(0), b"64\n")
    assert report.memory < 32 * MIB


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
        + "import time; data = b'x' * (12 << 20); time.sleep(0.2)",
        "pass",
    )

    assert nothing.memory < 16 * MIB
    assert (shm.exit_code, shm.stdout) == (0, b"No space left on device 8\n")
    assert 7 * MIB < shm.memory < 24 * MIB
    assert (tmp.exit_code, tmp.stdout) == (0, b"No space left on device 16\n")
    assert 15 * MIB < tmp.memory < 32 * MIB
    assert work.exit_code == 0
    assert work.stdout in (b"No space left on device 32\n", b"File too large 32\n")
    assert 31 * MIB < work.memory < 48 * MIB
    assert (together.exit_code, together.flags) == (-9, Flag.MEMORY)


async def test_a_limit_below_the_class_is_kept(lab: Lab) -> None:
    above, below = await lab.run(
        "import time; data = b'x' * (24 << 20); time.sleep(0.2)",
        "import time; data = b'x' * (4 << 20); time.sleep(0.2); print(len(data))",
        limits=Limits(memory=20 * MIB),
    )

    assert (above.exit_code, above.flags) == (-9, Flag.MEMORY)
    assert above.memory >= 20 * MIB
    assert (below.exit_code, below.flags, below.stdout) == (0, Flag(0), b"4194304\n")
    assert 4 * MIB < below.memory < 20 * MIB


async def test_deep_recursion_is_the_programs_own_crash(lab: Lab) -> None:
    (in_python,) = await lab.run("def f(): f()\nf()")
    in_c = await lab.compile(
        "int f(int n) { return n ? f(n + 1) + n : n; } int main() { return f(1); }", ()
    )

    assert (in_python.exit_code, in_python.flags) == (1, Flag(0))
    assert b"RecursionError" in in_python.stderr
    assert in_c.cases[0].exit_code == -11 or Flag.MEMORY in in_c.cases[0].flags


async def test_locked_memory_counts_too(lab: Lab) -> None:
    report = await lab.compile(
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

    assert Flag.MEMORY in report.cases[0].flags or report.cases[0].exit_code == 1


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
        # Full sockets.
        """
import os, socket, time
for _ in range(5): os.fork()
kept = []
try:
    while True:
        kept.append(socket.socketpair())
        kept[-1][0].setblocking(False)
        try:
            while True: kept[-1][0].send(b"x" * 65536)
        except BlockingIOError: pass
except OSError: pass
time.sleep(0.2)
""",
        "print('well')",
        limits=Limits(cpu=2.0, real=3.0),
    )

    for report in reports[:-1]:
        assert report.real < 3.5
        assert report.flags or report.exit_code == 0
    assert reports[-1].stdout == b"well\n"
