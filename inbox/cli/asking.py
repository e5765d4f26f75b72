"""What the commands ask the database, as plain data: the same for a table and for JSON."""

from typing import Any

from sqlalchemy.orm import Session

from inbox.core.errors import PermanentError
from inbox.database import queries
from inbox.database.batches import BatchRecord
from inbox.domain import short_id
from inbox.lifecycle import FileState

Shown = dict[str, Any]


def overview(session: Session, *, limit: int) -> list[Shown]:
    """Return the newest batches with their counts by file state."""
    found = queries.list_batches(session=session, limit=limit)
    counts = queries.count_by_state([batch.batch_id for batch in found], session=session)
    return [_batch(batch, counts[batch.batch_id]) for batch in found]


def details(session: Session, text: str) -> Shown:
    """Return one batch with statistics, failed and slowest files. Raises PermanentError when it is not one batch."""
    found = queries.match_batches(text, session=session)
    if not found:
        raise PermanentError(
            "no batch has this id or came from a drop of this name", subject=text, hint="see `inbox status`"
        )
    batch = found[0]
    if len(found) > 1 and batch.drop_name != text:
        ids = ", ".join(short_id(item.batch_id) for item in found)
        raise PermanentError("more than one batch is meant", subject=text, hint=f"say which: {ids}")
    statistics = queries.batch_statistics(batch.batch_id, session=session)
    shown = _batch(batch, statistics["by_state"])
    shown["statistics"] = statistics
    shown["failures"] = [_entry(entry) for entry in queries.failed_files(batch.batch_id, session=session)]
    shown["slowest"] = [_entry(entry) for entry in queries.slowest_files(batch.batch_id, session=session)]
    return shown


def _batch(batch: BatchRecord, states: dict[str, int]) -> Shown:
    return {
        "batch_id": batch.batch_id,
        "short_id": short_id(batch.batch_id),
        "drop": batch.drop_name,
        "state": str(batch.state),
        "reason_code": batch.reason_code,
        "reason": batch.reason,
        "run_id": batch.run_id,
        "members": batch.total_files,
        "states": {str(state): states.get(state, 0) for state in FileState},
        "archive": batch.zip_path,
        "archive_bytes": batch.identity.size_bytes,
        "received_at": batch.created_at.isoformat(),
        "completed_at": batch.completed_at.isoformat() if batch.completed_at else None,
    }


def _entry(entry: queries.Entry) -> Shown:
    return {
        "doc_id": entry.doc_id,
        "path": entry.member_path,
        "state": entry.state,
        "attempts": entry.attempts,
        "size_bytes": entry.size_bytes,
        "duration_ms": entry.duration_ms,
        "error_type": entry.error_type,
        "error": entry.error_message,
    }
