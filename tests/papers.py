"""Real documents, as bytes, each with a few words in it."""

import io
import struct
import zipfile
import zlib
from email.message import EmailMessage

import docx
import openpyxl
from fpdf import FPDF

ODF = "application/vnd.oasis.opendocument."
_ODF_SPACE = "urn:oasis:names:tc:opendocument:xmlns:{}:1.0"


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


def odf_bytes(kind, body):
    """Return an OpenDocument of that kind (text, spreadsheet) with the body given as XML."""
    spaces = " ".join(f'xmlns:{name}="{_ODF_SPACE.format(name)}"' for name in ("office", "text", "table"))
    content = f"<office:document-content {spaces}><office:body>{body}</office:body></office:document-content>"
    manifest = f'<manifest:manifest xmlns:manifest="{_ODF_SPACE.format("manifest")}"/>'
    parts = {"mimetype": f"{ODF}{kind}", "content.xml": content, "META-INF/manifest.xml": manifest}
    return zip_bytes(parts, stored=("mimetype",))


def zip_bytes(parts, *, stored=(), method=zipfile.ZIP_DEFLATED):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name in stored else method)
    return target.getvalue()


def inflated(document, part, padding_bytes):
    """Return an office document one part of which begins with that many blanks, after its XML declaration."""
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    head, mark, rest = parts[part].partition(b">")
    parts[part] = head + mark + b" " * padding_bytes + rest
    return zip_bytes(parts), parts[part]


def lying(document, part, padding_bytes, *, missing_bytes):
    """Return such a document whose index hides the end of the part, with the checksum of what a reader then sees."""
    honest, content = inflated(document, part, padding_bytes)
    declared_bytes = len(content) - missing_bytes
    sizes = (len(content), declared_bytes)
    checksums = (zlib.crc32(content), zlib.crc32(content[: declared_bytes + 1]))
    for true, false in (sizes, checksums):
        honest = honest.replace(struct.pack("<I", true), struct.pack("<I", false))
    return honest


def locked(document):
    """Return an office document whose parts are marked as encrypted, one by one."""
    local, central = b"PK\x03\x04\x14\0", b"PK\x01\x02\x14\x03\x14\0"
    return document.replace(local + b"\0", local + b"\1").replace(central + b"\0", central + b"\1")


ODF_LETTER = odf_bytes("text", "<office:text><text:p>Ten oaken chairs</text:p></office:text>")
ODF_TABLE = odf_bytes(
    "spreadsheet",
    '<office:spreadsheet><table:table table:name="Stock"><table:table-row>'
    '<table:table-cell office:value-type="string"><text:p>oaken chair</text:p></table:table-cell>'
    "</table:table-row></table:table></office:spreadsheet>",
)
