"""Checking: every member of a plan decoded and held against its declared size and checksum, nothing written."""

from inbox.archives.decoding import crc32, decoded
from inbox.archives.limits import Limits
from inbox.archives.planning import Plan
from inbox.archives.reasons import refuse
from inbox.archives.source import Source


def check_members(fd: int, plan: Plan, limits: Limits) -> int:
    """
    Decode every file of the plan and return how many bytes they come to.

    Raises ArchiveRefusedError, as writing them would, when a content is not what was declared, NotSettledError when the
    archive changes meanwhile, StorageError when it cannot be read.
    """
    source = Source(fd)
    total = 0
    for file in plan.files:
        crc = 0
        for piece in decoded(source, file, file.data_at, file.path):
            crc = crc32(piece, crc)
            total += len(piece)
            limits.check_total(total, plan.archive_bytes)
        if crc != file.crc and (file.seal is None or file.seal.has_crc):
            raise refuse("BAD_CRC", member=file.path, damaged=True)
    return total
