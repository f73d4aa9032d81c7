"""TOML into msgspec structs, with all that is wrong at once, and on which line."""

import difflib
import re
import tomllib
from collections.abc import Collection
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from commserver.errors import DefinitionError
from commserver.graders.toml_layout import Layout, Path, layout, spelled

NEAR = 0.62  # how like a known word one must be to be taken for it, of 1

_WORDS = {  # what msgspec calls a type: what a teacher does
    "str": 'a text in "quotes"',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [brackets]",
    "object": "a table in {braces}",
    "date": "a date",
    "datetime": "a date",
}
_EXPECTED = re.compile(r"Expected `([a-z |]+)`, got `([a-z]+)`")

T = TypeVar("T", bound=msgspec.Struct)


def read(text: str, kind: type[T]) -> tuple[T, list[str]]:
    """Return what `text` says, and what it says beside that: unknown keys, a problem each.

    Raises:
        DefinitionError: it cannot be read; with every problem that was found.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DefinitionError([f"not TOML: {error}"]) from error
    problems = _problems(table, kind, (), _Places(text))
    try:
        return msgspec.convert(table, kind), problems  # does not mind unknown keys
    except msgspec.ValidationError as error:
        raise DefinitionError(problems or [str(error)]) from error


def nearest(word: str, known: Collection[str]) -> str:
    """Return the known word that was meant, as the end of a sentence, "" when none is near."""
    near = difflib.get_close_matches(word, known, 1, NEAR)
    return f": {near[0]}?" if near else ""


class _Places:
    """The lines of a text's keys; it is gone through when the first is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._layout: Layout | None = None

    def line(self, path: Path) -> int:
        if self._layout is None:
            self._layout = layout(self._text)
        return self._layout.lines[path]


def _problems(value: object, kind: Any, path: Path, places: _Places) -> list[str]:
    """Return all that keeps `value` from being a `kind`; msgspec by itself stops at the first."""
    struct = _struct(kind)
    if struct is not None and isinstance(value, dict):
        return _struct_problems(value, struct, path, places)
    items: list[tuple[Path, object]] = []
    if get_origin(kind) is tuple and isinstance(value, list):
        items = [((*path, number), item) for number, item in enumerate(value, 1)]
    elif get_origin(kind) is dict and isinstance(value, dict):
        items = [((*path, key), item) for key, item in value.items()]
    if items:
        inner = get_args(kind)[0 if get_origin(kind) is tuple else 1]
        return [said for at, item in items for said in _problems(item, inner, at, places)]
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        at, line = spelled(path), f"(line {places.line(path)})"
        choices = _choices(kind)
        if choices and isinstance(value, str | int):
            known = ", ".join(choices)
            return [f"{at}: {value!r} is none of {known} {line}{nearest(str(value), choices)}"]
        return [f"{at}: {_said(error)} {line}"]
    return []


def _said(error: msgspec.ValidationError) -> str:
    """Return what is wrong with a value, in words of TOML and not of msgspec."""
    match = _EXPECTED.match(str(error))
    if match is None:
        return str(error)
    wanted = [_WORDS.get(one, one) for one in match[1].split(" | ") if one != "null"]
    got = "a fraction" if match[2] == "float" else _WORDS.get(match[2], match[2])
    return f"must be {' or '.join(wanted)}, not {got}"


def _choices(kind: Any) -> list[str]:
    """Return the values of a type that has only some, or of one that a union has."""
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
    return [str(member.value) for one in kinds if issubclass(one, Enum) for member in one]


def _struct_problems(
    table: dict[str, object], struct: type[msgspec.Struct], path: Path, places: _Places
) -> list[str]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    problems = [
        f"{spelled((*path, key))}: no such key (line {places.line((*path, key))})"
        f"{nearest(key, fields)}"
        for key in table
        if key not in fields
    ]
    for name, field in fields.items():
        if name in table:
            problems += _problems(table[name], field.type, (*path, name), places)
        elif field.required:
            problems.append(f"{spelled((*path, name))}: is missing")
    return problems


def _struct(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct that `kind` is, or that is one of what it may be."""
    if get_origin(kind) in (tuple, dict):
        return None
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None
