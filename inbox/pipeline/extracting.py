"""
Extracting: judge the whole index, reserve the disk, write into `.staging/`, make it durable, publish by one rename.

Rows come after the rename: a row never names a file that is not there. What a crash leaves is a folder without rows,
which the next attempt at the same batch replaces.
"""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from inbox.archives import Terms, extract_members, plan_extraction
from inbox.core.errors import LeaseLostError, StorageError
from inbox.domain import BatchLease, Drop, Extraction
from inbox.utils.drops import require_unchanged
from inbox.utils.filesystem import sync_directory
from inbox.utils.volume import Volume

HEADROOM_BYTES: Final = 64 * 1024**2
"""What stays free beside an extraction: the database and the log live on the same volume."""


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
    plan = plan_extraction(fd, terms.limits, passwords=terms.passwords, name_encoding=terms.name_encoding)
    require_room(volume.extracted, plan.declared_bytes)
    staging = volume.staging / f"{lease.batch_id[:32]}.{lease.token}"
    try:
        staging.mkdir(parents=True)
        extraction = extract_members(fd, plan, staging, terms.limits, should_stop=should_stop)
        require_unchanged(fd, drop)
        if not still_held():
            raise LeaseLostError("another worker has taken the batch over", subject=lease.batch_id)
        _publish(staging, volume.published(lease.batch_id), volume.staging)
    except OSError as error:
        raise StorageError(f"the archive cannot be unpacked: {error.strerror}", subject=str(staging)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return extraction


def require_room(folder: Path, wanted_bytes: int) -> None:
    """Raise StorageError unless the volume has room for so many bytes and some more."""
    free = shutil.disk_usage(folder).free
    if wanted_bytes + HEADROOM_BYTES > free:
        raise StorageError(
            f"not enough room on the volume for {wanted_bytes:,} bytes",  # no figure that changes: it is said once
            hint="free some space; the drop waits",
            reason_code="DISK_FULL",
        )


def clear_staging(volume: Volume, open_tokens: Callable[[], Collection[str]]) -> int:
    """
    Remove what dead extractions left in `.staging/`; returns how many folders.

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
