"""Each hostile submission gets its exact verdict, and leaves nothing; the next one is right."""

from unicodedata import category

import pytest

from tests.hostile.conftest import Room
from tests.hostile.corpus import ENTRIES
from tests.hostile.entries import RIGHT, Entry

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
async def test_gets_its_verdict_and_leaves_nothing(room: Room, entry: Entry) -> None:
    verdict = await room.submit(entry)

    assert (verdict.status, verdict.grade) == entry.wanted(room.form), verdict.log
    assert entry.log in verdict.log
    unfit = {char for char in verdict.log if category(char) in ("Cc", "Cs")} - set("\n\t")
    assert unfit == set(), "inert wherever it is shown"
    await room.check_nothing_is_left()
    after = await room.submit(RIGHT[entry.language])
    assert (after.status, after.grade) == RIGHT[entry.language].wanted(room.form), after.log


async def test_no_two_entries_have_one_name() -> None:
    names = [entry.name for entry in ENTRIES]

    assert len(names) == len(set(names)) > 150
