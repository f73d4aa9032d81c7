"""Folders of exercises: what is read, what is refused, and under which names it is handed in."""

import os
from pathlib import Path

import pytest

from commserver.core.verdicts import Status
from commserver.errors import ConfigError, DefinitionError
from commserver.graders.definition import Expected
from commserver.services import exercise_folder
from commserver.services.exercise_folder import handed_in, key_of, named, read, write
from tests.unit.graders.toml import exercise

SOLUTIONS = '[solutions]\n"solutions/right.py" = "accepted"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right exercise with files beside its definition."""
    write(
        tmp_path / "double",
        {
            "exercise.toml": (exercise() + SOLUTIONS).encode(),
            "instruction.md": "Doublez-le, s'il vous plaît.".encode(),
            "solutions/right.py": b"print(2 * int(input()))\n",
            "cases/a.in": b"\xff\0",
            "given/helper.py": b"",
        },
    )
    return tmp_path / "double"


def problems(folder: Path) -> list[str]:
    """Return what is wrong with a folder, without the name of the folder."""
    with pytest.raises(DefinitionError) as caught:
        read(folder)
    assert all(problem.startswith(str(folder)) for problem in caught.value.problems)
    return [problem[len(str(folder)) :].lstrip("/") for problem in caught.value.problems]


# -- reading --------------------------------------------------------------------------------------


def test_a_folder_is_read_whole_but_for_what_programs_left_in_it(folder: Path) -> None:
    for name in (".git", "__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    (folder / "exercise.toml~").write_text("x")

    found = read(folder)

    assert found.definition.key == "double"
    assert found.instruction == "Doublez-le, s'il vous plaît."
    assert set(found.files) == {"solutions/right.py", "cases/a.in", "given/helper.py"}
    assert found.files["cases/a.in"] == b"\xff\0"
    assert found.row.startswith(found.text)


def test_links_inside_are_followed_and_those_that_lead_out_are_not(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "cases" / "b.in").symlink_to("a.in")
    assert read(folder).files["cases/b.in"] == b"\xff\0"

    (tmp_path / "secret").write_text("secret")
    (folder / "cases" / "c.in").symlink_to("../../secret")
    (folder / "cases" / "d.in").symlink_to("nothing")
    (folder / "cases" / "e").symlink_to(".")
    (folder / "cases" / "f.in").symlink_to("f.in")

    assert problems(folder) == [
        "cases/c.in: is a link that leads out of the folder",
        "cases/d.in: is a link that leads nowhere",
        "cases/e: is a link to a folder",
        "cases/f.in: is a link that leads nowhere",
    ]


def test_what_is_no_file_or_has_an_impossible_name_is_told(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "-rf").write_text("")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")

    assert problems(folder) == [
        ": a file cannot be called '-rf'",
        "pipe: is no regular file",
        ": a file cannot be called '\\udcff'",
    ]


def test_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "large").write_bytes(b"x" * 2001)
    monkeypatch.setattr(exercise_folder, "FILE_MOST", 2000)
    assert problems(folder) == ["large: is larger than 0 MiB"]

    monkeypatch.setattr(exercise_folder, "FILE_MOST", 3000)
    monkeypatch.setattr(exercise_folder, "FOLDER_MOST", 2010)
    assert problems(folder) == [": the files are more than 0 MiB together"]

    monkeypatch.setattr(exercise_folder, "FOLDER_MOST", 10_000)
    monkeypatch.setattr(exercise_folder, "FILES_MOST", 3)
    assert problems(folder) == [": there are more than 3 files"]


def test_a_solution_that_is_not_there_is_told_with_the_nearest_that_is(folder: Path) -> None:
    text = exercise() + '[solutions]\n"solutions/rigth.py" = "accepted"\n'
    (folder / "exercise.toml").write_text(text)

    assert problems(folder) == [
        "exercise.toml: solutions.solutions/rigth.py: is not in the folder: solutions/right.py?"
    ]


def test_a_file_that_grading_needs_is_missed(folder: Path) -> None:
    (folder / "exercise.toml").write_text(exercise('checker = { program = "chek.py" }'))
    (folder / "check.py").write_text("")

    [problem] = problems(folder)

    assert problem.startswith("exercise.toml: checker.program: ")
    assert "check.py" in problem


def test_a_definition_that_is_wrong_is_told_with_its_file(folder: Path) -> None:
    (folder / "exercise.toml").write_text(exercise("titel = 1"))

    [problem] = problems(folder)

    assert problem.startswith("exercise.toml: titel: no such key")
    assert problem.endswith("title?")


def test_the_mark_that_some_editors_begin_with_is_left_out(folder: Path) -> None:
    (folder / "exercise.toml").write_text(exercise(), encoding="utf-8-sig")

    assert read(folder).text == exercise()


def test_what_would_be_taken_for_a_correction_script_is_no_exercise(folder: Path) -> None:
    (folder / "exercise.toml").write_text(f"# mine\n{exercise()}")

    assert problems(folder) == ["exercise.toml: format: must be the first line, before any comment"]


# -- solutions ------------------------------------------------------------------------------------


def test_solutions_are_files_or_folders_with_what_they_must_get(folder: Path) -> None:
    (folder / "solutions" / "two").mkdir()
    for name in ("main.py", "helper.py"):
        (folder / "solutions" / "two" / name).write_text(f"# {name}\n")
    wanted = '"solutions/two" = { verdict = "wrong_answer", grade = 3 }\n'
    (folder / "exercise.toml").write_text(exercise() + SOLUTIONS + wanted)

    found = read(folder)

    assert found.solutions == {
        "solutions/right.py": Expected(Status.ACCEPTED),
        "solutions/two": Expected(Status.WRONG_ANSWER, 3),
    }
    assert found.solution("solutions/right.py") == (("right.py", "print(2 * int(input()))\n"),)
    assert found.solution("solutions/two") == (
        ("helper.py", "# helper.py\n"),
        ("main.py", "# main.py\n"),
    )
    with pytest.raises(DefinitionError, match="is not in the folder"):
        found.solution("solutions/three")


@pytest.mark.parametrize(
    ("names", "wanted", "handed"),
    [
        (["right.py"], ["main.py"], ["main.py"]),
        (["pkg/right.py"], [], ["pkg/right.py"]),
        (["b.py"], ["a.py", "b.py"], ["b.py"]),
        (["right.py"], ["a.py", "b.py"], ["a.py"]),
        (["x.py", "y.py"], ["main.py"], ["x.py", "y.py"]),
    ],
)
def test_a_single_file_gets_the_name_that_is_asked_for(
    names: list[str], wanted: list[str], handed: list[str]
) -> None:
    files = dict.fromkeys(names, b"")

    assert [name for name, _ in named(files, wanted)] == handed


def test_what_is_handed_in_must_be_text_and_each_name_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff")

    assert handed_in([tmp_path / "one"], []) == (("main.py", "one"),)
    for paths, why in (
        (["one", "two/main.py"], "two files called main.py"),
        (["empty"], "no file to hand in"),
        (["bytes"], "is no text in UTF-8"),
        (["nowhere"], "No such file"),
    ):
        with pytest.raises(DefinitionError, match=why):
            handed_in([tmp_path / path for path in paths], [])


# -- writing --------------------------------------------------------------------------------------


def test_a_folder_is_written_only_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "file").write_text("")

    write(tmp_path / "empty", {"a/b": b"\0"})

    assert (tmp_path / "empty" / "a" / "b").read_bytes() == b"\0"
    for name in ("empty", "file", "link"):
        with pytest.raises(ConfigError, match="is there already"):
            write(tmp_path / name, {"c": b""})


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a//b", "-x"])
def test_no_file_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot be called"):
        write(tmp_path / "new", {"right": b"", name: b""})

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("row", "key"),
    [
        (exercise(), "double"),
        (exercise(key="1"), None),
        (exercise() + "[[", None),
        ("print('GRADE: 20')", None),
    ],
)
def test_the_key_of_a_row_is_known_without_understanding_it(row: str, key: str | None) -> None:
    assert key_of(row) == key
