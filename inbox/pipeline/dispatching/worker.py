"""
A worker process: claims a page, runs the handler on each file, records, and claims again.

It talks to its supervisor in single bytes over one connection, and only about itself: whether it is idle, and whether
it should wake up or drain; in a few more bytes, about handlers that are paused. When the other end is gone, so is the
service, and the worker ends at once: whatever it had in hand is in its slot for the next service to read.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Final

from inbox.core.errors import DatabaseUnavailableError
from inbox.core.retry import calculate_backoff
from inbox.database import leasing, work
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.work import Page
from inbox.domain import ClaimedFile
from inbox.events import Emit, FilesReleased
from inbox.handlers.base import File
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.pausing import Pausing
from inbox.pipeline.dispatching.recording import Recorder
from inbox.pipeline.dispatching.reports import is_report, recovered_handler
from inbox.pipeline.dispatching.slots import Slots
from inbox.utils.clock import Bell, Clock

WAKE: Final = b"w"
DRAIN: Final = b"d"
READY: Final = b"r"
IDLE: Final = b"i"
PROGRESS: Final = b"p"
TROUBLE: Final = b"t"

MAX_PAGE: Final = 1000
PAGE_SECONDS: Final = 0.5
"""A page holds about so much work, so that slow files do not wait behind each other in one process."""
_ORPHANED: Final = 70
_PATIENCE_BASE_SECONDS: Final = 0.2
_PATIENCE_MAX_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The plain values a worker runs by."""

    slot: int
    owner: str
    lease_life: timedelta
    poll_interval: timedelta
    breaker_outcomes: int = 0
    """How many of a handler's latest outcomes are looked at to see whether it is broken; 0: it is never paused."""


class Link:
    """The worker's end of the connection. Listening happens in a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bell = Bell()
        self._lock = threading.Lock()
        self.draining = False
        self.on_recovered: Callable[[str], None] = lambda _: None
        """Told which handler works again, as another worker found."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def say(self, word: bytes) -> None:
        with self._lock:
            try:
                self._connection.send_bytes(word)
            except OSError:
                os._exit(_ORPHANED)

    def wait(self, seconds: float) -> None:
        self._bell.wait(seconds)

    def _listen(self) -> None:
        while True:
            try:
                word = self._connection.recv_bytes()
            except (EOFError, OSError):
                os._exit(_ORPHANED)
            if word == DRAIN:
                self.draining = True
            elif is_report(word) and (handler := recovered_handler(word)) is not None:
                self.on_recovered(handler)
            self._bell.ring()


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
    ) -> None:
        self._plan = plan
        self._sessions = sessions
        self._slots = slots
        self._link = link
        self._attempting = attempting
        self._prepare = prepare
        self._clock = clock
        self._emit = emit
        self._recorder = Recorder(
            sessions, emit, on_trouble=lambda: link.say(TROUBLE), on_relief=lambda: link.say(PROGRESS)
        )
        self._pausing = Pausing(
            plan.breaker_outcomes, handlers=attempting.handlers, sessions=sessions, clock=clock, say=link.say
        )
        link.on_recovered = self._pausing.hear
        self._finished_tokens: list[str] = []
        self._page_size = 1

    def run(self) -> None:
        """Work until told to drain; then finish the file in hand, record everything, and give the rest back."""
        self._link.say(READY)
        while (page := self._claim_patiently()) is not None:
            if page.files:
                self._work_off(page)
                self._link.say(PROGRESS)
            else:
                self._link.say(IDLE)
                self._link.wait(self._seconds_until_due())
        self._recorder.close()
        self._end_leases()

    def _claim_patiently(self) -> Page | None:
        """Return the next page, as soon as the database gives one; None when told to drain, also meanwhile."""
        failures = 0
        while not self._link.draining:
            if wait := self._pausing.seconds_until_claim():
                self._link.wait(wait)
                continue
            try:
                if failures:
                    self._give_back_strays()
                page = self._claim()
            except DatabaseUnavailableError:
                self._link.say(TROUBLE)
                self._link.wait(calculate_backoff(failures, _PATIENCE_BASE_SECONDS, _PATIENCE_MAX_SECONDS))
                failures += 1
                continue
            if failures:
                self._link.say(PROGRESS)
            return page
        return None

    @retry_when_busy
    def _claim(self) -> Page:
        with self._sessions.writing() as session:
            page = work.claim_files(
                self._plan.owner,
                limit=1 if self._pausing.is_total else self._page_size,
                now=self._clock.now(),
                life=self._plan.lease_life,
                session=session,
                finished_tokens=self._finished_tokens,
            )
        self._finished_tokens = []
        return page

    def _give_back_strays(self) -> None:
        """Give back what a claim took whose commit was never confirmed: nobody else would, while our heart beats."""
        with self._sessions.writing() as session:
            held = {lease.token for lease in leasing.leases_of(self._plan.owner, session=session)}
            strays = held - set(self._finished_tokens)
            for token in strays:
                work.release_files(token, session=session)
            leasing.drop_leases(strays, session=session)

    def _work_off(self, page: Page) -> None:
        began = self._clock.monotonic()
        done = 0
        for claimed in page.files:
            if self._link.draining:
                break
            file = self._prepare(claimed)
            if not self._pausing.admits(claimed, file):
                continue
            self._slots.take(self._plan.slot, page.token, claimed.doc_id, self._clock.monotonic())
            outcome = self._attempting.attempt(claimed, file)
            self._slots.put_down(self._plan.slot)
            done += 1
            if self._pausing.counts(outcome):
                self._recorder.add(claimed, outcome)
        self._recorder.flush()
        put_off = self._pausing.end_page(page.token)
        if done + put_off < len(page.files):
            self._release(page.token)
        self._finished_tokens.append(page.token)
        self._adapt(done, self._clock.monotonic() - began)

    def _adapt(self, done: int, seconds: float) -> None:
        """Aim at pages of half a second; grow fourfold at most, since the next files may be slower."""
        fitting = int(done * PAGE_SECONDS / max(seconds, 1e-6)) if done else MAX_PAGE  # all of it was put off at once
        self._page_size = max(1, min(fitting, self._page_size * 4, MAX_PAGE))

    def _release(self, token: str) -> None:
        with self._sessions.writing() as session:
            released = work.release_files(token, session=session)
        if released:
            self._emit(FilesReleased(released))

    def _end_leases(self) -> None:
        with suppress(DatabaseUnavailableError), self._sessions.writing() as session:  # nothing is under them any more
            leasing.drop_leases(self._finished_tokens, session=session)

    def _seconds_until_due(self) -> float:
        longest = self._plan.poll_interval.total_seconds()
        try:
            with self._sessions.reading() as session:
                due_at = work.next_due_at(session=session)
        except DatabaseUnavailableError:
            return 0.0  # claiming is where we wait for it
        if due_at is None:
            self._pausing.end()
            return longest
        return min(max((due_at - self._clock.now()).total_seconds(), 0.05), longest)
