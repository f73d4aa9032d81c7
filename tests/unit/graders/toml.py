"""Exercises of kind `tests`, as a teacher would have written them."""

CASE = """
[[cases]]
name = "the example"
input = "21\\n"
expected = "42\\n"
points = 5
"""


def exercise(extra: str = "", *, cases: str = CASE, **head: str | None) -> str:
    """Return a right definition, with `extra` lines before its cases.

    head: other values for its keys, as TOML; None leaves a key out.
    """
    keys: dict[str, str | None] = {
        "format": "1",
        "key": '"double"',
        "course": '"python-101"',
        "title": '"Double it"',
        "kind": '"tests"',
        "language": '"python"',
    }
    lines = [f"{key} = {value}" for key, value in (keys | head).items() if value is not None]
    return "\n".join([*lines, extra, cases])
