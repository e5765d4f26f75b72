"""Registering: every member gets exactly one row, all in one transaction, and the batch enters processing with it."""

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from inbox.core.errors import DatabaseUnavailableError, LeaseLostError, PermanentError
from inbox.core.idempotency import ensure_idempotent_files
from inbox.database import batches, runs, turns
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.pages import in_pages
from inbox.domain import BatchLease, Extraction, derive_doc_id
from inbox.lifecycle import FileState
from inbox.utils.clock import Clock
from inbox.utils.filetypes import file_type_of_name


class Registrar:
    """Writes the rows of a batch."""

    def __init__(self, sessions: Sessions, clock: Clock, *, extracted_folder: str) -> None:
        self._sessions = sessions
        self._clock = clock
        self._extracted_folder = extracted_folder

    def register(self, lease: BatchLease, extraction: Extraction) -> str:
        """
        Give every member its row and return the run that begins.

        When the answer to the commit is lost, the database is asked whether it counted. Raises LeaseLostError when
        another worker has taken the batch over; nothing is written then.
        """
        run_id = uuid.uuid4().hex
        try:
            self._write(lease, extraction, run_id)
        except DatabaseUnavailableError:
            if not self._has_begun(lease.batch_id, run_id):
                raise
        return run_id

    @retry_when_busy
    def _has_begun(self, batch_id: str, run_id: str) -> bool:
        with self._sessions.reading() as session:
            record = batches.find_batches([batch_id], session=session).get(batch_id)
        return record is not None and record.run_id == run_id

    @retry_when_busy
    def _write(self, lease: BatchLease, extraction: Extraction, run_id: str) -> None:
        now = self._clock.now()
        with self._sessions.writing() as session:
            rows = self._rows(lease.batch_id, run_id, extraction, now, turns.next_turn(session))
            for page in in_pages(rows):  # memory does not grow with the archive
                ensure_idempotent_files(lease.batch_id, page, session=session)
            if runs.count_files(lease.batch_id, session=session) < extraction.members:
                raise PermanentError("two members of an archive would share a row", subject=lease.batch_id)
            begun = runs.begin_processing(
                lease,
                run_id=run_id,
                members=extraction.members,
                directories=extraction.directories,
                now=now,
                session=session,
            )
            if not begun:
                raise LeaseLostError("another worker has taken the batch over", subject=lease.batch_id)

    def _rows(
        self, batch_id: str, run_id: str, extraction: Extraction, now: datetime, first_turn: int
    ) -> Iterator[dict[str, Any]]:
        names = extraction.names
        for turn, file in enumerate(extraction.files, first_turn):
            yield {
                **self._row(batch_id, run_id, file.path, file.position, file.size_bytes, now),
                "turn": turn,
                "name_origin": names[file.position].as_json() if file.position in names else None,
                "file_path": f"{self._extracted_folder}/{batch_id}/{file.path}",
                "content_sha256": file.sha256,
                "file_type": file.file_type,
                "status": FileState.PENDING,
            }
        for member in extraction.skipped:
            yield {
                **self._row(batch_id, run_id, member.path, member.position, member.size_bytes, now),
                "name_origin": names[member.position].as_json() if member.position in names else None,
                "file_path": "",
                "status": FileState.SKIPPED,
                "skip_reason": member.reason_code,
                "processing_completed_at": now,
            }

    @staticmethod
    def _row(batch_id: str, run_id: str, path: str, position: int, size_bytes: int, now: datetime) -> dict[str, Any]:
        name = path.rpartition("/")[2]
        return {
            "doc_id": derive_doc_id(batch_id, path),
            "run_id": run_id,
            "position": position,
            "member_path": path,
            "file_name": name,
            "file_type": file_type_of_name(name),
            "size_bytes": size_bytes,
            "due_at": now,
        }
