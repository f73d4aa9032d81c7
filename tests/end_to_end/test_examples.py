"""Every solution of the example courses gets exactly what its teacher says it must."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from commserver.core.execution import Verdict
from commserver.engine.sandbox import FreshSandbox
from commserver.engine.wrapper import DockerWrapper
from commserver.graders import tests
from commserver.graders.content import Content
from commserver.graders.definition import Expected
from commserver.services.admin_service import read_exercise
from tests.conftest import ROOT

pytestmark = pytest.mark.docker

EXERCISES = sorted((ROOT / "examples").glob("*/*/exercise.toml"))


def _solutions() -> Iterator[tuple[Path, str]]:
    for file in EXERCISES:
        _, definition = read_exercise(file.parent)
        yield from ((file.parent, solution) for solution in definition.solutions)


@pytest.mark.parametrize(
    ("folder", "solution"),
    [pytest.param(*one, id=f"{one[0].name}-{Path(one[1]).name}") for one in _solutions()],
)
async def test_solution_gets_its_verdict(folder: Path, solution: str, docker_url: str) -> None:
    text, definition = read_exercise(folder)
    wanted = definition.solutions[solution]
    expected = Expected(wanted) if isinstance(wanted, str) else wanted
    name = (definition.submission.files or ("main.py",))[0]
    source = (folder / solution).read_text()
    content = Content(definition.language, definition.grade_max, ((name, source),), text)
    wrapper = DockerWrapper(docker_url)
    sandbox = FreshSandbox(wrapper, site="examples", boot="examples")

    plan = tests.plan(content)
    assert not isinstance(plan, Verdict)
    verdict = tests.judge(content, await sandbox.execute(plan, run="example", slot=7))
    wrapper.close()

    assert (verdict.status, verdict.grade) == (expected.verdict, expected.grade), verdict.log


def test_there_are_examples_in_both_languages() -> None:
    assert {read_exercise(file.parent)[1].language for file in EXERCISES} == {"python", "c"}
