"""The default handler: text and metadata of documents, and honest answers about the rest."""

import hashlib
import zipfile
from pathlib import Path

import kreuzberg
import pytest
from papers import (
    ODF,
    ODF_LETTER,
    ODF_TABLE,
    excel_bytes,
    inflated,
    locked,
    lying,
    mail_bytes,
    pdf_bytes,
    word_bytes,
    zip_bytes,
)

from inbox.core.errors import ParseError
from inbox.handlers.base import File, Skip
from inbox.handlers.documents import DocumentHandler, documents_handler
from inbox.handlers.results import clean_result
from inbox.utils.filetypes import get_file_type


@pytest.fixture
def file(tmp_path):
    """Return a function that makes a file and what a handler sees of it."""

    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return File(path, name, name, get_file_type(path), len(content), digest, "d1", "b1", "r1", 1)

    return make


OOXML = "application/vnd.openxmlformats-officedocument"
WORD = f"{OOXML}.wordprocessingml.document"
EXCEL = f"{OOXML}.spreadsheetml.sheet"
PAGE = "<html><head><meta charset=iso-8859-1></head><body>Stühle: alle verkauft</body></html>"
REPORT = b"<html><table><tr><td>42</td></tr></table></html>"
READ = [
    ("report.pdf", pdf_bytes(), "application/pdf", "turnover"),
    ("offer.docx", word_bytes(), WORD, "ten chairs"),
    ("OFFER.DOCX", word_bytes(), WORD, "ten chairs"),
    ("orders.xlsx", excel_bytes(), EXCEL, "chair"),
    ("orders.xlsm", excel_bytes(), "application/vnd.ms-excel.sheet.macroEnabled.12", "chair"),
    ("letter.odt", ODF_LETTER, f"{ODF}text", "Ten oaken chairs"),
    ("stock.ods", ODF_TABLE, f"{ODF}spreadsheet", "oaken chair"),
    ("letter.rtf", rb"{\rtf1\ansi Dear Ada}", "application/rtf", "Dear Ada"),
    ("page.html", PAGE.encode("iso-8859-1"), "text/html", "Stühle: alle verkauft"),
    ("page.htm", PAGE.replace("iso-8859-1", "utf-8").encode(), "text/html", "Stühle: alle verkauft"),
    ("page.xhtml", PAGE.encode("utf-16"), "text/html", "Stühle: alle verkauft"),
    ("mail.eml", mail_bytes(), "message/rfc822", "Ten chairs"),
    ("note.txt", b"plain words", "text/plain", "plain words"),
    ("old.txt", "Größe".encode("cp1252"), "text/plain", "Größe"),
    ("data.csv", b"a,b\n1,2\n", "text/csv", "a,b"),
    ("code.py", b"print('hello')", "text/x-python", "hello"),
    ("data.json", b'{"a": 1}', "application/json", '"a"'),
    ("README", b"no extension", "text/plain", "no extension"),
    ("table.xls", REPORT, "text/html", "42"),
    ("table.xlsx", b"\xef\xbb\xbf\r\n" + REPORT.upper(), "text/html", "42"),
    ("word.pdf", word_bytes(), WORD, "chairs"),
    ("word.xls", word_bytes(), WORD, "chairs"),
    ("excel.doc", excel_bytes(), EXCEL, "chair"),
    ("pdf.txt", pdf_bytes(), "application/pdf", "turnover"),
    ("rtf.doc", rb"{\rtf1\ansi Dear Ada}", "application/rtf", "Dear Ada"),
    ("odt.docx", ODF_LETTER, f"{ODF}text", "oaken"),
    ("ods.xlsx", ODF_TABLE, f"{ODF}spreadsheet", "oaken"),
    ("word", word_bytes(), WORD, "chairs"),
]


@pytest.mark.parametrize(("name", "content", "mime_type", "words"), READ, ids=[case[0] for case in READ])
def test_document_is_read(file, name, content, mime_type, words):
    """
    Text, MIME type, size and hash of each common kind of document are found, also under a wrong extension.
    """
    result = DocumentHandler()(file(name, content))

    assert mime_type == result["mime_type"]
    assert words in result["text"]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (result["size_bytes"], result["sha256"])
    assert result == clean_result(result)


def test_counts_and_metadata_are_found(file):
    """
    Pages, sheets and tables are counted, and what the author wrote about the document is kept.
    """
    report = DocumentHandler()(file("report.pdf", pdf_bytes(3)))
    offer = DocumentHandler()(file("offer.docx", word_bytes()))
    orders = DocumentHandler()(file("orders.xlsx", excel_bytes()))
    mail = DocumentHandler()(file("mail.eml", mail_bytes()))

    assert (3, "Annual report", ["Ada"]) == (
        report["page_count"],
        report["metadata"]["title"],
        report["metadata"]["authors"],
    )
    assert ["Ada"] == offer["metadata"]["authors"]
    assert (2, ["Orders", "Empty"], 1) == (orders["sheet_count"], orders["sheet_names"], orders["table_count"])
    assert ("Chairs", "ada@example.org") == (mail["metadata"]["subject"], mail["metadata"]["from_email"])
    assert report["extractor"].startswith("kreuzberg ")


def test_text_is_kept_up_to_its_limit(file):
    """
    The text is cut at the limit, and the result says so and how long it was; text that just fits is whole.
    """
    short = DocumentHandler(max_text_chars=10)
    whole = DocumentHandler()(file("report.pdf", pdf_bytes()))["text"]

    fitting = short(file("note.txt", b"0123456789"))
    text = short(file("note.txt", b"0123456789x"))
    report = short(file("report.pdf", pdf_bytes()))
    fitting_report = DocumentHandler(max_text_chars=len(whole))(file("report.pdf", pdf_bytes()))

    assert ("0123456789", 10, False) == (fitting["text"], fitting["text_chars"], fitting["text_truncated"])
    assert ("0123456789", 11, True) == (text["text"], text["text_chars"], text["text_truncated"])
    assert (whole[:10], len(whole), True) == (report["text"], report["text_chars"], report["text_truncated"])
    assert (whole, False) == (fitting_report["text"], fitting_report["text_truncated"])


@pytest.mark.parametrize(
    ("name", "content", "mime_type"),
    [
        ("picture.png", b"\x89PNG\r\n\x1a\n\x00\x00", "image/png"),
        ("program.bin", bytes(range(256)), "application/octet-stream"),
        ("binary.txt", bytes(500), "text/plain"),
        ("binary.html", bytes(500), "text/html"),
        ("inner.zip", b"PK\x05\x06" + bytes(18), "application/zip"),
        ("program.jar", zip_bytes({"A.class": b"x"}), "application/zip"),
        ("report.docx", zip_bytes({"a.txt": b"only renamed"}), "application/zip"),
    ],
)
def test_type_without_text_ends_as_set(file, name, content, mime_type):
    """
    A file that nobody can read keeps its metadata, as success or as skipped, by setting.
    """
    kept = DocumentHandler("metadata")(file(name, content))
    skipped = DocumentHandler("skip")(file(name, content))

    assert ("UNREADABLE_TYPE", mime_type, len(content)) == (kept["not_read"], kept["mime_type"], kept["size_bytes"])
    assert "text" not in kept
    assert Skip("UNREADABLE_TYPE", kept) == skipped


SHEET = "xl/worksheets/sheet1.xml"
OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.pdf", pdf_bytes()[:200]),
        ("cut.docx", word_bytes()[:2000]),
        ("cut.xlsx", excel_bytes()[:1000]),
        ("hollow.docx", b"PK\x03\x04" + bytes(400)),
        ("text.docx", b"only text"),
        ("text.pdf", b"only text"),
        ("old.doc", OLE2 + bytes(4000)),
        ("old.xls", OLE2 + bytes(4000)),
        ("slides.pptx", OLE2 + bytes(4000)),
        ("scratched.xlsx", excel_bytes()[:100] + b"\xff" * 20 + excel_bytes()[120:]),
        ("locked.docx", locked(word_bytes())),
    ],
)
def test_broken_document_is_a_parse_error(file, name, content):
    """
    A document that cannot be read is a permanent error that names it.
    """
    with pytest.raises(ParseError) as refused:
        DocumentHandler()(file(name, content))

    assert (name, "BROKEN_DOCUMENT", "PARSE_ERROR") == (
        refused.value.subject,
        refused.value.reason_code,
        refused.value.error_type,
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("secret.pdf", pdf_bytes(password="pass")),
        ("secret.docx", OLE2 + bytes(1000) + "EncryptedPackage".encode("utf-16-le") + bytes(3000)),
        ("secret.pptx", OLE2 + bytes(1000) + "EncryptedPackage".encode("utf-16-le") + bytes(3000)),
    ],
)
def test_encrypted_document_says_so(file, name, content):
    """
    A document that wants a password is told from a broken one.
    """
    with pytest.raises(ParseError, match="password") as refused:
        DocumentHandler()(file(name, content))

    assert "ENCRYPTED_DOCUMENT" == refused.value.reason_code


class PanicException(BaseException):
    """Stands for the one of the reader's core, which cannot be imported."""


@pytest.mark.parametrize(
    ("raised", "comes_out"),
    [
        (PanicException("index out of bounds"), ParseError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(), OSError),
    ],
)
def test_reader_that_gives_up(file, monkeypatch, raised, comes_out):
    """
    A panic inside the reader is a parse error like any other; what is not about the document comes out as it is.
    """

    def give_up(*_, **__):
        raise raised

    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", give_up)

    with pytest.raises(comes_out):
        DocumentHandler()(file("report.pdf", pdf_bytes()))


def test_empty_and_huge_files_are_not_read(file):
    """
    An empty file and one past the limit keep their metadata and say why there is no text.
    """
    small = DocumentHandler(max_read_bytes=100)

    empty, long = small(file("empty.pdf", b"")), small(file("long.txt", b"x" * 101))

    assert ("EMPTY", "application/pdf", 0) == (empty["not_read"], empty["mime_type"], empty["size_bytes"])
    assert ("TOO_LARGE", "text/plain", 101) == (long["not_read"], long["mime_type"], long["size_bytes"])
    assert "x" * 100 == small(file("fits.txt", b"x" * 100))["text"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.xlsx", inflated(excel_bytes(), SHEET, 3_000_000)[0]),
        ("bomb.docx", inflated(word_bytes(), "word/document.xml", 3_000_000)[0]),
        ("bomb.ods", inflated(ODF_TABLE, "content.xml", 3_000_000)[0]),
        ("bomb.xls", inflated(excel_bytes(), SHEET, 3_000_000)[0]),
        ("behind-words.docx", b"words" + inflated(word_bytes(), "word/document.xml", 3_000_000)[0]),
    ],
)
def test_document_that_unpacks_past_the_limit_is_not_read(file, monkeypatch, name, content):
    """
    An office document that would grow past the limit never reaches the reader.
    """
    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", lambda *_, **__: pytest.fail("it was read"))

    result = DocumentHandler(max_read_bytes=1_000_000)(file(name, content))

    assert len(content) < 100_000
    assert "TOO_LARGE" == result["not_read"]


@pytest.mark.parametrize("missing_bytes", [1, 2_990_000])
@pytest.mark.parametrize(
    ("name", "honest", "part"),
    [
        ("lying.xlsx", excel_bytes(), SHEET),
        ("lying.docx", word_bytes(), "word/document.xml"),
        ("lying.odt", ODF_LETTER, "content.xml"),
    ],
)
def test_document_that_hides_its_size_is_broken(file, monkeypatch, name, honest, part, missing_bytes):
    """
    An office document that holds more than its index declares never reaches the reader, which would unpack all of it.
    """
    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", lambda *_, **__: pytest.fail("it was read"))
    content = lying(honest, part, 3_000_000, missing_bytes=missing_bytes)

    with pytest.raises(ParseError, match="not as long as the index declares") as refused:
        DocumentHandler()(file(name, content))

    assert "BROKEN_DOCUMENT" == refused.value.reason_code


def test_document_packed_by_another_method_is_broken(file, monkeypatch):
    """
    A method that no office application uses is refused before the reader sees it: nothing bounds what it unpacks to.
    """
    monkeypatch.setattr(kreuzberg, "extract_bytes_sync", lambda *_, **__: pytest.fail("it was read"))
    parts = {"[Content_Types].xml": "x", "word/document.xml": "x"}

    with pytest.raises(ParseError, match="compression method 12"):
        DocumentHandler()(file("packed.docx", zip_bytes(parts, method=zipfile.ZIP_BZIP2)))


def test_examples_are_read(file):
    """
    Every member of the example archive can be read by the handler that is used without any setting.
    """
    sample = Path(__file__).parent.parent / "examples" / "sample.zip"
    handler = documents_handler("metadata", 1000, 10**8)
    with zipfile.ZipFile(sample) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}

    for name, content in members.items():
        result = handler.function(file(name.rpartition("/")[2], content))
        assert result["mime_type"]
