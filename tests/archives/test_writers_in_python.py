"""What writers in Python make of a small tree is taken: the standard library's, and those that stream."""

import io
import shutil
import zipfile
from datetime import UTC, datetime

import docx
import openpyxl
import pytest
import stream_zip
import zipstream
from packing import TREE, WORDS, plant
from zips import Member, archive

NOW = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
STORED, DEFLATED, BZIP2, LZMA = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA


class Pipe(io.RawIOBase):
    """Takes bytes, and cannot be sought in."""

    def __init__(self):
        super().__init__()
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def zipped(content: dict[str, bytes | None], method: int, *, streamed=False, wide=False, comment=b"") -> bytes:
    target = Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as writer:
        writer.comment = comment
        for path, data in content.items():
            if data is None:
                writer.writestr(f"{path}/", b"")
                continue
            member = zipfile.ZipInfo(path, NOW.timetuple()[:6])
            member.compress_type = method
            member.comment = comment
            with writer.open(member, "w", force_zip64=wide) as sink:
                sink.write(data)
    return bytes(target.data) if isinstance(target, Pipe) else target.getvalue()


def streamed_by_stream_zip(content: dict[str, bytes | None], method) -> bytes:
    def kind(data: bytes):
        return method(len(data), 6) if method is stream_zip.ZIP_AUTO else method

    members = (
        (
            path + "/" if data is None else path,
            NOW,
            0o040755 if data is None else 0o100644,
            kind(data or b""),
            [data or b""],
        )
        for path, data in content.items()
    )
    return b"".join(stream_zip.stream_zip(members))


def streamed_by_zipstream(content: dict[str, bytes | None], method: int, *, sized=False) -> bytes:
    writer = zipstream.ZipStream(compress_type=method, sized=sized)
    writer.comment = "comment"
    for path, data in content.items():
        if data is None:
            writer.mkdir(path)
        elif sized:
            writer.add(data, path)
        else:
            writer.add(iter([data]), path)
    return b"".join(writer)


WRITERS = {
    "zipfile, deflated": lambda tree: zipped(tree, DEFLATED),
    "zipfile, stored": lambda tree: zipped(tree, STORED),
    "zipfile, bzip2": lambda tree: zipped(tree, BZIP2),
    "zipfile, LZMA": lambda tree: zipped(tree, LZMA),
    "zipfile, Zip64 forced": lambda tree: zipped(tree, DEFLATED, wide=True),
    "zipfile, comments": lambda tree: zipped(tree, DEFLATED, comment="größe".encode()),
    "zipfile, streamed, deflated": lambda tree: zipped(tree, DEFLATED, streamed=True),
    "zipfile, streamed, stored": lambda tree: zipped(tree, STORED, streamed=True),
    "zipfile, streamed, bzip2": lambda tree: zipped(tree, BZIP2, streamed=True),
    "zipfile, streamed, LZMA": lambda tree: zipped(tree, LZMA, streamed=True),
    "zipfile, streamed, Zip64 forced": lambda tree: zipped(tree, DEFLATED, streamed=True, wide=True),
    "stream-zip, ZIP_32": lambda tree: streamed_by_stream_zip(tree, stream_zip.ZIP_32),
    "stream-zip, ZIP_64": lambda tree: streamed_by_stream_zip(tree, stream_zip.ZIP_64),
    "stream-zip, ZIP_AUTO": lambda tree: streamed_by_stream_zip(tree, stream_zip.ZIP_AUTO),
    "stream-zip, stored": lambda tree: streamed_by_stream_zip(tree, stream_zip.NO_COMPRESSION_32),
    "stream-zip, stored, Zip64": lambda tree: streamed_by_stream_zip(tree, stream_zip.NO_COMPRESSION_64),
    "zipstream-ng, stored": lambda tree: streamed_by_zipstream(tree, STORED),
    "zipstream-ng, deflated": lambda tree: streamed_by_zipstream(tree, DEFLATED),
    "zipstream-ng, bzip2": lambda tree: streamed_by_zipstream(tree, BZIP2),
    "zipstream-ng, sized": lambda tree: streamed_by_zipstream(tree, STORED, sized=True),
}
TREES = {"files and folders": TREE, "folders alone": {"a": None, "a/b": None}, "nothing": {}}


@pytest.mark.parametrize("content", TREES.values(), ids=TREES)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_tree_is_taken(taken, write, content):
    """
    Seekable or streamed, with every method and with Zip64 forced, just the tree that was packed comes out.
    """
    data = write(content)

    assert content == taken(data)


def test_made_archive_is_taken(taken, tmp_path):
    """
    What `shutil.make_archive` writes of a folder is taken.
    """
    source = plant(tmp_path / "source", TREE)

    made = shutil.make_archive(str(tmp_path / "made"), "zip", source)

    assert TREE == taken((tmp_path / made).read_bytes())


def test_grown_archive_is_taken(taken):
    """
    An archive to which members were appended is one archive.
    """
    half = {path: TREE[path] for path in list(TREE)[:6]}
    target = io.BytesIO(zipped(half, DEFLATED))

    with zipfile.ZipFile(target, "a") as writer:
        for path in list(TREE)[6:]:
            writer.writestr(path + "/" if TREE[path] is None else path, TREE[path] or b"")

    assert TREE == taken(target.getvalue())


def test_anothers_archive_that_has_grown_is_taken(taken):
    """
    Python rewrites the names of the members that were there, in the directory alone, and the tree is still one.
    """
    target = io.BytesIO(archive([Member("größe.txt".encode("cp437"), WORDS)]))

    with zipfile.ZipFile(target, "a") as writer:
        writer.writestr("größer.txt", WORDS)

    assert {"größe.txt": WORDS, "größer.txt": WORDS} == taken(target.getvalue())


def open_document() -> bytes:
    """OpenDocument and EPUB: the type first, stored and without extra fields, so that it stands at byte 38."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", DEFLATED) as writer:
        writer.writestr("mimetype", "application/vnd.oasis.opendocument.text", STORED)
        writer.writestr("Configurations2/accelerator/", b"")
        writer.writestr("META-INF/manifest.xml", "<manifest/>")
        writer.writestr("content.xml", "<office/>" * 99)
    return target.getvalue()


def word_document() -> bytes:
    target = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("größe")
    document.save(target)
    return target.getvalue()


def workbook() -> bytes:
    target = io.BytesIO()
    openpyxl.Workbook().save(target)
    return target.getvalue()


@pytest.mark.parametrize("make", [open_document, word_document, workbook])
def test_documents_are_archives(taken, make):
    """
    An office document that is dropped as it is comes out as the files it consists of.
    """
    data = make()

    with zipfile.ZipFile(io.BytesIO(data)) as known:
        expected = {name: known.read(name) for name in known.namelist() if not name.endswith("/")}
    assert expected == {path: content for path, content in taken(data).items() if content is not None}
