"""
Why an archive is refused, or a member skipped: every code, with its one sentence.

Strict where two readers could see two different archives; lenient where honest writers are merely untidy.
"""

from typing import Final

from inbox.core.errors import ArchiveRefusedError

MAX_SHOWN: Final = 255
"""Characters of a name that cannot be used, or is to blame, that are shown."""

REFUSALS: Final[dict[str, str]] = {
    "ABSOLUTE_PATH": "A member's name is an absolute path, or has a drive letter",
    "AMBIGUOUS_END": "More than one end record could be meant",
    "ARCHIVE_TOO_LARGE": "The archive unpacks to more bytes than are allowed",
    "BAD_CRC": "A member's content does not have its checksum",
    "BAD_DATA": "A member's compressed data is damaged",
    "BAD_EXTRA_FIELD": "A member's extra fields are malformed or contradict each other",
    "BAD_INDEX": "The central directory is damaged",
    "BAD_ZIP64": "The Zip64 records contradict the rest",
    "DESCRIPTOR_DIFFERS": "A member's data descriptor does not say what the central directory says",
    "DIRECTORY_WITH_DATA": "A member is a directory by its name and has content",
    "DUPLICATE_NAME": "Two members have the same name",
    "ENCRYPTED": "A member is encrypted, and no known password opens it",
    "FILE_AND_FOLDER": "A name is a file's and a folder's at once",
    "HEADERS_DIFFER": "A member's local header does not say what the central directory says",
    "INDEX_LIES": "The end record does not describe the central directory",
    "MEMBER_TOO_LARGE": "A member is larger than is allowed",
    "MULTI_DISK": "The archive is a part of several",
    "NAME_COLLISION": "The volume takes two different names for the same",
    "NOT_AN_ARCHIVE": "The file is no ZIP archive",
    "NO_END_RECORD": "The archive has no end",
    "NUL_IN_NAME": "A member's name contains NUL",
    "OVERLAP": "Two members share bytes of the archive",
    "PREPENDED_DATA": "Something stands before the archive, as in a self-extractor",
    "RATIO_TOO_HIGH": "The archive unpacks to too many times its own size",
    "SIZE_LIES": "A member's content does not have its declared size",
    "SYMLINK_ESCAPES": "A symbolic link leads out of the archive",
    "THROUGH_SYMLINK": "A member's path goes through a symbolic link",
    "TOO_SLOW": "The archive takes longer to unpack than is allowed",
    "TOO_MANY_MEMBERS": "The archive has more members than are allowed",
    "TRAILING_DATA": "Something stands behind the end of the archive",
    "UNLISTED_MEMBER": "The archive holds a member that the central directory does not list",
    "UNSAFE_PATH": "A member's name would leave the archive's folder",
}
"""The archive goes to quarantine."""

SKIPS: Final[dict[str, str]] = {
    "BAD_NAME_ENCODING": "The name is marked as UTF-8 and is not",
    "EMPTY_NAME": "The member has no name",
    "JUNK": "Bookkeeping of macOS, not a file that anybody put there",
    "NAME_TOO_LONG": "The name, or a part of it, is longer than a file system allows",
    "SPECIAL_FILE": "A pipe, socket or device",
    "SYMLINK": "A symbolic link",
    "TOO_DEEP": "The member lies in more nested folders than are allowed",
    "UNSAFE_NAME": "The name has control characters or ones that change the direction of writing",
    "UNSUPPORTED_METHOD": "The member is compressed by a method that is not read here",
}
"""The member gets its row, and no file; the rest of the archive goes on."""

_PLAIN: Final = "pack the files as a plain ZIP, or set ACCEPT_OUTSIDE_BYTES=true if such archives are wanted"
_COPY: Final = "copy it anew; if it is damaged where it came from, pack it anew"
_HINTS: Final[dict[str, str]] = {
    "ARCHIVE_TOO_LARGE": "raise MAX_ARCHIVE_BYTES if it is wanted",
    "MEMBER_TOO_LARGE": "raise MAX_MEMBER_BYTES if it is wanted",
    "TOO_MANY_MEMBERS": "raise MAX_MEMBERS if it is wanted",
    "TOO_SLOW": "raise MAX_EXTRACTION_SECONDS if it is wanted",
    "RATIO_TOO_HIGH": "raise MAX_COMPRESSION_RATIO if it is wanted",
    "ENCRYPTED": "drop a copy without a password, or put it into the file that ARCHIVE_PASSWORDS_FILE names",
    "MULTI_DISK": "join the parts into one archive, and drop that",
    "PREPENDED_DATA": _PLAIN,
    "TRAILING_DATA": _PLAIN,
    "BAD_CRC": _COPY,
    "BAD_DATA": _COPY,
    "NOT_AN_ARCHIVE": "drop a ZIP",
    "NAME_COLLISION": "keep the storage on a case-sensitive file system",
}
_REPACK: Final = "pack it anew with another program, and drop that"


def refuse(code: str, detail: str = "", member: str = "", *, damaged: bool = False) -> ArchiveRefusedError:
    """
    Return the error that refuses an archive; `damaged` when a copy still under way would look the same.

    What the archive calls its member may be anything; the error, which goes to logs, rows and receipts, shows it as
    `one_line` does.
    """
    what = f"{REFUSALS[code]} ({detail})" if detail else REFUSALS[code]
    return ArchiveRefusedError(code, what, subject=one_line(member), hint=_HINTS.get(code, _REPACK), damaged=damaged)


def one_line(text: str) -> str:
    """Return the beginning of any text as one printable line: no control character, no change of direction."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text[:MAX_SHOWN]
    )
