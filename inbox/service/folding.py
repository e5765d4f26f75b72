"""
Folding: many lines with one cause become one line with their number.

The first few of a cause within a minute are written in full, the rest is counted and told when the minute is over, and
at the end of the process. A database that refuses a thousand results, or a drop of a million files, does not push
everything else out of the log. Each process folds what it writes itself.
"""

import re
import threading
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from inbox import events
from inbox.events import Emit, Event
from inbox.utils.clock import Clock

FOLDED_SECONDS: Final = 60.0
SUCCESSES_TO_ONE: Final = 10
"""So many times as many successes are written in full, since nothing is wrong with them."""
_MOST_GROUPS: Final = 1000
_MOST_CHARS_READ: Final = 2000
_MOST_CHARS: Final = 300
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|«[^»]*»|“[^”]*”")
_NUMBER: Final = re.compile(r"\b(?=[0-9a-fA-F]*\d)(?:0x)?[0-9a-fA-F]{8,}\b|\d+(?:[.,:]\d+)*")
_LEFT_OUT: Final = "…"

Key: TypeAlias = tuple[str, ...]
_PLURAL: Final[dict[type[Event], type[events.Folded]]] = {
    events.AttemptSucceeded: events.AttemptsSucceeded,
    events.AttemptSkipped: events.AttemptsSkipped,
    events.AttemptFailed: events.AttemptsFailed,
    events.AttemptToRepeat: events.AttemptsToRepeat,
    events.OutcomeLost: events.OutcomesLost,
}


def cause_of(error: str, member_path: str = "") -> str:
    """Return what a message says without what differs from file to file: names, paths, quoted parts, numbers."""
    text = " ".join(error[:_MOST_CHARS_READ].split())
    name = member_path.rpartition("/")[2]
    for own in (member_path, name, name.rpartition(".")[0]):
        if len(own) > 2:  # noqa: PLR2004 - shorter ones stand in any word
            text = text.replace(own, _LEFT_OUT)
    text = _QUOTED.sub(_LEFT_OUT, text)
    text = " ".join(_LEFT_OUT if "/" in word or "\\" in word else word for word in text.split(" "))
    return _NUMBER.sub(_LEFT_OUT, text)[:_MOST_CHARS]


def key_of(event: Event) -> Key | None:
    """Return what events have in common that may be folded together; None for those that never are."""
    match event:
        case events.AttemptSucceeded():
            return ("succeeded", event.batch_id)
        case events.AttemptSkipped():
            return ("skipped", event.reason_code)
        case events.AttemptFailed():
            return ("failed", event.error_type, cause_of(event.error, event.member_path))
        case events.AttemptToRepeat():
            return ("repeated", event.error_type, cause_of(event.error, event.member_path))
        case events.OutcomeLost():
            return ("lost",)
    return None


@dataclass(slots=True)
class _Group:
    """Events of one cause since `began`; `count` of them were not written, of which `last` is one."""

    began: float
    written: int = 0
    count: int = 0
    last: Event | None = None


class Folding:
    """
    Hands events on to `tell`, those of one cause up to `same_cause` a minute, and then their number.

    `by` says in the line whose number it is. With a `same_cause` of 0 every event is handed on. May be called by
    several threads; a thread of its own tells what is over when no further event comes. Leaving the block tells the
    rest.
    """

    def __init__(
        self, tell: Emit, clock: Clock, *, same_cause: int, by: str, folded_seconds: float = FOLDED_SECONDS
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._same_cause = same_cause
        self._by = by
        self._folded_seconds = folded_seconds
        self._groups: dict[Key, _Group] = {}
        self._changed = threading.Condition()
        self._is_over = same_cause == 0

    def __enter__(self) -> Self:
        if not self._is_over:
            threading.Thread(target=self._tell_by_time, name="folding", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_over = True
            for group in self._groups.values():
                self._end(group)
            self._groups.clear()
            self._changed.notify()

    def __call__(self, event: Event) -> None:
        key = None if self._is_over else key_of(event)
        if key is None:
            self._tell(event)
            return
        with self._changed:
            if not self._counts(key, event):
                self._tell(event)

    def tell_ended(self) -> float | None:
        """Tell the numbers of the minutes that are over; return in how many seconds the next one is, or None."""
        with self._changed:
            over = self._clock.monotonic() - self._folded_seconds
            for key in [key for key, group in self._groups.items() if group.began <= over]:
                self._end(self._groups.pop(key))
            return min((group.began - over for group in self._groups.values()), default=None)

    def _counts(self, key: Key, event: Event) -> bool:
        """Say whether the event is one too many of its minute, and count it."""
        now = self._clock.monotonic()
        group = self._groups.get(key)
        if group is not None and group.began <= now - self._folded_seconds:
            self._end(self._groups.pop(key))
            group = None
        if group is None:
            if self._is_over or len(self._groups) >= _MOST_GROUPS:
                return False
            group = self._groups[key] = _Group(now)
            self._changed.notify()
        if group.written < self._same_cause * (SUCCESSES_TO_ONE if key[0] == "succeeded" else 1):
            group.written += 1
            return False
        group.count += 1
        group.last = event
        return True

    def _end(self, group: _Group) -> None:
        if group.last is not None:
            seconds = round(min(self._clock.monotonic() - group.began, self._folded_seconds), 1)
            self._tell(_folded(group.last, group.count, seconds, self._by))

    def _tell_by_time(self) -> None:
        with self._changed:  # also between looking and waiting, or a first event might come unnoticed
            while not self._is_over:
                self._changed.wait(self.tell_ended())


def _folded(example: Event, times: int, seconds: float, by: str) -> Event:
    kind = _PLURAL[type(example)]
    values: dict[str, Any] = {"times": times, "seconds": seconds, "by": by}
    return kind(
        **values, **{item.name: getattr(example, item.name) for item in fields(kind) if item.name not in values}
    )
