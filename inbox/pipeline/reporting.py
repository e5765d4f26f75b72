"""
Reporting: the dropper's receipt, then the archive leaves the uploads.

In that order: whoever sees the archive gone finds the receipt. Each step may be repeated after a crash without harm,
and whoever takes one holds the lock of the batch or of the drop.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inbox.archives import Completeness
from inbox.database import batches, queries
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.database.operations import get_batch_statistics
from inbox.database.queries import Entry
from inbox.domain import Drop, DropIdentity, short_id
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState, FileState
from inbox.pipeline.places import find_moved, fitting, move_aside, reason_beside
from inbox.utils.clock import Clock
from inbox.utils.drops import look_at
from inbox.utils.filesystem import open_atomically, safe_write_file, sync_directory
from inbox.utils.remnants import unpublish
from inbox.utils.volume import Volume, find_by_stored_name, storable

RECEIPT_SCHEMA_VERSION: Final = 1
_INCOMPLETE: Final = "incomplete"
_ENDED_IN_QUARANTINE: Final = frozenset({BatchState.QUARANTINED, BatchState.FAILED})


@dataclass(frozen=True, slots=True)
class Reported:
    """Where receipt and archive lie now, relative to the storage base; no archive when it was deleted or is gone."""

    receipt: str
    archive: str


class Reporter:
    """Writes receipts and puts archives in their places."""

    def __init__(self, sessions: Sessions, volume: Volume, clock: Clock, *, after_success: str) -> None:
        self._sessions = sessions
        self._volume = volume
        self._clock = clock
        self._after_success = after_success

    def find_unreported(self) -> list[BatchRecord]:
        with self._sessions.reading() as session:
            return batches.find_open_batches(FINAL_BATCH_STATES, session=session)

    def report(self, batch: BatchRecord) -> Reported:
        """Write the receipt of a closed batch, move its archive, and record that nothing is left to do."""
        receipt = self._write_receipt(batch.drop_name, batch, str(batch.state), batch.reason_code, batch.reason)
        archive = self._archive(batch, receipt)
        self._volume.require()  # an archive that seems to be gone may have gone with the volume
        if never_unpacked(batch):
            unpublish(self._volume, batch.batch_id, batch.run_id, is_idle=lambda: self._is_at_rest(batch))
        with self._sessions.writing() as session:
            marked = batches.mark_batch_reported(
                batch.batch_id, run_id=batch.run_id, zip_path=archive, now=self._clock.now(), session=session
            )
            newest = None if marked else batches.find_batches([batch.batch_id], session=session).get(batch.batch_id)
        if newest is not None and newest.state in FINAL_BATCH_STATES:  # our receipt may have replaced a later run's
            self._write_receipt(newest.drop_name, newest, str(newest.state), newest.reason_code, newest.reason)
        return Reported(self._volume.relative(receipt), archive)

    def _is_at_rest(self, batch: BatchRecord) -> bool:
        with self._sessions.reading() as session:
            present = batches.find_batches([batch.batch_id], session=session).get(batch.batch_id)
        return present is not None and present.run_id == batch.run_id and never_unpacked(present)

    def report_duplicate(self, drop: Drop, batch: BatchRecord) -> Reported:
        """
        Tell the dropper what became of this content before, with every entry, and move the drop aside.

        A drop whose content never got unpacked goes to quarantine like the first one.
        """
        name = storable(drop.name)
        if never_unpacked(batch):
            receipt = self._write_receipt(name, batch, str(batch.state), batch.reason_code, batch.reason)
            target = self._move(drop.path, drop.identity, self._volume.quarantine, name, batch.batch_id)
            self._write_reason(target, name, batch, receipt)
            return Reported(self._volume.relative(receipt), self._volume.relative(target))
        reason = f"the same content was taken as {batch.drop_name} and is {batch.state}"
        receipt = self._write_receipt(name, batch, "duplicate", "DUPLICATE", reason)
        return Reported(self._volume.relative(receipt), self._to_rest(drop.path, drop.identity, name, batch))

    def report_incomplete(self, drop: Drop, completeness: Completeness) -> Reported:
        """Tell the dropper why a drop that never became a batch is not taken; it stays where it is."""
        receipt = self._write_batchless_receipt(drop, _INCOMPLETE, completeness)
        return Reported(self._volume.relative(receipt), self._volume.relative(drop.path))

    def quarantine(self, drop: Drop, completeness: Completeness, content_id: str) -> Reported:
        """Tell the dropper why a drop is not taken, and move it away; `content_id` tells it from others of its name."""
        receipt = self._write_batchless_receipt(drop, "quarantined", completeness)
        name = storable(drop.name)
        target = self._move(drop.path, drop.identity, self._volume.quarantine, name, content_id)
        reason = {
            "drop": name,
            "batch_id": None,
            "reason_code": completeness.reason_code,
            "reason": completeness.reason,
            "refused_at": self._clock.now().isoformat(),
            "receipt": self._volume.relative(receipt),
            "what_to_do": "drop a ZIP",
        }
        self._lay_beside(target, reason)
        return Reported(self._volume.relative(receipt), self._volume.relative(target))

    def _write_batchless_receipt(self, drop: Drop, state: str, completeness: Completeness) -> Path:
        name = storable(drop.name)
        path = self._volume.receipts / fitting(name, ".json")
        head = self._head(name, state, completeness.reason_code, completeness.reason)
        counts = dict.fromkeys(("members", "files", "skipped", "succeeded", "failed"), 0)
        text = json.dumps(head | counts | {"entries": []}, ensure_ascii=False, indent=1)
        safe_write_file(path, text + "\n", drafts=self._volume.drafts)
        return path

    def withdraw_incomplete(self, drop: Drop) -> None:
        """
        Remove the receipt of a drop that was not whole, now that it is: the batch's receipt takes its place.

        That of an earlier one of this name which was moved away stays, since nothing else tells of it.
        """
        path = self._volume.receipts / fitting(storable(drop.name), ".json")
        with suppress(OSError, ValueError):
            if json.loads(path.read_bytes())["state"] == _INCOMPLETE:
                path.unlink(missing_ok=True)
                sync_directory(self._volume.receipts)

    def _write_receipt(
        self, drop_name: str, batch: BatchRecord, state: str, reason_code: str | None, reason: str | None
    ) -> Path:
        path = self._volume.receipts / fitting(drop_name, f".{short_id(batch.batch_id)}.json")
        with self._sessions.reading() as session, open_atomically(path, drafts=self._volume.drafts) as file:
            counts = get_batch_statistics(batch.batch_id, session=session)
            head = self._head(drop_name, state, reason_code, reason)
            head |= {"batch_id": batch.batch_id, "run_id": batch.run_id}
            if state == "duplicate":
                head |= {"duplicate_of": batch.drop_name, "batch_state": str(batch.state)}
            head |= {
                name: counts[name] for name in ("members", "files", "skipped", "succeeded", "failed", "unfinished")
            }
            head |= {"size_bytes": counts["size_bytes"], **_times(batch)}
            for piece in _receipt_lines(head, queries.iterate_entries(batch.batch_id, session=session)):
                file.write(piece.encode("utf-8", "backslashreplace"))
        return path

    def _head(self, drop_name: str, state: str, reason_code: str | None, reason: str | None) -> dict[str, Any]:
        return {
            "schema_version": RECEIPT_SCHEMA_VERSION,
            "drop": drop_name,
            "batch_id": None,
            "run_id": None,
            "state": state,
            "reason_code": reason_code,
            "reason": reason,
            "written_at": self._clock.now().isoformat(),
        }

    def _archive(self, batch: BatchRecord, receipt: Path) -> str:
        """Put the archive where it belongs and return where it lies; empty when it is gone or was replaced."""
        if not batch.zip_path.startswith(f"{self._volume.uploads.name}/"):
            return batch.zip_path
        refused = never_unpacked(batch)
        folder = self._volume.quarantine if refused else self._volume.processed
        path = self._in_uploads(batch)
        if path is not None and not refused:
            return self._to_rest(path, batch.identity, batch.drop_name, batch)
        if path is not None:
            target = self._move(path, batch.identity, folder, batch.drop_name, batch.batch_id)
        else:  # an earlier report may have moved it, and died before it could say so
            found = find_moved(batch.identity, folder, batch.drop_name, batch.batch_id)
            if found is None:
                return ""
            target = found
        if refused:
            self._write_reason(target, batch.drop_name, batch, receipt)
        elif self._is_to_be_deleted(batch):
            _delete(target)
            return ""
        return self._volume.relative(target)

    def _in_uploads(self, batch: BatchRecord) -> Path | None:
        path = find_by_stored_name(self._volume.uploads, batch.drop_name)
        drop = look_at(path) if path is not None else None
        return path if drop is not None and drop.identity.is_same_file(batch.identity) else None

    def _to_rest(self, path: Path, identity: DropIdentity, name: str, batch: BatchRecord) -> str:
        """Leave, move or delete a finished archive; what is to be deleted is moved first, to see that it is the one."""
        if self._after_success == "keep":
            return self._volume.relative(path)
        target = self._move(path, identity, self._volume.processed, name, batch.batch_id)
        if self._is_to_be_deleted(batch):
            _delete(target)
            return ""
        return self._volume.relative(target)

    def _is_to_be_deleted(self, batch: BatchRecord) -> bool:
        return self._after_success == "delete" and batch.state is BatchState.COMPLETED

    def _write_reason(self, target: Path, name: str, batch: BatchRecord, receipt: Path) -> None:
        """Lay the reason, as a small JSON file, beside an archive in quarantine."""
        reason = {
            "drop": name,
            "batch_id": batch.batch_id,
            "reason_code": batch.reason_code,
            "reason": batch.reason,
            "refused_at": (batch.completed_at or self._clock.now()).isoformat(),
            "receipt": self._volume.relative(receipt),
            "what_to_do": f"mend the archive and drop it again, or: inbox retry {short_id(batch.batch_id)}",
        }
        self._lay_beside(target, reason)

    def _lay_beside(self, target: Path, reason: Mapping[str, str | None]) -> None:
        text = json.dumps(reason, ensure_ascii=False, indent=1)
        safe_write_file(reason_beside(target), text + "\n", drafts=self._volume.drafts)

    def _move(self, path: Path, identity: DropIdentity, folder: Path, name: str, batch_id: str) -> Path:
        return move_aside(path, identity, folder, name, batch_id, drafts=self._volume.drafts)


def _delete(archive: Path) -> None:
    archive.unlink(missing_ok=True)
    sync_directory(archive.parent)


def entry_of(entry: Entry) -> dict[str, Any]:
    """Return one member as a receipt shows it."""
    shown: dict[str, Any] = {
        "path": entry.member_path,
        "state": entry.state,
        "size_bytes": entry.size_bytes,
        "sha256": entry.sha256,
        "doc_id": entry.doc_id,
    }
    if entry.state == FileState.SKIPPED:
        shown["reason_code"] = entry.skip_reason
    elif entry.error_type:
        shown |= {"reason_code": entry.error_type, "reason": entry.error_message}
    if entry.attempts:
        shown["attempts"] = entry.attempts
    if entry.name_origin:
        shown["name_origin"] = entry.name_origin
    return shown


def _receipt_lines(head: Mapping[str, Any], entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the receipt as text, an entry a line, so that neither we nor a reader must hold a big one whole."""
    yield json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "entries": ['
    separator = "\n"
    for entry in entries:
        yield separator + "  " + json.dumps(entry_of(entry), ensure_ascii=False)
        separator = ",\n"
    yield "\n ]\n}\n"


def _times(batch: BatchRecord) -> dict[str, str | None]:
    times = {
        "received_at": batch.created_at,
        "started_at": batch.started_at,
        "completed_at": batch.completed_at,
    }
    return {name: moment.isoformat() if moment else None for name, moment in times.items()}


def never_unpacked(batch: BatchRecord) -> bool:
    return batch.state in _ENDED_IN_QUARANTINE and batch.started_at is None
