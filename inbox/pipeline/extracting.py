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
from inbox.utils.reserving import Reservation
from inbox.utils.volume import Volume

HEADROOM_BYTES: Final = 64 * 1024**2
"""What stays free beside an extraction: the database and the log live on the same volume."""
PLENTY: Final = 4
"""So many times what is needed is more than others will take in the meantime."""
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


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
        staging.mkdir(parents=True)
        with reserved(staging.with_name(f"{staging.name}.room"), plan) as reservation:
            extraction = extract_members(
                fd, plan, staging, terms.limits, watchman=watchman, before_writing=reservation.use
            )
        require_unchanged(fd, drop)
        if not still_held():
            raise LeaseLostError("another worker has taken the batch over", subject=lease.batch_id)
        _publish(staging, volume.published(lease.batch_id), volume.staging)
    except OSError as error:
        if error.errno in NO_ROOM:  # where nothing can be reserved, others may take what was there
            raise NoRoomError(room_for(volume.staging, plan), "the rest of the archive") from error
        raise StorageError(f"the archive cannot be unpacked: {error.strerror}", subject=str(staging)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return extraction


class NoRoomError(StorageError):
    """The volume has not got the room that an archive needs; `needed_bytes` is how much has to be free."""

    is_for_all = False

    def __init__(self, needed_bytes: int, what: str) -> None:
        super().__init__(
            f"not enough room on the volume for {what}",  # no figure that changes: it is said once
            hint="free some space; the drop waits",
            reason_code="DISK_FULL",
        )
        self.needed_bytes = needed_bytes

    def is_over(self, folder: Path) -> bool:
        """Say whether by now the volume of this folder has the bytes that were wanting."""
        return shutil.disk_usage(folder).free >= self.needed_bytes


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
            raise NoRoomError(needed_bytes, f"{needed_bytes:,} bytes") from error
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
        raise NoRoomError(needed_bytes, f"{inodes:,} more files and folders (inodes)")
    return needed_bytes


def require_headroom(folder: Path) -> None:
    """Raise StorageError when the volume has less free than has to stay so: then no archive fits, however small."""
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < HEADROOM_BYTES:
        raise StorageError("the volume is full", subject=str(folder), hint="free some space", reason_code="DISK_FULL")


def room_for(folder: Path, plan: Plan) -> int:
    """Return how many bytes a plan takes on this volume, in whole blocks, with what has to stay free beside it."""
    block = os.statvfs(folder).f_frsize
    blocks = len(plan.folders) + sum(-(-file.size_bytes // block) for file in plan.files)
    return blocks * block + HEADROOM_BYTES


def clear_staging(volume: Volume, open_tokens: Callable[[], Collection[str]]) -> int:
    """
    Remove what dead extractions left in `.staging/`; returns how many folders and reservations.

    The listing comes before the tokens: an extraction has its lease before it has its folder, so a living one that is
    listed is also named.
    """
    try:
        names = [path.name for path in volume.staging.iterdir()]
    except FileNotFoundError:
        return 0
    if not names:
        return 0
    living = open_tokens()
    dead = [name for name in names if name.split(".")[1:2] and name.split(".")[1] not in living]
    for name in dead:
        shutil.rmtree(volume.staging / name, ignore_errors=True)
        with suppress(OSError):  # a reservation is a file
            (volume.staging / name).unlink(missing_ok=True)
    return len(dead)


def _publish(staging: Path, published: Path, attic: Path) -> None:
    """
    Rename the finished folder into its place, durably.

    What may be there is the work of an attempt that died before its rows were written; it goes, by a rename first, so
    that no moment shows a mixture.
    """
    if os.path.lexists(published):
        old = attic / f"{published.name[:32]}.{staging.name.rpartition('.')[2]}.old"
        published.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    staging.rename(published)
    sync_directory(published.parent)
    sync_directory(attic)
