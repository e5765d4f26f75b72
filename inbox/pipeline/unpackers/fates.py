"""
What the intake hands to an unpacker, and what it hears of it: plain values that pass between processes.

A fate says what became of the drop, never what to do about it: that is the intake's business, which remembers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from inbox.archives import Completeness
from inbox.core.errors import WorkerError
from inbox.domain import Drop


@dataclass(frozen=True, slots=True)
class Task:
    """
    A settled drop to be taken, or with `verdict` what is no archive and is to be moved to quarantine.

    `age_seconds` is for how long it had not changed at `handed_at`, a time of the monotonic clock, which all processes
    of a boot share; `setbacks` is how often in a row trouble had it put off. With `passes_lock` somebody has kept its
    lock, or that of its batch, for so long that it is not waited for any more.
    """

    drop: Drop
    age_seconds: float
    handed_at: float
    setbacks: int = 0
    verdict: Completeness | None = None
    passes_lock: bool = False


class Step(Enum):
    """How far an unpacker has come with its task."""

    READING = "reading"
    EXTRACTING = "extracting"
    REGISTERING = "registering"


@dataclass(frozen=True, slots=True)
class Done:
    """The batch has its rows, is refused, or is somebody else's by now."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Recognised:
    """Its content was taken before, and its dropper was told; `stays` when it lies where it was all the same."""

    stays: bool


@dataclass(frozen=True, slots=True)
class Underway:
    """The batch of this very drop is somebody's business already, or not due yet."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else reads this drop, or extracts its content, just now."""


@dataclass(frozen=True, slots=True)
class Changed:
    """It is no longer the file that was handed over."""


@dataclass(frozen=True, slots=True)
class Untaken:
    """Nothing was done: the service stops, no process was to be had, or it was only to be moved, and that is done."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Trouble that is not the archive's fault: to be tried again after so many seconds, and no attempt is counted."""

    batch_id: str
    error: WorkerError
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class PutBack:
    """The archive looks damaged, and is so young that it may still be being written for so many seconds."""

    error: WorkerError
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The archive is damaged, and parts of its room were never written: its writer may have begun at the end."""


@dataclass(frozen=True, slots=True)
class TooSlow:
    """Only to read it took longer than an archive may take; there is no batch yet that could be refused."""

    error: WorkerError


@dataclass(frozen=True, slots=True)
class Claiming:
    """A claim of this owner that was not brought to an end; the database may hold it or not."""

    owner: str
    batch_id: str
    drop_name: str


@dataclass(frozen=True, slots=True)
class InTrouble:
    """Something failed that is no single archive's business; `left` is a claim that nobody else will give back."""

    error: Exception
    left: Claiming | None = None


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended with the drop in hand. What it held is settled; `batch_id` when it had claimed a batch."""

    batch_id: str | None


Fate: TypeAlias = (
    Done
    | Recognised
    | Underway
    | Busy
    | Changed
    | Untaken
    | GivenBack
    | PutBack
    | Unwritten
    | TooSlow
    | InTrouble
    | Died
)


class Unpackers(Protocol):
    """Whoever takes drops for the intake: processes in service, the calling thread in a test."""

    def call_when_over(self, on_fate: Callable[[], object]) -> None:
        """Have this called, by any thread, when there is something to collect, or a place again."""
        ...

    def has_place(self, drop: Drop) -> bool:
        """Say whether a drop may be handed over now."""
        ...

    def hand_over(self, task: Task) -> None:
        """Begin with a task; there must be a place for it."""
        ...

    def collect(self) -> Sequence[tuple[Task, Fate]]:
        """Return what has become of tasks since the last time."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when there is something to collect, or after so many seconds."""
        ...

    def run(self) -> None:
        """See to it all, until told to drain and everything has ended."""
        ...

    def drain(self) -> None:
        """Stop what is in hand, give it back, and end."""
        ...

    def kill(self) -> None:
        """End at once what has not ended yet."""
        ...

    def owners(self) -> list[str]:
        """Return the names under which leases are held."""
        ...

    def is_healthy(self) -> bool:
        """Say whether drops can be taken."""
        ...
