"""Names of files in an exercise's folder: patterns, their natural order, the folders they need."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

_DIGITS = re.compile(r"(\d+)")


def matching(pattern: str, paths: Iterable[str]) -> list[str]:
    """Return the paths that fit, as a person would count them: 2 before 10.

    `*` and `?` stand for anything but `/`.
    """
    wanted = pattern.split("/")
    found = [path for path in paths if _fits(path.split("/"), wanted)]
    return sorted(found, key=_natural)


def folders(path: str) -> list[str]:
    """Return the folders that lead to a path, without the one where it begins."""
    return [str(folder) for folder in PurePosixPath(path).parents if str(folder) != "."]


def _fits(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _natural(path: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdecimal() and part.isascii() else (1, 0, part)
        for part in _DIGITS.split(path)
        if part
    ]
