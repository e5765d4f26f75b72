"""
What kind of file something is: by its first bytes, then by its name, then by whether it reads as text.

The signatures are those of ISO 32000 (PDF), [MS-CFB] (OLE2), APPNOTE.TXT 4.3 (ZIP), ECMA-376 (OOXML) and ODF 1.3.
"""

import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Literal

FileType = Literal["pdf", "word", "excel", "zip", "text", "unknown"]

_EXTENSIONS: Final[dict[FileType, str]] = {
    "pdf": "pdf",
    "zip": "zip",
    "word": "doc docx docm dot dotx dotm odt ott rtf",
    "excel": "xls xlsx xlsm xlsb xlt xltx xltm ods ots",
    "text": "txt text md markdown rst adoc tex csv tsv json jsonl ndjson xml html htm xhtml yaml yml toml ini cfg conf "
    "properties env log sql py js ts css java c h cpp go rs rb sh srt vtt eml",
}
_BY_EXTENSION: Final = {extension: kind for kind, line in _EXTENSIONS.items() for extension in line.split()}
_HEAD_BYTES: Final = 4096
_OLE2: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE2_STREAMS: Final[tuple[tuple[str, FileType], ...]] = (
    ("WordDocument", "word"),
    ("Workbook", "excel"),
    ("Book", "excel"),  # Excel 5.0 and 95
)
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ZIP_TAIL_BYTES: Final = 22 + 0xFFFF  # the end record and its longest comment
_ZIP_INDEX_BYTES: Final = 256 * 1024  # office files name their parts well before that
_ODF: Final = b"application/vnd.oasis.opendocument."
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_NOT_IN_TEXT: Final = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")


def file_type_of_name(name: str) -> FileType:
    """Return what kind of file a name promises."""
    return _BY_EXTENSION.get(name.rpartition(".")[2].casefold(), "unknown") if "." in name else "unknown"


def get_file_type(file_path: str | os.PathLike[str]) -> FileType:
    """
    Return what kind of file this is; the content wins over the name.

    Never raises: what cannot be read is judged by its name. Documents in a ZIP that are neither word processing nor
    spreadsheet (slides, e-books) are `unknown`, not `zip`.
    """
    path = Path(file_path)
    try:
        file = _open_for_reading(path)
    except (OSError, ValueError):
        return file_type_of_name(path.name)
    with file:
        return file_type_of_content(file, path.name)


def file_type_of_content(file: BinaryIO, name: str) -> FileType:
    """Say the same of an open file (or bytes in memory) that stands at its beginning, and of the name it has."""
    by_name = file_type_of_name(name)
    with suppress(OSError, ValueError, struct.error):
        head = file.read(_HEAD_BYTES)
        found = _by_signature(file, head, by_name)
        if found is not None:
            return found
        if by_name == "unknown" and _reads_as_text(head):
            return "text"
    return by_name


def _open_for_reading(path: Path) -> BinaryIO:
    """Open a regular file, and nothing that could block."""
    if not path.is_file():
        raise ValueError("not a regular file")
    return path.open("rb", buffering=0)


def _by_signature(file: BinaryIO, head: bytes, by_name: FileType) -> FileType | None:
    if head.startswith(b"%PDF-") or (by_name == "pdf" and b"%PDF-" in head[:1024]):
        return "pdf"
    if head.startswith(_OLE2):
        return _inside_ole2(file, head) or (by_name if by_name in {"word", "excel"} else "unknown")
    if head.startswith(b"{\\rtf"):
        return "word"
    if head.startswith(_ZIP):
        return _inside_zip(file, head, by_name)
    return None


def _inside_ole2(file: BinaryIO, head: bytes) -> FileType | None:
    """Look at the first sector of the directory, where the application's main stream usually stands."""
    (sector_shift,) = struct.unpack_from("<H", head, 30)
    (first_sector,) = struct.unpack_from("<I", head, 48)
    sector_bytes = 1 << min(sector_shift, 12)
    file.seek((first_sector + 1) * sector_bytes)
    names = {
        entry[:64].decode("utf-16-le", "replace").rstrip("\0") for entry in _pieces(file.read(sector_bytes), size=128)
    }
    return next((found for stream, found in _OLE2_STREAMS if stream in names), None)


def _pieces(data: bytes, *, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _inside_zip(file: BinaryIO, head: bytes, by_name: FileType) -> FileType:
    if head[30:38] == b"mimetype":  # ODF and EPUB: the first member, stored
        return _by_mimetype(head[38:])
    names = list(_zip_names(file))
    if not names and by_name in {"word", "excel"}:  # cut short: what it was meant to be
        return by_name
    if b"[Content_Types].xml" not in names:
        return "zip"
    if any(name.startswith(b"word/") for name in names):
        return "word"
    return "excel" if any(name.startswith(b"xl/") for name in names) else "unknown"


def _by_mimetype(mimetype: bytes) -> FileType:
    if mimetype.startswith(_ODF + b"text"):
        return "word"
    return "excel" if mimetype.startswith(_ODF + b"spreadsheet") else "unknown"


def _zip_names(file: BinaryIO) -> Iterator[bytes]:
    """Yield the names in the beginning of the central directory; none when there is no end record."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _ZIP_TAIL_BYTES))
    tail = file.read(_ZIP_TAIL_BYTES)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return
    (index_bytes, index_offset) = struct.unpack_from("<II", tail, end + 12)
    file.seek(index_offset)
    index = file.read(min(index_bytes, _ZIP_INDEX_BYTES))
    at = 0
    while index[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(index):
        name_bytes, extra_bytes, comment_bytes = struct.unpack_from("<HHH", index, at + 28)
        yield index[at + 46 : at + 46 + name_bytes]
        at += 46 + name_bytes + extra_bytes + comment_bytes


def _reads_as_text(head: bytes) -> bool:
    """Say whether the bytes are text: a byte order mark, or no control characters in them; empty is not text."""
    if head.startswith(_BYTE_ORDER_MARKS):
        return True
    return bool(head) and _NOT_IN_TEXT.search(head) is None
