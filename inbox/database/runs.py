"""A run begins with registration or an operator's retry, and ends when the last file has come to rest."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.database import turns
from inbox.database.batches import BatchRecord, finish_extraction, record_of
from inbox.database.leasing import affected
from inbox.database.models import FileExtraction, ProcessingJob, RunSummary
from inbox.database.pages import PAGE_ROWS, in_pages, is_postgresql
from inbox.database.types import new_id
from inbox.domain import BatchLease, DropIdentity
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
    batch_id: str,
    run_id: str,
    *,
    now: datetime,
    session: Session,
    doc_ids: Collection[str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> int:
    """
    A retry: failed files of a batch that is over become pending in a new run. Returns how many.

    With `doc_ids` only these; with `versions`, the present ones of handlers by their names, only files that failed
    under another version of one of them. Attempts start anew, with the turns of a batch that comes now; files that
    succeeded keep their rows and are not touched.
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
    if versions is not None:
        chosen.append(failed_under_another(versions))
    first_turn, count = turns.next_turn(session), 0
    for page in [None] if doc_ids is None else in_pages(doc_ids):
        count += _reopen_files(chosen, page, run_id, first_turn + count, now, session)
    if count:
        job.status, job.run_id, job.started_at, job.updated_at = BatchState.PROCESSING, run_id, now, now
        job.completed_at = job.reported_at = job.error_message = job.reason_code = None
    return count


def _reopen_files(
    chosen: Sequence[ColumnElement[bool]],
    doc_ids: Collection[str] | None,
    run_id: str,
    first_turn: int,
    now: datetime,
    session: Session,
) -> int:
    among = [] if doc_ids is None else [FileExtraction.doc_id.in_(doc_ids)]
    order = turns.ranked(*chosen, *among)
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
            handler=None,
            handler_version=None,
        )
        .execution_options(synchronize_session=False)
    )
    return affected(files)


def find_failed_under_another(versions: Mapping[str, str], *, session: Session) -> list[str]:
    """Return the batches that are over and hold files which failed under another version; reads the table once."""
    query = (
        select(ProcessingJob.batch_id)
        .where(
            ProcessingJob.status.in_(batch_states_before(BatchState.PROCESSING) - {BatchState.EXTRACTING}),
            ProcessingJob.batch_id.in_(
                select(FileExtraction.batch_id).where(
                    FileExtraction.status == FileState.FAILED, failed_under_another(versions)
                )
            ),
        )
        .order_by(ProcessingJob.created_at)
    )
    return list(session.scalars(query))


def iterate_failed_under_another(
    batch_id: str, versions: Mapping[str, str], *, session: Session
) -> Iterator[FileExtraction]:
    """Yield the files of a batch which failed under another version, read in pages in the archive's order."""
    after = -1, ""
    while True:
        query = (
            select(FileExtraction)
            .where(
                FileExtraction.batch_id == batch_id,
                FileExtraction.status == FileState.FAILED,
                failed_under_another(versions),
                tuple_(FileExtraction.position, FileExtraction.doc_id) > after,
            )
            .order_by(FileExtraction.position, FileExtraction.doc_id)
            .limit(PAGE_ROWS)
        )
        page = list(session.scalars(query))
        yield from page
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].position, page[-1].doc_id
        session.expunge_all()  # read and done with: memory does not grow with the batch


def failed_under_another(versions: Mapping[str, str]) -> ColumnElement[bool]:
    """Return the condition of a row whose handler is one of these and had another version, which is known."""
    return or_(
        false(),
        *(
            and_(FileExtraction.handler == name, FileExtraction.handler_version != version)
            for name, version in versions.items()
        ),
    )


def offer_again(
    batch_id: str, zip_path: str, *, now: datetime, session: Session, identity: DropIdentity | None = None
) -> bool:
    """
    An operator's retry of a batch that never got members: its archive waits at `zip_path` to be taken again.

    `identity` is what it is there, since a volume that was copied has other inodes. False: it is not in such a state.
    """
    moved = {"archive_device": identity.device, "archive_inode": identity.inode} if identity else {}
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
            **moved,
        )
    )
    return affected(session.execute(statement)) == 1
