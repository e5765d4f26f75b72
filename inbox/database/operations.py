"""
The operations on batches, files and summaries by name. Each is one transaction and safe under concurrency.

Without `session` an operation makes its own transaction on the session factory made last; with one it takes part in
the caller's. The pipeline works in pages and groups: an operation on one row is the page operation on a page of one.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from inbox.core.errors import DatabaseRefusedError, ErrorType, classify_error, describe_error
from inbox.database import queries, registration, runs, work
from inbox.database.connection import joined
from inbox.database.leasing import affected
from inbox.database.models import FileExtraction, ProcessingJob, RunSummary
from inbox.domain import Outcome
from inbox.lifecycle import (
    FINAL_BATCH_STATES,
    FINAL_FILE_STATES,
    BatchState,
    FileState,
    batch_states_before,
    batch_verdict,
    file_states_before,
)


def get_batch_by_id(batch_id: str, *, session: Session | None = None) -> ProcessingJob | None:
    """Return the batch, or None."""
    with joined(session) as current:
        return current.scalars(select(ProcessingJob).where(ProcessingJob.batch_id == batch_id)).one_or_none()


def get_batch_files(batch_id: str, *, session: Session | None = None) -> list[FileExtraction]:
    """Return every row of the batch in the archive's order. Big batches: `queries.iterate_entries` reads in pages."""
    with joined(session) as current:
        query = select(FileExtraction).where(FileExtraction.batch_id == batch_id)
        return list(current.scalars(query.order_by(FileExtraction.position, FileExtraction.doc_id)))


def update_batch_status(
    batch_id: str,
    status: str,
    *,
    error_message: str | None = None,
    reason_code: str | None = None,
    now: datetime | None = None,
    session: Session | None = None,
) -> bool:
    """
    Move a batch to another state; False when it is in none from which the lifecycle leads there.

    Entering a final state sets `completed_at`. Raises ValueError for a word that is no state.
    """
    state = BatchState(status)
    moment = now or datetime.now(UTC)
    with joined(session) as current:
        statement = (
            update(ProcessingJob)
            .where(ProcessingJob.batch_id == batch_id, ProcessingJob.status.in_(batch_states_before(state)))
            .values(
                status=state,
                updated_at=moment,
                completed_at=moment if state in FINAL_BATCH_STATES else None,
                error_message=error_message,
                reason_code=reason_code,
            )
        )
        return affected(current.execute(statement)) == 1


def mark_batch_completed(
    batch_id: str, *, now: datetime | None = None, session: Session | None = None
) -> BatchState | None:
    """
    Close a batch whose files have all come to rest, as completed, partial or failed, and return which.

    None means that it is not in processing, or that files are not finished yet.
    """
    with joined(session) as current:
        if runs.lock_for_closing(batch_id, session=current) is None:
            return None
        counts = queries.batch_statistics(batch_id, session=current)
        verdict = batch_verdict(succeeded=counts["succeeded"], failed=counts["failed"])
        message = f"{counts['failed']} of {counts['files']} files failed" if counts["failed"] else None
        reason = "FILES_FAILED" if counts["failed"] else None
        update_batch_status(batch_id, verdict, error_message=message, reason_code=reason, now=now, session=current)
        return verdict


def mark_batch_failed(
    batch_id: str,
    error_message: str,
    *,
    reason_code: str = "FAILED",
    now: datetime | None = None,
    session: Session | None = None,
) -> bool:
    """End a batch as failed with its reason; False when the lifecycle does not lead there from where it is."""
    return update_batch_status(
        batch_id, BatchState.FAILED, error_message=error_message, reason_code=reason_code, now=now, session=session
    )


def is_batch_already_processed(batch_id: str, *, session: Session | None = None) -> bool:
    """Say whether this content has been through: its batch is in a final state."""
    batch = get_batch_by_id(batch_id, session=session)
    return batch is not None and batch.status in FINAL_BATCH_STATES


def get_batch_statistics(batch_id: str, *, session: Session | None = None) -> dict[str, Any]:
    """Return a batch's counts: members, files, skipped, succeeded, failed, unfinished, bytes, by state and type."""
    with joined(session) as current:
        return queries.batch_statistics(batch_id, session=current)


def create_or_update_run_summary(
    run_id: str,
    ui_json: Mapping[str, Any],
    *,
    batch_id: str | None = None,
    nested_summary: Mapping[str, Any] | None = None,
    counts: Mapping[str, int] | None = None,
    now: datetime | None = None,
    session: Session | None = None,
) -> RunSummary:
    """Store the summary of a run, once per `run_id`; a later call replaces it. `counts`: files, succeeded, failed."""
    with joined(session) as current:
        runs.store_run_summary(
            run_id,
            ui_json,
            batch_id=batch_id,
            nested_summary=nested_summary,
            counts=counts,
            now=now or datetime.now(UTC),
            session=current,
        )
        query = select(RunSummary).where(RunSummary.run_id == run_id).execution_options(populate_existing=True)
        return current.scalars(query).one()


def create_file_extraction(
    doc_id: str, batch_id: str, *, session: Session | None = None, **values: Any
) -> FileExtraction:
    """Create the row of a file. Raises DatabaseRefusedError when the `doc_id` exists."""
    row, created = get_or_create_file_extraction(doc_id, {**values, "batch_id": batch_id}, session=session)
    if not created:
        raise DatabaseRefusedError("this doc_id has its row", subject=doc_id, hint="use get_or_create_file_extraction")
    return row


def get_or_create_file_extraction(
    doc_id: str, defaults: Mapping[str, Any], *, session: Session | None = None
) -> tuple[FileExtraction, bool]:
    """Return the one row of `doc_id` and whether this call created it; atomic under concurrency."""
    with joined(session) as current:
        created = get_or_create_file_extractions([{**defaults, "doc_id": doc_id}], session=current)
        row = get_file_by_doc_id(doc_id, session=current)
        if row is None:
            raise DatabaseRefusedError("a row vanished while it was created", subject=doc_id)
        return row, doc_id in created


def get_or_create_file_extractions(rows: Sequence[Mapping[str, Any]], *, session: Session | None = None) -> set[str]:
    """The bulk form: make sure every row exists, return the doc_ids created. Rows default as a single one does."""
    now = datetime.now(UTC)
    with joined(session) as current:
        return registration.get_or_create_files([_with_defaults(row, now) for row in rows], session=current)


def get_file_by_doc_id(doc_id: str, *, session: Session | None = None) -> FileExtraction | None:
    """Return the file, or None."""
    with joined(session) as current:
        query = select(FileExtraction).where(FileExtraction.doc_id == doc_id)
        return current.scalars(query.execution_options(populate_existing=True)).one_or_none()


def update_file_status(
    doc_id: str, status: str, *, now: datetime | None = None, session: Session | None = None, **values: Any
) -> bool:
    """
    Move a file that nobody has leased to another state; False when the lifecycle does not lead there.

    Raises ValueError for a word that is no state.
    """
    state = FileState(status)
    moment = now or datetime.now(UTC)
    if state is FileState.RETRYING:
        values.setdefault("turn", None)
    with joined(session) as current:
        statement = (
            update(FileExtraction)
            .where(
                FileExtraction.doc_id == doc_id,
                FileExtraction.status.in_(file_states_before(state)),
                FileExtraction.lease_token.is_(None),
            )
            .values(status=state, processing_completed_at=moment if state in FINAL_FILE_STATES else None, **values)
            .execution_options(synchronize_session=False)
        )
        return affected(current.execute(statement)) == 1


def mark_file_processing_start(
    doc_id: str, *, lease_token: str | None = None, now: datetime | None = None, session: Session | None = None
) -> bool:
    """Begin an attempt on one file, and count it; False when it is not waiting. Pages: `work.claim_files`."""
    moment = now or datetime.now(UTC)
    with joined(session) as current:
        statement = (
            update(FileExtraction)
            .where(
                FileExtraction.doc_id == doc_id,
                FileExtraction.status.in_(file_states_before(FileState.PROCESSING)),
            )
            .values(
                status=FileState.PROCESSING,
                lease_token=lease_token,
                processing_started_at=moment,
                retry_count=FileExtraction.retry_count + work.counts_as_retry(),
            )
            .execution_options(synchronize_session=False)
        )
        return affected(current.execute(statement)) == 1


def mark_file_success(
    doc_id: str,
    raw_extraction: Any = None,
    *,
    lease_token: str | None = None,
    now: datetime | None = None,
    session: Session | None = None,
) -> bool:
    """Record a success; False when the file is not in processing under this token. Groups: `work.record_outcomes`."""
    return _record_one(doc_id, FileState.SUCCESS, lease_token, now, session, result=raw_extraction)


def mark_file_failed(
    doc_id: str,
    error: BaseException | str,
    *,
    error_type: str | None = None,
    lease_token: str | None = None,
    now: datetime | None = None,
    session: Session | None = None,
) -> bool:
    """Record a final failure; False when the file is not in processing under this token."""
    if isinstance(error, BaseException):
        kind, message = error_type or classify_error(error), describe_error(error)
    else:
        kind, message = error_type or str(ErrorType.UNKNOWN), error
    return _record_one(doc_id, FileState.FAILED, lease_token, now, session, error_type=kind, error_message=message)


def increment_retry_count(doc_id: str, *, session: Session | None = None) -> int:
    """Count one more retry and return the new count; atomic. Raises DatabaseRefusedError for an unknown `doc_id`."""
    with joined(session) as current:
        statement = (
            update(FileExtraction)
            .where(FileExtraction.doc_id == doc_id)
            .values(retry_count=FileExtraction.retry_count + 1)
            .returning(FileExtraction.retry_count)
            .execution_options(synchronize_session=False)
        )
        count = current.execute(statement).scalar_one_or_none()
        if count is None:
            raise DatabaseRefusedError("no file has this doc_id", subject=doc_id)
        return int(count)


def is_file_already_processed(doc_id: str, *, session: Session | None = None) -> bool:
    """Say whether this file is recorded as succeeded."""
    file = get_file_by_doc_id(doc_id, session=session)
    return file is not None and file.status == FileState.SUCCESS


def _with_defaults(row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    path = str(row.get("member_path") or row.get("file_path") or row.get("file_name") or row["doc_id"])
    defaults = {
        "member_path": path,
        "file_path": path,
        "file_name": path.rpartition("/")[2],
        "run_id": "",
        "due_at": now,
    }
    return {**defaults, **row}


def _record_one(  # noqa: PLR0913 - the fields of one outcome
    doc_id: str,
    state: FileState,
    token: str | None,
    now: datetime | None,
    session: Session | None,
    *,
    result: Any = None,
    error_type: str | None = None,
    error_message: str | None = None,
) -> bool:
    moment = now or datetime.now(UTC)
    with joined(session) as current:
        file = get_file_by_doc_id(doc_id, session=current)
        started_at = file.processing_started_at if file is not None else None
        outcome = Outcome(
            doc_id=doc_id,
            token=token,
            state=state,
            finished_at=moment,
            duration_ms=max(round((moment - started_at).total_seconds() * 1000), 0) if started_at else 0,
            result=result,
            error_type=error_type,
            error_message=error_message,
        )
        return doc_id in work.record_outcomes([outcome], session=current)
