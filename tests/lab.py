"""Where tests let programs loose: requests are made of a few lines, and reports are read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from commserver.core.execution import (
    Artifact,
    Case,
    CaseReport,
    Descriptor,
    ExecutionReport,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    ProcessReport,
    Resource,
    Stage,
    StageReport,
    WorkFile,
)
from commserver.engine.frames import Walls
from commserver.engine.sandbox import DockerSandbox

GENTLE = Limits(cpu=1.0, real=5.0)
BURNING = Limits(cpu=0.3, real=30.0)  # for what has to be ended by its cpu limit


def python(
    name: str, files: Sequence[str] = (), limits: Limits = GENTLE, *arguments: str
) -> Process:
    """A process that runs the file of its name with Python, beside others of the same names."""
    return Process(
        name,
        ("python3", name, *arguments),
        limits,
        tuple(Placement(path, path) for path in (name, *files)),
    )


def outputs(process: str, prefix: str = "") -> tuple[Pipe, Pipe]:
    """What keeps a process's standard output and standard error, as `out` and `err`."""
    return (
        Pipe(Descriptor(process, 1), Artifact(f"{prefix}out")),
        Pipe(Descriptor(process, 2), Artifact(f"{prefix}err")),
    )


def said(process: str, *fds: int) -> tuple[Pipe, ...]:
    """Pipes that keep what a process writes, as `process.fd`."""
    return tuple(Pipe(Descriptor(process, fd), Artifact(f"{process}.{fd}")) for fd in fds)


def alone(process: Process, *pipes: Pipe) -> Stage:
    """A stage of one process whose outputs are kept."""
    return Stage("run", (process,), (*outputs(process.name), *pipes))


DOUBLE = ExecutionRequest(
    image="python",
    files=(File("main.py", b"print(int(input()) * 2)\n"), File("in", b"21\n")),
    cases=(
        Case(
            "double",
            (alone(python("main.py"), Pipe(Resource("in"), Descriptor("main.py", 0))),),
        ),
    ),
)
"""The submission that must be right after whatever happened."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a program that ran alone in its stage."""

    report: ProcessReport
    stdout: bytes
    stderr: bytes
    missing: tuple[str, ...]

    @classmethod
    def of(cls, stage: StageReport, prefix: str = "") -> "Ran":
        """What a stage of one process tells; `prefix` as for `outputs`."""
        (report,) = stage.processes
        missing = tuple(artifact.name for artifact in stage.artifacts if artifact.missing)
        return cls(report, stage.content(f"{prefix}out"), stage.content(f"{prefix}err"), missing)

    @property
    def end(self) -> tuple[int, int]:
        """Its exit code and its flags."""
        return self.report.exit_code, self.report.flags


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a program that had to be compiled."""

    compilation: Ran
    cases: tuple[Ran, ...]


class Lab:
    """Where programs are let loose, each a case of its own, all in one container."""

    def __init__(self, sandbox: DockerSandbox, walls: Walls) -> None:
        self.sandbox = sandbox
        self.walls = walls
        self.used: set[str] = set()  # ids of the containers

    async def execute(
        self,
        *cases: Case,
        files: dict[str, str | bytes],
        prepare: tuple[Stage, ...] = (),
        image: str = "python",
    ) -> ExecutionReport:
        """What becomes of cases that are given these files."""
        contents = [
            File(name, text.encode() if isinstance(text, str) else text)
            for name, text in files.items()
        ]
        request = ExecutionRequest(image, tuple(contents), cases, prepare)
        report = await self.sandbox.execute(request, run="lab", slot=1)
        self.used.add(report.container)
        return report

    async def run(
        self,
        *programs: str,
        limits: Limits = GENTLE,
        stdin: bytes | None = None,
        files: dict[str, str | bytes] | None = None,
    ) -> tuple[Ran, ...]:
        """What became of some programs in Python, in order."""
        more = files or {}
        sources = {f"{number}.py": text for number, text in enumerate(programs)}
        told = {} if stdin is None else {"in": stdin}
        cases = [
            Case(
                name,
                (
                    alone(
                        python(name, tuple(more), limits),
                        *(Pipe(Resource(told_as), Descriptor(name, 0)) for told_as in told),
                    ),
                ),
            )
            for name in sources
        ]
        report = await self.execute(*cases, files={**sources, **more, **told})
        return tuple(map(ran, report.cases))

    async def compile(
        self,
        source: str,
        *cases: tuple[str, ...],
        flags: tuple[str, ...] = (),
        limits: Limits = GENTLE,
        compile_limits: Limits = Limits(cpu=10, real=30, memory=256 << 20),  # noqa: B008
    ) -> Compiled:
        """What became of a program in C, run once for each tuple of arguments."""
        gcc = Process(
            "gcc",
            ("gcc", *flags, "-o", "main", "main.c"),
            compile_limits,
            (Placement("main.c", "main.c"),),
        )
        main = Process("main", ("./main",), limits, (Placement("main", "main"),))
        report = await self.execute(
            *(
                Case(f"{number}", (alone(replace(main, argv=("./main", *case))),))
                for number, case in enumerate(cases)
            ),
            files={"main.c": source},
            prepare=(
                Stage(
                    "compile",
                    (gcc,),
                    (
                        *outputs("gcc", "gcc."),
                        Pipe(WorkFile("gcc", "main"), Artifact("main", returned=False)),
                    ),
                ),
            ),
            image="c",
        )
        return Compiled(Ran.of(report.prepare[0], "gcc."), tuple(map(ran, report.cases)))


def ran(case: CaseReport) -> Ran:
    """What became of a program that is all of a case."""
    (stage,) = case.stages
    return Ran.of(stage)


ASK = r"""
import json, os, socket, struct
control = socket.socket(fileno=3)

def receive(size):
    data = b""
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece: raise EOFError
        data += piece
    return data

def answer():
    head, body = struct.unpack(">II", receive(8))
    header, content = json.loads(receive(head)), receive(body)
    if "error" in header: return header["error"]
    parts = []
    for name in ("stdout", "stderr", "result"):
        parts.append(content[: header[name]]); content = content[header[name] :]
    return header["exit"], header["flags"], header["stopped"], *parts

def say(header, body=b"", size=None):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    control.sendall(struct.pack(">II", len(head), len(body) if size is None else size))
    control.sendall(head + body)

def ask(run, *args, stdin=b"", told=b"", **more):
    say({"run": run, "args": args, "stdin": len(stdin), "input": len(told), **more}, stdin + told)
    return answer()
"""
"""The beginning of a program that asks for runs: `ask(name, *arguments, stdin, told)`."""


async def check_all_is_well(lab: Lab) -> None:
    """Check that an honest submission is judged as if there were no other ones."""
    right, wrong, after = await lab.run(
        "print(int(input()) * 2)", "print(1 / 0)", "print('after')", stdin=b"21\n"
    )
    assert (right.end, right.stdout, right.stderr) == ((0, 0), b"42\n", b"")
    assert wrong.end == (1, 0)
    assert (after.end, after.stdout) == ((0, 0), b"after\n")
