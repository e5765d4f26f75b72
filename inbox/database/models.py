"""
The tables. Schema changes go through Alembic; a test holds the migrations against these models.

Two rules keep a claim and an outcome cheap on PostgreSQL: no index holds a column that a claim changes, and pages are
less than half full, so that the new, longer version of a row finds room beside the old one (a heap-only update).
"""

import uuid
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Table, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import MetaData

from inbox.core.errors import ErrorType
from inbox.database.types import JsonType, UtcDateTime, new_id
from inbox.lifecycle import BatchState, FileState

__all__ = [
    "Base",
    "BatchState",
    "ErrorType",
    "Fact",
    "FileExtraction",
    "FileState",
    "Lease",
    "ProcessingJob",
    "RunSummary",
]

ID_CHARS = 64
TOKEN_CHARS = 32
STATE_CHARS = 16
CODE_CHARS = 64
_UNFINISHED = "processing_completed_at IS NULL"


def _now() -> datetime:
    return datetime.now(UTC)


def _one_of(column: str, values: type[BatchState] | type[FileState]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _where(condition: str) -> dict[str, Any]:
    """Return the condition of a partial index, for both databases."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


class Base(DeclarativeBase):
    """What all tables share: names for constraints, so that a migration can address them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ProcessingJob(Base):
    """A batch: one accepted archive."""

    __tablename__ = "processing_jobs"
    __table_args__ = (
        CheckConstraint(_one_of("status", BatchState), name="status"),
        Index("ix_processing_jobs_drop_name", "drop_name"),
        Index("ix_processing_jobs_created_at", "created_at"),
        Index("ix_processing_jobs_open", "status", **_where("reported_at IS NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    batch_id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    drop_name: Mapped[str] = mapped_column(Text, default="")
    zip_path: Mapped[str] = mapped_column(Text, default="")
    """Where the archive lies now, relative to the storage base."""
    archive_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    archive_device: Mapped[int] = mapped_column(BigInteger, default=0)
    archive_inode: Mapped[int] = mapped_column(BigInteger, default=0)
    archive_modified_ns: Mapped[int] = mapped_column(BigInteger, default=0)
    run_id: Mapped[str] = mapped_column(String(ID_CHARS), default="")
    total_files: Mapped[int] = mapped_column(default=0)
    """All members: files and skipped ones."""
    total_directories: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(STATE_CHARS), default=BatchState.RECEIVED)
    reason_code: Mapped[str | None] = mapped_column(String(CODE_CHARS))
    error_message: Mapped[str | None] = mapped_column(Text)
    attempt_count: Mapped[int] = mapped_column(default=0)
    """Extractions begun, counted when claimed."""
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)
    lease_token: Mapped[str | None] = mapped_column(String(TOKEN_CHARS))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now, onupdate=_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the present run's processing began."""
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When receipt and archive were in their places: nothing is left to do."""

    file_extractions: Mapped[list["FileExtraction"]] = relationship(
        back_populates="job",
        order_by="FileExtraction.position",
        passive_deletes=True,
        cascade="all, delete-orphan",
    )


class FileExtraction(Base):
    """A file: one member of one batch, with exactly one row for ever."""

    __tablename__ = "file_extractions"
    __table_args__ = (
        CheckConstraint(_one_of("status", FileState), name="status"),
        Index("ix_file_extractions_batch", "batch_id", "position"),
        Index("ix_file_extractions_due", "due_at", "position", **_where(f"{_UNFINISHED} AND turn IS NULL")),
        Index("ix_file_extractions_turn", "turn", **_where(f"{_UNFINISHED} AND turn IS NOT NULL")),
        Index("ix_file_extractions_unfinished", "batch_id", **_where(_UNFINISHED)),
        {"postgresql_with": {"fillfactor": 40}},
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    doc_id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    batch_id: Mapped[str] = mapped_column(
        String(ID_CHARS), ForeignKey("processing_jobs.batch_id", ondelete="CASCADE", onupdate="CASCADE")
    )
    run_id: Mapped[str] = mapped_column(String(ID_CHARS), default="")
    position: Mapped[int] = mapped_column(default=0)
    """Place in the archive's index, from 0."""
    member_path: Mapped[str] = mapped_column(Text, default="")
    name_origin: Mapped[Any | None] = mapped_column(JsonType)
    """What `member_path` was made of; NULL where it is the UTF-8 that stands in the archive."""
    file_path: Mapped[str] = mapped_column(Text, default="")
    """Relative to the storage base, so that containers with other mount points can use it."""
    file_name: Mapped[str] = mapped_column(Text, default="")
    file_type: Mapped[str] = mapped_column(String(STATE_CHARS), default="unknown")
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    content_sha256: Mapped[str | None] = mapped_column(String(ID_CHARS))
    status: Mapped[str] = mapped_column(String(STATE_CHARS), default=FileState.PENDING)
    skip_reason: Mapped[str | None] = mapped_column(String(CODE_CHARS))
    raw_extraction: Mapped[Any | None] = mapped_column(JsonType)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)
    """When a file without a turn may be claimed."""
    turn: Mapped[int | None] = mapped_column(BigInteger)
    """Place in the order of first attempts, across batches; NULL from the first outcome on, and then `due_at` rules."""
    lease_token: Mapped[str | None] = mapped_column(String(TOKEN_CHARS))
    processing_started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    processing_completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Set in final states only, whatever way the file got there."""
    processing_duration_ms: Mapped[int | None] = mapped_column(BigInteger)
    retry_count: Mapped[int] = mapped_column(default=0)
    """Attempts after the first; counted when claimed, so a file in its third attempt says 2."""
    error_type: Mapped[str | None] = mapped_column(String(CODE_CHARS))
    error_message: Mapped[str | None] = mapped_column(Text)
    handler: Mapped[str | None] = mapped_column(Text)
    """Which handler the latest outcome came from; NULL where none was asked or it is not known."""
    handler_version: Mapped[str | None] = mapped_column(String(CODE_CHARS))

    job: Mapped[ProcessingJob] = relationship(back_populates="file_extractions")


class RunSummary(Base):
    """What one run over a batch came to."""

    __tablename__ = "run_summaries"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=new_id)
    run_id: Mapped[str] = mapped_column(String(ID_CHARS), unique=True)
    batch_id: Mapped[str | None] = mapped_column(String(ID_CHARS), index=True)
    ui_json: Mapped[Any] = mapped_column(JsonType, default=dict)
    nested_summary: Mapped[Any | None] = mapped_column(JsonType)
    file_count: Mapped[int] = mapped_column(default=0)
    success_count: Mapped[int] = mapped_column(default=0)
    error_count: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now, onupdate=_now)


class Lease(Base):
    """
    A right to work, over one batch or a page of files that carry its token.

    One row per page, so a heartbeat touches one row and not hundreds. When it expires, whoever deletes the row may
    take the work over; the tokens in the claimed rows stop counting at the same moment.
    """

    __tablename__ = "leases"
    __table_args__ = (Index("ix_leases_owner", "owner"),)

    token: Mapped[str] = mapped_column(String(TOKEN_CHARS), primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Fact(Base):
    """Something that the database knows of the world outside, such as which volume its rows speak of."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(String(CODE_CHARS), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    noted_at: Mapped[datetime] = mapped_column(UtcDateTime)


FILES: Table = cast("Table", FileExtraction.__table__)
"""The table of files, for statements over pages; the ORM's own bulk forms cannot take a page as one parameter."""
