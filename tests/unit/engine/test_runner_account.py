"""Who answers for what: cells that run alone, beside graders, or beside one another."""

from typing import Any

import pytest

from commserver.engine.runner import runner
from tests.unit.engine.test_runner_request import HEADER, PROCESS

MIB = 1 << 20


class FakeMeter(runner.Meter):
    """A container whose use is set by hand."""

    def __init__(self) -> None:
        self.used = 0.0
        self.taken = 50 * MIB
        self.killings = 0
        self.known = True

    @property
    def whole(self) -> bool:
        return self.known

    def cpu(self) -> float:
        return self.used

    def memory(self) -> int:
        return self.taken

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

    def count(self, table: dict[int, runner.Seen]) -> None:
        cpu, self.memory = self.shown
        self.cpu = max(self.cpu, cpu)

    def overhead(self) -> float:
        return self.own

    def room(self) -> int:
        return 0


@pytest.fixture
def meter() -> FakeMeter:
    """An idle container."""
    return FakeMeter()


@pytest.fixture
def account(meter: FakeMeter, monkeypatch: pytest.MonkeyPatch) -> runner.Account:
    """Accounts of a turn, in a container with nothing else in it."""
    monkeypatch.setattr(runner, "survey", dict)
    return runner.Account(runner.Namespaces(), meter, FakeStore())


def test_whoever_is_alone_answers_for_everything(meter: FakeMeter, account: runner.Account) -> None:
    cell = FakeCell("learner", sole=True)
    cell.given_back = 2 * MIB
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
