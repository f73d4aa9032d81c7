"""What the engine is asked for, to the letter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commserver.core.execution import MIB
from commserver.core.verdicts import Verdict
from commserver.engine import seccomp
from commserver.engine.budget import Budget, budget
from commserver.engine.container import BOOT, RUN, SITE, ContainerSpec
from commserver.engine.frames import Walls
from commserver.engine.pool import Key
from commserver.engine.room import (
    CLASSES,
    ORDINARY_MEMORY,
    RUNNER_MEMORY,
    memory_class,
    needed,
    ordinary,
)
from commserver.engine.sandbox import DockerSandbox, SandboxSettings
from commserver.engine.wrapper import DockerWrapper
from commserver.errors import SandboxError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.services import exercise_folder
from tests.conftest import ROOT

BUDGET = Budget(
    using=72 * MIB,
    kept=8 * MIB,
    files=10,
    placed=2 * MIB,
    entries=5,
    copies=4 * MIB,
    body=MIB,
    processes=40,
    cells=2,
)
NESTED = ContainerSpec(
    name="commserver-a-b-1",
    image="sha256:1",
    walls=Walls.NAMESPACES,
    memory=64 * MIB,
    room=needed(BUDGET, 64 * MIB, Walls.NAMESPACES),
    uid=200_003,
    grader_uid=201_003,
    labels={"commserver.run": "r"},
)
APART = replace(NESTED, walls=Walls.UIDS, room=needed(BUDGET, 64 * MIB, Walls.UIDS))
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


WHOLE = {
    "Image": "sha256:1",
    "Entrypoint": ["/usr/bin/python3", "-I", "-S", "/opt/commserver/runner.pyc"],
    "Cmd": [],
    "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"],
    "WorkingDir": "/",
    "Hostname": "sandbox",
    "Labels": {"commserver.run": "r"},
    "Healthcheck": {"Test": ["NONE"]},
    "AttachStdin": True,
    "AttachStdout": True,
    "AttachStderr": True,
    "OpenStdin": True,
    "StdinOnce": True,
    "Tty": False,
    "NetworkDisabled": True,
}
HOST = {
    "NetworkMode": "none",
    "CapDrop": ["ALL"],
    "Privileged": False,
    "ReadonlyRootfs": True,
    "IpcMode": "private",
    "CgroupnsMode": "private",
    "CpuPeriod": 20_000,
    "CpuQuota": 22_000,
    "Ulimits": [
        {"Name": "core", "Soft": 0, "Hard": 1},
        {"Name": "nofile", "Soft": 4096, "Hard": 4096},
    ],
    "LogConfig": {"Type": "none"},
    "Init": False,
    "AutoRemove": False,
    "RestartPolicy": {"Name": "no"},
}


def test_with_namespaces_an_ordinary_user_without_any_capability_is_asked_for() -> None:
    """To the letter: any other key would be a wall less, or one that nobody has thought about."""
    assert NESTED.config() == {
        **WHOLE,
        "User": "200003:200003",
        "HostConfig": {
            **HOST,
            "Memory": 112 * MIB,  # what is used at once, what is kept, and the runner's 32 MiB
            "MemorySwap": 112 * MIB,
            "PidsLimit": 46,
            "SecurityOpt": [
                "no-new-privileges",
                f"seccomp={seccomp.profile(namespaces=True)}",
            ],
            "Tmpfs": {
                "/box": f"rw,nosuid,nodev,size={9 * MIB},nr_inodes=1034,exec,mode=700"
                ",uid=200003,gid=200003"
            },
            "ShmSize": 4096,
        },
    }


def test_without_namespaces_a_root_is_asked_for_with_just_what_turns_it_into_others() -> None:
    assert APART.config() == {
        **WHOLE,
        "User": "0:0",
        "HostConfig": {
            **HOST,
            "Memory": 208 * MIB,  # 96 MiB more
            "MemorySwap": 208 * MIB,
            "PidsLimit": 46,
            "CapAdd": ["SETUID", "SETGID", "KILL", "CHOWN"],
            "SecurityOpt": [
                "no-new-privileges",
                f"seccomp={seccomp.profile(namespaces=False)}",
            ],
            "Tmpfs": {
                "/box": f"rw,nosuid,nodev,size={44 * MIB},nr_inodes=16424,exec,mode=711",
                "/tmp": f"rw,nosuid,nodev,size={16 * MIB},nr_inodes=4096,noexec,mode=1777",
                "/dev/shm": f"rw,nosuid,nodev,size={8 * MIB},nr_inodes=1024,noexec,mode=1777",
            },
            "Sysctls": {
                "kernel.shmall": "1024",
                "kernel.shm_rmid_forced": "1",
                "kernel.msgmni": "16",
            },
        },
    }


def test_an_engine_that_confines_by_apparmor_must_not_forbid_the_runner_its_mounts() -> None:
    nested, apart = (replace(spec, unconfined=True) for spec in (NESTED, APART))

    assert "apparmor=unconfined" in host_config(nested)["SecurityOpt"]
    assert "apparmor=unconfined" not in host_config(apart)["SecurityOpt"]


@pytest.mark.parametrize("walls", [Walls.NAMESPACES, Walls.UIDS])
def test_a_small_request_has_the_whole_class_and_enough_processes_to_begin(walls: Walls) -> None:
    room = needed(replace(BUDGET, using=MIB, kept=0, copies=0, processes=1), 64 * MIB, walls)

    assert room.memory >= 64 * MIB + RUNNER_MEMORY
    assert room.processes == 16


@pytest.mark.parametrize("memory", CLASSES)
@FORMS
def test_files_alone_never_take_the_runners_memory(spec: ContainerSpec, memory: int) -> None:
    spec = replace(spec, memory=memory, room=needed(BUDGET, memory, spec.walls))
    shared = int(host_config(spec).get("Sysctls", {}).get("kernel.shmall", 0)) * 4096

    assert sum(tmpfs_sizes(spec).values()) + shared < memory + BUDGET.kept + BUDGET.copies
    assert spec.settings(BUDGET).box == memory // 2 + BUDGET.placed


@pytest.mark.parametrize(
    ("limit", "size"), [(1, 64), (64 * MIB, 64), (64 * MIB + 1, 128), (1024 * MIB, 1024)]
)
def test_a_limit_goes_into_the_smallest_class(limit: int, size: int) -> None:
    assert memory_class(limit) == size * MIB


def test_a_limit_above_all_classes_is_refused() -> None:
    with pytest.raises(SandboxError, match="above"):
        memory_class(1024 * MIB + 1)


def test_a_container_is_what_it_is_asked_to_be() -> None:
    wrapper = DockerWrapper("unix:///nowhere")
    sandbox = DockerSandbox(
        wrapper,
        site="s" * 32,
        boot="b" * 32,
        settings=SandboxSettings(cpus=2.0, nofile=99, runtime="runsc"),
    )
    key = Key("sha256:1", 128 * MIB)

    first = sandbox.spec(key, NESTED.room, Walls.NAMESPACES, {RUN: "run-7"}, 5)
    second = sandbox.spec(key, APART.room, Walls.UIDS, {}, 6)

    assert first.name == "commserver-ssssssss-bbbbbbbb-1"
    assert second.name == "commserver-ssssssss-bbbbbbbb-2"
    assert (first.walls, second.walls) == (Walls.NAMESPACES, Walls.UIDS)
    assert (first.room, second.room) == (NESTED.room, APART.room)
    assert (first.image, first.memory) == key
    assert (first.uid, first.grader_uid) == (200_005, 201_005)
    assert (second.uid, second.grader_uid) == (200_006, 201_006)
    assert (first.cpus, first.nofile) == (2.0, 99)
    assert first.labels == {SITE: "s" * 32, BOOT: "b" * 32, RUN: "run-7"}
    assert second.labels == {SITE: "s" * 32, BOOT: "b" * 32}
    assert host_config(first)["Runtime"] == "runsc"
    wrapper.close()


@pytest.mark.parametrize(
    "folder",
    [file.parent for file in sorted((ROOT / "examples").glob("*/*/exercise.toml"))],
    ids=lambda folder: folder.name,
)
def test_ordinary_exercises_fit_into_ordinary_containers(folder: Path) -> None:
    exercise = exercise_folder.read(folder)
    solutions = map(exercise.solution, exercise.solutions)
    by_language = {
        exercise_folder.language_for(exercise.definition, (name for name, _ in files)): files
        for files in solutions
    }

    for language, files in by_language.items():
        content = Content(language, exercise.definition.grade_max, files, exercise.row)
        plan = kinds.plan(content, exercise.bulk)
        assert not isinstance(plan, Verdict)
        size = memory_class(plan.request.memory)
        room = needed(budget(plan.request), size, Walls.NAMESPACES)
        assert ordinary(size).holds(room), room


@pytest.mark.parametrize("memory", CLASSES)
def test_an_ordinary_container_has_little_beside_its_class(memory: int) -> None:
    room = ordinary(memory)

    assert room.memory == memory + ORDINARY_MEMORY <= memory + 128 * MIB
    assert room.box < ORDINARY_MEMORY


def test_a_room_holds_what_is_nowhere_larger() -> None:
    room = ordinary(64 * MIB)

    assert room.holds(room)
    for name in ("memory", "box", "inodes", "processes"):
        assert not room.holds(replace(room, **{name: getattr(room, name) + 1}))


@pytest.mark.parametrize("url", ["", "https://host:2376", "ssh://host", "npipe:////./pipe/docker"])
def test_engines_that_cannot_be_reached_this_way_are_refused(url: str) -> None:
    with pytest.raises(SandboxError, match="unix"):
        DockerWrapper(url)
