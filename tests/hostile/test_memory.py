"""What is reported of programs that want memory, and who is ended for it among several."""

from dataclasses import replace

import pytest

from commserver.core.execution import MIB, Case, Flag, Limits, Role, Stage
from tests.lab import Lab, python

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


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
    shm, tmp, work, nothing = await lab.run(
        *(fill.replace("PATH", path) for path in paths),
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
time.sleep(0.5)
"""
"""Fills what the kernel keeps for it, far beyond what the container has."""


async def test_memory_that_no_process_shows_ends_learners_and_never_a_grader(lab: Lab) -> None:
    files: dict[str, str | bytes] = {
        "sockets": SOCKETS,
        "waits": "import time; time.sleep(0.5)",
        "unmapped": """
import os, time
kept = [os.memfd_create("kept") for _ in range(8)]
for fd in kept: os.posix_fallocate(fd, 0, 32 << 20)
time.sleep(0.5)
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
