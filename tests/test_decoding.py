"""Text files of any encoding, as text; and what is no text is told from it."""

import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox.handlers.decoding import decode_text, guess_encoding

GERMAN = "Größe und Übergröße, Straße"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю"


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (b"plain", "utf-8", "plain"),
        (b"", "utf-8", ""),
        (GERMAN.encode(), "utf-8", GERMAN),
        (codecs.BOM_UTF8 + GERMAN.encode(), "utf-8-sig", GERMAN),
        (GERMAN.encode("utf-16"), "utf-16", GERMAN),
        (GERMAN.encode("utf-32"), "utf-32", GERMAN),
        (GERMAN.encode("utf-16-le"), "utf-16-le", GERMAN),
        (GERMAN.encode("utf-16-be"), "utf-16-be", GERMAN),
        (GERMAN.encode("cp1252"), "cp1252", GERMAN),
        (RUSSIAN.encode("cp1251"), "cp1251", RUSSIAN),
        (RUSSIAN.encode("koi8-r"), "koi8-r", RUSSIAN),
        (b"encoding='iso-8859-2' " + "žluť".encode("iso-8859-2"), "iso8859-2", "encoding='iso-8859-2' žluť"),
        (b"<meta charset=shift_jis>" + "日本語".encode("shift_jis"), "shift_jis", "<meta charset=shift_jis>日本語"),
        (b"charset=zip " + GERMAN.encode("cp1252"), "cp1252", f"charset=zip {GERMAN}"),
    ],
)
def test_text_is_read_in_its_encoding(data, encoding, text):
    """
    Marks, UTF-8 and declared code pages are believed, and the common ones without any are guessed.
    """
    decoded = decode_text(data, 10_000)

    assert (encoding, text, len(text)) == (decoded.encoding, decoded.text, decoded.chars)


@pytest.mark.parametrize(
    "data", [bytes(100), os.urandom(4096), b"\x7fELF\x01\x02\x03\x04" + bytes(99), b"\x00\x01" * 50 + b"\xff"]
)
def test_binary_is_no_text(data):
    """
    Bytes full of control characters are not taken for text.
    """
    assert decode_text(data, 100) is None


def test_only_the_beginning_is_kept():
    """
    The text is cut at the limit, and its whole length is told.
    """
    decoded = decode_text(("äöü" * 1_000_000).encode(), 5)

    assert ("äöüäö", 3_000_000) == (decoded.text, decoded.chars)


@given(st.binary(max_size=3000))
def test_no_bytes_are_too_strange(data):
    """
    Any bytes are text or not; nothing raises.
    """
    encoding = guess_encoding(data)

    assert encoding is None or codecs.lookup(encoding)
    assert (decode_text(data, 50) is None) is (encoding is None)
