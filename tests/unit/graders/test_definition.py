"""What a teacher may write, and how each mistake is named."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import MIB, Limits, Status
from commserver.errors import DefinitionError
from commserver.graders.definition import (
    DEFAULT_LIMITS,
    MAXIMA,
    REAL_EXTRA,
    REAL_FACTOR,
    Case,
    Definition,
    Expected,
    is_definition,
    parse,
)
from tests.unit.graders.toml import CASE, exercise

EXAMPLES = Path(__file__).parents[3] / "examples"


def problems(text: str) -> list[str]:
    """Return everything that is said against a definition."""
    with pytest.raises(DefinitionError) as caught:
        parse(text)
    return list(caught.value.problems)


# -- what is right --------------------------------------------------------------------------------


def test_what_is_absent_has_its_default() -> None:
    cases = '[[cases]]\nname = "only"\nexpected = "1"\n'

    definition = parse(exercise(cases=cases))

    assert definition == Definition(
        format=1,
        key="double",
        course="python-101",
        title="Double it",
        kind="tests",
        cases=(Case("only", "1", input="", points=1, hidden=False, hint=""),),
        language="python",
        grade_max=20,
        checker="tokens",
    )


def test_everything_that_is_said_is_read() -> None:
    extra = """
        grade_max = 100
        checker = "tokens"
        submission.files = ["main.py", "lib/helper.py"]
        limits = { cpu = "1.5 s", real = "4 s", memory = "128 MiB", output = "64KiB", processes = 8}
        solutions = { "right.py" = "accepted", "half.py" = { verdict = "memory", grade = 50 } }
    """
    cases = CASE + 'hidden = true\nhint = "look closer"\n'

    definition = parse(exercise(extra, cases=cases))

    assert definition.grade_max == 100
    assert definition.submission.files == ("main.py", "lib/helper.py")
    assert definition.cases == (
        Case("the example", "42\n", input="21\n", points=5, hidden=True, hint="look closer"),
    )
    assert definition.solutions == {
        "right.py": Status.ACCEPTED,
        "half.py": Expected(Status.MEMORY, 50),
    }
    assert definition.resolved_limits() == Limits(
        cpu=1.5, real=4.0, memory=128 * MIB, output=64 * 1024, processes=8
    )


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*/exercise.toml")), ids=str)
def test_the_examples_are_right(file: Path) -> None:
    parse(file.read_text())


def test_what_a_browsers_text_box_sends_is_read_as_well() -> None:
    windows = exercise().replace("\n", "\r\n")

    assert parse(windows) == parse(exercise())


# -- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (exercise("= 3"), "not TOML: Invalid statement (at line 7, column 1)"),
        ("", "format: is missing"),
        (exercise(format="2"), "format: "),
        (exercise(format='"1"'), "format: "),
        (exercise(kind='"script"'), "kind: "),
        (exercise(key=None), "key: is missing"),
        (exercise(course=None), "course: is missing"),
        (exercise(title=None), "title: is missing"),
        (exercise(language=None), "language: is missing"),
        (exercise(key='""'), "key: must not be empty"),
        (exercise(course='" "'), "course: must not be empty"),
        (exercise(title='""'), "title: must not be empty"),
        (exercise(title=f'"{"t" * 251}"'), "title: must not be longer than 250 characters"),
        (exercise(course=f'"{"c" * 251}"'), "course: must not be longer than 250 characters"),
        (exercise(language='"cobol"'), "language: 'cobol' is none of python, c"),
        (exercise('checker = "magic"'), "checker: 'magic' is none of tokens"),
        (exercise("grade_max = 0"), "grade_max: must be from 1 to 2147483647"),
        (exercise("grade_max = 2147483648"), "grade_max: must be from 1 to 2147483647"),
        (exercise("grade_max = 9.5"), "grade_max: "),
        (exercise(cases=""), "cases: is missing"),
        (exercise("cases = []", cases=""), "cases: there must be one at least"),
        (exercise("cases = {}", cases=""), "cases: "),
        (exercise(cases=CASE + CASE), "cases: 'the example' is there twice"),
        (exercise(cases=CASE.replace("5", "0")), "cases: all together are worth no points"),
        (
            exercise(cases=CASE.replace("5", "-1")),
            "cases: 'the example': points must be from 0 to 2147483647",
        ),
        (
            exercise(cases=CASE.replace("5", "9" * 30)),
            "cases: 'the example': points must be from 0 to 2147483647",
        ),
        (exercise(cases=CASE.replace("5", "true")), "cases[1].points: "),
        (exercise(cases='[[cases]]\nname = "a"'), "cases[1].expected: is missing"),
        (exercise(cases='[[cases]]\nexpected = ""'), "cases[1].name: is missing"),
        (exercise('solutions = { "a.py" = "acceptd" }'), "solutions.a.py: "),
        (exercise('solutions = { "a.py" = { grade = 3 } }'), "solutions.a.py: "),
        (exercise("limits = { processes = 0 }"), "limits.processes: must be 1 or more"),
        (exercise("limits = { processes = -4 }"), "limits.processes: must be 1 or more"),
    ],
)
def test_a_mistake_is_named_by_its_key(text: str, problem: str) -> None:
    found = problems(text)

    assert any(said.startswith(problem) for said in found), found


@pytest.mark.parametrize("name", ["../x.py", "/x.py", "-c", "", "a//b.py", "n" * 76])
def test_a_file_that_nobody_can_hand_in_is_the_teachers_mistake(name: str) -> None:
    assert problems(exercise(f'submission.files = ["main.py", "{name}"]')) == [
        f"submission.files: a file cannot be called {name!r}"
    ]


def test_students_cannot_be_asked_for_a_file_named_like_the_compiled_program() -> None:
    assert problems(exercise('submission.files = ["program"]', language='"c"')) == [
        "submission.files: a file cannot be called 'program'"
    ]


def test_all_mistakes_are_named_at_once() -> None:
    extra = """
        nonsense = 1
        checker = "magic"
        limits = { cpu = "1", memory = "9 GiB", wall = "3 s" }
        submission = { files = ["../main.py"] }
    """
    cases = CASE + CASE + "weight = 3\n"

    assert problems(exercise(extra, cases=cases, title='""', language='"cobol"')) == [
        "nonsense: no such key (line 8)",
        "cases[2].weight: no such key (line 25)",
        "limits.wall: no such key (line 10)",
        "title: must not be empty",
        "language: 'cobol' is none of python, c",
        "checker: 'magic' is none of tokens",
        "submission.files: a file cannot be called '../main.py'",
        "cases: 'the example' is there twice",
        "limits.cpu: '1' is not a quantity of 1 ms or more, in one of s, ms, min",
        "limits.memory: more than this site's 1024 MiB",
    ]


def test_all_wrong_types_are_named_at_once() -> None:
    extra = 'grade_max = "20"\nlimits = { cpu = 1, memory = 64 }\nsubmission.files = [1]'
    cases = CASE + '[[cases]]\nname = 1\nexpected = 2\ninputs = "3"\n'

    found = problems(exercise(extra, cases=cases))

    assert [problem.partition(":")[0] for problem in found] == [
        "cases[2].inputs",
        "cases[2].name",
        "cases[2].expected",
        "grade_max",
        "submission.files[1]",
        "limits.cpu",
        "limits.memory",
    ]


# -- unknown keys ---------------------------------------------------------------------------------


def test_an_unknown_key_is_told_with_its_line_and_the_nearest_known_one() -> None:
    assert problems(exercise('languags = ["c"]')) == [
        "languags: no such key (line 7): language?",
    ]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ('limits = { mem = "1 MiB" }', "limits.mem: no such key (line 7): memory?"),
        ('limits.reel = "1 s"', "limits.reel: no such key (line 7): real?"),
        ('submission = { file = ["a"] }', "submission.file: no such key (line 7): files?"),
        ('[limitz]\ncpu = "1 s"', "limitz: no such key (line 7): limits?"),
        ('"grade max" = 5', "grade max: no such key (line 7): grade_max?"),
    ],
)
def test_an_unknown_key_is_found_wherever_it_is(extra: str, problem: str) -> None:
    assert problems(exercise(extra)) == [problem]


def test_no_line_is_told_where_there_is_a_doubt() -> None:
    cases = CASE + 'title = "a case has none"\n'

    assert problems(exercise(cases=cases)) == ["cases[1].title: no such key"]


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "field", "value"),
    [
        ('cpu = "1 s"', "cpu", 1.0),
        ('cpu = "1s"', "cpu", 1.0),
        ('cpu = " 2.5 s "', "cpu", 2.5),
        ('cpu = "250 ms"', "cpu", 0.25),
        ('cpu = "1 min"', "cpu", 60.0),
        ('real = "5 min"', "real", 300.0),
        ('memory = "64 MiB"', "memory", 64 * MIB),
        ('memory = "1 GiB"', "memory", 1024 * MIB),
        ('memory = "512 KiB"', "memory", MIB // 2),
        ('memory = "1.5 MiB"', "memory", MIB * 3 // 2),
        ('output = "100 B"', "output", 100),
        ("processes = 1", "processes", 1),
        ("processes = 256", "processes", 256),
    ],
)
def test_limits_are_read_in_their_units(limits: str, field: str, value: float) -> None:
    resolved = parse(exercise(f"limits = {{ {limits} }}")).resolved_limits()

    assert getattr(resolved, field) == value


@pytest.mark.parametrize("key", ["cpu", "real", "memory", "output"])
@pytest.mark.parametrize("value", ["1", "1.5", "true", '""', '"1"', '"one s"', '"1 parsec"'])
def test_a_limit_without_a_unit_is_refused(key: str, value: str) -> None:
    found = problems(exercise(f"limits = {{ {key} = {value} }}"))

    assert [problem.partition(":")[0] for problem in found] == [f"limits.{key}"]


@pytest.mark.parametrize(
    "limit",
    [
        'cpu = "0 s"',
        'cpu = "-1 s"',
        'cpu = "0.5 ms"',
        'cpu = "1 MiB"',
        'cpu = "1 S"',
        'cpu = "1e3 s"',
        'cpu = "1 s s"',
        'real = "1 KiB"',
        'memory = "1 MB"',
        'memory = "0.4 B"',
        'memory = "1 s"',
        f'memory = "{"9" * 400} GiB"',
        'output = "0 B"',
    ],
)
def test_a_limit_that_means_nothing_is_refused(limit: str) -> None:
    found = problems(exercise(f"limits = {{ {limit} }}"))

    assert len(found) == 1
    assert "is not a quantity of 1" in found[0]


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ('cpu = "60.001 s"', "limits.cpu: more than this site's 60"),
        ('real = "301 s"', "limits.real: more than this site's 300"),
        ('memory = "1025 MiB"', "limits.memory: more than this site's 1024 MiB"),
        ('output = "17 MiB"', "limits.output: more than this site's 16 MiB"),
        ("processes = 257", "limits.processes: more than this site's 256"),
    ],
)
def test_a_limit_above_the_sites_is_refused(limit: str, most: str) -> None:
    assert most in problems(exercise(f"limits = {{ {limit} }}"))


def test_the_sites_own_maxima_are_allowed() -> None:
    limits = 'cpu = "60 s", real = "300 s", memory = "1 GiB", output = "16 MiB", processes = 256'

    assert parse(exercise(f"limits = {{ {limits} }}")).resolved_limits() == MAXIMA


def test_without_limits_the_sites_defaults_count() -> None:
    assert parse(exercise()).resolved_limits() == DEFAULT_LIMITS


def test_real_time_follows_from_cpu_time_where_it_is_not_said() -> None:
    resolved = parse(exercise('limits = { cpu = "4 s" }')).resolved_limits()

    assert resolved.real == 4.0 * REAL_FACTOR + REAL_EXTRA


# -- any text -------------------------------------------------------------------------------------

VALUES = st.sampled_from(
    ["1", '"1 s"', '"x"', "true", "[]", "[1]", "{}", "{ a = 1 }", "nan", "1979-05-27", "'''\n'''"]
)
KEYS = st.sampled_from(
    [*Definition.__struct_fields__, "limits.cpu", "submission.files", "solutions.a", "cases.name"]
)


@settings(deadline=None)
@given(st.one_of(st.text(), st.text().map(lambda text: f"format = 1\n{text}")))
def test_no_text_is_met_with_anything_but_problems(text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(text)

    assert caught.value.problems


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_no_value_is_met_with_anything_but_problems(changed: dict[str, str]) -> None:
    lines = "\n".join(f"{key} = {value}" for key, value in changed.items())
    cases = "" if {"cases", "cases.name"} & changed.keys() else CASE
    head: dict[str, str | None] = {key: None for key in changed if key != "cases"}
    with suppress(DefinitionError):
        assert parse(exercise(lines, cases=cases, **head)).resolved_limits()


def test_nesting_without_end_is_a_mistake_like_any_other() -> None:
    assert problems("deep = " + "[" * 100_000)[0].startswith("not TOML: ")


# -- which texts are definitions ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "format = 1\n",
        "format=1",
        "\n \n\t format   =  12  # ours\nrest",
        "\r\nformat = 1\r\nkey = 2",
    ],
)
def test_a_first_line_that_says_the_format_makes_a_definition(text: str) -> None:
    assert is_definition(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "import grader\nformat = 1",
        "# a comment\nformat = 1",
        "# format = 1",
        "my_format = 1",
        "format = 'one'",
        "format = 1; print()",
        "formats = 1",
        "print(f'{format = }')",
    ],
)
def test_anything_else_is_a_correction_script(text: str) -> None:
    assert not is_definition(text)
