"""
A rotating log file that several processes write at once.

Every line is one `write` to a descriptor in append mode, which the kernel keeps whole on a local file system (between
hosts, NFS does not). Who finds the file full takes a file lock, looks again, and rotates; the others notice that
the path leads to another file and follow.
"""

import logging
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from errno import ENOSPC
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from inbox.core.errors import StorageError

MAX_BYTES: Final = 10 * 1024 * 1024
BACKUPS: Final = 5
LOOK_SECONDS: Final = 0.1  # how long a rotation or removal by somebody else may go unnoticed while the file has room
RETRY_SECONDS: Final = 5.0
_CLOSED: Final = -1
_MOST_HELD: Final = 1000
# Non-blocking matters only when the path is a pipe that nobody reads: it must not stop the service.
_OPEN_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY


def _nothing() -> None:
    """It may always be opened."""


class SharedRotatingFileHandler(RotatingFileHandler):
    """
    Writes whole lines to `path`; a full file becomes `path.1`, and so on up to `backups`.

    `max_bytes` is kept to within the lines other processes add at the same moment; 0 means: never rotate. Trouble
    (disk full, folder gone or not writable) never reaches the caller: it is told once on standard error, lines are
    dropped here, and the file is tried again every few seconds of `clock`, which never jumps.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True)
        self.clock = clock
        self.require: Callable[[], None] = _nothing
        """Raises an error while the file must not be opened, since its volume is gone and the folder another one."""
        self.lock_path = os.path.join(  # noqa: PTH118 - the base class keeps strings
            os.path.dirname(self.baseFilename),  # noqa: PTH120 - likewise
            f".{os.path.basename(self.baseFilename)}.lock",  # noqa: PTH119 - likewise
        )
        self._held: deque[bytes] | None = None
        self._fd = _CLOSED
        self._identity = (0, 0)
        self._is_regular = False  # a device or a pipe is written, never measured or renamed
        self._size = 0
        self._look_at = self._retry_at = self._rotate_at = 0.0
        self._dropped = 0
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._append((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except Exception:  # noqa: BLE001 - a foreign formatter may raise anything; logging never does
            self.handleError(record)

    def hold(self) -> None:
        """Keep the lines, the last thousand of them, until it is known whether the file may be opened."""
        self._held = deque(maxlen=_MOST_HELD)

    def let_go(self) -> None:
        """Write what was held, and what comes."""
        with self.lock or nullcontext():
            held, self._held = self._held or (), None
            for line in held:
                self._append(line)

    def close(self) -> None:
        with self.lock or nullcontext():
            self._close_descriptor()
        super().close()

    def doRollover(self) -> None:  # noqa: N802 - the base class's name
        """Rename the file and its backups; the next line opens the new one."""
        super().doRollover()
        self._look_at = 0.0

    def _append(self, line: bytes) -> None:
        if self._held is not None:
            self._held.append(line)
            return
        now = self.clock()
        if now < self._retry_at:
            self._dropped += 1
            return
        try:
            if now >= self._look_at:
                self._look(now)
            if self._is_full(len(line)):
                self._make_room(now, len(line))
            self._write(line)
        except (OSError, ValueError, StorageError) as error:  # ValueError: a path with NUL
            self._dropped += 1
            self._suspend(now, error)
        else:
            if self._dropped:
                self._recover()

    def _is_full(self, wanted: int) -> bool:
        return 0 < self.maxBytes < self._size + wanted and self._size > 0 and self._is_regular and self.backupCount > 0

    def _write(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        if not self._is_regular:
            return
        self._size = os.lseek(self._fd, 0, os.SEEK_CUR)  # after an append: the end, with everybody's lines
        if written < len(line):
            self._take_back(written)
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    def _take_back(self, written: int) -> None:
        """Remove the torn start of a line, unless somebody managed to write behind it."""
        if os.fstat(self._fd).st_size == self._size:
            os.ftruncate(self._fd, self._size - written)

    def _look(self, now: float) -> None:
        """Make sure that the descriptor is what the path leads to."""
        try:
            found = os.stat(self.baseFilename)  # noqa: PTH116 - two microseconds faster than a Path, several times a second
            same = self._fd != _CLOSED and (found.st_dev, found.st_ino) == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            self._open_descriptor()
        self._look_at = now + LOOK_SECONDS

    def _open_descriptor(self) -> None:
        self._close_descriptor()
        self.require()
        try:
            self._fd = os.open(self.baseFilename, _OPEN_FLAGS, 0o666)
        except FileNotFoundError:
            Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.baseFilename, _OPEN_FLAGS, 0o666)
        found = os.fstat(self._fd)
        self._identity = (found.st_dev, found.st_ino)
        self._size = found.st_size
        self._is_regular = stat.S_ISREG(found.st_mode)

    def _close_descriptor(self) -> None:
        if self._fd != _CLOSED:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = _CLOSED
            self._look_at = 0.0

    def _make_room(self, now: float, wanted: int) -> None:
        self._look(now)
        if now < self._rotate_at or not self._is_full(wanted):
            return
        from filelock import FileLock, Timeout  # costs 50 ms to import, and most processes never rotate

        try:
            with FileLock(self.lock_path).acquire(blocking=False):
                self._look(now)
                self._size = os.fstat(self._fd).st_size
                if self._is_full(wanted):
                    self.doRollover()
        except Timeout:  # somebody else is at it: the line goes to the old file, and the next look follows
            return
        except (OSError, NotImplementedError) as error:  # the file can be written all the same
            self._rotate_at = now + RETRY_SECONDS
            self._say_once("rotation", f"log file {self.baseFilename} cannot be rotated and grows: {error}")
        self._look(now)

    def _suspend(self, now: float, error: Exception) -> None:
        self._close_descriptor()
        self._retry_at = now + RETRY_SECONDS
        self._say_once("file", f"log file {self.baseFilename} cannot be written, lines go to the console only: {error}")

    def _recover(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self._told.clear()
        self._say(f"log file {self.baseFilename} is written again; it misses {dropped} lines")

    def _say_once(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._say(text)

    @staticmethod
    def _say(text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # standard error may be gone as well
            sys.stderr.write(f"inbox: {text}\n")
            sys.stderr.flush()
