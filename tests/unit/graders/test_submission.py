"""The student's files: which of them are started, and which cannot be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.core.execution import Placement
from commserver.core.request_check import check
from commserver.core.text import clean_text
from commserver.core.verdicts import Verdict
from commserver.errors import DefinitionError
from commserver.graders import kinds
from commserver.graders.content import Content
from commserver.graders.languages import LANGUAGES
from commserver.graders.submission import Submission, Unusable, chosen, submission
from tests.unit.graders.toml import exercise, with_files


def content(*names: str, language: str = "python", text: str = "print(42)") -> Content:
    """Return files of these names, of the same text."""
    return Content(language, 20, tuple((name, text) for name in names), "")


def handed_in(
    *names: str,
    language: str = "python",
    wanted: tuple[str, ...] = (),
    given: dict[str, bytes] | None = None,
) -> Submission:
    """Return the files as they can be started."""
    return submission(content(*names, language=language), LANGUAGES[language], wanted, given or {})


# -- which file is run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "wanted", "main"),
    [
        (("anything.py",), (), "anything.py"),
        (("helper.py", "main.py"), (), "main.py"),
        (("helper.py", "main.py"), ("helper.py",), "helper.py"),
        (("a/b.py", "c.py"), ("a/b.py", "c.py"), "a/b.py"),
    ],
)
def test_which_file_is_run(names: tuple[str, ...], wanted: tuple[str, ...], main: str) -> None:
    found = handed_in(*names, wanted=wanted)

    assert found.argv == ("/usr/bin/python3", main)
    assert [file.path for file in found.started] == list(names)


@pytest.mark.parametrize(
    ("names", "language"), [(("a.py", "b.py"), "python"), (("a.c", "b.c"), "c")]
)
def test_an_exercise_that_does_not_say_which_file_is_run_is_the_teachers_fault(
    names: tuple[str, ...], language: str
) -> None:
    found = handed_in(*names, language=language)

    with pytest.raises(DefinitionError, match=r"says not which of a\.\w+, b\.\w+ is run"):
        _ = found.argv


def test_files_that_are_not_run_by_themselves_need_no_main_one() -> None:
    assert handed_in("a.py", "b.py").main == ""


def test_line_ends_of_a_text_box_become_those_of_the_system() -> None:
    found = submission(content("main.py", text="a\r\n\r\nb\rc\n"), LANGUAGES["python"])

    assert found.own == {"main.py": b"a\n\nb\rc\n"}


def test_what_utf_8_cannot_say_is_replaced() -> None:
    found = submission(content("main.py", text="'é\ud800'"), LANGUAGES["python"])

    assert found.own == {"main.py": "'é?'".encode()}


# -- what cannot be started -----------------------------------------------------------------------


def test_a_missing_file_is_told_to_the_student() -> None:
    with pytest.raises(Unusable, match=r"main\.py, b\.py is missing; you handed in mian\.py"):
        handed_in("mian.py", wanted=("main.py", "b.py"))


def test_a_c_program_without_a_source_is_told_to_the_student() -> None:
    with pytest.raises(Unusable, match=r"there is no \.c file"):
        handed_in("main.h", language="c")


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
    wrong = Content("python", 20, (("main.py", ""), (name, "")), exercise())

    verdict = kinds.plan(wrong, {})

    assert isinstance(verdict, Verdict)
    assert verdict.log == clean_text(f"not compiled\na file cannot be called {name!r}")


@pytest.mark.parametrize("names", [("lib/x", "lib/x/y.py"), ("lib/x/y.py", "lib/x")])
def test_a_file_cannot_be_called_like_a_folder(names: tuple[str, ...]) -> None:
    with pytest.raises(Unusable, match="'lib/x'"):
        handed_in(*names)


@pytest.mark.parametrize("name", ["program", "program/main.h"])
def test_a_file_cannot_stand_where_the_compiled_program_goes(name: str) -> None:
    with pytest.raises(Unusable, match=repr(name)):
        handed_in("main.c", name, language="c")


def test_an_interpreted_exercise_knows_no_such_name() -> None:
    assert "program" in handed_in("main.py", "program").own


# -- names on a command line ----------------------------------------------------------------------

# Whatever is dangerous there, often.
NAMES = st.lists(
    st.text(min_size=1, max_size=8)
    | st.sampled_from(["-o/../x", "@file", "-x.c", "@x.c", ";rm -rf", "--", "$(id).c", "a b.c"])
    | st.text("-@./ \n;$c", min_size=1, max_size=5).map(lambda stem: f"{stem}.c"),
    min_size=1,
    max_size=4,
    unique=True,
)


@settings(deadline=None, max_examples=60)
@given(NAMES)
def test_no_name_becomes_an_option_of_the_compiler(names: list[str]) -> None:
    try:
        found = handed_in("main.c", *(set(names) - {"main.c"}), language="c")
    except Unusable:
        return

    (compiler,) = found.prepare[0].processes
    options = compiler.argv
    sources = options[options.index("program") + 1 : -1]
    assert not any(source.startswith(("-", "@")) for source in sources)
    assert {source.removeprefix("./") for source in sources} == {
        name for name in found.own if name.endswith(".c")
    }


@settings(deadline=None, max_examples=60)
@given(NAMES)
def test_no_name_becomes_an_option_of_the_interpreter(names: list[str]) -> None:
    """And whatever is taken, the sandbox takes as well."""
    plan = kinds.plan(Content("python", 20, ((names[0], ""),), exercise()), {})
    if isinstance(plan, Verdict):
        return

    (process,) = plan.request.cases[0].stages[0].processes
    assert process.argv == ("/usr/bin/python3", names[0])
    assert not names[0].startswith("-")
    check(plan.request)


# -- what is given --------------------------------------------------------------------------------


def test_a_given_file_wins_over_the_students_of_the_same_name() -> None:
    found = handed_in("main.c", "list.h", language="c", given={"list.h": b"ours", "list.c": b""})

    assert found.own == {"main.c": b"print(42)"}
    (compiler,) = found.prepare[0].processes
    assert compiler.argv[-3:] == ("list.c", "main.c", "-lm")
    assert compiler.files == (
        Placement("submission/main.c", "main.c"),
        Placement("given/list.h", "list.h"),
        Placement("given/list.c", "list.c"),
    )


@pytest.mark.parametrize(("name", "given"), [("lib", "lib/x.py"), ("lib/x.py", "lib")])
def test_a_file_cannot_be_in_the_way_of_a_given_one(name: str, given: str) -> None:
    with pytest.raises(Unusable, match=repr(name)):
        handed_in("main.py", name, given={given: b""})


def test_what_an_exercise_gives_lies_beside_the_students_files() -> None:
    grader = with_files(exercise(), **{"given/play__py": "ours", "words__txt": "the teacher's"})
    plan = kinds.plan(Content("python", 20, (("main.py", ""), ("play.py", "mine")), grader), {})
    assert not isinstance(plan, Verdict)

    (process,) = plan.request.cases[0].stages[0].processes

    assert {file.path for file in process.files} == {"main.py", "play.py"}
    assert {file.name: file.content for file in plan.request.files}["given/play.py"] == b"ours"


# -- languages ------------------------------------------------------------------------------------


def test_an_exercise_in_another_language_than_its_course_is_the_teachers_fault() -> None:
    with pytest.raises(DefinitionError, match="the course is in c, not in python"):
        chosen(content("main.py", language="c"), ["python"])


@pytest.mark.parametrize(("name", "language"), [("main.py", "python"), ("main.c", "c")])
def test_of_several_languages_the_files_say_which_it_is(name: str, language: str) -> None:
    assert chosen(content(name, "notes.txt"), ["python", "c"]).name == language


@pytest.mark.parametrize("names", [("main.txt",), ("main.py", "main.c")])
def test_files_in_none_of_the_languages_or_in_two_are_told_to_the_student(
    names: tuple[str, ...],
) -> None:
    with pytest.raises(Unusable, match="hand in a program in one of python, c"):
        chosen(content(*names), ["python", "c"])


def test_each_language_has_its_limits() -> None:
    grader = exercise(
        'limits = { cpu = "1 s", python = { cpu = "5 s" } }',
        language=None,
        languages='["python", "c"]',
    )

    found = {}
    for name in ("main.py", "main.c"):
        plan = kinds.plan(Content("python", 20, ((name, ""),), grader), {})
        assert not isinstance(plan, Verdict)
        found[name] = plan.request.cases[0].stages[0].processes[0].limits.cpu

    assert found == {"main.py": 5.0, "main.c": 1.0}
