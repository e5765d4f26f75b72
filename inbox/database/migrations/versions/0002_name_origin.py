"""where a member's path came from

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("file_extractions", sa.Column("name_origin", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("file_extractions", "name_origin")
