"""Time and waiting, as things that can be handed in."""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What a stage may ask about time."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never jump, and stand still while the machine is suspended."""

    def boottime(self) -> float:
        """Return seconds that never jump, and go on while the machine is suspended."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class Bell:
    """
    Wakes a loop early. Ringing twice, or for nothing, does no harm; a ring while nobody waits is kept.

    `wait` returns True when rung, False when the time was up.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        rung = self._event.wait(max(seconds, 0.0))
        self._event.clear()
        return rung
