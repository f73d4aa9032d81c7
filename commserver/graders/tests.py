"""Exercises of kind `tests`: inputs, and what must come out of them."""

import signal
from collections.abc import Sequence
from pathlib import PurePosixPath

from commserver.core.execution import (
    CaseVerdict,
    ExecutionReport,
    ExecutionRequest,
    File,
    Flag,
    Process,
    ProcessReport,
    Status,
    Verdict,
)
from commserver.core.paths import is_safe
from commserver.core.text import clean_text
from commserver.errors import DefinitionError
from commserver.graders.checkers import CHECKERS
from commserver.graders.content import Content
from commserver.graders.definition import Case, Definition, parse
from commserver.graders.languages import COMPILE_LIMITS, LANGUAGES, Language

SHOWN = 2048  # bytes of an input, an output or a message that a student is shown

# Memory first: a program that is ended for want of memory has often used up its time as well.
_BY_FLAG = (
    (Flag.MEMORY, Status.MEMORY),
    (Flag.OUTPUT, Status.OUTPUT),
    (Flag.CPU, Status.CPU_TIME),
    (Flag.REAL, Status.REAL_TIME),
    (Flag.SECURITY, Status.SECURITY),
)


def plan(content: Content) -> ExecutionRequest | Verdict:
    """Return what has to be run, or the verdict when the files cannot even be started.

    Raises:
        DefinitionError: the exercise is wrong; the teacher's fault.
    """
    definition = parse(content.grader)
    language = LANGUAGES[content.language]
    if definition.language != content.language:
        raise DefinitionError(
            [f"language: the course is in {content.language}, not in {definition.language}"]
        )
    names = [name for name, _ in content.files]
    problem = _unusable(names, definition.submission.files, language)
    if problem:
        return _not_compiled(definition, content.grade_max, problem)
    main = _main(names, definition.submission.files, language)
    files = tuple(File(name, _packed(text)) for name, text in content.files)
    given = tuple(names)
    if language.compile:
        sources = tuple(_argument(name) for name in names if name.endswith(language.sources))
        if not sources:
            return _not_compiled(
                definition, content.grade_max, f"there is no {' or '.join(language.sources)} file"
            )
        compile_step = Process(
            "compile",
            (*language.compile, *sources, *language.link),
            COMPILE_LIMITS,
            files=given,
            artifacts=(language.program,),
        )
        given = (language.program,)
    else:
        compile_step = None
    limits = definition.resolved_limits()
    argv = tuple(part.format(main=main) for part in language.run)
    cases = tuple(
        Process(str(number), argv, limits, files=given, stdin=case.input.encode())
        for number, case in enumerate(definition.cases)
    )
    return ExecutionRequest(language.image, files, cases, compile=compile_step)


def judge(content: Content, report: ExecutionReport) -> Verdict:
    """Return what the measured run is worth; compares outside the sandbox."""
    definition = parse(content.grader)
    if report.compile and not report.compile.ok:
        return _not_compiled(definition, content.grade_max, _compiler_says(report.compile))
    check = CHECKERS[definition.checker]
    judged: list[CaseVerdict] = []
    lines: list[str] = []
    for case, process in zip(definition.cases, report.cases, strict=True):
        status = _status(process)
        if status is Status.ACCEPTED and not check(process.stdout, case.expected.encode()):
            status = Status.WRONG_ANSWER
        earned = case.points if status is Status.ACCEPTED else 0
        judged.append(
            CaseVerdict(
                case.name, status, earned, case.points, process.cpu, process.real, process.memory
            )
        )
        lines += _told(case, status, earned, process)
    return Verdict(
        status=next((c.status for c in judged if c.status is not Status.ACCEPTED), Status.ACCEPTED),
        grade=grade(
            content.grade_max, sum(c.earned for c in judged), sum(c.points for c in judged)
        ),
        grade_max=content.grade_max,
        log=clean_text("\n".join(lines)),
        cases=tuple(judged),
    )


def grade(grade_max: int, earned: int, total: int) -> int:
    """Return floor(grade_max * earned / total + 1/2), the full grade only for all points."""
    if earned >= total:
        return grade_max
    return max(0, min((2 * grade_max * earned + total) // (2 * total), grade_max - 1))


def _status(process: ProcessReport) -> Status:
    for flag, status in _BY_FLAG:
        if process.flags & flag:
            return status
    return Status.ACCEPTED if process.exit_code == 0 else Status.RUNTIME_ERROR


def _argument(name: str) -> str:
    """Return a file as a compiler is told of it: as it is called, since that is what it repeats."""
    return f"./{name}" if name.startswith("@") else name


def _unusable(names: Sequence[str], wanted: Sequence[str], language: Language) -> str:
    """Return in a student's words why these files cannot be run, "" when they can."""
    folders = {folder for name in names for folder in _folders(name)}
    for name in names:
        if not is_safe(name) or name in folders or language.program in (name, *_folders(name)):
            return f"a file cannot be called {name!r}"
    missing = [name for name in wanted if name not in names]
    if missing:
        return f"{', '.join(missing)} is missing; you handed in {', '.join(names)}"
    return ""


def _folders(name: str) -> list[str]:
    return [str(folder) for folder in PurePosixPath(name).parents]


def _main(names: Sequence[str], wanted: Sequence[str], language: Language) -> str:
    if wanted:
        return wanted[0]
    if len(names) == 1:
        return names[0]
    if language.main in names:
        return language.main
    raise DefinitionError([f"submission.files: says not which of {', '.join(names)} is run"])


def _packed(text: str) -> bytes:
    """Return a file as the sandbox gets it: platforms keep what a browser's text box sent."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace")


def _not_compiled(definition: Definition, grade_max: int, why: str) -> Verdict:
    cases = tuple(
        CaseVerdict(case.name, Status.COMPILE_ERROR, 0, case.points, 0.0, 0.0, 0)
        for case in definition.cases
    )
    log = clean_text(f"not compiled\n{why}")
    return Verdict(Status.COMPILE_ERROR, 0, grade_max, log, cases)


def _compiler_says(report: ProcessReport) -> str:
    status = _status(report)
    if status not in (Status.ACCEPTED, Status.RUNTIME_ERROR):
        return f"the compiler was stopped: {status}"
    return _excerpt(report.stderr or report.stdout) or "the compiler left no program"


def _told(case: Case, status: Status, earned: int, process: ProcessReport) -> list[str]:
    """Return the lines that the student reads about one case."""
    lines = [f"{case.name}: {status} ({earned}/{case.points})"]
    if status is Status.RUNTIME_ERROR and not case.hidden:  # an exit status can tell the input
        lines.append(f"  {_ending(process.exit_code)}")
    if status is not Status.ACCEPTED and case.hint:
        lines.append(f"  hint: {case.hint}")
    if case.hidden or status is Status.ACCEPTED:
        return lines
    shown = [("input", case.input.encode()), ("expected", case.expected.encode())]
    shown += [("your output", process.stdout), ("your errors", process.stderr)]
    for label, text in shown:
        if text:
            lines.append(f"  {label}:")
            lines += [f"    {line}" for line in _excerpt(text).splitlines()]
    return lines


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return f"ended by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"ended by signal {-exit_code}"


def _excerpt(output: bytes) -> str:
    text = output[:SHOWN].decode("utf-8", "replace")
    return text if len(output) <= SHOWN else f"{text}\n… ({len(output)} bytes in all)"
