"""A request that cannot be carried out is refused with the path of each thing that is wrong."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from commserver.core import request_check
from commserver.core.execution import (
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
    Stop,
    WorkFile,
)
from commserver.errors import RequestError

COMPILE = Process("gcc", ("gcc", "main.c"), Limits(), (Placement("source", "main.c"),))
PLAYER = Process("player", ("./main",), Limits(), (Placement("program", "main"),))
JUDGE = Process(
    "judge",
    ("python3", "judge.py"),
    Limits(),
    (Placement("judge", "judge.py"), Placement("input", "data/input")),
    environment=(("LANG", "C.UTF-8"),),
    role=Role.GRADER,
    may_run=(replace(PLAYER, name="again"),),
)
BUILD = Stage("build", (COMPILE,), (Pipe(WorkFile("gcc", "out/main"), Artifact("program")),))
PLAY = Stage(
    "play",
    (PLAYER, JUDGE),
    (
        Pipe(Descriptor("player", 1), Descriptor("judge", 0)),
        Pipe(Descriptor("judge", 1), Descriptor("player", 0)),
        Pipe(Resource("input"), Descriptor("judge", 5)),
        Pipe(Resource("input"), Descriptor("judge", 6)),
        Pipe(Descriptor("judge", 4), Artifact("told")),
    ),
)
LOOK = Stage(
    "look",
    (replace(JUDGE, may_run=(), files=(Placement("told", "told"),)),),
    (Pipe(Resource("told"), Artifact("copy")), Pipe(Resource("told"), Descriptor("judge", 3))),
    stop=Stop.ALWAYS,
)
REQUEST = ExecutionRequest(
    image="python-numpy",
    files=(File("source", b"int main;"), File("judge", b"pass"), File("input", b"21")),
    prepare=(BUILD,),
    cases=(Case("one", (PLAY, LOOK)), Case("two", (PLAY, LOOK))),
)

FIRST = "cases[0].stages[0]"
PIPES = f"{FIRST}.pipes"


def problems(request: ExecutionRequest) -> tuple[str, ...]:
    """What is wrong with a request; a path each, in order."""
    with pytest.raises(RequestError) as error:
        request_check.check(request)
    return error.value.problems


def playing(stage: Stage) -> ExecutionRequest:
    """The request with another first stage in its first case."""
    return replace(REQUEST, cases=(Case("one", (stage, LOOK)), REQUEST.cases[1]))


def judged(**changes: Any) -> ExecutionRequest:
    """The same with another judge in it."""
    return playing(replace(PLAY, processes=(PLAYER, replace(JUDGE, **changes))))


def piped(*pipes: Pipe) -> ExecutionRequest:
    """The same with further pipes in it, of which the first is number 5."""
    return playing(replace(PLAY, pipes=(*PLAY.pipes, *pipes)))


def limited(**changes: Any) -> ExecutionRequest:
    return judged(limits=replace(JUDGE.limits, **changes))


def test_what_can_be_carried_out_passes() -> None:
    request_check.check(REQUEST)


def test_two_cases_may_leave_artifacts_of_one_name_but_know_not_each_others() -> None:
    asking = replace(LOOK, processes=(replace(LOOK.processes[0], files=()),))

    assert problems(replace(REQUEST, cases=(REQUEST.cases[0], Case("two", (asking,))))) == (
        "cases[1].stages[0].pipes[0].read.resource: there is no file or artifact 'told' yet",
        "cases[1].stages[0].pipes[1].read.resource: there is no file or artifact 'told' yet",
    )


@pytest.mark.parametrize(
    ("request_", "path", "what"),
    [
        (replace(REQUEST, image="../x"), "image", "no name of an image"),
        (replace(REQUEST, image=""), "image", "no name of an image"),
        (replace(REQUEST, prepare=(), cases=()), "cases", "nothing to run"),
        (replace(REQUEST, cases=(Case("one", ()),)), "cases[0].stages", "nothing to run"),
        (replace(REQUEST, cases=REQUEST.cases[:1] * 2), "cases[1].name", "already"),
        (replace(REQUEST, files=(*REQUEST.files, File("input", b""))), "files[3].name", "already"),
        (replace(REQUEST, files=(*REQUEST.files, File("", b""))), "files[3].name", "empty"),
        (replace(REQUEST, files=(*REQUEST.files, File("ä" * 600, b""))), "files[3].name", "longer"),
        (
            replace(REQUEST, prepare=(replace(BUILD, stop=Stop.ALWAYS),)),
            "prepare[0].stop",
            "the cases",
        ),
        (
            replace(REQUEST, cases=(Case("one", (PLAY, replace(LOOK, name="play"))),)),
            "cases[0].stages[1].name",
            "already",
        ),
        (
            replace(REQUEST, prepare=(BUILD, Stage("more", ()))),
            "prepare[1].processes",
            "nothing to run",
        ),
        (
            playing(replace(PLAY, processes=(PLAYER, JUDGE, PLAYER))),
            f"{FIRST}.processes[2].name",
            "already",
        ),
        (judged(argv=()), f"{FIRST}.processes[1].argv", "no program"),
        (judged(argv=("",)), f"{FIRST}.processes[1].argv", "no program"),
        (judged(argv=("x", "a\0b")), f"{FIRST}.processes[1].argv[1]", "zero byte"),
        (judged(argv=("x", "\ud800")), f"{FIRST}.processes[1].argv[1]", "Unicode"),
        (limited(cpu=0.0), f"{FIRST}.processes[1].limits.cpu", "not a time"),
        (limited(cpu=math.inf), f"{FIRST}.processes[1].limits.cpu", "not a time"),
        (limited(real=math.nan), f"{FIRST}.processes[1].limits.real", "not a time"),
        (limited(real=90_000.0), f"{FIRST}.processes[1].limits.real", "not a time"),
        (limited(memory=0), f"{FIRST}.processes[1].limits.memory", "no limit"),
        (limited(output=-1), f"{FIRST}.processes[1].limits.output", "no limit"),
        (limited(file_size=1 << 60), f"{FIRST}.processes[1].limits.file_size", "no limit"),
        (limited(processes=0), f"{FIRST}.processes[1].limits.processes", "no limit"),
        (judged(environment=(("", "x"),)), f"{FIRST}.processes[1].environment[0]", "no name"),
        (judged(environment=(("A=B", "x"),)), f"{FIRST}.processes[1].environment[0]", "no name"),
        (judged(environment=(("A", "\0"),)), f"{FIRST}.processes[1].environment[0]", "zero"),
        (
            judged(environment=(("A", "1"), ("A", "2"))),
            f"{FIRST}.processes[1].environment[1]",
            "already",
        ),
        (judged(role=Role.LEARNER), f"{FIRST}.processes[1].may_run", "only a grader"),
        (
            judged(may_run=(replace(PLAYER, name="a"),) * 2),
            f"{FIRST}.processes[1].may_run[1].name",
            "already",
        ),
        (
            judged(may_run=(replace(JUDGE, name="a"),)),
            f"{FIRST}.processes[1].may_run[0].may_run",
            "asks for none",
        ),
        (
            judged(may_run=(replace(PLAYER, limits=Limits(cpu=-1.0)),)),
            f"{FIRST}.processes[1].may_run[0].limits.cpu",
            "not a time",
        ),
        (
            judged(files=(Placement("told", "x"),)),
            f"{FIRST}.processes[1].files[0].name",
            "no file or artifact 'told' yet",
        ),
        (
            judged(files=(Placement("input", "x"), Placement("judge", "x"))),
            f"{FIRST}.processes[1].files[1].path",
            "already",
        ),
        (
            judged(files=(Placement("input", "x"), Placement("judge", "x/y"))),
            f"{FIRST}.processes[1].files[0].path",
            "a file and a folder",
        ),
        (piped(Pipe(Resource("no"), Descriptor("judge", 9))), f"{PIPES}[5].read.resource", "'no'"),
        (
            piped(Pipe(Resource("later"), Artifact("a")), Pipe(Resource("a"), Artifact("b"))),
            f"{PIPES}[5].read.resource",
            "'later'",
        ),
        (piped(Pipe(Descriptor("x", 9), Artifact("a"))), f"{PIPES}[5].read.process", "'x'"),
        (piped(Pipe(WorkFile("x", "a"), Artifact("a"))), f"{PIPES}[5].read.process", "'x'"),
        (piped(Pipe(WorkFile("judge", "a/../b"), Artifact("a"))), f"{PIPES}[5].read.file", "plain"),
        (
            piped(Pipe(WorkFile("judge", "a"), Descriptor("judge", 9))),
            f"{PIPES}[5].write",
            "to an artifact",
        ),
        (
            piped(Pipe(Resource("input"), Descriptor("judge", 4))),
            f"{PIPES}[5].write.fd",
            "descriptor 4 of 'judge' has a pipe already",
        ),
        (
            piped(Pipe(Descriptor("player", 0), Artifact("a"))),
            f"{PIPES}[5].read.fd",
            "descriptor 0 of 'player' has a pipe already",
        ),
        (
            piped(Pipe(Descriptor("judge", 256), Artifact("a"))),
            f"{PIPES}[5].read.fd",
            "256 is not from 0 to 255",
        ),
        (piped(Pipe(Resource("input"), Descriptor("judge", -1))), f"{PIPES}[5].write.fd", "-1"),
        (
            piped(Pipe(Resource("input"), Descriptor("judge", 3))),
            f"{PIPES}[5].write.fd",
            "where 'judge' asks for runs",
        ),
        (piped(Pipe(Resource("input"), Artifact(""))), f"{PIPES}[5].write.artifact", "empty"),
        (
            piped(Pipe(Resource("input"), Artifact("judge"))),
            f"{PIPES}[5].write.artifact",
            "'judge' is a file already",
        ),
        (
            piped(Pipe(Resource("input"), Artifact("program"))),
            f"{PIPES}[5].write.artifact",
            "'program' is an artifact already",
        ),
        (
            piped(Pipe(Resource("input"), Artifact("told"))),
            f"{PIPES}[5].write.artifact",
            "'told' is an artifact already",
        ),
    ],
)
def test_what_cannot_be_carried_out_is_refused_where_it_is_wrong(
    request_: ExecutionRequest, path: str, what: str
) -> None:
    found = problems(request_)

    assert any(problem.startswith(f"{path}: ") and what in problem for problem in found), found


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/.", "a\0b", "\ud800"),
        *("-o", "x" * 256, "a/" * 600 + "a"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: judged(files=(Placement("input", path),)),
        lambda path: piped(Pipe(WorkFile("judge", path), Artifact("a"))),
    ],
)
def test_paths_that_lead_elsewhere_are_refused(
    make: Callable[[str], ExecutionRequest], path: str
) -> None:
    [problem] = problems(make(path))

    assert "no relative, plain path" in problem


@pytest.mark.parametrize("path", ["x", "a/b", "@file", " ", "ü", "a/-o", "x" * 255, "..."])
def test_odd_but_plain_paths_are_taken(path: str) -> None:
    request_check.check(judged(files=(Placement("input", path),)))


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = problems(
        replace(
            judged(argv=(), limits=Limits(cpu=0.0, memory=0)),
            image="",
            files=(*REQUEST.files, File("input", b"")),
        )
    )

    assert [problem.split(": ")[0] for problem in found] == [
        "image",
        "files[3].name",
        f"{FIRST}.processes[1].argv",
        f"{FIRST}.processes[1].limits.cpu",
        f"{FIRST}.processes[1].limits.memory",
    ]


def test_files_above_what_the_runner_can_be_sent_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = sum(len(file.content) for file in REQUEST.files)
    monkeypatch.setattr(request_check, "MAX_CONTENT", size)
    request_check.check(REQUEST)

    monkeypatch.setattr(request_check, "MAX_CONTENT", size - 1)
    assert problems(REQUEST) == (f"files: they are longer than {size - 1} bytes together",)
