"""
Writing the members of a plan: each exactly as declared, hashed and checked on the way, and durable at the end.

Neighbours that are small come from one read. What an archive may cost was judged from the plan; here it is counted
again on the bytes that are really written.
"""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Final

from inbox.archives.decoding import crc32, decode_whole, decoded
from inbox.archives.folders import Folders
from inbox.archives.limits import Limits
from inbox.archives.planning import Plan, PlannedFile
from inbox.archives.reasons import refuse
from inbox.archives.source import Source
from inbox.archives.watchman import Watchman
from inbox.domain import Extraction, MemberFile
from inbox.utils.filetypes import file_type_of_content

SMALL_BYTES: Final = 1024 * 1024
"""A member up to this size, packed and unpacked, is written in one go."""
GROUP_BYTES: Final = 1024 * 1024
GROUP_MEMBERS: Final = 256
FEW_FILES: Final = 16
"""Up to here files are synced one by one, and no other writer's data with them."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def extract_members(
    fd: int,
    plan: Plan,
    target: Path,
    limits: Limits,
    *,
    watchman: Watchman | None = None,
    before_writing: Callable[[int], object] = lambda _count: None,
) -> Extraction:
    """
    Write every file of the plan below `target`, an empty folder; when this returns, all of it is durable.

    `before_writing` is told how many bytes are about to be written, a piece at a time.

    Raises ArchiveRefusedError when a content is not what was declared, NotSettledError when the archive changes
    meanwhile, OSError when the volume does not allow it, and what the watchman raises. What was written until then
    stays in `target`, for the caller to remove.
    """
    source = Source(fd)
    durably = len(plan.files) <= FEW_FILES
    meter = _Meter(limits, plan.archive_bytes, before_writing)
    writer = _Writer(source, watchman or Watchman(limits), meter, durably=durably)
    files: list[MemberFile] = []
    with Folders(target) as folders:
        try:
            folders.make(plan.folders)
            for group in _groups(plan.files):
                files += writer.write(group, folders)
        except FileExistsError as error:
            raise refuse("NAME_COLLISION") from error
        if durably:
            folders.sync(plan.folders)
        else:
            _sync_filesystem(folders.root)
    return Extraction(tuple(files), plan.skipped, plan.directories, meter.written_bytes, plan.names)


class _Meter:
    """Asked before every piece that is written, whether there is a limit against it."""

    def __init__(self, limits: Limits, archive_bytes: int, before_writing: Callable[[int], object]) -> None:
        self.written_bytes = 0
        self._limits = limits
        self._archive_bytes = archive_bytes
        self._before_writing = before_writing

    def admit(self, count: int) -> None:
        self.written_bytes += count
        self._limits.check_total(self.written_bytes, self._archive_bytes)
        self._before_writing(count)


class _Writer:
    def __init__(self, source: Source, watchman: Watchman, meter: _Meter, *, durably: bool) -> None:
        self._source = source
        self._watchman = watchman
        self._meter = meter
        self._durably = durably

    def write(self, group: Sequence[PlannedFile], folders: Folders) -> Iterator[MemberFile]:
        """Write neighbours; yields what each came to."""
        self._watchman.look_up()
        if _is_small(group[0]):
            yield from self._write_small(group, folders)
            return
        for file in group:
            yield self._write_large(file, folders)

    def _write_large(self, file: PlannedFile, folders: Folders) -> MemberFile:
        """Write a member piece by piece; its kind is read back by the same handle, wherever its folder may be now."""
        pieces = decoded(self._source, file, file.data_at, file.path)
        handle = folders.create(file.path)
        try:
            sha256 = self._fill(handle, file, self._watched(pieces))
            os.lseek(handle, 0, os.SEEK_SET)
            with open(handle, "rb", buffering=0, closefd=False) as written:
                return _written(file, sha256, file_type_of_content(written, file.path.rpartition("/")[2]))
        finally:
            os.close(handle)

    def _watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._watchman.look_up()
            yield piece

    def _write_small(self, group: Sequence[PlannedFile], folders: Folders) -> Iterator[MemberFile]:
        """Write members that one read covers; what kind of file each is shows while its content is in memory."""
        begin, last = group[0].data_at, group[-1]
        block = self._source.read(begin, last.data_at + last.packed_bytes - begin)
        for file in group:
            at = file.data_at - begin
            packed = block[at : at + file.packed_bytes]
            content = decode_whole(packed, file.size_bytes, file.method, file.path, file.seal)
            handle = folders.create(file.path)
            try:
                sha256 = self._fill(handle, file, (content,) if content else ())
            finally:
                os.close(handle)
            yield _written(file, sha256, file_type_of_content(BytesIO(content), file.path.rpartition("/")[2]))

    def _fill(self, handle: int, file: PlannedFile, pieces: Iterable[bytes]) -> str:
        """Write one file's content and return its SHA-256; a content without its checksum refuses the archive."""
        digest = hashlib.sha256()
        crc = 0
        for piece in pieces:
            digest.update(piece)
            crc = crc32(piece, crc)
            self._meter.admit(len(piece))
            _write_all(handle, piece)
        if crc != file.crc and (file.seal is None or file.seal.has_crc):
            raise refuse("BAD_CRC", member=file.path, damaged=True)
        if self._durably:
            os.fsync(handle)
        return digest.hexdigest()


def _written(file: PlannedFile, sha256: str, file_type: str) -> MemberFile:
    return MemberFile(file.path, file.size_bytes, sha256, file.position, file_type)


def _is_small(file: PlannedFile) -> bool:
    return file.packed_bytes <= SMALL_BYTES and file.size_bytes <= SMALL_BYTES


def _groups(files: Sequence[PlannedFile]) -> Iterator[list[PlannedFile]]:
    """Yield neighbours that one read covers, and every big file by itself."""
    for is_small, run in groupby(files, _is_small):
        group: list[PlannedFile] = []
        for file in run:
            reach = file.data_at + file.packed_bytes - group[0].data_at if group else 0
            if group and (not is_small or reach > GROUP_BYTES or len(group) >= GROUP_MEMBERS):
                yield group
                group = []
            group.append(file)
        yield group


def _write_all(handle: int, data: bytes) -> None:
    written = os.write(handle, data)
    while written < len(data):
        written += os.write(handle, data[written:])


def _sync_filesystem(handle: int) -> None:
    """Make everything on the file system durable with one call (syncfs(2)): thousands of files cost one wait."""
    if _libc.syncfs(handle) == 0:
        return
    code = ctypes.get_errno()
    if code in {errno.ENOSYS, errno.EOPNOTSUPP}:
        os.sync()
        return
    raise OSError(code, os.strerror(code))
