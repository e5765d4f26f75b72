"""Drops as files: what tells one from the next, and how to open one without being led astray."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from inbox.core.errors import NotSettledError, StorageError
from inbox.domain import Drop, DropIdentity
from inbox.utils.filesystem import sync_directory, sync_file

_SIGNED_64: Final = (1 << 63) - 1


class Kind(StrEnum):
    """What lies at a path; only files are drops."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special"


_KINDS: Final = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.FOLDER, stat.S_IFLNK: Kind.LINK}
_WHAT_IT_IS: Final = {Kind.FOLDER: "a folder", Kind.LINK: "a link", Kind.SPECIAL: "a device, pipe or socket"}
NOT_A_FILE: Final = "NOT_A_FILE"


def kind_of(mode: int) -> Kind:
    return _KINDS.get(stat.S_IFMT(mode), Kind.SPECIAL)


def why_no_drop(kind: Kind) -> str:
    """Return why what is not a file is left alone."""
    return f"it is {_WHAT_IT_IS[kind]}, and only files are taken"


def look_at(path: Path) -> Drop | None:
    """Return the drop at this path as it is now, or None when it is gone or no regular file."""
    try:
        status = path.lstat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise StorageError(f"the drop cannot be looked at: {error.strerror}", subject=path.name) from error
    return drop_from(path, status) if stat.S_ISREG(status.st_mode) else None


def drop_from(path: Path, status: os.stat_result) -> Drop:
    return Drop(path.name, path, identity_of(status), max(status.st_mtime, status.st_ctime))


def identity_of(status: os.stat_result) -> DropIdentity:
    """Return what tells this content from the next; numbers fit a signed 64-bit column."""
    return DropIdentity(
        status.st_dev & _SIGNED_64, status.st_ino & _SIGNED_64, status.st_size, status.st_mtime_ns & _SIGNED_64
    )


@contextmanager
def opened(drop: Drop) -> Iterator[int]:
    """
    Open a drop once, for reading, never through a link; the descriptor is all that is used from here on.

    Raises NotSettledError when it is not the file that was scanned, StorageError when it cannot be read.
    """
    try:
        fd = os.open(drop.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotSettledError("the drop is gone", subject=drop.name) from error
    except OSError as error:
        raise StorageError(f"the drop cannot be opened: {error.strerror}", subject=drop.name) from error
    try:
        require_unchanged(fd, drop)
        yield fd
    finally:
        os.close(fd)


def make_durable(fd: int, drop: Drop) -> None:
    """
    Make an open drop, which somebody else wrote, survive a loss of power, before anything is said about it.

    Raises StorageError when the volume cannot.
    """
    try:
        sync_file(fd)
        sync_directory(drop.path.parent)
    except OSError as error:
        raise StorageError(f"the drop cannot be made durable: {error.strerror}", subject=drop.name) from error


def is_being_written(fd: int) -> bool | None:
    """
    Say whether anybody has the file open for writing, None where the kernel does not tell.

    A read lease (fcntl(2), F_SETLEASE) is granted only while nobody has; it is released at once. Leases are not to be
    had on most network file systems, nor on a file of another owner. Whoever opens the file in between makes the kernel
    send SIGIO, which a service has to ignore.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def is_partly_unwritten(fd: int) -> bool:
    """
    Say whether room within the file was reserved and never written, as far as the file system tells.

    lseek(2), SEEK_HOLE, finds that in sparse and in preallocated files. Where it is not to be had the answer is no.
    """
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) < os.fstat(fd).st_size
    except OSError:
        return False


def require_unchanged(fd: int, drop: Drop) -> None:
    """Raise NotSettledError unless the open file still has the identity that was scanned."""
    if identity_of(os.fstat(fd)) != drop.identity:
        raise NotSettledError("the drop changed while it was read", subject=drop.name)
