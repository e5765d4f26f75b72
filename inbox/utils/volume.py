"""Where things lie on the shared volume, and whether it is still the one that it was."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from inbox.core.errors import StorageError
from inbox.utils.filesystem import safe_write_file, sync_directory
from inbox.utils.sentinel import read_sentinel

INSTANCES: Final = "instances"
LEAST_ROOM_BYTES: Final = 4 * 1024**2
"""With less than this a volume counts as full, since a handler that failed has often removed what it wrote."""
_MOUNT_IT: Final = "mount the volume again"


@dataclass(frozen=True, slots=True)
class Volume:
    """
    The folders below the storage base; all on one file system, so that a move is a rename.

    `id` is what the volume's sentinel says. Without it nothing is known about the volume, and it passes for any.
    """

    base: Path
    uploads: Path
    extracted: Path
    id: str = ""

    @classmethod
    def at(cls, base: Path, *, uploads: str = "uploads", extracted: str = "extracted") -> Self:
        return cls(base, base / uploads, base / extracted)

    @property
    def staging(self) -> Path:
        """Where archives are unpacked; below `extracted/`, since publishing is one rename within it."""
        return self.extracted / ".staging"

    @property
    def processed(self) -> Path:
        return self.base / "processed"

    @property
    def quarantine(self) -> Path:
        return self.base / "quarantine"

    @property
    def receipts(self) -> Path:
        return self.base / "receipts"

    @property
    def private(self) -> Path:
        return self.base / ".inbox"

    @property
    def locks(self) -> Path:
        return self.private / "locks"

    @property
    def instances(self) -> Path:
        return self.private / INSTANCES

    @property
    def drafts(self) -> Path:
        """Where receipts and the like are written before they get their names."""
        return self.private / "drafts"

    @property
    def sentinel(self) -> Path:
        return self.private / "volume"

    def make(self) -> None:
        """Create what is missing, durably. Raises OSError when the volume does not allow it."""
        for folder in (*self._places(), self.staging, self.locks, self.instances, self.drafts):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                sync_directory(folder.parent)
        sync_directory(self.base)

    def require(self) -> None:
        """
        Raise StorageError unless this is the volume with our sentinel, and all of its folders lie on it.

        To be asked after what was seen, and before anything is made, claimed, told or deleted because of it: a volume
        that is gone or replaced looks like one from which everything has been taken away.
        """
        if not self.id:
            return
        try:
            found = read_sentinel(self.sentinel)
            if found is None:
                raise StorageError("the volume is not there", subject=str(self.base), hint=_MOUNT_IT)
            if found != self.id:
                raise StorageError("another volume is mounted", subject=str(self.base), hint=_MOUNT_IT)
            device = self.base.stat().st_dev
            strayed = next((folder for folder in self._places() if folder.stat().st_dev != device), None)
        except OSError as error:
            what = f"the volume cannot be read: {error.strerror}"
            raise StorageError(what, subject=str(error.filename or self.base), hint=_MOUNT_IT) from error
        if strayed is not None:
            raise StorageError("another volume is mounted", subject=str(strayed), hint="unmount it there")

    def require_room_to_write(self) -> None:
        """Raise StorageError unless the volume takes what is written, and has a little room left for more."""
        probe = self.drafts / f".probe.{secrets.token_hex(8)}"  # cleared of it, should we be killed here
        try:
            free = os.statvfs(self.private)
            if free.f_bavail * free.f_frsize < LEAST_ROOM_BYTES:
                raise StorageError("no room is left on the volume", hint="free some space", reason_code="DISK_FULL")
            safe_write_file(probe, b"probe", drafts=self.drafts)
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"the volume cannot be written: {error.strerror}", hint=_MOUNT_IT) from error

    def _places(self) -> tuple[Path, ...]:
        return self.uploads, self.extracted, self.processed, self.quarantine, self.receipts

    def relative(self, path: Path) -> str:
        """Return the path as the database keeps it: relative to the base, `/`-separated, and valid UTF-8."""
        return storable(str(path.relative_to(self.base)))

    def published(self, batch_id: str) -> Path:
        return self.extracted / batch_id


def storable(name: str) -> str:
    r"""Return a file name as text that any database and JSON can hold: bytes that are no UTF-8 show as `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_by_stored_name(folder: Path, stored: str) -> Path | None:
    """Return the file in `folder` that `storable` calls `stored`, or None."""
    direct = folder / stored
    if os.path.lexists(direct):
        return direct
    if "\\x" not in stored:
        return None
    with os.scandir(folder) as entries:
        return next((folder / entry.name for entry in entries if storable(entry.name) == stored), None)
