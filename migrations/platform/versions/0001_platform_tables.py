"""The teaching platform's tables, for demo, tests and new sites."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create("accounts", _text("username", 75), unique="username")
    _create("languages", _text("name", 75), unique="name")
    _create("courses", _text("title", 250), account_id="accounts", language_id="languages")
    _create(
        "exercises",
        _text("title", 250),
        _text("instruction"),
        sa.Column("grade_max", sa.Integer(), nullable=False),
        account_id="accounts",
        course_id="courses",
    )
    _create("user_exercises", account_id="accounts", exercise_id="exercises")
    _create(
        "codes",
        _text("name", 75),
        _text("content"),
        _milliseconds("create_timestamp"),
        _milliseconds("modify_timestamp"),
        user_exercise_id="user_exercises",
    )
    _create("scripts", _text("content"), exercise_id="exercises")
    _create(
        "grades",
        sa.Column("value", sa.Integer(), nullable=False),
        _milliseconds("timestamp"),
        user_exercise_id="user_exercises",
    )
    _create("logs", _text("content"), _milliseconds("timestamp"), user_exercise_id="user_exercises")


def downgrade() -> None:
    for table in (
        *("logs", "grades", "scripts", "codes", "user_exercises"),
        *("exercises", "courses", "languages", "accounts"),
    ):
        op.drop_table(table)


def _create(
    table: str, *columns: sa.Column[object], unique: str | None = None, **references: str
) -> None:
    """Create a table with an id and indexed references to other tables."""
    constraints: list[sa.Constraint] = [sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}"))]
    if unique:
        constraints.append(sa.UniqueConstraint(unique, name=op.f(f"uq_{table}_{unique}")))
    constraints += [
        sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"))
        for column, other in references.items()
    ]
    op.create_table(
        table,
        sa.Column("id", ID, nullable=False),
        *(sa.Column(column, ID, nullable=False) for column in references),
        *columns,
        *constraints,
    )
    for column in references:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def _text(name: str, length: int | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False)


def _milliseconds(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
