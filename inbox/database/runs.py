"""A run begins with registration or an operator's retry, and ends when the last file has come to rest."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.database import turns
from inbox.database.batches import BatchRecord, finish_extraction, record_of
from inbox.database.leasing import affected
from inbox.database.models import FileExtraction, ProcessingJob, RunSummary
from inbox.database.pages import is_postgresql
from inbox.database.types import new_id
from inbox.domain import BatchLease
from inbox.lifecycle import BatchState, FileState, batch_states_before

_unfinished_files = exists().where(
    FileExtraction.batch_id == ProcessingJob.batch_id, FileExtraction.processing_completed_at.is_(None)
)


def begin_processing(
    lease: BatchLease, *, run_id: str, members: int, directories: int, now: datetime, session: Session
) -> bool:
    """Leave `extracting` for `processing`: every member has its row. False means the lease was lost."""
    return finish_extraction(
        lease,
        BatchState.PROCESSING,
        now=now,
        session=session,
        run_id=run_id,
        total_files=members,
        total_directories=directories,
        started_at=now,
        error_message=None,
        reason_code=None,
    )


def count_files(batch_id: str, *, session: Session) -> int:
    """Return how many rows a batch has."""
    query = select(func.count()).select_from(FileExtraction).where(FileExtraction.batch_id == batch_id)
    return session.execute(query).scalar_one()


def find_finished_batches(*, session: Session) -> list[str]:
    """Return the batches in processing whose every file has come to rest."""
    query = (
        select(ProcessingJob.batch_id)
        .where(ProcessingJob.status == BatchState.PROCESSING, ProcessingJob.reported_at.is_(None), ~_unfinished_files)
        .order_by(ProcessingJob.created_at)
    )
    return list(session.scalars(query))


def find_overdue_batches(*, started_before: datetime, session: Session) -> list[BatchRecord]:
    """Return the batches whose processing began before this time and is not over."""
    query = select(ProcessingJob).where(
        ProcessingJob.status == BatchState.PROCESSING,
        ProcessingJob.reported_at.is_(None),
        ProcessingJob.started_at < started_before,
    )
    return [record_of(job) for job in session.scalars(query)]


def lock_for_closing(batch_id: str, *, session: Session) -> BatchRecord | None:
    """Take the batch's row for the rest of the transaction if it is ready to be closed: of several closers one wins."""
    query = (
        select(ProcessingJob)
        .where(ProcessingJob.batch_id == batch_id, ProcessingJob.status == BatchState.PROCESSING, ~_unfinished_files)
        .with_for_update(skip_locked=True)
    )
    job = session.scalars(query).one_or_none()
    return record_of(job) if job is not None else None


def store_run_summary(
    run_id: str,
    ui_json: Mapping[str, Any],
    *,
    now: datetime,
    session: Session,
    batch_id: str | None = None,
    nested_summary: Mapping[str, Any] | None = None,
    counts: Mapping[str, int] | None = None,
) -> None:
    """Create or replace the summary of a run; atomic under concurrency, the last writer stands."""
    counts = counts or {}
    values = {
        "batch_id": batch_id,
        "ui_json": dict(ui_json),
        "nested_summary": dict(nested_summary) if nested_summary is not None else None,
        "file_count": counts.get("files", 0),
        "success_count": counts.get("succeeded", 0),
        "error_count": counts.get("failed", 0),
        "updated_at": now,
    }
    dialect = postgresql if is_postgresql(session) else sqlite
    insertion = dialect.insert(RunSummary).values(id=new_id(), run_id=run_id, created_at=now, **values)
    session.execute(insertion.on_conflict_do_update(index_elements=["run_id"], set_=values))


def open_run(
    batch_id: str, run_id: str, *, now: datetime, session: Session, doc_ids: Collection[str] | None = None
) -> int:
    """
    An operator's retry: failed files (all, or these) become pending in a new run. Returns how many.

    Attempts start anew, with the turns of a batch that comes now; files that succeeded keep their rows and are not
    touched.
    """
    job_states = batch_states_before(BatchState.PROCESSING) - {BatchState.EXTRACTING}
    job = session.scalars(
        select(ProcessingJob)
        .where(ProcessingJob.batch_id == batch_id, ProcessingJob.status.in_(job_states))
        .with_for_update()
    ).one_or_none()
    if job is None:
        return 0
    chosen = [FileExtraction.batch_id == batch_id, FileExtraction.status == FileState.FAILED]
    if doc_ids is not None:
        chosen.append(FileExtraction.doc_id.in_(doc_ids))
    first_turn = turns.next_turn(session)
    order = turns.ranked(*chosen)
    files = session.execute(
        update(FileExtraction)
        .where(FileExtraction.id == order.c.id)
        .values(
            status=FileState.PENDING,
            run_id=run_id,
            retry_count=0,
            due_at=now,
            turn=first_turn + order.c.rank,
            lease_token=None,
            processing_started_at=None,
            processing_completed_at=None,
            processing_duration_ms=None,
            error_type=None,
            error_message=None,
        )
        .execution_options(synchronize_session=False)
    )
    count = affected(files)
    if count:
        job.status, job.run_id, job.started_at, job.updated_at = BatchState.PROCESSING, run_id, now, now
        job.completed_at = job.reported_at = job.error_message = job.reason_code = None
    return count


def offer_again(batch_id: str, zip_path: str, *, now: datetime, session: Session) -> bool:
    """An operator's retry of a batch that never got members: its archive waits at `zip_path` to be taken again."""
    statement = (
        update(ProcessingJob)
        .where(
            ProcessingJob.batch_id == batch_id,
            ProcessingJob.status.in_([BatchState.QUARANTINED, BatchState.FAILED]),
            ProcessingJob.total_files == 0,
        )
        .values(
            status=BatchState.RECEIVED,
            zip_path=zip_path,
            attempt_count=0,
            due_at=now,
            updated_at=now,
            completed_at=None,
            reported_at=None,
            reason_code=None,
            error_message=None,
        )
    )
    return affected(session.execute(statement)) == 1
