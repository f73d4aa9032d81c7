"""Runs, leases, tokens and the site's identity."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('queued', 'leased', 'running')")
WAITING = sa.text("state = 'queued'")


def upgrade() -> None:
    op.create_table(
        "executions",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("user_exercise_id", sa.BigInteger()),
        sa.Column("account_id", sa.BigInteger()),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("course", sa.Text(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("requires", sa.Text(), nullable=False),
        sa.Column("lease", sa.Double()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Double(), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32)),
        sa.Column("grade", sa.Integer()),
        sa.Column("grade_max", sa.Integer()),
        sa.Column("fault", sa.String(32)),
        sa.Column("failure_cause", sa.String(32)),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("container", sa.Text(), server_default="", nullable=False),
        sa.Column("verdict", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
        _one_of("executions", "purpose", "submit", "rejudge"),
        _one_of(
            "executions",
            "state",
            *("queued", "leased", "running", "done", "failed", "cancelled", "superseded"),
        ),
        _one_of(
            "executions",
            "status",
            *("accepted", "wrong_answer", "presentation", "cpu_time", "real_time", "memory"),
            *("output", "runtime_error", "compile_error", "security", "cancelled"),
        ),
        _one_of("executions", "fault", "teacher", "system"),
        _one_of(
            "executions",
            "failure_cause",
            *("not_found", "exercise", "image", "container", "full", "internal"),
        ),
    )
    op.create_index("ix_executions_account_id", "executions", ["account_id"])
    op.create_index("ix_executions_entry", "executions", ["entry"])
    op.create_index(
        "ix_executions_user_exercise_id_entry", "executions", ["user_exercise_id", "entry"]
    )
    op.create_index(
        "ix_executions_unfinished",
        "executions",
        ["priority", "tag", "entry"],
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index(
        "uq_executions_waiting",
        "executions",
        ["user_exercise_id", "purpose"],
        unique=True,
        sqlite_where=WAITING,
        postgresql_where=WAITING,
    )

    op.create_table(
        "leases",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("execution_id", sa.String(36), nullable=False),
        sa.Column("runner", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("fk_leases_execution_id"),
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_leases_execution_id", "leases", ["execution_id"])

    op.create_table(
        "tokens",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("life", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_tokens")),
    )
    op.create_index("ix_tokens_account_id", "tokens", ["account_id"])

    op.create_table(
        "site",
        sa.Column("single", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_site")),
        sa.CheckConstraint("single = 1", name=op.f("ck_site_single")),
    )


def downgrade() -> None:
    for table in ("site", "tokens", "leases", "executions"):
        op.drop_table(table)


def _one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}"))
