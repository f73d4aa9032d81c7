"""Column types that mean the same on every database."""

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import msgspec
from sqlalchemy import BigInteger, DateTime, Enum, Integer, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from commserver.core.text import clean_text
from commserver.errors import StoreRefused

T = TypeVar("T")
LARGEST_ID = 2**63 - 1


def is_id(number: int) -> bool:
    """Return whether a row could have this id; what comes from a wire may be any number."""
    return 0 <= number <= LARGEST_ID


class Decoded(TypeDecorator[T]):
    """What may hold a value that is none of its kind: whoever reads it gets a StoreRefused."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok = True
    what: ClassVar[str]

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any] | None:
        process = super().result_processor(dialect, coltype)
        if process is None:
            return None

        def refused(value: Any) -> Any:
            try:
                return process(value)
            except (ValueError, TypeError, ArithmeticError, msgspec.MsgspecError):
                pass
            # Not from within: that error quotes the value.
            raise StoreRefused(f"a value in the database is no {self.what}")

        return refused


class Whole(Decoded[int]):
    """A whole number, also where the platform keeps it as NUMERIC."""

    impl: type[TypeEngine[Any]] = BigInteger
    cache_ok = True
    what = "whole number"

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class Grade(Whole):
    """A whole number of points."""

    impl = Integer
    cache_ok = True


class Id(Whole):
    """The id of one of the platform's rows."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[int]:
        # SQLite numbers its rows by itself only in a column whose type is exactly INTEGER.
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())


class Content(TypeDecorator[str]):
    """A text of the platform's; SQLite gives a number back where it looked like one."""

    impl: type[TypeEngine[Any]] = Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(value)


class Name(Content):
    """A short text of the platform's, without the spaces that CHAR(n) fills it up with."""

    impl = String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else str(value).rstrip(" ")


class CleanText(TypeDecorator[str]):
    """A text of others, cleaned on its way in: no database refuses it, and it comes back as it is.

    A live platform's tables are not ours to clean: what goes there is cleaned by who writes it.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


class UtcDateTime(Decoded[datetime]):
    """A moment: timezone-aware, UTC, also where the database keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True
    what = "moment"

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(Decoded[Any]):
    """An object as JSON text, decoded strictly to `kind`.

    Text on every database: PostgreSQL's own JSON type refuses an escaped NUL and orders keys anew.
    With `shared`, equal texts give the very same object, which must then be immutable.
    """

    impl = Text
    cache_ok = True
    what = "record of this version"

    def __init__(self, kind: Any, *, shared: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.shared = shared
        decode = msgspec.json.Decoder(kind).decode
        self._decode = lru_cache(maxsize=4096)(decode) if shared else decode

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else self._decode(value)


def text_enum(kind: type[StrEnum], name: str) -> Enum:
    """Return a column type that holds the values of `kind` as text, with a CHECK of this name."""
    return Enum(
        kind,
        name=name,
        length=32,
        native_enum=False,
        create_constraint=True,
        values_callable=lambda members: [member.value for member in members],
    )
