"""Exercises of kind `tests`: what is run for them, and what it is worth."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import (
    NO_FLAG,
    ExecutionReport,
    ExecutionRequest,
    File,
    Flag,
    Limits,
    ProcessReport,
    Status,
    Verdict,
)
from commserver.core.text import TEXT_LIMIT, clean_text
from commserver.errors import DefinitionError
from commserver.graders import tests
from commserver.graders.content import Content
from commserver.graders.languages import COMPILE_LIMITS
from tests.unit.graders.toml import exercise

CASES = """
[[cases]]
name = "seen"
input = "21\\n"
expected = "42\\n"
points = 5
hint = "think twice"

[[cases]]
name = "unseen"
input = "the hidden input"
expected = "the hidden answer"
points = 15
hidden = true
hint = "what about less than nothing?"
"""
LIMITS = Limits(cpu=1.0, real=3.0, memory=64 << 20, output=4096, processes=8)
EXTRA = (
    'limits = { cpu = "1 s", real = "3 s", memory = "64 MiB", output = "4 KiB", processes = 8 }\n'
)


def content(
    *names: str, language: str = "python", extra: str = EXTRA, text: str = "print(42)"
) -> Content:
    """Return what is judged when files of these names, of the same text, are handed in."""
    grader = exercise(extra, cases=CASES, language=f'"{language}"')
    return Content(language, 20, tuple((name, text) for name in names), grader)


def planned(wanted: Content) -> ExecutionRequest:
    """Return what has to be run; there must be something."""
    request = tests.plan(wanted)
    assert isinstance(request, ExecutionRequest)
    return request


def turned_down(wanted: Content) -> str:
    """Return the log of files that cannot be started; nothing may be earned by them."""
    verdict = tests.plan(wanted)
    assert isinstance(verdict, Verdict)
    assert verdict.status is Status.COMPILE_ERROR
    assert (verdict.grade, verdict.grade_max) == (0, 20)
    assert [(case.name, case.earned, case.points) for case in verdict.cases] == [
        ("seen", 0, 5),
        ("unseen", 0, 15),
    ]
    return verdict.log


# -- what is run ----------------------------------------------------------------------------------


def test_a_python_program_is_run_once_a_case() -> None:
    request = planned(content("main.py"))

    assert request.image == "python"
    assert request.compile is None
    assert request.files == (File("main.py", b"print(42)"),)
    assert [case.stdin for case in request.cases] == [b"21\n", b"the hidden input"]
    for number, case in enumerate(request.cases):
        assert case.name == str(number)
        assert case.argv == ("/usr/bin/python3", "main.py")
        assert case.files == ("main.py",)
        assert case.limits == LIMITS


def test_a_c_program_is_compiled_once_and_its_sources_are_not_there_when_it_runs() -> None:
    request = planned(content("lib/sum.c", "main.c", "sum.h", language="c"))

    assert request.image == "c"
    assert request.compile is not None
    assert request.compile.argv[0] == "/usr/bin/gcc"
    assert request.compile.argv[-3:] == ("lib/sum.c", "main.c", "-lm")
    assert request.compile.files == ("lib/sum.c", "main.c", "sum.h")
    assert request.compile.artifacts == ("program",)
    assert request.compile.limits == COMPILE_LIMITS
    assert {case.argv for case in request.cases} == {("./program",)}
    assert {case.files for case in request.cases} == {("program",)}


def test_nothing_of_what_is_expected_goes_into_the_sandbox() -> None:
    request = planned(content("main.py"))

    assert b"the hidden answer" not in b"".join(
        [*(file.content for file in request.files), *(case.stdin for case in request.cases)]
    )


@pytest.mark.parametrize(
    ("names", "wanted", "main"),
    [
        (("anything.py",), "", "anything.py"),
        (("helper.py", "main.py"), "", "main.py"),
        (("helper.py", "main.py"), 'submission.files = ["helper.py"]', "helper.py"),
        (("a/b.py", "c.py"), 'submission.files = ["a/b.py", "c.py"]', "a/b.py"),
    ],
)
def test_which_file_is_run(names: tuple[str, ...], wanted: str, main: str) -> None:
    request = planned(content(*names, extra=wanted))

    assert request.cases[0].argv[-1] == main
    assert request.cases[0].files == names


def test_an_exercise_that_does_not_say_which_file_is_run_is_the_teachers_fault() -> None:
    with pytest.raises(DefinitionError, match=r"says not which of a\.py, b\.py is run"):
        tests.plan(content("a.py", "b.py"))


def test_an_exercise_in_another_language_than_its_course_is_the_teachers_fault() -> None:
    with pytest.raises(DefinitionError, match="the course is in c, not in python"):
        tests.plan(replace(content("main.py"), language="c"))


def test_a_wrong_definition_is_the_teachers_fault() -> None:
    with pytest.raises(DefinitionError):
        tests.plan(replace(content("main.py"), grader="format = 1"))


def test_line_ends_of_a_text_box_become_those_of_the_system() -> None:
    request = planned(content("main.py", text="a\r\n\r\nb\rc\n"))

    assert request.files == (File("main.py", b"a\n\nb\rc\n"),)


def test_what_utf_8_cannot_say_is_replaced() -> None:
    request = planned(content("main.py", text="'é\ud800'"))

    assert request.files == (File("main.py", "'é?'".encode()),)


def test_a_missing_file_is_told_to_the_student() -> None:
    log = turned_down(content("mian.py", extra='submission.files = ["main.py", "b.py"]'))

    assert log == "not compiled\nmain.py, b.py is missing; you handed in mian.py"


def test_a_c_program_without_a_source_is_told_to_the_student() -> None:
    assert turned_down(content("main.h", language="c")) == "not compiled\nthere is no .c file"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../main.py",
        "a/../main.py",
        "./main.py",
        "a//b.py",
        "a/",
        "-c",
        "-",
        "--version",
        "nul\0.py",
        "n" * 256,
        "\ud800.py",
    ],
)
def test_a_name_that_leads_elsewhere_is_told_to_the_student(name: str) -> None:
    log = turned_down(content("main.py", name, extra='submission.files = ["main.py"]'))

    assert log == clean_text(f"not compiled\na file cannot be called {name!r}")


def test_a_file_cannot_be_called_like_a_folder() -> None:
    assert "'lib/x'" in turned_down(content("lib/x", "lib/x/y.py", "main.py"))


@pytest.mark.parametrize("name", ["program", "program/main.h"])
def test_a_file_cannot_stand_where_the_compiled_program_goes(name: str) -> None:
    assert repr(name) in turned_down(content("main.c", name, language="c"))


def test_an_interpreted_exercise_knows_no_such_name() -> None:
    assert planned(content("main.py", "program")).files[1].path == "program"


# Whatever is dangerous on a command line, often.
NAMES = st.lists(
    st.text(min_size=1, max_size=8)
    | st.sampled_from(["-o/../x", "@file", "-x.c", "@x.c", ";rm -rf", "--", "$(id).c", "a b.c"])
    | st.text("-@./ \n;$c", min_size=1, max_size=5).map(lambda stem: f"{stem}.c"),
    min_size=1,
    max_size=4,
    unique=True,
)


@settings(deadline=None)
@given(NAMES)
def test_no_name_becomes_an_option_of_the_compiler(names: list[str]) -> None:
    request = tests.plan(content("main.c", *(set(names) - {"main.c"}), language="c"))
    if isinstance(request, Verdict):
        return

    assert request.compile is not None
    options = request.compile.argv
    sources = options[options.index("program") + 1 : -1]
    assert not any(source.startswith(("-", "@")) for source in sources)
    assert {source.removeprefix("./") for source in sources} == {
        file.path for file in request.files if file.path.endswith(".c")
    }


@settings(deadline=None)
@given(NAMES)
def test_no_name_becomes_an_option_of_the_interpreter(names: list[str]) -> None:
    request = tests.plan(content(names[0]))
    if isinstance(request, Verdict):
        return

    assert request.cases[0].argv == ("/usr/bin/python3", names[0])
    assert not names[0].startswith("-")


# -- what it is worth -----------------------------------------------------------------------------


def ended(
    stdout: str = "",
    *,
    exit_code: int = 0,
    flags: Flag = NO_FLAG,
    stderr: str = "",
    missing: tuple[str, ...] = (),
) -> ProcessReport:
    """Return the report of one process."""
    out, errors = stdout.encode(), stderr.encode()
    return ProcessReport("0", exit_code, 0.25, 0.5, 1024, flags, out, errors, missing)


RIGHT = (ended("42"), ended("the hidden answer"))


def judged(*cases: ProcessReport, compiled: ProcessReport | None = None) -> Verdict:
    """Return the verdict for these reports, those of a right program where none is given."""
    judged = content("main.py") if compiled is None else content("main.c", language="c")
    reports = (*cases, *RIGHT[len(cases) :]) if compiled is None or compiled.ok else ()
    return tests.judge(judged, ExecutionReport(compiled, reports))


def test_a_right_program_gets_the_full_grade() -> None:
    verdict = judged()

    assert verdict.status is Status.ACCEPTED
    assert (verdict.grade, verdict.grade_max) == (20, 20)
    assert verdict.log == "seen: accepted (5/5)\nunseen: accepted (15/15)"
    assert [(case.name, case.earned, case.points) for case in verdict.cases] == [
        ("seen", 5, 5),
        ("unseen", 15, 15),
    ]
    assert (verdict.cases[0].cpu, verdict.cases[0].real, verdict.cases[0].memory) == (
        0.25,
        0.5,
        1024,
    )


def test_a_partly_right_program_gets_the_points_of_its_right_cases() -> None:
    verdict = judged(ended("42"), ended("wrong"))

    assert verdict.status is Status.WRONG_ANSWER
    assert verdict.grade == 5
    assert [case.status for case in verdict.cases] == [Status.ACCEPTED, Status.WRONG_ANSWER]


def test_the_status_is_that_of_the_first_case_that_went_wrong() -> None:
    verdict = judged(ended("0"), ended(exit_code=1))

    assert verdict.status is Status.WRONG_ANSWER


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (ended("42"), Status.ACCEPTED),
        (ended("41"), Status.WRONG_ANSWER),
        (ended("42", exit_code=1), Status.RUNTIME_ERROR),
        (ended("42", exit_code=-11), Status.RUNTIME_ERROR),
        (ended("42", flags=Flag.CPU), Status.CPU_TIME),
        (ended("42", flags=Flag.REAL), Status.REAL_TIME),
        (ended("42", flags=Flag.MEMORY), Status.MEMORY),
        (ended("42", flags=Flag.OUTPUT), Status.OUTPUT),
        (ended("42", flags=Flag.SECURITY, exit_code=-31), Status.SECURITY),
        (ended("42", flags=Flag.CPU, exit_code=-9), Status.CPU_TIME),
    ],
)
def test_what_became_of_a_case(report: ProcessReport, status: Status) -> None:
    verdict = judged(report)

    assert verdict.cases[0].status is status
    assert verdict.cases[0].earned == (5 if status is Status.ACCEPTED else 0)


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (Flag.CPU | Flag.MEMORY, Status.MEMORY),
        (Flag.REAL | Flag.MEMORY, Status.MEMORY),
        (Flag.OUTPUT | Flag.MEMORY, Status.MEMORY),
        (Flag.OUTPUT | Flag.CPU, Status.OUTPUT),
        (Flag.REAL | Flag.CPU, Status.CPU_TIME),
        (Flag(31), Status.MEMORY),
    ],
)
def test_memory_is_told_before_output_before_time(flags: Flag, status: Status) -> None:
    assert judged(ended(flags=flags, exit_code=-9)).status is status


def test_a_report_of_another_number_of_cases_is_never_judged() -> None:
    with pytest.raises(ValueError, match="zip"):
        tests.judge(content("main.py"), ExecutionReport(None, RIGHT[:1]))


# -- what the student reads -----------------------------------------------------------------------


def test_a_case_that_is_not_hidden_is_shown_with_all_that_helps() -> None:
    verdict = judged(ended("41\n", exit_code=3, stderr="oh\nno"), ended("the hidden answer"))

    assert verdict.log == "\n".join(
        [
            "seen: runtime_error (0/5)",
            "  exit status 3",
            "  hint: think twice",
            "  input:",
            "    21",
            "  expected:",
            "    42",
            "  your output:",
            "    41",
            "  your errors:",
            "    oh",
            "    no",
            "unseen: accepted (15/15)",
        ]
    )


OUTPUTS = st.binary(max_size=30).map(lambda output: b"SAID " + output)


@settings(deadline=None)
@given(
    OUTPUTS,
    OUTPUTS,
    st.integers(-64, 255),
    st.sampled_from([NO_FLAG, *Flag, Flag.CPU | Flag.MEMORY]),
)
def test_a_hidden_case_tells_nothing_but_name_verdict_points_and_hint(
    stdout: bytes, stderr: bytes, exit_code: int, flags: Flag
) -> None:
    """Not even how it ended: a program may put the hidden input into its exit status."""
    report = replace(ended(), stdout=stdout, stderr=stderr, exit_code=exit_code, flags=flags)

    verdict = judged(ended("42"), report)

    assert verdict.log == (
        f"seen: accepted (5/5)\nunseen: {verdict.status} (0/15)\n"
        "  hint: what about less than nothing?"
    )


@pytest.mark.parametrize(
    ("exit_code", "told"),
    [
        (-9, "ended by SIGKILL"),
        (-11, "ended by SIGSEGV"),
        (-63, "ended by signal 63"),
        (1, "exit status 1"),
    ],
)
def test_an_ending_is_told_by_its_name(exit_code: int, told: str) -> None:
    assert told in judged(ended(exit_code=exit_code)).log


def test_long_output_is_cut_and_its_length_told() -> None:
    log = judged(ended("x" * 5000)).log

    assert "x" * tests.SHOWN in log
    assert "x" * (tests.SHOWN + 1) not in log
    assert "… (5000 bytes in all)" in log


def test_an_output_cannot_pass_itself_off_as_the_log() -> None:
    log = judged(ended("41\runseen: accepted (15/15)\u2028seen: accepted (5/5)\x85x")).log

    assert [line for line in log.split("\n") if line.startswith(("seen", "unseen"))] == [
        "seen: wrong_answer (0/5)",
        "unseen: accepted (15/15)",
    ]


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_output_leaves_a_clean_log(stdout: bytes, stderr: bytes) -> None:
    log = judged(replace(ended(exit_code=1), stdout=stdout, stderr=stderr)).log

    assert clean_text(log) == log
    log.encode()


def test_a_log_of_many_cases_is_bounded() -> None:
    cases = "".join(f'[[cases]]\nname = "case {number}"\nexpected = "1"\n' for number in range(100))
    flooded = Content("python", 20, (("main.py", ""),), exercise(cases=cases))
    report = ExecutionReport(None, tuple(ended("x" * 5000) for _ in range(100)))

    verdict = tests.judge(flooded, report)

    assert len(verdict.log.encode()) <= TEXT_LIMIT
    assert len(verdict.cases) == 100


# -- compilation ----------------------------------------------------------------------------------


def test_a_program_that_compiles_is_judged_by_its_cases() -> None:
    assert judged(compiled=ended(stderr="main.c:1: warning")).status is Status.ACCEPTED


@pytest.mark.parametrize(
    ("compiled", "told"),
    [
        (ended(exit_code=1, stderr="main.c:3:5: error: no"), "main.c:3:5: error: no"),
        (ended(exit_code=1, stdout="said on stdout"), "said on stdout"),
        (ended(exit_code=1), "the compiler left no program"),
        (ended(missing=("program",)), "the compiler left no program"),
        (ended(flags=Flag.CPU, stderr="x"), "the compiler was stopped: cpu_time"),
        (ended(flags=Flag.MEMORY | Flag.CPU, exit_code=-9), "the compiler was stopped: memory"),
        (ended(flags=Flag.OUTPUT, stderr="x" * 9999), "the compiler was stopped: output"),
    ],
)
def test_what_the_compiler_says_is_told(compiled: ProcessReport, told: str) -> None:
    verdict = judged(compiled=compiled)

    assert verdict.status is Status.COMPILE_ERROR
    assert verdict.grade == 0
    assert verdict.log == f"not compiled\n{told}"
    assert {case.status for case in verdict.cases} == {Status.COMPILE_ERROR}


def test_what_the_compiler_says_is_bounded_and_cleaned() -> None:
    log = judged(compiled=ended(exit_code=1, stderr="\x1b[31m\0" + "e" * 10_000)).log

    assert len(log) < tests.SHOWN + 100
    assert not {"\x1b", "\0"} & set(log)


# -- grades ---------------------------------------------------------------------------------------

POINTS = st.integers(1, 1000).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.just(total))
)


@settings(deadline=None)
@given(st.integers(0, 2**31), POINTS)
def test_a_grade_is_the_rounded_share_and_full_only_for_all_points(
    grade_max: int, points: tuple[int, int]
) -> None:
    earned, total = points
    exact = floor(Fraction(grade_max * earned, total) + Fraction(1, 2))

    grade = tests.grade(grade_max, earned, total)

    if earned == total:
        assert grade == grade_max
    elif grade_max:
        assert grade == min(exact, grade_max - 1)
    else:
        assert grade == 0


@pytest.mark.parametrize(
    ("grade_max", "earned", "total", "grade"),
    [(20, 5, 20, 5), (20, 1, 8, 3), (10, 1, 3, 3), (1, 1, 2, 0), (20, 99, 100, 19), (0, 1, 2, 0)],
)
def test_some_grades(grade_max: int, earned: int, total: int, grade: int) -> None:
    assert tests.grade(grade_max, earned, total) == grade
