"""A compiler that grows or burns is ended, and that is the student's error; nothing is left."""

from dataclasses import replace
from typing import Any

import pytest

from commserver.core.execution import MIB
from commserver.graders import submission
from commserver.graders.languages import COMPILE_LIMITS
from tests.hostile.conftest import Room
from tests.hostile.corpus.compiling import BURNING, GROWING
from tests.hostile.entries import RIGHT, Entry

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

# Less than compilers get: to see who is ended, and for what, nobody has to wait ten seconds.
LITTLE = {"memory": {"memory": 72 * MIB}, "cpu": {"cpu": 0.2}}


@pytest.mark.parametrize(
    ("limits", "entry"),
    [
        *(pytest.param(LITTLE["memory"], entry, id=entry.name) for entry in GROWING),
        *(pytest.param(LITTLE["cpu"], entry, id=entry.name) for entry in BURNING),
    ],
)
async def test_a_compiler_is_ended_at_its_limits(
    room: Room, limits: dict[str, Any], entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(submission, "COMPILE_LIMITS", replace(COMPILE_LIMITS, **limits))
        verdict = await room.submit(entry)

    assert (verdict.status, verdict.grade) == entry.wanted(room.form), verdict.log
    assert entry.log in verdict.log
    await room.check_nothing_is_left()
    after = await room.submit(RIGHT["c"])
    assert (after.status, after.grade) == RIGHT["c"].wanted(room.form), after.log
