"""
One archive, from its claim to its rows: extracting, registering, and whatever else may become of it.

The claim always comes to an end here: with rows, with a refusal, or given back.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from inbox import events
from inbox.archives import Terms
from inbox.core.errors import (
    ArchiveRefusedError,
    LeaseLostError,
    NotSettledError,
    PermanentError,
    RetryableError,
    WorkerError,
    describe_error,
)
from inbox.core.retry import calculate_backoff
from inbox.database import batches, leasing
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import BatchLease, Extraction
from inbox.events import Emit
from inbox.lifecycle import BatchState
from inbox.pipeline.extracting import extract
from inbox.pipeline.forgetting import forget_held
from inbox.pipeline.registering import Registrar
from inbox.pipeline.runner.timing import LONGEST_SETBACKS, Timing
from inbox.pipeline.unpackers.fates import Done, Fate, GivenBack, PutBack, Task, Unwritten
from inbox.utils.clock import Clock
from inbox.utils.drops import is_partly_unwritten
from inbox.utils.volume import Volume

_logger = logging.getLogger("inbox")


@dataclass
class Unpacker:
    """Unpacks what was claimed."""

    volume: Volume
    sessions: Sessions
    clock: Clock
    registrar: Registrar
    terms: Terms
    timing: Timing
    emit: Emit

    def unpack(
        self,
        task: Task,
        fd: int,
        lease: BatchLease,
        *,
        should_stop: Callable[[], bool],
        on_extracted: Callable[[], object] = lambda: None,
    ) -> Fate:
        """
        Extract and register the open drop of a task, and return what became of it.

        Raises NotSettledError when the drop changed meanwhile; its batch is then forgotten.
        """
        began = time.perf_counter()
        try:
            extraction = extract(
                fd,
                task.drop,
                lease,
                self.volume,
                self.terms,
                should_stop=should_stop,
                still_held=lambda: self._still_held(lease),
            )
            extracted = time.perf_counter()
            on_extracted()
            self.registrar.register(lease, extraction)
        except ArchiveRefusedError as error:
            return self._refuse(fd, lease, error, task.age_seconds + self.clock.monotonic() - task.handed_at)
        except NotSettledError:
            self._forget(lease)
            raise
        except LeaseLostError as error:
            return self._lose(lease, str(error))
        except RetryableError as error:
            return self._give_back(lease, error, task.setbacks)
        except WorkerError as error:
            return self._end(lease, BatchState.FAILED, error)
        except Exception as error:
            _logger.exception("a surprise while an archive was unpacked")
            return self._end(lease, BatchState.FAILED, PermanentError(describe_error(error), reason_code="SURPRISE"))
        self._tell(lease, extraction, extracted - began, time.perf_counter() - extracted)
        return Done(lease.batch_id)

    @retry_when_busy
    def _still_held(self, lease: BatchLease) -> bool:
        with self.sessions.writing() as session:
            return leasing.confirm_lease(
                lease.token, now=self.clock.now(), life=self.timing.lease_life, session=session
            )

    def _refuse(self, fd: int, lease: BatchLease, error: ArchiveRefusedError, age_seconds: float) -> Fate:
        """
        Quarantine the archive, unless its damage may be that of a copy still under way.

        It may be while the drop is young, and as long as parts of it were never written: a writer may begin at the end.
        """
        if error.damaged and is_partly_unwritten(fd):
            self._forget(lease)
            return Unwritten()
        patience = self.timing.patience_with(error, age_seconds)
        if patience:
            self._forget(lease)
            return PutBack(error, patience)
        return self._end(lease, BatchState.QUARANTINED, error)

    def _end(self, lease: BatchLease, state: BatchState, error: WorkerError) -> Fate:
        """End a batch that never got members, unless another worker has taken it over."""
        if not self._write_end(lease, state, error):
            return self._lose(lease, "another worker has taken the batch over")
        self.emit(events.BatchRefused(lease.batch_id, lease.drop_name, error.reason_code, str(error)))
        return Done(lease.batch_id)

    @retry_when_busy
    def _write_end(self, lease: BatchLease, state: BatchState, error: WorkerError) -> bool:
        now = self.clock.now()
        with self.sessions.writing() as session:
            return batches.finish_extraction(
                lease,
                state,
                now=now,
                session=session,
                reason_code=error.reason_code,
                error_message=str(error),
                completed_at=now,
            )

    def _lose(self, lease: BatchLease, reason: str) -> Fate:
        self.emit(events.BatchReleased(lease.batch_id, lease.drop_name, "LEASE_LOST", reason))
        return Done(lease.batch_id)

    def _give_back(self, lease: BatchLease, error: RetryableError, setbacks: int) -> Fate:
        """Let it wait, longer each time, unless another worker has taken it over."""
        wait = 0.0 if error.reason_code == "STOPPED" else calculate_backoff(min(setbacks + 1, LONGEST_SETBACKS))
        if not self._release(lease, wait, str(error)):  # whoever took it over has also cleared away what we wrote
            return self._lose(lease, f"another worker has taken the batch over, and here: {error}")
        self.emit(events.BatchReleased(lease.batch_id, lease.drop_name, error.reason_code, str(error)))
        return GivenBack(lease.batch_id, error, wait)

    @retry_when_busy
    def _release(self, lease: BatchLease, wait_seconds: float, reason: str) -> bool:
        now = self.clock.now()
        due_at = now + timedelta(seconds=wait_seconds)
        with self.sessions.writing() as session:
            return batches.release_batch(lease, due_at=due_at, counted=False, now=now, session=session, reason=reason)

    def _forget(self, lease: BatchLease) -> None:
        forget_held(lease, self.sessions, self.volume, still_held=lambda: self._still_held(lease))

    def _tell(self, lease: BatchLease, extraction: Extraction, extracting: float, registering: float) -> None:
        self.emit(
            events.BatchRegistered(
                batch_id=lease.batch_id,
                drop=lease.drop_name,
                members=extraction.members,
                files=len(extraction.files),
                skipped=len(extraction.skipped),
                size_bytes=extraction.written_bytes,
                extraction_seconds=round(extracting, 3),
                registration_seconds=round(registering, 3),
            )
        )
