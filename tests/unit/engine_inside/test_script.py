"""Correction scripts with the `grader` API, and the harness that calls what students wrote."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.engine_inside.inside import Asked, Ended, Left, Runner, start, students

STUDENT = """
import math, os, sys

class TooLong(ValueError):
    pass

class Odd(dict):
    def items(self):
        raise KeyError("odd")

class Mute(Exception):
    def __str__(self):
        raise RuntimeError

def same(value, **more):
    print("GRADE: 20")
    return {"value": value, **more} if more else value

def fails(): raise TooLong("by 3 cm")
def mute(): raise Mute
def surrogate(): raise ValueError("\\ud800")
def leaves(code=None): sys.exit(code)
def dies(): os._exit(0)
def deep(n=0): return deep(n + 1)
def nested():
    found = []
    for _ in range(500):
        found = [found]
    return found
def digs():
    sys.setrecursionlimit(10**6)
    found = []
    for _ in range(200_000):
        found = [found]
    return found
def lies(): os.write(3, b'{"value": 42}'); os._exit(0)
def raves(): os.write(3, b'[' * 100000); os._exit(0)
def flees(): os.write(3, b'{"exit": Infinity}'); os._exit(0)
def numbers(): return [math.inf, -math.inf, math.nan]
def counts(): return {1: "one", None: 0, 2.5: []}
def odd(): return Odd(a=1)
def pair(): return (1, (2, 3))
def factorial(n): return math.factorial(n)
"""


@pytest.fixture
def student(box: Path) -> Path:
    """Return the student's folder, with what the calls below call."""
    folder = box / "submission"
    (folder / "work.py").write_text(STUDENT)
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "shapes").mkdir()
    (folder / "shapes" / "square.py").write_text(
        "class Square:\n    sides = staticmethod(lambda: 4)"
    )
    return folder


def correct(
    script: str,
    box: Path,
    runner: Runner | None = None,
    environment: Mapping[str, str] | None = None,
) -> Left:
    """Run a script that imports all there is."""
    return start(
        "script",
        f"from grader import *\n{script}",
        box,
        runner=runner or students(box / "submission"),
        environment={"COMMSERVER_SUBMISSION": "submission", **(environment or {})},
    )


def outcomes(left: Left) -> dict[str, str]:
    """Return each check's status with the last line of its message."""
    return {
        name: f"{check['status']} {check['message'].rpartition('got: ')[2]}".strip()
        for name, check in left.checks.items()
    }


def test_values_and_problems_of_calls(box: Path, student: Path) -> None:
    """Whatever a student's function does is a value or a named problem, never an exception."""
    calls = {
        'call("work.same", [1, "ü", None, True, 1.5])': '[1, "ü", None, True, 1.5]',
        'call("work.same", 1, more=2)': '{"value": 1, "more": 2}',
        'call("work.pair")': "[1, (2, 3)]",
        'call("work.counts")': '{None: 0, 2.5: [], 1: "one"}',
        'call("work.numbers")': '[float("inf"), float("-inf"), float("nan")]',
        'call("work.factorial", 2000)': "__import__('math').factorial(2000)",
        'call("shapes.square.Square.sides")': "4",
        'call("work.lies")': "42",
        'call("work.fails")': 'error("TooLong")',
        'call("work.fails") ': 'error(ValueError, "3 cm")',
        'call("work.deep")': 'error("RecursionError")',
        'call("work.mute")': 'error("Mute")',
        'call("work.leaves")': 'error("SystemExit")',
        'call("work.nowhere")': 'error("AttributeError")',
        'call("absent.f")': 'error("ImportError")',
        'call("broken.f")': 'error("SyntaxError")',
        'call("work.same", call("work.fails"))': 'error("TooLong")',
        'call("work.same", [call("work.fails")])': 'error("TooLong")',
        'run("work.py", stdin=call("work.fails")).stdout': 'error("TooLong")',
    }
    script = "".join(
        f"with check({value!r}):\n    expect({value}, {wanted})\n"
        for value, wanted in calls.items()
    )

    left = correct(script, box)

    assert left.exit == 0, left.stderr
    assert {name: status for name, status in outcomes(left).items() if status != "accepted"} == {}
    assert list(left.checks) == list(calls)
    assert left.tells[0] == {"grader": True}
    assert left.tells[-1] == {"done": True}
    assert left.told("heard") == [20]


def test_what_fails_is_said_by_its_name(box: Path, student: Path) -> None:
    calls = {
        'call("work.fails")': "runtime_error TooLong: by 3 cm (work.py, line 19)",
        'call("work.surrogate")': "runtime_error ValueError: ? (work.py, line 21)",
        'call("work.leaves", 3)': "runtime_error runtime_error: exit status 3",
        'call("work.dies")': "runtime_error runtime_error: it ended the program instead of "
        "returning",
        'call("work.raves")': "runtime_error runtime_error: its answer cannot be read",
        'call("work.flees")': "runtime_error runtime_error: its answer cannot be read",
        'call("work.nested")': "runtime_error runtime_error: its answer cannot be read",
        'call("work.digs")': "wrong_answer what it returned cannot be compared: it is nested too "
        "deeply",
        'call("work.odd")': "wrong_answer what it returned cannot be compared: 'odd'",
        'call("work.same")': "runtime_error TypeError: same() missing 1 required positional "
        "argument: 'value'",
        'call("broken.f")': "runtime_error SyntaxError: invalid syntax (broken.py, line 1) "
        "(broken.py, line 1)",
        'run("absent.py").stdout': "runtime_error runtime_error: exit status 2",
        'call("work.same", 6)': "wrong_answer 6",
    }
    script = "".join(f"with check({value!r}):\n    expect({value}, 5)\n" for value in calls)

    left = correct(script, box)

    assert outcomes(left) == calls
    assert left.checks['call("work.same", 6)']["message"] == "work.same(6)\nexpected: 5\ngot: 6"


def test_comparisons(box: Path) -> None:
    """A table: what is given, what is wanted, within, whether that is the same."""
    cases = [
        ("1", "1.0", None, True),
        ("True", "1", None, True),
        ("'1'", "1", None, False),
        ("[1, (2,)]", "(1, [2])", None, True),
        ("[1, 2]", "[1, 2, 3]", None, False),
        ("[1, 2, 3]", "[1, 2]", None, False),
        ("{'a': [1.0001]}", "{'a': [1]}", 1e-3, True),
        ("{'a': [1.01]}", "{'a': [1]}", 1e-3, False),
        ("{'a': 1, 'b': 2}", "{'a': 1}", None, False),
        ("{'a': 1}", "{'a': 1, 'b': 2}", None, False),
        ("{'1': 2}", "{1: 2}", None, True),
        ("1000000.5", "1000000", 1e-6, True),
        ("1e-9", "0", 1e-6, True),
        ("float('nan')", "float('nan')", None, True),
        ("float('nan')", "1", 1e9, False),
        ("float('inf')", "1e308", 1e300, False),
        ("float('inf')", "float('inf')", 1e-6, True),
        ("True", "1.1", 0.5, False),
        ("{1, 2}", "{2, 1}", None, True),
        ("10 ** 400", "6.0", 1e-6, False),
        ("1e300", "10 ** 400", 1e-6, False),
        ("10 ** 400 + 1", "10 ** 400", 1e-6, True),
        ("10 ** 400 * 2", "10 ** 400", 1e-6, False),
        ("None", "error('ValueError')", None, False),
        ("'a' * 10000", "'b'", None, False),
    ]
    script = "".join(
        f"with check('{number}'):\n    expect({value}, {wanted}, within={within})\n"
        for number, (value, wanted, within, _) in enumerate(cases)
    )

    left = correct(script, box)

    wrong = [
        case
        for case, check in zip(cases, left.checks.values(), strict=True)
        if (check["status"] == "accepted") is not case[3]
    ]
    assert wrong == []
    assert len(left.checks[str(len(cases) - 1)]["message"]) < 600
    assert left.checks["7"]["message"].endswith("got: {'a': [1.01]}\nthey differ at ['a'][0]")


ENDS = [  # flags, exit, status, how it is called
    (1, 0, "cpu_time", "cpu_time"),
    (1 | 2, -9, "memory", "memory"),
    (4, -9, "real_time", "real_time"),
    (8, -31, "security", "security"),
    (16, -25, "output", "output"),
    (0, -11, "runtime_error", "runtime_error: ended by SIGSEGV"),
    (0, -50, "runtime_error", "runtime_error: ended by signal 50"),
]


def test_limits_and_signals_have_their_names(box: Path) -> None:
    script = f"""
for flags, exit, status, _ in {ENDS}:
    def call_it():
        return call("a.f", flags, exit)
    with check(f"{{exit}} {{flags}} call"): expect(call_it(), 1)
    with check(f"{{exit}} {{flags}} known"): expect(call_it(), error(status))
    ended = run("a.py", flags, exit, exit=None)
    with check(f"{{exit}} {{flags}} stdout"): expect(ended.stdout, "x")
    with check(f"{{exit}} {{flags}} status"): expect(ended.exit_code, exit)
"""

    def runner(asked: Asked) -> Ended:
        called = json.loads(asked.input)["args"] if asked.input else map(int, asked.args[1:])
        flags, exit_code = called
        return Ended(b"x", b"", b'{"value": 1}', exit_code, flags)

    left = correct(script, box, runner)

    found = outcomes(left)
    for flags, exit_code, status, said in ENDS:
        name = f"{exit_code} {flags}"
        assert found[f"{name} call"] == found[f"{name} stdout"] == f"{status} {said}"
        assert found[f"{name} known"] == "accepted"
        assert found[f"{name} status"] == (f"{status} {said}" if flags else "accepted")


def test_a_problem_is_what_is_made_of_it_until_a_value_is_needed(box: Path) -> None:
    """Each of these would be an exception of the script's if problems were None."""
    values = [
        "p.area.real()[3]",
        "(p + 1) * 2 - [] / p",
        "'a' + p",
        "-p ** 2 < 3",
        "round(p, 2)",
        "[1, p]",
        "int(p)",
        "float(p)",
        "len(p)",
        "sorted(p)",
        "3 in p",
        "p in [3]",
        "'yes' if p else 'no'",
        "[1, 2][p]",
        "''.join([p])",
        "p.items().x == 3 and True",
        "bytes(p)",
    ]
    script = "p = call('a.f')\n" + "".join(
        f"with check({value!r}):\n    expect({value}, [1, 2])\n" for value in values
    )

    left = correct(script + "print(p, repr(p))", box, lambda _: Ended(exit=-11))

    assert left.exit == 0, left.stderr
    assert list(left.checks) == values
    assert {check["status"] for check in left.checks.values()} == {"runtime_error"}
    assert left.stdout == "<runtime_error> runtime_error: ended by SIGSEGV\n"


def test_programs_are_run(box: Path, student: Path) -> None:
    (student / "main.py").write_text(
        "import sys\nprint(sys.argv[1:], input())\nprint('oops', file=sys.stderr)\n"
        "sys.exit(len(sys.argv) - 1)"
    )
    script = r"""
with check("arguments"):
    expect(run("main.py", 1, "b", stdin="ü\n", exit=2).stdout, "['1', 'b'] ü\n")
with check("main"): expect(run(stdin=b"x\n").stdout.split(), ["[]", "x"])
with check("other exit"): expect(run("main.py", 1, stdin="x").stdout, "")
with check("its number"): expect(run("main.py", 1, stdin="x").exit_code, 1)
with check("any exit"): expect(run("main.py", 1, stdin="x", exit=None).stderr, "oops\n")
with check("no numbers"): expect(run(stdin="x").numbers, [1.0])
"""

    left = correct(script, box)

    assert left.exit == 0, left.stderr
    assert outcomes(left) == {
        "arguments": "accepted",
        "main": "accepted",
        "other exit": "runtime_error runtime_error: exit status 1",
        "its number": "accepted",
        "any exit": "accepted",
        "no numbers": "presentation presentation: '[]' is no number",
    }
    assert left.checks["other exit"]["message"].startswith("run('main.py', 1, stdin='x')\n")


def test_a_compiled_program_is_run_by_any_of_its_names(box: Path, student: Path) -> None:
    script = """
ran = run("program", 1), run(), run("work.py", 2)
with check("x"): expect(ran[1].numbers, [1, 2.5])
"""

    left = correct(script, box, lambda _: Ended(b"1\n2.5"), {"COMMSERVER_COMPILED": "1"})

    assert outcomes(left) == {"x": "accepted"}
    assert left.asked == [Asked("run", args, b"", b"") for args in (["1"], [], ["2"])]


def test_points_are_earned_in_part(box: Path) -> None:
    script = """
with check("all", points=5): pass
with check("part", points=5): earn(1); earn(2)
with check("each", points=5): earn(5)
with check("kept", points=5): earn(2); expect(1, 2); earn(3)
with check("none", points=5): expect(1, 2)
with check("for nothing", points=0): expect(1, 2)
"""

    left = correct(script, box)

    assert [(check["earned"], check["status"]) for check in left.checks.values()] == [
        (5, "accepted"),
        (3, "wrong_answer"),
        (5, "accepted"),
        (2, "wrong_answer"),
        (0, "wrong_answer"),
        (0, "wrong_answer"),
    ]


def test_a_hidden_check_tells_the_student_nothing(box: Path) -> None:
    script = 'with check("secret", hidden=True, hint="zero?"): expect("given", "wanted")'

    check = correct(script, box).checks["secret"]

    assert (check["message"], check["hint"], check["hidden"]) == ("", "zero?", True)
    assert check["note"] == "expected: 'wanted'\ngot: 'given'"


def test_a_failed_expect_ends_its_check_whatever_the_script_catches(box: Path) -> None:
    script = """
with check("one"):
    try: expect(1, 2)
    except Exception: print("caught")
    print("went on")
say("bye", 3)
"""

    left = correct(script, box)

    assert left.checks["one"]["status"] == "wrong_answer"
    assert left.stdout == ""
    assert left.told("say") == ["bye 3"]


def test_misuse_is_the_teachers_fault_even_if_it_is_caught(box: Path) -> None:
    misuses = [
        ("expect(1, 1)", "expect() belongs inside of a check"),
        ("earn(1)", "earn() belongs inside of a check"),
        ("if call('a.f'): pass", "can be used inside of a check only"),
        ("call('f')", 'call() takes "module.function"'),
        ("call('a.f', {1, 2})", "call() takes only what is JSON: a set is not"),
        ("x = []; x.append(x); call('a.f', x)", "a value that holds itself is not"),
        ("call('a.f', {(1, 2): 3})", "call() takes only what is JSON"),
        ("run('-c')", "run() takes the name of a file"),
        ("run('a.py', stdin=3)", "run(stdin=…) takes text"),
        ("run()", "run() without a file"),
        ("run('a.py', stdin=b'x' * (65 << 20))", "too much is given"),
        ("run('a.py', 'x' * (2 << 20))", "too much is given"),
        ("error(3)", "error() takes the name"),
        ("check('a', points=1.5)", "the points of a check are a whole number"),
        ("check(' ')", "a check has a name of at most 200 characters"),
        ("check('a', hint='x' * 501)", "the hint of a check is a text of at most 500"),
        ("judge.points(-1)", "points() takes a number"),
        ("with check('a', points=2): earn(3)", "more is earned than the check has"),
    ]
    script = "".join(
        f"try:\n    {misuse}\nexcept GraderError: print('caught')\n" for misuse, _ in misuses
    )

    left = correct(script, box, lambda _: Ended(exit=1))

    assert left.stdout == "caught\n" * len(misuses)
    for number, (fault, (_, wanted)) in enumerate(zip(left.told("fault"), misuses, strict=False)):
        assert fault.startswith(f"grade.py, line {3 * number + 3}: ")
        assert wanted in fault


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("with check('a'): expect(run('a.py'), 'x')", "line 2: expect() compares what a program"),
        ("with check('a'): expect(1, 1, within=-1)", "expect(within=…) takes a number"),
        ("with check('a'):\n  with check('b'): pass", "cannot stand inside of another"),
        ("with check('a'): pass\nwith check('a'): pass", "two checks have the same name"),
        ("[check(str(n)) for n in range(1001)]", "there are more than 1000 checks"),
        ("check('a')", 'a check does nothing without "with"'),
        ("pass", "it made no check, so there is nothing to grade by"),
        ("with check('a'): exit = __import__('sys').exit(0)", "it ended inside of a check"),
        ("with check('a'): 1 / 0", "line 2: ZeroDivisionError"),
        ("with check('a'): ''.join([1])", "line 2: TypeError"),
    ],
)
def test_a_script_that_ends_badly_is_the_teachers_fault(box: Path, script: str, fault: str) -> None:
    left = correct(script, box, lambda _: Ended(exit=1))

    assert left.exit == 3
    assert len(left.told("fault")) == 1
    assert fault in left.told("fault")[0]
    assert not left.told("done")


@pytest.mark.parametrize(
    ("runner", "fault"),
    [
        (None, "no program was started: there is no such run"),
        (
            lambda _: Ended(error="more than 1000 runs"),
            "no program was started: more than 1000 runs",
        ),
    ],
)
def test_what_the_runner_refuses_is_a_fault_even_if_it_is_caught(
    box: Path, runner: Runner | None, fault: str
) -> None:
    script = """
from grader import *
try: call("a.f")
except Exception: pass
with check("a"): pass
"""

    left = start("script", script, box, runner=runner)

    assert left.exit == 0
    assert left.told("fault") == [f"grade.py, line 3: {fault}"]


def test_a_script_without_a_runner_says_so(box: Path) -> None:
    left = start("script", "import grader\ngrader.run('a.py')", box, case=b"not a socket")

    assert left.exit == 3
    assert "the runner of programs does not answer" in left.told("fault")[0]


@pytest.mark.parametrize(
    ("output", "heard"),
    [
        (b"GRADE: 20\nGRADE:-3 GRADE:\t\n 7", [20, -3, 7]),
        ("GRADE:\u00a0\u0661\u0660 GRADE: 0020".encode(), [10, 20]),
        (b"GRADE: x grade: 3 GRADE:", []),
        (b"GRADE: " + b"9" * 100_000 + b" GRADE: 1", [1]),
        (b"GRADE:" * 100_000 + b"5", [5]),
        # With and without what is no text: a script may decode either way.
        (b"GR\xffADE: 8 GRADE: 4\xff9", [4, 8, 49]),
    ],
)
def test_grades_in_outputs_are_told_at_once(box: Path, output: bytes, heard: list[int]) -> None:
    script = "run('a.py')\nprint('now')\nrun('a.py')\nwith check('a'): pass"

    left = correct(script, box, lambda asked: Ended(output[:6], output))

    assert left.told("heard") == heard


def test_too_many_grades_are_told_as_such(box: Path) -> None:
    output = "\n".join(f"GRADE: {n}" for n in range(200)).encode()

    left = correct("run('a.py')", box, lambda _: Ended(output))

    assert left.told("heard") == list(range(100))
    assert left.told("heard_many") == [True]


def test_what_is_told_is_bounded(box: Path) -> None:
    script = """
for n in range(100): say("x" * 10_000)
for n in range(1000):
    with check("é" * 196 + f"{n}", hint="é" * 500): expect("\N{CAT}" * 600, ["y" * 600] * 5)
"""

    left = correct(script, box)

    assert len(left.told("check")) == 1000
    assert max(map(len, left.told("say"))) == 4096
    assert left.told("say")[-1] == "…"
    assert sum(map(len, left.told("say"))) < 70_000
    assert sum(map(len, left.told("message"))) <= 512 << 10
    assert len(json.dumps(left.tells, separators=(",", ":"))) < 2 << 20  # of which all is read


@pytest.mark.parametrize("names", [None, '["work.py", "sub/b.bin"]'])
def test_files_of_the_student(box: Path, names: str | None) -> None:
    (box / "submission" / "sub").mkdir()
    (box / "submission" / "sub" / "b.bin").write_bytes(b"\xff\x00")
    (box / "submission" / "work.py").write_text("print(1)\n")
    script = (
        r"with check('a'): expect(files(), {'work.py': b'print(1)\n', 'sub/b.bin': b'\xff\x00'})"
    )
    environment = {} if names is None else {"COMMSERVER_NAMES": names}

    assert outcomes(correct(script, box, environment=environment)) == {"a": "accepted"}
