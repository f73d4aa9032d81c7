"""Correction scripts: those that use our module, and the plain ones of a platform."""

import json

import pytest

from commserver.core.execution import MIB, Flag, Limits, Placement, Process, Role, RunReport, Stop
from commserver.core.verdicts import Status, Verdict
from commserver.errors import GraderError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.definition import NUMBER_MOST
from commserver.graders.limits import DEFAULT_TOTAL
from commserver.graders.script import ScriptPlan
from tests.unit.graders.reports import End, report, run
from tests.unit.graders.toml import exercise, with_files

TOTAL = 'script = "grade.py"\nlimits = { cpu = "1 s", memory = "32 MiB", total = "20 s" }'
WELL = End()
Lines = list[dict[str, object]]


def planned(grader: str, *names: str, language: str = "python", grade_max: int = 20) -> ScriptPlan:
    """Return what is run when files of these names are handed in."""
    files = tuple((name, "print(42)") for name in names or ("main.py",))
    plan = kinds.plan(Content(language, grade_max, files, grader), {})
    assert isinstance(plan, ScriptPlan)
    return plan


def scripted(*names: str, language: str = "python", **files: str) -> ScriptPlan:
    """Return the plan of an exercise of kind `script`."""
    text = exercise(TOTAL, kind='"script"', cases="", language=f'"{language}"')
    return planned(with_files(text, grade__py="import grader", **files), *names, language=language)


def the_script(plan: ScriptPlan) -> Process:
    """Return the script's process."""
    ((process,),) = (stage.processes for stage in plan.request.cases[0].stages)
    return process


# -- what is run ----------------------------------------------------------------------------------


def test_a_script_is_a_run_of_its_own_that_asks_for_runs_of_the_students() -> None:
    plan = scripted("square.py", "triangle.py", data__txt="x", **{"given/play__py": ""})

    script = the_script(plan)
    assert script.role is Role.GRADER
    assert script.argv == (
        *("/usr/bin/python3", "-I", "/opt/commserver/launcher.pyc"),
        *("script", "grade.py"),
    )
    assert (script.limits.cpu, script.limits.real) == (20.0, 20.0)
    assert script.limits.output == 2 * MIB
    assert script.files == (
        Placement("teacher/grade.py", "grade.py"),
        Placement("teacher/data.txt", "data.txt"),
        Placement("submission/square.py", "submission/square.py"),
        Placement("submission/triangle.py", "submission/triangle.py"),
        Placement("given/play.py", "submission/play.py"),
    )
    assert dict(script.environment) == {
        "COMMSERVER_SUBMISSION": "submission",
        "COMMSERVER_NAMES": json.dumps(["square.py", "triangle.py"]),
    }
    stage = plan.request.cases[0].stages[0]
    assert stage.stop is Stop.ALWAYS
    assert [artifact.name for artifact in stage.artifacts] == [
        "script.log",
        "script.errors",
        "script.told",
    ]


def test_the_students_runs_see_nothing_of_the_teachers() -> None:
    script = the_script(scripted("triangle.py", **{"given/play__py": ""}))

    own = (
        Placement("submission/triangle.py", "triangle.py"),
        Placement("given/play.py", "play.py"),
    )
    limits = Limits(cpu=1.0, real=5.0, memory=32 * MIB)
    assert script.may_run == (
        Process("run", ("/usr/bin/python3",), limits, own),
        Process("call", ("/usr/bin/python3", "-I", "/opt/commserver/call.pyc"), limits, own),
    )


def test_a_compiled_program_is_compiled_first_and_only_run() -> None:
    plan = scripted("main.c", language="c")

    script = the_script(plan)
    assert [stage.name for stage in plan.request.prepare] == ["compile"]
    assert plan.request.image == "c"
    assert [(x.name, x.argv, x.files) for x in script.may_run] == [
        ("run", ("./program",), (Placement("compiled", "program"),))
    ]
    assert dict(script.environment)["COMMSERVER_COMPILED"] == "1"
    assert dict(script.environment)["COMMSERVER_MAIN"] == "main.c"


def test_a_program_that_does_not_compile_is_the_students() -> None:
    plan = scripted("main.c", language="c")

    verdict = plan.judge(
        report(plan.request, {"compile": End(1)}, {"compile.errors": b"main.c:1: error"})
    )

    assert verdict.status is Status.COMPILE_ERROR
    assert verdict.log == "not compiled\nmain.c:1: error"


def test_files_that_cannot_be_started_are_the_students() -> None:
    text = exercise(
        f'{TOTAL}\nsubmission.files = ["a.py"]', kind='"script"', cases="", language='"python"'
    )
    grader = with_files(text, grade__py="")

    verdict = kinds.plan(Content("python", 20, (("b.py", ""),), grader), {})

    assert isinstance(verdict, Verdict)
    assert verdict.log == "not compiled\na.py is missing; you handed in b.py"
    assert verdict.cases == ()


# -- checks ---------------------------------------------------------------------------------------


def check(
    name: str, earned: int, points: int, status: str = "accepted", **more: object
) -> dict[str, object]:
    """Return what a script tells of a check."""
    return {"check": name, "points": points, "earned": earned, "status": status, **more}


ENDED: Lines = [{"grader": True}, {"done": True}]


def judged(lines: Lines, end: End = WELL, plan: ScriptPlan | None = None, **left: bytes) -> Verdict:
    """Return the verdict when a script tells these lines and ends so."""
    plan = plan or scripted()
    told = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    outputs = {"script.told": told} | {f"script.{name}": text for name, text in left.items()}
    return plan.judge(report(plan.request, {"script": end}, outputs))


def test_checks_are_worth_their_points() -> None:
    verdict = judged(
        [
            check("right angle", 10, 10),
            check("negative", 0, 5, "wrong_answer", hidden=True, hint="negative?", note="secret"),
            check("program", 2, 5, "cpu_time", message="cpu_time after 1 s"),
            *ENDED,
        ]
    )

    assert verdict.status is Status.WRONG_ANSWER
    assert (verdict.grade, verdict.grade_max) == (12, 20)
    assert verdict.log == "\n".join(
        [
            "right angle: accepted (10/10)",
            "negative: wrong_answer (0/5)",
            "  hint: negative?",
            "program: cpu_time (2/5)",
            "  cpu_time after 1 s",
        ]
    )
    assert verdict.notes == "negative: wrong_answer\n  note:\n    secret"
    assert [(case.name, case.earned) for case in verdict.cases] == [
        ("right angle", 10),
        ("negative", 0),
        ("program", 2),
    ]


def test_what_is_said_is_for_the_student_and_what_is_printed_for_the_teacher() -> None:
    verdict = judged(
        [{"say": "hello"}, check("a", 1, 1), {"say": "bye"}, *ENDED],
        log=b"printed GRADE: 3",
        errors=b"a warning",
    )

    assert verdict.log == "hello\na: accepted (1/1)\nbye"
    assert verdict.notes == (
        "grade.py wrote:\n  printed GRADE: 3\ngrade.py complained:\n  a warning"
    )
    assert verdict.grade == 20  # what is printed is no grade for one that uses our module


def test_a_check_has_the_measures_of_the_runs_that_it_asked_for() -> None:
    runs = (run(cpu=0.5), run(cpu=0.75), run("call", cpu=0.125))

    verdict = judged(
        [check("a", 1, 1, runs=2), check("b", 1, 1, runs=3), check("c", 1, 1, runs=3), *ENDED],
        End(runs=runs),
    )

    assert [case.cpu for case in verdict.cases] == [0.75, 0.125, 0.0]


@pytest.mark.parametrize(
    ("lines", "end", "why"),
    [
        ([*ENDED, {"fault": "NameError"}], End(3), "NameError"),
        ([check("a", 1, 1), *ENDED, {"fault": "swallowed"}], End(), "swallowed"),
        ([check("a", 1, 1), *ENDED], End(1), "exit status 1"),
        ([check("a", 1, 1), *ENDED], End(-15), "ended by SIGTERM"),
        ([check("a", 1, 1), *ENDED], End(0, Flag.MEMORY), "it was stopped: memory"),
        ([check("a", 1, 1), *ENDED], End(0, Flag.OUTPUT), "it was stopped: output"),
        ([check("a", 1, 1), *ENDED], End(0, Flag.REAL), "it was stopped: real_time"),
        ([check("a", 1, 1), {"grader": True}], End(), "it ended before its end"),
        (ENDED, End(), "its checks are worth no points"),
        ([check("a", 0, 0), *ENDED], End(), "its checks are worth no points"),
        ([check("a", 2, 1), *ENDED], End(), "a check gave 2 of 1 points"),
        ([check("a", -1, 1), *ENDED], End(), "a check gave -1 of 1 points"),
        ([check("a", 0, NUMBER_MOST + 1), *ENDED], End(), "a check gave 0 of"),
    ],
)
def test_a_script_that_breaks_is_the_teachers_fault(lines: Lines, end: End, why: str) -> None:
    with pytest.raises(GraderError) as caught:
        judged(lines, end, log=b"printed")

    assert caught.value.message.startswith(f"the exercise's grade.py failed: {why}")
    assert caught.value.details.endswith("printed")


# -- the whole correction takes too long ----------------------------------------------------------

LATE = End(-9, Flag.REAL, stopped=True)


def test_a_script_that_waits_for_slow_runs_is_the_students_time_out() -> None:
    runs = tuple(run("call", -9, Flag.CPU, cpu=1.1, real=4.0) for _ in range(5))

    verdict = judged([check("a", 5, 5)], End(-9, Flag.REAL, stopped=True, runs=runs))

    assert verdict.status is Status.CPU_TIME
    assert verdict.grade == 5  # what was not checked is taken to be the rest of the grade
    assert verdict.log == ("a: accepted (5/5)\ncpu_time: the correction was stopped before its end")


def test_runs_that_are_slow_without_meeting_a_limit_are_a_time_out_in_real_time() -> None:
    verdict = judged([], End(-9, Flag.REAL, stopped=True, runs=(run(real=11.0),)))

    assert verdict.status is Status.REAL_TIME
    assert verdict.grade == 0


@pytest.mark.parametrize(
    "end",
    [
        LATE,
        End(-9, Flag.REAL, stopped=True, runs=(run(real=9.0),)),
        End(-9, Flag.CPU, cpu=22.0, stopped=True, runs=(run(real=11.0),)),
    ],
    ids=["no runs", "fast runs", "its own work"],
)
def test_a_script_that_is_slow_by_itself_is_the_teachers_fault(end: End) -> None:
    with pytest.raises(GraderError, match=r"grade\.py failed: it was stopped"):
        judged([], end)


# -- plain scripts --------------------------------------------------------------------------------


def plain(*names: str, text: str = "print('GRADE: 20')") -> ScriptPlan:
    """Return the plan of a platform's own correction script."""
    return planned(text, *names)


def test_a_plain_script_finds_the_students_files_beside_itself() -> None:
    plan = plain("main.py", "lib/a.py", text="import os\r\nprint(1)\r\n")

    script = the_script(plan)
    assert script.argv[-2:] == ("script", "correction.py")
    assert [file.path for file in script.files] == ["correction.py", "main.py", "lib/a.py"]
    assert dict(script.environment)["COMMSERVER_SUBMISSION"] == "."
    assert script.limits.real == DEFAULT_TOTAL
    assert [one.name for one in script.may_run] == ["run", "call"]
    content = {file.name: file.content for file in plan.request.files}
    assert content["teacher/correction.py"] == b"import os\nprint(1)\n"


def test_a_student_cannot_take_the_scripts_place() -> None:
    script = the_script(plain("correction.py", "our-correction.py"))

    assert script.argv[-1] == "our-our-correction.py"


@pytest.mark.parametrize(
    ("log", "grade", "status"),
    [
        (b"GRADE: 20", 20, Status.ACCEPTED),
        (b"working\nGRADE: 0\n", 0, Status.WRONG_ANSWER),
        (b"GRADE: 5\nGRADE: 7\r\n\n", 7, Status.WRONG_ANSWER),
        (b"  GRADE:\t12 ", 12, Status.WRONG_ANSWER),
    ],
)
def test_the_last_line_of_a_plain_script_is_the_grade(
    log: bytes, grade: int, status: Status
) -> None:
    verdict = judged([], plan=plain(), log=log)

    assert (verdict.grade, verdict.status) == (grade, status)
    assert verdict.log == f"correction: {status} ({grade}/20)"
    assert "GRADE" in verdict.notes


@pytest.mark.parametrize(
    ("log", "end", "why"),
    [
        (b"", End(), "its last line is not GRADE: and a whole number"),
        (b"GRADE: 5\nbye", End(), "its last line is not GRADE: and a whole number"),
        (b"GRADE: 5.5", End(), "its last line is not GRADE: and a whole number"),
        (b"GRADE: -5", End(), "its last line is not GRADE: and a whole number"),
        (b"the GRADE: 5", End(), "its last line is not GRADE: and a whole number"),
        (b"GRADE: \xd9\xa5", End(), "its last line is not GRADE: and a whole number"),
        ("x\u2028GRADE: 5".encode(), End(), "its last line is not GRADE: and a whole number"),
        (b"GRADE: 21", End(), "it gave 21 of 20 points"),
        (b"GRADE: 20", End(1), "exit status 1"),
        (b"GRADE: 20", End(-9), "ended by SIGKILL"),
        (b"GRADE: 20", End(0, Flag.CPU), "it was stopped: cpu_time"),
    ],
)
def test_a_plain_script_that_breaks_its_contract_is_the_teachers_fault(
    log: bytes, end: End, why: str
) -> None:
    with pytest.raises(GraderError) as caught:
        judged([], end, plain(), log=log)

    assert caught.value.message.startswith(f"the exercise's correction.py failed: {why}")


@pytest.mark.parametrize(
    "heard", [[{"heard": 20}], [{"heard": 3}, {"heard": 20}], [{"heard_many": True}]]
)
def test_a_grade_that_a_students_program_spelled_as_well_is_ambiguous(heard: Lines) -> None:
    with pytest.raises(GraderError, match="ambiguous grade"):
        judged(heard, plan=plain(), log=b"GRADE: 20")


def test_a_students_program_that_spells_another_grade_wins_nothing() -> None:
    assert judged([{"heard": 20}], plan=plain(), log=b"GRADE: 0").grade == 0


def test_the_contract_of_plain_scripts_is_not_that_of_those_that_use_our_module() -> None:
    """One that only prints a grade has told no points."""
    with pytest.raises(GraderError, match="worth no points"):
        judged(ENDED, log=b"GRADE: 20")


def test_a_script_of_an_exercise_may_keep_the_plain_contract() -> None:
    assert judged([], log=b"GRADE: 15").grade == 15


@pytest.mark.parametrize(
    ("runs", "status", "said"),
    [
        ((run(), run(exit_code=-11)), Status.RUNTIME_ERROR, "\n  ended by SIGSEGV"),
        ((run(flags=Flag.CPU), run(exit_code=1)), Status.CPU_TIME, ""),
        ((run(),), Status.WRONG_ANSWER, ""),
    ],
)
def test_missing_points_are_named_after_the_first_run_that_went_wrong(
    runs: tuple[RunReport, ...], status: Status, said: str
) -> None:
    verdict = judged([], End(runs=runs), plain(), log=b"GRADE: 3")

    assert verdict.log == f"correction: {status} (3/20){said}"


def test_files_that_a_plain_script_cannot_be_given_are_the_students() -> None:
    verdict = kinds.plan(Content("python", 20, (("../a.py", ""),), "print('GRADE: 20')"), {})

    assert isinstance(verdict, Verdict)
    assert verdict.log == "not compiled\na file cannot be called '../a.py'"
