"""What is read for summaries, receipts and the command line; nothing here writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, Select, func, or_, select
from sqlalchemy.orm import Session

from inbox.database.batches import BatchRecord, record_of
from inbox.database.models import FileExtraction, ProcessingJob
from inbox.lifecycle import FileState

_PAGE: Final = 5000
SHOWN_FILES: Final = 10
SHOWN_FAILURES: Final = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as summaries and receipts show it."""

    position: int
    doc_id: str
    member_path: str
    state: str
    size_bytes: int
    sha256: str | None
    attempts: int
    error_type: str | None
    error_message: str | None
    skip_reason: str | None
    duration_ms: int | None
    name_origin: dict[str, Any] | None = None


_ENTRY_COLUMNS: Final = (
    FileExtraction.position,
    FileExtraction.doc_id,
    FileExtraction.member_path,
    FileExtraction.status,
    FileExtraction.size_bytes,
    FileExtraction.content_sha256,
    FileExtraction.retry_count,
    FileExtraction.error_type,
    FileExtraction.error_message,
    FileExtraction.skip_reason,
    FileExtraction.processing_duration_ms,
    FileExtraction.name_origin,
)


def batch_statistics(batch_id: str, *, session: Session) -> dict[str, Any]:
    """
    Return counts of one batch: members, files, skipped, succeeded, failed, unfinished, bytes, by state and by type.

    `members == files + skipped` holds by construction of the rows; `total_files` is what registration recorded.
    """
    query = (
        select(
            FileExtraction.status,
            FileExtraction.file_type,
            func.count(),
            func.coalesce(func.sum(FileExtraction.size_bytes), 0),
            func.coalesce(func.sum(FileExtraction.processing_duration_ms), 0),
            func.coalesce(func.sum(FileExtraction.retry_count), 0),
        )
        .where(FileExtraction.batch_id == batch_id)
        .group_by(FileExtraction.status, FileExtraction.file_type)
    )
    states: dict[str, int] = {str(state): 0 for state in FileState}
    types: dict[str, int] = {}
    sums = {"size_bytes": 0, "processing_ms": 0, "retries": 0}
    for status, file_type, count, size, duration, retries in session.execute(query):
        states[status] += count
        if status != FileState.SKIPPED:
            types[file_type] = types.get(file_type, 0) + count
        sums["size_bytes"] += int(size or 0)
        sums["processing_ms"] += int(duration or 0)
        sums["retries"] += int(retries or 0)
    members = sum(states.values())
    skipped = states[FileState.SKIPPED]
    finished = skipped + states[FileState.SUCCESS] + states[FileState.FAILED]
    return {
        "members": members,
        "files": members - skipped,
        "skipped": skipped,
        "succeeded": states[FileState.SUCCESS],
        "failed": states[FileState.FAILED],
        "unfinished": members - finished,
        "by_state": states,
        "by_type": dict(sorted(types.items())),
        **sums,
    }


def slowest_files(batch_id: str, *, session: Session) -> list[Entry]:
    query = (
        _entries(batch_id)
        .where(FileExtraction.processing_duration_ms.is_not(None))
        .order_by(FileExtraction.processing_duration_ms.desc(), FileExtraction.position)
        .limit(SHOWN_FILES)
    )
    return [_entry(row) for row in session.execute(query)]


def failed_files(batch_id: str, *, session: Session, limit: int = SHOWN_FAILURES) -> list[Entry]:
    query = (
        _entries(batch_id)
        .where(FileExtraction.status == FileState.FAILED)
        .order_by(FileExtraction.position)
        .limit(limit)
    )
    return [_entry(row) for row in session.execute(query)]


def iterate_entries(batch_id: str, *, session: Session) -> Iterator[Entry]:
    """Yield every member in the archive's order, read in pages, so that memory does not grow with the batch."""
    after = (-1, "")
    while True:
        query = (
            _entries(batch_id)
            .where(
                FileExtraction.position >= after[0],  # without it, each page would read all those before it again
                or_(
                    FileExtraction.position > after[0],
                    (FileExtraction.position == after[0]) & (FileExtraction.doc_id > after[1]),
                ),
            )
            .order_by(FileExtraction.position, FileExtraction.doc_id)
            .limit(_PAGE)
        )
        rows = session.execute(query).all()
        for row in rows:
            yield _entry(row)
        if len(rows) < _PAGE:
            return
        after = (rows[-1].position, rows[-1].doc_id)


def list_batches(*, session: Session, limit: int) -> list[BatchRecord]:
    """Return the newest batches."""
    query = select(ProcessingJob).order_by(ProcessingJob.created_at.desc()).limit(limit)
    return [record_of(job) for job in session.scalars(query)]


def count_by_state(batch_ids: Sequence[str], *, session: Session) -> dict[str, dict[str, int]]:
    """Return for each batch how many files are in which state."""
    query = (
        select(FileExtraction.batch_id, FileExtraction.status, func.count())
        .where(FileExtraction.batch_id.in_(batch_ids))
        .group_by(FileExtraction.batch_id, FileExtraction.status)
    )
    counts: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for batch_id, status, count in session.execute(query):
        counts[batch_id][status] = count
    return counts


def match_batches(text: str, *, session: Session, limit: int = 10) -> list[BatchRecord]:
    """Find batches by the beginning of their id, or by the exact name of their drop, newest first."""
    query = (
        select(ProcessingJob)
        .where(or_(ProcessingJob.batch_id.startswith(text, autoescape=True), ProcessingJob.drop_name == text))
        .order_by(ProcessingJob.created_at.desc())
        .limit(limit)
    )
    return [record_of(job) for job in session.scalars(query)]


def match_files(text: str, *, session: Session, limit: int = 10) -> list[FileExtraction]:
    """Find files by the beginning of their `doc_id`."""
    query = select(FileExtraction).where(FileExtraction.doc_id.startswith(text, autoescape=True)).limit(limit)
    return list(session.scalars(query))


def _entries(batch_id: str) -> "Select[*tuple[Any, ...]]":
    return select(*_ENTRY_COLUMNS).where(FileExtraction.batch_id == batch_id)


def _entry(row: Row[Any]) -> Entry:
    begun = row.status not in {FileState.PENDING, FileState.SKIPPED}
    return Entry(
        position=row.position,
        doc_id=row.doc_id,
        member_path=row.member_path,
        state=row.status,
        size_bytes=row.size_bytes,
        sha256=row.content_sha256,
        attempts=row.retry_count + 1 if begun else 0,
        error_type=row.error_type,
        error_message=row.error_message,
        skip_reason=row.skip_reason,
        duration_ms=row.processing_duration_ms,
        name_origin=row.name_origin,
    )
