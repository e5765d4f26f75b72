"""
Reports: what a worker tells its supervisor about a paused handler, and what that comes to for the whole service.

A report is the one thing longer than a byte on that connection. There is one when a breaker opens and one when it
closes, never one for a file. A closing is passed on to the other workers: one that has nothing left to try would never
find out.
"""

import json
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from inbox.events import BreakerClosed, BreakerOpened, Emit
from inbox.utils.clock import Clock

_MARK: Final = b"{"


def opened_report(handler: str, cause: str, reason: str, *, failures: int, wait_seconds: float) -> bytes:
    """Return what a worker says when it pauses a handler, or learns of another cause meanwhile."""
    told = {"handler": handler, "cause": cause, "reason": reason, "failures": failures}
    return json.dumps(told | {"wait_seconds": round(wait_seconds, 1)}).encode()


def closed_report(handler: str, probes: int) -> bytes:
    """Return what a worker says when a handler works again."""
    return json.dumps({"handler": handler, "probes": probes}).encode()


def is_report(word: bytes) -> bool:
    return word.startswith(_MARK)


def recovered_handler(report: bytes) -> str | None:
    """Return the handler that works again, if that is what the report says."""
    told = json.loads(report)
    return None if "cause" in told else str(told["handler"])


@dataclass(slots=True)
class _Pause:
    since: float
    owners: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    reason: str = ""


class Pauses:
    """The handlers that some worker of this service has paused. May be asked from any thread."""

    def __init__(self, clock: Clock, emit: Emit) -> None:
        self._clock = clock
        self._emit = emit
        self._pauses: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def hear(self, owner: str, report: bytes) -> None:
        """Take in a report. The service says once that a handler is paused, once for each cause, and once the end."""
        told = json.loads(report)
        if "cause" in told:
            self._begin(owner, told)
        else:
            with self._lock:
                pause = self._pauses.pop(told["handler"], None)
            self._tell_end(told["handler"], pause, told["probes"])

    def forget(self, owner: str) -> None:
        """A worker has ended, and its pauses with it; whatever takes its place finds out for itself."""
        ended = []
        with self._lock:
            for handler, pause in list(self._pauses.items()):
                pause.owners.discard(owner)
                if not pause.owners:
                    ended.append((handler, self._pauses.pop(handler)))
        for handler, pause in ended:
            self._tell_end(handler, pause, 0)

    def reasons(self) -> dict[str, str]:
        """Return the handlers that are paused, by name, each with its latest cause in words."""
        with self._lock:
            return {handler: pause.reason for handler, pause in sorted(self._pauses.items())}

    def _begin(self, owner: str, told: dict[str, Any]) -> None:
        with self._lock:
            pause = self._pauses.setdefault(told["handler"], _Pause(self._clock.monotonic()))
            pause.owners.add(owner)
            is_new = told["cause"] not in pause.causes
            pause.causes.add(told["cause"])
            pause.reason = told["reason"]
        if is_new:
            self._emit(BreakerOpened(told["handler"], told["reason"], told["failures"], told["wait_seconds"]))

    def _tell_end(self, handler: str, pause: _Pause | None, probes: int) -> None:
        if pause is not None:
            self._emit(BreakerClosed(handler, round(self._clock.monotonic() - pause.since, 1), probes))
