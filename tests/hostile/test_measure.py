"""What programs are said to have used: time and output, as they know it themselves."""

import asyncio
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import docker
import pytest
import pytest_asyncio

from commserver.core.execution import (
    Artifact,
    Case,
    Descriptor,
    Flag,
    Limits,
    Pipe,
    Placement,
    Process,
    Role,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.engine import frames
from commserver.engine.container import ContainerSpec
from commserver.engine.frames import Walls
from commserver.engine.room import CLASSES, ordinary
from commserver.engine.runner import runner
from commserver.engine.wrapper import Attachment, DockerWrapper
from tests.hostile.conftest import Room
from tests.hostile.programs import BURN_C, BURN_PYTHON, compiled, neighbours
from tests.lab import Lab, alone, outputs, python, ran

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

AMPLE = Limits(cpu=60.0, real=120.0)
SHAPES = ("thread", "threads", "waited", "unwaited", "orphan", "many")
SHORT = 0.1  # seconds
ALL = [(language, shape, SHORT) for language in ("c", "python") for shape in SHAPES]
TEN_PERCENT = 0.1


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def burner(rooms: dict[str, Room]) -> bytes:
    """What burns in all shapes, compiled."""
    return await compiled(rooms["fresh"].sandbox, BURN_C)


@pytest.fixture
def files(burner: bytes) -> dict[str, str | bytes]:
    """The same program in two languages."""
    return {"burn": burner, "burn.py": BURN_PYTHON}


def burns(language: str, shape: str, seconds: float, name: str = "burner") -> Process:
    """A process that uses so much cpu time."""
    start, file = (("./burn",), "burn") if language == "c" else (("python3", "burn.py"), "burn.py")
    return Process(name, (*start, shape, f"{seconds}"), AMPLE, (Placement(file, file),))


def check_cpu(name: str, stage: StageReport, process: str = "burner", prefix: str = "") -> None:
    """Check that what is reported of a process is what it says itself."""
    said = float(stage.content(f"{prefix}out"))
    report = stage.process(process)
    assert (report.exit_code, report.flags) == (0, 0), name
    assert report.cpu == pytest.approx(said, rel=TEN_PERCENT), name


# As a shell's parent would see it: orphans too are waited for.
OUTSIDE = """
import ctypes, os, resource, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
said = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True).stdout
try:
    while True: os.wait()
except ChildProcessError: pass
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(float(said), used.ru_utime + used.ru_stime)
"""


def used_outside(*argv: str, folder: Path) -> tuple[float, float]:
    """What a program says that it used when nothing is around it, and what the kernel says."""
    told = subprocess.run(
        [sys.executable, "-c", OUTSIDE, *argv],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    said, used = map(float, told.stdout.split())
    return said, used


async def test_the_programs_know_what_they_use(burner: bytes, tmp_path: Path) -> None:
    (tmp_path / "burn.py").write_text(BURN_PYTHON)
    (tmp_path / "burn").write_bytes(burner)
    (tmp_path / "burn").chmod(0o755)

    for language, shape, seconds in [*ALL, ("c", "talker", SHORT), ("c", "threads", 2.0)]:
        argv = ("./burn",) if language == "c" else (sys.executable, "burn.py")
        said, used = used_outside(*argv, shape, f"{seconds}", folder=tmp_path)
        assert seconds <= said
        assert used == pytest.approx(said, rel=TEN_PERCENT), (language, shape)


# Seconds: one longer program for each form, alone and beside neighbours.
LONGER = {"nested": (2.0, 0.5), "fresh": (0.5, 1.0), "fresh-uid": (0.5, 2.0)}


async def test_cpu_is_what_the_program_says(
    lab: Lab, form: str, files: dict[str, str | bytes]
) -> None:
    burners = [*ALL, ("c", "threads", LONGER[form][0])]
    cases = [Case(f"{burner}", (alone(burns(*burner)),)) for burner in burners]

    report = await lab.execute(*cases, files=files)

    assert len(report.cases) == len(cases)
    for case in report.cases:
        check_cpu(case.name, case.stages[0])


async def test_busy_neighbours_cost_nothing(
    lab: Lab, form: str, files: dict[str, str | bytes], burner: bytes
) -> None:
    cases = [Case(shape, (alone(burns("c", shape, SHORT)),)) for shape in SHAPES]
    cases.append(Case("longer", (alone(burns("python", "thread", LONGER[form][1])),)))

    async with neighbours(lab.sandbox, burner):
        report = await lab.execute(*cases, files=files)

    for case in report.cases:
        check_cpu(case.name, case.stages[0])


async def test_each_answers_for_itself(lab: Lab, files: dict[str, str | bytes]) -> None:
    def pair(shape: str, language: str, seconds: float) -> Case:
        one, other = burns(language, shape, seconds, "one"), burns("c", "thread", SHORT, "other")
        pipes = (*outputs("one", "one."), *outputs("other", "other."))
        return Case(f"{language} {shape}", (Stage("both", (one, other), pipes),))

    cases = [pair(shape, language, SHORT) for language, shape, _ in ALL[::2]]

    report = await lab.execute(*cases, pair("threads", "c", 0.4), files=files)

    for case in report.cases:
        for name in ("one", "other"):
            check_cpu(case.name, case.stages[0], name, f"{name}.")


async def test_what_is_done_for_a_program_is_not_its_own(
    lab: Lab, files: dict[str, str | bytes]
) -> None:
    """Taking its output takes us longer than it takes the program to write it."""
    talker = burns("c", "talker", SHORT)
    ample = replace(talker, limits=replace(AMPLE, output=48 << 20))
    stage = Stage(
        "run",
        (ample,),
        (
            Pipe(Descriptor("burner", 1), Artifact("out")),
            Pipe(Descriptor("burner", 2), Artifact("err", returned=False)),
        ),
    )

    report = await lab.execute(Case("talker", (stage,)), files=files)

    check_cpu("talker", report.cases[0].stages[0])
    assert report.cases[0].stages[0].artifacts[1].size > 1 << 20


async def test_what_we_do_to_start_a_program_is_not_its_own(
    lab: Lab, files: dict[str, str | bytes]
) -> None:
    """Though to its own clock, which begins with our process that becomes it, it is."""
    cases = [Case(f"{n}", (alone(burns("c", "talker", 0.0)),)) for n in range(5)]

    report = await lab.execute(*cases, files=files)

    told = [ran(case) for case in report.cases]
    assert min(one.report.cpu / float(one.stdout) for one in told) < 0.9


MANY = """
import ctypes
libc = ctypes.CDLL(None)
ids = [libc.semget(0, 1, 0o666) for _ in range(8000)]
print(ids[-1])
"""

# Waits for a semaphore until there is none.
OUTLIVE = """
import ctypes, struct, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.semop(int(input()), struct.pack("=Hhh", 0, -1, 0), 1) == -1
print(time.process_time())
"""


@pytest.mark.parametrize("form", ["fresh-uid"])
async def test_what_we_do_to_remove_what_another_left_is_nobodys(lab: Lab) -> None:
    judge = replace(python("judge"), role=Role.GRADER)
    to_learner = Pipe(Descriptor("judge", 1), Descriptor("learner", 0))
    stage = Stage("both", (judge, python("learner")), (*outputs("learner"), to_learner))

    report = await lab.execute(Case("both", (stage,)), files={"judge": MANY, "learner": OUTLIVE})

    (both,) = report.cases[0].stages
    assert [process.exit_code for process in both.processes] == [0, 0]
    # To remove all that takes more than all that the learner does.
    assert both.process("learner").cpu < 1.5 * float(both.content("out"))


SLEEP = """
import time
began = time.monotonic()
time.sleep(0.1)
print(time.monotonic() - began)
"""


async def test_real_time_is_between_the_programs_and_ours(lab: Lab) -> None:
    began = time.monotonic()
    sleepers = await lab.run(SLEEP, SLEEP, SLEEP)
    whole = time.monotonic() - began

    for sleeper in sleepers:
        assert float(sleeper.stdout) <= sleeper.report.real
        assert sleeper.report.real == sleeper.report.ended
        assert sleeper.report.cpu < 0.1
    assert sum(sleeper.report.real for sleeper in sleepers) < whole


async def test_ends_are_told_in_their_order(lab: Lab) -> None:
    # The end of a file comes a moment before the end of who wrote it.
    after_it = "import sys, time; sys.stdin.read(); time.sleep(0.2)"
    files: dict[str, str | bytes] = {"first": "pass", "second": after_it, "third": after_it}
    stage = Stage(
        "chain",
        tuple(python(name) for name in ("third", "first", "second")),
        (
            Pipe(Descriptor("first", 1), Descriptor("second", 0)),
            Pipe(Descriptor("second", 1), Descriptor("third", 0)),
        ),
    )

    report = await lab.execute(Case("chain", (stage,)), files=files)

    ended = {process.name: process.ended for process in report.cases[0].stages[0].processes}
    assert 0 < ended["first"] < ended["second"] < ended["third"]


WRITE = """
import os, sys
for number, size in zip((1, 2, 5), map(int, sys.argv[1:])): os.write(number, b"x" * size)
try:
    with open("left", "wb", buffering=0) as file:
        for size in map(int, sys.argv[4:]): file.write(bytes(size))
except OSError: sys.exit(1)
"""


async def test_output_is_counted_to_the_byte(lab: Lab) -> None:
    limits = Limits(output=10_000, file_size=20_000)
    written = {
        (10_000, 10_000, 10_000, 20_000): Flag(0),
        (10_001, 0, 0, 0): Flag.OUTPUT,
        (0, 10_001, 0, 0): Flag.OUTPUT,
        (9_999, 0, 10_001, 0): Flag.OUTPUT,
        (0, 0, 0, 20_000, 1): Flag.OUTPUT,
    }
    pipes = (
        Pipe(Descriptor("write.py", 5), Artifact("five")),
        Pipe(WorkFile("write.py", "left"), Artifact("left")),
    )

    report = await lab.execute(
        *(
            Case(f"{sizes}", (alone(python("write.py", (), limits, *map(str, sizes)), *pipes),))
            for sizes in written
        ),
        files={"write.py": WRITE},
    )

    for case, (sizes, flags) in zip(report.cases, written.items(), strict=True):
        (stage,) = case.stages
        assert stage.processes[0].flags == flags
        kept = dict(zip(("out", "err", "five", "left"), sizes, strict=False))
        assert {artifact.name: artifact.size for artifact in stage.artifacts} == {
            name: min(size, limits.file_size if name == "left" else limits.output)
            for name, size in kept.items()
        }


# --- what is read for that ----------------------------------------------------------------------

CGROUPS = Path("/sys/fs/cgroup")


async def greeting(attachment: Attachment) -> frames.Header:
    """What a runner says first."""
    demultiplexer, reader = frames.Demultiplexer(), frames.FrameReader()
    async with asyncio.timeout(20):
        while data := await attachment.reader.read(4096):
            for _, piece in demultiplexer.feed(data):
                for frame in reader.feed(piece):
                    return frame.header
    raise EOFError


async def test_all_is_measured_that_the_kernel_counts(
    hostile_wrapper: DockerWrapper, engine: docker.APIClient
) -> None:
    name = f"greeting-{uuid.uuid4().hex}"
    room = ordinary(CLASSES[0])
    image = "commserver/python:latest"
    spec = ContainerSpec(name, image, Walls.NAMESPACES, CLASSES[0], room, 202_900, 202_901)
    container = await hostile_wrapper.create(name, spec.config())
    attachment = await hostile_wrapper.attach(name)
    try:
        await hostile_wrapper.start(name)
        hello = await greeting(attachment)
        # A host that changes over from one kind of cgroups to the other counts twice.
        newer = CGROUPS / f"unified/docker/{container}/cpu.stat"
        older = CGROUPS / f"cpuacct/docker/{container}/cpuacct.usage"
        both = (
            (runner.cpu_v1(older.read_bytes()), runner.cpu_v2(newer.read_bytes()))
            if newer.exists() and older.exists()
            else None
        )
    finally:
        attachment.close()
        await hostile_wrapper.discard(name)

    assert isinstance(hello, frames.Hello)
    version = int(engine.info()["CgroupVersion"])
    assert hello.cgroup == frames.Cgroup(version, cpu=True, memory=True, kills=True)
    if both:
        assert both[1] == pytest.approx(both[0], rel=TEN_PERCENT)
