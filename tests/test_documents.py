"""The default handler: text and metadata of documents, and honest answers about the rest."""

import hashlib
import io
import zipfile
from email.message import EmailMessage
from pathlib import Path

import docx
import openpyxl
import pytest
from fpdf import FPDF

from inbox.core.errors import ParseError
from inbox.handlers.base import File, Skip
from inbox.handlers.documents import DocumentHandler, documents_handler
from inbox.handlers.results import clean_result
from inbox.utils.filetypes import get_file_type


def pdf_bytes(pages=2, password=None):
    pdf = FPDF()
    pdf.set_title("Annual report")
    pdf.set_author("Ada")
    for number in range(pages):
        pdf.add_page()
        pdf.set_font("Helvetica", size=12)
        pdf.cell(text=f"Page {number + 1} speaks of turnover")
    if password:
        pdf.set_encryption(owner_password="owner", user_password=password)
    return bytes(pdf.output())


def word_bytes():
    document = docx.Document()
    document.core_properties.author = "Ada"
    document.add_heading("An offer")
    document.add_paragraph("We offer ten chairs.")
    target = io.BytesIO()
    document.save(target)
    return target.getvalue()


def excel_bytes():
    book = openpyxl.Workbook()
    book.active.title = "Orders"
    book.active.append(["item", "count"])
    book.active.append(["chair", 10])
    book.create_sheet("Empty")
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def mail_bytes():
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Chairs", "ada@example.org", "bob@example.org"
    mail.set_content("Ten chairs, please.")
    return mail.as_bytes()


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
READ = [
    ("report.pdf", pdf_bytes(), "application/pdf", "turnover"),
    (
        "offer.docx",
        word_bytes(),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "ten chairs",
    ),
    ("orders.xlsx", excel_bytes(), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "chair"),
    ("letter.rtf", rb"{\rtf1\ansi Dear Ada}", "application/rtf", "Dear Ada"),
    ("page.html", b"<html><body><h1>Chairs</h1><p>all sold</p></body></html>", "text/html", "all sold"),
    ("mail.eml", mail_bytes(), "message/rfc822", "Ten chairs"),
    ("note.txt", b"plain words", "text/plain", "plain words"),
    ("data.csv", b"a,b\n1,2\n", "text/csv", "a,b"),
    ("code.py", b"print('hello')", "text/x-python", "hello"),
    ("data.json", b'{"a": 1}', "application/json", '"a"'),
    ("README", b"no extension", "text/plain", "no extension"),
    ("report.xls", b"<html><table><tr><td>42</td></tr></table></html>", "text/html", "42"),
    (
        "really-word.pdf",
        word_bytes(),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "chairs",
    ),
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
    Pages and sheets are counted, and what the author wrote about the document is kept.
    """
    report = DocumentHandler()(file("report.pdf", pdf_bytes(3)))
    orders = DocumentHandler()(file("orders.xlsx", excel_bytes()))

    assert 3 == report["page_count"]
    assert "Annual report" in str(report["metadata"])
    assert (2, ["Orders", "Empty"]) == (orders["sheet_count"], orders["sheet_names"])


def test_text_is_kept_up_to_its_limit(file):
    """
    The text is cut at the limit, and the result says so and how long it was.
    """
    short = DocumentHandler(max_text_chars=5)

    text = short(file("note.txt", b"0123456789"))
    report = short(file("report.pdf", pdf_bytes()))

    assert ("01234", 10, True) == (text["text"], text["text_chars"], text["text_truncated"])
    assert (5, True) == (len(report["text"]), report["text_truncated"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("picture.png", b"\x89PNG\r\n\x1a\n\x00\x00"),
        ("program.bin", bytes(range(256))),
        ("binary.txt", bytes(500)),
        ("inner.zip", b"PK\x05\x06" + bytes(18)),
    ],
)
def test_type_without_text_ends_as_set(file, name, content):
    """
    A file that nobody can read keeps its metadata, as success or as skipped, by setting.
    """
    kept = DocumentHandler("metadata")(file(name, content))
    skipped = DocumentHandler("skip")(file(name, content))

    assert "UNREADABLE_TYPE" == kept["not_read"]
    assert len(content) == kept["size_bytes"]
    assert isinstance(skipped, Skip)
    assert ("UNREADABLE_TYPE", kept) == (skipped.reason_code, skipped.result)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.pdf", pdf_bytes()[:200]),
        ("cut.docx", word_bytes()[:2000]),
        ("cut.xlsx", excel_bytes()[:1000]),
        ("hollow.docx", b"PK\x03\x04" + bytes(400)),
    ],
)
def test_broken_document_is_a_parse_error(file, name, content):
    """
    A document that cannot be read is a permanent error that names it.
    """
    with pytest.raises(ParseError) as refused:
        DocumentHandler()(file(name, content))

    assert (name, "BROKEN_DOCUMENT") == (refused.value.subject, refused.value.reason_code)


def test_encrypted_document_says_so(file):
    """
    A document that wants a password is told from a broken one.
    """
    with pytest.raises(ParseError) as refused:
        DocumentHandler()(file("secret.pdf", pdf_bytes(password="pass")))

    assert "ENCRYPTED_DOCUMENT" == refused.value.reason_code


def test_empty_and_huge_files_are_not_read(file):
    """
    An empty file, one past the limit and one that unpacks past it keep their metadata and say why there is no text.
    """
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("xl/workbook.xml", bytes(3_000_000))
    small = DocumentHandler(max_read_bytes=100_000)

    assert "EMPTY" == small(file("empty.pdf", b""))["not_read"]
    assert "TOO_LARGE" == small(file("long.txt", b"x" * 100_001))["not_read"]
    assert "TOO_LARGE" == small(file("bomb.xlsx", bomb.getvalue()))["not_read"]


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
