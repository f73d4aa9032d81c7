"""What the runner reads of the kernel, and how it spells its frames."""

import os
import sys
import time
from pathlib import Path

import pytest

from commserver.core import execution
from commserver.core.execution import Flag
from commserver.engine import frames
from commserver.engine.runner import runner

MEMORY_V1 = b"""cache 20000768
rss 2691072
rss_huge 0
shmem 12288
mapped_file 5623808
hierarchical_memory_limit 100663296
hierarchical_memsw_limit 100663296
total_cache 10657792
total_rss 3000000
total_rss_huge 0
total_shmem 500
total_mapped_file 5623808
total_inactive_anon 2637824
"""

MEMORY_V2 = b"""anon 4001792
file 9891840
kernel 1200128
kernel_stack 65536
shmem 8192
file_mapped 5541888
inactive_anon 4009984
"""

EVENTS_V2 = b"low 0\nhigh 0\nmax 312\noom 4\noom_kill 3\noom_group_kill 0\n"
OOM_V1 = b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"
CPU_V2 = b"usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\n"


def test_both_kinds_of_cgroup_are_read() -> None:
    assert runner.memory_v1(MEMORY_V1) == 3_000_500
    assert runner.memory_v2(MEMORY_V2) == 4_009_984
    assert runner.cpu_v1(b"54959714\n") == pytest.approx(0.054959714)
    assert runner.cpu_v2(CPU_V2) == pytest.approx(2.5)
    assert runner.kills(OOM_V1) == 2
    assert runner.kills(EVENTS_V2) == 3


def test_what_a_kernel_does_not_say_counts_as_nothing() -> None:
    assert runner.memory_v1(b"") == 0
    assert runner.memory_v2(b"anon 5\n") == 5
    assert runner.cpu_v2(b"") == 0
    # Before Linux 4.13 the file had no such line.
    assert runner.kills(b"oom_kill_disable 0\nunder_oom 0\n") == 0


def write(root: Path, files: dict[str, bytes]) -> None:
    """Make a folder that looks like a container's cgroup."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("cpuacct", ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"])
def test_a_meter_on_the_older_cgroups(tmp_path: Path, cpuacct: str) -> None:
    write(
        tmp_path,
        {
            f"{cpuacct}/cpuacct.usage": b"90000000000000\n",
            "memory/memory.stat": MEMORY_V1,
            "memory/memory.limit_in_bytes": b"100663296\n",
            "memory/memory.oom_control": OOM_V1,
            "memory/memory.kmem.usage_in_bytes": b"16777316\n",
        },
    )

    meter = runner.Meter(str(tmp_path))

    assert meter.facts() == {"version": 1, "cpu": True, "memory": True, "kills": True}
    assert 0 < meter.cpu() < 90_000  # our own is taken off
    # Of the kernel's own, 16 MiB are free.
    assert (meter.memory(), meter.kernel()) == (3_000_500, 100)
    assert (meter.limit(), meter.kills()) == (96 << 20, 2)


def test_a_meter_on_the_newer_cgroup_reads_the_files_anew_each_time(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "cgroup.controllers": b"cpu memory pids\n",
            "cpu.stat": b"usage_usec 90000000\n",
            "memory.stat": MEMORY_V2,
            "memory.max": b"max\n",
            "memory.current": b"30000000\n",
            "memory.events": EVENTS_V2,
        },
    )
    meter = runner.Meter(str(tmp_path))
    before = meter.cpu()

    assert meter.facts() == {"version": 2, "cpu": True, "memory": True, "kills": True}
    assert (meter.memory(), meter.limit(), meter.kills()) == (4_009_984, sys.maxsize, 3)
    (tmp_path / "memory.max").write_bytes(b"100663296\n")
    assert meter.limit() == 96 << 20
    (tmp_path / "cpu.stat").write_bytes(b"usage_usec 91000000\n")
    (tmp_path / "memory.stat").write_bytes(b"anon 1\nshmem 2\n")
    assert meter.cpu() - before == pytest.approx(1.0, abs=0.2)
    assert meter.memory() == 3


MODERN = b"anon 1\nfile 9\nshmem 2\nkernel 16778216\nslab_reclaimable 500\nsock 30\n"
# Before Linux 5.18 the kernel's part has no line of its own.
EARLIER = (
    b"anon 4096000\nfile 2048000\nkernel_stack 49152\npercpu 0\nsock 8192\nshmem 1024000\n"
    b"file_mapped 0\nslab_reclaimable 856000\nslab_unreclaimable 400000\nslab 1256000\n"
)


@pytest.mark.parametrize(
    ("stat", "current", "kept"),
    [
        (MODERN, 17 << 20, 16778216 - 500 + 30 - (16 << 20)),
        (EARLIER, 27_777_216, 27_777_216 - 4_096_000 - 2_048_000 - 856_000 - (16 << 20)),
        (EARLIER, 8 << 20, 0),
    ],
)
def test_what_the_kernel_keeps_is_read_in_newer_cgroups_too(
    tmp_path: Path, stat: bytes, current: int, kept: int
) -> None:
    write(
        tmp_path,
        {
            "cgroup.controllers": b"cpu memory pids\n",
            "memory.stat": stat,
            "memory.current": b"%d\n" % current,
        },
    )

    assert runner.Meter(str(tmp_path)).kernel() == kept


def test_queues_of_internet_sockets_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
    line = "   0: 0100007F:1F90 00000000:0000 0A 00000010:00000100 00:00000000 00000000\n"
    used = "sockets: used 9\nTCP: inuse {} orphan 0 tw 0 alloc 1 mem 0\nUDP: inuse {} mem 0\n"
    files = {
        "sockstat": used.format(1, 2),
        "sockstat6": "TCP6: inuse 1\nUDP6: inuse 0\n",
        "tcp": head + line,
        "udp": head + 2 * line,
        "tcp6": head + line,
    }
    opened = runner.read
    monkeypatch.setattr(runner, "read", lambda path: opened(path.replace("/proc/7", str(tmp_path))))

    write(tmp_path, {f"net/{name}": text.encode() for name, text in files.items()})
    all_of_them = runner.queued(7)
    write(tmp_path, {"net/sockstat": used.format(0, 2).encode()})
    without_streams = runner.queued(7)

    assert (all_of_them, without_streams) == (4 * 0x110, 3 * 0x110)


def test_a_meter_without_any_cgroup_knows_nothing(tmp_path: Path) -> None:
    meter = runner.Meter(str(tmp_path / "nothing"))

    assert meter.facts() == {"version": 1, "cpu": False, "memory": False, "kills": False}
    assert not meter.whole
    assert (meter.cpu(), meter.memory(), meter.limit(), meter.kills()) == (0.0, 0, sys.maxsize, 0)


def test_a_process_is_read_whatever_it_calls_itself() -> None:
    stat = b"7 (a) b) S " + b" ".join(b"%d" % n for n in range(4, 60))
    status = (
        b"Name:\tUid: 5 RssAnon: 9\nUid:\t8\t9\t9\t9\nVmSize:\t  7000 kB\n"
        b"RssAnon:\t   100 kB\nRssFile:\t 9 kB\nRssShmem:\t 20 kB\n"
    )

    seen = runner.Seen(stat, status)

    # Fields 4, 16 and 17 of proc(5).
    assert (seen.parent, seen.uid, seen.memory, seen.mapped) == (4, 8, 120 * 1024, 29 * 1024)
    assert seen.space == 7000 * 1024
    assert seen.waited == pytest.approx((16 + 17) / os.sysconf("SC_CLK_TCK"))


def test_everybody_but_oneself_is_surveyed() -> None:
    table = runner.survey()

    assert os.getpid() not in table
    assert table[os.getppid()].memory > 0


def test_the_most_that_somebody_maps_is_found() -> None:
    space = int(runner.read("/proc/1/statm").split()[0]) * runner.PAGE

    assert runner.mapped(os.getppid(), space) > 0


def test_what_a_process_used_is_known_by_its_number() -> None:
    before = time.process_time()

    assert before <= runner.cpu_clock(os.getpid()) <= time.process_time()
    assert runner.cpu_clock(1 << 22) == 0.0  # above the largest that there can be


def test_numbers_are_the_cores() -> None:
    assert (runner.CPU, runner.MEMORY, runner.REAL, runner.SECURITY, runner.OUTPUT) == (
        Flag.CPU,
        Flag.MEMORY,
        Flag.REAL,
        Flag.SECURITY,
        Flag.OUTPUT,
    )
    assert runner.CONTROL_FD == execution.CONTROL_FD
    assert (runner.RESULT_FD, runner.INPUT_FD) == (execution.RESULT_FD, execution.INPUT_FD)
    assert set(runner.NICE) == set(runner.OOM_SCORE) == set(execution.Role)
    assert runner.VERSION == frames.RUNNER_VERSION
    assert runner.MAX_RUNS == frames.MAX_RUNS


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        'quotes " and \\ and \n and \x00 and ü and \U0001f600',
        "\udcff",
        0,
        -7,
        1.5,
        1e-9,
        True,
        False,
        [],
        [1, "a", [2.5]],
        {"a": {"b": [True]}},
    ],
)
def test_json_goes_there_and_back(value: object) -> None:
    assert runner.from_json(runner.to_json({"value": value}).encode()) == {"value": value}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"[]",
        b'"a"',
        b"1",
        b"{}x",
        b"{} {}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\x01"}',
        b"{'a': 1}",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_not_one_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(runner.BrokenRequest):
        runner.from_json(text)


def test_programs_are_looked_up_as_a_shell_would() -> None:
    assert runner.candidates("./main") == ["./main"]
    assert runner.candidates("/bin/sh") == ["/bin/sh"]
    assert runner.candidates("gcc")[-2:] == ["/sbin/gcc", "/bin/gcc"]


class FakeMeter(runner.Meter):
    """A container whose use is set by hand."""

    def __init__(self) -> None:
        self.taken = self.kept = self.killings = 0

    def memory(self) -> int:
        return self.taken

    def kernel(self) -> int:
        return self.kept

    def kills(self) -> int:
        return self.killings


def test_a_container_serves_again_if_it_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "survey", dict)
    monkeypatch.setattr(runner, "FOLDERS", {str(tmp_path): ["keep"], str(tmp_path / "keep"): []})
    (tmp_path / "keep").mkdir()
    meter = FakeMeter()
    fitness = runner.Fitness(runner.Namespaces(), meter)

    def why() -> object:
        facts = fitness.facts()
        assert facts["fit"] is (facts["why"] == "")
        return facts["why"]

    meter.taken, meter.kept = runner.SWELL // 2, runner.SWELL // 2
    assert fitness.facts() == {"fit": True, "why": "", "memory": runner.SWELL}
    meter.kept += 1
    assert why() == f"{runner.SWELL + 1} bytes are used more than at first"
    meter.killings = 1
    assert why() == "the kernel killed for want of memory"
    left = os.open(os.devnull, os.O_RDONLY)
    assert why() == "descriptors are left open"
    (tmp_path / "keep" / "file").touch()
    assert why() == f"something is left in {tmp_path / 'keep'}"
    monkeypatch.setattr(runner, "survey", lambda: {2: None})
    assert why() == "a process is left"
    os.close(left)


def test_walls_of_uids_serve_once() -> None:
    facts = runner.Fitness(runner.Uids(), FakeMeter()).facts()

    assert facts == {"fit": False, "why": "walls of uids serve once", "memory": 0}


def test_want_of_memory_is_not_taken_for_want_of_walls(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = FakeMeter()

    def find_walls() -> tuple[None, str]:
        meter.killings += 1
        return None, "it said nothing"

    monkeypatch.setattr(runner, "protect", lambda: None)
    monkeypatch.setattr(runner, "Meter", lambda: meter)
    monkeypatch.setattr(runner, "find_walls", find_walls)

    with pytest.raises(runner.Failure, match="memory ran out"):
        runner.serve()
