"""How much one archive may cost. The limits are counted on bytes written; what an index declares is judged before."""

from dataclasses import dataclass
from typing import Final

from inbox.archives.reasons import refuse

GIB: Final = 1024**3
HONEST_BYTES: Final = 256 * 1024**2
"""Up to here any ratio is honest: small archives compress very well."""
_NAME_LENGTH: Final = 512
"""Bytes that one member takes in the central directory: 46, its path, extra fields and comment; mostly below 200."""
_LEAST_NAMES_LENGTH: Final = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may come to, at the most; sizes in bytes."""

    max_archive_bytes: int = 10 * GIB
    max_member_bytes: int = 2 * GIB
    max_members: int = 200_000
    max_compression_ratio: float = 200
    max_seconds: float = 3600
    """How long judging the archive and writing all its members may take."""

    def check_time(self, seconds: float) -> None:
        """Raise ArchiveRefusedError when unpacking has taken longer than it may."""
        if seconds > self.max_seconds:
            raise refuse("TOO_SLOW", f"{self.max_seconds:g} s are allowed")

    def check_count(self, count: int, what: str) -> None:
        """Raise ArchiveRefusedError when an archive has more members (or folders) than it may."""
        if count > self.max_members:
            raise refuse("TOO_MANY_MEMBERS", f"{count:,} {what}, {self.max_members:,} are allowed")

    def check_names(self, length: int, what: str) -> None:
        """Raise ArchiveRefusedError when names (and what goes with them) take more memory than so many members need."""
        allowed = max(self.max_members * _NAME_LENGTH, _LEAST_NAMES_LENGTH)
        if length > allowed:
            raise refuse("TOO_MANY_MEMBERS", f"{what} of {length:,} bytes, {allowed:,} are allowed")

    def check_member(self, size_bytes: int, name: str) -> None:
        """Raise ArchiveRefusedError when one member is larger than it may be."""
        if size_bytes > self.max_member_bytes:
            raise refuse("MEMBER_TOO_LARGE", f"{size_bytes:,} bytes, {self.max_member_bytes:,} are allowed", name)

    def check_total(self, written_bytes: int, archive_bytes: int) -> None:
        """Raise ArchiveRefusedError when an archive of that many bytes comes to more than it may."""
        if written_bytes > self.max_archive_bytes:
            raise refuse("ARCHIVE_TOO_LARGE", f"{written_bytes:,} bytes, {self.max_archive_bytes:,} are allowed")
        if written_bytes > HONEST_BYTES and written_bytes > archive_bytes * self.max_compression_ratio:
            raise refuse(
                "RATIO_TOO_HIGH",
                f"{written_bytes:,} bytes out of {archive_bytes:,}, {self.max_compression_ratio:g} to one is allowed",
            )
