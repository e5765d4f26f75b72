"""What is done to the fleet, its database and its volume: one fault after the other, as the seed says."""

import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from database import Database
from dropping import Steps
from fleet import LEASE_SECONDS, Fleet, Replica
from ledger import Ledger
from volume import Volume

KILL, TERM = signal.SIGKILL, signal.SIGTERM
RESTART_SECONDS: Final = 1.5
"""The longest pause before a replica that was ended is started again."""
GAP_SECONDS: Final = 1.5
"""Between two faults, on average."""
END_SECONDS: Final = 20.0
"""After an orderly end was asked for."""

ON_REPLICAS: Final = {
    "kill of all": 4.0,
    "kill of the main process": 3.0,
    "kill of a child": 8.0,
    "orderly end": 3.0,
    "end asked twice": 1.5,
    "pause": 2.0,
    "pause beyond the lease": 2.0,
    "pause of a child": 2.0,
}
ON_VOLUME: Final = {"volume full": 1.0, "volume read-only": 0.7, "volume gone": 0.7}
KILLS: Final = frozenset({"kill of all", "kill of the main process", "kill of a child"})


@dataclass
class Harm:
    """Makes the faults of one seed. What is busy with one fault is spared the next."""

    fleet: Fleet
    database: Database
    volume: Volume
    ledger: Ledger
    seed: int
    wanted: frozenset[str] = frozenset()
    """Only these kinds; empty for all."""
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    _number: int = 0
    _busy: set[str] = field(default_factory=set)

    def kinds(self) -> dict[str, float]:
        volume = ON_VOLUME if self.volume.can_fail else {}
        kinds = ON_REPLICAS | self.database.faults() | volume
        return {kind: share for kind, share in kinds.items() if not self.wanted or kind in self.wanted}

    def next(self) -> tuple[Steps | None, float]:
        """Return the steps of the next fault, None when what it is for is busy, and the pause before the one after."""
        chance = random.Random(f"{self.seed}/fault/{self._number}")
        self._number += 1
        gap = min(chance.expovariate(1 / GAP_SECONDS), 4 * GAP_SECONDS)
        kinds = self.kinds()
        if not kinds:
            return None, gap
        (kind,) = chance.choices(list(kinds), list(kinds.values()))
        replica = chance.choice(self.fleet.replicas)
        if kind in ON_REPLICAS:
            place, steps = f"replica {replica.number}", self._on_replica(replica, kind, chance)
        elif kind in ON_VOLUME:
            place, steps = "volume", self._on_volume(kind, chance)
        else:
            place, steps = "database", self.database.harm(kind, chance)
        if place in self._busy:
            return None, gap
        return self._one(place, kind, steps), gap

    def _one(self, place: str, kind: str, steps: Steps) -> Steps:
        self._busy.add(place)
        self.counts[kind] += 1
        try:
            yield from steps
        finally:
            self._busy.discard(place)

    def _on_replica(self, replica: Replica, kind: str, chance: random.Random) -> Steps:
        if not replica.is_running:
            self.counts[kind] -= 1
            return
        replica.is_harmed = True
        try:
            match kind:
                case "kill of a child" | "pause of a child":
                    yield from self._on_child(replica, kind, chance)
                case "pause" | "pause beyond the lease":
                    yield from self._pause(replica, [replica.name], replica.everybody, kind, chance)
                case _:
                    yield from self._end(replica, kind, chance)
        finally:
            replica.is_harmed = False

    def _on_child(self, replica: Replica, kind: str, chance: random.Random) -> Steps:
        children = replica.children()
        if not children:  # it has only just begun
            self.counts[kind] -= 1
            return
        child = chance.choice(children)
        if kind == "pause of a child":
            yield from self._pause(replica, [f"{replica.name}/{child}"], lambda: [child], kind, chance)
            return
        self.ledger.note_victims([f"{replica.name}/{child}"], kind)
        replica.send(KILL, [child])

    def _pause(
        self, replica: Replica, names: list[str], whom: Callable[[], list[int]], kind: str, chance: random.Random
    ) -> Steps:
        longest = LEASE_SECONDS * (0.6 if kind == "pause" else 2.0)
        shortest = 0.2 if kind == "pause" else LEASE_SECONDS * 1.1
        pids = whom()
        self.ledger.note_victims(names, kind)
        replica.send(signal.SIGSTOP, pids)
        yield chance.uniform(shortest, longest)
        replica.send(signal.SIGCONT, pids)
        self.ledger.note_victims(names, f"{kind} over")

    def _end(self, replica: Replica, kind: str, chance: random.Random) -> Steps:
        self.ledger.note_victims([replica.name], kind)
        had_begun = replica.has_begun()
        match kind:
            case "kill of all":
                replica.send(KILL, replica.everybody())
            case "kill of the main process":
                replica.send(KILL, replica.main())
            case "orderly end":
                replica.send(TERM, replica.main())
            case "end asked twice":
                replica.send(TERM, replica.main())
                yield chance.uniform(0.0, 2.0)
                replica.send(TERM, replica.main())
        waited = 0.0
        while replica.is_running and waited < END_SECONDS:
            yield 0.1
            waited += 0.1
        if replica.is_running:
            self.notes.append(f"{replica.name} was still there {END_SECONDS:g} s after: {kind}")
            replica.send(KILL, replica.everybody())
            yield 0.5
        elif kind == "orderly end" and had_begun and replica.process.returncode != 0:
            self.notes.append(f"{replica.name} ended with {replica.process.returncode} after: {kind}")
        yield chance.uniform(0.0, RESTART_SECONDS)
        replica.start()

    def _on_volume(self, kind: str, chance: random.Random) -> Steps:
        match kind:
            case "volume full":
                self.volume.fill()
                yield chance.uniform(0.5, 5.0)
                self.volume.empty()
            case "volume read-only":
                self.volume.make_read_only()
                yield chance.uniform(0.5, 4.0)
                self.volume.give_back()
            case "volume gone":
                self.volume.take_away()
                yield chance.uniform(0.5, 4.0)
                self.volume.give_back()
