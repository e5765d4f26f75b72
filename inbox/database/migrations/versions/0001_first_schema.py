"""first schema

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
UNFINISHED = sa.text("processing_completed_at IS NULL")
UNREPORTED = sa.text("reported_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_leases"),
    )
    op.create_index("ix_leases_owner", "leases", ["owner"])

    op.create_table(
        "processing_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=False),
        sa.Column("drop_name", sa.Text(), nullable=False),
        sa.Column("zip_path", sa.Text(), nullable=False),
        sa.Column("archive_bytes", sa.BigInteger(), nullable=False),
        sa.Column("archive_device", sa.BigInteger(), nullable=False),
        sa.Column("archive_inode", sa.BigInteger(), nullable=False),
        sa.Column("archive_modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("total_files", sa.Integer(), nullable=False),
        sa.Column("total_directories", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("reported_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('received', 'extracting', 'processing', 'completed', 'partial', 'failed', 'quarantined')",
            name="status",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_processing_jobs"),
        sa.UniqueConstraint("batch_id", name="uq_processing_jobs_batch_id"),
    )
    op.create_index("ix_processing_jobs_created_at", "processing_jobs", ["created_at"])
    op.create_index("ix_processing_jobs_drop_name", "processing_jobs", ["drop_name"])
    op.create_index(
        "ix_processing_jobs_open", "processing_jobs", ["status"], postgresql_where=UNREPORTED, sqlite_where=UNREPORTED
    )

    op.create_table(
        "run_summaries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=True),
        sa.Column("ui_json", JSON, nullable=False),
        sa.Column("nested_summary", JSON, nullable=True),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("success_count", sa.Integer(), nullable=False),
        sa.Column("error_count", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_run_summaries"),
        sa.UniqueConstraint("run_id", name="uq_run_summaries_run_id"),
    )
    op.create_index("ix_run_summaries_batch_id", "run_summaries", ["batch_id"])

    op.create_table(
        "file_extractions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("doc_id", sa.String(length=64), nullable=False),
        sa.Column("batch_id", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("member_path", sa.Text(), nullable=False),
        sa.Column("file_path", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("file_type", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("skip_reason", sa.String(length=64), nullable=True),
        sa.Column("raw_extraction", JSON, nullable=True),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("processing_started_at", TIME, nullable=True),
        sa.Column("processing_completed_at", TIME, nullable=True),
        sa.Column("processing_duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("error_type", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'retrying', 'success', 'failed', 'skipped')", name="status"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["processing_jobs.batch_id"],
            name="fk_file_extractions_batch_id_processing_jobs",
            onupdate="CASCADE",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_file_extractions"),
        sa.UniqueConstraint("doc_id", name="uq_file_extractions_doc_id"),
        postgresql_with={"fillfactor": 40},
    )
    op.create_index("ix_file_extractions_batch", "file_extractions", ["batch_id", "position"])
    op.create_index(
        "ix_file_extractions_due",
        "file_extractions",
        ["due_at", "position"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.create_index(
        "ix_file_extractions_unfinished",
        "file_extractions",
        ["batch_id"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )


def downgrade() -> None:

    op.drop_table("file_extractions")

    op.drop_table("run_summaries")

    op.drop_table("processing_jobs")

    op.drop_table("leases")
