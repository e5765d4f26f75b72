"""
Drafts: files on their way to their names, written where nobody looks for them, and cleared away when their writer died.

Whoever writes one holds a file lock on it; one whose lock is to be had has lost its writer.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_MAX_NAME_BYTES: Final = 255


@contextmanager
def new_draft(folder: Path, name: str) -> Iterator[tuple[Path, BinaryIO]]:
    """
    Yield a new file in `folder`, open for writing, whose name no other has and begins with a dot and `name`.

    When the block ends the file has a name elsewhere, or none: that of the draft is gone. Raises OSError.
    """
    draft, descriptor = _create(folder, name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield draft, file
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def clear_drafts(folder: Path) -> int:
    """Remove the drafts whose writers died; returns how many. Where nothing can be locked they stay."""
    cleared = 0
    for draft in folder.iterdir():
        with suppress(OSError), _opened(draft) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()
            cleared += 1
    return cleared


def _create(folder: Path, name: str) -> tuple[Path, int]:
    while True:
        suffix = f".{secrets.token_hex(6)}.tmp"
        stem = os.fsencode(name)[: _MAX_NAME_BYTES - 1 - len(suffix)]
        draft = folder / f".{os.fsdecode(stem)}{suffix}"
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return draft, descriptor
        os.close(descriptor)  # cleared away before it was locked


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
