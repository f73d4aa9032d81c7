"""Who answers for what: cells that run alone, beside graders, or beside one another."""

import os
import resource
import socket
from typing import Any

import pytest

from commserver.engine.runner import runner
from tests.unit.engine.test_runner_request import HEADER, PROCESS, STAGE

MIB = 1 << 20


class FakeMeter(runner.Meter):
    """A container whose use is set by hand."""

    version = 2

    def __init__(self) -> None:
        self.used = 0.0
        self.taken = 50 * MIB
        self.kept = 0
        self.killings = 0
        self.known = True

    @property
    def whole(self) -> bool:
        return self.known

    def cpu(self) -> float:
        return self.used

    def memory(self) -> int:
        return self.taken

    def kernel(self) -> int:
        return self.kept

    def limit(self) -> int:
        return 100 * MIB

    def kills(self) -> int:
        return self.killings


class FakeStore(runner.Store):
    """Holds nothing but a number."""

    def __init__(self) -> None:
        self.held = 0


class FakeCell(runner.Cell):
    """A cell whose processes show what is set."""

    def __init__(self, role: str, *, sole: bool = False, **limits: Any) -> None:
        process = runner.Process({**PROCESS, "role": role, **limits}, {"main"})
        super().__init__(runner.Request(HEADER, 4), process)
        self.sole = sole
        self.shown = (0.0, 0)
        self.own = 0.0
        self.killed = False

    def count(self, table: dict[int, runner.Seen]) -> None:
        cpu, self.memory = self.shown
        self.cpu = max(self.cpu, cpu)

    def overhead(self) -> float:
        return self.own

    def room(self) -> int:
        return 0

    def catch_up(self) -> None:
        """There is no news."""

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def meter() -> FakeMeter:
    """An idle container."""
    return FakeMeter()


@pytest.fixture
def account(meter: FakeMeter, monkeypatch: pytest.MonkeyPatch) -> runner.Account:
    """Accounts of a turn, in a container with nothing else in it."""
    monkeypatch.setattr(runner, "survey", dict)
    monkeypatch.setattr(runner, "mapped", lambda *_: MIB)
    monkeypatch.setattr(runner, "absent", lambda: 0)
    return runner.Account(runner.Namespaces(), meter, FakeStore())


def test_whoever_is_alone_answers_for_everything(meter: FakeMeter, account: runner.Account) -> None:
    cell = FakeCell("learner", sole=True)
    cell.head.private = 2 * MIB
    account.open([cell])

    meter.used, meter.taken = 1.5, 58 * MIB
    cell.own = 0.25
    account.look()
    meter.taken = 53 * MIB
    account.look()
    cell.reaped = 0.5
    account.close(cell)

    assert (cell.cpu, cell.peak) == (1.25, 10 * MIB)
    assert account.cells == []


def test_what_the_kernel_keeps_counts_but_for_what_it_would_give_back(
    meter: FakeMeter, account: runner.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = FakeCell("learner", sole=True)
    account.open([cell])
    monkeypatch.setattr(runner, "absent", lambda: 10_000)

    meter.kept = 10_000 * runner.ABSENT + MIB
    account.look()
    newer = cell.peak
    cell.peak, meter.version = 0, 1
    account.look()

    assert (newer, cell.peak) == (meter.kept, MIB)


def test_queues_of_sockets_count_where_the_cgroup_does_not_know_them(
    meter: FakeMeter, account: runner.Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = FakeCell("learner", sole=True)
    account.open([cell])
    monkeypatch.setattr(runner.Namespaces, "queued", lambda _: 7 * MIB)

    account.look()
    before = cell.peak
    meter.version = 1
    account.look()

    assert (before, cell.peak) == (0, 7 * MIB)


def test_a_learner_beside_graders_answers_for_what_is_not_theirs(
    meter: FakeMeter, account: runner.Account
) -> None:
    learner, grader = FakeCell("learner", sole=True), FakeCell("grader")
    account.open([learner, grader])

    grader.shown = (0.5, 5 * MIB)
    learner.shown = (0.1, 1 * MIB)  # most of it is in children that nobody waits for
    meter.used, meter.taken = 2.0, 75 * MIB
    account.look()
    grader.reaped = 0.75
    account.close(grader)
    meter.used, meter.taken = 2.5, 70 * MIB
    account.look()

    assert (grader.cpu, grader.peak) == (0.75, 5 * MIB)
    assert (learner.cpu, learner.peak) == (1.75, 20 * MIB)


def test_what_a_grader_used_last_is_not_put_down_to_the_learner(
    meter: FakeMeter, account: runner.Account
) -> None:
    """Once it is gone it shows nothing any more, and the next look comes before it is closed."""
    learner, grader = FakeCell("learner", sole=True), FakeCell("grader")
    account.open([learner, grader])
    meter.used, grader.shown = 1.0, (0.75, 0)
    account.look()

    meter.used, grader.reaped, grader.gone = 2.0, 1.5, True
    account.look()
    account.close(grader)
    account.look()

    assert (learner.cpu, grader.cpu) == (0.5, 1.5)


def test_a_run_answers_from_its_start_only(meter: FakeMeter, account: runner.Account) -> None:
    grader = FakeCell("grader")
    account.open([grader])
    for _ in range(2):
        meter.used += 1.0
        meter.taken += 8 * MIB
        grader.shown = (meter.used, meter.taken - 50 * MIB)
        run = FakeCell("learner", sole=True)
        account.open([run])
        meter.used += 0.5
        meter.taken += 4 * MIB
        account.look()
        assert (run.cpu, run.memory) == (0.5, 4 * MIB)
        account.close(run)
        meter.used -= 0.5
        account._past -= 0.5
        meter.taken -= 4 * MIB


def test_what_we_hold_is_nobodys_unless_borrowed(meter: FakeMeter, account: runner.Account) -> None:
    cell = FakeCell("grader", sole=True)
    account.open([cell])

    account._store.held += 10 * MIB
    meter.taken += 13 * MIB
    account.look()
    assert cell.peak == 3 * MIB
    cell.borrowed = 4 * MIB
    account.look()

    assert (cell.memory, cell.peak) == (3 * MIB, 7 * MIB)


def test_memory_that_processes_share_is_not_counted_for_each(
    meter: FakeMeter, account: runner.Account
) -> None:
    cells = [FakeCell("learner"), FakeCell("learner")]
    account.open([*cells])

    meter.taken += 20 * MIB
    cells[0].shown = (0.0, 60 * MIB)
    cells[1].shown = (0.0, 5 * MIB)
    account.look()

    assert [cell.memory for cell in cells] == [20 * MIB, 5 * MIB]


def test_without_a_cgroup_what_shows_is_all_there_is(
    meter: FakeMeter, account: runner.Account
) -> None:
    meter.known = False
    cell = FakeCell("learner", sole=True)
    account.open([cell])
    cell.shown = (1.0, 7 * MIB)
    account.look()
    cell.reaped = 1.25
    account.close(cell)

    assert (cell.cpu, cell.peak) == (1.25, 7 * MIB)


@pytest.mark.parametrize("sole", [True, False])
def test_what_we_spend_beside_the_cells_is_nobodys(meter: FakeMeter, sole: bool) -> None:
    """Such as to kill by uid, and to remove what only its owner may."""
    walls = runner.Uids()
    walls.spent = 1.0
    account = runner.Account(walls, meter, FakeStore())
    cell = FakeCell("learner", sole=sole)
    account.open([cell])
    other = FakeCell("grader")
    account.cells.append(other)

    meter.used, walls.spent, other.own = 4.0, 2.25, 0.5
    cell.shown = (2.0, 0)
    account.look()

    assert cell.cpu == (2.25 if sole else 2.0)


def usage(seconds: float) -> resource.struct_rusage:
    """What was used by a process that was in the kernel for half of that."""
    return resource.struct_rusage([seconds / 2, seconds / 2, *[0] * 14])


def test_what_it_costs_to_kill_and_to_tidy_up_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    walls = runner.Uids()
    request = runner.Request(HEADER, 4)
    processes = [runner.Process({**PROCESS, "role": role}, {"main"}) for role in runner.NICE]
    first, _ = (walls.cell(request, process) for process in processes)
    monkeypatch.setattr(os, "fork", lambda: 77)
    monkeypatch.setattr(os, "wait4", lambda pid, options: (pid, 0, usage(0.5)))
    first.kill()
    assert walls.spent == 0.5

    monkeypatch.setattr(runner, "ipc_ids", lambda kind, uid, left=[1]: left and [left.pop()])
    assert runner.remove_ipc(200_000) == 0.5

    monkeypatch.setattr(runner, "empty", lambda path, deadline: None)
    monkeypatch.setattr(os, "rmdir", lambda path: None)
    monkeypatch.setattr(runner, "QUEUES", "/nowhere")
    monkeypatch.setattr(runner, "remove_ipc", lambda uid: 0.25)
    first.leave()
    assert walls.spent == 0.75


def test_our_init_and_our_start_of_a_program_are_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walls = runner.Namespaces()
    process = runner.Process(PROCESS, {"main"})
    cell = walls.cell(runner.Request(HEADER, 4), process)
    assert isinstance(cell, runner.Inner)
    cell.pid, cell.status, cell._said_all = 77, 0, True
    cell.head = runner.Head.hear(b"0.25 0 0 0 0")
    clocks = {77: 0.5}
    monkeypatch.setattr(runner, "cpu_clock", clocks.__getitem__)
    monkeypatch.setattr(os, "wait4", lambda pid, options: (pid, 0, usage(2.0)))
    assert cell.overhead() == 0.5

    clocks[77] = 0.75
    assert cell.check()

    assert cell.reaped == 2.0 - 0.75 - 0.25
    clocks[77] = 9.0  # somebody else's by now
    assert cell.overhead() == 0.75


def test_where_uids_are_the_walls_our_start_is_not_the_programs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walls = runner.Uids()
    cell = walls.cell(runner.Request(HEADER, 4), runner.Process(PROCESS, {"main"}))
    cell.status, cell.reaped = 0, 2.0
    cell.head = runner.Head.hear(b"0.25 0 0 0 0")
    monkeypatch.setattr(walls, "bury", lambda wait=False: False)
    monkeypatch.setattr(cell, "kill", lambda: None)

    assert cell.check()

    assert cell.reaped == 1.75


def test_what_processes_show_is_without_our_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "cpu_clock", {11: 0.75, 12: 0.5}.__getitem__)
    cell = FakeCell("learner")
    cell.pid = 11
    cell.head = runner.Head.hear(b"0.25 0 0 0 0")
    monkeypatch.setattr(cell, "members", list)
    seen = runner.Seen(b"11 (x) S 1 " + b"0 " * 60, b"Name:\tx\n")

    runner.Cell.count(cell, {11: seen, 12: seen})

    assert cell.cpu == 1.0


def test_the_kernels_killing_is_put_down_to_somebody(
    meter: FakeMeter, account: runner.Account
) -> None:
    grader, small, large = FakeCell("grader"), FakeCell("learner"), FakeCell("learner")
    grader.memory, small.memory, large.memory = 9, 1, 5
    account.cells += [grader, small, large]
    assert account.killed() is None

    meter.killings = 1
    assert account.killed() is large
    assert account.killed() is None
    small.status = runner.SIGKILL
    meter.killings = 3
    assert account.killed() is small
    small.kill_sent = True
    meter.killings = 4
    assert account.killed() is large


@pytest.mark.parametrize("sole", [True, False])
def test_whom_the_kernel_killed_for_want_of_memory_is_ended_for_it(
    meter: FakeMeter, sole: bool
) -> None:
    stage = runner.Stage({**STAGE, "processes": [PROCESS]}, {"main"})
    turn = runner.Turn(runner.Namespaces(), meter, FakeStore(), runner.Request(HEADER, 4), stage)
    grader, learner = FakeCell("grader"), FakeCell("learner", sole=sole)
    grader.memory, learner.memory = 9, 1
    turn.account.cells += [grader, learner]

    turn._ask_kernel()
    assert (learner.flags, learner.killed, grader.killed) == (0, False, False)
    meter.killings = 1
    turn._ask_kernel()

    assert (learner.flags, learner.kill_sent, learner.killed) == (runner.MEMORY, True, True)
    # Whoever answers for everything has had all that it may, though nobody has seen it.
    assert learner.peak == (learner.process.memory if sole else 0)
    assert (grader.flags, grader.kill_sent, grader.killed) == (0, False, False)
    turn.account.cells.remove(learner)
    meter.killings = 2
    turn._ask_kernel()
    assert (grader.flags, grader.killed) == (runner.MEMORY, True)


def test_who_has_ended_by_itself_was_not_stopped_for_want_of_memory(meter: FakeMeter) -> None:
    stage = runner.Stage({**STAGE, "processes": [PROCESS]}, {"main"})
    turn = runner.Turn(runner.Namespaces(), meter, FakeStore(), runner.Request(HEADER, 4), stage)
    cell = FakeCell("learner")
    turn.account.cells.append(cell)
    cell.end_with(runner.SIGKILL, 1.0)
    meter.killings = 1

    turn._ask_kernel()

    assert (cell.flags, cell.kill_sent, cell.stopped) == (runner.MEMORY, False, True)


def test_nothing_begins_where_the_memory_that_it_may_use_is_not_there(
    meter: FakeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WIPE_TIMEOUT", 0.0)
    stage = runner.Stage({**STAGE, "processes": [{**PROCESS, "memory": 50 * MIB + 1}]}, {"main"})
    turn = runner.Turn(runner.Namespaces(), meter, FakeStore(), runner.Request(HEADER, 4), stage)

    with pytest.raises(runner.Failure, match="there is not the memory"):
        turn.go()

    assert turn.cells == {}


@pytest.mark.parametrize(
    ("largest", "touched", "seen", "peak"),
    [
        (51, 50, 10, 50),  # the rest was touched after the last look
        (51, 45, 10, 45),  # and some of it was a file
        (51, 5, 40, 50),  # so it was, by huge pages
        (51, 5, 10, 10),  # a file may have been mapped after the last look
        (12, 12, 10, 10),  # no more than our own process before it
    ],
)
def test_what_the_kernel_remembers_counts_where_it_can_be_believed(
    meter: FakeMeter, account: runner.Account, largest: int, touched: int, seen: int, peak: int
) -> None:
    cell = FakeCell("learner", sole=True)
    cell.head.peak, cell.head.faults = 12 * MIB, 1000
    account.open([cell])
    meter.taken += seen * MIB
    account.look()
    cell.largest = largest * MIB
    cell.faults = 1000 + touched * MIB // runner.PAGE

    account.close(cell)

    assert cell.peak == peak * MIB


def test_mapped_files_are_taken_off_or_make_it_unbelievable() -> None:
    cell = FakeCell("learner")
    cell.peak = 50 * MIB

    for mapped, remembered in ((0, 80), (20, 60), (21, 0)):
        cell.largest, cell.mapped = 80 * MIB + 1, mapped * MIB
        assert cell.remembered() // MIB == remembered


@pytest.mark.parametrize(
    ("status", "measured", "flags"),
    [
        (0, {}, 0),
        (0, {"cpu": 1.01}, runner.CPU),
        (0, {"ended": 2.6}, runner.REAL),
        (0, {"peak": 1 << 26}, runner.MEMORY),
        (31, {}, runner.SECURITY),
        (25, {}, runner.OUTPUT),
        (9, {}, 0),
        (31 << 8, {}, 0),
    ],
)
def test_flags_are_set_afterwards_too(status: int, measured: dict[str, Any], flags: int) -> None:
    cell = FakeCell("learner")
    cell.status = status
    for name, value in measured.items():
        setattr(cell, name, value)

    cell.judge()

    assert (cell.flags, cell.stopped) == (flags, False)


def test_who_was_stopped_is_told_from_who_ended() -> None:
    by_us, by_kernel, by_itself = FakeCell("learner"), FakeCell("learner"), FakeCell("learner")
    for cell in (by_us, by_kernel, by_itself):
        cell.status = runner.SIGKILL
    by_us.kill_sent = True
    by_kernel.flags = runner.MEMORY

    assert [cell.stopped for cell in (by_us, by_kernel, by_itself)] == [True, True, False]


def test_processes_are_followed_through_a_cell() -> None:
    cell = FakeCell("learner")
    cell.pid = 10

    class Pids:
        """A process with a parent."""

        def __init__(self, parent: int) -> None:
            self.parent = parent

    table: Any = {10: Pids(1), 11: Pids(10), 12: Pids(11), 13: Pids(10), 20: Pids(1), 21: Pids(20)}

    assert sorted(runner.Inner.members(cell, table)) == [11, 12, 13]  # type: ignore[arg-type]


def test_a_cell_is_settled_when_all_is_known_of_it_whoever_speaks_first() -> None:
    for order in ((0, 1), (1, 0)):
        cell = FakeCell("learner")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = (runner.MOTHER + b"%d" % os.getpid(), runner.READY + b"0.25 1 2 3 4")
        for number in order:
            theirs.send(said[number])
        cell._link, cell._theirs = ours.detach(), theirs.detach()

        cell.settle()

        assert (cell.pid, cell.head.cpu, cell.head.space) == (os.getpid(), 0.25, 4)
        cell.leave()
