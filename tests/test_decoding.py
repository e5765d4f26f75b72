"""Text files of any encoding, as text; and what is no text is told from it."""

import codecs
from random import Random

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
        (b"charset=cp99999 " + GERMAN.encode("cp1252"), "cp1252", f"charset=cp99999 {GERMAN}"),
        (b"charset=cp1251 " + GERMAN.encode(), "utf-8", f"charset=cp1251 {GERMAN}"),
        (b" " * 2000 + b"charset=cp1251 " + GERMAN.encode("cp1252"), "cp1252", " " * 2000 + f"charset=cp1251 {GERMAN}"),
        (b"\x1b[31mred\x1b[0m", "utf-8", "\x1b[31mred\x1b[0m"),
    ],
)
def test_text_is_read_in_its_encoding(data, encoding, text):
    """
    Marks, UTF-8 and declared code pages are believed, and the common ones without any are guessed.
    """
    decoded = decode_text(data, 10_000)

    assert (encoding, text, len(text)) == (decoded.encoding, decoded.text, decoded.chars)


@pytest.mark.parametrize(
    "data", [bytes(100), Random(1).randbytes(4096), b"\x7fELF\x01\x02\x03\x04" + bytes(99), b"\x00\x01" * 50 + b"\xff"]
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


def test_long_text_is_read_piece_by_piece():
    """
    A letter whose bytes fall into two of the pieces that are read at a time is still one letter.
    """
    text = "x" + "ä" * 600_000

    for encoding in ("utf-8", "utf-16"):
        decoded = decode_text(text.encode(encoding), 1_000_000)
        assert (text, len(text)) == (decoded.text, decoded.chars)


def test_broken_letter_costs_that_letter_alone():
    """
    What is wrong in a text with a mark is replaced, and the rest is kept.
    """
    decoded = decode_text(codecs.BOM_UTF8 + b"one \xff two", 100)

    assert ("one \ufffd two", 9) == (decoded.text, decoded.chars)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200), st.integers(0, 250))
def test_unicode_comes_back_as_it_was(text, keep_chars):
    """
    Text in UTF-8, and in UTF-16 or UTF-32 with a mark, is read as it was written, up to the limit.
    """
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        decoded = decode_text(text.encode(encoding), keep_chars)
        assert (text[:keep_chars], len(text)) == (decoded.text, decoded.chars)


declared = st.builds(
    lambda name, rest: b"charset=" + name.encode() + b" " + rest,
    st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789-_."), max_size=12)
    | st.sampled_from(["cp932", "iso-2022-jp", "euc_kr", "gb18030", "big5hkscs", "mac-greek", "hex", "rot13", "idna"]),
    st.binary(max_size=200),
)


@given(st.binary(max_size=3000) | declared)
def test_no_bytes_are_too_strange(data):
    """
    Any bytes are text or not; nothing raises.
    """
    encoding = guess_encoding(data)

    assert encoding is None or codecs.lookup(encoding)
    assert (decode_text(data, 50) is None) is (encoding is None)
