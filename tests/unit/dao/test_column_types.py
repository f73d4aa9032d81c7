"""Column types, without a database."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from commserver.core.jobs import Requirement, Requires
from commserver.dao.column_types import Grade, Id, Json, UtcDateTime, Whole, is_id
from commserver.errors import StoreRefused

SQLITE = sqlite.dialect()
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
REQUIRES: Requires = (
    Requirement("image", "=", ("python",)),
    Requirement("memory", "<=", (64, "x")),
)


def test_a_moment_is_stored_in_utc_whatever_its_zone() -> None:
    paris = NOON.astimezone(timezone(timedelta(hours=1)))

    stored = UtcDateTime().process_bind_param(paris, SQLITE)

    assert stored == NOON
    assert stored.tzinfo is UTC


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        UtcDateTime().process_bind_param(NOON.replace(tzinfo=None), SQLITE)


@pytest.mark.parametrize(
    "stored", [NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=-5)))]
)
def test_a_moment_comes_back_in_utc(stored: datetime) -> None:
    found = UtcDateTime().process_result_value(stored, SQLITE)

    assert found == NOON
    assert found.tzinfo is UTC


def test_no_moment_stays_none() -> None:
    assert UtcDateTime().process_bind_param(None, SQLITE) is None
    assert UtcDateTime().process_result_value(None, SQLITE) is None


def test_json_gives_back_the_types_of_its_kind() -> None:
    kind = Json(Requires)

    assert kind.process_result_value(kind.process_bind_param(REQUIRES, SQLITE), SQLITE) == REQUIRES


def test_json_keeps_sets_of_numbers_and_words() -> None:
    kind = Json(dict[str, frozenset[str | int]])
    features = {"image": frozenset({"python", 3}), "memory": frozenset({1024})}

    assert kind.process_result_value(kind.process_bind_param(features, SQLITE), SQLITE) == features


def test_json_of_another_kind_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError):
        Json(Requires).process_result_value('[["image", "~", []]]', SQLITE)


def test_equal_texts_share_one_object() -> None:
    kind = Json(Requires, shared=True)
    text = kind.process_bind_param(REQUIRES, SQLITE)

    assert kind.process_result_value(text, SQLITE) is kind.process_result_value(text, SQLITE)


def test_json_is_text_on_every_database() -> None:
    dialects: list[Dialect] = [SQLITE, postgresql.dialect()]  # type: ignore[no-untyped-call]

    assert {Json(Requires).compile(dialect=dialect) for dialect in dialects} == {"TEXT"}


@pytest.mark.parametrize(
    ("number", "possible"), [(-1, False), (0, True), (42, True), (2**63 - 1, True), (2**63, False)]
)
def test_only_what_fits_a_column_is_an_id(number: int, possible: bool) -> None:
    assert is_id(number) is possible


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        (Whole(), "secret", "whole number"),
        (Whole(), NOON, "whole number"),
        (Grade(), Decimal("NaN"), "whole number"),
        (Id(), Decimal("Infinity"), "whole number"),
        (UtcDateTime(), "secret", "moment"),
        (Json(Requires), '"secret', "record of this version"),
        (Json(Requires), '["secret"]', "record of this version"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_not_shown(
    kind: TypeDecorator[Any], value: object, what: str
) -> None:
    process = kind.dialect_impl(SQLITE).result_processor(SQLITE, None)
    assert process is not None

    with pytest.raises(StoreRefused) as caught:
        process(value)

    assert str(caught.value) == f"a value in the database is no {what}"
    assert caught.value.__context__ is None
