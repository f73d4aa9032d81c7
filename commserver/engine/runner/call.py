"""Calls one function of a student's, as the student, for a script that asked with `grader.call`.

It reads ``{"function": "module.function", "args": […], "kwargs": {…}}`` from `INPUT_FD` and writes
one of these to `RESULT_FD`:

    {"value": …}                                what it returned
    {"error": class, "bases": […], "text": …, "where": "file, line n"}      what it raised
    {"exit": n}                                 it left with sys.exit
    {"unanswerable": why}                       it returned what is no JSON

JSON as Python writes it, that is with NaN and the infinities. What the function prints goes to
standard output as ever. It shares this process with the student's code, so nothing that it says is
believed any more than what a function returns.
"""

# Start-up time counts: `json` would bring `re`, hence its C half (as in `runner.py`).
import os
import sys
from _json import encode_basestring_ascii, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESULT_FD = 3
INPUT_FD = 4
MAX_TEXT = 1000  # characters of what an exception says
MAX_DIGITS = 100_000  # of a whole number; Python's 4,300 are fewer than factorials in a course have


class _Rules:
    """What the scanner of `json` asks of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 -- the scanner's, emptied by itself


def from_json(data: bytes) -> "dict[str, Any]":
    """Return what our own grader wrote."""
    # Typed as if it took a scanner; any object with these attributes does.
    value, _ = make_scanner(_Rules)(data.decode(), 0)  # type: ignore[arg-type]
    assert isinstance(value, dict)
    return value


def refuse(value: object) -> object:
    """Say what is no JSON."""
    raise TypeError(f"a {type(value).__name__} is no JSON")


def to_json(value: object) -> bytes:
    """Return the JSON of a value.

    Raises:
        TypeError, ValueError, RecursionError: it has none.
    """
    encode = make_encoder({}, refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
    return "".join(encode(value, 0)).encode()


def look_up(function: str) -> "Any":
    """Return what "module.function" names; classes and packages may stand between."""
    first, *rest = function.split(".")
    found = __import__(first)
    name = first
    for part in rest:
        name = f"{name}.{part}"
        if not hasattr(found, part) and hasattr(found, "__path__") and part != rest[-1]:
            __import__(name)
        found = getattr(found, part)
    return found


def where(error: BaseException, folder: str) -> str:
    """Return the student's line that raised it, "" if none did."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{os.path.relpath(error.filename, folder)}, line {error.lineno}"
    place = ""
    step = error.__traceback__
    while step:
        file = step.tb_frame.f_code.co_filename
        if file.startswith(f"{folder}/"):
            place = f"{file[len(folder) + 1 :]}, line {step.tb_lineno}"
        step = step.tb_next
    return place


def describe(error: BaseException, folder: str) -> dict[str, object]:
    """Return an exception as it is told."""
    try:
        text = str(error)[:MAX_TEXT]
    except Exception:  # the student's own class
        text = ""
    return {
        "error": str(type(error).__name__),
        "bases": [str(base.__name__) for base in type(error).__mro__[1:]],
        "text": text,
        "where": where(error, folder),
    }


def read_all(fd: int) -> bytes:
    """Return what there is to read."""
    with open(fd, "rb") as file:
        return file.read()


def answer(request: "dict[str, Any]", folder: str) -> bytes:
    """Call the function; return what is told of it."""
    try:
        value = look_up(request["function"])(*request["args"], **request["kwargs"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return to_json({"exit": code & 255})
    except BaseException as error:  # whatever the student's code raises is its answer
        return to_json(describe(error, folder))
    sys.setrecursionlimit(1000)  # the student may have raised it, and the encoder would crash
    sys.set_int_max_str_digits(MAX_DIGITS)
    try:
        return to_json({"value": value})
    except RecursionError:
        why = "it is nested too deeply"
    except Exception as error:  # the student's own classes take part in this
        why = str(error)[:MAX_TEXT]
    return to_json({"unanswerable": why})


def main() -> None:
    """Answer one request."""
    sys.set_int_max_str_digits(MAX_DIGITS)
    request = from_json(read_all(INPUT_FD))
    os.set_inheritable(RESULT_FD, False)
    folder = os.getcwd()
    if sys.path[:1] == [os.path.dirname(os.path.abspath(__file__))]:
        del sys.path[0]
    sys.path.insert(0, folder)  # as if a program there were run
    sys.argv[:] = [""]
    rest = memoryview(answer(request, folder))
    while rest:
        rest = rest[os.write(RESULT_FD, rest) :]
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 -- contextlib is slow to load
            stream.flush()
        except Exception:  # noqa: S110 -- the student may have put anything in its place
            pass
    os._exit(0)  # nothing that the student left behind can hold it up


if __name__ == "__main__":
    main()
