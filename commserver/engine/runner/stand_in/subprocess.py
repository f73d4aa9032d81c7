"""Stands in for `subprocess` in a correction script: starts the student's program, elsewhere.

Scripts that were written for a plain Python find what they need: `run`, `Popen` and the older
functions, with the student's program as their command: `[sys.executable, "main.py", …]` (also
`-c`, `-m`), or `["./program", …]` where the language is compiled. The program is run to its end in
a place of its own, by the runner; hence what is written to `stdin` is complete before anything can
be read, and there are no turns. It has the student's files only, its limits are the exercise's, and
`env` is not handed on. Text that is no UTF-8 is replaced, not refused.

Any other command is the teacher's fault, and told at once.
"""

import io
import os
import sys

# Ours, under the name that does not say that the script itself uses `grader`.
import commserver_grader  # type: ignore[import-not-found]  # the launcher gives it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CompletedProcess",
    "Popen",
    "SubprocessError",
    "TimeoutExpired",
    "call",
    "check_call",
    "check_output",
    "getoutput",
    "getstatusoutput",
    "run",
]

PIPE, STDOUT, DEVNULL = -1, -2, -3
TOO_LONG = 1 | 4  # flags of a run: cpu time, real time
KILLED = -9
SPECIAL = frozenset("|&;<>()$`*?[]{}~#\n")  # what a shell would do something with
PYTHONS = ("python", "python3", "python3.11")


class SubprocessError(Exception):
    """The root of what goes wrong."""


class CalledProcessError(SubprocessError):
    """The program left with another exit status than 0, and that was to be checked."""

    def __init__(
        self, returncode: int, cmd: object, output: "Any" = None, stderr: "Any" = None
    ) -> None:
        super().__init__(returncode, cmd, output, stderr)
        self.returncode = returncode
        self.cmd = cmd
        self.output = self.stdout = output
        self.stderr = stderr

    def __str__(self) -> str:
        return f"Command {self.cmd!r} returned non-zero exit status {self.returncode}."


class TimeoutExpired(SubprocessError):
    """The program took longer than it may: by the script or by the exercise."""

    def __init__(
        self, cmd: object, timeout: float, output: "Any" = None, stderr: "Any" = None
    ) -> None:
        super().__init__(cmd, timeout, output, stderr)
        self.cmd = cmd
        self.timeout = timeout
        self.output = self.stdout = output
        self.stderr = stderr

    def __str__(self) -> str:
        return f"Command {self.cmd!r} timed out after {self.timeout} seconds"


class CompletedProcess:
    """A program that has ended."""

    def __init__(
        self, args: object, returncode: int, stdout: "Any" = None, stderr: "Any" = None
    ) -> None:
        self.args = args
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr

    @classmethod
    def __class_getitem__(cls, item: object) -> "type[CompletedProcess]":
        return cls

    def __repr__(self) -> str:
        return f"CompletedProcess(args={self.args!r}, returncode={self.returncode!r})"

    def check_returncode(self) -> None:
        """Raise CalledProcessError unless it left with 0."""
        if self.returncode:
            raise CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)


class _Input(io.BytesIO):
    """What a script writes to a program before that is run."""

    def __init__(self) -> None:
        super().__init__()
        self._written: bytes | None = None
        self._over = False

    def write(self, data: "Any") -> int:
        if self._over:
            raise commserver_grader.broken(
                "subprocess: there are no turns with a program; that is what pipelines are for"
            )
        return super().write(data)

    def close(self) -> None:
        if self._written is None:
            self._written = self.getvalue()
        super().close()

    def taken(self) -> bytes:
        """Return all of it; nothing can be written any more."""
        self._over = True
        return self.getvalue() if self._written is None else self._written


class _Output(io.RawIOBase):
    """What a program writes, of which nothing is there before somebody reads it."""

    def __init__(self, program: "Popen", of: str) -> None:
        self._program = program
        self._of = of
        self._data: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Any") -> int:
        if self._data is None:
            self._data = io.BytesIO(self._program._output(self._of))
        return self._data.readinto(buffer)


class Popen:
    """A program of the student's; it is run when its end or its output is waited for."""

    def __init__(
        self,
        args: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
        bufsize: int = -1,
        executable: object = None,
        stdin: "Any" = None,
        stdout: "Any" = None,
        stderr: "Any" = None,
        preexec_fn: object = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: "str | os.PathLike[str] | None" = None,
        env: "Mapping[str, str] | None" = None,
        universal_newlines: bool | None = None,
        *,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **ignored: object,  # start_new_session, user, umask …: the sandbox's own affair
    ) -> None:
        self.args = args
        self._argv = _argv(args, shell=shell)
        _check_folder(cwd)
        if executable is not None:
            raise commserver_grader.broken("subprocess: executable= is not for student's programs")
        self._text = bool(text or universal_newlines or encoding or errors)
        self._encoding = encoding or "utf-8"
        self._errors = errors or "replace"
        self._from = stdin
        self._to = {"stdout": stdout, "stderr": stderr}
        self._answer: Any = None
        self._timed_out = False
        self.pid = 0  # not of this place
        self.returncode: int | None = None
        self._input = _Input()
        self.stdin: Any = self._wrapped(self._input) if stdin == PIPE else None
        self.stdout: Any = self._reader("stdout") if stdout == PIPE else None
        self.stderr: Any = self._reader("stderr") if stderr == PIPE else None

    @classmethod
    def __class_getitem__(cls, item: object) -> "type[Popen]":
        return cls

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def communicate(
        self, input: "str | bytes | None" = None, timeout: float | None = None
    ) -> "tuple[Any, Any]":
        """Give it all its input and return all that it wrote: where PIPE was said, else None.

        Raises:
            TimeoutExpired: a time was given, and the program took longer or met a time limit.
        """
        if input is not None and not self._input.closed:
            self.stdin.write(input)
        self.wait(timeout)
        return tuple(stream.read() if stream else None for stream in (self.stdout, self.stderr))  # type: ignore[return-value]  # two

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status, minus the signal that ended it.

        Raises:
            TimeoutExpired: as of `communicate`.
        """
        self._run(timeout)
        answer = self._answer
        too_long = answer.flags & TOO_LONG or (timeout is not None and answer.real > timeout)
        if timeout is not None and too_long and not self._timed_out:
            self._timed_out = True  # once: scripts kill it and wait again
            output = [self._decoded(self._output(name)) for name in ("stdout", "stderr")]
            raise TimeoutExpired(self.args, timeout, *output)
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status: it has always ended."""
        self._run()
        return self.returncode

    def kill(self) -> None:
        """Do nothing: it has ended, or was never begun."""

    terminate = kill

    def send_signal(self, sig: int) -> None:
        """Do nothing, likewise."""

    def _run(self, timeout: float | None = None) -> None:
        if self._answer is not None:
            return
        if self.stdin is not None and not self.stdin.closed:
            self.stdin.flush()
        answer = commserver_grader.control.ask(
            "run", self._argv, self._standard_input(), real=timeout
        )
        self._answer = answer
        # What met a limit has not gone well, even if it ended by itself.
        self.returncode = KILLED if answer.flags and answer.exit == 0 else answer.exit
        for name in ("stdout", "stderr"):
            self._deliver(name, self._to[name])

    def _standard_input(self) -> bytes:
        source = self._from
        if source == PIPE:
            return self._input.taken()
        if source is None or source == DEVNULL:
            return b""
        if isinstance(source, int):
            with open(source, "rb", closefd=False) as file:
                return file.read()
        data = source.read()
        return data.encode() if isinstance(data, str) else bytes(data)

    def _output(self, name: str) -> bytes:
        self._run()
        merged = self._to["stderr"] == STDOUT
        if name == "stderr":
            return b"" if merged else bytes(self._answer.stderr)
        return bytes(self._answer.stdout + (self._answer.stderr if merged else b""))

    def _deliver(self, name: str, to: "Any") -> None:
        """Write what nobody reads to where a program of this script's would have written it."""
        if to in (PIPE, DEVNULL, STDOUT):
            return
        data = self._output(name)
        if to is None:
            to = sys.stdout if name == "stdout" else sys.stderr
        elif not isinstance(to, int) and to not in (sys.stdout, sys.stderr):
            to.flush()
            to = to.fileno()
        if isinstance(to, int):
            with open(to, "wb", closefd=False) as file:
                file.write(data)
        else:
            to.flush()
            to.buffer.write(data)
            to.flush()

    def _decoded(self, data: bytes) -> "Any":
        if not self._text:
            return data
        text = data.decode(self._encoding, self._errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _reader(self, name: str) -> "Any":
        return self._wrapped(io.BufferedReader(_Output(self, name)))

    def _wrapped(self, stream: "Any") -> "Any":
        if not self._text:
            return stream
        return io.TextIOWrapper(stream, self._encoding, self._errors, write_through=True)


def run(
    args: "Any",
    *,
    input: "str | bytes | None" = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: "Any",
) -> CompletedProcess:
    """Run a program to its end.

    Raises:
        CalledProcessError: `check`, and its exit status is not 0.
        TimeoutExpired: a time was given, and the program took longer or met a time limit.
    """
    if input is not None:
        options["stdin"] = PIPE
    if capture_output:
        options["stdout"] = options["stderr"] = PIPE
    program = Popen(args, **options)
    stdout, stderr = program.communicate(input, timeout)
    ended = CompletedProcess(args, program.wait(), stdout, stderr)
    if check:
        ended.check_returncode()
    return ended


def call(args: "Any", *, timeout: float | None = None, **options: "Any") -> int:
    """Return the exit status of a program."""
    return Popen(args, **options).wait(timeout)


def check_call(args: "Any", **options: "Any") -> int:
    """Return 0, or raise CalledProcessError."""
    status = call(args, **options)
    if status:
        raise CalledProcessError(status, args)
    return 0


def check_output(args: "Any", **options: "Any") -> "Any":
    """Return what a program writes, or raise CalledProcessError."""
    return run(args, stdout=PIPE, check=True, **options).stdout


def getstatusoutput(cmd: str, **options: "Any") -> tuple[int, str]:
    """Return exit status and all output of a command without any of a shell's doings."""
    ended = run(cmd, shell=True, stdout=PIPE, stderr=STDOUT, text=True, **options)  # noqa: S602
    return ended.returncode, ended.stdout.removesuffix("\n")


def getoutput(cmd: str, **options: "Any") -> str:
    """Return all output of a command."""
    return getstatusoutput(cmd, **options)[1]  # noqa: S605 -- no shell


# --- commands -----------------------------------------------------------------------------------


def _argv(args: "Any", *, shell: bool) -> list[str]:
    """Return what follows the argv of the runner's entry."""
    if isinstance(args, str | bytes | os.PathLike):
        command = os.fsdecode(args)
        if shell:
            if not SPECIAL.isdisjoint(command):
                raise commserver_grader.broken(
                    "subprocess: there is no shell; give the command as a list, without < > | …"
                )
            import shlex  # only here, since it takes time

            words = shlex.split(command)
        else:
            words = [command]
    else:
        words = [os.fsdecode(word) for word in args]
    if not words:
        raise commserver_grader.broken("subprocess: the command is empty")
    program, *rest = words
    if os.environ.get("COMMSERVER_COMPILED") == "1":
        if _own(program) in ("program", *commserver_grader._names()):
            return rest
    elif program == sys.executable or os.path.basename(program) in PYTHONS:
        return [_own(word) for word in rest]
    raise commserver_grader.broken(
        "subprocess: only the student's program can be started:"
        ' [sys.executable, "main.py"], or ["./program"] where it is compiled'
    )


def _own(word: str) -> str:
    """Return a path of the student's folder as the student's program knows it."""
    if "/" not in word or word.startswith("-"):
        return word
    if os.path.isabs(word) or os.path.lexists(word):
        for folder in (commserver_grader._folder(), os.getcwd()):
            path = os.path.relpath(word, folder)
            if path.split("/")[0] != "..":
                return path
    return word.removeprefix("./")


def _check_folder(cwd: "str | os.PathLike[str] | None") -> None:
    here = (os.getcwd(), os.path.realpath(commserver_grader._folder()))
    if cwd is not None and os.path.realpath(cwd) not in here:
        raise commserver_grader.broken("subprocess: cwd= is the student's folder and no other")
