"""A file system that takes names for the same which differ by case alone, as SMB shares and macOS do: over FUSE."""

import errno
import os
import sys
from pathlib import Path

import mfusepy


class Folding(mfusepy.Operations):
    """The folder `root` with every name folded."""

    use_ns = True

    def __init__(self, root: str):
        self.root = Path(root)

    def at(self, path: str) -> str:
        return str(self.root / path.casefold().lstrip("/"))

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self.at(path))
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from error
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")
        times = {name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.at(path))]

    def mkdir(self, path, mode):
        self.attempt(os.mkdir, self.at(path), mode)
        return 0

    def rmdir(self, path):
        self.attempt(os.rmdir, self.at(path))
        return 0

    def unlink(self, path):
        self.attempt(os.unlink, self.at(path))
        return 0

    def rename(self, old, new, flags=0):
        self.attempt(os.rename, self.at(old), self.at(new))
        return 0

    def create(self, path, mode, fi=None):
        return self.attempt(os.open, self.at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path, flags):
        return self.attempt(os.open, self.at(path), flags)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        self.attempt(os.truncate, self.at(path), length)
        return 0

    def fsync(self, path, datasync, fh):
        os.fsync(fh)
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0

    @staticmethod
    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from error


if __name__ == "__main__":
    mfusepy.FUSE(Folding(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True)
