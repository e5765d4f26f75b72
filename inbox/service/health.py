"""Whether the service lives, and whether it can do its work now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Health:
    """
    The answers of the probes: `checks` maps each part to None when it is well, else to what ails it.

    `watching` tells how drops are found: that may be slower than usual, and nothing is the matter. `notes` tell of
    trouble that concerns one drop alone, and holds up no other.
    """

    checks: Mapping[str, str | None]
    watching: Mapping[str, object] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        return all(ailment is None for ailment in self.checks.values())

    def as_json(self) -> dict[str, object]:
        told: dict[str, object] = {
            "status": "ok" if self.is_well else "unavailable",
            "checks": {name: ailment or "ok" for name, ailment in self.checks.items()},
        }
        if self.notes:
            told["notes"] = dict(self.notes)
        return told if self.watching is None else told | {"watching": dict(self.watching)}


Probe = Callable[[], Health]


class Asked(Protocol):
    """A service that can be asked."""

    def live(self) -> Health: ...
    def ready(self) -> Health: ...


@dataclass(slots=True)
class Probes:
    """What the probes answer, also while there is no service to ask yet, or no more: the process lives and waits."""

    service: Asked | None = None
    otherwise: str = "starting"

    def live(self) -> Health:
        return Health({}) if self.service is None else self.service.live()

    def ready(self) -> Health:
        return Health({"service": self.otherwise}) if self.service is None else self.service.ready()
