"""What the engine is asked for, to the letter."""

import json

import pytest

from commserver.core.execution import MIB, ExecutionRequest, File, Limits, Process
from commserver.engine.container import BOOT, CLASSES, RUN, RUNNER_MEMORY, SITE, ContainerSpec
from commserver.engine.sandbox import FreshSandbox, SandboxSettings, memory_class
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import SandboxError

SPEC = ContainerSpec(
    name="commserver-a-b-1",
    image="sha256:1",
    memory=64 * MIB,
    uid=200_003,
    processes=40,
    labels={"commserver.run": "r"},
)


def tmpfs_sizes(spec: ContainerSpec) -> dict[str, int]:
    """Bytes of each file system in memory."""
    mounts: dict[str, str] = spec.config()["HostConfig"]["Tmpfs"]
    return {
        path: int(next(o for o in options.split(",") if o.startswith("size="))[5:])
        for path, options in mounts.items()
    }


def test_a_container_is_walled_in() -> None:
    config = SPEC.config()
    host = config["HostConfig"]

    assert host["NetworkMode"] == "none"
    assert config["NetworkDisabled"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["SETUID", "SETGID", "KILL", "CHOWN"])
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert json.loads(host["SecurityOpt"][1].removeprefix("seccomp="))["syscalls"]
    assert not host["Privileged"]
    assert host["ReadonlyRootfs"]
    assert (host["IpcMode"], host["CgroupnsMode"]) == ("private", "private")
    assert host["LogConfig"] == {"Type": "none"}
    assert not {"Binds", "Mounts", "Devices", "VolumesFrom", "PidMode"} & set(host)
    assert config["Env"] == ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
    assert config["Hostname"] == "sandbox"
    assert config["StdinOnce"]


def test_a_container_has_its_class_and_the_runners_own_memory() -> None:
    host = SPEC.config()["HostConfig"]

    assert host["Memory"] == host["MemorySwap"] == 64 * MIB + RUNNER_MEMORY
    assert host["PidsLimit"] == 41
    assert host["CpuQuota"] / host["CpuPeriod"] == pytest.approx(1.1)


@pytest.mark.parametrize("memory", CLASSES)
def test_files_alone_never_take_the_runners_memory(memory: int) -> None:
    spec = ContainerSpec(name="", image="", memory=memory, uid=1, files=8 * MIB, buffers=3 * MIB)
    host = spec.config()["HostConfig"]
    shared = int(host["Sysctls"]["kernel.shmall"]) * 4096

    assert sum(tmpfs_sizes(spec).values()) + shared < memory + 8 * MIB
    assert host["Memory"] == memory + RUNNER_MEMORY + 11 * MIB
    for options in host["Tmpfs"].values():
        assert {"nosuid", "nodev"} <= set(options.split(","))
        assert "nr_inodes=" in options


def test_only_the_work_directorys_files_can_be_executed() -> None:
    mounts = SPEC.config()["HostConfig"]["Tmpfs"]

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
    small = Process("a", ("x",), Limits(memory=MIB, processes=3), stdin=bytes(100))
    large = Process("b", ("x",), Limits(memory=100 * MIB, processes=50, output=4 * MIB))
    request = ExecutionRequest("python", (File("f", b"x"), File("g", bytes(5000))), (small, large))

    first = sandbox.spec(request, "sha256:1", "run-7", 5)
    second = sandbox.spec(request, "sha256:1", "run-8", 5)

    assert first.name == "commserver-ssssssss-bbbbbbbb-1"
    assert second.name == "commserver-ssssssss-bbbbbbbb-2"
    assert (first.memory, first.processes, first.uid) == (128 * MIB, 50, 200_005)
    assert (first.files, first.file_count) == (3 * 4096, 2)
    assert first.buffers == 8 * MIB  # 4 × 4 MiB, less what the runner has anyway
    assert (first.cpus, first.nofile) == (2.0, 99)
    assert first.labels == {SITE: "s" * 32, BOOT: "b" * 32, RUN: "run-7"}
    wrapper.close()


@pytest.mark.parametrize("url", ["", "https://host:2376", "ssh://host", "npipe:////./pipe/docker"])
def test_engines_that_cannot_be_reached_this_way_are_refused(url: str) -> None:
    with pytest.raises(SandboxError, match="unix"):
        DockerWrapper(url)
