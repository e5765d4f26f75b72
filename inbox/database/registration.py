"""Members get their rows: atomic get-or-create, a page at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from inbox.database.models import FILES, FileExtraction
from inbox.database.pages import as_recordset, column_of, in_pages, is_postgresql
from inbox.database.types import new_id

_COLUMNS = (
    FileExtraction.id,
    FileExtraction.doc_id,
    FileExtraction.batch_id,
    FileExtraction.run_id,
    FileExtraction.position,
    FileExtraction.member_path,
    FileExtraction.file_path,
    FileExtraction.file_name,
    FileExtraction.file_type,
    FileExtraction.size_bytes,
    FileExtraction.content_sha256,
    FileExtraction.status,
    FileExtraction.skip_reason,
    FileExtraction.due_at,
    FileExtraction.processing_completed_at,
    FileExtraction.retry_count,
)


def get_or_create_files(rows: Sequence[Mapping[str, Any]], *, session: Session) -> set[str]:
    """
    Make sure that every row's `doc_id` exists, and return the doc_ids that are new.

    Atomic under concurrency: of several registrars of one doc_id exactly one creates it. Rows that exist are left as
    they are. Rows go in one order, whoever brings them, since two registrars with overlapping pages would otherwise
    deadlock; and in the archive's, since files that are claimed together should lie together.
    """
    ordered = sorted((_complete(row) for row in rows), key=lambda row: (row["position"], str(row["doc_id"])))
    store = _insert_recordset if is_postgresql(session) else _insert_missing
    created: set[str] = set()
    for page in in_pages(ordered):
        created |= store(page, session)
    return created


def _complete(row: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {
        "id": new_id(),
        "status": "pending",
        "file_type": "unknown",
        "position": 0,
        "size_bytes": 0,
        "retry_count": 0,
    }
    return {attribute.key: row.get(attribute.key, defaults.get(attribute.key)) for attribute in _COLUMNS}


def _insert_recordset(page: Sequence[Mapping[str, Any]], session: Session) -> set[str]:
    source = as_recordset(_COLUMNS)
    statement = (
        postgresql.insert(FILES)
        .from_select([attribute.key for attribute in _COLUMNS], select(*(column_of(source, item) for item in _COLUMNS)))
        .on_conflict_do_nothing(index_elements=[FILES.c.doc_id])
        .returning(FILES.c.doc_id)
    )
    return set(session.connection().scalars(statement, {"rows": page}))


def _insert_missing(page: Sequence[Mapping[str, Any]], session: Session) -> set[str]:
    """SQLite: the writing transaction is the only one, so looking first and inserting the rest is atomic."""
    wanted = [row["doc_id"] for row in page]
    existing = set(session.scalars(select(FileExtraction.doc_id).where(FileExtraction.doc_id.in_(wanted))))
    missing = {row["doc_id"]: row for row in page if row["doc_id"] not in existing}
    if missing:
        session.connection().execute(insert(FILES), list(missing.values()))
    return set(missing)
