"""
Watching: what lies in the uploads, and a bell that rings when it may have changed.

The scan decides; events only wake. Any event may be lost, doubled or late without harm, and network file systems send
none for other clients' writes.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from inbox.core.errors import StorageError
from inbox.domain import Drop
from inbox.utils.clock import Bell
from inbox.utils.drops import drop_from

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

_MAY_BE_WHOLE: Final = frozenset({"created", "closed", "moved"})
_MAY_BE_NEWS: Final = _MAY_BE_WHOLE | {"modified", "deleted"}

logging.getLogger("watchdog").setLevel(logging.ERROR)  # it warns of its own end, on standard error

_TEMPORARY_SUFFIXES: Final = (
    ".part",
    ".partial",
    ".filepart",
    ".tmp",
    ".temp",
    ".crdownload",
    ".opdownload",
    ".download",
    ".aria2",
    ".swp",
    ".lock",
    "~",
)


def is_temporary(name: str) -> bool:
    """Say whether a name is somebody's own scratch file: hidden (rsync, scp), or marked as unfinished."""
    return name.startswith((".", "~")) or name.lower().endswith(_TEMPORARY_SUFFIXES)


def scan(uploads: Path) -> list[Drop]:
    """
    Return the drops at the top level of the uploads, oldest change first.

    Only regular files count: a link or a device in there is not something to follow, and a folder is not a drop.
    Raises StorageError when the folder is not there, since a vanished mount must not look like an empty one.
    """
    try:
        with os.scandir(uploads) as entries:
            drops = [drop for entry in entries if (drop := _drop(uploads, entry)) is not None]
    except OSError as error:
        raise StorageError(
            f"the uploads folder cannot be read: {error.strerror}", subject=str(uploads), hint="is the volume mounted?"
        ) from error
    return sorted(drops, key=lambda drop: (drop.changed_at, drop.name))


def _drop(uploads: Path, entry: os.DirEntry[str]) -> Drop | None:
    if is_temporary(entry.name):
        return None
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        return drop_from(uploads / entry.name, entry.stat(follow_symlinks=False))
    except FileNotFoundError:  # taken away between the listing and the look
        return None


class _Ringer(FileSystemEventHandler):
    """
    Rings for whatever may mean a new drop, and names the one that may be whole now.

    A file moved in from outside arrives as created, one renamed inside as moved, one written as closed: all alike.
    Opens and reads are ours.
    """

    def __init__(self, bell: Bell, announce: Callable[[str], None]) -> None:
        self._bell = bell
        self._announce = announce

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _MAY_BE_NEWS or event.is_directory:
            return
        if event.event_type in _MAY_BE_WHOLE:
            self._announce(Path(os.fsdecode(event.dest_path or event.src_path)).name)
        self._bell.ring()


class Watch:
    """A watchdog observer on the one folder, not recursive. It may fail to start: the scan does without it."""

    def __init__(self, uploads: Path, bell: Bell, announce: Callable[[str], None]) -> None:
        self._uploads = uploads
        self._ringer = _Ringer(bell, announce)
        self._observer: BaseObserver | None = None

    def start(self) -> None:
        """Begin to watch. Raises StorageError when the system has no watch to give."""
        observer = Observer()
        observer.schedule(self._ringer, str(self._uploads), recursive=False)
        try:
            observer.start()
        except OSError as error:
            raise StorageError(
                f"the folder cannot be watched: {error.strerror}",
                hint="raise fs.inotify.max_user_watches and max_user_instances (sysctl); the scan still finds drops",
            ) from error
        self._observer = observer

    def is_alive(self) -> bool:
        return self._observer is not None and self._observer.is_alive()

    def stop(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=5)
            self._observer = None
