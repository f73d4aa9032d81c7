"""What the engine is asked for, to the letter."""

import json
from dataclasses import replace
from typing import Any

import pytest

from commserver.core.execution import (
    MIB,
    Case,
    ExecutionRequest,
    File,
    Limits,
    Placement,
    Process,
    Stage,
)
from commserver.engine.budget import Budget
from commserver.engine.container import (
    BOOT,
    CELL_MEMORY,
    CLASSES,
    DISTANCE,
    RUN,
    RUNNER_MEMORY,
    SITE,
    ContainerSpec,
)
from commserver.engine.frames import Walls
from commserver.engine.sandbox import FreshSandbox, SandboxSettings, memory_class
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import SandboxError

BUDGET = Budget(
    kept=8 * MIB,
    files=10,
    placed=2 * MIB,
    entries=5,
    copies=4 * MIB,
    passing=MIB,
    body=MIB,
    processes=40,
    cells=2,
)
NESTED = ContainerSpec(
    name="commserver-a-b-1",
    image="sha256:1",
    walls=Walls.NAMESPACES,
    memory=64 * MIB,
    budget=BUDGET,
    uid=200_003,
    grader_uid=201_003,
    labels={"commserver.run": "r"},
)
APART = replace(NESTED, walls=Walls.UIDS)
FORMS = pytest.mark.parametrize("spec", [NESTED, APART], ids=lambda spec: str(spec.walls))


def tmpfs_sizes(spec: ContainerSpec) -> dict[str, int]:
    """Bytes of each file system in memory."""
    mounts: dict[str, str] = spec.config()["HostConfig"]["Tmpfs"]
    return {
        path: int(next(o for o in options.split(",") if o.startswith("size="))[5:])
        for path, options in mounts.items()
    }


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    """What the engine is asked for about the host."""
    host: dict[str, Any] = spec.config()["HostConfig"]
    return host


@FORMS
def test_a_container_is_walled_in(spec: ContainerSpec) -> None:
    config = spec.config()
    host = config["HostConfig"]

    assert host["NetworkMode"] == "none"
    assert config["NetworkDisabled"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert len(host["SecurityOpt"]) == 2
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert host["LogConfig"] == {"Type": "none"}
    assert not {"Binds", "Mounts", "Devices", "VolumesFrom", "PidMode"} & set(host)
    assert config["Env"] == ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
    assert config["Hostname"] == "sandbox"
    assert config["StdinOnce"]
    for options in host["Tmpfs"].values():
        assert {"nosuid", "nodev"} <= set(options.split(","))
        assert "nr_inodes=" in options


def seccomp_names(spec: ContainerSpec) -> set[str]:
    """The calls that a container's filter names."""
    _, option, *_ = host_config(spec)["SecurityOpt"]
    rules = json.loads(option.removeprefix("seccomp="))["syscalls"]
    return {name for rule in rules for name in rule["names"]}


def test_who_makes_namespaces_is_an_ordinary_user_without_any_capability() -> None:
    assert NESTED.config()["User"] == "200003:200003"
    assert "CapAdd" not in host_config(NESTED)
    assert {"unshare", "mount"} <= seccomp_names(NESTED)
    assert set(host_config(NESTED)["Tmpfs"]) == {"/box"}
    assert {"mode=700", "uid=200003", "gid=200003"} <= set(
        host_config(NESTED)["Tmpfs"]["/box"].split(",")
    )


def test_without_namespaces_the_runner_is_root_with_just_what_turns_it_into_others() -> None:
    assert APART.config()["User"] == "0:0"
    assert host_config(APART)["CapAdd"] == ["SETUID", "SETGID", "KILL", "CHOWN"]
    assert not {"unshare", "mount"} & seccomp_names(APART)


def test_an_engine_that_confines_by_apparmor_must_not_forbid_the_runner_its_mounts() -> None:
    nested, apart = (replace(spec, unconfined=True) for spec in (NESTED, APART))

    assert "apparmor=unconfined" in host_config(nested)["SecurityOpt"]
    assert "apparmor=unconfined" not in host_config(apart)["SecurityOpt"]


@FORMS
def test_a_container_has_its_class_and_the_runners_own_memory(spec: ContainerSpec) -> None:
    host = host_config(spec)
    large = replace(spec, budget=replace(BUDGET, passing=10 * MIB))

    assert host["Memory"] == host["MemorySwap"]
    distance = DISTANCE if spec is APART else 0
    assert host["Memory"] == 64 * MIB + (8 + 4) * MIB + RUNNER_MEMORY + 2 * CELL_MEMORY + distance
    assert host_config(large)["Memory"] == host["Memory"] + 12 * MIB
    assert host["PidsLimit"] == 40 + 2 * 2 + 2
    assert host_config(replace(spec, budget=replace(BUDGET, processes=1)))["PidsLimit"] == 16
    assert host["CpuQuota"] / host["CpuPeriod"] == pytest.approx(1.1)


@pytest.mark.parametrize("memory", CLASSES)
@FORMS
def test_files_alone_never_take_the_runners_memory(spec: ContainerSpec, memory: int) -> None:
    spec = replace(spec, memory=memory)
    shared = int(host_config(spec).get("Sysctls", {}).get("kernel.shmall", 0)) * 4096

    assert sum(tmpfs_sizes(spec).values()) + shared < memory + BUDGET.kept + BUDGET.copies
    assert spec.settings().box == memory // 2 + BUDGET.placed


def test_only_the_work_directorys_files_can_be_executed() -> None:
    mounts = host_config(APART)["Tmpfs"]

    assert [path for path, options in mounts.items() if "noexec" not in options] == ["/box"]


@pytest.mark.parametrize(
    ("limit", "size"), [(1, 64), (64 * MIB, 64), (64 * MIB + 1, 128), (1024 * MIB, 1024)]
)
def test_a_limit_goes_into_the_smallest_class(limit: int, size: int) -> None:
    assert memory_class(limit) == size * MIB


def test_a_limit_above_all_classes_is_refused() -> None:
    with pytest.raises(SandboxError, match="above"):
        memory_class(1024 * MIB + 1)


def test_a_request_decides_what_its_container_is() -> None:
    wrapper = DockerWrapper("unix:///nowhere")
    sandbox = FreshSandbox(
        wrapper, site="s" * 32, boot="b" * 32, settings=SandboxSettings(cpus=2.0, nofile=99)
    )
    small = Process("a", ("x",), Limits(memory=MIB, processes=3), (Placement("g", "g"),))
    large = Process("b", ("x",), Limits(memory=100 * MIB, processes=50))
    request = ExecutionRequest(
        "python",
        (File("f", b"x"), File("g", bytes(5000))),
        (Case("1", (Stage("s", (small, large)),)),),
    )

    first = sandbox.spec(request, "sha256:1", "run-7", 5, Walls.UIDS)
    second = sandbox.spec(request, "sha256:1", "run-8", 5, Walls.NAMESPACES)

    assert first.name == "commserver-ssssssss-bbbbbbbb-1"
    assert second.name == "commserver-ssssssss-bbbbbbbb-2"
    assert (first.walls, second.walls) == (Walls.UIDS, Walls.NAMESPACES)
    assert (first.memory, first.uid, first.grader_uid) == (128 * MIB, 200_005, 201_005)
    assert (first.budget.kept, first.budget.files) == (3 * 4096, 2)
    assert (first.budget.processes, first.budget.placed) == (53, 2 * 4096)
    assert (first.cpus, first.nofile) == (2.0, 99)
    assert first.labels == {SITE: "s" * 32, BOOT: "b" * 32, RUN: "run-7"}
    wrapper.close()


@pytest.mark.parametrize("url", ["", "https://host:2376", "ssh://host", "npipe:////./pipe/docker"])
def test_engines_that_cannot_be_reached_this_way_are_refused(url: str) -> None:
    with pytest.raises(SandboxError, match="unix"):
        DockerWrapper(url)
