"""What kind of file something is: content first, then name, then whether it reads as text."""

import io
import os
import struct
import zipfile

import docx
import openpyxl
import pytest
from fpdf import FPDF

from inbox.utils.filesystem import get_file_type
from inbox.utils.filetypes import file_type_of_name


def word_bytes():
    target = io.BytesIO()
    docx.Document().save(target)
    return target.getvalue()


def excel_bytes():
    target = io.BytesIO()
    openpyxl.Workbook().save(target)
    return target.getvalue()


def zip_bytes(*names, mimetype=None):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype)
        for name in names:
            archive.writestr(name, "x")
    return target.getvalue()


def ole2_bytes(stream, *, sector_shift=9, first_sector=0):
    """Return an OLE2 file whose directory stands in one sector and names one stream ([MS-CFB] 2.2, 2.6)."""
    size = 1 << sector_shift
    header = bytearray(size)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", header, 30, sector_shift)
    struct.pack_into("<I", header, 48, first_sector)
    name = stream.encode("utf-16-le")
    entry = name + bytes(64 - len(name)) + struct.pack("<H", len(name) + 2) + bytes(62)
    return bytes(header) + bytes(size * first_sector) + entry.ljust(size, b"\0")


ODF = "application/vnd.oasis.opendocument."
CASES = [
    ("a.pdf", bytes(FPDF().output() or b"%PDF-1.4"), "pdf"),
    ("no-extension", b"%PDF-1.7\n", "pdf"),
    ("late.pdf", b"\n\n\n%PDF-1.7", "pdf"),
    ("a.docx", word_bytes(), "word"),
    ("wrong.txt", word_bytes(), "word"),
    ("a.xlsx", excel_bytes(), "excel"),
    ("wrong.zip", excel_bytes(), "excel"),
    ("a.doc", ole2_bytes("WordDocument"), "word"),
    ("a.xls", ole2_bytes("Workbook"), "excel"),
    ("old.xls", ole2_bytes("Book"), "excel"),
    ("word.txt", ole2_bytes("WordDocument"), "word"),
    ("excel.doc", ole2_bytes("Workbook", first_sector=3), "excel"),
    ("large-sectors", ole2_bytes("WordDocument", sector_shift=12, first_sector=2), "word"),
    ("a.msg", ole2_bytes("__properties"), "unknown"),
    ("cut.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "word"),
    ("a.odt", zip_bytes(mimetype=f"{ODF}text"), "word"),
    ("a.ods", zip_bytes(mimetype=f"{ODF}spreadsheet"), "excel"),
    ("a.epub", zip_bytes(mimetype="application/epub+zip"), "unknown"),
    ("a.pptx", zip_bytes("[Content_Types].xml", "ppt/x"), "unknown"),
    ("a.zip", zip_bytes("a.txt"), "zip"),
    ("a.jar", zip_bytes("a.txt"), "zip"),
    ("empty.zip", zip_bytes(), "zip"),
    ("cut.docx", word_bytes()[:500], "word"),
    ("a.rtf", b"{\\rtf1 x}", "word"),
    ("a.txt", b"text", "text"),
    ("a.csv", b"a;b\n1;2", "text"),
    ("README", b"plain text", "text"),
    ("umlaut", "größe".encode(), "text"),
    ("utf16", "text".encode("utf-16"), "text"),
    ("a.bin", b"\x00\x01\x02", "unknown"),
    ("empty", b"", "unknown"),
    ("a.png", b"\x89PNG\r\n\x1a\n\x00", "unknown"),
]


@pytest.mark.parametrize(("name", "content", "kind"), CASES, ids=[case[0] for case in CASES])
def test_content_decides(tmp_path, name, content, kind):
    """
    The first bytes say what a file is, whatever it is called; a file cut short is what it was meant to be.
    """
    path = tmp_path / name
    path.write_bytes(content)

    assert kind == get_file_type(path)


def test_what_cannot_be_read_is_judged_by_its_name(tmp_path):
    """
    A missing file, a folder and a pipe are judged by their names, without an error and without waiting.
    """
    (tmp_path / "folder.pdf").mkdir()
    os.mkfifo(tmp_path / "pipe.docx")

    assert "pdf" == get_file_type(tmp_path / "missing.PDF")
    assert "pdf" == get_file_type(tmp_path / "folder.pdf")
    assert "word" == get_file_type(tmp_path / "pipe.docx")
    assert "unknown" == get_file_type("a\0b")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.PDF", "pdf"), ("a.tar.gz", "unknown"), ("pdf", "unknown"), (".txt", "text"), ("a.", "unknown")],
)
def test_name_promises(name, kind):
    """
    The last extension counts, in any case of letters.
    """
    assert kind == file_type_of_name(name)
