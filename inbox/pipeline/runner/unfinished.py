"""Unfinished claims: those that were in hand when the database stopped answering, and nobody else would give back."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from inbox import events
from inbox.database.connection import Sessions
from inbox.events import Emit
from inbox.pipeline.claiming import give_back
from inbox.pipeline.unpackers.fates import Claiming
from inbox.utils.clock import Clock

_LATEST_SECONDS: Final = 900.0
"""For how long a server may carry out what it was asked to before its answer was given up."""


def released(claiming: Claiming) -> events.BatchReleased:
    """Return what is told of a claim that was given back."""
    reason = "its claim could not be ended while the database did not answer"
    return events.BatchReleased(claiming.batch_id, claiming.drop_name, "UNFINISHED", reason)


@dataclass
class UnfinishedClaims:
    """
    Gives them back as soon as the database answers, and for a while longer.

    The server may carry a claim out long after its answer was given up, and our own heartbeat would keep it alive.
    """

    sessions: Sessions
    clock: Clock
    emit: Emit
    _fresh: list[Claiming] = field(default_factory=list)
    _watched: list[tuple[Claiming, float]] = field(default_factory=list)
    """Claims that the database did not have, each with the time until when it is asked again."""

    def __bool__(self) -> bool:
        """Say whether the database is still to be asked about one."""
        return bool(self._fresh)

    def add(self, claiming: Claiming) -> None:
        self._watched = [each for each in self._watched if each[0] != claiming]
        self._fresh.append(claiming)

    def give_back(self, in_hand: Collection[str]) -> bool:
        """
        Give back what there is, except of drops that are in hand again; True when one may have come to its end.

        Raises DatabaseUnavailableError.
        """
        now, changed = self.clock.monotonic(), bool(self._fresh)
        self._watched = [(claiming, until) for claiming, until in self._watched if now < until]
        for watched in [each for each in self._watched if each[0].drop_name not in in_hand]:
            if self._give_back(watched[0]):
                self._watched.remove(watched)
                changed = True
        while self._fresh:
            if not self._give_back(self._fresh[0]):
                self._watched.append((self._fresh[0], now + _LATEST_SECONDS))
            self._fresh.pop(0)
        return changed

    def _give_back(self, claiming: Claiming) -> bool:
        had_it = give_back(claiming.batch_id, claiming.owner, self.sessions, self.clock, drop_name=claiming.drop_name)
        if had_it:
            self.emit(released(claiming))
        return had_it
