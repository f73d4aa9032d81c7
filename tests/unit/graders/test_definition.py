"""What a teacher may write, and how each mistake is named."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import MIB, Limits
from commserver.core.verdicts import Status
from commserver.errors import DefinitionError
from commserver.graders.definition import (
    Case,
    Definition,
    Expected,
    FileRef,
    Shown,
    Stage,
    is_definition,
    missing,
    parse,
    shown,
)
from commserver.graders.languages import LANGUAGES
from commserver.graders.limits import (
    DEFAULT_LIMITS,
    DEFAULT_TOTAL,
    MAXIMA,
    REAL_EXTRA,
    REAL_FACTOR,
    LimitTexts,
)
from tests.unit.graders.toml import CASE, exercise, with_files

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
        languages=("python",),
        grade_max=20,
        checker="tokens",
    )


def test_everything_that_is_said_is_read() -> None:
    extra = """
        grade_max = 100
        checker = "tokens"
        submission.files = ["main.py", "lib/helper.py"]
        image = "python-numpy"
        [limits]
        cpu = "1.5 s"
        real = "4 s"
        memory = "128 MiB"
        output = "64KiB"
        file_size = "2 MiB"
        processes = 8
        [solutions]
        "right.py" = "accepted"
        "half.py" = { verdict = "memory", grade = 50 }
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
    assert definition.image == "python-numpy"
    assert definition.limits_of("python") == Limits(
        cpu=1.5, real=4.0, memory=128 * MIB, output=64 * 1024, file_size=2 * MIB, processes=8
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
        (exercise(kind='"scripts"'), "kind: "),
        (exercise(key=None), "key: is missing"),
        (exercise(course=None), "course: is missing"),
        (exercise(title=None), "title: is missing"),
        (exercise(language=None), "language: is missing"),
        (exercise('languages = ["c"]'), "language: say language or languages, not both"),
        (exercise('languages = ["c", "c"]', language=None), "languages: 'c' is there twice"),
        (exercise('languages = ["d"]', language=None), "languages: 'd' is none of python, c"),
        (exercise('image = "../x"'), "image: '../x' is no name of a folder under images/"),
        (exercise("checker = { float = 0 }"), "checker.float: must be above 0 and below 1"),
        (exercise("checker = { float = nan }"), "checker.float: must be above 0 and below 1"),
        (exercise("checker = {}"), "checker: say either float or program"),
        (
            exercise('checker = { float = 0.1, program = "check.py" }'),
            "checker: say either float or program",
        ),
        (
            exercise('checker = { program = "check.rb" }'),
            "checker.program: 'check.rb' is no program of a language we know (.py, .c)",
        ),
        (exercise("checker = { flaot = 1e-6 }"), "checker.flaot: no such key (line 7): float?"),
        (exercise('script = "grade.py"'), "script: is for exercises of kind script"),
        (
            exercise('programs = { a = "submission" }'),
            "programs: is for exercises of kind pipeline",
        ),
        (exercise('limits = { total = "1 s" }'), "limits.total: is for exercises of kind script"),
        (exercise('limits = { c = { cpu = "1 s" } }'), "limits.c: the exercise is not in c"),
        (exercise('limits = { python = { cpu = "1" } }'), "limits.python.cpu: '1' is not"),
        (exercise(kind='"script"', cases=""), "script: is missing"),
        (exercise(kind='"script"'), "cases: is for exercises of kind tests or pipeline"),
        (
            exercise('script = "grade.c"', kind='"script"', cases=""),
            "script: 'grade.c' is not called like a Python program (.py)",
        ),
        (exercise(key='""'), "key: must not be empty"),
        (exercise(course='" "'), "course: must not be empty"),
        (exercise(title='""'), "title: must not be empty"),
        (exercise(title=f'"{"t" * 251}"'), "title: must not be longer than 250 characters"),
        (exercise(course=f'"{"c" * 251}"'), "course: must not be longer than 250 characters"),
        (exercise(language='"cobol"'), "language: 'cobol' is none of python, c"),
        (exercise('checker = "magic"'), "checker: 'magic' is none of tokens, exact, lines"),
        (
            exercise('checker = "token"'),
            "checker: 'token' is none of tokens, exact, lines: tokens?",
        ),
        (exercise("grade_max = 0"), "grade_max: must be from 1 to 2147483647"),
        (exercise("grade_max = 2147483648"), "grade_max: must be from 1 to 2147483647"),
        (exercise("grade_max = 9.5"), "grade_max: "),
        (exercise(cases=""), "cases: there must be one at least"),
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
        (
            exercise(cases='[[cases]]\nname = " "\nexpected = "1"'),
            "cases[1].name: must not be empty",
        ),
        (exercise(cases='[[cases]]\nexpected = ""'), "cases[1].name: is missing"),
        (
            exercise(cases=f'{CASE}files = "cases/*.in"'),
            "cases[1]: say either files or input and expected",
        ),
        (
            exercise(cases='[[cases]]\nname = "a"\nfiles = "cases/*"'),
            "cases[1].files: must end in .in",
        ),
        (exercise('solutions = { "a.py" = "acceptd" }'), "solutions.a.py: "),
        (
            exercise('solutions = { "a.py" = { grade = 3 } }'),
            "solutions.a.py.verdict: is missing",
        ),
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
        "checker: 'magic' is none of tokens, exact, lines",
        "submission.files: a file cannot be called '../main.py'",
        "cases: 'the example' is there twice",
        "limits.cpu: '1' is not a quantity of 1 ms or more, in one of s, ms, min",
        "limits.memory: more than this site's 1 GiB",
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
        "languags: no such key (line 7): languages?",
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


def test_a_key_that_is_there_twice_is_told_with_the_right_line() -> None:
    cases = CASE + 'title = "a case has none"\n' + CASE.replace("example", "other")

    assert problems(exercise(cases=cases)) == ["cases[1].title: no such key (line 14)"]


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
        ('file_size = "1 MiB"', "file_size", MIB),
        ("processes = 1", "processes", 1),
        ("processes = 256", "processes", 256),
    ],
)
def test_limits_are_read_in_their_units(limits: str, field: str, value: float) -> None:
    resolved = parse(exercise(f"limits = {{ {limits} }}")).limits_of("python")

    assert getattr(resolved, field) == value


@pytest.mark.parametrize("key", ["cpu", "real", "memory", "output", "file_size"])
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
        ('cpu = "60.001 s"', "limits.cpu: more than this site's 60 s"),
        ('real = "301 s"', "limits.real: more than this site's 300 s"),
        ('memory = "1025 MiB"', "limits.memory: more than this site's 1 GiB"),
        ('output = "17 MiB"', "limits.output: more than this site's 16 MiB"),
        ('file_size = "65 MiB"', "limits.file_size: more than this site's 64 MiB"),
        ("processes = 257", "limits.processes: more than this site's 256"),
    ],
)
def test_a_limit_above_the_sites_is_refused(limit: str, most: str) -> None:
    assert most in problems(exercise(f"limits = {{ {limit} }}"))


def test_the_sites_own_maxima_are_allowed() -> None:
    limits = 'cpu = "60 s", real = "300 s", memory = "1 GiB", output = "16 MiB", processes = 256'
    limits += ', file_size = "64 MiB"'

    assert parse(exercise(f"limits = {{ {limits} }}")).limits_of("python") == MAXIMA


def test_without_limits_the_sites_defaults_count() -> None:
    assert parse(exercise()).limits_of("python") == DEFAULT_LIMITS


def test_real_time_follows_from_cpu_time_where_it_is_not_said() -> None:
    resolved = parse(exercise('limits = { cpu = "4 s" }')).limits_of("python")

    assert resolved.real == 4.0 * REAL_FACTOR + REAL_EXTRA


def test_one_language_may_have_limits_of_its_own() -> None:
    definition = parse(
        exercise(
            'limits = { cpu = "1 s", memory = "32 MiB", python = { cpu = "5 s" } }',
            language=None,
            languages='["python", "c"]',
        )
    )

    assert definition.languages == ("python", "c")
    assert definition.language == "python"
    assert definition.limits_of("c") == replace(DEFAULT_LIMITS, cpu=1.0, real=5.0, memory=32 * MIB)
    assert definition.limits_of("python") == replace(
        DEFAULT_LIMITS, cpu=5.0, real=17.0, memory=32 * MIB
    )


def test_every_language_can_have_limits_of_its_own() -> None:
    assert set(LANGUAGES) <= set(LimitTexts.__struct_fields__)


# -- what counts where nothing is said ------------------------------------------------------------


def test_what_is_absent_is_shown_as_the_sites_default() -> None:
    lines = shown(parse(exercise('limits = { cpu = "250 ms", processes = 4 }')))

    assert lines == (
        Shown("grade_max", "20", default=True),
        Shown("checker", '"tokens"', default=True),
        Shown("limits.cpu", '"0.25 s"', default=False),
        Shown("limits.real", '"2.75 s"', default=True),
        Shown("limits.memory", '"64 MiB"', default=True),
        Shown("limits.output", '"1 MiB"', default=True),
        Shown("limits.file_size", '"32 MiB"', default=True),
        Shown("limits.processes", "4", default=False),
    )


@pytest.mark.parametrize("said", ['"exact"', "{ float = 0.001 }", '{ program = "check.py" }'])
def test_the_checker_in_force_is_shown_as_it_is_written(said: str) -> None:
    lines = shown(parse(exercise(f"checker = {said}")))

    assert Shown("checker", said, default=False) in lines


def test_of_several_languages_the_limits_of_each_are_shown() -> None:
    text = exercise(
        'limits = { output = "100 B", c = { cpu = "1 s" } }',
        language=None,
        languages='["python", "c"]',
    )

    found = {line.key: line for line in shown(parse(text))}

    assert found["limits.c.cpu"] == Shown("limits.c.cpu", '"1 s"', default=False)
    assert found["limits.python.cpu"] == Shown("limits.python.cpu", '"1 s"', default=True)
    assert found["limits.python.output"].value == '"100 B"'


def test_of_a_script_the_total_is_shown() -> None:
    text = exercise('script = "grade.py"', kind='"script"', cases="")

    assert Shown("limits.total", f'"{DEFAULT_TOTAL:g} s"', default=True) in shown(parse(text))


# -- the other kinds ------------------------------------------------------------------------------


def test_a_script_has_a_total_beside_the_limits_of_a_call() -> None:
    text = exercise(
        'script = "grade.py"\nlimits = { cpu = "1 s", total = "20 s" }', kind='"script"', cases=""
    )

    definition = parse(text)

    assert definition.script == "grade.py"
    assert definition.total == 20.0
    assert definition.limits_of("python").cpu == 1.0


PIPELINE = """
programs = { player = "submission", judge = "judge.py" }

[[stages]]
name = "play"
run = ["judge", "player"]
pipes = ["judge.1 -> player.0", "player.1 -> judge.0", "case.input -> judge.3"]
verdict = "judge"
"""


def pipeline(*changes: tuple[str, str], cases: str = CASE) -> str:
    """Return an interactive exercise, with texts in it replaced by others."""
    text = PIPELINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return exercise(text, kind='"pipeline"', cases=cases)


def test_a_pipeline_has_programs_and_stages() -> None:
    definition = parse(pipeline(cases='[[cases]]\nname = "one"\n'))

    assert definition.programs == {"player": "submission", "judge": "judge.py"}
    assert definition.stages == (
        Stage(
            "play",
            ("judge", "player"),
            ("judge.1 -> player.0", "player.1 -> judge.0", "case.input -> judge.3"),
            "judge",
        ),
    )


def test_a_pipeline_may_be_in_the_invokers_json() -> None:
    text = exercise(
        'pipeline = "pipeline.json"\nprograms = { solution = "submission" }',
        kind='"pipeline"',
        cases="",
    )

    assert parse(text).pipeline == "pipeline.json"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (exercise(kind='"pipeline"'), "stages: is missing"),
        (exercise(PIPELINE), "stages: is for exercises of kind pipeline"),
        (
            pipeline(("programs =", 'pipeline = "a.json"\nprograms =')),
            "pipeline: has its stages in the file; say no others",
        ),
        (pipeline(cases=""), "cases: there must be one at least"),
        (pipeline(('"submission"', '"other.py"')), 'programs: none is the "submission"'),
        (pipeline(('"judge.py"', '"judge.sh"')), "programs.judge: 'judge.sh' is no program of"),
        (
            pipeline(("judge =", '"the judge" =')),
            "programs: a program cannot be called 'the judge'",
        ),
        (pipeline(("judge =", "case =")), "programs: a program cannot be called 'case'"),
        (pipeline(('["judge", "player"]', "[]")), "stages[1].run: must name one program at least"),
        (
            pipeline(('["judge", "player"]', '["judge", "palyer"]')),
            "stages[1].run: 'palyer' is none of player, judge: player?",
        ),
        (
            pipeline(('["judge", "player"]', '["judge", "judge"]')),
            "stages[1].run: 'judge' is there twice",
        ),
        (
            pipeline(('verdict = "judge"', 'verdict = "player"')),
            "stages[1].verdict: 'player' is no program of the teacher's here",
        ),
        (pipeline(('verdict = "judge"', "")), "stages: none has a verdict"),
        (pipeline(("judge.1 ->", "judge.1 =>")), "stages[1].pipes[1]: "),
        (
            pipeline(("[[stages]]", '[[stages]]\nname = "play"\nrun = ["judge"]\n[[stages]]')),
            "stages: 'play' is there twice",
        ),
        (pipeline(("name =", "nmae =")), "stages[1].nmae: no such key (line 11): name?"),
    ],
)
def test_a_mistake_in_a_pipeline_is_named(text: str, problem: str) -> None:
    found = problems(text)

    assert any(said.startswith(problem) for said in found), found


# -- the files of an exercise ---------------------------------------------------------------------

HASH = "0f" * 32


def test_files_stand_in_the_text_or_are_referred_to() -> None:
    text = (
        exercise()
        + f"""
[files]
"check.py" = "print()"
"a.bin" = {{ base64 = "AP8=" }}
"b.bin" = {{ sha256 = "{HASH}", size = 5 }}
"""
    )

    assert parse(text).files == {
        "check.py": "print()",
        "a.bin": FileRef(base64="AP8="),
        "b.bin": FileRef(sha256=HASH, size=5),
    }


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ('"../a" = ""', "files: a file cannot be called '../a'"),
        ('"a" = ""\n"a/b" = ""', "files: a file cannot be called 'a'"),
        ('"program" = ""', "files: 'program' begins with a name that grading needs"),
        ('"given/case/a" = ""', "files: 'given/case/a' begins with a name that grading needs"),
        ('"a" = {}', "files.a: say either base64 or sha256"),
        ('"a" = { base64 = "AA==", sha256 = "" }', "files.a: say either base64 or sha256"),
        ('"a" = { base64 = "A" }', "files.a.base64: is not base64"),
        ('"a" = { base64 = "é" }', "files.a.base64: is not base64"),
        ('"a" = { sha256 = "0F" }', "files.a.sha256: must be 64 digits, 0-9 and a-f"),
        (f'"a" = {{ sha256 = "{HASH}", size = -1 }}', "files.a.size: must not be negative"),
        ('"a" = { sha265 = "" }', "files.a.sha265: no such key (line 15): sha256?"),
        ('"a" = 5', "files.a: "),
    ],
)
def test_a_file_that_cannot_be_is_named(files: str, problem: str) -> None:
    found = problems(f"{exercise()}[files]\n{files}\n")

    assert any(said.startswith(problem) for said in found), found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            exercise('checker = { program = "check.py" }'),
            "checker.program: there is no file 'check.py': chek.py?",
        ),
        (
            exercise('script = "grade.py"', kind='"script"', cases=""),
            "script: there is no file 'grade.py'",
        ),
        (pipeline(), "programs.judge: there is no file 'judge.py'"),
        (
            exercise(
                'pipeline = "pipeline.json"\nprograms = { solution = "submission" }',
                kind='"pipeline"',
                cases="",
            ),
            "pipeline: there is no file 'pipeline.json'",
        ),
        (
            exercise(cases='[[cases]]\nname = "a"\nfiles = "cases/?.in"'),
            "cases[1].files: no file is called like 'cases/?.in'",
        ),
        (
            exercise(cases='[[cases]]\nname = "a"\nfiles = "cases/1*.in"'),
            "cases[1].files: there is no file 'cases/10.out'",
        ),
    ],
)
def test_a_file_that_is_referred_to_and_not_there_is_named(text: str, problem: str) -> None:
    definition = parse(with_files(text, chek__py="", **{"cases/10__in": ""}))

    assert missing(definition) == [problem]


def test_nothing_is_missing_of_solutions_and_of_outputs_that_a_judge_does_without() -> None:
    cases = '[[cases]]\nname = "a"\nfiles = "cases/*.in"'
    text = pipeline(cases=cases) + '\n[solutions]\n"solutions/a.py" = "accepted"'

    assert missing(parse(with_files(text, judge__py="", **{"cases/1__in": ""}))) == []


# -- any text -------------------------------------------------------------------------------------

VALUES = st.sampled_from(
    ["1", '"1 s"', '"x"', "true", "[]", "[1]", "{}", "{ a = 1 }", "nan", "1979-05-27", "'''\n'''"]
)
KEYS = st.sampled_from(
    [
        *Definition.__struct_fields__,
        *("limits.cpu", "limits.c.cpu", "submission.files", "solutions.a", "cases.name"),
        *("checker.float", "checker.program", "programs.a", "files.a", "stages.run"),
    ]
)


@settings(deadline=None, max_examples=60)
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
        assert parse(exercise(lines, cases=cases, **head)).limits_of("python")


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
