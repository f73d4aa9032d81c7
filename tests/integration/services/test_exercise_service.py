"""Exercises as the platform's tables have them: put in, found, taken out, and how they go."""

from pathlib import Path

import pytest

from commserver.core.execution import MIB
from commserver.core.verdicts import CaseVerdict, Cause, Completed, Outcome, Status, Verdict
from commserver.errors import ConfigError, DefinitionError, NotFound
from commserver.services.exercise_folder import ExerciseFolder, read, write
from commserver.services.exercise_service import CaseStatistics, ExerciseService
from tests.fakes import broken
from tests.integration.services.site import Site
from tests.unit.graders.toml import exercise

FILES = {
    "exercise.toml": f"{exercise()}\n# mine\n[solutions]\n'a.py' = 'accepted'\n".encode(),
    "instruction.md": b"Doublez-le !\n",
    "a.py": b"print(42)\n",
    "cases/bytes.in": b"\xff\0" * 1000,
    "given/data.txt": b"x" * 100_000,
}


@pytest.fixture
def folder(tmp_path: Path) -> ExerciseFolder:
    """An exercise with files of every size."""
    write(tmp_path / "double", FILES)
    return read(tmp_path / "double")


@pytest.fixture
def service(site: Site) -> ExerciseService:
    return ExerciseService(site.database, site.daos, site.files)


def changed(folder: ExerciseFolder, before: str, after: str) -> ExerciseFolder:
    """Return the exercise after its teacher has edited its text."""
    file = folder.path / "exercise.toml"
    file.write_text(file.read_text().replace(before, after))
    return read(folder.path)


# -- in and out -----------------------------------------------------------------------------------


async def test_an_exercise_comes_out_as_it_was_put_in(
    site: Site, service: ExerciseService, folder: ExerciseFolder
) -> None:
    number = await site.admin.put_exercise(folder, "turing")

    exported = await service.export(number)

    assert exported.files == FILES
    assert (exported.exercise, exported.title) == (number, "Double it")
    [(row,)] = await site.sql("SELECT content FROM scripts")
    assert isinstance(row, str)
    assert len(row) < 10_000, "what is large is kept by its hash"


async def test_a_lost_file_and_a_foreign_grader_are_told(
    site: Site, service: ExerciseService, folder: ExerciseFolder
) -> None:
    number = await site.admin.put_exercise(folder, "turing")
    [lost, *_] = folder.bulk
    path = site.state / "files" / lost[:2] / lost[2:4] / lost
    path.unlink()
    plain = await site.exercise("print('GRADE: 20')", title="plain")
    nothing = await site.exercise(None, title="nothing")

    with pytest.raises(NotFound) as caught:
        await service.export(number)
    assert (caught.value.kind, caught.value.id) == ("file", lost)
    with pytest.raises(DefinitionError, match="by a correction script, which is not"):
        await service.export(plain)
    with pytest.raises(DefinitionError, match="by nothing, which is not"):
        await service.export(nothing)
    with pytest.raises(NotFound, match="no exercise 999"):
        await service.export(999)


async def test_an_exercise_is_known_by_its_key_whatever_it_is_called(
    site: Site, service: ExerciseService, folder: ExerciseFolder
) -> None:
    number = await site.admin.put_exercise(folder, "turing")
    renamed = changed(folder, '"Double it"', '"Twice"')

    assert await site.admin.put_exercise(renamed, "turing") == number
    elsewhere = await site.admin.put_exercise(renamed, "turing", course="python-102")
    other = await site.admin.put_exercise(
        changed(folder, '"double"', '"another one"'), "turing", course="python-103"
    )

    assert len({number, elsewhere, other}) == 3
    assert await site.sql("SELECT title FROM exercises ORDER BY id") == [("Twice",)] * 3
    assert await service.find("another one") == other
    assert await service.find(str(other)) == other
    with pytest.raises(ConfigError, match=f"several exercises .* {number}, {elsewhere}"):
        await service.find("double")
    for unknown in ("doub", "%"):
        with pytest.raises(NotFound):
            await service.find(unknown)


async def test_the_newest_row_says_which_key_an_exercise_has(
    site: Site, service: ExerciseService, folder: ExerciseFolder
) -> None:
    number = await site.admin.put_exercise(folder, "turing")
    await site.admin.put_exercise(changed(folder, '"double"', '"twice"'), "turing")

    assert await service.find("twice") == number
    with pytest.raises(NotFound):
        await service.find("double")


async def test_of_a_live_platform_only_the_grader_is_written(
    site: Site, folder: ExerciseFolder
) -> None:
    named = await site.exercise(None, title="whatever", course="theirs")
    titled = await site.exercise(None, title="Double it", course="python-101")
    await site.sql("DROP TABLE platform_version")
    before = await site.sql("SELECT * FROM exercises ORDER BY id")

    assert await site.admin.put_exercise(folder, "teacher", exercise=named) == named
    assert await site.admin.put_exercise(folder, "teacher") == titled
    assert await site.admin.put_exercise(folder, "teacher", course="theirs") == named

    assert await site.sql("SELECT * FROM exercises ORDER BY id") == before
    assert await site.count("scripts") == 2
    with pytest.raises(NotFound, match="name its own with --exercise ID"):
        await site.admin.put_exercise(folder, "teacher", course="nobody's")
    with pytest.raises(NotFound, match="no exercise 999"):
        await site.admin.put_exercise(folder, "teacher", exercise=999)
    assert await site.count("scripts") == 2


# -- statistics -----------------------------------------------------------------------------------


async def test_statistics_tell_how_each_case_went(site: Site, service: ExerciseService) -> None:
    number = await site.exercise()
    ends: list[Outcome] = [
        judged(Status.ACCEPTED, Status.ACCEPTED, 0.1),
        judged(Status.ACCEPTED, Status.MEMORY, 0.3),
        judged(Status.WRONG_ANSWER, Status.MEMORY, 0.2),
        judged(Status.COMPILE_ERROR, Status.COMPILE_ERROR, 0.0),
        broken(Cause.EXERCISE),
    ]
    for place, outcome in enumerate(ends):
        await site.submit(await site.attempt(number, student=f"student {place}"))
        await site.runs.finished(await site.lease(), outcome)
    await site.submit(await site.attempt(await site.exercise(title="another")))
    await site.runs.finished(await site.lease(), judged(Status.ACCEPTED, Status.ACCEPTED, 9.0))

    found = await service.statistics(number)

    assert (found.exercise, found.title, found.runs, found.unread) == (number, "Double it", 4, 0)
    assert found.accepted == 0.25
    assert found.cases == (
        CaseStatistics("first", 4, 0.5, found.cases[0].most, 0.2, 0.4, MIB),
        CaseStatistics("second", 4, 0.25, Status.MEMORY, 0.2, 0.4, MIB),
    )
    assert found.cases[0].most in (Status.WRONG_ANSWER, Status.COMPILE_ERROR)


async def test_what_cannot_be_read_is_counted_and_no_exercise_is_told(
    site: Site, service: ExerciseService
) -> None:
    number = await site.exercise()
    assert (await service.statistics(number)).runs == 0
    await site.submit(await site.attempt(number))
    await site.runs.finished(await site.lease(), judged(Status.ACCEPTED, Status.ACCEPTED, 0.1))
    await site.sql("UPDATE executions SET verdict = '[]'")

    found = await service.statistics(number)

    assert (found.runs, found.unread, found.cases) == (0, 1, ())
    with pytest.raises(NotFound):
        await service.statistics(999)


def judged(first: Status, second: Status, cpu: float) -> Completed:
    """Return a verdict on two cases."""
    cases = tuple(
        CaseVerdict(name, status, 0, 1, cpu, 2 * cpu, MIB)
        for name, status in (("first", first), ("second", second))
    )
    worst = first if first is not Status.ACCEPTED else second
    return Completed(Verdict(worst, 5, 20, cases=cases))
