"""What a request may need at most, before any of it is known."""

from dataclasses import replace

from commserver.core.execution import (
    MIB,
    Artifact,
    Case,
    Descriptor,
    ExecutionRequest,
    File,
    Limits,
    Pipe,
    Placement,
    Process,
    Resource,
    Role,
    Stage,
    WorkFile,
)
from commserver.engine.budget import CELL_MEMORY, Budget, bounds, budget

PAGE = 4096
SMALL = Limits(output=100, file_size=10 * PAGE, processes=3)
LARGE = Limits(output=5000, file_size=PAGE, processes=20)

SOURCE = Placement("source", "src/main.c")
PROGRAM = Placement("program", "main")
BUILD = Stage(
    "build",
    (Process("gcc", ("gcc",), SMALL, (SOURCE,)),),
    (
        Pipe(WorkFile("gcc", "main"), Artifact("program", returned=False)),
        Pipe(Descriptor("gcc", 2), Artifact("log")),
    ),
)
RUN = Process("run", ("./main",), LARGE, (PROGRAM, SOURCE))
GRADER = Process("grader", ("python3",), SMALL, (SOURCE,), role=Role.GRADER, may_run=(RUN,))
GRADE = Stage(
    "grade",
    (GRADER, Process("player", ("./main",), SMALL, (PROGRAM,))),
    (
        Pipe(Descriptor("grader", 1), Artifact("said")),
        Pipe(Descriptor("player", 1), Artifact("out", returned=False)),
        Pipe(Resource("program"), Artifact("copy")),
        Pipe(Resource("source"), Descriptor("player", 0)),
        Pipe(Resource("source"), Descriptor("grader", 0)),
    ),
)
LOOK = Stage("look", (Process("p", ("p",), SMALL, (Placement("copy", "x"),)),))
REQUEST = ExecutionRequest(
    "c",
    (File("source", bytes(PAGE + 1)), File("empty", b"")),
    (Case("one", (GRADE, LOOK)), Case("two", (GRADE,))),
    (BUILD,),
)


def test_an_artifact_is_bounded_by_what_it_comes_from() -> None:
    assert bounds(BUILD, {"source": PAGE + 1}) == {"program": 10 * PAGE, "log": 100}
    assert bounds(GRADE, {"program": 7}) == {"said": 100, "out": 100, "copy": 7}


def test_a_request_needs_what_its_largest_case_and_stage_do() -> None:
    assert budget(REQUEST) == Budget(
        using=2 * SMALL.memory + LARGE.memory + (2 + 12 + 10 + 4) * PAGE + 3 * CELL_MEMORY,
        # two pages of the source; program and log; said, out and copy of one case
        kept=(2 + 11 + 12) * PAGE,
        files=2 + 2 + 3,
        placed=12 * PAGE,  # program and source beside the run
        entries=3,  # main, src, src/main.c
        # beside grader, the run that it asks for and player; two copies of the source to read
        copies=(2 + 12 + 10 + 4) * PAGE,
        body=100 + 10 * PAGE,  # said and copy
        processes=3 + 20 + 3,
        cells=3,
    )


def test_a_request_of_one_program_needs_little() -> None:
    process = Process("p", ("p",), SMALL)

    assert budget(ExecutionRequest("c", (), (Case("one", (Stage("s", (process,)),)),))) == Budget(
        using=SMALL.memory + CELL_MEMORY,
        kept=0,
        files=0,
        placed=0,
        entries=0,
        copies=0,
        body=0,
        processes=3,
        cells=1,
    )


def test_what_is_used_at_once_is_used_in_one_stage() -> None:
    """A compiler's memory and what the programs have beside them are no one's together."""
    large = Limits(memory=512 * MIB, file_size=32 * MIB)
    gcc = replace(BUILD.processes[0], limits=large)
    run = Process("run", ("./main",), Limits(memory=64 * MIB), (PROGRAM,))
    request = replace(
        REQUEST,
        prepare=(replace(BUILD, processes=(gcc,)),),
        cases=(Case("one", (Stage("run", (run,)),)),),
    )

    assert budget(request).copies == 32 * MIB
    assert budget(request).using == 512 * MIB + 2 * PAGE + CELL_MEMORY


def test_what_passes_through_the_runner_costs_it_twice_as_much_above_a_bound() -> None:
    def using(output: int) -> int:
        process = Process("p", ("p",), Limits(output=output))
        pipe = Pipe(Descriptor("p", 1), Artifact("out"))
        return budget(
            ExecutionRequest("c", (), (Case("one", (Stage("s", (process,), (pipe,)),)),))
        ).using

    assert using(4 * MIB) == using(0)
    assert using(5 * MIB) == using(0) + 2 * MIB
