"""What the platform's tables look like on this database, and whether they can be used.

On a live site they are somebody else's: tables or views, of types that we did not choose, with
columns that we do not know. Nothing here changes anything.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from commserver.core.text import TEXT_LIMIT
from commserver.dao import grants, tables
from commserver.dao.column_types import Content, Grade, Id, Name

MILLISECONDS_DIGITS = 13  # of an epoch timestamp, until the year 2286


class Kind(Enum):
    """What a column can hold, as far as it matters to us."""

    SMALL = auto()  # whole numbers of at most 32 bits
    WHOLE = auto()
    NUMBER = auto()  # with a fraction
    TEXT = auto()
    LABEL = auto()  # one of a fixed list of texts
    UNKNOWN = auto()  # whatever a row puts there
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class FoundColumn:
    """A column as the database has it.

    type: in the database's words. length: the most characters or digits, None where any number.
    filled: the database gives a new row a value of its own. required: a new row must have one.
    """

    type: str
    kind: Kind
    length: int | None = None
    required: bool = False
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A table or view as the database has it.

    takes_rows: rows can be added at all. completes_rows: by more than what its columns show, so
    that nobody can say from outside what a new row will lack.
    """

    columns: Mapping[str, FoundColumn]
    takes_rows: bool = True
    completes_rows: bool = False


def problems(connection: Connection) -> list[str]:
    """Return what keeps us from working with this database's platform tables, a sentence each."""
    found = look(connection)
    said = list(_missing(connection, found))
    for table, need in grants.PLATFORM.items():
        if table in found:
            said += _unusable(table, need, found[table])
    if connection.dialect.name == "postgresql":
        said += (*_guarded(connection), *lacks(connection))
    return said


def lacks(connection: Connection, *, to_make: bool = False) -> list[str]:
    """Return what rights the present PostgreSQL role lacks, a sentence each.

    to_make: those to make our tables, else those to work with them.
    """
    role = connection.scalar(sa.text("SELECT current_user"))
    return [
        f"the role {role} lacks {right.what}: see `commserver migrate --grants {role}`"
        for right in grants.lacking(connection, grants.needed(connection))
        if (right.privilege == "CREATE") is to_make
    ]


def look(connection: Connection) -> dict[str, Found]:
    """Return the platform's tables and views that are there, by name."""
    look_at = _on_postgresql if connection.dialect.name == "postgresql" else _on_sqlite
    found = ((table, look_at(connection, table)) for table in tables.platform.tables)
    return {table: one for table, one in found if one is not None}


def _missing(connection: Connection, found: Mapping[str, Found]) -> Iterator[str]:
    missing = [table for table in grants.PLATFORM if table not in found]
    if missing:
        yield (
            f"the database has no {', '.join(sorted(missing))}: point database.url at the "
            "platform's database, or make its tables with `commserver migrate --with-platform`"
            f"{_elsewhere(connection, missing)}"
        )


def _elsewhere(connection: Connection, missing: list[str]) -> str:
    """Return where tables of these names are that the present role does not see, if anywhere."""
    if connection.dialect.name != "postgresql":
        return ""
    query = sa.text(
        "SELECT DISTINCT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relname = ANY(:missing) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1"
    )
    schemas = connection.scalars(query, {"missing": missing}).all()
    if not schemas:
        return ""
    return (
        f" (there are some in the schema {', '.join(schemas)}: the role needs USAGE on it, and it "
        "must be in the role's search_path)"
    )


def _guarded(connection: Connection) -> Iterator[str]:
    """Yield which tables show the present PostgreSQL role some of their rows, or take some only.

    A policy for everybody counts only if it lets everything through: others ask who is asking.
    """
    role = connection.scalar(sa.text("SELECT current_user"))
    for table, need in grants.PLATFORM.items():
        for wanted, command, what in (
            (need.read, "r", "SELECT"),
            (need.added, "a", "INSERT"),
        ):
            values = {"table": table, "command": command}
            if wanted and connection.scalar(_GUARDED, values):
                yield (
                    f"{table} has row-level security and no policy of it for {what} is for the "
                    f"role {role}: make one, or run `ALTER ROLE {role} BYPASSRLS`"
                )


def _unusable(table: str, need: grants.Need, found: Found) -> Iterator[str]:
    for name in dict.fromkeys((*need.read, *need.added)):
        column = found.columns.get(name)
        if column is None:
            yield f"{table} has no column {name}: add it, or use a view that has it"
            continue
        wanted = tables.platform.tables[table].c[name].type
        if problem := _misfit(wanted, column, added=name in need.added):
            yield f"{table}.{name} is {column.type}, {problem}"
    if not need.added:
        return
    if not found.takes_rows:
        yield (
            f"{table} is a view to which no row can be added: "
            "give it an INSTEAD OF INSERT trigger, or use a table"
        )
    elif not found.completes_rows:
        yield from _incomplete(table, need, found)


def _misfit(wanted: TypeEngine[object], column: FoundColumn, *, added: bool) -> str:
    """Return why a column cannot hold what it must, "" if it can."""
    kind, length = column.kind, column.length
    if kind is Kind.UNKNOWN:
        return ""
    if isinstance(wanted, Id):
        fits = kind in (Kind.SMALL, Kind.WHOLE)
        return "" if fits else "which is no id: it must be a whole number"
    if isinstance(wanted, Grade):
        fits = kind in (Kind.SMALL, Kind.WHOLE, Kind.NUMBER)
        return "" if fits else "which cannot hold points: it must be a number"
    if isinstance(wanted, Name | Content):
        if kind is not Kind.TEXT and (added or kind is not Kind.LABEL):
            return "which is no text: it must be text or varchar"
        short = added and length is not None and length < TEXT_LIMIT
        return f"too short for a log, which may have {TEXT_LIMIT} characters" if short else ""
    long = length is None or length >= MILLISECONDS_DIGITS
    if kind in (Kind.WHOLE, Kind.NUMBER) and long:
        return ""
    return "which cannot hold epoch milliseconds: it must be bigint or numeric"


def _incomplete(table: str, need: grants.Need, found: Found) -> Iterator[str]:
    """Yield what a row that we add would lack."""
    for name, column in found.columns.items():
        if name == "id":
            if not column.filled:
                yield (
                    f"{table}.id is not filled by the database, and we may not guess it: make it "
                    "an identity column, serial, or SQLite's INTEGER PRIMARY KEY"
                )
        elif name not in need.added and column.required and not column.filled:
            yield (
                f"{table}.{name} must have a value, which we do not know: "
                "give it a default or let it be NULL"
            )


# -- PostgreSQL -----------------------------------------------------------------------------------

INSERT = 1 << 3  # what pg_relation_is_updatable says of a relation that takes new rows
BEFORE_EACH_INSERT = 1 | 2 | 4  # in pg_trigger.tgtype: row, before, insert

_SMALL = frozenset({"int2", "int4"})
_NUMBER = frozenset({"float4", "float8"})

_COLUMNS = sa.text(
    "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,"
    " b.typname AS base, b.typcategory::text AS category,"
    " CASE WHEN t.typbasetype <> 0 THEN t.typtypmod ELSE a.atttypmod END AS modifier,"
    " a.attnotnull OR t.typnotnull AS required,"
    " a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS filled"
    " FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
    " JOIN pg_type b ON b.oid = CASE WHEN t.typbasetype <> 0 THEN t.typbasetype ELSE t.oid END"
    " WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
_GUARDED = sa.text(
    "SELECT row_security_active(c.oid) AND NOT EXISTS (SELECT FROM pg_policy p"
    "  WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*', CAST(:command AS text))"
    "  AND (EXISTS (SELECT FROM unnest(p.polroles) AS one"
    "    WHERE pg_has_role(one, 'USAGE'))"
    "   OR pg_get_expr(CASE WHEN CAST(:command AS text) = 'a'"
    "    THEN coalesce(p.polwithcheck, p.polqual) ELSE p.polqual END, c.oid) = 'true'))"
    " FROM pg_class c WHERE c.oid = to_regclass(:table)"
)
_RELATION = sa.text(
    "SELECT c.oid, c.relkind::text, pg_relation_is_updatable(c.oid, false) AS by_itself,"
    " pg_relation_is_updatable(c.oid, true) AS updatable,"
    " EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal"
    "  AND t.tgenabled <> 'D' AND t.tgtype & :before = :before) AS completes"
    " FROM pg_class c WHERE c.oid = :oid"
)
# What is under a view, with the columns of it that the view uses.
_BASES = sa.text(
    "SELECT d.refobjid AS oid, array_agg(a.attname::text) AS used FROM pg_rewrite r"
    " JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
    " AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class"
    " LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
    " WHERE r.ev_class = :oid GROUP BY d.refobjid"
)


def _on_postgresql(connection: Connection, table: str) -> Found | None:
    query = sa.text(
        "SELECT oid FROM pg_class"
        " WHERE oid = to_regclass(:table) AND relkind IN ('r', 'p', 'v', 'm', 'f')"
    )
    oid = connection.scalar(query, {"table": table})
    return None if oid is None else _relation(connection, oid)


def _relation(connection: Connection, oid: int) -> Found:
    given = {"oid": oid, "before": BEFORE_EACH_INSERT}
    relation = connection.execute(_RELATION, given).one()
    columns: dict[str, FoundColumn] = {}
    for row in connection.execute(_COLUMNS, {"oid": oid}):
        kind, length = _postgresql_kind(row.base, row.category, row.modifier)
        columns[row.name] = FoundColumn(row.type, kind, length, row.required, row.filled)
    takes_rows = bool(relation.updatable & INSERT)
    if relation.relkind != "v" or not takes_rows:
        return Found(columns, takes_rows, relation.completes)
    bases = connection.execute(_BASES, {"oid": oid}).all()
    if not relation.by_itself & INSERT or len(bases) != 1:
        return Found(columns, takes_rows, completes_rows=True)
    return _shown(columns, _relation(connection, bases[0].oid), set(bases[0].used))


def _shown(columns: Mapping[str, FoundColumn], base: Found, used: set[str]) -> Found:
    """Return a view that takes rows by itself, with what the one table under it does for them.

    used: the table's columns that the view uses. Which of its own a renamed one is nobody says:
    such a column is not required, and filled if any renamed one is.
    """
    renamed = [base.columns[name] for name in used & set(base.columns) - set(columns)]
    any_filled = any(one.filled for one in renamed)
    shown = {name: one for name, one in base.columns.items() if name not in used}
    for name, column in columns.items():
        under = base.columns.get(name) if name in used else None
        required, filled = (under.required, under.filled) if under else (False, any_filled)
        shown[name] = replace(column, required=required, filled=column.filled or filled)
    return Found(shown, completes_rows=base.completes_rows)


def _postgresql_kind(base: str, category: str, modifier: int) -> tuple[Kind, int | None]:
    if base in _SMALL:
        return Kind.SMALL, None
    if base == "int8":
        return Kind.WHOLE, None
    if base in _NUMBER:
        return Kind.NUMBER, None
    if base == "numeric":
        if modifier < 0:
            return Kind.WHOLE, None
        precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
        return (Kind.NUMBER if scale else Kind.WHOLE), precision - scale
    if category == "S":
        return Kind.TEXT, modifier - 4 if modifier > 0 else None
    return (Kind.LABEL if category == "E" else Kind.OTHER), None


# -- SQLite ---------------------------------------------------------------------------------------

GENERATED = (2, 3)  # in what table_xinfo says is hidden


def _on_sqlite(connection: Connection, table: str) -> Found | None:
    query = sa.text("SELECT type FROM sqlite_master WHERE name = :name COLLATE NOCASE")
    kind = connection.scalar(query, {"name": table})
    if kind not in ("table", "view"):
        return None
    query = sa.text(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :name COLLATE NOCASE"
    )
    triggers = connection.scalars(query, {"name": table}).all()
    inserting = any(re.search(r"\bINSERT\s+ON\b", sql, re.IGNORECASE) for sql in triggers)
    rows = connection.execute(sa.text(f'PRAGMA table_xinfo("{table}")')).all()
    # The key that SQLite fills by itself is the row's own number and needs no index.
    indexes = connection.execute(sa.text(f'PRAGMA index_list("{table}")'))
    by_index = any(index.origin == "pk" for index in indexes)
    keys = [row.name.lower() for row in rows if row.pk]
    numbered = keys[0] if len(keys) == 1 and not by_index else None
    columns = {
        row.name.lower(): FoundColumn(
            row.type or "of no declared type",
            _sqlite_kind(row.type.upper()),
            required=bool(row.notnull),
            filled=row.dflt_value is not None
            or row.hidden in GENERATED
            or row.name.lower() == numbered,
        )
        for row in rows
    }
    takes_rows = kind == "table" or inserting
    return Found(columns, takes_rows, completes_rows=inserting)


def _sqlite_kind(declared: str) -> Kind:
    """Return what a column of this declared type is for; SQLite itself would take anything."""
    if not declared:
        return Kind.UNKNOWN
    if "DATE" in declared or "TIME" in declared or "UUID" in declared:
        return Kind.OTHER
    # From here on by SQLite's own rules, in their order.
    if "INT" in declared:
        return Kind.WHOLE
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return Kind.TEXT
    if "BLOB" in declared:
        return Kind.OTHER
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return Kind.NUMBER
    return Kind.TEXT if "STRING" in declared else Kind.WHOLE
