"""
Files, handled so that neither a crash nor a stranger's name does harm.

What the volume may get over by itself (full, read-only, gone, refused) becomes `StorageError` and waits; every other
OSError, such as a missing source or a name that is too long, comes out as it is.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from inbox.core.errors import NotSettledError, StorageError, UnsafePathError
from inbox.utils.drafts import new_draft
from inbox.utils.filetypes import get_file_type

__all__ = [
    "ensure_directory_exists",
    "get_file_size",
    "get_file_type",
    "list_files_in_directory",
    "move_file",
    "resolve_storage_path",
    "safe_read_file",
    "safe_write_file",
    "sync_directory",
    "sync_file",
]

StrPath = str | os.PathLike[str]

_HINTS: Final = {
    errno.ENOSPC: "free some space on the volume",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EROFS: "mount the volume writable",
    errno.EACCES: f"give user {os.geteuid()} access to it",
    errno.EPERM: f"give user {os.geteuid()} access to it",
    errno.ENODEV: "mount the volume again",
    errno.ENXIO: "mount the volume again",
    errno.ESTALE: "mount the volume again",
    errno.ENOTCONN: "mount the volume again",
    errno.EIO: "check the disk or the network behind the volume",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
}
_NOT_FOR_DIRECTORIES: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL})


def resolve_storage_path(relative_path: StrPath, base_path: StrPath = "/shared") -> str:
    """
    Return the absolute path of something below the base, which itself counts as below.

    The path need not exist. An absolute path is taken when it lies inside. Raises UnsafePathError when the path, as
    written or after following the links in it, would leave the base.
    """
    shown = os.fspath(relative_path)
    base = os.path.abspath(base_path)  # noqa: PTH100 - Path.resolve would follow links, and the caller's spelling is kept
    path = os.path.abspath(os.path.join(base, shown))  # noqa: PTH100, PTH118 - likewise
    if "\0" in shown or not _is_inside(os.path.realpath(path), os.path.realpath(base)):
        raise UnsafePathError(
            "The path leaves the storage base",
            subject=repr(shown),
            hint=f"use a path below {base}",
            reason_code="UNSAFE_PATH",
        )
    return path


def _is_inside(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip("/") + "/")


def ensure_directory_exists(path: StrPath) -> Path:
    """Make the folder and its parents unless they are there. Raises FileExistsError when a file is in the way."""
    folder = Path(path)
    with _waiting_for_storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def get_file_size(path: StrPath) -> int:
    """Return the size in bytes. Raises FileNotFoundError."""
    return Path(path).stat().st_size


def list_files_in_directory(dir_path: StrPath, pattern: str = "*") -> list[str]:
    """
    Return the full paths of the regular files directly in a folder whose name matches the glob, sorted by name.

    Links are left out; so are names with a leading dot, unless the pattern has one too.
    """
    with _waiting_for_storage(dir_path), os.scandir(dir_path) as entries:
        return [
            str(Path(dir_path, name))
            for name in sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
            if fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))
        ]


def safe_read_file(path: StrPath) -> bytes:
    """
    Return the content of a regular file.

    Raises UnsafePathError for a link and for what is no file (a pipe would block), FileNotFoundError, StorageError.
    """
    with _waiting_for_storage(path), _open_regular(path) as file:
        return file.read()


def safe_write_file(path: StrPath, content: bytes | str, *, drafts: Path | None = None) -> None:
    """
    Write a file so that readers see the old content or the new, and a crash afterwards loses neither. Text is UTF-8.

    `drafts` as for `open_atomically`. Raises StorageError when the volume cannot take it now.
    """
    with open_atomically(path, drafts=drafts) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: StrPath, *, drafts: Path | None = None) -> Iterator[BinaryIO]:
    """
    Open a file for writing that takes its name, durably, when the block ends without an exception.

    It is written in the folder `drafts`, on the same file system, whose owner clears it (`clear_drafts`) of what
    crashes leave there; without one, beside its target. Of several that write one file at once the last one counts.
    Raises StorageError when the volume cannot take it now.
    """
    target = Path(path)
    with _waiting_for_storage(target):
        with new_draft(drafts or target.parent, target.name) as (draft, file):
            yield file
            _sync(file)
            _name(draft, target)
        sync_directory(target.parent)


def move_file(source: StrPath, target: StrPath, *, drafts: Path | None = None) -> None:
    """
    Move a regular file, never over another one.

    Within a file system the file gets its new name, durably, then loses the old one; a move that a crash left between
    the two is finished by repeating it. Across file systems it is copied, synced and named, then the source removed;
    `drafts` is for the copy what it is for `open_atomically`.
    Raises FileExistsError, FileNotFoundError, UnsafePathError for a link, StorageError, and NotSettledError when the
    source changed while it was copied.
    """
    old, new = Path(source), Path(target)
    with _waiting_for_storage(new):
        if not stat.S_ISREG(old.lstat().st_mode):
            raise _not_a_regular_file(old)
        try:
            _rename_into_free_name(old, new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_into_free_name(old, new, drafts or new.parent)
            old.unlink()
        sync_directory(old.parent)


def sync_directory(path: StrPath) -> None:
    """Make the names in a folder durable. File systems that cannot sync folders are let off."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_DIRECTORIES:
            raise
    finally:
        os.close(descriptor)


def sync_file(descriptor: int) -> None:
    """Make the content of an open file durable, whoever wrote it. What cannot be synced (a device) is let off."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_DIRECTORIES:
            raise


def _rename_into_free_name(old: Path, new: Path) -> None:
    """Use a hard link, since plain rename overwrites; without hard links, reserve the name and rename over that."""
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        if not _is_second_name(old, new):
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_over_reservation(old, new)
        return
    try:
        sync_directory(new.parent)  # or a power loss might keep the unlinking and lose the link
        old.unlink()
    except FileNotFoundError:
        return  # somebody else moves it likewise, and was faster: the new name is the only one it has
    except OSError:
        if _is_second_name(old, new):
            new.unlink()
        raise


def _is_second_name(old: Path, new: Path) -> bool:
    """Say whether both names are links to one file, as a crash between link and unlink leaves them."""
    status = old.lstat()
    return status.st_nlink > 1 and os.path.samestat(status, new.lstat()) and old.resolve() != new.resolve()


def _rename_over_reservation(old: Path, new: Path) -> None:
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
    try:
        old.rename(new)
    except OSError:
        new.unlink()
        raise
    sync_directory(new.parent)


def _copy_into_free_name(old: Path, new: Path, drafts: Path) -> None:
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    with _open_regular(old) as source, new_draft(drafts, new.name) as (draft, copy):
        before = os.fstat(source.fileno())
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        after = os.fstat(source.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise NotSettledError("The file changed while it was moved", subject=str(old))
        os.utime(draft, ns=(after.st_atime_ns, after.st_mtime_ns))
        _sync(copy)
        try:
            _rename_into_free_name(draft, new)
        except OSError as error:
            if error.errno != errno.EXDEV or drafts == new.parent:
                raise
            _copy_into_free_name(draft, new, new.parent)


def _name(draft: Path, target: Path) -> None:
    """Let a finished draft replace the target, also where the target's folder is a mount of its own."""
    try:
        draft.replace(target)
    except FileNotFoundError as error:
        if draft.exists():
            raise
        raise StorageError("what was being written was cleared away", subject=str(target)) from error
    except OSError as error:
        if error.errno != errno.EXDEV or draft.parent == target.parent:
            raise
        with draft.open("rb") as written, new_draft(target.parent, target.name) as (beside, copy):
            shutil.copyfileobj(written, copy, 1 << 20)
            _sync(copy)
            beside.replace(target)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _open_regular(path: StrPath) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_a_regular_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_a_regular_file(path)
    return os.fdopen(descriptor, "rb")


def _not_a_regular_file(path: StrPath) -> UnsafePathError:
    return UnsafePathError(
        "Not a regular file", subject=os.fspath(path), hint="links, pipes and folders are left alone"
    )


@contextmanager
def _waiting_for_storage(path: StrPath, more_hints: Mapping[int, str] = MappingProxyType({})) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0) or more_hints.get(error.errno or 0)
        if hint is None:
            raise
        raise StorageError(
            error.strerror or type(error).__name__, subject=os.fspath(path), hint=hint, reason_code="STORAGE"
        ) from error
