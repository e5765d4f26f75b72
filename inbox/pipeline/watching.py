"""
Watching: what lies in the uploads, and a bell that rings when it may have changed.

The scan decides; events only wake. Any event may be lost, doubled or late without harm, and network file systems send
none for other clients' writes.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from inbox.core.errors import StorageError
from inbox.domain import Drop
from inbox.utils.clock import Bell
from inbox.utils.drops import Kind, drop_from, kind_of
from inbox.utils.inotify import InotifyEmitter, explained

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


def _nothing(_name: str, _kind: Kind) -> None:
    """Nobody wants to know."""


def scan(uploads: Path, on_other: Callable[[str, Kind], object] = _nothing) -> list[Drop]:
    """
    Return the drops at the top level of the uploads, oldest change first.

    Only regular files count: a link or a device in there is not something to follow, and a folder is not a drop. The
    others are named to `on_other`.
    Raises StorageError when the folder is not there, since a vanished mount must not look like an empty one.
    """
    try:
        with os.scandir(uploads) as entries:
            drops = [drop for entry in entries if (drop := _drop(uploads, entry, on_other)) is not None]
    except OSError as error:
        raise StorageError(
            f"the uploads folder cannot be read: {error.strerror}", subject=str(uploads), hint="is the volume mounted?"
        ) from error
    return sorted(drops, key=lambda drop: (drop.changed_at, drop.name))


def _drop(uploads: Path, entry: os.DirEntry[str], on_other: Callable[[str, Kind], object]) -> Drop | None:
    if is_temporary(entry.name):
        return None
    try:
        status = entry.stat(follow_symlinks=False)
        kind = kind_of(status.st_mode)
        if kind is Kind.FILE:
            return drop_from(uploads / entry.name, status)
        on_other(entry.name, kind)
    except FileNotFoundError:  # taken away between the listing and the look
        pass
    return None


class _Ringer(FileSystemEventHandler):
    """
    Rings for whatever may mean a new drop, and names what arrived.

    A file moved in arrives as moved, one written as created and then closed. Opens and reads are ours.
    """

    def __init__(self, bell: Bell, heard: Callable[[str], object]) -> None:
        self._bell = bell
        self._heard = heard

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = os.path.basename(os.fsdecode(event.dest_path or event.src_path))  # noqa: PTH119 - no Path for each event
        if event.event_type != "deleted" and not is_temporary(name):
            self._heard(name)
        self._bell.ring()


class Watch:
    """
    A watchdog observer on the one folder, not recursive. It may fail to start, and may end: the scan does without it.

    The bell rings for every event and at the end of the watch. `heard` gets the name of whatever arrived, from a thread
    of the watch; scratch files are left out.
    """

    def __init__(self, uploads: Path, bell: Bell, heard: Callable[[str], object] = lambda _name: None) -> None:
        self._uploads = uploads
        self._bell = bell
        self._heard = heard
        self._observer: BaseObserver | None = None
        self._emitter: InotifyEmitter | None = None
        self._watched: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin to watch, or begin anew. Raises StorageError when the system has no watch to give."""
        self.stop()
        self._watched = self._identity()
        self._observer = observer = BaseObserver(InotifyEmitter)
        observer.schedule(_Ringer(self._bell, self._heard), str(self._uploads), recursive=False)
        (emitter,) = observer.emitters
        self._emitter = cast("InotifyEmitter", emitter)
        self._emitter.on_end = self._bell.ring
        try:
            observer.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            self.stop()
            reason, hint = explained(error) if isinstance(error, OSError) else (str(error), "")
            raise StorageError(f"the folder cannot be watched: {reason}", hint=hint) from error

    def ailment(self) -> str | None:
        """Return why no more events come, or None while they do."""
        if self._observer is None or self._emitter is None:
            return "the folder is not watched"
        if not self._emitter.is_alive():
            return self._emitter.ended_because or "the thread that reads events has ended"
        if not self._observer.is_alive():
            return "the thread that hands events on has ended"
        if self._identity() != self._watched:  # the kernel tells the folder nothing of a mount above it
            return "the folder was replaced, or mounted over"
        return None

    def stop(self) -> None:
        for thread in (self._observer, self._emitter):
            if thread is not None and thread.is_alive():
                thread.stop()
                thread.join(timeout=5)
        if self._emitter is not None and not self._emitter.is_alive():
            self._emitter.close()
        self._observer = self._emitter = None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._uploads.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
