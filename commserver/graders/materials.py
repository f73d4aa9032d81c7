"""What an exercise brings along: its files' bytes, its cases one by one, what it gives out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from commserver.core.execution import File, Placement
from commserver.core.jobs import content_hash
from commserver.errors import DefinitionError
from commserver.graders.definition import (
    FOR_PEOPLE,
    GIVEN,
    Case,
    Definition,
    FileRef,
    content_of,
    missing,
    output_of,
)
from commserver.graders.patterns import matching

TEACHER = "teacher"  # first part of the names of the teacher's files in a request


@dataclass(frozen=True, slots=True)
class OneCase:
    """One case as it is run."""

    name: str
    input: bytes = field(repr=False)
    expected: bytes = field(repr=False)
    points: int
    hidden: bool = False
    hint: str = ""


class Materials:
    """The files of an exercise, read when they are needed."""

    def __init__(self, definition: Definition, bulk: Mapping[str, bytes]) -> None:
        """`bulk`: what the file store has, by sha256.

        Raises:
            DefinitionError: a file that grading needs is not among the exercise's.
        """
        if problems := missing(definition):
            raise DefinitionError(problems)
        self._definition = definition
        self._bulk = bulk

    def read(self, path: str) -> bytes:
        """Return what is in a file of the exercise.

        Raises:
            DefinitionError: the file store has lost it.
        """
        content = content_of(self._definition.files[path], self._bulk)
        if content is None:
            raise DefinitionError(
                [f"files.{path}: is not in the file store: import the exercise again"]
            )
        return content

    def given(self) -> dict[str, bytes]:
        """Return what is placed beside the student's files, by the path it has there."""
        return {
            path.removeprefix(GIVEN): self.read(path)
            for path in self._definition.files
            if path.startswith(GIVEN)
        }

    def teachers(self, but: str = "") -> dict[str, bytes]:
        """Return what the teacher's programs find in their folders.

        That is all that is neither for students nor for one case, and not the file `but`.
        """
        cases = {
            path
            for case in self._definition.cases
            if case.files
            for found in matching(case.files, self._definition.files)
            for path in (found, output_of(found))
        }
        return {
            path: self.read(path)
            for path in self._definition.files
            if path not in cases and path != but and not path.startswith(FOR_PEOPLE)
        }

    def cases(self) -> tuple[OneCase, ...]:
        """Return every case, those in files as well; one without data where there need be none."""
        if not self._definition.cases:
            return (OneCase(self._definition.kind, b"", b"", 1),)
        return tuple(one for case in self._definition.cases for one in self._expanded(case))

    def path_of(self, sha256: str) -> str:
        """Return which file has this hash, "" when none has."""
        for path, file in self._definition.files.items():
            stored = file.sha256 if isinstance(file, FileRef) else None
            if sha256 == (stored or content_hash(self.read(path))):
                return path
        return ""

    def _expanded(self, case: Case) -> list[OneCase]:
        if not case.files:
            expected = (case.expected or "").encode()
            return [
                OneCase(
                    case.name, case.input.encode(), expected, case.points, case.hidden, case.hint
                )
            ]
        inputs = matching(case.files, self._definition.files)
        return [
            OneCase(
                f"{case.name} {number}" if len(inputs) > 1 else case.name,
                self.read(path),
                self.read(output_of(path)) if output_of(path) in self._definition.files else b"",
                points,
                case.hidden,
                case.hint,
            )
            for number, (path, points) in enumerate(
                zip(inputs, shared(case.points, len(inputs)), strict=True), 1
            )
        ]


def shared(points: int, among: int) -> list[int]:
    """Return `points` shared so that they add up, no share more than one above another."""
    return [points * (place + 1) // among - points * place // among for place in range(among)]


def brought(folder: str, files: Mapping[str, bytes]) -> tuple[File, ...]:
    """Return files as a request brings them, under names that begin with `folder`."""
    return tuple(File(f"{folder}/{path}", content) for path, content in files.items())


def placed(folder: str, files: Mapping[str, bytes], under: str = "") -> tuple[Placement, ...]:
    """Return where the files that `brought` brings are put in a work directory."""
    return tuple(Placement(f"{folder}/{path}", f"{under}{path}") for path in files)
