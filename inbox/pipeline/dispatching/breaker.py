"""
The circuit breaker: when a handler fails for a reason that is not the file's, files wait instead of failing.

It keeps the latest outcomes of one handler. When nearly all of them failed for one cause, the endpoint is down or a
library is broken, and the next files would fail likewise: it opens, and lets one file through after each wait, to
see. Errors about the content of a file never open it, since an archive of encrypted documents is no outage. Time comes
in as an argument, and so does chance.
"""

import math
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final

from inbox.core.errors import ConfigurationError, ErrorType, WorkerError, classify_error, describe_error
from inbox.core.errors import retry_after_seconds as asked_seconds
from inbox.core.retry import LONGEST_WAIT_SECONDS, calculate_backoff
from inbox.domain import Trouble

SHARE: Final = 0.8
"""Of the latest outcomes, so many failed for one cause when it opens."""
LEAST_OUTCOMES: Final = 5
WAIT_BASE_SECONDS: Final = 1.0
WAIT_MAX_SECONDS: Final = 60.0

_ABOUT_THE_FILE: Final = frozenset({ErrorType.PARSE_ERROR, ErrorType.PERMANENT})
_REFUSES_EVERY_FILE: Final = re.compile(r"HTTP_(3\d\d|401|403|405|407)")
"""Answers that are about the address or the credentials, whatever file was sent (RFC 9110, 15.4 and 15.5)."""

_QUOTED: Final = re.compile(r"“[^”]*”|\"[^\"]*\"|'[^']*'|`[^`]*`")
_PATH: Final = re.compile(r"\S*/\S*")
_NUMBER: Final = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b", re.IGNORECASE)


def trouble_of(error: BaseException, *, names: Iterable[str] = ()) -> Trouble | None:
    """
    Return what an error says about the handler, or None when it is about the file alone.

    Two errors have the same cause when type and message agree but for numbers, quoted parts, paths and these `names`.
    No wish for patience is longer than a day.
    """
    error_type = classify_error(error)
    code = error.reason_code if isinstance(error, WorkerError) else ""
    is_for_all = isinstance(error, ConfigurationError) or _REFUSES_EVERY_FILE.fullmatch(code) is not None
    if error_type in _ABOUT_THE_FILE and not is_for_all:
        return None
    text = describe_error(error)
    shape = text
    for name in sorted(filter(None, names), key=len, reverse=True):
        shape = shape.replace(name, "…")
    for pattern in (_QUOTED, _PATH, _NUMBER):
        shape = pattern.sub("…", shape)
    asked = asked_seconds(error)
    return Trouble(
        f"{error_type} {code} {shape}",
        f"{error_type}: {text}",
        None if asked is None else min(asked, LONGEST_WAIT_SECONDS),
    )


def share_of(outcomes: int, workers: int) -> int:
    """
    Return how many outcomes one of so many workers looks at, so that all together look at about `outcomes`.

    At least a few: two failures in a row are nobody's outage. 0 stays 0.
    """
    return min(outcomes, max(math.ceil(outcomes / workers), LEAST_OUTCOMES))


class Effect(Enum):
    """What an outcome did to the breaker."""

    NONE = auto()
    OPENED = auto()
    HELD = auto()
    """A probe failed for a cause already known: this attempt says nothing about its file."""
    CHANGED = auto()
    """A probe failed for another cause, which is known from now on."""
    CLOSED = auto()


class Breaker:
    """
    The breaker of one handler in one worker process.

    While it is open, `cause` and `reason` tell why, of the latest failure, and `probes` counts the files let through.
    """

    def __init__(self, outcomes: int, *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """`outcomes` is how many of the latest are looked at, at least 1."""
        self._size = outcomes
        self._uniform = uniform
        self._latest: deque[tuple[str | None, str]] = deque(maxlen=outcomes)
        self._known: set[str] = set()
        self._probe_at = 0.0
        self.is_open = False
        self.cause = ""
        self.reason = ""
        self.failures = 0
        self.probes = 0
        self.charged: tuple[str, ...] = ()
        """The files whose failures opened it, in order, each as often as it failed."""

    def seconds_to_probe(self, now: float) -> float:
        """Return how long no file may be handed to the handler; 0 when one may, as any while it is closed."""
        return max(self._probe_at - now, 0.0) if self.is_open else 0.0

    def note(self, doc_id: str, trouble: Trouble | None, now: float) -> Effect:
        """Take in the outcome of one file: None when the handler worked, whatever it said about the file."""
        return self._note_probe(trouble, now) if self.is_open else self._note_closed(doc_id, trouble, now)

    def close(self) -> None:
        """Take another worker's word for it that the handler works again."""
        self.is_open, self.charged = False, ()

    def _note_closed(self, doc_id: str, trouble: Trouble | None, now: float) -> Effect:
        self._latest.append((trouble.cause if trouble else None, doc_id))
        if trouble is None or len(self._latest) < self._size:
            return Effect.NONE
        failures = Counter(cause for cause, _ in self._latest)[trouble.cause]
        if failures < SHARE * self._size:
            return Effect.NONE
        self.is_open, self.failures, self.probes = True, failures, 0
        self.charged = tuple(doc_id for cause, doc_id in self._latest if cause == trouble.cause)
        self._known = {trouble.cause}
        self._latest.clear()
        self._wait(trouble, now)
        return Effect.OPENED

    def _note_probe(self, trouble: Trouble | None, now: float) -> Effect:
        self.probes += 1
        if trouble is None:
            self.close()
            return Effect.CLOSED
        self._wait(trouble, now)
        if trouble.cause in self._known:
            return Effect.HELD
        self._known.add(trouble.cause)
        return Effect.CHANGED

    def _wait(self, trouble: Trouble, now: float) -> None:
        """The schedule, or longer when the other side asked for it."""
        scheduled = calculate_backoff(self.probes, WAIT_BASE_SECONDS, WAIT_MAX_SECONDS, uniform=self._uniform)
        self.cause, self.reason = trouble.cause, trouble.reason
        self._probe_at = now + max(scheduled, trouble.retry_after_seconds or 0.0)
