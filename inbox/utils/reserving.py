"""
Room on a volume, taken before it is needed and given back bit by bit to whoever writes into it.

A check of the free space says nothing about the next moment: others unpack, download and log on the same volume. Room
that is allocated to a file of ours (fallocate(2)) cannot be taken by anybody.
"""

import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STEP_BYTES: Final = 8 * 1024**2
"""Given back at a time, so that truncating costs nothing that counts."""

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Reservation:
    """
    So many bytes of room, held by a file at `path`, which must not exist and is removed at the end.

    Where the file system cannot allocate (most network ones, FUSE), or has no files so large, nothing is held, and
    `is_held` says so. Raises OSError: ENOSPC or EDQUOT when the room is not there.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._left = size_bytes
        self._spare = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.is_held = size_bytes > 0 and _allocate(self._fd, size_bytes)
        except OSError:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def use(self, count: int) -> None:
        """Give back room for so many bytes that are about to be written."""
        self._spare -= count
        if self._spare >= 0 or not self.is_held:
            return
        step = max(STEP_BYTES, -self._spare)
        self._left = max(self._left - step, 0)
        self._spare += step
        os.ftruncate(self._fd, self._left)

    def _end(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


def _allocate(fd: int, size_bytes: int) -> bool:
    """Call fallocate(2) itself: the C library's posix_fallocate would write zeros where it is not to be had."""
    while _libc.fallocate(fd, 0, 0, size_bytes) != 0:
        code = ctypes.get_errno()
        if code in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EFBIG}:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True
