"""
The two state machines, as tables: a state is documented by its exits.

`BATCH_EXITS` and `FILE_EXITS` say for each state where it may go and what causes it. The database's conditional
updates take their "from" states from here, so a transition that is not in a table cannot be written.
"""

from enum import StrEnum
from typing import Final


class BatchState(StrEnum):
    """What the database says about a batch."""

    RECEIVED = "received"
    EXTRACTING = "extracting"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    QUARANTINED = "quarantined"


class FileState(StrEnum):
    """What the database says about a file."""

    PENDING = "pending"
    PROCESSING = "processing"
    RETRYING = "retrying"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"


BATCH_EXITS: Final[dict[BatchState, dict[BatchState, str]]] = {
    BatchState.RECEIVED: {
        BatchState.EXTRACTING: "claimed: a worker takes the lease",
    },
    BatchState.EXTRACTING: {
        BatchState.PROCESSING: "registered: every member has its row",
        BatchState.QUARANTINED: "the archive is at fault",
        BatchState.RECEIVED: "released (shutdown, transient trouble) or rescued (the lease expired)",
        BatchState.FAILED: "its attempts are used up",
    },
    BatchState.PROCESSING: {
        BatchState.COMPLETED: "every file succeeded or was skipped",
        BatchState.PARTIAL: "some files succeeded, some failed",
        BatchState.FAILED: "files failed and none succeeded",
    },
    BatchState.COMPLETED: {},
    BatchState.PARTIAL: {BatchState.PROCESSING: "an operator retries the failed files"},
    BatchState.FAILED: {
        BatchState.PROCESSING: "an operator retries the failed files",
        BatchState.RECEIVED: "an operator retries a batch that was never registered",
    },
    BatchState.QUARANTINED: {BatchState.RECEIVED: "an operator offers the archive again"},
}

FILE_EXITS: Final[dict[FileState, dict[FileState, str]]] = {
    FileState.PENDING: {
        FileState.PROCESSING: "claimed: attempt 1 is counted",
        FileState.FAILED: "the batch ran out of its time",
    },
    FileState.PROCESSING: {
        FileState.SUCCESS: "the handler returned",
        FileState.SKIPPED: "the handler had nothing to do for this type",
        FileState.RETRYING: "a retryable error with attempts left; or rescued, or released, after an earlier attempt",
        FileState.PENDING: "released before its first attempt began",
        FileState.FAILED: "a permanent error, the attempts are used up (also when rescued), or the batch's time is",
    },
    FileState.RETRYING: {
        FileState.PROCESSING: "claimed when due: the next attempt is counted",
        FileState.PENDING: "its handler is paused, and its first attempt was taken back",
        FileState.FAILED: "the batch ran out of its time",
    },
    FileState.SUCCESS: {},
    FileState.FAILED: {FileState.PENDING: "an operator retries it, or its handler has a new version"},
    FileState.SKIPPED: {},
}

FINAL_BATCH_STATES: Final = frozenset(
    {BatchState.COMPLETED, BatchState.PARTIAL, BatchState.FAILED, BatchState.QUARANTINED},
)
FINAL_FILE_STATES: Final = frozenset({FileState.SUCCESS, FileState.FAILED, FileState.SKIPPED})
LEASED_BATCH_STATES: Final = frozenset({BatchState.EXTRACTING})
LEASED_FILE_STATES: Final = frozenset({FileState.PROCESSING})
CLAIMABLE_FILE_STATES: Final = frozenset({FileState.PENDING, FileState.RETRYING})


def batch_states_before(state: BatchState) -> frozenset[BatchState]:
    """Return the states from which a batch may enter `state`."""
    return frozenset(before for before, exits in BATCH_EXITS.items() if state in exits)


def file_states_before(state: FileState) -> frozenset[FileState]:
    """Return the states from which a file may enter `state`."""
    return frozenset(before for before, exits in FILE_EXITS.items() if state in exits)


def batch_verdict(*, succeeded: int, failed: int) -> BatchState:
    """Return the final state of a batch whose files have all come to rest."""
    if not failed:
        return BatchState.COMPLETED
    return BatchState.PARTIAL if succeeded else BatchState.FAILED
