"""Recording: outcomes are written in groups, by count and by time; each counts when its group has committed."""

import threading
from collections.abc import Callable
from typing import Final

from inbox.core.errors import DatabaseUnavailableError
from inbox.core.retry import retry_with_backoff
from inbox.database import work
from inbox.database.connection import Sessions
from inbox.domain import ClaimedFile, Outcome
from inbox.events import Emit, attempt_event

GROUP_SIZE: Final = 1000
GROUP_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 10.0


class Recorder:
    """
    Collects outcomes and writes them as groups.

    A full group is written by whoever completes it; one that is not full by a thread of its own after a tenth of a
    second, so that a slow handler does not keep earlier outcomes from being known. While the database does not answer,
    outcomes wait here and the worker with them.
    """

    def __init__(self, sessions: Sessions, emit: Emit, *, on_trouble: Callable[[], None] = lambda: None) -> None:
        self._sessions = sessions
        self._emit = emit
        self._group: list[tuple[ClaimedFile, Outcome]] = []
        self._lock = threading.Lock()
        self._filled = threading.Event()
        self._closing = threading.Event()
        self._write_patiently = retry_with_backoff(
            max_attempts=None,
            base_delay=0.2,
            max_delay=_PATIENCE_SECONDS,
            retryable_exceptions=(DatabaseUnavailableError,),
            on_backoff=lambda _details: on_trouble(),
        )(self._write)
        self._thread = threading.Thread(target=self._write_by_time, name="recorder", daemon=True)
        self._thread.start()

    def add(self, claimed: ClaimedFile, outcome: Outcome) -> None:
        with self._lock:
            self._group.append((claimed, outcome))
            if len(self._group) >= GROUP_SIZE:
                self._flush()
                return
        self._filled.set()

    def flush(self) -> None:
        """Write what is there; when this returns, every outcome added before counts or is known to be lost."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        self._closing.set()
        self._filled.set()
        self._thread.join()
        self.flush()

    def _write_by_time(self) -> None:
        while not self._closing.is_set():
            self._filled.wait()
            self._filled.clear()
            self._closing.wait(GROUP_SECONDS)
            self.flush()

    def _flush(self) -> None:
        if self._group:
            group, self._group = self._group, []
            self._write_patiently(group)

    def _write(self, group: list[tuple[ClaimedFile, Outcome]]) -> None:
        with self._sessions.writing() as session:
            counted = work.record_outcomes([outcome for _, outcome in group], session=session)
        for claimed, outcome in group:
            self._emit(attempt_event(claimed, outcome, counts=outcome.doc_id in counted))
