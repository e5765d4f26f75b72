"""
Telling of trouble: one line when it begins and one when it is over, however many legs meet it.

All legs wait for one database, and each would have its own words for its absence. So its trouble is the service's, told
with the words of the leg that met it first; other trouble is the leg's own.
"""

import threading
from typing import Final

from inbox.core.errors import DatabaseRefusedError, DatabaseUnavailableError, describe_error
from inbox.events import Emit, TroubleBegan, TroubleOver
from inbox.utils.clock import Clock

SERVICE: Final = "service"
"""Who waits when the database is the trouble."""


def is_of_database(error: Exception) -> bool:
    return isinstance(error, DatabaseUnavailableError | DatabaseRefusedError)


class Troubles:
    """What ails the legs of one service at present. Each leg says when it meets trouble, and when it is well."""

    def __init__(self, clock: Clock, emit: Emit) -> None:
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()
        self._met: dict[str, tuple[str, str]] = {}
        """Of each leg in trouble: who waits, and for what."""
        self._since: dict[str, float] = {}

    def begin(self, leg: str, error: Exception) -> bool:
        """Take note of a leg's trouble; True when nobody has told of it yet, and it is told now."""
        reason = describe_error(error)
        who, what = (SERVICE, type(error).__name__) if is_of_database(error) else (leg, reason)
        if isinstance(error, DatabaseUnavailableError):
            what = DatabaseUnavailableError.__name__
        with self._lock:
            is_new = (who, what) not in self._met.values()
            before = self._met.get(leg)
            self._met[leg] = who, what
            if before is not None and before[0] != who:
                self._end(before[0])
            self._since.setdefault(who, self._clock.monotonic())
            if is_new:
                self._emit(TroubleBegan(who, reason))
        return is_new

    def end(self, leg: str) -> None:
        """The leg is well; the trouble is over with the last leg that had it."""
        with self._lock:
            before = self._met.pop(leg, None)
            if before is not None:
                self._end(before[0])

    def _end(self, who: str) -> None:
        if all(who != other for other, _ in self._met.values()):
            self._emit(TroubleOver(who, round(self._clock.monotonic() - self._since.pop(who), 1)))
