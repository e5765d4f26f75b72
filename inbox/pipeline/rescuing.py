"""
Rescuing: every leased state expires, and whatever its holder left is taken over.

A file that a dead process had in hand is charged the attempt; files it had only claimed are given back uncounted. What
was in hand is read from the instance's slot file, which outlives the process; where that cannot be read (another
machine), every claimed file is charged, so that a file which kills its worker cannot loop for ever.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from inbox.core.errors import RetryableError, WorkerError
from inbox.core.idempotency import detect_stale_processing, should_reprocess_file
from inbox.core.retry import calculate_backoff, should_retry
from inbox.database import batches, leasing, runs, work
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.leasing import ExpiredLease
from inbox.database.models import FileExtraction
from inbox.domain import ClaimedFile, InHand, Outcome
from inbox.lifecycle import BatchState, FileState
from inbox.utils.clock import Clock

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

WhatWasInHand = Callable[[str], Collection[InHand] | None]
"""Given an owner that is gone, what its processes had in hand; None when nobody can know."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """What was taken over from one holder."""

    owner: str
    released: int
    charged: tuple[tuple[ClaimedFile, Outcome], ...]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon."""

    max_attempts: int
    base_delay_seconds: float

    def due_after(self, retry_count: int, now: datetime) -> datetime:
        return now + timedelta(seconds=calculate_backoff(retry_count, self.base_delay_seconds))


class Rescuer:
    """Takes over from the dead, and ends what has run out of its time."""

    def __init__(self, sessions: Sessions, clock: Clock, policy: RetryPolicy, *, batch_time: timedelta) -> None:
        self._sessions = sessions
        self._clock = clock
        self._policy = policy
        self._batch_time = batch_time

    def rescue(self, *, dead_owners: Collection[str], what_was_in_hand: WhatWasInHand) -> Iterator[Rescue]:
        """Take over every lease that has expired or whose owner is known to be gone."""
        now = self._clock.now()
        with self._sessions.reading() as session:
            expired = leasing.find_expired(now=now, dead_owners=dead_owners, session=session)
        for lease in expired:
            in_hand = what_was_in_hand(lease.owner)
            error = RetryableError("the worker died while it had this file", hint="see the log for how it ended")
            rescued = self.settle(
                lease, in_hand=in_hand, error=error, owner_is_dead=lease.owner in dead_owners, now=now
            )
            if rescued is not None:
                yield rescued

    @retry_when_busy
    def settle(
        self,
        lease: ExpiredLease,
        *,
        in_hand: Collection[InHand] | None,
        error: WorkerError,
        owner_is_dead: bool,
        now: datetime | None = None,
    ) -> Rescue | None:
        """
        Decide about everything under one lease; None when somebody else does.

        Files in hand are charged with `error`, all of them when `in_hand` is None; the others go back uncounted.
        """
        now = now or self._clock.now()
        with self._sessions.writing() as session:
            if not leasing.take_over(lease, now=now, owner_is_dead=owner_is_dead, session=session):
                return None
            batches.rescue_batch(lease.token, max_attempts=self._policy.max_attempts, now=now, session=session)
            guilty = None if in_hand is None else {hand.doc_id for hand in in_hand if hand.token == lease.token}
            charged = self._charge(lease.token, guilty, error, now, session)
            released = work.release_files(lease.token, session=session)
        return Rescue(lease.owner, released, charged)

    def _charge(
        self, token: str, guilty: Collection[str] | None, error: WorkerError, now: datetime, session: "Session"
    ) -> tuple[tuple[ClaimedFile, Outcome], ...]:
        if guilty is not None and not guilty:
            return ()
        files = [
            file for file in work.find_held_files(token, session=session) if guilty is None or file.doc_id in guilty
        ]
        verdicts = [(work.claimed_of(file), self._verdict(file, error, now)) for file in files]
        recorded = work.record_outcomes([outcome for _, outcome in verdicts], session=session)
        return tuple(pair for pair in verdicts if pair[0].doc_id in recorded)

    @retry_when_busy
    def rescue_unleased(self, *, timeout: timedelta) -> int:
        """Take over files that were started by hand, without a lease, and are stale. Returns how many."""
        now = self._clock.now()
        seconds = timeout.total_seconds()
        with self._sessions.writing() as session:
            held = work.find_held_files(None, session=session)
            stale = [file for file in held if detect_stale_processing(file, seconds, now=now)]
            outcomes = [
                self._outcome(
                    file,
                    RetryableError("nobody finished this file in time"),
                    now,
                    again=should_reprocess_file(
                        file, max_attempts=self._policy.max_attempts, timeout_seconds=seconds, now=now
                    ),
                )
                for file in stale
            ]
            return len(work.record_outcomes(outcomes, session=session))

    def end_overdue(self) -> Iterator[tuple[BatchRecord, int]]:
        """Fail the unfinished files of batches past their time, as TIMEOUT; closing then settles the batch."""
        now = self._clock.now()
        with self._sessions.reading() as session:
            overdue = runs.find_overdue_batches(started_before=now - self._batch_time, session=session)
        for batch in overdue:
            with self._sessions.writing() as session:
                files = work.fail_unfinished_files(
                    batch.batch_id,
                    error_type="TIMEOUT",
                    message=f"the batch ran out of its time ({self._batch_time.total_seconds():g} s)",
                    now=now,
                    session=session,
                )
            if files:
                yield batch, files

    def forget_vanished(self, is_gone: Callable[[BatchRecord], bool]) -> Iterator[BatchRecord]:
        """Forget received batches whose drop was taken away before anybody extracted it."""
        with self._sessions.reading() as session:
            waiting = batches.find_open_batches([BatchState.RECEIVED], session=session)
        for batch in waiting:
            if is_gone(batch):
                with self._sessions.writing() as session:
                    if batches.forget_batch(batch.batch_id, token=None, session=session):
                        yield batch

    def _verdict(self, file: FileExtraction, error: WorkerError, now: datetime) -> Outcome:
        return self._outcome(
            file, error, now, again=should_retry(error, file.retry_count + 1, self._policy.max_attempts)
        )

    def _outcome(self, file: FileExtraction, error: WorkerError, now: datetime, *, again: bool) -> Outcome:
        started_at = file.processing_started_at or now
        return Outcome(
            doc_id=file.doc_id,
            token=file.lease_token,
            state=FileState.RETRYING if again else FileState.FAILED,
            finished_at=now,
            duration_ms=max(round((now - started_at).total_seconds() * 1000), 0),
            error_type=str(error.error_type),
            error_message=str(error),
            due_at=self._policy.due_after(file.retry_count, now) if again else None,
        )
