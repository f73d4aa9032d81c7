"""Finals that are owed, and which attempts are older than this installation."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("recipient", sa.String(200), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("recipient", name=op.f("pk_series")),
    )

    op.create_table(
        "notices",
        sa.Column("recipient", sa.String(200), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("execution_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("recipient", "seq", name=op.f("pk_notices")),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("fk_notices_execution_id"),
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_notices_execution_id", "notices", ["execution_id"])

    op.create_table(
        "baseline",
        sa.Column("single", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("single", name=op.f("pk_baseline")),
        sa.CheckConstraint("single = 1", name=op.f("ck_baseline_single")),
    )


def downgrade() -> None:
    for table in ("baseline", "notices", "series"):
        op.drop_table(table)
