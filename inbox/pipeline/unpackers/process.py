"""
An unpacker process: takes one drop after the other, and tells over one connection what becomes of each.

It hears tasks and that it should end. When the other end is gone, so is the service, and it ends at once: what it held
is settled by the next service.
"""

import logging
import os
import pickle
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Final

from inbox.core.errors import PermanentError, WorkerError, describe_error
from inbox.events import Event
from inbox.pipeline.unpackers.fates import Fate, InTrouble, Step, Task

READY: Final = "ready"
DRAIN: Final = "drain"
_ORPHANED: Final = 70
_logger = logging.getLogger("inbox")

Said = str | Event | tuple[Step, str] | Fate
"""That it is ready, an event to be told, how far it has come with which batch, or a fate."""


class Link:
    """The unpacker's end of the connection. Listening happens in a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self.draining = False
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def say(self, said: Said) -> None:
        try:
            self._connection.send(said)
        except OSError:
            os._exit(_ORPHANED)

    def next_task(self) -> Task | None:
        """Wait for the next task; None when told to drain."""
        task = self._tasks.get()
        return None if self.draining else task

    def is_draining(self) -> bool:
        return self.draining

    def on_step(self, step: Step, batch_id: str) -> None:
        self.say((step, batch_id))

    def _listen(self) -> None:
        while True:
            try:
                heard = self._connection.recv()
            except (EOFError, OSError):
                os._exit(_ORPHANED)
            if heard == DRAIN:
                self.draining = True
            self._tasks.put(None if heard == DRAIN else heard)


def work_off(link: Link, take: Callable[[Task], Fate]) -> None:
    """Take drops until told to drain; `take` is asked to stop by whoever made it."""
    link.say(READY)
    while (task := link.next_task()) is not None:
        link.say(portable(take(task)))


def portable(fate: Fate) -> Fate:
    """Return a fate that can pass between processes: a surprise is logged here, with its traceback, and described."""
    if not isinstance(fate, InTrouble):
        return fate
    error = fate.error
    if isinstance(error, WorkerError):
        try:
            pickle.dumps(error)
        except Exception:  # noqa: BLE001 - whatever a subject or a hint may refuse
            return InTrouble(type(error)(describe_error(error)), fate.left)
        return fate
    _logger.error("a surprise while a drop was taken", exc_info=error)
    return InTrouble(PermanentError(describe_error(error), reason_code="SURPRISE"), fate.left)
