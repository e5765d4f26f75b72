"""
Pausing: a worker's breakers, one for each handler, and what they mean for the files it claims.

Files of a handler that is paused go back uncounted, due when it is tried next: in one statement for a page, so that
files of other handlers pass. Where one handler gets every file, nothing is claimed meanwhile.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from queue import SimpleQueue
from typing import Final, Protocol

from inbox.core.errors import RETRYABLE_TYPES
from inbox.core.retry import MAX_DELAY_SECONDS
from inbox.database import postponing
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import ClaimedFile, Outcome
from inbox.handlers.base import File, HandlerSpec
from inbox.pipeline.dispatching.breaker import Breaker, Effect
from inbox.pipeline.dispatching.reports import closed_report, opened_report
from inbox.utils.clock import Clock

_LEAST_SECONDS: Final = 0.05
"""Between giving a file back and seeing it again, however soon the next probe is: never a busy loop."""
_MOST_SECONDS: Final = 2 * MAX_DELAY_SECONDS
"""For so long a file is put off at the most, and then again: what waits for longer passes for a clock's mistake."""
_MARGIN_SECONDS: Final = 0.005
"""
Files are due so long after the time of the next probe, since due times are kept on another clock and rounded: what is
claimed then can be used. A file that was a probe is due as much later again, so that the next probe is another one.
"""


class Chooses(Protocol):
    """What knows the handlers."""

    @property
    def sole(self) -> str | None: ...
    def choose(self, file: File) -> HandlerSpec | None: ...


class Pausing:
    """Decides which claimed files are handed to their handler now. Without `outcomes` (0) all of them are."""

    def __init__(
        self, outcomes: int, *, handlers: Chooses, sessions: Sessions, clock: Clock, say: Callable[[bytes], None]
    ) -> None:
        """`outcomes` is how many of a handler's latest are looked at; `say` tells the supervisor."""
        self._outcomes = outcomes
        self._handlers = handlers
        self._sessions = sessions
        self._clock = clock
        self._say = say
        self._breakers: defaultdict[str, Breaker] = defaultdict(lambda: Breaker(outcomes))
        self._open: set[str] = set()
        self._recovered: SimpleQueue[str] = SimpleQueue()
        self._put_off: list[tuple[str, str, bool]] = []
        """Of the present page: doc_id, handler, and whether it was a probe."""
        self._to_refund: list[tuple[str, str]] = []

    @property
    def is_total(self) -> bool:
        """Whether every file there is belongs to a handler that is paused."""
        return self._handlers.sole in self._open

    def hear(self, handler: str) -> None:
        """Another worker found that the handler works again. May be called from any thread."""
        self._recovered.put(handler)

    def end(self) -> None:
        """Nothing waits any more: there is no file to try, and nobody who is kept waiting."""
        self._close_recovered()
        for handler in sorted(self._open):
            self._breakers[handler].close()
            self._say(closed_report(handler, self._breakers[handler].probes))
        self._open.clear()

    def seconds_until_claim(self) -> float:
        """Return how long nothing is worth claiming; then one file is, as a probe."""
        self._close_recovered()
        sole = self._handlers.sole
        wait = self._seconds_to_probe(sole) if sole in self._open and sole is not None else 0.0
        return wait + _MARGIN_SECONDS if wait else 0.0

    def admits(self, claimed: ClaimedFile, file: File) -> bool:
        """Say whether the handler may have this file now; if not, it is put off when the page ends."""
        self._close_recovered()
        if not self._open:
            return True
        spec = self._handlers.choose(file)
        if spec is None or spec.name not in self._open or not self._seconds_to_probe(spec.name):
            return True
        self._put_off.append((claimed.doc_id, spec.name, False))
        return False

    def counts(self, outcome: Outcome) -> bool:
        """Take in an outcome; False when it says nothing about its file, which is put off then."""
        handler = outcome.handler
        if not self._outcomes or handler is None:
            return True
        breaker = self._breakers[handler]
        effect = breaker.note(outcome.doc_id, outcome.trouble, self._clock.monotonic())
        if effect in {Effect.OPENED, Effect.CHANGED}:
            self._tell_opened(handler, breaker)
        if effect is Effect.OPENED:
            self._open.add(handler)
            self._to_refund += [(doc_id, handler) for doc_id in breaker.charged]
        elif effect is Effect.CLOSED:
            self._open.discard(handler)
            self._say(closed_report(handler, breaker.probes))
        if effect is Effect.HELD or (effect is Effect.CHANGED and outcome.error_type in RETRYABLE_TYPES):
            self._put_off.append((outcome.doc_id, handler, True))
            return False
        return True

    def end_page(self, token: str) -> int:
        """
        Give back what was put off, when its page is over and everything else in it is recorded; returns how many.

        Attempts that opened a breaker are given back too, so that no file uses up its attempts in finding out.
        """
        put_off, self._put_off = self._put_off, []
        if put_off:
            self._give_back(token, [(doc_id, self._due_in(handler, probed)) for doc_id, handler, probed in put_off])
        refund, self._to_refund = self._to_refund, []
        times = Counter(refund)
        while times:
            self._refund([(doc_id, self._due_in(handler, probed=False)) for doc_id, handler in times])
            times -= Counter(dict.fromkeys(times, 1))
        return len(put_off)

    def _close_recovered(self) -> None:
        while not self._recovered.empty():
            handler = self._recovered.get()
            if handler in self._open:
                self._breakers[handler].close()
                self._open.discard(handler)

    @retry_when_busy
    def _give_back(self, token: str, files: list[tuple[str, timedelta]]) -> None:
        now = self._clock.now()
        with self._sessions.writing() as session:
            postponing.put_off([(doc_id, token, now + wait) for doc_id, wait in files], session=session)

    @retry_when_busy
    def _refund(self, files: list[tuple[str, timedelta]]) -> None:
        now = self._clock.now()
        with self._sessions.writing() as session:
            postponing.refund_attempts([(doc_id, now + wait) for doc_id, wait in files], session=session)

    def _due_in(self, handler: str, probed: bool) -> timedelta:
        wait = min(max(self._seconds_to_probe(handler), _LEAST_SECONDS), _MOST_SECONDS)
        return timedelta(seconds=wait + _MARGIN_SECONDS * (2 if probed else 1))

    def _seconds_to_probe(self, handler: str) -> float:
        return self._breakers[handler].seconds_to_probe(self._clock.monotonic())

    def _tell_opened(self, handler: str, breaker: Breaker) -> None:
        wait = self._seconds_to_probe(handler)
        self._say(opened_report(handler, breaker.cause, breaker.reason, failures=breaker.failures, wait_seconds=wait))
