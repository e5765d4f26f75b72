"""Where things lie on the shared volume."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

INSTANCES: Final = "instances"


@dataclass(frozen=True, slots=True)
class Volume:
    """The folders below the storage base; all on one file system, so that a move is a rename."""

    base: Path
    uploads: Path
    extracted: Path

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

    def make(self) -> None:
        """Create what is missing. Raises OSError when the volume does not allow it."""
        for folder in (
            self.uploads,
            self.extracted,
            self.staging,
            self.processed,
            self.quarantine,
            self.receipts,
            self.locks,
            self.instances,
        ):
            folder.mkdir(parents=True, exist_ok=True)

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
