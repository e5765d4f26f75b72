"""
Code pages: what a name means whose bytes nobody marked.

The format knows UTF-8, marked by a flag, and code page 437 (APPNOTE appendix D). Writers in Japan, China, Korea,
Russia and elsewhere put their own code page there all the same. Their names come out readable by the page that is
configured, or by the one that all unmarked names of the archive together look like.
"""

import codecs
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from inbox.archives.index import Entry
from inbox.archives.names import SkipMemberError

UTF8: Final = "utf-8"
UNICODE_PATH: Final = "unicode-path"
"""The name came from the Unicode path field (APPNOTE 4.6.9)."""
DEFAULT: Final = "cp437"
DETECT: Final = "detect"

_OTHER_SCRIPTS: Final = ("cp932", "gb18030", "big5hkscs", "cp949", "cp866", "cp1251", "cp737", "cp862", "cp874")
_LATIN: Final = ("cp850", "cp852", "cp857")
"""Of the same script as the default, so that they have to win clearly."""
_LEAST_CONFIDENCE: Final = 0.008
_CLEARLY: Final = dict.fromkeys(_OTHER_SCRIPTS, 2.0) | dict.fromkeys(_LATIN, 4.0)
_HALVING: Final = ("cp932", "cp950")
"""In these a backslash is the second half of common letters, so that they are likely where it follows a first half."""
_SAMPLE_BYTES: Final = 64 * 1024
_STATEFUL: Final = ("utf_7", "hz", "iso2022", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf_8_sig")


class Reading(NamedTuple):
    """A name as text, and how it was read. `confidence` (0 to 1) is None where nothing had to be guessed."""

    text: str
    encoding: str
    confidence: float | None = None


class NameReader:
    """Reads the names of one archive, all by one code page where the writer has not marked them."""

    def __init__(self, entries: Iterable[Entry], encoding: str = DETECT) -> None:
        self._page, self._confidence = encoding, None
        if encoding == DETECT:
            self._page, self._confidence = detect_code_page(_unmarked(entries))

    def read(self, entry: Entry) -> Reading:
        """
        Return the entry's name as text. Raises SkipMemberError when it is marked as UTF-8 and is not.

        A name that is not marked is UTF-8 where it reads as that, since many writers forget the mark.
        """
        raw = entry.name
        try:
            return Reading(raw.decode(), UTF8 if entry.name is entry.raw_name else UNICODE_PATH)
        except UnicodeDecodeError:
            if entry.is_utf8:
                raise SkipMemberError("BAD_NAME_ENCODING") from None
        try:
            return Reading(raw.decode(self._page), self._page, self._confidence)
        except UnicodeDecodeError:
            return Reading(raw.decode(DEFAULT), DEFAULT, 0.0)


def detect_code_page(names: Iterable[bytes]) -> tuple[str, float | None]:
    """
    Return the code page that these names look like, and how sure that is: a small number for short names.

    Without any names it is the format's own, 437, and so it is where no other is clearly more likely.
    """
    sample = b"\n".join(_up_to(_SAMPLE_BYTES, names))
    if not sample:
        return DEFAULT, None
    import chardet  # most archives never need it

    found = chardet.detect_all(
        sample,
        ignore_threshold=True,
        compat_names=False,
        include_encodings=[*_CLEARLY, DEFAULT],
        no_match_encoding=DEFAULT,
    )
    likely = {str(one["encoding"]): float(one["confidence"] or 0) for one in found}
    best = max(likely, key=likely.__getitem__)
    own = likely.get(DEFAULT, 0.0)
    if best not in _CLEARLY or likely[best] < max(_LEAST_CONFIDENCE, _CLEARLY[best] * own):
        best = next((page for page in _HALVING if _explains_backslashes(sample, page)), DEFAULT)
    return best, round(likely.get(best, 0.0), 3)


def require_code_page(name: str) -> str:
    """
    Return the normal form of a code page's name, or `detect`.

    Raises ValueError unless Python knows it as a character encoding in which ASCII stands for itself.
    """
    if name.strip().lower() == DETECT:
        return DETECT
    try:
        known = codecs.lookup(name.strip()).name
        is_plain = bytes(range(128)).decode(known) == bytes(range(128)).decode("ascii")
    except (LookupError, UnicodeError, ValueError):
        is_plain = False
    if not is_plain or known.replace("-", "_").startswith(_STATEFUL):
        raise ValueError(f"{name!r} is no code page; use `detect`, or one such as cp437, cp866, cp932, gb18030 or big5")
    return known


def _unmarked(entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        if not entry.is_utf8 and not entry.name.isascii() and not _is_utf8(entry.name):
            yield entry.name


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _explains_backslashes(sample: bytes, page: str) -> bool:
    """Say whether all of the sample reads as this code page, and backslashes in it turn out to be halves of letters."""
    try:
        text = sample.decode(page)
    except UnicodeDecodeError:
        return False
    halved = [one for one in text if one != "\\" and one.encode(page).endswith(b"\\")]
    return bool(halved) and all(unicodedata.category(one) == "Lo" for one in halved)


def _up_to(most_bytes: int, names: Iterable[bytes]) -> Iterator[bytes]:
    for name in names:
        if most_bytes <= 0:
            return
        most_bytes -= len(name) + 1
        yield name
