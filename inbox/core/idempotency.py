"""
Nothing is done twice: every member gets its row once, and a row says whether it may be worked on again.

This layer knows no database. What it needs from one stands in two protocols; the database package offers itself as the
store when it is imported.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from inbox.core.errors import RETRYABLE_TYPES, WorkerError

STALE_AFTER_SECONDS: Final = 1800
DEFAULT_MAX_ATTEMPTS: Final = 3

_logger = logging.getLogger("inbox.idempotency")


class FileRow(Protocol):
    """What has to be known of a file to decide whether it is worked on again. `FileExtraction` is one."""

    @property
    def status(self) -> str: ...
    @property
    def error_type(self) -> str | None: ...
    @property
    def retry_count(self) -> int: ...
    @property
    def processing_started_at(self) -> datetime | None: ...


Row_co = TypeVar("Row_co", covariant=True)
Row = TypeVar("Row")


class FileStore(Protocol[Row_co]):
    """Where rows are kept."""

    def get_or_create_file_extraction(
        self, doc_id: str, defaults: Mapping[str, Any], *, session: Any = None
    ) -> tuple[Row_co, bool]: ...

    def get_or_create_file_extractions(self, rows: Sequence[Mapping[str, Any]], *, session: Any = None) -> set[str]: ...


_store: list[FileStore[Any]] = []


def use_store(store: FileStore[Any]) -> None:
    """Make `store` the one that is used when none is named; the database package does so when it is imported."""
    _store[:] = [store]


def ensure_idempotent_file(
    doc_id: str,
    batch_id: str,
    file_info: Mapping[str, Any],
    *,
    session: Any = None,
    store: FileStore[Row] | None = None,
) -> tuple[Row, bool]:
    """
    Return the one row of `doc_id`, and whether this call created it. Atomic: of many callers exactly one creates.

    `file_info` fills a new row and leaves an existing one alone. A duplicate is logged.
    """
    row, created = (store or _default_store()).get_or_create_file_extraction(
        doc_id, {**file_info, "batch_id": batch_id}, session=session
    )
    if not created:
        _log_duplicates(batch_id, 1, 1, doc_id=doc_id)
    return row, created


def ensure_idempotent_files(
    batch_id: str,
    file_infos: Sequence[Mapping[str, Any]],
    *,
    session: Any = None,
    store: FileStore[Any] | None = None,
) -> set[str]:
    """Do the same for all members of a batch at once; each info carries its `doc_id`. Returns the doc_ids created."""
    rows = [{**info, "batch_id": batch_id} for info in file_infos]
    created = (store or _default_store()).get_or_create_file_extractions(rows, session=session)
    if len(created) < len(rows):
        _log_duplicates(batch_id, len(rows) - len(created), len(rows))
    return created


def should_reprocess_file(
    file_extraction: FileRow,
    *,
    max_attempts: int = DEFAULT_MAX_ATTEMPTS,
    timeout_seconds: float = STALE_AFTER_SECONDS,
    now: datetime | None = None,
) -> bool:
    """
    Say whether a file may be worked on (again).

    Succeeded and skipped: no. Waiting: yes. Failed or retrying: only after a retryable error and with attempts left.
    In processing: only when stale, and with attempts left, since whatever held it may have died of it.
    """
    status = file_extraction.status
    if status == "pending":
        return True
    attempts_left = (file_extraction.retry_count or 0) + 1 < max_attempts
    if status == "processing":
        return attempts_left and detect_stale_processing(file_extraction, timeout_seconds, now=now)
    if status in {"failed", "retrying"}:
        return attempts_left and file_extraction.error_type in RETRYABLE_TYPES
    return False


def detect_stale_processing(
    file_extraction: FileRow, timeout_seconds: float = STALE_AFTER_SECONDS, *, now: datetime | None = None
) -> bool:
    """
    Say whether a file has been in processing for longer than anything alive would take.

    A row in processing that does not know when it began is stale; times without zone are UTC.
    """
    if file_extraction.status != "processing":
        return False
    started_at = file_extraction.processing_started_at
    if started_at is None:
        return True
    if started_at.tzinfo is None:
        started_at = started_at.replace(tzinfo=UTC)
    return (now or datetime.now(UTC)) - started_at > timedelta(seconds=timeout_seconds)


def _default_store() -> FileStore[Any]:
    if not _store:
        raise WorkerError("no file store is in use", hint="import inbox.database, or pass store=…")
    return _store[0]


def _log_duplicates(batch_id: str, duplicates: int, total: int, **extra: str) -> None:
    _logger.info(
        "%d of %d files were registered before; their rows stay as they are",
        duplicates,
        total,
        extra={"batch_id": batch_id, "duplicates": duplicates, **extra},
    )
