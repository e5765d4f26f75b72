"""Postponing: drops that have to wait for their time, or for room on the volume, without being read again."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from inbox.domain import Drop, DropIdentity
from inbox.pipeline.extracting import NoRoomError
from inbox.utils.clock import Clock
from inbox.utils.volume import Volume

_ROOM_SECONDS: Final = 5.0
"""How soon the volume is asked again whether it has room."""


@dataclass
class Postponing:
    """Remembers by name what has to wait, and how often in a row."""

    volume: Volume
    clock: Clock
    _due_at: dict[str, float] = field(default_factory=dict)
    _setbacks: dict[str, int] = field(default_factory=dict)
    """How often in a row trouble had the drop put off."""
    _without_room: dict[str, tuple[DropIdentity, NoRoomError]] = field(default_factory=dict)
    """Drops that need more room than there was, so that they are not read again before there is."""

    def forget_all_but(self, names: Collection[str]) -> None:
        """Forget other drops, and times that have come: one that is not whole any more will not be asked for."""
        for memory in (self._due_at, self._setbacks, self._without_room):
            for name in memory.keys() - names:
                del memory[name]
        now = self.clock.monotonic()
        for name in [name for name, due_at in self._due_at.items() if due_at <= now]:
            del self._due_at[name]

    def postpone(self, drop: Drop, seconds: float) -> None:
        self._due_at[drop.name] = self.clock.monotonic() + seconds

    def is_due(self, drop: Drop) -> bool:
        if self.clock.monotonic() < self._due_at.get(drop.name, 0.0):
            return False
        self._due_at.pop(drop.name, None)
        return True

    def is_waiting(self, name: str) -> bool:
        """Say whether the drop of this name still has its time before it."""
        return name in self._due_at

    def next_in(self) -> float | None:
        """Return the seconds until the next drop is due; less than 0 when it has been."""
        return min(self._due_at.values()) - self.clock.monotonic() if self._due_at else None

    def setbacks_of(self, drop: Drop) -> int:
        return self._setbacks.get(drop.name, 0)

    def count_setback(self, drop: Drop) -> int:
        """Count another setback; returns how many there were before."""
        before = self._setbacks.get(drop.name, 0)
        self._setbacks[drop.name] = before + 1
        return before

    def end_setbacks(self, drop: Drop) -> None:
        self._setbacks.pop(drop.name, None)

    def lacks_room(self, drop: Drop, error: NoRoomError) -> None:
        self._without_room[drop.name] = (drop.identity, error)

    def lacks_no_room(self, drop: Drop) -> None:
        self._without_room.pop(drop.name, None)

    def has_room(self, drop: Drop) -> bool:
        """Say whether there may be room for a drop by now; one that found none need not be read to know it."""
        identity, error = self._without_room.get(drop.name, (None, None))
        if error is None or identity != drop.identity or error.is_over(self.volume.extracted):
            return True
        self.postpone(drop, _ROOM_SECONDS)
        return False

    def want_of_room(self) -> NoRoomError | None:
        """Return what the first of the drops without room lacks."""
        return next((error for _, error in self._without_room.values()), None)
