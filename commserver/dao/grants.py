"""What commserver needs of each table, in one place: as data, as rights, and as SQL for an owner.

Rights are PostgreSQL's. On SQLite whoever may read and write the file may do everything.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from commserver.dao import ours

ON_SQLITE = (
    "-- SQLite has no roles: who may read and write the file and its folder has every right."
)


@dataclass(frozen=True, slots=True)
class Need:
    """The columns of one of the platform's tables that are read, and those of rows we add."""

    read: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


PLATFORM_VERSION = "platform_version"

# Of the server and of every command but `submit` and `exercise import`, which write what a platform
# writes and are for sites whose platform is ours.
PLATFORM = {
    "accounts": Need(read=("id", "username")),
    "languages": Need(read=("id", "name")),
    "courses": Need(read=("id", "language_id")),
    "exercises": Need(read=("id", "course_id", "title", "grade_max")),
    "user_exercises": Need(read=("id", "account_id", "exercise_id")),
    "codes": Need(read=("id", "user_exercise_id", "name", "content", "modify_timestamp")),
    "scripts": Need(read=("id", "exercise_id", "content")),
    "grades": Need(
        read=("user_exercise_id",),
        added=("user_exercise_id", "value", "timestamp"),
    ),
    "logs": Need(added=("user_exercise_id", "content", "timestamp")),
}

OURS = {
    "executions": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "leases": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "series": ("SELECT", "INSERT", "UPDATE"),
    "notices": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "baseline": ("SELECT", "INSERT", "UPDATE"),
    "tokens": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "site": ("SELECT", "INSERT"),
    "commserver_audit": ("SELECT", "INSERT"),
    "commserver_announcements": ("SELECT", "INSERT", "UPDATE"),
    "commserver_requests": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "commserver_version": ("SELECT",),
    PLATFORM_VERSION: ("SELECT",),
}


@dataclass(frozen=True, slots=True)
class Right:
    """One privilege on one object, on some of its columns where `columns` names any.

    name: of the object with its schema, quoted.
    """

    privilege: str
    kind: str  # SCHEMA, TABLE or SEQUENCE
    name: str
    columns: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """The right in SQL's words."""
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.privilege}{columns} ON {self.kind} {self.name}"


def needed(connection: Connection) -> list[Right]:
    """Return the rights that this PostgreSQL database's tables ask for, of those that are there.

    Where ours are not there yet the right to make them is among them: who makes them owns them.
    """
    schemas: dict[str, None] = {}
    rights: list[Right] = []
    made = [f"{ours.schema(connection)}.{table}" for table in ours.made(connection)]
    for name in (*PLATFORM, PLATFORM_VERSION, *made):
        table = name.rpartition(".")[2]
        found = connection.execute(_TABLE, {"table": name}).first()
        if found is None:
            continue
        schemas[found.schema] = None
        rights += (Right(privilege, "TABLE", found.name) for privilege in OURS.get(table, ()))
        need = PLATFORM.get(table, Need())
        for privilege, wanted in (("SELECT", need.read), ("INSERT", need.added)):
            if there := tuple(column for column in wanted if column in found.columns):
                rights.append(Right(privilege, "TABLE", found.name, there))
        if need.added or "INSERT" in OURS.get(table, ()):
            rights += _sequences(connection, found.oid, need.added)
    making = _making(connection)
    schemas |= dict.fromkeys(right.name for right in making)
    return [*(Right("USAGE", "SCHEMA", schema) for schema in schemas), *making, *rights]


def lacking(connection: Connection, rights: Iterable[Right]) -> Iterator[Right]:
    """Yield what of the rights the present role does not have."""
    for right in rights:
        if right.columns:
            values = {"name": right.name, "privilege": right.privilege}
            query = sa.text(
                "SELECT one FROM unnest(CAST(:columns AS text[])) AS one"
                " WHERE NOT has_column_privilege(CAST(:name AS text), one, :privilege)"
            )
            missing = connection.scalars(query, {**values, "columns": list(right.columns)}).all()
            if missing:
                yield replace(right, columns=tuple(missing))
        elif not _held(connection, right):
            yield right


def not_owned(connection: Connection, rights: Iterable[Right], role: str) -> Iterator[Right]:
    """Yield those of the rights that are on what the role does not own.

    On what it owns it has them, and nobody else but a superuser may give them.
    """
    for right in rights:
        catalog, kind = (
            ("pg_namespace WHERE oid = to_regnamespace(:name)", "nsp")
            if right.kind == "SCHEMA"
            else ("pg_class WHERE oid = to_regclass(:name)", "rel")
        )
        query = sa.text(f"SELECT pg_get_userbyid({kind}owner) FROM {catalog}")  # noqa: S608  # ours
        if connection.scalar(query, {"name": right.name}) != role:
            yield right


def statements(rights: Iterable[Right], role: str) -> Iterator[str]:
    """Yield the SQL that gives the rights to a role."""
    quoted = '"' + role.replace('"', '""') + '"'
    return (f"GRANT {right.what} TO {quoted};" for right in rights)


_TABLE = sa.text(
    "SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,"
    " quote_ident(n.nspname) AS schema,"
    " ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid"
    "  AND a.attnum > 0 AND NOT a.attisdropped) AS columns"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = to_regclass(:table) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
)


def _making(connection: Connection) -> list[Right]:
    """Return the right to make our tables where they would be made, none if they are there."""
    query = sa.text(
        "SELECT quote_ident(current_schema()) WHERE to_regclass('commserver_version') IS NULL"
    )
    schema = connection.scalar(query)
    return [] if schema is None else [Right("CREATE", "SCHEMA", schema)]


def _sequences(connection: Connection, table: int, added: Sequence[str]) -> Iterator[Right]:
    """Yield the rights to the sequences that number new rows; an identity column needs none.

    table: may be a view, then the tables under it count.
    """
    query = sa.text(
        "WITH RECURSIVE bases(oid) AS (SELECT CAST(:table AS oid) UNION"
        "  SELECT d.refobjid FROM bases JOIN pg_rewrite r ON r.ev_class = bases.oid"
        "  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
        "  AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class)"
        " SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(s.relname) AS name"
        " FROM bases JOIN pg_attribute a ON a.attrelid = bases.oid AND a.attname <> ALL(:added)"
        " JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum"
        " JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid"
        "  AND d.refclassid = 'pg_class'::regclass"
        " JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'"
        " JOIN pg_namespace n ON n.oid = s.relnamespace ORDER BY name"
    )
    for name in connection.scalars(query, {"table": table, "added": list(added)}):
        yield Right("USAGE", "SEQUENCE", name)


def _held(connection: Connection, right: Right) -> bool:
    name = right.name
    if right.kind == "SCHEMA":  # which is taken as it is, the others as SQL has them
        name = name.removeprefix('"').removesuffix('"').replace('""', '"')
    query = sa.text(f"SELECT has_{right.kind.lower()}_privilege(:name, :privilege)")
    return bool(connection.scalar(query, {"name": name, "privilege": right.privilege}))
