"""Starts teachers' programs as a container does, with a runner of a few lines at the other end."""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import commserver.engine.runner

HOME = Path(commserver.engine.runner.__file__).parent
# Without `site`, which would look at this project's own packages for a tenth of a second.
PYTHON = (getattr(sys, "_base_executable", sys.executable), "-I", "-S")
PATIENCE = 20.0  # seconds, for what takes milliseconds


@dataclass(frozen=True)
class Asked:
    """What a script asked the runner for."""

    name: str
    args: list[str]
    stdin: bytes
    input: bytes
    real: float | None = None


@dataclass(frozen=True)
class Ended:
    """What is answered; the defaults are a run that went well."""

    stdout: bytes = b""
    stderr: bytes = b""
    result: bytes = b""
    exit: int = 0
    flags: int = 0
    real: float = 0.01
    error: str = ""


@dataclass(frozen=True)
class Left:
    """How a teacher's program ended."""

    exit: int
    stdout: str
    stderr: str
    tells: list[dict[str, Any]]
    asked: list[Asked] = field(default_factory=list)

    def told(self, key: str) -> list[Any]:
        """Return what was told under one key."""
        return [tell[key] for tell in self.tells if key in tell]

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """Return what was told of each check."""
        return {tell["check"]: tell for tell in self.tells if "check" in tell}


Runner = Callable[[Asked], Ended]


def students(folder: Path) -> Runner:
    """Return a runner that really runs what lies in a folder, as this user."""

    def one(asked: Asked) -> Ended:
        # As the images have it: `call` isolated, a program as a student would run it.
        python = (*PYTHON, str(HOME / "call.py")) if asked.name == "call" else (PYTHON[0], "-S")
        command = [*python, *asked.args]
        with tempfile.TemporaryFile() as result, tempfile.TemporaryFile() as more:
            more.write(asked.input)
            more.seek(0)
            three, four = result.fileno(), more.fileno()
            ended = subprocess.run(
                ["/bin/bash", "-c", f'exec "$@" 3>&{three} 4<&{four}', "bash", *command],
                input=asked.stdin,
                capture_output=True,
                cwd=folder,
                pass_fds=(three, four),
                timeout=PATIENCE,
                check=False,
            )
            result.seek(0)
            return Ended(ended.stdout, ended.stderr, result.read(), ended.returncode)

    return one


def start(
    kind: str,
    script: str,
    folder: Path,
    *,
    runner: Runner | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    stdin: bytes = b"",
    case: bytes | None = None,
    name: str = "grade.py",
) -> Left:
    """Write a program into a folder and run it there to its end.

    case: what a judge finds on descriptor 3, where a script has its runner.
    """
    (folder / name).write_text(script)
    asked: list[Asked] = []
    ours, theirs = socket.socketpair()
    tell_read, tell_write = os.pipe()
    if case is not None:
        (folder.parent / "case").write_bytes(case)
        third = os.open(folder.parent / "case", os.O_RDONLY)
    else:
        third = os.dup(theirs.fileno())
    process = subprocess.Popen(
        [
            *("/bin/bash", "-c", f'exec "$@" 3<&{third} 4>&{tell_write}', "bash"),
            *(*PYTHON, str(HOME / "launcher.py"), kind, name, *arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **(environment or {})},
        pass_fds=(third, tell_write),
    )
    theirs.close()
    os.close(third)
    os.close(tell_write)
    told: list[bytes] = []
    with open(tell_read, "rb") as tells:
        threads = [
            threading.Thread(target=lambda: told.append(tells.read())),
            threading.Thread(target=_serve, args=(ours, runner, asked)),
        ]
        for thread in threads:
            thread.start()
        stdout, stderr = process.communicate(stdin, PATIENCE)
        for thread in threads:
            thread.join(PATIENCE)
    ours.close()
    lines = [msgspec.json.decode(line) for line in told[0].splitlines()]  # strict, as the host
    return Left(process.returncode, stdout.decode(), stderr.decode(), lines, asked)


def _serve(connection: socket.socket, runner: Runner | None, asked: list[Asked]) -> None:
    """Answer what is asked on a control socket, until its other end is closed."""
    with connection.makefile("rb") as questions:
        while lengths := questions.read(8):
            size, body = struct.unpack(">II", lengths)
            header = json.loads(questions.read(size))
            stdin, more = questions.read(header["stdin"]), questions.read(header["input"])
            assert len(stdin) + len(more) == body
            asked.append(Asked(header["run"], header["args"], stdin, more, header.get("real")))
            ended = runner(asked[-1]) if runner else Ended(error="there is no such run")
            answer: dict[str, object] = {"error": ended.error}
            if not ended.error:
                answer = {
                    "exit": ended.exit,
                    "cpu": 0.01,
                    "real": ended.real,
                    "memory": 1,
                    "flags": ended.flags,
                    "stopped": bool(ended.flags),
                    "stdout": len(ended.stdout),
                    "stderr": len(ended.stderr),
                    "result": len(ended.result),
                }
            head = json.dumps(answer).encode()
            data = b"" if ended.error else ended.stdout + ended.stderr + ended.result
            connection.sendall(struct.pack(">II", len(head), len(data)) + head + data)
