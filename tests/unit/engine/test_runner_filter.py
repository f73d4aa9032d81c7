"""The filter around every program, run by an interpreter of the few instructions that it has."""

import errno
import struct

import pytest

from commserver.engine.runner import runner

X86_64, AARCH64 = "x86_64", "aarch64"
I386 = 0x40000003

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def answer(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What the kernel would make of a system call."""
    rest = [0] * (6 - len(arguments))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *rest)
    steps = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return int(value)
        else:
            met = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: accumulator & value != 0,
            }[code]
            place += if_true if met else if_false


def ask(machine: str, number: int, *arguments: int) -> int:
    """What a machine's filter makes of a call of its own kind."""
    program = runner.filter_program(machine)
    return answer(program, number, runner.ARCHITECTURES[machine], *arguments)


# ptrace, mount, bpf, keyctl, io_uring_setup, userfaultfd; read, execve, exit_group
KILLED = {X86_64: (101, 165, 321, 250, 425, 323), AARCH64: (117, 40, 280, 219, 425, 282)}
ALLOWED = {X86_64: (0, 59, 231), AARCH64: (63, 221, 94)}
DENIED = {X86_64: (272, 308, 161), AARCH64: (97, 268, 51)}  # unshare, setns, chroot
CLONE = {X86_64: 56, AARCH64: 220}


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_each_call_gets_its_answer(machine: str) -> None:
    assert {ask(machine, number) for number in KILLED[machine]} == {KILL}
    assert {ask(machine, number) for number in DENIED[machine]} == {EPERM}
    assert {ask(machine, number) for number in ALLOWED[machine]} == {ALLOW}
    assert ask(machine, 435) == ENOSYS  # clone3


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (17, ALLOW),  # fork
        (0x3D0F00, ALLOW),  # a thread
        (1 << 32 | 17, ALLOW),
        *((flag, EPERM) for flag in (1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29)),
        (1 << 30 | 17, EPERM),
        (1 << 32 | 1 << 29, EPERM),
    ],
)
def test_clone_makes_no_namespaces(machine: str, flags: int, expected: int) -> None:
    assert ask(machine, CLONE[machine], flags) == expected


def test_foreign_architectures_and_numbers_are_ended() -> None:
    program = runner.filter_program(X86_64)

    assert answer(program, 0, I386) == KILL
    assert answer(program, 0, runner.ARCHITECTURES[AARCH64]) == KILL
    assert answer(program, 0x40000000 + 39, runner.ARCHITECTURES[X86_64]) == KILL
    assert answer(program, 0xFFFFFFFF, runner.ARCHITECTURES[X86_64]) == KILL


def test_every_number_stands_once() -> None:
    for place in range(2):
        numbers = [
            row[place]
            for row in (
                *runner.KILLED.values(),
                *runner.DENIED.values(),
                runner.CLONE,
                runner.CLONE3,
            )
        ]
        assert len(set(numbers)) == len(numbers)


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(runner.Failure, match="riscv64"):
        runner.filter_program("riscv64")


# setpriority, ioprio_set, sched_setscheduler, sched_setaffinity, prlimit64, setsockopt
GUARDED = {X86_64: (141, 251, 144, 203, 302, 54), AARCH64: (140, 30, 119, 122, 261, 208)}


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_nobody_slows_down_their_init_or_has_filters_compiled(machine: str) -> None:
    priority, io, scheduler, affinity, limits, option = GUARDED[machine]
    high = 1 << 32

    denied = [
        (priority, 0, 1), (priority, 0, high | 1), (priority, 2, 0), (priority, 2, 7),
        (io, 1, 1), (io, 3, 0),
        (scheduler, 1), (scheduler, high | 1), (affinity, 1), (limits, 1),
        *((option, 5, 1, name) for name in (26, 50, 51, 52)),
    ]  # fmt: skip
    allowed = [
        (priority, 0, 0), (priority, 0, 2), (priority, 1, 1), (io, 1, 0), (io, 1, 7),
        (scheduler, 0), (scheduler, 2), (affinity, 0), (limits, 0), (limits, 12),
        (option, 5, 1, 2), (option, 5, 41, 26), (option, 1, 6, 50),
    ]  # fmt: skip

    assert {ask(machine, *call) for call in denied} == {EPERM}
    assert {ask(machine, *call) for call in allowed} == {ALLOW}
