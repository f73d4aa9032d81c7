"""What the tables promise, read from their definitions."""

import re
from decimal import Decimal

import pytest
from sqlalchemy import Column
from sqlalchemy.dialects import postgresql

from commserver.core.states import State
from commserver.dao import grants, tables
from tests.conftest import ROOT


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


@pytest.mark.parametrize(
    ("column", "stored", "expected"),
    [
        (tables.user_exercises.c.id, Decimal(42), 42),
        (tables.exercises.c.grade_max, Decimal("20.00"), 20),
        (tables.exercises.c.grade_max, None, None),
        (tables.codes.c.modify_timestamp, 1.767e12, 1_767_000_000_000),
        (tables.languages.c.name, "Python   ", "Python"),
        (tables.languages.c.name, None, None),
        (tables.codes.c.name, " two words ", " two words"),
        (tables.codes.c.content, "kept \n ", "kept \n "),
        (tables.codes.c.content, 7, "7"),
        (tables.scripts.c.content, None, None),
    ],
)
def test_a_platforms_values_come_back_as_what_they_mean(
    column: Column[object], stored: object, expected: object
) -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # it has no types
    process = column.type.result_processor(dialect, None)
    assert process is not None

    found = process(stored)

    assert (found, type(found)) == (expected, type(expected))


def test_what_is_needed_is_what_there_is() -> None:
    assert set(grants.PLATFORM) == set(tables.platform.tables)
    for name, need in grants.PLATFORM.items():
        assert {*need.read, *need.added} <= set(tables.platform.tables[name].c.keys())
    versions = {"commserver_version", "platform_version"}
    assert set(grants.OURS) == set(tables.commserver.tables) | versions


def test_the_page_for_admins_says_what_is_needed() -> None:
    page = (ROOT / "docs" / "database.md").read_text()

    for name, need in grants.PLATFORM.items():
        [row] = re.findall(rf"^\| `{name}` \|(.*)\|(.*)\|$", page, re.MULTILINE)
        assert [re.findall(r"`(\w+)`", cell) for cell in row] == [[*need.read], [*need.added]]
    for name in tables.commserver.tables:
        assert f"`{name}`" in page
