"""An exercise as its teacher keeps it: a folder, which is read with care and written only anew."""

import difflib
import errno
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from commserver.core.execution import MIB
from commserver.core.paths import is_safe
from commserver.core.verdicts import Status
from commserver.errors import ConfigError, DefinitionError
from commserver.graders import bundle
from commserver.graders.definition import Definition, Expected, is_definition, missing, parse
from commserver.graders.languages import language_of

DEFINITION, INSTRUCTION = "exercise.toml", "instruction.md"
FILE_MOST = 64 * MIB  # bytes of one file
FOLDER_MOST = 256 * MIB  # bytes of all of them
FILES_MOST = 4096
# Made by programs, not by teachers; what begins with a dot is left out as well.
LITTER = ("__pycache__", ".pyc", "~", ".swp")

Sources = tuple[tuple[str, str], ...]
"""What is handed in: names and texts, by name."""


@dataclass(frozen=True, slots=True)
class ExerciseFolder:
    """A right exercise.

    text: of its exercise.toml. instruction: what students are asked, "" when it does not say.
    files: everything else in the folder, by its POSIX path there.
    row: what goes into `scripts`. bulk: files that are too large for it, by their sha256.
    """

    path: Path
    text: str = field(repr=False)
    instruction: str = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    definition: Definition = field(repr=False)
    row: str = field(repr=False)
    bulk: Mapping[str, bytes] = field(repr=False)

    @property
    def solutions(self) -> dict[str, Expected]:
        """What each of the teacher's solutions must get, by its path; a file or a folder."""
        return {
            path: wanted if isinstance(wanted, Expected) else Expected(Status(wanted))
            for path, wanted in self.definition.solutions.items()
        }

    def solution(self, path: str) -> Sources:
        """Return what a student would hand in who had this solution.

        Raises:
            DefinitionError: it is not in the folder, or is no text.
        """
        found = _beneath(self.files, path)
        if not found:
            raise DefinitionError(
                [f"{self.path / DEFINITION}: solutions.{_absent(self.files, path)}"]
            )
        return named(found, self.definition.submission.files)


def read(path: Path) -> ExerciseFolder:
    """Return the exercise in a folder.

    Links are followed as long as they stay inside. Hidden files are left out.

    Raises:
        DefinitionError: something is not there, wrong, or larger than it may be: with every
            problem that was found.
    """
    # Some editors begin every file with a mark, which TOML does not know.
    text = _text(path / DEFINITION, read_file(path / DEFINITION)).removeprefix("\ufeff")
    instruction = path / INSTRUCTION
    told = _text(instruction, read_file(instruction)) if instruction.exists() else ""
    files = {
        name: content
        for name, content in read_files(path).items()
        if name not in (DEFINITION, INSTRUCTION)
    }
    try:
        packed = bundle.pack(text, files)
        definition = parse(packed.row)
    except DefinitionError as error:
        raise _of(path / DEFINITION, error.problems) from error
    absent = [
        f"solutions.{_absent(files, one)}"
        for one in definition.solutions
        if not _beneath(files, one)
    ]
    # The platform's text box tells it from a correction script by nothing else.
    first = [] if is_definition(text) else ["format: must be the first line, before any comment"]
    if problems := [*first, *missing(definition), *absent]:
        raise _of(path / DEFINITION, problems)
    return ExerciseFolder(path, text, told, files, definition, packed.row, packed.bulk)


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of these files, by their POSIX paths.

    Raises:
        ConfigError: there is something already; nothing was written.
        DefinitionError: a file has a name that none can have; nothing was written.
        OSError: the disk did not take it.
    """
    wrong = [name for name in files if not is_safe(name)]
    if wrong:
        raise DefinitionError([f"{path}: a file cannot be called {name!r}" for name in wrong])
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise ConfigError([f"{path} is there already: name a folder that is new or empty"])
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as opened:
            opened.write(content)


def handed_in(paths: Iterable[Path], wanted: Sequence[str]) -> Sources:
    """Return these files, and all those in these folders, as a student would hand them in.

    wanted: the names that an exercise asks for.

    Raises:
        DefinitionError: one cannot be read, is no text, or there are two of a name.
    """
    found: dict[str, bytes] = {}
    for path in paths:
        files = read_files(path) if path.is_dir() else {path.name: read_file(path)}
        if twice := [name for name in files if name in found]:
            raise DefinitionError([f"{path}: there are two files called {twice[0]}"])
        found |= files
    if not found:
        raise DefinitionError(["there is no file to hand in"])
    return named(found, wanted)


def named(files: Mapping[str, bytes], wanted: Sequence[str]) -> Sources:
    """Return files as they are handed in: a single one under the name that an exercise asks for.

    Raises:
        DefinitionError: one is no text.
    """
    if len(files) == 1 and wanted:
        [(name, content)] = files.items()
        name = PurePosixPath(name).name
        files = {name if name in wanted else wanted[0]: content}
    return tuple(sorted((name, _text(Path(name), content)) for name, content in files.items()))


def language_for(definition: Definition, names: Iterable[str]) -> str:
    """Return in which of its languages an exercise is solved by files of these names."""
    spoken = {language_of(name) for name in names}
    return next((one for one in definition.languages if one in spoken), definition.language)


def key_of(row: str) -> str | None:
    """Return the key of the exercise that a `scripts` row defines, None when it defines none."""
    try:
        key = tomllib.loads(row).get("key") if is_definition(row) else None
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    return key if isinstance(key, str) else None


# -- reading --------------------------------------------------------------------------------------


def read_files(folder: Path) -> dict[str, bytes]:
    """Return every file beneath a folder by its POSIX path, in order; see `read`.

    Raises:
        DefinitionError: with every problem that was found.
    """
    found: dict[str, bytes] = {}
    problems: list[str] = []
    room = FOLDER_MOST
    for file in _walked(folder, folder.resolve(), problems):
        name = file.relative_to(folder).as_posix()
        if not is_safe(name):
            problems.append(f"{folder}: a file cannot be called {name!r}")
            continue
        if len(found) == FILES_MOST:
            problems.append(f"{folder}: there are more than {FILES_MOST} files")
            break
        try:
            found[name] = read_file(file)
        except DefinitionError as error:
            problems += error.problems
            continue
        room -= len(found[name])
        if room < 0:
            problems.append(f"{folder}: the files are more than {FOLDER_MOST // MIB} MiB together")
            break
    if problems:
        raise DefinitionError(problems)
    return found


def read_file(path: Path) -> bytes:
    """Return what is in a regular file.

    Raises:
        DefinitionError: it is none, cannot be read, or is larger than it may be.
    """
    try:
        # Non-blocking: to open a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DefinitionError([f"{path}: is no regular file"])
            content = file.read(FILE_MOST + 1)
    except OSError as error:
        # Without the name, which the line begins with.
        said = os.strerror(error.errno or errno.EIO)
        raise DefinitionError([f"{path}: {said}"]) from error
    if len(content) > FILE_MOST:
        raise DefinitionError([f"{path}: is larger than {FILE_MOST // MIB} MiB"])
    return content


def _walked(folder: Path, root: Path, problems: list[str]) -> Iterator[Path]:
    """Yield what may be read beneath `folder`; says of all else why it may not."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(f"{folder}: {os.strerror(error.errno or errno.EIO)}")
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name.endswith(LITTER):
            continue
        if entry.is_symlink() and (problem := _leads_out(path, root)):
            problems.append(f"{path}: {problem}")
        elif entry.is_dir(follow_symlinks=False):
            yield from _walked(path, root, problems)
        else:
            yield path


def _leads_out(link: Path, root: Path) -> str:
    """Return why a link is not followed, "" when it is."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # a circle of links is a RuntimeError
        return "is a link that leads nowhere"
    if not target.is_relative_to(root):
        return "is a link that leads out of the folder"
    return "is a link to a folder" if target.is_dir() else ""


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DefinitionError(
            [f"{path}: is no text in UTF-8 (line {line}): save it as such"]
        ) from error


def _of(path: Path, problems: Iterable[str]) -> DefinitionError:
    return DefinitionError([f"{path}: {problem}" for problem in problems])


def _beneath(files: Mapping[str, bytes], path: str) -> dict[str, bytes]:
    """Return the file of this path, else what lies in the folder of this path by its path there."""
    if path in files:
        return {PurePosixPath(path).name: files[path]}
    under = f"{path.rstrip('/')}/"
    return {n.removeprefix(under): files[n] for n in files if n.startswith(under)}


def _absent(files: Mapping[str, bytes], path: str) -> str:
    near = difflib.get_close_matches(path, files, 1)
    return f"{path}: is not in the folder" + (f": {near[0]}?" if near else "")
