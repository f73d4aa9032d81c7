"""`commserver exercise`: what teachers do with an exercise before students meet it, and after."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console

from commserver import config, operations
from commserver.commands import exercise_json, exercise_new, exercise_show
from commserver.commands.options import (
    FAILED,
    AsJson,
    ConfigFile,
    StateDir,
    configured,
    err,
    out,
)
from commserver.core.verdicts import Completed
from commserver.errors import (
    ConfigError,
    DefinitionError,
    ImageMissing,
    SandboxUnavailable,
)
from commserver.services import exercise_folder
from commserver.services.exercise_folder import DEFINITION, ExerciseFolder
from commserver.services.exercise_service import ExerciseService
from commserver.services.rehearsal_service import (
    Checked,
    Rehearsal,
    RehearsalService,
    accepted,
    uses,
)

TIMES = 5  # each solution, to measure what it uses

T = TypeVar("T")
Tell = Callable[[ExerciseFolder, Sequence[Checked], Console], None]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The exercise's folder.")]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR", help="The exercises' folders.")]
Named = Annotated[str, typer.Argument(metavar="ID|KEY", help="Its `exercises.id`, or its key.")]

app = typer.Typer(no_args_is_help=True, help="Exercises, as teachers write them.")


@app.command()
def new(
    folder: Folder,
    kind: Annotated[
        Literal["tests", "script", "pipeline"], typer.Option(help="How it is graded.")
    ] = "tests",
    language: Annotated[Literal["python", "c"], typer.Option(help="What students write.")] = (
        "python"
    ),
) -> None:
    """Make a folder to start from, which `exercise check` accepts as it is."""
    exercise_folder.write(folder, exercise_new.files(folder, kind, language))
    out.print(f"{folder} is made: an exercise of kind {kind} in {language}", markup=False)
    out.print(f"  commserver exercise check {folder}", markup=False)


@app.command()
def check(
    folders: Folders,
    as_json: AsJson = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Read exercises, show what is in force, and run their solutions.

    Exits 0 when each got what it must, 1 when one did not or an exercise is
    wrong, 2 when there is no engine to run them on.
    """
    found = {folder: _read(folder) for folder in folders}
    if not as_json:
        for exercise in found.values():
            if isinstance(exercise, DefinitionError):
                exercise_show.problems(exercise, err)
            else:
                exercise_show.exercise(exercise, out)
    right = [one for one in found.values() if isinstance(one, ExerciseFolder)]
    tell = None if as_json else exercise_show.checked
    checked = asyncio.run(_all_checked(configured(file, state_dir), right, tell))
    good = len(right) == len(found) and all(one.good for each in checked for one in each)
    if as_json:
        results = iter(checked)
        told = [
            exercise_json.refused(folder, one)
            if isinstance(one, DefinitionError)
            else exercise_json.checked(one, next(results))
            for folder, one in found.items()
        ]
        out.print_json(data={"good": good, "exercises": told})
    raise typer.Exit(0 if good else FAILED)


@app.command(name="try")
def try_(
    folder: Folder,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="What is handed in; a folder's files.")
    ],
    as_: Annotated[
        Literal["student", "teacher", "both"], typer.Option("--as", help="Whose view.")
    ] = "both",
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Hand something in without anybody noticing, and see what students and teachers would see."""
    exercise = exercise_folder.read(folder)
    sources = exercise_folder.handed_in(files, exercise.definition.submission.files)

    async def work(service: RehearsalService) -> Rehearsal:
        return await service.rehearse(exercise, sources)

    rehearsal = asyncio.run(_rehearsed(configured(file, state_dir), work))
    exercise_show.handed_in(rehearsal, out)
    if as_ != "teacher":
        exercise_show.for_student(rehearsal, out)
    if as_ != "student":
        exercise_show.for_teacher(rehearsal, out)
    raise typer.Exit(0 if isinstance(rehearsal.outcome, Completed) else FAILED)


@app.command()
def calibrate(
    folder: Folder,
    times: Annotated[int, typer.Option(min=1, max=100, help="How often each is run.")] = TIMES,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Measure the solutions that must be accepted, and propose limits.

    Three times what was used at most; a limit under twice of it is warned of.
    """
    exercise = exercise_folder.read(folder)
    right = accepted(exercise)
    if not right:
        raise DefinitionError(
            [f"{folder / DEFINITION}: solutions: none must be accepted: nothing can be measured"]
        )

    async def work(service: RehearsalService) -> list[Checked]:
        checked = []
        for solution in right * times:
            with err.status(f"{solution} …"):
                checked.append(await service.check(exercise, solution))
        return checked

    checked = asyncio.run(_rehearsed(configured(file, state_dir), work))
    bad = [one for one in checked if not one.good]
    exercise_show.proposals(exercise, uses(one.rehearsal for one in checked), times, out)
    if bad:
        exercise_show.checked(exercise, bad, out)
        raise typer.Exit(FAILED)


@app.command(name="import")
def import_(
    folders: Folders,
    teacher: Annotated[str, typer.Option(help="Whose they are: a user name.")] = "teacher",
    course: Annotated[str, typer.Option(help="Its title, instead of what they say.")] = "",
    exercise: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="The platform's own, of this id.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Do not run the solutions.")] = False,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Put exercises into the platform's tables, each once it is checked; prints their ids."""
    if exercise is not None and len(folders) > 1:
        raise ConfigError(["--exercise: one folder at a time"])
    loaded = configured(file, state_dir)

    async def work() -> None:
        async with operations.admin(loaded) as service:
            found = _right(folders)
            if not force:
                _must_be_good(found, await _all_checked(loaded, found))
            for one in found:
                number = await service.put_exercise(one, teacher, course=course, exercise=exercise)
                typer.echo(f"{number}\t{one.path}")

    asyncio.run(work())


@app.command()
def export(
    name: Named,
    folder: Folder,
    file: ConfigFile = None,
    state_dir: StateDir = None,
) -> None:
    """Write an exercise of the platform's into a new folder: the inverse of `exercise import`."""
    exported = asyncio.run(_known(configured(file, state_dir), name, ExerciseService.export))
    exercise_folder.write(folder, exported.files)
    said = f"exercise {exported.exercise}, {exported.title!r}: {len(exported.files)} files"
    out.print(f"{said} in {folder}", markup=False)


@app.command()
def stats(
    name: Named, as_json: AsJson = False, file: ConfigFile = None, state_dir: StateDir = None
) -> None:
    """Show how students fare with an exercise, case by case."""
    found = asyncio.run(_known(configured(file, state_dir), name, ExerciseService.statistics))
    if as_json:
        out.print_json(data=exercise_json.statistics(found))
    else:
        exercise_show.statistics(found, out)


# -- what they share ------------------------------------------------------------------------------


def _read(folder: Path) -> ExerciseFolder | DefinitionError:
    try:
        return exercise_folder.read(folder)
    except DefinitionError as error:
        return error


def _right(folders: Iterable[Path]) -> list[ExerciseFolder]:
    """Return the exercises in these folders.

    Raises:
        DefinitionError: with the problems of all of them.
    """
    found = [_read(folder) for folder in folders]
    problems = [p for one in found if isinstance(one, DefinitionError) for p in one.problems]
    if problems:
        raise DefinitionError(problems)
    return [one for one in found if isinstance(one, ExerciseFolder)]


def _must_be_good(
    exercises: Sequence[ExerciseFolder], checked: Sequence[Sequence[Checked]]
) -> None:
    """Return if every solution got what it must; else say which did not, and exit."""
    good = True
    for exercise, solutions in zip(exercises, checked, strict=True):
        if not all(solution.good for solution in solutions):
            good = False
            exercise_show.checked(exercise, solutions, err)
    if not good:
        err.print("nothing was imported: correct it, or import it all the same with --force")
        raise typer.Exit(FAILED)


async def _all_checked(
    loaded: config.Config, exercises: Sequence[ExerciseFolder], tell: Tell | None = None
) -> list[list[Checked]]:
    """Return how the solutions of each exercise were judged.

    tell: is told of each exercise, once they are judged.

    Raises:
        ConfigError: there are solutions, and no engine to run them on.
    """

    async def work(service: RehearsalService) -> list[list[Checked]]:
        found = []
        for exercise in exercises:
            checked = []
            for solution in exercise.solutions:
                with err.status(f"{exercise.path / solution} …"):  # seen on a terminal only
                    checked.append(await service.check(exercise, solution))
            if tell:
                tell(exercise, checked, out)
            found.append(checked)
        return found

    if not any(exercise.solutions for exercise in exercises):  # then no engine is needed
        if tell:
            for exercise in exercises:
                tell(exercise, [], out)
        return [[] for _ in exercises]
    return await _rehearsed(loaded, work)


async def _rehearsed(
    loaded: config.Config, work: Callable[[RehearsalService], Coroutine[Any, Any, T]]
) -> T:
    """Do what needs an engine.

    Raises:
        ConfigError: there is none, or it lacks an image.
    """
    from commserver import app as application  # it takes long to load

    async with application.rehearsals(loaded) as service:
        try:
            return await work(service)
        except SandboxUnavailable as error:
            raise ConfigError([f"the engine does not answer any more: {error}"]) from error
        except ImageMissing as error:
            advice = "`commserver images build` builds what is missing"
            raise ConfigError([f"{error}: {advice}"]) from error


async def _known(
    loaded: config.Config,
    name: str,
    ask: Callable[[ExerciseService, int], Coroutine[Any, Any, T]],
) -> T:
    async with operations.exercises(loaded) as service:
        return await ask(service, await service.find(name))
