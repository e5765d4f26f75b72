"""The watchman: asked again and again while an archive is judged and written, whether there is a reason to end it."""

import time
from collections.abc import Callable

from inbox.archives.limits import Limits
from inbox.core.errors import RetryableError


class Watchman:
    """One for each archive; its time runs from when he is made."""

    def __init__(self, limits: Limits, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._limits = limits
        self._should_stop = should_stop
        self._began = time.monotonic()

    def look_up(self) -> None:
        """
        Look at the clock and the bell: now and then, since both cost more than a small file's bytes.

        Raises RetryableError (STOPPED) when asked to stop, ArchiveRefusedError when the archive's time is up.
        """
        if self._should_stop():
            raise RetryableError("asked to stop", reason_code="STOPPED")
        self._limits.check_time(time.monotonic() - self._began)
