"""For how long something has been as it is, on one's own clock and no other."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Lasting(Generic[K]):
    """
    Counts the seconds for which successive looks have seen the same things.

    Only what lies between two looks counts, and of a long time between them no more than `longest_gap` seconds: whoever
    did not look, since it was stopped, suspended or busy, has seen nothing, and who is watched may have been in the
    same trouble.
    """

    def __init__(self, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self._seconds: dict[K, float] = {}
        self._looked_at: float | None = None

    def look(self, things: Iterable[K], *, began: float, ended: float) -> None:
        """Take account of a look that found these things, and lay between two times of one's own clock."""
        gap = 0.0 if self._looked_at is None else min(max(began - self._looked_at, 0.0), self._longest_gap)
        self._seconds = {thing: self._seconds[thing] + gap if thing in self._seconds else 0.0 for thing in things}
        self._looked_at = ended

    def forget(self) -> None:
        """Begin anew, since a look failed."""
        self._seconds.clear()
        self._looked_at = None

    def for_at_least(self, seconds: float) -> set[K]:
        """Return what has been seen for so long."""
        return {thing for thing, lasted in self._seconds.items() if lasted >= seconds}
