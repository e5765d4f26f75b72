"""The heartbeat: what the living hold is extended, and all leases are looked at for what nobody extends any more."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta

from inbox.database import leasing
from inbox.database.connection import Sessions, retry_when_busy
from inbox.pipeline.observing import Observer
from inbox.utils.clock import Clock


@dataclass
class Heartbeat:
    """
    Beats for `owners`, then looks; `on_over` is called when somebody's lease is over.

    In this order, and as one: an observer that cannot beat does not judge others either.
    """

    sessions: Sessions
    clock: Clock
    life: timedelta
    owners: Callable[[], Collection[str]]
    observer: Observer
    on_over: Callable[[], None]

    def round(self) -> None:
        """Raises DatabaseUnavailableError; the observation begins anew then, so that the others may beat first too."""
        try:
            self._beat()
        except BaseException:
            self.observer.forget()
            raise
        if self.observer.look():
            self.on_over()

    @retry_when_busy
    def _beat(self) -> None:
        with self.sessions.writing() as session:
            leasing.extend_leases(self.owners(), now=self.clock.now(), life=self.life, session=session)
