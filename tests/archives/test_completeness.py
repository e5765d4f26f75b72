"""The gate's question: is this file a whole archive?"""

import io
import os
import struct
import zipfile

import pytest
from zips import DESCRIPTOR_FLAG, STORED, Member, archive

from inbox.archives import check_complete
from inbox.core.errors import ArchiveRefusedError, StorageError

INNER = archive(["one.txt", "two.txt"])

WHOLE = {
    "plain": archive(["a.txt", "b/c.txt"]),
    "stores another archive": archive([Member("inner.zip", INNER, STORED), "after.txt"]),
    "stores an archive of wide offsets": archive(
        [Member("inner.zip", archive([Member("a", zip64=True)]), STORED), "b"]
    ),
    "ends with a stored archive": archive(["before.txt", Member("inner.zip", INNER, STORED)]),
    "streamed": archive([Member("a.txt", flags=DESCRIPTOR_FLAG)]),
    "Zip64": archive([Member("a.txt", zip64=True)], zip64_end=True),
    "big comment": archive(["a.txt"], comment=b"c" * 3000),
    "empty": archive([]),
    "padded with zeros": archive(["a.txt"], trailing=bytes(512)),
}


MARKED = archive([Member("a.txt", before=b"PK00"), "b.txt"])
FIRST_MISSING = MARKED[:4] + bytes(30) + MARKED[34:]


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE)
def test_whole_archive_is_complete(judge, data):
    """
    An archive that ends where its end record says is complete.
    """
    assert judge(data).complete


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if kind != "padded with zeros"])
def test_no_truncation_is_complete(judge, kind):
    """
    Cut short at any byte, no archive is taken for a whole one, also not where an inner archive ends.
    """
    data = WHOLE[kind]

    taken = [length for length in range(len(data)) if judge(data[:length]).complete]

    assert [] == taken


@pytest.mark.parametrize("kind", ["plain", "stores another archive", "Zip64"])
def test_reserved_room_is_not_content(judge, unpack, kind):
    """
    A file that has its full size before its content is awaited, or has a fault that is one only if it stays.
    """
    data = WHOLE[kind]
    halves = [data[:length] + bytes(len(data) - length) for length in range(len(data))]

    taken = [half for half in halves if half != data and judge(half).complete]

    for half in taken:
        with pytest.raises(ArchiveRefusedError) as refused:
            unpack(half)
        assert refused.value.damaged


def test_beginning_written_last_is_awaited(judge):
    """
    An archive whose first bytes are still zeros is not whole, though its end is there.
    """
    data = WHOLE["plain"]

    verdict = judge(bytes(64) + data[64:])

    assert (False, "NOT_BEGUN") == (verdict.complete, verdict.reason_code)


def test_zeros_before_the_archive_are_no_missing_member(judge):
    """
    Where the directory counts from a later beginning, nothing is looked for at the file's own.
    """
    assert judge(archive([Member("a.txt", before=b"PK00")], prefix=b"MZ" + bytes(98))).complete


def test_directory_that_is_not_there_yet_is_awaited(judge):
    """
    An end record whose directory is still zeros describes nothing; the rest of the copy may come.
    """
    data = WHOLE["plain"]
    at, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")

    verdict = judge(data[:at] + bytes(end - at) + data[end:])

    assert (False, "NO_END_RECORD") == (verdict.complete, verdict.reason_code)


LYING = {
    "a directory of another size": archive(["a.txt"], index_size=50),
    "a directory behind itself": archive(["a.txt"], index_offset=100_000),
    "a missing Zip64 record": archive(["a.txt"], zip64_end=True, locator=False),
}


@pytest.mark.parametrize("inner", LYING.values(), ids=LYING)
def test_stored_archive_that_lies_says_nothing_of_the_outer_one(judge, unpack, inner):
    """
    An archive that lies is a file like any other within an honest one, and ends no copy that goes on behind it.
    """
    whole = archive([Member("inner.zip", inner, STORED), "after.txt"])
    behind = whole.index(inner) + len(inner) + 9

    assert not judge(whole[:behind]).complete
    assert judge(whole).complete
    assert 2 == len(unpack(whole)[0].files)


@pytest.mark.parametrize("inner", [archive(["a.txt"], zip64_end=True, disks=2), LYING["a missing Zip64 record"]])
def test_stored_archive_that_lies_may_come_last(judge, unpack, inner):
    """
    So it does where its end record is the last but one of the file.
    """
    whole = archive(["before.txt", Member("inner.zip", inner, STORED)])

    assert judge(whole).complete
    assert 2 == len(unpack(whole)[0].files)


@pytest.mark.parametrize(
    ("data", "reason_code"),
    [
        (b"just some text" + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 1, 1, 0), "NOT_AN_ARCHIVE"),
        (b"", "EMPTY_FILE"),
        (b"PK00PK\x03\x04 and no more", "NO_END_RECORD"),
        (b"PK\x05\x06", "NO_END_RECORD"),
        (FIRST_MISSING, "FIRST_MEMBER_MISSING"),
        (bytes(4096), "NOT_BEGUN"),
        (b"PK\x03\x04 and no more", "NO_END_RECORD"),
        (b"P", "NO_END_RECORD"),
        (b"PK\x03" + bytes(4096), "NO_END_RECORD"),
        (b"just some text\n" * 99, "NOT_AN_ARCHIVE"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(99), "NOT_AN_ARCHIVE"),
        (b"%PDF-1.7 with PK\x05\x06 in it" + bytes(99), "NOT_AN_ARCHIVE"),
    ],
)
def test_reason_for_waiting_is_told(judge, data, reason_code):
    """
    What is not whole says why, and what will never be an archive says that.
    """
    verdict = judge(data)

    assert (False, reason_code) == (verdict.complete, verdict.reason_code)
    assert verdict.reason


def test_file_that_cannot_be_read_is_no_fault_of_the_archive(tmp_path):
    """
    A volume that gives nothing is trouble with the volume.
    """
    path = tmp_path / "a.zip"
    path.write_bytes(WHOLE["plain"])
    fd = os.open(path, os.O_WRONLY)

    with pytest.raises(StorageError, match="cannot be read"):
        check_complete(fd)
    os.close(fd)


def test_volume_that_answers_in_parts_is_asked_on(judge, unpack, monkeypatch):
    """
    A read that gives less than it was asked for, as on a network file system, is no end of the file.
    """
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: read(fd, min(count, 7), at))

    assert judge(WHOLE["plain"]).complete
    assert 2 == len(unpack(WHOLE["plain"])[0].files)


def test_python_writes_whole_archives(judge):
    """
    Archives of the standard library's writer are whole in both of its ways of writing.
    """
    seekable = io.BytesIO()
    with zipfile.ZipFile(seekable, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("a.txt", "hello")

    assert judge(seekable.getvalue()).complete
