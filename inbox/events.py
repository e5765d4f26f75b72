"""
The closed list of things that happen.

Code says what happened by emitting one of these; how it reads in the log is decided by one subscriber elsewhere. The
field names are public: they are the keys of the JSON lines.
"""

from collections.abc import Callable
from dataclasses import dataclass

from inbox.domain import ClaimedFile, Outcome
from inbox.lifecycle import FileState


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


Emit = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class ServiceStarted(Event):
    """The service takes drops from now on."""

    storage: str
    database: str
    workers: int
    owner: str


@dataclass(frozen=True, slots=True)
class ServiceStopping(Event):
    """A signal asked the service to end: it takes nothing more and finishes or releases what it holds."""

    reason: str


@dataclass(frozen=True, slots=True)
class ServiceStopped(Event):
    """Everything is finished or released."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TroubleBegan(Event):
    """A leg of the service waits, or the whole service: the volume or the database does not answer. Said once."""

    leg: str
    reason: str


@dataclass(frozen=True, slots=True)
class TroubleOver(Event):
    """Whoever waited goes on; the service, when every leg of it does."""

    leg: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WatchingByScan(Event):
    """The folder cannot be watched, or the watch was lost: only the scan finds drops. Said once for each reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class WatchingByEvents(Event):
    """The folder is watched again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class DropsUnannounced(Event):
    """Scans found drops that no event told of; said once, until that has not happened for a while."""

    drops: int
    scan_interval_seconds: float


@dataclass(frozen=True, slots=True)
class DropWaits(Event):
    """A drop is quiet but not whole; said once for each content."""

    drop: str
    reason_code: str
    reason: str


@dataclass(frozen=True, slots=True)
class DropLeftAlone(Event):
    """Something in the uploads is no archive, or no file at all; said once."""

    drop: str
    reason_code: str
    reason: str


@dataclass(frozen=True, slots=True)
class DropQuarantined(Event):
    """Something in the uploads is no archive, and was moved to quarantine, as the setting says."""

    drop: str
    reason_code: str
    reason: str
    archive: str


@dataclass(frozen=True, slots=True)
class DropRecognised(Event):
    """The content of a drop is that of a batch already taken."""

    drop: str
    batch_id: str
    state: str


@dataclass(frozen=True, slots=True)
class BatchClaimed(Event):
    """A worker took the lease on a batch and extracts it."""

    batch_id: str
    drop: str
    size_bytes: int
    attempt: int


@dataclass(frozen=True, slots=True)
class BatchReleased(Event):
    """A batch went back to wait, for a reason outside of it."""

    batch_id: str
    drop: str
    reason_code: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchRegistered(Event):
    """Every member has its row and every file lies in its place."""

    batch_id: str
    drop: str
    members: int
    files: int
    skipped: int
    size_bytes: int
    extraction_seconds: float
    registration_seconds: float


@dataclass(frozen=True, slots=True)
class BatchRefused(Event):
    """The archive is at fault."""

    batch_id: str
    drop: str
    reason_code: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchForgotten(Event):
    """A drop was taken away, or changed, before it was extracted."""

    batch_id: str
    drop: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchOverdue(Event):
    """A batch ran out of its time; its unfinished files failed."""

    batch_id: str
    drop: str
    files: int


@dataclass(frozen=True, slots=True)
class BatchClosed(Event):
    """Every file of a batch has come to rest."""

    batch_id: str
    drop: str
    run_id: str
    state: str
    members: int
    files: int
    skipped: int
    succeeded: int
    failed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchReported(Event):
    """Receipt and archive are in their places."""

    batch_id: str
    drop: str
    state: str
    receipt: str
    archive: str


@dataclass(frozen=True, slots=True)
class AttemptEvent(Event):
    """One attempt on one file is over, and its outcome counts."""

    batch_id: str
    doc_id: str
    member_path: str
    attempt: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class AttemptSucceeded(AttemptEvent):
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class AttemptSkipped(AttemptEvent):
    """The handler had nothing to do."""

    reason_code: str


@dataclass(frozen=True, slots=True)
class AttemptFailed(AttemptEvent):
    """The file failed for good."""

    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class AttemptToRepeat(AttemptEvent):
    """The attempt failed and another is due later."""

    error_type: str
    error: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class OutcomeLost(Event):
    """An attempt ended after its lease was taken over; what it found out does not count."""

    batch_id: str
    doc_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Folded(Event):
    """So many more events of one cause within so many seconds, counted by one process and not told one by one."""

    times: int
    seconds: float
    by: str
    batch_id: str


@dataclass(frozen=True, slots=True)
class AttemptsSucceeded(Folded):
    """More files of a batch succeeded; one of them is named."""

    member_path: str


@dataclass(frozen=True, slots=True)
class AttemptsSkipped(Folded):
    """More files were skipped for one reason; one of them, and its batch, is named."""

    member_path: str
    reason_code: str


@dataclass(frozen=True, slots=True)
class AttemptsFailed(Folded):
    """More files failed for one cause; one of them, its batch and its error are given."""

    member_path: str
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class AttemptsToRepeat(Folded):
    """More attempts failed for one cause and are tried again; one of them, its batch and its error are given."""

    member_path: str
    error_type: str
    error: str


@dataclass(frozen=True, slots=True)
class OutcomesLost(Folded):
    """More outcomes came too late; one of the files, and its batch, is named."""

    doc_id: str


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """A worker that was held up found its work taken over: so many files of its page it leaves to whoever has them."""

    worker: int
    files: int


@dataclass(frozen=True, slots=True)
class WorkerDied(Event):
    """A handler process ended by itself or was killed at the deadline; another takes its place."""

    worker: int
    exit_code: int
    doc_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnpackerDied(Event):
    """A process that unpacks ended by itself or was killed at its limit; another takes its place."""

    unpacker: int
    exit_code: int
    drop: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkRescued(Event):
    """The lease of somebody gone was taken over."""

    owner: str
    released: int
    charged: int


@dataclass(frozen=True, slots=True)
class FilesReleased(Event):
    """Files that were claimed and not begun went back, uncounted."""

    files: int


@dataclass(frozen=True, slots=True)
class FilesReoffered(Event):
    """At the start, files that failed under another version of their handler went into new runs."""

    batches: int
    files: int


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """Nearly all of a handler's latest files failed for one cause: its files wait. Said once for each cause."""

    handler: str
    cause: str
    failures: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class BreakerClosed(Event):
    """A file got through, or none waits any more: the pause is over after so many seconds and tries."""

    handler: str
    seconds: float
    probes: int


def attempt_event(claimed: ClaimedFile, outcome: Outcome, *, counts: bool) -> Event:
    """Return what happened, once it is known whether the outcome counts."""
    if not counts:
        return OutcomeLost(claimed.batch_id, claimed.doc_id, claimed.attempt)
    common = (claimed.batch_id, claimed.doc_id, claimed.member_path, claimed.attempt, outcome.duration_ms)
    error_type, error = outcome.error_type or "", outcome.error_message or ""
    if outcome.state is FileState.SUCCESS:
        return AttemptSucceeded(*common)
    if outcome.state is FileState.SKIPPED:
        return AttemptSkipped(*common, reason_code=outcome.skip_reason or "")
    if outcome.state is FileState.RETRYING and outcome.due_at is not None:
        wait = (outcome.due_at - outcome.finished_at).total_seconds()
        return AttemptToRepeat(*common, error_type=error_type, error=error, wait_seconds=round(wait, 3))
    return AttemptFailed(*common, error_type=error_type, error=error)
