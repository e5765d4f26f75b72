"""
Reporting: the dropper's receipt, then the archive leaves the uploads.

In that order: whoever sees the archive gone finds the receipt. Each step may be repeated after a crash without harm.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inbox.archives import Completeness
from inbox.core.errors import StorageError
from inbox.database import batches, queries
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.database.operations import get_batch_statistics
from inbox.database.queries import Entry
from inbox.domain import Drop, DropIdentity, short_id
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState, FileState
from inbox.utils.clock import Clock
from inbox.utils.drops import look_at
from inbox.utils.filesystem import move_file, open_atomically, safe_write_file
from inbox.utils.volume import Volume, find_by_stored_name, storable

RECEIPT_SCHEMA_VERSION: Final = 1
MAX_NAME_BYTES: Final = 255
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
        with self._sessions.writing() as session:
            batches.mark_batch_reported(
                batch.batch_id, zip_path=archive or batch.zip_path, now=self._clock.now(), session=session
            )
        return Reported(self._volume.relative(receipt), archive)

    def report_duplicate(self, drop: Drop, batch: BatchRecord) -> Reported:
        """
        Tell the dropper what became of this content before, with every entry, and move the drop aside.

        A drop whose content was quarantined before goes there again.
        """
        name = storable(drop.name)
        if batch.state is BatchState.QUARANTINED:
            receipt = self._write_receipt(name, batch, str(batch.state), batch.reason_code, batch.reason)
            target = self._to_quarantine(drop.path, drop.identity, name, batch, receipt)
            return Reported(self._volume.relative(receipt), target)
        reason = f"the same content was taken as {batch.drop_name} and is {batch.state}"
        receipt = self._write_receipt(name, batch, "duplicate", "DUPLICATE", reason)
        target = self._to_rest(drop.path, drop.identity, name, batch)
        return Reported(self._volume.relative(receipt), target)

    def report_incomplete(self, drop: Drop, completeness: Completeness) -> Reported:
        """Tell the dropper why a drop that never became a batch is not taken; it stays where it is."""
        name = storable(drop.name)
        path = self._volume.receipts / _fitting(name, ".json")
        head = self._head(name, "incomplete", completeness.reason_code, completeness.reason)
        counts = dict.fromkeys(("members", "files", "skipped", "succeeded", "failed"), 0)
        safe_write_file(path, json.dumps(head | counts | {"entries": []}, ensure_ascii=False, indent=1) + "\n")
        return Reported(self._volume.relative(path), self._volume.relative(drop.path))

    def _write_receipt(
        self, drop_name: str, batch: BatchRecord, state: str, reason_code: str | None, reason: str | None
    ) -> Path:
        path = self._volume.receipts / _fitting(drop_name, f".{short_id(batch.batch_id)}.json")
        with self._sessions.reading() as session, open_atomically(path) as file:
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
        """Put the archive where it belongs; nothing to do when it has left the uploads, or was replaced meanwhile."""
        path = find_by_stored_name(self._volume.uploads, batch.drop_name)
        if path is None or not batch.zip_path.startswith(f"{self._volume.uploads.name}/"):
            return ""
        drop = look_at(path)
        if drop is None or not drop.identity.is_same_file(batch.identity):
            return ""
        never_unpacked = batch.state in _ENDED_IN_QUARANTINE and batch.started_at is None
        if never_unpacked:
            return self._to_quarantine(path, batch.identity, batch.drop_name, batch, receipt)
        return self._to_rest(path, batch.identity, batch.drop_name, batch)

    def _to_rest(self, path: Path, identity: DropIdentity, name: str, batch: BatchRecord) -> str:
        if self._after_success == "keep":
            return self._volume.relative(path)
        if self._after_success == "delete" and batch.state is BatchState.COMPLETED:
            path.unlink(missing_ok=True)
            return ""
        return self._volume.relative(_move_aside(path, identity, self._volume.processed, name, batch.batch_id))

    def _to_quarantine(self, path: Path, identity: DropIdentity, name: str, batch: BatchRecord, receipt: Path) -> str:
        """The archive, unchanged, and beside it the reason as a small JSON file."""
        target = _move_aside(path, identity, self._volume.quarantine, name, batch.batch_id)
        reason = {
            "drop": name,
            "batch_id": batch.batch_id,
            "reason_code": batch.reason_code,
            "reason": batch.reason,
            "refused_at": (batch.completed_at or self._clock.now()).isoformat(),
            "receipt": self._volume.relative(receipt),
            "what_to_do": f"mend the archive and drop it again, or: inbox retry {short_id(batch.batch_id)}",
        }
        beside = target.with_name(_fitting(target.name, ".reason.json"))
        safe_write_file(beside, json.dumps(reason, ensure_ascii=False, indent=1) + "\n")
        return self._volume.relative(target)


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


def _move_aside(path: Path, identity: DropIdentity, folder: Path, name: str, batch_id: str) -> Path:
    """
    Move an archive out of the uploads, never over another one; return where it lies.

    The name it arrived with is kept when it is free, else the batch's short id goes before the extension; a file of
    the same batch that lies there already is the same content and gives way. When the drop was replaced in the very
    moment of the move, the new one is put back.
    """
    stem, dot, extension = name.rpartition(".")
    numbered = f"{stem or extension}.{short_id(batch_id)}{dot + extension if stem else ''}"
    for candidate in (folder / _fitting(name, ""), folder / _fitting(numbered, "")):
        try:
            move_file(path, candidate)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return candidate
        return _verified(candidate, identity, path)
    candidate.unlink(missing_ok=True)
    move_file(path, candidate)
    return _verified(candidate, identity, path)


def _verified(moved: Path, identity: DropIdentity, origin: Path) -> Path:
    drop = look_at(moved)
    if drop is not None and not drop.identity.is_same_file(identity) and drop.identity.inode != identity.inode:
        with suppress(FileExistsError):
            move_file(moved, origin)
            raise StorageError(
                "the drop was replaced while it was moved; the new one was put back", subject=origin.name
            )
    return moved


def _fitting(name: str, suffix: str) -> str:
    """Return name plus suffix, the name cut so that both fit one path component."""
    room = MAX_NAME_BYTES - len(suffix.encode())
    return name.replace("/", "_").encode()[:room].decode("utf-8", "ignore") + suffix
