"""Archives that are wrong in one thing alone, so that no second rule would refuse them, beside their honest cousins."""

import struct

import pytest
from zips import (
    DESCRIPTOR_FLAG,
    LINK,
    SENTINEL,
    STORED,
    UTF8_FLAG,
    Member,
    archive,
    descriptor_of,
    extra_field,
    opened,
    tree,
)

from inbox.archives import REFUSALS, Limits, Terms, plan_extraction
from inbox.core.errors import ArchiveRefusedError

A, B = "a.txt", "b.txt"
STUB = b"#!/bin/sh\n"
HONEST = Member(A)
TOLD = {"local_crc": HONEST.crc, "local_size": HONEST.size, "local_packed_size": HONEST.packed_size}
LEFT_OUT = {"local_crc": 0, "local_size": 0, "local_packed_size": 0}
STREAMED = {"flags": DESCRIPTOR_FLAG}


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """The last record with this signature, changed at an offset within it."""
    at = data.rindex(signature) + offset
    return data[:at] + value + data[at + len(value) :]


def end_patched(offset: int, number: int) -> bytes:
    return patched(archive([A, B]), b"PK\x05\x06", offset, struct.pack("<H", number))


def end_of_nothing(at: int) -> bytes:
    """The end record of an empty archive that begins and ends at an offset."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, at, 0)


def followed_in_the_index(more: bytes) -> bytes:
    """An archive of one member with more bytes at the end of its directory, which counts them."""
    whole = archive([A])
    at, end = whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
    size = end + len(more) - at
    return whole[:end] + more + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, at, 0)


def cut_to_a_signature() -> bytes:
    """Nothing more stands where the directory should be, and the end record says so."""
    whole = archive([A])
    at = whole.index(b"PK\x01\x02")
    return whole[: at + 4] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 4, at, 0)


LIES = {
    "another local signature": (patched(archive([A]), b"PK\x03\x04", 0, b"PK\x03\x05"), "HEADERS_DIFFER"),
    "a longer local name": (archive([Member(A, local_name=b"a.txtx")]), "HEADERS_DIFFER"),
    "a shorter local name": (archive([Member(A, local_name=b"a.tx", local_extra=b"t")]), "HEADERS_DIFFER"),
    "nothing told locally, and no descriptor": (archive([Member(A, **LEFT_OUT)]), "HEADERS_DIFFER"),
    "no local checksum, and no descriptor": (archive([Member(A, local_crc=0)]), "HEADERS_DIFFER"),
    "a descriptor promised by the directory alone, and none": (
        archive([Member(A, **STREAMED, **TOLD, local_flags=0, descriptor=b"")]),
        "HEADERS_DIFFER",
    ),
    "no descriptor": (archive([Member(A, **STREAMED, descriptor=b""), B]), "DESCRIPTOR_DIFFERS"),
    "no descriptor at the end": (archive([Member(A, **STREAMED, descriptor=b"")]), "DESCRIPTOR_DIFFERS"),
    "junk for a descriptor": (archive([Member(A, **STREAMED, **TOLD, descriptor=b"j" * 16), B]), "DESCRIPTOR_DIFFERS"),
    "no local Zip64 field for the size": (archive([Member(A, local_size=SENTINEL)]), "BAD_ZIP64"),
    "no local Zip64 field for the packed size": (archive([Member(A, local_packed_size=SENTINEL)]), "BAD_ZIP64"),
    "a short Zip64 field in the directory": (
        archive([Member(A, size=SENTINEL, extra=extra_field(1, bytes(4)), local_extra=b"", local_size=7)]),
        "BAD_ZIP64",
    ),
    "another signature for the locator": (
        patched(archive([A], zip64_end=True), b"PK\x06\x07", 0, b"PK\x06\x08"),
        "BAD_ZIP64",
    ),
    "a Zip64 record longer than its room": (
        patched(archive([A], zip64_end=True), b"PK\x06\x06", 4, struct.pack("<Q", 45)),
        "BAD_ZIP64",
    ),
    "an entry cut short": (followed_in_the_index(b"PK\x01\x02 and no more"), "BAD_INDEX"),
    "a disk that no Zip64 field tells": (archive([Member(A, disk=0xFFFF)]), "BAD_ZIP64"),
    "a size that no Zip64 field tells, beside another field": (
        archive([Member(A, size=SENTINEL, extra=extra_field(0x5455, bytes(5)), local_size=7)]),
        "BAD_ZIP64",
    ),
    "a directory of one signature": (cut_to_a_signature(), "BAD_INDEX"),
    "counts that no Zip64 record tells": (archive([A], entries=0xFFFF, index_offset=1), "BAD_ZIP64"),
    "a packed size that no Zip64 field tells": (
        archive([Member(A, packed_size=SENTINEL, local_packed_size=HONEST.packed_size)]),
        "BAD_ZIP64",
    ),
    "an offset that no Zip64 field tells": (archive([Member(A, offset=SENTINEL)]), "BAD_ZIP64"),
    "a directory whose size no Zip64 record tells": (archive([A], index_size=SENTINEL), "BAD_ZIP64"),
    "a directory whose place no Zip64 record tells": (archive([A], index_offset=SENTINEL), "BAD_ZIP64"),
    "a link and a file of one name": (archive([Member("l", b"b", mode=LINK), "l"]), "DUPLICATE_NAME"),
    "a link by an unknown method": (archive([Member("l", b"b", 99, mode=LINK)]), "SYMLINK_ESCAPES"),
    "a link to nowhere": (archive([Member("l", b"", mode=LINK)]), "SYMLINK_ESCAPES"),
    "a link whose target ends early": (archive([Member("l", b"b\0c", mode=LINK)]), "SYMLINK_ESCAPES"),
    "a link out by way of this folder": (archive([Member("a/l", b"././../../b", mode=LINK)]), "SYMLINK_ESCAPES"),
    "a link out by way of nothing": (archive([Member("a/l", b".//../../b", mode=LINK)]), "SYMLINK_ESCAPES"),
    "a link longer than any path": (archive([Member("l", b"a/" * 2048 + b"b", mode=LINK)]), "SYMLINK_ESCAPES"),
    "a folder by its backslash, with data": (archive([Member("a\\", host=0, mode=0)]), "DIRECTORY_WITH_DATA"),
    "a split archive's marker and more": (archive([Member(A, before=b"PK00more")]), "PREPENDED_DATA"),
    "four bytes before": (archive([Member(A, before=b"more")]), "PREPENDED_DATA"),
    "bytes before an empty archive": (archive([], before_index=STUB), "PREPENDED_DATA"),
    "end on another disk": (end_patched(4, 1), "MULTI_DISK"),
    "directory on another disk": (end_patched(6, 1), "MULTI_DISK"),
    "members on another disk": (end_patched(8, 1), "MULTI_DISK"),
    "directory larger than the file": (archive([A], index_size=1 << 20), "INDEX_LIES"),
    "directory behind itself, and bytes before": (archive([A], prefix=STUB, index_offset=1000), "INDEX_LIES"),
    "an end record in the comment, and more": (
        archive([A], comment=end_of_nothing(len(archive([A]))) + b"more"),
        "AMBIGUOUS_END",
    ),
}


@pytest.mark.parametrize(("data", "reason_code"), LIES.values(), ids=LIES)
def test_one_lie_is_enough(unpack, judge, data, reason_code):
    """
    Every rule stands for itself: a single contradiction refuses the archive, under its own code.
    """
    with pytest.raises(ArchiveRefusedError) as refused:
        unpack(data)

    assert reason_code == refused.value.reason_code
    assert REFUSALS[reason_code] in str(refused.value)
    assert judge(data).complete


def grown(**options) -> bytes:
    """An archive to which a member and another directory were appended."""
    first = archive([A])
    return archive([A, Member(B, before=first[first.index(b"PK\x01\x02") :])], **options)


def streamed(**fields) -> Member:
    member = Member(A, **STREAMED, **fields)
    member.descriptor = descriptor_of(member)
    return member


def chance(rest: bytes) -> bytes:
    """The last entry ends with the signature of a Zip64 locator, in a field of another kind."""
    return archive([A, Member(B, extra=extra_field(0x9999, b"PK\x06\x07" + rest), local_extra=b"")])


TAKEN = {
    "the directory of before": grown(),
    "a chance locator of zeros": chance(bytes(16)),
    "a chance locator of ones": chance(b"\1" * 16),
    "a local Zip64 field for the size": archive(
        [Member(A, local_size=SENTINEL, local_extra=extra_field(1, struct.pack("<Q", 7))), B]
    ),
    "a local Zip64 field for the packed size": archive(
        [
            Member(A, local_packed_size=SENTINEL, local_extra=extra_field(1, struct.pack("<Q", HONEST.packed_size))),
            B,
        ]
    ),
    "sizes left open until the descriptor": archive(
        [streamed(local_size=SENTINEL, local_packed_size=SENTINEL, local_extra=b""), B]
    ),
    "no descriptor at the end, and all told before": archive(
        [Member(B, b""), Member(A, **STREAMED, **TOLD, descriptor=b"")]
    ),
    "nameless at the end": archive([A, B, Member("", b"", STORED)]),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_what_only_looks_like_a_lie_is_taken(unpack, data):
    """
    Their cousins, which no reader could misunderstand, are taken.
    """
    _, target = unpack(data)

    assert {A, B} == tree(target).keys()


@pytest.mark.parametrize("trailing", [b"", b"and more"])
def test_last_of_two_directories_counts(unpack, trailing):
    """
    Of an archive that has grown the last end record counts, also with other bytes behind it.
    """
    _, target = unpack(grown(trailing=trailing), outside=True)

    assert {A, B} == tree(target).keys()


def test_directory_may_have_another_order(unpack):
    """
    Members come out with their own contents, in whatever order the directory lists them.
    """
    data = archive([Member(A, b"first"), Member(B, b"second"), Member("c.txt", b"third")])
    begin, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entry = (end - begin) // 3
    entries = [data[at : at + entry] for at in range(begin, end, entry)]

    _, target = unpack(data[:begin] + b"".join(reversed(entries)) + data[end:])

    assert {A: b"first", B: b"second", "c.txt": b"third"} == tree(target)


def test_name_rewritten_beside_a_descriptor_is_taken(unpack):
    """
    A local name in code page 437 may have a descriptor, too.
    """
    name = "größe.txt"
    raw = name.encode("cp437")
    member = Member(name, **STREAMED, local_name=raw, local_flags=DESCRIPTOR_FLAG)

    _, target = unpack(archive([member]))

    assert {name: b"content"} == tree(target)
    assert member.flags == DESCRIPTOR_FLAG | UTF8_FLAG


@pytest.mark.parametrize("size", [SENTINEL, SENTINEL + 1])
@pytest.mark.parametrize("wide", [False, True])
def test_streamed_sizes_past_four_gibibytes_are_compared_in_wide_descriptors(tmp_path, size, wide):
    """
    A descriptor that cannot hold the size is none; the largest that fits may stand in either form.
    """
    member = Member(A, flags=DESCRIPTOR_FLAG, zip64=True, size=size)
    told = Member(A, size=size & SENTINEL)
    member.descriptor = descriptor_of(member if wide else told, wide=wide)
    terms = Terms(Limits(max_member_bytes=1 << 40, max_archive_bytes=1 << 40, max_compression_ratio=1e12))

    with opened(tmp_path, archive([member])) as fd:
        if wide or size == SENTINEL:
            assert size == plan_extraction(fd, terms).declared_bytes
        else:
            with pytest.raises(ArchiveRefusedError, match=REFUSALS["DESCRIPTOR_DIFFERS"]):
                plan_extraction(fd, terms)


def test_size_of_all_ones_need_not_be_wide(tmp_path):
    """
    In a local header of four gibibytes less one, the number is what it says and refers to no other field.
    """
    member = Member(A, zip64=True, size=SENTINEL, packed_size=SENTINEL, local_extra=b"")
    wide = struct.pack("<3Q", SENTINEL, SENTINEL, 0)
    member.extra, member.zip64 = extra_field(1, wide), False
    member.offset = SENTINEL

    with opened(tmp_path, archive([member])) as fd, pytest.raises(ArchiveRefusedError) as refused:
        plan_extraction(fd, Terms())

    assert "OVERLAP" == refused.value.reason_code  # it is not really there
