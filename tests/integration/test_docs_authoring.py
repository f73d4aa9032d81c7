"""What the pages for teachers show is what happens: every command, file, key and message."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import typer
from typer.core import TyperGroup

from commserver import cli, logs
from commserver.commands import exercise
from commserver.core.verdicts import Status
from commserver.errors import DefinitionError
from commserver.graders import checkers, definition, limits, materials, showing
from commserver.graders.definition import Case, CheckerTable, Definition, Expected, FileRef, Stage
from commserver.graders.programs import Exit
from tests.conftest import ROOT
from tests.unit.engine_inside.inside import start, students
from tests.unit.graders import toml

PAGES = ROOT / "docs" / "authoring"
KINDS = ("tests", "script", "pipeline")
NAMES = sorted(path.name for path in PAGES.glob("*.md"))


# -- reading pages --------------------------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block; `name`: of the file that it shows, from the line before it, else ""."""

    language: str
    text: str
    name: str


@cache
def read(page: str) -> str:
    """Return a page."""
    return (PAGES / page).read_text()


def blocks(page: str, language: str = "") -> list[Block]:
    """Return the fenced blocks of a page, or those in one language, in order."""
    fence = re.compile(r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [Block(match[2], match[3], match[1] or "") for match in fence.finditer(read(page))]
    return [block for block in found if language in ("", block.language)]


def rows(page: str, *heads: str) -> list[list[str]]:
    """Return the rows of all tables on a page whose columns are called like this."""
    found: list[list[str]] = []
    inside = False
    for line in read(page).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells or cells == list(heads):
            inside = bool(cells)
        elif inside and not set(line) <= set("|-"):
            found.append(cells)
    return found


def code(cell: str) -> list[str]:
    """Return what a cell of a table shows as code."""
    return re.findall(r"`([^`]+)`", cell)


# -- playing consoles -----------------------------------------------------------------------------


class Site:
    """A folder like a checkout of ours, in which a teacher types commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0

    def write(self, block: Block) -> None:
        """Write a file that a page shows, unless it is one of our examples."""
        if block.name and not block.name.startswith("examples/"):
            path = self.folder / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)

    def type(self, command: str) -> str:
        """Return what a command prints; ours run in this process."""
        if command == "echo $?":
            return f"{self.code}\n"
        if command.startswith("commserver "):
            return self._ours(shlex.split(command))
        bash = ("/bin/bash", "-c", command)
        return subprocess.run(
            bash, cwd=self.folder, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    def _ours(self, arguments: list[str]) -> str:
        printed = StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            patch.chdir(self.folder)
            with (
                redirect_stdout(printed),
                redirect_stderr(printed),
                pytest.raises(SystemExit) as ended,
            ):
                cli.main()
        self.code = ended.value.code if isinstance(ended.value.code, int) else 0
        return printed.getvalue()

    def play(self, page: str) -> Iterator[tuple[str, str, str]]:
        """Yield each command of a page with what the page shows and what it printed."""
        for block in blocks(page):
            self.write(block)
            if block.language == "console":
                for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                    command, _, shown = step.partition("\n")
                    yield command, shown, self.type(command)


_NOISE = (
    (r"sha256:[0-9a-f…]+", "sha256"),
    (r"\d+(\.\d+)? s\b", "T"),
    (r"\d+\.\d MiB|\d+ KiB", "M"),
    (r"[─━]+", "─"),
    (r"[ \t]+", " "),
    (r" $", ""),
)


def normal(text: str) -> str:
    """Return what was printed, but for times, sizes and how wide it is."""
    for noise, instead in _NOISE:
        text = re.sub(noise, instead, text, flags=re.MULTILINE)
    return text.strip()


@pytest.fixture(scope="module")
def played(
    docker_url: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[str, str, str]]]:
    """Every command of every page, beside what it was to print and what it did."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "configure", lambda *_: None)  # loggers remember their stream
        patch.setenv("COMMSERVER_DOCKER__HOSTS", json.dumps([docker_url]))
        patch.setenv("COMMSERVER_BACKEND__ENABLED", "false")
        for page in NAMES:
            folder = tmp_path_factory.mktemp(page.removesuffix(".md"))
            (folder / "var").mkdir()
            (folder / "examples").symlink_to(ROOT / "examples")
            if page != "README.md":  # it makes its own
                shutil.copy(sqlite_template, folder / "var" / "commserver.db")
            found[page] = list(Site(folder).play(page))
    return found


@pytest.mark.parametrize("page", [page for page in NAMES if blocks(page, "console")])
def test_commands_print_what_the_page_shows(
    played: dict[str, list[tuple[str, str, str]]], page: str
) -> None:
    for command, shown, printed in played[page]:
        assert normal(printed) == normal(shown), command


def test_links_lead_to_headings() -> None:
    for page in NAMES:
        for link, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", read(page)):
            target = (PAGES / link if link else PAGES / page).read_text()
            headings = re.findall(r"^#+ (.+)$", target, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", x).lower().replace(" ", "-") for x in headings}


# -- files and TOML -------------------------------------------------------------------------------


def kind_of(page: str) -> str:
    """Return the kind of exercise that a page is about."""
    name = page.removesuffix(".md")
    return name if name in KINDS else "tests"


def completed(page: str, fragment: str) -> str:
    """Return a piece of an exercise as a whole one, of the kind that its page is about."""
    try:
        table = tomllib.loads(fragment)
    except tomllib.TOMLDecodeError:
        table = {}
    kind = kind_of(page)
    needed = {"kind": f'"{kind}"'}
    if kind == "script":
        needed["script"] = '"grade.py"'
    if kind == "pipeline":
        needed["programs"] = '{ player = "submission", judge = "judge.py" }'
    head: dict[str, str | None] = {
        **needed,
        **dict.fromkeys(HEAD & table.keys() | needed.keys() & table.keys()),
    }
    if "languages" in table:
        head["language"] = None
    rest = "" if "cases" in table or kind == "script" else toml.CASE
    if kind == "pipeline" and not table.keys() & {"stages", "pipeline"}:
        rest += STAGE
    return toml.exercise(fragment, cases=rest, **head)


HEAD = {"format", "key", "course", "title", "kind", "language"}
STAGE = '[[stages]]\nname = "one"\nrun = ["judge", "player"]\nverdict = "judge"\n'


@pytest.mark.parametrize("page", [page for page in NAMES if blocks(page, "toml")])
def test_every_piece_of_toml_can_be_used(page: str) -> None:
    for block in blocks(page, "toml"):
        whole = block.text.startswith("format")
        definition.parse(block.text if whole else completed(page, block.text))


def test_files_of_examples_are_shown_as_they_are() -> None:
    shown = [block for page in NAMES for block in blocks(page) if block.name.startswith("examples")]

    assert {Path(block.name).parts[2] for block in shown} >= {"double", "triangle", "guess"}
    assert [x.name for x in shown if (ROOT / x.name).read_text() != x.text] == []


@pytest.mark.parametrize("page", NAMES)
def test_what_is_written_wrongly_is_told_as_the_page_says(page: str) -> None:
    for written, says in rows(page, "what is written", "what it says"):
        with pytest.raises(DefinitionError) as refused:
            definition.parse(completed(page, code(written)[0]))

        said = [re.sub(r"line \d+", "line", problem) for problem in refused.value.problems]
        assert re.sub(r"line \d+", "line", code(says)[0]) in said, written


def keys_of(kind: str) -> dict[str, msgspec.structs.FieldInfo]:
    """Return every key that an exercise of this kind may have, as pages spell them."""
    inner: dict[str, type[msgspec.Struct]] = {
        "cases": Case,
        "checker": CheckerTable,
        "submission": definition.Submission,
        "stages": Stage,
        "limits": limits.LimitTexts,
        "solutions": Expected,
        "files": FileRef,
    }
    found = {}
    for field in msgspec.structs.fields(Definition):
        if kind in definition._KINDS_OF.get(field.encode_name, KINDS):
            found[field.encode_name] = field
            if kind_of_value := inner.get(field.encode_name):
                for one in msgspec.structs.fields(kind_of_value):
                    found[f"{field.encode_name}.{one.encode_name}"] = one
    if kind != "script":
        del found["limits.total"]
    del found["submission"]  # only its files are anything
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_on_the_page_with_its_default(kind: str) -> None:
    here = rows(f"{kind}.md", *["key", "what it is", "unit", "default"])
    common = rows("keys.md", *["key", "what it is", "unit", "default"])
    bounds = rows("limits-and-verdicts.md", *["key", "what it bounds", "unit", "default", "most"])
    told = {code(row[0])[0]: row[3] for row in [*common, *bounds, *here]}
    keys = keys_of(kind)

    assert keys.keys() - told.keys() == set()
    assert {code(row[0])[0] for row in here} - keys.keys() == set()
    for key, field in keys.items():
        if isinstance(field.default, str | int) and field.default != "":
            assert code(told[key]) in ([json.dumps(field.default)], [])
            assert code(told[key]) or key.startswith("limits."), key
        assert field.required <= told[key].startswith("must be there"), key


def test_limits_are_those_in_force() -> None:
    for key, _, _, default, most in rows(
        "limits-and-verdicts.md", *["key", "what it bounds", "unit", "default", "most"]
    ):
        name = code(key)[0].removeprefix("limits.")
        if name == "total":
            assert code(default) == [limits.spelled("total", limits.DEFAULT_TOTAL)]
            assert code(most) == [limits.spelled("real", limits.MAXIMA.real)]
        elif name in limits.NAMES:
            assert code(most) == [limits.spelled(name, getattr(limits.MAXIMA, name))]
            if name != "real":
                assert code(default) == [limits.spelled(name, getattr(limits.DEFAULT_LIMITS, name))]
    assert limits.resolve(limits.LimitTexts(cpu="5 s"), "c").real == 3 * 5 + 2


def test_every_verdict_is_told() -> None:
    verdicts = rows("limits-and-verdicts.md", "verdict", "what it means")

    assert [code(row[0])[0] for row in verdicts] == [status.value for status in Status]


def test_grades_are_computed_as_the_page_says() -> None:
    page = "limits-and-verdicts.md"
    grades = [[*map(int, row)] for row in rows(page, *["earned", "points", "full grade", "grade"])]
    shares = rows(page, "points", "files", "each gets")

    assert grades
    assert shares
    for earned, points, full, grade in grades:
        assert showing.grade(full, earned, points) == grade
    for points_, files, each in shares:
        assert materials.shared(int(points_), int(files)) == [int(x) for x in each.split(",")]


# -- checkers and teachers' programs --------------------------------------------------------------


def test_each_checker_takes_and_refuses_what_the_page_says() -> None:
    table = rows(
        "checkers.md", *["checker", "expected", "output", "verdict", "what the student reads"]
    )

    assert {row[0] for row in table} == {f'`"{x}"`' for x in checkers.CHECKERS} | {
        "`{ float = 1e-6 }`"
    }
    for checker, expected, output, verdict, reads in table:
        [name], [meant], [said] = code(checker), code(expected), code(output)
        check = checkers.CHECKERS.get(name.strip('"')) or partial(checkers.floats, tolerance=1e-6)
        found = check(ast.literal_eval(said).encode(), ast.literal_eval(meant).encode())
        status = found.status if found else Status.ACCEPTED
        assert [status.value] == code(verdict), (name, said)
        assert ([showing.difference(found)] if found else []) == code(reads)


def test_exit_statuses_are_those_that_count() -> None:
    told = [row[0] for row in rows("checkers.md", "exit status", "meaning", "points")]

    assert told == [
        *(str(int(status)) for status in Exit),
        "any other, a signal, a limit of its own",
    ]


@pytest.mark.parametrize(
    ("page", "kind", "name"),
    [
        ("script.md", "script", "grade.py"),
        ("pipeline.md", "judge", "judge.py"),
        ("checkers.md", "checker", "check.py"),
    ],
)
def test_a_broken_program_is_told_as_the_page_says(
    page: str, kind: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "submission").mkdir()
    (tmp_path / "submission" / "triangle.py").write_text("")
    (tmp_path / "output").write_text("")
    table = rows(page, "program", "what it says")

    assert table
    for program, says in table:
        left = start(
            kind,
            code(program)[0],
            tmp_path,
            environment={"COMMSERVER_SUBMISSION": "submission"},
            arguments=("output",) * 3,
            name=name,
        )
        assert (left.exit, left.told("fault")) == (3, code(says)), program


def test_the_script_that_gives_part_of_the_points_does_so(tmp_path: Path) -> None:
    student = tmp_path / "submission"
    student.mkdir()
    (student / "text.py").write_text(
        "def words(text): return [word.upper() for word in text.split()]\n"
        "if __name__ == '__main__': print(len(words(input())))\n"
    )
    [script] = [x.text for x in blocks("script.md", "python") if not x.name]

    left = start("script", script, tmp_path, runner=students(student))

    assert {name: (x["earned"], x["points"]) for name, x in left.checks.items()} == {
        "words of a sentence": (2, 4),
        "as a program": (2, 2),
    }
    assert left.told("say") == ["Look at str.split if you have not yet."]


def test_what_is_said_of_files_and_grades_is_in_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "commserver" / "graders").glob("*.py"))
    table = [row for page in NAMES for row in rows(page, "when", "what it says")]
    pieces = [piece.strip() for row in table for piece in code(row[1])[0].split("…")]

    assert pieces
    assert [piece for piece in pieces if piece not in source] == []


def test_every_name_of_the_grader_module_is_told() -> None:
    tree = ast.parse((ROOT / "commserver" / "engine" / "runner" / "grader.py").read_text())
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    methods = {
        name: {x.name for x in body.body if isinstance(x, ast.FunctionDef) and x.name[0] != "_"}
        for name, body in classes.items()
    }
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    told = {
        page: {re.split(r"[(]", code(row[0])[0])[0] for row in rows(page, "name", "what it does")}
        for page in ("script.md", "pipeline.md", "checkers.md")
    }

    assert told["script.md"] == set(names) - {"judge", "checker"}
    wanted = methods["_Decider"] | methods["_Judge"] | {"gone"}
    assert told["pipeline.md"] == {f"judge.{name}" for name in wanted}
    wanted = methods["_Decider"] | methods["_Checker"]
    assert told["checkers.md"] == {f"checker.{name}" for name in wanted}


# -- commands -------------------------------------------------------------------------------------


def test_every_command_is_told_with_its_options() -> None:
    everywhere = {"--config", "--state-dir", "--help"}
    group = typer.main.get_command(exercise.app)
    assert isinstance(group, TyperGroup)
    told = {}
    for section in read("commands.md").split("\n## ")[1:]:
        name = section.partition("`exercise ")[2].split()[0].rstrip("`")
        told[name] = set(re.findall(r"^\| `(--[a-z]+)`", section, re.MULTILINE))

    assert told == {
        name: {option for x in command.params for option in x.opts if option[0] == "-"} - everywhere
        for name, command in group.commands.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_each_kind_is_tried(
    played: dict[str, list[tuple[str, str, str]]], kind: str
) -> None:
    tried = [command for command, _, _ in played[f"{kind}.md"] if " try examples/" in command]

    assert tried
