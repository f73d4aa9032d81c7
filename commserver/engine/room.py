"""What containers are made of: as much as one request needs, or as all ordinary ones do."""

from dataclasses import dataclass

from commserver.core.execution import MIB
from commserver.engine.budget import Budget
from commserver.engine.frames import Walls
from commserver.errors import SandboxError

CLASSES = tuple(size * MIB for size in (64, 128, 256, 512, 1024))
"""The memory that programs can get together, bytes; a limit between two is sampled for."""

RUNNER_MEMORY = 32 * MIB  # what PID 1 has beside all else
# Where uids are the walls, a program can make the runner as good a victim of the kernel as itself:
# then our look every few milliseconds has to come before the kernel's.
DISTANCE = 96 * MIB

# runc is several threads while it starts a container, and they count.
PROCESSES_MIN = 16
CELL_PROCESSES = 2  # the runner's own for each program that runs
RUNNER_PROCESSES = 2

INODES = 16384  # that a program may make in its work directory
INODES_KEPT = 1024  # beside those of the files that are known beforehand

# What an ordinary container has, and few requests need more: two programs that talk with each
# other, a compiler with its default limits, some hundreds of cases.
ORDINARY_MEMORY = 112 * MIB  # beside the class, the runner's included
ORDINARY_FILES = 1024
ORDINARY_PROCESSES = 160


@dataclass(frozen=True, slots=True)
class Room:
    """What a container has; sizes are bytes.

    memory: of its cgroup. box, inodes: of the file system that the runner keeps files in.
    processes: that can be at once, the runner's included.
    """

    memory: int
    box: int
    inodes: int
    processes: int

    def holds(self, other: "Room") -> bool:
        """True when it is nowhere smaller."""
        return (
            self.memory >= other.memory
            and self.box >= other.box
            and self.inodes >= other.inodes
            and self.processes >= other.processes
        )


def memory_class(memory: int) -> int:
    """The smallest class that a limit fits into.

    Raises:
        SandboxError: it is above all of them.
    """
    for size in CLASSES:
        if memory <= size:
            return size
    raise SandboxError(f"a memory limit of {memory} bytes is above {CLASSES[-1]}")


def needed(budget: Budget, memory: int, walls: Walls) -> Room:
    """The room that one request needs in a container of this memory class."""
    processes = budget.processes + budget.cells * CELL_PROCESSES + RUNNER_PROCESSES
    processes = max(processes, PROCESSES_MIN)
    ours = budget.kept + RUNNER_MEMORY
    if walls is Walls.NAMESPACES:
        return Room(
            max(memory, budget.using) + ours,
            budget.kept + MIB,
            budget.files + INODES_KEPT,
            processes,
        )
    return Room(
        max(memory + budget.copies, budget.using) + ours + DISTANCE,
        memory // 2 + budget.copies + budget.kept,
        INODES + 2 * budget.files + 2 * budget.cells * budget.entries,
        processes,
    )


def ordinary(memory: int) -> Room:
    """The room in a warm container of this class, where namespaces are the walls."""
    return Room(
        memory + ORDINARY_MEMORY,
        ORDINARY_MEMORY - RUNNER_MEMORY + MIB,
        ORDINARY_FILES + INODES_KEPT,
        ORDINARY_PROCESSES,
    )
