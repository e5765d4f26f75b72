"""
What the kernel says about one folder, with the notices that watchdog's own emitter drops.

inotify(7) tells when its queue overflowed and when a watch is over: the folder deleted, moved or unmounted. watchdog 6
skips all of that, watchdog 7 most of it, and goes on with a watch that will never fire again. So only its threads and
events are used; what is read from the kernel is read here.
"""

import ctypes
import errno
import os
import select
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from watchdog.events import FileClosedEvent, FileCreatedEvent, FileDeletedEvent, FileMovedEvent, FileSystemEvent
from watchdog.observers.api import EventEmitter

from inbox.core.errors import describe_error, format_message

IN_CLOSE_WRITE: Final = 0x00000008
IN_MOVED_FROM: Final = 0x00000040
IN_MOVED_TO: Final = 0x00000080
IN_CREATE: Final = 0x00000100
IN_DELETE: Final = 0x00000200
IN_DELETE_SELF: Final = 0x00000400
IN_MOVE_SELF: Final = 0x00000800
IN_UNMOUNT: Final = 0x00002000
IN_Q_OVERFLOW: Final = 0x00004000
IN_IGNORED: Final = 0x00008000
IN_ONLYDIR: Final = 0x01000000
IN_ISDIR: Final = 0x40000000

_ARRIVALS: Final = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO
_DEPARTURES: Final = IN_DELETE | IN_MOVED_FROM
_WANTED: Final = _ARRIVALS | _DEPARTURES | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
"""Not every write: a long copy would ring thousands of times for what its close tells once."""

_ENDS: Final = {
    IN_Q_OVERFLOW: "the kernel's queue of events overflowed",
    IN_UNMOUNT: "the folder was unmounted",
    IN_DELETE_SELF: "the folder was deleted",
    IN_MOVE_SELF: "the folder was moved away",
    IN_IGNORED: "the kernel gave the watch up",
}
_LIMITS: Final = Path("/proc/sys/fs/inotify")
_LEAST_LIMIT: Final = 128
_HEAD: Final = struct.Struct("iIII")
_BUFFER_BYTES: Final = 1 << 18

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Notice(NamedTuple):
    """One event as the kernel gives it; the name is that of an entry of the folder, or empty for the folder itself."""

    mask: int
    name: str


class Inotify:
    """
    A kernel queue of what happens to the entries of one folder, and to the folder itself.

    Raises OSError when the system grants none: EMFILE for the instances, ENOSPC for the watches.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), _WANTED))
            self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            os.close(self._fd)
            raise
        self._poll = select.poll()
        for fd in (self._fd, self._waker):
            self._poll.register(fd, select.POLLIN)

    def read(self, seconds: float) -> list[Notice]:
        """Return what has happened, waiting so long for something; nothing when the time is up or `wake` was called."""
        if self._fd not in (fd for fd, _ in self._poll.poll(seconds * 1000)):
            return []
        return list(_notices(os.read(self._fd, _BUFFER_BYTES)))

    def wake(self) -> None:
        """End a `read` that waits, from another thread; and any later one."""
        os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._waker)


class InotifyEmitter(EventEmitter):
    """
    Puts the kernel's notices about one folder into the queue of a watchdog observer, until the watch is over.

    `ended_because` says why its thread has ended and what to set, and `on_end` is called then. A file that is moved in,
    from anywhere, is a moved event without a source: its writer is done with it, as with a closed one.
    """

    ended_because: str | None = None
    on_end: Callable[[], object] = staticmethod(lambda: None)

    _inotify: Inotify | None = None

    def on_thread_start(self) -> None:
        self._inotify = Inotify(Path(os.fsdecode(self.watch.path)))

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # noqa: BLE001 - whatever it was, somebody has to learn that nothing is read any more
            self.ended_because = describe_error(error)
        finally:
            self.stopped_event.set()
            self.on_end()

    def queue_events(self, timeout: float) -> None:
        folder = os.fsdecode(self.watch.path)
        for mask, name in self._inotify.read(timeout) if self._inotify else ():
            reason = next((reason for bit, reason in _ENDS.items() if mask & bit), None)
            if reason is not None:
                hint = _raise_limit("max_queued_events") if mask & IN_Q_OVERFLOW else ""
                self.ended_because = format_message(reason, hint=hint)
                self.stopped_event.set()
                return
            if not mask & IN_ISDIR:
                self.queue_event(_event(mask, f"{folder}/{name}"))

    def on_thread_stop(self) -> None:
        if self._inotify is not None:
            self._inotify.wake()

    def close(self) -> None:
        """Give back what the kernel granted. Only when the thread has ended, and nobody stops it any more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _event(mask: int, path: str) -> FileSystemEvent:
    if mask & IN_MOVED_TO:
        return FileMovedEvent("", path)
    if mask & IN_CLOSE_WRITE:
        return FileClosedEvent(path)
    if mask & IN_CREATE:
        return FileCreatedEvent(path)
    return FileDeletedEvent(path)


def _notices(data: bytes) -> Iterator[Notice]:
    """Take apart what one read gave: heads of wd, mask, cookie and length, each followed by a padded name."""
    at = 0
    while at < len(data):
        _, mask, _, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield Notice(mask, os.fsdecode(data[at : at + length].rstrip(b"\0")))
        at += length


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def explained(error: OSError) -> tuple[str, str]:
    """Return why the system granted no watch, and what to set so that it does, or an empty hint."""
    if error.errno == errno.ENOSPC:
        return "all inotify watches are in use", _raise_limit("max_user_watches")
    if error.errno == errno.EMFILE and _may_open_files():  # the same number for two limits
        return "all inotify instances are in use", _raise_limit("max_user_instances")
    if error.errno == errno.EMFILE:
        return "too many open files", "raise the limit of open files (ulimit -n)"
    return os.strerror(error.errno or errno.EIO), ""


def _may_open_files() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def _raise_limit(name: str) -> str:
    """Return the command that doubles a limit, if it is one at all, on the machine itself: a container cannot."""
    try:
        wanted = str(max(2 * int((_LIMITS / name).read_text("ascii")), _LEAST_LIMIT))
    except (OSError, ValueError):
        wanted = "..."
    return f"sysctl fs.inotify.{name}={wanted}"
