"""
A volume of its own: an ext4 file system of limited size in a file, where this process may mount one.

It is mounted in a mount namespace of this process, so that nobody else sees it and nothing of it outlives us. Without
the right to do that a plain folder serves, and the volume has no faults.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x20000  # linux/sched.h
BYTES_PER_INODE: Final = 4096
BLOCK_BYTES: Final = 4096
_libc = ctypes.CDLL(None, use_errno=True)


class Volume:
    """Where the services' storage lies. `base` is their STORAGE_BASE_PATH."""

    def __init__(self, mount_point: Path, *, can_fail: bool) -> None:
        self.mount_point = mount_point
        self.base = mount_point / "shared"
        self.can_fail = can_fail

    def fill(self) -> None:
        """Leave no room."""
        fd = os.open(self._filler, os.O_CREAT | os.O_WRONLY, 0o600)
        step = shutil.disk_usage(self.mount_point).free
        while step >= BLOCK_BYTES:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, step)
            except OSError:
                step //= 2
        os.close(fd)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def make_read_only(self) -> None:
        """Lay a read-only view of the volume over itself: whoever opens something from now on cannot write."""
        _run("mount", "--bind", _read_only_view(self.mount_point), self.mount_point)

    def take_away(self) -> None:
        """Lay an empty file system over it: whoever looks now finds nothing."""
        _run("mount", "-t", "tmpfs", "-o", "size=64k,ro", "nothing", self.mount_point)

    def give_back(self) -> None:
        """Take off what was laid over it, also while somebody still looks at it."""
        _run("umount", "--lazy", self.mount_point)

    @property
    def _filler(self) -> Path:
        return self.mount_point / "filler"


@contextmanager
def mounted(folder: Path, size_bytes: int) -> Iterator[Volume]:
    """Yield a volume below `folder`, a plain one for no size; it is unmounted at the end, and its image stays."""
    point = folder / "volume"
    point.mkdir(parents=True)
    if not size_bytes or not _has_own_mounts():
        yield Volume(point, can_fail=False)
        return
    image = folder / "volume.ext4"
    try:
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-m", "0", "-i", str(BYTES_PER_INODE), image)
        _run("mount", "-o", "loop", image, point)
        view = _read_only_view(point)
        view.mkdir()
        _run("mount", "--bind", point, view)
        _run("mount", "-o", "remount,bind,ro", view)  # here nobody writes yet, so that it cannot be busy
    except (OSError, subprocess.CalledProcessError):
        image.unlink(missing_ok=True)
        yield Volume(point, can_fail=False)
        return
    try:
        yield Volume(point, can_fail=True)
    finally:
        for path in (_read_only_view(point), point):
            subprocess.run(["umount", "--lazy", path], check=False)


def _read_only_view(mount_point: Path) -> Path:
    return mount_point.with_name("read-only")


def _has_own_mounts() -> bool:
    """Enter a mount namespace of our own; False when that is not permitted."""
    if os.geteuid() != 0 or _libc.unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True).returncode == 0


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
