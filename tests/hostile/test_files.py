"""Programs that flood their outputs, the disk, or the names of their files."""

import unicodedata
from dataclasses import replace

import pytest

from commserver.core.execution import (
    MIB,
    Artifact,
    Case,
    Descriptor,
    Flag,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
    Stage,
    WorkFile,
)
from commserver.core.verdicts import Status
from tests.hostile.conftest import Room
from tests.hostile.corpus.escape import PASSES_FOR_A_LOG
from tests.hostile.corpus.files import MUCH, ODD, SOURCES, TEXTS
from tests.lab import (
    Lab,
    alone,
    check_all_is_well,
    outputs,
    python,
    ran,
)

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


async def test_floods_are_cut_at_the_limit(lab: Lab) -> None:
    limits = Limits(output=100_000, cpu=4.0, real=30.0)
    no_lines, lines, stderr, both, exact = await lab.run(
        "import os\nwhile True: os.write(1, b'x' * 65536)",
        "while True: print('line')",
        "import os\nwhile True: os.write(2, b'x' * 65536)",
        "import os\nwhile True: os.write(1, b'x' * 10); os.write(2, b'y' * 10000)",
        "import os; print('x' * 99_999); os.write(2, b'y' * 100_000)",
        limits=limits,
    )

    assert no_lines.end == (-9, Flag.OUTPUT)
    assert no_lines.stdout == b"x" * 100_000
    assert lines.end == (-9, Flag.OUTPUT)
    assert lines.stdout == b"line\n" * 20_000
    assert (stderr.end, len(stderr.stderr)) == ((-9, Flag.OUTPUT), 100_000)
    assert (both.end, len(both.stderr)) == ((-9, Flag.OUTPUT), 100_000)
    assert exact.end == (0, 0)
    assert (len(exact.stdout), len(exact.stderr)) == (100_000, 100_000)


async def test_what_was_written_before_the_end_is_all_there(lab: Lab) -> None:
    big, killed = await lab.run(
        "import sys; sys.stdout.write('x' * 1_000_000)",
        "import os; os.write(1, b'y' * 60_000); os.kill(os.getpid(), 9)",
    )

    assert (big.end, len(big.stdout)) == ((0, 0), 1_000_000)
    assert (killed.end, len(killed.stdout)) == ((-9, 0), 60_000)


async def test_standard_input_is_given_whole_or_not_at_all(lab: Lab) -> None:
    data = bytes(range(256)) * 12_000
    echo, counter, unread, closed, slow, by_name = await lab.run(
        "import sys; x = sys.stdin.buffer.read(); print(len(x), x == bytes(range(256)) * 12_000)",
        "import os, sys\nn = 0\nwhile piece := os.read(0, 1000): n += len(piece)\nprint(n)",
        "print('not interested')",
        "import os, time; os.close(0); time.sleep(0.1); print('closed')",
        "import os, time\nfor _ in range(20): os.read(0, 100); time.sleep(0.01)\nprint('slow')",
        "data = open('/dev/stdin', 'rb').read(); open('/dev/stdout', 'w').write(f'{len(data)}\\n')",
        stdin=data,
    )

    assert echo.stdout == b"3072000 True\n"
    assert counter.stdout == b"3072000\n"
    assert unread.stdout == b"not interested\n"
    assert closed.stdout == b"closed\n"
    assert slow.stdout == b"slow\n"
    assert by_name.stdout == b"3072000\n"
    assert {ran.end for ran in (echo, counter, unread, closed, slow, by_name)} == {(0, 0)}


LOOK_ROUND = """
import os, sys
for folder in (".", "/tmp", "/dev/shm", "/dev/mqueue", "/dev/pts"):
    for name in os.listdir(folder):
        if name not in (os.path.basename(sys.argv[0]), "ptmx"): print(folder, name)
for kind in ("shm", "msg", "sem"):
    print(*open(f"/proc/sysvipc/{kind}").readlines()[1:], end="")
"""


async def test_nothing_of_the_corpus_is_left_for_the_next_case(lab: Lab) -> None:
    entries = [entry for entry in (*MUCH, *ODD) if entry.status is Status.ACCEPTED]
    programs = [text for entry in entries for text in (entry.files["main.py"], LOOK_ROUND)]

    report = await lab.run(*programs, limits=Limits(cpu=3.0, real=20.0))

    for entry, left, looked in zip(entries, report[::2], report[1::2], strict=True):
        assert (entry.name, left.end, left.stdout) == (entry.name, (0, 0), b"nothing\n")
        assert (entry.name, looked.end, looked.stdout) == (entry.name, (0, 0), b"")


DECEIVING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


async def test_a_log_is_text_and_nothing_else(rooms: dict[str, Room]) -> None:
    room = rooms["nested"]
    await room.open()

    for entry in (*TEXTS, *SOURCES, PASSES_FOR_A_LOG):
        log = (await room.submit(entry)).log

        unfit = {char for char in log if unicodedata.category(char) in ("Cc", "Cs")} - set("\n\t")
        assert (entry.name, unfit, set(log) & set(DECEIVING)) == (entry.name, set(), set())
        # And none of its lines passes itself off as one of ours.
        ours = [line for line in log.splitlines() if line.startswith("one: ")]
        assert len(ours) == (entry.status is not Status.COMPILE_ERROR)
    await room.check_nothing_is_left()


ARTIFACTS = r"""
import os, socket
os.mkdir("folder"); os.mkdir("sub"); os.mkdir("sub/dir")
open("plain", "w").write("plain")
open("setuid", "w").write("setuid"); os.chmod("setuid", 0o6777)
open("secret", "w").write("secret"); os.chmod("secret", 0)
open("sub/dir/deep", "w").write("deep"); os.chmod("sub/dir", 0)
os.symlink("plain", "symlink"); os.symlink("/etc/passwd", "passwd"); os.symlink("sub", "subLink")
open("linked", "w").write("x"); os.link("linked", "hard")
os.link("given", "hardGiven")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
with open("holes", "wb") as file:
    file.truncate(20_000); file.seek(10_000); file.write(b"x")
os.chmod(".", 0)
"""

THERE = ("plain", "secret", "sub/dir/deep", "holes")

NOT_THERE = (
    "setuid",
    "folder",
    "symlink",
    "passwd",
    "subLink/dir/deep",
    "hard",
    "given",
    "hardGiven",
    "fifo",
    "socket",
    "nothing",
    "linked/x",
)

LOOK = """
import os
for path in ("plain", "secret", "sub/dir/deep"):
    state = os.stat(path)
    print(path, open(path).read(), oct(state.st_mode & 0o7777), state.st_uid == os.getuid())
"""


async def test_only_regular_files_of_ones_own_are_artifacts(lab: Lab) -> None:
    paths = (*THERE, *NOT_THERE)
    make = Stage(
        "make",
        (python("make.py", ("given",), Limits(cpu=2.0, real=30.0, file_size=32 * MIB)),),
        (
            *outputs("make.py"),
            *(Pipe(WorkFile("make.py", path), Artifact(f"left {path}")) for path in paths),
        ),
    )
    keep = Stage(
        "make",
        make.processes,
        tuple(Pipe(WorkFile("make.py", path), Artifact(path, returned=False)) for path in THERE),
    )

    report = await lab.execute(
        Case("refused", (make,)),
        Case("kept", (keep, alone(python("look.py", THERE)))),
        files={"make.py": ARTIFACTS, "given": b"x", "look.py": LOOK},
    )

    (refused,), (left, looked) = (case.stages for case in report.cases)
    assert (refused.processes[0].exit_code, refused.content("err")) == (0, b"")
    missing = tuple(artifact.name for artifact in refused.artifacts if artifact.missing)
    assert missing == tuple(f"left {path}" for path in NOT_THERE)
    assert refused.content("left sub/dir/deep") == b"deep"
    assert refused.content("left holes") == bytes(10_000) + b"x" + bytes(9_999)
    assert [artifact.content for artifact in left.artifacts] == [None] * len(THERE)
    assert looked.content("out").decode().splitlines() == [
        "plain plain 0o755 True",
        "secret secret 0o755 True",
        "sub/dir/deep deep 0o755 True",
    ]


async def test_what_does_not_come_about_stops_its_case(lab: Lab) -> None:
    ends = {
        ("true",): (0, 0),
        ("false",): (1, 0),
        ("nonsense",): (127, 0),
        ("/etc/passwd",): (126, 0),
        ("true", "x" * 200_000): (126, 0),
    }
    main = Stage("main", (Process("main", ("./main",), Limits(), (Placement("main", "main"),)),))

    report = await lab.execute(
        *(
            Case(
                f"{number}",
                (
                    Stage(
                        "make",
                        (Process("make", argv, Limits()),),
                        (Pipe(WorkFile("make", "main"), Artifact("main")),),
                    ),
                    main,
                ),
            )
            for number, argv in enumerate(ends)
        ),
        files={},
    )

    for case, end in zip(report.cases, ends.values(), strict=True):
        (stage,) = case.stages
        process = stage.processes[0]
        assert (process.exit_code, process.flags, stage.artifacts[0].missing) == (*end, True)


async def test_files_are_the_programs_own(lab: Lab) -> None:
    report = await lab.execute(
        Case("first", (alone(python("change.py", ("data/a", "data/deep/b"))),)),
        Case("second", (alone(python("look.py", ("data/a", "data/deep/b"))),)),
        files={
            "change.py": """
import os
for path in ("data/a", "data/deep/b"):
    os.chmod(path, 0o777)
    open(path, "a").write("changed")
open("data/new", "w").close()
os.unlink("data/a")
""",
            "look.py": "print(open('data/a').read(), open('data/deep/b').read())",
            "data/a": b"a",
            "data/deep/b": b"b",
        },
    )

    change, look = map(ran, report.cases)
    assert (change.end, change.stderr) == ((0, 0), b"")
    assert (look.end, look.stdout) == ((0, 0), b"a b\n")


async def test_who_reads_its_own_output_cheats_nobody_but_itself(lab: Lab) -> None:
    steal = """
import os, time
mine = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
end = time.monotonic() + 0.5
writes = os.fork()
while time.monotonic() < end:
    if writes: os.write(1, b"x")
    try: os.read(mine, 65536)
    except BlockingIOError: pass
if writes: time.sleep(60)
"""
    limits = Limits(cpu=3.0, real=1.0)
    thief = python("steal", limits=limits)
    judge = replace(python("judge", limits=limits), role=Role.GRADER)
    to_judge = Pipe(Descriptor("steal", 1), Descriptor("judge", 0))

    report = await lab.execute(
        Case("kept", (alone(thief),)),
        # Once the judge has ended it is we who read.
        Case("piped", (Stage("both", (judge, thief), (to_judge,)),)),
        files={"steal": steal, "judge": ""},
    )

    for case in report.cases:
        end = case.stages[0].process("steal")
        assert (end.exit_code, end.flags) == (-9, Flag.REAL)


async def test_what_is_told_cannot_be_changed(lab: Lab) -> None:
    spoil = """
import fcntl, mmap, os
os.fchmod(0, 0o777) if os.stat(0).st_uid == os.getuid() else None
for change in (
    lambda: os.write(os.open("/proc/self/fd/0", os.O_RDWR), b"spoilt"),
    lambda: os.ftruncate(os.open("/proc/self/fd/0", os.O_RDWR), 0),
    lambda: mmap.mmap(os.open("/proc/self/fd/0", os.O_RDWR), 4, prot=mmap.PROT_WRITE),
    lambda: os.fallocate(0, 3, 0, 4096),
    lambda: fcntl.fcntl(0, 1033, 0),
):
    try: change(); print("changed")
    except (OSError, AttributeError): pass
if os.stat(0).st_uid == os.getuid(): os.fchmod(0, 0)
os.lseek(0, 3, 0)
"""
    told = Pipe(Resource("told"), Descriptor("spoil.py", 0))
    heard = Pipe(Resource("told"), Descriptor("hear.py", 0))
    again = Process(
        "again",
        ("python3", "hear.py"),
        Limits(),
        (Placement("hear.py", "hear.py"),),
    )
    report = await lab.execute(
        Case(
            "one after another",
            (
                alone(python("spoil.py"), told),
                Stage(
                    "hear",
                    (python("hear.py"), again),
                    (
                        *outputs("hear.py", "a."),
                        heard,
                        *outputs("again", "b."),
                        Pipe(Resource("told"), Descriptor("again", 0)),
                    ),
                ),
            ),
        ),
        files={"spoil.py": spoil, "hear.py": "print(input())", "told": b"what is told\n"},
    )

    spoilt, heard_by = report.cases[0].stages
    assert (spoilt.content("out"), spoilt.content("err")) == (b"", b"")
    assert heard_by.content("a.out") == heard_by.content("b.out") == b"what is told\n"


async def test_the_next_submission_is_judged_as_ever(lab: Lab) -> None:
    await check_all_is_well(lab)
