"""Retrying: what an operator says. The only way out of a final state."""

import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from tempfile import NamedTemporaryFile

from inbox.core.errors import PermanentError
from inbox.database import batches, queries, runs
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import Drop, short_id
from inbox.lifecycle import BatchState
from inbox.pipeline.places import reason_beside
from inbox.utils.clock import Clock
from inbox.utils.drops import look_at
from inbox.utils.filesystem import move_file
from inbox.utils.volume import Volume, find_by_stored_name


@dataclass(frozen=True, slots=True)
class Retried:
    """What was set in motion: so many files in a new run, or the archive offered again."""

    batch_id: str
    drop: str
    files: int
    archive_offered_again: bool = False


class Retrier:
    """Opens new runs."""

    def __init__(self, sessions: Sessions, volume: Volume, clock: Clock) -> None:
        self._sessions = sessions
        self._volume = volume
        self._clock = clock

    def retry(self, target: str) -> Retried:
        """
        Retry what `target` names: a batch (id, beginning of it, or drop name) or one file (`doc_id` or its beginning).

        Raises PermanentError, saying what to do, when nothing or more than one thing is meant, or nothing has failed;
        StorageError when the volume is not there.
        """
        self._volume.require()
        with self._sessions.reading() as session:
            found = queries.match_batches(target, session=session)
            files = [] if found else queries.match_files(target, session=session)
            doc_ids = [file.doc_id for file in files]
            if len(files) == 1:
                found = list(batches.find_batches([files[0].batch_id], session=session).values())
        if not found or len(doc_ids) > 1:
            what = "more than one file has" if doc_ids else "no batch, drop or file has"
            raise PermanentError(f"{what} this id or name", subject=target, hint="see `inbox status`")
        if len(found) > 1 and any(short_id(batch.batch_id) != short_id(found[0].batch_id) for batch in found):
            ids = ", ".join(short_id(batch.batch_id) for batch in found)
            raise PermanentError("more than one batch is meant", subject=target, hint=f"say which: {ids}")
        retried = self._retry(found[0], doc_ids or None)
        self._nudge()
        return retried

    def _nudge(self) -> None:
        """Make and remove a scratch file in the uploads: a service that watches them looks at once."""
        with suppress(OSError), NamedTemporaryFile(prefix=".retry-", dir=self._volume.uploads):
            pass

    @retry_when_busy
    def _retry(self, batch: BatchRecord, doc_ids: Collection[str] | None) -> Retried:
        if batch.total_files == 0 and batch.state in {BatchState.QUARANTINED, BatchState.FAILED}:
            return self._offer_again(batch)
        with self._sessions.writing() as session:
            files = runs.open_run(
                batch.batch_id, uuid.uuid4().hex, now=self._clock.now(), session=session, doc_ids=doc_ids
            )
        if not files:
            raise PermanentError(
                f"nothing has failed there: the batch is {batch.state}",
                subject=batch.drop_name,
                hint="only failed files of a finished batch are retried",
            )
        return Retried(batch.batch_id, batch.drop_name, files)

    def _offer_again(self, batch: BatchRecord) -> Retried:
        """
        Put the archive back into the uploads, where it passes the same gate again.

        The move comes first: should the rest fail, the archive is recognised there and goes back to quarantine. One
        that is back already, by such a failure or by another operator, is as good as moved.
        """
        if batch.reported_at is None:
            raise PermanentError(
                "the batch is being reported just now", subject=batch.drop_name, hint="try again in a moment"
            )
        self._bring_back(batch)
        zip_path = f"{self._volume.uploads.name}/{batch.drop_name}"
        drop = self._in_uploads(batch)
        with self._sessions.writing() as session:
            offered = runs.offer_again(
                batch.batch_id,
                zip_path,
                identity=drop.identity if drop is not None else batch.identity,
                now=self._clock.now(),
                session=session,
            )
        if not offered:
            raise PermanentError(
                "somebody else has offered the archive again", subject=batch.drop_name, hint="see `inbox status`"
            )
        return Retried(batch.batch_id, batch.drop_name, 0, archive_offered_again=True)

    def _bring_back(self, batch: BatchRecord) -> None:
        archive = self._volume.base / batch.zip_path
        found = find_by_stored_name(archive.parent, archive.name) if batch.zip_path else None
        if found is not None and archive.parent == self._volume.uploads:
            return
        try:
            if found is None:
                raise FileNotFoundError(batch.zip_path)
            move_file(found, self._volume.uploads / batch.drop_name)
        except OSError as error:
            if self._in_uploads(batch) is not None:
                return
            if isinstance(error, FileNotFoundError):
                raise PermanentError(
                    "the archive is not where it was put", subject=batch.zip_path, hint="drop it into the uploads again"
                ) from error
            if isinstance(error, FileExistsError):
                raise PermanentError(
                    "another drop of this name is in the uploads",
                    subject=batch.drop_name,
                    hint="try again when it is gone",
                ) from error
            raise
        reason_beside(found).unlink(missing_ok=True)

    def _in_uploads(self, batch: BatchRecord) -> Drop | None:
        """Return the archive when it lies in the uploads; a copy to another volume keeps size and time of change."""
        drop = look_at(self._volume.uploads / batch.drop_name)
        is_it = drop is not None and (drop.identity.size_bytes, drop.identity.modified_ns) == (
            batch.identity.size_bytes,
            batch.identity.modified_ns,
        )
        return drop if is_it else None
