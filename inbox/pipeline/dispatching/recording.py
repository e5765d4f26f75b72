"""Recording: outcomes are written in groups, by count and by time; each counts when its group has committed."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from inbox.core.errors import DatabaseUnavailableError
from inbox.core.retry import retry_with_backoff
from inbox.database import work
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import ClaimedFile, Outcome
from inbox.events import Emit, attempt_event

GROUP_SIZE: Final = 1000
GROUP_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 5.0


def _nothing() -> None:
    """Nobody wants to know."""


class Recorder:
    """
    Collects outcomes and writes them as groups.

    A full group is written by whoever completes it; one that is not full by a thread of its own after a tenth of a
    second, so that a slow handler does not keep earlier outcomes from being known. While the database does not answer,
    outcomes wait here and the worker with them: `on_trouble` is called at each failure, `on_relief` when it is over.
    Outcomes that the database refuses stay here, and whoever adds or flushes next gets its error.
    """

    def __init__(
        self,
        sessions: Sessions,
        emit: Emit,
        *,
        on_trouble: Callable[[], None] = _nothing,
        on_relief: Callable[[], None] = _nothing,
    ) -> None:
        self._sessions = sessions
        self._emit = emit
        self._on_trouble = on_trouble
        self._on_relief = on_relief
        self._troubled = False
        self._is_in_doubt = False
        """Whether the group may have been written, and the answer lost."""
        self._group: list[tuple[ClaimedFile, Outcome]] = []
        self._lock = threading.Lock()
        self._filled = threading.Event()
        self._closing = threading.Event()
        self._record_patiently = retry_with_backoff(
            max_attempts=None,
            base_delay=0.2,
            max_delay=_PATIENCE_SECONDS,
            retryable_exceptions=(DatabaseUnavailableError,),
            on_backoff=lambda _details: self._complain(),
        )(self._record)
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
            with suppress(Exception):  # the worker's own flush meets it too, and there it ends the worker
                self.flush()

    def _flush(self) -> None:
        if not self._group:
            return
        counted = self._record_patiently([outcome for _, outcome in self._group])
        group, self._group = self._group, []
        self._is_in_doubt = False
        if self._troubled:
            self._troubled = False
            self._on_relief()
        for claimed, outcome in group:
            self._emit(attempt_event(claimed, outcome, counts=outcome.doc_id in counted))

    def _record(self, outcomes: list[Outcome]) -> set[str]:
        try:
            return self._write(outcomes)
        except DatabaseUnavailableError:
            self._is_in_doubt = True
            raise

    @retry_when_busy
    def _write(self, outcomes: list[Outcome]) -> set[str]:
        """Write the group; after an answer that was lost, what was written then counts as well."""
        with self._sessions.writing() as session:
            counted = work.record_outcomes(outcomes, session=session)
            if self._is_in_doubt and len(counted) < len(outcomes):
                counted |= work.find_recorded(outcomes, session=session)
        return counted

    def _complain(self) -> None:
        self._troubled = True
        self._on_trouble()
