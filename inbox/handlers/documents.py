"""
The default handler: what kind of file it is, its text, and what its author wrote about it.

Plain text and source code are decoded here; documents go to kreuzberg. Only the formats listed here do: others would
make it look for OCR data, unpack archives, or fetch grammars from the network.
"""

import mimetypes
import zlib
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from inbox.core.errors import ParseError
from inbox.handlers.base import File, HandlerSpec, Skip
from inbox.handlers.decoding import decode_text
from inbox.handlers.versions import inbox_version

if TYPE_CHECKING:
    from kreuzberg import ExtractionConfig, ExtractionResult

EMPTY: Final = "EMPTY"
TOO_LARGE: Final = "TOO_LARGE"
UNREADABLE_TYPE: Final = "UNREADABLE_TYPE"

_PDF: Final = "application/pdf"
_HTML: Final = "text/html"
_OOXML: Final = "application/vnd.openxmlformats-officedocument."
_ODF: Final = "application/vnd.oasis.opendocument."
_DOCUMENTS: Final = {
    "pdf": _PDF,
    "doc": "application/msword",
    "dot": "application/msword",
    "docx": f"{_OOXML}wordprocessingml.document",
    "docm": "application/vnd.ms-word.document.macroEnabled.12",
    "dotx": f"{_OOXML}wordprocessingml.template",
    "dotm": "application/vnd.ms-word.template.macroEnabled.12",
    "odt": f"{_ODF}text",
    "ott": f"{_ODF}text",
    "rtf": "application/rtf",
    "xls": "application/vnd.ms-excel",
    "xlt": "application/vnd.ms-excel",
    "xlsx": f"{_OOXML}spreadsheetml.sheet",
    "xlsm": "application/vnd.ms-excel.sheet.macroEnabled.12",
    "xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12",
    "xltx": f"{_OOXML}spreadsheetml.template",
    "ods": f"{_ODF}spreadsheet",
    "ots": f"{_ODF}spreadsheet",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": f"{_OOXML}presentationml.presentation",
    "ppsx": f"{_OOXML}presentationml.slideshow",
    "epub": "application/epub+zip",
    "html": _HTML,
    "htm": _HTML,
    "xhtml": _HTML,
    "eml": "message/rfc822",
    "msg": "application/vnd.ms-outlook",
}
_DOCUMENT_TYPES: Final = frozenset(_DOCUMENTS.values())
_ZIPPED_TYPES: Final = frozenset(
    _DOCUMENTS[extension]
    for extension in (
        *("docx", "docm", "dotx", "dotm", "odt", "ott"),
        *("xlsx", "xlsm", "xlsb", "xltx", "ods", "ots"),
        *("pptx", "ppsx", "epub"),
    )
)
_OFFICE_METHODS: Final = (ZIP_STORED, ZIP_DEFLATED)  # all that OOXML, ODF and EPUB allow
_ZIPPED_OFFICE: Final = {"word": ("docx", "docm", "dotx", "dotm"), "excel": ("xlsx", "xlsm", "xlsb", "xltx")}
_HTML_BEGINNINGS: Final = (b"<html", b"<!doctype html", b"<table", b"<head", b"<meta")
_OLE2: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE: Final = "EncryptedPackage".encode("utf-16-le")  # [MS-OFFCRYPTO] 2.3.4.4
_NOT_METADATA: Final = frozenset(  # lists as long as the document, and bookkeeping
    [
        "pages",
        "headers",
        "links",
        "images",
        "structured_data",
        "code_blocks",
        "files",
        "file_list",
        "json_schema",
        "error",
        "extraction_duration_ms",
        "output_format",
        "image_preprocessing",
    ],
)
_COUNTS: Final = ("page_count", "sheet_count", "sheet_names", "slide_count")
_MAX_WARNINGS: Final = 20
_PIECE_BYTES: Final = 64 * 1024
_names: Final = mimetypes.MimeTypes(filenames=())  # the machine's own lists would make results differ

Facts = dict[str, object]


def documents_handler(unreadable: Literal["metadata", "skip"], max_text_chars: int, max_read_bytes: int) -> HandlerSpec:
    """Return the default handler. `unreadable` says how files of a type without text end: as success or skipped."""
    function = DocumentHandler(unreadable, max_text_chars, max_read_bytes)
    return HandlerSpec("documents", function, version=inbox_version())


@dataclass(frozen=True, slots=True)
class DocumentHandler:
    """
    Returns a dict with `mime_type`, `file_type`, `size_bytes`, `sha256`, and for what can be read `text` and the rest.

    Without text, `not_read` says why: EMPTY, TOO_LARGE or UNREADABLE_TYPE. Raises ParseError for a broken document,
    with reason `ENCRYPTED_DOCUMENT` for one that wants a password.
    """

    unreadable: Literal["metadata", "skip"] = "metadata"
    max_text_chars: int = 1_000_000
    max_read_bytes: int = 100 * 1024**2

    def __call__(self, file: File) -> Facts | Skip:
        size_bytes = file.path.stat().st_size
        facts: Facts = {
            "mime_type": mime_type_by_name(file),
            "file_type": file.file_type,
            "size_bytes": size_bytes,
            "sha256": file.sha256,
        }
        if not size_bytes:
            return facts | {"not_read": EMPTY}
        if facts["mime_type"] not in _DOCUMENT_TYPES and file.file_type != "text":
            return self._unreadable(facts)
        if size_bytes > self.max_read_bytes:
            return facts | {"not_read": TOO_LARGE}
        return self._read(file, file.path.read_bytes(), facts)

    def _read(self, file: File, data: bytes, facts: Facts) -> Facts | Skip:
        mime_type = _office_type_by_content(file, data) or facts["mime_type"]
        facts["mime_type"] = mime_type
        if file.file_type == "text" and mime_type not in _DOCUMENT_TYPES:
            return self._decode(data, facts)
        if mime_type == _HTML:
            html = decode_text(data, len(data))
            if html is None:
                return self._unreadable(facts)
            data = html.text.encode("utf-8", "replace")  # kreuzberg takes any HTML for UTF-8
        elif mime_type in _ZIPPED_TYPES and _unpacks_beyond(file, data, self.max_read_bytes):
            return facts | {"not_read": TOO_LARGE}
        return facts | self._describe(extract_document(file, data, str(mime_type)))

    def _unreadable(self, facts: Facts) -> Facts | Skip:
        facts = facts | {"not_read": UNREADABLE_TYPE}
        return Skip(UNREADABLE_TYPE, facts) if self.unreadable == "skip" else facts

    def _decode(self, data: bytes, facts: Facts) -> Facts | Skip:
        decoded = decode_text(data, self.max_text_chars)
        if decoded is None:
            return self._unreadable(facts)
        return facts | {
            "text": decoded.text,
            "text_chars": decoded.chars,
            "text_truncated": decoded.chars > len(decoded.text),
            "encoding": decoded.encoding,
            "extractor": "inbox",
        }

    def _describe(self, result: "ExtractionResult") -> Facts:
        known: dict[str, Any] = {
            name: value for name, value in dict(result.metadata).items() if name not in _NOT_METADATA and value
        }
        return {
            "text": result.content[: self.max_text_chars],
            "text_chars": len(result.content),
            "text_truncated": len(result.content) > self.max_text_chars,
            "languages": result.detected_languages or [],
            "table_count": len(result.tables),
            **{name: known.pop(name) for name in _COUNTS if name in known},
            "metadata": _without_blanks(known),
            "warnings": [warning.message for warning in result.processing_warnings[:_MAX_WARNINGS]],
            "extractor": f"kreuzberg {version('kreuzberg')}",
        }


def mime_type_by_name(file: File) -> str:
    """Return the MIME type that the name promises, as far as the content's type does not contradict it."""
    document = _DOCUMENTS.get(file.path.suffix[1:].lower())
    guessed = document or _names.guess_type(file.name, strict=False)[0]
    fitting = {
        "pdf": _PDF,
        "zip": guessed if guessed and guessed.startswith("application/") and not document else "application/zip",
        "text": guessed if guessed and guessed.split("/")[0] in {"text", "message", "application"} else "text/plain",
        "word": document or _DOCUMENTS["docx"],
        "excel": document or _DOCUMENTS["xlsx"],
    }
    return fitting.get(file.file_type) or guessed or "application/octet-stream"


def _office_type_by_content(file: File, data: bytes) -> str | None:
    """Correct a wrong extension, of which reports saved as `.xls` while being HTML are the commonest."""
    zipped = _ZIPPED_OFFICE.get(file.file_type)
    if zipped is None:
        return None
    if data.startswith(_OLE2):
        return _DOCUMENTS["doc" if file.file_type == "word" else "xls"]
    if data.startswith(b"{\\rtf"):
        return _DOCUMENTS["rtf"]
    if data[:2] == b"PK" and data[30:38] == b"mimetype":
        return _DOCUMENTS["odt" if file.file_type == "word" else "ods"]
    if data[:2] == b"PK":
        extension = file.path.suffix[1:].lower()
        return _DOCUMENTS[extension if extension in zipped else zipped[0]]
    return _HTML if data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML_BEGINNINGS) else None


def _unpacks_beyond(file: File, data: bytes, max_bytes: int) -> bool:
    """
    Say whether the parts of an office file come to more than that; kreuzberg holds them whole, however many.

    Raises ParseError for a part that cannot be unpacked, or to another size than the index declares.
    """
    try:
        with ZipFile(BytesIO(data)) as archive:
            if sum(part.file_size for part in archive.infolist()) > max_bytes:
                return True
            for part in archive.infolist():
                _check_part(archive, part)
    except (BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError) as error:
        raise _broken(file, data, f"{type(error).__name__}: {error}") from error
    return False


def _check_part(archive: ZipFile, part: ZipInfo) -> None:
    if part.compress_type not in _OFFICE_METHODS:
        raise NotImplementedError(f"compression method {part.compress_type}")
    declared_bytes = part.file_size
    part.file_size += 1  # zipfile stops reading there, and would not notice that there is more
    with archive.open(part) as content:
        size_bytes = sum(map(len, iter(partial(content.read, _PIECE_BYTES), b"")))
    if size_bytes != declared_bytes:
        raise BadZipFile(f"{part.filename} is not as long as the index declares")


def extract_document(file: File, data: bytes, mime_type: str) -> "ExtractionResult":
    """Let kreuzberg read the document. Raises ParseError when it cannot."""
    from kreuzberg import ParsingError, ValidationError, extract_bytes_sync  # 80 MB of library: only where it is used

    try:
        return extract_bytes_sync(data, mime_type, config=_extraction_config())
    except (ParsingError, ValidationError, RuntimeError) as error:
        raise _broken(file, data, str(error).removeprefix(f"{type(error).__name__}: ")) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a panic of the Rust core is no Exception, and cannot be imported
            raise
        raise _broken(file, data, "the reader gave up") from error


def _broken(file: File, data: bytes, detail: str) -> ParseError:
    if (file.file_type == "pdf" and b"/Encrypt" in data) or _ENCRYPTED_OFFICE in data:
        return ParseError(
            "The document wants a password",
            subject=file.name,
            hint="drop a copy without one",
            reason_code="ENCRYPTED_DOCUMENT",
        )
    return ParseError(
        f"The document cannot be read, {detail}",
        subject=file.name,
        hint="see whether its own application opens it, and drop it again",
        reason_code="BROKEN_DOCUMENT",
    )


@cache
def _extraction_config() -> "ExtractionConfig":
    """No cache on disk, no OCR, no images, one thread: the workers are the parallelism."""
    from kreuzberg import ConcurrencyConfig, ExtractionConfig, LanguageDetectionConfig

    return ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        language_detection=LanguageDetectionConfig(enabled=True),
        concurrency=ConcurrencyConfig(max_threads=1),
    )


def _without_blanks(value: object) -> object:
    if isinstance(value, dict):
        cleaned = {name: _without_blanks(item) for name, item in value.items()}
        return {name: item for name, item in cleaned.items() if item not in (None, "", [], {})}
    return value
