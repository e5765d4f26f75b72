"""
Claiming: one holder per drop, by a file lock on the volume, and one per batch, by a lease in the database.

The file lock keeps two services on one volume from reading the same drop twice; the lease is what counts, since locks
do not reach every client of a network file system, and die with the database's view of the world unchanged.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from inbox.core.errors import RetryableError, StorageError
from inbox.database import batches
from inbox.database.batches import BatchRecord
from inbox.database.connection import Sessions, retry_when_busy
from inbox.domain import BatchLease, Drop
from inbox.lifecycle import FINAL_BATCH_STATES, BatchState
from inbox.utils.clock import Clock

_CHUNK: Final = 1 << 20
_KERNEL_LOCKS: Final = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Claimed:
    """The batch is ours to extract."""

    lease: BatchLease


@dataclass(frozen=True, slots=True)
class Recognised:
    """This content was taken before; `batch` is what became of it."""

    batch: BatchRecord


@dataclass(frozen=True, slots=True)
class Underway:
    """The batch of this very drop is somebody's business already, or not due yet."""

    batch: BatchRecord


Claim = Claimed | Recognised | Underway


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds a file lock: the process id, where this machine can tell."""

    process: int | None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[bool]:
    """
    Hold the file lock of this name for the block if nobody else does; yields whether we hold it.

    The lock file is removed while it is held: whoever waits on the removed one notices that it has no name any more.
    Where the volume does not allow that, it stays, and the next holder removes it.
    """
    with _held(_lock_path(folder, name)) as is_ours:
        yield is_ours


def clear_locks(folder: Path) -> None:
    """Remove the lock files that crashes left: whoever dies with a lock in hand leaves its file, and it may be had."""
    for path in folder.glob("*.lock"):
        with _held(path):
            pass


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    if not path.parent.is_dir():  # taking the lock would make it, also where a mount is gone
        raise StorageError("the lock cannot be taken: its folder is missing", subject=str(path))
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise StorageError(f"the lock cannot be taken: {error.strerror}", subject=str(path)) from error
    try:
        yield True
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


class LockedOut:
    """
    How long others have kept each lock from us, on our own clock.

    A lock saves work and decides nothing. A process that was stopped keeps its locks for as long as it is, and nobody
    else would ever do what it was about to: so after `patience` seconds a lock is not waited for any more.
    """

    def __init__(self, clock: Clock, *, patience: timedelta) -> None:
        self._clock = clock
        self._patience_seconds = patience.total_seconds()
        self._since: dict[str, float] = {}

    def got(self, name: str) -> None:
        """Note that nobody else has this lock."""
        self._since.pop(name, None)

    def is_over(self, name: str) -> bool:
        """Note that somebody else has it, and say whether that has been so for too long."""
        now = self._clock.monotonic()
        return now - self._since.setdefault(name, now) >= self._patience_seconds

    def forget_all_but(self, names: Collection[str]) -> None:
        for name in self._since.keys() - set(names):
            del self._since[name]


def look_at_lock(folder: Path, name: str) -> LockHolder | None:
    """
    Say who holds the file lock of this name, or None; nothing is made, and the lock stays with whom it is.

    A free lock whose file a crash left is shared for an instant: a service that wants it just then comes back to it.
    """
    try:
        fd = os.open(_lock_path(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"the lock cannot be looked at: {error.strerror}", subject=name) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return LockHolder(_process_that_locks(os.fstat(fd)))
    except OSError as error:
        raise StorageError(f"the lock cannot be looked at: {error.strerror}", subject=name) from error
    finally:
        os.close(fd)
    return None


def _process_that_locks(status: os.stat_result) -> int | None:
    """Find the holder of a lock in proc_locks(5), which does not show those of other PID namespaces."""
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = _KERNEL_LOCKS.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(fields[4]) for fields in map(str.split, lines) if fields[5:6] == [wanted]), None)


def _lock_path(folder: Path, name: str) -> Path:
    return folder / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}.lock"


def identify(fd: int, *, should_stop: Callable[[], bool]) -> str:
    """
    Return the `batch_id` of an archive: SHA-256 of its bytes, 64 hexadecimal characters.

    Raises RetryableError with reason code STOPPED when `should_stop` says so in between, StorageError when it cannot be
    read.
    """
    digest = hashlib.sha256()
    offset = 0
    try:
        while chunk := os.pread(fd, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
            if should_stop():
                raise RetryableError("asked to stop", reason_code="STOPPED")
    except OSError as error:
        raise StorageError(f"the drop cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def recognise(record: BatchRecord, drop: Drop) -> Recognised | Underway | None:
    """
    Say what a drop is whose content has a batch already, as far as the batch decides it.

    None: it waits for its extraction, and the lease on it, where it is to be had, decides. Only one that still waits
    for its extraction passes to another drop. `drop` carries its name as the database keeps it.
    """
    if not record.is_of(drop):
        return None if record.state is BatchState.RECEIVED else Recognised(record)
    if record.state not in FINAL_BATCH_STATES:
        return None
    return Recognised(record) if record.reported_at is not None else Underway(record)


class Claimer:
    """Gives the batch of a drop its row, and takes the lease on it."""

    def __init__(self, sessions: Sessions, clock: Clock, *, owner: str, life: timedelta) -> None:
        self._sessions = sessions
        self._clock = clock
        self.owner = owner
        self._life = life

    @retry_when_busy
    def claim(self, batch_id: str, drop: Drop, *, drop_name: str, zip_path: str) -> Claim:
        """
        Say what this content is to us: ours to extract now, known from before, or already under way.

        `drop_name` and `zip_path` are the drop's name and place as the database keeps them.
        """
        now = self._clock.now()
        stored = Drop(drop_name, drop.path, drop.identity, drop.changed_at)
        with self._sessions.writing() as session:
            record, created = batches.receive_batch(
                batch_id, stored, zip_path, run_id=uuid.uuid4().hex, now=now, session=session
            )
            if not created:
                known = recognise(record, stored)
                if known is not None:
                    return known
                if not record.is_of(stored) and not batches.adopt_drop(
                    batch_id, stored, zip_path, now=now, session=session
                ):
                    return Recognised(record)
            lease = batches.lease_batch(batch_id, self.owner, now=now, life=self._life, session=session)
        return Claimed(lease) if lease is not None else Underway(record)

    @retry_when_busy
    def give_back(self, batch_id: str) -> bool:
        """Give back what an earlier claim of ours may have left on this batch: see `give_back`."""
        return give_back(batch_id, self.owner, self._sessions, self._clock)


@retry_when_busy
def give_back(batch_id: str, owner: str, sessions: Sessions, clock: Clock, *, drop_name: str | None = None) -> bool:
    """
    Give back, uncounted, the lease that an earlier claim of this owner may have left on a batch; True when it had.

    For a database that went away before a claim could be ended: our own heartbeat would keep it alive for ever. What
    else the owner may have in hand by now stays there; with `drop_name` also another drop of the same content.
    """
    now = clock.now()
    with sessions.writing() as session:
        held = batches.find_leases_on_batches(owner, session=session)
        given_back = [
            batches.release_batch(lease, due_at=now, counted=False, now=now, session=session)
            for lease in held
            if lease.batch_id == batch_id and drop_name in {None, lease.drop_name}
        ]
    return any(given_back)
