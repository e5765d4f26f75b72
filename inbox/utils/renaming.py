"""
Renaming folders so that of several who do it at once none takes another's away unseen: renameat2(2).

Where the kernel or the file system lacks its flags (NFS, many of FUSE) there are substitutes, as good as plain rename
allows.
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final, TypeAlias

FileId: TypeAlias = tuple[int, int]
"""Device and inode: which folder it is, whatever its name."""

_NO_REPLACE: Final = 1
_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
_LACKING: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""EPERM comes from sandboxes that do not know the call; where it is meant, the substitute gets it too."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def id_of(path: Path) -> FileId | None:
    """Return what lies at this path, or None."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def rename_into_nothing(old: Path, new: Path) -> None:
    """
    Rename a folder to a name that is free. Raises FileExistsError when it is not.

    Plain rename(2), the substitute, replaces no folder but an empty one.
    """
    try:
        _renameat2(old, new, _NO_REPLACE)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        try:
            old.rename(new)
        except OSError as refused:
            if refused.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from refused
            raise


def replace_if_it_is(new: Path, known: FileId, by: Path, attic: Path) -> bool:
    """
    Put the folder `by` in the place of `new`, if that is the folder `known`; what was there lies in `attic` then.

    When it turns out to be another one, that stays or comes back, and the answer is False. An exchange leaves no moment
    in which nothing is there; its substitute, two renames, does. Raises FileNotFoundError when nothing is there.
    """
    try:
        _renameat2(by, new, _EXCHANGE)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        return _replace_in_two_steps(new, known, by, attic)
    came_out = id_of(by)
    if came_out == known:
        by.rename(attic)
        return True
    _renameat2(by, new, _EXCHANGE)
    return False


def _replace_in_two_steps(new: Path, known: FileId, by: Path, attic: Path) -> bool:
    new.rename(attic)
    try:
        if id_of(attic) == known:
            rename_into_nothing(by, new)
            return True
        rename_into_nothing(attic, new)
    except FileExistsError:
        return False  # somebody else was faster, and a whole folder is there
    return False


def _renameat2(old: Path, new: Path, flags: int) -> None:
    call = getattr(_libc, "renameat2", None)
    if call is None:  # musl before 1.2.6
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(old), None, str(new))
