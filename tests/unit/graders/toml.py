"""Exercises, as a teacher would have written them."""

CASE = """
[[cases]]
name = "the example"
input = "21\\n"
expected = "42\\n"
points = 5
"""


def exercise(extra: str = "", *, cases: str = CASE, **head: str | None) -> str:
    """Return a right definition of kind `tests`, with `extra` lines before its cases.

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


def with_files(text: str, **files: str) -> str:
    """Return a definition with these files in it; two underscores in a name stand for a dot."""
    lines = [f"{quoted(name.replace('__', '.'))} = {quoted(x)}" for name, x in files.items()]
    return "\n".join([text, "[files]", *lines])


def quoted(text: str) -> str:
    """Return a text as TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
