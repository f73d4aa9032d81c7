"""What is there, seen from the host: in a container, and of containers that are gone.

The tests are root on the engine's machine, and this looks past every wall that programs meet.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
WRITABLE = ("box", "dev", "tmp")  # all that is not read-only in a container, by its top
# What engines make of that in every container; some have no core.
DEVICES = ("full", "null", "ptmx", "random", "tty", "urandom", "zero")
LINKS = ("core", "fd", "stderr", "stdin", "stdout")
FOLDERS = ("mqueue", "pts", "pts/ptmx", "shm")
OF_ENGINE = frozenset(f"/dev/{name}" for name in (*DEVICES, *LINKS, *FOLDERS))

GROWTH = 6 << 20  # bytes that a runner may have more than when it was new

NAMES = frozenset[str]


@dataclass(frozen=True, slots=True)
class Inside:
    """What a container holds. memory: bytes that its processes have to themselves."""

    processes: int
    mounts: NAMES
    files: NAMES
    ipc: NAMES
    sockets: NAMES
    descriptors: NAMES
    memory: int

    def left(self, like_new: "Inside") -> list[str]:
        """What differs from a container in which only an honest program has run."""
        found = [
            f"{name}: {sorted(getattr(self, name) ^ getattr(like_new, name))}"
            for name in ("mounts", "files", "ipc", "sockets", "descriptors")
            if getattr(self, name) != getattr(like_new, name)
        ]
        if self.processes != like_new.processes:
            found.append(f"processes: {self.processes}, not {like_new.processes}")
        if self.memory > like_new.memory + GROWTH:
            found.append(f"memory: {self.memory}, not {like_new.memory}")
        return found


def processes() -> list[Path]:
    """The folder of each process of the host; some have ended meanwhile."""
    return [PROC / name for name in os.listdir(PROC) if name.isdigit()]


def inside(pid: int) -> Inside:
    """Look into the container whose first process this is."""
    home = PROC / str(pid)
    pids = [int(number) for number in _procs(_cgroup(pid)).read_text().split()]
    return Inside(
        processes=len(pids),
        mounts=frozenset(_mounts(home / "mountinfo")),
        files=frozenset(_files(home / "root")),
        ipc=frozenset(_ipc(pid)),
        sockets=frozenset(_sockets(home / "net")),
        # Of what kind they are: a pipe or socket has another number after each request.
        descriptors=frozenset(
            f"{fd.name} {os.readlink(fd).partition(':[')[0]}" for fd in (home / "fd").iterdir()
        ),
        memory=sum(map(_private, pids)),
    )


def traces(containers: Iterable[str]) -> list[str]:
    """What the host still has of containers, by their ids: mounts, cgroups, processes, files."""
    ids = tuple(containers)
    if not ids:
        return []

    def named(text: str) -> bool:
        return any(one in text for one in ids)

    mounts = (PROC / "self/mountinfo").read_text().splitlines()
    found = [f"mount {line}" for line in mounts if named(line)]
    for process in processes():
        try:
            if named((process / "cgroup").read_text()):
                found.append(f"process {process.name}")
        except OSError:
            continue  # it has ended meanwhile
    cgroups = Path("/sys/fs/cgroup")
    found += [
        f"cgroup {path}"
        for pattern in ("docker/*", "*/docker/*", "system.slice/docker-*")
        for path in cgroups.glob(pattern)
        if named(path.name)
    ]
    # None of our uids ever works on the host itself.
    found += [f"ipc {line}" for line in _host_ipc() if _is_ours(line)]
    found += [f"file {path}" for path in _shallow() if _owned(path)]
    return found


OURS = range(200_000, 203_000)  # uids


def _cgroup(pid: int) -> str:
    """The path of the cgroup that counts a process's memory."""
    lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    rows = [line.split(":", 2) for line in lines]
    by_name = {name: path for _, names, path in rows for name in names.split(",")}
    return f"memory{by_name['memory']}" if "memory" in by_name else by_name[""].lstrip("/")


def _procs(cgroup: str) -> Path:
    return Path("/sys/fs/cgroup") / cgroup / "cgroup.procs"


def _mounts(mountinfo: Path) -> Iterator[str]:
    for line in mountinfo.read_text().splitlines():
        fields = line.split()
        yield f"{fields[4]} {fields[5]} {fields[fields.index('-') + 1]}"


def _files(root: Path) -> Iterator[str]:
    for top in WRITABLE:
        for folder, folders, names in os.walk(root / top):
            for name in (*folders, *names):
                yield os.path.join(folder, name).removeprefix(str(root))


def _ipc(pid: int) -> Iterator[str]:
    """System V objects and message queues of its namespace."""
    shown = subprocess.run(
        ["nsenter", "--target", str(pid), "--ipc", "tail", "-qn+2", *_SYSV],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    yield from shown.stdout.splitlines()


_SYSV = tuple(f"/proc/sysvipc/{kind}" for kind in ("shm", "msg", "sem"))


def _host_ipc() -> Iterator[str]:
    for path in _SYSV:
        yield from Path(path).read_text().splitlines()[1:]


def _is_ours(line: str) -> bool:
    return any(field.isdigit() and int(field) in OURS for field in line.split()[4:10])


def _shallow() -> Iterator[Path]:
    for folder in ("/dev/shm", "/dev/mqueue", "/tmp"):
        if Path(folder).is_dir():
            yield from Path(folder).iterdir()


def _owned(path: Path) -> bool:
    try:
        return path.lstat().st_uid in OURS
    except OSError:
        return False  # somebody else's, and gone


def _sockets(net: Path) -> Iterator[str]:
    for name in ("unix", "tcp", "udp", "tcp6", "udp6", "raw"):
        table = net / name
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                yield f"{name} {fields[-1] if name == 'unix' else fields[1]}"


def _private(pid: int) -> int:
    # What is clean is of files, and private only while no other process maps them.
    rollup = (PROC / str(pid) / "smaps_rollup").read_text().split()
    return 1024 * int(rollup[rollup.index("Private_Dirty:") + 1])
