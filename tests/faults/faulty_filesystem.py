"""A file system over FUSE that passes everything through, but what the rules in its control file make fail."""

import errno
import os
import sys
import time
from functools import partial
from pathlib import Path

import mfusepy

OPERATIONS = (
    *("getattr", "statfs", "readdir", "mkdir", "rmdir", "unlink", "link", "rename", "chmod", "utimens", "create"),
    *("open", "read", "write", "truncate", "flush", "fsync", "fsyncdir", "release"),
)


class Faulty(mfusepy.Operations):
    """
    The folder `root`, with faults.

    A line of the control file is `operation errno part`: while it stands there, that operation (or any, as `*`) on
    paths that hold the part fails with the error; instead of an error, `hang` waits until the line is gone, and
    `slow` a fifth of a second.
    """

    use_ns = True

    def __init__(self, root: str, control: str):
        self.root = root
        self.control = Path(control)
        self.noted = self.control.with_suffix(".met").open("a", buffering=1)
        for op in OPERATIONS:
            setattr(self, op, partial(self.guarded, op, getattr(self, op)))

    def guarded(self, op, do, path, *args):
        while fault := self.fault(op, path):
            self.noted.write(f"{op} {fault} {path}\n")
            if fault == "slow":
                time.sleep(0.2)
                break
            if fault != "hang":
                raise mfusepy.FuseOSError(getattr(errno, fault))
            time.sleep(0.05)
        try:
            return do(path, *args)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from error

    def fault(self, op, path):
        for rule in self.control.read_text().splitlines():
            operation, what, part = rule.split(" ", 2)
            if operation in {op, "*"} and part in f"{path}/":
                return what
        return None

    def at(self, path):
        return Path(self.root + path)

    def getattr(self, path, fh=None):
        found = os.lstat(self.at(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_ino")
        times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {name: getattr(found, name) for name in names} | times

    def statfs(self, path):
        found = os.statvfs(self.at(path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "flag", "frsize", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}

    def readdir(self, path, fh):
        entries = [(entry.name, {"st_ino": entry.inode(), "st_mode": 0}, 0) for entry in os.scandir(self.at(path))]
        return [(name, {"st_ino": 1, "st_mode": 0}, 0) for name in (".", "..")] + entries

    def mkdir(self, path, mode):
        self.at(path).mkdir(mode)
        return 0

    def rmdir(self, path):
        self.at(path).rmdir()
        return 0

    def unlink(self, path):
        self.at(path).unlink()
        return 0

    def link(self, target, source):
        os.link(self.at(source), self.at(target))
        return 0

    def rename(self, old, new, flags=0):
        self.at(old).rename(self.at(new))
        return 0

    def chmod(self, path, mode):
        self.at(path).chmod(mode)
        return 0

    def utimens(self, path, times=None):
        os.utime(self.at(path), ns=times)
        return 0

    def create(self, path, mode, fi=None):
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path, flags):
        return os.open(self.at(path), flags & ~os.O_NOFOLLOW)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.at(path), length)
        return 0

    def flush(self, path, fh):
        return 0

    def fsync(self, path, datasync, fh):
        os.fsync(fh)
        return 0

    def fsyncdir(self, path, datasync, fh):
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(
        Faulty(sys.argv[1], sys.argv[3]),
        sys.argv[2],
        foreground=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        use_ino=True,
    )
