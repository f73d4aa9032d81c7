"""Every solution of the example courses gets exactly what its teacher says it must."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from commserver.core.verdicts import Broken, Completed, Status
from commserver.demo import HANDED_IN
from commserver.engine.frames import Walls
from commserver.engine.sandbox import DockerSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.services import exercise_folder
from commserver.services.exercise_folder import ExerciseFolder
from commserver.services.rehearsal_service import Checked, RehearsalService
from tests.conftest import ROOT

pytestmark = pytest.mark.docker

FOLDERS = sorted(file.parent for file in (ROOT / "examples").glob("*/*/exercise.toml"))
SLOTS = (7, 8)  # of what is tried at once

# For the walls that few hosts need: one of each kind, and those that reach out for what is ours.
AMONG_UIDS = {
    "c-101/backwards": {"solutions/right.c", "solutions/frees-twice.c"},
    "c-101/nim": {"solutions/right.c", "solutions/leaves-in-a-huff.c"},
    "c-101/queens": {"solutions/right.c", "solutions/counts-rows.c"},
    "c-101/sum": {"solutions/traces-itself.c"},
    "python-101/double": {"solutions/hoards.py", "solutions/forks.py"},
    "python-101/receipt": {"solutions/right.py"},
    "python-101/triangle": {
        "solutions/right.py",
        "solutions/prints-grades.py",
        "solutions/own-grader",
    },
}


@asynccontextmanager
async def _sandbox(docker_url: str, walls: Walls | None) -> AsyncIterator[DockerSandbox]:
    wrapper = DockerWrapper(docker_url)
    sandbox = DockerSandbox(wrapper, site=uuid.uuid4().hex, boot=uuid.uuid4().hex, walls=walls)
    try:
        yield sandbox
        await sandbox.close()
    finally:
        wrapper.close()


async def _surprises(sandbox: DockerSandbox, folder: ExerciseFolder, solutions: set[str]) -> str:
    """Return what became of each solution that did not get what it must, "" when all did."""
    waiting = sorted(solutions)
    checked: list[Checked] = []

    async def work(slot: int) -> None:
        service = RehearsalService(sandbox, slot=slot)
        while waiting:
            checked.append(await service.check(folder, waiting.pop()))

    async with asyncio.TaskGroup() as tasks:
        for slot in SLOTS:
            tasks.create_task(work(slot))
    return "\n\n".join(_told(one) for one in checked if not one.good)


def _told(one: Checked) -> str:
    wanted = f"{one.solution} must get {one.expected.verdict} {one.expected.grade}"
    match one.rehearsal.outcome:
        case Completed(verdict):
            got = f"{verdict.status} {verdict.grade}\n{verdict.log}"
        case Broken(failure):
            got = f"{failure.fault} fault: {failure.message}\n{failure.details}"
    return f"{wanted}, got {got}"


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: f"{path.parent.name}/{path.name}")
async def test_every_solution_gets_its_verdict(path: Path, docker_url: str) -> None:
    folder = exercise_folder.read(path)

    async with _sandbox(docker_url, walls=None) as sandbox:
        surprises = await _surprises(sandbox, folder, set(folder.solutions))

    assert not surprises, surprises


@pytest.mark.parametrize("name", AMONG_UIDS)
async def test_a_host_without_namespaces_judges_the_same(name: str, docker_url: str) -> None:
    folder = exercise_folder.read(ROOT / "examples" / name)

    async with _sandbox(docker_url, walls=Walls.UIDS) as sandbox:
        surprises = await _surprises(sandbox, folder, AMONG_UIDS[name])

    assert not surprises, surprises


def test_there_are_examples_of_everything_that_an_exercise_can_be() -> None:
    folders = [exercise_folder.read(path) for path in FOLDERS]
    definitions = [folder.definition for folder in folders]

    assert {one.kind for one in definitions} == {"tests", "script", "pipeline"}
    assert {one.languages for one in definitions} == {("python",), ("c",), ("python", "c")}
    assert {str(one.checker) for one in definitions} >= {"exact", "lines", "tokens"}
    assert {Path(one.checker_program).suffix for one in definitions} == {"", ".py", ".c"}
    assert any(folder.bulk for folder in folders), "one has a file too large for a row"
    assert len({one.key for one in definitions}) == len(definitions) >= 16
    for folder in folders:
        assert len(folder.solutions) >= 5, folder.path


def test_the_demo_shows_the_ends_that_every_course_meets() -> None:
    ends = set()
    for name, solutions in HANDED_IN.items():
        folder = exercise_folder.read(ROOT / "examples" / name)
        ends |= {folder.solutions[f"solutions/{one}"].verdict for one in solutions}

    assert ends >= {
        Status.ACCEPTED,
        Status.WRONG_ANSWER,
        Status.CPU_TIME,
        Status.MEMORY,
        Status.OUTPUT,
        Status.RUNTIME_ERROR,
        Status.COMPILE_ERROR,
    }
