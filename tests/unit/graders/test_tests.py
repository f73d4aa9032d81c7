"""Exercises of kind `tests`: what is run for them, and what it is worth."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import (
    NO_FLAG,
    Descriptor,
    ExecutionRequest,
    File,
    Flag,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
)
from commserver.core.text import TEXT_LIMIT, clean_text
from commserver.core.verdicts import Status, Verdict
from commserver.errors import DefinitionError, GraderError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.languages import COMPILE_LIMITS
from commserver.graders.programs import TEACHER_LIMITS
from commserver.graders.showing import SHOWN, WORK
from commserver.graders.tests import TestsPlan
from tests.unit.graders.reports import End, report
from tests.unit.graders.toml import exercise, with_files

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
WELL = End()
RIGHT = {"0/output": b"42", "1/output": b"the hidden answer"}


def content(
    *names: str, language: str = "python", extra: str = EXTRA, text: str = "print(42)"
) -> Content:
    """Return what is judged when files of these names, of the same text, are handed in."""
    grader = exercise(extra, cases=CASES, language=f'"{language}"')
    return Content(language, 20, tuple((name, text) for name in names), grader)


def planned(wanted: Content) -> TestsPlan:
    """Return what has to be run; there must be something."""
    plan = kinds.plan(wanted, {})
    assert isinstance(plan, TestsPlan)
    return plan


def turned_down(wanted: Content) -> str:
    """Return the log of files that cannot be started; nothing may be earned by them."""
    verdict = kinds.plan(wanted, {})
    assert isinstance(verdict, Verdict)
    assert verdict.status is Status.COMPILE_ERROR
    assert (verdict.grade, verdict.grade_max) == (0, 20)
    assert [(case.name, case.earned, case.points) for case in verdict.cases] == [
        ("seen", 0, 5),
        ("unseen", 0, 15),
    ]
    return verdict.log


def first(request: ExecutionRequest, stage: int = 0, case: int = 0) -> Process:
    """Return the only process of a stage of a case."""
    (process,) = request.cases[case].stages[stage].processes
    return process


# -- what is run ----------------------------------------------------------------------------------


def test_a_python_program_is_run_once_a_case() -> None:
    request = planned(content("main.py")).request

    assert request.image == "python"
    assert request.prepare == ()
    assert request.files == (
        File("submission/main.py", b"print(42)"),
        File("case/0/input", b"21\n"),
        File("case/1/input", b"the hidden input"),
    )
    for number, case in enumerate(request.cases):
        process = first(request, case=number)
        assert case.name == str(number)
        assert process.role is Role.LEARNER
        assert process.argv == ("/usr/bin/python3", "main.py")
        assert process.files == (Placement("submission/main.py", "main.py"),)
        assert process.limits == LIMITS
        assert case.stages[0].pipes[0] == Pipe(
            Resource(f"case/{number}/input"), Descriptor("program", 0)
        )
        assert [artifact.name for artifact in case.stages[0].artifacts] == ["output", "errors"]


def test_a_c_program_is_compiled_once_and_its_sources_are_not_there_when_it_runs() -> None:
    request = planned(content("lib/sum.c", "main.c", "sum.h", language="c")).request

    assert request.image == "c"
    (compiler,) = request.prepare[0].processes
    assert compiler.argv[0] == "/usr/bin/gcc"
    assert compiler.argv[-3:] == ("lib/sum.c", "main.c", "-lm")
    assert [file.path for file in compiler.files] == ["lib/sum.c", "main.c", "sum.h"]
    assert compiler.limits == COMPILE_LIMITS
    assert compiler.role is Role.LEARNER
    assert [(x.name, x.returned) for x in request.prepare[0].artifacts][-1] == ("compiled", False)
    for number in range(2):
        assert first(request, case=number).argv == ("./program",)
        assert first(request, case=number).files == (Placement("compiled", "program"),)


def test_nothing_of_what_is_expected_goes_into_the_sandbox() -> None:
    request = planned(content("main.py")).request

    assert b"the hidden answer" not in b"".join(file.content for file in request.files)


def test_a_wrong_definition_is_the_teachers_fault() -> None:
    with pytest.raises(DefinitionError):
        kinds.plan(replace(content("main.py"), grader="format = 1"), {})


# -- what it is worth -----------------------------------------------------------------------------


def judged(end: End = WELL, output: bytes = b"42", errors: bytes = b"", **left: bytes) -> Verdict:
    """Return the verdict when the first case ends so, and the second is right."""
    plan = planned(content("main.py"))
    outputs = RIGHT | {"0/output": output, "0/errors": errors} | left
    return plan.judge(report(plan.request, {"0/program": end}, outputs))


def test_a_right_program_gets_the_full_grade() -> None:
    verdict = judged()

    assert verdict.status is Status.ACCEPTED
    assert (verdict.grade, verdict.grade_max) == (20, 20)
    assert verdict.log == "seen: accepted (5/5)\nunseen: accepted (15/15)"
    assert verdict.notes == ""
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
    plan = planned(content("main.py"))

    verdict = plan.judge(report(plan.request, left=RIGHT | {"1/output": b"wrong"}))

    assert verdict.status is Status.WRONG_ANSWER
    assert verdict.grade == 5
    assert [case.status for case in verdict.cases] == [Status.ACCEPTED, Status.WRONG_ANSWER]


def test_the_status_is_that_of_the_first_case_that_went_wrong() -> None:
    plan = planned(content("main.py"))

    verdict = plan.judge(report(plan.request, {"1/program": End(1)}, {"0/output": b"0"}))

    assert [case.status for case in verdict.cases] == [Status.WRONG_ANSWER, Status.RUNTIME_ERROR]
    assert verdict.status is Status.WRONG_ANSWER


@pytest.mark.parametrize(
    ("output", "end", "status"),
    [
        (b"42", End(), Status.ACCEPTED),
        (b"41", End(), Status.WRONG_ANSWER),
        (b"42", End(1), Status.RUNTIME_ERROR),
        (b"42", End(-11), Status.RUNTIME_ERROR),
        (b"42", End(flags=Flag.CPU), Status.CPU_TIME),
        (b"42", End(flags=Flag.REAL), Status.REAL_TIME),
        (b"42", End(flags=Flag.MEMORY), Status.MEMORY),
        (b"42", End(flags=Flag.OUTPUT), Status.OUTPUT),
        (b"42", End(-31, Flag.SECURITY), Status.SECURITY),
        (b"42", End(-9, Flag.CPU), Status.CPU_TIME),
        (b"42", End(-9, Flag.CPU | Flag.MEMORY), Status.MEMORY),
        (b"42", End(-9, Flag.REAL | Flag.MEMORY), Status.MEMORY),
        (b"42", End(-9, Flag.OUTPUT | Flag.CPU), Status.OUTPUT),
        (b"42", End(-9, Flag.REAL | Flag.CPU), Status.CPU_TIME),
        (b"42", End(-9, Flag(31)), Status.MEMORY),
    ],
)
def test_what_became_of_a_case(output: bytes, end: End, status: Status) -> None:
    """Memory is told before output before time."""
    verdict = judged(end, output)

    assert verdict.cases[0].status is status
    assert verdict.cases[0].earned == (5 if status is Status.ACCEPTED else 0)


@pytest.mark.parametrize(
    ("checker", "output", "status"),
    [
        ('"exact"', b"42\n", Status.ACCEPTED),
        ('"exact"', b"42", Status.PRESENTATION),
        ('"lines"', b"42 ", Status.ACCEPTED),
        ('"lines"', b"\n42", Status.PRESENTATION),
        ("{ float = 0.1 }", b"40", Status.ACCEPTED),
        ("{ float = 1e-6 }", b"40", Status.WRONG_ANSWER),
    ],
)
def test_the_checker_of_the_exercise_decides(checker: str, output: bytes, status: Status) -> None:
    plan = planned(content("main.py", extra=f"checker = {checker}"))

    verdict = plan.judge(report(plan.request, left=RIGHT | {"0/output": output}))

    assert verdict.cases[0].status is status
    assert verdict.cases[0].earned == (5 if status is Status.ACCEPTED else 0)


def test_a_report_of_another_number_of_cases_is_never_judged() -> None:
    plan = planned(content("main.py"))
    whole = report(plan.request, left=RIGHT)

    with pytest.raises(ValueError, match="zip"):
        plan.judge(replace(whole, cases=whole.cases[:1]))


# -- what the student reads -----------------------------------------------------------------------


def test_a_case_that_is_not_hidden_is_shown_with_all_that_helps() -> None:
    verdict = judged(End(3), b"41\n", b"oh\nno")

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


def test_where_a_wrong_output_differs_is_told() -> None:
    assert "\n  line 2: expected '42', got '41'\n" in judged(output=b"\n41\n").log
    assert "\n  line 1: expected '42', got nothing more\n" in judged(output=b"").log


def test_a_students_files_are_called_as_the_student_calls_them() -> None:
    log = judged(End(1), errors=b'  File "%smain.py", line 1' % WORK).log

    assert '    File "main.py", line 1' in log


OUTPUTS = st.binary(max_size=30).map(lambda output: b"SAID " + output)


@settings(deadline=None, max_examples=50)
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
    plan = planned(content("main.py"))
    left = RIGHT | {"1/output": stdout, "1/errors": stderr}

    verdict = plan.judge(report(plan.request, {"1/program": End(exit_code, flags)}, left))

    assert verdict.log == (
        f"seen: accepted (5/5)\nunseen: {verdict.status} (0/15)\n"
        "  hint: what about less than nothing?"
    )
    assert "the hidden answer" in verdict.notes  # the teacher sees everything
    assert "the hidden input" in verdict.notes
    assert "SAID" in verdict.notes


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
    assert told in judged(End(exit_code)).log


def test_long_output_is_cut_and_its_length_told() -> None:
    log = judged(output=b"x" * 5000).log

    assert "x" * SHOWN in log
    assert "x" * (SHOWN + 1) not in log
    assert "… (5000 bytes in all)" in log


def test_an_output_cannot_pass_itself_off_as_the_log() -> None:
    said = "41\runseen: accepted (15/15)\u2028seen: accepted (5/5)\x85x"

    log = judged(output=said.encode()).log

    assert [line for line in log.split("\n") if line.startswith(("seen", "unseen"))] == [
        "seen: wrong_answer (0/5)",
        "unseen: accepted (15/15)",
    ]


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_output_leaves_clean_texts(stdout: bytes, stderr: bytes) -> None:
    verdict = judged(End(1), stdout, stderr)

    assert clean_text(verdict.log) == verdict.log
    verdict.log.encode()


def test_a_log_of_many_cases_is_bounded() -> None:
    cases = "".join(f'[[cases]]\nname = "case {number}"\nexpected = "1"\n' for number in range(100))
    plan = planned(Content("python", 20, (("main.py", ""),), exercise(cases=cases)))

    verdict = plan.judge(report(plan.request, left={"output": b"x" * 5000}))

    assert len(verdict.log.encode()) <= TEXT_LIMIT
    assert len(verdict.cases) == 100


# -- compilation ----------------------------------------------------------------------------------


def compiled(
    end: End, errors: bytes = b"", log: bytes = b"", lost: tuple[str, ...] = ()
) -> Verdict:
    """Return the verdict on a C program whose compilation ends so."""
    plan = planned(content("main.c", language="c"))
    left = RIGHT | {"compile.errors": errors, "compile.log": log}
    return plan.judge(report(plan.request, {"compile": end}, left, lost))


def test_a_program_that_compiles_is_judged_by_its_cases() -> None:
    assert compiled(End(), b"main.c:1: warning").status is Status.ACCEPTED


@pytest.mark.parametrize(
    ("end", "errors", "log", "told"),
    [
        (End(1), b"main.c:3:5: error: no", b"", "main.c:3:5: error: no"),
        (End(1), b"", b"said on stdout", "said on stdout"),
        (End(1), b"", b"", "the compiler left no program"),
        (End(flags=Flag.CPU), b"x", b"", "the compiler was stopped: cpu_time"),
        (End(-9, Flag.MEMORY | Flag.CPU), b"", b"", "the compiler was stopped: memory"),
        (End(flags=Flag.OUTPUT), b"x" * 9999, b"", "the compiler was stopped: output"),
    ],
)
def test_what_the_compiler_says_is_told(end: End, errors: bytes, log: bytes, told: str) -> None:
    verdict = compiled(end, errors, log)

    assert verdict.status is Status.COMPILE_ERROR
    assert verdict.grade == 0
    assert verdict.log == f"not compiled\n{told}"
    assert {case.status for case in verdict.cases} == {Status.COMPILE_ERROR}


def test_a_compiler_that_leaves_no_program_has_not_compiled() -> None:
    assert compiled(End(), lost=("compiled",)).log == "not compiled\nthe compiler left no program"


def test_what_the_compiler_says_is_bounded_and_cleaned() -> None:
    log = compiled(End(1), b"\x1b[31m\0" + b"e" * 10_000).log

    assert len(log) < SHOWN + 100
    assert not {"\x1b", "\0"} & set(log)


# -- checkers of the teacher's --------------------------------------------------------------------


def with_checker(program: str = "check.py", **files: str) -> TestsPlan:
    """Return the plan of an exercise whose checker is a program."""
    text = exercise(f'checker = {{ program = "{program}" }}', cases=CASES)
    own = {program.replace(".", "__"): "# checks", "words__txt": "a b"} | files
    grader = with_files(text, **own, **{"solutions/right__py": "", "given/helper__py": ""})
    return planned(Content("python", 20, (("main.py", ""),), grader))


def test_a_checker_that_is_a_program_looks_at_what_came_out_in_a_run_of_its_own() -> None:
    request = with_checker().request

    stage = request.cases[1].stages[1]
    (process,) = stage.processes
    assert process.role is Role.GRADER
    assert process.limits == TEACHER_LIMITS
    assert process.argv[-5:] == (
        "checker",
        "check.py",
        "case/input",
        "case/output",
        "case/expected",
    )
    assert process.argv[:-5] == ("/usr/bin/python3", "-I", "/opt/commserver/launcher.pyc")
    assert process.files == (
        Placement("teacher/check.py", "check.py"),
        Placement("teacher/words.txt", "words.txt"),
        Placement("case/1/input", "case/input"),
        Placement("output", "case/output"),
        Placement("case/1/expected", "case/expected"),
    )
    assert [artifact.name for artifact in stage.artifacts] == [
        "checker.log",
        "checker.errors",
        "checker.told",
    ]


def test_a_students_program_sees_nothing_of_the_checkers() -> None:
    for case in with_checker().request.cases:
        (process,) = case.stages[0].processes
        assert [file.path for file in process.files] == ["main.py", "helper.py"]


def test_a_checker_in_c_is_compiled_after_the_students_program() -> None:
    text = exercise('checker = { program = "check.c" }', cases=CASES, language='"c"')
    grader = with_files(text, check__c="int main(){}", testlib__h="")
    request = planned(Content("c", 20, (("main.c", ""),), grader)).request

    assert [stage.name for stage in request.prepare] == ["compile", "compile check.c"]
    (compiler,) = request.prepare[1].processes
    assert compiler.role is Role.GRADER
    assert compiler.argv[-2:] == ("check.c", "-lm")
    assert [file.path for file in compiler.files] == ["check.c", "testlib.h"]
    checker = first(request, stage=1)
    assert checker.argv == ("./program", "case/input", "case/output", "case/expected")
    assert checker.files[0] == Placement("teacher's check.c", "program")


def test_a_checker_that_breaks_says_in_which_case_to_the_teacher_alone() -> None:
    plan = with_checker()
    name = plan.cases[1].name

    with pytest.raises(GraderError) as caught:
        plan.judge(report(plan.request, {"1/checker": End(-8)}))

    assert caught.value.message == "the exercise's check.py failed: ended by SIGFPE"
    assert caught.value.details == f"in the case {name!r}: ended by SIGFPE"


def test_a_checker_that_does_not_compile_is_the_teachers_fault() -> None:
    plan = with_checker("check.c")
    assert plan.request.image == "c"  # which has Python as well

    with pytest.raises(GraderError) as caught:
        plan.judge(
            report(
                plan.request,
                {"compile check.c": End(1)},
                {"compile check.c.errors": b"check.c:1: error"},
            )
        )

    assert caught.value.message == "the exercise's check.c does not compile"
    assert caught.value.details == "check.c:1: error"


@pytest.mark.parametrize(
    ("exit_code", "told", "status", "earned"),
    [
        (0, b"", Status.ACCEPTED, 5),
        (1, b"", Status.WRONG_ANSWER, 0),
        (2, b"", Status.PRESENTATION, 0),
        (7, b'{"points": 3.9}', Status.WRONG_ANSWER, 3),
        (7, b'{"points": 5}', Status.ACCEPTED, 5),
        (7, b'{"points": 0}', Status.WRONG_ANSWER, 0),
    ],
)
def test_a_checkers_exit_decides(exit_code: int, told: bytes, status: Status, earned: int) -> None:
    plan = with_checker()

    verdict = plan.judge(
        report(plan.request, {"0/checker": End(exit_code)}, RIGHT | {"0/checker.told": told})
    )

    assert verdict.cases[0].status is status
    assert verdict.cases[0].earned == earned
    assert verdict.grade == 15 + earned


def test_a_program_that_crashes_is_not_shown_to_the_checker() -> None:
    plan = with_checker()

    verdict = plan.judge(report(plan.request, {"program": End(1)}))

    assert verdict.status is Status.RUNTIME_ERROR


def test_what_a_checker_says_is_for_the_student_and_what_it_writes_for_the_teacher() -> None:
    plan = with_checker()
    left = {
        "checker.told": b'{"say": "not sorted"}',
        "checker.log": b"compared 3 words",
        "checker.errors": b"wrong answer: first word",
    }

    verdict = plan.judge(report(plan.request, {"checker": End(1)}, left))

    assert verdict.log.startswith("seen: wrong_answer (0/5)\n  not sorted\n")
    assert verdict.log.count("not sorted") == 1  # the other case is hidden
    assert "word" not in verdict.log
    assert verdict.notes.count("compared 3 words") == 2
    assert verdict.notes.count("wrong answer: first word") == 2
    assert verdict.notes.count("not sorted") == 1


def test_a_file_that_the_store_has_lost_is_named() -> None:
    hash_ = "0f" * 32
    grader = exercise('checker = { program = "check.py" }', cases=CASES)
    grader += f'[files]\n"check.py" = {{ sha256 = "{hash_}", size = 3 }}\n'

    with pytest.raises(DefinitionError, match=r"files\.check\.py: is not in the file store"):
        kinds.plan(Content("python", 20, (("main.py", ""),), grader), {})
    plan = kinds.plan(Content("python", 20, (("main.py", ""),), grader), {hash_: b"abc"})
    assert isinstance(plan, TestsPlan)
    assert File("teacher/check.py", b"abc") in plan.request.files
