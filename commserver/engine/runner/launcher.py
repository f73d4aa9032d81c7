"""Starts a teacher's Python program so that a crash of it can be told from what it decides.

    launcher.py KIND FILE ARGUMENTS…        KIND: checker, judge or script

A bare Python crash exits with 1, which for a checker means "wrong answer": a typo would fail a
class. Here an uncaught exception, a file that does not compile, `sys.exit("text")` and whatever
else is no exit status of the program's own is told on `TELL_FD` and exits with `BROKEN`, which is
the teacher's fault.

`grader` is importable in every kind. The modules beside FILE are too, but nothing that a student
handed in ever is, in a script, nor does it shadow anything: no student's code runs in here. There
`subprocess` is the stand-in, which asks the runner for siblings. All this keeps a teacher from
starting a student's code by habit; what keeps a student out is that nobody else can.

A script finds out where the student's files lie by its environment: `COMMSERVER_SUBMISSION` is
their folder, "." where they lie beside it.
"""

# Start-up time counts, as in `runner.py`: only what the interpreter has loaded anyway.
import io
import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _json import encode_basestring_ascii as quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, ModuleType
    from typing import Any, NoReturn

HOME = os.path.dirname(os.path.abspath(__file__))
TELL_FD = 4
BROKEN = 3  # exit status: the teacher's program is
PRESENTATION = 2  # exit status
EOF = b'{"eof":true}\n'  # told: a judge met the end of what the player says or hears
MAX_DETAILS = 16 << 10  # characters of a traceback that are told

MAX_LOG = 1 << 20  # bytes of what a script prints that are written as they come
MAX_END = 4 << 10  # … and of its end, where that is more

# What a student may be shown of, since it repeats none of the values the program worked with.
HARMLESS = ("SyntaxError", "IndentationError", "TabError", "ImportError", "ModuleNotFoundError")

REFUSED = (
    "no student's code runs inside of a script; ask for it with grader.call or grader.run, or start"
    " it with subprocess"
)


def tell_fault(text: str, details: str) -> None:
    """Tell that the teacher's program is broken; `text` is a line that a student may read."""
    if len(details) > MAX_DETAILS:
        details = f"{details[: MAX_DETAILS // 4]}\n…\n{details[-MAX_DETAILS // 4 * 3 :]}"
    # Strict readers take no lone surrogates, which a program can very well say.
    first, rest = (quote(one.encode("utf-8", "replace").decode()) for one in (text, details))
    line = memoryview(f'{{"fault":{first},"details":{rest}}}\n'.encode())
    try:
        while line:
            line = line[os.write(TELL_FD, line) :]
    except OSError:
        pass  # nobody listens; the exit status says it as well


def tell(line: bytes) -> None:
    """Tell one short line, if anybody listens."""
    try:  # noqa: SIM105 -- contextlib is slow to load
        os.write(TELL_FD, line)
    except OSError:
        pass


# --- what can be imported -----------------------------------------------------------------------


class Ours:
    """Finds and loads our own modules before anything else of that name.

    One module stands behind two names: `grader`, which a script's import of is told, and
    `commserver_grader`, by which the stand-in takes its client from it.
    """

    def __init__(self, kind: str, script: str, folder: str) -> None:
        self.program = (kind, script, folder)
        self.files = {"commserver_grader": "grader.py"}
        if kind == "script":
            self.files["subprocess"] = "stand_in/subprocess.py"

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: object = None
    ) -> ModuleSpec | None:
        """Return where one of our modules comes from."""
        if name == "grader" or name in self.files:
            return ModuleSpec(name, self)  # type: ignore[arg-type]  # no more is asked of it
        return None

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        """Return the one that is there already, for `grader`."""
        return __import__("commserver_grader") if spec.name == "grader" else None

    def exec_module(self, module: "Any") -> None:
        """Fill a new module, or introduce the one that is there."""
        name = module.__spec__.name
        if name == "grader":
            module._introduce()
            return
        path = os.path.join(HOME, self.files[name])
        module.__file__ = path
        exec(read_code(path), module.__dict__)  # noqa: S102 -- this is what importing is
        if name == "commserver_grader":
            module._begin(*self.program)


def read_code(path: str) -> "Any":
    """Return a file of ours, compiled: beforehand where there is such a file beside it."""
    try:
        with open(path + "c", "rb") as file:
            return marshal.loads(file.read()[16:])  # noqa: S302 -- our own, behind its header
    except FileNotFoundError:
        with open(path, "rb") as file:
            return compile(file.read(), path, "exec", dont_inherit=True)


class Guard:
    """Keeps what a student handed in from being imported or executed by a script.

    It takes the place of Python's finder of files, and sees each `exec`.
    """

    def __init__(self, folder: str, script: str, finder: "Any") -> None:
        self.folder = os.path.realpath(folder)
        self.teachers = os.path.dirname(os.path.realpath(script))
        self.script = script
        self.finder = finder
        self._sources: list[bytes] | None = None
        self._compiled = ""  # the name under which a student's text was compiled last

    def holds(self, path: str) -> bool:
        """Return whether a path lies in the student's folder."""
        return f"{os.path.realpath(path)}/".startswith(f"{self.folder}/")

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: object = None
    ) -> ModuleSpec | None:
        """Return what Python would find if the student's files were not there.

        Raises:
            ModuleNotFoundError: it would find nothing, and theirs is what the teacher meant.
        """
        places = [place for place in (sys.path if path is None else path) if not self.holds(place)]
        spec: ModuleSpec | None = self.finder.find_spec(name, places, target)
        if spec is not None or not self._is_teachers(sys._getframe(1)):
            return spec
        last = name.rpartition(".")[2]
        theirs = [self.folder] if path is None else [place for place in path if self.holds(place)]
        if any(
            os.path.exists(os.path.join(place, file))
            for place in theirs
            for file in (last, f"{last}.py")
        ):
            text = f"{name!r} is the student's: {REFUSED}"
            raise self._refusal(ModuleNotFoundError(text, name=name))
        return None

    def _is_teachers(self, frame: "FrameType | None") -> bool:
        """Return whether it is the teacher's own code that imports."""
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        file = frame.f_code.co_filename if frame else ""
        return file == self.script or (
            os.path.dirname(os.path.realpath(file)) == self.teachers and not self.holds(file)
        )

    def watch(self, event: str, arguments: "tuple[Any, ...]") -> None:
        """Refuse to execute a student's text, and to start programs behind our back.

        Raises:
            RuntimeError: it was about to.
        """
        if event == "compile":
            source, name = arguments
            file = os.fsdecode(name)
            theirs = (
                isinstance(source, str | bytes)
                and self._is_theirs(source)
                and not self._is_ours(file, source)
            )
            self._compiled = file if theirs else ""
        elif event == "exec":
            file = arguments[0].co_filename
            ours = file == self.script or file.startswith("<frozen")
            if not ours and (file == self._compiled or (file[:1] != "<" and self._runs(file))):
                self._stop(f"exec: {REFUSED}")
        elif event in ("os.system", "os.exec", "os.posix_spawn"):
            self._stop(f"{event}: a script starts programs with subprocess or grader.run only")

    def _runs(self, file: str) -> bool:
        return self.holds(file) and os.path.exists(file)

    def _is_ours(self, file: str, source: str | bytes) -> bool:
        """Return whether a text is that of a file which is not the student's.

        A right solution may well be the one that the teacher has beside the script.
        """
        if not os.path.isabs(file) or self.holds(file) or not os.path.isfile(file):
            return False
        with open(file, "rb") as opened:
            return source == opened.read()

    def _is_theirs(self, source: str | bytes) -> bool:
        """Return whether a text is, or holds, one that the student handed in."""
        if self._sources is None:
            self._sources = []  # first: reading compiles nothing, but may come back here
            for folder, _, names in os.walk(self.folder):
                for name in names:
                    path = os.path.join(folder, name)
                    if path != os.path.realpath(self.script):
                        with open(path, "rb") as file:
                            self._sources.append(essence(file.read()))
        text = essence(source if isinstance(source, bytes) else source.encode("utf-8", "replace"))
        return any(
            theirs == text or (len(theirs) >= 16 and theirs in text)
            for theirs in self._sources
            if theirs
        )

    def _stop(self, text: str) -> "NoReturn":
        raise self._refusal(RuntimeError(text))

    def _refusal(self, error: Exception) -> Exception:
        """Tell it at once and return it: scripts have handlers that would make a zero of it."""
        frame: FrameType | None = sys._getframe(1)
        where = ""
        while frame and not where:
            if frame.f_code.co_filename == self.script:
                where = f", line {frame.f_lineno}"
            frame = frame.f_back
        text = f"{self.script}{where}: {error}"
        tell_fault(text, text)
        error.told = True  # type: ignore[attr-defined]  # for `crashed`
        return error


def essence(source: bytes) -> bytes:
    """Return what of a text stays the same however it was read: its visible ASCII."""
    return source.translate(None, bytes(range(33)) + bytes(range(127, 256)))


def is_text(path: str) -> bool:
    """Return whether a file holds UTF-8; also where there is none."""
    try:
        with open(path, "rb") as file:
            file.read().decode()
    except UnicodeDecodeError:
        return False
    except OSError:
        pass
    return True


# --- the program --------------------------------------------------------------------------------


class Log(io.RawIOBase):
    """What a script prints: of very much only the beginning and the end.

    Scripts print what students' programs wrote, which may be megabytes each time, and a script that
    prints too much is ended.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._room = MAX_LOG
        self._end = bytearray()
        self._left_out = 0

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def fileno(self) -> int:
        """Return where it leads."""
        return self._fd

    def write(self, data: "Any") -> int:
        """Write what there is room for, and keep the rest as long as it may be the end."""
        size = len(data)
        rest = memoryview(data)[: self._room]
        self._room -= len(rest)
        self._end += memoryview(data)[len(rest) :]
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        if len(self._end) > 2 * MAX_END:
            self._left_out += len(self._end) - MAX_END
            del self._end[:-MAX_END]
        return size

    def finish(self) -> None:
        """Write the end."""
        self._room += len(self._end) + MAX_END
        if self._left_out:
            self.write(f"\n… ({self._left_out} bytes are left out)\n".encode())
        end, self._end, self._left_out = self._end, bytearray(), 0
        self.write(end)


LOGS: list[Log] = []


def bound_logs() -> None:
    """Have what the program prints go through `Log`s."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        LOGS.append(Log(fd))
        before = getattr(sys, name)
        stream = io.TextIOWrapper(
            io.BufferedWriter(LOGS[-1]), before.encoding, before.errors, line_buffering=True
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def flush() -> None:
    """Write out what the program printed, as far as anybody reads it."""
    for number, stream in enumerate((sys.stdout, sys.stderr)):
        try:
            stream.flush()
            for log in LOGS[number : number + 1]:
                log.finish()
        except (OSError, ValueError):
            # Python would try again at its end, and exit with 120.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number + 1)


def break_off(text: str, details: str) -> int:
    """Say that the program is broken, unless told before (no text); return the exit status."""
    if text:
        tell_fault(text, details)
    flush()
    try:  # noqa: SIM105 -- contextlib is slow to load
        print(details, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass
    return BROKEN


def crashed(script: str, folder: str, source: bytes, error: BaseException) -> int:
    """Say where and of what it died, with the teacher's own lines; return the exit status."""
    # Only here, since they load a good deal.
    import linecache
    import traceback

    lines = source.decode("utf-8", "replace").splitlines(keepends=True)
    linecache.cache[script] = (len(source), None, lines, script)
    report = traceback.TracebackException.from_exception(error)
    report.stack[:] = [
        frame
        for frame in report.stack
        if not (frame.filename.startswith(HOME) or frame.filename.startswith("<frozen importlib"))
    ]
    details = "".join(report.format()).replace(f"{folder}/", "")
    line = next((frame.lineno for frame in reversed(report.stack) if frame.filename == script), 0)
    if isinstance(error, SyntaxError) and error.filename == script:
        line = error.lineno
    where = f"{script}, line {line}" if line else script
    says = type(error).__name__
    if says in HARMLESS:
        says = f"{says}: {' '.join(str(error).split())}"
    return break_off("" if getattr(error, "told", False) else f"{where}: {says}", details)


def left(kind: str, script: str, code: object) -> int:
    """Return the exit status of a program that left with `sys.exit(code)`, or came to its end."""
    grader: Any = sys.modules.get("grader")
    explicit = code is not None
    if code is None and kind == "judge":
        text = "it ended without a decision: accept(), reject(), sys.exit(0) …"
        return break_off(f"{script}: {text}", f"{script}: {text}")
    if code is None:
        code = 0
    if type(code) is not int or not 0 <= code <= 255:
        text = "sys.exit() with something else than an exit status"
        return break_off(f"{script}: {text}", f"{script}: {text}: {code}")
    if grader is not None and code == 0:
        text = grader._finish(explicit)
        if text:
            return break_off(f"{script}: {text}", f"{script}: {text}")
    return code


def guard(script: str) -> Guard:
    """Put a guard between a script and the student's files."""
    folder = os.path.abspath(os.environ.get("COMMSERVER_SUBMISSION", "."))
    one = Guard(folder, script, sys.meta_path[-1])
    sys.meta_path[-1] = one
    sys.addaudithook(one.watch)
    return one


def main(kind: str, script: str, arguments: list[str]) -> int:
    """Run a program to its end; return the exit status."""
    sys.dont_write_bytecode = True
    path = os.path.abspath(script)
    folder = os.path.dirname(path)
    if kind == "script":
        bound_logs()
    for stream in (sys.stdout, sys.stderr):
        # A judge that forgets to flush does not hang, and what is killed has its log.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text file
    module = type(sys)("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    sys.argv[:] = [script, *arguments]
    source = b""
    try:
        with open(path, "rb") as file:
            source = file.read()
        code = compile(source, script, "exec", dont_inherit=True)
        if kind != "script" or not guard(script).holds(folder):
            sys.path.insert(0, folder)
        sys.meta_path.insert(0, Ours(kind, script, folder))
        exec(code, module.__dict__)  # noqa: S102 -- the teacher's program
        status = left(kind, script, None)
    except SystemExit as end:
        # A judge's bare sys.exit() decides nothing; a script's or checker's means 0, as ever.
        status = left(kind, script, end.code)
    except BrokenPipeError as error:
        if kind == "judge":  # the player ended, and this judge writes with print
            tell(EOF)
            status = PRESENTATION
        else:
            status = crashed(script, folder, source, error)
    except EOFError as error:
        if kind == "judge":  # so that the crash of a player is not taken for the judge's own
            tell(EOF)
        status = crashed(script, folder, source, error)
    except UnicodeDecodeError as error:
        # What it compares may be the student's bytes, of which most checkers do not think.
        if kind == "checker" and not is_text(os.path.join(folder, *arguments[1:2])):
            tell(b'{"say":"something was written that is no text"}\n')
            status = PRESENTATION
        else:
            status = crashed(script, folder, source, error)
    except BaseException as error:  # also MemoryError, KeyboardInterrupt: no decision either
        status = crashed(script, folder, source, error)
    flush()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
