"""
ZIP archives built byte by byte from the format description (APPNOTE.TXT), so that each field can be made to lie.

A test says what it wants to be different; everything else is as an honest writer would have it.
"""

import bz2
import lzma
import os
import struct
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import inflate64

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
STORED, DEFLATED, DEFLATE64, BZIP2, LZMA, OLD_ZSTD, ZSTD, XZ = 0, 8, 9, 12, 14, 20, 93, 95
DESCRIPTOR_FLAG, UTF8_FLAG = 1 << 3, 1 << 11
UNIX = 3
REGULAR, FOLDER, LINK, PIPE = 0o100644, 0o040755, 0o120777, 0o010644
SENTINEL = 0xFFFFFFFF


@dataclass
class Member:
    """One member. `local_…` overrides what its local header says; None means the same as the directory."""

    name: bytes | str
    content: bytes = b"content"
    method: int = DEFLATED
    flags: int = 0
    mode: int = REGULAR
    host: int = UNIX
    attributes: int = 0
    version: int = 20
    """Of the format that the writer knows."""
    needed: int = 20
    """The version of the format that a reader has to know."""
    extra: bytes = b""
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    disk: int = 0
    offset: int | None = None
    zip64: bool = False
    descriptor: bytes | None = None
    before: bytes = b""
    """Bytes in front of the local header."""
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    local_packed_size: int | None = None
    local_extra: bytes | None = None
    is_listed: bool = True
    at: int = field(init=False, default=0)

    def __post_init__(self):
        if isinstance(self.name, str):
            self.name = self.name.encode()
            self.flags |= 0 if self.name.isascii() else UTF8_FLAG
        self.packed = pack(self.content, self.method) if self.packed is None else self.packed
        self.crc = zlib.crc32(self.content) if self.crc is None else self.crc
        self.size = len(self.content) if self.size is None else self.size
        self.packed_size = len(self.packed) if self.packed_size is None else self.packed_size


PACKERS = {BZIP2: bz2.compress, XZ: lzma.compress, ZSTD: zstd.compress, OLD_ZSTD: zstd.compress}


def pack(content: bytes, method: int) -> bytes:
    if method == DEFLATED:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
        return compressor.compress(content) + compressor.flush()
    if method == DEFLATE64:
        deflater = inflate64.Deflater()
        return deflater.deflate(content) + deflater.flush()
    if method == LZMA:
        properties = struct.pack("<BI", (2 * 5 + 0) * 9 + 3, 1 << 20)
        filters = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 20}]
        packed = lzma.compress(content, lzma.FORMAT_RAW, filters=filters)
        return b"\x09\x04" + struct.pack("<H", len(properties)) + properties + packed
    return PACKERS.get(method, bytes)(content)


def extra_field(kind: int, content: bytes) -> bytes:
    return struct.pack("<2H", kind, len(content)) + content


def unicode_path(name: str, raw: bytes, version: int = 1) -> bytes:
    return extra_field(0x7075, struct.pack("<BI", version, zlib.crc32(raw)) + name.encode())


def archive(
    members: Iterable[Member | str],
    *,
    prefix: bytes = b"",
    shift: int = 0,
    before_index: bytes = b"",
    comment: bytes = b"",
    trailing: bytes = b"",
    disks: int = 1,
    entries: int | None = None,
    index_size: int | None = None,
    index_offset: int | None = None,
    disk: int = 0,
    zip64_end: bool = False,
    zip64_entries: int | None = None,
    locator: bool = True,
) -> bytes:
    """Return an archive. `shift` is added to every offset, as by writers that count what stands before the archive."""
    listed = [Member(one) if isinstance(one, str) else one for one in members]
    out = bytearray(prefix)
    for member in listed:
        out += member.before
        member.at = len(out) - len(prefix) + shift
        out += local_header(member) + member.packed
        if member.descriptor is not None:
            out += member.descriptor
        elif member.flags & DESCRIPTOR_FLAG:
            out += descriptor_of(member)
    out += before_index
    index_at = len(out) - len(prefix) + shift
    index = b"".join(central_header(member) for member in listed if member.is_listed)
    out += index
    count = sum(member.is_listed for member in listed) if entries is None else entries
    size = len(index) if index_size is None else index_size
    offset = index_at if index_offset is None else index_offset
    if zip64_end:
        record_at = len(out) - len(prefix) + shift
        wide = count if zip64_entries is None else zip64_entries
        out += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, wide, wide, size, offset)
        if locator:
            out += struct.pack("<4sLQL", b"PK\x06\x07", 0, record_at, disks)
        out += struct.pack("<4s4H2LH", END, disk, disk, 0xFFFF, 0xFFFF, SENTINEL, SENTINEL, len(comment))
    else:
        out += struct.pack("<4s4H2LH", END, disk, disk, count, count, size, offset, len(comment))
    return bytes(out + comment + trailing)


def local_header(member: Member) -> bytes:
    has_descriptor = member.flags & DESCRIPTOR_FLAG
    size = 0 if has_descriptor else member.size
    packed_size = 0 if has_descriptor else member.packed_size
    extra = member.extra if member.local_extra is None else member.local_extra
    if member.zip64 and not has_descriptor:
        extra += extra_field(1, struct.pack("<2Q", size, packed_size))
        size = packed_size = SENTINEL
    name = member.name if member.local_name is None else member.local_name
    return (
        struct.pack(
            "<4s5H3L2H",
            LOCAL,
            45 if member.zip64 else member.needed,
            told(member.local_flags, member.flags),
            told(member.local_method, member.method),
            0,
            0x21,
            told(member.local_crc, 0 if has_descriptor else member.crc),
            told(member.local_packed_size, packed_size),
            told(member.local_size, size),
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def central_header(member: Member) -> bytes:
    extra, size, packed_size = member.extra, member.size, member.packed_size
    offset = member.at if member.offset is None else member.offset
    if member.zip64:
        disk = struct.pack("<L", 0) if member.disk == 0xFFFF else b""
        extra += extra_field(1, struct.pack("<3Q", size, packed_size, offset) + disk)
        size = packed_size = offset = SENTINEL
    return (
        struct.pack(
            "<4s6H3L5H2L",
            CENTRAL,
            member.host << 8 | member.version,
            member.needed,
            member.flags,
            member.method,
            0,
            0x21,
            member.crc,
            packed_size,
            size,
            len(member.name),
            len(extra),
            0,
            member.disk,
            0,
            member.attributes | member.mode << 16,
            offset,
        )
        + member.name
        + extra
    )


def descriptor_of(member: Member, *, signature: bool = True, wide: bool = False) -> bytes:
    shape = "<L2Q" if wide else "<3L"
    return (b"PK\x07\x08" if signature else b"") + struct.pack(shape, member.crc, member.packed_size, member.size)


def told(override: int | None, otherwise: int) -> int:
    return otherwise if override is None else override


class opened:  # noqa: N801 - reads as the function it is
    """The bytes as an open file."""

    def __init__(self, folder: Path, data: bytes):
        path = folder / "archive.zip"
        path.write_bytes(data)
        self.fd = os.open(path, os.O_RDONLY)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_):
        os.close(self.fd)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: content by path, None for a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
