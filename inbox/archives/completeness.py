"""
Whether a file is a whole archive: its end record describes it, and its first member starts where it should.

This is the gate's half of the judgement. It decides nothing about good or bad: what is whole and hostile is refused
later, by the plan.
"""

from dataclasses import dataclass
from typing import Final

from inbox.archives.ending import begins_like_an_archive, find_ending
from inbox.archives.records import CENTRAL, LOCAL_SIGNATURE, SENTINEL_32
from inbox.archives.source import Source
from inbox.core.errors import ArchiveRefusedError

_NOTHING_YET: Final = b"\0\0\0\0"


@dataclass(frozen=True, slots=True)
class Completeness:
    """The verdict; for a file that is not whole also why not. NOT_AN_ARCHIVE will not become one by waiting."""

    complete: bool
    reason_code: str = ""
    reason: str = ""

    @property
    def is_no_archive(self) -> bool:
        return self.reason_code == "NOT_AN_ARCHIVE"


_WHOLE: Final = Completeness(complete=True)
_EMPTY: Final = Completeness(complete=False, reason_code="EMPTY_FILE", reason="it has no content yet")
_NOT_BEGUN: Final = Completeness(
    complete=False,
    reason_code="NOT_BEGUN",
    reason="its first bytes are zeros: its room is reserved, its content missing",
)
_NO_END: Final = Completeness(
    complete=False, reason_code="NO_END_RECORD", reason="it begins like a ZIP archive and has no end"
)
_NO_FIRST: Final = Completeness(
    complete=False, reason_code="FIRST_MEMBER_MISSING", reason="its end is there, its first member is not"
)
UNWRITTEN: Final = Completeness(
    complete=False, reason_code="UNWRITTEN", reason="it is damaged, and parts of its room were never written"
)
_OTHER: Final = Completeness(
    complete=False, reason_code="NOT_AN_ARCHIVE", reason="it neither begins nor ends like a ZIP archive"
)


def check_complete(fd: int) -> Completeness:
    """
    Judge an open file in a few reads, whatever its size, without changing it.

    Raises NotSettledError when it shrinks meanwhile, StorageError when it cannot be read.
    """
    source = Source(fd)
    if not source.size:
        return _EMPTY
    head = source.peek(0, 4)
    if _NOTHING_YET.startswith(head):
        return _NOT_BEGUN
    try:
        ending = find_ending(source)
    except ArchiveRefusedError:  # whole enough to be refused, with its reason, by the plan
        return _WHOLE
    if ending is None:
        is_begun = begins_like_an_archive(source) or LOCAL_SIGNATURE.startswith(head.rstrip(b"\0"))
        return _NO_END if is_begun else _OTHER
    if ending.entries and ending.index_bytes >= CENTRAL.size and not ending.prefix_bytes:
        offset = CENTRAL.unpack(source.read(ending.index_at, CENTRAL.size))[-1]
        if offset != SENTINEL_32 and source.peek(offset, 4) == _NOTHING_YET:
            return _NO_FIRST
    return _WHOLE
