"""The stages of a pipeline, for each case: out of a teacher's arrows, or the invoker's JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from commserver.core import invocation, request_check
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
    WorkFile,
)
from commserver.errors import DefinitionError, RequestError
from commserver.graders.arrows import CASE, CASE_DATA, Arrow, CaseData, End, ProgramFd, ProgramFile
from commserver.graders.definition import SUBMISSION, Definition
from commserver.graders.definition import Stage as StageText
from commserver.graders.languages import language_of
from commserver.graders.materials import TEACHER, Materials, brought
from commserver.graders.pipeline import PipelinePlan, Step
from commserver.graders.programs import TEACHER_LIMITS, Program, kept_of
from commserver.graders.submission import Submission

PATIENCE = 5.0  # seconds that a judge has longer than the student's program it talks to

_DATA = {
    which: f"{CASE}.{which}" for which in CASE_DATA
}  # how stages name it before a case is known


def plan_pipeline(
    definition: Definition,
    materials: Materials,
    submission: Submission,
    *,
    image: str,
    grade_max: int,
) -> PipelinePlan:
    """Return what has to be run for the cases of a pipeline.

    Raises:
        DefinitionError: the exercise cannot be run as it stands.
    """
    limits = definition.limits_of(submission.language.name)
    if definition.pipeline:
        staged = _Json(definition, materials, submission, limits).read()
    else:
        staged = _written(definition, materials, submission, limits)
    cases = materials.cases()
    used = {what for what, name in _DATA.items() if name in _read_by(staged.stages)}
    files = [*submission.files, *staged.files]
    planned: list[Case] = []
    for number, case in enumerate(cases):
        data = {"input": case.input, "expected": case.expected}
        own = {_DATA[what]: File(f"{CASE}/{number}/{what}", data[what]) for what in sorted(used)}
        files += own.values()
        names = {name: file.name for name, file in own.items()}
        planned.append(Case(str(number), tuple(_for_case(x, names) for x in staged.stages)))
    request = ExecutionRequest(
        image, tuple(files), tuple(planned), (*submission.prepare, *staged.prepare)
    )
    try:
        request_check.check(request)
    except RequestError as error:
        raise DefinitionError(error.problems) from error
    return PipelinePlan(request, grade_max, cases, staged.steps)


@dataclass(frozen=True, slots=True)
class _Staged:
    """Stages before their case is known, how they are judged, and what they need."""

    stages: tuple[Stage, ...]
    steps: tuple[Step, ...]
    files: tuple[File, ...] = field(repr=False)
    prepare: tuple[Stage, ...]


def _read_by(stages: Iterable[Stage]) -> set[str]:
    """Return the names of all that is read in the stages."""
    names: set[str] = set()
    for stage in stages:
        names |= {pipe.read.name for pipe in stage.pipes if isinstance(pipe.read, Resource)}
        names |= {file.name for process in stage.processes for file in process.files}
    return names


def _for_case(stage: Stage, names: Mapping[str, str]) -> Stage:
    """Return the stage with the data of one case."""
    processes = tuple(
        replace(
            process,
            files=tuple(Placement(names.get(x.name, x.name), x.path) for x in process.files),
        )
        for process in stage.processes
    )
    pipes = tuple(
        replace(pipe, read=Resource(names.get(pipe.read.name, pipe.read.name)))
        if isinstance(pipe.read, Resource)
        else pipe
        for pipe in stage.pipes
    )
    return replace(stage, processes=processes, pipes=pipes)


def _patient(limits: Limits) -> Limits:
    """Return the limits of a teacher's program that talks to one with these."""
    return replace(TEACHER_LIMITS, real=max(TEACHER_LIMITS.real, limits.real + PATIENCE))


def _own_pipes(stage: str, process: str, bound: set[int], *, learner: bool) -> tuple[Pipe, ...]:
    """Return the pipes that keep what a process writes and that leads nowhere else."""
    if not learner:
        return kept_of(process, label=f"{stage}.{process}", bound=bound)
    if 2 in bound:
        return ()
    return (Pipe(Descriptor(process, 2), Artifact(f"{stage}.{process}.errors")),)


def _errors_of(stage: str, learners: tuple[str, ...]) -> dict[str, str]:
    """Return what the errors of learners' programs are called to a student."""
    return {
        f"{stage}.{name}.errors": "your errors" if len(learners) == 1 else f"errors of {name}"
        for name in learners
    }


# -- as teachers write them -----------------------------------------------------------------------


def _written(
    definition: Definition, materials: Materials, submission: Submission, limits: Limits
) -> _Staged:
    beside = materials.teachers()
    programs = {
        name: Program("judge", path, beside)
        for name, path in definition.programs.items()
        if path != SUBMISSION
    }
    stages: list[Stage] = []
    steps: list[Step] = []
    for text in definition.stages:
        learners = tuple(name for name in text.run if name not in programs)
        stages.append(_stage(text, programs, submission, limits))
        steps.append(
            Step(
                text.name,
                learners,
                {name: programs[name].path for name in text.run if name in programs},
                text.verdict,
                _errors_of(text.name, learners) | _outputs(text.arrows, learners),
            )
        )
    distinct = {program.path: program for program in programs.values()}
    prepare = tuple(stage for program in distinct.values() for stage in program.prepare)
    return _Staged(tuple(stages), tuple(steps), brought(TEACHER, beside), prepare)


def _stage(
    text: StageText, programs: Mapping[str, Program], submission: Submission, limits: Limits
) -> Stage:
    processes: list[Process] = []
    pipes = [_pipe(x) for x in text.arrows if not isinstance(x.target, ProgramFile)]
    for name in text.run:
        put = tuple(
            Placement(_named(arrow.source), arrow.target.path)
            for arrow in text.arrows
            if isinstance(arrow.target, ProgramFile) and arrow.target.program == name
        )
        if name in programs:  # only who decides must not end without having decided
            program = replace(programs[name], kind="judge" if name == text.verdict else "checker")
            processes.append(program.process(name, files=put, limits=_patient(limits)))
        else:
            processes.append(Process(name, submission.argv, limits, (*submission.started, *put)))
        ends = [end for arrow in text.arrows for end in (arrow.source, arrow.target)]
        bound = {end.fd for end in ends if isinstance(end, ProgramFd) and end.program == name}
        pipes += _own_pipes(text.name, name, bound, learner=name not in programs)
    return Stage(text.name, tuple(processes), tuple(pipes))


def _outputs(arrows: Iterable[Arrow], learners: tuple[str, ...]) -> dict[str, str]:
    """Return what is kept of learners' programs, as a student knows it."""
    outputs: dict[str, str] = {}
    for arrow in arrows:
        match arrow.source:
            case ProgramFd(program, fd) if program in learners:
                outputs[_named(arrow.target)] = "your output" if fd == 1 else _named(arrow.target)
            case ProgramFile(program, path) if program in learners:
                outputs[_named(arrow.target)] = path
    return {name: shown for name, shown in outputs.items() if name}


def _pipe(arrow: Arrow) -> Pipe:
    source, target = arrow.source, arrow.target
    match source:
        case ProgramFd(program, fd):
            read: Resource | Descriptor | WorkFile = Descriptor(program, fd)
        case ProgramFile(program, path):
            read = WorkFile(program, path)
        case _:
            read = Resource(_named(source))
    if isinstance(target, ProgramFd):
        return Pipe(read, Descriptor(target.program, target.fd))
    return Pipe(read, Artifact(_named(target)))


def _named(end: End) -> str:
    """Return the name of what is neither a program's nor in its folder, else ""."""
    match end:
        case CaseData(which):
            return _DATA[which]
        case ProgramFd() | ProgramFile():
            return ""
        case _:
            return end.name


# -- as the invoker's JSON says them --------------------------------------------------------------


class _Json:
    """One reading of a `pipeline.json`."""

    def __init__(
        self, definition: Definition, materials: Materials, submission: Submission, limits: Limits
    ) -> None:
        self._definition = definition
        self._materials = materials
        self._submission = submission
        self._limits = limits
        self._beside = materials.teachers()
        self._started: dict[str, invocation.Executable] = {}  # by the path of the program
        self._programs: dict[str, Program] = {}
        self._unknown: set[str] = set()  # hashes of executables that are no file of the exercise

    def read(self) -> _Staged:
        try:
            text = self._materials.read(self._definition.pipeline).decode()
            pipeline = invocation.read_pipeline(
                invocation.read_json(text), program=self._program, file=self._file, by_name=True
            )
            stages = tuple(self._completed(stage) for stage in pipeline.stages)
        except RequestError as error:
            raise DefinitionError(
                [f"{self._definition.pipeline}: {problem}" for problem in error.problems]
            ) from error
        except UnicodeDecodeError as error:
            raise DefinitionError([f"{self._definition.pipeline}: is no text"]) from error
        prepare = tuple(x for program in self._programs.values() for x in program.prepare)
        steps = tuple(self._step(stage, pipeline.private) for stage in stages)
        return _Staged(stages, steps, brought(TEACHER, self._beside), prepare)

    def _program(self, said: invocation.Program) -> invocation.Executable:
        """Return how a program is started: by its name in `programs`, or by its file's hash."""
        path = self._definition.programs.get(said.executable)
        if path is None:
            path = self._materials.path_of(said.executable)
            if not path:
                self._unknown.add(said.executable)
        if path in ("", SUBMISSION):
            return invocation.Executable(
                self._submission.argv, self._submission.started, limits=self._limits
            )
        if path not in self._started:
            self._started[path] = self._teachers(path)
        return self._started[path]

    def _teachers(self, path: str) -> invocation.Executable:
        if language_of(path):
            program = Program("checker", path, self._beside)
            self._programs[path] = program
            process = program.process("any")
            argv, files = process.argv, process.files
        elif not PurePosixPath(path).suffix:  # a program as a compiler leaves it
            name = PurePosixPath(path).name
            argv, files = (f"./{name}",), (Placement(f"{TEACHER}/{path}", name),)
        else:
            raise RequestError([f"executable: {path} is in no language that we know"])
        limits = _patient(self._limits)
        return invocation.Executable(argv, files, role=Role.GRADER, limits=limits)

    def _file(self, reference: str) -> str:
        """Return what a request calls a resource: data of the case, or a file of the exercise."""
        if reference in _DATA.values():
            return reference
        path = self._materials.path_of(reference) or reference
        if path not in self._beside:
            raise RequestError([f"there is no file {reference!r} for it"])
        return f"{TEACHER}/{path}"

    def _completed(self, stage: Stage) -> Stage:
        """Return the stage with pipes for what is not bound, and nobody in another's role."""
        processes: list[Process] = []
        pipes = list(stage.pipes)
        for process in stage.processes:
            learner = self._is_learners(process)
            if learner and self._unknown and not self._is_submission(process.name):
                wanted = f'programs = {{ {process.name} = "{SUBMISSION}" }}'
                raise RequestError(
                    [f"{process.name}: no file has the hash of its executable, and nor {wanted}"]
                )
            role = Role.LEARNER if learner else Role.GRADER
            processes.append(replace(process, role=role))
            ends = [end for pipe in stage.pipes for end in (pipe.read, pipe.write)]
            bound = {
                end.fd
                for end in ends
                if isinstance(end, Descriptor) and end.process == process.name
            }
            pipes += _own_pipes(stage.name, process.name, bound, learner=learner)
            expected = _DATA["expected"]
            reads = {x.name for x in process.files} | {
                pipe.read.name
                for pipe in stage.pipes
                if isinstance(pipe.read, Resource)
                and isinstance(pipe.write, Descriptor)
                and pipe.write.process == process.name
            }
            if learner and expected in reads:
                raise RequestError(
                    [f"{process.name}: students' programs never see what is expected"]
                )
        return replace(stage, processes=tuple(processes), pipes=tuple(pipes))

    def _is_submission(self, process: str) -> bool:
        return self._definition.programs.get(process) == SUBMISSION

    def _is_learners(self, process: Process) -> bool:
        own = self._submission.started
        return process.files[: len(own)] == own and not self._path(process)

    def _path(self, process: Process) -> str:
        """Return the teacher's program that a process is, "" when it is none."""
        for path, started in self._started.items():
            argv, files = started.argv, started.files
            if (process.argv[: len(argv)], process.files[: len(files)]) == (argv, files):
                return path
        return ""

    def _step(self, stage: Stage, private: frozenset[str]) -> Step:
        """Return how the stage is judged: by the last of the teacher's programs in it."""
        learners = tuple(x.name for x in stage.processes if x.role is Role.LEARNER)
        teachers = {x.name: self._path(x) for x in stage.processes if x.role is not Role.LEARNER}
        outputs = {
            pipe.write.name: pipe.write.name
            for pipe in stage.pipes
            if isinstance(pipe.read, Descriptor | WorkFile)
            and isinstance(pipe.write, Artifact)
            and pipe.read.process in learners
            and pipe.write.name not in private
        }
        verdict = next(reversed(teachers), "")
        return Step(
            stage.name, learners, teachers, verdict, outputs | _errors_of(stage.name, learners)
        )
