"""Where in a TOML text its keys and tables are: `tomllib` does not say."""

import re
import tomllib
from dataclasses import dataclass, field

Path = tuple[str | int, ...]  # keys, and from 1 the places in arrays: ("cases", 2, "points")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\n]+")
_SPACE = re.compile(r"[ \t\r]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BASIC_STOP = re.compile(r'\\.|"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Section:
    """A table under a header of its own: from the first byte of its header to the next header."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the keys of a text are.

    lines: the first line on which each is named, from 1.
    sections: the tables with headers, in order; offsets in characters.
    """

    lines: dict[Path, int] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


def layout(text: str) -> Layout:
    """Return where the keys of `text` are; it must be right TOML."""
    scanner = _Scanner(text)
    scanner.scan()
    starts = [*(start for _, start in scanner.headers), len(text)]
    sections = (
        Section(path, start, end)
        for (path, start), end in zip(scanner.headers, starts[1:], strict=True)
    )
    return Layout(scanner.lines, tuple(sections))


def spelled(path: Path) -> str:
    """Return a path as a teacher reads it: `cases[2].points`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Scanner:
    """Goes through a text once, from key to key; trusts that it is right."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self.headers: list[tuple[Path, int]] = []
        self._text = text
        self._at = 0
        self._line = 1  # of `_counted`
        self._counted = 0
        self._tables: dict[Path, int] = {}  # how many each array of tables has so far

    def scan(self) -> None:
        base: Path = ()
        while self._skip(_BLANK):
            if self._text[self._at] == "[":
                base = self._header()
            else:
                self._pair(base)

    def _header(self) -> Path:
        start = self._at
        several = self._text.startswith("[[", self._at)
        self._at += 2 if several else 1
        path: Path = ()
        keys = self._key()
        for number, key in enumerate(keys, 1):
            path = (*path, key)
            self._note(path, start)
            if several and number == len(keys):
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:
                path = (*path, self._tables[path])
        self._note(path, start)
        self._skip(_SPACE)
        self._at += 2 if several else 1
        self.headers.append((path, start))
        return path

    def _pair(self, base: Path) -> None:
        start = self._at
        path = base
        for key in self._key():
            path = (*path, key)
            self._note(path, start)
        self._at += 1  # "="
        self._value(path)

    def _key(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            if match := _BARE_KEY.match(self._text, self._at):
                keys.append(match[0])
                self._at = match.end()
            else:
                start = self._at
                self._string()
                keys.append(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._at += 1
            number = 0
            while self._skip(_BLANK) and self._text[self._at] != "]":
                number += 1
                self._note((*path, number), self._at)
                self._value((*path, number))
                self._comma()
            self._at += 1
        elif first == "{":
            self._at += 1
            while self._skip(_BLANK) and self._text[self._at] != "}":
                self._pair(path)
                self._comma()
            self._at += 1
        else:
            match = _BARE_VALUE.match(self._text, self._at)
            self._at = match.end() if match else self._at + 1

    def _comma(self) -> None:
        if self._skip(_BLANK) and self._text[self._at] == ",":
            self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        long = self._text.startswith(quote * 3, self._at)
        self._at += 3 if long else 1
        end = quote * 3 if long else quote
        while not self._text.startswith(end, self._at):
            if quote == "'":
                self._at = self._text.index(end, self._at)
            else:
                stop = _BASIC_STOP.search(self._text, self._at)
                assert stop is not None  # or the text would not be TOML
                at_quote = stop[0] == '"'
                self._at = stop.start() if at_quote else stop.end()
                if at_quote and not self._text.startswith(end, self._at):
                    self._at += 1
        self._at += len(end)
        if long:  # up to two quotes may stand before the three that end it
            for _ in range(2):
                self._at += self._text.startswith(quote, self._at)

    def _skip(self, what: re.Pattern[str]) -> bool:
        """Go past `what`; return whether anything is left."""
        match = what.match(self._text, self._at)
        assert match is not None  # it matches nothing as well
        self._at = match.end()
        return self._at < len(self._text)

    def _note(self, path: Path, at: int) -> None:
        if path not in self.lines:
            self._line += self._text.count("\n", self._counted, at)
            self._counted = at
            self.lines[path] = self._line
