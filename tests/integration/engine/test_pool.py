"""Containers that serve one execution after another, on a real engine."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

from commserver import app
from commserver.config import Config, Docker
from commserver.core.execution import (
    MIB,
    Case,
    ExecutionReport,
    ExecutionRequest,
    File,
    Flag,
    Limits,
)
from commserver.engine.container import RUN, SITE, ContainerSpec
from commserver.engine.frames import Walls
from commserver.engine.room import ORDINARY_MEMORY
from commserver.engine.sandbox import DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import SandboxError, SandboxLost
from tests.lab import DOUBLE, Ran, alone, python

pytestmark = pytest.mark.docker


def said(report: ExecutionReport) -> bytes:
    """What the program of an execution has printed."""
    return Ran.of(report.cases[0].stages[0]).stdout


def of(source: str, limits: Limits = Limits(cpu=1.0, real=5.0)) -> ExecutionRequest:  # noqa: B008
    """A request that runs one program."""
    case = Case("main", (alone(python("main.py", limits=limits)),))
    return ExecutionRequest("python", (File("main.py", source.encode()),), (case,))


@pytest.fixture
async def nested(wrapper: DockerWrapper, site: str) -> AsyncIterator[DockerSandbox]:
    """A sandbox with warm containers, of which none is left."""
    sandbox = DockerSandbox(wrapper, site=site, boot=uuid.uuid4().hex)
    yield sandbox
    await sandbox.close()
    assert await wrapper.containers({SITE: site}) == []


async def double(sandbox: DockerSandbox) -> ExecutionReport:
    """Have something executed that must be right."""
    report = await sandbox.execute(DOUBLE, run="r", slot=0)
    assert said(report) == b"42\n"
    return report


async def test_two_executions_are_in_one_container(
    nested: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    reports = [await double(nested) for _ in range(2)]

    (warm,) = await wrapper.containers({SITE: site})
    assert [report.container for report in reports] == [warm.id] * 2
    assert [report.isolation for report in reports] == ["nested"] * 2
    assert (warm.name,) == nested.idle
    assert (warm.status, RUN in warm.labels) == ("running", False)


async def test_a_container_killed_while_it_waits_costs_nothing(
    nested: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    first = await double(nested)

    await wrapper.kill(first.container)
    await wrapper.wait(first.container)
    second = await double(nested)

    (warm,) = await wrapper.containers({SITE: site})
    assert second.container == warm.id != first.container


async def test_a_container_removed_while_it_waits_costs_nothing(
    nested: DockerSandbox, wrapper: DockerWrapper
) -> None:
    first = await double(nested)

    await wrapper.remove(first.container)
    second = await double(nested)

    assert second.container != first.container


async def test_walls_of_uids_serve_once(wrapper: DockerWrapper, site: str) -> None:
    apart = DockerSandbox(wrapper, site=site, boot=uuid.uuid4().hex, walls=Walls.UIDS)

    reports = [await double(apart) for _ in range(2)]

    assert reports[0].container != reports[1].container
    assert [report.isolation for report in reports] == ["fresh-uid"] * 2
    assert apart.idle == ()
    assert await wrapper.containers({SITE: site}) == []


async def test_large_requests_and_small_ones_take_turns(nested: DockerSandbox) -> None:
    """Each is given the room that it needs: to what is returned, and in its work directory."""
    writes = of("print('x' * (1 << 20))", Limits(cpu=1.0, real=5.0, output=2 * MIB))
    huge = replace(DOUBLE, files=(*DOUBLE.files, File("more", bytes(ORDINARY_MEMORY))))

    first = await double(nested)
    large = await nested.execute(writes, run="r", slot=0)
    own = await nested.execute(huge, run="r", slot=0)
    last = await double(nested)

    assert len(said(large)) == MIB + 1
    assert (said(own), own.isolation) == (b"42\n", "fresh")
    assert first.container == large.container == last.container != own.container


async def test_a_runner_without_memory_is_lost_and_the_next_has_what_it_needs(
    nested: DockerSandbox, wrapper: DockerWrapper, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than it was promised the files of a request alone are too much."""
    config = ContainerSpec.config
    large = replace(DOUBLE, files=(*DOUBLE.files, File("more", bytes(40 * MIB))))

    def tight(spec: ContainerSpec) -> dict[str, Any]:
        made = config(spec)
        made["HostConfig"] |= {"Memory": 24 * MIB, "MemorySwap": 24 * MIB}
        return made

    with monkeypatch.context() as patch:
        patch.setattr(ContainerSpec, "config", tight)
        with pytest.raises(SandboxLost, match="ran out of memory"):
            await nested.execute(large, run="r", slot=0)

    assert nested.idle == ()
    assert await wrapper.containers({SITE: site}) == []
    await double(nested)


# The kernel's own in pipes, which up to 16 MiB nobody answers for; and as much as it may have.
UNSEEN = """
import fcntl, os
F_SETPIPE_SZ = 1031
pipes = [os.pipe() for _ in range(14)]
for reader, writer in pipes:
    os.write(writer, bytes(fcntl.fcntl(writer, F_SETPIPE_SZ, 1 << 20)))
taken = b"x" * (60 << 20)
"""


async def test_a_container_in_which_the_kernel_killed_serves_no_other(
    nested: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ContainerSpec.config

    def tight(spec: ContainerSpec) -> dict[str, Any]:
        made = config(spec)
        made["HostConfig"] |= {"Memory": 80 * MIB, "MemorySwap": 80 * MIB}
        return made

    monkeypatch.setattr(ContainerSpec, "config", tight)
    with capture_logs() as logs:
        first = await double(nested)
        killed = await nested.execute(of(UNSEEN), run="r", slot=0)
        after = await double(nested)
        last = await double(nested)

    program = killed.cases[0].stages[0].processes[0]
    assert (program.exit_code, program.flags, program.stopped) == (-9, Flag.MEMORY, True)
    assert first.container == killed.container != after.container == last.container
    unfit = [line for line in logs if line["event"] == "container_unfit"]
    assert [(line["container"], line["reason"]) for line in unfit] == [
        (killed.container, "the kernel killed for want of memory")
    ]


@pytest.mark.parametrize("isolation", ["nested", "fresh"])
async def test_executions_are_isolated_as_is_configured(
    docker_url: str, wrapper: DockerWrapper, isolation: Literal["nested", "fresh"]
) -> None:
    config = Config(docker=Docker(hosts=(docker_url,), isolation=isolation))
    site = uuid.uuid4().hex
    async with AsyncExitStack() as stack:
        (sandbox,) = app.docker_sandboxes(config, stack)(site, "boot")

        report = await sandbox.execute(DOUBLE, run="r", slot=0)

        assert (said(report), report.isolation) == (b"42\n", isolation)
        assert len(await wrapper.containers({SITE: site})) == (isolation == "nested")
        await sandbox.close()
    assert await wrapper.containers({SITE: site}) == []


async def test_a_runtime_that_the_engine_has_not_is_named(
    docker_url: str, wrapper: DockerWrapper, site: str
) -> None:
    config = Config(docker=Docker(hosts=(docker_url,), runtime="nope"))
    async with AsyncExitStack() as stack:
        (sandbox,) = app.docker_sandboxes(config, stack)(site, "boot")

        with pytest.raises(SandboxError, match="nope") as refused:
            await sandbox.execute(DOUBLE, run="r", slot=0)

    assert not isinstance(refused.value, SandboxLost)
    assert await wrapper.containers({SITE: site}) == []


async def test_what_an_earlier_server_left_waiting_is_removed(
    nested: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    earlier = DockerSandbox(wrapper, site=site, boot="before")
    await double(earlier)
    await double(nested)

    assert await nested.sweep() == 1

    (left,) = await wrapper.containers({SITE: site})
    assert (left.name,) == nested.idle
    await earlier.close()
