"""How old a file is by its own times, as long as the clock that wrote them goes evenly."""

from typing import Final

from inbox.utils.clock import Clock

_EVEN_SECONDS: Final = 2.0
"""What a clock that is set right step by step may be off from one look to the next."""


class Ages:
    """
    Tells ages by the wall clock, and after a jump of it none that is greater than the time since.

    A machine that was suspended looks the same, and rightly so: whoever writes here was suspended with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._present_offset()
        self._even_since: float | None = None

    def seconds_since(self, moment: float) -> float:
        """Return for how many seconds a time in Unix seconds has passed; negative when it is still to come."""
        offset = self._present_offset()
        if abs(offset - self._offset) > _EVEN_SECONDS:
            self._even_since = self._clock.monotonic()
        self._offset = offset
        age = self._clock.now().timestamp() - moment
        return age if self._even_since is None else min(age, self._clock.monotonic() - self._even_since)

    def _present_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
