"""How long things may take, as the legs share it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from inbox.core.errors import ArchiveRefusedError

LONGEST_SETBACKS: Final = 5
"""After so many setbacks in a row the wait before the next try grows no more."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take."""

    lease_life: timedelta
    damaged_grace: timedelta
    batch_time: timedelta
    incomplete_after: timedelta
    """How old a drop that is not whole has to be before its dropper is told; a copy may pause."""
    retry_base_seconds: float = 2.0
    """Base of the schedule by which a drop waits whose unpacker has died."""

    def patience_with(self, error: ArchiveRefusedError, age_seconds: float) -> float:
        """
        Return for how many seconds more the damage of a drop of this age may be a copy still under way.

        0 when it is to be refused.
        """
        grace = self.damaged_grace.total_seconds()
        left = grace - age_seconds
        return min(left, grace) if error.damaged and left > 0 else 0.0
