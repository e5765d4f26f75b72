"""One attempt on one file: a straight line from what was claimed to an outcome."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from inbox.core.errors import StorageError, classify_error, describe_error
from inbox.core.retry import delay_after, should_retry
from inbox.domain import ClaimedFile, Outcome
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.results import clean_result
from inbox.lifecycle import FileState
from inbox.pipeline.dispatching.breaker import trouble_of
from inbox.utils.clock import Clock


class Calls(Protocol):
    """What knows the right handler for a file, runs it, and returns what it returned."""

    @property
    def sole(self) -> str | None: ...
    def choose(self, file: File) -> HandlerSpec | None: ...
    def run(self, spec: HandlerSpec | None, file: File) -> Any: ...


@dataclass(frozen=True, slots=True)
class Attempting:
    """What an attempt needs beside the file."""

    handlers: Calls
    clock: Clock
    max_attempts: int
    base_delay_seconds: float
    excuse: Callable[[BaseException], StorageError | None] = lambda _error: None
    """Given what a handler raised, the volume's trouble that it came of, if any."""

    def attempt(self, claimed: ClaimedFile, file: File) -> Outcome | StorageError:
        """
        Run the handler and say what came of it. Never raises: whatever a handler raises becomes an outcome.

        That includes SystemExit and KeyboardInterrupt, since a handler does not decide about the service's life. An
        attempt that failed for the volume's sake comes to nothing: its trouble is returned.
        """
        began = self.clock.monotonic()
        spec = self.handlers.choose(file)
        try:
            result = self.handlers.run(spec, file)
            state, reason_code = FileState.SUCCESS, None
            if isinstance(result, Skip):
                state, reason_code, result = FileState.SKIPPED, result.reason_code, result.result
            result = clean_result(result)
        except BaseException as error:  # noqa: BLE001 - the one place that decides about a handler's surprises
            return self.excuse(error) or self._after(error, claimed, file, spec, self._milliseconds(began))
        return Outcome(
            doc_id=claimed.doc_id,
            token=claimed.token,
            state=state,
            finished_at=self.clock.now(),
            duration_ms=self._milliseconds(began),
            result=result,
            skip_reason=reason_code,
            handler=spec.name if spec else None,
            handler_version=spec.version if spec else None,
        )

    def _after(
        self, error: BaseException, claimed: ClaimedFile, file: File, spec: HandlerSpec | None, duration_ms: int
    ) -> Outcome:
        now = self.clock.now()
        again = should_retry(error, claimed.attempt, self.max_attempts)
        wait = delay_after(error, claimed.attempt, self.base_delay_seconds) if again else 0.0
        return Outcome(
            doc_id=claimed.doc_id,
            token=claimed.token,
            state=FileState.RETRYING if again else FileState.FAILED,
            finished_at=now,
            duration_ms=duration_ms,
            error_type=classify_error(error),
            error_message=describe_error(error),
            due_at=now + timedelta(seconds=wait) if again else None,
            handler=spec.name if spec else None,
            handler_version=spec.version if spec else None,
            trouble=trouble_of(error, names=(str(file.path), file.member_path, file.name, file.doc_id)),
        )

    def _milliseconds(self, began: float) -> int:
        return round((self.clock.monotonic() - began) * 1000)
