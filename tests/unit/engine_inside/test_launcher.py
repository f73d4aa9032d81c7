"""What becomes of teachers' programs that crash, and what they can import."""

from pathlib import Path

import pytest

from tests.unit.engine_inside.inside import Ended, start


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("x = 1\n\ndef f():\n    return 1 / 0\nf()", "grade.py, line 4: ZeroDivisionError"),
        ("x = 1\nif x\n", "grade.py, line 2: SyntaxError: expected ':' (grade.py, line 2)"),
        ("import nowhere", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("import helper\nhelper.f()", "grade.py, line 2: KeyError"),
        ("raise SystemExit('text')", "grade.py: sys.exit() with something else"),
        ("import sys; sys.exit(256)", "grade.py: sys.exit() with something else"),
        ("import sys; sys.exit(True)", "grade.py: sys.exit() with something else"),
        ("raise KeyboardInterrupt", "grade.py, line 1: KeyboardInterrupt"),
        ("raise MemoryError", "grade.py, line 1: MemoryError"),
        ("raise ValueError(chr(0xD800))", "grade.py, line 1: ValueError"),
        ("def f(): f()\nf()", "grade.py, line 1: RecursionError"),
        ("import os; os.chdir('/'); {}['the secret']", "grade.py, line 1: KeyError"),
        ("import os; os.close(1); open('/dev/full', 'w'); print(1, flush=True)", "OSError"),
    ],
)
def test_a_crash_is_the_teachers_fault_and_is_no_decision(
    box: Path, script: str, fault: str
) -> None:
    (box / "helper.py").write_text("def f():\n    {}['the secret']\n")

    left = start("checker", script, box)

    assert left.exit == 3
    assert len(left.told("fault")) == 1
    assert fault in left.told("fault")[0]
    assert "secret" not in left.told("fault")[0]
    assert left.told("details")[0].strip() == left.stderr.strip().replace("\\ud800", "?")


@pytest.mark.parametrize(
    ("script", "exit"),
    [
        ("open(sys.argv[2]).read()", 2),
        ("open(sys.argv[3]).read()", 2),  # whatever it read: there is nothing to compare
        ("b'\\xff'.decode('ascii', 'ignore') or {}['x']", 3),
        ("sys.exit(int(open(sys.argv[2], 'rb').read() != b'\\xff'))", 0),
    ],
)
def test_an_output_that_is_no_text_is_no_crash_of_a_checker(
    box: Path, script: str, exit: int
) -> None:
    for name in ("output", "expected"):
        (box / name).write_bytes(b"\xff")

    left = start("checker", f"import sys\n{script}", box, arguments=("input", "output", "expected"))

    assert left.exit == exit, left.stderr
    assert (exit == 2) == (left.told("say") == ["something was written that is no text"])


def test_a_text_of_the_teachers_that_is_none_is_a_crash(box: Path) -> None:
    (box / "output").write_bytes(b"1")
    (box / "expected").write_bytes(b"\xff")

    left = start("checker", "open('expected').read()", box, arguments=("", "output", "expected"))

    assert left.exit == 3
    assert left.told("fault") == ["grade.py, line 1: UnicodeDecodeError"]


@pytest.mark.parametrize("kind", ["judge", "script"])
def test_a_crash_is_one_in_every_kind(box: Path, kind: str) -> None:
    left = start(kind, "1 / 0", box)

    assert left.exit == 3
    assert left.told("fault") == ["grade.py, line 1: ZeroDivisionError"]


def test_details_show_the_teachers_own_lines(box: Path) -> None:
    (box / "helper.py").write_text("def f():\n    {}['the secret']\n")
    script = "import os, helper\nos.chdir('/')\nhelper.f()  # here"

    details = start("judge", script, box).told("details")[0]

    assert 'File "grade.py", line 3, in <module>\n    helper.f()  # here' in details
    assert 'File "helper.py", line 2, in f' in details
    assert "KeyError: 'the secret'" in details
    assert "launcher" not in details


def test_details_are_bounded(box: Path) -> None:
    left = start("script", "raise ValueError('x' * 10**6 + 'the end')", box)

    assert left.exit == 3
    assert 15_000 < len(left.told("details")[0]) < 17_000
    assert left.told("details")[0].endswith("the end\n")


@pytest.mark.parametrize(
    ("kind", "script", "exit"),
    [
        ("checker", "print('log')", 0),
        ("checker", "import sys; sys.exit()", 0),
        ("checker", "import sys; print('log'); sys.exit(1)", 1),
        ("judge", "import sys; sys.exit(0)", 0),
        ("judge", "import sys; sys.exit(2)", 2),
        ("judge", "print('fell off')", 3),
        ("judge", "import sys; sys.exit()", 3),
        ("script", "print('log')", 0),
        ("script", "import sys; sys.exit(7)", 7),
        ("script", "import os; os._exit(9)", 9),
        ("script", "import os; os.kill(os.getpid(), 9)", -9),
    ],
)
def test_exit_statuses_pass(box: Path, kind: str, script: str, exit: int) -> None:
    left = start(kind, script, box)

    assert left.exit == exit
    assert len(left.told("fault")) == (1 if exit == 3 else 0)
    assert left.stdout == ("log\n" if "log" in script else left.stdout)


def test_a_program_finds_itself_as_it_would_without_us(box: Path) -> None:
    script = """
import __main__, sys, os
assert __name__ == "__main__" and __main__.sys is sys
assert sys.argv == ["grade.py", "input", "output"], sys.argv
assert __file__ == os.path.abspath("grade.py")
assert sys.path[0] == os.getcwd()
import subprocess
assert subprocess.run(["echo", "1"], capture_output=True).stdout == b"1\\n"
assert not os.path.exists("__pycache__")
"""

    left = start("checker", script, box, arguments=("input", "output"))

    assert left.exit == 0, left.stderr
    assert left.tells == []


def test_a_log_is_written_line_by_line(box: Path) -> None:
    left = start("script", "import os\nprint('before')\nos.kill(os.getpid(), 9)", box)

    assert left.stdout == "before\n"


# --- students' files and scripts ----------------------------------------------------------------


@pytest.mark.parametrize("layout", ["submission", "."])
def test_students_files_are_not_importable_and_shadow_nothing(box: Path, layout: str) -> None:
    """Whatever they are called, and even if the script puts their folder first."""
    theirs = box / layout
    for name in ("grader", "json", "subprocess", "student", "sitecustomize", "msvcrt"):
        (theirs / f"{name}.py").write_text("open('executed', 'w')\n")
    (theirs / "package").mkdir()
    (theirs / "package" / "__init__.py").write_text("open('executed', 'w')\n")
    script = f"""
import os, sys
sys.path.insert(0, {layout!r})
sys.path.insert(0, os.path.abspath({layout!r}))
import json, pickle
assert json.dumps([]) == "[]"
for name in ("nowhere", "org"):
    try: __import__(name)
    except ImportError as error: assert "student" not in str(error)
from grader import check
with check("a"): pass
"""

    left = start("script", script, box, environment={"COMMSERVER_SUBMISSION": layout})

    assert left.exit == 0, left.stderr
    assert left.told("fault") == []
    assert not (box / "executed").exists()


ATTEMPTS = [
    "import student",
    "from student import f",
    "import package.inner",
    "import importlib; importlib.import_module('student')",
    "exec(open(HERE + 'student.py').read())",
    "exec('x = 1\\n' + open(HERE + 'student.py').read() + '\\nprint(f())')",
    "exec(compile(open(HERE + 'student.py', 'rb').read(), 'other', 'exec'))",
    "exec(open(HERE + 'student.py', encoding='ascii', errors='ignore').read())",
    "import runpy; runpy.run_path(HERE + 'student.py')",
    "import importlib.util as u; s = u.spec_from_file_location('s', HERE + 'student.py');"
    " s.loader.exec_module(u.module_from_spec(s))",
    "import os; os.system('python3 ' + HERE + 'student.py')",
    "import os; os.popen('python3 ' + HERE + 'student.py | cat').read()",
    "import os; os.execv('/bin/sh', ['sh', HERE + 'student.py'])",
    "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
]


@pytest.mark.parametrize("layout", ["submission", "."])
def test_a_script_that_starts_a_students_code_itself_is_told_how(box: Path, layout: str) -> None:
    """Told at once, since scripts catch all exceptions and make a zero of them."""
    theirs = box / layout
    (theirs / "student.py").write_text(
        "open('executed', 'w')\n# ein längerer Text\ndef f(): return 1\n"
    )
    (theirs / "package").mkdir()
    (theirs / "package" / "inner.py").write_text("open('executed', 'w')\n")
    script = f"HERE = {layout!r} + '/'\n" + "".join(
        f"try:\n    {attempt}\nexcept Exception: print('GRADE: 0')\n" for attempt in ATTEMPTS
    )

    left = start("script", script, box, environment={"COMMSERVER_SUBMISSION": layout})

    assert left.exit == 0
    assert left.stdout == "GRADE: 0\n" * len(ATTEMPTS)
    assert [fault.partition(": ")[0] for fault in left.told("fault")] == [
        f"grade.py, line {3 * number + 3}" for number in range(len(ATTEMPTS))
    ]
    assert all("subprocess" in fault for fault in left.told("fault"))
    assert not (box / "executed").exists()


def test_a_script_may_read_and_parse_what_students_wrote(box: Path) -> None:
    (box / "student.py").write_text("for i in range(3):\n    print(i)\n")
    script = """
import ast, collections, dataclasses
source = open("student.py").read()
assert any(isinstance(node, ast.For) for node in ast.walk(ast.parse(source)))
compile(source, "student.py", "exec")
Point = collections.namedtuple("Point", "x y")
assert eval("1 + 1") == 2
exec("y = 3")
"""

    left = start("script", script, box)

    assert left.exit == 0, left.stderr
    assert left.tells == []


def test_modules_of_the_teachers_are_importable_beside_the_script(box: Path) -> None:
    (box / "cases.py").write_text("import grader\nNUMBERS = [1, 2]\n")
    (box / "student.py").write_text("")
    script = """
import cases, student
from grader import *
with check("a"): expect(cases.NUMBERS, [1, 2])
"""

    left = start("script", script, box, environment={"COMMSERVER_SUBMISSION": "submission"})

    assert left.exit == 0, left.stderr
    assert left.told("status") == ["accepted"]


def test_a_student_may_have_the_very_solution_that_a_teacher_compares_with(box: Path) -> None:
    same = "def double(number):\n    return number * 2\n"
    (box / "reference.py").write_text(same)
    (box / "submission" / "work.py").write_text(same)
    script = """
from grader import *
from reference import double
with check("a"): expect(double(2), 4)
"""

    left = start("script", script, box, environment={"COMMSERVER_SUBMISSION": "submission"})

    assert left.exit == 0, left.stderr
    assert left.told("status") == ["accepted"]


def test_only_scripts_tell_that_they_use_the_grader_and_only_if_they_do(box: Path) -> None:
    used = "import subprocess, sys; subprocess.run([sys.executable, 'a.py'])"

    assert start("script", used, box, runner=lambda _: Ended()).tells == []
    assert start("checker", "import grader", box).tells == []
