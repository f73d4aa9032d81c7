"""Who else is told of a run's end, what explains a run later, admins' actions, announcements."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    for name in ("tell", "runner", "engine"):
        op.add_column("executions", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.add_column("executions", sa.Column("leased_at", sa.DateTime(timezone=True)))
    op.add_column("notices", sa.Column("pushed_at", sa.DateTime(timezone=True)))
    for moment in ("delivered", "pushed"):
        op.create_index(
            f"ix_notices_{moment}_not",
            "notices",
            ["recipient", "seq"],
            sqlite_where=sa.text(f"{moment}_at IS NULL"),
            postgresql_where=sa.text(f"{moment}_at IS NULL"),
        )

    op.create_table(
        "commserver_audit",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commserver_audit")),
    )

    op.create_table(
        "commserver_announcements",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commserver_announcements")),
    )

    op.create_table(
        "commserver_requests",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("body", sa.String(64), nullable=False),
        sa.Column("execution_id", sa.String(36)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_commserver_requests")),
    )
    op.create_index("ix_commserver_requests_created_at", "commserver_requests", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_commserver_requests_created_at", "commserver_requests")
    for table in ("requests", "announcements", "audit"):
        op.drop_table(f"commserver_{table}")
    for moment in ("pushed", "delivered"):
        op.drop_index(f"ix_notices_{moment}_not", "notices")
    op.drop_column("notices", "pushed_at")
    for name in ("leased_at", "engine", "runner", "tell"):
        op.drop_column("executions", name)
