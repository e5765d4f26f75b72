"""
Extracting: judge the whole index, reserve the disk, write into `.staging/`, make it durable, publish by one rename.

Rows come after the rename: a row never names a file that is not there. What a crash leaves is a folder without rows,
which the next attempt at the same batch replaces.
"""

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from inbox.archives import Plan, Terms, Watchman, extract_members, plan_extraction
from inbox.core.errors import LeaseLostError, StorageError
from inbox.domain import BatchLease, Drop, Extraction
from inbox.utils.drops import require_unchanged
from inbox.utils.filesystem import sync_directory
from inbox.utils.mounts import filesystem_type, is_in_memory
from inbox.utils.renaming import id_of, rename_into_nothing, replace_if_it_is
from inbox.utils.reserving import Reservation
from inbox.utils.volume import Volume

HEADROOM_BYTES: Final = 64 * 1024**2
"""What stays free beside an extraction: the database and the log live on the same volume."""
PLENTY: Final = 4
"""So many times what is needed is more than others will take in the meantime."""
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_TAKEN_OVER: Final = "another worker has taken the batch over"


def extract(
    fd: int,
    drop: Drop,
    lease: BatchLease,
    volume: Volume,
    terms: Terms,
    *,
    should_stop: Callable[[], bool],
    still_held: Callable[[], bool],
) -> Extraction:
    """
    Unpack the open drop to `extracted/<batch_id>/` and return what became of every member.

    Raises ArchiveRefusedError when the archive is at fault, NotSettledError when it changed meanwhile, StorageError
    when the volume does not allow it, LeaseLostError when another worker has taken the batch over.
    """
    watchman = Watchman(terms.limits, should_stop)
    plan = plan_extraction(fd, terms, watchman)
    staging = volume.staging / f"{lease.batch_id[:32]}.{lease.token}"
    try:
        volume.staging.mkdir(exist_ok=True)
        staging.mkdir()
        with reserved(staging.with_name(f"{staging.name}.room"), plan) as reservation:
            extraction = extract_members(
                fd, plan, staging, terms.limits, watchman=watchman, before_writing=reservation.use
            )
        require_unchanged(fd, drop)
        _publish(staging, volume.published(lease.batch_id), lease, still_held=still_held)
    except OSError as error:
        if error.errno in NO_ROOM:  # where nothing can be reserved, others may take what was there
            raise _no_room(volume.staging, plan, "the rest of the archive", error) from error
        raise StorageError(f"the archive cannot be unpacked: {error.strerror}", subject=str(staging)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return extraction


class NoRoomError(StorageError):
    """
    The volume has not got the room that an archive needs: `needed_bytes`, and `needed_inodes`, have to be free.

    A quota shows in no figure of the volume. `is_by_quota` says that there was one, and the archive is to be tried
    rarely then.
    """

    is_for_all = False

    def __init__(self, needed_bytes: int, what: str, *, needed_inodes: int = 0, is_by_quota: bool = False) -> None:
        super().__init__(
            f"not enough room on the volume for {what}",  # no figure that changes: it is said once
            hint="free some space; the drop waits",
            reason_code="DISK_FULL",
        )
        self.needed_bytes = needed_bytes
        self.needed_inodes = needed_inodes
        self.is_by_quota = is_by_quota

    def is_over(self, folder: Path) -> bool:
        """Say whether by now the volume of this folder has the bytes and the inodes that were wanting."""
        free = os.statvfs(folder)
        has_bytes = free.f_bavail * free.f_frsize >= self.needed_bytes
        return has_bytes and (not free.f_files or free.f_favail >= self.needed_inodes)


@contextmanager
def reserved(path: Path, plan: Plan) -> Iterator[Reservation]:
    """
    Hold the room that a plan needs, by a file at `path`; raise NoRoomError when it is not there.

    So that several extractions on one volume do not each begin for the room that only one of them can have. In memory
    it costs as much as the writing, and is done only where room is scarce.
    """
    needed_bytes = require_room(path.parent, plan)
    is_plentiful = shutil.disk_usage(path.parent).free > PLENTY * needed_bytes
    is_spared = is_plentiful and is_in_memory(filesystem_type(path.parent))
    try:
        reservation = Reservation(path, 0 if is_spared else needed_bytes - HEADROOM_BYTES)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(path.parent, plan, f"{needed_bytes:,} bytes", error) from error
        raise
    with reservation:
        yield reservation


def require_room(folder: Path, plan: Plan) -> int:
    """Return how many bytes have to be free for a plan; raise NoRoomError unless they, and the inodes, are."""
    needed_bytes = room_for(folder, plan)
    free = os.statvfs(folder)
    if needed_bytes > free.f_bavail * free.f_frsize:
        raise NoRoomError(needed_bytes, f"{needed_bytes:,} bytes")
    inodes = len(plan.files) + len(plan.folders)
    if free.f_files and inodes > free.f_favail:  # some file systems make them as they go, and count none
        raise NoRoomError(needed_bytes, f"{inodes:,} more files and folders (inodes)", needed_inodes=inodes_for(plan))
    return needed_bytes


def require_headroom(folder: Path) -> None:
    """Raise StorageError when the volume has less free than has to stay so: then no archive fits, however small."""
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < HEADROOM_BYTES:
        raise StorageError("the volume is full", subject=str(folder), hint="free some space", reason_code="DISK_FULL")


def inodes_for(plan: Plan) -> int:
    """Return how many inodes an extraction takes from its beginning on: with its own folder, and the reservation."""
    return len(plan.files) + len(plan.folders) + 2


def _no_room(folder: Path, plan: Plan, what: str, error: OSError) -> NoRoomError:
    is_by_quota = error.errno == errno.EDQUOT
    return NoRoomError(room_for(folder, plan), what, needed_inodes=inodes_for(plan), is_by_quota=is_by_quota)


def room_for(folder: Path, plan: Plan) -> int:
    """Return how many bytes a plan takes on this volume, in whole blocks, with what has to stay free beside it."""
    block = os.statvfs(folder).f_frsize
    blocks = len(plan.folders) + sum(-(-file.size_bytes // block) for file in plan.files)
    return blocks * block + HEADROOM_BYTES


def clear_staging(volume: Volume, open_tokens: Callable[[], Collection[str]]) -> int:
    """
    Remove what dead extractions left in `.staging/`; returns how many folders and reservations.

    The listing comes before the tokens: an extraction has its lease before it has its folder, so a living one that is
    listed is also named. Raises StorageError when the volume does not list them.
    """
    try:
        names = [path.name for path in volume.staging.iterdir()]
    except FileNotFoundError:
        return 0
    except OSError as error:
        what = f"what is left of extractions cannot be seen: {error.strerror}"
        raise StorageError(what, subject=str(volume.staging)) from error
    if not names:
        return 0
    living = open_tokens()
    dead = [name for name in names if name.split(".")[1:2] and name.split(".")[1] not in living]
    for name in dead:
        shutil.rmtree(volume.staging / name, ignore_errors=True)
        with suppress(OSError):  # a reservation is a file
            (volume.staging / name).unlink(missing_ok=True)
    return len(dead)


def _publish(staging: Path, published: Path, lease: BatchLease, *, still_held: Callable[[], bool]) -> None:
    """
    Give the finished folder its place, durably, while the lease is ours.

    What lay there at a moment when the lease was ours is the work of an attempt that died, or lost the batch, before
    its rows were written; it gives way. Anything else was published by whoever took the batch over while we were held
    up, and stays: with rows, handlers read it. Each look comes before the question, and each rename proves that
    what it replaced is what was seen.
    """
    attic = staging.with_name(f"{staging.name}.old")
    try:
        while True:
            remnant = id_of(published)
            if not still_held():
                raise LeaseLostError(_TAKEN_OVER, subject=lease.batch_id)
            if remnant is not None:
                if not replace_if_it_is(published, remnant, staging, attic):
                    raise LeaseLostError(_TAKEN_OVER, subject=lease.batch_id)
                break
            with suppress(FileExistsError):
                rename_into_nothing(staging, published)
                break
    finally:
        shutil.rmtree(attic, ignore_errors=True)
    sync_directory(published.parent)
    sync_directory(staging.parent)
