"""
A worker process: claims a page, runs the handler on each file, records, and claims again.

When the service is gone, so is the worker, at once, after recording what it has finished: whatever it had in hand is in
its slot for the next service to read.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError, StorageError, WorkerError
from inbox.core.retry import calculate_backoff
from inbox.database import leasing, work
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.work import Page
from inbox.domain import ClaimedFile
from inbox.events import Emit, FilesReleased, LeaseLost, TroubleBegan, TroubleOver
from inbox.handlers.base import File
from inbox.lifecycle import FileState
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.excusing import Excusing
from inbox.pipeline.dispatching.holding import Hold
from inbox.pipeline.dispatching.link import IDLE, PROGRESS, READY, TROUBLE, Link
from inbox.pipeline.dispatching.pausing import Pausing
from inbox.pipeline.dispatching.recording import Recorder
from inbox.pipeline.dispatching.slots import Slots
from inbox.utils.clock import Clock

MAX_PAGE: Final = 1000
PAGE_SECONDS: Final = 0.5
"""A page holds about so much work, so that slow files do not wait behind each other in one process."""
_PATIENCE_BASE_SECONDS: Final = 0.2
_PATIENCE_MAX_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The plain values a worker runs by."""

    slot: int
    owner: str
    lease_life: timedelta
    poll_interval: timedelta
    breaker_outcomes: int = 0
    """How many of a handler's latest outcomes are looked at to see whether it is broken; 0: it is never paused."""


class Worker:
    """The loop of one worker process."""

    def __init__(  # noqa: PLR0913 - the composition root hands in every part once
        self,
        plan: WorkerPlan,
        *,
        sessions: Sessions,
        slots: Slots,
        link: Link,
        attempting: Attempting,
        prepare: Callable[[ClaimedFile], File],
        clock: Clock,
        emit: Emit,
        excusing: Excusing | None = None,
    ) -> None:
        self._plan = plan
        self._sessions = sessions
        self._slots = slots
        self._link = link
        self._attempting = attempting
        self._prepare = prepare
        self._clock = clock
        self._emit = emit
        self._excusing = excusing or Excusing()
        self._recorder = Recorder(
            sessions, emit, on_trouble=lambda: link.say(TROUBLE), on_relief=lambda: link.say(PROGRESS)
        )
        link.last_words = self._recorder.flush
        self._pausing = Pausing(
            plan.breaker_outcomes, handlers=attempting.handlers, sessions=sessions, clock=clock, say=link.say
        )
        link.on_recovered = self._pausing.hear
        self._finished_tokens: list[str] = []
        self._name = f"worker {plan.slot}"
        self._trouble = ""
        self._trouble_since: float | None = None
        self._page_size = 1
        self._lets_others_first = False
        self._may_have_strays = False
        self._process = os.getpid()

    def run(self) -> None:
        """Work until told to drain; then finish the file in hand, record everything, and give the rest back."""
        self._link.say(READY)
        while (claim := self._claim_patiently()) is not None:
            page, hold = claim
            if page.files:
                self._work_off(page, hold)
                self._link.say(PROGRESS)
            else:
                self._link.say(IDLE)
                self._link.wait(self._seconds_until_due())
        self._recorder.close()
        self._end_leases()

    def _claim_patiently(self) -> tuple[Page, Hold] | None:
        """
        Return the next page, as soon as volume and database allow; None when told to drain, also meanwhile.

        A database that refuses is waited for likewise: the service tells of it, and ending here would mend nothing.
        """
        failures = 0
        while not self._link.draining:
            if wait := self._pausing.seconds_until_claim():
                self._link.wait(wait)
                continue
            try:
                self._require_volume()
                if self._may_have_strays:
                    self._give_back_strays()
                claim = self._claim()
                if not claim[0].files and self._give_back_strays():
                    continue
            except (DatabaseUnavailableError, DatabaseRefusedError, StorageError):
                self._may_have_strays = True
                self._link.say(TROUBLE)
                self._link.wait(calculate_backoff(failures, _PATIENCE_BASE_SECONDS, _PATIENCE_MAX_SECONDS))
                failures += 1
                continue
            if failures:
                self._link.say(PROGRESS)
            return claim
        return None

    def _require_volume(self) -> None:
        try:
            self._excusing.require()
        except StorageError as error:
            self._suffer(error)
            raise
        if self._trouble_since is not None:
            self._emit(TroubleOver(self._name, round(self._clock.monotonic() - self._trouble_since, 1)))
            self._trouble_since, self._trouble = None, ""

    def _suffer(self, trouble: StorageError) -> None:
        """Say each trouble once."""
        if self._trouble_since is None:
            self._trouble_since = self._clock.monotonic()
        if self._trouble != str(trouble):
            self._trouble = str(trouble)
            self._emit(TroubleBegan(self._name, self._trouble))

    @retry_when_busy
    def _claim(self) -> tuple[Page, Hold]:
        """Claim a page, of which half may be due again; pages of one file take turns at that."""
        again = (self._page_size + (not self._lets_others_first)) // 2
        began = self._clock.boottime()
        with self._sessions.writing() as session:
            page = work.claim_files(
                self._plan.owner,
                limit=1 if self._pausing.is_total else self._page_size,
                again=1 if self._pausing.is_total else again,
                now=self._clock.now(),
                life=self._plan.lease_life,
                session=session,
                finished_tokens=self._finished_tokens,
            )
        self._finished_tokens = []
        self._lets_others_first = not self._lets_others_first
        hold = Hold(page.token, self._plan.lease_life, self._sessions, self._clock, confirmed_at=began)
        return page, hold

    @retry_when_busy
    def _give_back_strays(self) -> bool:
        """
        Give back what a claim took whose commit was never confirmed; False when there is nothing.

        Nobody else would, while our heart beats. Idle workers look too, since the server may carry a commit out long
        after its answer was given up.
        """
        with self._sessions.reading() as session:
            held = {lease.token for lease in leasing.leases_of(self._plan.owner, session=session)}
        strays = held - set(self._finished_tokens)
        if strays:
            with self._sessions.writing() as session:
                leasing.drop_leases(strays, session=session)  # before the files, as whoever takes over does
                for token in strays:
                    work.release_files(token, session=session)
        self._may_have_strays = False
        return bool(strays)

    def _work_off(self, page: Page, hold: Hold) -> None:
        began = self._clock.monotonic()
        done, left, held = 0, len(page.files), True
        for claimed in page.files:
            held = hold.is_trusted() or self._confirm_patiently(hold)
            if self._link.draining or not held:
                break
            left -= 1
            file = self._prepare(claimed)
            if not self._pausing.admits(claimed, file):
                continue
            self._slots.take(self._plan.slot, page.token, claimed.doc_id, self._clock.monotonic())
            outcome = self._attempting.attempt(claimed, file)
            if os.getpid() != self._process:  # a fork that a handler let return; what it shares with us is ours
                os._exit(isinstance(outcome, StorageError) or outcome.state is not FileState.SUCCESS)
            self._link.require_whole()
            if isinstance(outcome, StorageError):
                left += 1
                self._slots.put_down(self._plan.slot)  # it does not pay, however long recording the others may take
                self._suffer(outcome)
                break
            self._slots.stop_clock(self._plan.slot)
            done += 1
            if self._pausing.counts(outcome):
                self._record(partial(self._recorder.add, claimed, outcome))
        self._record(self._recorder.flush)
        self._slots.put_down(self._plan.slot)
        try:
            self._pausing.end_page(page.token)
            if not held:
                self._emit(LeaseLost(self._plan.slot, left))
            elif left:
                self._release(page.token)
        except DatabaseUnavailableError:
            self._may_have_strays = True  # they go back before the next claim; if we end now, the lease runs out
            return
        self._finished_tokens.append(page.token)
        self._adapt(done, self._clock.monotonic() - began)

    def _confirm_patiently(self, hold: Hold) -> bool:
        """Say whether the lease is still ours, as soon as the database can tell; True also when told to drain."""
        failures = 0
        while not self._link.draining:
            try:
                held = hold.confirm()
            except (DatabaseUnavailableError, DatabaseRefusedError):
                self._link.say(TROUBLE)
                self._link.wait(calculate_backoff(failures, _PATIENCE_BASE_SECONDS, _PATIENCE_MAX_SECONDS))
                failures += 1
                continue
            if failures:
                self._link.say(PROGRESS)
            if hold.is_trusted() or not held:
                return held
        return True

    def _record(self, write: Callable[[], None]) -> None:
        """Write outcomes. When the database is to blame that none can be written, no file pays for it."""
        try:
            write()
        except WorkerError:
            self._slots.put_down(self._plan.slot)
            raise

    def _adapt(self, done: int, seconds: float) -> None:
        """Aim at pages of half a second; grow fourfold at most, since the next files may be slower."""
        fitting = int(done * PAGE_SECONDS / max(seconds, 1e-6)) if done else MAX_PAGE  # all of it was put off at once
        self._page_size = max(1, min(fitting, self._page_size * 4, MAX_PAGE))

    @retry_when_busy
    def _release(self, token: str) -> None:
        with self._sessions.writing() as session:
            released = work.release_files(token, session=session)
        if released:
            self._emit(FilesReleased(released))

    def _end_leases(self) -> None:
        with (
            suppress(DatabaseUnavailableError, DatabaseRefusedError),
            self._sessions.writing() as session,
        ):  # nothing is under them any more
            leasing.drop_leases(self._finished_tokens, session=session)

    def _seconds_until_due(self) -> float:
        longest = self._plan.poll_interval.total_seconds()
        try:
            with self._sessions.reading() as session:
                due_at = work.next_due_at(session=session)
        except (DatabaseUnavailableError, DatabaseRefusedError):
            return 0.0  # claiming is where we wait for it
        if due_at is None:
            self._pausing.end()
            return longest
        return min(max((due_at - self._clock.now()).total_seconds(), 0.05), longest)
