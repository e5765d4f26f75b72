"""
The lookout: keeps the uploads watched, and says how often they are to be scanned meanwhile.

Without a watch the service goes on by scanning. That is said once, with what to set, and so is its end.
"""

from collections.abc import Callable, Collection
from typing import Final

from inbox.core.errors import StorageError
from inbox.core.retry import calculate_backoff
from inbox.domain import Drop
from inbox.events import DropsUnannounced, Emit, WatchingByEvents, WatchingByScan
from inbox.pipeline.rescans import Misses, Pace
from inbox.pipeline.watching import Watch
from inbox.utils.clock import Bell, Clock

MakeWatch = Callable[[Bell, Callable[[str], object]], Watch]

_BASE_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 60.0
"""A watch that held so long was a good one: what ends it is not the trouble from before."""


class Retrying:
    """When to try again to watch: at once, then after 1 s, 2 s and so on up to a minute, until a watch has held."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._due_at = 0.0
        self._began_at: float | None = None

    def is_due(self) -> bool:
        return self._clock.monotonic() >= self._due_at

    def began(self) -> None:
        """A watch was granted."""
        self._began_at = self._clock.monotonic()

    def failed(self) -> None:
        """No watch was granted, or the one that was is lost."""
        now = self._clock.monotonic()
        if self._began_at is not None and now - self._began_at >= _STEADY_SECONDS:
            self._failures = 0
        self._began_at = None
        wait = calculate_backoff(self._failures - 1, _BASE_SECONDS, _LONGEST_SECONDS) if self._failures else 0.0
        self._failures += 1
        self._due_at = now + wait


class Lookout:
    """
    Watches as far as the system lets it. Everything but `as_json` belongs to the thread that scans.

    `announce` is told the name of whatever arrived, by a thread of the watch. `unannounced` says why this file system
    cannot tell of every drop, if so: then events are welcome, and nothing depends on them.
    """

    def __init__(
        self,
        make_watch: MakeWatch,
        bell: Bell,
        *,
        pace: Pace,
        clock: Clock,
        emit: Emit,
        announce: Callable[[str], object] = lambda _name: None,
        unannounced: str | None = None,
    ) -> None:
        self._misses = Misses(clock)
        self._announce = announce
        self._watch = make_watch(bell, announce if unannounced else self._heard)
        self._pace = pace
        self._clock = clock
        self._emit = emit
        self._unannounced = unannounced
        self._retrying = Retrying(clock)
        self._lost_because: str | None = None
        self._lost_at = 0.0

    def start(self) -> None:
        """Begin to watch, if that can be."""
        try:
            self._watch.start()
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                self._retrying.failed()
                self._lose(str(error))
            elif self._lost_because is None:  # whoever scans waits for the folder too, and looks more often
                self._lose(str(error))
            return
        self._retrying.began()
        self._misses.begin_anew()
        if self._lost_because is not None:
            self._lost_because = None
            self._tell(WatchingByEvents(round(self._clock.monotonic() - self._lost_at, 1)))

    def check(self) -> None:
        """See to it that the folder is watched. Before a scan, so that nothing falls between the two."""
        ailment = self._watch.ailment()
        if ailment is None:
            return
        if self._lost_because is None:
            self._retrying.failed()
            self._lose(ailment)
        if self._retrying.is_due():
            self.start()

    def found(self, drops: Collection[Drop]) -> None:
        """Take account of what a scan found: drops that no event announced make the next scans come sooner."""
        if self._by_scan_because() is not None:
            return
        missed = self._misses.found(drop.name for drop in drops)
        if missed:
            is_first = self._pace.is_relaxed()
            self._pace.shorten()
            if is_first:
                self._emit(DropsUnannounced(missed, self._pace.seconds()))

    def seconds_to_next_scan(self) -> float:
        return self._pace.seconds() if self._by_scan_because() is None else self._pace.shortest

    def stop(self) -> None:
        self._watch.stop()

    def as_json(self) -> dict[str, object]:
        reason = self._by_scan_because()
        return {
            "by": "events" if reason is None else "scan",
            "reason": reason or "",
            "scan_interval_seconds": self.seconds_to_next_scan(),
            "unannounced_drops": self._misses.total,
        }

    def _heard(self, name: str) -> None:
        self._misses.heard(name)
        self._announce(name)

    def _by_scan_because(self) -> str | None:
        return self._lost_because or self._unannounced

    def _lose(self, reason: str) -> None:
        if self._lost_because is None:
            self._lost_at = self._clock.monotonic()
        if reason != self._lost_because:
            self._lost_because = reason
            self._tell(WatchingByScan(reason))

    def _tell(self, event: WatchingByScan | WatchingByEvents) -> None:
        if self._unannounced is None:
            self._emit(event)
