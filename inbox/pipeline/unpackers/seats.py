"""
The seats of the unpackers: who sits there, what each has in hand, and which drop may have a free one.

Large drops never have all of several seats, so that what is done in a moment does not wait for them.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from inbox.domain import Drop
from inbox.pipeline.unpackers.fates import Step, Task

LARGE_BYTES: Final = 64 * 1024**2
"""A drop of more bytes is large."""
SLOW_SECONDS: Final = 5.0
"""A drop that has been in hand for so long counts as large, too."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Running:
    """A process that has been started, and not buried yet."""

    owner: str
    process: BaseProcess
    connection: Connection
    ready: bool = False
    ready_at: float = 0.0
    retiring: bool = False
    killed_for_time: bool = False
    ended_with_us: bool = False

    def send(self, word: object) -> None:
        try:
            self.connection.send(word)
        except (OSError, ValueError):
            return  # it has ended, or is being buried

    def resident_bytes(self) -> int:
        """Return how much memory it has in use (proc_pid_statm(5)); 0 when nobody can tell."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            return 0


@dataclass(slots=True)
class Seat:
    """Where one process after the other sits."""

    number: int = 0
    failures: int = 0
    restart_at: float = 0.0
    running: Running | None = None
    task: Task | None = None
    since: float = 0.0
    """When the task was handed over, or else the last one ended."""
    step: Step | None = None
    """How far it has come with its task; None before it was begun."""
    step_since: float = 0.0
    batch_id: str = ""
    is_sent: bool = False

    def clear(self, now: float) -> None:
        """Take the task away."""
        self.task, self.step, self.batch_id, self.is_sent, self.since = None, None, "", False, now

    @property
    def is_ready(self) -> bool:
        return self.running is not None and self.running.ready

    @property
    def is_timed(self) -> bool:
        """Say whether what it does now has a limit, also to begin once it is ready; the database sets its own."""
        is_under_way = self.step is not None or self.is_ready
        return self.is_sent and is_under_way and self.step is not Step.REGISTERING

    @property
    def timed_since(self) -> float:
        if self.step is not None or self.running is None:
            return self.step_since
        return max(self.since, self.running.ready_at)

    def is_free(self, now: float) -> bool:
        """Say whether it could begin with a task now, or as soon as its process has started."""
        if self.task is not None:
            return False
        return not self.running.retiring if self.running is not None else now >= self.restart_at

    def is_slow(self, now: float) -> bool:
        """Say whether it has in hand what may still take long."""
        return self.task is not None and (is_large(self.task.drop) or now - self.since >= SLOW_SECONDS)


def is_large(drop: Drop) -> bool:
    return drop.identity.size_bytes > LARGE_BYTES


def free_seat(seats: Sequence[Seat], now: float) -> Seat | None:
    """Return the seat to hand a drop to, one whose process waits for it if there is any."""
    return min((seat for seat in seats if seat.is_free(now)), key=lambda seat: not seat.is_ready, default=None)


def may_have_seat(drop: Drop, seats: Sequence[Seat], now: float) -> bool:
    """Say whether a seat is free for this drop; for a large one, whether another stays that no large one has."""
    if free_seat(seats, now) is None:
        return False
    if len(seats) == 1 or not is_large(drop):
        return True
    return sum(seat.is_slow(now) for seat in seats) < len(seats) - 1
