"""A real container engine, our images on it, and after each test: nothing left, and still well."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from commserver.core.execution import (
    ExecutionReport,
    ExecutionRequest,
    File,
    Limits,
    Process,
    ProcessReport,
)
from commserver.engine.container import SITE
from commserver.engine.sandbox import FreshSandbox
from commserver.engine.wrapper import DockerWrapper

GENTLE = Limits(cpu=1.0, real=5.0)
BRIEF = Limits(cpu=0.3, real=1.0)  # for what has to be ended

DOUBLE = ExecutionRequest(
    image="python",
    files=(File("main.py", b"print(int(input()) * 2)\n"),),
    cases=(Process("double", ("python3", "main.py"), GENTLE, ("main.py",), b"21\n"),),
)
"""The submission that must be right after whatever happened."""


async def until_nothing_is_left(wrapper: DockerWrapper) -> None:
    """Try as a server does, only oftener: no event tells that a creation came true after all."""
    for _ in range(500):
        if await wrapper.remove_leftovers() == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(wrapper.leftovers)


@pytest.fixture
async def wrapper(docker_url: str) -> AsyncIterator[DockerWrapper]:
    """A connection of this test's own."""
    wrapper = DockerWrapper(docker_url)
    yield wrapper
    await until_nothing_is_left(wrapper)
    wrapper.close()


@pytest.fixture(scope="session")
def site() -> str:
    """The site of this whole session: other people's containers are not ours to look at."""
    return uuid.uuid4().hex


@pytest.fixture
async def sandbox(wrapper: DockerWrapper, site: str) -> AsyncIterator[FreshSandbox]:
    """A sandbox that must be as good after the test as it was before."""
    sandbox = FreshSandbox(wrapper, site=site, boot=uuid.uuid4().hex)
    yield sandbox
    assert await wrapper.containers({SITE: site}) == []
    after = await sandbox.execute(DOUBLE, run="afterwards", slot=0)
    assert (after.cases[0].ok, after.cases[0].stdout) == (True, b"42\n")


class Lab:
    """Runs Python programs, one case each, in one container."""

    def __init__(self, sandbox: FreshSandbox) -> None:
        self.sandbox = sandbox

    async def run(
        self,
        *programs: str,
        limits: Limits = GENTLE,
        stdin: bytes = b"",
        files: tuple[File, ...] = (),
    ) -> tuple[ProcessReport, ...]:
        """The reports of some programs, in order."""
        sources = [File(f"{number}.py", text.encode()) for number, text in enumerate(programs)]
        extra = tuple(file.path for file in files)
        report = await self.sandbox.execute(
            ExecutionRequest(
                image="python",
                files=(*sources, *files),
                cases=tuple(
                    Process(file.path, ("python3", file.path), limits, (file.path, *extra), stdin)
                    for file in sources
                ),
            ),
            run="lab",
            slot=1,
        )
        return report.cases

    async def compile(
        self,
        source: str,
        *cases: tuple[str, ...],
        flags: tuple[str, ...] = (),
        limits: Limits = GENTLE,
        compile_limits: Limits = Limits(cpu=10, real=20, memory=256 << 20),  # noqa: B008
    ) -> ExecutionReport:
        """What becomes of a C program, run once for each tuple of arguments."""
        return await self.sandbox.execute(
            ExecutionRequest(
                image="c",
                files=(File("main.c", source.encode()),),
                compile=Process(
                    "compile",
                    ("gcc", *flags, "-o", "main", "main.c"),
                    compile_limits,
                    ("main.c",),
                    artifacts=("main",),
                ),
                cases=tuple(
                    Process(" ".join(case), ("./main", *case), limits, ("main",)) for case in cases
                ),
            ),
            run="lab",
            slot=1,
        )


@pytest.fixture
def lab(sandbox: FreshSandbox) -> Lab:
    """Where hostile programs are let loose."""
    return Lab(sandbox)
