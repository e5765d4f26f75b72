"""
Makes `sample.zip` and `sample-with-errors.zip` next to this file: real documents, the same bytes every time.

    python examples/make_sample.py
"""

import io
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import docx
import openpyxl
from fpdf import FPDF

HERE: Final = Path(__file__).parent
MOMENT: Final = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
ZIP_MOMENT: Final = MOMENT.timetuple()[:6]
CORE_PROPERTIES: Final = "docProps/core.xml"
APPLE_DOUBLE: Final = bytes.fromhex("00051607 00020000") + b"Mac OS X        " + bytes(58)  # RFC 1740


def sample_members() -> dict[str, bytes]:
    """Return every member of the sample by its path; a path that ends in `/` is a folder."""
    return {
        "read-me.txt": "Everything in this archive was made for inbox. Grüße, 你好, ✓\n".encode(),
        "reports/": b"",
        "reports/2024/": b"",
        "reports/2024/annual-report.pdf": make_pdf(),
        "reports/2024/figures.xlsx": make_workbook(),
        "letters/offer.docx": make_letter(),
        "letters/grüße.txt": "Liebe Grüße aus dem Süden: ein Name und ein Text in UTF-8.\n".encode(),
        "letters/old-letter.txt": "Déjà vu: crème brûlée, señor, naïve café. Written in Latin-1.\n".encode("latin-1"),
        "data/orders.csv": make_orders(),
        "__MACOSX/._read-me.txt": APPLE_DOUBLE,
    }


def error_members() -> dict[str, bytes]:
    """Return the members of an archive that is sound, but in which two documents are broken."""
    return {
        "good.txt": b"This one is fine.\n",
        "good.pdf": make_pdf(),
        "broken.pdf": b"%PDF-1.7\nthis is all there is of it\n",
        "broken.docx": make_letter()[:2000],
    }


def make_pdf() -> bytes:
    pdf = FPDF()
    pdf.set_creation_date(MOMENT)
    pdf.set_title("Annual report")
    pdf.set_author("inbox")
    pdf.set_font("Helvetica", size=12)
    for heading, text in (
        ("Annual report 2024", "In 2024 the inbox received 1,204 archives and lost none of them."),
        ("Outlook", "Next year every file is again expected to become exactly one row."),
    ):
        pdf.add_page()
        pdf.set_font("Helvetica", style="B", size=18)
        pdf.cell(text=heading, new_x="LMARGIN", new_y="NEXT", h=12)
        pdf.set_font("Helvetica", size=12)
        pdf.multi_cell(w=0, text=text)
    return bytes(pdf.output())


def make_letter() -> bytes:
    letter = docx.Document()
    letter.core_properties.author = "inbox"
    letter.core_properties.title = "Offer"
    letter.core_properties.created = letter.core_properties.modified = MOMENT.replace(tzinfo=None)
    letter.add_heading("Offer", level=1)
    letter.add_paragraph("Dear reader, we offer one row per file and one receipt per archive.")
    table = letter.add_table(rows=0, cols=2)
    for name, price in (("One row", "0.00"), ("One receipt", "0.00")):
        cells = table.add_row().cells
        cells[0].text, cells[1].text = name, price
    target = io.BytesIO()
    letter.save(target)
    return with_fixed_times(target.getvalue())


def make_workbook() -> bytes:
    workbook = openpyxl.Workbook()
    workbook.properties.creator = "inbox"
    workbook.properties.created = MOMENT.replace(tzinfo=None)
    sales = workbook.worksheets[0]
    sales.title = "Sales"
    for row in (("Quarter", "Archives", "Files"), ("Q1", 280, 9120), ("Q2", 311, 10467), ("Q3", 613, 20004)):
        sales.append(row)
    costs = workbook.create_sheet("Costs")
    for name, amount in (("Item", "Euro"), ("Disk", 120.5), ("Coffee", 310)):
        costs.append((name, amount))
    target = io.BytesIO()
    workbook.save(target)
    return with_fixed_times(target.getvalue())


def make_orders() -> bytes:
    rows = (f"{number},customer {number % 7},{number * 1.5:.2f}" for number in range(1, 51))
    return "".join(f"{line}\r\n" for line in ("order,customer,amount", *rows)).encode()


def with_fixed_times(document: bytes) -> bytes:
    """Return an office document, which is a ZIP, without the times at which it was saved."""
    with zipfile.ZipFile(io.BytesIO(document)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    stamp = MOMENT.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    members[CORE_PROPERTIES] = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp, members[CORE_PROPERTIES])
    return pack(members)


def pack(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, ZIP_MOMENT)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = (0o40755 << 16 | 0x10) if name.endswith("/") else 0o100644 << 16
            info.compress_type = zipfile.ZIP_STORED if name.endswith("/") else zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return target.getvalue()


def main() -> None:
    for name, members in (("sample.zip", sample_members()), ("sample-with-errors.zip", error_members())):
        path = HERE / name
        path.write_bytes(pack(members))
        print(f"{path.name}: {len(members)} members, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
