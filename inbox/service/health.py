"""Whether the service lives, and whether it can do its work now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """The answers of the probes: `checks` maps each part to None when it is well, else to what ails it."""

    checks: Mapping[str, str | None]

    @property
    def is_well(self) -> bool:
        return all(ailment is None for ailment in self.checks.values())

    def as_json(self) -> dict[str, object]:
        return {
            "status": "ok" if self.is_well else "unavailable",
            "checks": {name: ailment or "ok" for name, ailment in self.checks.items()},
        }


Probe = Callable[[], Health]
