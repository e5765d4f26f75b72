"""
Finding the end record, and with it the central directory.

Where the archive ends is decided by consistency, not by the last signature in the file: the record has to describe a
directory that ends just where the record (or its Zip64 companion) stands. A copy cut short inside a stored inner
archive has an end record too, that of the inner one; its offsets betray it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from inbox.archives.reasons import refuse
from inbox.archives.records import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LOCAL_SIGNATURE,
    LOCATOR,
    LOCATOR_SIGNATURE,
    SENTINEL_16,
    SENTINEL_32,
    SPANNED_MARKERS,
)
from inbox.archives.source import Source
from inbox.core.errors import ArchiveRefusedError

_PADDING_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = END.size + 0xFFFF + _PADDING_BYTES
_END64_SIZE_COUNTED: Final = END64.size - 12  # 4.3.14.1: the size leaves out the signature and itself


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end record says, checked against where it stands. Offsets are those of the file."""

    at: int
    index_at: int
    index_bytes: int
    entries: int
    is_wide: bool
    """A Zip64 record counts the entries; without one, macOS lets the count start again at 65,536."""
    prefix_bytes: int
    """Bytes before the archive's own beginning."""
    is_clean: bool
    """Only zeros, or nothing, follow."""
    is_last: bool = True
    """No end record stands behind it, nor anything that looks like one."""


def begins_like_an_archive(source: Source) -> bool:
    """Say whether the file starts with a member, an end record, or the marker of a split archive."""
    return source.peek(0, 4) in {LOCAL_SIGNATURE, END_SIGNATURE, *SPANNED_MARKERS}


def find_ending(source: Source) -> Ending | None:
    """
    Return the archive's end, or None when there is none (yet).

    Raises ArchiveRefusedError when two could be meant (AMBIGUOUS_END), when the archive is one of several parts, or
    when its Zip64 records contradict the rest: some readers would take the one, some the other.
    """
    tail_at = max(source.size - _TAIL_BYTES, 0)
    tail = source.read(tail_at, source.size - tail_at)
    found: Ending | None = None
    refusal: ArchiveRefusedError | None = None
    padded_from = len(tail.rstrip(b"\0"))
    for at in _candidates(tail):
        try:
            ending = _judge(source, tail, tail_at, at, padded_from)
        except ArchiveRefusedError as error:
            refusal = refusal or error
            continue
        if ending is None:
            continue
        if found is not None and (found.is_clean or not ending.is_clean):
            if ending.is_clean:  # two ends, one inside the comment of the other
                raise refuse("AMBIGUOUS_END")
            continue
        found = ending
    if found is None:
        if refusal is not None:
            raise refusal
        return None
    is_last = END_SIGNATURE not in tail[found.at - tail_at + END.size :]
    if found.is_clean and not is_last:
        raise refuse("AMBIGUOUS_END", "the comment holds an end record")
    return replace(found, is_last=is_last)


def _candidates(tail: bytes) -> Iterator[int]:
    at = tail.rfind(END_SIGNATURE)
    while at >= 0:
        if at + END.size <= len(tail):
            yield at
        at = tail.rfind(END_SIGNATURE, 0, at)


def _judge(source: Source, tail: bytes, tail_at: int, at_in_tail: int, padded_from: int) -> Ending | None:
    """Return the ending if the record describes one; `padded_from` is where in the tail only zeros follow."""
    _, disk, index_disk, entries_here, entries, index_bytes, index_offset, comment_bytes = END.unpack_from(
        tail, at_in_tail
    )
    behind = at_in_tail + END.size + comment_bytes
    if behind > len(tail):  # its comment is not there, or not yet
        return None
    is_clean = behind >= padded_from
    at = tail_at + at_in_tail
    index_end = at
    wants_zip64 = SENTINEL_16 in {disk, index_disk, entries_here, entries} or SENTINEL_32 in {index_bytes, index_offset}
    zip64 = _zip64(source, at)
    if zip64 is not None:
        index_end, record_offset, values = zip64
        _compare((disk, index_disk, entries_here, entries, index_bytes, index_offset), values)
        disk, index_disk, entries_here, entries, index_bytes, index_offset = values
    elif wants_zip64 and index_offset + index_bytes != at:  # 65,535 members are no sentinel when everything else fits
        if is_clean and begins_like_an_archive(source):
            raise refuse("BAD_ZIP64", "the end record refers to one that is not there", damaged=True)
        return None
    index_at = index_end - index_bytes
    prefix_bytes = index_at - index_offset
    stands_there = index_at >= 0 and (not index_bytes or source.peek(index_at, 4) == CENTRAL_SIGNATURE)
    if not stands_there or prefix_bytes < 0 or (prefix_bytes and (not entries or begins_like_an_archive(source))):
        if is_clean and _is_a_lie(source, index_at if stands_there else None, index_offset, prefix_bytes, entries):
            raise refuse("INDEX_LIES", damaged=True)
        return None
    if zip64 is not None and record_offset + prefix_bytes != index_end:
        raise refuse("BAD_ZIP64", "the locator leads elsewhere", damaged=True)
    if disk or index_disk or entries_here != entries:
        raise refuse("MULTI_DISK", damaged=True)
    return Ending(at, index_at, index_bytes, entries, zip64 is not None, prefix_bytes, is_clean)


def _compare(narrow: Sequence[int], wide: Sequence[int]) -> None:
    for small, large, sentinel in zip(narrow, wide, (SENTINEL_16,) * 4 + (SENTINEL_32,) * 2, strict=True):
        if small not in {large, sentinel}:
            raise refuse("BAD_ZIP64", "the two end records differ", damaged=True)


def _is_a_lie(source: Source, index_at: int | None, index_offset: int, prefix_bytes: int, entries: int) -> bool:
    """
    Tell an end record that lies from that of an inner archive, where a copy may have been cut short.

    In the latter the directory stands right before the record, and its first member where the shift puts it.
    """
    if prefix_bytes < 0:  # nothing that was cut off moves a directory towards the end
        return True
    if index_at is None:
        return source.peek(index_offset, 4) == CENTRAL_SIGNATURE
    first = source.peek(index_at, CENTRAL.size)
    if not first.startswith(CENTRAL_SIGNATURE):  # an empty inner archive, if it says so
        return entries > 0
    if len(first) < CENTRAL.size:
        return True
    offset: int = CENTRAL.unpack(first)[-1]
    return offset != SENTINEL_32 and source.peek(prefix_bytes + offset, 4) != LOCAL_SIGNATURE


def _zip64(source: Source, end_at: int) -> tuple[int, int, tuple[int, int, int, int, int, int]] | None:
    """
    Return where the Zip64 end record stands, where its locator says so, and its values, if there is one.

    A locator's four signature bytes may occur by chance; not so with a record's signature where it leads, or right
    before it (where the record is if something is prepended). That record has to end where the locator stands: some
    readers look at the one place, some at the other, and few at its size.
    """
    locator_at = end_at - LOCATOR.size
    if locator_at < END64.size:
        return None
    signature, disk, record_offset, disks = LOCATOR.unpack(source.read(locator_at, LOCATOR.size))
    if signature != LOCATOR_SIGNATURE:
        return None
    found = None
    for record_at in {locator_at - END64.size, record_offset}:
        if not 0 <= record_at <= locator_at - END64.size:
            continue
        signature, size, _, _, *values = END64.unpack(source.read(record_at, END64.size))
        if signature != END64_SIGNATURE:
            continue
        if found is not None or size < _END64_SIZE_COUNTED or record_at + 12 + size != locator_at:
            raise refuse("BAD_ZIP64", "more than one end record could be meant", damaged=True)
        found = record_at, record_offset, tuple(values)
    if found is not None and (disk or disks > 1):
        raise refuse("MULTI_DISK", damaged=True)
    return found
