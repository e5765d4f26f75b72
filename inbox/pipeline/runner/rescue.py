"""Every round: what the dead held is taken over, what ran out of its time is ended."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from inbox import events
from inbox.archives.reasons import refuse
from inbox.core.errors import RetryableError, StorageError, WorkerError
from inbox.database import batches, leasing
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions
from inbox.domain import BatchLease, InHand
from inbox.events import Emit
from inbox.lifecycle import BatchState
from inbox.pipeline.claiming import clear_locks
from inbox.pipeline.extracting import clear_staging
from inbox.pipeline.forgetting import forget_vanished
from inbox.pipeline.instances import Instance
from inbox.pipeline.observing import Observer
from inbox.pipeline.rescuing import Rescue, Rescuer
from inbox.pipeline.runner.timing import Timing
from inbox.pipeline.unpackers.supervising import End
from inbox.pipeline.watching import scan
from inbox.utils.clock import Clock
from inbox.utils.drafts import clear_drafts
from inbox.utils.drops import look_at
from inbox.utils.volume import Volume, find_by_stored_name


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass
class Rescuing:
    """From the database to the database: what the dead held, what ran out of its time."""

    volume: Volume
    sessions: Sessions
    clock: Clock
    rescuer: Rescuer
    instance: Instance
    observer: Observer
    timing: Timing
    emit: Emit
    on_rescued: Callable[[], None] = _nothing

    def round(self) -> None:
        """Take over, end what is overdue, and clear away what the dead left."""
        with self.sessions.reading() as session:
            owners = leasing.lease_owners(session=session)
        dead = self.instance.find_dead(owners)
        over = self.observer.over()
        rescued = list(
            self.rescuer.rescue(
                over=over,
                dead_owners=dead,
                what_was_in_hand=lambda owner: dead[owner] if owner in dead else self.instance.in_hand_of(owner),
            )
        )
        for rescue in rescued:
            self.emit(events.WorkRescued(rescue.owner, rescue.released, len(rescue.charged)))
            self._tell(rescue)
        unleased = self.rescuer.rescue_unleased(timeout=self.timing.batch_time) + self.rescuer.bring_back()
        for batch, files in self.rescuer.end_overdue():
            self.emit(events.BatchOverdue(batch.batch_id, batch.drop_name, files))
        for batch in forget_vanished(self.sessions, self.volume, self._is_gone):
            self.emit(events.BatchForgotten(batch.batch_id, batch.drop_name, "the drop left the uploads"))
        if rescued or unleased:
            self.on_rescued()
        self._clear()

    def settle_dead_worker(self, owner: str, *, in_hand: Collection[InHand], error: WorkerError) -> None:
        """Decide about what one of our own worker processes held when it ended."""
        with self.sessions.reading() as session:
            leases = leasing.leases_of(owner, session=session)
        for lease in leases:
            rescue = self.rescuer.settle(lease, in_hand=in_hand, error=error, owner_is_dead=True, is_ours=True)
            if rescue is not None:
                self._tell(rescue)
                if rescue.released:
                    self.emit(events.FilesReleased(rescue.released))

    def settle_dead_unpacker(self, owner: str, end: End) -> None:
        """
        Decide about the batch that one of our own unpackers held when it ended, and clear away what it wrote.

        Its attempt counts, unless the service was stopping. One that was killed at its limit refuses the archive.
        """
        with self.sessions.reading() as session:
            held = batches.find_leases_on_batches(owner, session=session)
        for lease in held:
            if end is End.TOO_SLOW:
                self._refuse_too_slow(lease)
            elif end is End.STOPPED:
                self._release(lease)
        self.settle_dead_worker(owner, in_hand=(), error=RetryableError("its unpacker died"))
        self.volume.require()
        clear_staging(self.volume, self._open_tokens)

    def _tell(self, rescue: Rescue) -> None:
        for claimed, outcome in rescue.charged:
            self.emit(events.attempt_event(claimed, outcome, counts=True))
        batch = rescue.ended
        if batch is not None:
            self.emit(events.BatchRefused(batch.batch_id, batch.drop_name, batch.reason_code or "", batch.reason or ""))

    def _refuse_too_slow(self, lease: BatchLease) -> None:
        error = refuse("TOO_SLOW", "its unpacker had to be killed")
        now = self.clock.now()
        with self.sessions.writing() as session:
            ended = batches.finish_extraction(
                lease,
                BatchState.QUARANTINED,
                now=now,
                session=session,
                reason_code=error.reason_code,
                error_message=str(error),
                completed_at=now,
            )
        if ended:
            self.emit(events.BatchRefused(lease.batch_id, lease.drop_name, error.reason_code, str(error)))

    def _release(self, lease: BatchLease) -> None:
        reason, now = "its unpacker did not stop in time", self.clock.now()
        with self.sessions.writing() as session:
            released = batches.release_batch(lease, due_at=now, counted=False, now=now, session=session, reason=reason)
        if released:
            self.emit(events.BatchReleased(lease.batch_id, lease.drop_name, "STOPPED", reason))

    def _is_gone(self, batch: BatchRecord) -> bool:
        """Say whether the batch's own drop is no longer in the uploads: taken away, or replaced by another one."""
        path = find_by_stored_name(self.volume.uploads, batch.drop_name)
        drop = look_at(path) if path is not None else None
        if drop is not None:
            self.volume.require()
            return not drop.identity.is_same_file(batch.identity)
        scan(self.volume.uploads)  # raises when the volume is gone: nothing vanished then
        self.volume.require()
        return True

    def _clear(self) -> None:
        self.volume.require()
        try:
            clear_staging(self.volume, self._open_tokens)
            clear_locks(self.volume.locks)
            clear_drafts(self.volume.drafts)
            with self.sessions.reading() as session:
                self.instance.bury_dead(leasing.lease_owners(session=session))
        except OSError as error:
            what = f"what the dead left cannot be cleared away: {error.strerror}"
            raise StorageError(what, subject=str(error.filename or self.volume.private)) from error

    def _open_tokens(self) -> set[str]:
        with self.sessions.reading() as session:
            return leasing.open_tokens(session=session)
