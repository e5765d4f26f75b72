"""in which order files get their first attempt

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("processing_completed_at IS NULL")
DUE_AGAIN = sa.text("processing_completed_at IS NULL AND turn IS NULL")
HAS_TURN = sa.text("processing_completed_at IS NULL AND turn IS NOT NULL")


def upgrade() -> None:
    """Batches that wait begin side by side; files that are due again keep their time."""
    op.add_column("file_extractions", sa.Column("turn", sa.BigInteger(), nullable=True))
    op.execute(
        """
        UPDATE file_extractions SET turn = ranked.turn
        FROM (
            SELECT id, row_number() OVER (PARTITION BY batch_id ORDER BY position, doc_id) - 1 AS turn
            FROM file_extractions
            WHERE processing_completed_at IS NULL
              AND (status = 'pending' OR (status = 'processing' AND retry_count = 0))
        ) AS ranked
        WHERE file_extractions.id = ranked.id
        """
    )
    op.drop_index("ix_file_extractions_due", "file_extractions")
    op.create_index(
        "ix_file_extractions_due",
        "file_extractions",
        ["due_at", "position"],
        postgresql_where=DUE_AGAIN,
        sqlite_where=DUE_AGAIN,
    )
    op.create_index(
        "ix_file_extractions_turn", "file_extractions", ["turn"], postgresql_where=HAS_TURN, sqlite_where=HAS_TURN
    )


def downgrade() -> None:
    op.drop_index("ix_file_extractions_turn", "file_extractions")
    op.drop_index("ix_file_extractions_due", "file_extractions")
    op.create_index(
        "ix_file_extractions_due",
        "file_extractions",
        ["due_at", "position"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.drop_column("file_extractions", "turn")
