"""
Excusing: whether a handler failed because of its file, or because the volume was in trouble.

A file does not answer for a volume that is gone, replaced, read-only or full: such an attempt does not count, and the
worker waits until the volume is as it should be.
"""

import errno
from collections.abc import Iterator
from typing import Final

from inbox.core.errors import StorageError
from inbox.utils.volume import Volume

_OF_VOLUMES: Final = frozenset(
    {
        errno.EDQUOT,
        errno.EIO,
        errno.ENODEV,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.ENXIO,
        errno.EROFS,
        errno.ESTALE,
    }
)


class Excusing:
    """What a worker process knows of the volume's trouble. Without a volume, or with an unknown one, it knows none."""

    def __init__(self, volume: Volume | None = None) -> None:
        self._volume = volume if volume is not None and volume.id else None
        self._failed_writing = False

    def excuse(self, error: BaseException) -> StorageError | None:
        """Return the volume's trouble that a handler's error came of, or None when the file has to answer for it."""
        if self._volume is None:
            return None
        try:
            self._volume.require()
            if any(link.errno in _OF_VOLUMES for link in _chain(error) if isinstance(link, OSError)):
                self._volume.require_room_to_write()
        except StorageError as trouble:
            self._failed_writing = True
            return trouble
        return None

    def require(self) -> None:
        """Raise StorageError while the volume is not the right one, or still in the trouble that was an excuse."""
        if self._volume is None:
            return
        self._volume.require()
        if self._failed_writing:
            self._volume.require_room_to_write()
            self._failed_writing = False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
