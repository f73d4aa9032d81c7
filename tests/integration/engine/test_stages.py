"""Stages of several processes: the pipes between them, their ends, and the runs they ask for."""

from dataclasses import replace

import pytest

from commserver.core.execution import (
    MIB,
    Artifact,
    Case,
    CaseReport,
    Descriptor,
    Flag,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
    Stage,
    StageReport,
    Stop,
    WorkFile,
)
from commserver.engine.frames import Walls
from tests.lab import ASK, GENTLE, Lab, alone, python, said

pytestmark = pytest.mark.docker

PATIENT = Limits(cpu=5.0, real=60.0)


def joined(writer: str, out: int, reader: str, into: int) -> Pipe:
    """A pipe between two processes."""
    return Pipe(Descriptor(writer, out), Descriptor(reader, into))


def only(case: CaseReport) -> StageReport:
    """The one stage of a case."""
    (stage,) = case.stages
    return stage


BIG = 10 * MIB

PROGRAMS: dict[str, str | bytes] = {
    "told": "told by a file\n",
    "big": b"x" * BIG,
    # Each reads its own copy from its beginning.
    "reads": """
import os
print(open(0).read(), open(7).read(), end="")
os.write(255, b"through the last")
open("made", "w").write("left behind")
""",
    "again": "print(open(0).read(), open('put/here').read(), end='')",
    # Both write ten megabytes of their own and read as much.
    "exchange": """
import hashlib, os, random, sys, threading
said, got = random.Random(sys.argv[1]).randbytes(10 << 20), []
reader = threading.Thread(target=lambda: got.append(sys.stdin.buffer.read()))
reader.start()
sys.stdout.buffer.write(said); sys.stdout.flush(); os.close(1)
reader.join()
print(*(hashlib.sha256(data).hexdigest() for data in (said, *got)), len(*got), file=sys.stderr)
""",
    "leaves": "print(input())",
    "goes_on": """
import os, signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.write(1, b"first\\n")
for _ in range(100): os.write(1, b"z" * 65536)
print("went on", file=open(2, "w"))
""",
    # The pipe becomes full while its reader lives and does not read, and is emptied afterwards.
    "fills": """
import os
os.write(1, b"first\\n")
os.set_blocking(1, False)
try:
    for _ in range(1000): os.write(1, b"z" * 65536)
except BlockingIOError: os.write(3, b"full")
os.set_blocking(1, True)
for _ in range(100): os.write(1, b"z" * 65536)
os.write(2, b"went on")
""",
    "turns_away": """
import os
print(input()); os.close(0)
print(os.read(4, 100))
""",
    "unbound": """
import os
os.write(1, b"x"); os.write(2, b"x")
fds = os.listdir("/proc/self/fd")  # the last is for this look
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in fds[:3]]
open("made", "w").write(f"{os.read(0, 1)} {fds} {names}")
""",
    "closes": """
import os, sys
if os.fork() == 0:
    os.close(1)
    import time; time.sleep(60)  # and holds the other pipe
os.write(1, b"the end"); os.close(1)
print(os.read(0, 100), file=sys.stderr)
os._exit(4)
""",
    "until_the_end": """
import os, sys
print(sys.stdin.read(), flush=True, file=sys.stderr); os.write(1, b"heard")
""",
    "unread": "import os; os.close(0); print('not interested')",
}


def gentle(name: str, *files: str) -> Process:
    """One of the programs, patient."""
    return python(name, files, PATIENT)


async def test_every_kind_of_pipe(lab: Lab) -> None:
    reads, again = gentle("reads"), gentle("again")
    copies = Stage(
        "read",
        (reads, replace(reads, name="twin")),
        (
            *(
                Pipe(Resource("told"), Descriptor(name, fd))
                for name in ("reads", "twin")
                for fd in (0, 7)
            ),
            *said("reads", 1, 255),
            *said("twin", 1, 255),
            Pipe(Resource("told"), Artifact("copy")),
            Pipe(WorkFile("reads", "made"), Artifact("made")),
            Pipe(WorkFile("twin", "made"), Artifact("unseen", returned=False)),
        ),
    )
    later = Stage(
        "later",
        (replace(again, files=(*again.files, Placement("unseen", "put/here"))),),
        (Pipe(Resource("reads.255"), Descriptor("again", 0)), *said("again", 1, 2)),
    )
    exchange = python("exchange", (), PATIENT, "one")
    other = replace(python("exchange", (), PATIENT, "the other"), name="other")
    both = Stage(
        "both",
        (exchange, other),
        (
            joined("exchange", 1, "other", 0),
            joined("other", 1, "exchange", 0),
            *said("exchange", 2),
            *said("other", 2),
        ),
    )
    early = Stage(
        "early",
        (gentle("leaves"), gentle("goes_on")),
        (joined("goes_on", 1, "leaves", 0), *said("leaves", 1), *said("goes_on", 2)),
    )
    aside = Stage(
        "aside",
        (gentle("turns_away"), gentle("fills")),
        (
            joined("fills", 1, "turns_away", 0),
            joined("fills", 3, "turns_away", 4),
            *said("turns_away", 1),
            *said("fills", 2),
        ),
    )
    ends = Stage(
        "ends",
        (gentle("closes"), gentle("until_the_end")),
        (
            joined("closes", 1, "until_the_end", 0),
            joined("until_the_end", 1, "closes", 0),
            *said("closes", 2),
            *said("until_the_end", 2),
        ),
    )
    unread = alone(gentle("unread"), Pipe(Resource("big"), Descriptor("unread", 0)))
    unbound = Stage(
        "unbound", (gentle("unbound"),), (Pipe(WorkFile("unbound", "made"), Artifact("made")),)
    )

    report = await lab.execute(
        Case("copies", (copies, later)),
        *(Case(stage.name, (stage,)) for stage in (both, early, aside, ends, unbound)),
        Case("unread", (unread,)),
        files=PROGRAMS,
    )

    first, second = report.cases[0].stages
    for name in ("reads", "twin"):
        assert first.content(f"{name}.1") == b"told by a file\n told by a file\n"
        assert first.content(f"{name}.255") == b"through the last"
    assert (first.content("copy"), first.content("made")) == (b"told by a file\n", b"left behind")
    assert (first.artifacts[-1].size, first.artifacts[-1].content) == (11, None)
    assert second.content("again.1") == b"through the last left behind"
    both_ways, left, turned, ended, lonely, ignored = map(only, report.cases[1:])
    assert both_ways.ok
    ours, theirs = (both_ways.content(f"{name}.2").split() for name in ("exchange", "other"))
    assert ours[0] != ours[1]
    assert ours == [theirs[1], theirs[0], b"%d" % BIG]
    assert turned.ok
    assert turned.content("turns_away.1") == b"first\nb'full'\n"
    assert turned.content("fills.2") == b"went on"
    fds, null = list("0123"), ["/dev/null"] * 3
    assert lonely.content("made") == f"b'' {fds} {null}".encode()
    assert left.ok
    assert (left.content("leaves.1"), left.content("goes_on.2")) == (b"first\n", b"went on\n")
    assert [process.exit_code for process in ended.processes] == [4, 0]
    assert ended.content("closes.2") == b"b'heard'\n"
    assert ended.content("until_the_end.2") == b"the end\n"
    assert (ignored.ok, ignored.content("out")) == (True, b"not interested\n")


async def test_a_stage_ends_when_all_have_and_says_in_which_order(lab: Lab) -> None:
    files: dict[str, str | bytes] = {
        "first": "import os; os._exit(3)",
        "second": "open(0).read(); raise SystemExit(0)",  # not before the first has ended
        "waits": "input()",
        "burns": "while True: pass",
        "eats": "data = [bytearray(b'x' * (1 << 20)) for _ in range(100)]",
        "judge": "import time; open(0).read(); data = b'x' * (20 << 20); time.sleep(0.3)",
        "floods": "while True: print('x' * 1000)",
        "well": "print('well')",
    }
    order = Stage(
        "order",
        (python("second", (), PATIENT), python("first", (), PATIENT)),
        (joined("first", 1, "second", 0),),
    )
    brief = Limits(cpu=0.3, real=2.0)
    waiting = Stage(
        "waiting",
        (python("waits", (), brief), replace(python("waits", (), brief), name="too")),
        (joined("waits", 1, "too", 0), joined("too", 1, "waits", 0)),
    )

    def judged(player: str, limits: Limits) -> Stage:
        judge = replace(python("judge", (), PATIENT), role=Role.GRADER)
        return Stage(player, (judge, python(player, (), limits)), (joined(player, 1, "judge", 0),))

    hungry = Limits(cpu=2.0, real=60.0, memory=32 * MIB)
    bounded = Limits(cpu=5.0, real=60.0, output=5000)
    floods = Stage(
        "floods",
        (python("floods", (), bounded), python("well", (), PATIENT)),
        (*said("floods", 1), *said("well", 1)),
    )

    report = await lab.execute(
        *(
            Case(stage.name, (stage, alone(python("well"))))
            for stage in (
                order,
                waiting,
                judged("burns", Limits(cpu=0.3, real=60.0)),
                judged("eats", hungry),
                floods,
            )
        ),
        Case(
            "always",
            (
                replace(alone(python("well")), stop=Stop.ALWAYS),
                Stage("never", (python("first"),)),
            ),
        ),
        files=files,
    )

    assert [len(case.stages) for case in report.cases] == [1] * 6
    ordered, waited, burnt, eaten, flooded, stopped = map(only, report.cases)
    second, first = ordered.processes
    assert (first.exit_code, second.exit_code) == (3, 0)
    assert 0 < first.ended < second.ended == second.real
    for process in waited.processes:
        assert (process.exit_code, process.flags, process.stopped) == (-9, Flag.REAL, True)
    for stage, flag in ((burnt, Flag.CPU), (eaten, Flag.MEMORY)):
        judge, player = stage.processes
        assert (judge.exit_code, judge.flags) == (0, Flag(0))
        assert (player.exit_code, player.flags, player.stopped) == (-9, flag, True)
        assert judge.ended > player.ended
        assert judge.memory > 20 * MIB
    assert eaten.processes[1].memory >= 32 * MIB
    flooding, well = flooded.processes
    assert (flooding.exit_code, flooding.flags) == (-9, Flag.OUTPUT)
    assert (well.ok, len(flooded.content("floods.1"))) == (True, 5000)
    assert stopped.ok


async def test_what_goes_wrong_in_preparation_ends_everything(lab: Lab) -> None:
    fails = python("fails")

    report = await lab.execute(
        Case("never", (alone(fails),)),
        files={"works": "open('made', 'w').close()", "fails": "raise SystemExit(1)"},
        prepare=(
            Stage(
                "works", (python("works"),), (Pipe(WorkFile("works", "made"), Artifact("made")),)
            ),
            Stage("fails", (fails,)),
            Stage("never", (fails,)),
        ),
    )

    assert [stage.name for stage in report.prepare] == ["works", "fails"]
    assert report.cases == ()


RUNS: dict[str, str | bytes] = {
    "echo": r"""
import os, sys
told = os.read(4, 1000)
print(sys.argv[1:], sys.stdin.read(), sorted(os.listdir(".")))
os.write(3, told * 2); os.write(2, b"noise")
open("left", "w").close(); open("/tmp/left", "w").close() if os.access("/tmp", os.W_OK) else None
raise SystemExit(int(sys.argv[-1]))
""",
    "burn": "while True: pass",
    "eat": "data = b'x' * (200 << 20)",
    "sleep": "import time; time.sleep(60)",
    "flood": "while True: print('x' * 1000)",
    "forge": r"""
import os, struct
forged = struct.pack(">II", 24, 0) + b'{"run":"echo","args":[]}'
for fd in range(3, 256):
    for data in (forged, b"e0 0.0"):
        try: os.write(fd, data)
        except OSError: pass
""",
}


def asker(source: str, files: dict[str, str | bytes]) -> Case:
    """A grader that asks for these runs; what it prints is kept."""
    brief = Limits(cpu=0.3, real=30.0, output=3000)
    runs = tuple(
        Process(name, ("python3", "main"), brief, (Placement(name, "main"),)) for name in RUNS
    )
    grader = replace(python("ask", (), Limits(cpu=10.0, real=60.0)), role=Role.GRADER)
    files.update(RUNS, ask=ASK + source)
    return Case("ask", (alone(replace(grader, may_run=runs)),))


async def test_a_grader_asks_for_runs(lab: Lab) -> None:
    files: dict[str, str | bytes] = {}
    case = asker(
        r"""
for turn in range(2): print(ask("echo", "a b", "7", stdin=b"in", told=b"told"))
for name in ("burn", "eat"): print(ask(name)[:3])
print(ask("sleep", real=0.2)[:3])
exit, flags, stopped, out, err, result = ask("flood")
print((exit, flags, stopped), len(out))
exit, flags, stopped, out, err, result = ask("forge")
print((exit, flags, stopped), len(result) > 0)
print(ask("echo", "0", stdin=b"y" * 9_000_000)[1])
# What cannot be asked for is refused, and the next is answered all the same.
print(ask("nothing", stdin=b"skipped", told=b"too"))
for header in (
    b"[]", b"no", {}, {"run": "echo"}, {"run": "echo", "args": [1], "stdin": 0, "input": 0},
    {"run": "echo", "args": ["\0"], "stdin": 0, "input": 0},
    {"run": "echo", "args": [], "stdin": 1, "input": 0},
    {"run": "echo", "args": [], "stdin": -1, "input": 1},
    {"run": "echo", "args": [], "stdin": 0, "input": 0, "real": 0},
):
    say(header)
    print(answer())
print(ask("echo", "0")[:3], sorted(os.listdir(".")))
try: say({"run": "echo"}, size=65 << 20)
except OSError: pass  # it may have been refused before all of it was said
print(answer())
try: print(ask("echo"))
except (EOFError, OSError): print("over")
""",
        files,
    )

    report = await lab.execute(case, files=files)

    stage = only(report.cases[0])
    (grader,) = stage.processes
    assert (grader.ok, stage.content("err")) == (True, b"")
    lines = stage.content("out").decode().splitlines()
    echo = r"""(7, 0, False, b"['a b', '7'] in ['main']\n", b'noise', b'toldtold')"""
    assert lines[:8] == [
        echo,
        echo,
        f"(-9, {Flag.CPU.value}, True)",
        f"(-9, {Flag.MEMORY.value}, True)",
        f"(-9, {Flag.REAL.value}, True)",
        f"(-9, {Flag.OUTPUT.value}, True) 3000",
        "(0, 0, False) True",
        str(Flag.OUTPUT.value),  # it was given all of it, and echoes too much
    ]
    assert lines[8] == "there is no run 'nothing' to ask for"
    assert len(lines[9:18]) == len([line for line in lines[9:18] if not line.startswith("(")])
    assert lines[18:] == ["(0, 0, False) ['ask']", "the message is too long", "over"]
    assert [run.name for run in grader.runs] == [
        *("echo", "echo", "burn", "eat", "sleep", "flood", "forge", "echo", "echo")
    ]
    burnt, eaten, slept = grader.runs[2:5]
    assert 0.2 <= slept.real < 30.0, "it had less time than it may have"
    assert 0.33 < burnt.cpu < 0.6
    assert eaten.memory >= 64 * MIB
    assert grader.memory < 64 * MIB
    assert grader.cpu < 5.0  # what it asked for is not its own


async def test_a_run_ends_with_whoever_asked_for_it(lab: Lab) -> None:
    files: dict[str, str | bytes] = {}
    case = asker(
        'say({"run": "sleep", "args": [], "stdin": 0, "input": 0})\n'
        "import time; time.sleep(0.3); os._exit(6)",
        files,
    )

    report = await lab.execute(
        case, Case("after", (alone(python("after")),)), files={**files, "after": "print('after')"}
    )

    (grader,) = only(report.cases[0]).processes
    assert (grader.exit_code, grader.flags) == (6, Flag(0))
    assert [(run.name, run.exit_code, run.stopped) for run in grader.runs] == [("sleep", -9, True)]
    assert only(report.cases[1]).content("out") == b"after\n"


async def test_what_a_grader_holds_with_us_is_its_memory(lab: Lab) -> None:
    files: dict[str, str | bytes] = {}
    case = asker(
        "data = b'x' * (1 << 20)\n"
        'head = b\'{"run":"echo","args":["0"],"stdin":62914560,"input":0}\'\n'
        'control.sendall(struct.pack(">II", len(head), 60 << 20) + head)\n'
        "for _ in range(60): control.sendall(data)\n"
        "print(answer()[:2])",
        files,
    )

    report = await lab.execute(case, files=files)

    (grader,) = only(report.cases[0]).processes
    assert (grader.exit_code, grader.flags, grader.stopped) == (-9, Flag.MEMORY, True)


async def test_environments_are_as_asked_for(lab: Lab) -> None:
    show = Process("show", ("env",), GENTLE)

    report = await lab.execute(
        Case("more", (alone(replace(show, environment=(("A", "b=c"), ("LANG", "C")))),)),
        Case("none", (alone(show),)),
        files={},
    )

    more, none = (sorted(only(case).content("out").decode().splitlines()) for case in report.cases)
    assert none == [
        "HOME=/box/work",
        "LANG=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    assert more == ["A=b=c", none[0], "LANG=C", *none[2:]]


async def test_the_only_learner_of_a_stage_has_what_programs_expect(lab: Lab) -> None:
    program = """
import multiprocessing, os, socket, tempfile
if os.listdir("/tmp") or os.listdir("/dev/shm"): print("somebody left something")
open("/tmp/left", "w").close()
open("/dev/shm/left", "w").close()
tempfile.TemporaryFile().close()
with multiprocessing.Lock(): print("locked")
with socket.create_server(("localhost", 0)): print("bound")
"""
    run = Process("run", ("python3", "usual"), GENTLE, (Placement("usual", "usual"),))
    look = """
import os
for path in ("/tmp", "/dev/shm"):
    try: print(os.listdir(path))
    except PermissionError: print([])
"""
    grader = replace(python("grade"), role=Role.GRADER, limits=PATIENT, may_run=(run,))

    report = await lab.execute(
        Case("asked for", (alone(grader),)),
        Case("after", (alone(python("usual")),)),
        files={
            "usual": program,
            "grade": f"{ASK}\nfor turn in range(2):\n  print(ask('run')[3:5])\n{look}",
        },
    )

    asked, after = (only(case).content("out") for case in report.cases)
    good = b"locked\nbound\n"
    if lab.walls is Walls.UIDS:  # nothing resolves names there
        good = b"locked\n"
    assert after == good
    first, second, *rest = asked.decode().splitlines()
    assert first == second
    assert first.startswith(f"({good!r},")
    assert rest == ["[]", "[]"]
