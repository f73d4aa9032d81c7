"""The sandbox as its callers see it: reports, progress, errors, and nothing left behind."""

import asyncio
import json
import struct
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commserver.core.execution import (
    Artifact,
    Case,
    CaseReport,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Stage,
)
from commserver.engine import container, frames, seccomp
from commserver.engine.container import BOOT, SITE
from commserver.engine.frames import Walls
from commserver.engine.sandbox import DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import ImageMissing, SandboxError, SandboxLost, SandboxUnavailable
from tests.integration.engine.conftest import until_nothing_is_left
from tests.integration.engine.proxy import Proxy
from tests.lab import DOUBLE, GENTLE

pytestmark = pytest.mark.docker


def program(name: str, limits: Limits, *pipes: Pipe) -> Case:
    """A case that runs main.py and keeps what it prints."""
    process = Process("main", ("python3", "main.py"), limits, (Placement("main.py", "main.py"),))
    out = Pipe(Descriptor("main", 1), Artifact("out"))
    return Case(name, (Stage("run", (process,), (out, *pipes)),))


def printed(case: CaseReport) -> bytes:
    """What the program of a case has printed."""
    [stage] = case.stages
    return stage.artifacts[0].content or b""


SLEEP = ExecutionRequest(
    image="python",
    files=(File("main.py", b"import time; print('asleep', flush=True); time.sleep(60)"),),
    cases=tuple(program(name, Limits(cpu=1.0, real=30.0)) for name in ("sleep", "never")),
)


IDLE: dict[str, Any] = {"Image": "commserver/python:latest", "Cmd": ["true"]}
"""A container that is only created."""


@pytest.fixture
async def proxy(docker_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    """A way to the engine that can be cut."""
    proxy = Proxy(docker_url, tmp_path / "engine.sock")
    await proxy.open()
    yield proxy
    proxy.thaw()
    proxy.cut()


def started() -> tuple[asyncio.Event, container.Progress]:
    """An event for "the runner has greeted", and what sets it."""
    event = asyncio.Event()
    return event, lambda ended, total: event.set()


@pytest.mark.parametrize(
    ("nested", "walls", "isolation"),
    [(True, None, "nested"), (False, None, "fresh"), (True, Walls.UIDS, "fresh-uid")],
)
async def test_a_report_says_where_it_was_measured(
    wrapper: DockerWrapper, site: str, nested: bool, walls: Walls | None, isolation: str
) -> None:
    progress: list[tuple[int, int]] = []
    sandbox = DockerSandbox(wrapper, site=site, boot=uuid.uuid4().hex, nested=nested, walls=walls)
    request = replace(
        DOUBLE, cases=tuple(replace(DOUBLE.cases[0], name=f"{number}") for number in range(3))
    )

    report = await sandbox.execute(
        request, run="r1", slot=0, on_progress=lambda ended, total: progress.append((ended, total))
    )

    assert progress == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert report.image == (await wrapper.image("commserver/python:latest")).id
    assert report.isolation == sandbox.isolation == isolation
    assert len(report.container) == 64
    assert report.runner == frames.RUNNER_VERSION
    for case in report.cases:
        [process] = case.stages[0].processes
        assert (process.ok, printed(case)) == (True, b"42\n")
        assert 0.001 < process.cpu < GENTLE.cpu
        assert 0.001 < process.real < GENTLE.real
        assert 0 < process.memory < 16 << 20
    await sandbox.close()


@pytest.mark.parametrize("call", ["unshare", "mount"])
async def test_a_host_that_forbids_namespaces_is_found_out(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """By the filter; elsewhere it is the kernel, or AppArmor, which lets `unshare` pass."""
    profile = seccomp.profile
    filters = json.loads(profile(namespaces=True))
    for rule in filters["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name != call]
    with monkeypatch.context() as patch:
        patch.setattr(
            seccomp,
            "profile",
            lambda *, namespaces: json.dumps(filters) if namespaces else profile(namespaces=False),
        )
        report = await sandbox.execute(DOUBLE, run="r", slot=0)

    assert (report.isolation, sandbox.walls) == ("fresh-uid", Walls.UIDS)
    assert printed(report.cases[0]) == b"42\n"


async def test_the_engine_says_which_languages_it_has(sandbox: DockerSandbox) -> None:
    languages = await sandbox.languages()

    assert {"python", "c"} <= languages
    assert "base" not in languages


async def test_slots_work_side_by_side(sandbox: DockerSandbox) -> None:
    reports = await asyncio.gather(
        *(sandbox.execute(DOUBLE, run=f"r{slot}", slot=slot) for slot in range(4))
    )

    assert [printed(report.cases[0]) for report in reports] == [b"42\n"] * 4
    assert len({report.container for report in reports}) == 4


async def test_large_requests_and_large_answers_get_through(sandbox: DockerSandbox) -> None:
    size = 6 << 20
    text = b"import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data * 2)"
    limits = replace(GENTLE, output=2 * size)
    stdin = Pipe(Resource("data"), Descriptor("main", 0))
    request = ExecutionRequest(
        "python",
        (File("main.py", text), File("data", bytes(size)), File("more", bytes(10 << 20))),
        tuple(program(name, limits, stdin) for name in ("one", "two", "three")),
    )

    report = await sandbox.execute(request, run="big", slot=0)

    assert [len(printed(case)) for case in report.cases] == [2 * size] * 3
    assert all(stage.ok for case in report.cases for stage in case.stages)


async def test_many_cases_with_an_input_each_fit_into_one_container(sandbox: DockerSandbox) -> None:
    inputs = tuple(File(f"input {n}", b"%d\n" % n) for n in range(20))
    cases = tuple(
        program(file.name, GENTLE, Pipe(Resource(file.name), Descriptor("main", 0)))
        for file in inputs
    )
    text = File("main.py", b"print(int(input()) * 2)")

    report = await sandbox.execute(
        ExecutionRequest("python", (text, *inputs), cases), run="many", slot=0
    )

    assert [printed(case) for case in report.cases] == [b"%d\n" % (2 * n) for n in range(20)]


async def test_what_cannot_be_run_is_refused_before_anything_is_begun(
    sandbox: DockerSandbox,
) -> None:
    with pytest.raises(ImageMissing) as missing:
        await sandbox.execute(replace(DOUBLE, image="cobol"), run="r", slot=0)
    assert missing.value.image == "commserver/cobol:latest"

    huge = replace(SLEEP, cases=(program("huge", Limits(memory=2 << 30)),))
    with pytest.raises(SandboxError, match="above"):
        await sandbox.execute(huge, run="r", slot=0)

    [case] = DOUBLE.cases
    with pytest.raises(SandboxError, match=r"cases\[1\]\.name: .* already"):
        await sandbox.execute(replace(DOUBLE, cases=(case, case)), run="r", slot=0)


async def test_a_cancelled_execution_leaves_nothing(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    greeted, on_progress = started()
    task = asyncio.create_task(sandbox.execute(SLEEP, run="r", slot=0, on_progress=on_progress))
    await greeted.wait()
    (running,) = await wrapper.containers({SITE: site})

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert running.status == "running"
    assert await wrapper.containers({SITE: site}) == []


async def test_an_execution_can_be_cancelled_at_any_moment(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    for delay in (0.0, 0.002, 0.005, 0.01, 0.015, 0.03, 0.06, 0.1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay):
                await sandbox.execute(SLEEP, run="r", slot=0)

    # A creation may have been given up on and come true only now.
    await until_nothing_is_left(wrapper)
    assert await wrapper.containers({SITE: site}) == []


async def test_a_killed_container_is_lost(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    greeted, on_progress = started()
    task = asyncio.create_task(sandbox.execute(SLEEP, run="r", slot=0, on_progress=on_progress))
    await greeted.wait()
    (running,) = await wrapper.containers({SITE: site})

    await wrapper.kill(running.name)
    with pytest.raises(SandboxLost, match="exit code 137") as lost:
        await task

    assert (lost.value.container, lost.value.engine_down) == (running.id, False)


async def test_a_removed_container_is_lost(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    greeted, on_progress = started()
    task = asyncio.create_task(sandbox.execute(SLEEP, run="r", slot=0, on_progress=on_progress))
    await greeted.wait()
    (running,) = await wrapper.containers({SITE: site})

    assert await wrapper.remove(running.id)
    with pytest.raises(SandboxLost) as lost:
        await task

    assert not lost.value.engine_down
    assert not await wrapper.remove(running.id)


async def test_what_a_runner_says_when_it_breaks_is_told(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(container, "RUNNER", ("python3", "-c", "import sys; sys.exit('broken')"))
        with pytest.raises(SandboxLost, match="exit code 1: broken"):
            await sandbox.execute(DOUBLE, run="r", slot=0)


async def test_the_runner_refuses_what_is_no_request(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(frames, "pack_request", lambda *_: [struct.pack(">II", 2, 0) + b"[]"])
        with pytest.raises(SandboxLost, match="not one JSON object"):
            await sandbox.execute(DOUBLE, run="r", slot=0)


async def test_the_runner_ends_when_nobody_listens_any_more(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after kill -9 of the server: a submission does not run on for its whole limit."""
    greeted, on_progress = started()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait_first(name: str, deadline: float = 20.0) -> None:
        ended.set_result(await wrapper.wait(name, deadline))
        await wrapper.remove(name)

    monkeypatch.setattr(wrapper, "discard", wait_first)
    task = asyncio.create_task(sandbox.execute(SLEEP, run="r", slot=0, on_progress=on_progress))
    await greeted.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await ended == 1
    monkeypatch.undo()


async def test_an_engine_that_goes_away_is_told_from_a_lost_container(
    sandbox: DockerSandbox, wrapper: DockerWrapper, proxy: Proxy, site: str
) -> None:
    through_proxy = DockerWrapper(proxy.url)
    doomed = DockerSandbox(through_proxy, site=site, boot="doomed")
    greeted, on_progress = started()
    task = asyncio.create_task(doomed.execute(SLEEP, run="r", slot=0, on_progress=on_progress))
    await greeted.wait()

    proxy.cut()
    with pytest.raises(SandboxLost) as lost:
        await task

    assert lost.value.engine_down
    (name,) = through_proxy.leftovers
    assert await through_proxy.remove_leftovers() == 1
    with pytest.raises(SandboxUnavailable):
        await doomed.languages()
    with pytest.raises(SandboxUnavailable):
        await doomed.execute(DOUBLE, run="r", slot=0)

    await proxy.open()
    assert await through_proxy.remove_leftovers() == 0
    assert name not in {item.name for item in await wrapper.containers({SITE: site})}
    through_proxy.close()


async def test_an_engine_that_hangs_costs_no_more_than_its_deadline(
    sandbox: DockerSandbox, proxy: Proxy
) -> None:
    wrapper = DockerWrapper(proxy.url, deadline=1.0)
    await wrapper.ping()
    loop = asyncio.get_running_loop()
    proxy.freeze()
    began = loop.time()

    with pytest.raises(SandboxUnavailable, match="within 1 s"):
        await wrapper.ping()
    results = await asyncio.gather(*(wrapper.ping() for _ in range(40)), return_exceptions=True)

    assert loop.time() - began < 5.0
    assert all(isinstance(result, SandboxUnavailable) for result in results)
    proxy.thaw()
    await wrapper.ping()
    wrapper.close()


async def test_a_creation_that_was_given_up_on_is_removed_when_it_comes_true(
    sandbox: DockerSandbox, wrapper: DockerWrapper, proxy: Proxy, site: str
) -> None:
    through_proxy = DockerWrapper(proxy.url, deadline=2.0)
    config = {**IDLE, "Labels": {SITE: site}}
    name = f"commserver-test-{uuid.uuid4().hex[:8]}"
    await through_proxy.ping()
    proxy.freeze()
    creation = asyncio.create_task(through_proxy.create(name, config))
    await asyncio.sleep(0.05)  # the request is on its way, the engine has not seen it

    creation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creation
    assert await wrapper.containers({SITE: site}) == []
    assert through_proxy.leftovers == (name,)
    proxy.thaw()
    await until_nothing_is_left(through_proxy)

    assert await wrapper.containers({SITE: site}) == []
    through_proxy.close()


async def test_an_engine_can_be_reached_over_tcp(
    sandbox: DockerSandbox, proxy: Proxy, site: str
) -> None:
    wrapper = DockerWrapper(proxy.tcp_url)

    distant = DockerSandbox(wrapper, site=site, boot="tcp")

    reports = [await distant.execute(DOUBLE, run="r", slot=0) for _ in range(2)]

    assert [printed(report.cases[0]) for report in reports] == [b"42\n"] * 2
    assert reports[0].container == reports[1].container
    await distant.close()
    wrapper.close()


async def test_sweeping_removes_this_sites_earlier_boots_and_nothing_else(
    sandbox: DockerSandbox, wrapper: DockerWrapper, site: str
) -> None:
    def labels(site: str, boot: str) -> dict[str, Any]:
        return {**IDLE, "Labels": {SITE: site, BOOT: boot}}

    other_site = uuid.uuid4().hex
    names = [f"commserver-test-{uuid.uuid4().hex[:8]}" for _ in range(4)]
    current = DockerSandbox(wrapper, site=site, boot="now")
    for name, config in zip(
        names,
        (
            labels(site, "before"),
            labels(site, "long-before"),
            labels(site, "now"),
            labels(other_site, "before"),
        ),
        strict=True,
    ):
        await wrapper.create(name, config)

    assert await current.sweep() == 2

    left = {item.name for item in await wrapper.containers({SITE: site})}
    assert left == {names[2]}
    assert [item.name for item in await wrapper.containers({SITE: other_site})] == [names[3]]
    assert await current.sweep() == 0
    for name in names[2:]:
        assert await wrapper.remove(name)


async def test_the_engine_describes_itself(wrapper: DockerWrapper) -> None:
    info = await wrapper.info()

    assert info.cgroup_version in (1, 2)
    assert info.cpus >= 1
    assert info.memory > 0
    assert info.version


async def test_a_wrapper_that_was_closed_says_so(docker_url: str) -> None:
    wrapper = DockerWrapper(docker_url)
    await wrapper.ping()
    wrapper.close()

    with pytest.raises(SandboxUnavailable, match="let go"):
        await wrapper.ping()
