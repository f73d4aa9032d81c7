"""What has to be run for a content, and what its end is worth, whatever kind its grader is of."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from commserver.core.execution import ExecutionReport, ExecutionRequest
from commserver.core.text import clean_text
from commserver.core.verdicts import Status, Verdict
from commserver.errors import DefinitionError
from commserver.graders.content import Content
from commserver.graders.definition import SUBMISSION, Definition, FileRef, is_definition, parse
from commserver.graders.languages import LANGUAGES, Language, language_of
from commserver.graders.languages import image as image_of
from commserver.graders.limits import DEFAULT_TOTAL
from commserver.graders.materials import Materials
from commserver.graders.programs import Program
from commserver.graders.script import Script, plain_script, plan_script
from commserver.graders.showing import Result, not_compiled
from commserver.graders.stages import plan_pipeline
from commserver.graders.submission import Unusable, chosen, submission
from commserver.graders.tests import plan_tests

RERUN = "close to the limit of cpu time: run twice, the better end counts"


class Plan(Protocol):
    """What has to be run, and how its end is judged."""

    @property
    def request(self) -> ExecutionRequest:
        """What a sandbox is asked to do."""

    def judge(self, report: ExecutionReport) -> Verdict:
        """Return what the measured run is worth.

        Raises:
            GraderError: a program of the teacher's broke.
        """

    def close(self, report: ExecutionReport) -> bool:
        """Return whether it was so close to a cpu limit that it is to be run once more.

        That is when a student's program ended by itself between 0.9 and 1.1 of its limit.
        """


def references(grader: str) -> frozenset[str]:
    """Return the sha256 of every file that a `scripts` row has in the file store.

    A row that cannot be read refers to none.
    """
    if not is_definition(grader):
        return frozenset()
    try:
        files = parse(grader).files.values()
    except DefinitionError:
        return frozenset()
    return frozenset(x.sha256 for x in files if isinstance(x, FileRef) and x.sha256 is not None)


def plan(content: Content, bulk: Mapping[str, bytes]) -> Plan | Verdict:
    """Return what has to be run, or the verdict when the files cannot even be started.

    bulk: what the file store has of `references`, by sha256.

    Raises:
        DefinitionError: the exercise is wrong; the teacher's fault.
    """
    if not is_definition(content.grader):
        return _plan_plain(content)
    definition = parse(content.grader)
    materials = Materials(definition, bulk)
    name = image(content)
    try:
        files = submission(
            content,
            chosen(content, definition.languages),
            definition.submission.files,
            materials.given(),
        )
    except Unusable as error:
        cases = () if definition.kind == "script" else materials.cases()
        unjudged = [Result(x.name, Status.COMPILE_ERROR, 0, x.points) for x in cases]
        return not_compiled(unjudged, content.grade_max, str(error))
    match definition.kind:
        case "tests":
            return plan_tests(definition, materials, files, image=name, grade_max=content.grade_max)
        case "pipeline":
            return plan_pipeline(
                definition, materials, files, image=name, grade_max=content.grade_max
            )
        case "script":
            program = Program("script", definition.script, materials.teachers())
            limits = definition.limits_of(files.language.name)
            script = Script(program, SUBMISSION, definition.total, limits)
            return plan_script(script, files, image=name, grade_max=content.grade_max)


def _plan_plain(content: Content) -> Plan | Verdict:
    """Return what has to be run for a platform's own correction script."""
    language = _course_language(content)
    try:
        files = submission(content, language)
    except Unusable as error:
        return not_compiled((), content.grade_max, str(error))
    script = plain_script(content.grader, files, DEFAULT_TOTAL)
    return plan_script(script, files, image=image(content), grade_max=content.grade_max)


def image(content: Content) -> str:
    """Return the name of the image in which a content is run.

    Raises:
        DefinitionError: none has all the languages that it needs, or the exercise is wrong.
    """
    if not is_definition(content.grader):
        return image_of({_course_language(content).name})
    definition = parse(content.grader)
    if definition.image:
        return definition.image
    try:
        language = chosen(content, definition.languages).name
    except Unusable:
        language = definition.language
    needed = {language, *_teachers_languages(definition)}
    if name := image_of(needed):
        return name
    raise DefinitionError([f"image: no image has all of {', '.join(sorted(needed))}"])


def _course_language(content: Content) -> Language:
    if content.language not in LANGUAGES:
        raise DefinitionError([f"language: {content.language!r} is none of {', '.join(LANGUAGES)}"])
    return LANGUAGES[content.language]


def _teachers_languages(definition: Definition) -> set[str]:
    """Return the languages of the teacher's programs."""
    paths = {definition.script, definition.checker_program, *definition.programs.values()}
    if definition.pipeline:  # it names its programs by hash: any file may be one
        paths |= {
            path for path in definition.files if not path.startswith(("solutions/", "starter/"))
        }
    return {language for path in paths if (language := language_of(path))}


def check(content: Content) -> float:
    """Return how long a content may take in the sandbox, seconds; 0 when it cannot be started.

    What is in the file store is not looked at.

    Raises:
        DefinitionError: the exercise is wrong; the teacher's fault.
    """
    if is_definition(content.grader):
        definition = parse(content.grader)
        stages = definition.files.get(definition.pipeline)
        if isinstance(stages, FileRef) and stages.sha256:  # without them there is nothing to check
            return definition.limits_of(definition.language).real
    planned = plan(content, _Unseen())
    return 0.0 if isinstance(planned, Verdict) else planned.request.real


class _Unseen(Mapping[str, bytes]):
    """A file store that has everything, and nothing in it."""

    def __getitem__(self, name: str) -> bytes:
        return b""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def second_is_better(first: Verdict, second: Verdict) -> bool:
    """Return whether the second end of a run counts: the higher grade, then the better status."""
    return _rank(second) > _rank(first)


def better(first: Verdict, second: Verdict) -> Verdict:
    """Return the verdict that counts of a run that was run twice, marked, and told so."""
    best = second if second_is_better(first, second) else first
    return replace(best, rerun=True, log=clean_text(f"{RERUN}\n{best.log}"))


def _rank(verdict: Verdict) -> tuple[int, int]:
    return verdict.grade, -tuple(Status).index(verdict.status)
