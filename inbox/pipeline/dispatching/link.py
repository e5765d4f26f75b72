"""
The link between a worker and its supervisor: single bytes over one connection, about the worker alone.

Whether it is idle, and whether it should wake up or drain; in a few more bytes, about handlers that are paused.
"""

import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from inbox.pipeline.dispatching.reports import is_report, recovered_handler
from inbox.utils.clock import Bell

WAKE: Final = b"w"
DRAIN: Final = b"d"
READY: Final = b"r"
IDLE: Final = b"i"
PROGRESS: Final = b"p"
TROUBLE: Final = b"t"
ORPHANED: Final = 70
"""How a worker ends whose supervisor is gone."""
_LAST_WORDS_SECONDS: Final = 2.0


def _nothing() -> None:
    """Nothing is left to do."""


def _end_alone() -> None:
    os._exit(ORPHANED)


class Link:
    """
    The worker's end of the connection. Listening happens in a thread of its own.

    When the other end is gone, `last_words` has a moment, and then `end` ends the process.
    """

    def __init__(self, connection: Connection, *, end: Callable[[], None] = _end_alone) -> None:
        self.last_words: Callable[[], None] = _nothing
        self._connection = connection
        self._identity = self._look()
        self._end = end
        self._bell = Bell()
        self._lock = threading.Lock()
        self.draining = False
        self.on_recovered: Callable[[str], None] = lambda _: None
        """Told which handler works again, as another worker found."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def say(self, word: bytes) -> None:
        with self._lock:
            try:
                self._connection.send_bytes(word)
            except OSError:
                self._end_orphaned()

    def require_whole(self) -> None:
        """End the process when the connection was closed from within, so that whoever did it has the file in hand."""
        if self._look() != self._identity:
            self._end_orphaned()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._connection.fileno())
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def wait(self, seconds: float) -> None:
        self._bell.wait(seconds)

    def _listen(self) -> None:
        while True:
            try:
                word = self._connection.recv_bytes()
            except (EOFError, OSError):
                self._end_orphaned()
                return
            if word == DRAIN:
                self.draining = True
            elif is_report(word) and (handler := recovered_handler(word)) is not None:
                self.on_recovered(handler)
            self._bell.ring()

    def _end_orphaned(self) -> None:
        speaking = threading.Thread(target=self.last_words, name="last words", daemon=True)
        speaking.start()
        speaking.join(_LAST_WORDS_SECONDS)
        self._end()
