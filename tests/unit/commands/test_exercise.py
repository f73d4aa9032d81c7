"""The exercise commands on an engine that runs nothing: what they print, and how they end."""

import json
import sys
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from commserver import app, cli, logs
from commserver.config import Config
from commserver.core.execution import MIB, Flag
from commserver.errors import ConfigError, ImageMissing, SandboxUnavailable
from commserver.services.exercise_folder import read, write
from commserver.services.rehearsal_service import RehearsalService
from tests.fake_sandbox import FakeSandbox, says
from tests.unit.graders.toml import exercise
from tests.unit.services.test_rehearsal_service import measured

HIDDEN = """
[[cases]]
name = "negative"
input = "-21\\n"
expected = "-42\\n"
points = 15
hidden = true
hint = "Below zero?"
"""
SOLUTIONS = """
[solutions]
"right.py" = { verdict = "accepted", grade = 20 }
"wrong.py" = { verdict = "wrong_answer", grade = 0 }
"""


class Ran(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def sandbox() -> FakeSandbox:
    """The engine that there is: it prints 42 for whatever is asked."""
    return FakeSandbox()


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    sandbox: FakeSandbox,
) -> Run:
    """Run an exercise command in this process."""

    @asynccontextmanager
    async def rehearsals(_: Config) -> AsyncIterator[RehearsalService]:
        if sandbox.down:
            raise ConfigError(["no container engine answers at x"])
        yield RehearsalService(sandbox, slot=0)

    monkeypatch.setattr(logs, "configure", lambda *_: None)
    monkeypatch.setattr(app, "rehearsals", rehearsals)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["commserver", "exercise", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exercise that 42 is the right answer to."""
    files = {"exercise.toml": exercise() + SOLUTIONS, "right.py": "", "wrong.py": ""}
    write(tmp_path / "double", {name: text.encode() for name, text in files.items()})
    return tmp_path / "double"


# -- new ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["python", "c"])
@pytest.mark.parametrize("kind", ["tests", "script", "pipeline"])
def test_a_new_exercise_is_right_as_it_is(
    run: Run, tmp_path: Path, kind: str, language: str
) -> None:
    ran = run("new", "My first ÷", "--kind", kind, "--language", language)

    assert ran.code == 0
    found = read(tmp_path / "My first ÷")
    assert (found.definition.kind, found.definition.languages) == (kind, (language,))
    assert found.definition.key == "my-first"
    assert found.instruction
    assert {wanted.verdict for wanted in found.solutions.values()} >= {"accepted", "wrong_answer"}


def test_nothing_is_made_where_something_is(run: Run, folder: Path) -> None:
    ran = run("new", folder)

    assert ran.code == 2
    assert "double is there already" in ran.err


# -- check ----------------------------------------------------------------------------------------


def test_a_check_shows_what_is_in_force_and_that_all_is_well(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    sandbox.scripts.extend([says("42"), says("43")])

    ran = run("check", folder)

    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["limits.cpu", '"1', 's"', "default"] in lines
    assert ["the", "example", "5"] in lines
    assert "all 2 as they should" in ran.out


def test_a_solution_that_gets_something_else_fails_the_check_and_is_shown(
    run: Run, folder: Path
) -> None:
    ran = run("check", folder)

    assert ran.code == 1
    [wrong] = [line for line in ran.out.splitlines() if "WRONG" in line]
    assert "wrong.py" in wrong
    assert "wrong_answer, 0" in wrong
    assert "accepted, 20 of 20" in wrong
    assert "1 of 2 not as they should" in ran.out


def test_a_machine_that_gives_no_time_is_suspected(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    text = SOLUTIONS.replace("wrong_answer", "cpu_time")
    (folder / "exercise.toml").write_text(exercise() + text)
    sandbox.scripts.append(says("42"))
    sandbox.otherwise = partial(measured, real=5.1, flags=Flag.REAL, stopped=True)

    ran = run("check", folder)

    assert ran.code == 1
    assert "real_time instead of cpu_time: is this machine busy?" in ran.out


def test_every_folder_is_checked_and_every_problem_told(
    run: Run, folder: Path, tmp_path: Path, sandbox: FakeSandbox
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "exercise.toml").write_text(exercise("titel = 1\nlimit = 2"))
    sandbox.scripts.extend([says("42"), says("43")])

    ran = run("check", tmp_path / "broken", folder)

    assert ran.code == 1
    assert "titel: no such key (line 7): title?" in ran.err
    assert "limit: no such key (line 8): limits?" in ran.err
    assert "all 2 as they should" in ran.out


def test_a_check_is_told_to_programs_as_one_object(
    run: Run, folder: Path, tmp_path: Path, sandbox: FakeSandbox
) -> None:
    sandbox.scripts.extend([says("42"), says("43")])

    ran = run("check", "nowhere", folder, "--json")

    assert ran.code == 1
    told = json.loads(ran.out)
    assert told["good"] is False
    nowhere, double = told["exercises"]
    assert (nowhere["folder"], nowhere["good"], len(nowhere["problems"])) == ("nowhere", False, 1)
    assert (double["good"], double["kind"], double["problems"]) == (True, "tests", [])
    assert double["in_force"]["limits.memory"] == {"value": '"64 MiB"', "default": True}
    right, wrong = double["solutions"]
    assert (right["verdict"], right["grade"], right["good"]) == ("accepted", 20, True)
    assert (wrong["verdict"], wrong["cases"][0]["status"]) == ("wrong_answer", "wrong_answer")


def test_an_exercise_whose_grader_breaks_is_told_as_its_teachers_fault(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    (folder / "exercise.toml").write_text(
        exercise('script = "right.py"', cases="", kind='"script"') + SOLUTIONS
    )
    sandbox.otherwise = says("")  # no GRADE

    ran = run("check", folder, "--json")

    assert ran.code == 1
    [told] = json.loads(ran.out)["exercises"]
    assert [one["failure"]["fault"] for one in told["solutions"]] == ["teacher", "teacher"]
    text = run("check", folder)
    assert "not graded: " in text.out
    assert "the teacher's fault" in text.out


def test_an_exercise_without_solutions_needs_no_engine(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    (folder / "exercise.toml").write_text(exercise())
    sandbox.down = True

    assert run("check", folder).code == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "no container engine answers at x"),
        (SandboxUnavailable("it is gone"), "does not answer any more: it is gone"),
        (ImageMissing("commserver/python"), "commserver images build"),
    ],
)
def test_what_this_machine_lacks_is_said_after_what_can_be_said_without(
    run: Run, folder: Path, sandbox: FakeSandbox, error: Exception | None, said: str
) -> None:
    sandbox.down = error is None
    sandbox.otherwise = error or says("42")

    ran = run("check", folder)

    assert ran.code == 2
    assert said in ran.err
    assert "in force" in ran.out


# -- try ------------------------------------------------------------------------------------------


def test_both_views_are_shown_and_the_students_has_nothing_that_is_hidden(
    run: Run, folder: Path
) -> None:
    (folder / "exercise.toml").write_text(exercise('submission.files = ["main.py"]') + HIDDEN)

    student = run("try", folder, folder / "wrong.py", "--as", "student")
    teacher = run("try", folder, folder / "wrong.py", "--as", "teacher")
    both = run("try", folder, folder / "wrong.py")

    assert (student.code, teacher.code, both.code) == (0, 0, 0)
    assert "handed in: main.py (python)" in student.out
    assert "wrong_answer, 5 of 20" in student.out
    assert "Below zero?" in student.out
    assert "-21" not in student.out
    assert "teacher" not in student.out
    assert "-21" in teacher.out
    assert both.out.index("student sees") < both.out.index("teacher sees")
    assert "-21" in both.out


def test_what_is_no_exercise_and_what_is_no_file_is_told(run: Run, folder: Path) -> None:
    assert "nowhere/exercise.toml: No such file" in run("try", "nowhere", "x.py").err
    assert run("try", folder, "x.py") == (1, "", "commserver: x.py: No such file or directory\n")


# -- calibrate ------------------------------------------------------------------------------------


def test_limits_are_proposed_as_they_can_be_pasted_and_tight_ones_warned_of(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    (folder / "exercise.toml").write_text(exercise('limits = { cpu = "0.5 s" }') + SOLUTIONS)
    sandbox.otherwise = partial(measured, cpu=0.3, real=0.4, memory=20 * MIB)

    ran = run("calibrate", folder, "--times", "3")

    assert ran.code == 0
    assert len(sandbox.begun) == 3
    [proposed] = [line for line in ran.out.splitlines() if line.startswith("  limits = ")]
    assert tomllib.loads(proposed.strip()) == {"limits": {"cpu": "1 s", "memory": "64 MiB"}}
    [tight] = [line for line in ran.out.splitlines() if "tight" in line]
    assert tight.startswith("limits.cpu")


def test_nothing_is_measured_where_nothing_is_right(
    run: Run, folder: Path, sandbox: FakeSandbox
) -> None:
    sandbox.scripts.append(says("43"))
    ran = run("calibrate", folder, "--times", "1")
    assert ran.code == 1
    assert "1 of 1 not as they should" in ran.out

    (folder / "exercise.toml").write_text(exercise())
    ran = run("calibrate", folder)
    assert (ran.code, len(sandbox.begun)) == (1, 1)
    assert "none must be accepted" in ran.err


# -- import ---------------------------------------------------------------------------------------


def test_one_exercise_of_the_platforms_is_one_folder(run: Run, folder: Path) -> None:
    ran = run("import", folder, folder, "--exercise", "7")

    assert ran.code == 2
    assert "--exercise: one folder at a time" in ran.err
