"""Which tables of a database are ours: a table's name alone does not say whose it is.

A platform may have a `tokens` of its own. Ours are those that our version table says were made, in
the schema where that table is.
"""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from commserver.dao import tables

VERSION_TABLE = "commserver_version"
MADE = {  # by each of our migrations
    "0001": ("executions", "leases", "tokens", "site"),
    "0002": ("series", "notices", "baseline"),
    "0003": ("commserver_audit", "commserver_announcements", "commserver_requests"),
}
NAMES = (VERSION_TABLE, *(name for made in MADE.values() for name in made))


def made(connection: Connection) -> tuple[str, ...]:
    """Return the names of our tables that were made here.

    All of them where there are some and the present role may not read which.
    """
    if not _there(connection):
        return ()
    if not readable(connection):
        return NAMES
    revision = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    found = [VERSION_TABLE]
    for one, names in MADE.items() if revision else ():
        found += names
        if one == revision:
            break
    return tuple(found)


def readable(connection: Connection) -> bool:
    """Return whether the present role may read how far our tables are, if there are any."""
    if connection.dialect.name != "postgresql":
        return True
    query = sa.text("SELECT has_table_privilege(CAST(to_regclass(:name) AS oid), 'SELECT')")
    return connection.scalar(query, {"name": VERSION_TABLE}) is not False


def schema(connection: Connection) -> str | None:
    """Return the PostgreSQL schema, quoted, that our tables are in or would be made in.

    None where the present role sees no schema at all.
    """
    found: str | None = connection.scalar(_SCHEMA, {"name": VERSION_TABLE})
    return found


def obstacle(connection: Connection) -> str:
    """Return what no migration can do anything about, in one sentence with advice, "" if nothing.

    Schemas that the present role does not see, and what has our names and is not ours.
    """
    if connection.dialect.name == "postgresql":
        return _unseen(connection) or _on_postgresql(connection, made(connection))
    query = sa.text("SELECT name FROM sqlite_master WHERE name = :name COLLATE NOCASE")
    ours = made(connection)
    pending = [name for name in NAMES if name not in ours]
    if taken := [name for name in pending if connection.scalar(query, {"name": name})]:
        return (
            f"the database has {', '.join(taken)}, which commserver needs for itself and has not "
            "made: rename them, or use PostgreSQL, where commserver can have a schema of its own"
        )
    return ""


def _there(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        query = "SELECT to_regclass(:name) IS NOT NULL"
    else:
        query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = :name"
    return bool(connection.scalar(sa.text(query), {"name": VERSION_TABLE}))


# -- PostgreSQL -----------------------------------------------------------------------------------

_SCHEMA = sa.text(
    "SELECT coalesce((SELECT CAST(CAST(relnamespace AS regnamespace) AS text) FROM pg_class"
    " WHERE oid = to_regclass(:name)), quote_ident(current_schema()))"
)
# Those of the role's search_path that it may not look into: where ours would go, or with tables
# that we need.
_UNSEEN = sa.text(
    "WITH path AS (SELECT n.oid, n.nspname, p.place, has_schema_privilege(n.oid, 'USAGE') AS seen"
    "  FROM regexp_split_to_table(current_setting('search_path'), '\\s*,\\s*')"
    "  WITH ORDINALITY AS p (word, place)"
    "  JOIN pg_namespace n ON n.nspname = CASE WHEN trim(p.word, '\"') = '$user'"
    "  THEN current_user ELSE replace(trim(p.word, '\"'), '\"\"', '\"') END)"
    " SELECT quote_ident(nspname) FROM path WHERE NOT seen AND ("
    "  NOT EXISTS (SELECT FROM path AS other WHERE other.seen AND other.place < path.place)"
    "  OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = path.oid"
    "   AND c.relname = ANY(:names))) ORDER BY place"
)
# What each of these names stands for: the schema, quoted, None where nothing has it.
_VISIBLE = sa.text(
    "SELECT one AS name, CAST(CAST(c.relnamespace AS regnamespace) AS text) AS schema"
    " FROM unnest(CAST(:names AS text[])) AS one"
    " JOIN pg_class c ON c.oid = to_regclass(quote_ident(one))"
)
# A table is a type as well.
_TAKEN = sa.text(
    "SELECT one FROM unnest(CAST(:names AS text[])) AS one WHERE"
    " EXISTS (SELECT FROM pg_class WHERE relname = one"
    "  AND relnamespace = CAST(CAST(:schema AS text) AS regnamespace))"
    " OR EXISTS (SELECT FROM pg_type WHERE typname = one"
    "  AND typnamespace = CAST(CAST(:schema AS text) AS regnamespace))"
)


def _unseen(connection: Connection) -> str:
    role = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
    names = [*NAMES, *tables.platform.tables]
    unseen = connection.scalars(_UNSEEN, {"names": names}).all()
    if unseen:
        grants = "; ".join(f"GRANT USAGE ON SCHEMA {name} TO {role}" for name in unseen)
        return (
            f"the role {role} lacks USAGE ON SCHEMA {', '.join(unseen)} and sees nothing in it: "
            f"the owner must run `{grants}` first"
        )
    if schema(connection) is None:
        path = connection.scalar(sa.text("SELECT current_setting('search_path')"))
        return (
            f"no schema of the search_path of the role {role} exists ({path}): "
            f"make one, or name others with `ALTER ROLE {role} SET search_path = …`"
        )
    return ""


def _on_postgresql(connection: Connection, ours: Collection[str]) -> str:
    role = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
    where = schema(connection)
    visible = connection.execute(_VISIBLE, {"names": list(ours)}).all()
    if hidden := [row for row in visible if row.schema != where]:
        names = ", ".join(f"{row.schema}.{row.name}" for row in hidden)
        others = ", ".join(dict.fromkeys(row.schema for row in hidden))
        return (
            f"{names} are found before commserver's own tables in the schema {where}: "
            f"run `ALTER ROLE {role} SET search_path = {where}, {others}`"
        )
    pending = [name for name in NAMES if name not in ours]
    taken = connection.scalars(_TAKEN, {"names": pending, "schema": where}).all()
    if taken:
        return (
            f"the schema {where} has {', '.join(taken)}, which commserver needs for itself and has "
            "not made: give it a schema of its own, "
            f"`CREATE SCHEMA commserver AUTHORIZATION {role}; "
            f"ALTER ROLE {role} SET search_path = commserver, {where}`"
        )
    first = connection.scalar(sa.text("SELECT quote_ident(current_schema())"))
    if pending and first != where:
        return (
            f"commserver's tables are in the schema {where} and new ones would go to {first}: "
            f"run `ALTER ROLE {role} SET search_path = {where}, {first}`"
        )
    return ""
