"""On which line of a TOML text each key is."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commserver.graders.toml_layout import Section, layout, spelled

TEXT = '''# a comment = 1
a = 1 # b = 2
c.d = "}" # dotted
"e f" = """
g = 1
\\""" h = 2"""
i = [ # many
  { j = 1, k = [1, 2] },
  { j = "]", 'l' = 2 },
]
m = { n.o = 1979-05-27 07:32:00, p = \'x\' }
[q]
r = \'\'\'
s = 1\'\'\'\'
[[t]]
u = 1
[[t]]
u = 2
[t.v]
w = 3
[[t.x]]
y = 1
[[t.x]]
y = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 2),
        (("c",), 3),
        (("c", "d"), 3),
        (("e f",), 4),
        (("i",), 7),
        (("i", 1, "j"), 8),
        (("i", 1, "k", 2), 8),
        (("i", 2, "l"), 9),
        (("m", "n", "o"), 11),
        (("m", "p"), 11),
        (("q",), 12),
        (("q", "r"), 13),
        (("t",), 15),
        (("t", 1, "u"), 16),
        (("t", 2), 17),
        (("t", 2, "u"), 18),
        (("t", 2, "v", "w"), 20),
        (("t", 2, "x", 1, "y"), 22),
        (("t", 2, "x", 2, "y"), 24),
    ],
)
def test_every_key_has_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert layout(TEXT).lines[path] == line


@pytest.mark.parametrize("key", ["g", "h", "s", "b"])
def test_what_only_looks_like_a_key_has_none(key: str) -> None:
    assert not any(key in path for path in layout(TEXT).lines)


def test_tables_with_headers_are_told_from_header_to_header() -> None:
    text = "a = 1\n[b]\nc = '''\n[d]\n'''\n[e.f]\n"

    assert layout(text).sections == (
        Section(("b",), 6, text.index("[e.f]")),
        Section(("e", "f"), text.index("[e.f]"), len(text)),
    )


def test_windows_line_ends_count_once() -> None:
    assert layout("a = 1\r\nb = '''\r\n'''\r\nc = 2\r\n").lines[("c",)] == 4


SCALARS = st.sampled_from(["1", "-2.5e3", "true", '"a\\"]"', "'}#'", '"""\n""\\"""""', "'''\n'''"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"k{i} = {x}" for i, x in enumerate(items)) + "}"
        ),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["a", "b", '"c d"', "'e'", "f-1"])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4, unique_by=lambda pair: pair[0]))
def test_every_key_that_tomllib_finds_has_a_line(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in pairs)

    found = layout(text).lines

    at = 1
    for key, value in pairs:
        (name,) = tomllib.loads(f"{key} = 0")
        assert found[(name,)] == at
        at += 1 + value.count("\n")


def test_a_path_is_spelled_as_a_teacher_reads_it() -> None:
    assert spelled(("cases", 2, "points")) == "cases[2].points"
