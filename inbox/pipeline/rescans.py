"""
How often the folder is scanned: seldom while events tell of every drop, more often while they do not.

A drop that a scan finds and no event announced is a miss. Misses mean that somebody writes where the kernel does not
see it, or that events are lost; then only scanning often finds drops soon.
"""

import math
import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from inbox.utils.clock import Clock

QUIET: Final = timedelta(minutes=5)
"""How long there must be no miss until the interval is relaxed by one step."""

_GRACE_SECONDS: Final = 2.0
"""How long the event of a drop may still be under way when a scan has found the drop."""

_MOST_NAMES: Final = 200_000
"""Names kept between two scans; beyond, nobody can be called unannounced."""


class Pace:
    """
    The seconds from one scan to the next: `longest`, halved with each miss down to `shortest`, doubled again by and by.

    Each `quiet` without a miss takes one halving back.
    """

    def __init__(self, longest: float, shortest: float, clock: Clock, *, quiet: timedelta = QUIET) -> None:
        self.longest = longest
        self.shortest = min(shortest, longest)
        self._clock = clock
        self._quiet = quiet.total_seconds()
        self._most = max(math.ceil(math.log2(self.longest / self.shortest)), 1)
        self._halvings = 0
        self._missed_at = 0.0

    def seconds(self) -> float:
        return max(self.longest / 2.0 ** self._halvings_left(), self.shortest)

    def is_relaxed(self) -> bool:
        """Say whether there was no miss for so long that nothing is left of the last ones."""
        return self._halvings_left() == 0

    def shorten(self) -> None:
        """Take account of one scan that found a miss."""
        self._halvings = min(self._halvings_left() + 1, self._most)
        self._missed_at = self._clock.monotonic()

    def _halvings_left(self) -> int:
        return max(self._halvings - int((self._clock.monotonic() - self._missed_at) // self._quiet), 0)


class Misses:
    """
    Counts the drops that a scan found and no event had announced.

    `heard` is called by whoever gets the events, `found` by whoever scans, each in a thread of its own. A drop is
    missed when its event has not come within a grace time after the scan.
    """

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._heard: set[str] = set()
        self._heard_before: set[str] = set()
        self._known: set[str] | None = None
        self._suspects: dict[str, float] = {}

    def heard(self, name: str) -> None:
        """An event announced this name."""
        with self._lock:
            if len(self._heard) <= _MOST_NAMES:
                self._heard.add(name)

    def found(self, names: Iterable[str]) -> int:
        """A scan found these; return how many drops turn out to be missed. The first scan only tells what is there."""
        present, now = set(names), self._clock.monotonic()
        with self._lock:
            heard, self._heard = self._heard, set()
        known, self._known = self._known, present
        if known is None or len(heard) > _MOST_NAMES:
            self._suspects.clear()
            return 0
        announced = heard | self._heard_before
        self._heard_before = heard - present  # told before the scan could see it
        waiting = {name: since for name, since in self._suspects.items() if name not in announced}
        missed = {name for name, since in waiting.items() if now - since >= _GRACE_SECONDS}
        self._suspects = {name: since for name, since in waiting.items() if name not in missed}
        self._suspects |= dict.fromkeys(present - known - announced, now)
        self.total += len(missed)
        return len(missed)

    def begin_anew(self) -> None:
        """Events were off for a while: what the next scan finds was not to be announced."""
        self._known = None
