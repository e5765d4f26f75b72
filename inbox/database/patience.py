"""
A bound on every wait for an answer of PostgreSQL.

libpq waits without end for a server that takes a statement and says nothing, and the kernel sees nothing amiss while
the peer acknowledges. So one thread of the process watches who waits, and cuts the connection of whoever has waited too
long: the wait then ends as it does when a connection is lost.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, Final, TypeVar

import psycopg2
from psycopg2 import extensions

T = TypeVar("T")


class _Watchman:
    """Knows until when each connection may wait. The thread is started with the first that does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waits: dict[int, tuple[float, BoundedConnection]] = {}
        self._looks_at = math.inf
        self._is_started = False

    def begin(self, connection: "BoundedConnection", until: float) -> None:
        with self._changed:
            self._waits[id(connection)] = until, connection
            if until < self._looks_at:
                self._looks_at = until
                self._changed.notify()
            if not self._is_started:
                self._is_started = True
                threading.Thread(target=self._watch, name="patience", daemon=True).start()

    def end(self, connection: "BoundedConnection") -> None:
        with self._changed:
            self._waits.pop(id(connection), None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (until, connection) in list(self._waits.items()):
                    if until <= now:
                        del self._waits[key]
                        connection.cut()
                self._looks_at = min((until for until, _ in self._waits.values()), default=math.inf)
                self._changed.wait(None if self._looks_at == math.inf else max(self._looks_at - now, 0.0))


_watchman: Final = _Watchman()


class BoundedConnection(extensions.connection):
    """A connection whose every statement is answered within `longest_seconds`, or is lost."""

    longest_seconds = math.inf

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cursor_factory = _BoundedCursor
        self._socket = _identity(self.fileno())

    def wait_for(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        _watchman.begin(self, time.monotonic() + self.longest_seconds)
        try:
            return call(*arguments, **options)
        finally:
            _watchman.end(self)

    def cut(self) -> None:
        """End the wait of another thread. Its socket is looked at first: libpq may have closed it just now."""
        with suppress(OSError, psycopg2.Error):
            fd = self.fileno()
            if _identity(fd) == self._socket:
                with socket.socket(fileno=os.dup(fd)) as waiting:
                    waiting.shutdown(socket.SHUT_RDWR)

    def commit(self) -> None:
        self.wait_for(super().commit)

    def rollback(self) -> None:
        self.wait_for(super().rollback)


def bounded(seconds: float) -> type[BoundedConnection]:
    """Return the connection factory whose connections wait so long for an answer."""
    return type("BoundedConnection", (BoundedConnection,), {"longest_seconds": seconds})


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _waiting(name: str) -> Any:
    method = getattr(extensions.cursor, name)

    @wraps(method)
    def ask(self: Any, *arguments: Any, **options: Any) -> Any:
        return self.connection.wait_for(method, self, *arguments, **options)

    return ask


def _waiting_if_named(name: str) -> Any:
    """Rows of a plain cursor are here already; those of a named one are fetched from the server."""
    method = getattr(extensions.cursor, name)

    @wraps(method)
    def fetch(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.name is None:
            return method(self, *arguments, **options)
        return self.connection.wait_for(method, self, *arguments, **options)

    return fetch


class _BoundedCursor(extensions.cursor):
    execute = _waiting("execute")
    executemany = _waiting("executemany")
    fetchone = _waiting_if_named("fetchone")
    fetchmany = _waiting_if_named("fetchmany")
    fetchall = _waiting_if_named("fetchall")
    close = _waiting_if_named("close")
