"""
Text files of any encoding, as text.

Byte order marks and UTF-8 are certain; an encoding that the file itself declares is believed; the rest is a guess among
UTF-16, the Cyrillic and the Western code page. A wrong guess gives wrong letters, never a failure.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Final

_CHUNK_BYTES: Final = 1024 * 1024
_SAMPLE_BYTES: Final = 1024 * 1024
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED: Final = re.compile(rb"(?:charset|encoding|coding)\s*[=:]\s*[\"']?([A-Za-z0-9_.-]{1,40})")
# Only code pages are believed: Python also knows codecs that are slow, or no encodings of text at all.
_CODE_PAGES: Final = re.compile(
    r"(iso[-_]?8859|latin|windows-|cp\d|koi8|mac|tis|shift|sjis|euc|iso-2022|gb|big5)", re.IGNORECASE
)
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
_HIGH_LETTERS: Final = re.compile(rb"[\xc0-\xff]")
_HIGH_RUNS: Final = re.compile(rb"[\xc0-\xff]{3,}")
_KOI8_SMALL: Final = re.compile(rb"[\xc0-\xdf]")
_UTF16_MIN_NULS: Final = 0.3
_MAX_CONTROLS_IN_UTF8: Final = 0.3
_MAX_CONTROLS_IN_CODE_PAGE: Final = 0.02  # random bytes have ten times as many


@dataclass(frozen=True, slots=True)
class DecodedText:
    """The beginning of a text, how long all of it is, and the encoding it was read with."""

    text: str
    chars: int
    encoding: str


def decode_text(data: bytes, keep_chars: int) -> DecodedText | None:
    """Return at most `keep_chars` characters of the text that the bytes are, or None when they are no text."""
    encoding = guess_encoding(data)
    if encoding is None:
        return None
    return _decode(data, encoding, keep_chars, errors="replace")


def guess_encoding(data: bytes) -> str | None:
    """Return Python's name of the encoding, or None when the bytes are no text."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    sample = data[:_SAMPLE_BYTES]
    utf16 = _utf16_without_mark(sample)
    if utf16 is not None:
        return utf16
    controls = (len(sample) - len(sample.translate(None, _CONTROLS))) / max(len(sample), 1)
    if _is_utf8(data):
        return "utf-8" if controls <= _MAX_CONTROLS_IN_UTF8 else None
    return (_declared(sample) or _code_page(sample)) if controls <= _MAX_CONTROLS_IN_CODE_PAGE else None


def _is_utf8(data: bytes) -> bool:
    try:
        _decode(data, "utf-8", 0, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _utf16_without_mark(sample: bytes) -> str | None:
    """Recognise mostly Western text: every other byte is NUL."""
    half = len(sample) // 2
    if not half or len(sample) % 2:
        return None
    even, odd = sample[::2].count(0) / half, sample[1::2].count(0) / half
    if odd > _UTF16_MIN_NULS and not even:
        return "utf-16-le"
    return "utf-16-be" if even > _UTF16_MIN_NULS and not odd else None


def _declared(sample: bytes) -> str | None:
    found = _DECLARED.search(sample[:1024])
    name = found[1].decode("ascii").lower() if found else ""
    if not _CODE_PAGES.match(name):
        return None
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


def _code_page(sample: bytes) -> str:
    """Cyrillic words are runs of high letters, Western ones never; KOI8-R swaps capitals and small letters."""
    letters = len(_HIGH_LETTERS.findall(sample))
    if sum(map(len, _HIGH_RUNS.findall(sample))) * 2 <= letters:
        return "cp1252"
    return "koi8-r" if len(_KOI8_SMALL.findall(sample)) * 2 > letters else "cp1251"


def _decode(data: bytes, encoding: str, keep_chars: int, *, errors: str) -> DecodedText:
    """Decode piece by piece, so that a large file costs memory for what is kept only."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    kept: list[str] = []
    chars = 0
    for start in range(0, len(data), _CHUNK_BYTES):
        end = start + _CHUNK_BYTES
        piece = decoder.decode(data[start:end], final=end >= len(data))
        if chars < keep_chars:
            kept.append(piece[: keep_chars - chars])
        chars += len(piece)
    return DecodedText("".join(kept), chars, encoding)
