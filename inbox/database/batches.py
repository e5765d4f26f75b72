"""Batches on their way: received, leased, registered or refused. Every finishing write carries the lease token."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.database.leasing import affected, drop_leases, new_token, open_lease
from inbox.database.models import Lease, ProcessingJob
from inbox.database.pages import in_pages, is_postgresql
from inbox.database.types import new_id
from inbox.domain import BatchLease, Drop, DropIdentity
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState, batch_states_before


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as the database had it when it was read."""

    batch_id: str
    run_id: str
    drop_name: str
    zip_path: str
    identity: DropIdentity
    state: BatchState
    reason_code: str | None
    reason: str | None
    attempts: int
    total_files: int
    total_directories: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    reported_at: datetime | None
    due_at: datetime

    def is_of(self, drop: Drop) -> bool:
        """Say whether this is the very drop the batch came from, not another one with the same content."""
        return self.drop_name == drop.name and self.identity.is_same_file(drop.identity)


def record_of(job: ProcessingJob) -> BatchRecord:
    return BatchRecord(
        batch_id=job.batch_id,
        run_id=job.run_id,
        drop_name=job.drop_name,
        zip_path=job.zip_path,
        identity=DropIdentity(job.archive_device, job.archive_inode, job.archive_bytes, job.archive_modified_ns),
        state=BatchState(job.status),
        reason_code=job.reason_code,
        reason=job.error_message,
        attempts=job.attempt_count,
        total_files=job.total_files,
        total_directories=job.total_directories,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        reported_at=job.reported_at,
        due_at=job.due_at,
    )


def receive_batch(
    batch_id: str, drop: Drop, zip_path: str, *, run_id: str, now: datetime, session: Session
) -> tuple[BatchRecord, bool]:
    """Get or create the batch of this content; True means this drop is the one that made it."""
    dialect = postgresql if is_postgresql(session) else sqlite
    values = {
        "id": new_id(),
        "batch_id": batch_id,
        "run_id": run_id,
        "status": BatchState.RECEIVED,
        "total_files": 0,
        "total_directories": 0,
        "attempt_count": 0,
        "due_at": now,
        "created_at": now,
        "updated_at": now,
        **_whereabouts(drop, zip_path),
    }
    statement = dialect.insert(ProcessingJob).values(values).on_conflict_do_nothing(index_elements=["batch_id"])
    created = affected(session.execute(statement)) == 1
    job = session.scalars(select(ProcessingJob).where(ProcessingJob.batch_id == batch_id)).one()
    return record_of(job), created


def adopt_drop(batch_id: str, drop: Drop, zip_path: str, *, now: datetime, session: Session) -> bool:
    """Point a batch that still waits for its extraction at another drop of the same content."""
    return _change(
        batch_id, {BatchState.RECEIVED}, {**_whereabouts(drop, zip_path), "updated_at": now}, session=session
    )


def lease_batch(batch_id: str, owner: str, *, now: datetime, life: timedelta, session: Session) -> BatchLease | None:
    """Claim a received batch that is due for extraction; counts the attempt. None: somebody else has it, or not due."""
    token = new_token()
    statement = (
        update(ProcessingJob)
        .where(
            ProcessingJob.batch_id == batch_id,
            ProcessingJob.status.in_(batch_states_before(BatchState.EXTRACTING)),
            ProcessingJob.due_at <= now,
        )
        .values(
            status=BatchState.EXTRACTING,
            lease_token=token,
            attempt_count=ProcessingJob.attempt_count + 1,
            updated_at=now,
        )
        .returning(ProcessingJob.attempt_count, ProcessingJob.drop_name)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    open_lease(owner, now=now, life=life, session=session, token=token)
    return BatchLease(batch_id, token, row.attempt_count, row.drop_name)


def finish_extraction(lease: BatchLease, state: BatchState, *, now: datetime, session: Session, **values: Any) -> bool:
    """
    Leave `extracting` for `state` and end the lease; False means the lease was lost and nothing changed.

    The lease's row comes before the batch's, as in a takeover: in another order the two would deadlock.
    """
    drop_leases([lease.token], session=session)
    return _change(
        lease.batch_id,
        batch_states_before(state) & {BatchState.EXTRACTING},
        {"status": state, "lease_token": None, "updated_at": now, **values},
        token=lease.token,
        session=session,
    )


def release_batch(
    lease: BatchLease, *, due_at: datetime, counted: bool, now: datetime, session: Session, reason: str | None = None
) -> bool:
    """Give a batch back, due again at `due_at`; an attempt that is not `counted` did not happen."""
    taken_back = 0 if counted else 1
    return finish_extraction(
        lease,
        BatchState.RECEIVED,
        now=now,
        session=session,
        due_at=due_at,
        attempt_count=ProcessingJob.attempt_count - taken_back,
        error_message=reason,
    )


def rescue_batch(token: str, *, max_attempts: int, now: datetime, session: Session) -> BatchRecord | None:
    """
    Take an extraction back from a holder that is gone; its attempt counts, and the last one ends it as failed.

    Returns what became of the batch, None when the lease was on no batch.
    """
    job = session.scalars(
        select(ProcessingJob).where(ProcessingJob.lease_token == token, ProcessingJob.status == BatchState.EXTRACTING)
    ).one_or_none()
    if job is None:
        return None
    job.lease_token, job.updated_at = None, now
    if job.attempt_count < max_attempts:
        job.status, job.due_at = BatchState.RECEIVED, now
    else:
        job.status, job.completed_at = BatchState.FAILED, now
        job.reason_code = "EXTRACTION_DIED"
        job.error_message = f"every one of {job.attempt_count} attempts to unpack the archive died on the way"
    return record_of(job)


def forget_batch(batch_id: str, *, token: str | None, session: Session) -> bool:
    """
    Delete a batch that never got members: its drop was not whole yet, or has gone from the uploads.

    `token` is that of our own lease, or None for a batch nobody holds.
    """
    drop_leases([token] if token else [], session=session)
    state = BatchState.EXTRACTING if token else BatchState.RECEIVED
    statement = delete(ProcessingJob).where(
        ProcessingJob.batch_id == batch_id,
        ProcessingJob.status == state,
        ProcessingJob.lease_token.is_not_distinct_from(token),
        ProcessingJob.total_files == 0,
    )
    return affected(session.execute(statement)) == 1


def find_batches_of_drops(names: Collection[str], *, session: Session) -> list[BatchRecord]:
    """Return the batches that came from drops of these names."""
    return _find_any(ProcessingJob.drop_name, names, session)


def find_batches(batch_ids: Collection[str], *, session: Session) -> dict[str, BatchRecord]:
    return {record.batch_id: record for record in _find_any(ProcessingJob.batch_id, batch_ids, session)}


def _find_any(column: Any, values: Collection[str], session: Session) -> list[BatchRecord]:
    """Return the batches with one of these values: a page at a time, since a database binds only so many."""
    found: list[BatchRecord] = []
    for page in in_pages(values):
        found += map(record_of, session.scalars(select(ProcessingJob).where(column.in_(page))))
    return found


def find_leases_on_batches(owner: str, *, session: Session) -> list[BatchLease]:
    """Return the batches that this owner extracts."""
    query = (
        select(ProcessingJob)
        .join(Lease, Lease.token == ProcessingJob.lease_token)
        .where(Lease.owner == owner, ProcessingJob.status == BatchState.EXTRACTING)
    )
    return [
        BatchLease(job.batch_id, job.lease_token or "", job.attempt_count, job.drop_name)
        for job in session.scalars(query)
    ]


def find_open_batches(states: Collection[BatchState], *, session: Session) -> list[BatchRecord]:
    """Return the batches in these states that are not reported yet, oldest first."""
    query = (
        select(ProcessingJob)
        .where(ProcessingJob.reported_at.is_(None), ProcessingJob.status.in_(states))
        .order_by(ProcessingJob.created_at)
    )
    return [record_of(job) for job in session.scalars(query)]


def mark_batch_reported(batch_id: str, *, run_id: str, zip_path: str, now: datetime, session: Session) -> bool:
    """
    Record that receipt and archive of this run are in their places.

    False means that the batch is under way again: an operator's retry was faster, and must not end unreported.
    """
    statement = (
        update(ProcessingJob)
        .where(
            ProcessingJob.batch_id == batch_id,
            ProcessingJob.run_id == run_id,
            ProcessingJob.status.in_(FINAL_BATCH_STATES),
        )
        .values(reported_at=now, updated_at=now, zip_path=zip_path)
    )
    return affected(session.execute(statement)) == 1


def _whereabouts(drop: Drop, zip_path: str) -> dict[str, Any]:
    return {
        "drop_name": drop.name,
        "zip_path": zip_path,
        "archive_bytes": drop.identity.size_bytes,
        "archive_device": drop.identity.device,
        "archive_inode": drop.identity.inode,
        "archive_modified_ns": drop.identity.modified_ns,
    }


def _change(
    batch_id: str,
    states: Collection[BatchState],
    values: Mapping[str, Any],
    *,
    session: Session,
    token: str | None = None,
) -> bool:
    statement = (
        update(ProcessingJob)
        .where(
            ProcessingJob.batch_id == batch_id,
            ProcessingJob.status.in_(states),
            ProcessingJob.lease_token.is_not_distinct_from(token),
        )
        .values(**values)
    )
    return affected(session.execute(statement)) == 1
