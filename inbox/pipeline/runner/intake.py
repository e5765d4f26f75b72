"""The first leg, from the uploads to the database: watching, settling, claiming, extracting, registering."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from inbox import events
from inbox.archives import UNWRITTEN, Completeness
from inbox.core.errors import NotSettledError, RetryableError, StorageError
from inbox.core.logging import LogContext
from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.domain import BatchLease, Drop, DropIdentity, short_id
from inbox.events import Emit
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState
from inbox.pipeline.claiming import Claimed, Claimer, Recognised, Underway, identify, locked
from inbox.pipeline.extracting import NoRoomError
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.runner.timing import Timing
from inbox.pipeline.runner.unpacking import Done, GivenBack, PutBack, Unpacker, Unwritten
from inbox.pipeline.settling import Settled, Settler
from inbox.pipeline.watching import scan
from inbox.utils.clock import Clock
from inbox.utils.drops import NOT_A_FILE, Kind, is_being_written, look_at, opened, require_unchanged, why_no_drop
from inbox.utils.volume import Volume, storable

_logger = logging.getLogger("inbox")

NOT_WHOLE_YET_SECONDS: Final = 2.0
"""How soon a drop that changed under our hands is looked at again, at the least."""
_ROOM_SECONDS: Final = 5.0
"""How soon the volume is asked again whether it has room."""


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass
class Intake:
    """From the uploads to the database: watching, settling, claiming, extracting, registering."""

    volume: Volume
    sessions: Sessions
    clock: Clock
    settler: Settler
    claimer: Claimer
    unpacker: Unpacker
    reporter: Reporter
    timing: Timing
    emit: Emit
    quarantines_not_archives: bool = False
    """Whether what is no archive is moved away; else it is left where it is."""
    on_registered: Callable[[], None] = _nothing
    on_scanned: Callable[[Collection[Drop]], None] = lambda _drops: None
    should_stop: Callable[[], bool] = lambda: False
    waiting: dict[str, tuple[DropIdentity, str]] = field(default_factory=dict)
    """Drops that are quiet and not whole, and why."""
    _reported: dict[str, DropIdentity] = field(default_factory=dict)
    """Those among them that have a receipt saying so."""
    _known: dict[str, tuple[DropIdentity, str]] = field(default_factory=dict)
    """Drops whose batch is known, so that nothing is read twice."""
    _recalled: set[str] = field(default_factory=set)
    """Drops that the database was asked about."""
    _told: dict[str, DropIdentity] = field(default_factory=dict)
    """Duplicates that were told so and left where they are."""
    _others: dict[str, Kind] = field(default_factory=dict)
    """What lies among the drops and is no file."""
    _postponed: dict[str, float] = field(default_factory=dict)
    _setbacks: dict[str, int] = field(default_factory=dict)
    """How often in a row trouble made us give the drop's batch back."""
    _without_room: dict[str, tuple[DropIdentity, NoRoomError]] = field(default_factory=dict)
    """Drops that need more room than there was, so that they are not read again before there is."""
    _claiming: tuple[str, str] | None = None
    """Batch and drop of a claim that has not come to its end."""

    def round(self) -> None:
        """
        Scan once and take everything that may be taken.

        Raises StorageError or DatabaseUnavailableError when the service has to wait. A drop that is too big for the
        room there is does so only after the others had their turn, and again until there is room.
        """
        self._give_back_leftover()
        others: dict[str, Kind] = {}
        drops = scan(self.volume.uploads, others.__setitem__)
        self.on_scanned(drops)
        self._leave_alone(others)
        self._forget_gone({drop.name for drop in drops})
        self._recall(drops)
        records = self._known_records()
        for verdict in self.settler.judge(drops):
            if self.should_stop():
                return
            if not isinstance(verdict, Settled):
                self._leave_waiting(verdict.drop, verdict.completeness)
            elif not self._is_in_good_hands(verdict.drop, records) and self._has_room(verdict.drop):
                self._take(verdict.drop)
        for _, error in self._without_room.values():
            raise error

    def _leave_alone(self, others: dict[str, Kind]) -> None:
        """Tell once of what is no file: whoever moved in a folder of archives would wait for them in vain."""
        for name in sorted(others.keys() - self._others.keys()):
            self.emit(events.DropLeftAlone(storable(name), NOT_A_FILE, why_no_drop(others[name])))
        self._others = others

    def next_look_in(self) -> float | None:
        """Return the seconds until something is expected to change without an event, or None."""
        now = self.clock.monotonic()
        waits = [at - now for at in self._postponed.values()]
        settling = self.settler.next_look_in()
        return (
            max(min([*waits, *([settling] if settling is not None else [])]), 0.0)
            if waits or settling is not None
            else None
        )

    def is_at_rest(self) -> bool:
        """Say whether every drop has been decided about, or waits for its writer."""
        return self.next_look_in() is None

    def _forget_gone(self, names: set[str]) -> None:
        self._recalled &= names
        by_identity = (self._told, self._reported)
        for memory in (*by_identity, self.waiting, self._known, self._postponed, self._setbacks, self._without_room):
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
                self._known[drop.name] = (drop.identity, record.batch_id)
        self._recalled.update(drop.name for drop in drops)

    def _known_records(self) -> dict[str, BatchRecord]:
        batch_ids = [batch_id for _, batch_id in self._known.values()]
        if not batch_ids:
            return {}
        with self.sessions.reading() as session:
            return batches.find_batches(batch_ids, session=session)

    def _is_in_good_hands(self, drop: Drop, records: Mapping[str, BatchRecord]) -> bool:
        """Say whether this very drop's batch is under way, or done and left here on purpose."""
        if self.clock.monotonic() < self._postponed.get(drop.name, 0.0):
            return True
        self._postponed.pop(drop.name, None)
        if self._told.get(drop.name) == drop.identity:
            return True
        known = self._known.get(drop.name)
        if known is None or known[0] != drop.identity:
            return False
        record = records.get(known[1])
        if record is None or not is_cared_for(record, drop, self.volume, now=self.clock.now()):
            return False
        if record.state is not BatchState.RECEIVED:  # somebody else had the room
            self._without_room.pop(drop.name, None)
        return True

    def _has_room(self, drop: Drop) -> bool:
        """Say whether there may be room for a drop by now; one that found none need not be read to know it."""
        identity, error = self._without_room.get(drop.name, (None, None))
        if error is None or identity != drop.identity or error.is_over(self.volume.extracted):
            return True
        self._postpone(drop, _ROOM_SECONDS)
        return False

    def _leave_waiting(self, drop: Drop, completeness: Completeness) -> None:
        """
        Tell the log and, when it will hardly become whole any more, the dropper; each once for each content.

        The receipt goes when the drop is taken after all.
        """
        self._without_room.pop(drop.name, None)
        if completeness.is_no_archive and self.quarantines_not_archives:
            self._quarantine(drop, completeness)
            return
        age = self.settler.age_of(drop)
        if self._reported.get(drop.name) != drop.identity and (
            completeness.is_no_archive or age >= self.timing.incomplete_after.total_seconds()
        ):
            self.reporter.report_incomplete(drop, completeness)
            self._reported[drop.name] = drop.identity
        if self.waiting.get(drop.name) != (drop.identity, completeness.reason):
            self.waiting[drop.name] = (drop.identity, completeness.reason)
            kind = events.DropLeftAlone if completeness.is_no_archive else events.DropWaits
            self.emit(kind(storable(drop.name), completeness.reason_code, completeness.reason))

    def _quarantine(self, drop: Drop, completeness: Completeness) -> None:
        with locked(self.volume.locks, drop.name) as is_ours:
            if not is_ours:
                return
            with self._letting_be(drop):
                with opened(drop) as fd:
                    if self._may_be_written(drop, fd):
                        return
                    content_id = identify(fd, should_stop=self.should_stop)
                    require_unchanged(fd, drop)
                moved = self.reporter.quarantine(drop, completeness, content_id)
                self.emit(
                    events.DropQuarantined(
                        storable(drop.name), completeness.reason_code, completeness.reason, moved.archive
                    )
                )

    def _may_be_written(self, drop: Drop, fd: int) -> bool:
        """Where the kernel does not tell who has a drop open, it may be young and still become an archive."""
        left = self.timing.damaged_grace.total_seconds() - self.settler.age_of(drop)
        if left <= 0 or is_being_written(fd) is False:
            return False
        self.settler.hold(drop, left)
        return True

    def _take(self, drop: Drop) -> None:
        for memory in (self.waiting, self._without_room):
            memory.pop(drop.name, None)
        with locked(self.volume.locks, drop.name) as is_ours:
            if not is_ours:
                self._postpone(drop, NOT_WHOLE_YET_SECONDS)
                return
            with self._letting_be(drop), opened(drop) as fd:
                self._take_open(drop, fd)

    @contextmanager
    def _letting_be(self, drop: Drop) -> Iterator[None]:
        """End the block in peace when the drop changed meanwhile, or when we are asked to stop."""
        try:
            yield
        except NotSettledError:
            self.settler.hold(drop, NOT_WHOLE_YET_SECONDS)
        except RetryableError as error:
            if error.reason_code != "STOPPED":
                raise

    def _take_open(self, drop: Drop, fd: int) -> None:
        batch_id = identify(fd, should_stop=self.should_stop)
        require_unchanged(fd, drop)
        self.reporter.withdraw_incomplete(drop)
        with LogContext(_logger, batch_id=batch_id, correlation_id=short_id(batch_id)):
            self._claiming = (batch_id, storable(drop.name))
            claim = self.claimer.claim(
                batch_id, drop, drop_name=storable(drop.name), zip_path=self.volume.relative(drop.path)
            )
            match claim:
                case Claimed(lease):
                    self._known[drop.name] = (drop.identity, batch_id)
                    self.emit(events.BatchClaimed(batch_id, lease.drop_name, drop.identity.size_bytes, lease.attempt))
                    self._unpack(drop, fd, lease)
                case Recognised(batch):
                    self._recognise(drop, batch)
                case Underway(batch):
                    self._known[drop.name] = (drop.identity, batch.batch_id)
            self._claiming = None

    def _give_back_leftover(self) -> None:
        """Give back what the last round had in hand when the database stopped answering."""
        if self._claiming is None:
            return
        batch_id, drop_name = self._claiming
        if self.claimer.give_back(batch_id):
            self.emit(
                events.BatchReleased(
                    batch_id, drop_name, "UNFINISHED", "its claim could not be ended in the last round"
                )
            )
        self._claiming = None
        self.on_registered()  # its end may have counted all the same

    def _recognise(self, drop: Drop, batch: BatchRecord) -> None:
        if batch.state is BatchState.EXTRACTING:
            self._postpone(drop, NOT_WHOLE_YET_SECONDS)
            return
        with locked(self.volume.locks, batch.batch_id) as is_ours:
            if not is_ours:
                self._postpone(drop, NOT_WHOLE_YET_SECONDS)
                return
            present = look_at(drop.path)
            if present is None or present.identity != drop.identity:
                raise NotSettledError("the drop was put to rest while it was read", subject=drop.name)
            self.emit(events.DropRecognised(storable(drop.name), batch.batch_id, str(batch.state)))
            reported = self.reporter.report_duplicate(drop, batch)
        if reported.archive == self.volume.relative(drop.path):
            self._told[drop.name] = drop.identity

    def _unpack(self, drop: Drop, fd: int, lease: BatchLease) -> None:
        fate = self.unpacker.unpack(
            drop,
            fd,
            lease,
            setbacks=self._setbacks.get(drop.name, 0),
            age_of=self.settler.age_of,
            should_stop=self.should_stop,
        )
        match fate:
            case Done():
                self._setbacks.pop(drop.name, None)
                self.on_registered()
            case Unwritten():
                self.settler.leave(drop, UNWRITTEN)
                self._leave_waiting(drop, UNWRITTEN)
            case PutBack(error, patience_seconds):
                self.settler.hold(drop, patience_seconds)
                reason = f"it looks damaged, and may still be being written: {error}"
                self.emit(events.DropWaits(storable(drop.name), error.reason_code, reason))
            case GivenBack(error, wait_seconds):
                self._setbacks[drop.name] = self._setbacks.get(drop.name, 0) + 1
                self._postpone(drop, wait_seconds)
                if isinstance(error, NoRoomError):
                    self._without_room[drop.name] = (drop.identity, error)
                elif isinstance(error, StorageError):
                    raise error

    def _postpone(self, drop: Drop, seconds: float) -> None:
        self._postponed[drop.name] = self.clock.monotonic() + seconds


def is_cared_for(record: BatchRecord, drop: Drop, volume: Volume, *, now: datetime) -> bool:
    """Say whether the batch of this very drop is under way, waits for its time, or is done and left here on purpose."""
    if not left_there_on_purpose(record, drop, volume):
        return False
    return record.state is not BatchState.RECEIVED or record.due_at > now


def left_there_on_purpose(record: BatchRecord, drop: Drop, volume: Volume) -> bool:
    """A finished batch's archive belongs in the uploads only if it was left there; else it was dropped again."""
    if record.reported_at is None or record.state not in FINAL_BATCH_STATES:
        return True
    return record.zip_path == volume.relative(drop.path)
