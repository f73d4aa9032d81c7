"""A whole exercise as one row of the platform, and back: its text with its files in `[files]`."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from commserver.core.execution import KIB
from commserver.core.jobs import content_hash
from commserver.errors import DefinitionError
from commserver.graders.definition import FileRef, content_of
from commserver.graders.toml_layout import layout

INLINE_MOST = 64 * KIB  # bytes of a text that stands in the row itself
INLINE_ALL = 512 * KIB  # bytes of all of them
MARK = "# -- files of the exercise, by `commserver exercise import`: change them in its folder --"

_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")  # what a text box or TOML would not keep
_ESCAPED = re.compile(r'[\\\x00-\x08\x0b-\x1f\x7f]|"(?="")|"\Z')


@dataclass(frozen=True, slots=True)
class Bundle:
    """An exercise as it is stored.

    row: what goes into the platform's table. bulk: what goes into the file store, by sha256.
    """

    row: str = field(repr=False)
    bulk: dict[str, bytes] = field(repr=False)


def pack(text: str, files: Mapping[str, bytes]) -> Bundle:
    """Return the exercise of this `exercise.toml` with its files, by path in its folder.

    Short texts stand in the row, where their teacher can read them.

    Raises:
        DefinitionError: the text brings files by itself, or is no TOML.
    """
    if "files" in _table(text):
        raise DefinitionError(["files: come from the folder; put them there"])
    if not files:
        return Bundle(text, {})
    lines = ["", MARK, "[files]"]
    bulk: dict[str, bytes] = {}
    room = INLINE_ALL
    for path in sorted(files):
        content = files[path]
        inline = _inline(content) if len(content) <= min(INLINE_MOST, room) else None
        if inline is None:
            name = content_hash(content)
            bulk[name] = content
            inline = f'{{ sha256 = "{name}", size = {len(content)} }}'
        else:
            room -= len(content)
        lines.append(f"{_quoted(path)} = {inline}")
    return Bundle(text + "\n".join(lines) + "\n", bulk)


def unpack(row: str, bulk: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Return the `exercise.toml` and the files that `pack` was given; its inverse.

    A row that its teacher wrote by hand is taken apart as well.

    Raises:
        DefinitionError: it is no TOML, or a file of it is not in `bulk`.
    """
    table = _table(row).get("files", {})
    try:
        stored = msgspec.convert(table, dict[str, str | FileRef])
    except msgspec.ValidationError as error:
        raise DefinitionError([f"files: {error}"]) from error
    files = {path: content_of(file, bulk) for path, file in stored.items()}
    if lost := [path for path, content in files.items() if content is None]:
        raise DefinitionError([f"files.{path}: is not in the file store" for path in lost])
    return _without_files(row), {path: x for path, x in files.items() if x is not None}


def _table(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DefinitionError([f"not TOML: {error}"]) from error


def _without_files(row: str) -> str:
    """Return the row without its `[files]`, as it was before `pack` when that put them there."""
    for section in reversed(layout(row).sections):
        if section.path[0] != "files":
            continue
        before, after = row[: section.start], row[section.end :]
        for end in ("\n", "\r\n"):
            before = before.removesuffix(f"{end}{MARK}{end}")
        row = before + after
    return row


def _inline(content: bytes) -> str | None:
    """Return a text as TOML that reads well; None when it is no text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if _UNFIT.search(text):
        return None
    if "\n" not in text:
        return _quoted(text)
    if "'''" not in text and not text.endswith("'"):
        return f"'''\n{text}'''"
    return f'"""\n{_ESCAPED.sub(_escape, text)}"""'


def _quoted(text: str) -> str:
    escaped = re.sub(r'["\\\x00-\x1f\x7f]', _escape, text)
    return f'"{escaped}"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    return f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}"
