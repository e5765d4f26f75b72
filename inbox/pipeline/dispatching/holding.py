"""Holding: whether a worker's lease is still its own, known before each file and asked for seldom."""

from datetime import timedelta

from inbox.database import leasing
from inbox.database.connection import Sessions
from inbox.database.leasing import TRUST_SHARE
from inbox.utils.clock import Clock


class Hold:
    """
    A lease in a worker's hands.

    A confirmation is trusted for a third of the lease's life, counted from before it was asked for and also while the
    process is stopped or the machine suspended. Until then nobody can have taken the work over; after that only the
    database knows.
    """

    def __init__(self, token: str, life: timedelta, sessions: Sessions, clock: Clock, *, confirmed_at: float) -> None:
        self._token = token
        self._life = life
        self._sessions = sessions
        self._clock = clock
        self._confirmed_at = confirmed_at

    def is_trusted(self) -> bool:
        """Say, without asking, whether the lease is certainly ours."""
        return self._clock.boottime() - self._confirmed_at < self._life.total_seconds() * TRUST_SHARE

    def confirm(self) -> bool:
        """Ask the database, and extend the lease by the same statement; False when it was lost."""
        asked_at = self._clock.boottime()
        with self._sessions.writing() as session:
            held = leasing.confirm_lease(self._token, now=self._clock.now(), life=self._life, session=session)
        if held:
            self._confirmed_at = asked_at
        return held
