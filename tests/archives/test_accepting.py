"""What honest writers make is taken: all methods, names and oddities; and what is skipped says why."""

import bz2
import stat
import struct
import zlib

import pytest
from zips import (
    BZIP2,
    DEFLATED,
    DESCRIPTOR_FLAG,
    FOLDER,
    LINK,
    LZMA,
    OLD_ZSTD,
    PIPE,
    STORED,
    UTF8_FLAG,
    XZ,
    ZSTD,
    Member,
    archive,
    descriptor_of,
    extra_field,
    opened,
    tree,
    unicode_path,
)

from inbox.archives import SKIPS, Terms, plan_extraction

TEXT = b"the same words again and again, " * 99


def streamed_by_its_local_header() -> Member:
    member = Member("a.txt", TEXT, local_flags=DESCRIPTOR_FLAG, local_crc=0, local_size=0, local_packed_size=0)
    member.descriptor = descriptor_of(member)
    return member


HONEST = {
    "deflated": Member("a.txt", TEXT),
    "stored": Member("a.txt", TEXT, STORED),
    "bzip2": Member("a.txt", TEXT, BZIP2),
    "LZMA": Member("a.txt", TEXT, LZMA),
    "Zstandard": Member("a.txt", TEXT, ZSTD),
    "Zstandard by its first number": Member("a.txt", TEXT, OLD_ZSTD),
    "XZ": Member("a.txt", TEXT, XZ),
    "empty": Member("a.txt", b""),
    "empty without a stream": Member("a.txt", b"", packed=b""),
    "streamed": Member("a.txt", TEXT, flags=DESCRIPTOR_FLAG),
    "streamed, sizes known": Member(
        "a.txt", TEXT, flags=DESCRIPTOR_FLAG, local_size=len(TEXT), local_packed_size=len(Member("a", TEXT).packed)
    ),
    "streamed, as the local header alone says": streamed_by_its_local_header(),
    "Zip64": Member("a.txt", TEXT, zip64=True),
    "Zip64 streamed": Member("a.txt", TEXT, flags=DESCRIPTOR_FLAG, zip64=True),
    "times in extra fields": Member("a.txt", TEXT, extra=extra_field(0x5455, bytes(5))),
    "padded extra field": Member("a.txt", TEXT, extra=b"\0\0\0"),
    "padding before": Member("a.txt", TEXT),
    "in folders": Member("deep/er/a.txt", TEXT),
    "backslashes": Member("deep\\er\\a.txt", TEXT),
    "set-id": Member("a.txt", TEXT, mode=0o104755),
    "no permissions": Member("a.txt", TEXT, mode=0o100000),
    "from DOS": Member("a.txt", TEXT, host=0, mode=0, attributes=0x20),
    "a folder's attribute, from Unix": Member("a.txt", TEXT, mode=0, attributes=0x10),
    "a folder's attribute, and a file's mode": Member("a.txt", b"", attributes=0x10),
    "below the packed folder": Member("./deep/er/a.txt", TEXT),
    "below the packed folder, backslashes": Member(".\\deep\\er\\a.txt", TEXT),
    "below a folder that is called as macOS' own": Member("docs/__MACOSX/a.txt", TEXT),
    "Unicode path without content": Member(b"a.txt", TEXT, extra=extra_field(0x7075, b"")),
    "Unicode path cut short": Member(b"a.txt", TEXT, extra=extra_field(0x7075, b"\1\0\0\0")),
    "read from a pipe": Member("-", TEXT, mode=PIPE),
    "device name": Member("CON", TEXT),
    "trailing dot": Member("a.", TEXT),
    "colon": Member("ab:c.txt", TEXT),
    "not ASCII": Member("größe/日本.txt", TEXT),
    "wide space": Member("日本\u3000語.txt", TEXT),
    "UTF-8 without the mark": Member("größe.txt".encode(), TEXT),
    "code page 437": Member("größe.txt".encode("cp437"), TEXT),
    "code page 437, streamed": Member("größe.txt".encode("cp437"), TEXT, flags=DESCRIPTOR_FLAG),
    "code page 437 in the local header": Member(
        "größe.txt", TEXT, local_name="größe.txt".encode("cp437"), local_flags=0
    ),
    "Japanese code page": Member("予定表".encode("cp932"), TEXT),
    "Chinese code page": Member("許功/蓋".encode("cp950"), TEXT),
    "code page 437, backslashes": Member("menü\\größe\\a.txt".encode("cp437"), TEXT),
    "Unicode path": Member(b"gr__e.txt", TEXT, extra=unicode_path("größe.txt", b"gr__e.txt")),
    "Unicode path for another name": Member(b"a.txt", TEXT, extra=unicode_path("b.txt", b"c.txt")),
    "Unicode path of another version": Member(b"a.txt", TEXT, extra=unicode_path("b.txt", b"a.txt", version=2)),
}
NAMES = {
    "in folders": "deep/er/a.txt",
    "backslashes": "deep/er/a.txt",
    "below the packed folder": "deep/er/a.txt",
    "below the packed folder, backslashes": "deep/er/a.txt",
    "below a folder that is called as macOS' own": "docs/__MACOSX/a.txt",
    "read from a pipe": "-",
    "device name": "CON",
    "trailing dot": "a.",
    "colon": "ab:c.txt",
    "not ASCII": "größe/日本.txt",
    "wide space": "日本\u3000語.txt",
    "UTF-8 without the mark": "größe.txt",
    "code page 437": "größe.txt",
    "code page 437, streamed": "größe.txt",
    "code page 437 in the local header": "größe.txt",
    "code page 437, backslashes": "menü/größe/a.txt",
    "Japanese code page": "予定表",
    "Chinese code page": "許功/蓋",
    "Unicode path": "größe.txt",
}

SKIPPED = {
    "control character": (Member("a\x1b[2J.txt"), "UNSAFE_NAME"),
    "line break": (Member("a\nb.txt"), "UNSAFE_NAME"),
    "direction of writing": (Member("a\u202etxt.exe"), "UNSAFE_NAME"),
    "line separator": (Member("a\u2028b"), "UNSAFE_NAME"),
    "no name": (Member(""), "EMPTY_NAME"),
    "no name in the Unicode path": (Member(b"a.txt", extra=unicode_path("", b"a.txt")), "EMPTY_NAME"),
    "long component": (Member("n" * 256), "NAME_TOO_LONG"),
    "long component in bytes": (Member("ü" * 128), "NAME_TOO_LONG"),
    "long path": (Member("/".join(["n" * 200] * 11)), "NAME_TOO_LONG"),
    "path of a byte too much": (Member("/".join(["n" * 255] * 7 + ["n" * 128] * 2)), "NAME_TOO_LONG"),
    "too deep": (Member("/".join(["d"] * 65)), "TOO_DEEP"),
    "not UTF-8": (Member(b"a\xff.txt", flags=UTF8_FLAG), "BAD_NAME_ENCODING"),
    "overlong UTF-8": (Member(b"\xc0\xae\xc0\xae/a", flags=UTF8_FLAG), "BAD_NAME_ENCODING"),
    "link": (Member("l", b"a.txt", mode=LINK), "SYMLINK"),
    "link upwards, not out": (Member("a/b/l", b"../c", mode=LINK), "SYMLINK"),
    "link down and up, not out": (Member("l", b"a/./b/../../c", mode=LINK), "SYMLINK"),
    "link as long as a path": (Member("l", b"a/" * 2048, mode=LINK), "SYMLINK"),
    "pipe": (Member("p", b"", mode=PIPE), "SPECIAL_FILE"),
    "device": (Member("d", b"", mode=stat.S_IFBLK | 0o644), "SPECIAL_FILE"),
    "device with content": (Member("d", mode=stat.S_IFBLK | 0o644), "SPECIAL_FILE"),
    "resource fork": (Member("__MACOSX/._a.txt"), "JUNK"),
    "resource fork without a stream": (Member("__MACOSX/._a.txt", b"", packed=b""), "JUNK"),
    "resource fork beside": (Member("docs/._a.txt"), "JUNK"),
    "file in the folder of macOS": (Member("__MACOSX/docs/a.txt"), "JUNK"),
    "folder settings": (Member("docs/.DS_Store"), "JUNK"),
    "unknown method": (Member("a.txt", method=99), "UNSUPPORTED_METHOD"),
    "patch data": (Member("a.txt", flags=1 << 5), "UNSUPPORTED_METHOD"),
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_member_is_written(unpack, kind):
    """
    Whatever way an honest writer stores and names a file, its content comes out, under the name a reader would see.
    """
    extraction, target = unpack(archive([HONEST[kind]]))

    (file,) = extraction.files
    assert NAMES.get(kind, "a.txt") == file.path
    assert HONEST[kind].content == (target / file.path).read_bytes()
    assert (1, 0) == (extraction.members, len(extraction.skipped))


@pytest.mark.parametrize(("member", "reason_code"), SKIPPED.values(), ids=SKIPPED)
def test_member_that_cannot_be_written_is_skipped(unpack, member, reason_code):
    """
    One member that cannot be written is skipped with its code, and the others are written.
    """
    extraction, target = unpack(archive([member, "good.txt"]))

    (skipped,) = extraction.skipped
    assert (reason_code, 0) == (skipped.reason_code, skipped.position)
    assert skipped.reason_code in SKIPS
    assert skipped.path
    assert skipped.path.isprintable()
    assert {"good.txt": b"content"} == tree(target)


def test_skipped_names_that_look_alike_stay_apart(unpack):
    """
    Members whose names can only be shown get names of their own, since each has a row.
    """
    extraction, _ = unpack(archive([Member(""), Member(""), Member("a\x01"), Member("a\\x01"), Member(b"a\x01")]))

    names = [member.path for member in (*extraction.skipped, *extraction.files)]
    assert 5 == len(set(names)) == len(names)


@pytest.mark.parametrize("descriptor", ["signed", "bare", "wide", "bare and wide", "none"])
def test_every_form_of_descriptor_is_taken(unpack, descriptor):
    """
    A data descriptor may have a signature or not, narrow sizes or wide ones, or be missing where nothing needs it.
    """
    member = Member("a.txt", TEXT, flags=DESCRIPTOR_FLAG)
    member.descriptor = {
        "signed": descriptor_of(member),
        "bare": descriptor_of(member, signature=False),
        "wide": descriptor_of(member, wide=True),
        "bare and wide": descriptor_of(member, signature=False, wide=True),
        "none": b"",
    }[descriptor]
    if descriptor == "none":
        member.local_size, member.local_packed_size, member.local_crc = member.size, member.packed_size, member.crc

    extraction, _ = unpack(archive([member, "b.txt"]))

    assert ["a.txt", "b.txt"] == [file.path for file in extraction.files]


FOLDERS = {
    "empty": (archive([]), set()),
    "empty, Zip64": (archive([], zip64_end=True), set()),
    "comment alone": (archive([], comment=b"nothing here"), set()),
    "folders": (archive([Member("a/", b"", STORED, mode=FOLDER), Member("a/b/", b"", STORED, mode=0)]), {"a", "a/b"}),
    "folder twice": (archive([Member("a/b/", b"", STORED, mode=FOLDER) for _ in range(2)]), {"a", "a/b"}),
    "packed folder": (
        archive([Member("./", b"", STORED, mode=FOLDER), Member("./a/", b"", STORED, mode=FOLDER)]),
        {"a"},
    ),
    "root folder": (
        archive([Member("/", b"", flags=DESCRIPTOR_FLAG, mode=FOLDER), Member("a/", b"", STORED, mode=FOLDER)]),
        {"a"},
    ),
    "Japanese folder": (archive([Member("表/".encode("cp932"), b"", STORED, host=0, mode=0)]), {"表"}),
    "by its mode": (archive([Member("a/b", b"", STORED, mode=FOLDER)]), {"a", "a/b"}),
    "by its attribute": (archive([Member("a/b", b"", STORED, host=0, mode=0, attributes=0x10)]), {"a", "a/b"}),
    "by its attribute, from Unix": (archive([Member("a", b"", STORED, mode=0, attributes=0x10)]), {"a"}),
    "by its backslash": (archive([Member("a\\", b"", STORED, host=0, mode=0)]), {"a"}),
    "of macOS": (archive([Member("__MACOSX/", b"", STORED, mode=FOLDER)]), set()),
}


@pytest.mark.parametrize(("data", "folders"), FOLDERS.values(), ids=FOLDERS)
def test_archive_without_files_is_taken(unpack, data, folders):
    """
    An archive without files has no members; its folders are made, but for those that macOS keeps its books in.
    """
    extraction, target = unpack(data)

    assert 0 == extraction.members
    assert extraction.directories == data.count(b"PK\x01\x02")
    assert dict.fromkeys(folders) == tree(target)


@pytest.mark.parametrize(
    "data",
    [
        archive(["a.txt", Member("b.txt", before=bytes(100))]),
        archive(["a.txt", "b.txt"], before_index=b"a signing block"),
        archive(["a.txt", "b.txt"], trailing=bytes(4096)),
        archive(["a.txt", "b.txt"], comment=b"PK\x01\x02 is no end"),
        archive([Member("a.txt", before=b"PK00"), "b.txt"]),
        archive(["a.txt", "b.txt"], zip64_end=True),
        archive(["a.txt", Member("b.txt", b"PK\x06\x07" + bytes(16), STORED)]),
    ],
    ids=["padding", "signing block", "zeros behind", "comment", "split marker", "Zip64 end", "chance locator"],
)
def test_untidy_archive_is_taken(unpack, data):
    """
    Padding, comments and markers that no reader could misunderstand do no harm.
    """
    extraction, _ = unpack(data)

    assert ["a.txt", "b.txt"] == [file.path for file in extraction.files]


def test_stored_inner_archive_is_a_file(unpack):
    """
    An archive inside the archive is a file like any other, also as the last member.
    """
    inner = archive(["x.txt"])

    extraction, target = unpack(archive(["a.txt", Member("inner.zip", inner, STORED)]))

    assert 2 == len(extraction.files)
    assert inner == (target / "inner.zip").read_bytes()


def test_more_than_65535_members_are_read(unpack):
    """
    The narrow count of the end record is no limit, with a Zip64 record or, as some writers do, just at 65,535.
    """
    members = [Member(f"{n}", b"", STORED) for n in range(65_535)]

    extraction, _ = unpack(archive(members))
    wide, _ = unpack(archive([*members, "one more"], zip64_end=True))

    assert (65_535, 65_536) == (extraction.members, wide.members)


@pytest.mark.parametrize("announced", [0, 7])
def test_count_that_started_again_is_read(tmp_path, announced):
    """
    The narrow count of macOS starts again at 65,536, and all members are there nonetheless.
    """
    members = [Member(f"{n}", b"", STORED) for n in range(65_536 + announced)]

    with opened(tmp_path, archive(members, entries=announced)) as fd:
        plan = plan_extraction(fd, Terms())

    assert 65_536 + announced == len(plan.files)


def test_streams_are_read_to_their_end(unpack):
    """
    A deflate stream in many blocks, and several bzip2 blocks, come out whole.
    """
    content = bytes(range(256)) * 8192
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(
        compressor.compress(content[at : at + 65536]) + compressor.flush(zlib.Z_FULL_FLUSH)
        for at in range(0, len(content), 65536)
    )
    members = [
        Member("deflate", content, DEFLATED, packed=packed + compressor.flush()),
        Member("bzip2", content, BZIP2, packed=bz2.compress(content, 1)),
    ]

    _, target = unpack(archive(members))

    assert {"bzip2": content, "deflate": content} == tree(target)


def test_sizes_are_not_read_from_unneeded_fields(unpack):
    """
    A Zip64 field beside sizes that need none is ignored, as every reader does.
    """
    honest = Member("a.txt", extra=extra_field(1, struct.pack("<2Q", 7, 7)))

    extraction, _ = unpack(archive([honest]))

    assert 7 == extraction.files[0].size_bytes
