"""Reading the central directory: every entry, strictly, before anything is believed."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from inbox.archives.encryption import AES_FIELD, AES_METHOD, Seal, aes_seal, traditional_seal
from inbox.archives.ending import Ending
from inbox.archives.limits import Limits
from inbox.archives.names import shown_name, unicode_name
from inbox.archives.reasons import refuse
from inbox.archives.records import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    ENCRYPTED,
    HAS_DESCRIPTOR,
    IS_UTF8,
    MASKED,
    SENTINEL_16,
    SENTINEL_32,
    STRONGLY_ENCRYPTED,
    UNICODE_PATH_FIELD,
    UNIX_HOSTS,
    ZIP64_FIELD,
    MalformedFieldError,
    extra_fields,
)
from inbox.archives.source import PIECE_BYTES, Source

_BIGGEST_ENTRY: Final = CENTRAL.size + 3 * 0xFFFF
_DOS_DIRECTORY: Final = 0x10
_DOS_HOSTS: Final = frozenset({0, 11, 14})
"""Those for whom readers take the attribute's word: DOS, NTFS, VFAT (APPNOTE 4.4.2)."""
_MOST_BYTES: Final = 2**63 - 1


@dataclass(slots=True)
class Entry:
    """One entry of the central directory. Sizes in bytes; `at` is the offset of the local header in the file."""

    position: int
    raw_name: bytes
    """As it stands in the header; local and central header are compared by it."""
    name: bytes
    """The one that counts: from the Unicode path field where there is a valid one."""
    is_utf8: bool
    flags: int
    told_method: int
    """As it stands in the header: 99 for AES, whatever is below it."""
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    at: int
    mode: int
    """Unix file type, 0 where the writer did not say."""
    is_directory: bool
    """By its kind or a trailing `/`. A trailing backslash may be half of a character, and tells once it is decoded."""
    seal: Seal | None
    """How it is encrypted, if it is."""

    @property
    def has_descriptor(self) -> bool:
        return bool(self.flags & HAS_DESCRIPTOR)

    @property
    def shown(self) -> str:
        return shown_name(self.name)

    @property
    def data_bytes(self) -> int:
        """Its packed bytes without what encryption adds."""
        return self.packed_bytes - (self.seal.overhead_bytes if self.seal is not None else 0)


def read_index(source: Source, ending: Ending, limits: Limits, *, with_encrypted: bool = False) -> list[Entry]:
    """
    Return all entries in their order.

    Raises ArchiveRefusedError for a directory that is damaged, that lies about its size or its number of entries, has
    encrypted members (unless `with_encrypted`) or parts on other disks, or more members than are allowed.
    """
    limits.check_count(ending.entries, "members")
    limits.check_names(ending.index_bytes, "a central directory")
    entries: list[Entry] = []
    for record, variable in _records(source, ending):
        limits.check_count(len(entries) + 1, "members")
        if record[3] & ENCRYPTED and not with_encrypted:
            raise refuse("ENCRYPTED", member=shown_name(variable[: record[10]]))
        entries.append(_entry(len(entries), record, variable, ending))
    if ending.entries != (len(entries) if ending.is_wide else len(entries) % (SENTINEL_16 + 1)):
        raise refuse("INDEX_LIES", f"{len(entries):,} members listed, {ending.entries:,} announced", damaged=True)
    return entries


def _records(source: Source, ending: Ending) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Yield each record's fixed part and its variable rest (name, extra fields, comment), read in large pieces."""
    at, end = ending.index_at, ending.index_at + ending.index_bytes
    block, block_at = b"", at
    while at < end:
        if at - block_at + _BIGGEST_ENTRY > len(block) and block_at + len(block) < end:
            block, block_at = source.read(at, min(PIECE_BYTES, end - at)), at
        begin = at - block_at
        if begin + CENTRAL.size > len(block) or block[begin : begin + 4] != CENTRAL_SIGNATURE:
            raise refuse("BAD_INDEX", damaged=True)
        record = CENTRAL.unpack_from(block, begin)
        name_bytes, extra_bytes, comment_bytes = record[10:13]
        following = begin + CENTRAL.size + name_bytes + extra_bytes + comment_bytes
        if following > len(block):
            raise refuse("BAD_INDEX", "an entry is longer than the directory", damaged=True)
        yield record, block[begin + CENTRAL.size : begin + CENTRAL.size + name_bytes + extra_bytes]
        at = block_at + following


def _entry(position: int, record: tuple[int, ...], variable: bytes, ending: Ending) -> Entry:
    (
        _,
        made_by,
        _,
        flags,
        method,
        time,
        _,
        crc,
        packed_bytes,
        size_bytes,
        name_bytes,
        _,
        _,
        disk,
        _,
        attributes,
        at,
    ) = record
    raw = name = variable[:name_bytes]
    is_utf8 = bool(flags & IS_UTF8)
    extra = variable[name_bytes:]
    aes = None
    if flags & (STRONGLY_ENCRYPTED | MASKED):
        raise refuse("ENCRYPTED", "in a way that is not read", shown_name(raw))
    if extra:
        zip64, unicode_path, aes = _known_fields(extra, raw)
        size_bytes, packed_bytes, at, disk = _widened(zip64, size_bytes, packed_bytes, at, disk, raw)
        if unicode_path is not None:
            if (is_utf8 and unicode_path != raw) or unicode_path.endswith(b"/") != raw.endswith(b"/"):
                raise refuse("BAD_EXTRA_FIELD", "a Unicode path that contradicts the name", shown_name(raw))
            name, is_utf8 = unicode_path, True
    elif SENTINEL_32 in {size_bytes, packed_bytes, at} or disk == SENTINEL_16:
        raise refuse("BAD_ZIP64", "a Zip64 field is missing", shown_name(raw))
    if disk:
        raise refuse("MULTI_DISK", member=shown_name(raw))
    seal, real_method = None, method
    if flags & ENCRYPTED and (packed_bytes or size_bytes):  # of nothing there is nothing to encrypt
        check_byte = time >> 8 if flags & HAS_DESCRIPTOR else crc >> 24
        seal, real_method = _sealed(method, aes, check_byte, packed_bytes, raw)
    mode = attributes >> 16
    host = made_by >> 8
    if host not in UNIX_HOSTS and not stat.S_ISLNK(mode):  # some readers make links whatever the host says
        mode = 0
    has_attribute = bool(attributes & _DOS_DIRECTORY) and (not size_bytes or host in _DOS_HOSTS)
    is_directory = name.endswith(b"/") or stat.S_ISDIR(mode) or (not stat.S_IFMT(mode) and has_attribute)
    return Entry(
        position, raw, name, is_utf8, flags, method, real_method, crc, packed_bytes, size_bytes,
        at + ending.prefix_bytes, stat.S_IFMT(mode), is_directory, seal,
    )  # fmt: skip


def _sealed(method: int, aes: bytes | None, check_byte: int, packed_bytes: int, raw: bytes) -> tuple[Seal, int]:
    """Return how an encrypted member is encrypted, and its method of compression."""
    seal, real_method = traditional_seal(check_byte), method
    if method == AES_METHOD:
        described = aes_seal(aes) if aes is not None else None
        if described is None:
            raise refuse("BAD_EXTRA_FIELD", "it does not say how AES is used", shown_name(raw))
        seal, real_method = described
    if packed_bytes < seal.overhead_bytes:
        raise refuse("BAD_DATA", "too short for an encrypted member", shown_name(raw))
    return seal, real_method


def _known_fields(extra: bytes, raw: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return the Zip64 field, the name in the Unicode path field, and the AES field; two would be read either way."""
    zip64 = unicode_path = aes = None
    try:
        for kind, content in extra_fields(extra):
            if kind == ZIP64_FIELD:
                if zip64 is not None:
                    raise refuse("BAD_ZIP64", "two Zip64 fields", shown_name(raw))
                zip64 = content
            elif kind == UNICODE_PATH_FIELD:
                if unicode_path is not None:
                    raise refuse("BAD_EXTRA_FIELD", "two Unicode path fields", shown_name(raw))
                unicode_path = content
            elif kind == AES_FIELD:
                if aes is not None:
                    raise refuse("BAD_EXTRA_FIELD", "two AES fields", shown_name(raw))
                aes = content
    except MalformedFieldError:
        raise refuse("BAD_EXTRA_FIELD", member=shown_name(raw)) from None
    return zip64, unicode_name(unicode_path, raw) if unicode_path is not None else None, aes


def _widened(
    field: bytes | None, size_bytes: int, packed_bytes: int, at: int, disk: int, raw: bytes
) -> tuple[int, int, int, int]:
    """Replace each sentinel by the next value of the Zip64 field (APPNOTE 4.5.3), in its fixed order."""
    rest = field or b""
    values = []
    for value, sentinel, width in (
        (size_bytes, SENTINEL_32, 8),
        (packed_bytes, SENTINEL_32, 8),
        (at, SENTINEL_32, 8),
        (disk, SENTINEL_16, 4),
    ):
        if value != sentinel:
            values.append(value)
            continue
        if len(rest) < width:
            raise refuse("BAD_ZIP64", "a Zip64 field is missing, or too short", shown_name(raw))
        values.append(int.from_bytes(rest[:width], "little"))
        if values[-1] > _MOST_BYTES:
            raise refuse("BAD_ZIP64", "a size that no file has", shown_name(raw))
        rest = rest[width:]
    wide_size, wide_packed, wide_at, wide_disk = values
    return wide_size, wide_packed, wide_at, wide_disk
