"""
Taking one drop: under its file lock it is hashed, claimed, and unpacked or recognised.

The same in an unpacker process and, for a test, in the intake's own thread. It remembers nothing of a drop.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from inbox import events
from inbox.archives import Completeness, Watchman
from inbox.core.errors import ArchiveRefusedError, NotSettledError, RetryableError
from inbox.core.logging import LogContext
from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.domain import Drop, short_id
from inbox.events import Emit
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import Claimed, Claimer, identify, locked
from inbox.pipeline.claiming import Recognised as KnownBefore
from inbox.pipeline.claiming import Underway as HeldElsewhere
from inbox.pipeline.reporting import Reporter
from inbox.pipeline.runner.unfinished import released
from inbox.pipeline.runner.unpacking import Unpacker
from inbox.pipeline.unpackers.fates import (
    Busy,
    Changed,
    Claiming,
    Fate,
    InTrouble,
    Recognised,
    Step,
    Task,
    TooSlow,
    Underway,
    Untaken,
)
from inbox.utils.drops import is_being_written, look_at, make_durable, opened, require_unchanged
from inbox.utils.volume import Volume, storable

_logger = logging.getLogger("inbox")


def _nothing(_step: Step, _batch_id: str) -> None:
    """Nobody wants to know."""


@dataclass
class Taker:
    """Takes drops, one at a time."""

    volume: Volume
    claimer: Claimer
    unpacker: Unpacker
    reporter: Reporter
    emit: Emit
    should_stop: Callable[[], bool] = lambda: False
    on_step: Callable[[Step, str], object] = _nothing
    """Told how far it has come, with the batch id as soon as there is one."""
    _claiming: Claiming | None = field(init=False, default=None)
    """A claim that has not come to its end."""

    def take(self, task: Task) -> Fate:
        """Do what there is to do about a drop, and return what became of it; nothing is raised."""
        self._claiming = None
        self.on_step(Step.READING, "")
        try:
            return self._take(task)
        except NotSettledError:
            return Changed()
        except RetryableError as error:
            return Untaken() if error.reason_code == "STOPPED" else InTrouble(error, self._claiming)
        except Exception as error:  # noqa: BLE001 - whoever handed it over goes on, and tells of it
            return InTrouble(error, self._claiming)

    def _take(self, task: Task) -> Fate:
        drop = task.drop
        with locked(self.volume.locks, drop.name) as is_ours:
            if not is_ours and (not task.passes_lock or self._is_being_extracted(drop)):
                return Busy()
            with opened(drop) as fd:
                if task.verdict is not None and self._may_be_written(task, fd):
                    return Changed()
                try:
                    content_id = identify(fd, should_stop=self._asked_while_reading())
                except ArchiveRefusedError as error:
                    return TooSlow(error)
                make_durable(fd, drop)
                require_unchanged(fd, drop)
                if task.verdict is None:
                    return self._take_open(task, fd, content_id)
            return self._move_away(drop, task.verdict, content_id)

    def _is_being_extracted(self, drop: Drop) -> bool:
        """Say whether somebody holds the lease on this very drop's batch: its lock is then in good hands."""
        with self.unpacker.sessions.reading() as session:
            records = batches.find_batches_of_drops([storable(drop.name)], session=session)
        return any(
            record.state is BatchState.EXTRACTING and record.identity.is_same_file(drop.identity) for record in records
        )

    def _may_be_written(self, task: Task, fd: int) -> bool:
        """Where the kernel does not tell who has a drop open, it may be young and still become an archive."""
        age_seconds = task.age_seconds + self.unpacker.clock.monotonic() - task.handed_at
        return age_seconds < self.unpacker.timing.damaged_grace.total_seconds() and is_being_written(fd) is not False

    def _asked_while_reading(self) -> Callable[[], bool]:
        """Reading has the same time as unpacking: a drop may be far larger than what may come out of it."""
        watchman = Watchman(self.unpacker.terms.limits)

        def ask() -> bool:
            watchman.look_up()
            return self.should_stop()

        return ask

    def _move_away(self, drop: Drop, verdict: Completeness, content_id: str) -> Fate:
        moved = self.reporter.quarantine(drop, verdict, content_id)
        self.emit(events.DropQuarantined(storable(drop.name), verdict.reason_code, verdict.reason, moved.archive))
        return Untaken()

    def _take_open(self, task: Task, fd: int, batch_id: str) -> Fate:
        drop = task.drop
        self.reporter.withdraw_incomplete(drop)
        with LogContext(_logger, batch_id=batch_id, correlation_id=short_id(batch_id)):
            self._claiming = Claiming(self.claimer.owner, batch_id, storable(drop.name))
            claim = self.claimer.claim(
                batch_id, drop, drop_name=storable(drop.name), zip_path=self.volume.relative(drop.path)
            )
            match claim:
                case Claimed(lease):
                    self.on_step(Step.EXTRACTING, batch_id)
                    self.emit(events.BatchClaimed(batch_id, lease.drop_name, drop.identity.size_bytes, lease.attempt))
                    return self.unpacker.unpack(
                        task,
                        fd,
                        lease,
                        should_stop=self.should_stop,
                        on_extracted=lambda: self.on_step(Step.REGISTERING, batch_id),
                    )
                case KnownBefore(batch):
                    return self._recognise(task, batch)
                case HeldElsewhere(batch):
                    self._give_back_late_claim(self._claiming)
                    return Underway(batch.batch_id)

    def _give_back_late_claim(self, claiming: Claiming) -> None:
        """Give back what a claim of ours took that counted only after its answer was given up."""
        if self.claimer.give_back(claiming.batch_id):
            self.emit(released(claiming))

    def _recognise(self, task: Task, batch: BatchRecord) -> Fate:
        drop = task.drop
        if batch.state is BatchState.EXTRACTING:
            return Busy()
        with locked(self.volume.locks, batch.batch_id) as is_ours:
            if not is_ours and not task.passes_lock:
                return Busy()
            present = look_at(drop.path)
            if present is None or present.identity != drop.identity:  # it was put to rest while it was read
                return Changed()
            self.emit(events.DropRecognised(storable(drop.name), batch.batch_id, str(batch.state)))
            reported = self.reporter.report_duplicate(drop, batch)
        return Recognised(stays=reported.archive == self.volume.relative(drop.path))
