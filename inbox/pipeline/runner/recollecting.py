"""Recollecting: which drops have a batch already, so that nothing is read twice."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.domain import Drop, DropIdentity
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState
from inbox.utils.clock import Clock
from inbox.utils.volume import Volume, storable


@dataclass
class Recollection:
    """What is known of the drops that lie in the uploads; what has left them is forgotten."""

    volume: Volume
    sessions: Sessions
    clock: Clock
    _known: dict[str, tuple[DropIdentity, str]] = field(default_factory=dict)
    """Drops whose batch is known."""
    _recalled: set[str] = field(default_factory=set)
    """Drops that the database was asked about."""
    _told: dict[str, DropIdentity] = field(default_factory=dict)
    """Duplicates that were told so and left where they are."""
    _records: Mapping[str, BatchRecord] = field(default_factory=dict)

    def look_up(self, drops: Collection[Drop]) -> None:
        """Ask the database about these drops, which are all there are, and forget the others."""
        self._forget_gone({drop.name for drop in drops})
        self._recall(drops)
        self._records = self._known_records()

    def note_batch(self, drop: Drop, batch_id: str) -> None:
        """Note which batch is this drop's."""
        self._known[drop.name] = (drop.identity, batch_id)

    def note_told(self, drop: Drop) -> None:
        """Note that the dropper of a duplicate was told, and that it stays where it is."""
        self._told[drop.name] = drop.identity

    def batch_that_cares(self, drop: Drop) -> BatchRecord | None:
        """Return this very drop's batch when that is under way, waits for its time, or left the drop here."""
        known = self._known.get(drop.name)
        if known is None or known[0] != drop.identity:
            return None
        record = self._records.get(known[1])
        if record is None or not is_cared_for(record, drop, self.volume, now=self.clock.now()):
            return None
        return record

    def was_told(self, drop: Drop) -> bool:
        return self._told.get(drop.name) == drop.identity

    def _forget_gone(self, names: set[str]) -> None:
        self._recalled &= names
        for memory in (self._told, self._known):
            for name in memory.keys() - names:
                del memory[name]

    def _recall(self, drops: Collection[Drop]) -> None:
        """Ask the database once about drops that this process has not seen: they may be under way since before it."""
        unknown = {storable(drop.name): drop for drop in drops if drop.name not in self._recalled}
        if not unknown:
            return
        with self.sessions.reading() as session:
            records = batches.find_batches_of_drops(unknown, session=session)
        for record in records:
            drop = unknown[record.drop_name]
            if record.identity.is_same_file(drop.identity) and left_there_on_purpose(record, drop, self.volume):
                self.note_batch(drop, record.batch_id)
        self._recalled.update(drop.name for drop in drops)

    def _known_records(self) -> Mapping[str, BatchRecord]:
        batch_ids = [batch_id for _, batch_id in self._known.values()]
        if not batch_ids:
            return {}
        with self.sessions.reading() as session:
            return batches.find_batches(batch_ids, session=session)


def is_cared_for(record: BatchRecord, drop: Drop, volume: Volume, *, now: datetime) -> bool:
    """Say whether the batch of this very drop is under way, waits for its time, or is done and left here on purpose."""
    stored = Drop(storable(drop.name), drop.path, drop.identity, drop.changed_at)
    if not record.is_of(stored) or not left_there_on_purpose(record, drop, volume):
        return False  # the first: another drop of the same content has taken the batch over meanwhile
    return record.state is not BatchState.RECEIVED or record.due_at > now


def left_there_on_purpose(record: BatchRecord, drop: Drop, volume: Volume) -> bool:
    """A finished batch's archive belongs in the uploads only if it was left there; else it was dropped again."""
    if record.reported_at is None or record.state not in FINAL_BATCH_STATES:
        return True
    return record.zip_path == volume.relative(drop.path)
