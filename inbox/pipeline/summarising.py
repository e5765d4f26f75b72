"""Summarising: what a page would show of a batch, and the archive's folder tree with its counts."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from inbox.core.errors import DatabaseUnavailableError
from inbox.database import batches, queries, runs
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.operations import create_or_update_run_summary, get_batch_statistics, mark_batch_completed
from inbox.database.queries import Entry
from inbox.domain import short_id
from inbox.lifecycle import BatchState
from inbox.utils.clock import Clock

MAX_FOLDERS: Final = 5000
"""Folders in one summary; the rest is counted in their nearest ancestor that is shown."""

SUMMARY_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Closing:
    """A batch that was closed just now."""

    batch: BatchRecord
    state: BatchState
    counts: dict[str, Any]
    seconds: float


class Summariser:
    """Closes batches whose every file has come to rest."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock

    def find_finished(self) -> list[str]:
        with self._sessions.reading() as session:
            return runs.find_finished_batches(session=session)

    def close(self, batch_id: str) -> Closing | None:
        """
        Write the summary and the final state in one transaction; None means somebody else did, or is doing it.

        When the answer to the commit is lost, the database is asked whether it counted.
        """
        now = self._clock.now()
        try:
            return self._close(batch_id, now)
        except DatabaseUnavailableError:
            closed = self._find_closed(batch_id, now)
            if closed is None:
                raise
            return closed

    @retry_when_busy
    def _find_closed(self, batch_id: str, completed_at: datetime) -> Closing | None:
        with self._sessions.reading() as session:
            batch = batches.find_batches([batch_id], session=session).get(batch_id)
            if batch is None or batch.completed_at != completed_at:
                return None
            counts = get_batch_statistics(batch_id, session=session)
        return Closing(batch, batch.state, counts, (completed_at - (batch.started_at or completed_at)).total_seconds())

    @retry_when_busy
    def _close(self, batch_id: str, now: datetime) -> Closing | None:
        with self._sessions.writing() as session:
            batch = runs.lock_for_closing(batch_id, session=session)
            if batch is None:
                return None
            state = mark_batch_completed(batch_id, now=now, session=session)
            if state is None:
                return None
            counts = get_batch_statistics(batch_id, session=session)
            create_or_update_run_summary(
                batch.run_id,
                summarise(
                    batch,
                    state,
                    counts,
                    slowest=queries.slowest_files(batch_id, session=session),
                    failed=queries.failed_files(batch_id, session=session),
                    finished_at=now,
                ),
                batch_id=batch_id,
                nested_summary=nest(queries.iterate_entries(batch_id, session=session)),
                counts=counts,
                now=now,
                session=session,
            )
        return Closing(batch, state, counts, max((now - (batch.started_at or now)).total_seconds(), 0.0))


def summarise(
    batch: BatchRecord,
    state: BatchState,
    counts: dict[str, Any],
    *,
    slowest: list[Entry],
    failed: list[Entry],
    finished_at: datetime,
) -> dict[str, Any]:
    """Return `ui_json`: name, times (ISO 8601, UTC), counts, bytes, the slowest and the failed files with reasons."""
    started_at = batch.started_at or finished_at
    return {
        "schema_version": SUMMARY_SCHEMA_VERSION,
        "name": batch.drop_name,
        "batch_id": batch.batch_id,
        "short_id": short_id(batch.batch_id),
        "run_id": batch.run_id,
        "state": str(state),
        "received_at": batch.created_at.isoformat(),
        "started_at": started_at.isoformat(),
        "finished_at": finished_at.isoformat(),
        "duration_seconds": max(round((finished_at - started_at).total_seconds(), 3), 0.0),
        "archive_bytes": batch.identity.size_bytes,
        "directories": batch.total_directories,
        "unaccounted": batch.total_files - counts["members"],
        **counts,
        "slowest": [_shown(entry) for entry in slowest],
        "failures": [_shown(entry) for entry in failed],
    }


def nest(entries: Iterable[Entry], *, max_folders: int = MAX_FOLDERS) -> dict[str, Any]:
    """
    Return the folder tree; each folder counts all members below it: files, bytes, states, and its folders by name.

    Memory grows with the number of folders shown, not with the members.
    """
    root = _folder()
    shown = 1
    for entry in entries:
        node = root
        _count(node, entry)
        for part in entry.member_path.split("/")[:-1]:
            child = node["folders"].get(part)
            if child is None:
                if shown >= max_folders:
                    node["folded"] = node.get("folded", 0) + 1
                    break
                shown += 1
                child = node["folders"][part] = _folder()
            node = child
            _count(node, entry)
    return root


def _folder() -> dict[str, Any]:
    return {"members": 0, "size_bytes": 0, "states": {}, "folders": {}}


def _count(node: dict[str, Any], entry: Entry) -> None:
    node["members"] += 1
    node["size_bytes"] += entry.size_bytes
    node["states"][entry.state] = node["states"].get(entry.state, 0) + 1


def _shown(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in asdict(entry).items() if value is not None and key != "position"}
