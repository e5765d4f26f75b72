"""
The archive as bytes: opened once, never by name again, read by position.

`pread` rather than a mapping: a source that shrinks is then an error and not a SIGBUS, and resident memory stays flat.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from inbox.core.errors import NotSettledError, StorageError

WINDOW_BYTES: Final = 64 * 1024
PIECE_BYTES: Final = 1024 * 1024


class Source:
    """
    An open file of a fixed size. A shorter answer than was asked for means that it changed meanwhile.

    `look_up` is called before every read, and may raise what ends the reading.
    """

    def __init__(self, fd: int, look_up: Callable[[], object] = lambda: None) -> None:
        self.fd = fd
        self.look_up = look_up
        self.size = os.fstat(fd).st_size
        self._window = b""
        self._window_at = 0

    def read(self, at: int, count: int) -> bytes:
        """
        Return exactly `count` bytes from offset `at`.

        Raises NotSettledError when they are not there any more, StorageError when the volume cannot give them.
        """
        self.look_up()
        try:
            data = os.pread(self.fd, count, at)
            while len(data) < count:  # a network file system may answer in parts
                more = os.pread(self.fd, count - len(data), at + len(data))
                if not more:
                    raise NotSettledError("the archive became shorter while it was read")
                data += more
        except OSError as error:
            raise StorageError(f"the archive cannot be read: {error.strerror}") from error
        return data

    def peek(self, at: int, count: int) -> bytes:
        """Return up to `count` bytes from `at`, fewer at the end of the file; neighbours come from one read."""
        begin = at - self._window_at
        if begin < 0 or begin + count > len(self._window):
            wanted = min(max(count, WINDOW_BYTES), self.size - at)
            self._window = self.read(at, wanted) if wanted > 0 else b""
            self._window_at, begin = at, 0
        return self._window[begin : begin + count]

    def pieces(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes between two offsets in pieces of at most a megabyte."""
        for at in range(begin, end, PIECE_BYTES):
            yield self.read(at, min(PIECE_BYTES, end - at))
