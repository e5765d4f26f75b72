"""What a member's name becomes: a path below the archive's folder, a reason to skip it, or a reason to refuse all."""

import re
import unicodedata
import zlib
from typing import Final

from inbox.archives.reasons import one_line, refuse

MAX_COMPONENT_BYTES: Final = 255
MAX_PATH_BYTES: Final = 2048
"""With the storage base and the batch's folder before it, a path stays within the 4096 bytes that Linux takes."""
MAX_DEPTH: Final = 64

WINDOWS_NAME: Final = "WINDOWS_NAME"
"""A name that Windows cannot have: a device's, with a trailing dot or space, or with a character that it keeps back."""
SAME_FOLDED: Final = "SAME_FOLDED"
"""Another member has this name in other case, or in another form of normalisation."""

_KEPT_BACK: Final = re.compile(r'[:<>"|?*]')
_DEVICE: Final = re.compile(
    r"/(?:con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]|conin\$|conout\$) *(?:\.[^/]*)?(?:/|$)"
)
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_TURNS_WRITING: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_HERE: Final = "./"
_JUNK_FOLDER: Final = "__MACOSX"
_JUNK_NAMES: Final = frozenset({".DS_Store", _JUNK_FOLDER})
_APPLE_DOUBLE: Final = "._"


class SkipMemberError(Exception):
    """The member has a name under which it cannot be written; the rest of the archive is not affected."""

    def __init__(self, reason_code: str) -> None:
        super().__init__(reason_code)
        self.reason_code = reason_code


def unicode_name(field: bytes, raw: bytes) -> bytes | None:
    """Return the name in a Unicode path field (APPNOTE 4.6.9) if it is of version 1 and made for this header's name."""
    if len(field) < 5 or field[0] != 1 or int.from_bytes(field[1:5], "little") != zlib.crc32(raw):  # noqa: PLR2004 - version and checksum
        return None
    return field[5:]


def safe_path(name: str) -> str:
    """
    Return the member's path, `/`-separated, without a trailing one; empty for the entry of the packed folder itself.

    bsdtar (also as Windows' tar) and minizip begin every name with the "./" that they were given, so that one is left
    out; Dropbox has an entry "/" for the folder.

    Raises ArchiveRefusedError for names that no honest writer makes (they lead elsewhere, or would collide if they
    were cleaned), SkipMemberError for names that cannot be written.
    """
    if "\0" in name:
        raise refuse("NUL_IN_NAME", member=name)
    path = name.replace("\\", "/")
    if not path:
        raise SkipMemberError("EMPTY_NAME")
    if path in {_HERE, "/"}:
        return ""
    path = path.removeprefix(_HERE)
    if path.startswith("/") or _DRIVE.match(path):
        raise refuse("ABSOLUTE_PATH", member=name)
    path = path.removesuffix("/")
    parts = path.split("/")
    for part in parts:
        if part in {"", ".", ".."}:
            raise refuse("UNSAFE_PATH", f"a part of it is {part!r}", name)
    if not path.isprintable() and any(map(_is_unsafe, path)):
        raise SkipMemberError("UNSAFE_NAME")
    if len(path) > MAX_COMPONENT_BYTES or not path.isascii():
        _check_lengths(path, parts)
    if len(parts) > MAX_DEPTH:
        raise SkipMemberError("TOO_DEEP")
    return path


def remarks_on(path: str, key: str) -> tuple[str, ...]:
    """Return what readers on other systems may stumble over, though it does no harm here; `key` is the folded path."""
    ends_badly = path[-1] in ". " or "./" in path or " /" in path
    return (WINDOWS_NAME,) if ends_badly or _KEPT_BACK.search(path) or _DEVICE.search(f"/{key}") else ()


def folded(path: str) -> str:
    """Return what the path is to a volume that knows neither case nor forms of normalisation."""
    return (
        path.lower() if path.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    )


def is_junk(path: str) -> bool:
    """Say whether macOS made this member by itself: resource forks and folder settings."""
    folder, _, name = path.rpartition("/")
    return name.startswith(_APPLE_DOUBLE) or name in _JUNK_NAMES or _JUNK_FOLDER in folder.split("/", 1)[:1]


def shown_name(raw: bytes) -> str:
    """Return any name as one printable line, for rows, receipts and logs."""
    return one_line(raw.decode("utf-8", "backslashreplace"))


def _is_unsafe(character: str) -> bool:
    return character in _TURNS_WRITING or unicodedata.category(character) in _UNSAFE_CATEGORIES


def _check_lengths(path: str, parts: list[str]) -> None:
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_COMPONENT_BYTES for part in parts):
        raise SkipMemberError("NAME_TOO_LONG")
