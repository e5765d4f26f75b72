"""The records of the ZIP format as APPNOTE.TXT 6.3.10 lays them out (section numbers in the comments)."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

LOCAL_SIGNATURE: Final = b"PK\x03\x04"
CENTRAL_SIGNATURE: Final = b"PK\x01\x02"
END_SIGNATURE: Final = b"PK\x05\x06"
END64_SIGNATURE: Final = b"PK\x06\x06"
LOCATOR_SIGNATURE: Final = b"PK\x06\x07"
DESCRIPTOR_SIGNATURE: Final = b"PK\x07\x08"
SPANNED_MARKERS: Final = (b"PK00", DESCRIPTOR_SIGNATURE)
"""8.5.4: what a split archive that came out as a single part begins with."""

LOCAL: Final = Struct("<4s5H3L2H")  # 4.3.7
CENTRAL: Final = Struct("<4s6H3L5H2L")  # 4.3.12
END: Final = Struct("<4s4H2LH")  # 4.3.16
END64: Final = Struct("<4sQ2H2L4Q")  # 4.3.14
LOCATOR: Final = Struct("<4sLQL")  # 4.3.15
DESCRIPTOR: Final = Struct("<3L")  # 4.3.9, without its signature
DESCRIPTOR64: Final = Struct("<L2Q")

SENTINEL_16: Final = 0xFFFF
SENTINEL_32: Final = 0xFFFFFFFF

ENCRYPTED: Final = 1 << 0  # 4.4.4
HAS_DESCRIPTOR: Final = 1 << 3
PATCHED: Final = 1 << 5
STRONGLY_ENCRYPTED: Final = 1 << 6
IS_UTF8: Final = 1 << 11
MASKED: Final = 1 << 13

ZIP64_FIELD: Final = 0x0001  # 4.5.3
UNICODE_PATH_FIELD: Final = 0x7075  # 4.6.9

STORED: Final = 0  # 4.4.5
DEFLATED: Final = 8
DEFLATE64: Final = 9
BZIP2: Final = 12
LZMA: Final = 14
OLD_ZSTD: Final = 20
ZSTD: Final = 93
XZ: Final = 95

UNIX_HOSTS: Final = frozenset({3, 19})  # 4.4.2: Unix, and OS X

_FIELD: Final = Struct("<2H")


class MalformedFieldError(ValueError):
    """An extra field claims more bytes than there are."""


def extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """
    Yield the extra fields (4.5.1): id and content.

    Fewer than four bytes at the end are padding, as alignment tools leave. Raises MalformedFieldError.
    """
    at = 0
    while at + _FIELD.size <= len(extra):
        kind, length = _FIELD.unpack_from(extra, at)
        at += _FIELD.size
        if at + length > len(extra):
            raise MalformedFieldError
        yield kind, extra[at : at + length]
        at += length
