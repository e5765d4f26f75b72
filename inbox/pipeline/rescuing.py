"""
Rescuing: every lease ends that nobody extends, and whatever its holder left is taken over.

A file that a dead process had in hand is charged the attempt; files it had only claimed are given back uncounted. What
was in hand is read from the instance's slot file, which outlives the process; where that cannot be read (another
machine), every claimed file is charged, so that a file which kills its worker cannot loop for ever.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from inbox.core.errors import RetryableError, WorkerError
from inbox.core.idempotency import detect_stale_processing
from inbox.core.retry import calculate_backoff, should_retry
from inbox.database import batches, leasing, overdue, work
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.leasing import HeldLease
from inbox.database.models import FileExtraction
from inbox.domain import ClaimedFile, InHand, Outcome
from inbox.lifecycle import BatchState, FileState
from inbox.utils.clock import Clock
from inbox.utils.lasting import Lasting

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

WhatWasInHand = Callable[[str], Collection[InHand] | None]
"""Given an owner that is gone, what its processes had in hand; None when nobody can know."""

_LONGEST_ROUND_SECONDS: Final = 300.0
"""What the time between two rounds counts at most when it is about how long something has been going on."""
HandlerAndVersion = tuple[str | None, str | None]


@dataclass(frozen=True, slots=True)
class Rescue:
    """What was taken over from one holder."""

    owner: str
    released: int
    charged: tuple[tuple[ClaimedFile, Outcome], ...]
    ended: BatchRecord | None = None
    """The batch whose last attempt at its extraction this was."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon."""

    max_attempts: int
    base_delay_seconds: float

    def due_after(self, retry_count: int, now: datetime) -> datetime:
        return now + timedelta(seconds=calculate_backoff(retry_count, self.base_delay_seconds))


class Rescuer:
    """
    Takes over from the dead, and ends what has run out of its time.

    How long a batch has been going on is counted here, in the time that this process has watched it: a clock that
    jumps, another machine's that is ahead, or a night asleep must not end what somebody works on.
    """

    def __init__(
        self,
        sessions: Sessions,
        clock: Clock,
        policy: RetryPolicy,
        *,
        batch_time: timedelta,
        handler_of: Callable[[ClaimedFile], HandlerAndVersion] = lambda _: (None, None),
    ) -> None:
        """`handler_of` tells which of our handlers, in which version, a file of our own workers was handed to."""
        self._handler_of = handler_of
        self._sessions = sessions
        self._clock = clock
        self._policy = policy
        self._batch_time = batch_time
        self._runs: Lasting[tuple[str, str]] = Lasting(_LONGEST_ROUND_SECONDS)
        self._unleased: Lasting[tuple[str, datetime | None]] = Lasting(_LONGEST_ROUND_SECONDS)

    def rescue(
        self, *, over: Collection[HeldLease], dead_owners: Collection[str], what_was_in_hand: WhatWasInHand
    ) -> Iterator[Rescue]:
        """Take over the leases that were seen to be over, and every one whose owner is known to be gone."""
        with self._sessions.reading() as session:
            leases = leasing.find_leases(session=session)
        orphans = [lease for lease in leases if lease.owner in dead_owners]
        for lease in {lease.token: lease for lease in [*over, *orphans]}.values():
            in_hand = what_was_in_hand(lease.owner)
            error = RetryableError("the worker died while it had this file", hint="see the log for how it ended")
            rescued = self.settle(lease, in_hand=in_hand, error=error, owner_is_dead=lease.owner in dead_owners)
            if rescued is not None:
                yield rescued

    @retry_when_busy
    def settle(
        self,
        lease: HeldLease,
        *,
        in_hand: Collection[InHand] | None,
        error: WorkerError,
        owner_is_dead: bool,
        is_ours: bool = False,
    ) -> Rescue | None:
        """
        Decide about everything under one lease; None when somebody else does.

        Files in hand are charged with `error`, all of them when `in_hand` is None; the others go back uncounted. With
        `is_ours` it was a worker of this service, whose handlers are known.
        """
        now = self._clock.now()
        with self._sessions.writing() as session:
            if not leasing.take_over(lease, owner_is_dead=owner_is_dead, session=session):
                return None
            batch = batches.rescue_batch(lease.token, max_attempts=self._policy.max_attempts, now=now, session=session)
            guilty = None if in_hand is None else {hand.doc_id for hand in in_hand if hand.token == lease.token}
            charged = self._charge(lease.token, guilty, error, now, session, is_ours=is_ours)
            released = work.release_files(lease.token, session=session)
        ended = batch if batch is not None and batch.state is BatchState.FAILED else None
        return Rescue(lease.owner, released, charged, ended)

    def _charge(
        self,
        token: str,
        guilty: Collection[str] | None,
        error: WorkerError,
        now: datetime,
        session: "Session",
        *,
        is_ours: bool,
    ) -> tuple[tuple[ClaimedFile, Outcome], ...]:
        if guilty is not None and not guilty:
            return ()
        files = [
            file for file in work.find_held_files(token, session=session) if guilty is None or file.doc_id in guilty
        ]
        verdicts = [(work.claimed_of(file), self._verdict(file, error, now)) for file in files]
        if is_ours:
            verdicts = [(claimed, self._stamped(claimed, outcome)) for claimed, outcome in verdicts]
        recorded = work.record_outcomes([outcome for _, outcome in verdicts], session=session)
        return tuple(pair for pair in verdicts if pair[0].doc_id in recorded)

    def _stamped(self, claimed: ClaimedFile, outcome: Outcome) -> Outcome:
        handler, version = self._handler_of(claimed)
        return replace(outcome, handler=handler, handler_version=version)

    @retry_when_busy
    def rescue_unleased(self, *, timeout: timedelta) -> int:
        """
        Take over files that were started by hand, without a lease, and are stale. Returns how many.

        One that knows when it began has to have been watched for as long, too: a clock that jumps makes nothing stale.
        """
        seconds = timeout.total_seconds()
        now, ticks = self._clock.now(), self._clock.monotonic()
        error = RetryableError("nobody finished this file in time")
        with self._sessions.writing() as session:
            held = {
                (file.doc_id, file.processing_started_at): file for file in work.find_held_files(None, session=session)
            }
            self._unleased.look(held, began=ticks, ended=ticks)
            watched = self._unleased.for_at_least(seconds)
            outcomes = [
                self._verdict(file, error, now)
                for key, file in held.items()
                if detect_stale_processing(file, seconds, now=now)
                and (key in watched or file.processing_started_at is None)
            ]
            return len(work.record_outcomes(outcomes, session=session))

    def bring_back(self) -> int:
        """Make due what waits for longer than anything may: a clock was set back. Returns how many."""
        with self._sessions.writing() as session:
            return overdue.bring_back(now=self._clock.now(), session=session)

    def end_overdue(self) -> Iterator[tuple[BatchRecord, int]]:
        """Fail the unfinished files of batches past their time, as TIMEOUT; closing then settles the batch."""
        now, ticks = self._clock.now(), self._clock.monotonic()
        with self._sessions.reading() as session:
            running = {
                (batch.batch_id, batch.run_id): batch
                for batch in batches.find_open_batches([BatchState.PROCESSING], session=session)
            }
        self._runs.look(running, began=ticks, ended=ticks)
        for key in sorted(self._runs.for_at_least(self._batch_time.total_seconds())):
            files = 0
            while count := self._fail_unfinished(running[key].batch_id, now):
                files += count
            if files:
                yield running[key], files

    @retry_when_busy
    def _fail_unfinished(self, batch_id: str, now: datetime) -> int:
        with self._sessions.writing() as session:
            return work.fail_unfinished_files(
                batch_id,
                error_type="TIMEOUT",
                message=f"the batch ran out of its time ({self._batch_time.total_seconds():g} s)",
                now=now,
                session=session,
            )

    def _verdict(self, file: FileExtraction, error: WorkerError, now: datetime) -> Outcome:
        again = should_retry(error, file.retry_count + 1, self._policy.max_attempts)
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
