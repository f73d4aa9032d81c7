"""The program itself, started bare: the system's Python as a child process with pipes."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PYTHON = "/usr/bin/python3"  # outside any virtual environment; the image has the same version
PROGRAM = "print(int(input())*2)"
STDIN, STDOUT = b"21", b"42\n"


def write_program(folder: Path) -> Path:
    """Return the program as a file."""
    path = folder / "program.py"
    path.write_text(PROGRAM)
    return path


def run(program: Path) -> float:
    """Run it once and check what it says; returns seconds."""
    started = time.perf_counter()
    with subprocess.Popen(
        [PYTHON, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        output, _ = process.communicate(STDIN)
    seconds = time.perf_counter() - started
    if output != STDOUT:
        raise RuntimeError(f"the bare program said {output!r}")
    return seconds


def run_many(program: Path, count: int, parallel: int) -> float:
    """Run it `count` times, `parallel` at once; returns seconds."""
    started = time.perf_counter()
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda _: run(program), range(count)))
    return time.perf_counter() - started
