"""What the tables promise, read from their definitions."""

import re

from commserver.core.states import State
from commserver.dao import tables


def test_no_foreign_key_of_ours_leads_to_the_platform() -> None:
    ours = set(tables.commserver.tables)

    targets = {
        key.target_fullname.split(".")[0]
        for table in tables.commserver.tables.values()
        for key in table.foreign_keys
    }

    assert targets <= ours
    assert not ours & set(tables.platform.tables)


def test_unfinished_means_every_state_that_is_no_end() -> None:
    named = set(re.findall(r"'(\w+)'", tables.UNFINISHED))

    assert named == {state.value for state in State if not state.ended}


def test_every_constraint_and_index_has_a_name() -> None:
    for metadata in (tables.platform, tables.commserver):
        for table in metadata.tables.values():
            assert all(constraint.name for constraint in table.constraints), table.name
            assert all(index.name for index in table.indexes), table.name
