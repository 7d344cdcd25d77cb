"""Vacuum large tables after a hundredth of their rows, not a fifth

Setting this takes no lock that a reader or a writer would wait for, and programs of the version before do not
notice.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = ("export_jobs", "deliveries")
SETTINGS = {
    "autovacuum_vacuum_scale_factor": 0.01,
    "autovacuum_vacuum_insert_scale_factor": 0.01,
    "autovacuum_analyze_scale_factor": 0.01,
}


def upgrade() -> None:
    values = ", ".join(f"{name} = {value}" for name, value in SETTINGS.items())
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} SET ({values})")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} RESET ({', '.join(SETTINGS)})")
