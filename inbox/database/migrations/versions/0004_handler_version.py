"""which handler, in which version, produced a file's outcome

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("file_extractions", sa.Column("handler", sa.Text(), nullable=True))
    op.add_column("file_extractions", sa.Column("handler_version", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("file_extractions", "handler_version")
    op.drop_column("file_extractions", "handler")
