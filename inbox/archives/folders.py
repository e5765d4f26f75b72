"""
Folders below the target, reached by handle and never through a link.

Every open is relative to the handle of its folder, which was itself opened without following links: whoever swaps a
folder for a link meanwhile redirects nothing.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_HANDLES: Final = 64


class Folders:
    """The target and the folders in it. Paths are `/`-separated and relative to the target; "" is the target."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.root = os.open(target, _OPEN_FOLDER)
        self._handles: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in (*self._handles.values(), self.root):
            os.close(handle)

    def make(self, paths: Iterable[str]) -> None:
        """Make new folders, given with the outer ones first. Raises FileExistsError."""
        for path in paths:
            outer, _, name = path.rpartition("/")
            os.mkdir(name.encode(), 0o777, dir_fd=self._handle(outer))

    def create(self, path: str) -> int:
        """Create a new file and return its descriptor, open for writing and reading. Raises FileExistsError."""
        folder, _, name = path.rpartition("/")
        return os.open(name.encode(), _NEW_FILE, 0o666, dir_fd=self._handle(folder))

    def sync(self, paths: Iterable[str]) -> None:
        """Make the names in these folders, and in the target, durable."""
        for path in paths:
            os.fsync(self._handle(path))
        os.fsync(self.root)

    def _handle(self, path: str) -> int:
        """Return the folder's handle; members of one folder mostly stand together, so few are kept open."""
        if not path:
            return self.root
        handle = self._handles.get(path)
        if handle is None:
            if len(self._handles) >= _MAX_HANDLES:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._walk(path)
            self._handles[path] = handle
        return handle

    def _walk(self, path: str) -> int:
        """Open the folder one step at a time, since only the last step of an open is kept from following links."""
        outer, _, name = path.rpartition("/")
        known = self._handles.get(outer) if outer else self.root
        if known is not None:
            return os.open(name.encode(), _OPEN_FOLDER, dir_fd=known)
        handle = os.dup(self.root)
        for part in path.split("/"):
            try:
                inner = os.open(part.encode(), _OPEN_FOLDER, dir_fd=handle)
            finally:
                os.close(handle)
            handle = inner
        return handle
