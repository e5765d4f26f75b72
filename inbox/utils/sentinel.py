"""
The sentinel: a file with a chance id on the volume, by which a service knows the volume again.

A mount that is gone, and another one above it, look like folders with nothing in them. What is not there may only count
as gone where the sentinel is.
"""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from inbox.utils.filesystem import safe_write_file, sync_directory

_ID_BYTES: Final = 16
_LONGEST_BYTES: Final = 128


def read_sentinel(path: Path) -> str | None:
    """Return the id in a sentinel, or None where there is none. Raises OSError when the volume does not say."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(handle, _LONGEST_BYTES).decode("ascii", "replace").strip() or None
    finally:
        os.close(handle)


def make_sentinel(path: Path) -> str:
    """
    Return the id in the sentinel at `path`, which is made, durably, where there is none.

    Of several that make one at the same time all return the same id. Raises OSError, StorageError.
    """
    found = read_sentinel(path)
    if found is not None:
        return found
    drawn = secrets.token_hex(_ID_BYTES)
    beside = path.with_name(f".{path.name}.{drawn}")
    safe_write_file(beside, drawn + "\n")
    try:
        _name(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()
    sync_directory(path.parent)
    found = read_sentinel(path)
    if found is None:
        raise OSError(errno.EIO, "the volume does not keep what is written", str(path))
    return found


def _name(beside: Path, path: Path) -> None:
    """Give the file its name unless another one has it: an empty one, as no crash of ours leaves, gives way."""
    try:
        os.link(beside, path)
    except FileExistsError:
        if read_sentinel(path) is None:
            beside.replace(path)
    except OSError:  # no hard links here: two that make one at once may differ, and the database decides
        beside.replace(path)
