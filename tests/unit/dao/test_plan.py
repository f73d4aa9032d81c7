"""What migrations will lock and name, read from their statements."""

import pytest

from commserver.dao.plan import FILE, UNKNOWN, Step, Written, described, locks, named

GRADES = ("grades", "codes")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("CREATE TABLE new (id int);", ()),
        ("CREATE TABLE IF NOT EXISTS new (id int);", ()),
        ("CREATE INDEX ix ON made (id);", ()),
        ("INSERT INTO made VALUES (1);", ()),
        ("CREATE TABLE new (id int REFERENCES made (id));", ()),
        (
            "CREATE TABLE new (id int REFERENCES old (id));",
            ("old: others can read and not write until the end (SHARE ROW EXCLUSIVE)",),
        ),
        (
            "CREATE UNIQUE INDEX ix ON old (id) WHERE id > 1;",
            ("old: others can read and not write until the end (SHARE)",),
        ),
        (
            'ALTER TABLE ONLY public."old" ADD COLUMN more int;',
            ("old: others can neither read nor write until the end (ACCESS EXCLUSIVE)",),
        ),
        (
            "ALTER TABLE made ADD FOREIGN KEY (id) REFERENCES old (id);",
            ("old: others can read and not write until the end (SHARE ROW EXCLUSIVE)",),
        ),
        (
            "DROP TABLE IF EXISTS old;",
            ("old: others can neither read nor write until the end (ACCESS EXCLUSIVE)",),
        ),
        ("UPDATE old SET id = 1;", ("old: the rows that it writes (ROW EXCLUSIVE)",)),
        ("DELETE FROM old;", ("old: the rows that it writes (ROW EXCLUSIVE)",)),
        ("DROP INDEX ix;", (UNKNOWN,)),
        ("LOCK TABLE old;", (UNKNOWN,)),
    ],
)
def test_a_statement_locks_only_what_is_there_before_it(
    statement: str, expected: tuple[str, ...]
) -> None:
    assert locks([statement], {"made"}, "postgresql") == expected
    assert locks([statement], {"made"}, "sqlite") == (FILE,)


def test_what_a_statement_makes_is_not_locked_by_the_next_and_a_lock_is_told_once() -> None:
    made: set[str] = set()
    first = ["CREATE TABLE new (id int);", "CREATE INDEX ix ON new (id);"]

    assert locks(first, made, "postgresql") == ()
    assert locks(["ALTER TABLE new ADD more int;"], made, "postgresql") == ()
    assert len(locks(["DELETE FROM old;", "DELETE FROM old;"], made, "postgresql")) == 1


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("ALTER TABLE grades ADD COLUMN more int;", ("grades",)),
        ('CREATE INDEX ix ON public."Codes" (id);', ("codes",)),
        ("CREATE TABLE new (id int REFERENCES grades (id));", ("grades",)),
        ("CREATE VIEW v AS SELECT * FROM codes, grades;", ("codes", "grades")),
        ("INSERT INTO new VALUES ('it''s about grades'); -- and codes", ()),
        ("CREATE TABLE regrades (codes_id int);", ()),
    ],
)
def test_a_platform_table_is_found_wherever_it_is_named(
    statement: str, expected: tuple[str, ...]
) -> None:
    assert named([statement], GRADES) == expected


def test_remarks_are_no_statements() -> None:
    written = Written()

    for line in ("-- Running upgrade  -> 0001\n\n", "CREATE TABLE new (id int);\n\n"):
        written.write(line)
    written.flush()

    assert written.statements == ["CREATE TABLE new (id int);"]


def step(series: str, *names: str, locked: tuple[str, ...] = ()) -> Step:
    return Step(series, "0003", "More.", ("CREATE TABLE new (\n  id int\n);",), locked, names)


def test_a_plan_says_what_is_done_and_locked() -> None:
    lines = described([step("commserver", locked=("old: all of it",))], "postgresql")

    assert lines == [
        "commserver 0003: More.",
        "",
        "    CREATE TABLE new (",
        "      id int",
        "    );",
        "",
        "  locks old: all of it",
        "",
        "All of it is one transaction, which happens whole or not at all.",
        "A lock that is not to be had in 5 s ends it, nothing changed.",
        "No statement names a table of the platform's.",
    ]
    assert "  locks nothing that exists: it makes new tables" in described(
        [step("commserver")], "sqlite"
    )


def test_a_plan_says_whose_tables_are_named() -> None:
    own = described([step("platform", "grades"), step("commserver")], "sqlite")
    foreign = described([step("commserver", "codes", "grades")], "sqlite")

    assert own[-1] == "The platform's tables are new; nothing of the platform's exists yet."
    assert "  TOUCHES THE PLATFORM'S codes, grades: do not run this" in foreign
    assert not any("No statement names" in line for line in foreign)


def test_nothing_to_do_is_said() -> None:
    assert described([], "sqlite") == ["Nothing to do: every migration is applied."]
