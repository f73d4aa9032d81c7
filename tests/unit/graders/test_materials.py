"""What an exercise brings along."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.errors import DefinitionError
from commserver.graders.definition import parse
from commserver.graders.materials import Materials, OneCase, shared
from commserver.graders.patterns import folders, matching
from tests.unit.graders.toml import exercise, with_files

FILES = {
    "cases/big-10__in": "10",
    "cases/big-10__out": "ten",
    "cases/big-2__in": "2",
    "cases/big-2__out": "two",
    "cases/big-1__in": "1",
    "cases/big-1__out": "one",
}
CASES = """
[[cases]]
name = "big"
files = "cases/big-*.in"
points = 7
hidden = true
hint = "count"
[[cases]]
name = "one"
files = "cases/big-1.in"
[[cases]]
name = "inline"
expected = "é"
"""


def materials(text: str, **files: str) -> Materials:
    """Return what a definition with these files brings."""
    return Materials(parse(with_files(text, **files)), {})


def test_files_are_cases_in_the_order_in_which_a_person_counts() -> None:
    cases = materials(exercise(cases=CASES), **FILES).cases()

    assert cases == (
        OneCase("big 1", b"1", b"one", 2, hidden=True, hint="count"),
        OneCase("big 2", b"2", b"two", 2, hidden=True, hint="count"),
        OneCase("big 3", b"10", b"ten", 3, hidden=True, hint="count"),
        OneCase("one", b"1", b"one", 1),
        OneCase("inline", b"", "é".encode(), 1),
    )


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_points_are_shared_so_that_they_add_up(points: int, among: int) -> None:
    shares = shared(points, among)

    assert sum(shares) == points
    assert len(shares) == among
    assert max(shares) - min(shares) <= 1


def test_all_that_is_missing_is_named_at_once() -> None:
    text = exercise('checker = { program = "check.py" }', cases=CASES)

    with pytest.raises(DefinitionError) as caught:
        materials(text, **{"cases/big-1__in": "1"})

    assert caught.value.problems == (
        "checker.program: there is no file 'check.py'",
        "cases[1].files: there is no file 'cases/big-1.out'",
        "cases[2].files: there is no file 'cases/big-1.out'",
    )


def test_teachers_programs_find_neither_cases_nor_what_is_for_people() -> None:
    own = {"check__py": "", "lib/helper__py": "", "cases/notes__txt": ""}
    people = {"solutions/right__py": "", "starter/main__py": "", "given/a__h": "given"}

    found = materials(exercise(cases=CASES), **FILES, **own, **people)

    assert set(found.teachers()) == {"check.py", "lib/helper.py", "cases/notes.txt"}
    assert found.given() == {"a.h": b"given"}


def test_a_file_is_found_by_its_hash() -> None:
    text = with_files(exercise(), **{"a__txt": "abc"})
    text += f'\nb = {{ sha256 = "{"0f" * 32}", size = 1 }}\n'
    found = Materials(parse(text), {})

    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found.path_of(abc) == "a.txt"
    assert found.path_of("0f" * 32) == "b"


# -- patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.in", ["a1.in", "a2.in", "a10.in"]),
        ("a?.in", ["a1.in", "a2.in"]),
        ("d/*", ["d/a.in"]),
        ("*", ["a1.in", "a2.in", "a10.in"]),
        ("*/*/*.in", ["d/e/a.in"]),
        ("[ab]2.in", ["a2.in"]),
        ("b.in", []),
    ],
)
def test_a_pattern_stays_in_its_folder(pattern: str, found: list[str]) -> None:
    paths = ["a10.in", "a2.in", "a1.in", "d/a.in", "d/e/a.in"]

    assert matching(pattern, paths) == found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("a1٢/", max_size=6)))
def test_any_names_have_an_order(paths: list[str]) -> None:
    pattern_of_any = {path.count("/") for path in paths}

    for slashes in pattern_of_any:
        found = matching("/".join("*" * (slashes + 1)), paths)
        assert sorted(found) == sorted(path for path in paths if path.count("/") == slashes)


def test_the_folders_of_a_path_lead_to_it() -> None:
    assert folders("a/b/c.py") == ["a/b", "a"]
    assert folders("c.py") == []
