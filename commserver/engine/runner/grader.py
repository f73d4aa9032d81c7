"""What a teacher's program imports.

A correction script:

    from grader import call, check, error, expect, run

    with check("right angle", points=10):
        expect(call("triangle.area", 3, 4, 5), 6.0, within=1e-6)

    with check("negative sides", points=5, hidden=True, hint="Can a side be -3 long?"):
        expect(call("triangle.area", -3, -4, -5), error("ValueError"))

    with check("as a program", points=5):
        expect(run("triangle.py", stdin="3 4 5\\n").stdout.split(), ["6.0"])

`call` and `run` start the student's code elsewhere and never raise: an exception, exit or limit of
it is a value, a `Problem`, which fails `expect` with its name. `earn` gives part of a check's
points, `files` the student's files, `say` a line to the student; `print` writes the teacher's log.

The judge of an interactive exercise talks with the player by `judge`, and a checker that is a
program can use `checker`; both end by `accept`, `reject`, `presentation` or `points`.

Only ever one of these at a time: every program of the teacher's is a process of its own.
"""

# Start-up time counts: `json` would bring `re`, hence its C half (as in `runner.py`).
import os
import sys
from _json import encode_basestring_ascii, make_encoder, make_scanner
from _struct import pack, unpack
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn, TypeGuard

__all__ = [
    "GraderError",
    "Problem",
    "Ran",
    "call",
    "check",
    "checker",
    "earn",
    "error",
    "expect",
    "files",
    "judge",
    "run",
    "say",
]

CONTROL_FD = 3  # of a script: where it asks for runs
CASE_FD = 3  # of a judge: the case's input
TELL_FD = 4
RIGHT, WRONG, PRESENTATION, BROKEN, POINTS = 0, 1, 2, 3, 7  # exit statuses

CPU, MEMORY, REAL, SECURITY, OUTPUT = 1, 2, 4, 8, 16  # flags of a run
# Memory first: a program that is ended for want of memory has often used up its time as well.
BY_FLAG = (
    (MEMORY, "memory"),
    (OUTPUT, "output"),
    (CPU, "cpu_time"),
    (REAL, "real_time"),
    (SECURITY, "security"),
)
SIGNALS = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}

MAX_HEADER = 1 << 20  # bytes
MAX_BODY = 64 << 20  # bytes
MAX_SHOWN = 500  # characters of a call, a wanted or a given value
MAX_MESSAGE = 4 << 10  # characters of one text that is told
# Together, with the names of all checks, they must stay below what is read of `TELL_FD`: 2 MiB.
MAX_SAID = 64 << 10  # bytes of all that is said to the student, as it is told
MAX_MESSAGES = 512 << 10  # bytes of all messages and hints of checks; later ones are left out
MAX_CHECKS = 1000
MAX_NAME = 200  # characters
MAX_HINT = 500  # characters
MAX_GRADE = 2**31 - 1  # no exercise has more
MAX_HEARD = 100  # different grades in the outputs of learners
MAX_DEPTH = 200  # lists in lists of what a function returned
MAX_LINE = 16 << 20  # bytes, of a player
MAX_WORD = 100_000  # bytes, of a player
MAX_DIGITS = 100_000  # of a whole number; more would take long to read

sys.set_int_max_str_digits(MAX_DIGITS)


class GraderError(Exception):
    """The teacher's program asks for what cannot be; told at once, so that no handler hides it."""

    told = True


def broken(text: str) -> GraderError:
    """Tell that the program is broken, and return what to raise.

    text: a line that a student may read, hence without any value of the teacher's.
    """
    frame: FrameType | None = sys._getframe(1)
    where = _session.script
    while frame:
        file = frame.f_code.co_filename
        if file == _session.script or file.startswith(f"{_session.folder}/"):
            where = f"{os.path.basename(file)}, line {frame.f_lineno}"
            break
        frame = frame.f_back
    where = f"{where}: {text}"
    tell({"fault": where, "details": where})
    return GraderError(text)


# --- JSON and tells -----------------------------------------------------------------------------


class _Rules:
    """What the scanner of `json` asks of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # NaN and the infinities: both ends are Python's
    memo: dict[str, str] = {}  # noqa: RUF012 -- the scanner's, emptied by itself


def from_json(data: bytes) -> "Any":
    """Return a value that JSON, as Python writes it, stands for.

    Raises:
        ValueError: it is none, or lies too deep.
    """
    try:
        text = data.decode()
        # Typed as if it took a scanner; any object with these attributes does.
        value, end = make_scanner(_Rules)(text, 0)  # type: ignore[arg-type]
    except (ValueError, StopIteration, RecursionError, SystemError) as problem:
        # SystemError: its own exception belongs to `json`, which may not be loaded.
        raise ValueError("no JSON") from problem
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level or end != len(text):
        raise ValueError("no JSON of a sensible depth")
    return value


class _Carried(BaseException):
    """A `Problem` was found where only values can be."""

    def __init__(self, problem: "Problem") -> None:
        self.problem = problem


def _refuse(value: object) -> object:
    if isinstance(value, Problem):
        raise _Carried(value)
    raise TypeError(f"a {type(value).__name__}")


def to_json(value: object) -> bytes:
    """Return the JSON of a value.

    Raises:
        TypeError, ValueError, RecursionError: it has none.
    """
    encode = make_encoder({}, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)
    return "".join(encode(value, 0)).encode()


def tell(what: dict[str, object]) -> None:
    """Tell one thing to whoever started this program, at once."""
    # Strict readers take no lone surrogates, which an exception of a student's can say.
    clean = {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in what.items()
    }
    line = memoryview(to_json(clean) + b"\n")
    while line:
        line = line[os.write(TELL_FD, line) :]


def cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _told_length(text: str) -> int:
    """Return how many bytes a text takes once it is told: up to twelve a character."""
    return len(encode_basestring_ascii(text))


class _Told:
    """What this program has told so far, as far as there are bounds to it."""

    def __init__(self) -> None:
        self.said = 0
        self.messages = 0
        self.heard: set[int] = set()
        self.runs = 0

    def say(self, text: str) -> None:
        """Tell the student a text; past the bound of all texts there is only one more, "…"."""
        text = cut(text, MAX_MESSAGE)
        if self.said <= MAX_SAID:
            self.said += _told_length(text)
            tell({"say": text if self.said <= MAX_SAID else "…"})

    def message(self, text: str) -> str:
        """Return what of a check's message or hint can still be told."""
        self.messages += _told_length(text)
        return text if self.messages <= MAX_MESSAGES else ""

    def hear(self, output: bytes) -> None:
        """Tell each grade that a learner's output holds, before anything can echo it."""
        self._hear(output.decode("utf-8", "replace"))
        if not output.isascii():  # what a script may leave out that decodes with errors="ignore"
            self._hear(output.translate(None, bytes(range(128, 256))).decode())

    def _hear(self, text: str) -> None:
        # Not more than one look at each character: outputs are long, and this is the script's time.
        for piece in text.split("GRADE:")[1:]:
            rest = piece.lstrip()
            sign = -1 if rest[:1] == "-" else 1
            number = -1
            for character in rest.removeprefix("-"):
                if not character.isdecimal() or number > MAX_GRADE:
                    break
                number = max(number, 0) * 10 + int(character)
            if 0 <= number <= MAX_GRADE and len(self.heard) <= MAX_HEARD:
                self._heard(sign * number)

    def _heard(self, grade: int) -> None:
        if grade not in self.heard:
            self.heard.add(grade)
            many = len(self.heard) > MAX_HEARD
            tell({"heard_many": True} if many else {"heard": grade})


_told = _Told()


class _Session:
    """Which program this is, and which check is open."""

    def __init__(self) -> None:
        self.kind = ""
        self.script = ""
        self.folder = ""
        self.check: check | None = None
        self.made = 0  # checks that were made
        self.names: set[str] = set()  # of those that were entered
        self.checking = False  # `checker` is in use
        self.problem: Problem | None = None  # the last one that came up outside of a check


_session = _Session()


def _begin(kind: str, script: str, folder: str) -> None:
    """Note for the launcher which program imports us, and where its modules lie."""
    _session.kind, _session.script, _session.folder = kind, script, folder


def _introduce() -> None:
    """Note for the launcher that the program itself imports us: not only our `subprocess` does."""
    if _session.kind == "script":
        tell({"grader": True})


def _finish(explicit: bool) -> str:
    """Return for the launcher what is wrong with an end that looks good, "" when nothing is.

    explicit: it left with sys.exit(0).
    """
    if _session.kind == "checker" and _session.checking and not explicit:
        return "it ended without checker.accept() or another decision"
    if _session.kind != "script":
        return ""
    if _session.check:
        return "it ended inside of a check"
    if _session.made != len(_session.names):
        return 'a check does nothing without "with": with check("…"):'
    if not _session.names:
        return "it made no check, so there is nothing to grade by"
    tell({"done": True})
    return ""


# --- the runner ---------------------------------------------------------------------------------


class Answer:
    """What became of a run that was asked for: seconds and bytes."""

    __slots__ = ("cpu", "exit", "flags", "memory", "real", "result", "stderr", "stdout", "stopped")

    def __init__(self, header: "dict[str, Any]", body: bytes) -> None:
        first, second = header["stdout"], header["stdout"] + header["stderr"]
        self.exit: int = header["exit"]
        self.cpu: float = header["cpu"]
        self.real: float = header["real"]
        self.memory: int = header["memory"]
        self.flags: int = header["flags"]
        self.stopped: bool = header["stopped"]
        self.stdout = body[:first]
        self.stderr = body[first:second]
        self.result = body[second:]


class Control:
    """Asks the runner for runs, one at a time, whichever thread it is."""

    def __init__(self, fd: int = CONTROL_FD) -> None:
        self._fd = fd
        self._lock = allocate_lock()

    def ask(
        self,
        name: str,
        args: list[str],
        stdin: bytes = b"",
        more: bytes = b"",
        real: float | None = None,
    ) -> Answer:
        """Have `name` run to its end; `args` follow its argv.

        real: seconds until it is ended, where that is less than the exercise lets it have.

        Raises:
            GraderError: the runner refuses, or is not there.
        """
        if _session.kind not in ("", "script"):
            raise broken("only a script can start a student's program")
        question = {"run": name, "args": args, "stdin": len(stdin), "input": len(more)}
        if real is not None:
            question["real"] = min(max(real, 0.001), 86400.0)
        try:
            head = to_json(question)
        except TypeError as problem:
            raise broken("arguments of a program must be text") from problem
        if len(head) > MAX_HEADER or len(stdin) + len(more) > MAX_BODY:
            raise broken("too much is given to a student's program")
        with self._lock:
            try:
                self._write(pack(">II", len(head), len(stdin) + len(more)) + head)
                self._write(stdin)
                self._write(more)
                size, body = unpack(">II", self._read(8))
                header = from_json(self._read(size))
                data = self._read(body)
            except (OSError, ValueError) as problem:
                raise broken("the runner of programs does not answer") from problem
        if "error" in header:
            raise broken(f"no program was started: {header['error']}")
        answer = Answer(header, data)
        _told.runs += 1
        # Scripts put the two together: a line may begin in one and end in the other.
        for output in (answer.stdout, answer.stderr, answer.stdout + answer.stderr):
            _told.hear(output)
        return answer

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = os.read(self._fd, min(1 << 20, size - len(data)))
            if not piece:
                raise OSError("closed")
            data += piece
        return bytes(data)


control = Control()


# --- problems -----------------------------------------------------------------------------------


class Failed(BaseException):
    """A check is over; no `except Exception` of a script's catches it."""

    def __init__(self, status: str, text: str) -> None:
        self.status = status
        self.text = text


class Problem:
    """What a call or run gives that did not end well.

    Whatever is taken from it, called on it or computed with it is this same problem. What needs a
    true value, such as `int(…)`, `len(…)`, `if` or `for`, ends the check as failed, with its name.
    """

    __slots__ = ("_names", "_says", "_status", "_text")

    def __init__(
        self, status: str, says: str = "", names: "tuple[str, ...]" = (), text: str = ""
    ) -> None:
        self._status = status
        self._says = says or status  # what the student reads
        self._names = (status, *names)  # what `error` knows it by
        self._text = text  # what the exception said
        where = _session.check or _session
        where.problem = self

    def _itself(self, *_: object, **__: object) -> "Problem":
        return self

    def _end(self, *_: object) -> "NoReturn":
        if _session.check is None:
            raise broken(
                "the value of a call or run that did not end well can be used inside of a check"
                " only"
            )
        raise Failed(self._status, self._says)

    def __repr__(self) -> str:
        return self._says

    def __str__(self) -> str:
        return f"<{self._status}>"  # nothing that a student can choose


_ITSELF = """getattr getitem call add radd sub rsub mul rmul matmul rmatmul truediv rtruediv
    floordiv rfloordiv mod rmod divmod rdivmod pow rpow lshift rlshift rshift rrshift and rand
    or ror xor rxor neg pos abs invert round trunc floor ceil lt le gt ge eq ne"""
_ENDS = """bool int float complex index len iter contains reversed bytes setitem enter"""
for _name in _ITSELF.split():
    setattr(Problem, f"__{_name}__", Problem._itself)
for _name in _ENDS.split():
    setattr(Problem, f"__{_name}__", Problem._end)


class _Error:
    """What `error` gives: an exception, exit or limit that a call is to end with."""

    __slots__ = ("name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def matches(self, value: object) -> bool:
        """Return whether a value is such a problem."""
        return isinstance(value, Problem) and self.name in value._names and self.text in value._text

    def __repr__(self) -> str:
        return f"error {self.name}" + (f" with {self.text!r}" if self.text else "")


def error(name: "str | type[BaseException]", text: str = "") -> _Error:
    """Return what `expect` takes for a call that is to fail.

    name: the exception's class or one of its bases, or a limit such as "cpu_time".
    text: what its text must hold.
    """
    if isinstance(name, type):
        name = name.__name__
    if not isinstance(name, str) or not isinstance(text, str) or not name:
        raise broken('error() takes the name of an exception: error("ValueError")')
    return _Error(name, text)


def _limit_or_end(answer: Answer, wanted: "Callable[[int], bool]") -> Problem | None:
    """Return what went wrong with a run, None when nothing did."""
    for flag, status in BY_FLAG:
        if answer.flags & flag:
            return Problem(status)
    if wanted(answer.exit):
        return None
    if answer.exit < 0:
        return Problem(
            "runtime_error",
            f"runtime_error: ended by {SIGNALS.get(-answer.exit, f'signal {-answer.exit}')}",
        )
    return Problem("runtime_error", f"runtime_error: exit status {answer.exit}")


# --- asking the student's code ------------------------------------------------------------------


def call(function: str, /, *args: object, **kwargs: object) -> "Any":
    """Return what a function of the student's returns, or the `Problem` it ended with.

    function: "module.function". Arguments and result are JSON: numbers, texts, booleans, None,
    lists and dictionaries; a tuple is a list, keys of dictionaries become texts. `inf` and `nan`
    pass as well.

    Raises:
        GraderError: the arguments are no JSON.
    """
    parts = function.split(".") if isinstance(function, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise broken('call() takes "module.function", then the arguments')
    try:
        request = to_json({"function": function, "args": args, "kwargs": kwargs})
    except _Carried as carried:
        return carried.problem
    except (TypeError, ValueError, RecursionError) as problem:
        why = str(problem) if isinstance(problem, TypeError) else "a value that holds itself"
        raise broken(f"call() takes only what is JSON: {why} is not") from problem
    given = [_shown(arg) for arg in args] + [f"{key}={_shown(kwargs[key])}" for key in kwargs]
    value = _value(control.ask("call", [], more=request))
    _remember(f"{function}({', '.join(given)})", value)
    return value


def _value(answer: Answer) -> "Any":
    """Return the value or problem that the harness told, which the student can tell as well."""
    problem = _limit_or_end(answer, lambda status: status == 0)
    if problem is not None:
        return problem
    if not answer.result:
        return Problem("runtime_error", "runtime_error: it ended the program instead of returning")
    try:
        told = from_json(answer.result)
        if "value" in told:
            return told["value"]
        if "exit" in told:
            says = f"runtime_error: exit status {int(told['exit'])}"
            return Problem("runtime_error", says, ("SystemExit", "BaseException"))
        if "unanswerable" in told:
            why = cut(str(told["unanswerable"]), MAX_SHOWN)
            return Problem("wrong_answer", f"what it returned cannot be compared: {why}")
        name, text, where = (cut(str(told[key]), MAX_SHOWN) for key in ("error", "text", "where"))
        bases = tuple(str(base) for base in told["bases"])
    except (ValueError, TypeError, KeyError, OverflowError):  # the last: an exit of infinity
        return Problem("runtime_error", "runtime_error: its answer cannot be read")
    says = f"{name}: {text}" if text else name
    return Problem("runtime_error", f"{says} ({where})" if where else says, (name, *bases), text)


class Ran:
    """How a program of the student's ended.

    stdout, stderr: what it wrote, as text; the `Problem` where it met a limit or left with another
    exit status than it should. exit_code: its exit status, minus the signal that ended it; the
    `Problem` where it met a limit.
    """

    __slots__ = ("_shown", "exit_code", "stderr", "stdout")

    def __init__(self, shown: str, stdout: "Any", stderr: "Any", exit_code: "Any") -> None:
        self._shown = shown
        self.stdout = stdout
        self.stderr = stderr
        self.exit_code = exit_code

    @property
    def numbers(self) -> "Any":
        """The numbers that it wrote, apart from one another by white space, and nothing else.

        A `Problem` where there is a word that is no number.
        """
        if isinstance(self.stdout, Problem):
            return self.stdout
        found: list[int | float] = []
        for word in self.stdout.split():
            number = _number(word)
            if number is None:
                says = f"{cut(repr(word), MAX_SHOWN)} is no number"
                return Problem("presentation", f"presentation: {says}")
            found.append(number)
        return found

    def __repr__(self) -> str:
        return self._shown


def run(
    file: str = "program", *args: object, stdin: "str | bytes" = "", exit: int | None = 0
) -> Ran:
    """Run a program of the student's to its end.

    file: one of the files that were handed in; "program" is the one that is run as a rule, and of
    compiled languages the only one. args: its arguments. stdin: what it reads.
    exit: the exit status it must have, None when any will do.

    Raises:
        GraderError: such a run cannot be asked for.
    """
    for value in (file, stdin, *args):
        if isinstance(value, Problem):
            return Ran("run()", value, value, value)
    given = [_shown(value) for value in (file, *args)]
    shown = f"run({', '.join(given)}{f', stdin={_shown(stdin)}' if stdin else ''})"
    if not isinstance(file, str) or file[:1] in ("", "-"):
        raise broken("run() takes the name of a file, then the arguments")
    if not isinstance(stdin, str | bytes):
        raise broken("run(stdin=…) takes text")
    argv = [str(arg) for arg in args]
    if os.environ.get("COMMSERVER_COMPILED") != "1":
        argv.insert(0, _main() if file == "program" else file)
    elif file not in ("program", *_names()):
        raise broken("run() of a compiled language starts one program: run()")
    data = stdin.encode("utf-8", "surrogateescape") if isinstance(stdin, str) else stdin
    answer = control.ask("run", argv, data)
    problem = _limit_or_end(answer, lambda status: status == exit or (exit is None and status >= 0))
    if problem is None:
        stdout = answer.stdout.decode("utf-8", "replace")
        stderr = answer.stderr.decode("utf-8", "replace")
        ran = Ran(shown, stdout, stderr, answer.exit)
    else:
        ran = Ran(shown, problem, problem, problem if answer.flags else answer.exit)
    _remember(shown, ran.stdout)
    return ran


def _main() -> str:
    """Return which file is run when none is named."""
    names = _names()
    main = os.environ.get("COMMSERVER_MAIN") or (names[0] if len(names) == 1 else "main.py")
    if main not in names:
        raise broken("run() without a file: which one, since there is no main.py?")
    return main


def _folder() -> str:
    return os.environ.get("COMMSERVER_SUBMISSION", ".")


def _names() -> list[str]:
    """Return how the student's files are called."""
    told = os.environ.get("COMMSERVER_NAMES")
    if told:
        return [str(name) for name in from_json(told.encode())]
    return sorted(
        os.path.relpath(os.path.join(folder, name), _folder())
        for folder, _, names in os.walk(_folder())
        for name in names
    )


def files() -> dict[str, bytes]:
    """Return what the student handed in, by name."""
    found = {}
    for name in _names():
        with open(os.path.join(_folder(), name), "rb") as file:
            found[name] = file.read()
    return found


# --- checks -------------------------------------------------------------------------------------


class check:
    """One thing that is checked: `with check("negative sides", points=5):`.

    Its points are the student's when its end is reached, unless `earn` gave part of them; a failed
    `expect` ends it. hidden: the student reads its name, what became of it and its hint, but
    neither what was called nor what was expected. hint: what the student reads when it fails.
    """

    def __init__(self, name: str, points: int = 1, *, hidden: bool = False, hint: str = "") -> None:
        if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
            raise broken(f"a check has a name of at most {MAX_NAME} characters")
        if type(points) is not int or points < 0:
            raise broken("the points of a check are a whole number, 0 or more")
        if not isinstance(hint, str) or len(hint) > MAX_HINT:
            raise broken(f"the hint of a check is a text of at most {MAX_HINT} characters")
        self.name = name
        self.points = points
        self.hidden = bool(hidden)
        self.hint = hint
        self.earned: int | None = None
        self.problem: Problem | None = None  # the last one that came up inside
        self.calls: list[tuple[str, object]] = []
        _session.made += 1
        if _session.made > MAX_CHECKS:
            raise broken(f"there are more than {MAX_CHECKS} checks")

    def __enter__(self) -> "check":
        if _session.check:
            raise broken("a check cannot stand inside of another")
        if self.name in _session.names:
            raise broken("two checks have the same name")
        _session.names.add(self.name)
        _session.check = self
        return self

    def __exit__(self, kind: object, raised: BaseException | None, trace: object) -> bool:
        problem = _session.problem if self.problem is None else self.problem
        if isinstance(raised, TypeError) and problem is not None:
            # Python's own functions do not know what a problem is: "".join([problem]).
            raised = Failed(problem._status, problem._says)
        if raised is not None and not isinstance(raised, Failed):
            return False  # the program is broken, or leaves; the check stays open
        _session.check = None
        earned = self.earned
        status, text = "accepted", ""
        if isinstance(raised, Failed):
            status, text = raised.status, raised.text
            earned = earned or 0
        elif earned is None:
            earned = self.points
        elif earned < self.points:
            status = "wrong_answer"
        text = _told.message(cut(text, MAX_MESSAGE))
        tell(
            {
                "check": self.name,
                "points": self.points,
                "earned": earned,
                "status": status,
                "hidden": self.hidden,
                "hint": _told.message(self.hint),
                "message": "" if self.hidden else text,
                "note": text if self.hidden else "",
                "runs": _told.runs,
            }
        )
        return True


def _open_check(what: str) -> check:
    if _session.check is None:
        raise broken(f'{what} belongs inside of a check: with check("…"):')
    return _session.check


def earn(points: int) -> None:
    """Give part of the points of the check; they stay the student's if a later `expect` fails.

    A check in which anything is earned is worth what was earned, and no more.
    """
    current = _open_check("earn()")
    if type(points) is not int or points < 0:
        raise broken("earn() takes a whole number, 0 or more")
    current.earned = (current.earned or 0) + points
    if current.earned > current.points:
        raise broken("more is earned than the check has points")


def say(*values: object) -> None:
    """Write a line for the student; at most 4,096 characters."""
    _told.say(" ".join(map(str, values)))


def expect(value: object, wanted: object, within: float | None = None) -> None:
    """End the check as failed unless both are the same.

    They are compared as Python does, lists and tuples alike; `nan` is the same as `nan`.
    wanted: a value, or an `error`. within: how far numbers, anywhere inside, may be apart:
    absolutely, or as a part of the wanted one.
    """
    current = _open_check("expect()")
    if isinstance(value, Ran) or isinstance(wanted, Ran):
        raise broken("expect() compares what a program wrote: run(…).stdout")
    if within is not None and not (_is_number(within) and 0 <= within < float("inf")):
        raise broken("expect(within=…) takes a number, 0 or more")
    difference = _difference(value, wanted, within, "")
    if difference is None:
        return
    place, culprit = difference
    status = "wrong_answer" if culprit is None else culprit._status
    lines = [_asked(current, value)]
    lines += [f"expected: {_shown(wanted)}" + (f" (± {within:g})" if within else "")]
    lines += [f"got: {_shown(value) if culprit is None or place else culprit._says}"]
    if place:
        lines += [f"they differ at {cut(place, MAX_SHOWN)}"]
    raise Failed(status, "\n".join(line for line in lines if line))


def _difference(
    value: object, wanted: object, within: float | None, place: str
) -> "tuple[str, Problem | None] | None":
    """Return where two values differ first and whose fault that is, None when they do not."""
    if isinstance(wanted, _Error):
        found = value if isinstance(value, Problem) else None
        return None if wanted.matches(value) else (place, found)
    for one in (value, wanted):
        if isinstance(one, Problem):
            return place, one
    if isinstance(value, list | tuple) and isinstance(wanted, list | tuple):
        for index, (mine, theirs) in enumerate(zip(value, wanted, strict=False)):
            difference = _difference(mine, theirs, within, f"{place}[{index}]")
            if difference:
                return difference
        shorter = min(len(value), len(wanted))
        return None if len(value) == len(wanted) else (f"{place}[{shorter}]", None)
    if isinstance(value, dict) and isinstance(wanted, dict):
        mine, theirs = ({_key(key): each[key] for key in each} for each in (value, wanted))
        for key in [*theirs, *(key for key in mine if key not in theirs)]:
            if key not in mine or key not in theirs:
                return f"{place}[{key!r}]", None
            difference = _difference(mine[key], theirs[key], within, f"{place}[{key!r}]")
            if difference:
                return difference
        return None
    return None if _same(value, wanted, within) else (place, None)


def _same(value: object, wanted: object, within: float | None) -> bool:
    if _is_number(value) and _is_number(wanted):
        if value == wanted or (value != value and wanted != wanted):
            return True
        if within is None or value in INFINITE or wanted in INFINITE:
            return False
        try:
            return bool(abs(value - wanted) <= within * max(1, abs(wanted)))
        except OverflowError:  # of a whole number beyond all floats
            return _same_whole(value, wanted, within)
    return bool(value == wanted)


def _same_whole(value: int | float, wanted: int | float, within: float) -> bool:
    """Compare as `_same` does, without any float."""
    if isinstance(value, float) or isinstance(wanted, float):
        return False
    part, of = within.as_integer_ratio()
    return abs(value - wanted) * of <= part * max(1, abs(wanted))


INFINITE = (float("inf"), float("-inf"))


def _is_number(value: object) -> "TypeGuard[int | float]":
    return isinstance(value, int | float) and not isinstance(value, bool)


def _key(key: object) -> object:
    """Return the key of a dictionary as JSON has it."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return repr(key) if isinstance(key, int | float) else key


def _shown(value: object) -> str:
    """Return a value as it is shown, with a bound."""
    return cut(repr(value), MAX_SHOWN)


def _remember(shown: str, value: object) -> None:
    """Note what was asked for in this check, for what the student reads if it fails."""
    if _session.check:
        _session.check.calls.append((cut(shown, MAX_SHOWN), value))


def _asked(current: check, value: object) -> str:
    """Return what was asked for to get a value, as far as can be known."""
    for shown, result in reversed(current.calls):
        if result is value:
            return shown
    return current.calls[-1][0] if current.calls else ""


def _number(word: str) -> int | float | None:
    """Return the number that a word is; None for any other, `inf`, `nan` and `1_000` included."""
    if not word.isascii() or "_" in word or len(word) > MAX_DIGITS:
        return None
    try:
        return int(word)
    except ValueError:
        pass
    try:
        number = float(word)
    except ValueError:
        return None
    return number if number - number == 0 else None


# --- judges and checkers ------------------------------------------------------------------------


class _Decider:
    """Ends a judge or checker with its decision; none of these returns."""

    def accept(self, message: str = "") -> "NoReturn":
        """The answer is right. message: the student reads it."""
        self._leave(RIGHT, message)

    def reject(self, message: str = "") -> "NoReturn":
        """The answer is wrong."""
        self._leave(WRONG, message)

    def presentation(self, message: str = "") -> "NoReturn":
        """The answer cannot be read."""
        self._leave(PRESENTATION, message)

    def points(self, earned: float, message: str = "") -> "NoReturn":
        """The answer is worth so many of the case's points; a part of a point does not count."""
        if not _is_number(earned) or not 0 <= earned < float("inf"):
            raise broken("points() takes a number, 0 or more")
        tell({"points": earned})
        self._leave(POINTS, message)

    def _leave(self, status: int, message: str) -> "NoReturn":
        if message:
            _told.say(str(message))
        for stream in (sys.stdout, sys.stderr):
            try:  # noqa: SIM105 -- contextlib is slow to load
                stream.flush()
            except (OSError, ValueError):
                pass  # whoever read it has ended
        # At once: a decision is final, whatever handlers the program has around it.
        os._exit(status)


class _Judge(_Decider):
    """Talks with the player of an interactive case, and decides.

    gone: the player had ended when something was said.
    """

    def __init__(self) -> None:
        self.gone = False
        self._case: str | None = None
        self._heard = bytearray()  # not yet taken
        self._words: list[bytes] = []  # taken but not yet used, the next one last
        self._inside = False  # of a line: words were taken, its end was not

    # What the case brings.

    def case_text(self) -> str:
        """Return the case's input."""
        if self._case is None:
            try:
                with open(CASE_FD, "rb", closefd=False) as file:
                    self._case = file.read().decode()
            except OSError as problem:
                raise broken(
                    'the judge has no "case.input -> judge.3" among its pipes'
                ) from problem
            except ValueError as problem:
                raise broken("the case's input is no UTF-8") from problem
        return self._case

    def case_lines(self) -> list[str]:
        """Return the lines of the case's input, without their ends."""
        return self.case_text().splitlines()

    def case_ints(self) -> list[int]:
        """Return the whole numbers of which the case's input is made."""
        numbers = [_number(word) for word in self.case_text().split()]
        if not all(isinstance(number, int) for number in numbers):
            raise broken("the case's input holds something else than whole numbers")
        return [int(number) for number in numbers if number is not None]

    def case_floats(self) -> list[float]:
        """Return the numbers of which the case's input is made."""
        numbers = [_number(word) for word in self.case_text().split()]
        if None in numbers:
            raise broken("the case's input holds something else than numbers")
        return [float(number) for number in numbers if number is not None]

    # The talk.

    def say(self, *values: object) -> None:
        """Send a line to the player, at once; nothing happens when it has ended."""
        try:
            print(*values, flush=True)
        except BrokenPipeError:
            self.gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the rest would fail again

    def hear(self) -> str:
        """Return the player's next line, without its end; of one that was begun, what is left.

        Garbage and the end of what it says are `presentation`, here and below; none of these
        returns then.
        """
        left = self._words[::-1]
        self._words = []
        if self._inside:
            self._inside = False
            left += (self._line() or b"").split()
        line = b" ".join(left) or self._line()
        if line is None:
            self._ended("a line")
        return self._text(line.removesuffix(b"\r"))

    def hear_word(self) -> str:
        """Return the player's next word; words are apart by white space, lines count as such."""
        return self._word("a word")

    def hear_int(self) -> int:
        """Return the player's next word, a whole number."""
        word = self._word("a whole number")
        number = _number(word)
        if not isinstance(number, int):
            self.presentation(f"a whole number was expected, not {cut(repr(word), MAX_SHOWN)}")
        return number

    def hear_float(self) -> float:
        """Return the player's next word, a number."""
        word = self._word("a number")
        number = _number(word)
        if number is None:
            self.presentation(f"a number was expected, not {cut(repr(word), MAX_SHOWN)}")
        return float(number)

    def _word(self, what: str) -> str:
        while not self._words:
            end = self._heard.find(b"\n") + 1
            self._inside = not end
            if not end:  # a word is whole as soon as white space follows it
                end = max(self._heard.rfind(space) for space in b" \t\r\v\f") + 1
            if not end:
                if len(self._heard) > MAX_WORD:
                    self.presentation("a word is too long")
                if self._more():
                    continue
                if not self._heard:
                    self._ended(what)
                end = len(self._heard)
            self._words = self._take(end).split()[::-1]
        return self._text(self._words.pop())

    def _line(self) -> bytes | None:
        """Take the next line, or what is left of it; None at the end of all."""
        seen = 0
        while (end := self._heard.find(b"\n", seen)) < 0:
            seen = len(self._heard)
            if seen > MAX_LINE:
                self.presentation("a line is too long")
            if not self._more():
                return self._take(seen) or None
        return self._take(end + 1)[:-1]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._heard[:size])
        del self._heard[:size]
        return taken

    def _more(self) -> bool:
        """Wait for more of what the player says; False at its end."""
        piece = os.read(0, 1 << 16)
        self._heard += piece
        return bool(piece)

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except ValueError:
            self.presentation("something was written that is no text")

    def _ended(self, what: str) -> "NoReturn":
        tell({"eof": True})
        self.presentation(f"nothing more was written where {what} was expected")


class _Checker(_Decider):
    """Compares files, for a checker that is a program: `from grader import checker`.

    Its files are given by their names in `sys.argv`: input, output, expected.
    """

    @property
    def input(self) -> str:
        """What the student's program read."""
        return self._file(1)

    @property
    def output(self) -> str:
        """What it wrote; what is no UTF-8 in it is replaced by "\\ufffd"."""
        return self._file(2)

    @property
    def expected(self) -> str:
        """What the exercise expects."""
        return self._file(3)

    def _file(self, number: int) -> str:
        _session.checking = True
        if len(sys.argv) <= number:
            raise broken("a checker is started with the names of three files")
        with open(sys.argv[number], "rb") as file:
            return file.read().decode("utf-8", "replace")


judge = _Judge()
checker = _Checker()
