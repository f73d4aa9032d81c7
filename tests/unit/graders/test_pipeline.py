"""Exercises of kind `pipeline`: what is run together, and who wins."""

import hashlib
import json
from collections.abc import Mapping

import pytest

from commserver.core.execution import (
    Artifact,
    Descriptor,
    File,
    Flag,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
    Stage,
    WorkFile,
)
from commserver.core.verdicts import Status, Verdict
from commserver.errors import DefinitionError, GraderError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.pipeline import PipelinePlan
from commserver.graders.programs import LAUNCHER
from tests.unit.graders.reports import End, report
from tests.unit.graders.toml import exercise, with_files

GAME = """
programs = { player = "submission", judge = "judge.py" }
limits = { cpu = "2 s", real = "30 s" }

[[stages]]
name = "play"
run = ["judge", "player"]
pipes = ["judge.1 -> player.0", "player.1 -> judge.0", "case.input -> judge.3"]
verdict = "judge"
"""
CASES = """
[[cases]]
name = "seen"
input = "100 42 7"
points = 5
hint = "halve"
[[cases]]
name = "unseen"
input = "1000 999 10"
points = 15
hidden = true
"""


def planned(
    extra: str = GAME, more: Mapping[str, str] = {}, *, cases: str = CASES, **files: str
) -> PipelinePlan:
    """Return what is run for an interactive exercise with these files beside its judge."""
    text = exercise(extra, kind='"pipeline"', cases=cases)
    grader = with_files(text, **{"judge__py": "judge", **more, **files})
    plan = kinds.plan(Content("python", 20, (("main.py", "print()"),), grader), {})
    assert isinstance(plan, PipelinePlan)
    return plan


def stage(plan: PipelinePlan, number: int = 0) -> Stage:
    """Return a stage of the first case."""
    return plan.request.cases[0].stages[number]


def process(plan: PipelinePlan, name: str, number: int = 0) -> Process:
    """Return a process of a stage of the first case."""
    return next(one for one in stage(plan, number).processes if one.name == name)


# -- what is run ----------------------------------------------------------------------------------


def test_judge_and_player_run_together_each_in_a_folder_of_its_own() -> None:
    plan = planned(words__txt="")

    judge, player = process(plan, "judge"), process(plan, "player")
    assert (judge.role, player.role) == (Role.GRADER, Role.LEARNER)
    assert judge.argv == (*LAUNCHER, "judge", "judge.py")
    assert player.argv == ("/usr/bin/python3", "main.py")
    assert [file.path for file in judge.files] == ["judge.py", "words.txt"]
    assert [file.path for file in player.files] == ["main.py"]
    assert stage(plan).pipes[:3] == (
        Pipe(Descriptor("judge", 1), Descriptor("player", 0)),
        Pipe(Descriptor("player", 1), Descriptor("judge", 0)),
        Pipe(Resource("case/0/input"), Descriptor("judge", 3)),
    )
    assert [artifact.name for artifact in stage(plan).artifacts] == [
        "play.judge.errors",
        "play.judge.told",
        "play.player.errors",
    ]


def test_each_case_brings_its_own_data_and_nothing_that_no_stage_reads() -> None:
    plan = planned()

    data = [file for file in plan.request.files if file.name.startswith("case/")]
    assert data == [File("case/0/input", b"100 42 7"), File("case/1/input", b"1000 999 10")]
    assert Resource("case/1/input") in [x.read for x in plan.request.cases[1].stages[0].pipes]


def test_a_judge_outlives_the_player_so_that_waiting_for_each_other_is_the_players() -> None:
    plan = planned()

    assert process(plan, "judge").limits.real > process(plan, "player").limits.real == 30.0


def test_later_stages_read_what_earlier_ones_kept() -> None:
    plan = planned(
        """
        programs = { player = "submission", checker = "check.py" }
        [[stages]]
        name = "run"
        run = ["player"]
        pipes = ["case.input -> player.0", "player.1 -> output", "player/out/x.txt -> receipt"]
        [[stages]]
        name = "check"
        run = ["checker"]
        pipes = ["output -> checker.0", "case.expected -> checker.5", "receipt -> checker/got.txt",
                 "case.input -> checker/case.txt"]
        verdict = "checker"
        """,
        check__py="",
    )

    assert stage(plan).pipes == (
        Pipe(Resource("case/0/input"), Descriptor("player", 0)),
        Pipe(Descriptor("player", 1), Artifact("output")),
        Pipe(WorkFile("player", "out/x.txt"), Artifact("receipt")),
        Pipe(Descriptor("player", 2), Artifact("run.player.errors")),
    )
    checker = process(plan, "checker", 1)
    assert checker.files[-2:] == (
        Placement("receipt", "got.txt"),
        Placement("case/0/input", "case.txt"),
    )
    assert stage(plan, 1).pipes[:2] == (
        Pipe(Resource("output"), Descriptor("checker", 0)),
        Pipe(Resource("case/0/expected"), Descriptor("checker", 5)),
    )


def test_only_who_decides_must_not_end_without_a_decision() -> None:
    plan = planned(CHECKED, make__py="")

    assert process(plan, "maker").argv == (*LAUNCHER, "checker", "make.py")
    assert process(plan, "checker", 2).argv == (*LAUNCHER, "judge", "judge.py")


def test_a_judge_in_c_is_compiled_first() -> None:
    plan = planned(GAME.replace("judge.py", "judge.c"), judge__c="int main(){}")

    assert [one.name for one in plan.request.prepare] == ["compile judge.c"]
    assert plan.request.image == "c"
    assert process(plan, "judge").argv == ("./program",)


def test_what_cannot_be_run_together_is_the_teachers_fault() -> None:
    extra = GAME.replace('"case.input -> judge.3"', '"case.input -> judge/judge.py"')

    with pytest.raises(DefinitionError, match=r"'judge\.py' is there already"):
        planned(extra)


def test_files_that_do_not_compile_are_the_students() -> None:
    text = exercise(GAME, kind='"pipeline"', cases=CASES, language='"c"')
    grader = with_files(text, judge__py="")
    plan = kinds.plan(Content("c", 20, (("main.c", ""),), grader), {})
    assert isinstance(plan, PipelinePlan)

    verdict = plan.judge(report(plan.request, {"compile": End(1)}))

    assert verdict.status is Status.COMPILE_ERROR
    assert [case.points for case in verdict.cases] == [5, 15]


# -- what it is worth -----------------------------------------------------------------------------

WELL = End()
EOF = b'{"eof": true}\n'


def judged(
    judge: End = WELL,
    player: End = WELL,
    told: bytes = b"",
    *,
    plan: PipelinePlan | None = None,
    left: Mapping[str, bytes] = {},
) -> Verdict:
    """Return the verdict when the first case ends so, and the second well."""
    plan = plan or planned()
    ends = {"0/judge": judge, "0/player": player}
    return plan.judge(report(plan.request, ends, {"0/play.judge.told": told, **left}))


def status(verdict: Verdict) -> Status:
    """Return how the first case ended."""
    return verdict.cases[0].status


@pytest.mark.parametrize(
    ("judge", "told", "found", "earned"),
    [
        (End(0), b"", Status.ACCEPTED, 5),
        (End(1), b"", Status.WRONG_ANSWER, 0),
        (End(2), b"", Status.PRESENTATION, 0),
        (End(7), b'{"points": 2}', Status.WRONG_ANSWER, 2),
        (End(7), b'{"points": 5}', Status.ACCEPTED, 5),
    ],
)
def test_the_exit_of_the_judge_decides(judge: End, told: bytes, found: Status, earned: int) -> None:
    verdict = judged(judge, told=told)

    assert status(verdict) is found
    assert verdict.cases[0].earned == earned
    assert verdict.grade == 15 + earned


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (Flag.CPU, Status.CPU_TIME),
        (Flag.REAL, Status.REAL_TIME),
        (Flag.MEMORY | Flag.REAL, Status.MEMORY),
        (Flag.OUTPUT, Status.OUTPUT),
        (Flag.SECURITY, Status.SECURITY),
    ],
)
@pytest.mark.parametrize(
    ("judge", "ended"), [(End(0, ended=1), 9), (End(1, ended=9), 1), (End(2, ended=9), 9)]
)
def test_a_player_over_a_limit_is_that_verdict_whatever_the_judge_says(
    flags: Flag, found: Status, judge: End, ended: float
) -> None:
    assert status(judged(judge, End(-9, flags, ended=ended, stopped=True))) is found


def test_both_waiting_for_each_other_is_the_players_real_time() -> None:
    """The player is stopped first; the judge meets its end and would call it presentation."""
    verdict = judged(End(2, ended=30.2), End(-9, Flag.REAL, ended=30.1, stopped=True), EOF)

    assert status(verdict) is Status.REAL_TIME


@pytest.mark.parametrize(
    ("judge", "player", "told", "found"),
    [
        # far apart: whoever was first
        (End(0, ended=1.0), End(1, ended=1.2), b"", Status.ACCEPTED),
        (End(1, ended=1.0), End(-13, ended=1.2), b"", Status.WRONG_ANSWER),
        (End(2, ended=1.2), End(1, ended=1.0), b"", Status.RUNTIME_ERROR),
        (End(0, ended=1.2), End(-11, ended=1.0), b"", Status.RUNTIME_ERROR),
        # too close to tell apart: whether the judge met the end of what the player says
        (End(2, ended=1.05), End(1, ended=1.0), EOF, Status.RUNTIME_ERROR),
        (End(2, ended=1.0), End(1, ended=1.05), EOF, Status.RUNTIME_ERROR),
        (End(1, ended=1.05), End(1, ended=1.0), b"", Status.WRONG_ANSWER),
        (End(0, ended=1.0), End(1, ended=1.05), b"", Status.ACCEPTED),
        # a closed pipe is the end of the judge, not of the player
        (End(1, ended=1.0), End(-13, ended=1.05), b"", Status.WRONG_ANSWER),
        (End(1, ended=1.05), End(-13, ended=1.0), EOF, Status.WRONG_ANSWER),
        # a player that ends well is judged
        (End(2, ended=1.2), End(0, ended=1.0), EOF, Status.PRESENTATION),
    ],
)
def test_who_was_first_wins(judge: End, player: End, told: bytes, found: Status) -> None:
    assert status(judged(judge, player, told)) is found


@pytest.mark.parametrize(
    ("judge", "player", "found"),
    [
        (End(2, ended=1.01), End(1, ended=1.0), Status.RUNTIME_ERROR),
        (End(2, ended=1.0), End(1, ended=1.01), Status.RUNTIME_ERROR),
        (End(1, ended=1.01), End(1, ended=1.0), Status.WRONG_ANSWER),
        (End(0, ended=1.01), End(1, ended=1.0), Status.ACCEPTED),
        (End(1, ended=1.01), End(-13, ended=1.0), Status.WRONG_ANSWER),
    ],
)
def test_a_judge_that_cannot_tell_what_it_met_is_taken_by_what_it_says(
    judge: End, player: End, found: Status
) -> None:
    plan = planned(GAME.replace("judge.py", "judge.c"), judge__c="")

    assert status(judged(judge, player, plan=plan)) is found


@pytest.mark.parametrize(
    ("judge", "told", "why"),
    [
        (End(3), b"", "exit status 3"),
        (End(3), b'{"fault": "NameError"}', "NameError"),
        (End(0), b'{"fault": "swallowed"}', "swallowed"),
        (End(42), b"", "exit status 42"),
        (End(-11), b"", "ended by SIGSEGV"),
        (End(-9, Flag.CPU, stopped=True), b"", "it was stopped: cpu_time"),
        (End(-9, Flag.REAL, stopped=True), b"", "it was stopped: real_time"),
        (End(-9, Flag.MEMORY, stopped=True), b"", "it was stopped: memory"),
        (End(7), b"", "it gave no points"),
        (End(7), b'{"points": 6}', "it gave 6 points, of 5"),
    ],
)
def test_a_judge_that_breaks_is_the_teachers_fault(judge: End, told: bytes, why: str) -> None:
    with pytest.raises(GraderError) as caught:
        judged(judge, told=told)

    assert caught.value.message.startswith(f"the exercise's judge.py failed: {why}")
    assert caught.value.details.startswith(f"in the case 'seen': {why}")


@pytest.mark.parametrize(
    ("judge", "player"),
    [
        (End(3, ended=1.0), End(-9, Flag.REAL, ended=30.0, stopped=True)),  # waited in vain
        (End(-9, Flag.CPU, ended=31.0), End(-9, Flag.REAL, ended=30.0)),  # it spun meanwhile
        (End(-9, Flag.REAL, cpu=7.0, ended=35.0), End(-9, Flag.REAL, ended=30.0)),  # and slowly
        (End(3, ended=1.0), End(1, ended=1.2)),
        (End(3, ended=1.05), End(1, ended=1.0)),
    ],
)
def test_a_judge_that_broke_first_is_the_teachers_fault_whatever_the_player_does(
    judge: End, player: End
) -> None:
    with pytest.raises(GraderError):
        judged(judge, player)


@pytest.mark.parametrize(
    ("judge", "player", "told", "found"),
    [
        (End(3, ended=9.1), End(-9, Flag.CPU, ended=9.0), b"", Status.CPU_TIME),
        (End(3, ended=1.2), End(-11, ended=1.0), b"", Status.RUNTIME_ERROR),
        (End(-9, Flag.CPU, ended=9.0), End(1, ended=1.0), b"", Status.RUNTIME_ERROR),
        (End(3, ended=1.05), End(1, ended=1.0), EOF, Status.RUNTIME_ERROR),
    ],
)
def test_a_judge_that_broke_because_the_player_was_gone_decides_nothing(
    judge: End, player: End, told: bytes, found: Status
) -> None:
    assert status(judged(judge, player, told)) is found


# -- who sees what --------------------------------------------------------------------------------


def test_the_student_reads_what_the_judge_says_and_the_teacher_what_it_writes() -> None:
    told = json.dumps({"say": "not found in 7 tries"}).encode()
    left = {"0/play.judge.errors": b"secret was 42", "0/play.player.errors": b"a warning"}

    verdict = judged(End(1), told=told, left=left)

    assert verdict.log == "\n".join(
        [
            "seen: wrong_answer (0/5)",
            "  not found in 7 tries",
            "  hint: halve",
            "  input:",
            "    100 42 7",
            "  your errors:",
            "    a warning",
            "unseen: accepted (15/15)",
        ]
    )
    assert verdict.notes == ("seen: wrong_answer\n  judge.py complained:\n    secret was 42")


def test_of_a_hidden_case_the_student_reads_nothing_that_the_judge_says() -> None:
    plan = planned()
    told = {"1/play.judge.told": json.dumps({"say": "it was 999"}).encode()}

    verdict = plan.judge(report(plan.request, {"1/judge": End(1)}, told))

    assert "999" not in verdict.log
    assert "it was 999" in verdict.notes


def test_a_crash_is_told_by_its_signal() -> None:
    assert "\n  ended by SIGSEGV\n" in judged(End(2, ended=1), End(-11, ended=0.5)).log


# -- several stages -------------------------------------------------------------------------------

CHECKED = """
programs = { player = "submission", maker = "make.py", checker = "judge.py" }
[[stages]]
name = "make"
run = ["maker"]
pipes = ["maker.1 -> made"]
[[stages]]
name = "run"
run = ["player"]
pipes = ["made -> player.0", "player.1 -> output", "player/receipt.txt -> receipt"]
[[stages]]
name = "check"
run = ["checker"]
pipes = ["output -> checker.0", "receipt -> checker.3"]
verdict = "checker"
"""


def checked(ends: dict[str, End], *lost: str, **left: bytes) -> Verdict:
    """Return the verdict of an exercise in three stages."""
    plan = planned(CHECKED, make__py="")
    return plan.judge(report(plan.request, ends, left, lost))


def test_the_last_stage_decides() -> None:
    assert checked({}).grade == 20
    assert status(checked({"0/checker": End(1)})) is Status.WRONG_ANSWER


@pytest.mark.parametrize(
    ("end", "found"), [(End(1), Status.RUNTIME_ERROR), (End(-9, Flag.CPU), Status.CPU_TIME)]
)
def test_a_program_that_ends_badly_is_not_checked(end: End, found: Status) -> None:
    assert status(checked({"0/player": end})) is found


def test_a_file_that_was_not_left_is_named() -> None:
    verdict = checked({}, "receipt")

    assert status(verdict) is Status.WRONG_ANSWER
    assert "\n  receipt.txt is missing\n" in verdict.log


def test_what_the_student_left_is_shown_to_the_student() -> None:
    log = checked({"0/checker": End(1)}, output=b"an output", receipt=b"a receipt").log

    assert "  your output:\n    an output\n" in log
    assert "  receipt.txt:\n    a receipt\n" in log


@pytest.mark.parametrize("exit_code", [1, 2, 3, -9])
def test_a_program_of_the_teachers_that_decides_nothing_must_end_well(exit_code: int) -> None:
    with pytest.raises(GraderError, match=r"make\.py failed"):
        checked({"0/maker": End(exit_code)})


def test_a_crash_after_the_judge_accepted_is_still_a_crash_when_more_was_to_come() -> None:
    extra = f"{GAME}\n[[stages]]\nname = 'last'\nrun = ['judge']\nverdict = 'judge'\n"
    plan = planned(extra)

    verdict = plan.judge(
        report(plan.request, {"0/judge": End(0, ended=1.0), "0/player": End(1, ended=2.0)})
    )

    assert status(verdict) is Status.RUNTIME_ERROR
    assert verdict.grade == 15


# -- the invoker's JSON ---------------------------------------------------------------------------


def sha256(text: str) -> str:
    """Return the hash by which a pipeline refers to a file."""
    return hashlib.sha256(text.encode()).hexdigest()


SAMPLE = {
    "type": "invoke_request",
    "pipeline": [
        {
            "processes": {
                "solution": {
                    "language": "python3",
                    "executable": "52" * 32,
                    "arguments": {"source": "solution.py"},
                    "limits": {"cpu": 1000, "real": 5000, "memory": 262144, "fsize": 16777216},
                    "cmdline": [],
                }
            },
            "resources": {"input": {"hash": sha256("21")}},
            "pipes": [
                {"read": {"resource": "input"}, "write": {"process": "solution", "fd": 0}},
                {"read": {"process": "solution", "fd": 1}, "write": {"artifact": "output"}},
            ],
            "stop": "on_failure",
            "artifacts": {"output": {"private": True}},
        },
        {
            "processes": {
                "checker": {
                    "language": "python3",
                    "executable": sha256("checks"),
                    "limits": {"real": 10000},
                    "cmdline": ["input.txt", "output.txt", "answer.txt"],
                }
            },
            "pipes": [{"read": {"process": "checker", "fd": 1}, "write": {"artifact": "log"}}],
            "resources": {
                "input": {"hash": sha256("21"), "filename": "input.txt"},
                "output": {"intermediate": True, "filename": "output.txt"},
                "answer": {"hash": sha256("42"), "filename": "answer.txt"},
            },
            "stop": "always",
            "artifacts": {"log": {"private": False}},
        },
    ],
    "id": "f25490ff-85ba-4e28-b175-7551f3e81f92",
}
JSON = 'pipeline = "pipeline.json"\nprograms = { solution = "submission" }'
FILES = {"check__py": "checks", "one__in": "21", "one__out": "42"}


def from_json(sample: object, extra: str = JSON, cases: str = "", **files: str) -> PipelinePlan:
    """Return what is run for a pipeline in the invoker's JSON."""
    more = {"pipeline__json": json.dumps(sample)} | FILES | files
    return planned(extra, more, cases=cases)


def test_the_invokers_json_is_taken_as_it_stands() -> None:
    plan = from_json(SAMPLE)

    solution, checker = process(plan, "solution"), process(plan, "checker", 1)
    assert solution.argv == ("/usr/bin/python3", "main.py")
    assert solution.role is Role.LEARNER
    assert (solution.limits.cpu, solution.limits.memory) == (1.0, 256 << 20)
    assert [file.path for file in solution.files] == ["main.py"]
    assert checker.role is Role.GRADER
    assert checker.argv == (
        *LAUNCHER,
        *("checker", "check.py", "input.txt", "output.txt", "answer.txt"),
    )
    assert checker.limits.real == 10.0
    assert checker.files[-3:] == (
        Placement("teacher/one.in", "input.txt"),
        Placement("output", "output.txt"),
        Placement("teacher/one.out", "answer.txt"),
    )
    assert "1.checker.told" in [artifact.name for artifact in stage(plan, 1).artifacts]


def test_the_exit_of_its_checker_decides() -> None:
    plan = from_json(SAMPLE)

    assert plan.judge(report(plan.request)).grade == 20
    assert plan.judge(report(plan.request, {"checker": End(1)})).status is Status.WRONG_ANSWER
    assert plan.judge(report(plan.request, {"solution": End(1)})).status is Status.RUNTIME_ERROR
    with pytest.raises(GraderError, match=r"check\.py failed"):
        plan.judge(report(plan.request, {"checker": End(3)}))


def test_its_private_artifacts_are_not_shown_to_the_student() -> None:
    plan = from_json(SAMPLE)

    log = plan.judge(report(plan.request, {"checker": End(1)}, {"output": b"private"})).log

    assert "private" not in log


def test_it_may_name_programs_and_the_data_of_cases() -> None:
    sample = {
        "pipeline": [
            {
                "processes": {
                    "a": {"executable": "player"},
                    "b": {"executable": "judge", "resources": {"e": {"file": "case.expected"}}},
                },
                "resources": {"input": {"file": "case.input"}},
                "pipes": [
                    {"read": {"resource": "input"}, "write": {"process": "a", "fd": 0}},
                    {"read": {"process": "a", "fd": 1}, "write": {"process": "b", "fd": 0}},
                    {"read": {"resource": "e"}, "write": {"process": "b", "fd": 5}},
                ],
            }
        ]
    }
    extra = 'pipeline = "pipeline.json"\nprograms = { player = "submission", judge = "judge.py" }'

    plan = from_json(sample, extra, CASES)

    assert [case.name for case in plan.request.cases] == ["0", "1"]
    assert process(plan, "a").role is Role.LEARNER
    assert process(plan, "b").role is Role.GRADER
    assert Pipe(Resource("case/0/expected"), Descriptor("b", 5)) in stage(plan).pipes


def changed(path: str, value: object) -> object:
    """Return the sample with something else in one place."""
    sample = json.loads(json.dumps(SAMPLE))
    place = sample
    *keys, last = path.split(".")
    for key in keys:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    return sample


SOLUTION, CHECKER = "pipeline.0.processes.solution", "pipeline.1.processes.checker"


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ([], "pipeline.json: "),
        (changed("pipeline.0.stop", "never"), "pipeline.json: pipeline[0].stop"),
        (changed(f"{CHECKER}.executable", "00" * 32), "no file has the hash of its executable"),
        (changed(f"{CHECKER}.executable", "nobody"), "no file has the hash of its executable"),
        (changed(f"{CHECKER}.executable", sha256("c++")), "is in no language that we know"),
        (changed("pipeline.1.resources.answer.hash", "00" * 32), "there is no file"),
        (changed("pipeline.0.resources.input", {"file": "case.expected"}), "never see what is"),
        (
            changed(f"{SOLUTION}.resources", {"a": {"file": "case.expected", "filename": "a"}}),
            "never see what is expected",
        ),
    ],
)
def test_a_json_that_cannot_be_run_is_the_teachers_fault(sample: object, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        from_json(sample, check__cpp="c++")

    assert problem in str(caught.value)


def test_a_learners_program_is_never_in_the_graders_role() -> None:
    plan = from_json(changed(f"{SOLUTION}.role", "grader"))

    assert process(plan, "solution").role is Role.LEARNER


def test_a_compiled_program_of_the_teachers_is_started_as_it_is() -> None:
    plan = from_json(changed(f"{CHECKER}.executable", sha256("elf")), checker="elf")

    assert process(plan, "checker", 1).argv[0] == "./checker"
    assert process(plan, "checker", 1).files[0] == Placement("teacher/checker", "checker")
