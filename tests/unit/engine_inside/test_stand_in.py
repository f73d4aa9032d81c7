"""Scripts that were written for `subprocess`: the student's program runs elsewhere."""

from pathlib import Path

import pytest

from tests.unit.engine_inside.inside import Asked, Ended, Left, Runner, start, students

PROGRAM = """
import sys
print("args", sys.argv[1:])
for line in sys.stdin:
    print("read", line.strip())
print("oops", file=sys.stderr)
if "fail" in sys.argv: sys.exit(3)
"""


def correct(
    script: str, box: Path, runner: Runner | None = None, *, compiled: bool = False
) -> Left:
    """Run a plain script; the student's files lie beside it."""
    (box / "main.py").write_text(PROGRAM)
    return start(
        "script",
        f"import os, sys, subprocess\nfrom subprocess import *\n{script}",
        box,
        runner=runner or students(box),
        environment={"COMMSERVER_COMPILED": "1"} if compiled else {},
    )


def test_everything_that_scripts_do_with_it(box: Path) -> None:
    script = r"""
MAIN = [sys.executable, "main.py"]
ended = run([*MAIN, "a b"], input="1\n2\n", capture_output=True, text=True)
assert ended.stdout == "args ['a b']\nread 1\nread 2\n" and ended.stderr == "oops\n"
assert ended.returncode == 0 and ended.args == [*MAIN, "a b"]
assert run(MAIN, stdout=PIPE, stderr=STDOUT, stdin=DEVNULL).stdout == b"args []\noops\n"
assert run(["python3", os.path.abspath("main.py")], stdout=PIPE).stderr is None
ended = run("python3 main.py 'x y'", shell=True, stdout=PIPE, encoding="utf-8")
assert ended.stdout == "args ['x y']\n"
assert run([sys.executable, "-c", "import main; print(1)"], stdout=PIPE).stdout == b"args []\n1\n"
assert check_output(MAIN, input=b"ok", timeout=5) == b"args []\nread ok\n"
assert call([*MAIN, "fail"], stdout=DEVNULL, stderr=DEVNULL) == 3
assert getstatusoutput("python3 main.py fail") == (3, "args ['fail']\noops")
for function in (check_call, check_output):
    try: function([*MAIN, "fail"], stderr=DEVNULL)
    except CalledProcessError as error: assert error.returncode == 3 and "status 3" in str(error)
    else: raise AssertionError
try: run([*MAIN, "fail"], check=True, capture_output=True)
except CalledProcessError as error:
    assert error.stdout == b"args ['fail']\n" and error.stderr == b"oops\n"

program = Popen(MAIN, stdin=PIPE, stdout=PIPE, stderr=PIPE, universal_newlines=True)
assert program.returncode is None
assert program.communicate("x\n") == ("args []\nread x\n", "oops\n")
assert program.returncode == program.wait() == program.poll() == 0

with Popen(MAIN, stdin=PIPE, stdout=PIPE, text=True) as program:
    program.stdin.write("1\n"); program.stdin.write("2\n"); program.stdin.close()
    assert program.stdout.readline() == "args []\n"
    assert [line.strip() for line in program.stdout] == ["read 1", "read 2"]

with open("input.txt", "w") as file: file.write("from a file\n")
with open("input.txt") as source, open("output.txt", "w") as target:
    assert run(MAIN, stdin=source, stdout=target, cwd=os.getcwd(), env={}).returncode == 0
assert open("output.txt").read() == "args []\nread from a file\n"
run(MAIN)
print("GRADE: 5")
"""

    left = correct(script, box)

    assert left.exit == 0, left.stderr
    assert left.stdout.endswith("args []\nGRADE: 5\n")
    assert left.stderr.endswith("oops\n")
    assert left.tells == []


def test_time_limits_are_those_of_the_script_or_of_the_exercise(box: Path) -> None:
    script = r"""
for flags, timeout in ((1, 9), (4, 9), (0, 0.001)):
    program = Popen(["python3", "a.py", str(flags)], stdout=PIPE)
    try: program.communicate(timeout=timeout)
    except TimeoutExpired as error: assert error.timeout == timeout and error.output == b"out"
    else: raise AssertionError(flags)
    program.kill()
    assert program.communicate()[0] == b"out"
    print(program.returncode)
print(call(["python3", "a.py", "1"], stdout=DEVNULL))
"""

    left = correct(script, box, lambda asked: Ended(b"out", flags=int(asked.args[1])))

    assert left.exit == 0, left.stderr
    assert left.stdout.split() == ["-9", "-9", "0", "-9"]
    assert [asked.real for asked in left.asked] == [9, 9, 0.001, None], "until it is ended"


def test_a_compiled_program_is_called_as_it_is_called(box: Path) -> None:
    (box / "main.c").write_text("")
    script = """
run(["./program", "-x", "main.c"])
run([os.path.abspath("program")])
run("./program")
run(["./main.c"])
"""

    left = correct(script, box, lambda _: Ended(), compiled=True)

    assert left.exit == 0, left.stderr
    assert [asked.args for asked in left.asked] == [["-x", "main.c"], [], [], []]
    assert left.asked[0] == Asked("run", ["-x", "main.c"], b"", b"")


def test_what_else_is_started_is_the_teachers_fault(box: Path) -> None:
    attempts = [
        ("run(['gcc', 'main.c'])", "only the student's program can be started"),
        ("run('./program')", "only the student's program can be started"),
        ("run('python3 main.py < input.txt', shell=True)", "there is no shell"),
        ("run([])", "the command is empty"),
        ("run(['python3', 'main.py'], cwd='/')", "cwd= is the student's folder"),
        ("run(['python3', 'main.py'], executable='/bin/sh')", "executable="),
        (
            "p = Popen(['python3', 'main.py'], stdin=PIPE, stdout=PIPE); p.stdout.read();"
            " p.stdin.write(b'x')",
            "there are no turns with a program",
        ),
    ]
    script = "".join(
        f"try: {attempt}\nexcept Exception: print('GRADE: 0')\n" for attempt, _ in attempts
    )

    left = correct(script, box)

    assert left.exit == 0
    assert left.stdout == "GRADE: 0\n" * len(attempts)
    assert [any(w in fault for _, w in attempts) for fault in left.told("fault")] == [True] * 7
    for number, (fault, (_, wanted)) in enumerate(zip(left.told("fault"), attempts, strict=True)):
        assert fault.startswith(f"grade.py, line {2 * number + 3}: subprocess: ")
        assert wanted in fault


def test_outputs_are_looked_at_before_the_script_goes_on(box: Path) -> None:
    left = correct("run(['python3', 'a.py'])", box, lambda _: Ended(b"GRADE: 20\n", b"GRADE: 19"))

    assert left.stdout == "GRADE: 20\n"
    assert left.told("heard") == [20, 19]


@pytest.mark.parametrize("how", ["", ", stdout=sys.stdout"])
def test_programs_that_write_without_end_do_not_end_the_script(box: Path, how: str) -> None:
    script = f"import sys\nfor _ in range(4): run(['python3', 'a.py']{how})\nprint('GRADE: 3')"
    output = b"begin" + b"x" * 800_000

    left = correct(script, box, lambda _: Ended(output))

    assert left.exit == 0, left.stderr
    assert len(left.stdout) < 2 << 20  # more would end it
    assert left.stdout.startswith("begin")
    assert left.stdout.endswith("xGRADE: 3\n")
    assert " bytes are left out)\nx" in left.stdout


def test_a_grade_that_begins_in_one_output_and_ends_in_the_other_is_heard(box: Path) -> None:
    left = correct("run(['python3', 'a.py'])", box, lambda _: Ended(b"GRADE: 2", b"0\n"))

    assert left.told("heard") == [2, 20]


def test_the_library_stands_on_it_as_on_the_real_one(box: Path) -> None:
    """What the standard library imports it for must at least load."""
    script = """
import asyncio, ctypes.util, multiprocessing, platform, unittest, uuid, webbrowser
def typed(one: "Popen[str]") -> None: ...
Popen[str], CompletedProcess[bytes]
"""

    left = correct(script, box)

    assert left.exit == 0, left.stderr
