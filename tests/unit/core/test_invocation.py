"""Pipelines as the invoker protocol writes them: its own samples as they stand, and what is wrong.

The samples of `invoker_samples/` are the protocol's first page, to the letter.
"""

import contextlib
import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commserver.core.execution import (
    KIB,
    MIB,
    Artifact,
    ArtifactReport,
    Descriptor,
    Flag,
    Limits,
    Pipe,
    Placement,
    ProcessReport,
    Resource,
    Role,
    RunReport,
    StageReport,
    Stop,
    WorkFile,
)
from commserver.core.invocation import (
    MAX_DEPTH,
    Executable,
    Pipeline,
    Program,
    answer,
    read_json,
    read_pipeline,
)
from commserver.errors import RequestError

SAMPLES = Path(__file__).with_name("invoker_samples")
INVOKE = (SAMPLES / "invoke_request.json").read_text(encoding="utf-8")

SOLUTION = "522e65ba5a17fefbbedccc1b650ecedde44898716446f7113a235a634af6e78f"
CHECKER = "5030ba6f9f3787e13df3c821acef52cca95dbbc9af948a27d75ba5a3a6b31c80"
INPUT = "d9f5be097c6452cf2f0f5a8f4921952fc6c93c05550f1c613aa8c458f321d4cb"
ANSWER = "2e4acd714d8446e919fbdd69a5784d80f26dbc00b584d478115b2294ce320b40"


def known(program: Program) -> Executable:
    """Start what is there: Python by its interpreter, the rest as it is."""
    match program.language:
        case "python3":
            argv: tuple[str, ...] = ("python3", program.source)
        case "gxx" | "":
            argv = ("./program",)
        case _:
            raise RequestError([f"language: {program.language!r} is not known"])
    path = program.source if program.language == "python3" else "program"
    return Executable(argv, (Placement(program.executable, path),))


def read(value: object, **options: Any) -> Pipeline:
    """Read a pipeline of programs that are there."""
    return read_pipeline(value, program=known, **options)


def problems(value: object, **options: Any) -> tuple[str, ...]:
    """What is wrong with a pipeline."""
    with pytest.raises(RequestError) as error:
        read(value, **options)
    return error.value.problems


def process(**changes: Any) -> dict[str, Any]:
    """A process that reads nothing."""
    return {
        "language": "python3",
        "executable": SOLUTION,
        "arguments": {"source": "main.py"},
        **changes,
    }


def stage(**changes: Any) -> dict[str, Any]:
    """A stage of one process."""
    return {"processes": {"p": process()}, **changes}


@pytest.mark.parametrize("path", sorted(SAMPLES.iterdir()), ids=lambda path: path.stem)
def test_the_protocols_samples_can_be_read(path: Path) -> None:
    value = read_json(path.read_text(encoding="utf-8"))

    assert isinstance(value, Mapping)
    assert value["type"] == path.stem


def test_the_protocols_pipeline_is_what_it_says() -> None:
    pipeline = read(read_json(INVOKE))

    solving, checking = pipeline.stages
    assert pipeline.private == {"output"}
    [solution] = solving.processes
    assert solution.argv == ("python3", "solution.py")
    assert solution.files == (Placement(SOLUTION, "solution.py"),)
    assert solution.limits == Limits(
        cpu=1.0, real=5.0, memory=256 * MIB, output=16 * MIB, file_size=16 * MIB
    )
    assert solving.pipes == (
        Pipe(Resource(INPUT), Descriptor("solution", 0)),
        Pipe(Descriptor("solution", 1), Artifact("output")),
    )
    [checker] = checking.processes
    assert checker.argv == ("./program", "input.txt", "output.txt", "answer.txt")
    assert checker.files == (
        Placement(CHECKER, "program"),
        Placement(INPUT, "input.txt"),
        Placement("output", "output.txt"),
        Placement(ANSWER, "answer.txt"),
    )
    assert checker.limits == Limits(real=10.0)  # what is absent is the program's default
    assert [(item.name, item.stop) for item in pipeline.stages] == [
        ("0", Stop.ON_FAILURE),
        ("1", Stop.ALWAYS),
    ]


def test_what_a_process_has_of_its_own_is_placed_nowhere_else() -> None:
    left = stage(
        artifacts={"left": {}}, pipes=[pipe({"process": "p", "fd": 1}, {"artifact": "left"})]
    )
    both = {
        "processes": {
            "judge": process(
                resources={
                    "secret": {"hash": ANSWER, "filename": "secret"},
                    "told": {"intermediate": "left", "filename": "told"},
                    "input": {"hash": INPUT},
                }
            ),
            "player": process(),
        },
        "resources": {"rules": {"hash": CHECKER, "filename": "rules"}},
        "pipes": [
            pipe({"resource": "input"}, {"process": "judge", "fd": 3}),
            pipe({"process": "judge", "fd": 1}, {"process": "player", "fd": 0}),
            pipe({"process": "player", "file": "out/score"}, {"artifact": "score"}),
            pipe({"resource": "secret"}, {"artifact": "copy"}),
        ],
        "artifacts": {"score": {"private": False}, "copy": {"private": True}},
    }

    pipeline = read([left, both])

    judge, player = pipeline.stages[1].processes
    own = Placement(SOLUTION, "main.py")
    rules = Placement(CHECKER, "rules")
    assert judge.files == (own, rules, Placement(ANSWER, "secret"), Placement("left", "told"))
    assert player.files == (own, rules)
    assert pipeline.stages[1].pipes == (
        Pipe(Resource(INPUT), Descriptor("judge", 3)),
        Pipe(Descriptor("judge", 1), Descriptor("player", 0)),
        Pipe(WorkFile("player", "out/score"), Artifact("score")),
        Pipe(Resource(ANSWER), Artifact("copy")),
    )
    assert pipeline.private == {"copy"}


def test_a_grader_may_run_others_beside_which_the_stages_resources_do_not_lie() -> None:
    grading = process(
        role="grader",
        may_run={"student": process(limits={"cpu": 100}, cmdline=["-x"])},
    )
    shared = {"answers": {"hash": ANSWER, "filename": "answers"}}

    pipeline = read([{"processes": {"grader": grading}, "resources": shared}])

    [grader] = pipeline.stages[0].processes
    [student] = grader.may_run
    assert (grader.role, student.role) == (Role.GRADER, Role.LEARNER)
    assert Placement(ANSWER, "answers") in grader.files
    assert student.files == (Placement(SOLUTION, "main.py"),)
    assert (student.argv, student.limits.cpu) == (("python3", "main.py", "-x"), 0.1)


def test_an_exercise_may_call_programs_and_files_by_their_names() -> None:
    value = [
        {
            "processes": {"judge": {"executable": "judge"}},
            "resources": {"input": {"file": "case.input"}},
            "pipes": [pipe({"resource": "input"}, {"process": "judge", "fd": 3})],
        }
    ]

    pipeline = read(value, by_name=True, file=lambda name: f"of the third case: {name}")

    [judging] = pipeline.stages
    assert judging.processes[0].files == (Placement("judge", "program"),)
    assert judging.pipes[0].read == Resource("of the third case: case.input")
    assert problems(value) == (
        "pipeline[0].resources.input.file: it is none of hash, intermediate, filename",
        "pipeline[0].resources.input: it must have one of hash, intermediate",
        "pipeline[0].processes.judge.language: it is missing",
        "pipeline[0].processes.judge.executable: it is no hash",
    )


def pipe(read: object, write: object) -> dict[str, object]:
    return {"read": read, "write": write}


NUL = process(cmdline=["\0"])
TO_ARTIFACT = pipe({"process": "p", "fd": 1}, {"artifact": "a"})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "pipeline: it is missing"),
        ({}, "pipeline: it is missing"),
        ("x", "pipeline: it is no list"),
        ({"pipeline": [], "user": 1}, "request.user: it is none of type, id, pipeline"),
        ([], "pipeline: there is nothing to run"),
        ([3], "pipeline[0]: it is no object"),
        ([{}], "pipeline[0].processes: it is missing"),
        ([{"processes": {}}], "pipeline[0].processes: there is nothing to run"),
        ([stage(more=1)], "pipeline[0].more: it is none of processes, resources, pipes, stop,"),
        ([stage(stop="never")], "pipeline[0].stop: it is none of on_failure, always"),
        ([stage(stop=None)], "pipeline[0].stop: it is missing"),
        ([stage(processes={"p": []})], "pipeline[0].processes.p: it is no object"),
        (
            [stage(processes={"p": process(language="cobol")})],
            "pipeline[0].processes.p.language: 'cobol' is not known",
        ),
        (
            [stage(processes={"p": process(language=3)})],
            "pipeline[0].processes.p.language: it is no string",
        ),
        (
            [stage(processes={"p": process(executable="ABC")})],
            "pipeline[0].processes.p.executable: it is no hash",
        ),
        (
            [stage(processes={"p": process(arguments={"source": "../x"})})],
            "pipeline[0].processes.p.arguments.source: '../x' is no relative, plain path",
        ),
        (
            [stage(processes={"p": process(arguments={"flags": "-O2"})})],
            "pipeline[0].processes.p.arguments.flags: it is no list",
        ),
        (
            [stage(processes={"p": process(cmdline=["a", 1])})],
            "pipeline[0].processes.p.cmdline[1]: it is no string",
        ),
        (
            [stage(processes={"p": process(cmdline=["a", "b\0"])})],
            "pipeline[0].processes.p.cmdline[1]: it holds a zero byte",
        ),
        (
            [stage(processes={"p": process(role="admin")})],
            "pipeline[0].processes.p.role: it is none of learner, grader",
        ),
        (
            [stage(processes={"p": process(role="grader", may_run={"q": NUL})})],
            "pipeline[0].processes.p.may_run.q.cmdline[0]: it holds a zero byte",
        ),
        (
            [stage(processes={"p": process(may_run={"q": process()})})],
            "pipeline[0].processes.p.may_run: only a grader may ask for runs",
        ),
        *(
            (
                [stage(processes={"p": process(limits={key: amount})})],
                f"pipeline[0].processes.p.limits.{key}: {what}",
            )
            for key, amount, what in (
                ("cpu", 0, "it is not from 1 to 60000"),
                ("cpu", -1, "it is not from 1 to 60000"),
                ("cpu", 60_001, "it is not from 1 to 60000"),
                ("cpu", 1.5, "it is no whole number"),
                ("cpu", True, "it is no whole number"),
                ("real", None, "it is missing"),
                ("real", 300_001, "it is not from 1 to 300000"),
                ("memory", 1_048_577, "it is not from 1 to 1048576"),
                ("fsize", 1 << 40, "it is not from 1 to 67108864"),
                ("heap", 1, "it is none of cpu, real, memory, fsize"),
            )
        ),
        (
            [stage(resources={"r": {"hash": INPUT, "intermediate": True}})],
            "pipeline[0].resources.r: it must have one of hash, intermediate",
        ),
        (
            [stage(resources={"r": {"hash": INPUT.upper()}})],
            "pipeline[0].resources.r.hash: it is no hash",
        ),
        (
            [stage(resources={"r": {"intermediate": False}})],
            "pipeline[0].resources.r.intermediate: it is no string",
        ),
        (
            [stage(resources={"r": {"intermediate": True, "filename": "x"}})],
            "pipeline[0].resources.r: there is no file or artifact 'r' yet",
        ),
        (
            [stage(resources={"r": {"hash": INPUT, "filename": "/etc/x"}})],
            "pipeline[0].resources.r.filename: '/etc/x' is no relative, plain path",
        ),
        (
            [stage(resources={"r": {"hash": INPUT, "filename": "main.py"}})],
            "pipeline[0].resources.r.filename: 'main.py' is there already",
        ),
        (
            [stage(resources={"r": {"hash": INPUT, "filename": "main.py/x"}})],
            "pipeline[0].processes.p.executable: 'main.py' is a file and a folder",
        ),
        ([stage(pipes={})], "pipeline[0].pipes: it is no list"),
        ([stage(pipes=[{}])], "pipeline[0].pipes[0].read: it is missing"),
        (
            [stage(pipes=[pipe({"resource": "r"}, {"process": "p", "fd": 0})])],
            "pipeline[0].pipes[0].read.resource: there is no resource 'r' here",
        ),
        (
            [stage(pipes=[pipe({"resource": "r", "fd": 0}, {"process": "p", "fd": 0})])],
            "pipeline[0].pipes[0].read: it is neither a resource, nor the fd of a process, nor",
        ),
        (
            [stage(pipes=[pipe({"process": "p", "fd": 1}, {"process": "p"})])],
            "pipeline[0].pipes[0].write: it is neither the fd of a process nor an artifact",
        ),
        (
            [stage(pipes=[pipe({"process": "p", "fd": "1"}, {"process": "p", "fd": 0})])],
            "pipeline[0].pipes[0].read.fd: it is no whole number",
        ),
        (
            [stage(pipes=[pipe({"process": "p", "fd": 1}, {"process": "q", "fd": 256})])],
            "pipeline[0].pipes[0].write.process: there is no process 'q' in this stage",
        ),
        (
            [stage(pipes=[TO_ARTIFACT])],
            "pipeline[0].pipes[0].write.artifact: 'a' is not among the stage's artifacts",
        ),
        ([stage(artifacts={"a": {}})], "pipeline[0].artifacts.a: no pipe writes to it"),
        (
            [stage(artifacts={"a": {"private": 1}}, pipes=[TO_ARTIFACT])],
            "pipeline[0].artifacts.a.private: it is neither true nor false",
        ),
        (
            [stage(artifacts={"a": {}}, pipes=[TO_ARTIFACT])] * 2,
            "pipeline[1].pipes[0].write.artifact: 'a' is an artifact already",
        ),
        (
            [stage(artifacts={"a": {}}, pipes=[TO_ARTIFACT, TO_ARTIFACT])],
            "pipeline[0].pipes[1].read.fd: descriptor 1 of 'p' has a pipe already",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_pipelines_own_path(value: object, problem: str) -> None:
    found = problems(value)

    assert any(item.startswith(problem) for item in found), found


def test_all_that_cannot_be_read_is_said_at_once() -> None:
    value = [stage(stop="x"), stage(processes={"p": process(limits={"cpu": 0, "real": "1 s"})})]

    assert len(problems(value)) == 4


def test_a_file_that_is_not_there_is_said_where_it_is_asked_for() -> None:
    def file(name: str) -> str:
        raise RequestError([f"there is no file {name!r}"])

    value = [stage(resources={"r": {"file": "x"}})]

    assert problems(value, by_name=True, file=file) == (
        "pipeline[0].resources.r.file: there is no file 'x'",
    )


TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def written(value: object) -> str:
    """A value with a comma after each item."""
    if isinstance(value, list):
        return f"[{''.join(f'{written(item)} ,' for item in value)}\n]"
    if isinstance(value, dict):
        items = (f"{json.dumps(key)}: {written(item)}," for key, item in value.items())
        return f"{{{''.join(items)}\t}}"
    return json.dumps(value)


@given(JSON)
def test_a_trailing_comma_changes_nothing(value: object) -> None:
    assert read_json(written(value)) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: "),
        ("[,]", "line 1: "),
        ("{,}", "line 1: "),
        ("[1,,]", "line 1: "),
        ('{"a":,}', "line 1: "),
        (",]", "line 1: "),
        ('{\n"a": 1,\n"b" 2\n}', "line 3: "),
        ('{"a": 1, "a": 2}', "the text: 'a' is there twice"),
        ("[NaN]", "the text: NaN is no JSON"),
        ("[1e999, Infinity]", "the text: Infinity is no JSON"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "the text: it is more than 32 deep"),
        ("[" * 100_000, "the text: "),
        ("9" * 10_000, "the text: "),
    ],
)
def test_what_is_no_json_is_refused(text: str, problem: str) -> None:
    with pytest.raises(RequestError) as error:
        read_json(text)

    assert error.value.problems[0].startswith(problem)


def test_commas_within_strings_are_kept() -> None:
    assert read_json(r'["a,]", "\",}", ",]",]') == ["a,]", '",}', ",]"]


@given(st.data())
def test_whatever_is_put_into_a_request_is_read_or_refused(data: st.DataObject) -> None:
    """No mistake of a peer's is an exception of another kind."""
    value: Any = copy.deepcopy(read_json(INVOKE))
    place = value["pipeline"]
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)

    with contextlib.suppress(RequestError):
        read(value)


def test_an_answer_is_in_the_units_of_the_wire() -> None:
    grader = ProcessReport(
        "grader",
        -9,
        cpu=0.0474,
        real=0.0896,
        memory=4910 * KIB + 1,
        flags=Flag.CPU | Flag.OUTPUT,
        runs=(RunReport("student", 1, 0.001, 0.002, 3 * KIB),),
    )
    stages = [
        StageReport("0", (ProcessReport("p", 0, 0.123, 0.217, KIB),)),
        StageReport("1", (grader,), (ArtifactReport("log", 2, b"ok"), ArtifactReport("no", 0))),
    ]

    assert answer(stages) == {
        "pipeline": [
            {"processes": {"p": {"cpu": 123, "real": 217, "memory": 1, "exitcode": 0, "flags": 0}}},
            {
                "processes": {
                    "grader": {"cpu": 47, "real": 90, "memory": 4911, "exitcode": -9, "flags": 17}
                },
                "runs": [
                    {"name": "student", "cpu": 1, "real": 2, "memory": 3, "exitcode": 1, "flags": 0}
                ],
            },
        ],
        "artifacts": {
            "log": hashlib.sha256(b"ok").hexdigest(),
            "no": hashlib.sha256(b"").hexdigest(),
        },
    }
