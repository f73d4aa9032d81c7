"""Does an output say what was expected, and where does it first not?"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from commserver.core.verdicts import Status

_TOKEN = re.compile(rb"[^ \t\n\r\f\v]+")
# Each character is looked at once: students write words of a million digits.
_NUMBER = re.compile(rb"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an output first differs from what was expected.

    status: wrong, or right words in the wrong layout. line: of the output, from 1.
    expected, got: what stands there; None where it has ended.
    """

    status: Status
    line: int
    expected: bytes | None
    got: bytes | None


Checker = Callable[[bytes, bytes], Difference | None]
"""Takes an output and what was expected; returns None when the output is right."""


def tokens(output: bytes, expected: bytes) -> Difference | None:
    """Compare word by word; how they are spaced and where lines end does not matter."""
    return _first_different_word(output, expected, bytes.__eq__)


def floats(output: bytes, expected: bytes, *, tolerance: float) -> Difference | None:
    """Compare as `tokens` does, but numbers by value.

    A number is right when it is no further than `tolerance` from what was expected, absolutely or
    in relation to it, whichever is more generous.
    """
    return _first_different_word(output, expected, partial(_near, tolerance=tolerance))


def lines(output: bytes, expected: bytes) -> Difference | None:
    """Compare line by line; blanks at the ends of lines and empty lines at the end do not matter.

    Right words in other lines are a matter of presentation.
    """
    return _first_different_line(_stripped(output), _stripped(expected), output, expected)


def exact(output: bytes, expected: bytes) -> Difference | None:
    """Compare byte by byte; right words in another layout are a matter of presentation."""
    if output == expected:
        return None
    return _first_different_line(
        output.splitlines(keepends=True), expected.splitlines(keepends=True), output, expected
    )


CHECKERS: dict[str, Checker] = {"tokens": tokens, "exact": exact, "lines": lines}


def _first_different_word(
    output: bytes, expected: bytes, same: Callable[[bytes, bytes], bool]
) -> Difference | None:
    meant = _TOKEN.finditer(expected)
    for said, wanted in zip_longest(_TOKEN.finditer(output), meant):
        got = said[0] if said else None
        if got is None or wanted is None or not same(got, wanted[0]):
            at = said.start() if said else len(output.rstrip())
            line = output.count(b"\n", 0, at) + 1
            return Difference(Status.WRONG_ANSWER, line, wanted[0] if wanted else None, got)
    return None


def _near(got: bytes, wanted: bytes, *, tolerance: float) -> bool:
    if got == wanted:
        return True
    if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    number, goal = float(got), float(wanted)
    return math.isfinite(goal) and abs(number - goal) <= tolerance * max(1.0, abs(goal))


def _first_different_line(
    said: list[bytes], meant: list[bytes], output: bytes, expected: bytes
) -> Difference | None:
    for number, (got, wanted) in enumerate(zip_longest(said, meant), 1):
        if got != wanted:
            same_words = tokens(output, expected) is None
            status = Status.PRESENTATION if same_words else Status.WRONG_ANSWER
            return Difference(status, number, wanted, got)
    return None


def _stripped(text: bytes) -> list[bytes]:
    stripped = [line.rstrip() for line in text.split(b"\n")]
    while stripped and not stripped[-1]:
        stripped.pop()
    return stripped
