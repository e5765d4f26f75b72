"""
Archives of writers that do not run here, rebuilt byte by byte from what is publicly known of their form.

No byte of these was written by the program that a test names. Rebuilt is what a reader can stumble over: hosts and
flags, extra fields, descriptors, names, and what stands first and last.
"""

import struct
import unicodedata

import pytest
from zips import (
    DEFLATED,
    DESCRIPTOR_FLAG,
    FOLDER,
    SENTINEL,
    STORED,
    Member,
    archive,
    descriptor_of,
    extra_field,
    tree,
    unicode_path,
)

TEXT = b"the same words again and again, " * 99
NTFS_TIMES = extra_field(0x000A, struct.pack("<L2H3Q", 0, 1, 24, *[133_500_000_000_000_000] * 3))
PACKED_HARDER = 2
"""The flag by which DOS and Windows programs tell the effort that was made; it changes nothing for a reader."""


def windows(name: bytes | str, content: bytes = TEXT, **options) -> Member:
    """A member of a host that has DOS attributes and no modes."""
    is_empty = not content
    is_folder = name.endswith(b"/" if isinstance(name, bytes) else "/")
    host = {"host": 0, "mode": 0, "attributes": 0x10 if is_folder else 0x20, "method": STORED if is_empty else DEFLATED}
    return Member(name, content, **(host | options))


def explorer() -> bytes:
    """Windows' compressed folders up to 10: names in the OEM code page, and an entry only for an empty folder."""
    names = ["docs/größe.txt", "docs/nested/a.txt"]
    files = [windows(name.encode("cp437")) for name in names]
    return archive([*files, windows("docs/empty.txt", b""), windows("empty folder/", b"")])


def explorer_in_japan() -> bytes:
    """The same with code page 932, where the second byte of some characters is a backslash."""
    return archive([windows("予定/機能一覧表".encode("cp932")), windows("予定/表/".encode("cp932"), b"")])


def winzip() -> bytes:
    """WinZip: what the code page lacks is in a Unicode path field; NTFS times stand in the directory alone."""
    raw, name = b"docs/__.txt", "docs/日本.txt"
    path = unicode_path(name, raw)
    return archive(
        [
            windows(raw, extra=NTFS_TIMES + path, local_extra=path, flags=PACKED_HARDER),
            windows("docs/", b"", extra=NTFS_TIMES, local_extra=b""),
        ]
    )


def seven_zip() -> bytes:
    """7-Zip on Windows: version 6.3, names marked as UTF-8, folders named, NTFS times in the directory alone."""
    options = {"version": 63, "extra": NTFS_TIMES, "local_extra": b""}
    return archive([windows("größe/", b"", **options), windows("größe/日本.txt", **options)])


def powershell() -> bytes:
    """Compress-Archive on .NET up to 4.6: backslashes as separators, no attributes, a folder by its last character."""
    options = {"attributes": 0}
    return archive([windows("docs\\größe.txt", **options), windows("empty folder\\", b"", **options)])


def dotnet_to_a_pipe() -> bytes:
    """.NET's ZipArchive on a stream that cannot seek, on Unix: descriptors, and modes."""
    return archive([Member("docs/größe.txt", TEXT, flags=DESCRIPTOR_FLAG), Member("empty.txt", b"", STORED)])


def sharpziplib() -> bytes:
    """SharpZipLib, streamed with Zip64: a local field of minus ones beside sizes of zero, and a wide descriptor."""
    member = Member(
        "docs/a.txt", TEXT, flags=DESCRIPTOR_FLAG, version=45, needed=45, local_extra=extra_field(1, b"\xff" * 16)
    )
    member.descriptor = descriptor_of(member, wide=True)
    member.extra = extra_field(1, struct.pack("<2Q", member.size, member.packed_size))
    member.size = member.packed_size = SENTINEL
    return archive([member])


def word() -> bytes:
    """Microsoft Office: room to grow (0xA220) after the first local header, flags for the effort."""
    room = extra_field(0xA220, struct.pack("<2H", 0xA028, 260) + bytes(260))
    options = {"flags": 6, "attributes": 0}
    return archive(
        [
            windows("[Content_Types].xml", local_extra=room, **options),
            windows("_rels/.rels", local_extra=room, **options),
            windows("word/document.xml", **options),
        ]
    )


def open_document() -> bytes:
    """LibreOffice: the type first, stored and bare, then streamed members."""
    return archive(
        [
            windows("mimetype", b"application/vnd.oasis.opendocument.text", method=STORED, attributes=0),
            windows("Configurations2/menubar/", b"", attributes=0),
            windows("content.xml", flags=DESCRIPTOR_FLAG, attributes=0),
        ]
    )


def pkzip() -> bytes:
    """PKZIP for DOS: names in capitals, a comment in the code page."""
    return archive([windows("DOCS/README.TXT", flags=PACKED_HARDER)], comment="größe".encode("cp437"))


def archive_utility() -> bytes:
    """
    macOS: version 2.1, decomposed names that are UTF-8 without the mark, always deflate and descriptors for files, the
    old Unix field (0x5855), and what the file system knows of a file beside it in __MACOSX.
    """
    stamps = struct.pack("<2L", 1_700_000_000, 1_700_000_000)
    old_unix = {"extra": extra_field(0x5855, stamps), "local_extra": extra_field(0x5855, stamps + bytes(4))}
    streamed = old_unix | {"version": 21, "flags": DESCRIPTOR_FLAG}

    def name(text: str) -> bytes:
        return unicodedata.normalize("NFD", text).encode()

    return archive(
        [
            Member(name("größe/"), b"", STORED, mode=FOLDER, version=21, **old_unix),
            Member(name("größe/日本.txt"), TEXT, **streamed),
            Member(name("__MACOSX/größe/._日本.txt"), b"\0\5\x16\7 and more", **streamed),
            Member(name("größe/.DS_Store"), b"\0\0\0\1Bud1", **streamed),
            Member(name("größe/empty.txt"), b"", **streamed),
        ]
    )


def nextcloud() -> bytes:
    """Nextcloud and ownCloud: Zip64 for everything, with every narrow value a sentinel, disk numbers included."""
    at, members = 0, []
    for name, content in (("docs/", b""), ("docs/größe.txt", TEXT)):
        is_folder = name.endswith("/")
        member = Member(
            name,
            content,
            STORED,
            mode=FOLDER if is_folder else 0o100644,
            version=45,
            needed=45,
            flags=0 if is_folder else DESCRIPTOR_FLAG,
            local_size=SENTINEL,
            local_packed_size=SENTINEL,
            local_extra=extra_field(1, struct.pack("<3QL", 0, 0, at, 0)),
            extra=extra_field(1, struct.pack("<3QL", len(content), len(content), at, 0)),
            disk=0xFFFF,
            offset=SENTINEL,
        )
        member.descriptor = b"" if is_folder else descriptor_of(member, wide=True)
        member.size = member.packed_size = SENTINEL
        at += 30 + len(member.name) + 32 + len(content) + len(member.descriptor)
        members.append(member)
    return archive(members, zip64_end=True, disk=0xFFFF)


def onedrive() -> bytes:
    """OneDrive: Zip64, and a locator that counts no disks at all."""
    return archive([Member("docs/größe.txt", TEXT, zip64=True)], zip64_end=True, disks=0)


def dropbox() -> bytes:
    """Dropbox: an entry '/' for the folder that was downloaded."""
    return archive([windows("/", b"", flags=DESCRIPTOR_FLAG), windows("docs/größe.txt", flags=DESCRIPTOR_FLAG)])


def commons_compress() -> bytes:
    """Commons Compress 1.20 with Zip64 always: a field that repeats the offset although the narrow one is there."""
    member = Member("docs/a.txt", TEXT, version=45, needed=45, local_size=SENTINEL, local_packed_size=SENTINEL)
    member.local_extra = extra_field(1, struct.pack("<2Q", member.size, member.packed_size))
    member.extra = extra_field(1, struct.pack("<3QL", member.size, member.packed_size, 0, 0))
    member.size = member.packed_size = SENTINEL
    return archive([member], zip64_end=True)


def decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


REBUILT = {
    explorer: {
        "docs/größe.txt": TEXT,
        "docs/nested/a.txt": TEXT,
        "docs/empty.txt": b"",
        "empty folder": None,
    },
    explorer_in_japan: {"予定/機能一覧表": TEXT, "予定/表": None},
    winzip: {"docs/日本.txt": TEXT},
    seven_zip: {"größe/日本.txt": TEXT},
    powershell: {"docs/größe.txt": TEXT, "empty folder": None},
    dotnet_to_a_pipe: {"docs/größe.txt": TEXT, "empty.txt": b""},
    sharpziplib: {"docs/a.txt": TEXT},
    word: {"[Content_Types].xml": TEXT, "_rels/.rels": TEXT, "word/document.xml": TEXT},
    open_document: {
        "mimetype": b"application/vnd.oasis.opendocument.text",
        "Configurations2/menubar": None,
        "content.xml": TEXT,
    },
    pkzip: {"DOCS/README.TXT": TEXT},
    archive_utility: {decomposed("größe/日本.txt"): TEXT, decomposed("größe/empty.txt"): b""},
    nextcloud: {"docs/größe.txt": TEXT},
    onedrive: {"docs/größe.txt": TEXT},
    dropbox: {"docs/größe.txt": TEXT},
    commons_compress: {"docs/a.txt": TEXT},
}
JUNK = {archive_utility: {decomposed("__MACOSX/größe/._日本.txt"), decomposed("größe/.DS_Store")}}


def with_folders(content: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Return the tree with the folders that its paths imply."""
    parts = [path.split("/") for path in content]
    return {"/".join(part[:n]): None for part in parts for n in range(1, len(part))} | content


@pytest.mark.parametrize("rebuild", REBUILT, ids=lambda rebuild: rebuild.__name__)
def test_rebuilt_archive_is_taken(judge, unpack, rebuild):
    """
    An archive of the form that the named program writes is whole, and gives the tree that was packed.
    """
    data = rebuild()

    assert judge(data).complete
    extraction, target = unpack(data)
    assert with_folders(REBUILT[rebuild]) == tree(target)
    assert {(path, "JUNK") for path in JUNK.get(rebuild, ())} == {
        (member.path, member.reason_code) for member in extraction.skipped
    }


@pytest.mark.parametrize("rebuild", REBUILT, ids=lambda rebuild: rebuild.__name__)
def test_rebuilt_archive_that_was_cut_short_is_not_whole(judge, rebuild):
    """
    The half that arrived of such an archive, or all of it but the last byte, waits for the rest.
    """
    data = rebuild()

    assert not judge(data[: len(data) // 2]).complete
    assert not judge(data[:-1]).complete
