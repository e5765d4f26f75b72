"""Observing: a lease is over when it was seen unchanged for long enough, on the clock of whoever looks."""

import threading
from datetime import timedelta
from typing import Final

from inbox.database import leasing
from inbox.database.connection import Sessions
from inbox.database.leasing import TAKEOVER_SHARE, HeldLease
from inbox.utils.clock import Clock
from inbox.utils.lasting import Lasting

_GAP_SHARE: Final = 1 / 4
"""Of the life of a lease: what the time between two looks counts at most. Looks come as often as heartbeats."""


class Observer:
    """
    Looks at all leases, again and again; `over` may be asked by another thread.

    A database outage makes it begin anew, and a pause of its own counts for little: the living get their chance to beat
    before anybody takes their work away.
    """

    def __init__(self, sessions: Sessions, clock: Clock, *, life: timedelta) -> None:
        self._sessions = sessions
        self._clock = clock
        self._wait_seconds = life.total_seconds() * TAKEOVER_SHARE
        self._seen: Lasting[HeldLease] = Lasting(life.total_seconds() * _GAP_SHARE)
        self._lock = threading.Lock()

    def look(self) -> bool:
        """Say whether any lease is over. Raises DatabaseUnavailableError, and has then forgotten what it saw."""
        began = self._clock.boottime()
        try:
            with self._sessions.reading() as session:
                leases = leasing.find_leases(session=session)
        except BaseException:
            self.forget()
            raise
        with self._lock:
            self._seen.look(leases, began=began, ended=self._clock.boottime())
        return bool(self.over())

    def forget(self) -> None:
        with self._lock:
            self._seen.forget()

    def over(self) -> list[HeldLease]:
        """Return the leases that may be taken over as they were seen."""
        with self._lock:
            return sorted(self._seen.for_at_least(self._wait_seconds), key=lambda lease: lease.expires_at)
