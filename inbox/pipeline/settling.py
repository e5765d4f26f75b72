"""
Settling: a drop is taken only when it is quiet *and* structurally complete.

Quiet alone proves nothing: Samba and Windows reserve the full size at once. Structure alone proves nothing either: a
writer may fill a hole last. So both together; and where the kernel can tell, nobody may have the drop open for writing.
Where it can, and the drop was seen to be closed or moved in, there is nothing left to be quiet about: it is taken at
once. A checksum error in a young drop counts as "still being written".
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from inbox.archives import Completeness, check_complete
from inbox.core.errors import NotSettledError, StorageError
from inbox.domain import Drop
from inbox.utils.ages import Ages
from inbox.utils.clock import Clock
from inbox.utils.drops import is_being_written, opened

UNREADABLE: Final = "UNREADABLE"
BEING_WRITTEN: Final = "BEING_WRITTEN"
BREATH_SECONDS: Final = 0.02
"""How long an announced drop has to be as it is: some clients (rsync --inplace) set its times only after its end."""
_MOST_ANNOUNCED: Final = 50_000
"""Kept while nobody judges, which may be an hour; one that is forgotten costs its drop the quiet time."""
_NEVER_KEPT: Final = frozenset({UNREADABLE, BEING_WRITTEN})
"""Permission may come, and a writer go, without a change that the scan could see: such a verdict is not kept."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A drop that may be taken."""

    drop: Drop


@dataclass(frozen=True, slots=True)
class Waiting:
    """A drop that is quiet and still not whole, with the reason."""

    drop: Drop
    completeness: Completeness


@dataclass(frozen=True, slots=True)
class Look:
    """What a look inside a drop showed; `is_closed` when nobody has it open for writing, for certain."""

    completeness: Completeness
    is_closed: bool = False


@dataclass(slots=True)
class _Watched:
    drop: Drop
    since: float
    look: Look | None = None
    held_until: float = 0.0
    early_at: float | None = None
    """When it may be looked at without being quiet, since it was announced."""


class Settler:
    """
    Remembers since when each drop has not changed, and judges its structure once it has been quiet long enough.

    A drop that was there before the service is judged by the same gate: its age on the file system's clock counts only
    when `trust_age` says that this clock is our own. `take_closed` says that a drop which was announced, and which
    nobody has open, need not be quiet.
    """

    def __init__(self, quiet: timedelta, clock: Clock, *, trust_age: bool, take_closed: bool = False) -> None:
        self._quiet = quiet.total_seconds()
        self._clock = clock
        self._trust_age = trust_age
        self._take_closed = take_closed
        self._ages = Ages(clock)
        self._watched: dict[str, _Watched] = {}
        self._announced: deque[tuple[str, float]] = deque(maxlen=_MOST_ANNOUNCED)
        self._unseen: dict[str, float] = {}

    def announce(self, name: str) -> None:
        """Note that a drop was just made, closed or moved in. May be called by another thread."""
        if self._take_closed:
            self._announced.append((name, self._clock.monotonic()))

    def judge(self, drops: Iterable[Drop]) -> Iterator[Settled | Waiting]:
        """
        Yield every drop that is quiet: settled, or waiting with a reason. Drops not named any more are forgotten.

        Raises StorageError after the others when there were some that the volume did not let us look at.
        """
        met: StorageError | None = None
        present = list(drops)
        names = {drop.name for drop in present}
        self._forget_all_but(names)
        announced = self._take_announcements(names)
        for drop in present:
            watched = self._watch(drop)
            if drop.name in announced:
                watched.early_at = announced[drop.name] + BREATH_SECONDS
            is_quiet = self._is_quiet(watched)
            if not is_quiet and not self._may_be_closed(watched):
                continue
            watched.early_at = None
            try:
                look = self._look(drop, watched, is_quiet=is_quiet)
            except StorageError as error:
                met = met or error
                continue
            if look is None:
                continue
            if is_quiet and not look.completeness.complete:
                yield Waiting(drop, look.completeness)
            elif look.completeness.complete and (is_quiet or look.is_closed):
                yield Settled(drop)
        if met is not None:
            raise met

    def _look(self, drop: Drop, watched: _Watched, *, is_quiet: bool) -> Look | None:
        """Return what a look inside shows, or has shown; None when the drop changed or went since the scan."""
        if watched.look is None or watched.look.completeness.reason_code in _NEVER_KEPT:
            try:
                watched.look = look_inside(drop)
            except NotSettledError:
                if is_quiet:
                    self.hold(drop, self._quiet)
                return None
        return watched.look

    def hold(self, drop: Drop, seconds: float) -> None:
        """Look at this drop again only after so many seconds, and then from the start: it was not whole after all."""
        watched = self._watch(drop)
        watched.look = None
        watched.held_until = self._clock.monotonic() + seconds

    def leave(self, drop: Drop, verdict: Completeness) -> None:
        """Take somebody else's word that this drop is not whole, until it changes."""
        self._watch(drop).look = Look(verdict)

    def age_of(self, drop: Drop) -> float:
        """
        Return for how many seconds a drop has been as it is.

        By its times, or by how long it has been watched: its writer may have set times that are still to come.
        """
        told = self._ages.seconds_since(drop.changed_at)
        return max(told, self._clock.monotonic() - self._watch(drop).since)

    def next_look_in(self) -> float | None:
        """Return the seconds until the next drop may have become quiet, or None when none is under way."""
        now = self._clock.monotonic()
        waits = [
            self._next_at(watched) - now
            for watched in self._watched.values()
            if watched.look is None or self._quiet_at(watched) > now  # the latter after an early look
        ]
        return max(min(waits), 0.0) if waits else None

    def _take_announcements(self, names: set[str]) -> dict[str, float]:
        """Return when each drop was announced. One that came too late for this scan is in the next, or gone."""
        fresh = dict(self._announced.popleft() for _ in range(len(self._announced)))
        announced = self._unseen | fresh
        self._unseen = {name: at for name, at in fresh.items() if name not in names}
        return announced

    def _watch(self, drop: Drop) -> _Watched:
        """Begin anew when anything changed: a writer may have reserved the size and set the time itself."""
        watched = self._watched.get(drop.name)
        if watched is None or watched.drop != drop:
            age = max(self._ages.seconds_since(drop.changed_at), 0.0) if self._trust_age else 0.0
            first_look = watched is None
            since = self._clock.monotonic() - (age if first_look else min(age, self._quiet))
            was_announced = watched is not None and watched.early_at is not None
            early_at = self._clock.monotonic() + BREATH_SECONDS if was_announced else None
            watched = self._watched[drop.name] = _Watched(drop, since, early_at=early_at)
        return watched

    def _may_be_closed(self, watched: _Watched) -> bool:
        return watched.early_at is not None and self._clock.monotonic() >= max(watched.early_at, watched.held_until)

    def _next_at(self, watched: _Watched) -> float:
        quiet_at = self._quiet_at(watched)
        return quiet_at if watched.early_at is None else min(quiet_at, max(watched.early_at, watched.held_until))

    def _quiet_at(self, watched: _Watched) -> float:
        return max(watched.since + self._quiet, watched.held_until)

    def _is_quiet(self, watched: _Watched) -> bool:
        return self._clock.monotonic() >= self._quiet_at(watched)

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._watched.keys() - names:
            del self._watched[name]


def look_inside(drop: Drop) -> Look:
    """
    Judge the structure of a drop, without changing it.

    One that we may not read waits like one that is not whole: its owner's mistake must not hold up the others.
    Raises NotSettledError when it is no longer the file that was scanned, StorageError when the volume is in trouble.
    """
    try:
        with opened(drop) as fd:
            completeness = check_complete(fd)
            is_final = completeness.complete or completeness.is_no_archive
            is_written = is_being_written(fd) if is_final else None
            if is_written:
                reason = "somebody has it open for writing"
                return Look(Completeness(complete=False, reason_code=BEING_WRITTEN, reason=reason))
            return Look(completeness, is_closed=is_written is False)
    except StorageError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        reason = f"user {os.geteuid()} may not read it"
        return Look(Completeness(complete=False, reason_code=UNREADABLE, reason=reason))
