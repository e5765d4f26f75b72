"""
A worker process: claims a page, runs the handler on each file, records, and claims again.

It talks to its supervisor in single bytes over one connection, and only about itself: whether it is idle, and whether
it should wake up or drain. When the other end is gone, so is the service, and the worker ends at once: whatever it had
in hand is in its slot for the next service to read.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Final

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError
from inbox.core.retry import calculate_backoff
from inbox.database import leasing, work
from inbox.database.connection import Sessions, retry_when_busy
from inbox.database.work import Page
from inbox.domain import ClaimedFile
from inbox.events import Emit, FilesReleased
from inbox.handlers.base import File
from inbox.pipeline.dispatching.attempting import Attempting
from inbox.pipeline.dispatching.recording import Recorder
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
_PATIENCE_MAX_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """The plain values a worker runs by."""

    slot: int
    owner: str
    lease_life: timedelta
    poll_interval: timedelta


class Link:
    """The worker's end of the connection. Listening happens in a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bell = Bell()
        self._lock = threading.Lock()
        self.draining = False
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
        self._finished_tokens: list[str] = []
        self._page_size = 1
        self._may_have_strays = False

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
        """
        Return the next page, as soon as the database gives one; None when told to drain, also meanwhile.

        A database that refuses is waited for likewise: the service tells of it, and ending here would mend nothing.
        """
        failures = 0
        while not self._link.draining:
            try:
                if self._may_have_strays:
                    self._give_back_strays()
                page = self._claim()
                if not page.files and self._give_back_strays():
                    continue
            except (DatabaseUnavailableError, DatabaseRefusedError):
                self._may_have_strays = True
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
                limit=self._page_size,
                now=self._clock.now(),
                life=self._plan.lease_life,
                session=session,
                finished_tokens=self._finished_tokens,
            )
        self._finished_tokens = []
        return page

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
                for token in strays:
                    work.release_files(token, session=session)
                leasing.drop_leases(strays, session=session)
        self._may_have_strays = False
        return bool(strays)

    def _work_off(self, page: Page) -> None:
        began = self._clock.monotonic()
        done = 0
        for claimed in page.files:
            if self._link.draining:
                break
            self._slots.take(self._plan.slot, page.token, claimed.doc_id, self._clock.monotonic())
            outcome = self._attempting.attempt(claimed, self._prepare(claimed))
            self._slots.put_down(self._plan.slot)
            self._recorder.add(claimed, outcome)
            done += 1
        self._recorder.flush()
        if done < len(page.files):
            try:
                self._release(page.token)
            except DatabaseUnavailableError:
                return  # we are told to end: with nobody to extend it the lease runs out, and the files are taken over
        self._finished_tokens.append(page.token)
        self._adapt(done, self._clock.monotonic() - began)

    def _adapt(self, done: int, seconds: float) -> None:
        """Aim at pages of half a second; grow fourfold at most, since the next files may be slower."""
        fitting = int(done * PAGE_SECONDS / max(seconds, 1e-6))
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
            return longest
        return min(max((due_at - self._clock.now()).total_seconds(), 0.05), longest)
