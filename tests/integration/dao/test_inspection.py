"""What a live platform's tables may look like, and what is said of those that cannot be used."""

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from commserver.dao import grants, migrations
from commserver.dao.database_manager import DatabaseManager
from commserver.errors import StoreError

# The least that a platform has; {serial} numbers new rows by itself.
PLATFORM = {
    "accounts": "id int, username text",
    "languages": "id int, name text",
    "courses": "id int, language_id int",
    "exercises": "id int, course_id int, grade_max int, title text",
    "user_exercises": "id int, account_id int, exercise_id int",
    "codes": "id int, user_exercise_id int, name text, content text, modify_timestamp bigint",
    "scripts": "id int, exercise_id int, content text",
    "grades": "id {serial}, user_exercise_id int, value int, timestamp bigint",
    "logs": "id {serial}, user_exercise_id int, content text, timestamp bigint",
}
SERIAL = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "serial"}


@pytest.fixture
async def migrated(empty: DatabaseManager) -> DatabaseManager:
    """A database with our tables alone."""
    await migrations.upgrade(empty)
    return empty


async def make(database: DatabaseManager, engine_name: str, *statements: str, **other: str) -> None:
    """Make the platform's tables, the `other` ones with these columns, and then do what is said.

    A table without columns is not made.
    """
    tables = {**PLATFORM, **other}
    made = [f"CREATE TABLE {name} ({columns})" for name, columns in tables.items() if columns]

    async def work(connection: AsyncConnection) -> None:
        for statement in (*made, *statements):
            await connection.execute(text(statement.replace("{serial}", SERIAL[engine_name])))

    await database.write(work)


async def problems(database: DatabaseManager) -> list[str]:
    """Return what is said, and be sure that the server's check says the same."""

    async def look(connection: AsyncConnection) -> list[str]:
        return await connection.run_sync(migrations.problems)

    found = await database.read(look)
    if found:
        with pytest.raises(StoreError) as refused:
            await migrations.check(database)
        assert str(refused.value) == "; ".join(found)
    else:
        await migrations.check(database)
    return found


async def test_the_least_that_a_platform_has_is_enough(
    migrated: DatabaseManager, engine_name: str
) -> None:
    await make(migrated, engine_name)

    assert await problems(migrated) == []


GRADES = "id {serial}, user_exercise_id int, "
LOGS = "user_exercise_id int, content text, timestamp bigint"
BOTH = [
    ({"codes": "id int, user_exercise_id int, name text, modify_timestamp bigint"},
     "codes has no column content: add it, or use a view that has it"),
    ({"scripts": "id text, exercise_id int, content text"},
     "scripts.id is text, which is no id: it must be a whole number"),
    ({"courses": "id int, language_id real"},
     "courses.language_id is real, which is no id: it must be a whole number"),
    ({"grades": GRADES + "value text, timestamp bigint"},
     "grades.value is text, which cannot hold points: it must be a number"),
    ({"grades": GRADES + "value int, timestamp date"},
     "grades.timestamp is date, which cannot hold epoch milliseconds: "
     "it must be bigint or numeric"),
    ({"grades": GRADES + "value int, timestamp text"},
     "grades.timestamp is text, which cannot hold epoch milliseconds: "
     "it must be bigint or numeric"),
    ({"accounts": "id uuid, username text"},
     "accounts.id is uuid, which is no id: it must be a whole number"),
    ({"accounts": "id int, username uuid"},
     "accounts.username is uuid, which is no text: it must be text or varchar"),
    ({"languages": "id int, name int"}, "languages.name is int"),
    ({"grades": GRADES + "value int, timestamp bigint, teacher text NOT NULL"},
     "grades.teacher must have a value, which we do not know: "
     "give it a default or let it be NULL"),
    ({"logs": f"id bigint, {LOGS}"},
     "logs.id is not filled by the database, and we may not guess it: make it an identity column, "
     "serial, or SQLite's INTEGER PRIMARY KEY"),
]  # fmt: skip


@pytest.mark.parametrize(("other", "expected"), BOTH, ids=[expected for _, expected in BOTH])
async def test_what_cannot_be_used_is_told(
    migrated: DatabaseManager, engine_name: str, other: dict[str, str], expected: str
) -> None:
    await make(migrated, engine_name, **other)

    [found] = await problems(migrated)
    assert (
        found.lower()
        .replace("integer", "int")
        .startswith(expected.lower().replace("integer", "int"))
    )


async def test_everything_is_told_at_once(empty: DatabaseManager, engine_name: str) -> None:
    await make(empty, engine_name, languages="id int", scripts="", codes="", logs=LOGS)

    found = await problems(empty)

    assert [one.partition(":")[0] for one in found] == [
        f"the database lacks {len(await migrations.pending(empty))} migration(s)"
        f" ({', '.join(await migrations.pending(empty))})",
        "the database has no codes, scripts",
        "languages has no column name",
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"grades": GRADES + "value int, timestamp bigint, teacher text NOT NULL DEFAULT 'x'"},
        {"grades": GRADES + "value numeric(5,2), timestamp numeric(13), teacher text"},
        {"grades": GRADES + "value float, timestamp double precision"},
        {"user_exercises": "id numeric, account_id smallint, exercise_id bigint"},
        {"codes": PLATFORM["codes"].replace("text", "varchar(100)")},
        {"languages": "id decimal(9), name char(20)"},
    ],
)
async def test_what_can_be_used_is_left_unsaid(
    migrated: DatabaseManager, engine_name: str, other: dict[str, str]
) -> None:
    await make(migrated, engine_name, **other)

    assert await problems(migrated) == []


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"grades": GRADES + "value int, timestamp int"}, "grades.timestamp is integer, which"),
        ({"grades": GRADES + "value int, timestamp numeric(14,2)"}, "grades.timestamp is numeric"),
        ({"grades": GRADES + "value int, timestamp timestamptz"}, "grades.timestamp is timestamp"),
        ({"accounts": "id numeric(9,2), username text"}, "accounts.id is numeric(9,2), which is"),
        ({"scripts": "id int, exercise_id int, content bytea"}, "scripts.content is bytea, which"),
        ({"logs": "id {serial}, " + LOGS.replace("text", "varchar(255)")},
         "logs.content is character varying(255), too short for a log"),
        ({"logs": "id {serial}, " + LOGS.replace("text", "mood")}, "logs.content is mood, which"),
        ({"logs": "id {serial}, " + LOGS.replace("bigint", "short")}, "logs.timestamp is short, w"),
        ({"languages": "id int, name mood"}, ""),
        ({"logs": "id int GENERATED ALWAYS AS IDENTITY, " + LOGS.replace("bigint", "long")}, ""),
        ({"logs": "id filled, " + LOGS}, ""),
    ],
)  # fmt: skip
async def test_types_that_only_postgresql_has(
    migrated: DatabaseManager, engine_name: str, other: dict[str, str], expected: str
) -> None:
    async def types(connection: AsyncConnection) -> None:
        for statement in (
            "CREATE TYPE mood AS ENUM ('Python')",
            "CREATE DOMAIN short AS int4",
            "CREATE DOMAIN long AS numeric(15)",
            "CREATE DOMAIN filled AS int NOT NULL DEFAULT 1",
        ):
            await connection.execute(text(statement))

    await migrated.write(types)
    await make(migrated, engine_name, **other)

    found = await problems(migrated)
    assert [one[: len(expected)] for one in found] == ([expected] if expected else [])


# -- views ----------------------------------------------------------------------------------------

READ_ONLY = (
    "grades is a view to which no row can be added: give it an INSTEAD OF INSERT trigger, "
    "or use a table"
)
VIEW = "CREATE VIEW grades AS SELECT DISTINCT id, user_exercise_id, value, timestamp FROM marks"
MARKS = f"CREATE TABLE marks ({PLATFORM['grades']})"
INSTEAD = {
    "sqlite": (
        "CREATE TRIGGER instead INSTEAD OF INSERT ON grades BEGIN"
        " INSERT INTO marks (user_exercise_id, value, timestamp)"
        " VALUES (NEW.user_exercise_id, NEW.value, NEW.timestamp); END",
    ),
    "postgresql": (
        "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN"
        " INSERT INTO marks (user_exercise_id, value, timestamp)"
        " VALUES (NEW.user_exercise_id, NEW.value, NEW.timestamp); RETURN NEW; END'",
        "CREATE TRIGGER instead INSTEAD OF INSERT ON grades FOR EACH ROW EXECUTE FUNCTION mark()",
    ),
}


async def test_a_view_must_take_rows_where_we_add_them(
    migrated: DatabaseManager, engine_name: str
) -> None:
    await make(migrated, engine_name, MARKS, VIEW, grades="")

    assert await problems(migrated) == [READ_ONLY]


async def test_a_view_takes_rows_by_a_trigger(migrated: DatabaseManager, engine_name: str) -> None:
    await make(migrated, engine_name, MARKS, VIEW, *INSTEAD[engine_name], grades="")

    assert await problems(migrated) == []


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("marks", "view", "expected"),
    [
        (PLATFORM["grades"], "*", []),
        (f"{PLATFORM['grades']}, teacher text NOT NULL DEFAULT ''", "*", []),
        (
            f"{PLATFORM['grades']}, teacher text NOT NULL",
            "id, user_exercise_id, value, timestamp",
            [
                "grades.teacher must have a value, which we do not know: "
                "give it a default or let it be NULL"
            ],
        ),
        (PLATFORM["grades"].replace("{serial}", "int"), "*", ["grades.id is not filled"]),
        (
            "no {serial}, attempt int NOT NULL, points int NOT NULL, at bigint NOT NULL",
            "no AS id, attempt AS user_exercise_id, points AS value, at AS timestamp",
            [],
        ),
        (
            "no int, attempt int NOT NULL, points int NOT NULL, at bigint NOT NULL",
            "no AS id, attempt AS user_exercise_id, points AS value, at AS timestamp",
            ["grades.id is not filled"],
        ),
    ],
)
async def test_a_plain_view_is_as_good_as_the_table_under_it(
    migrated: DatabaseManager, engine_name: str, marks: str, view: str, expected: list[str]
) -> None:
    await make(
        migrated,
        engine_name,
        f"CREATE TABLE marks ({marks})",
        f"CREATE VIEW grades AS SELECT {view} FROM marks",  # noqa: S608  # words of ours
        grades="",
    )

    found = await problems(migrated)
    assert [one[: len(e)] for one, e in zip(found, expected, strict=True)] == expected


NUMBERED = {
    "sqlite": (
        "CREATE TRIGGER numbered AFTER INSERT ON logs BEGIN"
        " UPDATE logs SET id = rowid WHERE rowid = NEW.rowid; END",
    ),
    "postgresql": (
        "CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN NEW.id := 1; RETURN NEW; END'",
        "CREATE TRIGGER numbered BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION number()",
    ),
}


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_a_trigger_that_sees_no_row_numbers_none(
    migrated: DatabaseManager, engine_name: str
) -> None:
    once = [one.replace("FOR EACH ROW", "FOR EACH STATEMENT") for one in NUMBERED[engine_name]]
    await make(migrated, engine_name, *once, logs=f"id int, {LOGS}")

    [found] = await problems(migrated)
    assert found.startswith("logs.id is not filled by the database")


async def test_a_trigger_may_number_rows(migrated: DatabaseManager, engine_name: str) -> None:
    await make(migrated, engine_name, *NUMBERED[engine_name], logs=f"id int NOT NULL, {LOGS}")

    assert await problems(migrated) == []


@pytest.mark.parametrize("engine_name", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "columns",
    [
        f"id INT PRIMARY KEY, {LOGS}",
        f"id INTEGER, {LOGS}, PRIMARY KEY (id, timestamp)",
        f"id INTEGER PRIMARY KEY, {LOGS}) WITHOUT ROWID --",
    ],
)
async def test_only_one_form_of_key_numbers_rows_on_sqlite(
    migrated: DatabaseManager, engine_name: str, columns: str
) -> None:
    await make(migrated, engine_name, logs=columns)

    [found] = await problems(migrated)
    assert found.startswith("logs.id is not filled by the database")


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_tables_in_a_schema_that_is_not_looked_into_are_told(
    migrated: DatabaseManager, engine_name: str
) -> None:
    await make(migrated, engine_name, "CREATE SCHEMA school", "ALTER TABLE logs SET SCHEMA school")

    [found] = await problems(migrated)
    assert found.startswith("the database has no logs: ")
    assert "in the schema school: the role needs USAGE on it, and it must be in the role's" in found


@pytest.mark.parametrize("engine_name", ["postgresql"], indirect=True)
async def test_the_platform_may_be_in_another_schema(
    empty: DatabaseManager, empty_url: str, engine_name: str
) -> None:
    name = make_url(empty_url).database
    move = [f"ALTER TABLE {table} SET SCHEMA school" for table in PLATFORM]
    look = f"ALTER DATABASE {name} SET search_path = judge, school"
    await make(empty, engine_name, "CREATE SCHEMA school", "CREATE SCHEMA judge", *move, look)

    async with DatabaseManager(empty_url) as database:
        await migrations.upgrade(database)

        assert await problems(database) == []
        with pytest.raises(StoreError, match="not ours to keep"):
            await migrations.upgrade(database, with_platform=True)
        named = [right.name for right in await migrations.glance(empty_url, grants.needed) or []]
        assert {"school", "judge", "school.grades", "judge.executions"} <= set(named)
        await migrations.downgrade(database)
