"""Archives in which one reader sees this and another that: refused, whichever of the two views is the harmless one."""

import stat
import struct

import pytest
from zips import (
    BZIP2,
    DEFLATED,
    DESCRIPTOR_FLAG,
    FOLDER,
    PIPE,
    REGULAR,
    SENTINEL,
    STORED,
    UTF8_FLAG,
    XZ,
    Member,
    archive,
    extra_field,
    pack,
    unicode_path,
)

from inbox.archives import REFUSALS, Limits
from inbox.core.errors import ArchiveRefusedError

A, B, RAW = "a.txt", "b.txt", b"gr__e.txt"
FITS = unicode_path("größe.txt", RAW)
OLD = "größe.txt".encode("cp437")
BEFORE = {"local_name": OLD, "local_flags": 0}
"""What stays in the local header when Python rewrites the name in the directory."""
END, END64, LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
DOS, NTFS = 0, 11
MIB = 1024 * 1024


def parts(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the directory, and the directory."""
    index_at, end_at = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    return data[:index_at], data[index_at:end_at]


def wide_record(entries: int, index_bytes: int, index_at: int, *, counted: int = 44) -> bytes:
    return END64.pack(b"PK\x06\x06", counted, 45, 45, 0, 0, entries, entries, index_bytes, index_at)


WIDE_END = END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, SENTINEL, SENTINEL, 0)


def two_wide_records() -> bytes:
    """The locator leads to one record, whose size covers another directory and the record for it."""
    members, index = parts(archive([A, B]))
    first_at = len(members) + len(index)
    second = wide_record(2, len(index), first_at + END64.size)
    first = wide_record(2, len(index), len(members), counted=44 + len(index) + END64.size)
    return members + index + first + index + second + LOCATOR.pack(b"PK\x06\x07", 0, first_at, 1) + WIDE_END


def with_locator(*, disk: int = 0, disks: int = 1, astray: int = 0) -> bytes:
    members, index = parts(archive([A, B]))
    record_at = len(members) + len(index)
    locator = LOCATOR.pack(b"PK\x06\x07", disk, record_at - astray, disks)
    return members + index + wide_record(2, len(index), len(members)) + locator + WIDE_END


def count_that_started_again() -> bytes:
    """The Zip64 record announces one member, and the directory lists 65,536 more."""
    members, index = parts(archive([A]))
    whole = index * 65_537
    locator = LOCATOR.pack(b"PK\x06\x07", 0, len(members) + len(whole), 1)
    return members + whole + wide_record(1, len(whole), len(members)) + locator + WIDE_END


def wide_record_in_a_comment(*, counted: int) -> bytes:
    """The narrow end record is true; the last entry's comment ends like a Zip64 record that lists one member less."""
    members, index = parts(archive([A, B]))
    entry_bytes = len(index) // 2
    comment = wide_record(1, entry_bytes, len(members) + entry_bytes, counted=counted)
    comment += LOCATOR.pack(b"PK\x06\x07", 0, len(members) + len(index), 1)
    last = bytearray(index[entry_bytes:])
    last[32:34] = struct.pack("<H", len(comment))
    whole = index[:entry_bytes] + bytes(last) + comment
    return members + whole + END.pack(b"PK\x05\x06", 0, 0, 2, 2, len(whole), len(members), 0)


def stream_with_more_behind(content: bytes, method: int) -> bytes:
    """A stream that tells its end, its descriptor and another member, for whoever reads on where the stream ends."""
    stream = pack(content, method)
    hidden, _ = parts(archive(["hidden.txt"]))
    return stream + descriptor(content, stream) + hidden


def descriptor(content: bytes, stream: bytes) -> bytes:
    member = Member("x", content, packed=stream)
    return struct.pack("<4s3L", b"PK\x07\x08", member.crc, member.packed_size, member.size)


def stored_stream(shown: bytes) -> bytes:
    """A stored, streamed member whose content holds a descriptor for its own first bytes, and another member."""
    hidden, _ = parts(archive(["hidden.txt"]))
    return archive([Member(A, shown + descriptor(shown, shown) + hidden, STORED, flags=DESCRIPTOR_FLAG), B])


def hiding(name: str, content: bytes = b"c", method: int = DEFLATED, **fields) -> bytes:
    packed = stream_with_more_behind(content, method)
    member = Member(name, content, method, flags=DESCRIPTOR_FLAG, packed=packed, **fields)
    return archive([member, B])


DIFFERENT = {
    "two Zip64 records": (two_wide_records(), "BAD_ZIP64"),
    "wide count that started again": (count_that_started_again(), "INDEX_LIES"),
    "locator leads elsewhere": (with_locator(astray=9), "BAD_ZIP64"),
    "locator leads behind the end": (with_locator(astray=-(1 << 40)), "BAD_ZIP64"),
    "locator for another disk": (with_locator(disk=1), "MULTI_DISK"),
    "locator for two disks": (with_locator(disks=2), "MULTI_DISK"),
    "Zip64 record in a comment": (wide_record_in_a_comment(counted=44), "BAD_ZIP64"),
    "Zip64 record of a wrong size in a comment": (wide_record_in_a_comment(counted=0), "BAD_ZIP64"),
    "Unicode path in the local header alone": (
        archive([Member(RAW, local_extra=unicode_path("other.txt", RAW))]),
        "HEADERS_DIFFER",
    ),
    "other Unicode path in the local header": (
        archive([Member(RAW, extra=FITS, local_extra=unicode_path("other.txt", RAW))]),
        "HEADERS_DIFFER",
    ),
    "second Unicode path in the local header": (
        archive([Member(RAW, extra=FITS, local_extra=FITS + unicode_path("other.txt", RAW))]),
        "HEADERS_DIFFER",
    ),
    "other Unicode path beside a rewritten name": (
        archive([Member("größe.txt", **BEFORE, local_extra=unicode_path("other.txt", OLD))]),
        "HEADERS_DIFFER",
    ),
    "Unicode path beside another UTF-8 name": (
        archive([Member(RAW, flags=UTF8_FLAG, extra=unicode_path("other.txt", RAW))]),
        "BAD_EXTRA_FIELD",
    ),
    "Unicode path makes a folder": (
        archive([Member(RAW, b"", extra=unicode_path("größe.txt/", RAW))]),
        "BAD_EXTRA_FIELD",
    ),
    "Unicode path makes a file": (archive([Member(b"a/", extra=unicode_path("a", b"a/"))]), "BAD_EXTRA_FIELD"),
    "locally patched": (archive([Member(A, local_flags=1 << 5)]), "HEADERS_DIFFER"),
    "locally strongly encrypted": (archive([Member(A, local_flags=1 << 6)]), "HEADERS_DIFFER"),
    "locally masked": (archive([Member(A, local_flags=1 << 13)]), "HEADERS_DIFFER"),
    "file with a folder's mode": (archive([Member("a", mode=FOLDER)]), "DIRECTORY_WITH_DATA"),
    "file with a folder's attribute": (
        archive([Member("a", host=DOS, mode=0, attributes=0x10)]),
        "DIRECTORY_WITH_DATA",
    ),
    "file with a folder's attribute, NTFS": (
        archive([Member("a", host=NTFS, mode=REGULAR, attributes=0x10)]),
        "DIRECTORY_WITH_DATA",
    ),
    "folder with packed content": (archive([Member("a/", b"", packed=pack(b"more", DEFLATED))]), "SIZE_LIES"),
    "folder with much packed content": (
        archive([Member("a/", b"", packed=pack(bytes(range(256)), DEFLATED))]),
        "DIRECTORY_WITH_DATA",
    ),
    "folder by an unknown method": (archive([Member("a/", b"", method=99, packed=b"?")]), "DIRECTORY_WITH_DATA"),
    "member behind a folder's stream": (hiding("a/", b""), "DIRECTORY_WITH_DATA"),
    "member behind junk": (hiding("__MACOSX/a"), "BAD_DATA"),
    "member behind junk by another method": (hiding("__MACOSX/a", method=BZIP2), "BAD_DATA"),
    "member behind empty junk": (hiding("__MACOSX/a", b""), "BAD_DATA"),
    "member behind a socket": (hiding("a", mode=stat.S_IFSOCK), "BAD_DATA"),
    "member behind an unsafe name": (hiding("a\x01"), "BAD_DATA"),
    "descriptor inside a stored stream": (stored_stream(b"shown"), "DESCRIPTOR_DIFFERS"),
    "descriptor up to a megabyte": (stored_stream(b"n" * (MIB - 12)), "DESCRIPTOR_DIFFERS"),
    "descriptor across a megabyte": (stored_stream(b"n" * (MIB - 5)), "DESCRIPTOR_DIFFERS"),
    "descriptor behind a megabyte": (stored_stream(b"n" * (MIB + 1)), "DESCRIPTOR_DIFFERS"),
    "nothing but descriptors": (
        archive([Member(A, b"PK\x07\x08" * 3_000, STORED, flags=DESCRIPTOR_FLAG)]),
        "DESCRIPTOR_DIFFERS",
    ),
    "members in an empty directory": (archive([A, B], index_size=0), "INDEX_LIES"),
    "directory behind itself": (archive([A, B], index_offset=1000), "INDEX_LIES"),
    "wide directory behind itself": (archive([A], zip64_end=True, index_offset=1 << 63), "INDEX_LIES"),
    "offset behind the directory": (archive([A, Member(B, offset=1 << 31)]), "HEADERS_DIFFER"),
    "wide offset behind the directory": (archive([A, Member(B, zip64=True, offset=1 << 62)]), "HEADERS_DIFFER"),
    "XZ without its end": (archive([Member(A, method=XZ, packed=pack(b"content", XZ)[:-2])]), "BAD_DATA"),
}


@pytest.mark.parametrize(("data", "reason_code"), DIFFERENT.values(), ids=DIFFERENT)
def test_archive_of_two_readings_is_refused(unpack, data, reason_code):
    """
    What one reader would unpack to something else than another is refused under the code of the contradiction.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)

    assert reason_code == refused.value.reason_code
    assert REFUSALS[reason_code] in str(refused.value)


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1], ids=["smallest", "largest"])
@pytest.mark.parametrize(
    "fields",
    [{"method": 99, "packed": b"?"}, {"mode": PIPE, "method": 99}, {"name": "a\x01"}, {"name": "__MACOSX/a"}, {}],
    ids=["unknown method", "pipe", "unsafe name", "junk", "file"],
)
def test_size_that_no_file_has_is_refused(unpack, fields, size):
    """
    A declared size past 2^63 - 1 refuses the archive even on a member that is only skipped: no database could hold it.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([Member(**{"name": A, "zip64": True, "size": size, **fields}), B]))

    assert "BAD_ZIP64" == refused.value.reason_code


def test_largest_size_that_a_file_may_have_is_too_large(unpack):
    """
    One byte less is a number like any other, and past the limits.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([Member(A, zip64=True, size=(1 << 63) - 1)]))

    assert "MEMBER_TOO_LARGE" == refused.value.reason_code


@pytest.mark.parametrize("field", [{"offset": 1 << 63}, {"packed_size": (1 << 64) - 1}], ids=["offset", "packed"])
def test_number_that_no_file_has_is_refused(unpack, field):
    """
    The same holds for an offset and for a packed size.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive([Member(A, zip64=True, **field)]))

    assert "BAD_ZIP64" == refused.value.reason_code


@pytest.mark.parametrize("kind", DIFFERENT)
def test_archive_of_two_readings_is_whole_enough_to_be_refused(judge, kind):
    """
    None of them is waited for.
    """
    assert judge(DIFFERENT[kind][0]).complete


@pytest.mark.parametrize("inner", ["plain", "streamed", "stored and streamed"])
def test_inner_archive_in_a_stored_stream_is_a_file(unpack, inner):
    """
    The descriptors of an honest inner archive count its own members, and none of them all that stands before.
    """
    fields = {"plain": {}, "streamed": {"flags": DESCRIPTOR_FLAG}}.get(
        inner, {"flags": DESCRIPTOR_FLAG, "method": STORED}
    )
    content = archive([Member(f"{n}", b"c" * n, **fields) for n in range(200)])

    _, target = unpack(archive([Member("inner.zip", content, STORED, flags=DESCRIPTOR_FLAG), B]))

    assert content == (target / "inner.zip").read_bytes()


HARMLESS = {
    "same Unicode path in both headers": archive([Member(RAW, extra=FITS)]),
    "Unicode path in the directory alone": archive([Member(RAW, extra=FITS, local_extra=b"")]),
    "same Unicode path as the UTF-8 name": archive(
        [Member("größe.txt", extra=unicode_path("größe.txt", "größe.txt".encode()))]
    ),
    "same Unicode path beside a rewritten name": archive(
        [Member("größe.txt", **BEFORE, local_extra=unicode_path("größe.txt", OLD))]
    ),
    "name that was rewritten from its Unicode path": archive(
        [Member("größe.txt", local_name=RAW, local_flags=0, extra=FITS)]
    ),
    "what would be a Unicode path in a field of another kind": archive(
        [Member(RAW, extra=FITS, local_extra=FITS + extra_field(0x7076, unicode_path("other.txt", RAW)[4:]))]
    ),
    "malformed extra field in the local header": archive(
        [Member("größe.txt", local_extra=extra_field(9, b"") + struct.pack("<2H", 9, 99))]
    ),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
def test_fields_that_agree_are_taken(unpack, data):
    """
    Unicode paths that say the same everywhere, or stand where nobody is misled, are honest.
    """
    extraction, _ = unpack(data)

    assert ["größe.txt"] == [file.path for file in extraction.files]


@pytest.mark.parametrize(
    "folder",
    [
        Member("a/", b""),
        Member("a/", b"", packed=b"\x01\0\0\xff\xff"),
        Member("a/", b"", flags=DESCRIPTOR_FLAG),
        Member("a/", b"", STORED, mode=REGULAR),
        Member("a/", b"", XZ),
        Member("a/", b"", method=99, packed=b""),
    ],
    ids=["deflated", "stored block", "streamed", "with a file's mode", "XZ", "unknown method"],
)
def test_folder_with_an_empty_stream_is_a_folder(unpack, folder):
    """
    Writers that compress even the nothing of a folder are honest.
    """
    extraction, target = unpack(archive([folder, "a/b.txt"]))

    assert (1, 1) == (extraction.directories, extraction.members)
    assert (target / "a" / "b.txt").is_file()


@pytest.mark.parametrize(
    ("members", "reason_code"),
    [
        ([Member("__MACOSX/a", size=3 << 30), B], "MEMBER_TOO_LARGE"),
        ([Member(f"__MACOSX/{n}", bytes(4_000)) for n in range(3)], "ARCHIVE_TOO_LARGE"),
    ],
    ids=["one", "together"],
)
def test_skipped_content_counts_against_the_limits(unpack, members, reason_code):
    """
    Members that are only looked into may cost no more time than written ones.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(archive(members), Limits(max_archive_bytes=10_000))

    assert reason_code == refused.value.reason_code
