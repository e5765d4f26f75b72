"""Archives that are refused as a whole, each with its reason code, before anything is written."""

import struct

import pytest
from zips import (
    BZIP2,
    DEFLATED,
    DESCRIPTOR_FLAG,
    FOLDER,
    LINK,
    LZMA,
    STORED,
    UTF8_FLAG,
    Member,
    archive,
    descriptor_of,
    extra_field,
    pack,
    unicode_path,
)

from inbox.archives import REFUSALS, Limits
from inbox.core.errors import ArchiveRefusedError

A, B = "a.txt", "b.txt"
INNER = archive(["hidden.txt"])
ZEROS = bytes(1 << 20)


def two_with_one_offset() -> bytes:
    return archive([Member(A), Member(B, offset=0)])


def quoted_overlap() -> bytes:
    """The first member's data holds the second member whole, header and all."""
    inner = archive([B])
    held = inner[: inner.index(b"PK\x01\x02")]
    outer = Member(A, held, STORED)
    return archive([outer, Member(B, offset=30 + len(A), before=b"")], entries=2)


def two_ends() -> bytes:
    """The comment is an end record that describes an empty archive just where it stands."""
    at = len(archive([A]))
    return archive([A], comment=struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, at, 0))


def header_by_another_signature() -> bytes:
    """Everything is true of the second member's local header but its first bytes."""
    data = bytearray(archive([A, B]))
    at = data.index(b"PK\x03\x04", 4)
    data[at : at + 4] = b"PK\x03\x05"
    return bytes(data)


def index_of_four_bytes() -> bytes:
    """A signature and nothing more, where the directory should be, at the end of the file."""
    whole = archive([A])
    return whole[: whole.index(b"PK\x01\x02") + 4] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 4, 0, 0)


def with_index_bytes(offset: int, value: bytes) -> bytes:
    """The last entry of the directory, changed at an offset within it."""
    data = bytearray(archive([A, B]))
    at = data.rfind(b"PK\x01\x02") + offset
    data[at : at + len(value)] = value
    return bytes(data)


def lzma_with(properties: bytes, content: bytes = b"content") -> Member:
    packed = bytearray(pack(content, LZMA))
    packed[4 : 4 + len(properties)] = properties
    return Member(A, content, LZMA, packed=bytes(packed))


WIDE = {"local_size": 0xFFFFFFFF, "local_packed_size": 0xFFFFFFFF}
"""A local header that refers to a Zip64 field."""

HOSTILE = {
    "parent folder": (archive(["../up.txt"]), "UNSAFE_PATH"),
    "parent folder inside": (archive(["a/../../up.txt"]), "UNSAFE_PATH"),
    "parent folder by backslash": (archive(["..\\up.txt"]), "UNSAFE_PATH"),
    "this folder inside": (archive(["a/./b.txt"]), "UNSAFE_PATH"),
    "this folder twice": (archive(["././a.txt"]), "UNSAFE_PATH"),
    "this folder as a file": (archive(["./."]), "UNSAFE_PATH"),
    "this folder with data": (archive(["./"]), "DIRECTORY_WITH_DATA"),
    "root folder with data": (archive(["/"]), "DIRECTORY_WITH_DATA"),
    "parent behind half a character": (archive([Member("能\\..\\..\\a".encode("cp932"))]), "UNSAFE_PATH"),
    "below this folder, parent": (archive(["./../up.txt"]), "UNSAFE_PATH"),
    "below this folder, absolute": (archive([".//etc/passwd"]), "ABSOLUTE_PATH"),
    "below this folder, drive": (archive([".\\C:up.txt"]), "ABSOLUTE_PATH"),
    "below this folder, the same name": (archive(["a.txt", "./a.txt"]), "DUPLICATE_NAME"),
    "below this folder, through a link": (
        archive([Member("./a", b"b", mode=LINK), "a/b.txt"]),
        "THROUGH_SYMLINK",
    ),
    "empty component": (archive(["a//b.txt"]), "UNSAFE_PATH"),
    "absolute": (archive(["/etc/passwd"]), "ABSOLUTE_PATH"),
    "absolute by backslash": (archive(["\\windows\\a"]), "ABSOLUTE_PATH"),
    "network path": (archive(["\\\\server\\share\\a"]), "ABSOLUTE_PATH"),
    "drive letter": (archive(["C:\\a.txt"]), "ABSOLUTE_PATH"),
    "NUL": (archive([Member(b"a.txt\0.exe")]), "NUL_IN_NAME"),
    "parent folder in the Unicode path": (
        archive([Member(b"a.txt", extra=unicode_path("../up.txt", b"a.txt"))]),
        "UNSAFE_PATH",
    ),
    "two Unicode paths": (
        archive([Member(b"a.txt", extra=unicode_path("b", b"a.txt") + unicode_path("c", b"a.txt"))]),
        "BAD_EXTRA_FIELD",
    ),
    "malformed extra field": (archive([Member(A, extra=struct.pack("<2H", 9, 99))]), "BAD_EXTRA_FIELD"),
    "same name twice": (archive([A, A]), "DUPLICATE_NAME"),
    "same name after cleaning": (archive(["a/b.txt", "a\\b.txt"]), "DUPLICATE_NAME"),
    "file and folder": (archive(["a", "a/b.txt"]), "FILE_AND_FOLDER"),
    "file and named folder": (archive(["a", Member("a/", b"", STORED, mode=FOLDER)]), "FILE_AND_FOLDER"),
    "folder with data": (archive([Member("a/", b"data", mode=FOLDER)]), "DIRECTORY_WITH_DATA"),
    "link to an absolute path": (archive([Member("l", b"/etc/passwd", mode=LINK)]), "SYMLINK_ESCAPES"),
    "link to the outside": (archive([Member("a/l", b"../../x", mode=LINK)]), "SYMLINK_ESCAPES"),
    "link by another host": (archive([Member("l", b"/etc/passwd", mode=LINK, host=0)]), "SYMLINK_ESCAPES"),
    "path through a link": (archive([Member("l", b"b", mode=LINK), "l/x.txt"]), "THROUGH_SYMLINK"),
    "encrypted": (archive([Member(A, flags=1)]), "ENCRYPTED"),
    "masked headers": (archive([Member(A, flags=1 << 13)]), "ENCRYPTED"),
    "one offset for two": (two_with_one_offset(), "OVERLAP"),
    "quoted overlap": (quoted_overlap(), "OVERLAP"),
    "member reaches into the index": (
        archive([Member(A, b"x" * 99, STORED, packed=b"x", packed_size=99)]),
        "OVERLAP",
    ),
    "hidden member between": (archive([A, Member(B, before=archive(["h"])[:40])]), "UNLISTED_MEMBER"),
    "hidden member before the index": (archive([A], before_index=archive(["h"])[:40]), "UNLISTED_MEMBER"),
    "member left out of the index": (archive([Member(A, is_listed=False), B]), "UNLISTED_MEMBER"),
    "local name differs": (archive([Member(A, local_name=b"z.txt")]), "HEADERS_DIFFER"),
    "local name differs in code page 437": (
        archive([Member("größe", local_name="grüße".encode("cp437"), local_flags=0)]),
        "HEADERS_DIFFER",
    ),
    "local name in another code page": (
        archive([Member("größe", local_name="größe".encode("cp1252"), local_flags=0)]),
        "HEADERS_DIFFER",
    ),
    "local name in code page 437, marked as UTF-8": (
        archive([Member("größe", local_name="größe".encode("cp437"))]),
        "HEADERS_DIFFER",
    ),
    "names in code page 437 the other way round": (
        archive([Member("größe".encode("cp437"), local_name="größe".encode(), local_flags=UTF8_FLAG)]),
        "HEADERS_DIFFER",
    ),
    "local method differs": (archive([Member(A, local_method=STORED)]), "HEADERS_DIFFER"),
    "local flags differ": (archive([Member(A, local_flags=UTF8_FLAG)]), "HEADERS_DIFFER"),
    "descriptor in the directory alone": (archive([Member(A, flags=DESCRIPTOR_FLAG, local_flags=0)]), "HEADERS_DIFFER"),
    "descriptor in the local header alone, and none": (
        archive([Member(A, local_flags=DESCRIPTOR_FLAG), B]),
        "DESCRIPTOR_DIFFERS",
    ),
    "descriptor in the local header alone, another size": (
        archive([Member(A, local_flags=DESCRIPTOR_FLAG, local_size=1)]),
        "HEADERS_DIFFER",
    ),
    "local checksum differs": (archive([Member(A, local_crc=1)]), "HEADERS_DIFFER"),
    "local size differs": (archive([Member(A, local_size=1)]), "HEADERS_DIFFER"),
    "local packed size differs": (archive([Member(A, local_packed_size=1)]), "HEADERS_DIFFER"),
    "streamed, local size differs": (archive([Member(A, flags=DESCRIPTOR_FLAG, local_size=1)]), "HEADERS_DIFFER"),
    "no local header": (archive([Member(A, offset=1), B]), "HEADERS_DIFFER"),
    "local header by another signature": (header_by_another_signature(), "HEADERS_DIFFER"),
    "Zip64 field too short, in the directory alone": (
        archive(
            [
                Member(
                    A,
                    b"content",
                    STORED,
                    size=0xFFFFFFFF,
                    packed_size=0xFFFFFFFF,
                    extra=extra_field(1, struct.pack("<Q", 7)),
                    local_extra=b"",
                    local_size=7,
                    local_packed_size=7,
                )
            ]
        ),
        "BAD_ZIP64",
    ),
    "an index of four bytes": (index_of_four_bytes(), "INDEX_LIES"),
    "a header behind the end of the file": (archive([A, Member(B, offset=1 << 30)]), "HEADERS_DIFFER"),
    "descriptor differs": (
        archive([Member(A, flags=DESCRIPTOR_FLAG, descriptor=b"PK\x07\x08" + bytes(12))]),
        "DESCRIPTOR_DIFFERS",
    ),
    "stored with two sizes": (archive([Member(A, b"abc", STORED, size=2)]), "SIZE_LIES"),
    "more bytes than declared": (archive([Member(A, ZEROS, size=100)]), "SIZE_LIES"),
    "fewer bytes than declared": (archive([Member(A, b"abc", size=4)]), "SIZE_LIES"),
    "more bytes than declared, bzip2": (archive([Member(A, ZEROS, BZIP2, size=100)]), "SIZE_LIES"),
    "more bytes than declared, LZMA": (archive([Member(A, ZEROS, LZMA, size=100)]), "SIZE_LIES"),
    "checksum wrong": (archive([Member(A, crc=1)]), "BAD_CRC"),
    "deflate damaged": (archive([Member(A, packed=b"\xff\xff\xff\xff")]), "BAD_DATA"),
    "deflate cut short": (archive([Member(A, b"abcdef", packed=pack(b"abcdef", DEFLATED)[:-2])]), "BAD_DATA"),
    "bytes behind the stream": (archive([Member(A, packed=pack(b"content", DEFLATED) + b"more")]), "BAD_DATA"),
    "LZMA without properties": (archive([Member(A, method=LZMA, packed=b"\x09\x04\x05\0")]), "BAD_DATA"),
    "LZMA with a huge dictionary": (
        archive([Member(A, method=LZMA, packed=b"\x09\x04\x05\0\x5d\xff\xff\xff\xff123")]),
        "BAD_DATA",
    ),
    "LZMA with a dictionary of a gigabyte": (archive([lzma_with(b"\x5d\0\0\0\x40")]), "BAD_DATA"),
    "LZMA with odd properties": (archive([lzma_with(b"\x86")]), "BAD_DATA"),
    "bzip2 damaged": (archive([Member(A, method=BZIP2, packed=b"BZh9" + bytes(30))]), "BAD_DATA"),
    "directory damaged": (with_index_bytes(0, b"PK\x09\x09"), "BAD_INDEX"),
    "entry longer than the directory": (with_index_bytes(32, b"\xff\x01"), "BAD_INDEX"),
    "link without end": (archive([Member("l", b"a/" * 3000, mode=LINK)]), "SYMLINK_ESCAPES"),
    "local Zip64 field missing": (archive([Member(A, **WIDE)]), "BAD_ZIP64"),
    "local Zip64 field too short": (archive([Member(A, **WIDE, local_extra=extra_field(1, bytes(4)))]), "BAD_ZIP64"),
    "local Zip64 field twice": (
        archive([Member(A, **WIDE, local_extra=extra_field(1, bytes(16)) * 2)]),
        "BAD_ZIP64",
    ),
    "local extra field malformed": (
        archive([Member(A, **WIDE, local_extra=struct.pack("<2H", 1, 99))]),
        "BAD_EXTRA_FIELD",
    ),
    "Zip64 field twice, in the directory alone": (
        archive([Member(A, zip64=True, extra=extra_field(1, bytes(24)), local_extra=b"")]),
        "BAD_ZIP64",
    ),
    "two end records": (two_ends(), "AMBIGUOUS_END"),
    "more members announced": (archive([A], entries=2), "INDEX_LIES"),
    "fewer members announced": (archive([A, B], entries=1), "INDEX_LIES"),
    "index larger than it says": (archive([A, B], index_size=50), "INDEX_LIES"),
    "index elsewhere than it says": (archive([A, B], index_offset=1), "INDEX_LIES"),
    "another disk": (archive([Member(A, disk=3)]), "MULTI_DISK"),
    "end on another disk": (archive([A], disk=1), "MULTI_DISK"),
    "Zip64 field missing": (archive([Member(A, size=0xFFFFFFFF)]), "BAD_ZIP64"),
    "Zip64 field twice": (archive([Member(A, zip64=True, extra=extra_field(1, bytes(24)))]), "BAD_ZIP64"),
    "Zip64 field too short": (archive([Member(A, size=0xFFFFFFFF, extra=extra_field(1, bytes(4)))]), "BAD_ZIP64"),
    "Zip64 end without locator": (archive([A], zip64_end=True, locator=False), "BAD_ZIP64"),
    "Zip64 end counts 65,536 too few": (archive([A], zip64_end=True, zip64_entries=65_537), "INDEX_LIES"),
    "Zip64 end counts otherwise": (archive([A], zip64_end=True, zip64_entries=2), "INDEX_LIES"),
    "end record in the comment": (archive([A], comment=archive([])), "AMBIGUOUS_END"),
    "bytes before": (archive([A], prefix=b"#!/bin/sh\n"), "PREPENDED_DATA"),
    "bytes before, counted": (archive([A], prefix=b"#!/bin/sh\n", shift=10), "PREPENDED_DATA"),
    "bytes behind": (archive([A], trailing=b"and more"), "TRAILING_DATA"),
    "archive behind the archive": (archive([A]) + archive([B]), "TRAILING_DATA"),
}

NARROW = Limits(max_archive_bytes=10_000, max_member_bytes=5_000, max_members=4, max_compression_ratio=200)

TOO_MUCH = {
    "member": (archive([Member(A, bytes(5_001))]), NARROW, "MEMBER_TOO_LARGE"),
    "archive": (archive([Member(f"{n}", bytes(4_000)) for n in range(3)]), NARROW, "ARCHIVE_TOO_LARGE"),
    "members": (archive([f"{n}" for n in range(5)]), NARROW, "TOO_MANY_MEMBERS"),
    "members, fewer announced": (archive([f"{n}" for n in range(5)], entries=1), NARROW, "TOO_MANY_MEMBERS"),
    "members announced": (archive([A], entries=5), NARROW, "TOO_MANY_MEMBERS"),
    "folders implied": (archive(["a/b/c/d/e.txt"]), NARROW, "TOO_MANY_MEMBERS"),
    "ratio": (
        archive([Member(A, packed=b"\x03\0", size=300 * 1024**2)]),
        Limits(),
        "RATIO_TOO_HIGH",
    ),
}


@pytest.mark.parametrize(("data", "reason_code"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused(unpack, data, reason_code):
    """
    Each kind of archive that no honest writer makes is refused under its own code.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)

    assert reason_code == refused.value.reason_code
    assert REFUSALS[reason_code] in str(refused.value)


@pytest.mark.parametrize(("data", "limits", "reason_code"), TOO_MUCH.values(), ids=TOO_MUCH)
def test_archive_past_its_limits_is_refused(unpack, tmp_path, data, limits, reason_code):
    """
    What an archive declares is held against the limits before a byte is written.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data, limits)

    assert reason_code == refused.value.reason_code
    assert [] == list((tmp_path / "target-1").iterdir())


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if HOSTILE[kind][1] not in {"BAD_CRC", "BAD_DATA"}])
def test_refused_from_the_index_writes_nothing(unpack, tmp_path, kind):
    """
    An archive that its index condemns leaves nothing behind, since nothing was begun.
    """
    with pytest.raises(ArchiveRefusedError):
        unpack(HOSTILE[kind][0])

    written = list((tmp_path / "target-1").rglob("*"))
    assert all(path.name == A for path in written) if HOSTILE[kind][1] == "SIZE_LIES" else not written


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archive_is_whole_enough_to_be_refused(judge, kind):
    """
    The gate lets every hostile archive through to the one that names its fault, instead of waiting for ever.
    """
    assert judge(HOSTILE[kind][0]).complete


def test_archive_without_an_end_is_refused(unpack):
    """
    Whoever plans an archive that was cut short is told that it has no end, as damage that a copy would also show.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([A])[:-1])

    assert ("NO_END_RECORD", True) == (refused.value.reason_code, refused.value.damaged)


def test_every_descriptor_is_compared(unpack):
    """
    A descriptor that differs in one of its numbers alone refuses the archive.
    """
    honest = Member(A, flags=DESCRIPTOR_FLAG)
    told = descriptor_of(honest)

    for at in (4, 8, 12):
        lying = bytearray(told)
        lying[at] ^= 1
        with pytest.raises(ArchiveRefusedError, match=REFUSALS["DESCRIPTOR_DIFFERS"]):
            unpack(archive([Member(A, flags=DESCRIPTOR_FLAG, descriptor=bytes(lying))]))
