"""What programs are said to have had of the host's memory, and what they can have."""

import io
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import docker
import pytest
import pytest_asyncio

from commserver.core.execution import (
    MIB,
    Case,
    CaseReport,
    Flag,
    Limits,
    Placement,
    Process,
    ProcessReport,
    Stage,
)
from commserver.engine.container import SITE
from commserver.engine.frames import Walls
from commserver.engine.room import CLASSES
from commserver.engine.runner import runner
from commserver.engine.sandbox import DockerSandbox
from tests.hostile.conftest import Room
from tests.hostile.programs import BURN_C, TAKE_C, compiled, neighbours
from tests.lab import Lab, alone, outputs, python, ran

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

AMPLE = Limits(cpu=10.0, real=60.0, memory=256 * MIB, file_size=64 * MIB)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def taker(rooms: dict[str, Room]) -> bytes:
    """What takes memory in all shapes, compiled."""
    return await compiled(rooms["fresh"].sandbox, TAKE_C)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def burner(rooms: dict[str, Room]) -> bytes:
    """What keeps neighbours busy, compiled."""
    return await compiled(rooms["fresh"].sandbox, BURN_C)


def takes(shape: str, size: int, *more: str, memory: int = AMPLE.memory) -> Process:
    """A process that takes so many MiB."""
    limits = replace(AMPLE, memory=memory)
    name = " ".join((shape, f"{size}", *more))
    return Process(name, ("./take", *name.split()), limits, (Placement("take", "take"),))


def only(process: Process) -> Case:
    """A case of one process."""
    return Case(process.name, (alone(process),))


def check_memory(report: ProcessReport, size: int) -> None:
    """Check that it ended well, and that it is said to have had so many MiB."""
    assert (report.exit_code, report.flags) == (0, 0), report
    assert report.memory == pytest.approx(size * MIB, rel=0.1, abs=MIB), report


def process_of(case: CaseReport) -> ProcessReport:
    """The only process of a case."""
    return ran(case).report


async def test_memory_is_what_was_touched_whoever_did(lab: Lab, taker: bytes) -> None:
    sizes = (20, 50, 100, 200)
    processes = {
        **{takes("held", size): size for size in sizes},
        **{takes("gone", size): size for size in sizes},
        takes("freed", 50): 50,
        takes("large-pages", 50): 50,
        takes("child", 50): 50,
        takes("gone-child", 50): 50,
        takes("children", 50): 50,
        takes("threads", 50): 50,
        takes("shared", 50): 50,
        takes("inherited", 50): 50,
        takes("memfd", 50): 50,
        **{takes("file", 20, path): 20 for path in ("/tmp/file", "/dev/shm/file", "file")},
        # Mapped and not touched: as a machine for bytecode begins.
        takes("untouched", 20): 20,
        takes("reserved", 10): 10,
    }

    report = await lab.execute(*map(only, processes), files={"take": taker})

    for case, size in zip(report.cases, processes.values(), strict=True):
        check_memory(process_of(case), size)


async def test_what_is_gone_at_once_is_seen_beside_busy_neighbours(
    lab: Lab, taker: bytes, burner: bytes
) -> None:
    gone = [takes(shape, 20, f"{n}") for shape in ("gone", "gone-child", "freed") for n in range(4)]

    async with neighbours(lab.sandbox, burner):
        report = await lab.execute(*map(only, gone), files={"take": taker})

    for case in report.cases:
        check_memory(process_of(case), 20)


SEE = """
import sys, time
data = b"x" * (int(sys.argv[1]) << 20)
fields = dict(line.split(":") for line in open("/proc/self/status"))
print(sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem")))
time.sleep(0.05)
"""


async def test_files_of_the_image_are_nobodys_memory(lab: Lab) -> None:
    """Python maps some MiB of them; they are shared with every other one on this host."""
    alones = [replace(python("see", (), AMPLE, size), name=size) for size in ("0", "20", "50")]
    pair = Stage("pair", tuple(alones[:2]), (*outputs("0", "0."), *outputs("20", "20.")))

    report = await lab.execute(*map(only, alones), Case("pair", (pair,)), files={"see": SEE})

    *singles, both = report.cases
    told = [(ran(case).report, ran(case).stdout) for case in singles]
    told += [
        (process, both.stages[0].content(f"{process.name}.out"))
        for process in both.stages[0].processes
    ]
    for process, said in told:
        assert int(said) >= int(process.name) * MIB
        assert process.memory == pytest.approx(int(said), rel=0.1, abs=MIB)


async def test_each_answers_for_its_own(lab: Lab, taker: bytes) -> None:
    pairs = [
        (takes("held", 20), takes("children", 50)),
        (takes("threads", 50), takes("child", 20)),
        (takes("file", 20, "file"), takes("held", 50)),
    ]

    report = await lab.execute(
        *(Case(f"{number}", (Stage("both", pair),)) for number, pair in enumerate(pairs)),
        files={"take": taker},
    )

    for case, pair in zip(report.cases, pairs, strict=True):
        for process in pair:
            told = case.stages[0].process(process.name)
            # Where uids are the walls, files of several cannot be told apart.
            if lab.walls is Walls.NAMESPACES or process.argv[1] != "file":
                check_memory(told, int(process.argv[2]))


async def test_a_limit_between_two_classes_is_kept(lab: Lab, taker: bytes) -> None:
    limits = (20, 50, 100)
    below = [takes("held", size * 9 // 10, memory=size * MIB) for size in limits]
    above = [takes("stays", size * 11 // 10, memory=size * MIB) for size in limits]

    report = await lab.execute(*map(only, (*below, *above)), files={"take": taker})

    reports = list(map(process_of, report.cases))
    for size, passed, stopped in zip(limits, reports[:3], reports[3:], strict=True):
        check_memory(passed, size * 9 // 10)
        assert (stopped.exit_code, stopped.flags) == (-9, Flag.MEMORY)
        assert size * MIB <= stopped.memory <= 1.2 * size * MIB


OWN_LIMIT = """
import os
paths = ("memory/memory.limit_in_bytes", "memory.max")
(path,) = [path for path in paths if os.path.exists(f"/sys/fs/cgroup/{path}")]
print(open(f"/sys/fs/cgroup/{path}").read())
"""


@pytest.mark.parametrize("size", [size // MIB for size in CLASSES])
async def test_a_class_is_all_the_programs_own(lab: Lab, taker: bytes, size: int) -> None:
    below = takes("large-pages", size * 90 // 100, memory=size * MIB)
    above = takes("stays", size * 110 // 100, memory=size * MIB)

    report = await lab.execute(
        only(python("limit.py")),
        only(below),
        only(above),
        files={"limit.py": OWN_LIMIT, "take": taker},
    )

    limit, passed, stopped = report.cases
    assert int(ran(limit).stdout) >= size * MIB
    check_memory(process_of(passed), size * 90 // 100)
    assert ran(stopped).end == (-9, Flag.MEMORY)
    assert process_of(stopped).memory >= size * MIB


# --- what the kernel keeps of files -------------------------------------------------------------

LARGE = 500  # MiB
DOCKERFILE = f"""
FROM commserver/python:latest
USER 0:0
RUN head -c {LARGE}M /dev/zero > /large
"""

READ = """
import mmap, os, sys
fd = os.open("/large", os.O_RDONLY)
if sys.argv[1] == "read":
    while os.read(fd, 1 << 20): pass
else:
    data = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    assert not any(data[place] for place in range(0, len(data), mmap.PAGESIZE))
names = {"total_cache": "/sys/fs/cgroup/memory/memory.stat", "file": "/sys/fs/cgroup/memory.stat"}
for name, path in names.items():
    if os.path.exists(path):
        print(dict(line.split() for line in open(path))[name])
"""


def forget(engine: docker.APIClient, image: str) -> None:
    """Have nobody keep the large file in memory, so that what is read is the reader's."""
    layer = engine.inspect_image(f"commserver/{image}:latest")["GraphDriver"]["Data"]["UpperDir"]
    fd = os.open(f"{layer}/large", os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@pytest.fixture(scope="module")
def large_image(engine: docker.APIClient) -> Iterator[str]:
    """The name of an image with a large file."""
    name = f"large-{uuid.uuid4().hex[:8]}"
    tag = f"commserver/{name}:latest"
    for line in engine.build(
        fileobj=io.BytesIO(DOCKERFILE.encode()), tag=tag, rm=True, network_mode="none", decode=True
    ):
        assert "error" not in line, line
    yield name
    engine.remove_image(tag, force=True)


@pytest_asyncio.fixture(loop_scope="session")
async def apart(room: Room, large_image: str) -> AsyncIterator[Lab]:
    """A lab of which no container is left when the image goes."""
    del large_image
    site = uuid.uuid4().hex
    walls = room.sandbox.walls
    assert walls is not None
    sandbox = DockerSandbox(
        room.wrapper,
        site=site,
        boot=uuid.uuid4().hex,
        nested=room.form == "nested",
        walls=walls,
    )
    yield Lab(sandbox, walls)
    await sandbox.close()
    assert await room.wrapper.containers({SITE: site}) == []


async def test_files_that_the_kernel_keeps_are_nobodys_memory(
    apart: Lab, engine: docker.APIClient, large_image: str
) -> None:
    for how, memory, kept in (("read", 64, 0), ("map", 400, LARGE)):
        forget(engine, large_image)
        limits = Limits(cpu=10.0, real=60.0, memory=memory * MIB)
        report = await apart.execute(
            only(python("read.py", (), limits, how)), files={"read.py": READ}, image=large_image
        )

        has = ran(report.cases[0])
        assert (has.end, has.stderr) == ((0, 0), b"")
        assert has.report.memory < 16 * MIB
        assert int(has.stdout) >= max(kept, memory) * MIB


# --- the newer cgroups --------------------------------------------------------------------------

GROW = """
def show(): print(open("/sys/fs/cgroup/memory.stat").read(), end="\\0")
show()
data = b"x" * (50 << 20)
show()
"""


async def test_the_newer_cgroups_are_read_for_real(lab: Lab, engine: docker.APIClient) -> None:
    if engine.info()["CgroupVersion"] != "2":
        pytest.skip("this host counts memory by the older cgroups")

    (grown,) = await lab.run(GROW, limits=AMPLE)

    before, after = map(runner.memory_v2, grown.stdout.split(b"\0")[:2])
    assert after - before == pytest.approx(50 * MIB, rel=0.1)
    assert grown.report.memory == pytest.approx(after - before, rel=0.2)
