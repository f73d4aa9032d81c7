"""Programs that flood their outputs, the disk, or the names of their files."""

from dataclasses import replace

import pytest

from commserver.core.execution import ExecutionRequest, File, Flag, Limits, Process
from commserver.engine.sandbox import FreshSandbox
from tests.integration.engine.conftest import GENTLE, Lab

pytestmark = pytest.mark.docker


async def test_floods_are_cut_at_the_limit(lab: Lab) -> None:
    limits = Limits(output=100_000, cpu=2.0, real=5.0)
    no_lines, lines, stderr, both, exact = await lab.run(
        "import os\nwhile True: os.write(1, b'x' * 65536)",
        "while True: print('line')",
        "import os\nwhile True: os.write(2, b'x' * 65536)",
        "import os\nwhile True: os.write(1, b'x' * 10); os.write(2, b'y' * 10000)",
        "import os; print('x' * 99_999); os.write(2, b'y' * 100_000)",
        limits=limits,
    )

    assert (no_lines.exit_code, no_lines.flags) == (-9, Flag.OUTPUT)
    assert no_lines.stdout == b"x" * 100_000
    assert (lines.exit_code, lines.flags) == (-9, Flag.OUTPUT)
    assert lines.stdout == b"line\n" * 20_000
    assert (stderr.exit_code, stderr.flags, len(stderr.stderr)) == (-9, Flag.OUTPUT, 100_000)
    assert (both.exit_code, both.flags, len(both.stderr)) == (-9, Flag.OUTPUT, 100_000)
    assert (exact.exit_code, exact.flags) == (0, Flag(0))
    assert (len(exact.stdout), len(exact.stderr)) == (100_000, 100_000)


async def test_what_was_written_before_the_end_is_all_there(lab: Lab) -> None:
    big, killed = await lab.run(
        "import sys; sys.stdout.write('x' * 1_000_000)",
        "import os; os.write(1, b'y' * 60_000); os.kill(os.getpid(), 9)",
    )

    assert (big.exit_code, len(big.stdout)) == (0, 1_000_000)
    assert (killed.exit_code, len(killed.stdout)) == (-9, 60_000)


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
    assert {report.exit_code for report in (echo, counter, unread, closed, slow)} == {0}


async def test_giants_and_multitudes_stay_in_their_bounds(lab: Lab) -> None:
    giants, allocated, many, deep, after = await lab.run(
        # Python ignores SIGXFSZ, hence an error rather than an end.
        """
import os
for size in (1 << 40, 1 << 62):
    try: os.truncate(os.open("sparse", os.O_CREAT | os.O_RDWR), size)
    except (OSError, TypeError): print("refused")
try:
    with open("sparse", "wb") as file: file.truncate(1 << 40)
except OSError as error: print(error.strerror)
""",
        """
import os
file = os.open("/tmp/allocated", os.O_CREAT | os.O_RDWR)
try: os.posix_fallocate(file, 0, 30 << 20)
except OSError as error: print(error.strerror)
""",
        """
import os
for folder in (".", "/tmp", "/dev/shm"):
    count = 0
    try:
        while True:
            os.close(os.open(f"{folder}/{count}", os.O_CREAT | os.O_WRONLY))
            count += 1
    except OSError as error:
        print(folder, error.strerror, count < 20_000)
""",
        """
import os
for _ in range(3_000):
    os.mkdir("a" * 200); os.chmod(".", 0o300); os.chdir("a" * 200)
os.chmod(".", 0)
print("deep")
""",
        "import os; print(os.listdir(), os.listdir('/tmp'), os.listdir('/dev/shm'))",
        limits=Limits(cpu=5.0, real=10.0),
    )

    assert giants.stdout.endswith(b"File too large\n")
    assert (allocated.exit_code, allocated.stdout) == (0, b"No space left on device\n")
    assert many.stdout == b"".join(
        b"%s No space left on device True\n" % folder for folder in (b".", b"/tmp", b"/dev/shm")
    )
    assert deep.stdout == b"deep\n"
    assert (after.exit_code, after.stdout) == (0, b"['4.py'] [] []\n")


async def test_a_file_above_its_bound_is_an_output_verdict(lab: Lab) -> None:
    report = await lab.compile(
        """
        #include <fcntl.h>
        #include <unistd.h>
        int main(void) { return ftruncate(open("x", O_CREAT | O_WRONLY, 0600), 1L << 40); }
        """,
        (),
    )

    assert (report.cases[0].exit_code, report.cases[0].flags) == (-25, Flag.OUTPUT)


async def test_odd_names_and_modes_are_wiped(lab: Lab) -> None:
    odd, after = await lab.run(
        r"""
import os
for folder in (b".", b"/tmp", b"/dev/shm"):
    for name in (b"new\nline", b"\xff\xfe", b"-rf", b"*", b"\x1b[2J", b" ", b"x" * 255, b"..."):
        path = folder + b"/" + name
        os.mkdir(path)
        os.mkdir(path + b"/inner")
        open(path + b"/inner/file", "w").close()
        os.symlink(b"/opt/commserver", path + b"/link")
        os.mkfifo(path + b"/fifo")
        os.chmod(path + b"/inner", 0o7000)
        os.chmod(path, 0o7000)
print("odd")
""",
        "import os; print(os.listdir(), os.listdir('/tmp'), os.listdir('/dev/shm'))",
    )

    assert odd.stdout == b"odd\n"
    assert (after.exit_code, after.stdout) == (0, b"['1.py'] [] []\n")


ARTIFACTS = r"""
import os
os.mkdir("folder"); os.mkdir("sub"); os.mkdir("sub/dir")
open("plain", "w").write("plain")
open("setuid", "w").write("setuid"); os.chmod("setuid", 0o6777)
open("secret", "w").write("secret"); os.chmod("secret", 0)
open("sub/dir/deep", "w").write("deep"); os.chmod("sub/dir", 0)
os.symlink("plain", "symlink"); os.symlink("/etc/passwd", "passwd"); os.symlink("sub", "subLink")
open("linked", "w").write("x"); os.link("linked", "hard")
try: os.link("given", "hardGiven")
except PermissionError: pass  # most kernels forbid it already
os.mkfifo("fifo")
open("sparse", "w").truncate(20 << 20)
"""

THERE = ("plain", "secret", "sub/dir/deep")

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
    "sparse",
    "nothing",
    "linked/x",
)

LOOK = """
import os
for path in ("plain", "secret", "sub/dir/deep"):
    state = os.stat(path)
    print(path, open(path).read(), oct(state.st_mode & 0o7777), state.st_uid)
"""


async def test_only_regular_files_of_ones_own_are_artifacts(sandbox: FreshSandbox) -> None:
    make = Process(
        "make", ("python3", "make.py"), GENTLE, ("make.py", "given"), artifacts=THERE + NOT_THERE
    )
    files = (
        File("make.py", ARTIFACTS.encode()),
        File("given", b"x"),
        File("look.py", LOOK.encode()),
    )

    refused = await sandbox.execute(
        ExecutionRequest("python", files, cases=(make,)), run="artifacts", slot=1
    )
    kept = await sandbox.execute(
        ExecutionRequest(
            "python",
            files,
            compile=replace(make, artifacts=THERE),
            cases=(Process("look", ("python3", "look.py"), GENTLE, ("look.py", *THERE)),),
        ),
        run="artifacts",
        slot=1,
    )

    (report,) = refused.cases
    assert (report.exit_code, report.stderr) == (0, b"")
    assert report.missing == NOT_THERE
    assert kept.cases[0].stdout.decode().splitlines() == [
        "plain plain 0o555 0",
        "secret secret 0o555 0",
        "sub/dir/deep deep 0o555 0",
    ]


async def test_a_missing_artifact_of_the_compilation_stops_the_request(
    sandbox: FreshSandbox,
) -> None:
    for argv, exit_code in (
        (("true",), 0),
        (("false",), 1),
        (("nonsense",), 127),
        (("/etc/passwd",), 126),
    ):
        report = await sandbox.execute(
            ExecutionRequest(
                image="python",
                files=(),
                compile=Process("compile", argv, GENTLE, artifacts=("main",)),
                cases=(Process("case", ("./main",), GENTLE, ("main",)),),
            ),
            run="compile",
            slot=1,
        )

        assert report.compile is not None
        assert (report.compile.exit_code, report.compile.missing) == (exit_code, ("main",))
        assert report.cases == ()


async def test_files_are_laid_out_in_folders_and_cannot_be_written(lab: Lab) -> None:
    (report,) = await lab.run(
        r"""
import os, sys
for path in ("data/a.txt", "data/deep/b.txt"):
    print(open(path).read())
    for change in (
        lambda: open(path, "a"), lambda: os.chmod(path, 0o777), lambda: os.chown(path, 1, 1)
    ):
        try: change()
        except PermissionError: pass
        else: print("allowed")
open("data/new", "w").close()  # the folder is theirs
os.unlink("data/a.txt"); open("data/a.txt", "w").write("mine")
print(open("data/a.txt").read())
""",
        files=(File("data/a.txt", b"a"), File("data/deep/b.txt", b"b")),
    )

    assert (report.exit_code, report.stderr) == (0, b"")
    assert report.stdout == b"a\nb\nmine\n"
