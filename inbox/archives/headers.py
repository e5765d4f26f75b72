"""
Local headers against the central directory, and the table of spans.

Readers that walk the archive from its start see the local headers, those that start from the end see the directory. An
archive in which the two tell different stories is refused, and so is one whose members overlap or that hides a member
between others.
"""

from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from struct import Struct
from typing import Final

from inbox.archives.encryption import AES_FIELD, aes_seal
from inbox.archives.ending import Ending
from inbox.archives.index import Entry
from inbox.archives.names import unicode_name
from inbox.archives.reasons import refuse
from inbox.archives.records import (
    DESCRIPTOR,
    DESCRIPTOR64,
    DESCRIPTOR_SIGNATURE,
    ENCRYPTED,
    HAS_DESCRIPTOR,
    IS_UTF8,
    LOCAL,
    LOCAL_SIGNATURE,
    MASKED,
    PATCHED,
    SENTINEL_32,
    SPANNED_MARKERS,
    STORED,
    STRONGLY_ENCRYPTED,
    UNICODE_PATH_FIELD,
    ZIP64_FIELD,
    MalformedFieldError,
    extra_fields,
)
from inbox.archives.source import Source

_COMPARED_FLAGS: Final = ENCRYPTED | PATCHED | STRONGLY_ENCRYPTED | IS_UTF8 | MASKED
_NO_HEADER: Final = "it has no local header where the directory says"
_MARKER_BYTES: Final = 4
_WIDE_BYTES: Final = 8
_LONGEST_DESCRIPTOR: Final = 4 + DESCRIPTOR64.size
_TELLING_BYTES: Final = 12
"""Of a descriptor: signature, checksum, and (the lower half of) the packed size."""
_DENSEST_DESCRIPTORS: Final = 30 + 16 + 46
"""Bytes that a member of an inner archive takes at least: local header, descriptor, entry."""
_FEW_DESCRIPTORS: Final = 1000


def locate_data(source: Source, ending: Ending, entries: Sequence[Entry], *, accept_prefix: bool = False) -> list[int]:
    """
    Check every local header and return where each entry's data begins, in the order of `entries`.

    With `accept_prefix` anything may stand before the first of them.

    Raises ArchiveRefusedError when a header differs from the directory, when two spans overlap, or when what lies
    between them holds a member of its own.
    """
    data_at = [0] * len(entries)
    archive_at = ending.prefix_bytes
    covered = archive_at
    for entry in sorted(entries, key=attrgetter("at")):
        if entry.at < covered:
            raise refuse("OVERLAP", member=entry.shown)
        if entry.at + LOCAL.size > ending.index_at:
            raise refuse("HEADERS_DIFFER", _NO_HEADER, entry.shown, damaged=True)
        if entry.at > covered:
            _check_gap(source, covered, entry.at, is_start=covered == archive_at, accept_prefix=accept_prefix)
        begin, is_streamed = _check_header(source, entry)
        data_at[entry.position] = begin
        covered = begin + entry.packed_bytes
        if covered > ending.index_at:
            raise refuse("OVERLAP", "it reaches into the central directory", entry.shown, damaged=True)
        if is_streamed:
            if entry.method == STORED:
                _check_stored_stream(source, entry, begin, covered)
            covered += _descriptor_bytes(source, entry, covered, ending.index_at)
    _check_gap(source, covered, ending.index_at, is_start=covered == archive_at, accept_prefix=accept_prefix)
    return data_at


def _check_header(source: Source, entry: Entry) -> tuple[int, bool]:
    """
    Return where the data begins, and whether a descriptor follows it.

    Several writers that stream (fflate 0.7.1, yazl 1, camlzip) say the latter in the local header alone.
    """
    header = source.peek(entry.at, LOCAL.size + len(entry.raw_name))
    if len(header) < LOCAL.size or header[:4] != LOCAL_SIGNATURE:
        raise refuse("HEADERS_DIFFER", _NO_HEADER, entry.shown, damaged=True)
    fields: tuple[int, ...] = LOCAL.unpack_from(header)
    _, _, flags, method, _, _, crc, packed_bytes, size_bytes, name_bytes, extra_bytes = fields
    local_name = entry.raw_name
    extra_at = entry.at + LOCAL.size + name_bytes
    if header[LOCAL.size :] != local_name or name_bytes != len(local_name):
        local_name = source.peek(entry.at + LOCAL.size, name_bytes)
        _check_rewritten(local_name, flags, source.peek(extra_at, extra_bytes), entry)
        flags |= IS_UTF8
    if method != entry.told_method:
        raise refuse("HEADERS_DIFFER", "another method", entry.shown, damaged=True)
    is_streamed = bool(flags & HAS_DESCRIPTOR)
    if (flags ^ entry.flags) & _COMPARED_FLAGS or (entry.has_descriptor and not is_streamed):
        raise refuse("HEADERS_DIFFER", "other flags", entry.shown, damaged=True)
    if entry.method == STORED and entry.data_bytes != entry.size_bytes:
        raise refuse("SIZE_LIES", "stored, and of two sizes", entry.shown)
    if entry.seal is not None and entry.seal.is_aes:
        _check_aes(source.peek(extra_at, extra_bytes), entry)
    if SENTINEL_32 in {packed_bytes, size_bytes}:
        extra = source.peek(extra_at, extra_bytes)
        packed_bytes, size_bytes = _wide_sizes(extra, packed_bytes, size_bytes, entry, is_streamed=is_streamed)
    if extra_bytes:
        _check_unicode_path(source.peek(extra_at, extra_bytes), local_name, entry)
    told, true = (crc, packed_bytes, size_bytes), (entry.crc, entry.packed_bytes, entry.size_bytes)
    if told != true and not (is_streamed and all(a in {0, b} for a, b in zip(told, true, strict=True))):
        raise refuse("HEADERS_DIFFER", "another size or checksum", entry.shown, damaged=True)
    return extra_at + extra_bytes, is_streamed


def _check_unicode_path(extra: bytes, local_name: bytes, entry: Entry) -> None:
    """Refuse a name for readers that walk the archive which is not the one in the directory."""
    if any(name != entry.name for name in _unicode_paths(extra, local_name)):
        raise refuse("HEADERS_DIFFER", "another name in a Unicode path field", entry.shown, damaged=True)


def _unicode_paths(extra: bytes, local_name: bytes) -> list[bytes]:
    """Return the names in the Unicode path fields that are made for this local name."""
    names = []
    with suppress(MalformedFieldError):  # what stands behind the fault is read by nobody
        for kind, content in extra_fields(extra):
            if kind == UNICODE_PATH_FIELD:
                names.append(unicode_name(content, local_name))
    return [name for name in names if name is not None]


def _check_rewritten(local_name: bytes, flags: int, extra: bytes, entry: Entry) -> None:
    """
    Refuse another name in the local header, unless the directory has just that one in UTF-8.

    Python's zipfile rewrites it so when it adds to another program's archive: from code page 437, which agrees with
    UTF-8 in all of ASCII, and so in every separator; since Python 3.12 from the Unicode path field where there is one.
    """
    told = {local_name.decode("cp437").encode(), *_unicode_paths(extra, local_name)}
    if flags & IS_UTF8 or not entry.flags & IS_UTF8 or entry.raw_name not in told:
        raise refuse("HEADERS_DIFFER", "another name", entry.shown, damaged=True)


def _check_aes(extra: bytes, entry: Entry) -> None:
    """The local header has to describe the encryption as the directory does."""
    try:
        fields = [aes_seal(content) for kind, content in extra_fields(extra) if kind == AES_FIELD]
    except MalformedFieldError:
        raise refuse("BAD_EXTRA_FIELD", member=entry.shown) from None
    if fields != [(entry.seal, entry.method)]:
        raise refuse("HEADERS_DIFFER", "another encryption", entry.shown, damaged=True)


def _wide_sizes(
    extra: bytes, packed_bytes: int, size_bytes: int, entry: Entry, *, is_streamed: bool
) -> tuple[int, int]:
    """Return the sizes of the local Zip64 field, which holds both (APPNOTE 4.5.3)."""
    try:
        fields = [content for kind, content in extra_fields(extra) if kind == ZIP64_FIELD]
    except MalformedFieldError:
        raise refuse("BAD_EXTRA_FIELD", member=entry.shown) from None
    if len(fields) > 1:
        raise refuse("BAD_ZIP64", "two Zip64 fields", entry.shown)
    if not fields:
        if is_streamed or (packed_bytes, size_bytes) == (entry.packed_bytes, entry.size_bytes):
            return entry.packed_bytes, entry.size_bytes
        raise refuse("BAD_ZIP64", "a Zip64 field is missing", entry.shown)
    rest = fields[0]
    wide: list[int] = []
    for narrow in (size_bytes, packed_bytes):
        if narrow != SENTINEL_32:
            wide.append(narrow)
            continue
        if len(rest) < _WIDE_BYTES:
            raise refuse("BAD_ZIP64", "a Zip64 field is too short", entry.shown)
        wide.append(int.from_bytes(rest[:_WIDE_BYTES], "little"))
        rest = rest[_WIDE_BYTES:]
    return wide[1], wide[0]


def _descriptor_bytes(source: Source, entry: Entry, at: int, index_at: int) -> int:
    """
    Return how long the data descriptor (APPNOTE 4.3.9) is: with a signature or without, with narrow sizes or wide.

    None at all is taken where both headers promise one, the local header has told everything, and the next record
    follows at once.
    """
    found = source.peek(at, min(_LONGEST_DESCRIPTOR, index_at - at))
    for signature in (DESCRIPTOR_SIGNATURE, b""):
        for shape in (DESCRIPTOR, DESCRIPTOR64):
            expected = _packed(shape, entry, signature)
            if expected is not None and found.startswith(expected):
                return len(expected)
    follows = source.peek(at, 4)
    header = LOCAL.unpack(source.read(entry.at, LOCAL.size))
    if entry.has_descriptor and header[7] == entry.packed_bytes and (at == index_at or follows == LOCAL_SIGNATURE):
        return 0
    raise refuse("DESCRIPTOR_DIFFERS", member=entry.shown, damaged=True)


def _check_stored_stream(source: Source, entry: Entry, begin: int, end: int) -> None:
    """
    Refuse content that holds a descriptor for just what stands before it.

    Who walks the archive finds the end of a stored member by its descriptor, and would go on behind that one. Those of
    a stored inner archive count otherwise, and are never as dense as a search without end would have them.
    """
    left = _FEW_DESCRIPTORS + (end - begin) // _DENSEST_DESCRIPTORS
    held, held_at = b"", begin
    for piece in source.pieces(begin, end):
        held += piece
        at = held.find(DESCRIPTOR_SIGNATURE)
        while 0 <= at <= len(held) - _TELLING_BYTES:
            told_bytes = int.from_bytes(held[at + 8 : at + _TELLING_BYTES], "little")
            left -= 1
            if left < 0 or told_bytes == (held_at + at - begin) & SENTINEL_32:
                raise refuse("DESCRIPTOR_DIFFERS", "its content holds another one", entry.shown)
            at = held.find(DESCRIPTOR_SIGNATURE, at + 4)
        kept = held[-(_TELLING_BYTES - 1) :]
        held_at += len(held) - len(kept)
        held = kept


def _packed(shape: Struct, entry: Entry, signature: bytes) -> bytes | None:
    if shape is DESCRIPTOR and max(entry.packed_bytes, entry.size_bytes) > SENTINEL_32:
        return None
    return signature + shape.pack(entry.crc, entry.packed_bytes, entry.size_bytes)


def _check_gap(source: Source, begin: int, end: int, *, is_start: bool, accept_prefix: bool) -> None:
    """Let padding be, refuse a hidden member, and anything at all before the first one but a split archive's marker."""
    if begin >= end:
        return
    if is_start and begin == 0:
        if end == _MARKER_BYTES and source.peek(0, 4) in SPANNED_MARKERS:
            return
        if source.peek(0, 4) != LOCAL_SIGNATURE:
            if accept_prefix:
                return
            raise refuse("PREPENDED_DATA", f"{end:,} bytes")
    tail = b""
    for piece in source.pieces(begin, end):
        if LOCAL_SIGNATURE in tail + piece:
            raise refuse("UNLISTED_MEMBER")
        tail = piece[-3:]
