"""
A leg: one round, again and again, in a thread of its own.

Trouble with the database or the volume does not end a leg: that is told once, the leg waits with backoff, and it is
told when it goes on. Trouble of one drop alone does not hold up the others: the next round comes when it is due. A
surprise is logged with its traceback and treated the same, since a service that ends has helped nobody.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final

from inbox.core.errors import RetryableError, StorageError, describe_error
from inbox.core.retry import calculate_backoff
from inbox.events import Emit
from inbox.service.troubles import Troubles, is_of_database
from inbox.utils.clock import Bell, Clock

_logger = logging.getLogger("inbox")
_BASE_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 30.0
_LONGEST_WITHOUT_DATABASE_SECONDS: Final = 5.0
"""Asking for a connection costs little, and everybody waits for the answer."""


class Leg:
    """
    Calls `round` whenever the bell rings or `interval()` seconds have passed, until told to stop.

    After trouble it waits with backoff, `longest_wait` seconds at the most.
    """

    def __init__(
        self,
        name: str,
        round_: Callable[[], None],
        *,
        interval: Callable[[], float],
        clock: Clock,
        emit: Emit,
        longest_wait: float = _LONGEST_SECONDS,
        troubles: Troubles | None = None,
    ) -> None:
        self.name = name
        self.bell = Bell()
        self.trouble: str | None = None
        self.is_held_up = False
        """Whether the trouble is that of all drops, and not of one alone."""
        self._round = round_
        self._interval = interval
        self._longest_wait = longest_wait
        self._troubles = troubles or Troubles(clock, emit)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the leg to end after its present round."""
        self._stopping.set()
        self.bell.ring()

    def join(self, seconds: float) -> bool:
        """Wait for the end; False when it is still in its round."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self.is_stopping:
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 - a leg goes on, whatever happens in a round
                self._complain(error)
                self.is_held_up = not (isinstance(error, StorageError) and not error.is_for_all)
                if not self.is_held_up:
                    self._rest()
                else:
                    longest = _LONGEST_WITHOUT_DATABASE_SECONDS if is_of_database(error) else _LONGEST_SECONDS
                    longest = min(longest, self._longest_wait)
                    self._stopping.wait(calculate_backoff(failures, _BASE_SECONDS, longest))
                failures += 1
                continue
            if failures:
                failures, self.trouble, self.is_held_up = 0, None, False
                self._troubles.end(self.name)
            self._rest()

    def _rest(self) -> None:
        if not self.is_stopping:
            self.bell.wait(self._interval())

    def _complain(self, error: Exception) -> None:
        """Say each trouble once."""
        self.trouble = describe_error(error)
        is_new = self._troubles.begin(self.name, error)
        if is_new and not isinstance(error, RetryableError) and not is_of_database(error):
            _logger.error("%s met a surprise", self.name, exc_info=error)
